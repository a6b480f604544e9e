//! What a task tells about how far it is, and how it is told to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use verger_kopia::error::{Error, ErrorKind, Result};

/// What is being counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Blobs of any kind.
    Blobs,
    /// Contents.
    Contents,
    /// Packed bytes.
    Bytes,
    /// Directories and seek tables.
    Objects,
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Stage: `survey`, `scan`, `solve`, …
    pub stage: &'static str,
    /// Done so far.
    pub done: u64,
    /// All there is to do, if known.
    pub total: Option<u64>,
    /// Of what.
    pub unit: Unit,
}

/// Hears how far a task is. Called from several threads, often, but never once a content.
pub trait Progress: Send + Sync {
    /// One more step is done.
    fn step(&self, step: Step);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn step(&self, _: Step) {}
}

/// Passes words on, and keeps the last: whoever does the work never waits for somebody to hear it.
pub struct LastWord {
    outer: Arc<dyn Progress>,
    said: AtomicU64,
    last: Mutex<Option<Step>>,
}

impl LastWord {
    /// Passes words on to `outer`.
    #[must_use]
    pub fn new(outer: Arc<dyn Progress>) -> Self {
        Self { outer, said: AtomicU64::new(0), last: Mutex::default() }
    }

    /// How many there were.
    #[must_use]
    pub fn said(&self) -> u64 {
        self.said.load(Ordering::Relaxed)
    }

    /// The last one, if there were more than `heard`, which becomes as many as there were.
    pub fn since(&self, heard: &mut u64) -> Option<Step> {
        let said = self.said();
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|_| std::mem::replace(heard, said) != said)
    }
}

impl Progress for LastWord {
    fn step(&self, step: Step) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
        self.said.fetch_add(1, Ordering::Relaxed);
        self.outer.step(step);
    }
}

/// Counts the work of one stage across threads.
pub struct Meter<'a> {
    progress: &'a dyn Progress,
    stage: &'static str,
    done: AtomicU64,
    total: Option<u64>,
    unit: Unit,
}

impl<'a> Meter<'a> {
    /// Starts a stage and says so.
    pub fn start(progress: &'a dyn Progress, stage: &'static str, total: Option<u64>, unit: Unit) -> Self {
        progress.step(Step { stage, done: 0, total, unit });
        Self { progress, stage, done: AtomicU64::new(0), total, unit }
    }

    /// `more` are done.
    pub fn add(&self, more: u64) {
        let done = self.done.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        self.progress.step(Step { stage: self.stage, done, total: self.total, unit: self.unit });
    }
}

/// A wish to stop, shared by everyone who should. Tasks look at it between requests.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    here: AtomicBool,
    /// Who may ask, too.
    above: Option<Stop>,
}

impl Stop {
    /// One that is asked with this one, and may be asked alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(Arc::new(Asked { here: AtomicBool::new(false), above: Some(self.clone()) }))
    }

    /// Asks everyone to stop.
    pub fn ask(&self) {
        self.0.here.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.here.load(Ordering::Relaxed) || self.0.above.as_ref().is_some_and(Stop::is_asked)
    }

    /// Goes on, unless somebody asked.
    ///
    /// # Errors
    /// `Interrupted`.
    pub fn check(&self) -> Result<()> {
        if self.is_asked() {
            return Err(
                Error::new(ErrorKind::Interrupted, "stopped on request").with_fix("Run again: the next run continues")
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Heard(Mutex<Vec<Step>>);
    impl Progress for Heard {
        fn step(&self, step: Step) {
            self.0.lock().unwrap().push(step);
        }
    }

    #[test]
    fn a_meter_adds_up_from_zero_to_total() {
        let heard = Heard::default();
        let meter = Meter::start(&heard, "scan", Some(5), Unit::Bytes);
        meter.add(2);
        meter.add(3);
        let done: Vec<_> = heard.0.lock().unwrap().iter().map(|step| (step.done, step.total)).collect();
        assert_eq!(done, [(0, Some(5)), (2, Some(5)), (5, Some(5))]);
    }

    #[test]
    fn a_stop_reaches_every_clone() {
        let stop = Stop::default();
        let other = stop.clone();
        assert!(other.check().is_ok());
        stop.ask();
        assert_eq!(other.check().unwrap_err().kind(), ErrorKind::Interrupted);
    }
}
