//! Nodes that archive their ledgers into one store.

use std::sync::Arc;

use verger_kopia::error::ErrorKind;
use verger_kopia::storage::fault::{Call, Fault, FaultStorage};
use verger_kopia::storage::{Access, FsStorage, MemoryStorage, Storage, list_all};

use crate::api::{Events as _, LedgerEvents};
use crate::ledger::archive::Archive;
use crate::ledger::archive::index::Index;
use crate::ledger::segment;
use crate::raft::node::{Node, NodeOptions, Pace};
use crate::raft::stopped::StoppedLedger;
use crate::raft::testing::{Cluster, in_virtual_time, proposal};

const SEGMENT_BYTES: u64 = 4_000;

fn options(cluster: &Cluster, id: u64) -> NodeOptions {
    let options = cluster.options(id);
    NodeOptions { pace: Pace { segment_bytes: SEGMENT_BYTES, ..options.pace }, ..options }
}

fn archive(store: &Arc<FaultStorage>) -> Arc<Archive> {
    let store = store.clone();
    Arc::new(Archive::new("memory://attic", "attic", 1, move || Ok(store.clone())))
}

async fn start(cluster: &mut Cluster, id: u64, store: &Arc<FaultStorage>) -> Arc<Archive> {
    let node = Node::open(options(cluster, id)).await.unwrap();
    let archive = archive(store);
    node.archive_to(archive.clone());
    cluster.join(id, node);
    archive
}

fn records(cluster: &Cluster, id: u64, archive: Arc<Archive>) -> u64 {
    let folder = cluster.data(id).join("ledger");
    let events = LedgerEvents::new(&folder).with_archive(&folder, archive);
    let mut records = 0;
    events
        .read(0, &mut |record| {
            assert_eq!(record.sequence, records);
            records += 1;
            Ok(())
        })
        .unwrap();
    records
}

async fn archived(cluster: &Cluster, id: u64, most: usize) {
    let folder = cluster.data(id).join("ledger");
    while segment::local(&folder).unwrap().len() > most {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

#[test]
fn replicas_archive_and_a_new_one_gets_what_no_disk_has() {
    in_virtual_time(11, async {
        let mut cluster = Cluster::empty(11);
        let store = Arc::new(FaultStorage::new(Arc::new(MemoryStorage::default())));
        let mut archives = Vec::new();
        for id in 1..=3 {
            archives.push(start(&mut cluster, id, &store).await);
        }
        cluster.initialize().await;
        store.script(Call::Put, "", 2, 3, Fault::Unavailable);
        store.script(Call::Put, "", 6, 1, Fault::TimeoutAfter);
        for number in 1..=400 {
            cluster.submit(proposal(number, 100)).await;
        }
        cluster.settle().await;
        for id in 1..=3 {
            cluster.nodes[&id].snapshot_now().await.unwrap();
        }
        for id in 1..=3 {
            // One closed, one that is written to, and what no snapshot has come to.
            archived(&cluster, id, 4).await;
        }
        let objects = list_all(&*store, "").unwrap().len();
        assert!(objects > 10, "{objects}");
        let whole: Vec<_> = (1..=3).map(|id| records(&cluster, id, archives[id as usize - 1].clone())).collect();
        assert_eq!(whole, [400, 400, 400]);

        let lost = (1..=3).find(|id| !cluster.nodes[id].leads()).unwrap();
        cluster.stop(lost).await;
        let new = start(&mut cluster, 4, &store).await;
        let leader = cluster.leader().await;
        let node = cluster.nodes[&leader].clone();
        node.add_learner(4, crate::raft::types::Peer::at("memory:4")).await.unwrap();
        cluster.settle().await;
        assert_eq!(records(&cluster, 4, new), 400);
        drop(node);
        cluster.stop_all().await;

        // Started again, with most of the ledger elsewhere.
        let again = start(&mut cluster, 1, &store).await;
        assert_eq!(records(&cluster, 1, again), 400);
        cluster.stop_all().await;
    });
}

/// A stopped node whose older segments are archived, and what of its ledger is on its disk.
async fn stopped(store: &Arc<FaultStorage>) -> (Cluster, Vec<std::path::PathBuf>) {
    let mut cluster = Cluster::empty(12);
    let archive = start(&mut cluster, 1, store).await;
    cluster.initialize().await;
    for number in 1..=300 {
        cluster.submit(proposal(number, 100)).await;
    }
    archived(&cluster, 1, 4).await;
    while archive.pending() > 0 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    cluster.stop(1).await;
    let folder = cluster.data(1).join("ledger");
    let here = segment::local(&folder).unwrap().into_iter().map(|first| segment::path(&folder, first)).collect();
    (cluster, here)
}

#[test]
fn a_stopped_ledger_is_checked_and_made_whole() {
    let store = Arc::new(FaultStorage::new(Arc::new(MemoryStorage::default())));
    let (mut cluster, here) = in_virtual_time(12, stopped(&store));
    let (data, archive) = (cluster.data(1), archive(&store));
    let check = |archive: Option<&Archive>| StoppedLedger::open(&data).unwrap().check(archive).unwrap();
    let whole = check(Some(&archive));
    assert!(whole.problems.is_empty() && whole.archived > 5 && whole.here > 0, "{whole:?}");
    assert_eq!(check(None).objects_read, 0);
    assert!(whole.objects_read > whole.archived, "the one that is kept here, too: {whole:?}");

    let good = std::fs::read(&here[0]).unwrap();
    let rotten = [vec![1, 2, 3], good[..good.len() / 2].to_vec(), [&good[..700], &[9], &good[701..]].concat()];
    let index = crate::ledger::archive::index::path(&data.join("ledger"));
    let known = std::fs::read(&index).unwrap();
    for (number, bad) in rotten.into_iter().enumerate() {
        std::fs::write(&here[0], &bad).unwrap();
        // With the last, this node does not know any more that it was archived.
        if number == 2 {
            let mut shorter = Index::load(&data.join("ledger")).unwrap();
            shorter.forget_last();
            shorter.write(&data.join("ledger")).unwrap();
        }
        let found = check(None);
        assert_eq!(found.problems.len(), 1, "{found:?}");
        let path = here[0].to_str().unwrap();
        assert!(found.problems[0].chain().contains(path), "{found:?}");
        let restored = StoppedLedger::open(&data).unwrap().restore(&archive).unwrap();
        assert_eq!(restored, [here[0].clone()], "{number}");
        assert!(std::fs::read(&here[0]).unwrap() == good && check(None).problems.is_empty(), "{number}");
        assert!(StoppedLedger::open(&data).unwrap().restore(&archive).unwrap().is_empty());
        std::fs::write(&index, &known).unwrap();
    }
    // What nobody archived is asked of another node.
    let (_, known) = crate::raft::snapshot::load(&data, verger_proto::level::LEVEL).unwrap().unwrap();
    let folder = data.join("ledger");
    let first = segment::local(&folder).unwrap().into_iter().rfind(|first| *first < known.records);
    let last = &segment::path(&folder, first.unwrap());
    let present = std::fs::read(last).unwrap();
    std::fs::write(last, b"").unwrap();
    let error = StoppedLedger::open(&data).unwrap().restore(&archive).unwrap_err();
    assert!(error.kind() == ErrorKind::Damaged && error.fix().unwrap().contains("from another node"), "{error:?}");
    std::fs::write(last, present).unwrap();

    in_virtual_time(13, async {
        let again = start(&mut cluster, 1, &store).await;
        assert_eq!(StoppedLedger::open(&data).unwrap_err().kind(), ErrorKind::Locked);
        assert_eq!(records(&cluster, 1, again), 300);
        cluster.stop_all().await;
    });
    let nothing = tempfile::tempdir().unwrap();
    assert_eq!(StoppedLedger::open(nothing.path()).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Segments of their real length, over a real folder.
#[tokio::test]
async fn eight_mebibytes_and_a_folder() {
    let attic = tempfile::tempdir().unwrap();
    let path = attic.path().to_owned();
    let open = move || FsStorage::open(&path, Access::ReadWrite).map(|store| Arc::new(store) as Arc<dyn Storage>);
    let archive = Arc::new(Archive::new("filesystem:///attic", "attic", 1, open));
    let mut cluster = Cluster::new(1).await;
    cluster.nodes[&1].archive_to(archive.clone());
    for number in 1..=60 {
        cluster.submit(proposal(number, 1 << 20)).await;
    }
    cluster.nodes[&1].snapshot_now().await.unwrap();
    archived(&cluster, 1, 2).await;
    let objects: Vec<_> = std::fs::read_dir(attic.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    // Eight of these records fill a segment.
    assert_eq!(objects.len(), 60 / 8, "{objects:?}");
    assert_eq!(records(&cluster, 1, archive), 60);
    cluster.stop_all().await;
}
