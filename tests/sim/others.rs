//! Workers of other processes: they hear of shards by hints, claim them through the cluster, do them against store and exchange, and
//! report, as `src/worker/shards.rs` does. Who leads need not live to see it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use verger_coordinator::drive::{Backend, Drive, Effects, LocalControl};
use verger_coordinator::ledger::evidence::EvidenceFolder;
use verger_coordinator::machine::{JobStatus, Phase, State};
use verger_kopia::spill::SpillFolder;
use verger_kopia::storage::BlobId;
use verger_kopia::{ErrorKind, Repository};
use verger_proto::control::{Control, ControlError};
use verger_proto::queue::Hint;
use verger_proto::queue::local::LocalQueue;
use verger_proto::work_queue::{Wake, WorkQueue};
use verger_proto::{Command, JobReport, JobSpec, Outcome, Pool, RepositoryId, Stage, WorkerId};
use verger_worker::exchange::{Exchange, PartKind};
use verger_worker::run::{Shards, run_shard};
use verger_worker::workspace::Workspace;

use super::post::Ear;
use super::support::OWNER;
use super::turns::{ClusterBackend, Dead, Ended, Lot, Seat, Time, look};
use super::way::Way;
use super::world::{World, lock};
use super::yard::{Cart, Hand, Yard};

/// How long a hint is waited for at a time.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Who asks alone and hears of nothing asks again after so many milliseconds.
const ASK_ALONE: u64 = 2_000;
/// After a claim that nobody answered.
const PAUSE: Duration = Duration::from_secs(1);
/// A shard ends within a moment, whatever time it takes here: so long in real time nobody hears of it but at its requests.
pub(super) const NEVER: Duration = Duration::from_secs(3_600);
/// As many shards as there are packs: what chance names them changes nothing then.
pub const SHARD_BYTES: u64 = 1;

/// Shards that wait for a worker, as a coordinator tells whoever asks.
fn waiting(state: &State) -> Vec<Hint> {
    let running = state.cycles.values().filter(|cycle| cycle.phase == Phase::Running);
    let open = running.flat_map(|cycle| {
        let is_open = |status: &JobStatus| matches!(status, JobStatus::Open(from) if *from <= state.now);
        let shards = cycle.jobs.values().filter(move |job| !job.shard.is_whole() && is_open(&job.status));
        shards.map(|job| Hint::from(&cycle.spec(job)))
    });
    open.collect()
}

/// Where a process's shards lie.
pub fn shards(cart: Cart) -> Shards {
    let exchange = Exchange::open(Arc::new(cart)).unwrap();
    Shards { tell_every: NEVER, by_packs: false, ..Shards::new(exchange, SHARD_BYTES) }
}

/// What a worker has.
pub struct Worker {
    pub world: World,
    pub time: Time,
    pub seat: Arc<Seat>,
    pub ear: Ear,
    pub yard: Arc<Yard>,
    pub maintainer: Repository,
    pub repository: RepositoryId,
    pub folder: PathBuf,
    pub fate: Fate,
    pub dice: Mutex<SmallRng>,
    /// Shards that it did.
    pub done: Arc<AtomicU32>,
}

/// What a worker is like, and what befalls it.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    pub lot: Lot,
    /// It says of this shard of a scan that there was nothing in it: the first one, the second one, …
    pub lazy_at: Option<u32>,
    /// It hears no hints, and asks a coordinator now and then, whichever runs and however far behind it is.
    pub asks: bool,
    /// Nobody hears that it lives: its claims are given away while it goes on, and says in the end that they are done.
    pub is_unheard: bool,
}

impl Fate {
    pub fn is_struck(&self) -> bool {
        self.lazy_at.is_some() || self.is_unheard || self.lot.kill.is_some() || self.lot.pause.is_some()
    }
}

/// The same at work.
struct AtWork {
    worker: Worker,
    backend: Arc<ClusterBackend>,
    workspace: Workspace,
    shards: Shards,
    scans: AtomicU32,
    runs: AtomicU32,
}

impl Worker {
    /// Does shards until `over`.
    pub fn work(self, way: Way, cart: Cart, over: &AtomicBool) -> Ended {
        let hand = cart.hand.clone();
        let backend = ClusterBackend { world: self.world.clone(), seat: self.seat.clone(), hand: hand.clone() };
        let backend = Arc::new(backend);
        if !self.fate.is_unheard {
            self.live(&backend, &hand);
        }
        let mut workspace = Workspace::new(self.maintainer.through(Arc::new(way)));
        (workspace.parallel, workspace.threads) = (1, 1);
        workspace.spill = SpillFolder::new(&self.folder);
        workspace.identity = OWNER.to_owned();
        let shards = shards(cart);
        let (scans, runs) = (AtomicU32::new(0), AtomicU32::new(0));
        AtWork { worker: self, backend, workspace, shards, scans, runs }.until(over)
    }

    /// A word with each request that comes more than five seconds after the last, in place of a thread that says so.
    fn live(&self, backend: &Arc<ClusterBackend>, hand: &Arc<Hand>) {
        let (backend, hand, time) = (Arc::downgrade(backend), hand.clone(), self.time.clone());
        self.seat.at_each_request(Box::new(move || {
            if let (Some(backend), Some(ticket)) = (backend.upgrade(), hand.due(time.now())) {
                let _ = backend.submit(Command::ReportProgress { ticket, progress: None });
            }
        }));
    }
}

impl AtWork {
    fn until(&self, over: &AtomicBool) -> Ended {
        let killed = || Err((ErrorKind::Interrupted, "the process was killed".to_owned()));
        while self.worker.fate.asks && !over.load(Ordering::Relaxed) {
            let hint = self.ask().map_err(|_| killed().unwrap_err())?;
            // What could not be said is asked for again.
            let is_done = hint.is_some_and(|hint| self.take(&hint).is_ok());
            if self.worker.seat.is_dead() || !is_done && self.worker.seat.wait(ASK_ALONE).is_err() {
                return killed();
            }
        }
        while !over.load(Ordering::Relaxed) {
            let taken = match self.worker.ear.take(&[Pool::default()], ASK_EVERY) {
                Ok(Some(taken)) => taken,
                Ok(None) => continue,
                Err(_) => return killed(),
            };
            let Wake::Job(hint) = taken.offer().wake.clone() else { continue };
            let done = self.take(&hint);
            if self.worker.seat.is_dead() {
                return killed();
            }
            match done {
                Ok(()) => taken.done(),
                Err(_) => taken.later(PAUSE),
            }
        }
        Ok("no more shards".to_owned())
    }

    /// A shard that waits, as some coordinator knows it.
    fn ask(&self) -> Result<Option<Hint>, Dead> {
        let Worker { world, seat, dice, .. } = &self.worker;
        seat.begin()?;
        let node = world.running().choose(&mut *lock(dice)).and_then(|id| world.node(*id));
        let waiting = node.map(|node| node.state(waiting)).unwrap_or_default();
        seat.end()?;
        Ok(waiting.choose(&mut *lock(dice)).cloned())
    }

    /// Does the shard that a hint is of, if it is there.
    fn take(&self, hint: &Hint) -> Result<(), ControlError> {
        let Worker { seat, folder, maintainer, .. } = &self.worker;
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let worker = WorkerId::new(format!("s-{}-{run}", seat.name())).unwrap();
        let (queue, evidence) = (Arc::new(LocalQueue::default()), Arc::new(EvidenceFolder::beside(folder)));
        let effects = Arc::new(Effects::new(queue));
        let drive = Drive::joining(self.backend.clone(), effects, evidence, maintainer.clock().clone());
        if !drive.is_there(hint, &worker) {
            return Ok(());
        }
        let control = LocalControl::new(Arc::new(drive));
        let ticket = hint.ticket(&worker);
        let spec = match control.claim(&ticket) {
            Ok(spec) => spec,
            Err(ControlError::Refused(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let report = match self.lazy(&spec) {
            Some(report) => report,
            None => run_shard(&self.workspace, &self.shards, &control, &spec, &worker),
        };
        let is_done = !matches!(report.outcome, Outcome::Failed(_));
        match control.report(&ticket, report) {
            Ok(()) => drop(self.worker.done.fetch_add(u32::from(is_done), Ordering::Relaxed)),
            Err(ControlError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What a worker says that found nothing where there is something, if it is its day. Half of a shard may be empty: it is not taken.
    fn lazy(&self, spec: &JobSpec) -> Option<JobReport> {
        let is_whole = look(&self.worker.world, |state| {
            let cuts = state.cycles.get(&spec.cycle).and_then(|cycle| cycle.cuts.get(&Stage::Scan));
            cuts.is_some_and(|cuts| cuts.contains(&spec.shard))
        });
        if spec.stage != Stage::Scan || !is_whole {
            return None;
        }
        let number = self.scans.fetch_add(1, Ordering::Relaxed) + 1;
        if self.worker.fate.lazy_at != Some(number) {
            return None;
        }
        let view = spec.inputs.first()?.view;
        let parts = self.shards.exchange.parts(&self.worker.maintainer, &self.worker.repository, spec.cycle);
        let part = parts.write(PartKind::Scan, &spec.shard, spec.attempt, view, &self.workspace.spill).ok()?;
        let found = part.finish(&self.workspace.memory).ok()?;
        self.worker.yard.is_bad(&BlobId::new(found.name.replace('/', ".")), "a worker that left everything out");
        self.worker.time.hub.note("a worker says that there was nothing in its shard");
        Some(JobReport::done(vec![found]))
    }
}
