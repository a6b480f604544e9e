//! A raft log on stable storage, whatever keeps it.

mod chain;
mod mark;
pub mod memory;
pub mod sled;

use std::ops::Range;

use verger_kopia::error::Result;

use super::types::{LogEntry, LogId, Vote};

/// Where a log begins and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extent {
    /// The last entry that was purged.
    pub purged: Option<LogId>,
    /// The last entry; the last purged one if there is none after it.
    pub last: Option<LogId>,
}

/// A raft log. What a method changed is on stable storage when it returns, [`Self::save_committed`] excepted.
///
/// After an error of a changing method nobody knows what is on the disk: every later call is refused, until it is opened again.
pub trait DurableLog: Send + Sync + std::fmt::Debug + 'static {
    /// Adds entries that follow the last one without a gap. Where the log has entries of these indexes already, they and all after
    /// them are replaced. What was purged is in a snapshot, and not kept again.
    ///
    /// # Errors
    /// `Internal` for a gap, `DiskFull` or `Permission` if it could not be written.
    fn append(&self, entries: &[LogEntry]) -> Result<()>;

    /// Removes the entry at `from` and all after it.
    ///
    /// # Errors
    /// As [`Self::append`].
    fn truncate(&self, from: u64) -> Result<()>;

    /// Removes all entries up to `up_to`, and remembers it. It may be further than the log goes: a snapshot came in its place.
    ///
    /// # Errors
    /// As [`Self::append`].
    fn purge(&self, up_to: LogId) -> Result<()>;

    /// Entries of these indexes, as far as the log has them; at most `bytes_max` of stored bytes, but at least one.
    ///
    /// # Errors
    /// `Damaged` if an entry that belongs there cannot be read.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>>;

    /// Where the log begins and ends.
    ///
    /// # Errors
    /// As [`Self::append`], of an earlier call.
    fn extent(&self) -> Result<Extent>;

    /// Keeps the vote.
    ///
    /// # Errors
    /// As [`Self::append`].
    fn save_vote(&self, vote: &Vote) -> Result<()>;

    /// The vote that was kept.
    ///
    /// # Errors
    /// As [`Self::append`], of an earlier call.
    fn vote(&self) -> Result<Option<Vote>>;

    /// Notes how far the log is known to be committed. It may be lost with the power: it is learned again.
    ///
    /// # Errors
    /// As [`Self::append`].
    fn save_committed(&self, committed: Option<LogId>) -> Result<()>;

    /// How far the log is known to be committed.
    ///
    /// # Errors
    /// `Damaged` if the note is there and cannot be read.
    fn committed(&self) -> Result<Option<LogId>>;

    /// Changes that are on the disk, all of its life: it never goes back, unless an old copy of the disk comes in its place.
    fn changes(&self) -> u64;

    /// Whether calls may block on a disk, so that they belong on a thread of their own.
    fn blocks(&self) -> bool;

    /// Lets go of files and locks. Every later call is refused.
    fn close(&self);
}

#[cfg(test)]
mod tests;
