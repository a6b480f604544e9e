//! A network in memory, for tests and simulations: nodes come and go, messages are lost, late, or cut off one way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::{Answering, Call, Reply, Transport, Unreached};
use crate::raft::node::Node;
use crate::raft::runtime::split_mix;
use crate::raft::types::Peer;

/// A network in memory. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork(Arc<Mutex<Wires>>);

#[derive(Debug, Default)]
struct Wires {
    nodes: BTreeMap<u64, Weak<Node>>,
    cut: BTreeSet<(u64, u64)>,
    lost_permille: u64,
    delay_milliseconds: (u64, u64),
    chance: u64,
}

impl Wires {
    fn next(&mut self) -> u64 {
        let (state, number) = split_mix(self.chance);
        self.chance = state;
        number
    }
}

impl MemoryNetwork {
    /// A network whose losses and delays follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Wires { chance: seed, ..Wires::default() })))
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node is reached under this number from now on, as long as it lives.
    pub fn join(&self, id: u64, node: &Arc<Node>) {
        self.wires().nodes.insert(id, Arc::downgrade(node));
    }

    /// Nobody is reached under this number any more.
    pub fn leave(&self, id: u64) {
        self.wires().nodes.remove(&id);
    }

    /// Nothing gets from `from` to `to` any more; the other way is not touched.
    pub fn cut(&self, from: u64, to: u64) {
        self.wires().cut.insert((from, to));
    }

    /// All wires are whole again.
    pub fn heal(&self) {
        let mut wires = self.wires();
        wires.cut.clear();
        (wires.lost_permille, wires.delay_milliseconds) = (0, (0, 0));
    }

    /// So many of a thousand messages are lost.
    pub fn lose(&self, permille: u64) {
        self.wires().lost_permille = permille;
    }

    /// Each message takes between so many milliseconds.
    pub fn delay(&self, from: u64, to: u64) {
        self.wires().delay_milliseconds = (from, to);
    }

    /// One way through.
    async fn hop(&self, from: u64, to: u64) -> Result<(), Unreached> {
        let (delay, is_lost) = {
            let mut wires = self.wires();
            let (least, most) = wires.delay_milliseconds;
            let delay = least.saturating_add(wires.next() % most.saturating_sub(least).saturating_add(1));
            let is_lost = wires.next() % 1000 < wires.lost_permille || wires.cut.contains(&(from, to));
            (delay, is_lost)
        };
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if is_lost { Err(Unreached(format!("node {to} does not answer"))) } else { Ok(()) }
    }
}

fn garbled(error: verger_proto::envelope::EnvelopeError) -> Unreached {
    Unreached(error.to_string())
}

impl Transport for MemoryNetwork {
    /// Calls and answers take the form in which they cross a wire.
    fn call<'a>(&'a self, _peer: &'a Peer, call: Call, _at_most: Duration) -> Answering<'a> {
        Box::pin(async move {
            let (from, to, level, head) = (call.from, call.to, call.level, call.head);
            let sent = call.encode().map_err(garbled)?;
            self.hop(from, to).await?;
            let node = self.wires().nodes.get(&to).and_then(Weak::upgrade);
            let node = node.ok_or_else(|| Unreached(format!("node {to} is not there")))?;
            let call = Call { level, head, ..Call::decode(&sent).map_err(garbled)? };
            let reply = node.serve(call).await;
            let (level, answer) = (reply.level, reply.encode().map_err(garbled)?);
            self.hop(to, from).await?;
            Ok(Reply { level, ..Reply::decode(&answer).map_err(garbled)? })
        })
    }
}
