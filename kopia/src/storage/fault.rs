//! A store that fails on demand: by script, by seed, or at the Nth effect.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{
    BlobId, BlobMetadata, ByteRange, Capabilities, Condition, DeleteReport, ETag, PutOptions, PutReceipt, Retention,
    Storage, Versioning,
};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// Kinds of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Read of a blob.
    Get,
    /// Look at a blob.
    Head,
    /// Listing; its name is the prefix.
    List,
    /// Write.
    Put,
    /// Delete, one call for each blob of a batch.
    Delete,
    /// Extension of an object lock.
    Extend,
    /// Question for the time.
    Now,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An answer like S3's 500 or 503; nothing happened.
    Unavailable,
    /// No answer, and nothing happened.
    TimeoutBefore,
    /// No answer, though it happened.
    TimeoutAfter,
    /// The body of an answer ends after this many bytes, and nobody notices.
    Truncated(usize),
    /// No right to do it.
    Permission,
    /// A listing without the last N blobs that were written through this wrapper.
    StaleList(usize),
    /// A listing that still has the last N blobs that were deleted through this wrapper.
    Ghosts(usize),
    /// No room for what is written.
    DiskFull,
    /// A read that gives what the blob held before it was last written or deleted through this wrapper.
    StaleGet,
    /// The condition of a write or a delete is not looked at.
    IgnoredCondition,
}

/// A change that is about to happen, or has happened.
#[derive(Debug, Clone)]
pub struct Effect {
    /// `Put`, `Delete` or `Extend`.
    pub call: Call,
    /// Which blob.
    pub id: BlobId,
    /// Counted from 1, over all changes through this wrapper.
    pub number: u64,
    /// `false` right before, `true` right after it.
    pub done: bool,
}

/// Asked before and after each change. An error before stops it; an error after is the answer in place of success.
pub type Hook = Box<dyn Fn(&Effect) -> Result<()> + Send + Sync>;

/// One scripted fault.
#[derive(Debug, Clone)]
struct Rule {
    call: Call,
    prefix: String,
    skip: u64,
    times: u64,
    fault: Fault,
}

/// Random faults.
struct Dice {
    random: SmallRng,
    per_thousand: u32,
}

/// Passes everything on, unless it is to fail.
pub struct FaultStorage {
    inner: Arc<dyn Storage>,
    rules: Mutex<Vec<Rule>>,
    dice: Mutex<Option<Dice>>,
    hook: Mutex<Option<Arc<Hook>>>,
    written: Mutex<Vec<BlobId>>,
    deleted: Mutex<Vec<BlobMetadata>>,
    before: Mutex<HashMap<BlobId, Option<Bytes>>>,
    effects: AtomicU64,
    injected: AtomicU64,
    stop_after: AtomicU64,
    dead: AtomicBool,
}

impl fmt::Debug for FaultStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultStorage").field("inner", &self.inner).field("effects", &self.effects()).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultStorage {
    /// Wraps a store; nothing fails yet.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            rules: Mutex::default(),
            dice: Mutex::default(),
            hook: Mutex::default(),
            written: Mutex::default(),
            deleted: Mutex::default(),
            before: Mutex::default(),
            effects: AtomicU64::new(0),
            injected: AtomicU64::new(0),
            stop_after: AtomicU64::new(u64::MAX),
            dead: AtomicBool::new(false),
        }
    }

    /// Lets calls on names that start with `prefix` fail, after `skip` of them, `times` times. Earlier rules go first.
    pub fn script(&self, call: Call, prefix: &str, skip: u64, times: u64, fault: Fault) {
        lock(&self.rules).push(Rule { call, prefix: prefix.to_owned(), skip, times, fault });
    }

    /// Lets that many calls of a thousand fail, the same ones for the same seed and order of calls: unavailable, or a timeout
    /// before or after the effect.
    pub fn seed(&self, seed: u64, per_thousand: u32) {
        *lock(&self.dice) = Some(Dice { random: SmallRng::seed_from_u64(seed), per_thousand });
    }

    /// Asks `hook` before and after each change.
    pub fn hook(&self, hook: Hook) {
        *lock(&self.hook) = Some(Arc::new(hook));
    }

    /// Plays a process that is killed right after its `effects`th change: that one happens, its answer is lost, and every
    /// later call fails as `Interrupted`.
    pub fn stop_after(&self, effects: u64) {
        self.stop_after.store(effects, Ordering::SeqCst);
        if effects <= self.effects() {
            self.dead.store(true, Ordering::SeqCst);
        }
    }

    /// Ends all faults, hooks and stops.
    pub fn heal(&self) {
        lock(&self.rules).clear();
        *lock(&self.dice) = None;
        *lock(&self.hook) = None;
        self.stop_after.store(u64::MAX, Ordering::SeqCst);
        self.dead.store(false, Ordering::SeqCst);
    }

    /// Changes that happened so far.
    #[must_use]
    pub fn effects(&self) -> u64 {
        self.effects.load(Ordering::SeqCst)
    }

    /// Faults that happened so far.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::SeqCst)
    }

    fn fault(&self, call: Call, name: &str) -> Result<Option<Fault>> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Interrupted, "the process was stopped"));
        }
        let fault = self.scripted(call, name).or_else(|| self.random());
        if fault.is_some() {
            self.injected.fetch_add(1, Ordering::SeqCst);
        }
        Ok(fault)
    }

    fn scripted(&self, call: Call, name: &str) -> Option<Fault> {
        for rule in lock(&self.rules).iter_mut().filter(|rule| rule.call == call && name.starts_with(&rule.prefix)) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 {
                rule.times -= 1;
                return Some(rule.fault);
            }
        }
        None
    }

    fn random(&self) -> Option<Fault> {
        let mut dice = lock(&self.dice);
        let Dice { random, per_thousand } = dice.as_mut()?;
        (random.random_range(0..1000) < *per_thousand)
            .then(|| [Fault::Unavailable, Fault::TimeoutBefore, Fault::TimeoutAfter][random.random_range(0..3_usize)])
    }

    /// A call that changes nothing.
    fn read<T>(&self, call: Call, name: &str, read: impl FnOnce(Option<Fault>) -> Result<T>) -> Result<T> {
        let fault = self.fault(call, name)?;
        match fault.and_then(|fault| failure(fault, call, name)) {
            Some(error) => Err(error),
            None => read(fault),
        }
    }

    /// A call that changes something.
    fn change<T>(&self, call: Call, id: &BlobId, change: impl FnOnce(Option<Fault>) -> Result<T>) -> Result<T> {
        let fault = self.fault(call, id.as_str())?;
        self.remember(id);
        let change = || change(fault);
        let failure = fault.and_then(|fault| failure(fault, call, id.as_str()));
        match (fault, failure) {
            (Some(Fault::TimeoutAfter), Some(error)) => {
                self.count(call, id, change)?;
                Err(error)
            }
            (_, Some(error)) => Err(error),
            (_, None) => self.count(call, id, change),
        }
    }

    /// Keeps what a blob holds now, if a read is to give it later.
    fn remember(&self, id: &BlobId) {
        if lock(&self.rules).iter().any(|rule| rule.fault == Fault::StaleGet) {
            let held = self.inner.get(id, ByteRange::All).ok();
            lock(&self.before).insert(id.clone(), held);
        }
    }

    /// What is read of what a blob held before.
    fn stale(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        let before = lock(&self.before).get(id).cloned();
        match before {
            None => self.inner.get(id, range),
            Some(None) => Err(Error::new(ErrorKind::NotFound, format!("blob {id} is not there (injected)"))),
            Some(Some(data)) => {
                let (offset, length) = range.within(id, data.len() as u64)?;
                let (offset, length) = (offset as usize, length as usize);
                Ok(data.slice(offset..offset + length))
            }
        }
    }

    fn count<T>(&self, call: Call, id: &BlobId, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let hook = lock(&self.hook).clone();
        let number = self.effects() + 1;
        let mut effect = Effect { call, id: id.clone(), number, done: false };
        if let Some(hook) = &hook {
            hook(&effect)?;
        }
        let value = change()?;
        effect.number = self.effects.fetch_add(1, Ordering::SeqCst) + 1;
        effect.done = true;
        if let Some(hook) = &hook {
            hook(&effect)?;
        }
        if effect.number >= self.stop_after.load(Ordering::SeqCst) {
            self.dead.store(true, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Interrupted, "the process was stopped"));
        }
        Ok(value)
    }
}

fn failure(fault: Fault, call: Call, name: &str) -> Option<Error> {
    let step = |what: &str| format!("{call:?} {name}: {what} (injected)");
    match fault {
        Fault::Unavailable => Some(Error::new(ErrorKind::StoreUnavailable, step("internal error 500"))),
        Fault::TimeoutBefore | Fault::TimeoutAfter => Some(Error::new(ErrorKind::StoreUnavailable, step("timeout"))),
        Fault::Permission => Some(Error::new(ErrorKind::Permission, step("access denied"))),
        Fault::DiskFull => Some(Error::new(ErrorKind::DiskFull, step("no space left"))),
        Fault::Truncated(_) | Fault::StaleList(_) | Fault::Ghosts(_) | Fault::StaleGet | Fault::IgnoredCondition => {
            None
        }
    }
}

impl Storage for FaultStorage {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        self.read(Call::Get, id.as_str(), |fault| {
            if fault == Some(Fault::StaleGet) {
                return self.stale(id, range);
            }
            let mut data = self.inner.get(id, range)?;
            if let Some(Fault::Truncated(length)) = fault {
                data.truncate(length);
            }
            Ok(data)
        })
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.read(Call::Head, id.as_str(), |_| self.inner.head(id))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        self.read(Call::List, prefix, |fault| {
            let written = lock(&self.written).clone();
            let hidden = match fault {
                Some(Fault::StaleList(count)) => &written[written.len().saturating_sub(count)..],
                _ => &[],
            };
            let mut seen = Vec::new();
            self.inner.list(prefix, &mut |blob| {
                if hidden.contains(&blob.id) {
                    return Ok(());
                }
                seen.push(blob.id.clone());
                visit(blob)
            })?;
            let Some(Fault::Ghosts(count)) = fault else { return Ok(()) };
            let deleted = lock(&self.deleted).clone();
            let ghosts = deleted[deleted.len().saturating_sub(count)..].iter();
            let ghosts = ghosts.filter(|blob| blob.id.as_str().starts_with(prefix) && !seen.contains(&blob.id));
            ghosts.cloned().try_for_each(visit)
        })
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        self.change(Call::Put, id, |fault| {
            let blind = PutOptions { condition: Condition::Always, ..options.clone() };
            let options = if fault == Some(Fault::IgnoredCondition) { &blind } else { options };
            let receipt = self.inner.put(id, data, options)?;
            lock(&self.written).push(id.clone());
            Ok(receipt)
        })
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        let mut report = DeleteReport::default();
        for id in ids {
            let before = self.inner.head(id);
            let deleted = self.change(Call::Delete, id, |_| {
                let one = self.inner.delete(std::slice::from_ref(id), not_after);
                one.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
            });
            match deleted {
                Ok(()) => {
                    lock(&self.deleted).extend(before.ok());
                    report.deleted.push(id.clone());
                }
                Err(error) => report.failed.push((id.clone(), error)),
            }
        }
        report
    }

    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        self.change(Call::Extend, id, |_| self.inner.extend_retention(id, retention))
    }

    fn now(&self) -> Result<Timestamp> {
        self.read(Call::Now, "", |_| self.inner.now())
    }

    fn versioning(&self) -> Result<Versioning> {
        self.inner.versioning()
    }

    fn purge_versions(&self, id: &BlobId) -> Result<u64> {
        self.inner.purge_versions(id)
    }

    fn delete_own_if(&self, id: &BlobId, version: &ETag) -> Result<()> {
        let before = self.inner.head(id);
        self.change(Call::Delete, id, |fault| match fault {
            Some(Fault::IgnoredCondition) => {
                let report = self.inner.delete(std::slice::from_ref(id), None);
                report.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
            }
            _ => self.inner.delete_own_if(id, version),
        })?;
        lock(&self.deleted).extend(before.ok());
        Ok(())
    }

    fn local_root(&self) -> Option<&Path> {
        self.inner.local_root()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, conformance, list_all};

    fn store() -> FaultStorage {
        FaultStorage::new(Arc::new(MemoryStorage::default()))
    }

    fn put(store: &FaultStorage, name: &str) -> Result<PutReceipt> {
        store.put(&BlobId::new(name), "12345".into(), &PutOptions::default())
    }

    #[test]
    fn it_conforms_without_faults() {
        conformance::suite(&|| Box::new(store()) as Box<dyn Storage>);
    }

    #[test]
    fn scripts_hit_what_they_name() {
        let store = store();
        store.script(Call::Put, "p", 1, 1, Fault::TimeoutBefore);
        store.script(Call::Put, "q", 0, 1, Fault::TimeoutAfter);
        store.script(Call::Get, "", 0, 1, Fault::Truncated(2));
        store.script(Call::List, "", 0, 1, Fault::StaleList(1));
        put(&store, "p1").unwrap();
        assert!(put(&store, "p2").unwrap_err().is_retryable());
        assert!(put(&store, "q1").unwrap_err().is_retryable());
        assert_eq!(list_all(&store, "").unwrap().len(), 1);
        assert_eq!(list_all(&store, "").unwrap().len(), 2, "p2 did not happen, q1 did");
        assert_eq!(store.get(&BlobId::new("p1"), ByteRange::All).unwrap(), "12");
        assert_eq!(store.get(&BlobId::new("p1"), ByteRange::All).unwrap(), "12345");
        assert_eq!((store.effects(), store.injected()), (2, 4));
    }

    #[test]
    fn a_stale_listing_has_what_is_gone_and_a_full_disk_takes_nothing() {
        let store = store();
        store.script(Call::Put, "q", 0, 1, Fault::DiskFull);
        store.script(Call::List, "p", 0, 1, Fault::Ghosts(1));
        put(&store, "p1").unwrap();
        assert_eq!(put(&store, "q1").unwrap_err().kind(), ErrorKind::DiskFull);
        assert!(store.delete(&["p1".into()], None).failed.is_empty());
        assert_eq!(list_all(&store, "p").unwrap()[0].id.as_str(), "p1");
        assert!(list_all(&store, "p").unwrap().is_empty());
    }

    #[test]
    fn a_stop_falls_between_two_deletes_of_one_batch() {
        let store = store();
        let ids: Vec<_> = (0..4).map(|i| BlobId::new(format!("p{i}"))).collect();
        ids.iter().for_each(|id| drop(put(&store, id.as_str()).unwrap()));
        store.stop_after(6);
        let report = store.delete(&ids, None);
        assert_eq!((report.deleted.len(), report.failed.len()), (1, 3));
        assert_eq!(list_all(&store, "").unwrap_err().kind(), ErrorKind::Interrupted);
        store.heal();
        assert_eq!(list_all(&store, "").unwrap().len(), 2, "the sixth effect happened, its answer was lost");
    }

    #[test]
    fn hooks_see_both_sides_and_can_refuse() {
        let store = store();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        store.hook(Box::new(move |effect| {
            lock(&log).push((effect.number, effect.done));
            if effect.id.as_str() == "q" { Err(Error::new(ErrorKind::Internal, "no")) } else { Ok(()) }
        }));
        put(&store, "p").unwrap();
        put(&store, "q").unwrap_err();
        assert_eq!(*lock(&seen), [(1, false), (1, true), (2, false)]);
        assert_eq!(list_all(&store, "").unwrap().len(), 1);
    }

    #[test]
    fn seeds_repeat() {
        let run = |seed| {
            let store = store();
            store.seed(seed, 300);
            (0..100).map(|i| put(&store, &format!("p{i}")).is_ok()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!((10..60).contains(&run(1).iter().filter(|ok| !**ok).count()));
    }
}
