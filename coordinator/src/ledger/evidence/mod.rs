//! Names of what was done, a file for each cycle. The ledger holds the digest of each record.
//!
//! ```text
//! keep (before a deed) -> the cycle ends -> archive in parts -> remove the file;   find: which deeds named a blob or content
//! ```

mod archive;
mod filter;
pub(crate) mod index;
mod shelf;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind as Io, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::envelope::{self, EnvelopeError, HEADER_BYTES, Kind};
use verger_proto::{CycleId, Digest, Evidence, OutputRef, Ticket};

use crate::files::{make_folders, sync_folder};

pub(crate) use archive::Known;
pub use shelf::{Hit, Search, Shelf};
pub use whole::{EvidenceChecked, check, restore};

/// A part with so many bytes gets no further record: what is archived fits memory.
const PART_BYTES: usize = 8 << 20;

/// Records with their digests, and how many bytes they take.
type Records = (Vec<(Digest, Evidence)>, usize);

/// Keeps names of what a batch does where they outlast the process that does it.
pub trait KeepEvidence: Send + Sync {
    /// Keeps a record; it is on stable storage when this returns. `view`: what the cycle works on.
    ///
    /// # Errors
    /// It may not have been kept.
    fn keep(&self, ticket: &Ticket, view: Digest, evidence: &Evidence) -> Result<OutputRef>;
}

impl KeepEvidence for EvidenceFolder {
    fn keep(&self, ticket: &Ticket, view: Digest, evidence: &Evidence) -> Result<OutputRef> {
        self.append(ticket.cycle, view, evidence)
    }
}

/// The folder of a repository's evidence.
#[derive(Debug)]
pub struct EvidenceFolder {
    folder: PathBuf,
    /// The file that was written last, and where it ends.
    last: Mutex<Option<(CycleId, u64)>>,
}

impl EvidenceFolder {
    /// The folder `evidence` beside a ledger.
    #[must_use]
    pub fn beside(ledger_folder: &Path) -> Self {
        Self { folder: ledger_folder.join("evidence"), last: Mutex::default() }
    }

    pub(crate) fn path(&self, cycle: CycleId) -> PathBuf {
        self.folder.join(cycle.to_string())
    }

    /// Keeps a record; it is on stable storage when this returns.
    ///
    /// # Errors
    /// It may not have been kept.
    pub fn append(&self, cycle: CycleId, view: Digest, evidence: &Evidence) -> Result<OutputRef> {
        let path = self.path(cycle);
        let step = || format!("keep evidence in {}", path.display());
        let bytes = envelope::encode(Kind::Evidence, evidence)
            .map_err(|error| Error::new(ErrorKind::Internal, step()).with_source(error))?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.take().filter(|(of, _)| *of == cycle).map(|(_, length)| length);
        let written = (|| {
            make_folders(&self.folder)?;
            let is_new = !path.exists();
            let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
            let length = file.metadata()?.len();
            if !is_new && known != Some(length) {
                cut_unfinished(&path, &file, length)?;
            }
            file.write_all(&bytes)?;
            file.sync_data()?;
            if is_new {
                sync_folder(&self.folder)?;
            }
            file.metadata()
        })();
        let metadata = written.map_err(|error| Error::of_file(step(), error))?;
        *last = Some((cycle, metadata.len()));
        let count = u64::try_from(evidence.names.len()).unwrap_or(u64::MAX);
        Ok(OutputRef { name: format!("evidence/{cycle}"), digest: Digest::of(&bytes), count, view })
    }

    /// Reads the evidence of a cycle; each record with its digest, to compare with the ledger.
    ///
    /// # Errors
    /// `Damaged` if a record does not read back, save one that was cut short at the end.
    pub fn read(&self, cycle: CycleId) -> Result<Vec<(Digest, Evidence)>> {
        let mut all = Vec::new();
        self.parts(cycle, &mut |_, part| {
            all.extend(self.records(cycle, part)?);
            Ok(())
        })?;
        Ok(all)
    }

    /// The cycles whose files are here, and how long those are.
    pub(crate) fn cycles(&self) -> Result<BTreeMap<CycleId, u64>> {
        let failed = |error| Error::of_file(format!("list {}", self.folder.display()), error);
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == Io::NotFound => return Ok(BTreeMap::new()),
            other => other.map_err(failed)?,
        };
        let mut found = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            found.insert(CycleId(number), entry.metadata().map_err(failed)?.len());
        }
        Ok(found)
    }

    /// Whole records of a cycle's file, in parts of some [`PART_BYTES`], each with the byte that it begins at. What was cut short at
    /// the end is left out.
    pub(crate) fn parts(&self, cycle: CycleId, visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let path = self.path(cycle);
        let step = || format!("read evidence in {}", path.display());
        let failed = |error: std::io::Error| match error.kind() {
            Io::NotFound => Error::new(ErrorKind::NotFound, step()).with_source(error),
            _ => Error::new(ErrorKind::Permission, step()).with_source(error),
        };
        let file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut reader = Whole { source: BufReader::with_capacity(1 << 16, file), at: 0, length };
        let (mut begin, mut part) = (0, Vec::new());
        loop {
            let is_more = reader.next(&mut part).map_err(|error| match error {
                Unread::Io(error) => failed(error),
                Unread::Broken(error) => Error::damaged(step()).with_source(error),
            })?;
            if !part.is_empty() && (!is_more || part.len() >= PART_BYTES) {
                visit(begin, &part)?;
                (begin, part) = (reader.at, Vec::new());
            }
            if !is_more {
                return Ok(());
            }
        }
    }

    pub(crate) fn records(&self, cycle: CycleId, part: &[u8]) -> Result<Vec<(Digest, Evidence)>> {
        let (records, whole) = records(part).map_err(|error| {
            Error::damaged(format!("read evidence in {}", self.path(cycle).display())).with_source(error)
        })?;
        debug_assert_eq!(whole, part.len(), "parts end where records do");
        Ok(records)
    }
}

/// The whole records at the beginning of `bytes`.
fn records(bytes: &[u8]) -> Result<Records, EnvelopeError> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while !rest.is_empty() {
        let length = match envelope::header(rest) {
            Ok(header) if header.record_bytes <= rest.len() => header.record_bytes,
            Ok(_) | Err(EnvelopeError::Short { .. }) => break,
            Err(error) => return Err(error),
        };
        let (record, after) = rest.split_at(length);
        found.push((Digest::of(record), envelope::decode(Kind::Evidence, record)?));
        rest = after;
    }
    Ok((found, bytes.len().saturating_sub(rest.len())))
}

enum Unread {
    Io(std::io::Error),
    Broken(EnvelopeError),
}

/// Reads records as bytes, and stops before one that is not whole.
struct Whole<R> {
    source: R,
    at: u64,
    length: u64,
}

impl<R: Read> Whole<R> {
    /// Adds the next record to `part`; `false` at the end.
    fn next(&mut self, part: &mut Vec<u8>) -> Result<bool, Unread> {
        let (begin, left) = (part.len(), self.length.saturating_sub(self.at));
        (&mut self.source).take(left.min(HEADER_BYTES as u64)).read_to_end(part).map_err(Unread::Io)?;
        let record_bytes = match envelope::header(&part[begin..]) {
            Ok(header) => header.record_bytes,
            // Some file systems leave zeros where a write did not get to.
            Err(_) if part[begin..].iter().all(|byte| *byte == 0) => {
                part.truncate(begin);
                return Ok(false);
            }
            Err(EnvelopeError::Short { .. }) => {
                part.truncate(begin);
                return Ok(false);
            }
            Err(error) => return Err(Unread::Broken(error)),
        };
        if record_bytes as u64 > left {
            part.truncate(begin);
            return Ok(false);
        }
        let body_bytes = record_bytes.saturating_sub(HEADER_BYTES);
        (&mut self.source).take(body_bytes as u64).read_to_end(part).map_err(Unread::Io)?;
        self.at = self.at.saturating_add(record_bytes as u64);
        Ok(true)
    }
}

/// Cuts off what a process that was killed did not finish: what is written after it could not be read.
fn cut_unfinished(path: &Path, file: &File, length: u64) -> std::io::Result<()> {
    let mut reader = Whole { source: BufReader::new(File::open(path)?), at: 0, length };
    let mut record = Vec::new();
    loop {
        record.clear();
        match reader.next(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(Unread::Io(error)) => return Err(error),
            // Not a record that was cut: nobody knows where it ends, and it is told when it is read.
            Err(Unread::Broken(_)) => return Ok(()),
        }
    }
    if reader.at < length { file.set_len(reader.at) } else { Ok(()) }
}
