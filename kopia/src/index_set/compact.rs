//! Compaction: many index blobs become few. What is written is prepared first, so that publishing is quick.

use crate::mutant::{self, Mutant};
use std::time::Duration;

use bytes::Bytes;

use super::legacy::{CompactionLog, Recorded, write_json};
use super::write::build_options;
use super::{fetch_indexes, names, put_index_blob};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::index::write::build_from_table;
use crate::index::{Table, TableBuilder};
use crate::repository::Repository;
use crate::storage::{BlobId, BlobMetadata};

/// Which epochs a compaction replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epochs {
    /// One epoch: `xs<epoch>_…`.
    Single(u64),
    /// Epochs from the first to the last: `xr<first>_<last>_…`.
    Range(u64, u64),
}

/// An `xs` or `xr` set, sealed and named but not written.
pub struct PreparedSet {
    /// Its blobs.
    pub blobs: Vec<BlobId>,
    /// Entries in it, marks included.
    pub entries: u64,
    bodies: Vec<Bytes>,
}

/// Merges index blobs into an `xs` or `xr` set. Marks stay, and no watermark is applied: what a mark hides may lie in another
/// epoch, and would come back (I10). Each call makes a set ID of its own, so that no two attempts make one set (R16).
///
/// # Errors
/// `NotFound` if an input vanished; `Damaged` if one cannot be read; storage errors.
pub fn merge_epochs(
    repository: &Repository,
    inputs: &[BlobMetadata],
    output: Epochs,
    threads: usize,
) -> Result<PreparedSet> {
    let table = merge(repository, inputs, threads)?;
    let stays = |row: u32| !mutant::on(Mutant::I10CompactionDropsMarks) || !table.is_deleted(row);
    let payloads = build_from_table(&table, stays, &build_options(repository, false))?;
    let prefix = match output {
        Epochs::Single(epoch) => names::single_prefix(epoch),
        Epochs::Range(first, last) => names::range_prefix(first, last),
    };
    let attempt = if mutant::on(Mutant::R16OneSetId) { [0; 8] } else { rand::random::<[u8; 8]>() };
    let suffix = format!("s{}-c{}", hex::encode(attempt), payloads.len());
    let mut prepared = PreparedSet { blobs: Vec::new(), entries: table.len() as u64, bodies: Vec::new() };
    for payload in payloads {
        let (id, data) = repository.cipher().seal_blob(repository.hasher(), &prefix, &suffix, &payload)?;
        prepared.blobs.push(id);
        prepared.bodies.push(data);
    }
    Ok(prepared)
}

impl PreparedSet {
    /// Writes all blobs. Readers use the set once all are there.
    ///
    /// # Errors
    /// Storage errors; `DeadlinePassed`. A part that was written stays as an incomplete set, which readers ignore.
    pub fn publish(&self, repository: &Repository, not_after: Option<Duration>) -> Result<()> {
        for (id, data) in self.blobs.iter().zip(&self.bodies) {
            put_index_blob(repository, id, data.clone(), not_after)?;
        }
        Ok(())
    }
}

/// Reads a written set back from the store and counts its entries (R16: before anything older goes).
///
/// # Errors
/// `NotFound`, `Damaged`, storage errors.
pub fn count_entries(repository: &Repository, blobs: &[BlobId], threads: usize) -> Result<u64> {
    Ok(fetch_indexes(repository, blobs, threads)?.iter().map(|index| index.len() as u64).sum())
}

/// A legacy compaction, sealed and named but not written.
pub struct PreparedLegacy {
    /// Output blobs.
    pub outputs: Vec<BlobId>,
    /// Entries in them.
    pub entries: u64,
    /// Marks that were dropped.
    pub dropped: u64,
    bodies: Vec<Bytes>,
    inputs: Vec<Recorded>,
}

/// Merges `n` blobs. With `drop_before` (Unix seconds) marked winners older than that are left out, which is only right if
/// `inputs` are *all* active index blobs (I10).
///
/// # Errors
/// `NotFound` if an input vanished; `Damaged` if one cannot be read; storage errors.
pub fn merge_legacy(
    repository: &Repository,
    inputs: &[BlobMetadata],
    drop_before: Option<i64>,
    threads: usize,
) -> Result<PreparedLegacy> {
    let table = merge(repository, inputs, threads)?;
    let is_dropped =
        |row: u32| table.is_deleted(row) && drop_before.is_some_and(|before| table.timestamp(row) < before);
    let payloads = build_from_table(&table, |row| !is_dropped(row), &build_options(repository, true))?;
    let dropped = table.rows().filter(|row| is_dropped(*row)).count() as u64;
    let mut prepared = PreparedLegacy {
        outputs: Vec::new(),
        entries: table.len() as u64 - dropped,
        dropped,
        bodies: Vec::new(),
        inputs: inputs.iter().map(Recorded::from).collect(),
    };
    for payload in payloads {
        let (id, data) = repository.cipher().seal_blob(repository.hasher(), names::LEGACY_INDEX, "", &payload)?;
        prepared.outputs.push(id);
        prepared.bodies.push(data);
    }
    Ok(prepared)
}

/// The log of a compaction that took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedLog {
    /// The `m` blob.
    pub id: BlobId,
    /// When it was written, by the storage's clock: the clock of deferred deletion.
    pub timestamp: Timestamp,
}

impl PreparedLegacy {
    /// Writes the outputs, then the log that makes them replace the inputs. Late it is as dangerous as a late deletion (R1).
    ///
    /// # Errors
    /// Storage errors; `DeadlinePassed`. Outputs without their log are copies that do no harm while nothing was dropped since.
    pub fn publish(&self, repository: &Repository, not_after: Option<Duration>) -> Result<PublishedLog> {
        if self.inputs.is_empty() {
            return Err(Error::new(ErrorKind::Internal, "compact no index blobs"));
        }
        let mut outputs = Vec::new();
        for (id, data) in self.outputs.iter().zip(&self.bodies) {
            let length = data.len() as u64;
            let receipt = put_index_blob(repository, id, data.clone(), not_after)?;
            let timestamp = written_at(repository, id, receipt.timestamp)?;
            outputs.push(Recorded { id: id.clone(), length, timestamp });
        }
        let log =
            CompactionLog { inputs: Some(self.inputs.clone()), outputs: (!outputs.is_empty()).then_some(outputs) };
        let id = write_json(repository, names::LEGACY_LOG, &log, not_after)?;
        let timestamp = written_at(repository, &id, None)?;
        Ok(PublishedLog { id, timestamp })
    }
}

fn merge(repository: &Repository, inputs: &[BlobMetadata], threads: usize) -> Result<Table> {
    let ids: Vec<BlobId> = inputs.iter().map(|blob| blob.id.clone()).collect();
    let mut builder = TableBuilder::new(repository.hasher().length(), None);
    for index in fetch_indexes(repository, &ids, threads)? {
        builder.add(index)?;
    }
    builder.build(threads)
}

fn written_at(repository: &Repository, id: &BlobId, known: Option<Timestamp>) -> Result<Timestamp> {
    known.map_or_else(|| repository.storage().head(id).map(|blob| blob.timestamp), Ok)
}
