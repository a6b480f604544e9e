//! What comes back from a worker.

use serde::{Deserialize, Serialize};

use crate::id::PlanDigest;
use crate::job::{OutputRef, ViewRef};
use crate::plan::PlanHeader;
use crate::shard::Shard;
use crate::stage::Stage;

/// What progress is counted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Blobs (packs, index blobs, logs).
    Blobs,
    /// Contents.
    Contents,
    /// Snapshots.
    Snapshots,
    /// Batches or steps.
    Steps,
}

/// How far a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// So many are done.
    pub done: u64,
    /// Of so many; 0 if not known yet.
    pub total: u64,
    /// Of what.
    pub unit: Unit,
}

/// What damage stops (R11). Ordered: the worst of a cycle counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Named, and stops nothing (an unreadable session marker, a pack gone around by the rewrite).
    Noted,
    /// Something unreadable may protect any content: no marks, no watermark, no success of snapshot GC.
    Unreadable,
    /// An index may be lost: no rewrite, drop, compaction or deletion at all.
    LostIndex,
}

/// Something that cannot be read, or is not there though it must be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Damage {
    /// What it stops.
    pub severity: Severity,
    /// The blob, content, object or manifest.
    pub subject: String,
    /// What is wrong with it.
    pub text: String,
    /// Snapshots that it touches (manifest IDs).
    pub snapshots: Vec<String>,
    /// Paths in them, at least the first ones.
    pub paths: Vec<String>,
}

/// What kind of failure it was; the binary's exit codes follow from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// A defect of this program.
    Internal,
    /// A bad argument or setting.
    Usage,
    /// There is no Kopia repository at this address.
    NotARepository,
    /// The named thing is provably not there.
    NotFound,
    /// Somebody else holds the lease, or a lock file.
    Locked,
    /// The password does not open the format blob.
    WrongPassword,
    /// Kopia's maintenance owner is another identity.
    NotOwner,
    /// Unknown version, feature, algorithm or backend.
    Unsupported,
    /// The plan does not hold together, or needs a person's word.
    PlanRefused,
    /// Something that is there cannot be read.
    Damaged,
    /// An upgrade lock is set in the format blob.
    UpgradeInProgress,
    /// Clocks disagree by more than five minutes.
    Clock,
    /// Read-only storage, or no right to do this.
    Permission,
    /// Another maintainer acted during this cycle.
    ForeignMaintenance,
    /// The store does not answer.
    StoreUnavailable,
    /// A conditional write found another object than expected.
    PreconditionFailed,
    /// No room left on a local disk.
    DiskFull,
    /// The work does not fit the memory limit.
    MemoryLimit,
    /// A deadline passed before the deed.
    DeadlinePassed,
    /// Ctrl-C or a termination signal.
    Interrupted,
}

/// A failure that a job ended with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// What, why, and the fix. Never a secret (S9).
    pub text: String,
    /// Whether trying the same again may succeed.
    pub retryable: bool,
}

/// How a job ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All done.
    Done,
    /// Done as far as it is safe.
    Degraded(Vec<Damage>),
    /// Not done.
    Failed(Failure),
}

/// How a later stage is to be cut. Proved to cover all keys exactly before it is used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cut {
    /// The stage: scan, solve, sweep or rewrite.
    pub stage: Stage,
    /// Its shards, in order.
    pub shards: Vec<Shard>,
}

/// What a job leaves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobReport {
    /// How it ended.
    pub outcome: Outcome,
    /// Its outputs in the exchange.
    pub outputs: Vec<OutputRef>,
    /// The index view that the cycle works on (survey only).
    pub view: Option<ViewRef>,
    /// How later stages are to be cut (survey, and plan for the rewrite); a stage without one is one job.
    pub cuts: Vec<Cut>,
    /// The header of the plan that was made (plan only).
    pub plan: Option<PlanHeader>,
    /// The plan that was checked and found to hold together (check only).
    pub checked: Option<PlanDigest>,
    /// Kopia's record of the task as JSON (`data` of the run record), for the report and the ledger.
    pub stats: Vec<TaskStats>,
}

/// Figures of one of Kopia's tasks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskStats {
    /// Kopia's task name.
    pub task: String,
    /// JSON of its `data` object.
    pub data: String,
}

impl JobReport {
    /// A report with this outcome and nothing else.
    #[must_use]
    pub fn new(outcome: Outcome) -> Self {
        let (outputs, cuts, stats) = (Vec::new(), Vec::new(), Vec::new());
        Self { outcome, outputs, view: None, cuts, plan: None, checked: None, stats }
    }

    /// Everything done, with these outputs.
    #[must_use]
    pub fn done(outputs: Vec<OutputRef>) -> Self {
        Self { outputs, ..Self::new(Outcome::Done) }
    }

    /// Not done.
    #[must_use]
    pub fn failed(kind: FailureKind, text: impl Into<String>, retryable: bool) -> Self {
        Self::new(Outcome::Failed(Failure { kind, text: text.into(), retryable }))
    }
}
