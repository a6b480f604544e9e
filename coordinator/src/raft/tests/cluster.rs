//! Three nodes: what was answered stays, whoever leads; replicas are equal.

use verger_proto::{LogTime, Proposal};

use crate::raft::testing::{Cluster, proposal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_is_replaced_and_comes_back_equal() {
    let mut cluster = Cluster::new(3).await;
    for number in 1..=20 {
        assert_eq!(cluster.submit(proposal(number, 10)).await.len(), 1);
    }
    let old = cluster.leader().await;
    cluster.stop(old).await;
    // More than a snapshot and what is kept after it, so that the log alone does not bring the old leader back.
    for number in 21..=150 {
        let behind = number % 7 * 300;
        cluster.submit(Proposal { at: LogTime(2_000 + number - behind.min(number)), ..proposal(number, 10) }).await;
    }
    // Asked again: the answer of the first time, and no second record.
    let again = cluster.submit(proposal(1, 10)).await;
    assert_eq!(again.len(), 1);
    let leader = cluster.leader().await;
    let mut metrics = cluster.nodes[&leader].metrics();
    metrics.wait_for(|metrics| metrics.purged.is_some_and(|id| id.index > 30)).await.unwrap();
    cluster.start(old).await;
    cluster.settle().await;
    assert!(cluster.nodes[&old].metrics().borrow().snapshot.is_some_and(|id| id.index > 30), "it came by snapshot");
    let ledger = cluster.ledger(1);
    assert_eq!((&cluster.ledger(2), &cluster.ledger(3)), (&ledger, &ledger));
    let states: Vec<_> = cluster.nodes.values().map(|node| node.state(Clone::clone)).collect();
    assert!(states.iter().all(|state| *state == states[0]));
    let (mut records, mut now) = (0, LogTime(0));
    let folder = cluster.data(1).join("ledger");
    crate::ledger::file::FileLedger::read(&folder, |record| {
        records += 1;
        assert!(record.at >= now, "time never runs backwards");
        now = record.at;
        Ok(())
    })
    .unwrap();
    assert_eq!(records, 150, "each command once");
    cluster.stop_all().await;
    for id in 1..=3 {
        cluster.start(id).await;
    }
    cluster.submit(proposal(151, 10)).await;
    cluster.settle().await;
    let longer = cluster.ledger(1);
    assert!(longer.starts_with(&ledger) && longer.len() > ledger.len());
    assert_eq!((&cluster.ledger(2), &cluster.ledger(3)), (&longer, &longer));
    cluster.stop_all().await;
}
