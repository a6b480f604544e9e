//! Whole cycles against the rules of `docs/safety.md`, by number: late writes, leases, damage, records, other maintainers, secrets.

#![allow(clippy::unwrap_used)]

#[path = "support/client.rs"]
mod client;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use verger::embedded::{CycleRequest, Means, Safety, cycle};
use verger_kopia::ErrorKind;
use verger_kopia::maintenance::Params;
use verger_kopia::maintenance::history::Task;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::maintenance::schedule;
use verger_kopia::manifest::entry::{encode, new_id};
use verger_kopia::manifest::{ManifestEntry, ManifestSet};
use verger_kopia::storage::fault::{Call, Effect, Fault};
use verger_kopia::storage::{BlobId, ByteRange, PutOptions};
use verger_worker::bucket_lease::{self, LEASE, LeaseBody};

use crate::client::{Client, Trust};
use crate::store::{HOUR, World, alone, careful};
use crate::support::OWNER;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn full() -> CycleRequest {
    careful(Some(Mode::Full))
}

fn lease(world: &World) -> LeaseBody {
    bucket_lease::read(&**world.outside.storage()).unwrap().unwrap().1
}

/// Effects in order: before and after each.
fn watch(world: &World) -> Arc<Mutex<Vec<Effect>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    world.faults.hook(Box::new(move |effect: &Effect| {
        log.lock().unwrap().push(effect.clone());
        Ok(())
    }));
    seen
}

/// What may take effect late without harm: new packs and markers that nothing points to, the lease under its own condition, and
/// the marker of a session that is over.
fn harmless_late(effect: &Effect) -> bool {
    let name = effect.id.as_str();
    name == LEASE || effect.call == Call::Put && name.starts_with(['p', 'q', 's'])
}

#[test]
fn r1_no_write_takes_effect_after_its_approval_ended() {
    for (name, request) in
        [("epochs", alone(Mode::Full)), ("format1", alone(Mode::Full)), ("format1", alone(Mode::Quick))]
    {
        let mut world = World::golden(name, DAY * 2);
        let saved = world.save();
        let all = watch(&world);
        world.cycle(&request);
        let effects: Vec<Effect> = all.lock().unwrap().iter().filter(|effect| !effect.done).cloned().collect();
        let own_markers: BTreeSet<String> = effects
            .iter()
            .filter(|effect| effect.call == Call::Put && effect.id.as_str().starts_with('s'))
            .map(|effect| effect.id.to_string())
            .collect();
        let mut late = 0;
        for at in 0..effects.len() {
            world.restore(&saved);
            let (clock, count, result) = (world.clock.clone(), Mutex::new(0), Arc::new(Mutex::new(None)));
            let told = result.clone();
            world.faults.hook(Box::new(move |effect: &Effect| {
                let mut count = count.lock().unwrap();
                if !effect.done {
                    *count += 1;
                    if *count == at + 1 {
                        // The process was frozen, or the network held the request back.
                        clock.advance(Duration::from_secs(121));
                        *told.lock().unwrap() = Some((effect.clone(), false));
                    }
                } else if *count == at + 1
                    && let Some((_, done)) = told.lock().unwrap().as_mut()
                {
                    *done = true;
                }
                Ok(())
            }));
            let outcome = world.try_cycle(&request);
            world.faults.heal();
            let (effect, done) = result.lock().unwrap().clone().unwrap();
            // Session IDs differ from run to run, so markers are told by their kind.
            let own_marker =
                effect.call == Call::Delete && effect.id.as_str().starts_with('s') && !own_markers.is_empty();
            if !harmless_late(&effect) && !own_marker {
                assert!(!done, "{name}: {effect:?} took effect late: {:?}", outcome.map(|report| report.outcome));
                assert!(outcome.is_err(), "{name}: {effect:?}");
                late += 1;
            }
            world.assert_whole(&format!("{effect:?} late"));
        }
        assert!(late >= 4, "{name}: {late} of {effects:?}");
    }
}

#[test]
fn r1_s7_after_a_late_write_the_next_cycle_does_the_work() {
    let world = World::golden("default", DAY * 2);
    let clock = world.clock.clone();
    world.faults.hook(Box::new(move |effect: &Effect| {
        if !effect.done && effect.id.as_str().starts_with("xn") {
            clock.advance(Duration::from_secs(121));
        }
        Ok(())
    }));
    let before = world.names("xn");
    assert_eq!(world.try_cycle(&full()).unwrap_err().kind(), ErrorKind::DeadlinePassed);
    assert_eq!(world.names("xn"), before);
    world.faults.heal();
    world.cycle(&full());
    assert!(world.names("xn").len() > before.len());
}

#[test]
fn r3_terms_of_two_state_folders_grow_on_one_store() {
    let world = World::golden("default", DAY * 2);
    let other = tempfile::tempdir().unwrap();
    let elsewhere = || Means { state_dir: other.path().to_owned(), ..world.means() };
    let first = world.cycle(&full()).term;
    let second = cycle(elsewhere(), &full()).unwrap().term;
    let third = world.cycle(&full()).term;
    assert!(first < second && second < third, "{first} {second} {third}");
    // In the middle of a cycle the other one is locked out, and changes nothing.
    let (means, refused) = (elsewhere(), Arc::new(Mutex::new(None)));
    let told = refused.clone();
    world.meanwhile.at("solve", move || {
        let request = CycleRequest { wait: false, ..full() };
        *told.lock().unwrap() = Some(cycle(means, &request).unwrap_err().kind());
    });
    world.cycle(&full());
    assert!(world.meanwhile.is_over());
    assert_eq!(*refused.lock().unwrap(), Some(ErrorKind::Locked));
}

/// A cycle that ends in the middle of its reading.
fn fail_reading(world: &World) {
    let faults = world.faults.clone();
    world.meanwhile.at("scan", move || faults.script(Call::Get, "q", 0, 1000, Fault::Unavailable));
    assert_eq!(world.try_cycle(&full()).unwrap_err().kind(), ErrorKind::StoreUnavailable);
    assert!(world.meanwhile.is_over());
}

#[test]
fn r4_the_lease_is_free_after_each_end_that_is_known_and_after_no_other() {
    let world = World::golden("default", DAY * 2);
    world.cycle(&full());
    assert!(lease(&world).free);
    let stop = world.stop.clone();
    world.meanwhile.at("solve", move || stop.ask());
    assert_eq!(world.try_cycle(&full()).unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(lease(&world).free, "interrupted while reading");

    let world = World::golden("default", DAY * 2);
    fail_reading(&world);
    world.faults.heal();
    assert!(lease(&world).free, "failed while reading");

    let world = World::golden("default", DAY * 2);
    world.faults.script(Call::Put, "xn", 0, 1, Fault::TimeoutBefore);
    assert_eq!(world.try_cycle(&full()).unwrap_err().kind(), ErrorKind::StoreUnavailable);
    world.faults.heal();
    assert!(!lease(&world).free, "a request may still be under way");
    let locked = CycleRequest { wait: false, ..full() };
    let other = tempfile::tempdir().unwrap();
    let means = Means { state_dir: other.path().to_owned(), ..world.means() };
    assert_eq!(cycle(means, &locked).unwrap_err().kind(), ErrorKind::Locked);
    // The same state folder has the lock that the lease names: its holder is dead, and is waited out.
    let (began, term) = (world.now(), lease(&world).term);
    let report = world.cycle(&locked);
    assert!(world.now().duration_since(began).as_secs() >= 180 && report.term > term);
}

#[test]
fn r5_a_lease_that_somebody_took_over_ends_the_cycle_before_its_first_write() {
    let world = World::golden("default", DAY * 2);
    let outside = world.outside.clone();
    let clock = world.clock.clone();
    world.meanwhile.at("solve", move || {
        clock.advance(Duration::from_secs(70));
        let (_, body) = bucket_lease::read(&**outside.storage()).unwrap().unwrap();
        let body = LeaseBody { term: body.term + 1, holder: "other@fleet".to_owned(), writer: "x".to_owned(), ..body };
        let data = serde_json::to_vec(&body).unwrap().into();
        outside.storage().put(&BlobId::from(LEASE), data, &PutOptions::default()).unwrap();
    });
    let before = world.names("x");
    assert_eq!(world.try_cycle(&full()).unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(world.names("x"), before);
    assert_eq!((lease(&world).holder.as_str(), lease(&world).free), ("other@fleet", false));
}

#[test]
fn r6_the_term_is_remembered_before_anything_is_done_and_a_missing_lease_is_waited_for() {
    let world = World::golden("default", DAY * 2);
    fail_reading(&world);
    world.faults.heal();
    assert!(world.outside.storage().delete(&[BlobId::from(LEASE)], None).failed.is_empty());
    let began = world.now();
    let report = world.cycle(&full());
    assert!(world.now().duration_since(began).as_secs() >= 180 && report.term == 2);
}

/// How many marks readers see.
fn marks(world: &World) -> usize {
    let view = world.view();
    view.table.rows().filter(|row| view.table.is_deleted(*row)).count()
}

#[test]
fn r11_what_cannot_be_read_freezes_marks_records_and_watermark() {
    let world = World::golden("default", DAY * 2);
    // The pack that the root of a snapshot lies in; its own entry stays.
    let view = world.view();
    let manifests = ManifestSet::load(&world.outside, &view).unwrap();
    let body: serde_json::Value =
        serde_json::from_str(manifests.of_type("snapshot").next().unwrap().data.get()).unwrap();
    let root = view.table.find(&body["rootEntry"]["obj"].as_str().unwrap().parse().unwrap()).unwrap();
    let entry = view.table.entry(root);
    let storage = world.outside.storage();
    let mut data = storage.get(&entry.pack, ByteRange::All).unwrap().to_vec();
    data[entry.offset as usize + 5] ^= 1;
    storage.put(&entry.pack, data.into(), &PutOptions::default()).unwrap();
    let (before, began, watermarks) = (marks(&world), world.now(), world.names("xw"));
    let report = world.try_cycle(&full()).unwrap();
    assert!(report.is_degraded() && !report.damage.is_empty(), "{report:?}");
    assert_eq!((marks(&world), world.names("xw")), (before, watermarks));
    assert!(world.history().history(Task::SnapshotGc).iter().all(|run| run.start < began));
    assert!(!report.tasks.contains_key("snapshot-gc"));
}

#[test]
fn r11_a_lost_index_stops_all_that_takes_away_and_quick_cycles_remember_it() {
    let world = World::golden("format1", DAY * 2);
    let indexes = world.blobs("n");
    let largest = indexes.iter().max_by_key(|blob| blob.length).unwrap();
    let kept = world.outside.storage().get(&largest.id, ByteRange::All).unwrap();
    world.outside.storage().delete(std::slice::from_ref(&largest.id), None);
    let blobs = world.names("");
    let outcome = world.try_cycle(&full());
    let gone = |world: &World| blobs.keys().filter(|name| !world.names("").contains_key(*name)).count();
    assert_eq!(gone(&world), 0, "{outcome:?}");
    assert!(outcome.unwrap().is_degraded());
    let quick = world.try_cycle(&careful(Some(Mode::Quick))).unwrap_err();
    assert_eq!(quick.kind(), ErrorKind::Damaged);
    assert_eq!(gone(&world), 0);
    world.outside.storage().put(&largest.id, kept, &PutOptions::default()).unwrap();
    world.cycle(&full());
    world.cycle(&careful(Some(Mode::Quick)));
}

#[test]
fn r16_a_compacted_set_that_does_not_read_back_takes_nothing_older_away() {
    let world = World::golden("epochs", DAY * 60);
    let before = world.names("xn");
    let sets = world.count("xs");
    world.faults.script(Call::Get, "xs", 0, 1000, Fault::Truncated(40));
    assert_eq!(world.try_cycle(&full()).unwrap_err().kind(), ErrorKind::Damaged);
    world.faults.heal();
    assert!(before.keys().all(|name| world.names("xn").contains_key(name)));
    assert!(sets < world.count("xs"), "it was the new set that did not read back");
}

#[test]
fn r20_the_record_of_a_rewrite_stands_before_its_first_entry_and_that_of_gc_after_its_last_mark() {
    let world = World::golden("default", DAY * 2);
    let (outside, began) = (world.outside.clone(), world.now());
    let story = Arc::new(Mutex::new(Vec::new()));
    let log = story.clone();
    world.faults.hook(Box::new(move |effect: &Effect| {
        if !effect.done && effect.call == Call::Put && effect.id.as_str().starts_with("xn") {
            let schedule = schedule::load(&outside).unwrap().schedule;
            let has = |task| schedule.history(task).iter().any(|run| run.success && run.start >= began);
            log.lock().unwrap().push((has(Task::SnapshotGc), has(Task::FullRewriteContents)));
        }
        Ok(())
    }));
    world.cycle(&alone(Mode::Full));
    assert_eq!(*story.lock().unwrap(), [(false, false), (true, true)], "marks, then what was moved");
}

#[test]
fn r20_a_cycle_that_dies_after_its_marks_has_no_gc_in_the_history() {
    let world = World::golden("default", DAY * 2);
    let began = world.now();
    let dead = Mutex::new(false);
    world.faults.hook(Box::new(move |effect: &Effect| {
        let mut dead = dead.lock().unwrap();
        *dead |= effect.done && effect.id.as_str().starts_with("xn");
        if *dead && !effect.done { Err(verger_kopia::Error::new(ErrorKind::Interrupted, "killed")) } else { Ok(()) }
    }));
    world.try_cycle(&full()).unwrap_err();
    world.faults.heal();
    let recorded = |world: &World| world.history().history(Task::SnapshotGc).iter().any(|run| run.start >= began);
    assert!(!recorded(&world));
    world.clock.advance(HOUR);
    world.cycle(&full());
    assert!(recorded(&world));
}

#[test]
fn r21_the_marker_of_a_dead_cycle_goes_after_a_day_with_its_ledger_and_after_four_without() {
    for own in [true, false] {
        let world = World::golden("default", DAY * 2);
        let dead = Mutex::new(false);
        world.faults.hook(Box::new(move |effect: &Effect| {
            let mut dead = dead.lock().unwrap();
            *dead |= effect.done && effect.call == Call::Put && effect.id.as_str().starts_with('p');
            if *dead && !effect.done { Err(verger_kopia::Error::new(ErrorKind::Interrupted, "killed")) } else { Ok(()) }
        }));
        world.try_cycle(&alone(Mode::Full)).unwrap_err();
        world.faults.heal();
        let markers = world.names("s");
        assert_eq!(markers.len(), 1);
        world.clock.advance(DAY + HOUR);
        let other = tempfile::tempdir().unwrap();
        let means = || match own {
            true => world.means(),
            false => Means { state_dir: other.path().to_owned(), ..world.means() },
        };
        cycle(means(), &full()).unwrap();
        assert_eq!(world.count("s"), usize::from(!own));
        world.clock.advance(DAY * 4);
        cycle(means(), &full()).unwrap();
        assert_eq!(world.count("s"), 0);
        world.assert_whole("the marker went");
    }
}

#[test]
fn r22_a_new_owner_and_a_foreign_schedule_end_the_cycle_before_its_next_write() {
    for what in ["owner", "schedule"] {
        let world = World::golden("default", DAY * 2);
        let outside = world.outside.clone();
        world.meanwhile.at("solve", move || {
            if what == "schedule" {
                let loaded = schedule::load(&outside).unwrap();
                schedule::replace(&outside, &loaded, &loaded.schedule, None).unwrap();
                return;
            }
            let view = verger_kopia::index_set::load_view(&outside, 1).unwrap();
            let params = Params::load(&ManifestSet::load(&outside, &view).unwrap()).unwrap();
            let params = Params { owner: "other@host".to_owned(), ..params };
            let labels = [("type".to_owned(), "maintenance".to_owned())].into();
            let data = serde_json::value::RawValue::from_string(params.to_json()).unwrap();
            let entry = ManifestEntry::put(new_id(), labels, outside.clock().now(), data);
            Client::new(&outside, Trust::Nothing).write(&[(b'm', encode(&[entry]))]);
        });
        let before = marks(&world);
        assert_eq!(world.try_cycle(&full()).unwrap_err().kind(), ErrorKind::ForeignMaintenance, "{what}");
        assert!(world.meanwhile.is_over());
        assert_eq!(marks(&world), before, "{what}");
    }
}

#[test]
fn r23_safety_none_without_the_word_is_refused_with_what_was_seen() {
    let world = World::golden("default", HOUR);
    let request = CycleRequest { safety: Safety::None, ..full() };
    let error = world.try_cycle(&request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("an index blob written at"), "{error}");
    assert!(error.fix().is_some_and(|fix| fix.contains("--i-am-alone")));
    let quiet = World::golden("default", DAY * 30);
    assert!(quiet.try_cycle(&request).unwrap_err().to_string().contains("nothing, which proves nothing"));
}

#[test]
fn s9_no_key_is_in_ledger_evidence_or_errors() {
    let world = World::golden("default", DAY * 2);
    let mut texts = Vec::new();
    for prefix in ["q", "x", "kopia.maintenance", "p"] {
        world.faults.script(Call::Get, prefix, 0, 1, Fault::Truncated(30));
        texts.extend(world.try_cycle(&full()).err().map(|error| format!("{error:?} {}", error.chain())));
    }
    world.faults.heal();
    texts.push(format!("{:?}", world.try_cycle(&alone(Mode::Full)).unwrap()));
    texts.push(format!("{:?}", world.repository));
    let config = world.repository.config();
    let derived = world.repository.derive_key(schedule::KEY_PURPOSE);
    let secrets = [config.master_key.as_slice(), config.secret.as_slice(), derived.as_slice()];
    let hex = |bytes: &[u8]| verger_kopia::hex(bytes).into_bytes();
    let wanted: Vec<Vec<u8>> = secrets.iter().flat_map(|secret| [secret.to_vec(), hex(secret)]).collect();
    let mut files = 0;
    let mut folders = vec![world.state_dir()];
    let mut haystacks: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                files += 1;
                haystacks.push(std::fs::read(entry).unwrap());
            }
        }
    }
    assert!(files >= 3 && wanted.iter().all(|secret| secret.len() >= 16));
    for hay in &haystacks {
        assert!(!wanted.iter().any(|secret| hay.windows(secret.len()).any(|window| window == secret)));
    }
    assert_eq!(OWNER.split('@').count(), 2);
}
