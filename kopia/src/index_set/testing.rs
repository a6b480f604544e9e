//! Golden repositories in memory, on a clock that stands still, and a store that lets others act in between.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Clock, SetClock, Timestamp};
use crate::content::Entry;
use crate::error::Result;
use crate::repository::Repository;
use crate::storage::memory::MemoryStorage;
use crate::storage::{BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, PutOptions, PutReceipt, Storage};

/// A listing of these names, each a second younger than the one before.
pub(crate) fn blobs(names: &[&str]) -> Vec<BlobMetadata> {
    let blob = |(at, name): (i64, &&str)| BlobMetadata {
        id: BlobId::from(*name),
        length: 100,
        timestamp: Timestamp::from_second(1_000_000 + at).unwrap(),
        etag: None,
    };
    (0..).zip(names).map(blob).collect()
}

type Hook = Box<dyn FnMut(&str, &MemoryStorage) + Send>;

/// A store in memory that calls a hook before each request, with `list PREFIX`, `get ID`, `put ID`.
pub(crate) struct Hooked {
    pub(crate) memory: MemoryStorage,
    hook: Mutex<Option<Hook>>,
    /// Says that it is a local disk.
    pub(crate) is_local: AtomicBool,
    pub(crate) requests: Mutex<Vec<String>>,
}

impl Hooked {
    pub(crate) fn on_request(&self, hook: impl FnMut(&str, &MemoryStorage) + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    pub(crate) fn ids(&self, prefix: &str) -> Vec<String> {
        let ids = self.memory.contents().into_keys().map(|id| id.to_string());
        ids.filter(|id| id.starts_with(prefix)).collect()
    }

    /// Bytes and times of all blobs with this prefix.
    pub(crate) fn state(&self, prefix: &str) -> BTreeMap<BlobId, Bytes> {
        self.memory.contents().into_iter().filter(|(id, _)| id.as_str().starts_with(prefix)).collect()
    }

    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    fn call(&self, request: String) {
        if let Some(hook) = self.hook.lock().unwrap().as_mut() {
            hook(&request, &self.memory);
        }
        self.requests.lock().unwrap().push(request);
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl Storage for Hooked {
    fn address(&self) -> String {
        self.memory.address()
    }

    fn capabilities(&self) -> Capabilities {
        let local_disk = self.is_local.load(Ordering::Relaxed);
        Capabilities { local_disk, ..self.memory.capabilities() }
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        self.call(format!("get {id}"));
        self.memory.get(id, range)
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.memory.head(id)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        self.call(format!("list {prefix}"));
        self.memory.list(prefix, visit)
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        self.call(format!("put {id}"));
        self.memory.put(id, data, options)
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        self.memory.delete(ids, not_after)
    }

    fn now(&self) -> Result<Timestamp> {
        self.memory.now()
    }
}

/// A golden repository, opened.
pub(crate) struct Golden {
    pub(crate) repository: Repository,
    pub(crate) store: Arc<Hooked>,
    pub(crate) clock: Arc<SetClock>,
    pub(crate) expect: serde_json::Value,
}

/// Opens a copy of a golden repository, a week after its last blob was written.
pub(crate) fn golden(name: &str) -> Golden {
    let path = format!("{}/../tests/golden/{name}.tar.gz", env!("CARGO_MANIFEST_DIR"));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()));
    let clock = Arc::new(SetClock::new(Timestamp::UNIX_EPOCH));
    let memory = MemoryStorage::new(Arc::clone(&clock) as Arc<dyn Clock>);
    let mut expect = serde_json::Value::Null;
    for file in archive.entries().unwrap() {
        let mut file = file.unwrap();
        let path = file.path().unwrap().to_str().unwrap().to_owned();
        let written = Timestamp::from_second(i64::try_from(file.header().mtime().unwrap()).unwrap()).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let relative = path.trim_start_matches(name).trim_start_matches('/');
        if relative == "expect.json" {
            expect = serde_json::from_slice(&bytes).unwrap();
        } else if let Some(id) = relative.strip_prefix("repo/").and_then(|id| id.strip_suffix(".f")) {
            memory.put_at(&BlobId::new(id.replace('/', "")), bytes.into(), written);
            clock.set(clock.now().max(written));
        }
    }
    clock.advance(Duration::from_secs(7 * 86_400));
    let store = Arc::new(Hooked {
        memory,
        hook: Mutex::new(None),
        is_local: AtomicBool::new(false),
        requests: Mutex::new(Vec::new()),
    });
    let storage = Arc::clone(&store) as Arc<dyn Storage>;
    let repository = Repository::open(storage, "golden", Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    store.take_requests();
    Golden { repository, store, clock, expect }
}

/// A live entry of an invented content.
pub(crate) fn entry(n: u32, timestamp: i64) -> Entry {
    Entry {
        id: format!("{n:032x}").parse().unwrap(),
        timestamp,
        deleted: false,
        pack: "p00000000000000000000000000000001-s1".into(),
        offset: n,
        packed_length: 128,
        original_length: 100,
        compression: crate::content::CompressionId(0),
        format_version: 1,
    }
}
