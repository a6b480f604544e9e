//! How far the job at work is, told to whoever watches the fleet.

use std::ops::ControlFlow;

use verger_coordinator::drive::Drive;
use verger_proto::Ticket;
use verger_worker::progress::LastWord;
use verger_worker::run::{TELL_EVERY, word};

use super::beside::beside;

/// Tells the last word of a job now and then, until `work` is done.
pub(super) fn while_telling<T>(words: &LastWord, drive: &Drive, ticket: &Ticket, work: impl FnOnce() -> T) -> T {
    let mut heard = words.said();
    let tell = || {
        words.since(&mut heard).into_iter().for_each(|step| drive.tell(ticket, word(step)));
        ControlFlow::Continue(())
    };
    beside(TELL_EVERY, tell, work)
}
