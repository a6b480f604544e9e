//! What crosses a wire or lands in the ledger: nouns in flow order, what is asked, what happened, what is to be done.
//!
//! ```text
//! OpenCycle -> CycleOpened -> OfferJob -> claim -> JobReport -> PlanSealed -> BatchApproved -> BatchDone -> CycleClosed
//! ```
//! Commands are imperative, events past tense (a refusal is one too), effects say what to do outside the machine.

pub mod digest;
pub mod id;
pub mod term;
pub mod time;

pub mod mode;
pub mod stage;

pub mod shard;

pub mod job;

pub mod plan;

pub mod lease;
pub mod repo;
pub mod store;
pub mod token;
pub mod verification;
pub mod worker;

pub mod batch;

pub mod report;

pub mod command;
pub mod driver;
pub mod effect;
pub mod event;
pub mod level;
pub mod proposal;
pub mod refusal;

pub mod chain;
pub mod envelope;
pub mod mutant;

pub mod control;
pub mod queue;
pub mod work_queue;

pub mod schedule;

pub mod trace;

pub use batch::{Approval, Batch, BatchOutcome, BatchRequest, BatchResult, Evidence};
pub use command::{Command, Ordered, Recovery};
pub use digest::Digest;
pub use driver::{Driven, Driver};
pub use effect::Effect;
pub use event::Event;
pub use id::{
    CycleId, FleetId, JobId, PlanDigest, Pool, RepositoryId, RepositoryName, SessionName, StoreId, UniqueId, WorkerId,
};
pub use job::{JobSpec, OutputRef, Ticket, ViewRef};
pub use lease::{SeenLease, Unable};
pub use mode::{CycleOptions, IndexKind, Mode, Safety};
pub use plan::{PlanHeader, StageWork};
pub use proposal::{CommandId, Proposal};
pub use refusal::Refusal;
pub use repo::{Acting, CycleRequest, Registration, RegistrationChange, SecretRef};
pub use report::{Damage, Failure, FailureKind, JobReport, Outcome, Progress, Severity, Unit};
pub use schedule::{Blackout, Lane, Margin, MarkToDrop, Own, OwnCycle, Schedule, ScheduleError, Trigger, Window};
pub use shard::Shard;
pub use stage::Stage;
pub use store::{Sight, StoreFlaw, StoreProbe, StoreSeen};
pub use term::Term;
pub use time::{LogTime, StoreTime};
pub use token::{Access, BadTenant, Scope, Scopes, TENANT_BYTES_MAX, Tenant, TokenGrant};
pub use trace::{BadTraceParent, TraceId, TraceParent};
pub use verification::{SHARE_ALL, Verification};
pub use worker::WorkerInfo;
