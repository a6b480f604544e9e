//! `.shards` of a repository on a file system.

use std::cell::RefCell;

use verger_kopia::storage::{Access, BlobId, ByteRange, FsStorage, PutOptions, Storage, list_all};

use super::records::in_memory;

thread_local! {
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

/// A name, a new line, and the file `.shards`: wherever it sends a blob, the blob is found there, and nothing lands outside.
pub fn shards(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (name, shards) = (String::from_utf8_lossy(&data[..at]), data.get(at + 1..).unwrap_or_default());
    // Each input gets an empty folder inside one that stays: what escapes from it would be seen there.
    FOLDER.with_borrow_mut(|outer| {
        let outer = outer.get_or_insert_with(in_memory);
        let root = outer.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join(".shards"), shards).unwrap();
        if let Ok(store) = FsStorage::open(&root, Access::ReadWrite) {
            put_and_get(&store, &BlobId::new(&*name));
        }
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 0, "something lies outside of the store");
    });
}

fn put_and_get(store: &FsStorage, id: &BlobId) {
    if store.put(id, "body".into(), &PutOptions::default()).is_err() {
        return;
    }
    assert_eq!(store.get(id, ByteRange::All).unwrap(), "body");
    let listed = list_all(store, "").unwrap();
    assert!(listed.iter().any(|blob| blob.id == *id), "{id} is not listed: {listed:?}");
    assert!(store.delete(std::slice::from_ref(id), None).failed.is_empty());
    assert!(store.get(id, ByteRange::All).is_err());
}
