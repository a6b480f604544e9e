//! Publishing new entries: an index set in the write epoch, or legacy index blobs.

use crate::mutant::{self, Mutant};
use std::time::Duration;

use bytes::Bytes;

use super::epoch::EpochState;
use super::{names, put_index_blob};
use crate::content::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::index::write::{BuildOptions, build};
use crate::repository::Repository;
use crate::storage::BlobId;

const ATTEMPTS: u32 = 10;

/// Writes entries where this repository's clients write theirs: [`write_epoch_set`] or [`write_legacy`].
///
/// # Errors
/// As those.
pub fn write_index_set(
    repository: &Repository,
    entries: Vec<Entry>,
    session_id: &str,
    not_after: Option<Duration>,
) -> Result<Vec<BlobId>> {
    if repository.config().epoch.enabled {
        write_epoch_set(repository, entries, session_id, not_after)
    } else {
        write_legacy(repository, entries, session_id, not_after)
    }
}

/// How this repository's index payloads are built.
pub(super) fn build_options(repository: &Repository, random_tail: bool) -> BuildOptions {
    let version = repository.config().index_version.max(1);
    BuildOptions { version, hash_length: repository.hasher().length(), random_tail }
}

/// Writes `n<hash>-<session>` for each shard.
///
/// # Errors
/// As [`build`]; storage errors; `DeadlinePassed`. What was written of it stays: each entry stands for itself.
pub fn write_legacy(
    repository: &Repository,
    entries: Vec<Entry>,
    session_id: &str,
    not_after: Option<Duration>,
) -> Result<Vec<BlobId>> {
    let mut written = Vec::new();
    for payload in build(entries, &build_options(repository, false))? {
        let sealed = repository.cipher().seal_blob(repository.hasher(), names::LEGACY_INDEX, session_id, &payload);
        let (id, data) = sealed?;
        put_index_blob(repository, &id, data, not_after)?;
        written.push(id);
    }
    Ok(written)
}

/// Writes `xn<W>_<hash>-<session>-c<shards>`, so that the set is never part of an epoch that others may be compacting: the state
/// has three quarters of its time left before the first write, each write is inside it, and W is looked at again at the end.
///
/// # Errors
/// As [`build`]; `StoreUnavailable` if writing was so slow that the epoch may have been compacted without the set (nothing of it
/// is left then, try again); storage errors and `DeadlinePassed` (what was written is deleted as far as that works in time).
pub fn write_epoch_set(
    repository: &Repository,
    entries: Vec<Entry>,
    session_id: &str,
    not_after: Option<Duration>,
) -> Result<Vec<BlobId>> {
    let payloads = build(entries, &build_options(repository, false))?;
    let suffix = format!("{session_id}-c{}", payloads.len());
    let seal = |payload: Vec<u8>| repository.cipher().seal_blob(repository.hasher(), "", &suffix, &payload);
    let shards: Vec<(BlobId, Bytes)> = payloads.into_iter().map(seal).collect::<Result<_>>()?;
    let mut set = EpochSet { repository, not_after, epoch: 0, written: Vec::new() };
    match set.write(&shards) {
        Ok(()) => Ok(set.written),
        Err(error) => {
            // Half a set would stop every later cycle (R11); if even this fails the set is seen as incomplete, and named.
            set.remove();
            Err(error)
        }
    }
}

/// A set on its way.
struct EpochSet<'a> {
    repository: &'a Repository,
    not_after: Option<Duration>,
    epoch: u64,
    written: Vec<BlobId>,
}

impl EpochSet<'_> {
    fn write(&mut self, shards: &[(BlobId, Bytes)]) -> Result<()> {
        if shards.is_empty() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let state = self.fresh_state()?;
            if state.write_epoch != self.epoch {
                self.remove();
                self.epoch = state.write_epoch;
            }
            if self.write_within(&state, shards)? {
                return self.confirm();
            }
        }
        Err(Error::new(ErrorKind::StoreUnavailable, "write index blobs: each listing was outdated before the end"))
    }

    /// A state with at least 75 % of the refresh period left.
    fn fresh_state(&self) -> Result<EpochState> {
        let clock = self.repository.clock();
        let needed = self.repository.config().epoch.refresh_frequency * 3 / 4;
        for _ in 0..ATTEMPTS {
            let state = EpochState::load(self.repository)?;
            if clock.since_boot().saturating_add(needed) <= state.valid_until {
                return Ok(state);
            }
        }
        Err(Error::new(ErrorKind::StoreUnavailable, "write index blobs: listing them takes too long to write in time"))
    }

    /// Whether all shards were written before the state ran out.
    fn write_within(&mut self, state: &EpochState, shards: &[(BlobId, Bytes)]) -> Result<bool> {
        for (name, data) in shards {
            let id = BlobId::new(format!("{}{name}", names::uncompacted_prefix(self.epoch)));
            if self.written.contains(&id) {
                continue;
            }
            if self.repository.clock().since_boot() >= state.valid_until {
                return Ok(false);
            }
            // Named before it is written: an answer that does not come may still have been a write.
            self.written.push(id.clone());
            put_index_blob(self.repository, &id, data.clone(), self.not_after)?;
        }
        Ok(true)
    }

    fn confirm(&self) -> Result<()> {
        let now = EpochState::load(self.repository)?.write_epoch;
        if now < self.epoch.saturating_add(2) || mutant::on(Mutant::I12LateSetStands) {
            return Ok(());
        }
        let step = format!("write index blobs: epoch {} was over before they were written, epoch is {now}", self.epoch);
        Err(Error::new(ErrorKind::StoreUnavailable, step))
    }

    /// Deletes what was written, as far as that works, and not after its deadline (R1): what was there in time stands, and who took over
    /// since then may have deleted the packs that it replaces.
    fn remove(&mut self) {
        if !self.written.is_empty() {
            let not_after = self.not_after.filter(|_| !mutant::on(Mutant::R1TakenBackLate));
            self.repository.storage().delete(&self.written, not_after);
            self.written.clear();
        }
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
