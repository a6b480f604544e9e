//! Drives the machine: commands in, into the ledger, effects out. For one repository; whoever orders the commands is behind it.

mod backend;
mod control;
mod driven;
mod effects;
mod file;
mod replicated;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use verger_kopia::clock::Clock;
use verger_kopia::error::Result;
use verger_proto::queue::{Hint, Queue};
use verger_proto::{
    Command, CycleId, CycleOptions, Effect, Event, Evidence, LogTime, OutputRef, Progress, Refusal, RepositoryId,
    Shard, Ticket, WorkerId,
};

use crate::ledger::evidence::{EvidenceFolder, KeepEvidence};
use crate::machine::{JobStatus, Phase, State};

pub use backend::Backend;
pub use control::LocalControl;
pub use driven::DrivenBackend;
pub use effects::{Effects, Router, Run};
pub use file::{FileBackend, Observer};
pub use replicated::ReplicatedBackend;

/// The machine as the workers of one repository see it, and what runs its effects.
pub struct Drive {
    backend: Arc<dyn Backend>,
    effects: Arc<Effects>,
    clock: Arc<dyn Clock>,
    evidence: Arc<dyn KeepEvidence>,
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive").finish_non_exhaustive()
    }
}

/// The folder of a repository's ledger and evidence.
#[must_use]
pub fn folder(state_dir: &Path, repository: &RepositoryId) -> PathBuf {
    state_dir.join(repository.to_string())
}

impl Drive {
    /// Opens the ledger of a repository under `state_dir` and makes the state again. What an ended process left running is
    /// parked, a dry run is given up.
    ///
    /// # Errors
    /// `Locked` if another process has the ledger, `Damaged` if it does not hold, `Permission` or `DiskFull` if it cannot be written.
    pub fn open(
        state_dir: &Path,
        repository: &RepositoryId,
        clock: Arc<dyn Clock>,
        queue: Arc<dyn Queue>,
        observer: Option<Observer>,
    ) -> Result<Self> {
        let folder = folder(state_dir, repository);
        let effects = Arc::new(Effects::new(queue));
        let backend = FileBackend::open(&folder, clock.clone(), effects.clone(), observer)?;
        Self::behind(Arc::new(backend), effects, repository, &folder, clock)
    }

    /// Of one repository, whose commands `backend` orders and whose effects come to `effects`. `folder`: where its evidence is. What an
    /// ended process left running is parked, a dry run is given up.
    ///
    /// # Errors
    /// What [`Backend::submit`] says.
    pub fn behind(
        backend: Arc<dyn Backend>,
        effects: Arc<Effects>,
        repository: &RepositoryId,
        folder: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        Self::keeping(backend, effects, repository, Arc::new(EvidenceFolder::beside(folder)), clock)
    }

    /// As [`Drive::behind`], with evidence kept elsewhere.
    ///
    /// # Errors
    /// As there.
    pub fn keeping(
        backend: Arc<dyn Backend>,
        effects: Arc<Effects>,
        repository: &RepositoryId,
        evidence: Arc<dyn KeepEvidence>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let drive = Self::joining(backend, effects, evidence, clock);
        drive.recover(repository)?;
        Ok(drive)
    }

    /// Of a cycle that somebody else leads: nothing of it is stopped by coming to it.
    #[must_use]
    pub fn joining(
        backend: Arc<dyn Backend>,
        effects: Arc<Effects>,
        evidence: Arc<dyn KeepEvidence>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { backend, effects, clock, evidence }
    }

    /// Nobody of an ended process is still at work: parks what it left.
    fn recover(&self, repository: &RepositoryId) -> Result<()> {
        let mut commands = Vec::new();
        self.state(|state| {
            if let Some(cycle) = state.open_cycle(repository) {
                if cycle.options.dry_run {
                    let reason = "its process ended".to_owned();
                    commands.push(Command::AbortCycle { cycle: cycle.id, reason });
                } else if matches!(cycle.phase, Phase::Running | Phase::WaitingForWord) {
                    commands.push(Command::ParkCycle { cycle: cycle.id });
                }
                commands.extend(workers(cycle).map(|worker| Command::LoseWorker { worker }));
            }
        });
        commands.into_iter().try_for_each(|command| self.submit(command).map(drop))?;
        self.effects.forget();
        Ok(())
    }

    /// Says how far a job is, to whoever watches.
    pub fn tell(&self, ticket: &Ticket, progress: Progress) {
        self.backend.tell(ticket, progress);
    }

    /// Applies a command. When this returns, command and events are durable and the effects are under way.
    ///
    /// # Errors
    /// What [`Backend::submit`] says.
    pub fn submit(&self, command: Command) -> Result<Vec<Event>> {
        self.backend.submit(command)
    }

    /// Looks at the state.
    pub fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        let (mut look, mut found) = (Some(look), None);
        self.backend.look(&mut |state| found = look.take().map(|look| look(state)));
        found.expect("a backend looks once, right away")
    }

    /// Waits until `look` finds what it looks for, or for `at_most`. Looks again after every command.
    pub fn wait<T>(&self, at_most: Duration, mut look: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let mut found = None;
        self.backend.wait(at_most, &mut |state| {
            found = look(state);
            found.is_some()
        });
        found
    }

    /// The next order about the lease (`RenewLease`, `CloseLease`), for whoever writes its object.
    #[must_use]
    pub fn next_lease_order(&self) -> Option<Effect> {
        self.effects.next_lease_order()
    }

    /// Opens a cycle, or goes on with the parked one that has equal options. The lease must have been taken.
    ///
    /// # Errors
    /// The ledger could not be written. The inner result is the machine's refusal: another cycle is open, no lease, …
    pub fn begin(&self, repository: &RepositoryId, options: CycleOptions) -> Result<Result<CycleId, Refusal>> {
        let events = self.submit(Command::OpenCycle { repository: repository.clone(), options })?;
        let found = events.iter().find_map(|event| match event {
            Event::CycleOpened { cycle, .. } => Some((Ok(*cycle), false)),
            Event::CycleJoined { cycle } => Some((Ok(*cycle), true)),
            Event::CommandRefused { reason, .. } => Some((Err(reason.clone()), false)),
            _ => None,
        });
        let (result, joined) = found.unwrap_or((Err(Refusal::UnknownCycle), false));
        match result {
            Ok(cycle) if joined && self.is_parked(cycle) => {
                let events = self.submit(Command::ResumeCycle { cycle })?;
                Ok(refusal(&events).map_or(Ok(cycle), Err))
            }
            other => Ok(other),
        }
    }

    fn is_parked(&self, cycle: CycleId) -> bool {
        self.state(|state| state.cycles.get(&cycle).is_some_and(|cycle| cycle.phase == Phase::Parked))
    }

    /// Whether a hint still leads to a job that `worker` may have. To claim what somebody else has is a record, and one for each shard and
    /// each worker would be many.
    #[must_use]
    pub fn is_there(&self, hint: &Hint, worker: &WorkerId) -> bool {
        self.state(|state| {
            let job = state.cycles.get(&hint.cycle).and_then(|cycle| cycle.jobs.get(&hint.job));
            job.filter(|job| job.attempt == hint.attempt).is_some_and(|job| match &job.status {
                JobStatus::Open(_) => true,
                // The answer to its claim was lost.
                JobStatus::Claimed(by, _) => by == worker,
                JobStatus::Done(_) | JobStatus::Quarantined => false,
            })
        })
    }

    /// Shards that wait for a worker in the stage that a hint is of: whoever was woken may do any of them.
    #[must_use]
    pub fn waiting(&self, hint: &Hint) -> Vec<(Hint, Shard)> {
        self.state(|state| {
            let now = LogTime::of(self.clock.now()).max(state.now);
            let cycle = state.cycles.get(&hint.cycle).filter(|cycle| cycle.stage == hint.stage);
            let shards =
                cycle.into_iter().flat_map(|cycle| cycle.waiting(now).map(|job| (cycle.hint(job), job.shard.clone())));
            shards.collect()
        })
    }

    /// A cycle that was to change something began and has not come to its end: maintenance is due (S7).
    #[must_use]
    pub fn is_due(&self, repository: &RepositoryId) -> bool {
        self.state(|state| state.repositories.get(repository).is_some_and(|entry| entry.due))
    }

    /// The open cycle of a repository, if any, and what it was opened for.
    #[must_use]
    pub fn unfinished(&self, repository: &RepositoryId) -> Option<(CycleId, CycleOptions)> {
        self.state(|state| state.open_cycle(repository).map(|cycle| (cycle.id, cycle.options)))
    }

    fn keep(&self, ticket: &Ticket, evidence: &Evidence) -> Result<OutputRef> {
        let view = self.state(|state| state.cycles.get(&ticket.cycle).and_then(|cycle| cycle.view));
        self.evidence.keep(ticket, view.map(|(view, _)| view.digest).unwrap_or_default(), evidence)
    }
}

fn workers(cycle: &crate::machine::Cycle) -> impl Iterator<Item = WorkerId> {
    cycle.jobs.values().filter_map(|job| match &job.status {
        JobStatus::Claimed(worker, _) => Some(worker.clone()),
        _ => None,
    })
}

/// The refusal among the events of one command.
#[must_use]
pub fn refusal(events: &[Event]) -> Option<Refusal> {
    events.iter().find_map(|event| match event {
        Event::CommandRefused { reason, .. } | Event::ResultFenced { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
