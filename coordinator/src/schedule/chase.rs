//! The chase (R15): after bytes were marked, come back when each margin ends instead of at the next slot.

use serde::{Deserialize, Serialize};
use verger_proto::LogTime;

use super::{HOUR, MINUTE};

/// Cycles only because a margin has ended come at most this often.
const CHASE_INTERVAL: u64 = HOUR;
/// A second snapshot GC counts if it begins so long after the mark (`DropContentFromIndexExtraMargin`).
const PAIR_AFTER_MARK: u64 = HOUR;
/// And ends so long before the drop (`MarginBetweenSnapshotGC`), with an hour for itself.
const PAIR_BEFORE_DROP: u64 = 5 * HOUR;

/// So much after the end of a margin: margins must have *passed*, by the store's clock. Milliseconds.
pub const CHASE_SLACK: u64 = MINUTE;

/// The least time from mark to drop (R15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarkToDrop {
    /// 24 hours: a client may sleep in the middle of a snapshot.
    #[default]
    Day,
    /// Five hours: the owner states that none does.
    FiveHours,
}

impl MarkToDrop {
    /// Milliseconds.
    #[must_use]
    pub fn wait(self) -> u64 {
        match self {
            MarkToDrop::Day => 24 * HOUR,
            MarkToDrop::FiveHours => 5 * HOUR,
        }
    }
}

/// A margin that the last report named: bytes can go when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Margin {
    /// Ends.
    pub at: LogTime,
    /// It is the wait from mark to drop, which also needs a second snapshot GC in between.
    pub is_drop: bool,
}

/// When to come back, if the last full cycle began and ended at these times; `None`: no margin is waited for.
///
/// A margin that had ended when the last cycle began is not chased again: that cycle had its chance.
pub(super) fn next(margins: &[Margin], wait: MarkToDrop, started: LogTime, ended: LogTime) -> Option<LogTime> {
    let times = margins.iter().flat_map(|margin| [Some(margin.at), pair(*margin, wait, started)]).flatten();
    let soonest = times.filter(|time| *time > started).min()?;
    Some(soonest.plus(CHASE_SLACK).max(ended.plus(CHASE_INTERVAL)))
}

/// When the GC between mark and drop has to come, unless the last one was late enough to be it.
fn pair(margin: Margin, wait: MarkToDrop, started: LogTime) -> Option<LogTime> {
    let mark = LogTime(margin.at.0.saturating_sub(wait.wait()));
    let earliest = mark.plus(PAIR_AFTER_MARK);
    let latest = LogTime(margin.at.0.saturating_sub(PAIR_BEFORE_DROP));
    (margin.is_drop && started < earliest).then_some(earliest.max(latest))
}
