//! How far jobs are: told to whoever leads, asked of whoever leads, and nothing hangs on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use verger_proto::level::LEVEL;
use verger_proto::{
    Command, CommandId, Event, JobId, LogTime, Mode, Progress, Proposal, StoreTime, Term, Ticket, Unit,
};

use crate::drive::{Backend as _, ReplicatedBackend};
use crate::raft::testing::{Cluster, in_virtual_time};
use crate::testing::{options, repository, worker};
use crate::words::Word;

fn progress(done: u64) -> Progress {
    Progress { done, total: 9, unit: Unit::Blobs }
}

/// Opens a cycle, whose first job somebody has.
async fn claimed(cluster: &Cluster) -> Ticket {
    let (store_now, acts_until) = (StoreTime(5), StoreTime(120_005));
    let take = Command::TakeLease { repository: repository(), term: Term(1), kept: false, store_now, acts_until };
    let open = Command::OpenCycle { repository: repository(), options: options(Mode::Full) };
    let mut ticket = None;
    for (number, command) in (1..).zip([Some(take), Some(open), None]) {
        let claim = || Command::ClaimJob { ticket: Ticket::clone(ticket.as_ref().unwrap()) };
        let command = command.unwrap_or_else(claim);
        let proposal = Proposal { id: CommandId(number), at: LogTime(1_000_000), actor: None, command };
        let events = cluster.submit(proposal).await;
        let offered = events.iter().find_map(|event| match event {
            Event::JobOffered { cycle, job, attempt, .. } => Some((*cycle, *job, *attempt)),
            _ => None,
        });
        if let Some((cycle, job, attempt)) = offered {
            ticket = Some(Ticket { cycle, job, attempt, term: Term(1), worker: worker("w1") });
        }
    }
    cluster.leveled().await;
    cluster.settle().await;
    ticket.unwrap()
}

#[test]
fn a_word_reaches_the_leader_and_whoever_asks_another_node() {
    in_virtual_time(3, async {
        let mut cluster = Cluster::knowing(3, LEVEL).await;
        let ticket = claimed(&cluster).await;
        let leader = cluster.leader().await;
        let mut others = (1..=3).filter(|id| *id != leader);
        let (teller, asker) = (others.next().unwrap(), others.next().unwrap());
        let last = |id: u64| cluster.nodes[&id].words().last(ticket.cycle, ticket.job, ticket.attempt);
        assert!(cluster.nodes[&teller].tell_leader(Word::of(&ticket, progress(4))).await);
        assert_eq!((last(leader), last(asker)), (Some(progress(4)), None));
        assert!(cluster.nodes[&asker].ask_words(ticket.cycle).await);
        assert_eq!(last(asker), Some(progress(4)));
        // What is of nobody's work is heard, and not kept.
        let late = Word { attempt: ticket.attempt + 1, ..Word::of(&ticket, progress(5)) };
        let strange = Word { job: JobId(99), ..late };
        for word in [late, strange] {
            assert!(cluster.nodes[&teller].tell_leader(word).await);
            assert_eq!(cluster.nodes[&leader].words().last(word.cycle, word.job, word.attempt), None);
        }
        // Nobody hears it: that is told, and all that comes of it.
        cluster.network.cut(teller, leader);
        assert!(!cluster.nodes[&teller].tell_leader(Word::of(&ticket, progress(6))).await);
        assert!(!cluster.nodes[&teller].ask_words(ticket.cycle).await);
        assert_eq!((last(leader), last(teller)), (Some(progress(4)), None));
        cluster.network.heal();
        // Whoever leads has nobody to tell.
        assert!(cluster.nodes[&leader].tell_leader(Word::of(&ticket, progress(7))).await);
        cluster.stop_all().await;
    });
}

#[test]
fn whoever_waits_at_the_leader_sees_a_word_of_a_followers_worker_within_a_second() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut cluster, ticket) = runtime.block_on(async {
        let cluster = Cluster::knowing(3, LEVEL).await;
        let ticket = claimed(&cluster).await;
        (cluster, ticket)
    });
    let leader = runtime.block_on(cluster.leader());
    let backend = |id: u64| ReplicatedBackend::new(cluster.nodes[&id].clone(), runtime.handle().clone());
    let (leading, following) = (backend(leader), Arc::new(backend(1 + leader % 3)));
    let teller = following.clone();
    let said = ticket.clone();
    let began = Instant::now();
    let speaking = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        let before = Instant::now();
        teller.tell(&said, progress(4));
        assert!(before.elapsed() < Duration::from_millis(100), "whoever works does not wait for it");
    });
    let mut seen = None;
    leading.wait(Duration::from_secs(20), &mut |_| {
        seen = leading.words().unwrap().last(ticket.cycle, ticket.job, ticket.attempt);
        seen.is_some()
    });
    speaking.join().unwrap();
    assert_eq!(seen, Some(progress(4)));
    assert!(began.elapsed() < Duration::from_millis(1_200), "it took {:?}", began.elapsed());
    // And the other way: a follower's people ask here.
    let third = backend(1 + (leader + 1) % 3);
    third.ask_words(ticket.cycle);
    assert_eq!(third.words().unwrap().last(ticket.cycle, ticket.job, ticket.attempt), Some(progress(4)));
    drop((leading, following, third));
    runtime.block_on(cluster.stop_all());
}
