//! Who belongs to the cluster: newcomers get everything first, and vote as soon as they have caught up.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use verger_proto::{Command, CommandId, Event, Ordered};

use super::network::clocks::Clocks;
use super::node::{Node, SubmitError};
use super::types::Peer;
use crate::api::{Members as Shown, MembersError, Newcomer};

/// How often the leader looks for newcomers that have caught up.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A change of the members takes at most this.
const CHANGE: Duration = Duration::from_secs(10);
/// Entries that a newcomer may lack when it begins to vote.
const BEHIND_MAX: u64 = 50;
/// A majority that was heard of longer ago is none.
const QUORUM_MILLISECONDS_MAX: u64 = 5_000;

type Metrics = openraft::RaftMetrics<u64, Peer>;

/// The members of a node's cluster.
#[derive(Clone, Debug)]
pub struct Members {
    node: Arc<Node>,
    clocks: Clocks,
    runtime: Handle,
}

/// Where a node stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// It leads, and a majority hears it.
    Leads,
    /// It follows this node.
    Follows(u64),
    /// Nobody leads as far as it knows, for this reason.
    Lost(String),
}

fn fresh() -> CommandId {
    CommandId(rand::rng().random())
}

impl Members {
    /// Of `node`, which runs on `runtime` and hears the others' `clocks`.
    #[must_use]
    pub fn new(node: Arc<Node>, clocks: Clocks, runtime: Handle) -> Self {
        Self { node, clocks, runtime }
    }

    fn metrics(&self) -> Metrics {
        self.node.metrics().borrow().clone()
    }

    /// Where this node stands.
    #[must_use]
    pub fn role(&self) -> Role {
        let metrics = self.metrics();
        if let Err(fatal) = &metrics.running_state {
            return Role::Lost(format!("this coordinator has stopped: {fatal}"));
        }
        let voters = metrics.membership_config.voter_ids().count();
        if metrics.membership_config.nodes().all(|(id, _)| *id != metrics.id) {
            return Role::Lost(format!("coordinator {} is not a member of the cluster (yet, or any more)", metrics.id));
        }
        match metrics.current_leader {
            Some(leader) if leader != metrics.id => Role::Follows(leader),
            Some(_) if voters > 1 && metrics.millis_since_quorum_ack.is_none_or(|ms| ms > QUORUM_MILLISECONDS_MAX) => {
                Role::Lost(format!("fewer than {} of {voters} coordinators answer", voters / 2 + 1))
            }
            Some(_) => Role::Leads,
            None => Role::Lost(format!("nobody leads now: {} of {voters} coordinators must run", voters / 2 + 1)),
        }
    }

    /// Address of a member's API.
    #[must_use]
    pub fn api_of(&self, id: u64) -> Option<String> {
        let metrics = self.metrics();
        let peer = metrics.membership_config.nodes().find(|(of, _)| **of == id).map(|(_, peer)| peer.api.clone());
        peer.filter(|api| !api.is_empty())
    }

    fn leader_api(&self) -> Option<String> {
        self.metrics().current_leader.and_then(|leader| self.api_of(leader))
    }

    /// Sees to it that newcomers become voters, as long as this lives; `begun`: number and key of this node, if it began the cluster.
    pub async fn look_after(self, begun: Option<(u64, u128)>) {
        loop {
            if self.node.leads() {
                if let Some((node, key)) = begun.filter(|(node, _)| self.node.state(|s| !s.nodes.contains_key(node))) {
                    let command = Command::AdmitNode { node, key, replaces: None };
                    if let Err(error) = self.node.propose(fresh(), None, command).await {
                        tracing::debug!(%error, "this node is not noted yet");
                    }
                }
                if let Some(voters) = self.next_voters() {
                    tracing::info!(?voters, "the voters change");
                    if let Err(error) = self.node.change_members(voters).await {
                        tracing::warn!(%error, "the voters did not change");
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The voters that there should be, if a newcomer has caught up.
    fn next_voters(&self) -> Option<BTreeSet<u64>> {
        let metrics = self.metrics();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let (replication, last) = (metrics.replication.as_ref()?, metrics.last_log_index.unwrap_or_default());
        let has_caught_up = |id: &u64| {
            let has = replication.get(id).copied().flatten();
            has.is_some_and(|has| has.index.saturating_add(BEHIND_MAX) >= last)
        };
        let all = metrics.membership_config.nodes().map(|(id, _)| *id);
        let id = all.filter(|id| !voters.contains(id)).find(has_caught_up)?;
        let mut next = voters;
        next.insert(id);
        let replaces = self.node.state(|state| state.nodes.get(&id).and_then(|admitted| admitted.replaces));
        replaces.map(|old| next.remove(&old));
        Some(next)
    }

    fn submit_error(&self, error: SubmitError) -> MembersError {
        match error {
            SubmitError::NotLeader { .. } => MembersError::Elsewhere(self.leader_api()),
            SubmitError::Members(why) => MembersError::Impossible(why),
            error => MembersError::Unknown(error.to_string()),
        }
    }

    /// Only who leads changes members.
    fn check_leads(&self) -> Result<(), MembersError> {
        match self.role() {
            Role::Leads => Ok(()),
            Role::Follows(leader) => Err(MembersError::Elsewhere(self.api_of(leader))),
            Role::Lost(why) => Err(MembersError::Unknown(why)),
        }
    }

    /// A majority that has just been lost would be waited for without end.
    fn in_time(&self, change: impl Future<Output = Result<(), MembersError>>) -> Result<(), MembersError> {
        let late = |_| match self.role() {
            Role::Lost(why) => Err(MembersError::Unknown(why)),
            _ => Err(MembersError::Unknown("no majority answered in time; it may still happen".to_owned())),
        };
        self.runtime.block_on(async { tokio::time::timeout(CHANGE, change).await.unwrap_or_else(late) })
    }

    /// Keeps in the ledger who wants what, before it happens.
    async fn order(&self, actor: &str, command: Command) -> Result<(), MembersError> {
        let command = Command::Ordered(Box::new(Ordered { actor: actor.to_owned(), command }));
        let asked = self.node.propose(fresh(), Some(actor.to_owned()), command).await;
        let events = asked.map_err(|error| self.submit_error(error))?;
        match events.first() {
            Some(Event::CommandRefused { reason, .. }) => Err(MembersError::Refused(reason.clone())),
            _ => Ok(()),
        }
    }

    async fn admit(&self, actor: &str, newcomer: &Newcomer) -> Result<(), MembersError> {
        let Newcomer { node, key, replaces, level: knows, .. } = *newcomer;
        self.check_leads()?;
        let cluster = self.node.state(|state| state.level);
        if knows < cluster {
            return Err(MembersError::TooOld { knows, cluster });
        }
        let metrics = self.metrics();
        let known = metrics.membership_config.nodes().find(|(id, _)| **id == node).map(|(_, peer)| peer.clone());
        let peer = Peer { address: newcomer.peer_address.clone(), api: newcomer.api_address.clone() };
        let other = metrics.membership_config.nodes().find(|(id, at)| **id != node && at.address == peer.address);
        if let Some((other, _)) = other.filter(|(other, _)| replaces != Some(**other)) {
            let why = format!("coordinator {other} is reached at {} already", peer.address);
            return Err(MembersError::Impossible(why));
        }
        self.order(actor, Command::AdmitNode { node, key, replaces }).await?;
        let changed = match known {
            None => self.node.begin_learner(node, peer).await,
            Some(known) if known != peer => {
                self.order(actor, Command::MoveNode { node, address: peer.address.clone() }).await?;
                self.node.set_address(node, peer).await
            }
            Some(_) => Ok(()),
        };
        changed.map_err(|error| self.submit_error(error))
    }

    async fn remove(&self, actor: &str, node: u64) -> Result<(), MembersError> {
        self.check_leads()?;
        let metrics = self.metrics();
        if metrics.membership_config.nodes().all(|(id, _)| *id != node) {
            return Err(MembersError::Impossible(format!("coordinator {node} is not a member")));
        }
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        if voters.iter().all(|voter| *voter == node) {
            return Err(MembersError::Impossible("the last coordinator cannot be removed".to_owned()));
        }
        self.order(actor, Command::DismissNode { node }).await?;
        if !voters.contains(&node) {
            return self.node.remove_learner(node).await.map_err(|error| self.submit_error(error));
        }
        let rest: BTreeSet<u64> = voters.into_iter().filter(|id| *id != node).collect();
        self.node.change_members(rest).await.map_err(|error| self.submit_error(error))
    }
}

impl Shown for Members {
    fn status(&self) -> Value {
        let metrics = self.metrics();
        let last = metrics.last_log_index.unwrap_or_default();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let has = |id: u64| match (&metrics.replication, id == metrics.id) {
            (_, true) => Some(metrics.last_applied.map_or(0, |id| id.index)),
            (Some(replication), false) => replication.get(&id).copied().flatten().map(|id| id.index),
            (None, false) => None,
        };
        let nodes: Vec<Value> = metrics
            .membership_config
            .nodes()
            .map(|(id, peer)| {
                let mut value = json!({
                    "node": id,
                    "peerAddress": peer.address,
                    "apiAddress": peer.api,
                    "votes": voters.contains(id),
                    "leader": metrics.current_leader == Some(*id),
                });
                if let Some(index) = has(*id) {
                    value["index"] = json!(index);
                    value["behind"] = json!(last.saturating_sub(index));
                }
                if let Some(ahead) = self.clocks.ahead(*id) {
                    value["clockAheadMs"] = json!(ahead);
                }
                if let Some(level) = self.node.level_of(*id) {
                    value["level"] = json!(level);
                }
                value
            })
            .collect();
        let mut value = json!({
            "cluster": self.node.cluster(),
            "node": metrics.id,
            "term": metrics.current_term,
            "lastIndex": last,
            "applied": metrics.last_applied.map_or(0, |id| id.index),
            "level": self.node.state(|state| state.level),
            "nodes": nodes,
        });
        match self.role() {
            Role::Leads => value["leader"] = json!(metrics.id),
            Role::Follows(leader) => value["leader"] = json!(leader),
            Role::Lost(why) => value["trouble"] = json!(why),
        }
        value
    }

    fn admit(&self, actor: &str, newcomer: &Newcomer) -> Result<(), MembersError> {
        self.in_time(self.admit(actor, newcomer))
    }

    fn remove(&self, actor: &str, node: u64) -> Result<(), MembersError> {
        self.in_time(self.remove(actor, node))
    }
}
