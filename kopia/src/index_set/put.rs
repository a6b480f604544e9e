//! Writing one index blob.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::format::BlobConfig;
use crate::repository::Repository;
use crate::storage::{BlobId, PutOptions, PutReceipt, Retention};

/// Writes a blob of the index; those with the prefixes `n` and `x` get the repository's object lock, `m` and `l` never do.
///
/// # Errors
/// Storage errors; `DeadlinePassed`.
pub fn put_index_blob(
    repository: &Repository,
    id: &BlobId,
    data: Bytes,
    not_after: Option<Duration>,
) -> Result<PutReceipt> {
    let retention = retention(repository.blob_config(), id, repository.clock().now())?;
    let options = PutOptions { retention, not_after, ..PutOptions::default() };
    repository.storage().put(id, data, &options).map_err(|error| error.at(format!("write {id}")))
}

/// The lock that Kopia sets on a blob of this name (`repo/locking_storage.go`).
fn retention(config: BlobConfig, id: &BlobId, now: Timestamp) -> Result<Option<Retention>> {
    let Some((mode, period)) = config.retention.filter(|_| id.as_str().starts_with(['n', 'x'])) else {
        return Ok(None);
    };
    let until = now.checked_add(period).map_err(|error| {
        Error::new(ErrorKind::Unsupported, "compute the end of an object lock: the period is too long")
            .with_source(error)
    })?;
    Ok(Some(Retention { mode, until }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::RetentionMode;

    #[test]
    fn index_blobs_are_locked_and_logs_are_not() {
        let day = Duration::from_secs(86_400);
        let config = BlobConfig { retention: Some((RetentionMode::Governance, day)) };
        let now = Timestamp::UNIX_EPOCH;
        for (id, locked) in
            [("n1", true), ("xn0_1", true), ("xs0_1", true), ("xw5", true), ("m1", false), ("l1", false)]
        {
            let found = retention(config, &id.into(), now).unwrap();
            let expected = Retention { mode: RetentionMode::Governance, until: now + day };
            assert_eq!(found, locked.then_some(expected), "{id}");
            assert_eq!(retention(BlobConfig::default(), &id.into(), now).unwrap(), None);
        }
        let endless = BlobConfig { retention: Some((RetentionMode::Governance, Duration::from_secs(u64::MAX))) };
        assert!(retention(endless, &"n1".into(), now).is_err());
    }
}
