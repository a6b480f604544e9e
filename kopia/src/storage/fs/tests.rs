use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::storage::{StoreLock, list_all};

fn store() -> (tempfile::TempDir, FsStorage) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(SHARDS_FILE), "{\"default\":[1,3],\"maxNonShardedLength\":20}\n").unwrap();
    let store = FsStorage::open(directory.path(), Access::ReadWrite).unwrap();
    (directory, store)
}

fn put(store: &FsStorage, name: &str, data: &'static [u8]) -> PutReceipt {
    store.put(&BlobId::new(name), Bytes::from_static(data), &PutOptions::default()).unwrap()
}

fn names_of(store: &FsStorage, prefix: &str) -> Vec<String> {
    let mut names: Vec<_> = list_all(store, prefix).unwrap().iter().map(|blob| blob.id.to_string()).collect();
    names.sort();
    names
}

#[test]
fn it_conforms() {
    for (local, shards) in [(true, Some("[1,3]")), (true, None), (false, Some("[2]"))] {
        let directories = std::cell::RefCell::new(Vec::new());
        let make = || {
            // Thousands of synced files: in memory where there is such a place.
            let memory = tempfile::tempdir_in("/dev/shm");
            let directory = memory.or_else(|_| tempfile::tempdir()).unwrap();
            if let Some(shards) = shards {
                let text = format!("{{\"default\":{shards},\"maxNonShardedLength\":20}}");
                std::fs::write(directory.path().join(SHARDS_FILE), text).unwrap();
            }
            let store = FsStorage::open(directory.path(), Access::ReadWrite).unwrap().with_local_disk(local);
            directories.borrow_mut().push(directory);
            Box::new(store) as Box<dyn Storage>
        };
        crate::storage::conformance::suite(&make);
    }
}

#[test]
fn blobs_lie_where_kopia_looks() {
    let (directory, store) = store();
    let receipt = put(&store, "q0123456789abcdef0123456789abcdef", b"hello");
    let path = directory.path().join("q/012/3456789abcdef0123456789abcdef.f");
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let head = store.head(&BlobId::new("q0123456789abcdef0123456789abcdef")).unwrap();
    assert_eq!((Some(head.timestamp), head.etag), (receipt.timestamp, receipt.etag));
    put(&store, "verger.lease", b"x");
    assert!(directory.path().join("verger.lease").is_file());
}

#[test]
fn listing_sees_blobs_alone() {
    let (directory, store) = store();
    put(&store, "pffff456789abcdef0123456789abcdef", b"1");
    put(&store, "p0123456789abcdef0123456789abcdef", b"1");
    put(&store, "kopia.repository", b"1");
    put(&store, "verger.lease", b"1");
    let root = directory.path();
    for foreign in ["x.tmp.0011223344556677", "notes.txt", "verger.lease.tmp.0011223344556677", "p/012/y.f.tmp.00"] {
        std::fs::write(root.join(foreign), "x").unwrap();
    }
    std::fs::create_dir(root.join("dir.f")).unwrap();
    std::os::unix::fs::symlink(root.join("notes.txt"), root.join("link.f")).unwrap();
    let all =
        ["kopia.repository", "p0123456789abcdef0123456789abcdef", "pffff456789abcdef0123456789abcdef", "verger.lease"];
    assert_eq!(names_of(&store, ""), all);
    assert_eq!(names_of(&store, "p0"), all[1..2]);
    assert_eq!(names_of(&store, "pffff4"), all[2..3]);
    assert_eq!(names_of(&store, "verger."), all[3..]);
    drop(StoreLock::try_lock(root).unwrap());
    assert_eq!(names_of(&store, "verger."), ["verger.lease", "verger.lock"]);
    assert_eq!(store.delete(&[BlobId::new("verger.lock")], None).failed.len(), 1);
}

#[test]
fn a_misplaced_file_is_listed_once() {
    let (directory, store) = store();
    put(&store, "p0123456789abcdef0123456789abcdef", b"right");
    std::fs::write(directory.path().join("p0123456789abcdef0123456789abcdef.f"), "misplaced").unwrap();
    std::fs::write(directory.path().join("q0123456789abcdef0123456789abcdef.f"), "misplaced").unwrap();
    let found = list_all(&store, "").unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found.iter().find(|blob| blob.id.as_str().starts_with('p')).unwrap().length, 5);
}

#[test]
fn reading_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = FsStorage::open(directory.path(), Access::ReadOnly).unwrap();
    assert!(names_of(&store, "").is_empty());
    let refused = store.put(&BlobId::new("p1"), Bytes::new(), &PutOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Permission);
    assert_eq!(store.delete(&[BlobId::new("p1")], None).failed[0].1.kind(), ErrorKind::Permission);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn absent_roots_are_errors_not_empty() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    assert_eq!(FsStorage::open(&root, Access::ReadOnly).unwrap_err().kind(), ErrorKind::NotARepository);
    std::fs::create_dir(&root).unwrap();
    let store = FsStorage::open(&root, Access::ReadWrite).unwrap();
    std::fs::remove_dir(&root).unwrap();
    let id = BlobId::new("kopia.repository");
    assert_eq!(store.get(&id, ByteRange::All).unwrap_err().kind(), ErrorKind::StoreUnavailable);
    assert_eq!(store.head(&id).unwrap_err().kind(), ErrorKind::StoreUnavailable);
    assert_eq!(list_all(&store, "").unwrap_err().kind(), ErrorKind::StoreUnavailable);
    assert_eq!(store.delete(std::slice::from_ref(&id), None).failed[0].1.kind(), ErrorKind::StoreUnavailable);
    let failed = store.put(&id, Bytes::new(), &PutOptions::default()).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::StoreUnavailable);
    assert!(!root.exists());
}

#[test]
fn another_volume_in_place_of_the_root_is_an_error() {
    let (_directory, mut store) = store();
    store.device = store.device.wrapping_add(1);
    assert_eq!(list_all(&store, "").unwrap_err().kind(), ErrorKind::StoreUnavailable);
    assert_eq!(store.head(&BlobId::new("p1")).unwrap_err().kind(), ErrorKind::StoreUnavailable);
}

#[test]
fn malformed_sharding_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(SHARDS_FILE), "{").unwrap();
    assert_eq!(FsStorage::open(directory.path(), Access::ReadOnly).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn network_mounts_have_no_conditions() {
    let (directory, store) = store();
    let store = store.with_local_disk(false);
    assert!(!store.capabilities().conditional_writes);
    let options = PutOptions { condition: Condition::IfAbsent, ..PutOptions::default() };
    let refused = store.put(&BlobId::new("p1"), Bytes::new(), &options).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert_eq!(put(&store, "p1", b"").etag, None);
    let age = Timestamp::now().duration_since(store.now().unwrap());
    assert!(age.as_secs().abs() < 5, "{age:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "the time probe is gone again");
}

#[test]
fn a_late_write_leaves_nothing() {
    let (directory, store) = store();
    let late = PutOptions { not_after: Some(Duration::ZERO), ..PutOptions::default() };
    let refused = store.put(&BlobId::new("p1"), Bytes::new(), &late).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DeadlinePassed);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn odd_files_in_the_place_of_blobs_are_damage() {
    let (directory, store) = store();
    std::fs::create_dir(directory.path().join("p1.f")).unwrap();
    let read = store.get(&BlobId::new("p1"), ByteRange::All).unwrap_err();
    assert_eq!(read.kind(), ErrorKind::Damaged);
    assert_eq!(store.head(&BlobId::new("p1")).unwrap_err().kind(), ErrorKind::Damaged);
    // A pipe must not be waited for.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        directory.path().join("p2.f"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(store.get(&BlobId::new("p2"), ByteRange::All).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn errors_of_the_kernel_keep_their_meaning() {
    let kind = |errno: rustix::io::Errno| from_io(errno.into(), String::new()).kind();
    use rustix::io::Errno;
    assert_eq!(kind(Errno::NOSPC), ErrorKind::DiskFull);
    assert_eq!(kind(Errno::DQUOT), ErrorKind::DiskFull);
    assert_eq!(kind(Errno::ACCESS), ErrorKind::Permission);
    assert_eq!(kind(Errno::PERM), ErrorKind::Permission);
    assert_eq!(kind(Errno::ROFS), ErrorKind::Permission);
    assert_eq!(kind(Errno::IO), ErrorKind::StoreUnavailable);
    assert_eq!(kind(Errno::STALE), ErrorKind::StoreUnavailable);
    assert_eq!(kind(Errno::NOENT), ErrorKind::NotFound);
}
