//! Weeks in the life of a repository, on a set clock: clients at work between any two requests of cycles that may be slow, paused
//! or killed. One seed is one course of events.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

mod client;
mod files;
pub mod hub;
pub mod lens;
#[path = "../lines.rs"]
pub mod lines;
mod model;
pub mod oracle;
mod session;
mod store;
pub mod trace;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use verger::embedded::{Coordination, CycleReport, Means, cycle};
use verger_kopia::clock::{Clock, SetClock, Timestamp};
use verger_kopia::maintenance::Params;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::manifest::ManifestEntry;
use verger_kopia::manifest::entry::encode;
use verger_kopia::storage::{Access, Capabilities, FsStorage, MemoryStorage, Storage};
use verger_kopia::{Error, ErrorKind, Repository};
use verger_worker::kopia_lock::KopiaLocks;
use verger_worker::progress::{Quiet, Stop};

use crate::store::{Door, careful};
use crate::support::{Golden, OWNER, PASSWORD};
use client::Finding;
use hub::{Fate, Hub, HubClock};
use oracle::Oracle;
use session::Session;
use store::Counter;

const HOUR: u64 = 3600;

/// Milliseconds a request, at which an approval cannot be used in time.
const SLOWEST: u64 = 20_000;

/// Days without clients in which everything that nobody needs must go: a leaked session protects its packs for four days, then
/// come a cycle, a day, and two cycles.
const QUIET_DAYS: u64 = 8;

/// What the store and the index are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Epochs,
    Legacy,
    /// Epochs, on a store that cannot write conditionally.
    Plain,
}

impl Kind {
    pub fn of(seed: u64) -> Self {
        [Self::Epochs, Self::Legacy, Self::Epochs, Self::Legacy, Self::Plain][(seed % 5) as usize]
    }
}

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Course {
    pub hash: u64,
    pub cycles: u32,
    pub killed: u32,
    pub snapshots: usize,
    /// Contents that were written once, and that nobody needed in the end.
    pub forgotten: usize,
    /// How cycles ended that did not end well.
    pub failures: BTreeMap<String, u32>,
}

/// A finding, and how it came to be.
#[derive(Debug)]
pub struct Failure {
    pub finding: Finding,
    pub trace: String,
}

/// One repository of each index kind, opened once, for run after run.
pub struct Stage {
    scenes: Vec<(bool, Scene)>,
}

/// A repository that is opened once, for run after run.
pub struct Scene {
    pub hub: Arc<Hub>,
    pub maintainer: Repository,
    image: MemoryStorage,
    start: Timestamp,
}

impl Stage {
    pub fn new() -> Self {
        let start = "2026-02-02T00:00:00Z".parse().unwrap();
        Self { scenes: vec![(true, Scene::new("default", start)), (false, Scene::new("format1", start))] }
    }

    /// Lives through one seed.
    pub fn run(&self, seed: u64, days: u64, print: bool) -> Result<Course, Failure> {
        let kind = Kind::of(seed);
        let (_, scene) = self.scenes.iter().find(|(epochs, _)| *epochs == (kind != Kind::Legacy)).unwrap();
        scene.begin(kind, seed, print);
        let mut run = Run {
            scene,
            dice: SmallRng::seed_from_u64(!seed),
            oracle: Oracle::default(),
            state: state_folder(),
            course: Course::default(),
        };
        let done = run.weeks(days);
        let live = scene.hub.live();
        run.course.hash = live.trace.hash();
        run.course.snapshots = live.model.snapshots.len();
        done.map(|()| run.course.clone()).map_err(|finding| Failure { finding, trace: live.trace.tail() })
    }
}

impl Scene {
    /// The format of a golden repository, with nothing in it but the maintenance parameters.
    pub fn new(golden: &str, start: Timestamp) -> Self {
        let golden = Golden::unpack(golden);
        let disk = FsStorage::open(golden.repository(), Access::ReadOnly).unwrap();
        let clock = Arc::new(SetClock::new(start));
        let memory = MemoryStorage::new(clock.clone());
        for blob in verger_kopia::storage::list_all(&disk, "kopia.").unwrap() {
            if blob.id.as_str() != "kopia.maintenance" {
                let data = disk.get(&blob.id, verger_kopia::storage::ByteRange::All).unwrap();
                memory.put_at(&blob.id, data, start);
            }
        }
        let door = Arc::new(Door::new(memory));
        let outside = Repository::open(door.clone(), PASSWORD, clock.clone()).unwrap();
        own(&outside, start);
        let image = MemoryStorage::copy_of(&*door, clock.clone()).unwrap();
        let hub = Arc::new(Hub::new(clock, door, outside));
        let clock = Arc::new(HubClock(hub.clone()));
        let maintainer = Repository::open(Arc::new(Counter(hub.clone())), PASSWORD, clock).unwrap();
        Self { hub, maintainer, image, start }
    }

    pub fn begin(&self, kind: Kind, seed: u64, print: bool) {
        self.hub.clock.set(self.start);
        let mut copy = MemoryStorage::copy_of(&self.image, self.hub.clock.clone()).unwrap();
        let abilities = copy.capabilities();
        let conditional_writes = kind != Kind::Plain;
        copy = copy.with_capabilities(Capabilities { conditional_writes, ..abilities });
        self.hub.door.exchange(copy);
        self.hub.begin(seed, 2 + (seed / 5 % 3) as usize, print);
    }
}

/// Makes this test's identity the owner.
fn own(repository: &Repository, now: Timestamp) {
    let params = Params { owner: OWNER.to_owned(), ..Params::kopia_default() };
    let data = serde_json::value::RawValue::from_string(params.to_json()).unwrap();
    let labels = [("type".to_owned(), "maintenance".to_owned())].into();
    let entry = ManifestEntry::put("0123456789abcdef0123456789abcdef", labels, now, data);
    let mut session = Session::default();
    session.add(repository, &(b'm', encode(&[entry])), now, None).unwrap();
    session.store(repository).unwrap();
    session.publish(repository, repository.config().epoch.enabled.then_some(0)).unwrap();
    session.end(&**repository.storage());
}

/// A folder in memory where there is such a thing: a ledger is synced before each deed.
pub fn state_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

struct Run<'a> {
    scene: &'a Scene,
    dice: SmallRng,
    oracle: Oracle,
    state: tempfile::TempDir,
    course: Course,
}

impl Run<'_> {
    fn weeks(&mut self, days: u64) -> Result<(), Finding> {
        let hub = self.scene.hub.clone();
        let end = self.scene.start + Duration::from_secs(days * 24 * HOUR);
        while hub.clock.now() < end {
            hub.advance(Duration::from_secs(self.dice.random_range(HOUR / 2..12 * HOUR)));
            let mode =
                *[None, None, Some(Mode::Full), Some(Mode::Full), Some(Mode::Quick)].choose(&mut self.dice).unwrap();
            if self.dice.random_bool(0.12) {
                // Another machine of the same owner: it knows nothing of what the one before did.
                self.state = state_folder();
            }
            let fate = self.fate();
            self.cycle(mode, fate)?;
        }
        hub.stop_clients();
        for day in 0..QUIET_DAYS {
            hub.advance(Duration::from_secs(24 * HOUR + 120));
            let fate = Fate { slow: 200, ..Fate::default() };
            if day % 3 == 1 {
                self.cycle(Some(Mode::Quick), fate.clone())?;
            }
            self.cycle(Some(Mode::Full), fate)?;
        }
        self.course.forgotten = self.oracle.check_quiet(&hub)?;
        Ok(())
    }

    fn fate(&mut self) -> Fate {
        let dice = &mut self.dice;
        let request = dice.random_range(1..400);
        Fate {
            kill: dice.random_bool(0.12).then(|| (dice.random_range(1..300), dice.random_bool(0.5))),
            pause: dice.random_bool(0.15).then(|| (request, Duration::from_secs(dice.random_range(60..20 * HOUR)))),
            slow: *[200, 200, 1000, 1000, 4000, 4000, SLOWEST].choose(dice).unwrap(),
            crowd: *[0, 20, 80, 200].choose(dice).unwrap(),
        }
    }

    fn cycle(&mut self, mode: Option<Mode>, fate: Fate) -> Result<(), Finding> {
        let hub = &self.scene.hub;
        let quiet = fate.kill.is_none() && fate.pause.is_none() && fate.slow < SLOWEST;
        hub.note(&format!("cycle {mode:?} {fate:?}"));
        hub.fate(fate);
        let outcome = cycle(self.means(), &careful(mode));
        let killed = hub.is_dead();
        hub.fate(Fate::default());
        self.course.cycles += 1;
        self.course.killed += u32::from(killed);
        hub.note(&format!("cycle ends: {}", told(&outcome)));
        if let Err(error) = &outcome
            && !killed
        {
            self.judge(error, quiet)?;
        }
        if outcome.as_ref().is_ok_and(CycleReport::is_degraded) {
            return Err(format!("a cycle found damage: {:?}", outcome.unwrap().damage));
        }
        self.oracle.check(hub)
    }

    /// Which failures a cycle may have.
    fn judge(&mut self, error: &Error, quiet: bool) -> Result<(), Finding> {
        let allowed = match error.kind() {
            ErrorKind::ForeignMaintenance => true,
            ErrorKind::DeadlinePassed
            | ErrorKind::PlanRefused
            | ErrorKind::StoreUnavailable
            | ErrorKind::Locked
            | ErrorKind::Clock => !quiet,
            _ => false,
        };
        *self.course.failures.entry(format!("{:?}", error.kind())).or_default() += 1;
        if allowed { Ok(()) } else { Err(format!("a cycle failed: {:?} {}", error.kind(), error.chain())) }
    }

    fn means(&self) -> Means {
        means(&self.scene.maintainer, self.state.path())
    }
}

/// What an engine has that orders its cycles itself, with its state in a folder.
pub fn means(maintainer: &Repository, state_dir: &Path) -> Means {
    Means {
        repository: maintainer.clone(),
        identity: OWNER.to_owned(),
        kopia_locks: KopiaLocks::take(&[]).unwrap(),
        state_dir: state_dir.to_owned(),
        memory_limit: 512 << 20,
        // More than one request at once, and no seed tells the order.
        parallel: Some(1),
        progress: Arc::new(Quiet),
        stop: Stop::default(),
        notice: Arc::new(|_, _| {}),
        coordination: Coordination::Alone,
        tries_store: false,
        observed: Default::default(),
        shards: None,
    }
}

fn told(outcome: &Result<CycleReport, Error>) -> String {
    match outcome {
        Ok(report) => format!("{} {:?} {}", report.outcome, report.mode, serde_json::to_string(&report.tasks).unwrap()),
        Err(error) => format!("{:?}", error.kind()),
    }
}
