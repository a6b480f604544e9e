//! Run records and their figures, as `kopia.maintenance` keeps them (`repo/maintenancestats`).

use crate::clock::Timestamp;
use crate::maintenance::go_json::{optional_time, zero_time};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::fmt;

/// Figures that a run record can carry.
pub trait Figures: serde::Serialize + serde::de::DeserializeOwned {
    /// Kopia's name of this kind of figures.
    const KIND: &'static str;
}

macro_rules! stats {
    ($(#[$doc:meta])* $name:ident, $kind:literal { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }
        impl $name {
            /// Kopia's name of this kind of figures.
            pub const KIND: &'static str = $kind;
        }
        impl Figures for $name {
            const KIND: &'static str = $kind;
        }
    };
}

stats!(
    /// Figures of snapshot GC: counts and packed bytes.
    SnapshotGcStats, "snapshotGCStats" {
        /// Contents no snapshot needs, old enough; already marked ones included.
        unreferenced_content_count: u64,
        /// Bytes.
        unreferenced_content_size: u64,
        /// As `unreferenced` (Kopia counts already marked ones here too).
        deleted_content_count: u64,
        /// Bytes.
        deleted_content_size: u64,
        /// Contents no snapshot needs, too young.
        unreferenced_recent_content_count: u64,
        /// Bytes.
        unreferenced_recent_content_size: u64,
        /// Contents that snapshots need.
        in_use_content_count: u64,
        /// Bytes.
        in_use_content_size: u64,
        /// `m` contents.
        in_use_system_content_count: u64,
        /// Bytes.
        in_use_system_content_size: u64,
        /// Marks that were undone.
        recovered_content_count: u64,
        /// Bytes.
        recovered_content_size: u64,
    }
);
stats!(
    /// Figures of a rewrite.
    RewriteContentsStats, "rewriteContentsStats" {
        /// Selected.
        to_rewrite_content_count: u64,
        /// Bytes.
        to_rewrite_content_size: u64,
        /// Copied.
        rewritten_content_count: u64,
        /// Bytes.
        rewritten_content_size: u64,
        /// Left alone (too young).
        retained_content_count: u64,
        /// Bytes.
        retained_content_size: u64,
    }
);
stats!(
    /// Figures of blob deletion.
    DeleteUnreferencedPacksStats, "deleteUnreferencedPacksStats" {
        /// Packs without a visible entry.
        unreferenced_pack_count: u64,
        /// Bytes.
        unreferenced_total_size: u64,
        /// Deleted.
        deleted_pack_count: u64,
        /// Bytes.
        deleted_total_size: u64,
        /// Kept for their age or session.
        retained_pack_count: u64,
        /// Bytes.
        retained_total_size: u64,
    }
);
stats!(
    /// Figures of log clean-up.
    CleanupLogsStats, "cleanupLogsStats" {
        /// Beyond the limits.
        to_delete_blob_count: u64,
        /// Bytes.
        to_delete_blob_size: u64,
        /// Deleted.
        deleted_blob_count: u64,
        /// Bytes.
        deleted_blob_size: u64,
        /// Kept.
        retained_blob_count: u64,
        /// Bytes.
        retained_blob_size: u64,
    }
);
stats!(
    /// Figures of object-lock extension.
    ExtendBlobRetentionStats, "extendBlobRetentionStats" {
        /// Selected.
        to_extend_blob_count: u64,
        /// Extended.
        extended_blob_count: u64,
        /// As Go prints durations: `720h0m0s`.
        retention_period: String,
    }
);
stats!(
    /// Figures of the epoch advance.
    AdvanceEpochStats, "advanceEpochStats" {
        /// Write epoch after the task.
        current_epoch: u64,
        /// Whether the task moved it.
        was_advanced: bool,
    }
);
stats!(
    /// Figures of the compaction of one epoch.
    CompactSingleEpochStats, "compactSingleEpochStats" {
        /// Blobs that were merged.
        superseded_index_blob_count: u64,
        /// Bytes.
        superseded_index_total_size: u64,
        /// Epoch.
        epoch: u64,
    }
);
stats!(
    /// Figures of a range checkpoint.
    GenerateRangeCheckpointStats, "generateRangeCheckpointStats" {
        /// First epoch.
        range_min_epoch: u64,
        /// Last epoch.
        range_max_epoch: u64,
    }
);
stats!(
    /// Figures of the clean-up of epoch markers and watermarks.
    CleanupMarkersStats, "cleanupMarkersStats" {
        /// Epoch markers deleted.
        deleted_epoch_marker_blob_count: u64,
        /// Watermarks deleted.
        deleted_watermark_blob_count: u64,
    }
);
stats!(
    /// Figures of the deletion of superseded index blobs.
    CleanupSupersededIndexesStats, "cleanupSupersededIndexesStats" {
        /// Replacements written before this count.
        #[serde(with = "optional_time")]
        max_replacement_time: Option<Timestamp>,
        /// Deleted.
        deleted_blob_count: u64,
        /// Bytes.
        deleted_total_size: u64,
    }
);
stats!(
    /// Figures of the legacy index compaction.
    CompactIndexesStats, "compactIndexesStats" {
        /// Marks before this were removed.
        #[serde(with = "optional_time")]
        dropped_contents_deleted_before: Option<Timestamp>,
    }
);

/// Kopia's tasks, as its history names them (`repo/maintenance/maintenance_run.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// Snapshot GC.
    SnapshotGc,
    /// Rewrite of short `q` packs.
    QuickRewriteContents,
    /// Rewrite of short packs.
    FullRewriteContents,
    /// Forgetting of marks; the name is singular, as Kopia writes it.
    FullDropDeletedContent,
    /// Deletion of orphaned `q` packs.
    QuickDeleteBlobs,
    /// Deletion of orphaned packs and session markers.
    FullDeleteBlobs,
    /// Legacy index compaction.
    IndexCompaction,
    /// Object-lock extension.
    ExtendBlobRetentionTime,
    /// Log clean-up.
    CleanupLogs,
    /// Epoch advance.
    AdvanceEpoch,
    /// Compaction of one epoch.
    CompactSingleEpoch,
    /// Range checkpoint.
    GenerateEpochRangeIndex,
    /// Clean-up of epoch markers and watermarks.
    CleanupEpochMarkers,
    /// Deletion of superseded index blobs.
    DeleteSupersededEpochIndexes,
}

impl Task {
    /// Kopia's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SnapshotGc => "snapshot-gc",
            Self::QuickRewriteContents => "quick-rewrite-contents",
            Self::FullRewriteContents => "full-rewrite-contents",
            Self::FullDropDeletedContent => "full-drop-deleted-content",
            Self::QuickDeleteBlobs => "quick-delete-blobs",
            Self::FullDeleteBlobs => "full-delete-blobs",
            Self::IndexCompaction => "index-compaction",
            Self::ExtendBlobRetentionTime => "extend-blob-retention-time",
            Self::CleanupLogs => "cleanup-logs",
            Self::AdvanceEpoch => "advance-epoch",
            Self::CompactSingleEpoch => "compact-single-epoch",
            Self::GenerateEpochRangeIndex => "generate-epoch-range-index",
            Self::CleanupEpochMarkers => "cleanup-epoch-markers",
            Self::DeleteSupersededEpochIndexes => "delete-superseded-epoch-indexes",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Figures in a record, with their kind. Unknown kinds and fields stay as they were.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Extra {
    /// Kind, such as `snapshotGCStats`.
    #[serde(default)]
    pub kind: String,
    /// Figures; `null` where a task ran but had nothing to report.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub data: Option<Value>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One run of one task. Fields that this program does not know survive a rewrite.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RunRecord {
    /// When it began, by the runner's clock.
    #[serde(default = "zero_time")]
    pub start: Timestamp,
    /// When it ended, by the runner's clock.
    #[serde(default = "zero_time")]
    pub end: Timestamp,
    /// Failed runs count for no safety rule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub success: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Figures, normally one.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub extra: Vec<Extra>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An absent field stays absent, and `null` stays `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Go writes an empty list as `null` at times.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl RunRecord {
    /// A success without figures.
    #[must_use]
    pub fn success(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end, success: true, error: String::new(), extra: Vec::new(), other: Map::new() }
    }

    /// A failure.
    #[must_use]
    pub fn failure(start: Timestamp, end: Timestamp, error: impl Into<String>) -> Self {
        Self { success: false, error: error.into(), ..Self::success(start, end) }
    }

    /// Replaces the figures. `None`: the task ran and had nothing to report, which Kopia stores as `data: null`.
    #[must_use]
    pub fn with_figures<F: Figures>(mut self, figures: Option<&F>) -> Self {
        let data = figures.and_then(|figures| serde_json::to_value(figures).ok()).unwrap_or(Value::Null);
        self.extra = vec![Extra { kind: F::KIND.into(), data: Some(data), other: Map::new() }];
        self
    }

    /// Figures of this kind, if the record has them; `null` reads as zeros.
    #[must_use]
    pub fn figures<F: Figures + Default>(&self) -> Option<F> {
        let extra = self.extra.iter().find(|extra| extra.kind == F::KIND)?;
        match &extra.data {
            None | Some(Value::Null) => Some(F::default()),
            Some(data) => serde_json::from_value(data.clone()).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_with_what_this_program_does_not_know() {
        let json = concat!(
            r#"{"start":"2024-01-02T03:04:05.5Z","end":"2024-01-02T03:04:06Z","success":true,"extra":["#,
            r#"{"kind":"newStats","data":{"b":18446744073709551615,"a":[1,null]},"hint":1},"#,
            r#"{"kind":"advanceEpochStats","data":null},{"kind":"bare"}],"later":{"x":true}}"#
        );
        let record: RunRecord = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
        assert_eq!(record.figures::<AdvanceEpochStats>(), Some(AdvanceEpochStats::default()));
        assert_eq!(record.figures::<CleanupLogsStats>(), None);
    }

    #[test]
    fn success_error_and_figures_are_left_out_when_empty() {
        let at: Timestamp = "2024-01-02T03:04:05Z".parse().unwrap();
        let failed = serde_json::to_string(&RunRecord::failure(at, at, "no")).unwrap();
        assert_eq!(failed, r#"{"start":"2024-01-02T03:04:05Z","end":"2024-01-02T03:04:05Z","error":"no"}"#);
        let none = RunRecord::success(at, at).with_figures::<CompactSingleEpochStats>(None);
        assert!(
            serde_json::to_string(&none)
                .unwrap()
                .ends_with(r#""success":true,"extra":[{"kind":"compactSingleEpochStats","data":null}]}"#)
        );
        let null: RunRecord = serde_json::from_str(r#"{"start":"2024-01-02T03:04:05Z","extra":null}"#).unwrap();
        assert!(!null.success && null.extra.is_empty() && null.end == zero_time());
    }

    #[test]
    fn figures_have_kopias_field_names() {
        let drop = CompactIndexesStats::default();
        assert_eq!(serde_json::to_string(&drop).unwrap(), r#"{"droppedContentsDeletedBefore":"0001-01-01T00:00:00Z"}"#);
        let gc = serde_json::to_value(SnapshotGcStats::default()).unwrap();
        assert_eq!(gc.as_object().unwrap().len(), 12);
        assert_eq!(gc["recoveredContentSize"], 0);
    }
}
