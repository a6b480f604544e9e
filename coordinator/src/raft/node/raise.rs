//! The leader raises the cluster's level as soon as every member, voter or not, has said that its program knows more.

use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::metrics::RaftServerMetrics;
use rand_core::RngCore;
use tokio::task::AbortHandle;
use verger_kopia::clock::Clock;
use verger_kopia::error::Result;
use verger_proto::{Command, CommandId, LogTime, Proposal};

use super::Node;
use crate::raft::network::Links;
use crate::raft::runtime::Chance;
use crate::raft::types::{Peer, TypeConfig};

/// How often it looks at what members say of their programs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Node {
    /// What this node's program knows.
    #[must_use]
    pub fn program_level(&self) -> u32 {
        self.options.level
    }

    /// What another node's program knows, if it was heard a moment ago; 0: it does not say.
    #[must_use]
    pub fn level_of(&self, node: u64) -> Option<u32> {
        if node == self.options.id { Some(self.options.level) } else { self.links.levels.of(node) }
    }

    /// Another node says what the cluster goes by. A program that knows less stops.
    ///
    /// # Errors
    /// `Unsupported`: this one does.
    pub(in crate::raft) fn hear_level(&self, cluster: u32) -> Result<()> {
        self.links.levels.hear(cluster)
    }
}

/// Looks for as long as the node lives.
pub(super) fn watch(links: &Links, raft: &Raft<TypeConfig>, clock: Arc<dyn Clock>, at_most: Duration) -> AbortHandle {
    let (links, raft, mut metrics) = (links.clone(), raft.clone(), raft.server_metrics());
    let watch = async move {
        loop {
            let next = next(&metrics.borrow_and_update(), &links);
            if let Some(level) = next {
                let (id, at) = (CommandId(Chance.next_u64().into()), LogTime::of(clock.now()));
                let proposal = Proposal { id, at, actor: None, command: Command::RaiseLevel { level } };
                match tokio::time::timeout(at_most, raft.client_write(proposal)).await {
                    Ok(Ok(_)) => {
                        tracing::info!(level, "the level is raised: programs that know less do not take part any more")
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "the level was not raised"),
                    Err(_) => tracing::debug!("the level was not raised in time"),
                }
            }
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    };
    tokio::spawn(watch).abort_handle()
}

/// The level that there should be, if this node leads and it is a higher one.
fn next(metrics: &RaftServerMetrics<u64, Peer>, links: &Links) -> Option<u32> {
    let leads = metrics.state.is_leader() && metrics.current_leader == Some(metrics.id);
    let members = metrics.membership_config.nodes().map(|(id, _)| *id);
    let common = leads.then(|| links.levels.common(metrics.id, members))?;
    (common > links.levels.cluster()).then_some(common)
}
