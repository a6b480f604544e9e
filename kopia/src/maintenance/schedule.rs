//! `kopia.maintenance`: next times and run history, encrypted (`repo/maintenance/maintenance_schedule.go`).

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::maintenance::go_json::optional_time;
use crate::maintenance::history::{RunRecord, Task, null_is_empty};
use crate::mutant::{self, Mutant};
use crate::repository::Repository;
use crate::storage::{BlobId, Condition, ETag, PutOptions, PutReceipt};
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// Name of the blob.
pub const BLOB: &str = "kopia.maintenance";

/// What its key is derived for.
pub const KEY_PURPOSE: &str = "maintenance schedule";

/// Run records kept for each task.
pub const RECORDS_MAX: usize = 50;

/// R15: the newest GC that ended this long ago is kept beyond [`RECORDS_MAX`], or hourly cycles would never find a
/// pair.
const PAIRING_AGE: Duration = Duration::from_secs(5 * 3600);

/// What helps against a damaged blob. Without its history nobody knows that a rewrite is young, hence the day.
const FIX: &str = "restore it from a copy; or, when no maintenance has run for a day, delete it (`kopia blob delete \
                   kopia.maintenance`): a new history begins";

const NONCE_BYTES: usize = 12;
const AAD: &[u8] = b"maintenance";

/// The plaintext. Fields and tasks that this program does not know survive a rewrite.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Schedule {
    /// When a full cycle is due; `None`: never set, so due.
    #[serde(rename = "nextFullMaintenance", with = "optional_time", default)]
    pub next_full: Option<Timestamp>,
    /// When a quick cycle is due; `None`: never set, so due.
    #[serde(rename = "nextQuickMaintenance", with = "optional_time", default)]
    pub next_quick: Option<Timestamp>,
    /// Records by Kopia's task name, newest first.
    #[serde(default, deserialize_with = "runs", serialize_with = "runs_or_null")]
    pub runs: BTreeMap<String, Vec<RunRecord>>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn runs<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Vec<RunRecord>>, D::Error> {
    let runs: BTreeMap<String, Option<Vec<RunRecord>>> = null_is_empty(deserializer)?;
    Ok(runs.into_iter().map(|(task, records)| (task, records.unwrap_or_default())).collect())
}

/// Kopia writes a history without tasks as `null`.
fn runs_or_null<S: serde::Serializer>(
    runs: &BTreeMap<String, Vec<RunRecord>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if runs.is_empty() { serializer.serialize_none() } else { serializer.collect_map(runs) }
}

impl Schedule {
    /// Decrypts and parses the blob.
    ///
    /// # Errors
    /// `Damaged`: too short, the tag does not hold, or it is not JSON of the known shape.
    pub fn open(key: &[u8; 32], blob: &[u8]) -> Result<Self> {
        let (nonce, sealed) = blob
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or_else(|| Error::damaged(format!("decrypt {BLOB}: {} bytes are too few", blob.len())))?;
        let plain = Aes256Gcm::new(key.into())
            .decrypt(nonce.into(), Payload { msg: sealed, aad: AAD })
            .map_err(|_| Error::damaged(format!("decrypt {BLOB}: its tag does not hold")))?;
        serde_json::from_slice(&plain).map_err(|e| Error::damaged(format!("parse {BLOB}")).with_source(e))
    }

    /// Serialises and encrypts. `nonce` has to be random: it also tells one write from another on stores without ETags.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn seal(&self, key: &[u8; 32], nonce: [u8; NONCE_BYTES]) -> Result<Vec<u8>> {
        let internal = || Error::new(ErrorKind::Internal, format!("encrypt {BLOB}"));
        let plain = serde_json::to_vec(self).map_err(|e| internal().with_source(e))?;
        let sealed = Aes256Gcm::new(key.into())
            .encrypt((&nonce).into(), Payload { msg: &plain, aad: AAD })
            .map_err(|_| internal())?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Records of a task, newest first.
    #[must_use]
    pub fn history(&self, task: Task) -> &[RunRecord] {
        self.runs.get(task.as_str()).map_or(&[], Vec::as_slice)
    }

    /// Latest end of a successful run of any of these tasks.
    #[must_use]
    pub fn latest_success(&self, tasks: &[Task]) -> Option<Timestamp> {
        tasks.iter().flat_map(|task| self.history(*task)).filter(|run| run.success).map(|run| run.end).max()
    }

    /// Puts a record first, keeping [`RECORDS_MAX`] of the task (and R15's snapshot GC among them).
    pub fn report(&mut self, task: Task, record: RunRecord) {
        let limit = record.start.checked_sub(PAIRING_AGE).unwrap_or(Timestamp::MIN);
        let records = self.runs.entry(task.as_str().to_owned()).or_default();
        records.insert(0, record);
        while records.len() > RECORDS_MAX {
            let surplus = if task == Task::SnapshotGc { surplus_gc(records, limit) } else { records.len() - 1 };
            records.remove(surplus);
        }
    }

    /// Replaces the record of `task` with the same start, so that a run stays one of the 50 (R20); else adds it.
    pub fn revise(&mut self, task: Task, record: RunRecord) {
        let records = self.runs.get_mut(task.as_str());
        match records.and_then(|records| records.iter_mut().find(|run| run.start == record.start)) {
            Some(run) => *run = record,
            None => self.report(task, record),
        }
    }
}

/// Which GC record to let go. The oldest, unless it is the only success that ended before `limit`, or none has yet:
/// when cycles follow each other quickly, fifty records span less than the five hours that a pair of GCs must. Then the
/// one whose neighbours are closest together, so that the rest go on to cover the time.
fn surplus_gc(records: &[RunRecord], limit: Timestamp) -> usize {
    let last = records.len() - 1;
    if records[..last].iter().any(|run| run.success && run.end < limit) || !records[last].success {
        return last;
    }
    let gap = |at: &usize| records[at - 1].start.duration_since(records[at + 1].start);
    (1..last).min_by_key(|at| (records[*at].success, gap(at))).unwrap_or(last)
}

/// The schedule as it was read, and which version of the blob that was.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// What it says; empty if there is no blob.
    pub schedule: Schedule,
    /// Whether the blob exists.
    pub exists: bool,
    /// Identity of the version, where the store has one.
    pub etag: Option<ETag>,
    /// Storage timestamp of that version.
    pub timestamp: Option<Timestamp>,
    /// BLAKE3 of its bytes: the nonce is random, so it stands for the version where there are no ETags (R22).
    pub digest: Option<[u8; 32]>,
}

impl Loaded {
    /// The condition under which this version may be replaced.
    #[must_use]
    pub fn condition(&self, conditional_writes: bool) -> Condition {
        match (&self.etag, self.exists, conditional_writes) {
            (_, _, false) | (None, true, true) => Condition::Always,
            (Some(etag), true, true) => Condition::IfMatch(etag.clone()),
            (_, false, true) => Condition::IfAbsent,
        }
    }
}

/// Reads the blob; a missing one is an empty schedule, in which everything is due.
///
/// # Errors
/// `Damaged`, `StoreUnavailable` (also if the blob kept changing), `Permission`.
pub fn load(repository: &Repository) -> Result<Loaded> {
    let (bytes, metadata) = match repository.storage().get_with_metadata(&BlobId::from(BLOB)) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Loaded::default()),
        Err(e) => return Err(e.at(format!("read {BLOB}"))),
    };
    Ok(Loaded {
        schedule: Schedule::open(&repository.derive_key(KEY_PURPOSE), &bytes).map_err(|e| e.with_fix(FIX))?,
        exists: true,
        etag: metadata.etag,
        timestamp: Some(metadata.timestamp),
        digest: Some(*blake3::hash(&bytes).as_bytes()),
    })
}

/// Writes the schedule with these options.
///
/// # Errors
/// `PreconditionFailed` if the condition did not hold; else as [`Storage::put`](crate::storage::Storage::put).
pub fn save(repository: &Repository, schedule: &Schedule, options: &PutOptions) -> Result<PutReceipt> {
    let blob = schedule.seal(&repository.derive_key(KEY_PURPOSE), rand::random())?;
    repository.storage().put(&BlobId::from(BLOB), blob.into(), options).map_err(|e| e.at(format!("write {BLOB}")))
}

/// Replaces the version in `loaded` and no other: with If-Match where the store has it, else after reading it again.
///
/// # Errors
/// `ForeignMaintenance` if somebody else wrote it; else as [`save`].
pub fn replace(
    repository: &Repository,
    loaded: &Loaded,
    schedule: &Schedule,
    not_after: Option<Duration>,
) -> Result<PutReceipt> {
    let foreign =
        || Error::new(ErrorKind::ForeignMaintenance, format!("write {BLOB}: another maintainer wrote it meanwhile"));
    let is_blind = mutant::on(Mutant::I14RecordsOverwritten);
    let conditional = repository.storage().capabilities().conditional_writes && !is_blind;
    let condition = loaded.condition(conditional);
    if condition == Condition::Always && !is_blind && load(repository)?.digest != loaded.digest {
        return Err(foreign());
    }
    save(repository, schedule, &PutOptions { condition, not_after, ..PutOptions::default() })
        .map_err(|e| if e.kind() == ErrorKind::PreconditionFailed { foreign().with_source(e) } else { e })
}

#[cfg(test)]
mod tests;
