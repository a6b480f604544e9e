//! The legacy index manager (`repo/content/indexblob/index_blob_manager_v0.go`): `n` blobs, and `m` logs that replace them.

use crate::mutant::{self, Mutant};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fetch::{for_each, open, unreadable};
use super::{names, put_index_blob};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;
use crate::storage::{BlobId, BlobMetadata, list_all};

const READERS: usize = 8;

/// A blob as compaction logs record it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Name.
    pub id: BlobId,
    /// Length in bytes.
    pub length: u64,
    /// When it was written, by the storage's clock.
    pub timestamp: Timestamp,
}

impl From<&BlobMetadata> for Recorded {
    fn from(blob: &BlobMetadata) -> Self {
        Self { id: blob.id.clone(), length: blob.length, timestamp: blob.timestamp }
    }
}

/// Payload of an `m` blob: the outputs replace the inputs once all outputs are listed. Go writes an empty list as `null`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionLog {
    /// Replaced index blobs.
    #[serde(rename = "inputMetadata")]
    pub inputs: Option<Vec<Recorded>>,
    /// What replaces them.
    #[serde(rename = "outputMetadata")]
    pub outputs: Option<Vec<Recorded>>,
}

impl CompactionLog {
    /// Replaced index blobs.
    pub fn inputs(&self) -> impl Iterator<Item = &BlobId> {
        self.inputs.iter().flatten().map(|blob| &blob.id)
    }

    /// What replaces them.
    pub fn outputs(&self) -> impl Iterator<Item = &BlobId> {
        self.outputs.iter().flatten().map(|blob| &blob.id)
    }
}

/// Payload of an `l` blob: `m` blobs whose inputs are deleted and that may go later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleanup {
    /// Compaction logs to delete.
    #[serde(rename = "blobIDs")]
    pub logs: Option<Vec<BlobId>>,
    /// When this was written down, by the storage's clock.
    #[serde(rename = "cleanupScheduleTime")]
    pub scheduled: Timestamp,
}

/// What the listings of the legacy manager say.
#[derive(Debug, Clone, Default)]
pub struct LegacyState {
    /// All `n` blobs but the poison, sorted by name.
    pub indexes: Vec<BlobMetadata>,
    /// All `m` blobs and what they say, sorted by name.
    pub logs: Vec<(BlobMetadata, CompactionLog)>,
}

impl LegacyState {
    /// Lists `n`, then `m`, and reads the logs; one that vanished meanwhile is left out. A compaction that comes between the
    /// listings is not seen, because its outputs are not.
    ///
    /// # Errors
    /// `Damaged` if a log cannot be read; storage errors.
    pub fn load(repository: &Repository) -> Result<Self> {
        let mut indexes = list(repository, names::LEGACY_INDEX)?;
        indexes.retain(|blob| blob.id.as_str() != names::POISON);
        let logs = read_json(repository, list(repository, names::LEGACY_LOG)?)?.into_iter();
        let logs = logs.map(|(blob, log)| Ok((blob, log?))).collect::<Result<_>>()?;
        Ok(Self { indexes, logs })
    }

    /// Index blobs that no valid log replaces. A log is valid if all its outputs are listed.
    #[must_use]
    pub fn active(&self) -> Vec<BlobMetadata> {
        let listed: HashSet<&BlobId> = self.indexes.iter().map(|blob| &blob.id).collect();
        let valid = self.logs.iter().filter(|(_, log)| log.outputs().all(|output| listed.contains(output)));
        let replaced: HashSet<&BlobId> = valid.flat_map(|(_, log)| log.inputs()).collect();
        self.indexes.iter().filter(|blob| !replaced.contains(&blob.id)).cloned().collect()
    }
}

/// Reads all `l` blobs. One that cannot be read is left out: it allows deletions and protects nothing (R11).
///
/// # Errors
/// Storage errors.
pub fn load_cleanups(repository: &Repository) -> Result<Vec<(BlobMetadata, Cleanup)>> {
    let read = read_cleanups(repository, list(repository, names::LEGACY_CLEANUP)?)?.into_iter();
    Ok(read.filter_map(|(blob, cleanup)| Some((blob, cleanup.ok()?))).collect())
}

/// What these `l` blobs say, or why they cannot be read; those that vanished meanwhile are left out.
///
/// # Errors
/// Storage errors.
pub fn read_cleanups(repository: &Repository, listed: Vec<BlobMetadata>) -> Result<Vec<Read<Cleanup>>> {
    read_json(repository, listed)
}

/// A blob, and what it says, or why it cannot be read.
pub type Read<T> = (BlobMetadata, Result<T>);

fn list(repository: &Repository, prefix: &str) -> Result<Vec<BlobMetadata>> {
    let mut listed = list_all(&**repository.storage(), prefix).map_err(|e| e.at("list index blobs"))?;
    listed.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(listed)
}

/// Those that vanished meanwhile are left out.
fn read_json<T>(repository: &Repository, listed: Vec<BlobMetadata>) -> Result<Vec<Read<T>>>
where
    T: Send + for<'de> Deserialize<'de>,
{
    let read = for_each(&listed, READERS, |blob| {
        let plain = match open(repository, &blob.id) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(_) if mutant::on(Mutant::R11UnreadableLogIsAbsent) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Damaged => return Ok(Some(Err(unreadable(error, &blob.id)))),
            result => result.map_err(|error| unreadable(error, &blob.id))?,
        };
        let parsed = serde_json::Deserializer::from_slice(&plain).into_iter::<T>().next();
        let damaged = || Error::damaged("parse a log of index compactions");
        let parsed = parsed.ok_or_else(damaged).and_then(|one| one.map_err(|error| damaged().with_source(error)));
        Ok(Some(parsed.map_err(|error| unreadable(error, &blob.id))))
    })?;
    Ok(listed.into_iter().zip(read).filter_map(|(blob, value)| Some((blob, value?))).collect())
}

/// What may be deleted of the legacy index's past, in this order; each list only after the one before is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deferred {
    /// Superseded index blobs, those of older logs first: deleting an output before the inputs of its log brings those back.
    pub inputs: Vec<BlobId>,
    /// Logs to name in a new `l` blob once `inputs` are gone.
    pub retire: Vec<BlobId>,
}

/// Inputs of compaction logs that are at least `settle` older than `newest_log`, the storage time of the newest log.
///
/// Kopia also deletes the inputs of a log whose outputs are missing; here such a log is left alone as long as an input exists,
/// unless its outputs were themselves replaced by a log that holds.
#[must_use]
pub fn deferred(
    state: &LegacyState,
    cleanups: &[(BlobMetadata, Cleanup)],
    newest_log: Timestamp,
    settle: Duration,
) -> Deferred {
    let listed: HashSet<&BlobId> = state.indexes.iter().map(|blob| &blob.id).collect();
    let holding = holding_logs(state, &listed);
    let retired: HashSet<&BlobId> = cleanups.iter().flat_map(|(_, cleanup)| cleanup.logs.iter().flatten()).collect();
    let mut old: Vec<&(BlobMetadata, CompactionLog)> =
        state.logs.iter().filter(|(blob, _)| is_settled(newest_log, blob.timestamp, settle)).collect();
    old.sort_by(|(a, _), (b, _)| (a.timestamp, &a.id).cmp(&(b.timestamp, &b.id)));

    let (mut steps, mut seen) = (Deferred::default(), HashSet::new());
    for (blob, log) in old {
        let inputs: Vec<&BlobId> = log.inputs().filter(|input| listed.contains(input)).collect();
        if !inputs.is_empty() && !holding.contains(&blob.id) {
            continue;
        }
        steps.inputs.extend(inputs.into_iter().filter(|input| seen.insert(*input)).cloned());
        if !retired.contains(&blob.id) {
            steps.retire.push(blob.id.clone());
        }
    }
    steps
}

/// Logs whose outputs are listed, or were replaced by other logs that hold.
fn holding_logs<'a>(state: &'a LegacyState, listed: &HashSet<&BlobId>) -> HashSet<&'a BlobId> {
    let mut replaced: HashSet<&BlobId> = HashSet::new();
    let mut holding: HashSet<&BlobId> = HashSet::new();
    loop {
        let before = holding.len();
        for (blob, log) in &state.logs {
            if log.outputs().all(|output| listed.contains(output) || replaced.contains(output)) {
                holding.insert(&blob.id);
                replaced.extend(log.inputs());
            }
        }
        if holding.len() == before {
            return holding;
        }
    }
}

/// Logs and then schedules that may go: the schedule is at least `settle` older than the newest `l` blob.
#[must_use]
pub fn expired(cleanups: &[(BlobMetadata, Cleanup)], settle: Duration) -> (Vec<BlobId>, Vec<BlobId>) {
    let Some(newest) = cleanups.iter().map(|(blob, _)| blob.timestamp).max() else {
        return (Vec::new(), Vec::new());
    };
    let old = cleanups.iter().filter(|(_, cleanup)| is_settled(newest, cleanup.scheduled, settle));
    let mut logs: BTreeMap<&BlobId, ()> = BTreeMap::new();
    let mut schedules = Vec::new();
    for (blob, cleanup) in old {
        logs.extend(cleanup.logs.iter().flatten().map(|log| (log, ())));
        schedules.push(blob.id.clone());
    }
    // An `l` blob says what to delete; it may only ever name compaction logs.
    let is_log = |id: &&BlobId| id.as_str().starts_with(names::LEGACY_LOG);
    (logs.into_keys().filter(is_log).cloned().collect(), schedules)
}

/// Writes an `l` blob that names logs whose inputs are gone; `scheduled`: storage time of the newest log. `None` for no logs.
///
/// # Errors
/// Storage errors; `DeadlinePassed`.
pub fn write_cleanup(
    repository: &Repository,
    logs: Vec<BlobId>,
    scheduled: Timestamp,
    not_after: Option<Duration>,
) -> Result<Option<BlobId>> {
    if logs.is_empty() {
        return Ok(None);
    }
    let cleanup = Cleanup { logs: Some(logs), scheduled };
    write_json(repository, names::LEGACY_CLEANUP, &cleanup, not_after).map(Some)
}

/// Encrypts and writes an `m` or `l` blob.
pub(super) fn write_json(
    repository: &Repository,
    prefix: &str,
    value: &impl Serialize,
    not_after: Option<Duration>,
) -> Result<BlobId> {
    let internal = |error| Error::new(ErrorKind::Internal, "write a log of index compactions").with_source(error);
    let payload = serde_json::to_vec(value).map_err(|error: serde_json::Error| internal(error))?;
    let (id, data) = repository.cipher().seal_blob(repository.hasher(), prefix, "", &payload)?;
    put_index_blob(repository, &id, data, not_after)?;
    Ok(id)
}

fn is_settled(newest: Timestamp, then: Timestamp, settle: Duration) -> bool {
    newest.duration_since(then) >= jiff::SignedDuration::try_from(settle).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
#[path = "legacy_tests.rs"]
mod tests;
