//! A far store: adds a round trip to every request, and counts requests and bytes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::{
    BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, ETag, PutOptions, PutReceipt, Retention, Storage,
    Versioning,
};
use crate::clock::{Clock, Timestamp};
use crate::error::Result;

/// Blobs in one answer of a listing, as on S3.
const LIST_PAGE: u64 = 1000;

/// Passes everything on after a round trip's time, and counts it.
#[derive(Debug)]
pub struct LatencyStorage {
    inner: Arc<dyn Storage>,
    round_trip: Duration,
    clock: Arc<dyn Clock>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    get: AtomicU64,
    head: AtomicU64,
    list: AtomicU64,
    put: AtomicU64,
    delete: AtomicU64,
    other: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// What went over the wire so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct RequestCounts {
    /// Reads of blobs.
    pub get: u64,
    /// Looks at single blobs.
    pub head: u64,
    /// Pages of listings, 1,000 blobs each.
    pub list: u64,
    /// Writes.
    pub put: u64,
    /// Delete requests, a batch counting as one.
    pub delete: u64,
    /// Times, versions, object locks.
    pub other: u64,
    /// Bytes of blobs read.
    pub bytes_in: u64,
    /// Bytes of blobs written.
    pub bytes_out: u64,
}

impl RequestCounts {
    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.get + self.head + self.list + self.put + self.delete + self.other
    }
}

impl LatencyStorage {
    /// Puts `round_trip` before every request; zero only counts. Waiting is `clock`'s.
    pub fn new(inner: Arc<dyn Storage>, round_trip: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { inner, round_trip, clock, counts: Counts::default() }
    }

    /// What went over the wire so far.
    #[must_use]
    pub fn counts(&self) -> RequestCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        RequestCounts {
            get: read(&counts.get),
            head: read(&counts.head),
            list: read(&counts.list),
            put: read(&counts.put),
            delete: read(&counts.delete),
            other: read(&counts.other),
            bytes_in: read(&counts.bytes_in),
            bytes_out: read(&counts.bytes_out),
        }
    }

    fn trip(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
        if !self.round_trip.is_zero() {
            self.clock.sleep(self.round_trip);
        }
    }
}

impl Storage for LatencyStorage {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        self.trip(&self.counts.get);
        let data = self.inner.get(id, range)?;
        self.counts.bytes_in.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(data)
    }

    fn get_with_metadata(&self, id: &BlobId) -> Result<(Bytes, BlobMetadata)> {
        self.trip(&self.counts.get);
        let (data, metadata) = self.inner.get_with_metadata(id)?;
        self.counts.bytes_in.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok((data, metadata))
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.trip(&self.counts.head);
        self.inner.head(id)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        self.trip(&self.counts.list);
        let mut seen = 0_u64;
        self.inner.list(prefix, &mut |blob| {
            if seen > 0 && seen.is_multiple_of(LIST_PAGE) {
                self.trip(&self.counts.list);
            }
            seen += 1;
            visit(blob)
        })
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        self.trip(&self.counts.put);
        self.counts.bytes_out.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.inner.put(id, data, options)
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        for _ in ids.chunks(self.capabilities().delete_batch_max.max(1)) {
            self.trip(&self.counts.delete);
        }
        self.inner.delete(ids, not_after)
    }

    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        self.trip(&self.counts.other);
        self.inner.extend_retention(id, retention)
    }

    fn now(&self) -> Result<Timestamp> {
        self.trip(&self.counts.other);
        self.inner.now()
    }

    fn versioning(&self) -> Result<Versioning> {
        self.trip(&self.counts.other);
        self.inner.versioning()
    }

    fn purge_versions(&self, id: &BlobId) -> Result<u64> {
        self.trip(&self.counts.other);
        self.inner.purge_versions(id)
    }

    fn delete_own_if(&self, id: &BlobId, version: &ETag) -> Result<()> {
        self.trip(&self.counts.delete);
        self.inner.delete_own_if(id, version)
    }

    fn local_root(&self) -> Option<&Path> {
        self.inner.local_root()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SetClock;
    use crate::storage::{MemoryStorage, conformance, list_all};

    #[test]
    fn requests_cost_time_and_are_counted() {
        let clock = Arc::new(SetClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
        let store = LatencyStorage::new(Arc::new(MemoryStorage::default()), Duration::from_millis(30), clock.clone());
        let start = clock.since_boot();
        let ids: Vec<_> = (0..2500).map(|i| BlobId::new(format!("p{i:04}"))).collect();
        for id in &ids {
            store.put(id, "12345".into(), &PutOptions::default()).unwrap();
        }
        assert_eq!(list_all(&store, "").unwrap().len(), 2500);
        store.get(&ids[0], ByteRange::Last(2)).unwrap();
        store.delete(&ids, None);
        let counts = store.counts();
        let wanted = RequestCounts { get: 1, list: 3, put: 2500, delete: 3, bytes_in: 2, bytes_out: 12_500, ..counts };
        assert_eq!(counts, wanted);
        assert_eq!(clock.since_boot() - start, Duration::from_millis(30 * 2507));
    }

    #[test]
    fn it_conforms() {
        let clock: Arc<dyn Clock> = Arc::new(crate::clock::SystemClock);
        let make = || {
            let inner = Arc::new(MemoryStorage::default());
            Box::new(LatencyStorage::new(inner, Duration::ZERO, clock.clone())) as Box<dyn Storage>
        };
        conformance::suite(&make);
    }
}
