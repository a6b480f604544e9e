//! The network between coordinators: messages are late, lost, overtaken, and come twice; wires are cut one way or both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use verger_coordinator::raft::network::{Answering, Call, Reply, Transport, Unreached};
use verger_coordinator::raft::node::Node;
use verger_coordinator::raft::types::Peer;

/// What befalls messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Of a thousand, so many are lost.
    pub lost: u32,
    /// Of a thousand, so many come twice, the second time up to five seconds late.
    pub twice: u32,
    /// Of a thousand, so many take up to two seconds: others overtake them.
    pub late: u32,
    /// The others take up to so many milliseconds.
    pub slow: u64,
}

#[derive(Debug)]
struct Wires {
    nodes: BTreeMap<u64, Weak<Node>>,
    cut: BTreeSet<(u64, u64)>,
    weather: Weather,
    dice: SmallRng,
}

/// The network. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Network(Arc<Mutex<Wires>>);

fn garbled(error: verger_proto::envelope::EnvelopeError) -> Unreached {
    Unreached(error.to_string())
}

impl Network {
    pub fn new(seed: u64) -> Self {
        let dice = SmallRng::seed_from_u64(seed ^ 0x6e65_7477_6f72_6b00);
        let (nodes, cut, weather) = (BTreeMap::new(), BTreeSet::new(), Weather::default());
        Self(Arc::new(Mutex::new(Wires { nodes, cut, weather, dice })))
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn join(&self, id: u64, node: &Arc<Node>) {
        self.wires().nodes.insert(id, Arc::downgrade(node));
    }

    pub fn leave(&self, id: u64) {
        self.wires().nodes.remove(&id);
    }

    /// Nothing gets from `from` to `to` any more.
    pub fn cut(&self, from: u64, to: u64) {
        self.wires().cut.insert((from, to));
    }

    /// The node and all others: nothing gets through, in either direction.
    pub fn isolate(&self, id: u64, others: &[u64]) {
        for other in others.iter().filter(|other| **other != id) {
            self.cut(id, *other);
            self.cut(*other, id);
        }
    }

    pub fn mend(&self) {
        self.wires().cut.clear();
    }

    pub fn set_weather(&self, weather: Weather) {
        self.wires().weather = weather;
    }

    pub fn weather(&self) -> Weather {
        self.wires().weather
    }

    /// One way through.
    async fn hop(&self, from: u64, to: u64) -> Result<(), Unreached> {
        let (delay, is_lost) = {
            let mut wires = self.wires();
            let weather = wires.weather;
            let is_late = wires.dice.random_range(0..1000) < weather.late;
            let delay = wires.dice.random_range(0..=if is_late { 2_000 } else { weather.slow });
            let is_lost = wires.dice.random_range(0..1000) < weather.lost;
            (delay, is_lost)
        };
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if is_lost || self.wires().cut.contains(&(from, to)) {
            return Err(Unreached(format!("node {to} does not answer")));
        }
        Ok(())
    }

    fn node(&self, id: u64) -> Result<Arc<Node>, Unreached> {
        let node = self.wires().nodes.get(&id).and_then(Weak::upgrade);
        node.ok_or_else(|| Unreached(format!("node {id} is not there")))
    }

    /// The same message once more, some time later, to whoever has that number then.
    fn again(&self, to: u64, sent: &[u8]) {
        let late = {
            let mut wires = self.wires();
            let twice = wires.weather.twice;
            (wires.dice.random_range(0..1000) < twice).then(|| wires.dice.random_range(0..5_000))
        };
        let Some(late) = late else { return };
        let (network, sent) = (self.clone(), sent.to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(late)).await;
            if let (Ok(node), Ok(call)) = (network.node(to), Call::decode(&sent)) {
                drop(node.serve(call).await);
            }
        });
    }
}

impl Transport for Network {
    /// Calls and answers take the form in which they cross a wire.
    fn call<'a>(&'a self, _: &'a Peer, call: Call, _: Duration) -> Answering<'a> {
        Box::pin(async move {
            let (from, to, level, head) = (call.from, call.to, call.level, call.head);
            let sent = call.encode().map_err(garbled)?;
            self.again(to, &sent);
            self.hop(from, to).await?;
            let node = self.node(to)?;
            let reply = node.serve(Call { level, head, ..Call::decode(&sent).map_err(garbled)? }).await;
            let (level, answer) = (reply.level, reply.encode().map_err(garbled)?);
            // A machine that ended meanwhile sends nothing.
            if !self.node(to).is_ok_and(|same| Arc::ptr_eq(&same, &node)) {
                return Err(Unreached(format!("node {to} has ended")));
            }
            drop(node);
            self.hop(to, from).await?;
            Ok(Reply { level, ..Reply::decode(&answer).map_err(garbled)? })
        })
    }
}
