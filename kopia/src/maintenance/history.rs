//! Run records and their figures, as `kopia.maintenance` keeps them (`repo/maintenancestats`).

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
