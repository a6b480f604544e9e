//! A cluster in virtual time on one thread: the same seed gives the same run.

use std::sync::Arc;
use std::time::Duration;

use rand_core::RngCore;

use crate::raft::durable::memory::MemoryLog;
use crate::raft::node::Node;
use crate::raft::runtime::Chance;
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

/// Nodes come and go, wires are cut one way or both, messages are late or lost: then all is healed, and all must be there once.
fn faults(seed: u64) {
    in_virtual_time(seed, async {
        let mut cluster = Cluster::empty(seed);
        let logs: Vec<MemoryLog> = (1..=3).map(|_| MemoryLog::default()).collect();
        for id in 1..=3 {
            open(&mut cluster, id, &logs[id as usize - 1]).await;
        }
        cluster.initialize().await;
        let mut chance = Chance;
        let mut answered = Vec::new();
        for number in 1..=100 {
            let victim = 1 + chance.next_u64() % 3;
            match chance.next_u64() % 12 {
                0 if cluster.nodes.len() == 3 => cluster.stop(victim).await,
                1 | 2 if !cluster.nodes.contains_key(&victim) => {
                    open(&mut cluster, victim, &logs[victim as usize - 1]).await
                }
                3 => cluster.network.cut(victim, 1 + victim % 3),
                4 => {
                    cluster.network.cut(victim, 1 + victim % 3);
                    cluster.network.cut(1 + victim % 3, victim);
                }
                5 => cluster.network.lose(chance.next_u64() % 200),
                6 => cluster.network.delay(0, chance.next_u64() % 60),
                7 | 8 => cluster.network.heal(),
                _ => {}
            }
            let work = tokio::time::timeout(Duration::from_secs(3), cluster.submit(proposal(number, 10)));
            if let Ok(events) = work.await {
                answered.push((number, events));
            }
        }
        cluster.network.heal();
        for id in 1..=3 {
            if !cluster.nodes.contains_key(&id) {
                open(&mut cluster, id, &logs[id as usize - 1]).await;
            }
        }
        let healed = tokio::time::timeout(Duration::from_secs(20), cluster.settle()).await;
        assert!(healed.is_ok(), "seed {seed}: not one again within 20 s");
        let ledger = cluster.ledger(1);
        assert!(cluster.ledger(2) == ledger && cluster.ledger(3) == ledger, "seed {seed}: replicas differ");
        for (number, events) in &answered {
            assert_eq!(&cluster.submit(proposal(*number, 10)).await, events, "seed {seed}: answer {number}");
        }
        assert!(cluster.ledger(1) == ledger, "seed {seed}: a command counted twice");
        cluster.stop_all().await;
    });
}

#[test]
fn after_any_faults_all_that_was_answered_is_there_once() {
    (0..12).for_each(faults);
}
