//! Nodes join, leave, and belong to one cluster.

use std::collections::BTreeSet;
use std::path::Path;

use crate::raft::network::{Answer, Call, Request};
use crate::raft::node::{Node, SubmitError};
use crate::raft::testing::{Cluster, in_virtual_time, proposal};
use crate::raft::types::Peer;

#[test]
fn a_node_is_replaced_by_one_with_a_new_number() {
    in_virtual_time(1, async {
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
        let unknown = node.change_members(BTreeSet::from([leader, 77])).await;
        assert!(matches!(unknown, Err(SubmitError::Members(_))), "{unknown:?}");
        // Two of the three are enough: the new one counts.
        let other = (1..=3).find(|id| ![leader, lost].contains(id)).unwrap();
        drop(node);
        cluster.stop(other).await;
        cluster.submit(proposal(102, 10)).await;
        cluster.stop_all().await;
    });
}

#[test]
fn calls_for_another_cluster_or_node_are_refused() {
    in_virtual_time(2, async {
        let mut cluster = Cluster::new(1).await;
        cluster.leader().await;
        for (name, to) in [("cellar", 1), ("attic", 2)] {
            let request = Request::Ledger { from: 0, bytes_max: 1 };
            let (standing, known) = Default::default();
            let call = Call { cluster: name.to_owned(), from: 9, to, standing, known, request, level: 0, head: None };
            assert!(matches!(cluster.nodes[&1].serve(call).await.answer, Answer::Refused(_)), "{name} {to}");
        }
        cluster.stop_all().await;
    });
}

#[test]
fn a_follower_names_the_leader_and_a_stopped_node_its_end() {
    in_virtual_time(3, async {
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
        assert_eq!(node.submit(proposal(4, 2_000_000)).await.unwrap().len(), 1);
        node.set_address(follower, Peer::at("elsewhere")).await.unwrap();
        cluster.settle().await;
        let known =
            node.metrics().borrow().membership_config.nodes().find(|(id, _)| **id == follower).unwrap().1.clone();
        assert_eq!(known, Peer::at("elsewhere"));
        cluster.stop_all().await;
        assert!(matches!(node.submit(proposal(2, 1)).await, Err(SubmitError::Stopped(_))));
        node.stopped().await;
    });
}

/// An old copy of a disk has forgotten votes and entries that others count on.
#[test]
fn a_node_on_an_old_copy_of_its_disk_stops_and_stays_out() {
    in_virtual_time(4, async {
        let mut cluster = Cluster::new(3).await;
        for number in 1..=5 {
            cluster.submit(proposal(number, 10)).await;
        }
        let leader = cluster.leader().await;
        cluster.settle().await;
        let victim = (1..=3).find(|id| *id != leader).unwrap();
        cluster.stop(victim).await;
        let kept = tempfile::tempdir().unwrap();
        copy(&cluster.data(victim), kept.path());
        cluster.start(victim).await;
        cluster.submit(proposal(6, 10)).await;
        cluster.settle().await;
        cluster.stop(victim).await;
        cluster.submit(proposal(7, 10)).await;
        std::fs::remove_dir_all(cluster.data(victim)).unwrap();
        copy(kept.path(), &cluster.data(victim));
        cluster.start(victim).await;
        let node = cluster.nodes[&victim].clone();
        let error = tokio::time::timeout(std::time::Duration::from_secs(20), node.stopped()).await.unwrap();
        assert!(
            error.chain().contains("an old copy") && error.fix().is_some_and(|fix| fix.contains("new node ID")),
            "{error:?}"
        );
        drop(node);
        cluster.stop(victim).await;
        assert!(Node::open(cluster.options(victim)).await.unwrap_err().chain().contains("an old copy"));
        cluster.submit(proposal(8, 10)).await;
        cluster.stop_all().await;
    });
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// `verger up` is one node: whoever starts it does not wait for an election.
#[test]
fn a_node_of_its_own_leads_at_once_after_a_restart() {
    in_virtual_time(9, async {
        let mut cluster = Cluster::new(1).await;
        cluster.submit(proposal(1, 10)).await;
        cluster.stop(1).await;
        let start = tokio::time::Instant::now();
        cluster.start(1).await;
        cluster.submit(proposal(2, 10)).await;
        assert!(start.elapsed() < std::time::Duration::from_millis(100), "{:?}", start.elapsed());
        cluster.stop_all().await;
    });
}
