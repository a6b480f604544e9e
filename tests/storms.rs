//! Storage that fails, lies or fills up, clocks that are off, and others that act in the middle: a cycle stops before its next deed
//! or goes on, and either way nothing is lost, and the next one does the work.

#![allow(clippy::unwrap_used)]

#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use store::{HOUR, Saved, World, alone, careful};
use verger::embedded::{CycleReport, CycleRequest, Means, cycle};
use verger_kopia::clock::{Clock, SetClock, Timestamp};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::storage::BlobId;
use verger_kopia::storage::fault::{Call, Effect, Fault};
use verger_kopia::{Error, ErrorKind, Repository, Result};
use verger_proto::report::Damage;

use crate::support::PASSWORD;

const FOREVER: u64 = u64::MAX;

/// What a cycle without margins is to leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    live: BTreeSet<String>,
    marked: usize,
    packs: (usize, usize),
    sessions: usize,
}

fn left(world: &World) -> Left {
    let view = world.view();
    let (marked, live): (Vec<u32>, Vec<u32>) = view.table.rows().partition(|row| view.table.is_deleted(*row));
    Left {
        live: live.into_iter().map(|row| view.table.id(row).to_string()).collect(),
        marked: marked.len(),
        packs: (world.count("p"), world.count("q")),
        sessions: world.count("s"),
    }
}

/// A repository on which one clean cycle was watched.
struct Sea {
    world: World,
    start: Saved,
    clean: Left,
    effects: Vec<Effect>,
}

impl Sea {
    fn new(name: &str) -> Self {
        let mut world = World::golden(name, HOUR);
        let start = world.save();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        world.faults.hook(Box::new(move |effect| {
            if effect.done {
                log.lock().unwrap().push(effect.clone());
            }
            Ok(())
        }));
        world.cycle(&alone(Mode::Full));
        let clean = left(&world);
        world.restore(&start);
        let effects = seen.lock().unwrap().clone();
        assert!(effects.len() > 20);
        Self { world, start, clean, effects }
    }

    fn run(&self) -> Result<CycleReport> {
        self.world.try_cycle(&alone(Mode::Full))
    }

    /// The weather clears; nothing was lost, and the next cycle leaves what it would have left without it.
    fn clears(&mut self, what: &str) {
        self.world.faults.heal();
        self.world.assert_whole(what);
        self.world.clock.advance(Duration::from_secs(400));
        let again = self.run().unwrap_or_else(|error| panic!("{what}: the next cycle: {}", error.chain()));
        assert!(!again.is_degraded(), "{what}: {:?}", again.damage);
        assert_eq!(left(&self.world), self.clean, "{what}: what the next cycle left");
        self.world.assert_whole(&format!("{what}, and the next cycle"));
        self.world.restore(&self.start);
    }
}

fn kinds() -> [(&'static str, bool); 2] {
    [("default", true), ("format1", false)]
}

/// Prefixes of what is read, and with which calls.
const READS: [(Call, &str); 11] = [
    (Call::Get, "kopia.maintenance"),
    (Call::Get, "kopia.repository"),
    (Call::Get, "q"),
    (Call::Get, "p"),
    (Call::Get, ""),
    (Call::Head, ""),
    (Call::List, ""),
    (Call::List, "x"),
    (Call::List, "n"),
    (Call::List, "kopia."),
    (Call::Now, ""),
];

#[test]
fn a_store_that_answers_500_for_a_while_or_for_ever() {
    for (name, _) in kinds() {
        let mut sea = Sea::new(name);
        for (call, prefix) in READS {
            for (skip, times) in [(0, 1), (3, 2), (2, FOREVER)] {
                let what = format!("{name}: {call:?} {prefix} fails {times} times after {skip}");
                sea.world.faults.script(call, prefix, skip, times, Fault::Unavailable);
                let outcome = sea.run();
                if let Err(error) = &outcome {
                    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{what}: {}", error.chain());
                }
                sea.clears(&what);
            }
        }
    }
}

#[test]
fn a_body_that_ends_early_is_damage_and_never_less_to_keep() {
    for (name, _) in kinds() {
        let mut sea = Sea::new(name);
        for prefix in ["kopia.maintenance", "kopia.repository", "q", "p", "x", "n", "s", "verger.lease"] {
            for (skip, times, length) in [(0, 1, 0), (1, 1, 40), (0, FOREVER, 0), (0, FOREVER, 40), (5, FOREVER, 100)] {
                let what = format!("{name}: {prefix} ends after {length} bytes, {times} times after {skip}");
                sea.world.faults.script(Call::Get, prefix, skip, times, Fault::Truncated(length));
                match sea.run() {
                    Ok(report) => assert!(
                        report.is_degraded()
                            || times == 1
                            || skip > 0
                            || ["x", "n", "s", "verger.lease"].contains(&prefix),
                        "{what}"
                    ),
                    Err(error) => {
                        let kinds = [ErrorKind::Damaged, ErrorKind::StoreUnavailable, ErrorKind::ForeignMaintenance];
                        assert!(kinds.contains(&error.kind()), "{what}: {:?} {}", error.kind(), error.chain());
                    }
                }
                sea.clears(&what);
            }
        }
    }
}

#[test]
fn a_listing_that_is_stale() {
    for (name, _) in kinds() {
        let mut sea = Sea::new(name);
        for fault in [Fault::StaleList(1), Fault::StaleList(4), Fault::Ghosts(1), Fault::Ghosts(6)] {
            for prefix in ["", "x", "n", "p", "kopia."] {
                for skip in [0, 2] {
                    let what = format!("{name}: {fault:?} in listings of {prefix:?} after {skip}");
                    sea.world.faults.script(Call::List, prefix, skip, FOREVER, fault);
                    if let Err(error) = sea.run() {
                        assert_ne!(error.kind(), ErrorKind::Internal, "{what}: {}", error.chain());
                    }
                    sea.clears(&what);
                }
            }
        }
    }
}

/// Lets the Nth change of the next cycle fail so: before it happened, or after.
fn strike(world: &World, number: usize, after: bool, kind: ErrorKind) {
    let seen = AtomicU64::new(0);
    world.faults.hook(Box::new(move |effect: &Effect| {
        let hit = effect.done == after && seen.fetch_add(1, Ordering::SeqCst) as usize + 1 == number;
        if hit { Err(Error::new(kind, format!("{:?} {}: struck", effect.call, effect.id))) } else { Ok(()) }
    }));
}

#[test]
fn an_answer_that_does_not_come_is_looked_at_again_for_each_write() {
    for (name, _) in kinds() {
        let mut sea = Sea::new(name);
        for number in 1..=sea.effects.len() {
            let after = number % 3 != 0;
            let what = format!("{name}: no answer to change {number}, {:?}, done: {after}", sea.effects[number - 1]);
            strike(&sea.world, number, after, ErrorKind::StoreUnavailable);
            match sea.run() {
                // Nothing was doubled, but for packs that nothing points to.
                Ok(report) => {
                    sea.world.faults.heal();
                    assert!(!report.is_degraded(), "{what}");
                    let left = left(&sea.world);
                    assert_eq!((&left.live, left.marked), (&sea.clean.live, sea.clean.marked), "{what}");
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{what}: {}", error.chain()),
            }
            sea.clears(&what);
        }
    }
}

/// The first change of each kind: a write or a deletion, by the letters of the name.
fn first_of_each(effects: &[Effect]) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let kind = |effect: &Effect| {
        let name = effect.id.as_str();
        let letters = if name.starts_with('x') {
            2
        } else if name.contains('.') {
            name.len()
        } else {
            1
        };
        (effect.call == Call::Put, name[..letters].to_owned())
    };
    effects.iter().enumerate().filter(|(_, effect)| seen.insert(kind(effect))).map(|(at, _)| at + 1).collect()
}

#[test]
fn no_right_and_no_room_for_each_kind_of_write() {
    for (name, _) in kinds() {
        let mut sea = Sea::new(name);
        let numbers = first_of_each(&sea.effects);
        assert!(numbers.len() >= 7, "{numbers:?}");
        for number in numbers {
            let struck = sea.effects[number - 1].clone();
            for kind in [ErrorKind::Permission, ErrorKind::DiskFull] {
                let what = format!("{name}: {kind:?} at {struck:?}");
                strike(&sea.world, number, false, kind);
                match sea.run() {
                    Err(error) => assert_eq!(error.kind(), kind, "{what}: {}", error.chain()),
                    Ok(report) => {
                        assert!(struck.call == Call::Delete && kind == ErrorKind::Permission, "{what} did not fail");
                        if !struck.id.as_str().starts_with('s') {
                            // Names are other ones in each run.
                            let letter = &struck.id.as_str()[..1];
                            let named = report.damage.iter().any(|one| one.subject.starts_with(letter));
                            assert!(named && report.refused_deletes == 1, "{what}: {:?}", report.damage);
                        }
                    }
                }
                sea.clears(&what);
            }
        }
    }
}

#[test]
fn r24_locked_blobs_stay_are_named_and_stop_nothing_else() {
    for (name, _) in kinds() {
        let mut sea = Sea::new(name);
        for call in ["p", "q", "x", "n", ""] {
            sea.world.faults.script(Call::Delete, call, 0, FOREVER, Fault::Permission);
            let what = format!("{name}: no deletion of {call}");
            match sea.run() {
                Ok(report) => {
                    let gone: Vec<_> = sea
                        .effects
                        .iter()
                        .filter(|e| e.call == Call::Delete && e.id.as_str().starts_with(call))
                        .collect();
                    let packs = gone.iter().filter(|e| e.id.as_str().starts_with(['p', 'q'])).count() as u64;
                    assert!(report.refused_deletes >= packs.min(1), "{what}: {packs} {:?}", report.damage);
                    assert_eq!(report.refused_deletes, report.damage.len() as u64, "{what}");
                    let storage = sea.world.outside.storage();
                    let stays = |one: &Damage| storage.head(&BlobId::new(one.subject.as_str())).unwrap().length;
                    assert_eq!(report.refused_bytes, report.damage.iter().map(stays).sum::<u64>(), "{what}");
                    assert!(report.tasks.contains_key("full-rewrite-contents"), "{what}");
                }
                Err(error) => {
                    assert!(call.is_empty() && error.kind() == ErrorKind::Permission, "{what}: {}", error.chain())
                }
            }
            sea.clears(&what);
        }
    }
}

/// A pack that the cycle deletes and that was there before it, so that it has the same name in each run.
fn old_pack(sea: &Sea) -> BlobId {
    let is_old = |id: &&BlobId| id.as_str().starts_with('p') && sea.world.outside.storage().head(id).is_ok();
    let deleted = sea.effects.iter().filter(|effect| effect.call == Call::Delete).map(|effect| &effect.id);
    deleted
        .clone()
        .find(is_old)
        .unwrap_or_else(|| panic!("no old pack among {:?}", deleted.collect::<Vec<_>>()))
        .clone()
}

/// Answers the first `times` deletions of one blob with "not now"; told of each before that, it counts them.
fn hold_back(world: &World, slow: &BlobId, times: u64, also: impl Fn() + Send + Sync + 'static) -> Arc<AtomicU64> {
    let (slow, asked) = (slow.clone(), Arc::new(AtomicU64::new(0)));
    let count = asked.clone();
    world.faults.hook(Box::new(move |effect: &Effect| {
        if effect.done || effect.call != Call::Delete || effect.id != slow {
            return Ok(());
        }
        also();
        let before = count.fetch_add(1, Ordering::SeqCst);
        if before < times { Err(Error::new(ErrorKind::StoreUnavailable, "SlowDown")) } else { Ok(()) }
    }));
    asked
}

#[test]
fn deletions_that_a_store_holds_back_are_asked_for_again_while_there_is_time() {
    for (name, _) in kinds() {
        let mut sea = Sea::new(name);
        let slow = old_pack(&sea);
        for (times, is_enough) in [(4, true), (5, false)] {
            let what = format!("{name}: {times} times no answer to the deletion of {slow}");
            let asked = hold_back(&sea.world, &slow, times, || {});
            match sea.run() {
                Ok(report) => {
                    assert!(is_enough && !report.is_degraded(), "{what}: {:?}", report.damage);
                    assert_eq!(left(&sea.world).packs, sea.clean.packs, "{what}");
                }
                Err(error) => {
                    assert!(!is_enough && error.kind() == ErrorKind::StoreUnavailable, "{what}: {}", error.chain());
                }
            }
            assert_eq!(asked.load(Ordering::SeqCst), 5, "{what}");
            sea.clears(&what);
        }
    }
}

/// A clock of a machine that sleeps for longer than it was told to, once: boot time stands still meanwhile, as it does on some.
#[derive(Debug)]
struct Snoring {
    inner: Arc<SetClock>,
    is_tired: Arc<AtomicBool>,
}

impl Clock for Snoring {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn since_boot(&self) -> Duration {
        self.inner.since_boot()
    }

    fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration);
        if self.is_tired.swap(false, Ordering::SeqCst) {
            self.inner.set(self.inner.now() + Duration::from_secs(200));
        }
    }
}

#[test]
fn r2_a_machine_that_slept_while_it_waited_to_ask_again_deletes_nothing_more() {
    for (name, _) in kinds() {
        let mut sea = Sea::new(name);
        let slow = old_pack(&sea);
        let is_tired = Arc::<AtomicBool>::default();
        let (tired, inner) = (is_tired.clone(), sea.world.clock.clone());
        let asked = hold_back(&sea.world, &slow, 1, move || tired.store(true, Ordering::SeqCst));
        let clock = Arc::new(Snoring { inner, is_tired: is_tired.clone() });
        let repository = Repository::open(sea.world.faults.clone(), PASSWORD, clock).unwrap();
        let error = cycle(Means { repository, ..sea.world.means() }, &alone(Mode::Full)).unwrap_err();
        assert!(!is_tired.load(Ordering::SeqCst), "{name}: it did not wait");
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{name}: {}", error.chain());
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{name}");
        assert!(sea.world.outside.storage().head(&slow).is_ok(), "{name}");
        sea.clears(name);
    }
}

/// Another clock for the maintainer than for the store.
fn with_clock(world: &World, off: i64) -> (Arc<SetClock>, Means) {
    let clock = Arc::new(SetClock::new(world.now() + jiff::SignedDuration::from_secs(off)));
    let repository = Repository::open(world.faults.clone(), PASSWORD, clock.clone()).unwrap();
    (clock, Means { repository, ..world.means() })
}

#[test]
fn a_clock_that_is_off_by_more_than_five_minutes_changes_nothing() {
    for off in [-360, 360] {
        let world = World::golden("default", HOUR);
        let before = world.contents();
        let (_, means) = with_clock(&world, off);
        let error = cycle(means, &alone(Mode::Full)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Clock, "{off}: {}", error.chain());
        assert!(error.to_string().contains("6 minutes") && error.fix().unwrap().contains("NTP"), "{error:?}");
        let changed: Vec<_> = world.contents().into_iter().filter(|(id, data)| before.get(id) != Some(data)).collect();
        assert!(changed.iter().all(|(id, _)| id.as_str() == "verger.lease"), "{off}: {changed:?}");
    }
}

#[test]
fn a_clock_that_jumps_in_the_middle_stops_or_harms_nothing() {
    for off in [-3600, -360, 360, 3600] {
        for stage in ["solve", "publish", "delete"] {
            let world = World::golden("default", HOUR);
            let (clock, means) = with_clock(&world, 0);
            world.meanwhile.at(stage, move || {
                let now = clock.now();
                clock.set(now + jiff::SignedDuration::from_secs(off));
            });
            let outcome = cycle(means, &alone(Mode::Full));
            if let Err(error) = &outcome {
                let kinds = [ErrorKind::DeadlinePassed, ErrorKind::Clock, ErrorKind::PlanRefused, ErrorKind::Locked];
                assert!(kinds.contains(&error.kind()), "{off} at {stage}: {:?} {}", error.kind(), error.chain());
            }
            world.assert_whole(&format!("the clock jumped by {off} s at {stage}: {:?}", outcome.err()));
        }
    }
}

/// No effect that clients see happens after something was done behind the cycle's back at a stage.
fn stops(sea: &mut Sea, stage: &'static str, what: &str, plant: impl Fn(&World) + Send, kinds: &[ErrorKind]) {
    let what = format!("{}: {what} at {stage}", sea.world.name);
    let original = sea.world.contents();
    let later: Arc<Mutex<Option<Vec<Effect>>>> = Arc::default();
    let (log, armed) = (later.clone(), later.clone());
    sea.world.faults.hook(Box::new(move |effect: &Effect| {
        if let Some(later) = log.lock().unwrap().as_mut().filter(|_| effect.done) {
            later.push(effect.clone());
        }
        Ok(())
    }));
    let (send, receive) = mpsc::channel::<()>();
    let (told, waits) = mpsc::channel::<()>();
    sea.world.meanwhile.at(stage, move || {
        send.send(()).unwrap();
        waits.recv().unwrap();
        *armed.lock().unwrap() = Some(Vec::new());
    });
    let world = &sea.world;
    let outcome = std::thread::scope(|scope| {
        let run = scope.spawn(|| world.try_cycle(&alone(Mode::Full)));
        receive.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("{what}: the stage never came"));
        plant(world);
        told.send(()).unwrap();
        run.join().unwrap()
    });
    let error = outcome.expect_err(&what);
    assert!(kinds.contains(&error.kind()), "{what}: {:?} {}", error.kind(), error.chain());
    assert!(error.fix().is_some(), "{what}: no fix: {}", error.chain());
    for effect in later.lock().unwrap().take().unwrap() {
        let name = effect.id.as_str();
        let harmless = name == "verger.lease"
            || effect.call == Call::Put && name.starts_with(['p', 'q', 's'])
            || effect.call == Call::Delete && name.starts_with('s');
        // The batch under way was approved before.
        assert!(harmless || stage == "delete", "{what}: {effect:?}");
    }
    let format = BlobId::from("kopia.repository");
    sea.world.plant(&format, original[&format].clone(), &format);
    sea.world.faults.heal();
    sea.world.clock.advance(HOUR);
    sea.clears(&what);
}

#[path = "support/format.rs"]
mod format;

#[test]
fn r22_a_format_that_changes_in_the_middle_stops_the_cycle_before_its_next_deed() {
    for (name, epochs) in kinds() {
        let mut sea = Sea::new(name);
        let blob = BlobId::from("kopia.repository");
        let whole = sea.world.contents()[&blob].to_vec();
        let lock = serde_json::json!({
            "ownerID": "somebody", "creationTime": "2026-01-01T00:00:00Z", "advanceNoticeDuration": 0,
            "ioDrainTimeout": 900_000_000_000_u64, "message": "back soon",
        });
        let locked = format::changed(&whole, PASSWORD, PASSWORD, |format| format["upgradeLock"] = lock);
        let password = format::changed(&whole, PASSWORD, "another", |_| ());
        let stages = if epochs { &["solve", "rewrite", "publish"][..] } else { &["solve", "rewrite"] };
        for stage in stages {
            for (what, bytes, kinds) in [
                ("an upgrade", &locked, &[ErrorKind::UpgradeInProgress][..]),
                ("another password", &password, &[ErrorKind::WrongPassword]),
                ("a truncated format", &whole[..300].to_vec(), &[ErrorKind::Damaged]),
            ] {
                let bytes = bytes.clone();
                let plant =
                    |world: &World| world.plant(&BlobId::from("kopia.repository"), bytes.clone(), &BlobId::from("x"));
                stops(&mut sea, stage, what, plant, kinds);
            }
        }
    }
}

/// A client that lags by an epoch writes an index blob into one that is just being compacted: the compaction would hide it.
#[test]
fn r16_a_late_index_blob_in_an_epoch_is_not_hidden_by_its_compaction() {
    let world = World::golden("epochs", HOUR * 48);
    let blobs = world.contents();
    let newest = blobs.keys().rev().find(|id| id.as_str().starts_with("xn6_")).unwrap().clone();
    let late = BlobId::new(newest.as_str().replace("xn6_", "xn4_"));
    let (outside, bytes, name) = (world.outside.clone(), blobs[&newest].clone(), late.clone());
    let planted = Arc::new(AtomicU64::new(0));
    let count = planted.clone();
    world.faults.hook(Box::new(move |effect: &Effect| {
        // Right before the compaction of the epoch becomes visible.
        if !effect.done && effect.id.as_str().starts_with("xs4_") && count.fetch_add(1, Ordering::SeqCst) == 0 {
            outside.storage().put(&name, bytes.clone(), &Default::default()).unwrap();
        }
        Ok(())
    }));
    let outcome = world.try_cycle(&alone(Mode::Full));
    world.faults.heal();
    assert!(planted.load(Ordering::SeqCst) == 1, "no compaction of epoch 4: {outcome:?}");
    assert!(world.names("xn").contains_key(late.as_str()), "the late blob went");
}

#[test]
fn a_panic_in_the_work_ends_the_process_and_not_only_its_hopes() {
    let world = Arc::new(World::golden("default", HOUR));
    world.meanwhile.at("solve", || panic!("on purpose"));
    let (send, receive) = mpsc::channel();
    let inside = world.clone();
    std::thread::spawn(move || {
        let work = std::panic::AssertUnwindSafe(|| inside.try_cycle(&careful(Some(Mode::Full))).map(drop));
        send.send(std::panic::catch_unwind(work).is_err()).unwrap();
    });
    let panicked = receive.recv_timeout(Duration::from_secs(30));
    assert_eq!(panicked, Ok(true), "the renewer of the lease holds the process");
    world.clock.advance(HOUR);
    world.cycle(&CycleRequest { wait: true, ..careful(Some(Mode::Full)) });
}
