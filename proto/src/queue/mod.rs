//! Where offers wait for workers. It carries hints and decides nothing: a hint may be lost, late, or come twice.

pub mod local;

use std::time::Duration;

use crate::id::{CycleId, JobId, RepositoryId, WorkerId};
use crate::job::{JobSpec, Ticket};
use crate::stage::Stage;
use crate::term::Term;

/// There is a job; claim it to learn what it is.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Hint {
    /// The repository.
    pub repository: RepositoryId,
    /// The cycle.
    pub cycle: CycleId,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The term.
    pub term: Term,
    /// The stage, so that a worker without the right to change anything leaves deeds alone.
    pub stage: Stage,
}

impl Hint {
    /// What `worker` shows to claim it.
    #[must_use]
    pub fn ticket(&self, worker: &WorkerId) -> Ticket {
        Ticket { cycle: self.cycle, job: self.job, attempt: self.attempt, term: self.term, worker: worker.clone() }
    }
}

impl From<&JobSpec> for Hint {
    fn from(job: &JobSpec) -> Self {
        let (repository, cycle, job_id) = (job.repository.clone(), job.cycle, job.id);
        Self { repository, cycle, job: job_id, attempt: job.attempt, term: job.term, stage: job.stage }
    }
}

/// The queue is gone.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the queue is closed")]
pub struct QueueClosed;

/// Where offers wait for workers.
pub trait Queue: Send + Sync {
    /// Puts a hint in line.
    ///
    /// # Errors
    /// The queue is gone.
    fn offer(&self, hint: Hint) -> Result<(), QueueClosed>;

    /// Waits up to `wait` for a hint.
    ///
    /// # Errors
    /// The queue is closed and empty.
    fn take(&self, wait: Duration) -> Result<Option<Hint>, QueueClosed>;

    /// Lets all who wait go; nothing is taken in any more.
    fn close(&self);
}
