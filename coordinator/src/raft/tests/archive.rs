//! Nodes that archive their ledgers into one store.

use std::sync::Arc;

use verger_kopia::storage::fault::{Call, Fault, FaultStorage};
use verger_kopia::storage::{MemoryStorage, list_all};

use crate::api::{Events as _, LedgerEvents};
use crate::ledger::archive::Archive;
use crate::ledger::segment;
use crate::raft::node::{Node, NodeOptions, Pace};
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
