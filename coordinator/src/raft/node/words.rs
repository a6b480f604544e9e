//! How far jobs are, between coordinators: whoever leads is told, and asked. Nothing rests on it, so it is said once, and briefly.

use std::time::Duration;

use verger_proto::CycleId;

use super::Node;
use crate::machine::JobStatus;
use crate::raft::network::{Answer, Request};
use crate::raft::types::Peer;
use crate::words::{Word, Words};

/// Nobody waits longer for a word to be heard.
const BRIEFLY: Duration = Duration::from_secs(1);

impl Node {
    /// What was told to this node.
    #[must_use]
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// Tells a word to whoever leads, if that is another node. `false`: it was not heard, and that is no loss.
    pub async fn tell_leader(&self, word: Word) -> bool {
        match self.ask_leader(Request::Tell(word)).await {
            Some(answer) => matches!(answer, Ok(Answer::Heard)),
            None => true,
        }
    }

    /// Hears from whoever leads, if that is another node, how far the jobs of a cycle are. `false`: it did not say.
    pub async fn ask_words(&self, cycle: CycleId) -> bool {
        match self.ask_leader(Request::Words(cycle)).await {
            Some(Ok(Answer::Words(words))) => {
                words.into_iter().filter(|word| word.cycle == cycle).for_each(|word| self.words.hear(word));
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    /// `None`: there is nobody else to ask.
    async fn ask_leader(&self, request: Request) -> Option<Result<Answer, ()>> {
        let (leader, address) = self.leader().filter(|(leader, _)| *leader != self.options.id)?;
        if request.level() > self.state(|state| state.level) {
            return Some(Err(()));
        }
        let answer = self.links.call(leader, &Peer::at(address), request, BRIEFLY).await;
        Some(answer.map_err(|error| tracing::debug!(node = leader, %error, "the leader does not speak of progress")))
    }

    /// A word of another node's worker. What is of no job that is at work is not kept.
    pub(super) fn hear_for(&self, word: Word) -> Answer {
        let is_at_work = self.state(|state| {
            let job = state.cycles.get(&word.cycle).and_then(|cycle| cycle.jobs.get(&word.job));
            job.is_some_and(|job| job.attempt == word.attempt && matches!(job.status, JobStatus::Claimed(..)))
        });
        if is_at_work {
            self.words.hear(word);
        }
        Answer::Heard
    }
}
