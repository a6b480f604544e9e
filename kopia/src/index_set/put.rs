//! Writing one index blob.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
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
    let locked = id.as_str().starts_with(['n', 'x']);
    let retention = repository.blob_config().retention.filter(|_| locked);
    let retention = retention.map(|(mode, period)| {
        let until = until(repository.clock().now(), period);
        until.map(|until| Retention { mode, until })
    });
    let options = PutOptions { retention: retention.transpose()?, not_after, ..PutOptions::default() };
    repository.storage().put(id, data, &options).map_err(|error| error.at(format!("write {id}")))
}

fn until(now: Timestamp, period: Duration) -> Result<Timestamp> {
    now.checked_add(period).map_err(|error| {
        Error::new(ErrorKind::Unsupported, "compute the end of an object lock: the period is too long")
            .with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_period_is_an_error() {
        assert!(until(Timestamp::UNIX_EPOCH, Duration::from_secs(86_400)).is_ok());
        assert!(until(Timestamp::UNIX_EPOCH, Duration::from_secs(u64::MAX)).is_err());
    }
}
