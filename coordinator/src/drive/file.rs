//! One process orders commands, and its ledger is a file.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use verger_kopia::clock::Clock;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::{Command, Event, LogTime};

use super::backend::Backend;
use super::effects::Run;
use crate::ledger::file::FileLedger;
use crate::ledger::{Entry, Ledger};
use crate::machine::{State, apply};
use crate::words::Words;

/// Told of every event, after it is durable. Must be quick, and must not submit.
pub type Observer = Box<dyn Fn(LogTime, &Event) + Send + Sync>;

/// The machine of one process and its ledger.
pub struct FileBackend {
    inner: Mutex<Inner>,
    changed: Condvar,
    clock: Arc<dyn Clock>,
    effects: Arc<dyn Run>,
    observer: Option<Observer>,
    words: Words,
}

pub(super) struct Inner {
    state: State,
    pub(super) ledger: Box<dyn Ledger>,
    broken: bool,
    applied: u64,
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

impl FileBackend {
    /// Opens the ledger in `folder` and makes the state again.
    ///
    /// # Errors
    /// As [`FileLedger::open`]; `Damaged` if a command gives other events than it gave.
    pub fn open(
        folder: &Path,
        clock: Arc<dyn Clock>,
        effects: Arc<dyn Run>,
        observer: Option<Observer>,
    ) -> Result<Self> {
        let (ledger, state) = replay(folder)?;
        let inner = Inner { state, ledger: Box::new(ledger), broken: false, applied: 0 };
        Ok(Self {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            clock,
            effects,
            observer,
            words: Words::default(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As after a write that failed.
    #[cfg(test)]
    pub(crate) fn break_ledger(&self) {
        self.lock().broken = true;
    }

    fn now(&self) -> LogTime {
        LogTime::of(self.clock.now())
    }

    fn announce(&self, at: LogTime, events: &[Event]) {
        if let Some(observer) = &self.observer {
            events.iter().for_each(|event| observer(at, event));
        }
        self.changed.notify_all();
    }
}

impl Backend for FileBackend {
    fn submit(&self, command: Command) -> Result<Vec<Event>> {
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
        if events.is_empty() {
            effects.into_iter().for_each(|effect| self.effects.run(effect));
            return Ok(events);
        }
        let entry = Entry { command, events };
        // The state went on and the ledger did not: only a fresh start brings them together.
        inner.broken = true;
        inner.ledger.append(at, &entry)?;
        inner.broken = false;
        inner.applied += 1;
        effects.into_iter().for_each(|effect| self.effects.run(effect));
        let events = entry.events;
        drop(inner);
        self.announce(at, &events);
        Ok(events)
    }

    fn applied(&self) -> u64 {
        self.lock().applied
    }

    fn look(&self, look: &mut dyn FnMut(&State)) {
        look(&self.lock().state);
    }

    fn wait(&self, at_most: Duration, look: &mut dyn FnMut(&State) -> bool) {
        let until = |inner: &mut Inner| !look(&inner.state);
        drop(self.changed.wait_timeout_while(self.lock(), at_most, until));
    }

    fn words(&self) -> Option<&Words> {
        Some(&self.words)
    }
}
