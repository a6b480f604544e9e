//! A cycle of a fleet that another of its processes takes up, with nothing of the first one's disk: what was ours in the store is known
//! there (R21, R22), and nothing else is taken for ours.

#![allow(clippy::unwrap_used)]

#[path = "support/store.rs"]
mod store;
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use verger::embedded::{Coordination, CycleReport, CycleRequest, Means, Ownership, Shared, cycle};
use verger_coordinator::drive::{Backend, DrivenBackend, FileBackend, Router};
use verger_coordinator::machine::State;
use verger_kopia::clock::Clock as _;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::maintenance::schedule;
use verger_kopia::storage::fault::{Call, Effect};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::event::CycleEnd;
use verger_proto::{
    Acting, Command, Driver, Event, IndexKind, MarkToDrop, Registration, RepositoryId, RepositoryName, Schedule,
    SecretRef, WorkerId,
};

use verger_worker::bucket_lease::{self, LEASE, LeaseBody, name_store};

use crate::store::{HOUR, World, alone, careful};
use crate::support::OWNER;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// After so long without a sign of life another process may drive.
const SILENCE: Duration = Duration::from_secs(20);

fn killed() -> Error {
    Error::new(ErrorKind::Interrupted, "killed")
}

/// A process that is dead writes nothing more, into the store or into the machine.
struct Mortal {
    inner: Arc<dyn Backend>,
    is_dead: Arc<AtomicBool>,
}

impl Backend for Mortal {
    fn applied(&self) -> u64 {
        self.inner.applied()
    }

    fn submit(&self, command: Command) -> Result<Vec<Event>> {
        if self.is_dead.load(Ordering::SeqCst) { Err(killed()) } else { self.inner.submit(command) }
    }

    fn look(&self, look: &mut dyn FnMut(&State)) {
        self.inner.look(look);
    }

    fn wait(&self, at_most: Duration, look: &mut dyn FnMut(&State) -> bool) {
        self.inner.wait(at_most, look);
    }
}

/// A fleet whose processes share the machine, and nothing else.
struct Fleet {
    world: World,
    machine: Arc<FileBackend>,
    router: Arc<Router>,
    repository: RepositoryId,
    disks: Mutex<Vec<tempfile::TempDir>>,
}

impl Fleet {
    fn new(name: &str) -> Self {
        let world = World::golden(name, DAY * 2);
        let router = Arc::new(Router::default());
        let folder = world.state_dir().join("machine");
        let machine = Arc::new(FileBackend::open(&folder, world.clock.clone(), router.clone(), None).unwrap());
        let unique = verger_kopia::hex(world.repository.unique_id());
        let repository: RepositoryId = format!("{unique}-{}", "01".repeat(16)).parse().unwrap();
        let registration = Registration {
            name: RepositoryName::new("photos").unwrap(),
            address: "memory:".to_owned(),
            tenant: "home".to_owned(),
            password: SecretRef::Env("PHOTOS".to_owned()),
            acting: Acting::ActAs(OWNER.to_owned()),
            exclusive: true,
            index: IndexKind::Epochs,
            schedule: Schedule::default(),
            pool: "default".to_owned(),
            weight: 1,
            mark_to_drop: MarkToDrop::Day,
        };
        let add = Command::AddRepository { repository: repository.clone(), registration: Box::new(registration) };
        machine.submit(add).unwrap();
        Self { world, machine, router, repository, disks: Mutex::default() }
    }

    /// The means of a process on a disk of its own, in the fleet's name; it drives the repository.
    fn node(&self, node: u64, is_dead: &Arc<AtomicBool>) -> Means {
        let driver = Driver { node, boots: 1, run: 1 };
        let driven = DrivenBackend::take(self.machine.clone(), &self.repository, driver).unwrap();
        let backend = Mortal { inner: Arc::new(driven.expect("nobody else drives")), is_dead: is_dead.clone() };
        let shared = Shared {
            backend: Arc::new(backend),
            router: self.router.clone(),
            repository: self.repository.clone(),
            worker: WorkerId::new(driver.to_string()).unwrap(),
            evidence: None,
            queue: None,
            tell_every: HOUR,
        };
        Means { coordination: Coordination::Shared(shared), ..self.stranger() }
    }

    /// A process that knows nothing of the fleet's machine.
    fn stranger(&self) -> Means {
        let disk = tempfile::tempdir().unwrap();
        let state_dir = disk.path().to_owned();
        self.disks.lock().unwrap().push(disk);
        Means { state_dir, identity: "fleet@cellar".to_owned(), ..self.world.means() }
    }

    /// The first process dies where `now` says so.
    fn dies(&self, request: &CycleRequest, now: impl Fn(&Effect) -> bool + Send + Sync + 'static) {
        let is_dead = Arc::new(AtomicBool::new(false));
        let dead = is_dead.clone();
        self.world.faults.hook(Box::new(move |effect: &Effect| {
            if now(effect) {
                dead.store(true, Ordering::SeqCst);
            }
            if dead.load(Ordering::SeqCst) { Err(killed()) } else { Ok(()) }
        }));
        let means = self.node(1, &is_dead);
        assert!(cycle(means, request).is_err() && is_dead.load(Ordering::SeqCst), "it did not come so far");
        self.world.faults.heal();
        self.world.clock.advance(SILENCE);
    }

    /// The second process takes it up.
    fn goes_on(&self, request: &CycleRequest) -> Result<CycleReport> {
        cycle(self.node(2, &Arc::default()), request)
    }

    fn is_ended(&self) -> bool {
        let mut end = None;
        self.machine.look(&mut |state| end = state.repositories[&self.repository].last_end.clone());
        end == Some(CycleEnd::Done)
    }
}

/// In the owner's name, and others may maintain, too: so a run of another's has to be waited for.
fn acting() -> CycleRequest {
    CycleRequest { exclusive: false, owner: Ownership::ActAs(OWNER.to_owned()), ..careful(Some(Mode::Full)) }
}

/// Without margins, so that packs are rewritten at once.
fn at_once() -> CycleRequest {
    CycleRequest { owner: Ownership::ActAs(OWNER.to_owned()), ..alone(Mode::Full) }
}

fn first_index_blob(effect: &Effect) -> bool {
    effect.done && effect.call == Call::Put && effect.id.as_str().starts_with("xn")
}

#[test]
fn r22_another_process_of_the_fleet_goes_on_at_once_and_a_stranger_waits() {
    let fleet = Fleet::new("default");
    fleet.dies(&acting(), first_index_blob);
    let died = fleet.world.now();
    let stranger = cycle(fleet.stranger(), &acting()).unwrap_err();
    assert_eq!(stranger.kind(), ErrorKind::ForeignMaintenance, "{}", stranger.chain());
    let report = fleet.goes_on(&acting()).unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(fleet.is_ended(), "{report:?}");
    // What is left is the wait for the last requests of a holder that was fenced (R4).
    assert!(fleet.world.now() < died + Duration::from_secs(400), "it took until {}", fleet.world.now());
    fleet.world.assert_whole("another process ended the cycle");
}

#[test]
fn r22_a_write_that_was_noted_and_never_made_leaves_the_one_before_it_ours() {
    let fleet = Fleet::new("default");
    let writes = Mutex::new(0);
    fleet.dies(&acting(), move |effect| {
        let is_write = !effect.done && effect.call == Call::Put && effect.id.as_str() == schedule::BLOB;
        let mut writes = writes.lock().unwrap();
        *writes += usize::from(is_write);
        is_write && *writes == 2
    });
    fleet.goes_on(&acting()).unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(fleet.is_ended());
    fleet.world.assert_whole("a write was not made");
}

#[test]
fn r22_what_somebody_else_wrote_after_the_death_is_not_ours() {
    let fleet = Fleet::new("default");
    fleet.dies(&acting(), first_index_blob);
    let loaded = schedule::load(&fleet.world.outside).unwrap();
    let mut theirs = loaded.schedule.clone();
    theirs.next_full = theirs.next_full.map(|at| at + HOUR);
    schedule::replace(&fleet.world.outside, &loaded, &theirs, None).unwrap();
    let error = fleet.goes_on(&acting()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ForeignMaintenance, "{}", error.chain());
    assert!(!fleet.is_ended());
    fleet.world.clock.advance(DAY + HOUR);
    fleet.goes_on(&acting()).unwrap_or_else(|error| panic!("{}", error.chain()));
}

/// A full cycle of one process found that an index blob may be lost: another process's short cycles know it, and a full one clears it.
#[test]
fn r11_what_one_process_found_lost_every_process_of_the_fleet_knows() {
    let fleet = Fleet::new("format1");
    let world = &fleet.world;
    let largest = world.blobs("n").into_iter().max_by_key(|blob| blob.length).unwrap();
    let kept = world.contents()[&largest.id].clone();
    world.lose(&largest.id);
    let first = cycle(fleet.node(1, &Arc::default()), &acting()).unwrap();
    assert!(first.is_degraded(), "{first:?}");
    world.clock.advance(SILENCE);
    for mode in [Mode::Quick, Mode::Index] {
        let error = fleet.goes_on(&CycleRequest { mode: Some(mode), ..acting() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{}", error.chain());
    }
    let by_itself = CycleRequest { mode: Some(Mode::Index), by_itself: true, ..acting() };
    assert_eq!(fleet.goes_on(&by_itself).unwrap().mode, Some(Mode::Full), "a schedule's gives way to a full one");
    world.plant(&largest.id, kept, &largest.id);
    assert!(!fleet.goes_on(&acting()).unwrap().is_degraded());
    fleet.goes_on(&CycleRequest { mode: Some(Mode::Index), ..acting() }).unwrap();
    world.assert_whole("the index is back");
}

#[test]
fn r21_the_session_of_a_dead_process_is_over_for_the_next_of_its_fleet() {
    for knows in [true, false] {
        let fleet = Fleet::new("default");
        fleet.dies(&at_once(), |effect| effect.done && effect.call == Call::Put && effect.id.as_str().starts_with('p'));
        assert_eq!(fleet.world.count("s"), 1, "its marker");
        fleet.world.clock.advance(DAY + HOUR);
        let request = CycleRequest { owner: Ownership::ActAs(OWNER.to_owned()), ..careful(Some(Mode::Full)) };
        match knows {
            true => drop(fleet.goes_on(&request).unwrap_or_else(|error| panic!("{}", error.chain()))),
            false => drop(cycle(fleet.stranger(), &request).unwrap()),
        }
        assert_eq!(fleet.world.count("s"), usize::from(!knows), "to a stranger it may live for four days");
        fleet.world.assert_whole("the marker was judged");
    }
}

/// The machine fenced whoever led before, and may not know that he is dead: what he may have under way is waited out.
#[test]
fn r4_r21_a_lease_of_ones_own_fleet_is_taken_at_once_and_nothing_is_done_until_its_last_requests_are_over() {
    let fleet = Fleet::new("default");
    fleet.dies(&at_once(), |effect| effect.done && effect.call == Call::Put && effect.id.as_str().starts_with('p'));
    let stranger = cycle(fleet.stranger(), &CycleRequest { wait: false, ..at_once() }).unwrap_err();
    assert_eq!(stranger.kind(), ErrorKind::Locked, "{}", stranger.chain());
    let (began, clock, first) = (fleet.world.now(), fleet.world.clock.clone(), Arc::new(Mutex::new(None)));
    let seen = first.clone();
    fleet.world.faults.hook(Box::new(move |effect: &Effect| {
        if matches!(effect.call, Call::Put | Call::Delete) && effect.id.as_str() != LEASE {
            seen.lock().unwrap().get_or_insert((clock.now(), effect.id.as_str().to_owned()));
        }
        Ok(())
    }));
    fleet.goes_on(&CycleRequest { wait: false, ..at_once() }).unwrap_or_else(|error| panic!("{}", error.chain()));
    fleet.world.faults.heal();
    let (at, what) = first.lock().unwrap().clone().unwrap();
    let waited = at.duration_since(began).as_secs();
    assert!((180..240).contains(&waited), "{what} was written after {waited} s");
    assert!(fleet.is_ended());
    fleet.world.assert_whole("the lead changed hands");
}

/// The object is written before the machine hears of it. Whoever dies in between costs its fleet no more than any other death.
#[test]
fn r4_a_lease_that_was_written_and_never_told_is_taken_at_once_and_waited_out() {
    let fleet = Fleet::new("default");
    fleet.dies(&at_once(), |effect| effect.done && effect.call == Call::Put && effect.id.as_str() == LEASE);
    let mut granted = 0;
    fleet.machine.look(&mut |state| granted = state.repositories[&fleet.repository].last_term.0);
    assert_eq!((granted, fleet.lease().term, fleet.lease().free), (0, 1, false), "the machine knows nothing of it");
    let stranger = cycle(fleet.stranger(), &CycleRequest { wait: false, ..at_once() }).unwrap_err();
    assert_eq!(stranger.kind(), ErrorKind::Locked, "{}", stranger.chain());
    let began = fleet.world.now();
    fleet.goes_on(&CycleRequest { wait: false, ..at_once() }).unwrap_or_else(|error| panic!("{}", error.chain()));
    let waited = fleet.world.now().duration_since(began).as_secs();
    assert!(waited >= 180 && fleet.is_ended(), "{waited}");
    fleet.world.assert_whole("the lead died before it told of its lease");
}

/// A process that stands still before it tells of its lease.
struct Paused {
    inner: Arc<dyn Backend>,
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Backend for Paused {
    fn applied(&self) -> u64 {
        self.inner.applied()
    }

    fn submit(&self, command: Command) -> Result<Vec<Event>> {
        let meanwhile = match command {
            Command::TakeLease { .. } => self.meanwhile.lock().unwrap().take(),
            _ => None,
        };
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        self.inner.submit(command)
    }

    fn look(&self, look: &mut dyn FnMut(&State)) {
        self.inner.look(look);
    }

    fn wait(&self, at_most: Duration, look: &mut dyn FnMut(&State) -> bool) {
        self.inner.wait(at_most, look);
    }
}

#[test]
fn r4_who_wakes_with_a_lease_that_it_never_told_of_is_granted_none_and_frees_none() {
    let fleet = Arc::new(Fleet::new("default"));
    let means = fleet.node(1, &Arc::default());
    let Coordination::Shared(shared) = means.coordination.clone() else { panic!("it has no fleet") };
    let (other, left) = (fleet.clone(), Arc::new(Mutex::new(None)));
    let seen = left.clone();
    let meanwhile = move || {
        other.world.clock.advance(SILENCE);
        other.goes_on(&at_once()).unwrap_or_else(|error| panic!("{}", error.chain()));
        *seen.lock().unwrap() = Some((other.lease(), other.world.contents()));
    };
    let backend = Paused { inner: shared.backend.clone(), meanwhile: Mutex::new(Some(Box::new(meanwhile))) };
    let shared = Shared { backend: Arc::new(backend), ..shared };
    let error = cycle(Means { coordination: Coordination::Shared(shared), ..means }, &at_once()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{}", error.chain());
    let (lease, contents) = left.lock().unwrap().take().unwrap();
    assert!(fleet.is_ended() && lease.term == 2 && lease.free);
    assert_eq!(fleet.lease(), lease);
    assert!(fleet.world.contents() == contents, "who woke changed something");
    fleet.world.assert_whole("who never told of its lease woke");
}

/// The marker of a session is written after its note: there is no moment in which a death leaves one that nobody knows of.
#[test]
fn r21_a_death_right_before_or_after_a_marker_leaves_none_that_is_not_known() {
    for done in [false, true] {
        let fleet = Fleet::new("default");
        fleet.dies(&at_once(), move |effect| {
            effect.done == done && effect.call == Call::Put && effect.id.as_str().starts_with('s')
        });
        let mut known = 0;
        fleet.machine.look(&mut |state| {
            let term = verger_proto::Term(u64::MAX);
            known = state.repositories[&fleet.repository].notes.sessions_before(term).len();
        });
        assert_eq!((fleet.world.count("s"), known), (usize::from(done), 1));
    }
}

/// What another fleet calls the store.
fn named() -> String {
    "0a".repeat(16)
}

impl Fleet {
    /// Another fleet says which store this is, right before the first write of a lease.
    fn is_named_in_between(&self) {
        let (outside, is_named) = (self.world.outside.clone(), AtomicBool::new(false));
        self.world.faults.hook(Box::new(move |effect: &Effect| {
            if !effect.done && effect.id.as_str() == LEASE && !is_named.swap(true, Ordering::SeqCst) {
                let unique = verger_kopia::hex(outside.unique_id());
                name_store(&**outside.storage(), &unique, &named()).unwrap();
            }
            Ok(())
        }));
    }

    fn lease(&self) -> LeaseBody {
        bucket_lease::read(&**self.world.outside.storage()).unwrap().unwrap().1
    }
}

#[test]
fn r6_a_maintainer_alone_begins_again_under_the_name_that_somebody_gave_the_store_meanwhile() {
    let fleet = Fleet::new("default");
    fleet.is_named_in_between();
    cycle(fleet.stranger(), &at_once()).unwrap_or_else(|error| panic!("{}", error.chain()));
    let lease = fleet.lease();
    assert_eq!((lease.store_id, lease.free, lease.term), (named(), true, 2), "its first term was given back unused");
    fleet.world.assert_whole("the store was named in between");
}

/// A fleet knows the repository by another ID: it does nothing until its machine was told.
#[test]
fn r6_a_fleet_that_knows_the_store_by_another_name_changes_nothing_and_keeps_nobody_waiting() {
    for in_between in [true, false] {
        let fleet = Fleet::new("default");
        let unique = fleet.repository.unique.to_string();
        match in_between {
            true => fleet.is_named_in_between(),
            false => drop(name_store(&**fleet.world.outside.storage(), &unique, &named()).unwrap()),
        }
        let before = fleet.world.names("");
        let error = cycle(fleet.node(1, &Arc::default()), &at_once()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PlanRefused, "{}", error.chain());
        let lease = fleet.lease();
        assert_eq!((lease.store_id, lease.free, lease.term), (named(), true, u64::from(in_between)));
        let after = fleet.world.names("");
        assert!(after.keys().all(|name| name == LEASE || before.contains_key(name)), "{after:?}");
        let id = fleet.repository.clone();
        let identify = Command::IdentifyStore { repository: id, store: named().parse().unwrap() };
        fleet.machine.submit(identify).unwrap();
        let fleet = Fleet { repository: RepositoryId { store: named().parse().unwrap(), ..fleet.repository }, ..fleet };
        fleet.world.clock.advance(SILENCE);
        fleet.goes_on(&at_once()).unwrap_or_else(|error| panic!("{}", error.chain()));
        assert!(fleet.is_ended());
    }
}

#[test]
fn whose_lease_it_is_a_refused_fleet_keeps_for_people() {
    let fleet = Fleet::new("default");
    fleet.dies(&at_once(), |effect| effect.done && effect.call == Call::Put && effect.id.as_str().starts_with('p'));
    let left = fleet.lease();
    let disk = tempfile::tempdir().unwrap();
    let router = Arc::new(Router::default());
    let other = Arc::new(FileBackend::open(disk.path(), fleet.world.clock.clone(), router, None).unwrap());
    fleet.machine.look(&mut |state| {
        let registration = Box::new(state.repositories[&fleet.repository].registration.clone().unwrap());
        let repository = fleet.repository.clone();
        other.submit(Command::AddRepository { repository, registration }).unwrap();
    });
    let stranger = Fleet { machine: other, ..fleet };
    let means = Means { identity: "other@cellar".to_owned(), ..stranger.node(1, &Arc::default()) };
    let error = cycle(means, &CycleRequest { wait: false, ..at_once() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{}", error.chain());
    let mut seen = None;
    stranger.machine.look(&mut |state| seen = state.repositories[&stranger.repository].other.clone());
    let (seen, _) = seen.unwrap();
    assert_eq!((seen.holder, seen.term.0, seen.free), (left.holder, left.term, false));
    assert!(seen.expires > seen.acts_until);
}
