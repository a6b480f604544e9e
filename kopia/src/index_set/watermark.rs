//! The deletion watermark of the epoch manager: marks at or below it do not exist for readers.

use std::time::Duration;

use bytes::Bytes;

use super::{names, put_index_blob};
use crate::error::Result;
use crate::repository::Repository;
use crate::storage::{BlobMetadata, list_all};

/// Body of a watermark blob, as Kopia writes it; the time is in the name.
const BODY: &[u8] = b"deletion-watermark";

/// The highest watermark among these blobs, in Unix seconds.
#[must_use]
pub fn highest(blobs: &[BlobMetadata]) -> Option<i64> {
    blobs.iter().filter_map(|blob| names::watermark_of(&blob.id)).max()
}

/// Moves the watermark to `seconds`. `false` if it is there or beyond already: it never moves back.
///
/// # Errors
/// Storage errors; `DeadlinePassed`.
pub fn advance(repository: &Repository, seconds: i64, not_after: Option<Duration>) -> Result<bool> {
    let listed = list_all(&**repository.storage(), names::WATERMARK)?;
    if highest(&listed).is_some_and(|current| current >= seconds) {
        return Ok(false);
    }
    put_index_blob(repository, &names::watermark(seconds), Bytes::from_static(BODY), not_after)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index_set::testing::{blobs, golden};

    #[test]
    fn i5_it_only_moves_forward() {
        assert_eq!(highest(&blobs(&["xw7", "xwx", "xw90", "xw8"])), Some(90));
        let repository = golden("default").repository;
        for (seconds, moved) in [(50, true), (50, false), (40, false), (60, true)] {
            assert_eq!(advance(&repository, seconds, None).unwrap(), moved);
        }
        let listed = list_all(&**repository.storage(), "xw").unwrap();
        assert_eq!((listed.len(), highest(&listed)), (2, Some(60)));
    }
}
