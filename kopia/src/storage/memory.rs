//! A store in memory, for tests and for trying things out. It can do all that the best of the real stores can.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{
    BlobId, BlobMetadata, ByteRange, Capabilities, Condition, DeleteReport, ETag, PutOptions, PutReceipt, Retention,
    Storage, Versioning, deadline, names,
};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// A store in memory. Its timestamps come from the clock that it is given.
///
/// Object locks behave as on a versioned bucket: a locked blob can be overwritten and deleted, which hides the old version
/// rather than freeing it (R24); [`MemoryStorage::hidden`] counts those.
#[derive(Debug)]
pub struct MemoryStorage {
    blobs: Mutex<BTreeMap<Arc<str>, Blob>>,
    clock: Arc<dyn Clock>,
    capabilities: Capabilities,
    versions: AtomicU64,
    hidden: AtomicU64,
}

#[derive(Debug, Clone)]
struct Blob {
    data: Bytes,
    timestamp: Timestamp,
    version: u64,
    retention: Option<Retention>,
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl MemoryStorage {
    /// An empty store whose time is `clock`'s.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let capabilities =
            Capabilities { conditional_writes: true, retention: true, delete_batch_max: 1000, ..Capabilities::LEAST };
        let (versions, hidden) = (AtomicU64::new(1), AtomicU64::new(0));
        Self { blobs: Mutex::new(BTreeMap::new()), clock, capabilities, versions, hidden }
    }

    /// The same store with other abilities, to play a lesser one.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// A copy of everything in `storage`, timestamps included.
    ///
    /// # Errors
    /// Those of reading `storage`.
    pub fn copy_of(storage: &dyn Storage, clock: Arc<dyn Clock>) -> Result<Self> {
        let copy = Self::new(clock);
        for blob in super::list_all(storage, "")? {
            if blob.id.as_str() != names::LOCK_NAME {
                copy.put_at(&blob.id, storage.get(&blob.id, ByteRange::All)?, blob.timestamp);
            }
        }
        Ok(copy)
    }

    /// Writes a blob as if it had been written at `timestamp`.
    pub fn put_at(&self, id: &BlobId, data: Bytes, timestamp: Timestamp) {
        let version = self.versions.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(Arc::from(id.as_str()), Blob { data, timestamp, version, retention: None });
    }

    /// How many locked versions were overwritten or deleted, and so only hidden.
    #[must_use]
    pub fn hidden(&self) -> u64 {
        self.hidden.load(Ordering::Relaxed)
    }

    /// The object lock of a blob.
    #[must_use]
    pub fn retention_of(&self, id: &BlobId) -> Option<Retention> {
        self.lock().get(id.as_str()).and_then(|blob| blob.retention)
    }

    /// Every blob with its bytes, in the order of names: for comparing before and after.
    #[must_use]
    pub fn contents(&self) -> BTreeMap<BlobId, Bytes> {
        self.lock().iter().map(|(name, blob)| (BlobId::new(Arc::clone(name)), blob.data.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Blob>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what a write or a delete of `old` leaves hidden.
    fn supersede(&self, old: Option<&Blob>) {
        let now = self.clock.now();
        if old.and_then(|blob| blob.retention).is_some_and(|retention| retention.until > now) {
            self.hidden.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn etag(version: u64) -> ETag {
    ETag(format!("\"m{version:x}\""))
}

fn metadata(name: &Arc<str>, blob: &Blob) -> BlobMetadata {
    BlobMetadata {
        id: BlobId::new(Arc::clone(name)),
        length: blob.data.len() as u64,
        timestamp: blob.timestamp,
        etag: Some(etag(blob.version)),
    }
}

fn absent(id: &BlobId) -> Error {
    Error::new(ErrorKind::NotFound, format!("blob {id} is not there"))
}

impl Storage for MemoryStorage {
    fn address(&self) -> String {
        "memory://".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        names::check(id)?;
        let data = self.lock().get(id.as_str()).map(|blob| blob.data.clone()).ok_or_else(|| absent(id))?;
        let (offset, length) = range.within(id, data.len() as u64)?;
        // `within` has checked both against a length that is a usize.
        let (offset, length) = (offset as usize, length as usize);
        Ok(data.slice(offset..offset + length))
    }

    fn get_with_metadata(&self, id: &BlobId) -> Result<(Bytes, BlobMetadata)> {
        names::check(id)?;
        let blobs = self.lock();
        let (name, blob) = blobs.get_key_value(id.as_str()).ok_or_else(|| absent(id))?;
        Ok((blob.data.clone(), metadata(name, blob)))
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        names::check(id)?;
        self.lock().get_key_value(id.as_str()).map(|(name, blob)| metadata(name, blob)).ok_or_else(|| absent(id))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        // A copy, because `visit` may use this store.
        let found: Vec<_> = self
            .lock()
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(name, blob)| metadata(name, blob))
            .collect();
        found.into_iter().try_for_each(visit)
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        names::check_change(id)?;
        let step = format!("write blob {id}");
        deadline::left(&*self.clock, options.not_after, &step)?;
        if options.retention.is_some() && !self.capabilities.retention {
            return Err(Error::unsupported(format!("{step}: this store has no object locks")));
        }
        if options.condition != Condition::Always && !self.capabilities.conditional_writes {
            return Err(Error::unsupported(format!("{step}: this store has no conditional writes")));
        }
        let mut blobs = self.lock();
        let old = blobs.get(id.as_str());
        let refusal = match &options.condition {
            Condition::IfAbsent if old.is_some() => Some("it exists"),
            Condition::IfMatch(wanted) if old.is_none_or(|blob| etag(blob.version) != *wanted) => {
                Some("it has changed")
            }
            _ => None,
        };
        if let Some(why) = refusal {
            return Err(Error::new(ErrorKind::PreconditionFailed, format!("{step}: {why}")));
        }
        self.supersede(old);
        let version = self.versions.fetch_add(1, Ordering::Relaxed);
        let timestamp = self.clock.now();
        blobs.insert(Arc::from(id.as_str()), Blob { data, timestamp, version, retention: options.retention });
        Ok(PutReceipt { etag: Some(etag(version)), timestamp: Some(timestamp) })
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        let mut report = DeleteReport::default();
        for id in ids {
            let allowed = names::check_change(id)
                .and_then(|()| deadline::left(&*self.clock, not_after, &format!("delete blob {id}")));
            match allowed {
                Ok(_) => {
                    let old = self.lock().remove(id.as_str());
                    self.supersede(old.as_ref());
                    report.deleted.push(id.clone());
                }
                Err(error) => report.failed.push((id.clone(), error)),
            }
        }
        report
    }

    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        if !self.capabilities.retention {
            return Err(Error::unsupported(format!("extend the object lock of {id}: this store has no object locks")));
        }
        let mut blobs = self.lock();
        let blob = blobs.get_mut(id.as_str()).ok_or_else(|| absent(id))?;
        if blob.retention.is_some_and(|old| old.until > retention.until) {
            let step = format!("extend the object lock of {id}: it is locked for longer already");
            return Err(Error::new(ErrorKind::Permission, step));
        }
        blob.retention = Some(retention);
        Ok(())
    }

    fn now(&self) -> Result<Timestamp> {
        Ok(self.clock.now())
    }

    fn versioning(&self) -> Result<Versioning> {
        Ok(Versioning { kept: Some(self.capabilities.retention), default_retention: None })
    }

    fn delete_own_if(&self, id: &BlobId, version: &ETag) -> Result<()> {
        names::check_own(id)?;
        let step = || format!("delete blob {id} only as it is");
        if !self.capabilities.conditional_writes {
            return Err(Error::unsupported(format!("{}: this store has no conditional deletes", step())));
        }
        let mut blobs = self.lock();
        let found = blobs.get(id.as_str()).ok_or_else(|| absent(id))?;
        if etag(found.version) != *version {
            return Err(Error::new(ErrorKind::PreconditionFailed, format!("{}: it has changed", step())));
        }
        let old = blobs.remove(id.as_str());
        self.supersede(old.as_ref());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SetClock;
    use crate::storage::RetentionMode;

    #[test]
    fn it_conforms() {
        crate::storage::conformance::suite(&|| Box::new(MemoryStorage::default()) as Box<dyn Storage>);
        let make = || Box::new(MemoryStorage::default().with_capabilities(Capabilities::LEAST)) as Box<dyn Storage>;
        crate::storage::conformance::suite(&make);
    }

    #[test]
    fn timestamps_and_deadlines_follow_the_clock() {
        let clock = Arc::new(SetClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
        let store = MemoryStorage::new(clock.clone());
        let id = BlobId::new("p1");
        let deadline = clock.since_boot() + Duration::from_secs(10);
        let options = PutOptions { not_after: Some(deadline), ..PutOptions::default() };
        store.put(&id, Bytes::from_static(b"a"), &options).unwrap();
        assert_eq!(store.head(&id).unwrap().timestamp, clock.now());
        clock.advance(Duration::from_secs(10));
        let late = store.put(&id, Bytes::from_static(b"b"), &options).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::DeadlinePassed);
        assert_eq!(
            store.delete(std::slice::from_ref(&id), Some(deadline)).failed[0].1.kind(),
            ErrorKind::DeadlinePassed
        );
        assert_eq!(store.get(&id, ByteRange::All).unwrap(), "a");
        assert!(store.head(&id).unwrap().timestamp < store.now().unwrap());
    }

    #[test]
    fn locks_hide_and_never_shrink() {
        let clock = Arc::new(SetClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
        let store = MemoryStorage::new(clock.clone());
        let id = BlobId::new("p1");
        let until = clock.now() + Duration::from_secs(100);
        let retention = Retention { mode: RetentionMode::Governance, until };
        let options = PutOptions { retention: Some(retention), ..PutOptions::default() };
        store.put(&id, Bytes::from_static(b"a"), &options).unwrap();
        let earlier = Retention { until: clock.now(), ..retention };
        assert_eq!(store.extend_retention(&id, earlier).unwrap_err().kind(), ErrorKind::Permission);
        store.extend_retention(&id, Retention { until: until + Duration::from_secs(5), ..retention }).unwrap();
        assert!(store.delete(std::slice::from_ref(&id), None).failed.is_empty());
        assert_eq!(store.hidden(), 1);
        assert_eq!(store.head(&id).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
