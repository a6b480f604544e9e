//! One attempt at one shard of one stage.

use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::digest::Digest;
use crate::id::{CycleId, JobId, PlanDigest, RepositoryId, WorkerId};
use crate::mode::CycleOptions;
use crate::shard::Shard;
use crate::stage::Stage;
use crate::term::Term;
use crate::time::StoreTime;

/// An index view: which one, and when the store was asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ViewRef {
    /// Digest of the sorted names of the view's index blobs and the watermark.
    pub digest: Digest,
    /// The store's clock when its listing began.
    pub taken: StoreTime,
}

/// A bulk result in the exchange. Missing is never empty (R12): a consumer checks digest, count and view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OutputRef {
    /// Name in the exchange; unique in the cycle.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Records in it.
    pub count: u64,
    /// Digest of the index view that it was made from.
    pub view: Digest,
}

/// What a worker is to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobSpec {
    /// The job.
    pub id: JobId,
    /// Its cycle.
    pub cycle: CycleId,
    /// The repository, with the store (orders carry the store, R6).
    pub repository: RepositoryId,
    /// The lease's term that this order is under.
    pub term: Term,
    /// What to do.
    pub stage: Stage,
    /// On which part.
    pub shard: Shard,
    /// Which attempt, from 1. What an earlier one still says is fenced.
    pub attempt: u32,
    /// What was asked for when the cycle was opened.
    pub options: CycleOptions,
    /// Outputs of the stages before.
    pub inputs: Vec<OutputRef>,
    /// The sealed plan; `None` before the seal.
    pub plan: Option<PlanDigest>,
    /// Items of this stage that earlier attempts finished: begin after them.
    pub done: u64,
    /// A batch of an earlier attempt whose end is unknown: look at it first, never plan it again.
    pub batch: Option<Batch>,
}

impl JobSpec {
    /// What `worker` shows with everything it says about this attempt.
    #[must_use]
    pub fn ticket(&self, worker: &WorkerId) -> Ticket {
        Ticket { cycle: self.cycle, job: self.id, attempt: self.attempt, term: self.term, worker: worker.clone() }
    }
}

/// Who speaks about which attempt, under which term. A stale one is fenced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ticket {
    /// The cycle.
    pub cycle: CycleId,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The term.
    pub term: Term,
    /// The worker.
    pub worker: WorkerId,
}
