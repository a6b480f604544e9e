//! A log in memory: for tests and simulations. What survives a restart is what its owner reopens.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use verger_kopia::error::{Error, ErrorKind, Result};

use super::{DurableLog, Extent};
use crate::raft::types::{LogEntry, LogId, Vote};

#[derive(Debug, Default)]
struct Kept {
    entries: BTreeMap<u64, LogEntry>,
    extent: Extent,
    vote: Option<Vote>,
    committed: Option<LogId>,
    opened: u64,
    changes: u64,
}

impl Kept {
    fn cut(&mut self, from: u64) {
        drop(self.entries.split_off(&from));
        let last = self.entries.last_key_value().map(|(_, entry)| entry.log_id);
        self.extent.last = last.or(self.extent.purged);
    }
}

/// A log in memory.
#[derive(Debug, Default)]
pub struct MemoryLog {
    kept: Arc<Mutex<Kept>>,
    opened: u64,
}

impl MemoryLog {
    /// The same log after a restart: whoever still holds the handle of before is refused.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let opened = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.opened = kept.opened.saturating_add(1);
            kept.opened
        };
        Self { kept: self.kept.clone(), opened }
    }

    /// For a change.
    fn change(&self) -> Result<MutexGuard<'_, Kept>> {
        let mut kept = self.kept()?;
        kept.changes = kept.changes.saturating_add(1);
        Ok(kept)
    }

    fn kept(&self) -> Result<MutexGuard<'_, Kept>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.opened == self.opened {
            Ok(kept)
        } else {
            Err(Error::new(ErrorKind::Interrupted, "this log was closed"))
        }
    }
}

impl DurableLog for MemoryLog {
    fn append(&self, entries: &[LogEntry]) -> Result<()> {
        let mut kept = self.change()?;
        let entries = super::chain::unpurged(entries, kept.extent.purged);
        if let Some(first) = entries.first() {
            kept.cut(first.log_id.index);
        }
        for entry in entries {
            super::chain::check_follows(kept.extent.last, entry.log_id)?;
            kept.extent.last = Some(entry.log_id);
            kept.entries.insert(entry.log_id.index, entry.clone());
        }
        Ok(())
    }

    fn truncate(&self, from: u64) -> Result<()> {
        self.change()?.cut(from);
        Ok(())
    }

    fn purge(&self, up_to: LogId) -> Result<()> {
        let mut kept = self.change()?;
        kept.entries = kept.entries.split_off(&up_to.index.saturating_add(1));
        kept.extent.purged = kept.extent.purged.max(Some(up_to));
        kept.extent.last = kept.extent.last.max(Some(up_to));
        Ok(())
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let entries: Vec<LogEntry> = self.kept()?.entries.range(range).map(|(_, entry)| entry.clone()).collect();
        let mut bytes = 0usize;
        let fits = |entry: &LogEntry| {
            let before = bytes;
            bytes = bytes.saturating_add(super::chain::encoded_bytes(entry, bytes_max));
            before == 0 || bytes <= bytes_max
        };
        Ok(entries.into_iter().take_while(fits).collect())
    }

    fn extent(&self) -> Result<Extent> {
        Ok(self.kept()?.extent)
    }

    fn save_vote(&self, vote: &Vote) -> Result<()> {
        self.change()?.vote = Some(*vote);
        Ok(())
    }

    fn vote(&self) -> Result<Option<Vote>> {
        Ok(self.kept()?.vote)
    }

    fn save_committed(&self, committed: Option<LogId>) -> Result<()> {
        self.kept()?.committed = committed;
        Ok(())
    }

    fn committed(&self) -> Result<Option<LogId>> {
        Ok(self.kept()?.committed)
    }

    fn changes(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).changes
    }

    fn blocks(&self) -> bool {
        false
    }

    fn close(&self) {
        drop(self.reopen());
    }
}
