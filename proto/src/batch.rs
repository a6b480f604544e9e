//! Deeds take two keys: a sealed plan, and an approval for each batch.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::PlanDigest;
use crate::job::{OutputRef, ViewRef};
use crate::stage::Stage;
use crate::term::Term;
use crate::time::{LogTime, StoreTime};

/// Longest time from approval to deed, in milliseconds (R1).
pub const DEADLINE_MILLISECONDS_MAX: u64 = 120_000;
/// Oldest view that an approval may name, in milliseconds (R14, R27).
pub const VIEW_AGE_MILLISECONDS_MAX: u64 = 120_000;

/// Items `first .. first + items` of a stage's list in the sealed plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// The stage.
    pub stage: Stage,
    /// Number in the stage, from 0.
    pub number: u32,
    /// First item.
    pub first: u64,
    /// How many. 0 for a batch that writes records or revivals alone.
    pub items: u64,
    /// Digest of what it does, so that a second look is at the same batch.
    pub digest: Digest,
}

/// A worker asks to do a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BatchRequest {
    /// Which batch.
    pub batch: Batch,
    /// The sealed plan; `None` only for the survey's record of its start.
    pub plan: Option<PlanDigest>,
    /// The view that the batch was joined with.
    pub view: ViewRef,
    /// The store's clock when the worker looked (owner, ETags, new index blobs) before asking.
    pub store_now: StoreTime,
    /// How long the worker wants, in milliseconds; it gets at most 120 s.
    pub wanted: u64,
}

/// The coordinator's word that a batch may be done now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Approval {
    /// Which batch.
    pub batch: Batch,
    /// Under which term.
    pub term: Term,
    /// Of which plan.
    pub plan: Option<PlanDigest>,
    /// Joined with which view.
    pub view: ViewRef,
    /// Not after this, by the log's clock.
    pub deadline: LogTime,
    /// Not after this, by the store's clock.
    pub store_deadline: StoreTime,
    /// Milliseconds after the worker read the request's `store_now`, on its own suspend-proof clock (R2): safe however late
    /// the answer comes.
    pub valid_for: u64,
    /// The batch was approved before and its end is unknown: look first, do what is left.
    pub again: bool,
}

/// How a batch ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchResult {
    /// All of it is done (seen, or looked at again).
    Done,
    /// Nothing of it happened and nothing can any more: the deadline passed before the first request.
    NotDone,
    /// It is not known what happened. It must be looked at again.
    Ambiguous,
}

/// What came of a batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BatchOutcome {
    /// Which batch.
    pub batch: Batch,
    /// How it ended.
    pub result: BatchResult,
    /// Items that were done.
    pub changed: u64,
    /// Items left out because their winner changed, they were gone, or locked.
    pub left_out: u64,
    /// Bytes that the changed items stand for.
    pub bytes: u64,
    /// Names of what was done, kept beside the ledger.
    pub evidence: Option<OutputRef>,
}

/// Names of what a batch did, and by which rule: kept beside the ledger for years (S6).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Evidence {
    /// The batch.
    pub batch: Batch,
    /// The rule that let it happen ("unreferenced-pack").
    pub rule: String,
    /// Blobs or contents. At most some 100,000 in one record.
    pub names: Vec<String>,
}
