//! Writing, deleting, locking.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::{fails, listed, must, put, put_many};
use crate::error::ErrorKind;
use crate::storage::{BlobId, ByteRange, PutOptions, Retention, RetentionMode, Storage};

pub(super) fn overwrite(store: &dyn Storage) {
    let id = BlobId::new("kopia.maintenance");
    put(store, id.as_str(), "first version");
    let first = must(store.head(&id), "look at a blob");
    put(store, id.as_str(), "second");
    let second = must(store.head(&id), "look at a blob");
    assert_eq!(must(store.get(&id, ByteRange::All), "read a blob"), "second");
    assert_eq!(second.length, 6);
    assert!(second.timestamp >= first.timestamp, "time must not run backwards");
    if first.etag.is_some() {
        assert_ne!(first.etag, second.etag, "another version needs another identity");
    }
    assert_eq!(listed(store, ""), ["kopia.maintenance"]);
}

pub(super) fn whole_versions(store: &dyn Storage) {
    let id = BlobId::new("kopia.maintenance");
    let version = |n: u8| Bytes::from(vec![n; 10_000 + usize::from(n) * 1000]);
    put(store, id.as_str(), version(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let seen = must(store.get(&id, ByteRange::All), "read while it is written");
                assert!(seen == version(seen[0]), "a reader must see a whole version");
            }
        });
        for n in 1..30 {
            put(store, id.as_str(), version(n));
            let seen = must(store.get(&id, ByteRange::All), "read after writing");
            assert!(seen == version(n), "a reader must see the last write");
        }
        done.store(true, Ordering::Relaxed);
    });
}

pub(super) fn delete_batch(store: &dyn Storage) {
    let names: Vec<_> = (0..1203_u32).map(|i| format!("p{i:032x}")).collect();
    put_many(store, &names[..1200]);
    put(store, "q00000000000000000000000000000000", "stays");
    let ids: Vec<_> = names.iter().map(|name| BlobId::new(name.as_str())).collect();
    let report = store.delete(&ids, None);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    let mut deleted: Vec<_> = report.deleted.iter().map(ToString::to_string).collect();
    deleted.sort();
    assert_eq!(deleted, names, "absent blobs count as deleted");
    assert_eq!(listed(store, ""), ["q00000000000000000000000000000000"]);
    assert_eq!(fails(store.head(&ids[0]), "look at a deleted blob"), ErrorKind::NotFound);
    let nothing = store.delete(&[], None);
    assert!(nothing.deleted.is_empty() && nothing.failed.is_empty());
}

pub(super) fn deadlines(store: &dyn Storage) {
    let id = BlobId::new("n0123456789abcdef0123456789abcdef");
    put(store, id.as_str(), "old");
    // No machine has been up for no time at all.
    let late = PutOptions { not_after: Some(Duration::ZERO), ..PutOptions::default() };
    assert_eq!(fails(store.put(&id, "new".into(), &late), "write too late"), ErrorKind::DeadlinePassed);
    let report = store.delete(std::slice::from_ref(&id), Some(Duration::ZERO));
    assert!(report.deleted.is_empty());
    assert_eq!(report.failed[0].1.kind(), ErrorKind::DeadlinePassed);
    assert_eq!(must(store.get(&id, ByteRange::All), "read a blob"), "old");
    let in_time = PutOptions { not_after: Some(Duration::from_secs(u32::MAX.into())), ..PutOptions::default() };
    must(store.put(&id, "new".into(), &in_time), "write in time");
    assert_eq!(must(store.get(&id, ByteRange::All), "read a blob"), "new");
    assert!(store.delete(std::slice::from_ref(&id), in_time.not_after).failed.is_empty());
}

pub(super) fn retention(store: &dyn Storage) {
    let id = BlobId::new("p0123456789abcdef0123456789abcdef");
    let until = must(store.now(), "ask for the time") + Duration::from_secs(60);
    let lock = Retention { mode: RetentionMode::Governance, until };
    let options = PutOptions { retention: Some(lock), ..PutOptions::default() };
    if !store.capabilities().retention {
        assert_eq!(fails(store.put(&id, "x".into(), &options), "lock without locks"), ErrorKind::Unsupported);
        put(store, id.as_str(), "x");
        assert_eq!(fails(store.extend_retention(&id, lock), "extend without locks"), ErrorKind::Unsupported);
    }
}
