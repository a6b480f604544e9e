//! Limits on what goes over the wire, shared by all threads that use a store.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::calls::HeldBack;
use super::{
    BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, ETag, PutOptions, PutReceipt, Retention, Storage,
    Versioning,
};
use crate::clock::{Clock, Timestamp};
use crate::error::Result;

/// So long may one call of `delete` be held back: it has a deadline, and whoever asked for it looked at the store before.
const DELETE_SECONDS: f64 = 30.0;

/// Limits by the second, as Kopia's throttling has them. `None`: no limit; so does a value that is not above zero.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Throttle {
    /// Bytes of blobs read.
    pub download_bytes_per_second: Option<f64>,
    /// Bytes of blobs written.
    pub upload_bytes_per_second: Option<f64>,
    /// Reads and looks.
    pub reads_per_second: Option<f64>,
    /// Writes, and delete requests.
    pub writes_per_second: Option<f64>,
    /// Listings.
    pub lists_per_second: Option<f64>,
}

impl Throttle {
    /// Whether anything is limited.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// Passes everything on, no faster than the limits.
#[derive(Debug)]
pub struct ThrottledStorage {
    inner: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    download: Bucket,
    upload: Bucket,
    reads: Bucket,
    writes: Bucket,
    lists: Bucket,
}

/// Tokens that come back by the second, up to a second's worth. A large demand goes into debt, which later ones wait for.
#[derive(Debug)]
struct Bucket {
    per_second: Option<f64>,
    state: Mutex<(f64, Duration)>,
}

impl Bucket {
    fn new(per_second: Option<f64>, now: Duration) -> Self {
        let per_second = per_second.filter(|rate| rate.is_finite() && *rate > 0.0);
        Self { per_second, state: Mutex::new((per_second.unwrap_or(0.0), now)) }
    }

    fn take(&self, amount: f64, clock: &dyn Clock) {
        let Some(rate) = self.per_second else { return };
        let wait = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let now = clock.since_boot();
            let earned = now.saturating_sub(state.1).as_secs_f64() * rate;
            *state = ((state.0 + earned).min(rate) - amount, now);
            if state.0 < 0.0 { -state.0 / rate } else { 0.0 }
        };
        if wait > 0.0 {
            let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
            clock.sleep(wait);
            HeldBack::Limit.count(wait);
        }
    }
}

impl ThrottledStorage {
    /// Limits `inner`; waiting is `clock`'s.
    pub fn new(inner: Arc<dyn Storage>, throttle: &Throttle, clock: Arc<dyn Clock>) -> Self {
        let now = clock.since_boot();
        Self {
            inner,
            clock,
            download: Bucket::new(throttle.download_bytes_per_second, now),
            upload: Bucket::new(throttle.upload_bytes_per_second, now),
            reads: Bucket::new(throttle.reads_per_second, now),
            writes: Bucket::new(throttle.writes_per_second, now),
            lists: Bucket::new(throttle.lists_per_second, now),
        }
    }
}

impl Storage for ThrottledStorage {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn capabilities(&self) -> Capabilities {
        let inner = self.inner.capabilities();
        let Some(rate) = self.writes.per_second else { return inner };
        let requests = (rate * DELETE_SECONDS).clamp(1.0, inner.delete_at_once.max(1) as f64) as usize;
        let delete_at_once = inner.delete_at_once.min(requests.saturating_mul(inner.delete_batch_max.max(1)));
        Capabilities { delete_at_once, ..inner }
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        self.reads.take(1.0, &*self.clock);
        let data = self.inner.get(id, range)?;
        // Paid afterwards, because a whole blob's length is not known before; the debt holds the next one back.
        self.download.take(data.len() as f64, &*self.clock);
        Ok(data)
    }

    fn get_with_metadata(&self, id: &BlobId) -> Result<(Bytes, BlobMetadata)> {
        self.reads.take(1.0, &*self.clock);
        let (data, metadata) = self.inner.get_with_metadata(id)?;
        self.download.take(data.len() as f64, &*self.clock);
        Ok((data, metadata))
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.reads.take(1.0, &*self.clock);
        self.inner.head(id)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        self.lists.take(1.0, &*self.clock);
        self.inner.list(prefix, visit)
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        self.writes.take(1.0, &*self.clock);
        // Waiting comes before the store looks at the deadline.
        self.upload.take(data.len() as f64, &*self.clock);
        self.inner.put(id, data, options)
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        let requests = ids.len().div_ceil(self.capabilities().delete_batch_max.max(1));
        self.writes.take(requests as f64, &*self.clock);
        self.inner.delete(ids, not_after)
    }

    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        self.writes.take(1.0, &*self.clock);
        self.inner.extend_retention(id, retention)
    }

    fn now(&self) -> Result<Timestamp> {
        self.inner.now()
    }

    fn versioning(&self) -> Result<Versioning> {
        self.inner.versioning()
    }

    fn purge_versions(&self, id: &BlobId) -> Result<u64> {
        self.inner.purge_versions(id)
    }

    fn delete_own_if(&self, id: &BlobId, version: &ETag) -> Result<()> {
        self.writes.take(1.0, &*self.clock);
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
    use crate::error::ErrorKind;
    use crate::storage::MemoryStorage;

    #[test]
    fn rates_hold_over_time() {
        let clock = Arc::new(SetClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
        let throttle = Throttle {
            upload_bytes_per_second: Some(1000.0),
            download_bytes_per_second: Some(500.0),
            reads_per_second: Some(0.0),
            ..Throttle::default()
        };
        let inner = Arc::new(MemoryStorage::new(clock.clone()));
        let store = ThrottledStorage::new(inner, &throttle, clock.clone());
        let start = clock.since_boot();
        for i in 0..11 {
            let id = BlobId::new(format!("p{i}"));
            store.put(&id, vec![0; 1000].into(), &PutOptions::default()).unwrap();
        }
        assert_eq!((clock.since_boot() - start).as_secs(), 10, "the first second is free");
        for i in 0..11 {
            store.get(&BlobId::new(format!("p{i}")), ByteRange::All).unwrap();
        }
        assert_eq!((clock.since_boot() - start).as_secs(), 10 + 21);
        let late = PutOptions { not_after: Some(clock.since_boot() + Duration::from_secs(1)), ..PutOptions::default() };
        clock.advance(Duration::from_millis(1));
        let id = BlobId::new("q1");
        let refused = store.put(&id, vec![0; 10_000].into(), &late).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::DeadlinePassed);
    }

    #[test]
    fn so_much_is_deleted_at_once_as_the_rate_lets_through_in_time() {
        let at_once = |writes_per_second: f64, delete_batch_max: usize| {
            let clock = Arc::new(SetClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
            let able = Capabilities { delete_batch_max, delete_at_once: 4000, ..Capabilities::LEAST };
            let inner = Arc::new(MemoryStorage::new(clock.clone()).with_capabilities(able));
            let throttle = Throttle { writes_per_second: Some(writes_per_second), ..Throttle::default() };
            let store = ThrottledStorage::new(inner, &throttle, clock.clone());
            let begun = clock.since_boot();
            let ids: Vec<_> = (0..store.capabilities().delete_at_once).map(|i| BlobId::new(format!("p{i}"))).collect();
            let in_time = begun + Duration::from_secs(31);
            assert!(ids.is_empty() || store.delete(&ids, Some(in_time)).failed.is_empty(), "{writes_per_second}");
            ids.len()
        };
        assert_eq!([at_once(2.0, 1), at_once(0.05, 1), at_once(1000.0, 1), at_once(0.0, 1)], [60, 1, 4000, 4000]);
        assert_eq!([at_once(2.0, 1000), at_once(0.1, 1000)], [4000, 3000]);
    }
}
