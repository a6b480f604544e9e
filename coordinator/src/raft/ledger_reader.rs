//! A replica's ledger as it was at one moment: for whoever syncs it, archives it, or is far behind.

use std::fs::File;
use std::io::ErrorKind as Io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use verger_kopia::error::Result;
use verger_proto::envelope::{self, HEADER_BYTES};

use super::files::failed;
use super::ledger_verify::breaks;
use crate::ledger::archive::index::Index;
use crate::ledger::archive::{Archive, Segments};
use crate::ledger::segment::{self, LedgerHead};

/// A ledger as it was at one moment.
#[derive(Clone, Debug)]
pub(crate) struct LedgerReader {
    pub(super) folder: PathBuf,
    pub(super) file: Arc<File>,
    pub(super) starts: Arc<Vec<LedgerHead>>,
    pub(crate) head: LedgerHead,
    pub(crate) archive: Option<Arc<Archive>>,
}

/// A segment, wherever it is.
enum Source {
    Here(File),
    Fetched(Arc<[u8]>),
}

impl LedgerReader {
    /// Puts all that was written so far onto the disk: closed segments are there already.
    pub(crate) fn sync(&self) -> Result<()> {
        let path = || segment::path(&self.folder, self.starts.last().map_or(0, |start| start.records));
        self.file.sync_data().map_err(|error| failed(&path(), "sync", error))
    }

    /// Its segments, of which so many records are spoken for.
    pub(crate) fn segments(&self, known: u64) -> (PathBuf, Segments) {
        (self.folder.clone(), Segments { starts: self.starts.clone(), known: known.min(self.head.records) })
    }

    /// Whole records of one segment from byte `from` of the ledger on, about `bytes_max` bytes; none at the end. May ask the archive.
    pub(crate) fn read(&self, from: u64, bytes_max: usize) -> Result<Vec<u8>> {
        if from >= self.head.bytes {
            return Ok(Vec::new());
        }
        let after = self.starts.partition_point(|start| start.bytes <= from);
        let start = after.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or_default();
        let end = self.starts.get(after).copied().unwrap_or(self.head).bytes;
        let path = segment::path(&self.folder, start.records);
        let source = self.open(&path, start)?;
        let mut bytes = Vec::new();
        let mut at = from;
        while at < end && (bytes.is_empty() || bytes.len() < bytes_max) {
            let mut head = [0; HEADER_BYTES];
            source.read_at(&path, &mut head, at.saturating_sub(start.bytes))?;
            let length = envelope::header(&head).map_err(|error| breaks(&path, None, error))?.record_bytes;
            let next = at.saturating_add(length as u64);
            if next > end {
                return Err(breaks(&path, None, format!("no record begins at byte {from} of the ledger")));
            }
            let begin = bytes.len();
            bytes.resize(begin.saturating_add(length), 0);
            source.read_at(&path, &mut bytes[begin..], at.saturating_sub(start.bytes))?;
            at = next;
        }
        Ok(bytes)
    }

    fn open(&self, path: &Path, start: LedgerHead) -> Result<Source> {
        let absent = match File::open(path) {
            Ok(file) => return Ok(Source::Here(file)),
            Err(error) if error.kind() == Io::NotFound => error,
            Err(error) => return Err(failed(path, "open the ledger", error)),
        };
        let index = Index::load(&self.folder)?;
        let archived = index.at(start.records).ok_or_else(|| failed(path, "open the ledger", absent))?;
        let archive = self.archive.as_ref().ok_or_else(|| archived.elsewhere())?;
        archive.fetch(&self.folder, archived).map(Source::Fetched)
    }
}

impl Source {
    fn read_at(&self, path: &Path, bytes: &mut [u8], at: u64) -> Result<()> {
        match self {
            Self::Here(file) => file.read_exact_at(bytes, at),
            Self::Fetched(plain) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                let found = from.checked_add(bytes.len()).and_then(|end| plain.get(from..end));
                found.map(|found| bytes.copy_from_slice(found)).ok_or_else(|| Io::UnexpectedEof.into())
            }
        }
        .map_err(|error| failed(path, "read the ledger", error))
    }
}
