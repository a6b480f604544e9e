//! Effects reach whoever leads; those that a change of leader swallows are made again by the next ticks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use verger_proto::{Command, CommandId, Effect, LogTime, Mode, Proposal, StoreTime, Term};

use crate::raft::testing::{Cluster, in_virtual_time};
use crate::testing::{options, repository};

type Seen = Arc<Mutex<Vec<(Effect, u64)>>>;

fn at(seconds: u64, number: u128, command: Command) -> Proposal {
    Proposal { id: CommandId(number), at: LogTime(1_000_000 + 1_000 * seconds), actor: None, command }
}

fn kinds(seen: &Seen) -> Vec<&'static str> {
    let name = |effect: &Effect| match effect {
        Effect::OfferJob(_) => "offer",
        Effect::StopJob { .. } => "stop",
        Effect::RenewLease { .. } => "renew",
        Effect::CloseLease { .. } => "close",
    };
    seen.lock().unwrap().drain(..).map(|(effect, _)| name(&effect)).collect()
}

#[test]
fn effects_reach_the_leader_and_are_made_again_after_it_is_gone() {
    in_virtual_time(1, async {
        let mut cluster = Cluster::new(3).await;
        cluster.leader().await;
        cluster.stop_all().await;
        let seen: BTreeMap<u64, Seen> = (1..=3).map(|id| (id, Seen::default())).collect();
        for id in 1..=3 {
            let (mut options, sink) = (cluster.options(id), seen[&id].clone());
            options.effects = Some(Arc::new(move |effect, index| sink.lock().unwrap().push((effect, index))));
            cluster.start_with(options).await;
        }
        let leader = cluster.leader().await;
        let (store_now, acts_until) = (StoreTime(5), StoreTime(120_005));
        let take = Command::TakeLease { repository: repository(), term: Term(1), kept: false, store_now, acts_until };
        cluster.submit(at(0, 1, take)).await;
        let open = Command::OpenCycle { repository: repository(), options: options(Mode::Full) };
        cluster.submit(at(1, 2, open.clone())).await;
        let index = cluster.settle().await;
        assert_eq!(seen[&leader].lock().unwrap()[0].1, index);
        assert_eq!(kinds(&seen[&leader]), ["offer"]);
        // Asked again, it has its answer and no effect.
        cluster.submit(at(1, 2, open)).await;
        assert!(seen.values().all(|seen| kinds(seen).is_empty()), "followers and repetitions have none");

        cluster.stop(leader).await;
        let next = cluster.leader().await;
        assert!(kinds(&seen[&next]).is_empty());
        cluster.submit(at(70, 3, Command::Tick)).await;
        cluster.settle().await;
        assert_eq!(kinds(&seen[&next]), ["offer", "renew"]);
        cluster.start(leader).await;
        cluster.settle().await;
        assert!(kinds(&seen[&leader]).is_empty(), "what comes again from the log has no effects");
        cluster.stop_all().await;
    });
}
