//! Object-lock extension (`repo/maintenance/blob_retain.go`, `repo/locking_storage.go`).

use super::plan::LocksPlan;
use crate::error::{Error, ErrorKind, Result};
use crate::format::BlobConfig;
use crate::maintenance::Params;
use crate::storage::{BlobId, BlobMetadata};
use std::time::Duration;

/// Least time by which the retention period has to exceed the full interval (`minRetentionMaintenanceDiff`).
pub const PERIOD_MARGIN: Duration = Duration::from_secs(24 * 3600);

/// Whether Kopia locks blobs of this name: `n`, `x`, packs, and the format blobs.
#[must_use]
pub fn is_locked(blob: &BlobId) -> bool {
    let name = blob.as_str();
    name.starts_with(['n', 'x', 'p', 'q']) || name.starts_with("kopia.repository") || name.starts_with("kopia.blobcfg")
}

/// Which blobs to extend: all that Kopia locks, but those that `leaving` names, which this cycle deletes.
///
/// # Errors
/// The reason why nothing is extended.
pub fn plan<'a>(
    listed: impl Iterator<Item = &'a BlobMetadata>,
    leaving: impl Fn(&BlobId) -> bool,
    params: &Params,
    config: &BlobConfig,
) -> Result<LocksPlan, &'static str> {
    if !params.extend_object_locks {
        return Err("Extending object lock retention-period is disabled.");
    }
    let (mode, period) = config.retention.ok_or("Object lock retention is disabled.")?;
    let mut blobs: Vec<BlobId> =
        listed.filter(|blob| is_locked(&blob.id) && !leaving(&blob.id)).map(|blob| blob.id.clone()).collect();
    blobs.sort();
    blobs.dedup();
    Ok(LocksPlan { blobs, mode, period })
}

/// Whether extension may be switched on with these settings (`CheckExtendRetention`).
///
/// # Errors
/// `Usage` if the period is too short for the full interval.
pub fn check_setting(params: &Params, config: &BlobConfig) -> Result<()> {
    let Some((_, period)) = config.retention.filter(|_| params.extend_object_locks) else { return Ok(()) };
    if period >= params.full.interval.saturating_add(PERIOD_MARGIN) {
        return Ok(());
    }
    let step = format!(
        "the retention period ({}) must be at least 24 hours longer than the full maintenance interval ({})",
        crate::maintenance::go_json::duration_text(period),
        crate::maintenance::go_json::duration_text(params.full.interval)
    );
    Err(Error::new(ErrorKind::Usage, step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::storage::RetentionMode;

    #[test]
    fn kopias_prefixes_are_extended_and_what_leaves_is_not() {
        let names = [
            "p1",
            "q1",
            "s1",
            "n1",
            "m1",
            "l1",
            "xn0_1",
            "_log_1",
            "kopia.repository",
            "kopia.blobcfg",
            "kopia.maintenance",
            "verger.lease",
            "p2",
        ];
        let listed: Vec<BlobMetadata> = names
            .iter()
            .map(|name| BlobMetadata { id: (*name).into(), length: 1, timestamp: Timestamp::UNIX_EPOCH, etag: None })
            .collect();
        let config = BlobConfig { retention: Some((RetentionMode::Governance, Duration::from_secs(72 * 3600))) };
        let mut params = Params::kopia_default();
        assert!(plan(listed.iter(), |_| false, &params, &config).is_err());
        params.extend_object_locks = true;
        assert!(plan(listed.iter(), |_| false, &params, &BlobConfig::default()).is_err());
        let plan = plan(listed.iter(), |id| id.as_str() == "p2", &params, &config).unwrap();
        let blobs: Vec<&str> = plan.blobs.iter().map(BlobId::as_str).collect();
        assert_eq!(blobs, ["kopia.blobcfg", "kopia.repository", "n1", "p1", "q1", "xn0_1"]);
        assert!(check_setting(&params, &config).is_ok());
        params.full.interval = Duration::from_secs(48 * 3600 + 1);
        assert_eq!(check_setting(&params, &config).unwrap_err().kind(), ErrorKind::Usage);
        params.extend_object_locks = false;
        assert!(check_setting(&params, &config).is_ok());
    }
}
