//! A majority is gone for good, and a cluster is made of what is left.

use std::collections::BTreeSet;

use verger_kopia::error::ErrorKind;
use verger_proto::{CommandId, LogTime};

use crate::raft::identity;
use crate::raft::network::{Answer, Call, Request};
use crate::raft::node::{Node, NodeOptions};
use crate::raft::recover::{Found, Survivor};
use crate::raft::testing::{Cluster, in_virtual_time, proposal};

const ANEW: &str = "attic+1";

fn recover(cluster: &Cluster, id: u64) -> Found {
    let survivor = Survivor::open(&cluster.data(id)).unwrap();
    let found = survivor.found();
    survivor.recover(ANEW, "ann@cellar", CommandId(1 << 100), LogTime(5_000)).unwrap();
    found
}

fn options(cluster: &Cluster, id: u64) -> NodeOptions {
    NodeOptions { cluster: ANEW.to_owned(), ..cluster.options(id) }
}

#[test]
fn what_is_left_goes_on_alone_with_all_that_it_had_and_takes_in_others() {
    for commands in [30, 100] {
        in_virtual_time(commands, async {
            let mut cluster = Cluster::new(3).await;
            for number in 1..=commands {
                cluster.submit(proposal(number, 10)).await;
            }
            cluster.settle().await;
            let survivor = (1..=3).find(|id| !cluster.nodes[id].leads()).unwrap();
            cluster.stop_all().await;
            let before = cluster.ledger(survivor);
            let found = recover(&cluster, survivor);
            assert_eq!((found.cluster.as_str(), found.node), ("attic", survivor));
            assert_eq!(found.voters, BTreeSet::from([1, 2, 3]));
            assert!(found.last_index > commands && found.committed <= found.last_index, "{found:?}");
            let again = Survivor::open(&cluster.data(survivor)).unwrap();
            assert_eq!((again.found().cluster, again.found().voters), (ANEW.to_owned(), BTreeSet::from([survivor])));
            assert_eq!(again.check().unwrap_err().kind(), ErrorKind::Usage, "it is alone already");
            drop(again);
            cluster.start_with(options(&cluster, survivor)).await;
            assert_eq!(cluster.leader().await, survivor);
            cluster.submit(proposal(1_000, 10)).await;
            let after = cluster.ledger(survivor);
            assert!(after.starts_with(&before) && after.len() > before.len(), "nothing that it had is gone");
            let told = String::from_utf8_lossy(&after[before.len()..]).into_owned();
            assert!(told.contains("ann@cellar") && told.contains(ANEW), "the ledger says who did it");
            // Asked again, a command from before is still known.
            let node = cluster.nodes[&survivor].clone();
            let length = cluster.ledger(survivor).len();
            node.submit(proposal(commands, 10)).await.unwrap();
            assert_eq!(cluster.ledger(survivor).len(), length);
            // A new one gets all.
            cluster.start_with(options(&cluster, 4)).await;
            node.add_learner(4, crate::raft::types::Peer::at("memory:4")).await.unwrap();
            node.change_members(BTreeSet::from([survivor, 4])).await.unwrap();
            cluster.submit(proposal(1_001, 10)).await;
            cluster.settle().await;
            assert_eq!(cluster.ledger(4), cluster.ledger(survivor));
            cluster.stop_all().await;
        });
    }
}

#[test]
fn folders_of_before_are_not_of_it() {
    in_virtual_time(9, async {
        let mut cluster = Cluster::new(3).await;
        cluster.submit(proposal(1, 10)).await;
        cluster.settle().await;
        cluster.stop_all().await;
        recover(&cluster, 1);
        let old = Node::open(cluster.options(1)).await.unwrap_err();
        assert_eq!(old.kind(), ErrorKind::Usage, "by its old name it is not opened");
        cluster.start_with(options(&cluster, 1)).await;
        cluster.leader().await;
        let call = |request| {
            let (standing, known) = Default::default();
            Call { cluster: "attic".to_owned(), from: 2, to: 1, standing, known, request, level: 0, head: None }
        };
        let vote = openraft::raft::VoteRequest::new(openraft::Vote::new(1_000, 2), None);
        for request in [Request::Vote(vote), Request::Ledger { from: 0, bytes_max: 1 }, Request::Submit(proposal(5, 1))]
        {
            let answer = cluster.nodes[&1].serve(call(request)).await.answer;
            assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
        }
        // The others come back all the same: each side goes on by itself, and neither hears the other.
        cluster.start(2).await;
        cluster.start(3).await;
        cluster.nodes[&1].submit(proposal(6, 10)).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(30)).await;
        assert!(cluster.nodes[&1].leads());
        cluster.nodes[&1].submit(proposal(7, 10)).await.unwrap();
        let members: Vec<u64> = cluster.nodes[&1].metrics().borrow().membership_config.voter_ids().collect();
        assert_eq!(members, [1]);
        cluster.stop_all().await;
    });
}

#[test]
fn given_up_half_way_the_same_again_ends_it() {
    in_virtual_time(11, async {
        let mut cluster = Cluster::new(3).await;
        cluster.submit(proposal(1, 10)).await;
        cluster.settle().await;
        cluster.stop_all().await;
        let (before, lock) = identity::open_stopped(&cluster.data(1)).unwrap();
        identity::rename(&cluster.data(1), &before, ANEW).unwrap();
        drop(lock);
        cluster.start_with(options(&cluster, 1)).await;
        cluster.start(2).await;
        for id in [1, 2] {
            assert!(cluster.nodes[&id].submit(proposal(3, 10)).await.is_err(), "{id}: neither has a majority");
        }
        cluster.stop_all().await;
        let survivor = Survivor::open(&cluster.data(1)).unwrap();
        assert_eq!(survivor.found().cluster, ANEW);
        survivor.recover("attic+2", "ann@cellar", CommandId(1 << 100), LogTime(5_000)).unwrap();
        cluster.start_with(NodeOptions { cluster: "attic+2".to_owned(), ..cluster.options(1) }).await;
        assert_eq!(cluster.leader().await, 1);
        cluster.submit(proposal(2, 10)).await;
        cluster.stop_all().await;
    });
}

#[test]
fn only_a_stopped_voter_with_sound_files_is_taken() {
    in_virtual_time(10, async {
        let mut cluster = Cluster::new(3).await;
        cluster.submit(proposal(1, 10)).await;
        let running = Survivor::open(&cluster.data(2)).unwrap_err();
        assert_eq!(running.kind(), ErrorKind::Locked);
        let leader = cluster.leader().await;
        cluster.start(4).await;
        let learner = cluster.nodes[&leader].add_learner(4, crate::raft::types::Peer::at("memory:4")).await;
        learner.unwrap();
        cluster.settle().await;
        cluster.stop_all().await;
        let learner = Survivor::open(&cluster.data(4)).unwrap();
        assert_eq!(learner.check().unwrap_err().kind(), ErrorKind::Usage, "it had no vote");
        assert!(learner.recover(ANEW, "ann", CommandId(1), LogTime(1)).is_err());
        let untouched = Survivor::open(&cluster.data(4)).unwrap();
        assert_eq!(untouched.found().cluster, "attic", "a refusal changes nothing");
        let nobody = Survivor::open(&cluster.folder.path().join("nothing")).unwrap_err();
        assert_eq!(nobody.kind(), ErrorKind::NotFound);
        std::fs::write(cluster.data(3).join("identity"), b"something else").unwrap();
        assert_eq!(Survivor::open(&cluster.data(3)).unwrap_err().kind(), ErrorKind::Damaged);
    });
}
