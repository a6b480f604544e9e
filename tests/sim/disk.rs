//! The disk under a raft log: what was written may be gone after a loss of power, what was synced never is. It can break at any
//! operation.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use verger_coordinator::raft::durable::{DurableLog, Extent};
use verger_coordinator::raft::types::{LogEntry, LogId, Vote};
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::mutant::{self, Mutant};

use super::world::lock;

/// What lies on it.
#[derive(Clone, Debug, Default)]
struct Kept {
    entries: BTreeMap<u64, Arc<LogEntry>>,
    extent: Extent,
    vote: Option<Vote>,
    committed: Option<LogId>,
    changes: u64,
}

impl Kept {
    fn cut(&mut self, from: u64) {
        drop(self.entries.split_off(&from));
        let last = self.entries.last_key_value().map(|(_, entry)| entry.log_id);
        self.extent.last = last.or(self.extent.purged);
    }

    fn append(&mut self, entries: Vec<Arc<LogEntry>>) -> Result<()> {
        for entry in entries {
            let index = entry.log_id.index;
            if self.extent.purged.is_some_and(|purged| index <= purged.index) {
                continue;
            }
            if self.extent.last.is_some_and(|last| last.index >= index) {
                self.cut(index);
            }
            if self.extent.last.is_some_and(|last| last.index + 1 != index) {
                return Err(Error::new(ErrorKind::Internal, format!("entry {} leaves a gap", entry.log_id)));
            }
            self.extent.last = Some(entry.log_id);
            self.entries.insert(index, entry);
        }
        Ok(())
    }
}

/// How an operation ends that the machine does not live to see the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Nothing of it was done.
    Before,
    /// The first half was done.
    Torn,
    /// All was done, and nobody heard of it.
    After,
    /// The disk refuses it: it is full, or it cannot sync.
    Refused,
}

#[derive(Debug, Default)]
struct Inner {
    now: Kept,
    /// What a loss of power leaves, where that is not all of it: before the last operation.
    before: Option<Kept>,
    /// As of the last operation that was synced.
    committed: Option<LogId>,
    opened: u64,
    breaks: Option<(u64, Break)>,
    is_dead: bool,
}

impl Inner {
    fn synced(&self) -> &Kept {
        self.before.as_ref().unwrap_or(&self.now)
    }
}

/// Every entry that was ever written anywhere, by its ID: the same ID is the same entry (log matching).
pub type Seen = Arc<Mutex<BTreeMap<LogId, Arc<LogEntry>>>>;

/// The disk of one node. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
    seen: Seen,
    finding: Arc<Mutex<Option<String>>>,
}

impl Disk {
    pub fn new(seen: Seen) -> Self {
        Self { inner: Arc::default(), seen, finding: Arc::default() }
    }

    /// The log after a start of its machine.
    pub fn open(&self) -> Log {
        let mut inner = lock(&self.inner);
        inner.opened += 1;
        (inner.is_dead, inner.breaks) = (false, None);
        Log { disk: self.clone(), opened: inner.opened }
    }

    /// Its process ends; with `power`, what was not synced is gone.
    pub fn die(&self, power: bool) {
        let mut inner = lock(&self.inner);
        inner.is_dead = true;
        if power {
            if let Some(before) = inner.before.take() {
                inner.now = before;
            }
            inner.now.committed = inner.committed;
        }
    }

    /// The operation after so many others breaks, and the process with it.
    pub fn break_after(&self, operations: u64, how: Break) {
        lock(&self.inner).breaks = Some((operations, how));
    }

    /// No operation to come breaks.
    pub fn mend(&self) {
        lock(&self.inner).breaks = None;
    }

    /// Another, empty disk is in its place.
    pub fn lose(&self) {
        let mut inner = lock(&self.inner);
        (inner.now, inner.before, inner.committed) = (Kept::default(), None, None);
    }

    /// Whether the process on it ended by a broken operation.
    pub fn is_dead(&self) -> bool {
        lock(&self.inner).is_dead
    }

    /// Whether this entry would be there after a loss of power now.
    pub fn has_synced(&self, id: LogId) -> bool {
        let inner = lock(&self.inner);
        let synced = inner.synced();
        let purged = synced.extent.purged.is_some_and(|purged| purged >= id);
        purged || synced.entries.get(&id.index).is_some_and(|entry| entry.log_id == id)
    }

    /// What must not be.
    pub fn finding(&self) -> Option<String> {
        lock(&self.finding).clone()
    }

    fn find(&self, text: String) {
        lock(&self.finding).get_or_insert(text);
    }

    /// Entries that are written are those that were written under their IDs before, if any were.
    fn note(&self, entries: &[LogEntry]) -> Vec<Arc<LogEntry>> {
        let mut seen = lock(&self.seen);
        let known = entries.iter().map(|entry| {
            let known = seen.entry(entry.log_id).or_insert_with(|| Arc::new(entry.clone())).clone();
            if *known == *entry {
                return known;
            }
            self.find(format!("two entries bear the ID {}", entry.log_id));
            Arc::new(entry.clone())
        });
        known.collect()
    }
}

/// A log on a disk, until its machine ends.
#[derive(Debug)]
pub struct Log {
    disk: Disk,
    opened: u64,
}

fn closed() -> Error {
    Error::new(ErrorKind::Interrupted, "the machine has ended")
}

impl Log {
    fn inner(&self) -> Result<MutexGuard<'_, Inner>> {
        let inner = lock(&self.disk.inner);
        if inner.opened == self.opened && !inner.is_dead { Ok(inner) } else { Err(closed()) }
    }

    /// Does an operation and syncs it, unless it breaks. `part`: how much of it, in halves.
    fn change(&self, work: impl FnOnce(&mut Kept, usize) -> Result<()>) -> Result<()> {
        let mut inner = self.inner()?;
        let fate = match &mut inner.breaks {
            Some((0, how)) => Some(*how),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        if mutant::on(Mutant::P3AckBeforeSync) {
            // The operation before has reached the disk by itself.
            inner.before = Some(inner.now.clone());
        }
        if matches!(fate, Some(Break::Before | Break::Refused)) {
            inner.is_dead = true;
            let kind = if fate == Some(Break::Refused) { ErrorKind::DiskFull } else { ErrorKind::Interrupted };
            return Err(Error::new(kind, "the disk does not take it"));
        }
        work(&mut inner.now, if fate == Some(Break::Torn) { 1 } else { 2 })?;
        inner.now.changes += 1;
        inner.committed = inner.now.committed;
        if fate.is_some() {
            inner.is_dead = true;
            return Err(closed());
        }
        Ok(())
    }
}

impl DurableLog for Log {
    fn append(&self, entries: &[LogEntry]) -> Result<()> {
        self.change(|kept, halves| {
            let whole = self.disk.note(&entries[..entries.len() * halves / 2]);
            kept.append(whole)
        })
    }

    fn truncate(&self, from: u64) -> Result<()> {
        self.change(|kept, _| {
            if kept.committed.is_some_and(|committed| from <= committed.index) {
                self.disk.find(format!("entries from {from} on are cut off, and {:?} is committed", kept.committed));
            }
            kept.cut(from);
            Ok(())
        })
    }

    fn purge(&self, up_to: LogId) -> Result<()> {
        self.change(|kept, _| {
            kept.entries = kept.entries.split_off(&(up_to.index + 1));
            kept.extent.purged = kept.extent.purged.max(Some(up_to));
            kept.extent.last = kept.extent.last.max(Some(up_to));
            Ok(())
        })
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let inner = self.inner()?;
        // Entries of a run are small: a thousandth of what a message may carry is an entry.
        let most = if bytes_max == usize::MAX { usize::MAX } else { (bytes_max >> 10).max(1) };
        Ok(inner.now.entries.range(range).map(|(_, entry)| LogEntry::clone(entry)).take(most).collect())
    }

    fn extent(&self) -> Result<Extent> {
        Ok(self.inner()?.now.extent)
    }

    fn save_vote(&self, vote: &Vote) -> Result<()> {
        self.change(|kept, _| {
            if kept.vote.is_some_and(|before| before > *vote) {
                self.disk.find(format!("the vote {vote} comes after {:?}", kept.vote));
            }
            kept.vote = Some(*vote);
            Ok(())
        })
    }

    fn vote(&self) -> Result<Option<Vote>> {
        Ok(self.inner()?.now.vote)
    }

    /// Not synced: it may be lost.
    fn save_committed(&self, committed: Option<LogId>) -> Result<()> {
        self.inner()?.now.committed = committed;
        Ok(())
    }

    fn committed(&self) -> Result<Option<LogId>> {
        Ok(self.inner()?.now.committed)
    }

    fn changes(&self) -> u64 {
        lock(&self.disk.inner).now.changes
    }

    fn blocks(&self) -> bool {
        false
    }

    fn close(&self) {
        let mut inner = lock(&self.disk.inner);
        if inner.opened == self.opened {
            inner.is_dead = true;
        }
    }
}
