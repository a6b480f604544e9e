//! Cut, slow and lossy networks.

use std::time::Duration;

use crate::raft::node::SubmitError;
use crate::raft::testing::{Cluster, in_virtual_time, proposal};

fn records(cluster: &Cluster, id: u64) -> u64 {
    let folder = cluster.data(id).join("ledger");
    crate::ledger::file::FileLedger::read(&folder, |_| Ok(())).unwrap().records
}

#[test]
fn a_leader_that_is_cut_off_does_not_know_and_the_same_command_counts_once() {
    in_virtual_time(1, async {
        let mut cluster = Cluster::new(3).await;
        cluster.submit(proposal(1, 10)).await;
        let old = cluster.leader().await;
        let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
        for other in &others {
            cluster.network.cut(old, *other);
            cluster.network.cut(*other, old);
        }
        let node = cluster.nodes.remove(&old).unwrap();
        assert!(matches!(node.submit(proposal(2, 10)).await, Err(SubmitError::Unknown)));
        assert!(matches!(node.linearizable().await, Err(SubmitError::Unknown)));
        assert_eq!(cluster.submit(proposal(2, 10)).await.len(), 1);
        cluster.network.heal();
        cluster.nodes.insert(old, node);
        cluster.submit(proposal(2, 10)).await;
        cluster.submit(proposal(3, 10)).await;
        cluster.settle().await;
        assert_eq!((1..=3).map(|id| records(&cluster, id)).collect::<Vec<_>>(), [3, 3, 3]);
        cluster.stop_all().await;
    });
}

#[test]
fn replicas_stay_equal_over_a_bad_network() {
    in_virtual_time(2, async {
        let mut cluster = Cluster::new(3).await;
        cluster.leader().await;
        cluster.network.lose(50);
        cluster.network.delay(0, 15);
        for number in 1..=80 {
            if number % 20 == 0 {
                let victim = 1 + number % 3;
                cluster.network.heal();
                cluster.network.delay(0, 15);
                cluster.network.cut(victim, 1 + victim % 3);
            }
            cluster.submit(proposal(number, 10)).await;
        }
        cluster.network.heal();
        cluster.settle().await;
        tokio::time::timeout(Duration::from_secs(20), cluster.settle()).await.unwrap();
        let ledger = cluster.ledger(1);
        assert_eq!((&cluster.ledger(2), &cluster.ledger(3)), (&ledger, &ledger));
        assert_eq!(records(&cluster, 1), 80);
        cluster.stop_all().await;
    });
}

/// Together they are longer than a message may be.
#[test]
fn a_node_that_lacks_many_long_entries_gets_them_in_parts() {
    in_virtual_time(3, async {
        let mut cluster = Cluster::new(3).await;
        let leader = cluster.leader().await;
        let late = (1..=3).find(|id| *id != leader).unwrap();
        cluster.stop(late).await;
        for number in 1..=6 {
            cluster.submit(proposal(number, 3_500_000)).await;
        }
        cluster.start(late).await;
        tokio::time::timeout(Duration::from_secs(20), cluster.settle()).await.unwrap();
        assert_eq!(cluster.ledger(late), cluster.ledger(leader));
        cluster.stop_all().await;
    });
}
