//! Programs that know different things in one cluster: it goes by what all of them know, and who knows less does not take part.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::EntryPayload;
use openraft::storage::RaftStateMachine as _;
use serde_json::Value;
use verger_kopia::clock::SystemClock;
use verger_kopia::error::{Error, ErrorKind};
use verger_proto::level::LEVEL;
use verger_proto::{Command, CommandId, Event, LogTime, Proposal, SeenLease, StoreTime, Term};

use crate::api::{Members as _, MembersError, Newcomer};
use crate::ledger::file::FileLedger;
use crate::raft::members::Members;
use crate::raft::network::clocks::Clocks;
use crate::raft::node::{Node, NodeOptions, SubmitError};
use crate::raft::snapshot::{self, LedgerHead, Replicated, Unread};
use crate::raft::state_machine::StateMachine;
use crate::raft::testing::{Cluster, in_virtual_time, log_id, proposal};
use crate::raft::types::{LogEntry, Peer};
use crate::testing::repository;

/// A program that knows one thing more than this one.
const NEWER: u32 = LEVEL + 1;
/// Long enough for the leader to hear all, and to ask.
const SOON: std::time::Duration = std::time::Duration::from_secs(4);

async fn start(cluster: &mut Cluster, id: u64, level: u32) {
    let options = NodeOptions { level, ..cluster.options(id) };
    cluster.start_with(options).await;
}

/// Waits until all have applied the same; who has ended by itself never does.
async fn settle(cluster: &Cluster) {
    let all = tokio::time::timeout(std::time::Duration::from_secs(60), cluster.settle()).await;
    all.expect("a node has ended by itself");
}

async fn restart(cluster: &mut Cluster, id: u64, level: u32) {
    cluster.stop(id).await;
    start(cluster, id, level).await;
    settle(cluster).await;
}

async fn begun(levels: [u32; 3]) -> Cluster {
    let mut cluster = Cluster { level: LEVEL, ..Cluster::empty(7) };
    for (id, level) in (1..).zip(levels) {
        start(&mut cluster, id, level).await;
    }
    cluster.initialize().await;
    settle(&cluster).await;
    cluster
}

/// What every node goes by, once all have said what they know.
async fn level(cluster: &Cluster) -> u32 {
    tokio::time::sleep(SOON).await;
    settle(cluster).await;
    let levels: Vec<u32> = cluster.nodes.values().map(|node| node.state(|state| state.level)).collect();
    assert!(levels.iter().all(|level| *level == levels[0]), "{levels:?}");
    levels[0]
}

fn raised(cluster: &Cluster, id: u64) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    FileLedger::read(&cluster.data(id).join("ledger"), |record| {
        for event in &record.entry.events {
            if let Event::LevelRaised { level, before } = event {
                found.push((*before, *level));
            }
        }
        Ok(())
    })
    .unwrap();
    found
}

fn is_too_old(error: &Error, own: u32, cluster: u32) -> bool {
    let said = error.chain();
    let names = said.contains(&format!("level {own}")) && said.contains(&format!("level {cluster}"));
    error.kind() == ErrorKind::Unsupported && names && error.fix().is_some()
}

#[test]
fn p6_the_level_rises_when_every_member_knows_more_and_not_before() {
    in_virtual_time(11, async {
        let mut cluster = begun([LEVEL; 3]).await;
        assert_eq!(level(&cluster).await, LEVEL);
        for id in 1..=2 {
            restart(&mut cluster, id, NEWER).await;
            assert_eq!(level(&cluster).await, LEVEL, "coordinator 3 knows less");
        }
        let leader = cluster.nodes[&cluster.leader().await].clone();
        let early = leader.propose(CommandId(77), None, Command::RaiseLevel { level: NEWER }).await;
        let refused = matches!(early, Err(SubmitError::Level { needs: NEWER, has: LEVEL, .. }));
        assert!(refused, "what only the newer ones know is not taken: {early:?}");
        drop(leader);
        cluster.submit(proposal(1, 10)).await;
        restart(&mut cluster, 3, NEWER).await;
        assert_eq!(level(&cluster).await, NEWER);
        assert_eq!(raised(&cluster, 3), [(0, LEVEL), (LEVEL, NEWER)], "each once, and in the ledger");
        assert_eq!(cluster.ledger(1), cluster.ledger(3));
        cluster.stop_all().await;
    });
}

#[test]
fn p6_who_only_learns_and_who_does_not_answer_hold_the_level_down() {
    in_virtual_time(12, async {
        let mut cluster = begun([LEVEL; 3]).await;
        start(&mut cluster, 4, LEVEL).await;
        let leader = cluster.nodes[&cluster.leader().await].clone();
        leader.add_learner(4, Peer::at("memory:4")).await.unwrap();
        drop(leader);
        for id in 1..=3 {
            restart(&mut cluster, id, NEWER).await;
        }
        assert_eq!(level(&cluster).await, LEVEL, "a learner knows less");
        cluster.stop(4).await;
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        assert_eq!(level(&cluster).await, LEVEL, "nobody knows what will be started in its place");
        start(&mut cluster, 4, NEWER).await;
        assert_eq!(level(&cluster).await, NEWER);
        cluster.stop_all().await;
    });
}

#[test]
fn p6_programs_from_before_there_were_levels_get_nothing_that_they_do_not_know() {
    in_virtual_time(13, async {
        let mut cluster = begun([LEVEL, 0, LEVEL]).await;
        assert_eq!(level(&cluster).await, 0);
        let (holder, acts_until, expires) = ("other@fleet".to_owned(), StoreTime(5), StoreTime(9));
        let lease = Box::new(SeenLease { holder, term: Term(9), acts_until, expires, free: false });
        let note = Command::NoteLease { repository: repository(), lease };
        for (number, node) in (1..).zip(cluster.nodes.values()) {
            let answer = node.propose_anywhere(CommandId(number), None, note.clone()).await;
            assert!(matches!(answer, Err(SubmitError::Level { needs: 1, has: 0, .. })), "{answer:?}");
        }
        restart(&mut cluster, 2, LEVEL).await;
        assert_eq!(level(&cluster).await, LEVEL);
        let node = cluster.nodes[&2].clone();
        node.propose_anywhere(CommandId(9), None, note).await.unwrap();
        drop(node);
        cluster.stop_all().await;
    });
}

#[test]
fn p6_a_program_that_knows_less_than_its_cluster_ends_and_says_both_levels() {
    in_virtual_time(14, async {
        let mut cluster = begun([NEWER; 3]).await;
        assert_eq!(level(&cluster).await, NEWER);
        let victim = (1..=3).find(|id| *id != 2).unwrap();
        // By its own log, as it starts.
        cluster.stop(victim).await;
        let error = Node::open(cluster.options(victim)).await.unwrap_err();
        assert!(is_too_old(&error, LEVEL, NEWER), "{error:?}");
        // By its snapshot, which has the log purged.
        start(&mut cluster, victim, NEWER).await;
        for number in 1..=100 {
            cluster.submit(proposal(number, 10)).await;
        }
        settle(&cluster).await;
        cluster.stop(victim).await;
        assert!(cluster.data(victim).join("snapshot").exists());
        let error = Node::open(cluster.options(victim)).await.unwrap_err();
        assert!(is_too_old(&error, LEVEL, NEWER), "{error:?}");
        // By others, in an empty folder: before it has applied anything.
        start(&mut cluster, 4, LEVEL).await;
        let leader = cluster.nodes[&cluster.leader().await].clone();
        leader.begin_learner(4, Peer::at("memory:4")).await.unwrap();
        drop(leader);
        let node = cluster.nodes[&4].clone();
        let error = tokio::time::timeout(SOON, node.stopped()).await.unwrap();
        assert!(is_too_old(&error, LEVEL, NEWER), "{error:?}");
        assert_eq!((node.state(|state| state.level), *node.applied().borrow()), (0, 0));
        drop(node);
        // Nothing is lost: with a program that knows enough it is there again.
        start(&mut cluster, victim, NEWER).await;
        cluster.stop(4).await;
        start(&mut cluster, 4, NEWER).await;
        cluster.submit(proposal(101, 10)).await;
        settle(&cluster).await;
        assert_eq!(cluster.ledger(victim), cluster.ledger(4));
        cluster.stop_all().await;
    });
}

#[tokio::test]
async fn p6_nothing_is_applied_from_the_entry_on_that_raises_the_level_too_far() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = StateMachine::open(folder.path()).unwrap();
    let raise = |index, level| {
        let command = Command::RaiseLevel { level };
        let proposal = Proposal { id: CommandId(index), at: LogTime(1), actor: None, command };
        LogEntry { log_id: log_id(1, u64::try_from(index).unwrap()), payload: EntryPayload::Normal(proposal) }
    };
    machine.apply([raise(1, LEVEL)]).await.unwrap();
    let before = machine.ledger().head;
    let after = LogEntry { log_id: log_id(1, 3), payload: EntryPayload::Normal(proposal(3, 10)) };
    let error = machine.apply([raise(2, NEWER), after]).await.unwrap_err();
    assert!(error.to_string().contains(&format!("level {NEWER}")), "{error}");
    assert_eq!((machine.last_applied(), machine.ledger().head), (Some(log_id(1, 1)), before));
    assert_eq!(machine.state(|state| state.level), LEVEL);
}

#[test]
fn a_snapshot_of_a_higher_level_is_for_programs_that_know_it() {
    let mut replicated = Replicated::default();
    replicated.state.level = NEWER;
    let bytes = snapshot::encode(&replicated, LedgerHead::default()).unwrap();
    assert_eq!(snapshot::decode(&bytes, NEWER).unwrap().0, replicated);
    assert_eq!(snapshot::decode(&bytes, LEVEL).unwrap_err(), Unread::Level(NEWER));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_program_that_knows_less_is_not_let_in() {
    let mut cluster = Cluster::knowing(1, NEWER).await;
    cluster.leveled().await;
    let clocks = Clocks::new(Arc::new(SystemClock));
    let members = Members::new(cluster.nodes[&1].clone(), clocks, tokio::runtime::Handle::current());
    let newcomer = |level| {
        let (peer_address, api_address) = ("memory:2".to_owned(), "http://b.example:7420".to_owned());
        Newcomer { node: 2, key: 7, peer_address, api_address, replaces: None, level }
    };
    // It waits for answers, so it is asked from outside.
    let asked = tokio::task::spawn_blocking(move || {
        let [old, new] = [LEVEL, NEWER].map(|level| members.admit("ann", &newcomer(level)));
        // That a member was added is agreed to in time for the answer; what shows members follows.
        let began = Instant::now();
        let is_shown = |status: &Value| status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2);
        let mut status = members.status();
        while !is_shown(&status) && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(10));
            status = members.status();
        }
        (old, new, status)
    });
    let (old, new, status) = asked.await.unwrap();
    assert!(matches!(old, Err(MembersError::TooOld { knows: LEVEL, cluster: NEWER })), "{old:?}");
    new.unwrap();
    assert_eq!((&status["level"], &status["nodes"][0]["level"]), (&NEWER.into(), &NEWER.into()), "{status}");
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(2), "{status}");
    cluster.stop_all().await;
}
