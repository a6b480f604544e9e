//! How long Kopia waits before it does what cannot be undone (`repo/maintenance/maintenance_safety.go`), and what
//! Verger adds.

use std::time::Duration;

const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

/// Added to the maintenance start time before blob ages are taken; not governed by the safety level
/// (`repo/maintenance/pack_gc.go`, `cutoffTimeSlack`).
pub const CUTOFF_SLACK: Duration = Duration::from_secs(1);

/// Local and storage clock may differ by this much; not governed by the safety level
/// (`repo/maintenance/maintenance_run.go`, `maxClockSkew`).
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5 * 60);

/// Age after which incomplete compacted sets of dead attempts go (R16); Kopia never removes them.
pub const INCOMPLETE_SET_MIN_AGE: Duration = hours(24);

/// An incomplete `-c<N>` set of `xn` blobs older than this may mean a lost index (R11).
pub const INCOMPLETE_INDEX_MAX_AGE: Duration = hours(1);

/// The waits of one safety level. Names are Kopia's where Kopia has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Margins {
    /// Contents younger than this are not rewritten (entry timestamp; `content_rewrite.go`).
    pub rewrite_min_age: Duration,
    /// Contents younger than this are not marked (entry timestamp; `snapshot/snapshotgc/gc.go`).
    pub min_content_age_subject_to_gc: Duration,
    /// More than this must lie between the end of one snapshot GC and the start of a later one (`findSafeDropTime`).
    pub margin_between_snapshot_gc: Duration,
    /// Only marks this much older than the earlier of the two are dropped (`findSafeDropTime`).
    pub drop_content_from_index_extra_margin: Duration,
    /// Whether two snapshot GCs must have seen a mark before it is dropped (`findSafeDropTime`).
    pub require_two_gc_cycles: bool,
    /// Blobs younger than this are not deleted (storage timestamp; `pack_gc.go`).
    pub pack_delete_min_age: Duration,
    /// Blobs of a session are kept this long after its checkpoint (`pack_gc.go`).
    pub session_expiration_age: Duration,
    /// Least time from the end of a rewrite to the deletion of what it orphaned (`maintenance_run.go`).
    pub min_rewrite_to_orphan_deletion_delay: Duration,
    /// Least age of a legacy compaction log before its inputs go (`index_blob_manager_v0.go`; zero where Kopia's
    /// `DisableEventualConsistencySafety` is set).
    pub legacy_settle_time: Duration,
    /// R10: contents in packs younger than this by the storage's clock are not marked (their own timestamps are
    /// clients').
    pub pack_age_subject_to_gc: Duration,
    /// R15: least time from mark to drop. Five hours only where no client sleeps in the middle of a snapshot.
    pub mark_to_drop_wait: Duration,
    /// R19: contents with prefix `m` younger than this are not rewritten.
    pub manifest_rewrite_min_age: Duration,
}

const FULL: Margins = Margins {
    rewrite_min_age: hours(2),
    min_content_age_subject_to_gc: hours(24),
    margin_between_snapshot_gc: hours(4),
    drop_content_from_index_extra_margin: hours(1),
    require_two_gc_cycles: true,
    pack_delete_min_age: hours(24),
    session_expiration_age: hours(96),
    min_rewrite_to_orphan_deletion_delay: hours(1),
    legacy_settle_time: hours(1),
    pack_age_subject_to_gc: hours(24),
    mark_to_drop_wait: hours(24),
    manifest_rewrite_min_age: hours(24),
};

const NONE: Margins = Margins {
    rewrite_min_age: Duration::ZERO,
    min_content_age_subject_to_gc: Duration::ZERO,
    margin_between_snapshot_gc: Duration::ZERO,
    drop_content_from_index_extra_margin: Duration::ZERO,
    require_two_gc_cycles: false,
    pack_delete_min_age: Duration::ZERO,
    session_expiration_age: Duration::ZERO,
    min_rewrite_to_orphan_deletion_delay: Duration::ZERO,
    legacy_settle_time: Duration::ZERO,
    pack_age_subject_to_gc: Duration::ZERO,
    mark_to_drop_wait: Duration::ZERO,
    manifest_rewrite_min_age: Duration::ZERO,
};

/// Least `mark_to_drop_wait` with full safety: what Kopia's own two cycles come to.
pub const MARK_TO_DROP_WAIT_MIN: Duration = hours(5);

// Relations that the rules lean on; a changed figure that breaks one does not build.
const _: () = {
    // A rewritten content must not be marked or moved again before its old pack can go.
    assert!(FULL.rewrite_min_age.as_secs() > FULL.min_rewrite_to_orphan_deletion_delay.as_secs());
    assert!(FULL.pack_delete_min_age.as_secs() > FULL.rewrite_min_age.as_secs());
    // A content is as long safe from its mark as the pack that holds it from deletion.
    assert!(FULL.min_content_age_subject_to_gc.as_secs() == FULL.pack_delete_min_age.as_secs());
    assert!(FULL.pack_age_subject_to_gc.as_secs() >= FULL.min_content_age_subject_to_gc.as_secs());
    assert!(FULL.session_expiration_age.as_secs() > FULL.pack_delete_min_age.as_secs());
    assert!(FULL.mark_to_drop_wait.as_secs() >= MARK_TO_DROP_WAIT_MIN.as_secs());
    assert!(
        MARK_TO_DROP_WAIT_MIN.as_secs()
            == FULL.margin_between_snapshot_gc.as_secs() + FULL.drop_content_from_index_extra_margin.as_secs()
    );
    assert!(FULL.drop_content_from_index_extra_margin.as_secs() > CLOCK_SKEW_MAX.as_secs());
    assert!(!NONE.require_two_gc_cycles && FULL.require_two_gc_cycles);
};

impl Margins {
    /// Kopia's `full` and Verger's own waits: safe beside any number of clients.
    #[must_use]
    pub fn full() -> Self {
        FULL
    }

    /// Kopia's `none`, with Verger's own waits at zero too (R23): only for one who is alone with the repository.
    #[must_use]
    pub fn none() -> Self {
        NONE
    }

    /// Whether this is the level without waits.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_kopias_table_and_none_waits_for_nothing() {
        let full = Margins::full();
        let table = [
            (full.rewrite_min_age, 2),
            (full.min_content_age_subject_to_gc, 24),
            (full.margin_between_snapshot_gc, 4),
            (full.drop_content_from_index_extra_margin, 1),
            (full.pack_delete_min_age, 24),
            (full.session_expiration_age, 96),
            (full.min_rewrite_to_orphan_deletion_delay, 1),
            (full.legacy_settle_time, 1),
            (full.mark_to_drop_wait, 24),
        ];
        assert!(table.iter().all(|(margin, h)| *margin == hours(*h)), "{full:?}");
        let zero = Margins { require_two_gc_cycles: true, ..Margins::none() };
        assert!(Margins::none().is_none() && !zero.is_none() && !full.is_none());
    }
}
