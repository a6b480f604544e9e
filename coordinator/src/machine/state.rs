//! What the machine knows. All of it follows from the commands, in order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use verger_proto::control::Directive;
use verger_proto::event::{CycleEnd, Stop};
use verger_proto::queue::Hint;
use verger_proto::{
    Approval, Batch, CycleId, CycleOptions, CycleRequest, Driver, Failure, JobId, JobSpec, LogTime, OutputRef,
    PlanDigest, PlanHeader, Refusal, Registration, RepositoryId, RepositoryName, SeenLease, Severity, Shard, Stage,
    StoreProbe, StoreTime, Term, Ticket, Unable, Verification, ViewRef, WorkerId, WorkerInfo,
};

use verger_proto::work_queue::PublicKey;

use super::calendar::Calendar;
use crate::auth::Tokens;
use crate::notes::Notes;

/// What the machine knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Repositories that were ever named in a command that was not refused.
    pub repositories: BTreeMap<RepositoryId, Repository>,
    /// Open cycles.
    pub cycles: BTreeMap<CycleId, Cycle>,
    /// Number of the next cycle.
    pub next_cycle: u64,
    /// Number of the next job.
    pub next_job: u64,
    /// Time of the last command that changed anything. Time never runs backwards here, whatever clocks do.
    pub now: LogTime,
    /// Tokens of the interface, as hashes.
    pub tokens: Tokens,
    /// Coordinators that are or were members, by number: none of these is given again.
    pub nodes: BTreeMap<u64, Admitted>,
    /// Workers that said that they are there, by name. A part of a snapshot of its own, since earlier ones have none.
    #[serde(skip)]
    pub workers: BTreeMap<WorkerId, Worker>,
    /// What messages of coordinators are checked with, by number. A part of a snapshot with them.
    #[serde(skip)]
    pub work_keys: BTreeMap<u64, PublicKey>,
    /// What all members know ([`verger_proto::level`]); 0: some of them may be from before there were levels. A part of a snapshot of its
    /// own, the first one.
    #[serde(skip)]
    pub level: u32,
}

/// A worker that said that it is there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// What it said of itself.
    pub info: WorkerInfo,
    /// When it was last heard of, to a minute.
    pub seen: LogTime,
    /// It is to take nothing new.
    pub drained: bool,
}

/// A coordinator that is or was a member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Admitted {
    /// Of its data folder.
    pub key: u128,
    /// The member that leaves when this one votes.
    pub replaces: Option<u64>,
}

impl Default for State {
    fn default() -> Self {
        let (repositories, cycles, nodes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let tokens = Tokens::default();
        let (workers, work_keys) = (BTreeMap::new(), BTreeMap::new());
        let (next_cycle, next_job, now, level) = (1, 1, LogTime(0), 0);
        Self { repositories, cycles, next_cycle, next_job, now, tokens, nodes, workers, work_keys, level }
    }
}

/// One repository.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Repository {
    /// Highest term ever seen here.
    pub last_term: Term,
    /// The lease, while it is held.
    pub lease: Option<Lease>,
    /// The open cycle.
    pub open: Option<CycleId>,
    /// How the last cycle that was to change something ended.
    pub last_end: Option<CycleEnd>,
    /// A cycle that was to change something began and has not come to its end: maintenance is due (S7).
    pub due: bool,
    /// How it is looked after; `None`: it is not, or by its own process alone.
    pub registration: Option<Registration>,
    /// Cycles that somebody wants, the oldest first.
    pub requests: Vec<CycleRequest>,
    /// Keys of wishes that were fulfilled or given up, and what became of them; the newest last.
    pub answered: Vec<(String, Answer)>,
    /// Cycles that ended, the newest last.
    pub past: Vec<Past>,
    /// When cycles began and ended, for its schedule.
    pub calendar: Calendar,
    /// Who drives its cycles, where several processes could, and until when unless it is heard of.
    pub driver: Option<(Driver, LogTime)>,
    /// What its processes left in the store. A part of a snapshot of its own, since earlier ones have none.
    #[serde(skip)]
    pub notes: Notes,
    /// What its store was seen to do, and when that was recorded. A part of a snapshot of its own, too.
    #[serde(skip)]
    pub store: Option<(StoreProbe, LogTime)>,
    /// The lease of another holder, as it was seen last, and when. A part of a snapshot with the next.
    #[serde(skip)]
    pub other: Option<(SeenLease, LogTime)>,
    /// Whose drives began since the last lease was granted, the newest last: they may have written a lease that nobody heard of. A part
    /// of a snapshot of its own.
    #[serde(skip)]
    pub drives: Vec<Driver>,
    /// Workers that cannot open it, the newest last.
    #[serde(skip)]
    pub unable: Vec<Unable>,
    /// What came of verifying it. A part of a snapshot of its own.
    #[serde(skip)]
    pub verified: Option<Verified>,
}

/// What came of verifying a repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// The last one.
    pub last: Verification,
    /// When that was told.
    pub at: LogTime,
    /// When the last one was told that found nothing wrong.
    pub sound_at: Option<LogTime>,
}

/// What became of a wish.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// This cycle.
    Cycle(CycleId),
    /// Nothing.
    Dropped(Failure),
}

/// A cycle that ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Past {
    /// Number.
    pub id: CycleId,
    /// What it was for.
    pub options: CycleOptions,
    /// When it was opened.
    pub opened: LogTime,
    /// When it ended.
    pub ended: LogTime,
    /// How.
    pub end: CycleEnd,
    /// What it did, as JSON, once its worker said so.
    pub report: Option<String>,
}

/// The lease on a repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// Its term.
    pub term: Term,
    /// May act until, by the store's clock.
    pub acts_until: StoreTime,
    /// May act until, by the log's clock: as long after the confirmation as the store allowed after the write.
    pub confirmed_until: LogTime,
    /// When the store last confirmed it.
    pub confirmed: LogTime,
}

/// Whether a cycle goes on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// It does.
    Running,
    /// Its plan needs a person's word (S5).
    WaitingForWord,
    /// It stops as soon as no batch is under way.
    Stopping(Stop),
    /// It waits to be resumed.
    Parked,
}

/// An open cycle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cycle {
    /// Number.
    pub id: CycleId,
    /// Repository.
    pub repository: RepositoryId,
    /// What was asked for.
    pub options: CycleOptions,
    /// Term that its orders are under.
    pub term: Term,
    /// When it was opened.
    pub opened: LogTime,
    /// Whether it goes on.
    pub phase: Phase,
    /// A person paused it: it is not taken up by itself.
    pub paused: bool,
    /// Present stage.
    pub stage: Stage,
    /// Jobs of the present stage.
    pub jobs: BTreeMap<JobId, Job>,
    /// Jobs of the stages before: attempt and worker that counted.
    pub finished: BTreeMap<JobId, (u32, WorkerId)>,
    /// What the stages before left in the exchange.
    pub outputs: Vec<OutputRef>,
    /// The view that the cycle works on, and when it was reported.
    pub view: Option<(ViewRef, LogTime)>,
    /// The store's time of the newest view that an approval named.
    pub newest_view: StoreTime,
    /// How stages are to be cut.
    pub cuts: BTreeMap<Stage, Vec<Shard>>,
    /// The plan that was made.
    pub proposed: Option<(PlanDigest, PlanHeader)>,
    /// The plan that was sealed.
    pub sealed: Option<Sealed>,
    /// Worst damage so far.
    pub severity: Option<Severity>,
}

/// A sealed plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sealed {
    /// Its digest.
    pub digest: PlanDigest,
    /// Its header.
    pub header: PlanHeader,
}

/// Where a job is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum JobStatus {
    /// Offered at this time, or to be offered then.
    Open(LogTime),
    /// A worker has it until then, unless it says that it is alive.
    Claimed(WorkerId, LogTime),
    /// Done, by this worker.
    Done(WorkerId),
    /// Given up; the cycle goes around it.
    Quarantined,
}

/// A job of the present stage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Number.
    pub id: JobId,
    /// Its part of the stage.
    pub shard: Shard,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Attempts that failed or were lost.
    pub failures: u32,
    /// Where it is.
    pub status: JobStatus,
    /// Its batches.
    pub batches: Batches,
}

/// Batches of a job: in order, without gaps, one at a time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Batches {
    /// Number of the next.
    pub next: u32,
    /// Items that are done.
    pub done: u64,
    /// The one that was approved and has not ended.
    pub outstanding: Option<Outstanding>,
    /// The last that ended, so that a repeated word about it is known.
    pub last: Option<Batch>,
}

/// A batch that was approved and has not ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outstanding {
    /// The approval.
    pub approval: Approval,
    /// Its worker failed, is gone, or does not know: it must be looked at again.
    pub ambiguous: bool,
}

impl Job {
    /// Whether nothing more comes of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.status, JobStatus::Done(_) | JobStatus::Quarantined)
    }
}

impl Cycle {
    /// Whether a batch may be under way at `at`: approved, not ended, its worker not heard to fail, its deadline not over.
    #[must_use]
    pub fn acts_at(&self, at: LogTime) -> bool {
        let acts = |o: &Outstanding| !o.ambiguous && o.approval.deadline >= at;
        self.jobs.values().any(|job| job.batches.outstanding.as_ref().is_some_and(acts))
    }

    /// Whether the end of a batch is not known.
    #[must_use]
    pub fn has_outstanding(&self) -> bool {
        self.jobs.values().any(|job| job.batches.outstanding.is_some())
    }

    /// Items that the present stage has to do.
    #[must_use]
    pub fn items(&self) -> u64 {
        let work = self.sealed.as_ref().and_then(|sealed| sealed.header.work(self.stage));
        if self.stage.is_deed() { work.map_or(0, |work| work.items) } else { 0 }
    }

    /// The order for a job of the present stage.
    #[must_use]
    pub fn spec(&self, job: &Job) -> JobSpec {
        JobSpec {
            id: job.id,
            cycle: self.id,
            repository: self.repository.clone(),
            term: self.term,
            stage: self.stage,
            shard: job.shard.clone(),
            attempt: job.attempt,
            options: self.options,
            inputs: self.outputs.clone(),
            plan: self.plan_of_orders(),
            done: job.batches.done,
            batch: job.batches.outstanding.as_ref().map(|outstanding| outstanding.approval.batch),
        }
    }

    /// The word to workers that there is a job.
    #[must_use]
    pub fn hint(&self, job: &Job) -> Hint {
        let (repository, cycle, term, stage) = (self.repository.clone(), self.id, self.term, self.stage);
        Hint { repository, cycle, job: job.id, attempt: job.attempt, term, stage }
    }

    /// Shards that wait for a worker.
    pub fn waiting(&self, now: LogTime) -> impl Iterator<Item = &Job> {
        let is_open = move |status: &JobStatus| matches!(status, JobStatus::Open(from) if *from <= now);
        self.jobs.values().filter(move |job| !job.shard.is_whole() && is_open(&job.status))
    }

    /// The plan that orders carry: the sealed one, and for the check the one that it has to look at.
    fn plan_of_orders(&self) -> Option<PlanDigest> {
        match &self.sealed {
            Some(sealed) => Some(sealed.digest),
            None => self.proposed.as_ref().filter(|_| self.stage == Stage::Check).map(|(digest, _)| *digest),
        }
    }
}

impl State {
    /// The order for an open job.
    #[must_use]
    pub fn spec(&self, cycle: CycleId, job: JobId) -> Option<JobSpec> {
        let cycle = self.cycles.get(&cycle)?;
        cycle.jobs.get(&job).map(|job| cycle.spec(job))
    }

    /// Whether the attempt goes on.
    ///
    /// # Errors
    /// It is not the worker's any more.
    pub fn directive(&self, ticket: &Ticket) -> Result<Directive, Refusal> {
        let cycle = self.cycles.get(&ticket.cycle).ok_or(Refusal::UnknownCycle)?;
        super::refuse::fence(cycle, ticket)?;
        Ok(if cycle.phase == Phase::Running { Directive::Continue } else { Directive::Stop })
    }

    /// The repository that is looked after under a name.
    #[must_use]
    pub fn named(&self, name: &RepositoryName) -> Option<(&RepositoryId, &Repository)> {
        let mut entries = self.repositories.iter();
        entries.find(|(_, entry)| entry.registration.as_ref().is_some_and(|registration| registration.name == *name))
    }

    /// The open cycle of a repository.
    #[must_use]
    pub fn open_cycle(&self, repository: &RepositoryId) -> Option<&Cycle> {
        self.cycles.get(&self.repositories.get(repository)?.open?)
    }
}
