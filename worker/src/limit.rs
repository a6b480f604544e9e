//! Keeps the work inside a memory limit: an estimate beforehand, which says what is put aside in files, and a purse that buffers in
//! flight are paid from.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::index::Place;
use verger_kopia::index_set::Aside;
use verger_kopia::index_set::compact::Frugal;
use verger_kopia::spill::SpillFolder;

/// The least that `--memory-limit` may be: opening a repository takes scrypt's 64 MiB, which are free again afterwards.
pub const LIMIT_MIN: u64 = 96 << 20;

/// What a process takes without any repository: code, allocator, thread stacks.
pub const BASE_BYTES: u64 = 24 << 20;

/// The least that must be left for buffers in flight: one batch of a few packs.
pub const BUFFERS_BYTES_MIN: u64 = 32 << 20;

/// Bytes a row of the merged table takes besides its hash: place, lengths, time, bucket table.
const ROW_BYTES: u64 = 27;

/// The smallest index entry that Kopia writes, of either version, besides its hash: so many bytes of index hold at most so many.
const ENTRY_BYTES_MIN: u64 = 17;

/// What every content takes wherever its row is: a bit in each of a dozen sets, its part of the bucket table, one byte for the list of
/// directories, and half an entry in the lists of what changes.
const CONTENT_BYTES: u64 = 4;

/// What a listed blob takes: its name, age and place in the plan.
const BLOB_BYTES: u64 = 320;

/// Index blobs above this are not held in memory while they are merged, even where there is room for them: memory that was never
/// used before costs more than reading them twice.
const INDEX_BYTES_MAX: u64 = 32 << 20;

/// Index entries merged at a time from files: their blobs' slices, the order they are put in, and the rows that come out.
const AT_ONCE_MIN: u64 = 1 << 16;
const AT_ONCE_MAX: u64 = 1 << 17;

/// The cache that rows in files are read through.
const CACHE_MIN: u64 = 4 << 20;
const CACHE_MAX: u64 = 256 << 20;

/// Bytes of the merged table.
#[must_use]
pub fn table_bytes(contents: u64, hash_length: usize) -> u64 {
    contents.saturating_mul(ROW_BYTES + hash_length as u64)
}

/// Bytes that merging takes for each entry that is in memory.
fn merged_bytes(entries: u64, hash_length: usize) -> u64 {
    entries.saturating_mul(2 * (ROW_BYTES + hash_length as u64) + 16)
}

/// How much memory a task may use, and how much of it is in flight. Clones share one purse.
#[derive(Clone)]
pub struct MemoryLimit {
    purse: Arc<Purse>,
}

struct Purse {
    limit: u64,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    kept: u64,
    in_flight: u64,
}

/// Bytes that are given back when this is dropped.
pub struct Grant<'a> {
    purse: &'a Purse,
    bytes: u64,
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        let mut state = self.purse.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.in_flight = state.in_flight.saturating_sub(self.bytes);
        drop(state);
        self.purse.returned.notify_all();
    }
}

impl MemoryLimit {
    /// The default of `--memory-limit`: 512 MiB.
    pub const DEFAULT_BYTES: u64 = 512 << 20;

    /// A limit of `bytes` for the whole process.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let purse = Purse { limit: bytes, state: Mutex::default(), returned: Condvar::new() };
        Self { purse: Arc::new(purse) }
    }

    /// The limit in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.purse.limit
    }

    /// Says what is held for the rest of the cycle (table, summaries): so much less is left for buffers.
    pub fn keep(&self, bytes: u64) {
        self.purse.state.lock().unwrap_or_else(PoisonError::into_inner).kept = bytes;
    }

    /// What was last said to be held.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.purse.state.lock().unwrap_or_else(PoisonError::into_inner).kept
    }

    /// What is left for buffers in flight; never less than [`BUFFERS_BYTES_MIN`], which the estimate has set aside.
    #[must_use]
    pub fn buffers(&self) -> u64 {
        let kept = self.purse.state.lock().unwrap_or_else(PoisonError::into_inner).kept;
        self.room(kept)
    }

    fn room(&self, kept: u64) -> u64 {
        self.purse.limit.saturating_sub(BASE_BYTES).saturating_sub(kept).max(BUFFERS_BYTES_MIN)
    }

    /// Waits until `bytes` fit beside what is in flight. Something larger than all there is goes alone.
    #[must_use]
    pub fn grant(&self, bytes: u64) -> Grant<'_> {
        let mut state = self.purse.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let fits = state.in_flight.saturating_add(bytes) <= self.room(state.kept);
            if fits || state.in_flight == 0 {
                state.in_flight = state.in_flight.saturating_add(bytes);
                return Grant { purse: &self.purse, bytes };
            }
            state = self.purse.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What a repository needs, from its listing alone. Errs on the large side. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Most contents the index can hold.
    pub contents: u64,
    /// Merged table, in memory.
    pub table: u64,
    /// Index blobs while they are merged in memory.
    pub index: u64,
    /// Summaries of directories and seek tables, in memory.
    pub summaries: u64,
    /// What stays in memory wherever the rest is: by content, and by blob.
    pub rest: u64,
    hash_length: usize,
}

impl Estimate {
    /// From the bytes of active index blobs and of `q` packs, and the number of blobs. Summaries are four bytes a reference, at most
    /// an eighth of the `q` packs.
    #[must_use]
    pub fn new(index_bytes: u64, metadata_bytes: u64, blobs: u64, hash_length: usize) -> Self {
        let contents = index_bytes / (ENTRY_BYTES_MIN + hash_length as u64);
        Self {
            contents,
            table: table_bytes(contents, hash_length),
            index: index_bytes,
            summaries: metadata_bytes / 8,
            rest: contents.saturating_mul(CONTENT_BYTES).saturating_add(blobs.saturating_mul(BLOB_BYTES)),
            hash_length,
        }
    }

    /// The least limit that would do with everything in memory: index blobs and summaries are never held at once.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.fixed().saturating_add(self.table).saturating_add(self.index.max(self.summaries))
    }

    /// The least limit that would do at all.
    #[must_use]
    pub fn least(&self) -> u64 {
        let merging = merged_bytes(AT_ONCE_MIN, self.hash_length).max(BUFFERS_BYTES_MIN);
        (BASE_BYTES + CACHE_MIN).saturating_add(merging).saturating_add(self.rest).max(LIMIT_MIN)
    }

    fn fixed(&self) -> u64 {
        (BASE_BYTES + BUFFERS_BYTES_MIN).saturating_add(self.rest)
    }

    /// How to read the index within the limit: `None`, all of it in memory.
    ///
    /// # Errors
    /// `MemoryLimit`, with the figures, for what cannot work even so.
    pub fn fit(&self, limit: &MemoryLimit, folder: &SpillFolder, requests: usize) -> Result<Option<Aside>> {
        let limit = limit.bytes();
        if self.whole() <= limit && self.index <= INDEX_BYTES_MAX || mutant::on(Mutant::R26NoEstimate) {
            return Ok(None);
        }
        if self.least() > limit {
            return Err(self.refuse(limit));
        }
        let in_memory = self.fixed().saturating_add(self.table);
        let cache = (limit.saturating_sub(self.fixed()) / 2).clamp(CACHE_MIN, CACHE_MAX);
        let (place, kept) = if in_memory <= limit {
            (Place::Memory, self.table)
        } else {
            (Place::Files { folder: folder.clone(), cache }, cache)
        };
        // Nothing else is in flight while blobs are merged.
        let left = limit.saturating_sub(BASE_BYTES).saturating_sub(self.rest).saturating_sub(kept);
        let at_once = (left / 2 / merged_bytes(1, self.hash_length)).clamp(AT_ONCE_MIN, AT_ONCE_MAX);
        let at_once = usize::try_from(at_once).unwrap_or(usize::MAX);
        Ok(Some(Aside { folder: folder.clone(), at_once, place, requests: requests.clamp(1, 4) }))
    }

    /// How to merge these index blobs into new ones beside `kept` bytes: `None`, all of it in memory.
    ///
    /// # Errors
    /// As [`Estimate::fit`].
    pub fn fit_compaction(
        &self,
        limit: &MemoryLimit,
        kept: u64,
        folder: &SpillFolder,
        requests: usize,
    ) -> Result<Option<Frugal>> {
        let left = limit.bytes().saturating_sub(kept);
        // What is read, what is written, and that once more sealed.
        let whole = BASE_BYTES.saturating_add(self.table).saturating_add(self.index.saturating_mul(3));
        if whole <= left && self.index <= INDEX_BYTES_MAX {
            return Ok(None);
        }
        // A limit that let the view be read lets it be merged again: its table has its place in a file by now, or leaves it.
        let left = MemoryLimit::new(left.max(self.least().min(limit.bytes())));
        let aside = self.fit(&left, folder, requests)?;
        let in_memory = Aside { folder: folder.clone(), at_once: 1 << 16, place: Place::Memory, requests: 1 };
        let aside = aside.unwrap_or(in_memory);
        let row = 2 * (ENTRY_BYTES_MIN + 3 + self.hash_length as u64);
        let rows_max = usize::try_from(BUFFERS_BYTES_MIN / 2 / row).unwrap_or(usize::MAX);
        Ok(Some(Frugal { aside, rows_max }))
    }

    /// Refuses what turns out to need more than was estimated from the listing: `lists` bytes, where `counted` for each content were.
    ///
    /// # Errors
    /// `MemoryLimit`, with the figures.
    pub fn check_lists(&self, limit: &MemoryLimit, lists: u64, counted: u64, what: &str) -> Result<()> {
        let more = lists.saturating_sub(self.contents.saturating_mul(counted));
        let needed = limit.kept().saturating_add(BASE_BYTES + BUFFERS_BYTES_MIN).saturating_add(more);
        if more == 0 || needed <= limit.bytes() {
            return Ok(());
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let step = format!(
            "this cycle does not fit the memory limit of {} MiB: {what} takes {} MiB of {} MiB in all",
            mib(limit.bytes()),
            mib(lists),
            mib(needed)
        );
        let fix = format!("run it with --memory-limit {}MiB or more; nothing but its start was written", mib(needed));
        Err(Error::new(ErrorKind::MemoryLimit, step).with_fix(fix))
    }

    fn refuse(&self, limit: u64) -> Error {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let step = format!(
            "this repository does not fit the memory limit of {} MiB: even with its index in files, up to {} contents and its blobs \
             take {} MiB, beside {} MiB for the program and its buffers",
            mib(limit),
            self.contents,
            mib(self.rest),
            mib(self.least().saturating_sub(self.rest)),
        );
        let fix = format!("run it with --memory-limit {}MiB or more", mib(self.least()));
        Error::new(ErrorKind::MemoryLimit, step).with_fix(fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn in_flight_never_exceeds_the_room() {
        let limit = MemoryLimit::new(BASE_BYTES + (64 << 20));
        limit.keep(16 << 20);
        assert_eq!(limit.buffers(), 48 << 20);
        let (now, peak) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _grant = limit.grant(20 << 20);
                        let held = now.fetch_add(20, Ordering::SeqCst) + 20;
                        peak.fetch_max(held, Ordering::SeqCst);
                        now.fetch_sub(20, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(peak.load(Ordering::SeqCst) <= 40, "two of 20 MiB fit into 48 MiB, three do not");
    }

    #[test]
    fn something_larger_than_everything_goes_alone() {
        let limit = MemoryLimit::new(1 << 20);
        drop(limit.grant(1 << 40));
        drop(limit.grant(1));
    }

    #[test]
    fn r26_what_does_not_fit_is_put_aside_and_what_cannot_fit_is_refused_with_the_limit_that_would_do() {
        let folder = SpillFolder::new("/");
        let fit = |estimate: &Estimate, mib: u64| estimate.fit(&MemoryLimit::new(mib << 20), &folder, 9);
        let small = Estimate::new(10 << 20, 100 << 20, 1000, 16);
        assert!(fit(&small, 512).unwrap().is_none(), "all in memory");
        let large = Estimate::new(100 << 20, 100 << 20, 1000, 16);
        let aside = fit(&large, 512).unwrap().unwrap();
        assert!(matches!(aside.place, Place::Memory), "3 million rows fit, their blobs beside them would be a waste");
        assert!(matches!(fit(&large, 128).unwrap().unwrap().place, Place::Files { .. }));
        let huge = Estimate::new(8 << 30, 1 << 30, 1000, 16);
        let error = fit(&huge, 512).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MemoryLimit);
        let least = huge.least().div_ceil(1 << 20);
        assert!(error.fix().unwrap().contains(&format!("{least}MiB")));
        assert!(fit(&huge, least).is_ok() && fit(&huge, least - 1).is_err());
        assert!(huge.least() * 10 < huge.whole(), "{} {}", huge.least(), huge.whole());
    }

    #[test]
    fn lists_that_are_longer_than_estimated_are_refused_when_that_shows() {
        let estimate = Estimate::new(10 << 20, 0, 10, 16);
        let limit = MemoryLimit::new(LIMIT_MIN);
        limit.keep(8 << 20);
        let check = |lists: u64| estimate.check_lists(&limit, lists, 2, "the plan");
        let room = LIMIT_MIN - BASE_BYTES - BUFFERS_BYTES_MIN - (8 << 20) + 2 * estimate.contents;
        assert!(check(0).is_ok() && check(room).is_ok());
        let error = check(room + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MemoryLimit);
        assert!(error.fix().unwrap().contains("97MiB"), "{:?}", error.fix());
    }
}
