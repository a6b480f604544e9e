//! A shard of somebody's cycle: claimed, run, reported.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use verger::embedded::shard_span;
use verger_coordinator::drive::{Backend, Drive, Effects, LocalControl};
use verger_coordinator::others::UNABLE_MILLISECONDS;
use verger_kopia::spill::SpillFolder;
use verger_kopia::storage::{Access, KeptPacks, Scope, TracedStorage};
use verger_kopia::{Error, ErrorKind, Repository, Result};
use verger_proto::control::{Control, ControlError};
use verger_proto::queue::Hint;
use verger_proto::queue::local::LocalQueue;
use verger_proto::{
    Acting, Failure, FailureKind, JobSpec, LogTime, Outcome, Registration, RepositoryId, TraceId, TraceParent, WorkerId,
};
use verger_worker::kept::{self, Next};
use verger_worker::limit::MemoryLimit;
use verger_worker::run::{failure_kind, run_shard};
use verger_worker::trace;
use verger_worker::workspace::Workspace;

use super::Crew;
use super::evidence::RemoteEvidence;
use super::places::Found;
use super::remote::Remote;

/// How long an open repository serves one shard after another: to derive its key takes as long as many a shard.
const OPENED_FOR: Duration = Duration::from_secs(300);
/// So many are kept open.
const OPENED_MAX: usize = 16;

/// A repository whose shard failed here for a reason that may be this worker's own (no password, another exchange) is left to others
/// for so long: each try costs the shard an attempt, and it has few.
const UNABLE_FOR: Duration = Duration::from_secs(30);
/// And one that this worker cannot open with what it has, as long as it is not given its cycles: somebody has to put it right here.
pub(super) const SHUT_OUT_FOR: Duration = Duration::from_millis(UNABLE_MILLISECONDS);

/// Repositories whose shards are done here, or cannot be.
#[derive(Default)]
pub(super) struct Opened {
    open: Mutex<BTreeMap<RepositoryId, (Registration, Repository, Instant)>>,
    /// Left to others, and until when.
    unable: Mutex<BTreeMap<RepositoryId, Instant>>,
}

impl Opened {
    /// Whether shards of this repository are left to others for now.
    pub(super) fn is_unable(&self, id: &RepositoryId) -> bool {
        let mut all = self.unable.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, until| Instant::now() < *until);
        all.contains_key(id)
    }

    /// Leaves a repository's shards to others for so long.
    pub(super) fn leave(&self, id: &RepositoryId, time: Duration) {
        let until = Instant::now() + time;
        self.unable.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), until);
        // What it was opened with may be refused by now.
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// The same, and says so if people need to know.
    fn unable(&self, crew: &Crew, id: &RepositoryId, run: u64, why: &Failure) {
        use FailureKind::{Permission, Usage, WrongPassword};
        let is_shut_out = matches!(why.kind, Permission | Usage | WrongPassword);
        self.leave(id, if is_shut_out { SHUT_OUT_FOR } else { UNABLE_FOR });
        if is_shut_out && let Err(error) = crew.note_unable(id, crew.driver(run), why) {
            tracing::debug!(error = error.chain(), "nobody was told that a repository cannot be opened here");
        }
    }

    fn get(&self, crew: &Crew, id: &RepositoryId, known: &Registration) -> Result<Repository> {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, _, at)| at.elapsed() < OPENED_FOR);
        let is_same = |(registration, ..): &&(Registration, Repository, Instant)| {
            registration.address == known.address && registration.password == known.password
        };
        if let Some((_, repository, _)) = all.get(id).filter(is_same) {
            return Ok(repository.clone());
        }
        drop(all);
        let opener = &crew.site.opener;
        let repository = opener.open(&known.name, &known.address, &known.password, Access::ReadWrite)?;
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= OPENED_MAX {
            all.clear();
        }
        all.insert(id.clone(), (known.clone(), repository.clone(), Instant::now()));
        Ok(repository)
    }
}

/// Does the shard that a hint is of.
///
/// # Errors
/// No coordinator answers. What is wrong with the shard itself is reported to them.
pub(super) fn take(crew: &Arc<Crew>, hint: &Hint) -> Result<Found> {
    let Some(shards) = crew.site.shards.as_ref().filter(|_| !crew.opened.is_unable(&hint.repository)) else {
        return Ok(Found::Nothing);
    };
    let run = crew.runs.fetch_add(1, Ordering::Relaxed);
    let worker = WorkerId::new(crew.run_name(run))
        .map_err(|error| Error::new(ErrorKind::Internal, "name a run").with_source(error))?;
    let backend = match Remote::new(crew.link.clone(), hint.repository.clone(), crew.site.router.clone()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Lost),
        found => Arc::new(found?),
    };
    let known = registration(&*backend, &hint.repository);
    let Some(known) = known else { return Ok(Found::Lost) };
    let queue = Arc::new(LocalQueue::default());
    let evidence = Arc::new(RemoteEvidence::new(crew.link.clone()));
    let drive = Drive::joining(backend.clone(), Arc::new(Effects::new(queue)), evidence, crew.clock.clone());
    let waiting = drive.waiting(hint);
    if waiting.is_empty() && !drive.is_there(hint, &worker) {
        return Ok(Found::Lost);
    }
    let kept = shards.kept.of(&hint.repository, hint.cycle, &SpillFolder::new(&crew.site.opener.engine.state_dir));
    let hint = &match kept.next(&worker, &waiting, Instant::now()) {
        Some(Next::Shard(hint)) => hint,
        Some(Next::LeftToOthers) => return Ok(Found::Later),
        None => hint.clone(),
    };
    // Before the claim: a worker that cannot costs the shard no attempt.
    let repository = match crew.opened.get(crew, &hint.repository, &known) {
        Ok(repository) => repository,
        Err(error) => {
            tracing::warn!(repository = %known.name, error = error.chain(), "shards of a repository are left to others");
            let why = Failure { kind: failure_kind(error.kind()), text: error.chain(), retryable: false };
            crew.opened.unable(crew, &hint.repository, run, &why);
            return Ok(Found::Nothing);
        }
    };
    let control = LocalControl::new(Arc::new(drive));
    let ticket = hint.ticket(&worker);
    let spec = match control.claim(&ticket) {
        Ok(spec) => spec,
        Err(ControlError::Refused(_)) => return Ok(Found::Lost),
        Err(error) => return Err(unanswered(error)),
    };
    let name = &known.name;
    tracing::debug!(repository = %name, cycle = spec.cycle.0, job = spec.id.0, stage = spec.stage.name(), "a shard begins");
    let workspace = workspace(crew, &known, &repository, kept.packs());
    let span = shard_span(parent(&*backend, &spec), name.as_str(), &spec, &worker);
    let told = trace::job(&workspace, &span, &spec);
    let under_way = told.span().clone().entered();
    let report = run_shard(&workspace, shards, &control, &spec, &worker);
    trace::job_ended(told.span(), spec.stage, &report);
    drop(under_way);
    let failed = matches!(report.outcome, Outcome::Failed(_));
    if let Outcome::Failed(failure) = &report.outcome
        && failure.retryable
        && !crew.stop.is_asked()
    {
        tracing::warn!(repository = %name, error = failure.text, "a shard failed; those of its repository are left to others");
        crew.opened.unable(crew, &spec.repository, run, failure);
    }
    crew.counts.shard(failed);
    match control.report(&ticket, report) {
        Ok(()) | Err(ControlError::Refused(_)) => Ok(Found::Work),
        Err(error) => Err(unanswered(error)),
    }
}

/// Where the cycle's trace goes on: the same that a hint says, which may have been lost.
fn parent(backend: &dyn Backend, spec: &JobSpec) -> TraceParent {
    let mut opened = LogTime(0);
    backend.look(&mut |state| opened = state.cycles.get(&spec.cycle).map_or(opened, |cycle| cycle.opened));
    TraceParent::of_stage(TraceId::of(&spec.repository, spec.cycle, opened), spec.stage, spec.term)
}

fn unanswered(error: ControlError) -> Error {
    Error::new(ErrorKind::StoreUnavailable, "speak of a shard").with_source(error)
}

fn registration(backend: &dyn Backend, id: &RepositoryId) -> Option<Registration> {
    let mut found = None;
    backend.look(&mut |state| found = state.repositories.get(id).and_then(|entry| entry.registration.clone()));
    found
}

fn workspace(crew: &Crew, known: &Registration, repository: &Repository, packs: Arc<KeptPacks>) -> Workspace {
    let engine = &crew.site.opener.engine;
    let (scope, calls) = (Scope::default(), crew.site.meters.calls(&known.name));
    let counted = TracedStorage::new(repository.storage().clone(), calls, scope.clone());
    let mut workspace = Workspace::new(kept::near(&repository.through(Arc::new(counted)), packs));
    workspace.scope = scope;
    workspace.memory = MemoryLimit::new(engine.memory_limit);
    workspace.spill = SpillFolder::new(&engine.state_dir);
    if let Some(parallel) = engine.parallel {
        workspace.parallel = parallel;
    }
    workspace.stop = crew.stop.child();
    workspace.identity = match &known.acting {
        Acting::ActAs(owner) => owner.clone(),
        Acting::Observe | Acting::TakeOwnership => crew.site.identity.clone(),
    };
    workspace
}
