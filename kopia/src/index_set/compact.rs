//! Compaction: many index blobs become few. What is written is prepared first, so that publishing is quick.

use crate::mutant::{self, Mutant};
use std::time::Duration;

use bytes::Bytes;

use super::legacy::{CompactionLog, Recorded, write_json};
use super::view::Aside;
use super::write::build_options;
use super::{fetch_indexes, names, put_index_blob};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::index::write::{BuildOptions, build_from_table, build_in_parts};
use crate::index::{Table, TableBuilder};
use crate::repository::Repository;
use crate::spill::SpillFile;
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
    bodies: Vec<Body>,
}

/// A sealed blob: in memory, or in a file.
enum Body {
    Memory(Bytes),
    File { file: SpillFile, at: u64, length: usize },
}

impl Body {
    fn load(&self) -> Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File { file, at, length } => {
                let mut bytes = vec![0; *length];
                file.read(&mut bytes, *at)?;
                Ok(bytes.into())
            }
        }
    }
}

/// How to merge within a memory limit: through temporary files, into more and smaller blobs.
#[derive(Debug, Clone)]
pub struct Frugal {
    /// How to read the inputs.
    pub aside: Aside,
    /// Most entries of a blob that is written: it is in memory twice for a moment.
    pub rows_max: usize,
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
    frugal: Option<&Frugal>,
) -> Result<PreparedSet> {
    let table = merge(repository, inputs, threads, frugal)?;
    let stays = |row: u32| !mutant::on(Mutant::I10CompactionDropsMarks) || !table.is_deleted(row);
    let prefix = match output {
        Epochs::Single(epoch) => names::single_prefix(epoch),
        Epochs::Range(first, last) => names::range_prefix(first, last),
    };
    let attempt = if mutant::on(Mutant::R16OneSetId) { [0; 8] } else { rand::random::<[u8; 8]>() };
    let set = hex::encode(attempt);
    let mut prepared = PreparedSet { blobs: Vec::new(), entries: table.len() as u64, bodies: Vec::new() };
    let name = Name { prefix: &prefix, suffix: &|count| format!("s{set}-c{count}") };
    let options = build_options(repository, false);
    (prepared.blobs, prepared.bodies) = seal_all(repository, &table, stays, &name, &options, frugal)?;
    Ok(prepared)
}

/// What the names of sealed blobs have besides the hash; the suffix knows how many there are.
struct Name<'a> {
    prefix: &'a str,
    suffix: &'a dyn Fn(usize) -> String,
}

fn seal_all(
    repository: &Repository,
    table: &Table,
    keep: impl Fn(u32) -> bool,
    name: &Name<'_>,
    options: &BuildOptions,
    frugal: Option<&Frugal>,
) -> Result<(Vec<BlobId>, Vec<Body>)> {
    let (mut ids, mut bodies) = (Vec::new(), Vec::new());
    let seal = |count: usize, payload: Vec<u8>| {
        repository.cipher().seal_blob(repository.hasher(), name.prefix, &(name.suffix)(count), &payload)
    };
    match frugal {
        None => {
            let payloads = build_from_table(table, keep, options)?;
            let count = payloads.len();
            for payload in payloads {
                let (id, data) = seal(count, payload)?;
                ids.push(id);
                bodies.push(Body::Memory(data));
            }
        }
        Some(Frugal { aside, rows_max }) => {
            let file = aside.folder.file()?;
            build_in_parts(table, keep, *rows_max, options, |count, payload| {
                let (id, data) = seal(count, payload)?;
                bodies.push(Body::File { file: file.clone(), at: file.append(&data)?, length: data.len() });
                ids.push(id);
                Ok(())
            })?;
        }
    }
    Ok((ids, bodies))
}

impl PreparedSet {
    /// Writes all blobs. Readers use the set once all are there.
    ///
    /// # Errors
    /// Storage errors; `DeadlinePassed`. A part that was written stays as an incomplete set, which readers ignore.
    pub fn publish(&self, repository: &Repository, not_after: Option<Duration>) -> Result<()> {
        for (id, data) in self.blobs.iter().zip(&self.bodies) {
            put_index_blob(repository, id, data.load()?, not_after)?;
        }
        Ok(())
    }
}

/// Reads a written set back from the store and counts its entries (R16: before anything older goes).
///
/// # Errors
/// `NotFound`, `Damaged`, storage errors.
pub fn count_entries(
    repository: &Repository,
    blobs: &[BlobId],
    threads: usize,
    frugal: Option<&Frugal>,
) -> Result<u64> {
    if let Some(Frugal { aside, .. }) = frugal {
        let found: Vec<BlobMetadata> = blobs.iter().map(|id| repository.storage().head(id)).collect::<Result<_>>()?;
        let indexes = aside.spool(repository, &found)?;
        return Ok(indexes.iter().map(|index| index.len() as u64).sum());
    }
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
    bodies: Vec<Body>,
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
    frugal: Option<&Frugal>,
) -> Result<PreparedLegacy> {
    let table = merge(repository, inputs, threads, frugal)?;
    let is_dropped =
        |row: u32| table.is_deleted(row) && drop_before.is_some_and(|before| table.timestamp(row) < before);
    let dropped = table.rows().filter(|row| is_dropped(*row)).count() as u64;
    let mut prepared = PreparedLegacy {
        outputs: Vec::new(),
        entries: table.len() as u64 - dropped,
        dropped,
        bodies: Vec::new(),
        inputs: inputs.iter().map(Recorded::from).collect(),
    };
    let name = Name { prefix: names::LEGACY_INDEX, suffix: &|_| String::new() };
    let options = build_options(repository, true);
    (prepared.outputs, prepared.bodies) =
        seal_all(repository, &table, |row| !is_dropped(row), &name, &options, frugal)?;
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
            let data = data.load()?;
            let length = data.len() as u64;
            let receipt = put_index_blob(repository, id, data, not_after)?;
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

fn merge(repository: &Repository, inputs: &[BlobMetadata], threads: usize, frugal: Option<&Frugal>) -> Result<Table> {
    if let Some(Frugal { aside, .. }) = frugal {
        return aside.merge(repository, inputs, None, threads).map(|(table, _)| table);
    }
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
