//! What is wrong with a schedule, as far as it can be said without the time.

use jiff::civil::date;

use super::cron::{CronLine, zone};
use super::window::{TimeOfDay, Window};
use super::{Blackout, ENTRIES_MAX, REASON_BYTES_MAX, Schedule, Trigger};

/// Shortest window, in minutes: less holds no stage.
pub const WINDOW_MINUTES_MIN: u16 = 5;
/// Shortest interval, in seconds.
pub const INTERVAL_SECONDS_MIN: u64 = 60;
/// Longest interval, in seconds: ten years.
pub const INTERVAL_SECONDS_MAX: u64 = 3650 * 86_400;

/// Starts of a cron window that are looked at.
const STARTS_MAX: usize = 200;

/// A schedule, or a part of one, that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScheduleError {
    /// A cron line that cannot be read.
    #[error("the cron line {line:?} cannot be used: {why}")]
    Cron {
        /// The line.
        line: String,
        /// What is wrong with it.
        why: String,
    },
    /// A cron line that names no day that exists.
    #[error("the cron line {line:?} never fires: no such day exists; write `never` if that is meant")]
    NeverFires {
        /// The line.
        line: String,
    },
    /// No such zone.
    #[error("the time zone {0:?} is not known; use an IANA name such as Europe/Berlin or UTC")]
    Zone(String),
    /// Not a trigger.
    #[error("{0:?} is not a trigger; write `own`, `never`, `every 6h`, or a cron line such as `0 3 * * *`")]
    Trigger(String),
    /// An interval beyond its limits.
    #[error("an interval of {0} seconds is not between a minute and ten years")]
    Interval(u64),
    /// Not a window.
    #[error("{0:?} is not a window; write `mon-fri 22:00-06:00`, `22:00-06:00`, or `0 22 1 * * until 06:00`")]
    Window(String),
    /// A window that begins and ends at one time.
    #[error("the window `{0}` ends when it begins; for whole days write `00:00-24:00`")]
    WindowEmpty(String),
    /// A window too short for any stage.
    #[error(
        "the window `{0}` is shorter than {WINDOW_MINUTES_MIN} minutes and can never hold a stage; let it end later"
    )]
    WindowShort(String),
    /// A cron window that begins more than once an hour.
    #[error("the window `{0}` begins more than once an hour; name one minute and let it end later")]
    WindowCrowded(String),
    /// Not a blackout.
    #[error("{0:?} is not a blackout; write `2026-12-24T00:00:00Z/2027-01-02T00:00:00Z REASON`")]
    Blackout(String),
    /// A blackout that ends before it begins.
    #[error("the blackout `{0}` does not end after it begins; exchange its times")]
    BlackoutBackwards(String),
    /// A reason that is too long, or has more than one line.
    #[error("the reason of a blackout is one line of at most {REASON_BYTES_MAX} bytes")]
    Reason,
    /// Too many of something.
    #[error("{have} {what} are more than {ENTRIES_MAX}; join some")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// So many.
        have: usize,
    },
    /// Windows and blackouts leave no time at all.
    #[error("the windows and blackouts leave no five minutes within ten years; widen a window or end a blackout")]
    NoTime,
}

impl Schedule {
    /// Checks everything that does not depend on the time.
    ///
    /// # Errors
    /// The first [`ScheduleError`].
    pub fn check(&self) -> Result<(), ScheduleError> {
        zone(&self.zone)?;
        for trigger in [&self.full, &self.quick, &self.index] {
            trigger.check()?;
        }
        for (what, have) in [("windows", self.windows.len()), ("blackouts", self.blackouts.len())] {
            if have > ENTRIES_MAX {
                return Err(ScheduleError::TooMany { what, have });
            }
        }
        self.windows.iter().try_for_each(Window::check)?;
        self.blackouts.iter().try_for_each(Blackout::check)
    }
}

impl Trigger {
    pub(super) fn check(&self) -> Result<(), ScheduleError> {
        match self {
            Trigger::Own | Trigger::Never => Ok(()),
            Trigger::Every { seconds } if (INTERVAL_SECONDS_MIN..=INTERVAL_SECONDS_MAX).contains(seconds) => Ok(()),
            Trigger::Every { seconds } => Err(ScheduleError::Interval(*seconds)),
            Trigger::Cron { line } => CronLine::parse(line).map(drop),
        }
    }
}

impl Window {
    pub(super) fn check(&self) -> Result<(), ScheduleError> {
        match self {
            Window::Weekly { start, .. } if start.minutes() == TimeOfDay::DAY => {
                Err(ScheduleError::Window(self.to_string()))
            }
            Window::Weekly { start, end, .. } => match lasts(start.minutes(), *end) {
                _ if start == end => Err(ScheduleError::WindowEmpty(self.to_string())),
                minutes if minutes < WINDOW_MINUTES_MIN => Err(ScheduleError::WindowShort(self.to_string())),
                _ => Ok(()),
            },
            Window::Cron { line, end } => self.check_cron(&CronLine::parse(line)?, *end),
        }
    }

    fn check_cron(&self, line: &CronLine, end: TimeOfDay) -> Result<(), ScheduleError> {
        let first = date(2024, 1, 1).at(0, 0, 0, 0);
        let starts: Vec<_> =
            std::iter::successors(line.after(first), |wall| line.after(*wall)).take(STARTS_MAX).collect();
        let is_close = |pair: &[jiff::civil::DateTime]| pair[0].duration_until(pair[1]).as_secs() < 3600;
        if starts.windows(2).any(is_close) {
            return Err(ScheduleError::WindowCrowded(self.to_string()));
        }
        let minutes = |start: &jiff::civil::DateTime| {
            u16::from(start.hour().unsigned_abs()) * 60 + u16::from(start.minute().unsigned_abs())
        };
        match starts.iter().map(|start| lasts(minutes(start), end)).max() {
            Some(longest) if longest >= WINDOW_MINUTES_MIN => Ok(()),
            _ => Err(ScheduleError::WindowShort(self.to_string())),
        }
    }
}

/// Minutes from a minute of the day to the next `end`, 1 to 1440.
fn lasts(start: u16, end: TimeOfDay) -> u16 {
    if end.minutes() > start { end.minutes() - start } else { end.minutes() + TimeOfDay::DAY - start }
}

impl Blackout {
    pub(super) fn check(&self) -> Result<(), ScheduleError> {
        if self.reason.len() > REASON_BYTES_MAX || self.reason.chars().any(char::is_control) {
            return Err(ScheduleError::Reason);
        }
        // Times that have no date cannot be shown, so they would not read back.
        if [self.from, self.until].iter().any(|time| super::text::timestamp(*time).is_none()) {
            return Err(ScheduleError::Blackout(super::text::shown(&self.reason)));
        }
        if self.until > self.from { Ok(()) } else { Err(ScheduleError::BlackoutBackwards(self.to_string())) }
    }
}
