//! Windows: recurring times, by weekday or from each time of a cron line, up to a time of day.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A minute of the day, up to and with 24:00.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// The minutes of a day.
    pub const DAY: u16 = 24 * 60;

    /// From minutes since midnight; `None` beyond 24:00.
    #[must_use]
    pub fn from_minutes(minutes: u16) -> Option<Self> {
        (minutes <= Self::DAY).then_some(Self(minutes))
    }

    /// Minutes since midnight.
    #[must_use]
    pub fn minutes(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for TimeOfDay {
    type Error = String;

    fn try_from(minutes: u16) -> Result<Self, String> {
        Self::from_minutes(minutes).ok_or_else(|| format!("minute {minutes} is beyond the end of a day"))
    }
}

impl From<TimeOfDay> for u16 {
    fn from(time: TimeOfDay) -> Self {
        time.0
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// Days of the week, at least one. Text: `daily`, or `mon-fri,sun`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Weekdays(u8);

impl Weekdays {
    /// Every day.
    pub const ALL: Weekdays = Weekdays(0x7f);

    /// From a bit a day, Monday the lowest; `None` without any day, or with an eighth.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits != 0 && bits <= Self::ALL.0).then_some(Self(bits))
    }

    /// Whether a day is among them; 0 is Monday.
    #[must_use]
    pub fn contains(self, day_from_monday: u8) -> bool {
        day_from_monday < 7 && self.0 & (1 << day_from_monday) != 0
    }
}

impl TryFrom<u8> for Weekdays {
    type Error = String;

    fn try_from(bits: u8) -> Result<Self, String> {
        Self::from_bits(bits).ok_or_else(|| format!("{bits:#x} is not a set of weekdays"))
    }
}

impl From<Weekdays> for u8 {
    fn from(days: Weekdays) -> Self {
        days.0
    }
}

/// When cycles may begin and go on. Text: `mon-fri 22:00-06:00`, `22:00-06:00`, or `0 22 1 * * until 06:00`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "kebab-case")]
pub enum Window {
    /// From `start` on each of these days up to the next `end`, over midnight if need be.
    Weekly {
        /// Days on which it begins.
        days: Weekdays,
        /// Begins.
        start: TimeOfDay,
        /// Ends: on the same day if later than `start`, else on the next.
        end: TimeOfDay,
    },
    /// From each time of a cron line up to the next `end`.
    Cron {
        /// Five fields, or a nickname.
        line: String,
        /// Ends.
        end: TimeOfDay,
    },
}
