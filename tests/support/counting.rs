//! A far store that remembers every request.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use verger_kopia::Result;
use verger_kopia::clock::Timestamp;
use verger_kopia::storage::{
    BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, ETag, PutOptions, PutReceipt, Retention, Storage,
    Versioning,
};

/// Blobs in one answer of a listing, as on S3.
const PAGE: u64 = 1000;
/// Blobs in one delete request, as on S3.
const DELETES: usize = 1000;

/// What a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Get,
    Head,
    List,
    Put,
    Delete,
    Other,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    pub kind: Kind,
    /// Blob or prefix; of a delete the first blob.
    pub name: String,
    /// First byte and number of bytes of what a GET gave.
    pub span: (u64, u64),
    /// Since the store was made.
    pub at: Duration,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {}+{}", self.kind, self.name, self.span.0, self.span.1)
    }
}

/// Passes everything on after a round trip's time, and remembers it.
#[derive(Debug)]
pub struct CountingStorage {
    inner: Arc<dyn Storage>,
    round_trip: Duration,
    begun: Instant,
    requests: Mutex<Vec<Request>>,
}

impl CountingStorage {
    pub fn new(inner: Arc<dyn Storage>, round_trip: Duration) -> Self {
        Self { inner, round_trip, begun: Instant::now(), requests: Mutex::default() }
    }

    /// All requests so far, in the order of their beginnings.
    pub fn requests(&self) -> Vec<Request> {
        let mut requests = self.requests.lock().unwrap().clone();
        requests.sort_by_key(|request| request.at);
        requests
    }

    fn trip<T>(&self, kind: Kind, name: &str, call: impl FnOnce() -> T) -> T {
        self.note(kind, name, (0, 0));
        std::thread::sleep(self.round_trip);
        call()
    }

    fn note(&self, kind: Kind, name: &str, span: (u64, u64)) {
        let at = self.begun.elapsed();
        self.requests.lock().unwrap().push(Request { kind, name: name.to_owned(), span, at });
    }
}

impl Storage for CountingStorage {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<bytes::Bytes> {
        let length = self.inner.head(id).map_or(0, |meta| meta.length);
        self.note(Kind::Get, id.as_str(), range.within(id, length).unwrap_or_default());
        std::thread::sleep(self.round_trip);
        self.inner.get(id, range)
    }

    fn get_with_metadata(&self, id: &BlobId) -> Result<(bytes::Bytes, BlobMetadata)> {
        let length = self.inner.head(id).map_or(0, |meta| meta.length);
        self.note(Kind::Get, id.as_str(), (0, length));
        std::thread::sleep(self.round_trip);
        self.inner.get_with_metadata(id)
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.trip(Kind::Head, id.as_str(), || self.inner.head(id))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        self.trip(Kind::List, prefix, || ());
        let mut count = 0;
        self.inner.list(prefix, &mut |blob| {
            if count > 0 && count % PAGE == 0 {
                self.trip(Kind::List, prefix, || ());
            }
            count += 1;
            visit(blob)
        })
    }

    fn put(&self, id: &BlobId, data: bytes::Bytes, options: &PutOptions) -> Result<PutReceipt> {
        self.note(Kind::Put, id.as_str(), (0, data.len() as u64));
        std::thread::sleep(self.round_trip);
        // As S3, whose answer tells no time.
        self.inner.put(id, data, options).map(|receipt| PutReceipt { timestamp: None, ..receipt })
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        for batch in ids.chunks(DELETES) {
            self.trip(Kind::Delete, batch[0].as_str(), || ());
        }
        self.inner.delete(ids, not_after)
    }

    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        self.trip(Kind::Other, id.as_str(), || self.inner.extend_retention(id, retention))
    }

    fn now(&self) -> Result<Timestamp> {
        self.trip(Kind::Other, "now", || self.inner.now())
    }

    fn versioning(&self) -> Result<Versioning> {
        self.trip(Kind::Other, "versioning", || self.inner.versioning())
    }

    fn delete_own_if(&self, id: &BlobId, version: &ETag) -> Result<()> {
        self.trip(Kind::Delete, id.as_str(), || self.inner.delete_own_if(id, version))
    }

    fn purge_versions(&self, id: &BlobId) -> Result<u64> {
        self.trip(Kind::Other, id.as_str(), || self.inner.purge_versions(id))
    }
}
