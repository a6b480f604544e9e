//! The ledger of a replica: a file that follows from the raft log, byte for byte, and is made again from it after a restart.
//!
//! Only what a snapshot speaks for is synced, before the snapshot: the rest is in the raft log.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::chain::ChainHead;
use verger_proto::envelope::{self, HEADER_BYTES, Kind};
use verger_proto::{Digest, LogTime};

use super::files::{REJOIN, failed, sync_folder};
use crate::files::make_folders;
use crate::ledger::Entry;
use crate::ledger::file::FILE_NAME;

/// How far a ledger goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LedgerHead {
    /// Records.
    pub records: u64,
    /// Digest of the last record.
    pub last: Digest,
    /// Bytes.
    pub bytes: u64,
}

impl LedgerHead {
    fn chain(self) -> ChainHead {
        ChainHead { next: self.records, last: self.last }
    }
}

/// A replica's ledger.
#[derive(Debug)]
pub(crate) struct ReplicaLedger {
    file: Arc<File>,
    path: PathBuf,
    head: LedgerHead,
    broken: bool,
}

impl ReplicaLedger {
    /// Opens or makes the ledger, verifies it up to `known`, and cuts it back to there.
    pub(crate) fn open(folder: &Path, known: LedgerHead) -> Result<Self> {
        make_folders(folder).map_err(|error| failed(folder, "make the folder", error))?;
        let path = folder.join(FILE_NAME);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| failed(&path, "open the ledger", error))?;
        let head = verify(&file, &path, known)?;
        if head != known {
            let what =
                format!("its record {} is not the one that the snapshot speaks of", known.records.saturating_sub(1));
            return Err(breaks(&path, what));
        }
        let length = file.metadata().map_err(|error| failed(&path, "read", error))?.len();
        if length > head.bytes {
            // The rest is in the raft log, and comes again from there.
            tracing::info!(path = %path.display(), bytes = length - head.bytes, "cut the ledger back to its snapshot");
            file.set_len(head.bytes).map_err(|error| failed(&path, "shorten", error))?;
        }
        file.sync_all().map_err(|error| failed(&path, "sync", error))?;
        sync_folder(folder)?;
        Ok(Self { file: Arc::new(file), path, head, broken: false })
    }

    pub(crate) fn head(&self) -> LedgerHead {
        self.head
    }

    /// Adds a record. It is not synced.
    pub(crate) fn append(&mut self, at: LogTime, entry: &Entry) -> Result<()> {
        let too_long = |error| Error::new(ErrorKind::Internal, "write a ledger record").with_source(error);
        let body = envelope::encode(Kind::Entry, entry).map_err(too_long)?;
        let mut chain = self.head.chain();
        let record = chain.append(at, body).map_err(too_long)?;
        self.write(&record, chain)
    }

    /// Adds records of another replica's ledger that continue this one and end no later than `until`.
    pub(crate) fn extend(&mut self, bytes: &[u8], until: LedgerHead) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let foreign = |error| breaks(&self.path, format!("another node's ledger does not continue it: {error}"));
            let length = envelope::header(rest).map_err(|error| foreign(error.to_string()))?.record_bytes;
            let Some((record, after)) = rest.split_at_checked(length) else {
                return Err(foreign("a record is cut short".to_owned()));
            };
            let mut chain = self.head.chain();
            chain.follow(record).map_err(|error| foreign(error.to_string()))?;
            if chain.next > until.records {
                return Err(foreign(format!("it goes on after record {}", until.records)));
            }
            self.write(record, chain)?;
            rest = after;
        }
        Ok(())
    }

    fn write(&mut self, record: &[u8], chain: ChainHead) -> Result<()> {
        if self.broken {
            return Err(Error::new(
                ErrorKind::DiskFull,
                format!("{} could not be written before", self.path.display()),
            ));
        }
        self.broken = true;
        self.file
            .write_all_at(record, self.head.bytes)
            .map_err(|error| failed(&self.path, "write the ledger", error))?;
        self.broken = false;
        let bytes = self.head.bytes.saturating_add(record.len() as u64);
        self.head = LedgerHead { records: chain.next, last: chain.last, bytes };
        Ok(())
    }

    /// The file, to be synced or read elsewhere.
    pub(crate) fn reader(&self) -> LedgerReader {
        LedgerReader { file: self.file.clone(), path: self.path.clone(), head: self.head }
    }
}

/// A ledger as it was at one moment.
#[derive(Clone, Debug)]
pub(crate) struct LedgerReader {
    file: Arc<File>,
    path: PathBuf,
    pub(crate) head: LedgerHead,
}

impl LedgerReader {
    /// Puts all that was written so far onto the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| failed(&self.path, "sync", error))
    }

    /// Whole records from byte `from` on, about `bytes_max` bytes; none at the end.
    pub(crate) fn read(&self, from: u64, bytes_max: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut at = from;
        while at < self.head.bytes && (bytes.is_empty() || bytes.len() < bytes_max) {
            let mut head = [0; HEADER_BYTES];
            self.read_at(&mut head, at)?;
            let length = envelope::header(&head).map_err(|error| breaks(&self.path, error))?.record_bytes;
            let end = at.saturating_add(length as u64);
            if end > self.head.bytes {
                return Err(breaks(&self.path, format!("no record begins at byte {from}")));
            }
            let start = bytes.len();
            bytes.resize(start.saturating_add(length), 0);
            self.read_at(&mut bytes[start..], at)?;
            at = end;
        }
        Ok(bytes)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(bytes, at).map_err(|error| failed(&self.path, "read the ledger", error))
    }
}

fn breaks(path: &Path, what: impl std::fmt::Display) -> Error {
    let fix = format!(
        "put back the whole file from another node or a copy (its beginning is the same on every node); or {REJOIN}"
    );
    Error::damaged(format!("the ledger {} does not hold: {what}", path.display())).with_fix(fix)
}

/// Follows the chain up to `known`.
fn verify(file: &File, path: &Path, known: LedgerHead) -> Result<LedgerHead> {
    let unreadable = |error| failed(path, "read the ledger", error);
    let mut reader = BufReader::with_capacity(1 << 16, file);
    reader.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    let mut head = LedgerHead::default();
    let mut record = Vec::new();
    while head.records < known.records {
        let bad = |error: &dyn std::fmt::Display| {
            breaks(path, format!("record {} (byte {}): {error}", head.records, head.bytes))
        };
        record.clear();
        (&mut reader).take(HEADER_BYTES as u64).read_to_end(&mut record).map_err(unreadable)?;
        let length = envelope::header(&record).map_err(|error| bad(&error))?.record_bytes;
        let body = length.saturating_sub(record.len()) as u64;
        (&mut reader).take(body).read_to_end(&mut record).map_err(unreadable)?;
        let mut chain = head.chain();
        chain.follow(&record).map_err(|error| bad(&error))?;
        let bytes = head.bytes.saturating_add(record.len() as u64);
        head = LedgerHead { records: chain.next, last: chain.last, bytes };
    }
    Ok(head)
}
