//! Drives the machine in one process: commands in, into the ledger, effects out.

mod control;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use verger_kopia::clock::Clock;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::queue::{Hint, Queue};
use verger_proto::{
    Command, CycleId, CycleOptions, Effect, Event, Evidence, LogTime, OutputRef, Refusal, RepositoryId, WorkerId,
};

use crate::ledger::evidence::EvidenceFolder;
use crate::ledger::file::FileLedger;
use crate::ledger::{Entry, Ledger};
use crate::machine::{JobStatus, Phase, State, apply};

pub use control::LocalControl;

/// Told of every event, after it is durable. Must be quick, and must not submit.
pub type Observer = Box<dyn Fn(LogTime, &Event) + Send + Sync>;

/// The machine of one process, its ledger, and what runs its effects.
pub struct Drive {
    inner: Mutex<Inner>,
    changed: Condvar,
    queue: Arc<dyn Queue>,
    clock: Arc<dyn Clock>,
    evidence: EvidenceFolder,
    observer: Option<Observer>,
}

struct Inner {
    state: State,
    ledger: Box<dyn Ledger>,
    lease_orders: VecDeque<Effect>,
    broken: bool,
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

/// Makes the state again from the ledger: every command gives the events that it gave then.
///
/// # Errors
/// As [`FileLedger::open`]; `Damaged` if a command gives other events now.
fn replay(folder: &Path) -> Result<(FileLedger, State)> {
    let mut state = State::default();
    let (ledger, _) = FileLedger::open(folder, |record| {
        let (events, _) = apply(&mut state, record.entry.command, record.at);
        if events == record.entry.events {
            return Ok(());
        }
        let step =
            format!("record {} of the ledger gives other events than it gave when it was written", record.sequence);
        let fix = "it was written by another version: use that one, or move the folder away and begin a new ledger";
        Err(Error::damaged(step).with_fix(format!("{fix} ({})", folder.display())))
    })?;
    Ok((ledger, state))
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
        let (ledger, state) = replay(&folder)?;
        let evidence = EvidenceFolder::beside(&folder);
        let inner = Inner { state, ledger: Box::new(ledger), lease_orders: VecDeque::new(), broken: false };
        let drive = Self { inner: Mutex::new(inner), changed: Condvar::new(), queue, clock, evidence, observer };
        drive.recover()?;
        Ok(drive)
    }

    /// Nobody of an ended process is still at work: parks what it left.
    fn recover(&self) -> Result<()> {
        let mut commands = Vec::new();
        self.state(|state| {
            for cycle in state.cycles.values() {
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
        self.lock().lease_orders.clear();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> LogTime {
        LogTime(u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0))
    }

    /// Applies a command. When this returns, command and events are durable and the effects are under way.
    ///
    /// # Errors
    /// The ledger could not be written: nothing came of the command, and nothing is taken any more.
    pub fn submit(&self, command: Command) -> Result<Vec<Event>> {
        let at = self.now();
        let mut inner = self.lock();
        if inner.broken {
            let step = "the ledger could not be written before, so nothing may be done any more";
            return Err(
                Error::new(ErrorKind::DiskFull, step).with_fix("make room for the state directory, then start again")
            );
        }
        // The machine stamps what it does with the later of this clock and its own.
        let at = at.max(inner.state.now);
        let (events, effects) = apply(&mut inner.state, command.clone(), at);
        if !events.is_empty() {
            let entry = Entry { command, events };
            // The state went on and the ledger did not: only a fresh start brings them together.
            inner.broken = true;
            inner.ledger.append(at, &entry)?;
            inner.broken = false;
            self.run(&mut inner, effects);
            let events = entry.events;
            drop(inner);
            self.tell(at, &events);
            return Ok(events);
        }
        self.run(&mut inner, effects);
        Ok(events)
    }

    fn run(&self, inner: &mut Inner, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                // A queue that is closed has no workers left; the offer is made again after a start.
                Effect::OfferJob(job) => drop(self.queue.offer(Hint::from(job.as_ref()))),
                // Workers of this process see the state itself when they say how far they are.
                Effect::StopJob { .. } => {}
                order @ (Effect::RenewLease { .. } | Effect::CloseLease { .. }) => {
                    if !inner.lease_orders.contains(&order) {
                        inner.lease_orders.push_back(order);
                    }
                }
            }
        }
    }

    fn tell(&self, at: LogTime, events: &[Event]) {
        if let Some(observer) = &self.observer {
            events.iter().for_each(|event| observer(at, event));
        }
        self.changed.notify_all();
    }

    /// Looks at the state.
    pub fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock().state)
    }

    /// Waits until `look` finds what it looks for, or for `at_most`. Looks again after every command.
    pub fn wait<T>(&self, at_most: Duration, mut look: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let mut found = None;
        let until = |inner: &mut Inner| {
            found = look(&inner.state);
            found.is_none()
        };
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, until);
        drop(waited);
        found
    }

    /// The next order about the lease (`RenewLease`, `CloseLease`), for whoever writes its object.
    #[must_use]
    pub fn next_lease_order(&self) -> Option<Effect> {
        self.lock().lease_orders.pop_front()
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

    /// Evidence beside the ledger.
    #[must_use]
    pub fn evidence(&self) -> &EvidenceFolder {
        &self.evidence
    }

    fn keep(&self, cycle: CycleId, evidence: &Evidence) -> Result<OutputRef> {
        let view = self.state(|state| state.cycles.get(&cycle).and_then(|cycle| cycle.view));
        self.evidence.append(cycle, view.map(|(view, _)| view.digest).unwrap_or_default(), evidence)
    }
}

fn workers(cycle: &crate::machine::Cycle) -> impl Iterator<Item = WorkerId> {
    cycle.jobs.values().filter_map(|job| match &job.status {
        JobStatus::Claimed(worker, _) => Some(worker.clone()),
        _ => None,
    })
}

/// The refusal among the events of one command.
fn refusal(events: &[Event]) -> Option<Refusal> {
    events.iter().find_map(|event| match event {
        Event::CommandRefused { reason, .. } | Event::ResultFenced { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
