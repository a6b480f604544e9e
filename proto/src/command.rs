//! What is asked of the machine. These are what raft replicates, so they carry everything but the time.

use serde::{Deserialize, Serialize};

use crate::batch::{BatchOutcome, BatchRequest};
use crate::digest::Digest;
use crate::driver::{Driven, Driver};
use crate::id::{CycleId, PlanDigest, RepositoryId, SessionName, StoreId, WorkerId};
use crate::job::{OutputRef, Ticket};
use crate::lease::SeenLease;
use crate::mode::CycleOptions;
use crate::repo::{Registration, RegistrationChange};
use crate::report::{Failure, JobReport, Progress};
use crate::schedule::{Margin, Own};
use crate::store::StoreProbe;
use crate::term::Term;
use crate::time::StoreTime;
use crate::token::TokenGrant;
use crate::verification::Verification;
use crate::work_queue::PublicKey;
use crate::worker::WorkerInfo;

/// What is asked of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// The lease object was written with this term (R3): act under it.
    TakeLease {
        /// Repository.
        repository: RepositoryId,
        /// Term in the object.
        term: Term,
        /// The object was as we left it, so that the term is the last one (R5).
        kept: bool,
        /// The store's clock at the write.
        store_now: StoreTime,
        /// May act until, by the store's clock.
        acts_until: StoreTime,
    },
    /// The lease object was written again, and the store confirmed it.
    RenewLease {
        /// Repository.
        repository: RepositoryId,
        /// Term.
        term: Term,
        /// The store's clock at the write.
        store_now: StoreTime,
        /// May act until, by the store's clock.
        acts_until: StoreTime,
    },
    /// The lease is gone: somebody else holds it, or it could not be renewed.
    LoseLease {
        /// Repository.
        repository: RepositoryId,
        /// Term.
        term: Term,
        /// Why.
        reason: String,
    },
    /// The lease object says "free" now.
    ReleaseLease {
        /// Repository.
        repository: RepositoryId,
        /// Term.
        term: Term,
    },
    /// Begin a cycle, or join an open one with equal options.
    OpenCycle {
        /// Repository.
        repository: RepositoryId,
        /// What for.
        options: CycleOptions,
    },
    /// A worker takes a job.
    ClaimJob {
        /// Who and what.
        ticket: Ticket,
    },
    /// A worker is still at it.
    ReportProgress {
        /// Who and what.
        ticket: Ticket,
        /// How far, if it knows.
        progress: Option<Progress>,
    },
    /// A worker is done.
    CompleteJob {
        /// Who and what.
        ticket: Ticket,
        /// What it leaves.
        report: Box<JobReport>,
    },
    /// A worker failed.
    FailJob {
        /// Who and what.
        ticket: Ticket,
        /// How.
        failure: Failure,
    },
    /// A worker is gone (crashed, silent for too long).
    LoseWorker {
        /// Who.
        worker: WorkerId,
    },
    /// A person's word for a plan that was refused by S5.
    SealPlan {
        /// Cycle.
        cycle: CycleId,
        /// The plan that the word is for.
        plan: PlanDigest,
        /// Up to so many percent may go.
        allow_removing: u8,
    },
    /// A worker revived contents that a new snapshot needs: all that may be added to a sealed plan (R14).
    AddRevivals {
        /// Who and what.
        ticket: Ticket,
        /// Which contents.
        revived: OutputRef,
        /// Their packed bytes.
        bytes: u64,
    },
    /// A worker wants to do a batch.
    ApproveBatch {
        /// Who and what.
        ticket: Ticket,
        /// Which batch, joined with which view.
        request: BatchRequest,
    },
    /// A worker did a batch, or does not know.
    BatchDone {
        /// Who and what.
        ticket: Ticket,
        /// How it ended.
        outcome: BatchOutcome,
    },
    /// Stop at the next batch boundary and keep the state (Ctrl-C).
    ParkCycle {
        /// Cycle.
        cycle: CycleId,
    },
    /// Go on with a parked cycle.
    ResumeCycle {
        /// Cycle.
        cycle: CycleId,
    },
    /// End a cycle without finishing it. It stays due.
    AbortCycle {
        /// Cycle.
        cycle: CycleId,
        /// Why.
        reason: String,
    },
    /// Time has passed: look for claims and deadlines that ran out.
    Tick,
    /// Look after a repository from now on.
    AddRepository {
        /// Repository, as its store and its format say.
        repository: RepositoryId,
        /// How.
        registration: Box<Registration>,
    },
    /// Look after it in another way.
    ChangeRepository {
        /// Repository.
        repository: RepositoryId,
        /// What changes.
        change: RegistrationChange,
    },
    /// Look after it no more. What was written stays.
    RemoveRepository {
        /// Repository.
        repository: RepositoryId,
    },
    /// A cycle is wanted: it is opened as soon as the lease is there and no cycle with other options is open.
    RequestCycle {
        /// Repository.
        repository: RepositoryId,
        /// Chosen by whoever asks: the same again is the same wish.
        key: String,
        /// What for.
        options: CycleOptions,
    },
    /// A wish that cannot be fulfilled is given up.
    DropRequest {
        /// Repository.
        repository: RepositoryId,
        /// Its key.
        key: String,
        /// Why.
        failure: Failure,
    },
    /// The report of a cycle that ended, for people.
    RecordReport {
        /// Repository.
        repository: RepositoryId,
        /// Cycle.
        cycle: CycleId,
        /// JSON, as `verger maintain --json` prints it.
        report: String,
    },
    /// A person wants a cycle to stop at the next batch boundary, and to stay so.
    PauseCycle {
        /// Cycle.
        cycle: CycleId,
    },
    /// A person wants a paused cycle to go on: whoever works takes it up as soon as the lease is there.
    UnpauseCycle {
        /// Cycle.
        cycle: CycleId,
    },
    /// What somebody ordered through the interface. The machine does the same whoever says it; the ledger keeps who it was.
    Ordered(Box<Ordered>),
    /// What a look at a repository, or a cycle's report, says of when the next cycle is due.
    RecordLook {
        /// Repository.
        repository: RepositoryId,
        /// Its own Kopia settings.
        own: Own,
        /// The margins that a full cycle's report named; `None`: no full cycle was at work, what is known stays.
        margins: Option<Vec<Margin>>,
    },
    /// Keep a token's name, rights and hash: whoever holds it may act from now on.
    CreateToken {
        /// What is kept of it.
        grant: Box<TokenGrant>,
    },
    /// Take a token back.
    RevokeToken {
        /// Its name.
        name: String,
    },
    /// A coordinator is to become a member. Its number is never given again, not even after it has left.
    AdmitNode {
        /// Its number.
        node: u64,
        /// Made at random together with its data folder: the same again is the same folder.
        key: u128,
        /// The member that leaves when this one votes.
        replaces: Option<u64>,
    },
    /// A process wants to drive the cycles of a repository, alone.
    TakeDrive {
        /// Repository.
        repository: RepositoryId,
        /// Which attempt of which process.
        driver: Driver,
    },
    /// It does not drive them any more.
    LeaveDrive {
        /// Repository.
        repository: RepositoryId,
        /// Who.
        driver: Driver,
    },
    /// What whoever drives a repository says.
    Driven(Box<Driven>),
    /// This version of Kopia's schedule is about to be written: whoever finds it there knows that it is no other maintainer's (R22).
    NoteWrite {
        /// Repository.
        repository: RepositoryId,
        /// Under which term.
        term: Term,
        /// Digest of what it says.
        version: Digest,
    },
    /// This session is about to begin: once its term is over, so is the session (R21).
    NoteSession {
        /// Repository.
        repository: RepositoryId,
        /// Under which term.
        term: Term,
        /// Its ID.
        session: SessionName,
    },
    /// A worker says that it is there.
    SeeWorker {
        /// Its name.
        worker: WorkerId,
        /// What it says of itself.
        info: Box<WorkerInfo>,
    },
    /// A worker goes.
    ForgetWorker {
        /// Its name.
        worker: WorkerId,
        /// Which process of that name.
        instance: u64,
    },
    /// A worker is to take nothing new, or may again.
    DrainWorker {
        /// Its name.
        worker: WorkerId,
        /// Whether it is to take nothing new.
        drain: bool,
    },
    /// What messages of a coordinator are checked with. No secret: it is what workers are told.
    NoteWorkKey {
        /// The coordinator's number.
        node: u64,
        /// Its public key.
        key: PublicKey,
    },
    /// A coordinator is to leave; the members change after this.
    DismissNode {
        /// Its number.
        node: u64,
    },
    /// A coordinator is reached elsewhere; the members change after this.
    MoveNode {
        /// Its number.
        node: u64,
        /// What other coordinators will call.
        address: String,
    },
    /// A majority is gone for good, and a person made a cluster of one of what is left. Written by hand behind the last entry of that
    /// one's log, so that nobody goes on under what the lost ones agreed to.
    RecoverCluster(Box<Recovery>),
    /// What a probe saw of a repository's store.
    RecordProbe {
        /// Repository.
        repository: RepositoryId,
        /// What it saw.
        probe: Box<StoreProbe>,
    },
    /// Another fleet said in the store which one it is, since this one added it: that is the same repository, as long as nothing was ever
    /// done here under a lease of ours (R6).
    IdentifyStore {
        /// Repository, as it was known.
        repository: RepositoryId,
        /// The store, as its lease object says.
        store: StoreId,
    },
    /// The lease object was looked at, and is not ours.
    NoteLease {
        /// Repository.
        repository: RepositoryId,
        /// What it said.
        lease: Box<SeenLease>,
    },
    /// A worker cannot open a repository, and leaves it to others.
    NoteUnable {
        /// Repository.
        repository: RepositoryId,
        /// The worker's name.
        worker: WorkerId,
        /// Who it is when it asks for work.
        driver: Driver,
        /// Why: the place of a secret, never the secret.
        reason: String,
    },
    /// Every member of the cluster has said that its program knows this level ([`level`](crate::level)).
    RaiseLevel {
        /// The level.
        level: u32,
    },
    /// As [`Command::NoteUnable`], with what kind of failure it is: a secret that is not there, or one that the repository or its store
    /// refuses.
    NoteShutOut {
        /// Repository.
        repository: RepositoryId,
        /// The worker's name.
        worker: WorkerId,
        /// Who it is when it asks for work.
        driver: Driver,
        /// Why: the place of a secret, never the secret.
        failure: Box<Failure>,
    },
    /// Somebody verified a repository, and says what came of it.
    RecordVerification {
        /// Repository.
        repository: RepositoryId,
        /// What came of it.
        verification: Verification,
    },
}

/// What a cluster was made of again after its majority was lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recovery {
    /// The coordinator that is left.
    pub node: u64,
    /// What raft calls the cluster from now on: folders of the one before are not of it.
    pub cluster: String,
    /// Coordinators that voted before.
    pub voted: Vec<u64>,
    /// Index and term of the last entry that it had. Later ones may have been acknowledged, and are lost.
    pub last_index: u64,
    /// See there.
    pub last_term: u64,
}

/// A command and who gave it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ordered {
    /// Who: the name that goes with the token, never the token.
    pub actor: String,
    /// What.
    pub command: Command,
}

impl Command {
    /// Who gave it, if it came through the interface.
    #[must_use]
    pub fn actor(&self) -> Option<&str> {
        match self {
            Command::Ordered(ordered) => Some(&ordered.actor),
            _ => None,
        }
    }

    /// Its name in records and messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Command::TakeLease { .. } => "take_lease",
            Command::RenewLease { .. } => "renew_lease",
            Command::LoseLease { .. } => "lose_lease",
            Command::ReleaseLease { .. } => "release_lease",
            Command::OpenCycle { .. } => "open_cycle",
            Command::ClaimJob { .. } => "claim_job",
            Command::ReportProgress { .. } => "report_progress",
            Command::CompleteJob { .. } => "complete_job",
            Command::FailJob { .. } => "fail_job",
            Command::LoseWorker { .. } => "lose_worker",
            Command::SealPlan { .. } => "seal_plan",
            Command::AddRevivals { .. } => "add_revivals",
            Command::ApproveBatch { .. } => "approve_batch",
            Command::BatchDone { .. } => "batch_done",
            Command::ParkCycle { .. } => "park_cycle",
            Command::ResumeCycle { .. } => "resume_cycle",
            Command::AbortCycle { .. } => "abort_cycle",
            Command::Tick => "tick",
            Command::AddRepository { .. } => "add_repository",
            Command::ChangeRepository { .. } => "change_repository",
            Command::RemoveRepository { .. } => "remove_repository",
            Command::RequestCycle { .. } => "request_cycle",
            Command::DropRequest { .. } => "drop_request",
            Command::RecordReport { .. } => "record_report",
            Command::PauseCycle { .. } => "pause_cycle",
            Command::UnpauseCycle { .. } => "unpause_cycle",
            Command::Ordered(ordered) => ordered.command.name(),
            Command::RecordLook { .. } => "record_look",
            Command::CreateToken { .. } => "create_token",
            Command::RevokeToken { .. } => "revoke_token",
            Command::AdmitNode { .. } => "admit_node",
            Command::TakeDrive { .. } => "take_drive",
            Command::LeaveDrive { .. } => "leave_drive",
            Command::Driven(driven) => driven.command.name(),
            Command::NoteWrite { .. } => "note_write",
            Command::NoteSession { .. } => "note_session",
            Command::SeeWorker { .. } => "see_worker",
            Command::ForgetWorker { .. } => "forget_worker",
            Command::DrainWorker { .. } => "drain_worker",
            Command::NoteWorkKey { .. } => "note_work_key",
            Command::DismissNode { .. } => "dismiss_node",
            Command::MoveNode { .. } => "move_node",
            Command::RecoverCluster(_) => "recover_cluster",
            Command::RecordProbe { .. } => "record_probe",
            Command::IdentifyStore { .. } => "identify_store",
            Command::NoteLease { .. } => "note_lease",
            Command::NoteUnable { .. } => "note_unable",
            Command::RaiseLevel { .. } => "raise_level",
            Command::NoteShutOut { .. } => "note_shut_out",
            Command::RecordVerification { .. } => "record_verification",
        }
    }
}
