//! openraft's log storage over a [`DurableLog`]. Calls that may block on a disk run on threads of their own.

use std::fmt::Debug;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{ErrorSubject, ErrorVerb, LogState, OptionalSend, RaftLogReader};
use tokio::sync::watch;
use verger_kopia::error::{Error, ErrorKind, Result};

use super::durable::DurableLog;
use super::failure::Failures;
use super::runtime;
use super::state_machine::Kept;
use super::types::{LogEntry, LogId, StorageError, TypeConfig, Vote};

/// Stored bytes that one message to another node carries at most, beyond its first entry.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// openraft's view of a log.
#[derive(Clone, Debug)]
pub struct LogStore {
    log: Arc<dyn DurableLog>,
    failures: Failures,
    kept: Option<watch::Receiver<Kept>>,
}

impl LogStore {
    /// Over this log.
    pub fn new(log: Arc<dyn DurableLog>) -> Self {
        Self { log, failures: Failures::default(), kept: None }
    }

    /// As [`Self::new`]; entries stay until a snapshot of them is kept.
    pub(crate) fn behind(log: Arc<dyn DurableLog>, failures: Failures, kept: watch::Receiver<Kept>) -> Self {
        Self { log, failures, kept: Some(kept) }
    }

    /// openraft purges the log while a snapshot from another node is still being installed. Without both, entries would be missing
    /// after a crash.
    async fn wait_for_snapshot(&mut self, log_id: LogId) -> Result<()> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let enough = |kept: &Kept| kept.applied >= Some(log_id);
        match kept.wait_for(|kept| kept.is_over || enough(kept)).await {
            Ok(kept) if enough(&kept) => Ok(()),
            _ => Err(Error::new(
                ErrorKind::Interrupted,
                format!("purge the raft log up to {log_id}: no snapshot was kept"),
            )),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        (subject, verb): (ErrorSubject<u64>, ErrorVerb),
        call: impl FnOnce(&dyn DurableLog) -> Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let result = if self.log.blocks() {
            let log = self.log.clone();
            runtime::blocking("use the raft log", move || call(&*log)).await
        } else {
            call(&*self.log)
        };
        result.map_err(|error| self.failures.stop(subject, verb, &error))
    }

    async fn entries(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, StorageError> {
        self.run((ErrorSubject::Logs, ErrorVerb::Read), move |log| log.read(range, bytes_max)).await
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start..end, usize::MAX).await
    }

    /// None where the log begins later: a leader that was just voted out purges what it was about to send. openraft takes what comes
    /// here for what follows the entry before `start`, and would send a log with a hole; of nothing it makes a heartbeat.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, StorageError> {
        let entries = self.entries(start..end, MESSAGE_BYTES_MAX).await?;
        let is_whole = entries.first().is_none_or(|first| first.log_id.index == start);
        Ok(if is_whole { entries } else { Vec::new() })
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let extent = self.run((ErrorSubject::Logs, ErrorVerb::Read), |log| log.extent()).await?;
        Ok(LogState { last_purged_log_id: extent.purged, last_log_id: extent.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.run((ErrorSubject::Vote, ErrorVerb::Write), move |log| log.save_vote(&vote)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.run((ErrorSubject::Vote, ErrorVerb::Read), |log| log.vote()).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.run((ErrorSubject::Store, ErrorVerb::Write), move |log| log.save_committed(committed)).await
    }

    /// Never further than the log goes: the note may have outlived entries of a log that was put back from a copy.
    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let noted = |log: &dyn DurableLog| Ok(log.committed()?.min(log.extent()?.last));
        self.run((ErrorSubject::Store, ErrorVerb::Read), noted).await
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        let kept = self.run((ErrorSubject::Logs, ErrorVerb::Write), move |log| log.append(&entries)).await;
        let told = kept.as_ref().map_err(|error| std::io::Error::other(error.to_string())).copied();
        callback.log_io_completed(told);
        kept
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.run((ErrorSubject::Log(log_id), ErrorVerb::Delete), move |log| log.truncate(log_id.index)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let covered = self.wait_for_snapshot(log_id).await;
        covered.map_err(|error| self.failures.stop(ErrorSubject::Log(log_id), ErrorVerb::Delete, &error))?;
        self.run((ErrorSubject::Log(log_id), ErrorVerb::Delete), move |log| log.purge(log_id)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::durable::memory::MemoryLog;
    use crate::raft::testing::{entry, log_id};

    #[tokio::test(start_paused = true)]
    async fn entries_stay_until_a_snapshot_of_them_is_kept() {
        let log = Arc::new(MemoryLog::default());
        log.append(&[entry(1, 1, 0), entry(1, 2, 0)]).unwrap();
        let (sender, kept) = watch::channel(Kept { applied: Some(log_id(1, 1)), ..Kept::default() });
        let mut store = LogStore::behind(log.clone(), Failures::default(), kept);
        store.purge(log_id(1, 1)).await.unwrap();
        let late = std::time::Duration::from_secs(3600);
        assert!(tokio::time::timeout(late, store.purge(log_id(1, 2))).await.is_err());
        assert_eq!(log.extent().unwrap().purged, Some(log_id(1, 1)));
        let mut waiting = store.clone();
        let waiting = tokio::spawn(async move { waiting.purge(log_id(1, 2)).await });
        sender.send_modify(|kept| kept.applied = Some(log_id(1, 2)));
        waiting.await.unwrap().unwrap();
        assert_eq!(log.extent().unwrap().purged, Some(log_id(1, 2)));
        sender.send_modify(|kept| kept.is_over = true);
        assert!(store.purge(log_id(1, 3)).await.is_err(), "a node that keeps no snapshot any more purges nothing");
    }

    #[tokio::test]
    async fn entries_to_be_sent_follow_what_comes_before_them() {
        let log = Arc::new(MemoryLog::default());
        let mut store = LogStore::new(log.clone());
        log.append(&[entry(1, 1, 0), entry(1, 2, 0), entry(1, 3, 0)]).unwrap();
        log.purge(log_id(1, 1)).unwrap();
        assert_eq!(store.limited_get_log_entries(1, 4).await.unwrap(), [], "the first is purged");
        assert_eq!(store.limited_get_log_entries(2, 4).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_is_committed_ends_with_the_log() {
        let log = Arc::new(MemoryLog::default());
        let mut store = LogStore::new(log.clone());
        log.append(&[entry(1, 1, 0), entry(1, 2, 0)]).unwrap();
        store.save_committed(Some(log_id(1, 9))).await.unwrap();
        assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 2)));
    }
}
