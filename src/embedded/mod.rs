//! One cycle in one process: machine, ledger and worker, with no service.
//!
//! look (owner, due?) -> locks -> lease -> cycle: claim, run, report, until it is closed -> release

mod beside;
mod due;
mod jobs;
mod lease;
mod others;
mod ours;
mod ownership;
mod report;
mod sessions;
mod state;
mod store;
mod trace;
mod words;
mod written;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use verger_kopia::mutant::{self, Mutant};

use verger_coordinator::drive::{self, Backend, Drive, Effects, LocalControl, Router};
use verger_coordinator::files::make_folders;
use verger_coordinator::ledger::evidence::{EvidenceFolder, KeepEvidence};
use verger_kopia::clock::Clock;
use verger_kopia::index_set::IndexView;
use verger_kopia::maintenance::Margins;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::spill::SpillFolder;
use verger_kopia::storage::{Scope, TracedStorage, remove_leftovers};
use verger_kopia::{Error, ErrorKind, Repository, Result};
use verger_proto::id::{CycleId, RepositoryId, WorkerId};
use verger_proto::queue::Queue;
use verger_proto::queue::local::LocalQueue;
use verger_proto::term::Term;
use verger_proto::{Command, CycleOptions};
use verger_worker::bucket_lease;
use verger_worker::kept::{self, Kept};
use verger_worker::kopia_lock::KopiaLocks;
use verger_worker::limit::MemoryLimit;
use verger_worker::progress::{LastWord, Progress, Stop};
use verger_worker::run::{Choice, Shards, TELL_EVERY, Work, recorded};
use verger_worker::task::record::ScheduleFile;
use verger_worker::task::survey::{Ahead, look_ahead};
use verger_worker::workspace::Workspace;

use jobs::drive_to_end;

pub use due::own_settings;
pub use others::{look_at_lease, note_lease};
pub use ownership::Ownership;
pub use report::{CycleReport, PlanSummary};
pub use state::{identify, identify_for_all};
pub use store::examine;
pub use trace::{Observed, shard as shard_span};

/// How often it is begun again because somebody said which store it is, while this one came to it.
const ATTEMPTS: usize = 3;

/// Kopia's margins, or none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Safety {
    /// All margins
    Full,
    /// No margins: only where no other client is at work
    None,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct CycleRequest {
    /// `None`: what is due.
    pub mode: Option<Mode>,
    /// A schedule asks, no person: a quick cycle gives way to a full one where only that can tell whether the index is whole.
    pub by_itself: bool,
    /// Margins.
    pub safety: Safety,
    /// No other client is at work, by a person's word.
    pub alone: bool,
    /// No other maintainer is at work, by a person's word.
    pub exclusive: bool,
    /// Percentage of the packed bytes that this plan may remove.
    pub allow_removing: Option<u8>,
    /// Plan only.
    pub dry_run: bool,
    /// Wait for a foreign lease.
    pub wait: bool,
    /// Least time from mark to drop.
    pub mark_to_drop: Option<Duration>,
    /// In whose name.
    pub owner: Ownership,
    /// File for the plan's body, as JSON lines.
    pub plan_out: Option<PathBuf>,
}

impl Coordination {
    fn repository(&self) -> Option<&RepositoryId> {
        match self {
            Self::Alone => None,
            Self::Shared(shared) => Some(&shared.repository),
        }
    }
}

impl CycleRequest {
    fn margins(&self) -> Margins {
        let mut margins = match self.safety {
            Safety::Full => Margins::full(),
            Safety::None => Margins::none(),
        };
        if let (Some(wait), Safety::Full) = (self.mark_to_drop, self.safety) {
            margins.mark_to_drop_wait = wait;
        }
        margins
    }
}

/// Told what is being waited for, and how long.
pub type Notice = Arc<dyn Fn(&str, Duration) + Send + Sync>;

/// Who orders the commands of a cycle, and keeps what came of them.
#[derive(Clone)]
pub enum Coordination {
    /// This process alone, in a ledger under the state directory.
    Alone,
    /// A coordinator that looks after many.
    Shared(Shared),
}

/// A cycle's place in a coordinator that looks after many repositories.
#[derive(Clone)]
pub struct Shared {
    /// Who orders commands.
    pub backend: Arc<dyn Backend>,
    /// Where effects come from.
    pub router: Arc<Router>,
    /// The repository, as it was when it was added.
    pub repository: RepositoryId,
    /// Who works; another one for each cycle under way.
    pub worker: WorkerId,
    /// Who keeps names of what is deleted; `None`: this process, beside the ledger of the repository.
    pub evidence: Option<Arc<dyn KeepEvidence>>,
    /// Where hints of its jobs wait; `None`: in this process.
    pub queue: Option<Arc<dyn Queue>>,
    /// How often the machine hears how far a job is, and that it is at work.
    pub tell_every: Duration,
}

/// What a cycle may use: an open repository, in whose name, and how much of the machine. Its clock is the repository's.
pub struct Means {
    /// The open repository; read-only is enough for a dry run.
    pub repository: Repository,
    /// `user@host` of this client.
    pub identity: String,
    /// Kopia's own locks of this machine, held (R22); none if this client has no connection of Kopia's, or acts in another's name.
    pub kopia_locks: KopiaLocks,
    /// Folder of the ledger.
    pub state_dir: PathBuf,
    /// Most memory to use, in bytes.
    pub memory_limit: u64,
    /// Storage requests at once; `None`: as suits the store.
    pub parallel: Option<usize>,
    /// Who hears how far it is.
    pub progress: Arc<dyn Progress>,
    /// Who may ask to stop.
    pub stop: Stop,
    /// Told what is being waited for, and how long.
    pub notice: Notice,
    /// Who orders the commands.
    pub coordination: Coordination,
    /// Tries the store before anything is changed in it, unless this state directory knows it. `false`: whoever drives has done so.
    pub tries_store: bool,
    /// Who counts what it does.
    pub observed: Observed,
    /// Where and how finely the work is shared with other workers; `None`: this process does it alone.
    pub shards: Option<Shards>,
}

impl Means {
    fn worker(&self) -> Result<WorkerId> {
        match &self.coordination {
            Coordination::Alone => WorkerId::new(format!("local-{}", std::process::id()))
                .map_err(|e| Error::new(ErrorKind::Internal, "name this worker").with_source(e)),
            Coordination::Shared(shared) => Ok(shared.worker.clone()),
        }
    }

    /// Where hints of the cycle's jobs wait.
    fn queue(&self) -> Arc<dyn Queue> {
        let own = match &self.coordination {
            Coordination::Alone => None,
            Coordination::Shared(shared) => shared.queue.clone(),
        };
        own.unwrap_or_else(|| Arc::new(LocalQueue::default()))
    }

    /// The machine as this repository's workers see it.
    fn drive(&self, id: &RepositoryId, clock: Arc<dyn Clock>, queue: Arc<dyn Queue>) -> Result<(Drive, Route)> {
        match &self.coordination {
            Coordination::Alone => Ok((Drive::open(&self.state_dir, id, clock, queue, None)?, Route(None))),
            Coordination::Shared(shared) => {
                let effects = Arc::new(Effects::new(queue));
                shared.router.join(id.clone(), effects.clone());
                let route = Route(Some((shared.router.clone(), id.clone())));
                let folder = drive::folder(&self.state_dir, id);
                make_folders(&folder).map_err(|e| Error::of_file(format!("make {}", folder.display()), e))?;
                let evidence = shared.evidence.clone().unwrap_or_else(|| Arc::new(EvidenceFolder::beside(&folder)));
                let drive = Drive::keeping(shared.backend.clone(), effects, id, evidence, clock)?;
                Ok((drive, route))
            }
        }
    }
}

/// Effects come as long as this is there.
struct Route(Option<(Arc<Router>, RepositoryId)>);

impl Drop for Route {
    fn drop(&mut self) {
        if let Some((router, id)) = &self.0 {
            router.leave(id);
        }
    }
}

/// Everything that a cycle needs of this process.
struct Session {
    workspace: Workspace,
    clock: Arc<dyn Clock>,
    /// Who holds the lease, whoever it acts as.
    holder: String,
    identity: String,
    name: String,
    shards: Option<Shards>,
    /// What it chooses shards by.
    chooses_by: Option<Arc<Kept>>,
    ahead: Ahead,
    /// How long it took to open the repository and to read its index.
    opened_in: Duration,
    margins: Margins,
    words: Arc<LastWord>,
    tell_every: Duration,
    /// The machine of a fleet, which hears nobody else at this repository: this process drives it.
    fleet: Option<Arc<dyn Backend>>,
}

/// Runs one cycle, or makes its plan. What a failed cycle did is in the ledger; the error says what, why and what helps.
///
/// # Errors
/// Of every kind that `docs/exit-codes.md` names.
pub fn cycle(means: Means, request: &CycleRequest) -> Result<CycleReport> {
    if request.safety == Safety::None && !request.alone && !mutant::on(Mutant::R23NoWordForNoMargins) {
        return Err(ownership::not_alone(&means.repository));
    }
    for _ in 0..ATTEMPTS {
        if let Some(report) = attempt(&means, request)? {
            return Ok(report);
        }
    }
    let step = format!("{}: others keep saying which store it is", means.repository.storage().address());
    Err(Error::new(ErrorKind::Locked, step).with_fix("Try again"))
}

/// As [`cycle`]; `None` if somebody said meanwhile which store it is: then it has another ledger.
fn attempt(means: &Means, request: &CycleRequest) -> Result<Option<CycleReport>> {
    let Means { state_dir, kopia_locks, notice, .. } = means;
    let mut session = open(means, request)?;
    if request.dry_run {
        let earlier = session.ahead.view.take();
        return dry_run(means, &session, request, earlier).map(Some);
    }
    ownership::check(request, &session.identity, &session.ahead.params)?;
    state::check_writable(state_dir)?;
    let local_lock = bucket_lease::lock_local(&**session.workspace.repository.storage())?;
    if let (Some(_), Some(root)) = (&local_lock, means.repository.storage().local_root()) {
        remove_leftovers(root);
    }
    let mut known = state::Known::open(state_dir, &session, means.coordination.repository())?;
    let queue = means.queue();
    let (drive, _route) = means.drive(&known.id, session.clock.clone(), queue.clone())?;
    let drive = Arc::new(drive);
    let schedule = ScheduleFile::load(&session.workspace.repository)?;
    let ours = ours::Ours::new(means, &drive, &known);
    let mode = match due::decide(request, &session, &drive, &known, &ours, &schedule)? {
        due::Decision::Run(mode) => mode,
        due::Decision::Wait(report) => return Ok(Some(*report)),
    };
    let quiet = ownership::Quiet::of(request, &means.identity, &session.ahead.params, kopia_locks.count());
    if !ours.wrote(&schedule)? {
        quiet.check(&session, &schedule)?;
    }
    if means.tries_store {
        store::ensure(&mut known, state_dir, &means.repository, request.exclusive || request.alone)?;
    }
    let own = lease::lock_own(&drive::folder(state_dir, &known.id));
    let storage = session.workspace.repository.storage().clone();
    let settings = own_settings(&session.ahead.params);
    let worker = means.worker()?;
    let Some(held) = lease::Held::take(&session, request, &drive, &known, local_lock, own, &**notice)? else {
        let added = means.coordination.repository();
        return added.map_or(Ok(None), |added| Err(state::another(&means.repository, added)));
    };
    let outcome = known
        .took(state_dir, held.term())
        .and_then(|()| held_cycle(session, request, mode, &drive, &*queue, &known, &held, quiet, &ours, &worker));
    let released = held.release(&*storage, &drive);
    let mut report = outcome?;
    released?;
    known.remember(state_dir, &mut report)?;
    report.own = Some(settings);
    Ok(Some(report))
}

fn open(means: &Means, request: &CycleRequest) -> Result<Session> {
    let identity = request.owner.identity(&means.identity);
    let spill = state::spill_folder(&means.state_dir, !request.dry_run);
    let scope = Scope::default();
    let counted = counted(&means.repository.counting_repairs(), &means.observed, &scope);
    let kept = kept_packs(means, &spill);
    let mut workspace = Workspace::new(kept::near(&counted, kept.packs()));
    workspace.scope = scope;
    workspace.memory = MemoryLimit::new(means.memory_limit);
    workspace.spill = spill;
    if let Some(parallel) = means.parallel {
        workspace.parallel = parallel;
    }
    let words = Arc::new(LastWord::new(means.progress.clone()));
    workspace.progress = words.clone();
    workspace.stop = means.stop.clone();
    workspace.identity = identity.clone();
    let clock = means.repository.clock().clone();
    let began = clock.since_boot();
    let ahead = look_ahead(&workspace, None)?;
    let opened_in = means.repository.opened_in() + clock.since_boot().saturating_sub(began);
    let name = means.observed.name.clone().unwrap_or_else(|| means.repository.storage().address());
    let (holder, margins) = (means.identity.clone(), request.margins());
    let shards = means.shards.clone();
    let (fleet, tell_every) = match &means.coordination {
        Coordination::Alone => (None, TELL_EVERY),
        Coordination::Shared(shared) => (Some(shared.backend.clone()), shared.tell_every),
    };
    let chooses_by = shards.as_ref().map(|shards| match shards.by_packs {
        true => kept,
        false => Arc::new(Kept::new(&workspace.spill)),
    });
    Ok(Session {
        workspace,
        clock,
        holder,
        identity,
        name,
        shards,
        chooses_by,
        ahead,
        opened_in,
        margins,
        words,
        tell_every,
        fleet,
    })
}

/// What really goes to the store is counted, below all that spares it.
fn counted(repository: &Repository, observed: &Observed, scope: &Scope) -> Repository {
    let storage = repository.storage().clone();
    repository.through(Arc::new(TracedStorage::new(storage, observed.calls.clone(), scope.clone())))
}

/// Where packs are kept that this cycle reads: if its work is shared, those for shards of it that other places of this process do, too.
fn kept_packs(means: &Means, spill: &SpillFolder) -> Arc<Kept> {
    match means.shards.as_ref().zip(means.coordination.repository()) {
        Some((shards, id)) => shards.kept.begin(id, spill),
        None => Arc::new(Kept::new(spill)),
    }
}

/// Makes and checks a plan; needs no lease and no ledger, and changes nothing.
fn dry_run(
    means: &Means,
    session: &Session,
    request: &CycleRequest,
    earlier: Option<Arc<IndexView>>,
) -> Result<CycleReport> {
    let mode = request.mode.unwrap_or(Mode::Full);
    let folder =
        tempfile::tempdir().map_err(|e| Error::new(ErrorKind::Permission, "make a temporary folder").with_source(e))?;
    let queue = means.queue();
    let (id, drive, _route) = match means.coordination.repository() {
        Some(id) => {
            let (drive, route) = means.drive(id, session.clock.clone(), queue.clone())?;
            (id.clone(), drive, route)
        }
        None => {
            let id = state::unknown_store(&session.workspace.repository)?;
            let drive = Drive::open(folder.path(), &id, session.clock.clone(), queue.clone(), None)?;
            (id, drive, Route(None))
        }
    };
    let drive = Arc::new(drive);
    let schedule = ScheduleFile::load(&session.workspace.repository)?;
    let choice = choice(session, request, mode);
    let control = LocalControl::new(drive.clone());
    let worker = means.worker()?;
    let mut work = Work::new(session.workspace.clone(), &control, worker.clone(), choice, None, schedule, earlier);
    let cycle = begin(&drive, &id, options(session, request, mode))?;
    let mut told = trace::Told::begin(session, &drive, &id, cycle, &worker);
    let driven = drive_to_end(&drive, &*queue, &control, &worker, cycle, &mut work, &mut told, session);
    told.rest();
    let report = driven.and_then(|()| report::of(&drive, &id, cycle, &mut work, session, mode));
    let report = told.end(report)?;
    write_plan(request, &work)?;
    Ok(report)
}

#[allow(clippy::too_many_arguments, reason = "the parts of one process, named once")]
fn held_cycle(
    mut session: Session,
    request: &CycleRequest,
    mode: Mode,
    drive: &Arc<Drive>,
    queue: &dyn Queue,
    known: &state::Known,
    held: &lease::Held,
    quiet: ownership::Quiet,
    ours: &ours::Ours,
    worker: &WorkerId,
) -> Result<CycleReport> {
    let term = Term(held.term());
    session.workspace.dead_sessions = Arc::new(ours.sessions_over(term, &*session.clock)?);
    session.workspace.began_session = ours.began_session(term, session.clock.clone());
    // The lease may have been waited for: whatever became of the format meanwhile, nothing was written yet.
    session.workspace.repository = session.workspace.repository.refresh()?;
    let mut earlier = session.ahead.view.take();
    if request.owner.takes() && session.ahead.params.owner != session.identity {
        ownership::take(&session, held)?;
        // The parameters and the index changed by our own hand.
        earlier = None;
    }
    // Read under the lease, and looked at once more: a run of Kopia may have begun while the lease was waited for, or right before
    // the owner was written.
    let mut schedule = ScheduleFile::load(&session.workspace.repository)?;
    if !ours.wrote(&schedule)? {
        quiet.check(&session, &schedule)?;
    }
    schedule.tell_before_writing(ours.before_write(term));
    let choice = choice(&session, request, mode);
    let control = LocalControl::new(drive.clone());
    let keeper = held.keeper();
    let mut work =
        Work::new(session.workspace.clone(), &control, worker.clone(), choice, Some(keeper), schedule, earlier)
            .with_shards(session.shards.clone());
    let cycle = begin_or_replace(drive, &known.id, options(&session, request, mode))?;
    let mut told = trace::Told::begin(&session, drive, &known.id, cycle, worker);
    let driven = held.while_renewing(&session, drive, || {
        drive_to_end(drive, queue, &control, worker, cycle, &mut work, &mut told, &session)
    });
    told.rest();
    leave_exchange(drive, &known.id, cycle, &work);
    if let Err(error) = driven {
        return told.end(Err(error));
    }
    let report = report::of(drive, &known.id, cycle, &mut work, &session, mode);
    let report = told.end(report);
    write_plan(request, &work)?;
    report
}

/// A cycle that has closed leaves nothing in the exchange; a parked one comes back to what its shards did.
fn leave_exchange(drive: &Drive, id: &RepositoryId, cycle: CycleId, work: &Work<'_>) {
    if drive.state(|state| state.cycles.contains_key(&cycle)) {
        return;
    }
    if let Err(error) = work.leave_exchange(id, cycle) {
        tracing::warn!(
            cycle = cycle.0,
            error = error.chain(),
            "parts of a closed cycle stay in the exchange until they are a day old"
        );
    }
}

fn choice(session: &Session, request: &CycleRequest, mode: Mode) -> Choice {
    Choice { mode, margins: session.margins.clone(), allow_removing: request.allow_removing, dry_run: request.dry_run }
}

fn options(session: &Session, request: &CycleRequest, mode: Mode) -> CycleOptions {
    use verger_proto::mode;
    CycleOptions {
        mode: recorded(mode),
        safety: if request.safety == Safety::None { mode::Safety::None } else { mode::Safety::Full },
        index: if session.workspace.repository.config().epoch.enabled {
            mode::IndexKind::Epochs
        } else {
            mode::IndexKind::Legacy
        },
        dry_run: request.dry_run,
        allow_removing: request.allow_removing,
        exclusive: request.exclusive || request.alone,
        alone: request.alone,
    }
}

fn begin(drive: &Drive, id: &RepositoryId, options: CycleOptions) -> Result<CycleId> {
    drive.begin(id, options)?.map_err(|e| Error::new(ErrorKind::PlanRefused, "open a cycle").with_source(e))
}

/// Opens a cycle. One that an earlier process left with other options is given up: its work is found again by this one's view.
fn begin_or_replace(drive: &Drive, id: &RepositoryId, options: CycleOptions) -> Result<CycleId> {
    if let Some((cycle, others)) = drive.unfinished(id)
        && others != options
    {
        let reason = "a new cycle with other options takes its place".to_owned();
        drive.submit(Command::AbortCycle { cycle, reason })?;
    }
    begin(drive, id, options)
}

fn write_plan(request: &CycleRequest, work: &Work<'_>) -> Result<()> {
    let (Some(path), Some(plan), Some(survey)) = (&request.plan_out, work.plan(), work.survey()) else { return Ok(()) };
    let failed = |e: std::io::Error| {
        Error::new(ErrorKind::Permission, format!("write the plan to {}", path.display())).with_source(e)
    };
    let mut file = std::fs::File::create(path).map_err(failed)?;
    verger_worker::task::plan::lines::write_lines(plan, &survey.view.table, &mut file).map_err(failed)
}
