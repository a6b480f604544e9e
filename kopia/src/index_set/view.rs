//! One view of the index: the active blobs, the watermark, and the merged table.

use crate::mutant::{self, Mutant};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::epoch::EpochState;
use super::fetch_indexes;
use super::legacy::LegacyState;
use super::spool::spool_indexes;
use crate::content::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Index, Place, SpooledIndex, Table, TableBuilder, merge_spooled};
use crate::repository::Repository;
use crate::spill::SpillFolder;
use crate::storage::{BlobId, BlobMetadata};

const ATTEMPTS: u32 = 10;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// How long the members of an `xn` set may come in one after the other (R11).
const INCOMPLETE_MAX: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// The active index blobs of one moment, and what they say.
#[derive(Debug)]
pub struct IndexView {
    /// Active index blobs, sorted by name.
    pub blobs: Vec<BlobMetadata>,
    /// Deletion watermark in Unix seconds (`None`: legacy index, or no watermark yet).
    pub watermark: Option<i64>,
    /// Current write epoch (`None`: legacy index).
    pub write_epoch: Option<u64>,
    /// Entries of all blobs together, before merging.
    pub entry_count: u64,
    /// The merged winners.
    pub table: Table,
}

/// The active index blobs of one moment, not read.
#[derive(Debug, Clone)]
pub struct ActiveSet {
    /// Active index blobs, sorted by name.
    pub blobs: Vec<BlobMetadata>,
    /// As in [`IndexView`].
    pub watermark: Option<i64>,
    /// As in [`IndexView`].
    pub write_epoch: Option<u64>,
    /// All that the listing said.
    pub state: State,
}

/// What the listing of the repository's index manager said.
#[derive(Debug, Clone)]
pub enum State {
    /// Epoch manager.
    Epoch(EpochState),
    /// Legacy manager.
    Legacy(LegacyState),
}

/// What changed since a view was taken.
#[derive(Debug)]
pub struct Delta {
    /// Blobs of the view that are not active any more: others compacted. Entries are not read then; take a new view.
    pub gone: Vec<BlobId>,
    /// Blobs that the view does not have.
    pub blobs: Vec<BlobMetadata>,
    /// Their entries, unmerged.
    pub entries: Vec<Entry>,
    /// The watermark now.
    pub watermark: Option<i64>,
    /// The write epoch now.
    pub write_epoch: Option<u64>,
}

/// Which index blobs were seen: all that telling a change needs.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Active index blobs, sorted by name. Only the names count.
    pub blobs: Vec<BlobMetadata>,
    /// As in [`IndexView`].
    pub watermark: Option<i64>,
}

impl IndexView {
    /// Which index blobs it was made from.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen { blobs: self.blobs.clone(), watermark: self.watermark }
    }

    /// BLAKE3 over the names of the active blobs and the watermark, in hex: two views with the same digest are the same.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.blobs, self.watermark)
    }

    /// Lists again and reads only blobs that are new since this view (R1, R14). `None`: nothing changed, nothing was read.
    ///
    /// # Errors
    /// As [`load_view`].
    pub fn newer(&self, repository: &Repository, threads: usize) -> Result<Option<Delta>> {
        self.seen().newer(repository, threads)
    }
}

impl Seen {
    /// As [`IndexView::digest`].
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.blobs, self.watermark)
    }

    /// As [`IndexView::newer`].
    ///
    /// # Errors
    /// As [`load_view`].
    pub fn newer(&self, repository: &Repository, threads: usize) -> Result<Option<Delta>> {
        retry_vanished(repository, |_| {
            let active = list_active(repository)?;
            if active.digest() == self.digest() {
                return Ok(None);
            }
            let known = |blobs: &[BlobMetadata], id: &BlobId| blobs.binary_search_by(|blob| blob.id.cmp(id)).is_ok();
            let gone = self.blobs.iter().filter(|blob| !known(&active.blobs, &blob.id)).map(|blob| blob.id.clone());
            let gone: Vec<BlobId> = gone.collect();
            let new = active.blobs.iter().filter(|blob| !known(&self.blobs, &blob.id)).cloned();
            let blobs: Vec<BlobMetadata> = new.collect();
            let mut entries = Vec::new();
            if gone.is_empty() {
                let ids: Vec<BlobId> = blobs.iter().map(|blob| blob.id.clone()).collect();
                for index in fetch_indexes(repository, &ids, threads)? {
                    for entry in index.entries() {
                        entries.push(entry?);
                    }
                }
            }
            let (watermark, write_epoch) = (active.watermark, active.write_epoch);
            Ok(Some(Delta { gone, blobs, entries, watermark, write_epoch }))
        })
    }
}

impl ActiveSet {
    /// As [`IndexView::digest`].
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.blobs, self.watermark)
    }
}

/// Lists the active index blobs without reading them (of the legacy index the compaction logs are read).
///
/// # Errors
/// `Damaged` if a set of `xn` blobs is incomplete for over an hour, or a compaction log cannot be read; storage errors.
pub fn list_active(repository: &Repository) -> Result<ActiveSet> {
    let epochs = &repository.config().epoch;
    let (mut blobs, watermark, write_epoch, state) = if epochs.enabled {
        let state = load_valid_epochs(repository)?;
        let blobs = state.active();
        check_marker(&state)?;
        check_complete(repository, &state, &blobs)?;
        (blobs, state.watermark, Some(state.write_epoch), State::Epoch(state))
    } else {
        let state = LegacyState::load(repository)?;
        (state.active(), None, None, State::Legacy(state))
    };
    blobs.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(ActiveSet { blobs, watermark, write_epoch, state })
}

/// Lists and reads the active index blobs and merges them. Any index blob that cannot be read is an error (R11).
///
/// # Errors
/// `Damaged` if an index blob or compaction log cannot be read or a set of `xn` blobs is incomplete for over an hour;
/// `StoreUnavailable` if listed blobs go on vanishing; storage errors.
pub fn load_view(repository: &Repository, threads: usize) -> Result<IndexView> {
    let mut read: HashMap<BlobId, Arc<Index>> = HashMap::new();
    read_twice(repository, || read_active(repository, threads, &mut read))
}

/// How an index that is large is read: its blobs are decrypted and merged part by part.
#[derive(Debug, Clone)]
pub struct Aside {
    /// Where temporary files go.
    pub folder: SpillFolder,
    /// Index entries that are in memory at a time while they are merged.
    pub at_once: usize,
    /// Where the merged rows go.
    pub place: Place,
    /// Blobs read at a time.
    pub requests: usize,
}

impl Aside {
    /// Reads, decrypts and checks index blobs.
    pub(super) fn spool(&self, repository: &Repository, blobs: &[BlobMetadata]) -> Result<Vec<SpooledIndex>> {
        spool_indexes(repository, blobs, &self.folder, self.requests)
    }

    /// Reads and merges index blobs. `hidden_to`: the watermark, if one applies.
    ///
    /// # Errors
    /// As [`load_view`]; `DiskFull`.
    pub fn merge(
        &self,
        repository: &Repository,
        blobs: &[BlobMetadata],
        hidden_to: Option<i64>,
        threads: usize,
    ) -> Result<(Table, u64)> {
        let indexes = self.spool(repository, blobs)?;
        let entries = indexes.iter().map(|index| index.len() as u64).sum();
        let keys = (repository.hasher().length(), hidden_to);
        Ok((merge_spooled(indexes, keys, threads, self.at_once, &self.place)?, entries))
    }
}

/// As [`load_view`], without holding all index blobs in memory.
///
/// # Errors
/// As [`load_view`]; `DiskFull` if there is no room for the temporary files.
pub fn load_view_aside(repository: &Repository, threads: usize, aside: &Aside) -> Result<IndexView> {
    read_twice(repository, || {
        let active = list_active(repository)?;
        let (table, entry_count) = aside.merge(repository, &active.blobs, active.watermark, threads)?;
        let ActiveSet { blobs, watermark, write_epoch, .. } = active;
        Ok(IndexView { blobs, watermark, write_epoch, entry_count, table })
    })
}

/// R11: what seems lost or unreadable is looked at once more, on a fresh listing, before it counts.
fn read_twice<T>(repository: &Repository, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let mut damaged_once = false;
    retry_vanished(repository, |retry| {
        let result = attempt();
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Damaged) && !damaged_once {
            damaged_once = true;
            *retry = true;
        }
        result
    })
}

fn read_active(repository: &Repository, threads: usize, read: &mut HashMap<BlobId, Arc<Index>>) -> Result<IndexView> {
    let active = list_active(repository)?;
    let missing = active.blobs.iter().map(|blob| &blob.id).filter(|id| !read.contains_key(*id));
    let mut missing: Vec<BlobId> = missing.cloned().collect();
    if mutant::on(Mutant::R11UnreadableIndexIsEmpty) {
        missing.retain(|id| fetch_indexes(repository, std::slice::from_ref(id), 1).is_ok());
    }
    for (id, index) in missing.iter().zip(fetch_indexes(repository, &missing, threads)?) {
        read.insert(id.clone(), index);
    }
    let mut builder = TableBuilder::new(repository.hasher().length(), active.watermark);
    let mut entry_count = 0;
    for blob in &active.blobs {
        if let Some(index) = read.remove(&blob.id) {
            entry_count += index.len() as u64;
            builder.add(index)?;
        }
    }
    // The builder holds the last references, so that merged indexes are freed with it.
    read.clear();
    let table = builder.build(threads)?;
    let ActiveSet { blobs, watermark, write_epoch, .. } = active;
    Ok(IndexView { blobs, watermark, write_epoch, entry_count, table })
}

/// A state that is still valid once its active set is known (`GetCompleteIndexSet`).
fn load_valid_epochs(repository: &Repository) -> Result<EpochState> {
    for _ in 0..ATTEMPTS {
        let state = EpochState::load(repository)?;
        if repository.clock().since_boot() < state.valid_until {
            return Ok(state);
        }
    }
    Err(Error::new(ErrorKind::StoreUnavailable, "list index blobs: each listing was outdated before it could be used"))
}

/// Clients write into W or W-1. Index blobs of a later epoch than W+1, which no reader would look at, tell that the marker of the
/// write epoch is lost, and with it whatever they say.
fn check_marker(state: &EpochState) -> Result<()> {
    let newest = state.uncompacted.last_key_value().map(|(epoch, _)| *epoch);
    let Some(newest) = newest.filter(|newest| *newest > state.write_epoch.saturating_add(1)) else { return Ok(()) };
    let step = format!(
        "read the index: there are index blobs of epoch {newest}, and no marker of an epoch after {}",
        state.write_epoch
    );
    let fix = format!(
        "nothing was changed; the marker is lost: write a blob named {} (any bytes will do), then try again",
        super::names::marker(newest)
    );
    Err(Error::damaged(step).with_fix(fix))
}

fn check_complete(repository: &Repository, state: &EpochState, active: &[BlobMetadata]) -> Result<()> {
    let incomplete = state.incomplete_sets(active);
    if incomplete.is_empty() || mutant::on(Mutant::R11HalfASetIsWhole) {
        return Ok(());
    }
    let now = repository.storage().now()?;
    let old = incomplete.iter().find(|blob| now.duration_since(blob.timestamp) > INCOMPLETE_MAX);
    old.map_or(Ok(()), |blob| {
        let step = format!("read the index: other parts of the set of {} are missing for over an hour", blob.id);
        let fix = "nothing was changed; if no copy has the missing blobs, see `kopia index recover`";
        Err(Error::damaged(step).with_fix(fix))
    })
}

/// Tries again, from a fresh listing, when a listed blob vanished before it was read: others compact.
fn retry_vanished<T>(repository: &Repository, mut attempt: impl FnMut(&mut bool) -> Result<T>) -> Result<T> {
    let mut pause = BACKOFF_FIRST;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let mut retry = false;
        match attempt(&mut retry) {
            Err(error) if retry || error.kind() == ErrorKind::NotFound => last = Some(error),
            result => return result,
        }
        repository.clock().sleep(pause);
        pause *= 2;
    }
    let error = last.unwrap_or_else(|| Error::new(ErrorKind::Internal, "no attempt"));
    Err(error.into_kind(ErrorKind::StoreUnavailable).at("read the index: listed blobs go on vanishing"))
}

fn digest(sorted: &[BlobMetadata], watermark: Option<i64>) -> String {
    let mut hasher = blake3::Hasher::new();
    for blob in sorted {
        hasher.update(blob.id.as_str().as_bytes());
        hasher.update(b"\n");
    }
    hasher.update(format!("watermark {}\n", watermark.map_or_else(|| "none".to_owned(), |w| w.to_string())).as_bytes());
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
