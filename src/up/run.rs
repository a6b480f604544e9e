//! One cycle of one repository, by a worker of this process.

use std::sync::Arc;

use verger::embedded::{self, Coordination, CycleReport, CycleRequest, Means, Observed, Ownership, Safety, Shared};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::storage::Access;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{Acting, Command, CycleId, CycleOptions, Failure, RepositoryName, WorkerId};
use verger_worker::kopia_lock::KopiaLocks;
use verger_worker::progress::{Progress, Step, Stop};
use verger_worker::run::failure_kind;

use super::supervisor::{Outcome, Supervisor, Task, Why};

/// Runs what the task says, and tells the machine what came of it.
pub(super) fn run(supervisor: &Arc<Supervisor>, task: &Task, stop: Stop, number: u64) -> Outcome {
    let name = &task.registration.name;
    match cycle(supervisor, task, stop, number) {
        Ok(report) if report.outcome == "nothing-due" => Outcome::Wait(report.next_due),
        Ok(report) => {
            tracing::info!(repository = %name, cycle = report.cycle, outcome = report.outcome, "a cycle ended");
            tell(supervisor, task, &report);
            give_up(supervisor, task, None);
            Outcome::Ran
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Outcome::Ran,
        Err(error) => {
            tracing::warn!(repository = %name, error = error.chain(), "no cycle");
            give_up(supervisor, task, Some(&error));
            Outcome::Failed
        }
    }
}

fn cycle(supervisor: &Arc<Supervisor>, task: &Task, stop: Stop, number: u64) -> Result<CycleReport> {
    let request = request(task);
    let access = if request.dry_run { Access::ReadOnly } else { Access::ReadWrite };
    let registration = &task.registration;
    let repository =
        supervisor.opener.open(&registration.name, &registration.address, &registration.password, access)?;
    let worker = WorkerId::new(format!("{}-{}-{number}", supervisor.identity, std::process::id()))
        .map_err(|error| Error::new(ErrorKind::Internal, "name a worker").with_source(error))?;
    let engine = &supervisor.opener.engine;
    let shared = Shared {
        backend: supervisor.backend.clone(),
        router: supervisor.router.clone(),
        repository: task.repository.clone(),
        worker,
    };
    let means = Means {
        repository,
        identity: supervisor.identity.clone(),
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
        observed: Observed {
            name: Some(registration.name.to_string()),
            calls: supervisor.meters.calls(&registration.name),
        },
    };
    embedded::cycle(means, &request)
}

fn request(task: &Task) -> CycleRequest {
    let options: Option<CycleOptions> = match &task.why {
        Why::Asked(_, options) | Why::Unfinished(options) => Some(*options),
        Why::Due => None,
    };
    let mode = options.map(|options| match options.mode {
        verger_proto::Mode::Full => Mode::Full,
        verger_proto::Mode::Quick => Mode::Quick,
    });
    let none = options.is_some_and(|options| options.safety == verger_proto::Safety::None);
    CycleRequest {
        mode,
        safety: if none { Safety::None } else { Safety::Full },
        alone: options.is_some_and(|options| options.alone),
        exclusive: options.map_or(task.registration.exclusive, |options| options.exclusive),
        allow_removing: options.and_then(|options| options.allow_removing),
        dry_run: options.is_some_and(|options| options.dry_run),
        wait: false,
        mark_to_drop: None,
        owner: match &task.registration.acting {
            Acting::ActAs(name) => Ownership::ActAs(name.clone()),
            Acting::TakeOwnership => Ownership::Take,
            Acting::Observe => Ownership::Own,
        },
        plan_out: None,
    }
}

fn tell(supervisor: &Supervisor, task: &Task, report: &CycleReport) {
    let Ok(text) = serde_json::to_string(report) else { return };
    let (repository, cycle) = (task.repository.clone(), CycleId(report.cycle));
    let told = supervisor.backend.submit(Command::RecordReport { repository, cycle, report: text });
    if let Err(error) = told {
        tracing::error!(error = error.chain(), "a report was not kept");
    }
}

/// A wish for which no cycle began is given up; one that a cycle began for is answered already.
fn give_up(supervisor: &Supervisor, task: &Task, error: Option<&Error>) {
    let Why::Asked(key, _) = &task.why else { return };
    let waits = |state: &verger_coordinator::machine::State| {
        let entry = state.repositories.get(&task.repository);
        entry.is_some_and(|entry| entry.requests.iter().any(|request| request.key == *key))
    };
    let mut still = false;
    supervisor.backend.look(&mut |state| still = waits(state));
    if !still {
        return;
    }
    let failure = match error {
        Some(error) => Failure { kind: failure_kind(error.kind()), text: error.chain(), retryable: false },
        None => {
            let text = "the cycle that ran was another one than was asked for".to_owned();
            Failure { kind: verger_proto::FailureKind::Internal, text, retryable: false }
        }
    };
    let (repository, key) = (task.repository.clone(), key.clone());
    if let Err(error) = supervisor.backend.submit(Command::DropRequest { repository, key, failure }) {
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
