//! Looks that see all that was answered before.

use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::time::{Instant, timeout_at};
use verger_kopia::error::Result;

use super::{Node, SubmitError, not_leader};
use crate::raft::durable::DurableLog;
use crate::raft::types::Vote;

/// The vote under which this node leads on after its start, and the last entry of its log then.
pub(super) fn resumed(log: &dyn DurableLog, id: u64) -> Result<Option<(Vote, u64)>> {
    let vote = log.vote()?.filter(|vote| vote.is_committed() && vote.leader_id().voted_for() == Some(id));
    Ok(vote.zip(log.extent()?.last.map(|last| last.index)))
}

impl Node {
    /// Waits until [`Self::state`] shows all that any node was answered before this call. Only the leader can tell.
    ///
    /// # Errors
    /// [`SubmitError`]; `Unknown` also if too few nodes can be reached.
    pub async fn linearizable(&self) -> Result<(), SubmitError> {
        let until = Instant::now() + self.options.pace.answer;
        let asked = timeout_at(until, self.raft.ensure_linearizable()).await;
        match asked.map_err(|_| SubmitError::Unknown)? {
            Ok(_) => self.past_the_last_boot(until).await,
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => Err(not_leader(forward)),
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Err(SubmitError::Unknown),
            Err(RaftError::Fatal(error)) => Err(self.stopped_by(&error.to_string())),
        }
    }

    /// A leader that was started again leads on under its old vote, and openraft waits for the first entry of that vote alone: what was
    /// answered between that entry and the end of the process may be in the log only. All of it is in this node's own log.
    async fn past_the_last_boot(&self, until: Instant) -> Result<(), SubmitError> {
        let Some((vote, last)) = self.resumed else { return Ok(()) };
        let leads_on = || self.raft.server_metrics().borrow().vote == vote;
        if !leads_on() {
            return Ok(());
        }
        let mut applied = self.applied();
        let caught_up = timeout_at(until, applied.wait_for(|applied| *applied >= last)).await;
        match caught_up {
            Ok(Ok(_)) if leads_on() => Ok(()),
            _ => Err(SubmitError::Unknown),
        }
    }
}
