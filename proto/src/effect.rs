//! What is to be done outside the machine. Losing one costs time only: all of them can be made again from the state.

use serde::{Deserialize, Serialize};

use crate::id::{CycleId, JobId, RepositoryId};
use crate::job::JobSpec;
use crate::term::Term;

/// What is to be done outside the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Tell the workers that there is a job.
    OfferJob(Box<JobSpec>),
    /// Tell whoever works on this attempt to stop; what it still says is fenced.
    StopJob {
        /// Cycle.
        cycle: CycleId,
        /// Job.
        job: JobId,
        /// Attempt.
        attempt: u32,
    },
    /// Write the lease object again before it may not act any more.
    RenewLease {
        /// Repository.
        repository: RepositoryId,
        /// Term.
        term: Term,
    },
    /// Write "free" into the lease object, then say `ReleaseLease`. No request is outstanding (R4).
    CloseLease {
        /// Repository.
        repository: RepositoryId,
        /// Term.
        term: Term,
    },
}
