use std::path::{Path, PathBuf};
use std::sync::Arc;

use verger_kopia::error::Result;
use verger_kopia::storage::fault::FaultStorage;
use verger_kopia::storage::{BlobId, ByteRange, MemoryStorage, PutOptions, Storage, list_all};
use verger_proto::{Command, CycleId, Event, LogTime, Refusal};

use crate::ledger::archive::Archive;
use crate::ledger::archive::index::Index;
use crate::ledger::folder::{LedgerFolder, Place};
use crate::ledger::{Entry, Record, segment};
use crate::raft::ledger::{LedgerHead, ReplicaLedger};

pub(super) const SEGMENT_BYTES: u64 = 2_000;
pub(super) const ADDRESS: &str = "memory://attic";

pub(super) fn entry(number: u64) -> Entry {
    let cycle = CycleId(number);
    let reason = Refusal::UnknownCycle;
    let refused = Event::CommandRefused { command: "park_cycle".to_owned(), cycle: Some(cycle), job: None, reason };
    Entry { command: Command::ParkCycle { cycle }, events: vec![refused] }
}

pub(super) fn append(ledger: &mut ReplicaLedger, numbers: std::ops::Range<u64>) {
    for number in numbers {
        ledger.append(LogTime(1_000 + number), &entry(number)).unwrap();
    }
}

/// A replica's ledger of small segments, and a store for it.
pub(super) struct Rig {
    pub(super) folder: tempfile::TempDir,
    pub(super) ledger: ReplicaLedger,
    pub(super) inner: Arc<MemoryStorage>,
    pub(super) store: Arc<FaultStorage>,
    pub(super) archive: Arc<Archive>,
}

impl Rig {
    pub(super) fn new(records: u64, keep_local: u32) -> Self {
        let inner = Arc::new(MemoryStorage::default());
        Self::over(inner, records, keep_local)
    }

    /// Another replica, or the same records again, over the same store.
    pub(super) fn over(inner: Arc<MemoryStorage>, records: u64, keep_local: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = ReplicaLedger::open(folder.path(), LedgerHead::default(), SEGMENT_BYTES).unwrap();
        append(&mut ledger, 0..records);
        ledger.reader().sync().unwrap();
        let store = Arc::new(FaultStorage::new(inner.clone()));
        let archive = archive(store.clone(), keep_local);
        Self { folder, ledger, inner, store, archive }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// One round, after a snapshot of all that there is.
    pub(super) fn round(&self) -> u64 {
        let (folder, segments) = self.ledger.reader().segments(self.ledger.head().records);
        self.archive.round(&folder, &segments)
    }

    /// As a new process: nothing in memory.
    pub(super) fn restarted(&self, keep_local: u32) -> Arc<Archive> {
        archive(self.store.clone(), keep_local)
    }

    pub(super) fn reader(&self) -> LedgerFolder {
        LedgerFolder::new(self.path(), Some(self.archive.clone()))
    }

    pub(super) fn index(&self) -> Index {
        Index::load(self.path()).unwrap()
    }

    pub(super) fn local(&self) -> Vec<u64> {
        segment::local(self.path()).unwrap()
    }

    pub(super) fn objects(&self) -> Vec<String> {
        let mut names: Vec<_> =
            list_all(&*self.inner, "").unwrap().iter().map(|blob| blob.id.as_str().to_owned()).collect();
        names.sort();
        names
    }

    pub(super) fn object(&self, name: &str) -> Vec<u8> {
        self.inner.get(&BlobId::new(name), ByteRange::All).unwrap().to_vec()
    }

    pub(super) fn set_object(&self, name: &str, bytes: Vec<u8>) {
        self.inner.put(&BlobId::new(name), bytes.into(), &PutOptions::default()).unwrap();
    }

    pub(super) fn remove_object(&self, name: &str) {
        assert!(self.inner.delete(&[BlobId::new(name)], None).failed.is_empty());
    }

    pub(super) fn forget_fetched(&self) {
        let _ = std::fs::remove_dir_all(self.path().join("fetched"));
    }
}

pub(super) fn archive(store: Arc<dyn Storage>, keep_local: u32) -> Arc<Archive> {
    Arc::new(Archive::new(ADDRESS, "attic", keep_local, move || Ok(store.clone())))
}

/// Numbers of all records, which follow each other.
pub(super) fn read(ledger: &LedgerFolder) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    ledger.read_on(Place::default(), |record, place| {
        assert_eq!((record.sequence, place.next()), (records.len() as u64, records.len() as u64 + 1));
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry: std::fs::DirEntry = entry.unwrap();
        let target: PathBuf = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
