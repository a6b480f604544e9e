//! Reading index blobs, many at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::index::Index;
use crate::repository::Repository;
use crate::storage::{BlobId, ByteRange};

/// Requests in flight at least: they wait for the store, not for a processor.
const REQUESTS_MIN: usize = 8;

/// Reads, decrypts and parses index blobs; results in the order of `ids`.
///
/// # Errors
/// `NotFound` if one of them vanished since it was listed; `Damaged` if one cannot be read (R11); storage errors.
pub fn fetch_indexes(repository: &Repository, ids: &[BlobId], threads: usize) -> Result<Vec<Arc<Index>>> {
    let hash_length = repository.hasher().length();
    for_each(ids, threads, |id| {
        let parsed = open(repository, id).and_then(|plain| Index::parse(plain, hash_length));
        parsed.map(Arc::new).map_err(|error| unreadable(error, id))
    })
}

/// Reads and decrypts one blob.
pub(super) fn open(repository: &Repository, id: &BlobId) -> Result<Vec<u8>> {
    let stored = repository.storage().get(id, ByteRange::All)?;
    repository.cipher().open_blob(id, &stored)
}

pub(super) fn unreadable(error: Error, id: &BlobId) -> Error {
    let error = error.at(format!("read index blob {id}"));
    if error.kind() == ErrorKind::Damaged {
        let fix = "nothing was changed; restore this blob from a copy, or see `kopia index recover`, then try again";
        return error.with_fix(fix);
    }
    error
}

/// Calls `work` for every item from several threads; the first error ends it.
pub(super) fn for_each<I: Sync, T: Send>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    for_each_of(items, threads.max(REQUESTS_MIN), work)
}

/// As [`for_each`], from no more than these threads.
pub(super) fn for_each_of<I: Sync, T: Send>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let threads = threads.min(items.len());
    let run = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let result = work(item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        }
    };
    if threads <= 1 {
        run();
    } else {
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(run))));
    }
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
