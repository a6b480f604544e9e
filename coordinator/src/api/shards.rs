//! How long shards took, and how they ended, over all time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use verger_proto::{CycleId, Event, JobId, LogTime, Stage};

use super::metrics::Durations;

/// How a claim ended, as it is shown.
const DONE: &str = "done";
const FAILED: &str = "failed";
const LOST: &str = "lost";
const QUARANTINED: &str = "quarantined";

/// Follows the events: jobs of every stage, those that are the whole of it too.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Shards {
    /// Shards that went out and are not done: their stage, and since when somebody has one.
    out: BTreeMap<(CycleId, JobId), (Stage, Option<LogTime>)>,
    /// From claim to report, by stage: only of those that were done.
    pub(super) durations: Durations,
    /// Claims that ended, by stage and by how.
    ends: BTreeMap<(Stage, String), u64>,
}

impl Shards {
    pub(super) fn see(&mut self, at: LogTime, event: &Event) {
        match event {
            Event::JobOffered { cycle, job, stage, .. } => drop(self.out.insert((*cycle, *job), (*stage, None))),
            Event::JobClaimed { ticket } => {
                if let Some((_, since)) = self.out.get_mut(&(ticket.cycle, ticket.job)) {
                    *since = Some(at);
                }
            }
            Event::JobCompleted { ticket, .. } => {
                if let Some((stage, since)) = self.end(ticket.cycle, ticket.job, DONE) {
                    self.durations.observe(stage.name(), at.since(since));
                }
            }
            Event::JobFailed { ticket, .. } => drop(self.end(ticket.cycle, ticket.job, FAILED)),
            Event::JobLost { cycle, job, .. } => drop(self.end(*cycle, *job, LOST)),
            Event::ShardQuarantined { stage, .. } => self.count(*stage, QUARANTINED),
            // Nothing that went out outlives its stage.
            Event::StageOpened { cycle, .. }
            | Event::CycleRestarted { cycle, .. }
            | Event::CycleClosed { cycle, .. } => self.out.retain(|(one, _), _| one != cycle),
            _ => {}
        }
    }

    /// Claims that ended, by stage and by how.
    pub(super) fn ends(&self) -> impl Iterator<Item = (Stage, &str, u64)> {
        self.ends.iter().map(|((stage, how), count)| (*stage, how.as_str(), *count))
    }

    fn end(&mut self, cycle: CycleId, job: JobId, how: &str) -> Option<(Stage, LogTime)> {
        let (stage, since) = self.out.remove(&(cycle, job))?;
        self.count(stage, how);
        Some((stage, since?))
    }

    fn count(&mut self, stage: Stage, how: &str) {
        let count = self.ends.entry((stage, how.to_owned())).or_default();
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use verger_proto::{Failure, FailureKind, Shard, Term, Ticket, WorkerId};

    use super::*;

    fn ticket(job: u64, attempt: u32) -> Ticket {
        let (cycle, worker) = (CycleId(1), WorkerId::new("w".to_owned()).unwrap());
        Ticket { cycle, job: JobId(job), attempt, term: Term(1), worker }
    }

    fn offered(job: u64, attempt: u32) -> Event {
        Event::JobOffered { cycle: CycleId(1), job: JobId(job), stage: Stage::Scan, shard: Shard::whole(), attempt }
    }

    fn claimed(job: u64, attempt: u32) -> Event {
        Event::JobClaimed { ticket: ticket(job, attempt) }
    }

    fn completed(job: u64, attempt: u32) -> Event {
        Event::JobCompleted { ticket: ticket(job, attempt), outputs: Vec::new(), stats: Vec::new(), view: None }
    }

    fn counted(shards: &Shards) -> Vec<(Stage, &str, u64)> {
        shards.ends().collect()
    }

    #[test]
    fn a_shard_takes_from_its_last_claim_to_its_report() {
        let mut shards = Shards::default();
        let failure = Failure { kind: FailureKind::StoreUnavailable, text: "no answer".to_owned(), retryable: true };
        let lost = Event::JobLost { cycle: CycleId(1), job: JobId(2), attempt: 1, worker: ticket(2, 1).worker };
        let steps = [
            (500, offered(1, 1)),
            (500, offered(2, 1)),
            (1_000, claimed(1, 1)),
            (2_000, claimed(2, 1)),
            (31_000, Event::JobFailed { ticket: ticket(1, 1), failure }),
            (32_000, lost),
            (33_000, offered(2, 2)),
            (40_000, claimed(2, 2)),
            (41_500, completed(2, 2)),
        ];
        steps.iter().for_each(|(at, event)| shards.see(LogTime(*at), event));
        assert_eq!(counted(&shards), [(Stage::Scan, DONE, 1), (Stage::Scan, FAILED, 1), (Stage::Scan, LOST, 1)]);
        let mut expected = Durations::default();
        expected.observe("scan", 1_500);
        assert_eq!(shards.durations, expected);
    }

    #[test]
    fn a_claim_ends_with_its_stage_and_counts_for_nothing_then() {
        let mut shards = Shards::default();
        let opened = Event::StageOpened { cycle: CycleId(1), stage: Stage::Solve, jobs: 1 };
        let steps = [offered(1, 1), claimed(1, 1), opened, completed(1, 1)];
        steps.iter().for_each(|event| shards.see(LogTime(1), event));
        assert_eq!((counted(&shards), shards.out.len()), (Vec::new(), 0));
    }
}
