//! Golden repositories in memory: clocks that are set, effects that are watched, and the independent check after each cycle.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use verger::embedded::{Coordination, CycleReport, CycleRequest, Means, Ownership, Safety, cycle};
use verger_kopia::clock::{Clock, SetClock, Timestamp};
use verger_kopia::index_set::{IndexView, load_view};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::maintenance::schedule::{self, Schedule};
use verger_kopia::storage::fault::FaultStorage;
use verger_kopia::storage::{
    Access, BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, FsStorage, MemoryStorage, PutOptions,
    PutReceipt, Retention, Storage, Versioning, list_all,
};
use verger_kopia::{Repository, Result, verify};
use verger_worker::kopia_lock::KopiaLocks;
use verger_worker::progress::{Progress, Step, Stop};

use crate::support::{Golden, OWNER, PASSWORD};

pub const HOUR: Duration = Duration::from_secs(3600);

/// A store whose insides can be exchanged, so that deriving a repository's key is paid for once.
#[derive(Debug)]
pub struct Door(RwLock<Arc<MemoryStorage>>);

impl Door {
    pub fn new(inner: MemoryStorage) -> Self {
        Self(RwLock::new(Arc::new(inner)))
    }

    pub fn exchange(&self, inner: MemoryStorage) {
        *self.0.write().unwrap() = Arc::new(inner);
    }

    fn inner(&self) -> Arc<MemoryStorage> {
        self.0.read().unwrap().clone()
    }
}

impl Storage for Door {
    fn address(&self) -> String {
        self.inner().address()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner().capabilities()
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<bytes::Bytes> {
        self.inner().get(id, range)
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.inner().head(id)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        self.inner().list(prefix, visit)
    }

    fn put(&self, id: &BlobId, data: bytes::Bytes, options: &PutOptions) -> Result<PutReceipt> {
        self.inner().put(id, data, options)
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        self.inner().delete(ids, not_after)
    }

    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        self.inner().extend_retention(id, retention)
    }

    fn now(&self) -> Result<Timestamp> {
        self.inner().now()
    }

    fn versioning(&self) -> Result<Versioning> {
        self.inner().versioning()
    }
}

/// What somebody else does while a stage is under way.
type Deed = Box<dyn FnOnce() + Send>;

/// Lets somebody else act when a stage begins: between the reads of a cycle, where no write of its own tells the moment.
#[derive(Default)]
pub struct Meanwhile(Mutex<Option<(&'static str, Deed)>>);

impl Meanwhile {
    pub fn at(&self, stage: &'static str, deed: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some((stage, Box::new(deed)));
    }

    /// Whether it was done.
    pub fn is_over(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }
}

impl Progress for Meanwhile {
    fn step(&self, step: Step) {
        let mut planned = self.0.lock().unwrap();
        let due = if planned.as_ref().is_some_and(|(stage, _)| *stage == step.stage) { planned.take() } else { None };
        drop(planned);
        if let Some((_, deed)) = due {
            deed();
        }
    }
}

/// A folder in memory where there is such a thing: a ledger is synced before each deed.
fn state_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// The store and the time of one moment.
pub struct Saved {
    blobs: MemoryStorage,
    now: Timestamp,
}

/// A golden repository in memory, seen by the maintainer (through faults) and by everybody else.
pub struct World {
    pub name: String,
    pub clock: Arc<SetClock>,
    door: Arc<Door>,
    pub faults: Arc<FaultStorage>,
    /// The maintainer's.
    pub repository: Repository,
    /// Everybody else's.
    pub outside: Repository,
    state: tempfile::TempDir,
    pub stop: Stop,
    pub meanwhile: Arc<Meanwhile>,
}

impl World {
    /// A golden repository, `age` after its last write.
    pub fn golden(name: &str, age: Duration) -> Self {
        let golden = Golden::unpack(name);
        let disk = FsStorage::open(golden.repository(), Access::ReadOnly).unwrap();
        let newest = list_all(&disk, "").unwrap().iter().map(|blob| blob.timestamp).max().unwrap();
        let clock = Arc::new(SetClock::new(newest + age));
        let memory = MemoryStorage::copy_of(&disk, clock.clone()).unwrap();
        Self::of(name, memory, clock)
    }

    /// Any repository in memory, on the clock of its store.
    pub fn of(name: &str, memory: MemoryStorage, clock: Arc<SetClock>) -> Self {
        let door = Arc::new(Door::new(memory));
        let faults = Arc::new(FaultStorage::new(door.clone()));
        let open = |storage: Arc<dyn Storage>| Repository::open(storage, PASSWORD, clock.clone()).unwrap();
        Self {
            name: name.to_owned(),
            repository: open(faults.clone()),
            outside: open(door.clone()),
            clock,
            door,
            faults,
            state: state_folder(),
            stop: Stop::default(),
            meanwhile: Arc::default(),
        }
    }

    pub fn state_dir(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn save(&self) -> Saved {
        Saved { blobs: MemoryStorage::copy_of(&*self.door, self.clock.clone()).unwrap(), now: self.now() }
    }

    /// Back to that moment, with a new state folder and no faults.
    pub fn restore(&mut self, saved: &Saved) {
        self.faults.heal();
        let copy = MemoryStorage::copy_of(&saved.blobs, self.clock.clone()).unwrap();
        self.door.exchange(copy);
        self.clock.set(saved.now);
        self.state = state_folder();
        self.meanwhile = Arc::default();
    }

    /// Shows what lies in another store of the same repository, at this time: for looking at folders without deriving their keys again.
    pub fn show(&self, storage: &dyn Storage, now: Timestamp) {
        let copy = MemoryStorage::copy_of(storage, self.clock.clone()).unwrap();
        self.door.exchange(copy);
        self.clock.set(now);
    }

    pub fn means(&self) -> Means {
        Means {
            repository: self.repository.clone(),
            identity: OWNER.to_owned(),
            kopia_locks: KopiaLocks::take(&[]).unwrap(),
            state_dir: self.state_dir(),
            memory_limit: 512 << 20,
            parallel: Some(2),
            progress: self.meanwhile.clone(),
            stop: self.stop.clone(),
            notice: Arc::new(|_, _| {}),
            coordination: Coordination::Alone,
            tries_store: false,
            observed: Default::default(),
            shards: None,
        }
    }

    /// Lets a quarter of a second pass at each effect, until the faults are healed.
    pub fn tick(&self) {
        let clock = self.clock.clone();
        self.faults.hook(Box::new(move |effect| {
            if effect.done {
                clock.advance(Duration::from_millis(250));
            }
            Ok(())
        }));
    }

    pub fn try_cycle(&self, request: &CycleRequest) -> Result<CycleReport> {
        cycle(self.means(), request)
    }

    /// A cycle that must end well, and leave every snapshot whole.
    pub fn cycle(&self, request: &CycleRequest) -> CycleReport {
        let at = self.now();
        let report = self.try_cycle(request).unwrap_or_else(|e| panic!("{} at {at}: {}", self.name, e.chain()));
        self.assert_whole(&format!("a cycle at {at}: {report:?}"));
        report
    }

    /// Every snapshot can be walked and every live content be read.
    pub fn assert_whole(&self, after: &str) -> verify::Report {
        let report = self.verify();
        assert!(report.is_clean() && report.contents_read > 0, "{}: after {after}\n{:#?}", self.name, report.problems);
        report
    }

    pub fn verify(&self) -> verify::Report {
        let options = verify::Options { full: true, threads: 2, ..verify::Options::default() };
        verify::verify(&self.outside, &options, &AtomicBool::new(false), &|_, _, _| {}).unwrap()
    }

    pub fn view(&self) -> IndexView {
        load_view(&self.outside, 1).unwrap()
    }

    pub fn history(&self) -> Schedule {
        schedule::load(&self.outside).unwrap().schedule
    }

    pub fn blobs(&self, prefix: &str) -> Vec<BlobMetadata> {
        list_all(&*self.door, prefix).unwrap()
    }

    /// How many blobs there are of each kind: packs, session markers, index blobs.
    pub fn count(&self, prefix: &str) -> usize {
        self.blobs(prefix).len()
    }

    /// Packed bytes of the packs.
    pub fn pack_bytes(&self) -> u64 {
        self.blobs("p").iter().chain(&self.blobs("q")).map(|blob| blob.length).sum()
    }

    /// Every blob with its bytes.
    pub fn contents(&self) -> BTreeMap<BlobId, bytes::Bytes> {
        self.door.inner().contents()
    }

    /// Writes a blob behind everybody's back, as old as it was (a new one: as old as `like`).
    pub fn plant(&self, id: &BlobId, data: impl Into<bytes::Bytes>, like: &BlobId) {
        let time = |id| self.door.head(id).map(|found| found.timestamp);
        let at = time(id).or_else(|_| time(like)).unwrap_or_else(|_| self.now());
        self.door.inner().put_at(id, data.into(), at);
    }

    /// Takes a blob away behind everybody's back.
    pub fn lose(&self, id: &BlobId) {
        assert!(self.door.delete(std::slice::from_ref(id), None).failed.is_empty());
    }

    pub fn names(&self, prefix: &str) -> BTreeMap<String, Timestamp> {
        self.blobs(prefix).iter().map(|blob| (blob.id.to_string(), blob.timestamp)).collect()
    }
}

/// With full margins, beside any number of clients; no other maintainer is at work.
pub fn careful(mode: Option<Mode>) -> CycleRequest {
    CycleRequest {
        mode,
        by_itself: false,
        safety: Safety::Full,
        alone: false,
        exclusive: true,
        allow_removing: Some(100),
        dry_run: false,
        wait: true,
        mark_to_drop: None,
        owner: Ownership::Own,
        plan_out: None,
    }
}

/// Without margins, alone.
pub fn alone(mode: Mode) -> CycleRequest {
    CycleRequest { safety: Safety::None, alone: true, ..careful(Some(mode)) }
}
