//! Keeps the work inside a memory limit: an estimate beforehand, and a purse that buffers in flight are paid from.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::error::{Error, ErrorKind, Result};

/// What a process takes without any repository: code, allocator, thread stacks, and scrypt's 64 MiB, which are free again by then.
pub const BASE_BYTES: u64 = 48 << 20;

/// The least that must be left for buffers in flight: one batch of a few packs.
pub const BUFFERS_BYTES_MIN: u64 = 32 << 20;

/// Bytes a row of the merged table takes besides its hash: place, lengths, time, bucket table.
const ROW_BYTES: u64 = 27;

/// The smallest index entry that Kopia writes, of either version, besides its hash: so many bytes of index hold at most so many.
const ENTRY_BYTES_MIN: u64 = 17;

/// Bytes of the merged table.
#[must_use]
pub fn table_bytes(contents: u64, hash_length: usize) -> u64 {
    contents.saturating_mul(ROW_BYTES + hash_length as u64)
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
    /// Merged table.
    pub table: u64,
    /// Index blobs while they are merged.
    pub index: u64,
    /// Summaries of directories and seek tables.
    pub summaries: u64,
}

impl Estimate {
    /// From the bytes of active index blobs and of `q` packs. Summaries are four bytes a reference, at most an eighth of the `q` packs.
    #[must_use]
    pub fn new(index_bytes: u64, metadata_bytes: u64, hash_length: usize) -> Self {
        let contents = index_bytes / (ENTRY_BYTES_MIN + hash_length as u64);
        Self { contents, table: table_bytes(contents, hash_length), index: index_bytes, summaries: metadata_bytes / 8 }
    }

    /// The least limit that would do: index blobs and summaries are never held at once.
    #[must_use]
    pub fn least(&self) -> u64 {
        let peak = self.table.saturating_add(self.index.max(self.summaries));
        peak.saturating_add(BASE_BYTES).saturating_add(BUFFERS_BYTES_MIN)
    }

    /// Refuses what cannot fit, with the figures.
    ///
    /// # Errors
    /// `MemoryLimit`.
    pub fn fit(&self, limit: &MemoryLimit) -> Result<()> {
        if self.least() <= limit.bytes() || mutant::on(Mutant::R26NoEstimate) {
            return Ok(());
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let step = format!(
            "this repository does not fit the memory limit of {} MiB: up to {} contents take {} MiB, their index blobs {} MiB \
             while they are merged, what directories refer to up to {} MiB",
            mib(limit.bytes()),
            self.contents,
            mib(self.table),
            mib(self.index),
            mib(self.summaries),
        );
        let fix = format!("run it with --memory-limit {}MiB or more", mib(self.least()));
        Err(Error::new(ErrorKind::MemoryLimit, step).with_fix(fix))
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
    fn r26_a_repository_that_cannot_fit_is_refused_with_the_limit_that_would_do() {
        let estimate = Estimate::new(1 << 30, 100 << 20, 16);
        let error = estimate.fit(&MemoryLimit::new(512 << 20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MemoryLimit);
        let least = estimate.least().div_ceil(1 << 20);
        assert!(error.fix().unwrap().contains(&format!("{least}MiB")));
        assert!(estimate.fit(&MemoryLimit::new(least << 20)).is_ok());
    }
}
