//! A cluster in virtual time on one thread: the same seed gives the same run.

use std::sync::Arc;

use crate::raft::durable::memory::MemoryLog;
use crate::raft::node::Node;
use crate::raft::testing::{Cluster, in_virtual_time, proposal};

/// What happened: who led, when, and what the ledger is.
fn run(seed: u64) -> (Vec<(u64, u128, u64)>, Vec<u8>) {
    in_virtual_time(seed, async {
        let start = tokio::time::Instant::now();
        let mut cluster = Cluster::empty(seed);
        let logs: Vec<MemoryLog> = (1..=3).map(|_| MemoryLog::default()).collect();
        for id in 1..=3 {
            open(&mut cluster, id, &logs[id as usize - 1]).await;
        }
        cluster.initialize().await;
        cluster.network.lose(30);
        cluster.network.delay(0, 20);
        let mut seen = Vec::new();
        for number in 1..=60 {
            cluster.submit(proposal(number, 10)).await;
            if number % 15 == 0 {
                let leader = cluster.leader().await;
                cluster.stop(leader).await;
                let applied = cluster.submit(proposal(1_000 + number, 10)).await.len() as u64;
                open(&mut cluster, leader, &logs[leader as usize - 1]).await;
                seen.push((leader, start.elapsed().as_millis(), applied));
            }
        }
        cluster.network.heal();
        cluster.settle().await;
        let ledger = cluster.ledger(1);
        assert_eq!((&cluster.ledger(2), &cluster.ledger(3)), (&ledger, &ledger));
        cluster.stop_all().await;
        (seen, ledger)
    })
}

async fn open(cluster: &mut Cluster, id: u64, log: &MemoryLog) {
    let log = log.reopen();
    let node = Node::open_with(cluster.options(id), move |_| Ok(Arc::new(log))).await.unwrap();
    cluster.join(id, node);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..=3 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1).0, run(2).0);
}
