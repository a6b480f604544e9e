//! One cycle of one repository, by a worker of this process.

use std::sync::Arc;
use std::time::Duration;

use verger::embedded::{
    self, Coordination, CycleReport, CycleRequest, Means, Observed, Ownership, Safety, Shared, identify, note_lease,
    own_settings,
};
use verger_coordinator::api::work::Task;
use verger_coordinator::drive::{Backend, Router, refusal};
use verger_coordinator::ledger::evidence::KeepEvidence;
use verger_coordinator::machine::Calendar;
use verger_coordinator::meters::Meters;
use verger_coordinator::schedule::Work;
use verger_kopia::maintenance::rules::next::Rule;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::storage::Access;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{
    Acting, Command, CycleId, Failure, FailureKind, LogTime, Margin, Own, Registration, RepositoryName, Term, WorkerId,
};
use verger_worker::kopia_lock::KopiaLocks;
use verger_worker::progress::{Progress, Step, Stop};
use verger_worker::run::{Shards, TELL_EVERY, failure_kind, ruled};
use verger_worker::task::survey::look_ahead;
use verger_worker::workspace::Workspace;

use super::opener::Opener;
use super::store;
use super::supervisor::Outcome;

/// What runs of a process share.
pub(crate) struct Site {
    /// Opens repositories, with the secrets of this machine.
    pub(crate) opener: Arc<Opener>,
    /// `user@host` of the fleet.
    pub(crate) identity: String,
    /// Where effects of commands come from.
    pub(crate) router: Arc<Router>,
    /// Counts what is done.
    pub(crate) meters: Arc<Meters>,
    /// Where and how finely work is shared; `None`: each run does all of its own.
    pub(crate) shards: Option<Shards>,
    /// Who keeps names of what is deleted, if it is not this process.
    pub(crate) evidence: Option<Arc<dyn KeepEvidence>>,
}

/// Runs what the task says, and tells the machine what came of it. `worker`: the run's name, another one for each.
pub(crate) fn run(site: &Site, task: &Task, stop: Stop, backend: &Arc<dyn Backend>, worker: &str) -> Outcome {
    let Registration { name, address, password, .. } = &task.registration;
    if let Err(error) = site.opener.check_secret(name, address, password) {
        return unable(&error);
    }
    if task.work == Work::Look {
        return look(site, backend, task);
    }
    let before = begun(&**backend, task);
    match cycle(site, task, stop, backend, worker) {
        Ok(report) => {
            tracing::info!(repository = %name, cycle = report.cycle, outcome = report.outcome, "a cycle ended");
            tell(&**backend, task, &report);
            if let Some(own) = report.own {
                record(&**backend, task, own, margins(&report));
            }
            let text = "the cycle that ran was another one than was asked for".to_owned();
            give_up(&**backend, task, Failure { kind: FailureKind::Internal, text, retryable: false });
            Outcome::Ran
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => {
            tracing::info!(repository = %name, error = error.chain(), "a cycle is left where it is");
            Outcome::Ran
        }
        // What was wished is wished of the same repository still.
        Err(error) if error.kind() == ErrorKind::PlanRefused && is_identified(site, &**backend, task) => Outcome::Ran,
        Err(error) if is_shut_out(&error) && begun(&**backend, task) == before => {
            unable(&site.opener.named(error, name, address, password))
        }
        Err(error) => {
            tracing::warn!(repository = %name, error = error.chain(), "no cycle");
            let failure = Failure { kind: failure_kind(error.kind()), text: error.chain(), retryable: false };
            give_up(&**backend, task, failure);
            Outcome::Failed
        }
    }
}

/// Whether it is what this process is known by that does not do: another one may have what does.
fn is_shut_out(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WrongPassword | ErrorKind::Permission)
}

fn unable(error: &Error) -> Outcome {
    Outcome::Unable(Failure { kind: failure_kind(error.kind()), text: error.chain(), retryable: false })
}

/// What there is of cycles of a repository: the same as before says that nothing was begun.
fn begun(backend: &dyn Backend, task: &Task) -> Option<(Term, Option<CycleId>)> {
    let mut found = None;
    backend.look(&mut |state| {
        let entry = state.repositories.get(&task.repository);
        found = entry.map(|entry| (entry.last_term, entry.open));
    });
    found
}

fn cycle(site: &Site, task: &Task, stop: Stop, backend: &Arc<dyn Backend>, worker: &str) -> Result<CycleReport> {
    let request = request(task);
    let access = if request.dry_run { Access::ReadOnly } else { Access::ReadWrite };
    let registration = &task.registration;
    let repository = site.opener.open(&registration.name, &registration.address, &registration.password, access)?;
    if !request.dry_run {
        let word = (request.exclusive || request.alone, LogTime::of(repository.clock().now()));
        store::ensure(&**backend, &task.repository, &repository, &registration.acting, word)?;
    }
    let worker =
        WorkerId::new(worker).map_err(|error| Error::new(ErrorKind::Internal, "name a worker").with_source(error))?;
    let engine = &site.opener.engine;
    let shared = Shared {
        backend: backend.clone(),
        router: site.router.clone(),
        repository: task.repository.clone(),
        worker,
        evidence: site.evidence.clone(),
        queue: None,
        tell_every: TELL_EVERY,
    };
    let means = Means {
        repository,
        identity: site.identity.clone(),
        kopia_locks: KopiaLocks::take(&[])?,
        state_dir: engine.state_dir.clone(),
        memory_limit: engine.memory_limit,
        parallel: engine.parallel,
        progress: Arc::new(Traced { repository: task.registration.name.clone() }),
        stop,
        notice: {
            let name = task.registration.name.clone();
            Arc::new(move |text, left| tracing::info!(repository = %name, seconds = left.as_secs(), "{text}"))
        },
        coordination: Coordination::Shared(shared),
        tries_store: false,
        observed: Observed { name: Some(registration.name.to_string()), calls: site.meters.calls(&registration.name) },
        shards: site.shards.clone(),
    };
    embedded::cycle(means, &request)
}

/// Whether another fleet said in the store which one it is, since this one added it: then that is what it is here, too, from now on. The
/// machine knows whether that can be; as long as nothing is known, nothing is changed.
fn is_identified(site: &Site, backend: &dyn Backend, task: &Task) -> bool {
    let known = &task.registration;
    let opened = site.opener.open(&known.name, &known.address, &known.password, Access::ReadOnly);
    let found = opened.and_then(|opened| identify(&site.opener.engine.state_dir, &opened, Some(&task.repository)));
    let Ok(found) = found else { return false };
    if found == task.repository || found.unique != task.repository.unique {
        return false;
    }
    let identified = Command::IdentifyStore { repository: task.repository.clone(), store: found.store.clone() };
    let is_taken = backend.submit(identified).is_ok_and(|events| refusal(&events).is_none());
    if is_taken {
        tracing::info!(repository = %known.name, id = %found, "another fleet named its store first; it goes by that from now on");
    }
    is_taken
}

fn request(task: &Task) -> CycleRequest {
    let (options, mode) = match &task.work {
        Work::Asked { options, .. } | Work::Unfinished(options) => (Some(*options), options.mode),
        Work::Due(mode, _) => (None, *mode),
        Work::Look => (None, verger_proto::Mode::Quick),
    };
    let none = options.is_some_and(|options| options.safety == verger_proto::Safety::None);
    CycleRequest {
        mode: Some(ruled(mode)),
        by_itself: options.is_none(),
        safety: if none { Safety::None } else { Safety::Full },
        alone: options.is_some_and(|options| options.alone),
        exclusive: options.map_or(task.registration.exclusive, |options| options.exclusive),
        allow_removing: options.and_then(|options| options.allow_removing),
        dry_run: options.is_some_and(|options| options.dry_run),
        wait: false,
        mark_to_drop: Some(Duration::from_millis(task.registration.mark_to_drop.wait())),
        owner: match &task.registration.acting {
            Acting::ActAs(name) => Ownership::ActAs(name.clone()),
            Acting::TakeOwnership => Ownership::Take,
            Acting::Observe => Ownership::Own,
        },
        plan_out: None,
    }
}

/// Reads the repository's own Kopia settings: they say when cycles are due, unless its schedule does.
fn look(site: &Site, backend: &Arc<dyn Backend>, task: &Task) -> Outcome {
    let known = &task.registration;
    let opened = site.opener.open(&known.name, &known.address, &known.password, Access::ReadOnly);
    let looked = opened.and_then(|repository| {
        note_lease(&**backend, &task.repository, &**repository.storage(), &site.identity);
        look_ahead(&Workspace::new(repository), None)
    });
    match looked {
        Ok(ahead) => {
            record(&**backend, task, own_settings(&ahead.params), None);
            Outcome::Ran
        }
        Err(error) if is_shut_out(&error) => unable(&error),
        Err(error) => {
            tracing::warn!(repository = %known.name, error = error.chain(), "its settings could not be read");
            Outcome::Failed
        }
    }
}

/// The margin that bytes wait for next. Only a full cycle knows of any.
fn margins(report: &CycleReport) -> Option<Vec<Margin>> {
    let next = report.next.as_ref();
    let margin = next.and_then(|next| {
        let at = u64::try_from(next.at.as_millisecond()).ok().map(LogTime)?;
        Some(Margin { at, is_drop: next.rule == Rule::MarkToDrop })
    });
    (report.mode == Some(Mode::Full) && report.outcome != "planned").then(|| margin.into_iter().collect())
}

/// Tells the machine what it needs to know of when the next cycle is due, unless it knows.
fn record(backend: &dyn Backend, task: &Task, own: Own, margins: Option<Vec<Margin>>) {
    let mut known = false;
    backend.look(&mut |state| {
        let calendar = state.repositories.get(&task.repository).map(|entry| &entry.calendar);
        let same = |calendar: &Calendar| margins.as_ref().is_none_or(|margins| *margins == calendar.margins);
        known = calendar.is_some_and(|calendar| calendar.own == Some(own) && same(calendar));
    });
    if known {
        return;
    }
    let repository = task.repository.clone();
    if let Err(error) = backend.submit(Command::RecordLook { repository, own, margins }) {
        tracing::error!(error = error.chain(), "what a look found was not kept");
    }
}

fn tell(backend: &dyn Backend, task: &Task, report: &CycleReport) {
    let Ok(text) = serde_json::to_string(report) else { return };
    let (repository, cycle) = (task.repository.clone(), CycleId(report.cycle));
    let told = backend.submit(Command::RecordReport { repository, cycle, report: text });
    if let Err(error) = told {
        tracing::error!(error = error.chain(), "a report was not kept");
    }
}

/// A wish for which no cycle began is given up; one that a cycle began for is answered already.
pub(super) fn give_up(backend: &dyn Backend, task: &Task, failure: Failure) {
    let Work::Asked { key, .. } = &task.work else { return };
    let waits = |state: &verger_coordinator::machine::State| {
        let entry = state.repositories.get(&task.repository);
        entry.is_some_and(|entry| entry.requests.iter().any(|request| request.key == *key))
    };
    let mut still = false;
    backend.look(&mut |state| still = waits(state));
    if !still {
        return;
    }
    let (repository, key) = (task.repository.clone(), key.clone());
    if let Err(error) = backend.submit(Command::DropRequest { repository, key, failure }) {
        tracing::error!(error = error.chain(), "a wish was not given up");
    }
}

/// Logs how far a cycle is.
struct Traced {
    repository: RepositoryName,
}

impl Progress for Traced {
    fn step(&self, step: Step) {
        tracing::debug!(repository = %self.repository, stage = step.stage, done = step.done, "progress");
    }
}
