//! Nodes join, leave, and belong to one cluster.

use std::collections::BTreeSet;

use crate::raft::network::{Answer, Call, Request};
use crate::raft::node::SubmitError;
use crate::raft::testing::{Cluster, proposal};
use crate::raft::types::Peer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_replaced_by_one_with_a_new_number() {
    let mut cluster = Cluster::new(3).await;
    for number in 1..=100 {
        cluster.submit(proposal(number, 10)).await;
    }
    let leader = cluster.leader().await;
    let lost = (1..=3).find(|id| *id != leader).unwrap();
    cluster.stop(lost).await;
    cluster.start(4).await;
    let node = cluster.nodes[&leader].clone();
    node.add_learner(4, Peer::at("memory:4")).await.unwrap();
    let voters: BTreeSet<u64> = (1..=4).filter(|id| *id != lost).collect();
    node.change_members(voters.clone()).await.unwrap();
    cluster.submit(proposal(101, 10)).await;
    cluster.settle().await;
    assert_eq!(cluster.ledger(4), cluster.ledger(leader));
    let members = node.metrics().borrow().membership_config.voter_ids().collect::<BTreeSet<_>>();
    assert_eq!(members, voters);
    // Two of the three are enough: the new one counts.
    let other = (1..=3).find(|id| ![leader, lost].contains(id)).unwrap();
    drop(node);
    cluster.stop(other).await;
    cluster.submit(proposal(102, 10)).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_for_another_cluster_or_node_are_refused() {
    let mut cluster = Cluster::new(1).await;
    cluster.leader().await;
    for (name, to) in [("cellar", 1), ("attic", 2)] {
        let request = Request::Ledger { from: 0, bytes_max: 1 };
        let call = Call { cluster: name.to_owned(), from: 9, to, request };
        assert!(matches!(cluster.nodes[&1].serve(call).await, Answer::Refused(_)), "{name} {to}");
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader_and_a_stopped_node_its_end() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    cluster.settle().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let expected = Some((leader, format!("memory:{leader}")));
    match cluster.nodes[&follower].submit(proposal(1, 1)).await {
        Err(SubmitError::NotLeader { leader }) => assert_eq!(leader, expected),
        other => panic!("{other:?}"),
    }
    let node = cluster.nodes[&leader].clone();
    assert!(matches!(node.submit(proposal(3, 5 << 20)).await, Err(SubmitError::TooLong { .. })));
    assert_eq!(node.submit(proposal(4, 4_000_000)).await.unwrap().len(), 1);
    node.set_address(follower, Peer::at("elsewhere")).await.unwrap();
    cluster.settle().await;
    let known = node.metrics().borrow().membership_config.nodes().find(|(id, _)| **id == follower).unwrap().1.clone();
    assert_eq!(known, Peer::at("elsewhere"));
    cluster.stop_all().await;
    assert!(matches!(node.submit(proposal(2, 1)).await, Err(SubmitError::Stopped(_))));
    node.stopped().await;
}
