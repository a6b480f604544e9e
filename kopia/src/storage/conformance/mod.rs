//! What every store must do, as one suite that runs against all of them.
//!
//! ```
//! use verger_kopia::storage::{MemoryStorage, Storage, conformance};
//! conformance::suite(&|| Box::new(MemoryStorage::default()) as Box<dyn Storage>);
//! ```

mod change;
mod condition;
mod read;

use bytes::Bytes;

use super::{BlobId, PutOptions, PutReceipt, Storage};
use crate::error::{ErrorKind, Result};

/// Runs every check, each against a store of its own from `make`, which must give an empty one each time.
///
/// # Panics
/// At the first thing that a store must not do, with a message that names it.
pub fn suite(make: &dyn Fn() -> Box<dyn Storage>) {
    let checks: &[fn(&dyn Storage)] = &[
        read::ranges,
        read::absence,
        read::empty_blob,
        read::large_blob,
        read::metadata,
        read::listing,
        read::names,
        change::overwrite,
        change::whole_versions,
        change::delete_batch,
        change::deadlines,
        change::retention,
        condition::if_absent,
        condition::if_match,
        condition::races,
    ];
    for check in checks {
        check(&*make());
    }
}

/// The value, or the end of the suite.
fn must<T>(result: Result<T>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

/// The kind of the failure that has to happen.
fn fails<T>(result: Result<T>, what: &str) -> ErrorKind {
    match result {
        Ok(_) => panic!("{what}: it must fail"),
        Err(error) => error.kind(),
    }
}

fn put(store: &dyn Storage, name: &str, data: impl Into<Bytes>) -> PutReceipt {
    must(store.put(&BlobId::new(name), data.into(), &PutOptions::default()), "write a blob")
}

/// Writes many small blobs, each holding its own name, side by side.
fn put_many(store: &dyn Storage, names: &[String]) {
    std::thread::scope(|scope| {
        for part in names.chunks(names.len().div_ceil(8).max(1)) {
            scope.spawn(move || part.iter().for_each(|name| drop(put(store, name, name.clone()))));
        }
    });
}

fn listed(store: &dyn Storage, prefix: &str) -> Vec<String> {
    let mut names: Vec<_> =
        must(super::list_all(store, prefix), "list").into_iter().map(|blob| blob.id.to_string()).collect();
    names.sort();
    names
}

/// Bytes that differ from place to place, so that a shifted range is seen.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect::<Vec<_>>().into()
}
