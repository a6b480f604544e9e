//! What a cycle is going to change: a value that can be printed, checked and hashed.
//!
//! Rows are ordinals of the view's table (`index::Table`), which the digest of the view names.

use crate::clock::Timestamp;
use crate::storage::BlobId;

/// Which of Kopia's two cycles, or the index work of them alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
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

/// The body of a plan. Parts that are `None` do not run; `skipped` says why.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanBody {
    /// Quick, full, or index.
    pub mode: Mode,
    /// Kopia's unique ID, hex.
    pub unique_id: String,
    /// Address of the store.
    pub store: String,
    /// Storage timestamp of the first write of `kopia.maintenance` (Kopia's maintenance start time).
    pub started: Timestamp,
    /// BLAKE3 (hex) over the sorted names of the view's index blobs and the watermark.
    pub view: String,
    /// Rows of the view's table.
    pub rows: u64,
    /// Snapshot GC.
    pub gc: Option<GcPlan>,
    /// Forgetting of marks.
    pub drop: Option<DropPlan>,
    /// Orphaned blobs to delete before rewriting.
    pub delete: Option<DeletePlan>,
    /// Packs to rewrite.
    pub rewrite: Option<RewritePlan>,
    /// Blobs that the rewrite orphans, deleted in the same cycle only where the rewrite delay is zero.
    pub delete_rewritten: Option<DeletePlan>,
    /// Index lane, in order.
    pub index: Vec<IndexStep>,
    /// Object locks to extend.
    pub locks: Option<LocksPlan>,
    /// Logs to delete.
    pub logs: Option<LogsPlan>,
    /// Tasks that do not run, with the reason and, where a margin is waited for, its end.
    pub skipped: Vec<Skipped>,
}

/// Snapshot GC: what to mark, what to revive.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GcPlan {
    /// Live rows that no snapshot needs, ascending.
    pub mark: Vec<u32>,
    /// Marked rows that a snapshot needs, ascending.
    pub undelete: Vec<u32>,
    /// Unix seconds: a mark's timestamp is at least max(this, that of the entry it replaces + 1). Without margins it is
    /// exactly that, so that the cutoff of the same plan covers it.
    pub stamp: i64,
    /// Figures as Kopia records them.
    pub stats: crate::maintenance::history::SnapshotGcStats,
}

/// Forgetting of marks older than the cutoff.
#[derive(Debug, Clone, PartialEq)]
pub struct DropPlan {
    /// Marks at (epochs) or before (legacy) this go.
    pub cutoff: Timestamp,
    /// Rows that disappear, the marks of this very cycle included where the cutoff covers them.
    pub rows: Vec<u32>,
}

/// Why a blob may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeleteRule {
    /// A pack without a visible winner.
    UnreferencedPack,
    /// A marker of a session that is over or expired.
    ExpiredSession,
    /// A pack whose contents this cycle moved.
    RewrittenPack,
    /// An index blob that a compacted set replaces.
    SupersededIndex,
    /// An epoch marker or watermark that newer ones replace.
    OldMarker,
    /// A log beyond the retention limits.
    Log,
}

/// A blob to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Blob.
    pub blob: BlobId,
    /// Bytes.
    pub length: u64,
    /// Why.
    pub rule: DeleteRule,
}

/// Deletion of orphaned blobs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeletePlan {
    /// Sorted by name.
    pub blobs: Vec<Deletion>,
    /// Whether only `q` packs are looked at (recorded as `quick-delete-blobs`).
    pub quick: bool,
    /// Figures as Kopia records them.
    pub stats: crate::maintenance::history::DeleteUnreferencedPacksStats,
}

/// One pack to copy from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewritePack {
    /// Ordinal in `Table::packs`.
    pub pack: u32,
    /// Rows to copy, by offset in the pack.
    pub rows: Vec<u32>,
}

/// Short packs to rewrite into full ones.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RewritePlan {
    /// Packs in order of name.
    pub packs: Vec<RewritePack>,
    /// Whether only `q` packs are looked at (recorded as `quick-rewrite-contents`).
    pub quick: bool,
    /// Figures as Kopia records them.
    pub stats: crate::maintenance::history::RewriteContentsStats,
}

/// One step of the index lane.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum IndexStep {
    /// Merge the uncompacted blobs of a settled epoch.
    CompactEpoch {
        /// Epoch.
        epoch: u64,
        /// Its `xn` blobs.
        inputs: Vec<BlobId>,
    },
    /// Write the next epoch marker.
    AdvanceEpoch {
        /// Epoch that begins.
        epoch: u64,
    },
    /// Merge settled epochs into a range checkpoint.
    CompactRange {
        /// First epoch.
        first: u64,
        /// Last epoch.
        last: u64,
        /// The blobs that are merged.
        inputs: Vec<BlobId>,
    },
    /// Delete epoch markers and watermarks that newer ones replace.
    CleanMarkers {
        /// Blobs.
        blobs: Vec<BlobId>,
    },
    /// Delete index blobs that a compacted set replaced long enough ago.
    DeleteSuperseded {
        /// Blobs.
        blobs: Vec<BlobId>,
    },
    /// Legacy index: merge these active blobs into one (with `drop_before`, marks before it are removed: then this step
    /// is the drop itself and runs in its stage, before any pack is deleted).
    CompactLegacy {
        /// Active `n` blobs to merge.
        inputs: Vec<BlobId>,
        /// Marks before this go; only when `inputs` are all active blobs.
        drop_before: Option<Timestamp>,
    },
}

/// Object locks to extend.
#[derive(Debug, Clone, PartialEq)]
pub struct LocksPlan {
    /// Blobs, sorted.
    pub blobs: Vec<BlobId>,
    /// How to lock them.
    pub mode: crate::storage::RetentionMode,
    /// For how long from now.
    pub period: std::time::Duration,
}

/// Log clean-up.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogsPlan {
    /// Logs beyond the limits.
    pub blobs: Vec<Deletion>,
    /// Figures as Kopia records them.
    pub stats: crate::maintenance::history::CleanupLogsStats,
}

/// A task that does not run now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Skipped {
    /// Kopia's task name.
    pub task: String,
    /// Why.
    pub reason: String,
    /// When it may, if a margin is waited for.
    pub until: Option<Timestamp>,
}
