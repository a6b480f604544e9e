//! What whoever leads says while a job of his is at work: how far it is, and that he is still at it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use verger_coordinator::drive::{Drive, LocalControl};
use verger_kopia::mutant::{self, Mutant};
use verger_proto::control::{Control, ControlError, Directive};
use verger_proto::{Refusal, Ticket};
use verger_worker::progress::{LastWord, Stop};
use verger_worker::run::word;

use super::beside::beside;

/// Who is told, and how often.
pub(super) struct Telling<'a> {
    pub(super) words: &'a LastWord,
    pub(super) drive: &'a Drive,
    pub(super) control: &'a LocalControl,
    pub(super) every: Duration,
    /// Asked when the machine does not want the job any more.
    pub(super) stop: &'a Stop,
    /// Set when the job was taken away although nobody wants the cycle to stop.
    pub(super) is_lost: &'a AtomicBool,
    /// Time passes for the machine beside the job, which takes away what nobody says a word about for 30 s.
    pub(super) keeps_claim: bool,
}

impl Telling<'_> {
    /// Tells the last word of a job now and then, until `work` is done. Whoever is told to stop meanwhile, or has lost the job, need not
    /// go on to its end: that may be hours.
    pub(super) fn until_done<T>(&self, ticket: &Ticket, work: impl FnOnce() -> T) -> T {
        let mut heard = self.words.said();
        beside(self.every, || self.tell(ticket, &mut heard), work)
    }

    fn tell(&self, ticket: &Ticket, heard: &mut u64) -> ControlFlow<()> {
        let step = self.words.since(heard).map(word);
        if !self.keeps_claim || mutant::on(Mutant::S7LeadIsSilent) {
            step.into_iter().for_each(|step| self.drive.tell(ticket, step));
            return ControlFlow::Continue(());
        }
        let answer = match step {
            Some(step) => self.control.progress(ticket, step),
            None => self.control.renew(ticket),
        };
        match answer {
            // Nobody leads for a moment, or cannot write: whether the claim outlasted it shows when somebody answers again.
            Ok(Directive::Continue) | Err(ControlError::Unavailable(_) | ControlError::Ledger { .. }) => {
                ControlFlow::Continue(())
            }
            // It stops at a boundary, and what is under way until then is told: a batch whose end is known leaves the lease free.
            Ok(Directive::Stop) => {
                self.stop.ask();
                ControlFlow::Continue(())
            }
            Err(ControlError::Refused(reason)) => {
                let is_wanted = matches!(reason, Refusal::Stopping | Refusal::UnknownCycle);
                self.is_lost.store(!is_wanted, Ordering::Relaxed);
                self.stop.ask();
                ControlFlow::Break(())
            }
        }
    }
}
