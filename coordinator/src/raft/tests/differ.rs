//! A node whose program makes another thing of a command than the leader's notices, and takes no part any more.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::EntryPayload;
use verger_kopia::error::{ErrorKind, Result};
use verger_proto::{Command, CommandId, Proposal};

use crate::raft::durable::memory::MemoryLog;
use crate::raft::durable::{DurableLog, Extent};
use crate::raft::node::Node;
use crate::raft::testing::{Cluster, in_virtual_time, proposal};
use crate::raft::types::{LogEntry, LogId, Vote};

/// The command that another program applies in another way.
const ODD: u64 = 7;

/// Plays another program: what it reads of the log is another command.
#[derive(Debug)]
struct Odd(MemoryLog, Arc<AtomicBool>);

impl DurableLog for Odd {
    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>> {
        let mut entries = self.0.read(range, bytes_max)?;
        for entry in entries.iter_mut().filter(|_| self.1.load(Ordering::Relaxed)) {
            if let EntryPayload::Normal(Proposal { id, command: Command::AbortCycle { cycle, .. }, .. }) =
                &mut entry.payload
                && *id == CommandId(u128::from(ODD))
            {
                cycle.0 += 1;
            }
        }
        Ok(entries)
    }

    fn append(&self, entries: &[LogEntry]) -> Result<()> {
        self.0.append(entries)
    }

    fn truncate(&self, from: u64) -> Result<()> {
        self.0.truncate(from)
    }

    fn purge(&self, up_to: LogId) -> Result<()> {
        self.0.purge(up_to)
    }

    fn extent(&self) -> Result<Extent> {
        self.0.extent()
    }

    fn save_vote(&self, vote: &Vote) -> Result<()> {
        self.0.save_vote(vote)
    }

    fn vote(&self) -> Result<Option<Vote>> {
        self.0.vote()
    }

    fn save_committed(&self, committed: Option<LogId>) -> Result<()> {
        self.0.save_committed(committed)
    }

    fn committed(&self) -> Result<Option<LogId>> {
        self.0.committed()
    }

    fn changes(&self) -> u64 {
        self.0.changes()
    }

    fn blocks(&self) -> bool {
        self.0.blocks()
    }

    fn close(&self) {
        self.0.close();
    }
}

#[test]
fn p4_a_node_whose_ledger_is_not_the_leaders_stops_and_its_folder_is_not_opened_again() {
    in_virtual_time(15, async {
        let mut cluster = Cluster::empty(7);
        let odd: Vec<Arc<AtomicBool>> = (0..3).map(|_| Arc::default()).collect();
        for (id, is_odd) in (1..).zip(odd.iter().cloned()) {
            let log = move |_: &_| Ok(Arc::new(Odd(MemoryLog::default(), is_odd)) as Arc<dyn DurableLog>);
            let node = Node::open_with(cluster.options(id), log).await.unwrap();
            cluster.join(id, node);
        }
        cluster.initialize().await;
        for number in 1..ODD {
            cluster.submit(proposal(number, 10)).await;
        }
        cluster.settle().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let all_run = cluster.nodes.values().all(|node| node.metrics().borrow().running_state.is_ok());
        assert!(all_run, "as long as they are one, nobody minds");
        let leader = cluster.leader().await;
        let victim = 1 + leader % 3;
        odd[usize::try_from(victim).unwrap() - 1].store(true, Ordering::Relaxed);
        cluster.submit(proposal(ODD, 10)).await;
        let node = cluster.nodes[&victim].clone();
        let error = tokio::time::timeout(Duration::from_secs(5), node.stopped()).await.unwrap();
        let fix = error.fix().unwrap_or_default();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.chain().contains("not the leader's") && fix.contains("verger cluster replace"), "{error:?}");
        drop(node);
        cluster.stop(victim).await;
        let again = Node::open(cluster.options(victim)).await.unwrap_err();
        assert!(again.kind() == ErrorKind::Damaged && again.chain().contains("not to be the leader's"), "{again:?}");
        // The others go on.
        cluster.submit(proposal(ODD + 1, 10)).await;
        cluster.settle().await;
        cluster.stop_all().await;
    });
}
