//! A log in sled. Alone in the workspace, this file names it.
//!
//! sled's `flush` does not sync on Linux: after each one, sled's file is synced through a descriptor of ours before anything is
//! acknowledged. Records are cut into short values: sled writes a page whole, up to 17 values, and what is longer than 128 KiB into
//! a file of its own without any sync; should there be such files all the same, they are synced, too.

use std::fs::{File, TryLockError};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sled::{Batch, Db};
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::mutant::{self, Mutant};
use verger_proto::Digest;
use verger_proto::chain::ChainError;
use verger_proto::envelope::{self, Kind};

use super::mark::MarkFile;
use super::{DurableLog, Extent, chain};
use crate::files::make_folders;
use crate::raft::files::{self, damaged, failed, newer, sync_folder};
use crate::raft::types::{LogEntry, LogId, Vote};

const FOLDER: &str = "log";
const MARK: &str = "log.mark";
const VALUE_BYTES_MAX: usize = 6 << 10;
const CACHE_BYTES: u64 = 16 << 20;
const HEAD: &[u8] = b"head";
const COMMITTED: &[u8] = b"committed";
const ENTRY: u8 = b'e';
/// sled's threads let go of a closed log within milliseconds, on a busy machine within this.
const CLOSING_MAX: Duration = Duration::from_secs(10);
const CLOSING_PAUSE: Duration = Duration::from_millis(5);

/// All that is not an entry, replaced with every change, in the same batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Head {
    /// Number of this change.
    writes: u64,
    vote: Option<Vote>,
    purged: Option<LogId>,
    /// Digest of the record at `purged`; zeros if it was never here.
    base: Digest,
    /// Index of the first entry.
    first: Option<u64>,
    /// The last entry.
    last: Option<LogId>,
    /// Digest of its record; `base` if there is none.
    tail: Digest,
}

/// Puts sled's file onto the disk; gets the folder, too. Tests note what is on the disk then.
pub(crate) type SyncFile = Box<dyn Fn(&File, &Path) -> std::io::Result<()> + Send + Sync>;

/// A log in sled.
pub struct SledLog {
    inner: Mutex<Inner>,
    /// As in the head, for who must not wait for the disk.
    changes: AtomicU64,
    folder: PathBuf,
    sync_file: SyncFile,
}

struct Inner {
    open: Option<Open>,
    head: Head,
}

struct Open {
    db: Db,
    file: File,
    mark: MarkFile,
}

impl std::fmt::Debug for SledLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledLog").field("folder", &self.folder).finish_non_exhaustive()
    }
}

fn key(index: u64, part: u16) -> [u8; 11] {
    let mut key = [ENTRY; 11];
    key[1..9].copy_from_slice(&index.to_be_bytes());
    key[9..].copy_from_slice(&part.to_be_bytes());
    key
}

fn index_of(key: &[u8]) -> Option<u64> {
    let index: &[u8; 8] = key.get(1..)?.first_chunk()?;
    (key.len() == 11).then_some(u64::from_be_bytes(*index))
}

fn encode<T: Serialize>(kind: Kind, value: &T) -> Result<Vec<u8>> {
    envelope::encode(kind, value)
        .map_err(|error| Error::new(ErrorKind::Internal, "encode a record of the raft log").with_source(error))
}

impl SledLog {
    /// Opens or makes the log in a data folder, and reads all of it once.
    ///
    /// # Errors
    /// `Damaged` if anything that was acknowledged cannot be read, `DiskFull` or `Permission` if it cannot be opened.
    pub fn open(data: &Path) -> Result<Self> {
        Self::open_with(data, Box::new(|file, _| file.sync_data()))
    }

    /// Opens the log of a data folder that surely had one.
    ///
    /// # Errors
    /// As [`Self::open`]; `Damaged` if there is none.
    pub fn open_known(data: &Path) -> Result<Self> {
        let mark = data.join(MARK);
        if mark.exists() { Self::open(data) } else { Err(damaged(&mark, "is missing")) }
    }

    /// As [`Self::open`], with sled's own idea of a flush: a power loss takes what was acknowledged.
    #[cfg(test)]
    pub(crate) fn without_sync(data: &Path) -> Result<Self> {
        Self::open_with(data, Box::new(|_, _| Ok(())))
    }

    pub(crate) fn open_with(data: &Path, sync_file: SyncFile) -> Result<Self> {
        let folder = data.join(FOLDER);
        // sled answers some damage with a panic.
        let opened = catch_unwind(AssertUnwindSafe(|| open(data, &folder)));
        let (open, head) =
            opened.unwrap_or_else(|_| Err(damaged(&folder.join("db"), "the raft log cannot be read")))?;
        let changes = AtomicU64::new(head.writes);
        let inner = Mutex::new(Inner { open: Some(open), head });
        Ok(Self { inner, changes, folder, sync_file })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one change: `fill` says what, and how the head is then. It is on the disk when this returns.
    fn change(&self, fill: impl FnOnce(&Db, &mut Batch, &mut Head) -> Result<()>) -> Result<()> {
        let mut inner = self.lock();
        // After a failure nobody knows what is on the disk: without its files the log takes nothing more.
        let open = inner.open.take().ok_or_else(|| closed(&self.folder))?;
        let (mut batch, mut head) = (Batch::default(), inner.head);
        head.writes = head.writes.saturating_add(1);
        if let Err(error) = fill(&open.db, &mut batch, &mut head) {
            inner.open = Some(open);
            return Err(error);
        }
        batch.insert(HEAD, encode(Kind::RaftHead, &head)?);
        open.db.apply_batch(batch).map_err(|error| broken(&self.folder, "write", error))?;
        self.sync(&open)?;
        open.mark.set(head.writes)?;
        self.changes.store(head.writes, Ordering::SeqCst);
        inner.head = head;
        inner.open = Some(open);
        Ok(())
    }

    fn sync(&self, open: &Open) -> Result<()> {
        if mutant::on(Mutant::P3AckBeforeSync) {
            return Ok(());
        }
        open.db.flush().map_err(|error| broken(&self.folder, "flush", error))?;
        (self.sync_file)(&open.file, &self.folder)
            .map_err(|error| failed(&self.folder, "sync the raft log in", error))?;
        sync_blobs(&self.folder)
    }

    /// Removes the entry at `from` and all after it.
    fn cut(&self, db: &Db, batch: &mut Batch, head: &mut Head, from: u64) -> Result<()> {
        let Some((first, last)) = head.first.zip(head.last).filter(|(_, last)| last.index >= from) else {
            return Ok(());
        };
        remove(db, &self.folder, batch, from..last.index.saturating_add(1))?;
        if from <= first {
            (head.first, head.last, head.tail) = (None, None, head.base);
            return Ok(());
        }
        let (entry, digest) = last_of(db, &self.folder, from.saturating_sub(1))?;
        (head.last, head.tail) = (Some(entry.log_id), digest);
        Ok(())
    }

    /// The database and where its log begins and ends now.
    fn view(&self) -> Result<(Db, Head)> {
        let inner = self.lock();
        let open = inner.open.as_ref().ok_or_else(|| closed(&self.folder))?;
        Ok((open.db.clone(), inner.head))
    }
}

fn closed(folder: &Path) -> Error {
    let step = format!("the raft log in {} was closed, or could not be written before", folder.display());
    Error::new(ErrorKind::Interrupted, step).with_fix("see the first error, then start again")
}

fn broken(folder: &Path, doing: &str, error: sled::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error {
        sled::Error::Io(error) if !matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) => {
            failed(folder, &format!("{doing} the raft log in"), error)
        }
        // sled's settings never change: what it does not support was written by damage.
        error => damaged(folder, format!("the raft log is damaged: {error}")),
    }
}

/// Never any, as long as values are short; but what sled does not sync, we do.
fn sync_blobs(folder: &Path) -> Result<()> {
    let blobs = folder.join("blobs");
    let unreadable = |error| failed(&blobs, "sync", error);
    let mut any = false;
    for entry in std::fs::read_dir(&blobs).map_err(unreadable)? {
        let synced = entry.and_then(|entry| File::open(entry.path())).and_then(|file| file.sync_all());
        synced.map_err(unreadable)?;
        any = true;
    }
    if any { sync_folder(&blobs) } else { Ok(()) }
}

fn open(data: &Path, folder: &Path) -> Result<(Open, Head)> {
    let (mark_path, db_path) = (data.join(MARK), folder.join("db"));
    make_folders(folder).map_err(|error| failed(folder, "make the folder", error))?;
    let is_known = mark_path.exists();
    if is_known && !db_path.exists() {
        return Err(damaged(&db_path, "is missing"));
    }
    await_release(&db_path)?;
    let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    let db = config.open().map_err(|error| broken(folder, "open", error))?;
    let head = match db.get(HEAD).map_err(|error| broken(folder, "read", error))? {
        Some(bytes) => envelope::decode(Kind::RaftHead, &bytes).map_err(|error| files::unfit(&db_path, &error))?,
        None => Head::default(),
    };
    if !is_known {
        begin(data, folder, &mark_path, &db, head)?;
    }
    let (mark, acknowledged) = MarkFile::open(&mark_path)?;
    if head.writes < acknowledged {
        let what = format!("{acknowledged} changes were acknowledged, and it has only {} of them", head.writes);
        return Err(damaged(&db_path, what));
    }
    verify(&db, folder, &head)?;
    let file = File::open(&db_path).map_err(|error| failed(&db_path, "open", error))?;
    // What a process that was killed had written and not yet synced is built on from here.
    file.sync_data().map_err(|error| failed(&db_path, "sync", error))?;
    mark.set(head.writes)?;
    Ok((Open { db, file, mark }, head))
}

/// Waits until a log of this process that was closed just now has let go of its file: sled's threads hold it, locked, until they are
/// done. Other processes are kept out by the lock of the data folder.
fn await_release(db: &Path) -> Result<()> {
    let file = match File::open(db) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|error| failed(db, "open", error))?,
    };
    let began = Instant::now();
    while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && began.elapsed() < CLOSING_MAX {
        std::thread::sleep(CLOSING_PAUSE);
    }
    Ok(())
}

/// Everything that sled makes at the beginning, onto the disk, before the mark says that there is a log.
fn begin(data: &Path, folder: &Path, mark: &Path, db: &Db, head: Head) -> Result<()> {
    if head != Head::default() {
        return Err(damaged(mark, "is missing"));
    }
    db.flush().map_err(|error| broken(folder, "flush", error))?;
    for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, "list", error))? {
        let synced = entry.and_then(|entry| File::open(entry.path())).and_then(|file| file.sync_all());
        synced.map_err(|error| failed(folder, "sync", error))?;
    }
    sync_folder(folder)?;
    sync_folder(data)?;
    MarkFile::create(mark)
}

/// Reads the whole log: it is there from its first entry to its last, each entry follows the one before, and nothing else is there.
fn verify(db: &Db, folder: &Path, head: &Head) -> Result<()> {
    let Some((first, last)) = head.first.zip(head.last) else {
        return if db.scan_prefix([ENTRY]).next().is_none() {
            Ok(())
        } else {
            Err(lost(folder, 0, "belongs to no log"))
        };
    };
    let mut before = (head.purged.and_then(|id| id.index.checked_add(1)) == Some(first)).then_some(head.base);
    let mut next = first;
    for record in records(db, folder, 0..u64::MAX) {
        let (index, record) = record?;
        if index != next {
            return Err(lost(folder, next, "is missing"));
        }
        let (entry, digest) = chain::decode(index, &record, before).map_err(|error| unfit(folder, index, &error))?;
        before = Some(digest);
        next = next.saturating_add(1);
        if index == last.index && entry.log_id != last {
            return Err(lost(folder, index, "is not the one that was written last"));
        }
    }
    if next != last.index.saturating_add(1) || before != Some(head.tail) {
        return Err(lost(folder, next, "is missing, or not the one that was written"));
    }
    Ok(())
}

fn unfit(folder: &Path, index: u64, error: &ChainError) -> Error {
    match error.is_of_newer() {
        true => {
            newer(&folder.join("db"), format!("entry {index} of the raft log is not known to this verger: {error}"))
        }
        false => lost(folder, index, error),
    }
}

fn lost(folder: &Path, index: u64, what: impl std::fmt::Display) -> Error {
    damaged(&folder.join("db"), format!("entry {index} of the raft log {what}"))
}

/// Records of these indexes, put together again.
fn records(db: &Db, folder: &Path, range: Range<u64>) -> impl Iterator<Item = Result<(u64, Vec<u8>)>> {
    let folder = folder.to_owned();
    let mut values = db.range(key(range.start, 0)..key(range.end, 0)).peekable();
    std::iter::from_fn(move || {
        let (mut index, mut record) = (None, Vec::new());
        while let Some(value) = values.next_if(|value| match value {
            Ok((key, _)) => index.is_none() || index_of(key) == index,
            Err(_) => index.is_none(),
        }) {
            match value {
                Ok((key, part)) => {
                    index = index_of(&key);
                    if index.is_none() {
                        return Some(Err(lost(&folder, range.start, "has a key that is none of ours")));
                    }
                    record.extend_from_slice(&part);
                }
                Err(error) => return Some(Err(broken(&folder, "read", error))),
            }
        }
        index.map(|index| Ok((index, record)))
    })
}

fn put(batch: &mut Batch, index: u64, record: &[u8]) -> Result<()> {
    for (part, value) in record.chunks(VALUE_BYTES_MAX).enumerate() {
        let too_long = |_| Error::new(ErrorKind::Internal, format!("raft entry {index} has too many parts"));
        batch.insert(&key(index, u16::try_from(part).map_err(too_long)?), value);
    }
    Ok(())
}

/// Removes the entries of these indexes.
fn remove(db: &Db, folder: &Path, batch: &mut Batch, range: Range<u64>) -> Result<()> {
    for found in db.range(key(range.start, 0)..key(range.end, 0)).keys() {
        batch.remove(found.map_err(|error| broken(folder, "read", error))?);
    }
    Ok(())
}

impl DurableLog for SledLog {
    fn append(&self, entries: &[LogEntry]) -> Result<()> {
        self.change(|db, batch, head| {
            let entries = chain::unpurged(entries, head.purged);
            let Some(first) = entries.first() else { return Ok(()) };
            self.cut(db, batch, head, first.log_id.index)?;
            for entry in entries {
                chain::check_follows(head.last.or(head.purged), entry.log_id)?;
                let index = entry.log_id.index;
                let record = chain::encode(entry, &mut head.tail).map_err(|error| {
                    Error::new(ErrorKind::Internal, format!("encode raft entry {index}")).with_source(error)
                })?;
                put(batch, index, &record)?;
                head.first = head.first.or(Some(index));
                head.last = Some(entry.log_id);
            }
            Ok(())
        })
    }

    fn truncate(&self, from: u64) -> Result<()> {
        self.change(|db, batch, head| self.cut(db, batch, head, from))
    }

    fn purge(&self, up_to: LogId) -> Result<()> {
        self.change(|db, batch, head| {
            if head.purged >= Some(up_to) {
                return Ok(());
            }
            let Some((first, last)) = head.first.zip(head.last).filter(|(_, last)| last.index > up_to.index) else {
                remove(db, &self.folder, batch, 0..u64::MAX)?;
                head.base = if head.last == Some(up_to) { head.tail } else { Digest::default() };
                (head.purged, head.first, head.last, head.tail) = (Some(up_to), None, None, head.base);
                return Ok(());
            };
            head.base = match first <= up_to.index {
                true => last_of(db, &self.folder, up_to.index)?.1,
                false => Digest::default(),
            };
            let kept = up_to.index.saturating_add(1);
            remove(db, &self.folder, batch, first..kept)?;
            (head.purged, head.first, head.last) = (Some(up_to), Some(first.max(kept)), Some(last));
            Ok(())
        })
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>> {
        let (db, head) = self.view()?;
        let Some((first, last)) = head.first.zip(head.last) else { return Ok(Vec::new()) };
        let range = range.start.max(first)..range.end.min(last.index.saturating_add(1));
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let (mut entries, mut before, mut bytes) = (Vec::new(), None, 0usize);
        let mut next = range.start;
        for record in records(&db, &self.folder, range.clone()) {
            let (index, record) = record?;
            bytes = bytes.saturating_add(record.len());
            if bytes > bytes_max && !entries.is_empty() {
                return Ok(entries);
            }
            if index != next {
                break;
            }
            let (entry, digest) =
                chain::decode(index, &record, before).map_err(|error| unfit(&self.folder, index, &error))?;
            before = Some(digest);
            entries.push(entry);
            next = next.saturating_add(1);
        }
        // Another thread may have removed entries from either end since.
        let now = self.lock().head;
        let is_gone = now.purged.is_some_and(|id| id.index >= next) || now.last.is_none_or(|id| id.index < next);
        if next == range.end || is_gone { Ok(entries) } else { Err(lost(&self.folder, next, "is missing")) }
    }

    fn extent(&self) -> Result<Extent> {
        let (_, head) = self.view()?;
        Ok(Extent { purged: head.purged, last: head.last.or(head.purged) })
    }

    fn save_vote(&self, vote: &Vote) -> Result<()> {
        self.change(|_, _, head| {
            head.vote = Some(*vote);
            Ok(())
        })
    }

    fn vote(&self) -> Result<Option<Vote>> {
        Ok(self.view()?.1.vote)
    }

    fn save_committed(&self, committed: Option<LogId>) -> Result<()> {
        let (db, _) = self.view()?;
        let kept = db.insert(COMMITTED, encode(Kind::RaftCommitted, &committed)?);
        kept.map(drop).map_err(|error| broken(&self.folder, "write", error))
    }

    fn committed(&self) -> Result<Option<LogId>> {
        let (db, _) = self.view()?;
        match db.get(COMMITTED).map_err(|error| broken(&self.folder, "read", error))? {
            Some(bytes) => envelope::decode(Kind::RaftCommitted, &bytes)
                .map_err(|error| files::unfit(&self.folder.join("db"), &error).at("read how far the log is committed")),
            None => Ok(None),
        }
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    fn blocks(&self) -> bool {
        true
    }

    fn close(&self) {
        let Some(open) = self.lock().open.take() else { return };
        let closed = self.sync(&open).and_then(|()| open.mark.sync());
        if let Err(error) = closed {
            tracing::warn!(error = %error.chain(), "the raft log was not closed cleanly");
        }
    }
}

/// The entry at `index`, and the digest of its record.
fn last_of(db: &Db, folder: &Path, index: u64) -> Result<(LogEntry, Digest)> {
    let found = records(db, folder, index..index.saturating_add(1)).next();
    let (_, record) = found.unwrap_or_else(|| Err(lost(folder, index, "is missing")))?;
    chain::decode(index, &record, None).map_err(|error| unfit(folder, index, &error))
}
