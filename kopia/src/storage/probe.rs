//! What a store really does, measured on objects of our own that go away again.

use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;

use super::{BlobId, ByteRange, Condition, ETag, OWN_PREFIX, PutOptions, Storage, Versioning, list_all};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};

/// What a store really does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// `IfAbsent` and `IfMatch` were honoured, and refused where they had to be.
    pub conditional_writes: bool,
    /// A read right after a write gave what was written, after an overwrite and a delete too.
    pub read_after_write: bool,
    /// A listing right after a write had it, right after a delete had it no more.
    pub list_after_write: bool,
    /// The storage's clock minus this machine's, good to about `round_trip` and the store's rounding (a second on S3).
    pub clock_offset: SignedDuration,
    /// Time of one small request.
    pub round_trip: Duration,
    /// Whether deletes free anything.
    pub versioning: Versioning,
}

/// Writes, reads, lists and deletes one object of ours, and says what that showed. Leaves nothing behind, except hidden
/// versions where the store keeps those and lets nobody delete them.
///
/// # Errors
/// `Permission`; `DiskFull`; `StoreUnavailable`. A store that answers wrongly is no error: the report says so.
pub fn probe(storage: &dyn Storage, clock: &dyn Clock) -> Result<ProbeReport> {
    let object = ProbeObject::new(storage);
    let report = object.measure(clock).map_err(|error| error.at("probe the store"))?;
    object.remove().map_err(|error| error.at("remove the store's probe"))?;
    Ok(report)
}

/// Whether two stores are one under two names: an object written through one is seen through the other (R6).
///
/// # Errors
/// Those of writing to `a` and reading from `b`.
pub fn is_same_store(a: &dyn Storage, b: &dyn Storage) -> Result<bool> {
    let object = ProbeObject::new(a);
    let token = Bytes::from(format!("{:032x}", rand::random::<u128>()));
    object.write(&token, Condition::Always)?;
    let seen = match b.get(&object.id, ByteRange::All) {
        Ok(data) => data == token,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    object.remove()?;
    Ok(seen)
}

/// `verger.probe-<hex>`, removed when it goes out of scope.
struct ProbeObject<'a> {
    storage: &'a dyn Storage,
    id: BlobId,
}

impl<'a> ProbeObject<'a> {
    fn new(storage: &'a dyn Storage) -> Self {
        Self { storage, id: BlobId::new(format!("{OWN_PREFIX}probe-{:016x}", rand::random::<u64>())) }
    }

    fn write(&self, data: &Bytes, condition: Condition) -> Result<Option<ETag>> {
        let options = PutOptions { condition, ..PutOptions::default() };
        self.storage.put(&self.id, data.clone(), &options).map(|receipt| receipt.etag)
    }

    fn holds(&self, data: &Bytes) -> Result<bool> {
        match self.storage.get(&self.id, ByteRange::All) {
            Ok(found) => Ok(found == *data),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_listed(&self) -> Result<bool> {
        Ok(list_all(self.storage, self.id.as_str())?.iter().any(|blob| blob.id == self.id))
    }

    fn remove(&self) -> Result<()> {
        let report = self.storage.delete(std::slice::from_ref(&self.id), None);
        if let Some((_, error)) = report.failed.into_iter().next() {
            return Err(error);
        }
        // Without the right to delete versions they stay; the report on versions says that they do.
        match self.storage.purge_versions(&self.id) {
            Err(error) if error.kind() != ErrorKind::Permission => Err(error),
            _ => Ok(()),
        }
    }

    fn measure(&self, clock: &dyn Clock) -> Result<ProbeReport> {
        let versioning = self.storage.versioning()?;
        let (clock_offset, round_trip) = self.clock_offset(clock)?;
        let (first, second) = (Bytes::from_static(b"verger probe 1"), Bytes::from_static(b"verger probe two"));
        let conditional_writes = self.storage.capabilities().conditional_writes && self.conditions(&first)?;
        self.write(&first, Condition::Always)?;
        let mut read_after_write = self.holds(&first)?;
        let mut list_after_write = self.is_listed()?;
        self.write(&second, Condition::Always)?;
        read_after_write &= self.holds(&second)?;
        self.remove()?;
        read_after_write &= !self.holds(&second)?;
        list_after_write &= !self.is_listed()?;
        Ok(ProbeReport { conditional_writes, read_after_write, list_after_write, clock_offset, round_trip, versioning })
    }

    /// A store that ignores a condition answers success where it has to refuse; one that knows none answers "unsupported".
    fn conditions(&self, data: &Bytes) -> Result<bool> {
        let refused = |result: Result<Option<ETag>>| match result {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::PreconditionFailed => Ok(true),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(error),
        };
        let wrong = Condition::IfMatch(ETag("\"0123456789abcdef0123456789abcdef\"".to_owned()));
        let first = match self.write(data, Condition::IfAbsent) {
            Ok(etag) => etag,
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(false),
            Err(error) => return Err(error),
        };
        if !refused(self.write(data, Condition::IfAbsent))? || !refused(self.write(data, wrong))? {
            return Ok(false);
        }
        let Some(first) = first.or(self.storage.head(&self.id)?.etag) else { return Ok(false) };
        match self.write(&Bytes::from_static(b"verger probe 0"), Condition::IfMatch(first.clone())) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::PreconditionFailed | ErrorKind::Unsupported) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        refused(self.write(data, Condition::IfMatch(first)))
    }

    /// Compares the store's time with the middle of the request that asked for it.
    fn clock_offset(&self, clock: &dyn Clock) -> Result<(SignedDuration, Duration)> {
        let (began, here) = (clock.since_boot(), clock.now());
        let there = self.storage.now()?;
        let round_trip = clock.since_boot().saturating_sub(began);
        let middle = here
            .checked_add(round_trip / 2)
            .map_err(|error| Error::new(ErrorKind::Clock, "this machine's clock is out of range").with_source(error))?;
        Ok((there.duration_since(middle), round_trip))
    }
}

impl Drop for ProbeObject<'_> {
    fn drop(&mut self) {
        // After an error on the way. Where all went well it is gone, and a second delete would leave a delete marker.
        if self.storage.head(&self.id).is_ok() {
            let _ = self.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{SetClock, SystemClock};
    use crate::storage::fault::{Call, Fault, FaultStorage};
    use crate::storage::{Capabilities, MemoryStorage};

    fn memory() -> Arc<MemoryStorage> {
        Arc::new(MemoryStorage::default())
    }

    #[test]
    fn a_good_store_is_found_good_and_left_empty() {
        let store = memory();
        let report = probe(&*store, &SystemClock).unwrap();
        assert!(report.conditional_writes && report.read_after_write && report.list_after_write);
        assert!(report.clock_offset.abs() < SignedDuration::from_secs(1));
        assert!(store.contents().is_empty());
    }

    #[test]
    fn lesser_stores_are_found_out() {
        let least =
            Capabilities { conditional_writes: false, retention: false, delete_batch_max: 1, local_disk: false };
        let store = MemoryStorage::default().with_capabilities(least);
        assert!(!probe(&store, &SystemClock).unwrap().conditional_writes);
        let stale = FaultStorage::new(memory());
        stale.script(Call::List, "", 0, 1, Fault::StaleList(10));
        let report = probe(&stale, &SystemClock).unwrap();
        assert!(report.read_after_write && !report.list_after_write);
    }

    #[test]
    fn a_failed_probe_leaves_nothing() {
        let faults =
            [(0, Fault::TimeoutAfter), (1, Fault::Unavailable), (3, Fault::TimeoutAfter), (5, Fault::TimeoutAfter)];
        for (skip, fault) in faults {
            let inner = memory();
            let store = FaultStorage::new(inner.clone());
            store.script(Call::Put, "", skip, 1, fault);
            assert!(probe(&store, &SystemClock).is_err());
            assert!(inner.contents().is_empty(), "after write {skip}");
        }
    }

    #[test]
    fn the_offset_of_clocks_is_measured() {
        let there = Arc::new(SetClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
        let here = SetClock::new("2026-01-02T03:00:00Z".parse().unwrap());
        let report = probe(&MemoryStorage::new(there), &here).unwrap();
        assert_eq!(report.clock_offset, SignedDuration::from_secs(245));
    }

    #[test]
    fn one_store_under_two_names() {
        let (a, b) = (memory(), memory());
        assert!(is_same_store(&*a, &FaultStorage::new(a.clone())).unwrap());
        assert!(!is_same_store(&*a, &*b).unwrap());
        assert!(a.contents().is_empty() && b.contents().is_empty());
    }
}
