//! Entries, proposals and clusters for tests.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{CommittedLeaderId, EntryPayload};
use tokio::runtime::{Builder, RngSeed};
use verger_kopia::clock::SystemClock;
use verger_proto::{Command, CommandId, CycleId, Event, LogTime, Proposal};

use super::network::memory::MemoryNetwork;
use super::node::{Node, NodeOptions, Pace, SubmitError};
use super::runtime;
use super::types::{LogEntry, LogId, Peer};

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

/// A command that is refused, which is an event, of about so many bytes.
pub(crate) fn proposal(number: u64, bytes: usize) -> Proposal {
    let command = Command::AbortCycle { cycle: CycleId(number), reason: "x".repeat(bytes) };
    Proposal { id: CommandId(u128::from(number)), at: LogTime(1_000 + number), actor: None, command }
}

pub(crate) fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    LogEntry { log_id: log_id(term, index), payload: EntryPayload::Normal(proposal(index, bytes)) }
}

pub(crate) fn pace() -> Pace {
    Pace {
        heartbeat: Duration::from_millis(100),
        election: (Duration::from_millis(400), Duration::from_millis(800)),
        answer: Duration::from_secs(5),
        snapshot_entries: 40,
        kept_entries: 10,
        segment_bytes: crate::ledger::segment::SEGMENT_BYTES,
    }
}

/// Runs on this thread, in virtual time: nothing depends on how busy the machine is, and the same seed gives the same again.
pub(crate) fn in_virtual_time<T>(seed: u64, work: impl Future<Output = T>) -> T {
    runtime::set_seed(Some(seed));
    let mut machine = Builder::new_current_thread();
    let machine = machine.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()));
    let done = machine.build().unwrap().block_on(work);
    runtime::set_seed(None);
    done
}

/// Nodes 1 to n on a network in memory, each on a folder of its own.
pub(crate) struct Cluster {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) network: MemoryNetwork,
    pub(crate) nodes: BTreeMap<u64, Arc<Node>>,
    /// What programs know. Of such that know no levels, nothing gets into the log but what a test asks.
    pub(crate) level: u32,
}

impl Cluster {
    pub(crate) async fn new(size: u64) -> Self {
        Self::knowing(size, 0).await
    }

    /// Of programs that know this level.
    pub(crate) async fn knowing(size: u64, level: u32) -> Self {
        let mut cluster = Self { level, ..Self::empty(7) };
        for id in 1..=size {
            cluster.start(id).await;
        }
        cluster.initialize().await;
        cluster
    }

    pub(crate) fn empty(seed: u64) -> Self {
        let (folder, network) = (tempfile::tempdir().unwrap(), MemoryNetwork::new(seed));
        Self { folder, network, nodes: BTreeMap::new(), level: 0 }
    }

    pub(crate) async fn initialize(&self) {
        let members = self.nodes.keys().map(|id| (*id, Peer::at(format!("memory:{id}")))).collect();
        self.nodes[&1].initialize(members).await.unwrap();
    }

    pub(crate) fn data(&self, id: u64) -> PathBuf {
        self.folder.path().join(id.to_string())
    }

    pub(crate) fn options(&self, id: u64) -> NodeOptions {
        NodeOptions {
            id,
            cluster: "attic".to_owned(),
            data_dir: self.data(id),
            transport: Arc::new(self.network.clone()),
            clock: Arc::new(SystemClock),
            effects: None,
            pace: pace(),
            level: self.level,
        }
    }

    pub(crate) async fn start(&mut self, id: u64) {
        let options = self.options(id);
        self.start_with(options).await;
    }

    pub(crate) async fn start_with(&mut self, options: NodeOptions) {
        let id = options.id;
        self.join(id, Node::open(options).await.unwrap());
    }

    pub(crate) fn join(&mut self, id: u64, node: Node) {
        let node = Arc::new(node);
        self.network.join(id, &node);
        self.nodes.insert(id, node);
    }

    pub(crate) async fn stop(&mut self, id: u64) {
        self.network.leave(id);
        self.nodes.remove(&id).unwrap().shutdown().await;
    }

    pub(crate) async fn leader(&self) -> u64 {
        loop {
            // Whoever was stopped or cut off is believed to lead for a while.
            for (id, node) in &self.nodes {
                if node.leads() && node.linearizable().await.is_ok() {
                    return *id;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks whoever leads, again and again, until there is an answer.
    pub(crate) async fn submit(&self, proposal: Proposal) -> Vec<Event> {
        loop {
            for node in self.nodes.values() {
                match node.submit(proposal.clone()).await {
                    Ok(events) => return events,
                    Err(SubmitError::Stopped(error)) => panic!("{error:?}"),
                    Err(_) => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all nodes have applied all that the leader has, also what nobody waits for any more.
    pub(crate) async fn settle(&self) -> u64 {
        loop {
            let leader = self.leader().await;
            let index = self.nodes[&leader].metrics().borrow().last_log_index.unwrap_or_default();
            if self.nodes.values().all(|node| *node.applied().borrow() == index) {
                return index;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all nodes go by what their programs know.
    pub(crate) async fn leveled(&self) {
        while self.nodes.values().any(|node| node.state(|state| state.level) < self.level) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn ledger(&self, id: u64) -> Vec<u8> {
        std::fs::read(self.data(id).join("ledger").join("ledger")).unwrap()
    }

    pub(crate) async fn stop_all(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(id).await;
        }
    }
}
