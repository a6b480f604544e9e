//! A raft group orders commands: this process is one of its nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;
use tokio::runtime::Handle;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::{Command, CommandId, Event};

use super::backend::Backend;
use super::words::Words;
use crate::machine::State;
use crate::raft::node::{Node, SubmitError};

/// So long a command is asked again under its number before it has no answer: a leader is chosen within seconds. With the last try it
/// is less than a call of the API may take.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);

/// Blocks on a node. Never called from the runtime's own threads.
pub struct ReplicatedBackend {
    node: Arc<Node>,
    runtime: Handle,
    words: Words,
}

impl ReplicatedBackend {
    /// Of a node that runs on `runtime`.
    #[must_use]
    pub fn new(node: Arc<Node>, runtime: Handle) -> Self {
        Self { node, runtime, words: Words::default() }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Backend for ReplicatedBackend {
    fn submit(&self, command: Command) -> Result<Vec<Event>> {
        self.submit_as(CommandId(rand::rng().random()), command)
    }

    fn applied(&self) -> u64 {
        *self.node.applied().borrow()
    }

    /// The same number for every try: whatever became of the first, it counts once.
    fn submit_as(&self, id: CommandId, command: Command) -> Result<Vec<Event>> {
        let actor = command.actor().map(str::to_owned);
        let began = Instant::now();
        loop {
            let answer = self.runtime.block_on(self.node.propose_anywhere(id, actor.clone(), command.clone()));
            match answer {
                Ok(events) => return Ok(events),
                Err(SubmitError::Stopped(error)) => return Err(error),
                Err(error @ (SubmitError::TooLong { .. } | SubmitError::Members(_))) => {
                    return Err(Error::new(ErrorKind::Internal, "order a command").with_source(error));
                }
                Err(error @ (SubmitError::NotLeader { .. } | SubmitError::Unknown)) => {
                    if began.elapsed() > PATIENCE {
                        let step = "nobody leads: the command has no answer";
                        return Err(Error::new(ErrorKind::StoreUnavailable, step)
                            .with_source(error)
                            .with_fix("Start the other coordinators; a majority of them has to run"));
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    fn look(&self, look: &mut dyn FnMut(&State)) {
        self.node.state(|state| look(state));
    }

    fn wait(&self, at_most: Duration, look: &mut dyn FnMut(&State) -> bool) {
        let mut applied = self.node.applied();
        let until = Instant::now() + at_most;
        loop {
            // Seen before it is looked at: what comes in between is looked at once more.
            applied.borrow_and_update();
            if self.node.state(|state| look(state)) {
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            let changed = self.runtime.block_on(async { tokio::time::timeout(left, applied.changed()).await });
            match changed {
                Ok(Ok(())) => {}
                // Time is over, or the node has gone.
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    fn words(&self) -> Option<&Words> {
        Some(&self.words)
    }
}
