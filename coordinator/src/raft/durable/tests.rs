//! Both logs, held to openraft's suite and to our own.

use std::path::Path;
use std::sync::Arc;

use openraft::testing::{StoreBuilder, Suite};
use verger_kopia::error::ErrorKind;

use super::memory::MemoryLog;
use super::sled::SledLog;
use super::{DurableLog, Extent};
use crate::raft::log_store::LogStore;
use crate::raft::state_machine::StateMachine;
use crate::raft::testing::{entry, log_id};
use crate::raft::types::{StorageError, TypeConfig, Vote};

mod damage;
mod power;

struct OnDisk;
struct InMemory;

fn build(log: impl FnOnce(&Path) -> Arc<dyn DurableLog>) -> (tempfile::TempDir, LogStore, StateMachine) {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::new(log(folder.path()));
    let machine = StateMachine::open(folder.path()).unwrap();
    (folder, store, machine)
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError> {
        Ok(build(|folder| Arc::new(SledLog::open(folder).unwrap())))
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for InMemory {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError> {
        Ok(build(|_| Arc::new(MemoryLog::default())))
    }
}

#[test]
fn openrafts_suite_holds_on_disk() {
    Suite::test_all(OnDisk).unwrap();
}

#[test]
fn openrafts_suite_holds_in_memory() {
    Suite::test_all(InMemory).unwrap();
}

/// The same calls to both, and the same answers; on disk also after it was opened again.
#[test]
fn disk_and_memory_give_the_same() {
    type Call<'a> = &'a dyn Fn(&dyn DurableLog);
    let folder = tempfile::tempdir().unwrap();
    let memory = MemoryLog::default();
    let mut disk = SledLog::open(folder.path()).unwrap();
    let both = |disk: &SledLog, call: Call<'_>| {
        call(disk);
        call(&memory);
    };
    let vote = Vote::new_committed(3, 2);
    let calls: [Call<'_>; 7] = [
        &|log| log.append(&(1..=20).map(|index| entry(1, index, 30_000)).collect::<Vec<_>>()).unwrap(),
        &|log| log.truncate(15).unwrap(),
        &|log| log.append(&[entry(2, 15, 0), entry(2, 16, 2 << 20)]).unwrap(),
        &|log| log.purge(log_id(1, 9)).unwrap(),
        &|log| log.save_vote(&vote).unwrap(),
        &|log| log.truncate(16).unwrap(),
        &|log| log.purge(log_id(5, 99)).unwrap(),
    ];
    for call in calls {
        both(&disk, call);
        drop(disk);
        disk = SledLog::open(folder.path()).unwrap();
        assert_eq!(disk.extent().unwrap(), memory.extent().unwrap());
        assert_eq!(disk.vote().unwrap(), memory.vote().unwrap());
        for range in [0..100, 3..5, 9..11, 15..17, 40..50] {
            assert_eq!(disk.read(range.clone(), usize::MAX).unwrap(), memory.read(range, usize::MAX).unwrap());
        }
        assert_eq!(disk.read(10..17, 1).unwrap().len(), memory.read(10..17, 1).unwrap().len());
    }
    assert_eq!(disk.extent().unwrap(), Extent { purged: Some(log_id(5, 99)), last: Some(log_id(5, 99)) });
    assert_eq!(disk.append(&[entry(5, 101, 0)]).unwrap_err().kind(), ErrorKind::Internal);
    disk.append(&[entry(5, 100, 0)]).unwrap();
    disk.save_committed(Some(log_id(5, 100))).unwrap();
    disk.close();
    assert_eq!(disk.append(&[entry(5, 101, 0)]).unwrap_err().kind(), ErrorKind::Interrupted);
    let disk = SledLog::open(folder.path()).unwrap();
    assert_eq!(disk.committed().unwrap(), Some(log_id(5, 100)));
}

/// What sled writes into files of their own, it does not sync.
#[test]
fn long_entries_never_take_sleds_blob_path() {
    let folder = tempfile::tempdir().unwrap();
    let log = SledLog::open(folder.path()).unwrap();
    for index in 1..=40 {
        log.append(&[entry(1, index, 300_000)]).unwrap();
    }
    log.purge(log_id(1, 20)).unwrap();
    log.append(&[entry(1, 41, 3 << 20)]).unwrap();
    log.close();
    drop(log);
    drop(SledLog::open(folder.path()).unwrap());
    assert_eq!(std::fs::read_dir(folder.path().join("log").join("blobs")).unwrap().count(), 0);
}

#[test]
fn a_closed_memory_log_refuses_its_old_handle() {
    let log = MemoryLog::default();
    log.append(&[entry(1, 1, 0)]).unwrap();
    let fresh = log.reopen();
    assert_eq!(log.append(&[entry(1, 2, 0)]).unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(fresh.extent().unwrap().last, Some(log_id(1, 1)));
}
