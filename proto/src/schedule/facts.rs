//! What a look at a repository, or the report of a cycle, says of when the next one is due.

use serde::{Deserialize, Serialize};

use crate::time::LogTime;

const HOUR: u64 = 3_600_000;

/// One of Kopia's two cycles, as the repository's parameters have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnCycle {
    /// Whether it runs by itself.
    pub enabled: bool,
    /// Seconds from start to start.
    pub interval_seconds: u64,
}

/// The repository's own Kopia settings. Index work goes with the quick cycle, as in Kopia.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Full.
    pub full: OwnCycle,
    /// Quick.
    pub quick: OwnCycle,
}

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
#[serde(rename_all = "camelCase")]
pub struct Margin {
    /// Ends.
    pub at: LogTime,
    /// It is the wait from mark to drop, which also needs a second snapshot GC in between.
    pub is_drop: bool,
}
