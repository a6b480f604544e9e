//! Golden repositories in memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use verger_kopia::Repository;
use verger_kopia::clock::{Clock, SetClock, Timestamp};
use verger_kopia::storage::{BlobId, MemoryStorage, Storage};

/// A golden repository; each thread has its own.
#[derive(Clone)]
pub struct Golden {
    /// Opened.
    pub repository: Repository,
    /// Its store.
    pub store: Arc<MemoryStorage>,
    /// Its clock and the store's.
    pub clock: Arc<SetClock>,
    noon: Timestamp,
}

/// Folder of the archives, from any of the crates that include this file.
pub fn folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    [root.join("tests/golden"), root.join("../golden"), root.join("../tests/golden")]
        .into_iter()
        .find(|path| path.is_dir())
        .unwrap()
}

/// Every file in an archive.
pub fn files(name: &str) -> Vec<(String, Vec<u8>, Timestamp)> {
    let file = std::fs::File::open(folder().join(format!("{name}.tar.gz"))).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let written = Timestamp::from_second(i64::try_from(entry.header().mtime().unwrap()).unwrap()).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (path, bytes, written)
    };
    archive.entries().unwrap().map(read).collect()
}

/// Opens a copy, with all blobs (`whole`) or with those of the format alone.
pub fn open(name: &str, whole: bool) -> Golden {
    let noon: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let clock = Arc::new(SetClock::new(noon));
    let store = Arc::new(MemoryStorage::new(Arc::clone(&clock) as Arc<dyn Clock>));
    for (path, bytes, written) in files(name) {
        let Some((_, blob)) = path.split_once("/repo/") else { continue };
        let Some(blob) = blob.strip_suffix(".f").map(|blob| blob.replace('/', "")) else { continue };
        if whole || is_format(&blob) {
            store.put_at(&BlobId::new(blob), bytes.into(), written);
        }
    }
    let storage = Arc::clone(&store) as Arc<dyn Storage>;
    let repository = Repository::open(storage, "golden", Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    Golden { repository, store, clock, noon }
}

fn is_format(blob: &str) -> bool {
    blob == "kopia.repository" || blob == "kopia.blobcfg"
}

/// An empty copy of a golden repository, made once a thread and emptied for each input.
pub fn empty(name: &'static str) -> Golden {
    thread_local!(static OPENED: RefCell<HashMap<&'static str, Golden>> = RefCell::default());
    let golden = OPENED.with_borrow_mut(|opened| opened.entry(name).or_insert_with(|| open(name, false)).clone());
    let blobs: Vec<BlobId> = golden.store.contents().into_keys().filter(|id| !is_format(id.as_str())).collect();
    assert!(golden.store.delete(&blobs, None).failed.is_empty());
    golden.clock.set(golden.noon);
    golden
}
