//! Who orders commands and keeps what came of them.

use std::time::Duration;

use verger_kopia::error::Result;
use verger_proto::{Command, CommandId, CycleId, Event, Progress, Ticket};

use crate::machine::State;
use crate::words::{Word, Words};

/// Orders commands, applies them, and keeps what came of them: one process with a file, or a raft group.
pub trait Backend: Send + Sync {
    /// Applies a command. When this returns, command and events are durable, and the effects are under way.
    ///
    /// # Errors
    /// It may not have been kept: nothing may be done that rests on it.
    fn submit(&self, command: Command) -> Result<Vec<Event>>;

    /// As [`Backend::submit`], under a number: the same number again counts once, where commands have numbers.
    ///
    /// # Errors
    /// As there.
    fn submit_as(&self, _id: CommandId, command: Command) -> Result<Vec<Event>> {
        self.submit(command)
    }

    /// A number that grows with what was applied: the state that is shown after it was asked for is not older.
    fn applied(&self) -> u64;

    /// Shows the state, once, before it returns.
    fn look(&self, look: &mut dyn FnMut(&State));

    /// Shows the state now and after every command, until `look` has seen enough, or for `at_most`.
    fn wait(&self, at_most: Duration, look: &mut dyn FnMut(&State) -> bool);

    /// Says how far a job is to whoever watches: at once, kept by nobody, and lost where nobody hears it.
    fn tell(&self, ticket: &Ticket, progress: Progress) {
        if let Some(words) = self.words() {
            words.hear(Word::of(ticket, progress));
        }
    }

    /// Hears of whoever knows more how far the jobs of a cycle are, if that is another process: briefly, or not at all.
    fn ask_words(&self, _cycle: CycleId) {}

    /// What was told to this process.
    fn words(&self) -> Option<&Words> {
        None
    }
}
