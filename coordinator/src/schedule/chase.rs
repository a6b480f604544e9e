//! The chase (R15): after bytes were marked, come back when each margin ends instead of at the next slot.

use verger_proto::LogTime;
use verger_proto::schedule::{Margin, MarkToDrop};

use super::{HOUR, MINUTE};

/// Cycles only because a margin has ended come at most this often.
const CHASE_INTERVAL: u64 = HOUR;
/// A second snapshot GC counts if it begins so long after the mark (`DropContentFromIndexExtraMargin`).
const PAIR_AFTER_MARK: u64 = HOUR;
/// And ends so long before the drop (`MarginBetweenSnapshotGC`), with an hour for itself.
const PAIR_BEFORE_DROP: u64 = 5 * HOUR;

/// So much after the end of a margin: margins must have *passed*, by the store's clock. Milliseconds.
pub const CHASE_SLACK: u64 = MINUTE;

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
