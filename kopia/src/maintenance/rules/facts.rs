//! What the rules know: gathered by a worker, fixed before they decide.

use super::plan::Mode;
use super::rows::Rows;
use crate::bitmap::Bitmap;
use crate::clock::Timestamp;
use crate::format::{BlobConfig, EpochParameters};
use crate::index::Table;
use crate::maintenance::{Margins, Params, Schedule};
use crate::storage::{BlobId, BlobMetadata};
use std::time::Duration;

/// R11: what must not happen because something cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frozen {
    /// Everything could be read.
    #[default]
    Nothing,
    /// A manifest, directory or seek table could not be read, and may protect any content: no marks, no drop, no
    /// `snapshot-gc` success, no deletion of a pack that a hidden mark names.
    MarksAndDrops,
    /// An index may be lost, so that live packs look like orphans: no rewrite, drop, compaction or deletion at all.
    Everything,
}

/// A session marker (`s…`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFact {
    /// The marker, as listed.
    pub marker: BlobMetadata,
    /// Checkpoint time from its body; `None` if it cannot be read, then its storage time counts (R11).
    pub checkpoint: Option<Timestamp>,
    /// One of our own sessions whose job provably ended (R21): it protects nothing.
    pub over: bool,
}

/// A legacy compaction log (`m…`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionLog {
    /// The log, as listed.
    pub blob: BlobMetadata,
    /// Blobs that were merged.
    pub inputs: Vec<BlobId>,
    /// What they became.
    pub outputs: Vec<BlobId>,
}

/// A legacy clean-up note (`l…`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupNote {
    /// The note, as listed.
    pub blob: BlobMetadata,
    /// Compaction logs that may go.
    pub logs: Vec<BlobId>,
    /// When it was written, by the storage's clock.
    pub scheduled: Timestamp,
}

/// The index manager's side.
#[derive(Debug, Clone)]
pub enum IndexFacts {
    /// Legacy index.
    Legacy {
        /// Active `n` blobs, as listed.
        active: Vec<BlobMetadata>,
        /// All `n` blobs, superseded ones included.
        all: Vec<BlobMetadata>,
        /// Compaction logs.
        logs: Vec<CompactionLog>,
        /// Clean-up notes.
        notes: Vec<CleanupNote>,
    },
    /// Epochs.
    Epochs {
        /// Parameters from the format blob.
        parameters: EpochParameters,
        /// All `x` blobs, as listed.
        blobs: Vec<BlobMetadata>,
    },
}

/// Facts of one cycle. All lists are what the store listed after the index view was taken, unless it says otherwise.
#[derive(Debug)]
pub struct Facts<'a, R: Rows = Table> {
    /// Quick, full, or index.
    pub mode: Mode,
    /// Waits.
    pub margins: &'a Margins,
    /// Kopia's unique ID, hex.
    pub unique_id: &'a str,
    /// Address of the store.
    pub store: &'a str,
    /// Digest of the view (see [`PlanBody::view`](super::PlanBody::view)).
    pub view: &'a str,
    /// Storage timestamp of the cycle's first write of `kopia.maintenance`; ages are taken against it (R10).
    pub started: Timestamp,
    /// Now: the earlier of the storage's and this machine's clock (a watermark from a fast clock cannot be moved back).
    pub now: Timestamp,
    /// Start that this cycle's snapshot GC will record.
    pub gc_started: Timestamp,
    /// The merged winners of the view.
    pub table: &'a R,
    /// Rows that snapshots need; `None` if they were not worked out (quick cycle).
    pub used: Option<&'a Bitmap>,
    /// What must not happen.
    pub frozen: Frozen,
    /// Why, for people; empty if nothing is frozen.
    pub frozen_why: &'a str,
    /// All `p`, `q` and `s` blobs, listed after the view was loaded.
    pub packs: &'a [BlobMetadata],
    /// Session markers among them.
    pub sessions: &'a [SessionFact],
    /// `kopia.*` blobs.
    pub format_blobs: &'a [BlobMetadata],
    /// `_log_` blobs.
    pub logs: &'a [BlobMetadata],
    /// Index blobs.
    pub index: &'a IndexFacts,
    /// Next times and history, as last written by others or an earlier cycle.
    pub schedule: &'a Schedule,
    /// Parameters.
    pub params: &'a Params,
    /// Retention settings.
    pub blob_config: BlobConfig,
    /// Pack size at which a pack is closed.
    pub max_pack_size: u64,
}

impl<R: Rows> Facts<'_, R> {
    /// Storage time of each pack of the table, by ordinal; `None` if it was not listed.
    #[must_use]
    pub fn pack_times(&self) -> Vec<Option<Timestamp>> {
        let listed: std::collections::HashMap<&str, Timestamp> =
            self.packs.iter().map(|blob| (blob.id.as_str(), blob.timestamp)).collect();
        self.table.packs().iter().map(|pack| listed.get(pack.as_str()).copied()).collect()
    }

    /// Whether the legacy index is in use.
    #[must_use]
    pub fn is_legacy(&self) -> bool {
        matches!(self.index, IndexFacts::Legacy { .. })
    }
}

/// How old `then` was at `now`, in nanoseconds; negative if it lies ahead. Index timestamps are any 64-bit number.
pub(super) fn age(now: Timestamp, then_seconds: i64) -> i128 {
    now.as_nanosecond() - i128::from(then_seconds) * 1_000_000_000
}

/// Whether an age falls short of a margin.
pub(super) fn shorter(age: i128, margin: Duration) -> bool {
    age < i128::try_from(margin.as_nanos()).unwrap_or(i128::MAX)
}

/// `time - duration`, at the start of time if there is no such time.
pub(super) fn before(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_sub(duration).unwrap_or(Timestamp::MIN)
}

/// `time + duration`, at the end of time if there is no such time.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}
