//! What was asked for when a cycle was opened.

use serde::{Deserialize, Serialize};

/// Which of Kopia's two cycles, or the index work of them alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Index work; with the legacy index also `q` packs and logs.
    Quick,
    /// Everything.
    Full,
    /// What a quick cycle does to the index, and nothing else.
    Index,
}

impl Mode {
    /// As in messages and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Quick => "quick",
            Mode::Full => "full",
            Mode::Index => "index",
        }
    }
}

/// Kopia's safety margins, or none (R23).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Safety {
    /// All margins.
    Full,
    /// What Kopia's `none` zeroes; only where no other client is at work.
    None,
}

/// Which index the repository has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexKind {
    /// Epochs (`x…` blobs): marks are hidden by a watermark.
    Epochs,
    /// `n` blobs: marks are dropped by a compaction.
    Legacy,
}

/// What a person or a schedule asked for. Two requests with equal options are one cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleOptions {
    /// Quick, full, or index.
    pub mode: Mode,
    /// Margins.
    pub safety: Safety,
    /// Which index the repository has.
    pub index: IndexKind,
    /// Ends after the plan was checked; nothing is changed.
    pub dry_run: bool,
    /// A person's word that up to this many percent of the packed bytes may go (S5); for this cycle's plan alone.
    pub allow_removing: Option<u8>,
    /// A person's word that there is no other maintainer (R23).
    pub exclusive: bool,
    /// A person's word that there is no other client either (R23).
    pub alone: bool,
}
