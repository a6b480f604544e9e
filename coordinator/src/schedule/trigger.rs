//! Slots: the times that a trigger names, and what the clock on the wall means when it jumps.
//!
//! One time on the wall is one slot. If the clock skips it, it comes right after the gap; if the clock shows it twice, the first
//! time counts. So slots in a gap fall together into one, and none of a doubled hour comes twice.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use verger_proto::LogTime;
use verger_proto::schedule::{CronLine, ScheduleError, Trigger};

use super::SECOND;

/// A trigger, read.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    /// As the repository's own settings say.
    Own,
    /// Never by itself.
    Never,
    /// Milliseconds after the last start.
    Every(u64),
    /// By the clock on the wall.
    Cron(Box<CronLine>),
}

impl Rule {
    pub(super) fn new(trigger: &Trigger) -> Result<Self, ScheduleError> {
        Ok(match trigger {
            Trigger::Own => Rule::Own,
            Trigger::Never => Rule::Never,
            Trigger::Every { seconds } => Rule::Every(seconds.saturating_mul(SECOND)),
            Trigger::Cron { line } => Rule::Cron(Box::new(CronLine::parse(line)?)),
        })
    }
}

/// The first slot of a cron line after `time`.
pub(super) fn slot_after(line: &CronLine, zone: &TimeZone, time: LogTime) -> Option<LogTime> {
    let mut wall = wall(zone, time);
    loop {
        wall = line.after(wall)?;
        let slot = instant(zone, wall)?;
        // In the second half of a doubled hour the wall shows times that have had their slot.
        if slot > time {
            return Some(slot);
        }
    }
}

/// What the wall shows at a time.
pub(super) fn wall(zone: &TimeZone, time: LogTime) -> DateTime {
    zone.to_datetime(timestamp(time))
}

/// When the wall shows a time: the first of two; right after the gap if never. Earlier on the wall is never later in time.
pub(super) fn instant(zone: &TimeZone, wall: DateTime) -> Option<LogTime> {
    let at = match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok()?,
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok()?,
        AmbiguousOffset::Gap { before, .. } => {
            let past_the_gap = before.to_timestamp(wall).ok()?.checked_add(SignedDuration::from_secs(1)).ok()?;
            zone.preceding(past_the_gap).next()?.timestamp()
        }
    };
    u64::try_from(at.as_millisecond()).ok().map(LogTime)
}

fn timestamp(time: LogTime) -> Timestamp {
    i64::try_from(time.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}
