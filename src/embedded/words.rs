//! How far the job at work is, told to whoever watches the fleet.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use verger_coordinator::drive::Drive;
use verger_proto::Ticket;
use verger_worker::progress::{Progress, Step};
use verger_worker::run::{TELL_EVERY, word};

use super::lease::EndOfWork;

/// Passes words on, and keeps the last: whoever does the work never waits for somebody to hear it.
pub(super) struct Words {
    outer: Arc<dyn Progress>,
    last: Mutex<Option<Step>>,
    said: AtomicU64,
}

impl Progress for Words {
    fn step(&self, step: Step) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
        self.said.fetch_add(1, Ordering::Relaxed);
        self.outer.step(step);
    }
}

impl Words {
    pub(super) fn new(outer: Arc<dyn Progress>) -> Self {
        Self { outer, last: Mutex::default(), said: AtomicU64::default() }
    }

    /// Tells the last word of a job now and then, until `work` is done.
    pub(super) fn while_telling<T>(&self, drive: &Drive, ticket: &Ticket, work: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
        std::thread::scope(|scope| {
            let teller = scope.spawn(|| {
                let mut told = self.said.load(Ordering::Relaxed);
                while !over.load(Ordering::Relaxed) {
                    std::thread::park_timeout(TELL_EVERY);
                    let said = self.said.load(Ordering::Relaxed);
                    let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(step) = last.filter(|_| said != told && !over.load(Ordering::Relaxed)) {
                        drive.tell(ticket, word(step));
                    }
                    told = said;
                }
            });
            // Also when the work panics: the scope waits for the teller.
            let _end = EndOfWork { over: &over, beside: teller.thread() };
            work()
        })
    }
}
