//! The ledger of a replica: segments that follow from the raft log, byte for byte, and are made again from it after a restart.
//!
//! Only what a snapshot speaks for is synced, before the snapshot: the rest is in the raft log.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::LogTime;
use verger_proto::chain::ChainHead;
use verger_proto::envelope::{self, Kind};

use super::files::{failed, sync_folder};
use super::ledger_reader::LedgerReader;
use super::ledger_verify::{breaks, verify};
use crate::files::make_folders;
use crate::ledger::Entry;
use crate::ledger::segment;
pub use crate::ledger::segment::LedgerHead;

/// A replica's ledger.
#[derive(Debug)]
pub(crate) struct ReplicaLedger {
    folder: PathBuf,
    /// The segment that is written to.
    file: Arc<File>,
    path: PathBuf,
    /// Where the segments begin; at least one.
    starts: Arc<Vec<LedgerHead>>,
    head: LedgerHead,
    segment_bytes: u64,
    broken: bool,
}

impl ReplicaLedger {
    /// Opens or makes the ledger, verifies what of it is here up to `known`, and cuts it back to there. A segment with `segment_bytes`
    /// bytes gets no further record.
    pub(crate) fn open(folder: &Path, known: LedgerHead, segment_bytes: u64) -> Result<Self> {
        make_folders(folder).map_err(|error| failed(folder, "make the folder", error))?;
        let mut starts = verify(folder, known)?;
        let present = starts.last().copied().unwrap_or_default();
        // A segment that was archived and is gone is not gone on with.
        if present.records < known.records && !segment::path(folder, present.records).exists() {
            starts.push(known);
        }
        let start = starts.last().copied().unwrap_or_default();
        let later = segment::local(folder).map_err(|error| failed(folder, "list", error))?;
        for first in later.into_iter().rev().take_while(|first| *first > start.records) {
            // The rest is in the raft log, and comes again from there. From the end on, so that no gap is ever left.
            let path = segment::path(folder, first);
            std::fs::remove_file(&path).map_err(|error| failed(&path, "remove", error))?;
        }
        let path = segment::path(folder, start.records);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| failed(&path, "open the ledger", error))?;
        let length = file.metadata().map_err(|error| failed(&path, "read", error))?.len();
        let kept = known.bytes.saturating_sub(start.bytes);
        if length > kept {
            tracing::info!(path = %path.display(), bytes = length - kept, "cut the ledger back to its snapshot");
            file.set_len(kept).map_err(|error| failed(&path, "shorten", error))?;
        }
        file.sync_all().map_err(|error| failed(&path, "sync", error))?;
        sync_folder(folder)?;
        let (folder, starts) = (folder.to_owned(), Arc::new(starts));
        Ok(Self { folder, file: Arc::new(file), path, starts, head: known, segment_bytes, broken: false })
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
            let foreign =
                |error| breaks(&self.path, None, format!("another node's ledger does not continue it: {error}"));
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
        if self.present_bytes() >= self.segment_bytes {
            self.begin_segment()?;
        }
        self.file
            .write_all_at(record, self.present_bytes())
            .map_err(|error| failed(&self.path, "write the ledger", error))?;
        self.broken = false;
        self.head = self.head.after(chain, record.len() as u64);
        Ok(())
    }

    /// Bytes of the segment that is written to.
    fn present_bytes(&self) -> u64 {
        let start = self.starts.last().map_or(0, |start| start.bytes);
        self.head.bytes.saturating_sub(start)
    }

    /// Closes the present segment. It is synced here, because only the last one is before a snapshot.
    fn begin_segment(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|error| failed(&self.path, "sync", error))?;
        let path = segment::path(&self.folder, self.head.records);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        self.file = Arc::new(file.map_err(|error| failed(&path, "begin a ledger segment", error))?);
        self.path = path;
        sync_folder(&self.folder)?;
        Arc::make_mut(&mut self.starts).push(self.head);
        Ok(())
    }

    /// The ledger as it is, to be synced or read elsewhere.
    pub(crate) fn reader(&self) -> LedgerReader {
        LedgerReader {
            folder: self.folder.clone(),
            file: self.file.clone(),
            starts: self.starts.clone(),
            head: self.head,
            archive: None,
        }
    }
}
