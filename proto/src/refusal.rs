//! Why the machine said no. A refusal changes nothing and is an event.

use serde::{Deserialize, Serialize};

use crate::driver::Driver;
use crate::id::{CycleId, RepositoryName};
use crate::shard::CoverageError;
use crate::stage::Stage;
use crate::term::Term;

/// Why the machine said no.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// No cycle has this number, or it has ended.
    #[error("no open cycle has this number")]
    UnknownCycle,
    /// The job is not one of the cycle's present stage.
    #[error("no open job has this number")]
    UnknownJob,
    /// Another cycle of this repository is open.
    #[error("cycle {0} of this repository is open")]
    CycleOpen(CycleId),
    /// Options that contradict each other.
    #[error("safety none needs the word that no other client is at work (--i-am-alone)")]
    NotAlone,
    /// A percentage above 100.
    #[error("{0} percent is more than everything")]
    Percentage(u8),
    /// The term is not the present one.
    #[error("term {given} is not the present term {current}")]
    StaleTerm {
        /// In the command.
        given: Term,
        /// In the state.
        current: Term,
    },
    /// Nobody here holds the lease.
    #[error("the lease on this repository is not held")]
    NoLease,
    /// The lease may not act any more, by the store's clock or by the last confirmed renewal.
    #[error("the lease may not act without a confirmed renewal")]
    LeaseExpired,
    /// The lease is still in use.
    #[error("a batch is under way; the lease is released after it")]
    LeaseInUse,
    /// The attempt is not the present one.
    #[error("attempt {given} is not the present attempt {current}")]
    StaleAttempt {
        /// In the command.
        given: u32,
        /// In the state.
        current: u32,
    },
    /// Another worker has it.
    #[error("another worker has claimed this job")]
    ClaimedByOther,
    /// Nobody has claimed it.
    #[error("this job is not claimed")]
    NotClaimed,
    /// The cycle is being parked or aborted, or is parked.
    #[error("the cycle is stopping or parked")]
    Stopping,
    /// The cycle is not parked.
    #[error("the cycle is not parked")]
    NotParked,
    /// The stage is not the cycle's present one.
    #[error("the cycle is at {0}")]
    OtherStage(Stage),
    /// A stage without batches.
    #[error("{0} has no batches")]
    NotADeed(Stage),
    /// A dry run changes nothing.
    #[error("a dry run changes nothing")]
    DryRun,
    /// There is no plan, or it is not sealed.
    #[error("no plan is sealed")]
    NoPlan,
    /// Not the plan that was made, checked or sealed.
    #[error("this is not the plan of the cycle")]
    OtherPlan,
    /// A plan was sealed already.
    #[error("the plan is sealed already")]
    AlreadySealed,
    /// The plan was not checked.
    #[error("the plan was not checked")]
    NotChecked,
    /// The plan is for another repository or another store (S5).
    #[error("the plan is for another repository")]
    OtherRepository,
    /// The plan is for another mode than the cycle.
    #[error("the plan is for another kind of cycle")]
    OtherMode,
    /// The plan was made from another view than the cycle's.
    #[error("the plan was made from another view")]
    OtherView,
    /// The plan contradicts itself.
    #[error("the plan does not hold together: {0}")]
    Incoherent(String),
    /// The plan leaves no live content (S5).
    #[error("the plan leaves no live content (--allow-removing 100)")]
    NothingLive,
    /// The plan removes more than is allowed (S5).
    #[error(
        "the plan removes {removed} of {total} packed bytes, more than {allowed} percent (--allow-removing PERCENT)"
    )]
    RemovesTooMuch {
        /// Packed bytes removed.
        removed: u64,
        /// Packed bytes in the view.
        total: u64,
        /// Percent.
        allowed: u8,
    },
    /// Batches go in order and without gaps.
    #[error("the next batch is number {number} from item {first}")]
    BatchOutOfOrder {
        /// The next number.
        number: u32,
        /// Its first item.
        first: u64,
    },
    /// More items than the plan has.
    #[error("the batch goes beyond the plan's {items} items")]
    BatchBeyondPlan {
        /// Items of the stage in the plan.
        items: u64,
    },
    /// A batch is under way or unknown; it comes first.
    #[error("batch {0} is under way, or its end is unknown: look at it first")]
    BatchOutstanding(u32),
    /// No such batch was approved for this job.
    #[error("no such batch was approved")]
    BatchUnknown,
    /// More items done than it has.
    #[error("the figures of the batch do not add up")]
    BatchFigures,
    /// The view is too old (R14).
    #[error("the view is {0} ms old; a batch needs one of at most 120 s")]
    StaleView(u64),
    /// The view is from the future or older than the one before.
    #[error("the view is not between the last one and now")]
    ViewOrder,
    /// No time is left.
    #[error("no time is left until the deadline")]
    NoTime,
    /// The batches do not cover the plan, so the stage is not done (R12).
    #[error("{done} of {items} items are done")]
    Uncovered {
        /// Items done.
        done: u64,
        /// Items in the plan.
        items: u64,
    },
    /// Shards that do not cover all keys once (R12).
    #[error("stage {stage}: {error}")]
    Coverage {
        /// The stage.
        stage: Stage,
        /// Where.
        error: CoverageError,
    },
    /// A name that another output of the cycle has.
    #[error("the output {0:?} is there already")]
    OutputTwice(String),
    /// Cuts of a stage that has no shards, or too many.
    #[error("{0} cannot be cut like this")]
    BadCut(Stage),
    /// A report without what its stage must leave.
    #[error("the report of {stage} lacks {what}")]
    Lacking {
        /// The stage.
        stage: Stage,
        /// What.
        what: String,
    },
    /// Revivals after the stages that may need them.
    #[error("nothing can be revived in {0}")]
    NoRevival(Stage),
    /// The name is another repository's.
    #[error("another repository is called {0}")]
    NameTaken(RepositoryName),
    /// The same unique ID and store are looked after under this name.
    #[error("this repository is looked after already, as {0}")]
    AlreadyAdded(RepositoryName),
    /// No such repository is looked after.
    #[error("this repository is not looked after")]
    UnknownRepository,
    /// It is only looked at: nothing may change it.
    #[error("this repository is only observed (--take-ownership or --act-as USER@HOST)")]
    OnlyObserved,
    /// Without margins only where nobody else maintains it, by a person's word.
    #[error("safety none needs a repository that was added with --exclusive")]
    NotExclusive,
    /// No wish with this key.
    #[error("nobody asked for this")]
    UnknownRequest,
    /// Too many wishes wait.
    #[error("{0} cycles of this repository are asked for already")]
    TooManyRequests(u32),
    /// A report with more margins than are kept.
    #[error("{0} margins are more than a report has")]
    TooManyMargins(u32),
    /// A token that cannot be kept: its name, its scopes, or there are too many.
    #[error("{0}")]
    Token(String),
    /// A token had this name, be it one that was revoked.
    #[error("a token named {0:?} exists or existed; choose another name")]
    TokenNameTaken(String),
    /// No such token.
    #[error("there is no token named {0:?}")]
    UnknownToken(String),
    /// A number that was a member's before, of another data folder.
    #[error("node {0} was a member before, and a node's number is never used again")]
    NodeUsed(u64),
    /// A member is to be replaced that is none.
    #[error("node {0} was never a member")]
    UnknownNode(u64),
    /// Another process drives this repository.
    #[error("{0} drives this repository")]
    DrivenByOther(Driver),
    /// Nobody drives it: the time of whoever says so was over, and he left or another did.
    #[error("whoever says so does not drive this repository any more")]
    NotDriving,
    /// An attempt failed a moment ago; the next one waits.
    #[error("this shard is tried again in {0} ms")]
    NotYet(u64),
    /// A process that began later has this name.
    #[error("another worker that began later is called so; give each worker a name of its own (--name)")]
    WorkerNameTaken,
    /// No worker has this name.
    #[error("no worker has this name")]
    UnknownWorker,
    /// More than is kept of workers.
    #[error("{0}")]
    Worker(String),
}
