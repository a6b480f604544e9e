//! What happened. Refusals are events too. Each kind has a golden file that is read for ever: a variant or a field is never
//! changed or moved, only added at the end of the enum, or in a new envelope version.

use serde::{Deserialize, Serialize};

use crate::batch::{Approval, BatchOutcome};
use crate::digest::Digest;
use crate::driver::Driver;
use crate::id::{CycleId, JobId, PlanDigest, RepositoryId, RepositoryName, SessionName, StoreId, WorkerId};
use crate::job::{OutputRef, Ticket, ViewRef};
use crate::lease::SeenLease;
use crate::mode::CycleOptions;
use crate::plan::PlanHeader;
use crate::refusal::Refusal;
use crate::repo::{Registration, RegistrationChange};
use crate::report::{Damage, Failure, Progress, Severity, TaskStats};
use crate::schedule::{Margin, Own};
use crate::shard::Shard;
use crate::stage::Stage;
use crate::store::StoreProbe;
use crate::term::Term;
use crate::time::{LogTime, StoreTime};
use crate::token::{Access, Scopes};
use crate::verification::Verification;
use crate::work_queue::PublicKey;
use crate::worker::WorkerInfo;

/// Why a stage did not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassReason {
    /// A cycle of this mode has no such stage.
    NotInMode,
    /// The plan has nothing for it.
    NothingToDo,
    /// Damage forbids it (R11).
    Damage,
}

/// How a cycle is being stopped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// Kept, to go on later.
    Park,
    /// Given up by a person.
    Abort(String),
    /// It cannot go on.
    Fail(Failure),
}

/// How a cycle ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CycleEnd {
    /// All stages done or rightly passed.
    Done,
    /// A dry run: the plan was made and checked.
    Planned,
    /// Done as far as it is safe; the damage is named.
    Degraded,
    /// Given up; the repository stays due.
    Aborted(String),
    /// It could not go on; the repository stays due.
    Failed(Failure),
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    missing_docs,
    reason = "fields are named after what they hold; the nouns are documented where they are defined"
)]
pub enum Event {
    /// This coordinator acts under a new term.
    LeaseTaken { repository: RepositoryId, term: Term, store_now: StoreTime, acts_until: StoreTime },
    /// A renewal was confirmed.
    LeaseRenewed { repository: RepositoryId, term: Term, store_now: StoreTime, acts_until: StoreTime },
    /// The lease is somebody else's, or may be.
    LeaseLost { repository: RepositoryId, term: Term, reason: String },
    /// The lease object says "free".
    LeaseReleased { repository: RepositoryId, term: Term },
    /// A cycle began.
    CycleOpened { cycle: CycleId, repository: RepositoryId, term: Term, options: CycleOptions },
    /// An open cycle with equal options does what was asked for.
    CycleJoined { cycle: CycleId },
    /// A stage began.
    StageOpened { cycle: CycleId, stage: Stage, jobs: u32 },
    /// A stage was passed.
    StagePassed { cycle: CycleId, stage: Stage, reason: PassReason },
    /// A stage ended.
    StageClosed { cycle: CycleId, stage: Stage },
    /// A job went out.
    JobOffered { cycle: CycleId, job: JobId, stage: Stage, shard: Shard, attempt: u32 },
    /// A worker took it.
    JobClaimed { ticket: Ticket },
    /// A worker is still at it.
    JobProgressed { ticket: Ticket, progress: Option<Progress> },
    /// A job is done.
    JobCompleted { ticket: Ticket, outputs: Vec<OutputRef>, stats: Vec<TaskStats>, view: Option<ViewRef> },
    /// An attempt failed.
    JobFailed { ticket: Ticket, failure: Failure },
    /// An attempt's worker is gone.
    JobLost { cycle: CycleId, job: JobId, attempt: u32, worker: WorkerId },
    /// A shard was given up after its attempts, and the cycle goes around it.
    ShardQuarantined { cycle: CycleId, job: JobId, stage: Stage, failure: Failure },
    /// A result came late or from another attempt, term or worker: it is not counted.
    ResultFenced { ticket: Ticket, reason: Refusal },
    /// A result came again: it counts once.
    ResultRepeated { ticket: Ticket },
    /// Something is unreadable or lost: less is done from here on.
    CycleDegraded { cycle: CycleId, severity: Severity, damage: Vec<Damage> },
    /// A plan was sealed.
    PlanSealed { cycle: CycleId, plan: PlanDigest, header: Box<PlanHeader>, allowed_percent: u8 },
    /// A plan does not hold together, or needs a person's word.
    PlanRefused { cycle: CycleId, plan: Option<PlanDigest>, reason: Refusal },
    /// A dry run's plan was checked.
    PlanChecked { cycle: CycleId, plan: PlanDigest, header: Box<PlanHeader>, refusal: Option<Refusal> },
    /// Contents that a new snapshot needs were revived.
    RevivalsAdded { ticket: Ticket, revived: OutputRef, bytes: u64 },
    /// A batch may be done until its deadline.
    BatchApproved { ticket: Ticket, approval: Approval },
    /// A batch ended.
    BatchDone { ticket: Ticket, outcome: BatchOutcome },
    /// A batch's end is not known: it is looked at again.
    BatchAmbiguous { ticket: Ticket, outcome: BatchOutcome },
    /// A cycle stops as soon as no batch is under way.
    CycleStopping { cycle: CycleId, stop: Stop },
    /// A cycle waits to be resumed.
    CycleParked { cycle: CycleId, stage: Stage },
    /// A parked cycle goes on where it stopped.
    CycleResumed { cycle: CycleId, stage: Stage, term: Term },
    /// A cycle begins again with a fresh view: another term, or a view that is too old.
    CycleRestarted { cycle: CycleId, term: Term, dropped_plan: Option<PlanDigest>, view: Option<Digest> },
    /// A cycle ended.
    CycleClosed { cycle: CycleId, end: CycleEnd },
    /// A command was refused and changed nothing.
    CommandRefused { command: String, cycle: Option<CycleId>, job: Option<JobId>, reason: Refusal },
    /// A repository is looked after.
    RepositoryAdded { repository: RepositoryId, registration: Box<Registration> },
    /// It is looked after in another way.
    RepositoryChanged { repository: RepositoryId, change: RegistrationChange },
    /// It is not looked after any more.
    RepositoryRemoved { repository: RepositoryId, name: RepositoryName },
    /// Somebody wants a cycle.
    CycleRequested { repository: RepositoryId, key: String, options: CycleOptions },
    /// A wish was given up.
    RequestDropped { repository: RepositoryId, key: String, failure: Failure },
    /// What a cycle did, for people.
    CycleReported { repository: RepositoryId, cycle: CycleId, report: String },
    /// A person wants it to stay stopped.
    CyclePaused { cycle: CycleId },
    /// A person wants it to go on.
    CycleUnpaused { cycle: CycleId },
    /// When cycles are due follows from other settings or margins now.
    LookRecorded { repository: RepositoryId, own: Own, margins: Option<Vec<Margin>> },
    /// A token was made.
    TokenCreated { name: String, access: Access, scopes: Scopes, expires: Option<LogTime> },
    /// It was taken back.
    TokenRevoked { name: String, access: Access },
    /// A coordinator may become a member.
    NodeAdmitted { node: u64, replaces: Option<u64> },
    /// A process drives the cycles of a repository from now on, until then unless it is heard of; `before`: whose time was over.
    DriveTaken { repository: RepositoryId, driver: Driver, until: LogTime, before: Option<Driver> },
    /// It was heard of.
    DriveRenewed { repository: RepositoryId, driver: Driver, until: LogTime },
    /// It does not any more.
    DriveLeft { repository: RepositoryId, driver: Driver },
    /// A version of Kopia's schedule is about to be written.
    WriteNoted { repository: RepositoryId, term: Term, version: Digest },
    /// A session is about to begin.
    SessionNoted { repository: RepositoryId, term: Term, session: SessionName },
    /// A worker is there, or is there as another process, or with other words about itself.
    WorkerSeen { worker: WorkerId, info: Box<WorkerInfo> },
    /// A worker went.
    WorkerLeft { worker: WorkerId },
    /// A worker is to take nothing new, or may again.
    WorkerDrained { worker: WorkerId, drain: bool },
    /// A shard that failed is tried in two parts: what is wrong is in one of them.
    ShardSplit { cycle: CycleId, job: JobId, stage: Stage, failure: Failure, into: Vec<JobId> },
    /// Messages of a coordinator are checked with this from now on.
    WorkKeyNoted { node: u64, key: PublicKey },
    /// A coordinator was told to leave.
    NodeDismissed { node: u64 },
    /// A coordinator is reached elsewhere.
    NodeMoved { node: u64, address: String },
    /// The majority was lost for good, and a person made a cluster of one of what was left.
    ClusterRecovered { node: u64, cluster: String, voted: Vec<u64>, last_index: u64, last_term: u64 },
    /// Its store was probed.
    StoreProbed { repository: RepositoryId, probe: Box<StoreProbe> },
    /// Its store has this ID from now on, as another fleet said there, and not the one before.
    StoreIdentified { repository: RepositoryId, before: StoreId },
    /// Somebody else holds its lease, or gave it back.
    LeaseSeen { repository: RepositoryId, lease: Box<SeenLease> },
    /// A worker cannot open it, and leaves it to others.
    WorkerUnable { repository: RepositoryId, worker: WorkerId, reason: String },
    /// Whoever knows less does not take part in the cluster from here on.
    LevelRaised { level: u32, before: u32 },
    /// Somebody verified it, and said what came of that.
    RepositoryVerified { repository: RepositoryId, verification: Verification },
}

impl Event {
    /// All kinds, in the order of the variants.
    pub const KINDS: [&'static str; 63] = [
        "lease_taken",
        "lease_renewed",
        "lease_lost",
        "lease_released",
        "cycle_opened",
        "cycle_joined",
        "stage_opened",
        "stage_passed",
        "stage_closed",
        "job_offered",
        "job_claimed",
        "job_progressed",
        "job_completed",
        "job_failed",
        "job_lost",
        "shard_quarantined",
        "result_fenced",
        "result_repeated",
        "cycle_degraded",
        "plan_sealed",
        "plan_refused",
        "plan_checked",
        "revivals_added",
        "batch_approved",
        "batch_done",
        "batch_ambiguous",
        "cycle_stopping",
        "cycle_parked",
        "cycle_resumed",
        "cycle_restarted",
        "cycle_closed",
        "command_refused",
        "repository_added",
        "repository_changed",
        "repository_removed",
        "cycle_requested",
        "request_dropped",
        "cycle_reported",
        "cycle_paused",
        "cycle_unpaused",
        "look_recorded",
        "token_created",
        "token_revoked",
        "node_admitted",
        "drive_taken",
        "drive_renewed",
        "drive_left",
        "write_noted",
        "session_noted",
        "worker_seen",
        "worker_left",
        "worker_drained",
        "shard_split",
        "work_key_noted",
        "node_dismissed",
        "node_moved",
        "cluster_recovered",
        "store_probed",
        "store_identified",
        "lease_seen",
        "worker_unable",
        "level_raised",
        "repository_verified",
    ];

    /// Its kind, as in JSON and in the names of the golden files.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Event::LeaseTaken { .. } => "lease_taken",
            Event::LeaseRenewed { .. } => "lease_renewed",
            Event::LeaseLost { .. } => "lease_lost",
            Event::LeaseReleased { .. } => "lease_released",
            Event::CycleOpened { .. } => "cycle_opened",
            Event::CycleJoined { .. } => "cycle_joined",
            Event::StageOpened { .. } => "stage_opened",
            Event::StagePassed { .. } => "stage_passed",
            Event::StageClosed { .. } => "stage_closed",
            Event::JobOffered { .. } => "job_offered",
            Event::JobClaimed { .. } => "job_claimed",
            Event::JobProgressed { .. } => "job_progressed",
            Event::JobCompleted { .. } => "job_completed",
            Event::JobFailed { .. } => "job_failed",
            Event::JobLost { .. } => "job_lost",
            Event::ShardQuarantined { .. } => "shard_quarantined",
            Event::ResultFenced { .. } => "result_fenced",
            Event::ResultRepeated { .. } => "result_repeated",
            Event::CycleDegraded { .. } => "cycle_degraded",
            Event::PlanSealed { .. } => "plan_sealed",
            Event::PlanRefused { .. } => "plan_refused",
            Event::PlanChecked { .. } => "plan_checked",
            Event::RevivalsAdded { .. } => "revivals_added",
            Event::BatchApproved { .. } => "batch_approved",
            Event::BatchDone { .. } => "batch_done",
            Event::BatchAmbiguous { .. } => "batch_ambiguous",
            Event::CycleStopping { .. } => "cycle_stopping",
            Event::CycleParked { .. } => "cycle_parked",
            Event::CycleResumed { .. } => "cycle_resumed",
            Event::CycleRestarted { .. } => "cycle_restarted",
            Event::CycleClosed { .. } => "cycle_closed",
            Event::CommandRefused { .. } => "command_refused",
            Event::RepositoryAdded { .. } => "repository_added",
            Event::RepositoryChanged { .. } => "repository_changed",
            Event::RepositoryRemoved { .. } => "repository_removed",
            Event::CycleRequested { .. } => "cycle_requested",
            Event::RequestDropped { .. } => "request_dropped",
            Event::CycleReported { .. } => "cycle_reported",
            Event::CyclePaused { .. } => "cycle_paused",
            Event::CycleUnpaused { .. } => "cycle_unpaused",
            Event::LookRecorded { .. } => "look_recorded",
            Event::TokenCreated { .. } => "token_created",
            Event::TokenRevoked { .. } => "token_revoked",
            Event::NodeAdmitted { .. } => "node_admitted",
            Event::DriveTaken { .. } => "drive_taken",
            Event::DriveRenewed { .. } => "drive_renewed",
            Event::DriveLeft { .. } => "drive_left",
            Event::WriteNoted { .. } => "write_noted",
            Event::SessionNoted { .. } => "session_noted",
            Event::WorkerSeen { .. } => "worker_seen",
            Event::WorkerLeft { .. } => "worker_left",
            Event::WorkerDrained { .. } => "worker_drained",
            Event::ShardSplit { .. } => "shard_split",
            Event::WorkKeyNoted { .. } => "work_key_noted",
            Event::NodeDismissed { .. } => "node_dismissed",
            Event::NodeMoved { .. } => "node_moved",
            Event::ClusterRecovered { .. } => "cluster_recovered",
            Event::StoreProbed { .. } => "store_probed",
            Event::StoreIdentified { .. } => "store_identified",
            Event::LeaseSeen { .. } => "lease_seen",
            Event::WorkerUnable { .. } => "worker_unable",
            Event::LevelRaised { .. } => "level_raised",
            Event::RepositoryVerified { .. } => "repository_verified",
        }
    }
}
