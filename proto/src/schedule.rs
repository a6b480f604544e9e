//! When a repository is looked after: three lanes with a trigger each, windows, blackouts, jitter.
//!
//! For people (YAML, JSON, the command line) triggers, windows and blackouts are text; in records they are the shapes below.
//! Everything here is a value: what it means at a time is the coordinator's to say.

mod check;
mod cron;
mod facts;
mod text;
mod window;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use check::{INTERVAL_SECONDS_MAX, INTERVAL_SECONDS_MIN, ScheduleError, WINDOW_MINUTES_MIN};
pub use cron::{CronLine, zone};
pub use facts::{Margin, MarkToDrop, Own, OwnCycle};
pub use window::{TimeOfDay, Weekdays, Window};

use crate::time::LogTime;

/// Longest reason of a blackout, in bytes.
pub const REASON_BYTES_MAX: usize = 512;
/// Most windows, and most blackouts, of one schedule.
pub const ENTRIES_MAX: usize = 32;

/// One of the three queues of a repository, each with a trigger of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Everything; counts as a quick cycle, and as index work, too.
    Full,
    /// Kopia's quick cycle; counts as index work, too.
    Quick,
    /// Index epochs alone, so that they never wait for a long snapshot GC.
    Index,
}

impl Lane {
    /// All, the widest first.
    pub const ALL: [Lane; 3] = [Lane::Full, Lane::Quick, Lane::Index];

    /// As in messages and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Lane::Full => "full",
            Lane::Quick => "quick",
            Lane::Index => "index",
        }
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What makes a lane due by itself. Text: `own`, `never`, `every 6h`, or a cron line.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "kebab-case")]
pub enum Trigger {
    /// The repository's own Kopia settings: interval, and nothing where they are disabled.
    #[default]
    Own,
    /// Nothing: only a person.
    Never,
    /// So long after the start of the last one.
    Every {
        /// Seconds.
        seconds: u64,
    },
    /// By the clock on the wall of the schedule's zone.
    Cron {
        /// Five fields, or a nickname such as `@daily`.
        line: String,
    },
}

/// A time in which nothing begins and what runs is parked. Text: `2026-12-24T00:00:00Z/2027-01-02T00:00:00Z holidays`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Blackout {
    /// First millisecond.
    pub from: LogTime,
    /// First millisecond after it.
    pub until: LogTime,
    /// Why; may be empty.
    pub reason: String,
}

/// When one repository is looked after. The default is Kopia's own settings, at any time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
pub struct Schedule {
    /// Full cycles.
    pub full: Trigger,
    /// Quick cycles.
    pub quick: Trigger,
    /// Index work alone.
    pub index: Trigger,
    /// IANA time zone of cron lines and windows, such as `Europe/Berlin`.
    pub zone: String,
    /// When cycles may begin and go on; none: always.
    pub windows: Vec<Window>,
    /// When they may not, windows or no.
    pub blackouts: Vec<Blackout>,
    /// A slot begins up to so much later, each repository in its own way.
    pub jitter_seconds: u32,
    /// Nothing begins by itself.
    pub suspended: bool,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            full: Trigger::Own,
            quick: Trigger::Own,
            index: Trigger::Own,
            zone: "UTC".to_owned(),
            windows: Vec::new(),
            blackouts: Vec::new(),
            jitter_seconds: 0,
            suspended: false,
        }
    }
}

impl Schedule {
    /// The trigger of a lane.
    #[must_use]
    pub fn trigger(&self, lane: Lane) -> &Trigger {
        match lane {
            Lane::Full => &self.full,
            Lane::Quick => &self.quick,
            Lane::Index => &self.index,
        }
    }
}

/// A schedule as people write it: what is left out has its default, times of blackouts are of the schedule's zone.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    full: Trigger,
    quick: Trigger,
    index: Trigger,
    zone: String,
    windows: Vec<Window>,
    blackouts: Vec<String>,
    jitter_seconds: u32,
    suspended: bool,
}

impl Default for Written {
    fn default() -> Self {
        let Schedule { full, quick, index, zone, windows, jitter_seconds, suspended, .. } = Schedule::default();
        Self { full, quick, index, zone, windows, blackouts: Vec::new(), jitter_seconds, suspended }
    }
}

impl TryFrom<Written> for Schedule {
    type Error = ScheduleError;

    fn try_from(written: Written) -> Result<Self, ScheduleError> {
        let Written { full, quick, index, zone, windows, blackouts, jitter_seconds, suspended } = written;
        let here = self::zone(&zone)?;
        let blackouts = blackouts.iter().map(|text| Blackout::parse_in(text, &here)).collect::<Result<_, _>>()?;
        Ok(Self { full, quick, index, zone, windows, blackouts, jitter_seconds, suspended })
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            Written::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
        } else {
            Self::deserialize(deserializer)
        }
    }
}

/// Text for people, the derived shape (`remote = "Self"` makes inherent functions of it) in records.
macro_rules! text_for_people {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { Self::serialize(self, serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    Self::deserialize(deserializer)
                }
            }
        }
    )*};
}

text_for_people! { Trigger Blackout Window }

#[cfg(test)]
mod tests;
