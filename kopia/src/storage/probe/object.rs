//! The object that a probe writes, and what its answers are held against.

use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;

use super::{Sight, Written};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{BlobId, BlobMetadata, ByteRange, Condition, ETag, PutOptions, Storage, list_all};

/// What the objects of probes are called.
pub(super) const PREFIX: &str = "verger.probe-";
/// Overwrites that are looked at: a store of several replicas gives old answers only now and then.
const OVERWRITES: usize = 3;
/// Waits between two looks, from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Time that is left to wait for a store that is behind.
pub(super) struct Patience<'a> {
    clock: &'a dyn Clock,
    left: Duration,
}

impl<'a> Patience<'a> {
    pub(super) fn new(clock: &'a dyn Clock, left: Duration) -> Self {
        Self { clock, left }
    }

    /// Looks until it is so. The first look waits for nothing.
    fn until(&mut self, is_so: &dyn Fn() -> Result<bool>) -> Result<Sight> {
        if is_so()? {
            return Ok(Sight::AtOnce);
        }
        let (began, (mut pause, longest)) = (self.clock.since_boot(), PAUSES);
        loop {
            let spent = self.clock.since_boot().saturating_sub(began);
            if spent >= self.left {
                self.left = Duration::ZERO;
                return Ok(Sight::NotWithin(spent));
            }
            self.clock.sleep(pause);
            pause = (pause * 2).min(longest);
            if is_so()? {
                let spent = self.clock.since_boot().saturating_sub(began);
                self.left = self.left.saturating_sub(spent);
                return Ok(Sight::After(spent));
            }
        }
    }
}

/// `verger.probe-<hex>`, removed when it goes out of scope.
pub(super) struct ProbeObject<'a> {
    storage: &'a dyn Storage,
    id: BlobId,
    /// Something may be there that has to go.
    may_be: bool,
}

impl<'a> ProbeObject<'a> {
    pub(super) fn new(storage: &'a dyn Storage) -> Self {
        Self { storage, id: BlobId::new(format!("{PREFIX}{:016x}", rand::random::<u64>())), may_be: false }
    }

    pub(super) fn id(&self) -> &BlobId {
        &self.id
    }

    pub(super) fn write(&mut self, data: &Bytes) -> Result<()> {
        self.put(data, Condition::Always).map(drop)
    }

    /// What is not allowed or not possible did not happen; of everything else it is not known.
    fn put(&mut self, data: &Bytes, condition: Condition) -> Result<Option<ETag>> {
        let options = PutOptions { condition, ..PutOptions::default() };
        let put = self.storage.put(&self.id, data.clone(), &options);
        let is_untouched = |error: &Error| {
            matches!(error.kind(), ErrorKind::Permission | ErrorKind::Unsupported | ErrorKind::PreconditionFailed)
        };
        self.may_be |= !put.as_ref().is_err_and(is_untouched);
        put.map(|receipt| receipt.etag)
    }

    /// A store that is behind may say that it is not there.
    fn present(&self) -> Result<Option<BlobMetadata>> {
        match self.storage.head(&self.id) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn is(&self, data: Option<&Bytes>) -> Result<bool> {
        match self.storage.get(&self.id, ByteRange::All) {
            Ok(found) => Ok(data == Some(&found)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(data.is_none()),
            Err(error) => Err(error),
        }
    }

    /// Bodies of one probe all have lengths of their own.
    fn is_listed(&self, data: Option<&Bytes>) -> Result<bool> {
        let listed = list_all(self.storage, self.id.as_str())?;
        let length = listed.iter().find(|blob| blob.id == self.id).map(|blob| blob.length);
        Ok(length == data.map(|data| data.len() as u64))
    }

    pub(super) fn remove(&mut self) -> Result<()> {
        let removed = remove_object(self.storage, &self.id);
        // Whoever may not delete is not helped by asking again.
        self.may_be = removed.as_ref().is_err_and(|error| error.kind() != ErrorKind::Permission);
        removed
    }

    pub(super) fn measure(&mut self, patience: &mut Patience<'_>) -> Result<Written> {
        let conditional_writes = self.storage.capabilities().conditional_writes && self.honours_conditions()?;
        let (mut reads, mut lists) = (Sight::AtOnce, Sight::AtOnce);
        for number in 0..OVERWRITES {
            let data = body(number);
            self.write(&data)?;
            reads = reads.max(patience.until(&|| self.is(Some(&data)))?);
            lists = lists.max(patience.until(&|| self.is_listed(Some(&data)))?);
        }
        let stamp_offset = match self.present()? {
            Some(found) => found.timestamp.duration_since(self.storage.now()?),
            None => {
                reads = reads.max(Sight::NotWithin(Duration::ZERO));
                SignedDuration::ZERO
            }
        };
        let conditional_deletes = self.honours_conditional_delete()?;
        if !conditional_deletes {
            self.remove()?;
        }
        reads = reads.max(patience.until(&|| self.is(None))?);
        lists = lists.max(patience.until(&|| self.is_listed(None))?);
        // Versions that are left of it; and the object, if it was not deleted after all.
        if conditional_deletes {
            self.remove()?;
        }
        Ok(Written { conditional_writes, conditional_deletes, reads, lists, stamp_offset })
    }

    /// A store that ignores a condition answers success where it has to refuse; one that knows none answers "unsupported".
    fn honours_conditions(&mut self) -> Result<bool> {
        let (data, wrong) = (body(OVERWRITES), Condition::IfMatch(other_version()));
        let first = match self.put(&data, Condition::IfAbsent) {
            Ok(etag) => etag,
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(false),
            Err(error) => return Err(error),
        };
        for condition in [Condition::IfAbsent, wrong] {
            if !is_refused(self.put(&data, condition))? {
                return Ok(false);
            }
        }
        let Some(first) = first.or(self.present()?.and_then(|found| found.etag)) else { return Ok(false) };
        match self.put(&body(OVERWRITES + 1), Condition::IfMatch(first.clone())) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::PreconditionFailed | ErrorKind::Unsupported) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        is_refused(self.put(&data, Condition::IfMatch(first)))
    }

    /// What is there is deleted by this, if it is true.
    fn honours_conditional_delete(&self) -> Result<bool> {
        if !is_refused(self.storage.delete_own_if(&self.id, &other_version()))? {
            return Ok(false);
        }
        let Some(present) = self.present()?.and_then(|found| found.etag) else { return Ok(false) };
        match self.storage.delete_own_if(&self.id, &present) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::PreconditionFailed | ErrorKind::Unsupported) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for ProbeObject<'_> {
    fn drop(&mut self) {
        // After an error on the way. Where all went well it is gone, and a second delete would leave a delete marker.
        if self.may_be && self.storage.head(&self.id).is_ok() {
            let _ = self.remove();
        }
    }
}

/// Deletes an object of a probe, with its hidden versions.
pub(super) fn remove_object(storage: &dyn Storage, id: &BlobId) -> Result<()> {
    let report = storage.delete(std::slice::from_ref(id), None);
    if let Some((_, error)) = report.failed.into_iter().next() {
        return Err(error.at(format!("remove the probe object {id}")));
    }
    // Without the right to delete versions they stay; the report on versions says that they do.
    match storage.purge_versions(id) {
        Err(error) if error.kind() != ErrorKind::Permission => Err(error),
        _ => Ok(()),
    }
}

fn body(number: usize) -> Bytes {
    Bytes::from(format!("verger probe{}", ".".repeat(number)))
}

fn other_version() -> ETag {
    ETag("\"0123456789abcdef0123456789abcdef\"".to_owned())
}

fn is_refused<T>(result: Result<T>) -> Result<bool> {
    match result {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::PreconditionFailed => Ok(true),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}
