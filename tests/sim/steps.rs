//! What workers and people say to the machine, good and bad, as far as it can be chosen by looking at a state that may be old.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use verger_coordinator::machine::{Cycle, Phase, State};
use verger_proto::{
    Acting, Batch, BatchOutcome, BatchRequest, BatchResult, Command, CycleOptions, Damage, Digest, Failure,
    FailureKind, IndexKind, JobReport, JobSpec, MarkToDrop, Mode, Outcome, OutputRef, PlanHeader, Registration,
    RegistrationChange, RepositoryId, RepositoryName, Safety, Schedule, SecretRef, Severity, Stage, StageWork,
    StoreTime, Term, Ticket, ViewRef, WorkerId, repo::POOL_DEFAULT,
};

/// How many repositories there are.
pub const REPOSITORIES: usize = 2;

pub fn repository(number: usize) -> RepositoryId {
    format!("{}-{:02x}{}", "ab".repeat(32), number + 1, "01".repeat(15)).parse().unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn output(name: &str) -> OutputRef {
    OutputRef { name: name.to_owned(), digest: digest(name), count: 1, view: digest("view") }
}

pub fn registration(number: usize) -> Registration {
    Registration {
        name: RepositoryName::new(format!("photos-{number}")).unwrap(),
        address: format!("filesystem:///srv/photos-{number}"),
        tenant: "default".to_owned(),
        password: SecretRef::Env("PHOTOS_PASSWORD".to_owned()),
        acting: Acting::TakeOwnership,
        exclusive: true,
        index: IndexKind::Epochs,
        schedule: Schedule::default(),
        pool: POOL_DEFAULT.to_owned(),
        weight: 1,
        mark_to_drop: MarkToDrop::Day,
    }
}

fn options(mode: Mode) -> CycleOptions {
    let (safety, index) = (Safety::Full, IndexKind::Epochs);
    CycleOptions { mode, safety, index, dry_run: false, allow_removing: None, exclusive: false, alone: false }
}

/// Somebody who speaks to the machine.
pub struct Voice {
    pub name: WorkerId,
    pub dice: SmallRng,
    /// The store's clock now.
    pub store_now: StoreTime,
    wishes: u32,
}

impl Voice {
    pub fn new(number: usize, dice: SmallRng) -> Self {
        let name = WorkerId::new(format!("w{number}")).unwrap();
        Self { name, dice, store_now: StoreTime(0), wishes: 0 }
    }

    fn view(&self) -> ViewRef {
        ViewRef { digest: digest("view"), taken: self.store_now }
    }

    fn ticket(&mut self, cycle: &Cycle) -> Option<Ticket> {
        let jobs: Vec<_> = cycle.jobs.values().filter(|job| !job.is_over()).collect();
        let job = jobs.choose(&mut self.dice)?;
        let who = if self.dice.random_bool(0.1) { WorkerId::new("w1").unwrap() } else { self.name.clone() };
        Some(cycle.spec(job).ticket(&who))
    }

    /// Something to say about one repository; `None`: nothing comes to mind.
    pub fn speak(&mut self, state: &State) -> Option<Command> {
        let number = self.dice.random_range(0..REPOSITORIES);
        let repository = repository(number);
        let entry = state.repositories.get(&repository);
        let last = entry.map_or(0, |entry| entry.last_term.0);
        let (term, held) = (Term(last), entry.is_some_and(|entry| entry.lease.is_some()));
        if entry.is_none_or(|entry| entry.registration.is_none()) && self.dice.random_bool(0.5) {
            return Some(Command::AddRepository { repository, registration: Box::new(registration(number)) });
        }
        let (store_now, acts_until) = (self.store_now, self.store_now.plus(120_000));
        let Some(cycle) = state.open_cycle(&repository) else {
            return Some(match self.dice.random_range(0..8) {
                0..3 if !held => {
                    Command::TakeLease { repository, term: Term(last + 1), kept: false, store_now, acts_until }
                }
                0 => Command::RenewLease { repository, term, store_now, acts_until },
                1 => self.wish(repository),
                2 => Command::ReleaseLease { repository, term },
                3 => return self.register(repository),
                _ => self.open(repository, entry.and_then(|entry| entry.requests.first().map(|wish| wish.options))),
            });
        };
        if self.dice.random_bool(0.15) {
            return self.disturb(repository, cycle, last);
        }
        if !held || self.dice.random_bool(0.1) {
            return Some(match held {
                true => Command::RenewLease { repository, term, store_now, acts_until },
                false => Command::TakeLease { repository, term: Term(last + 1), kept: false, store_now, acts_until },
            });
        }
        match &cycle.phase {
            Phase::Parked => Some(Command::ResumeCycle { cycle: cycle.id }),
            Phase::Stopping(_) => Some(Command::Tick),
            Phase::WaitingForWord => {
                let plan = cycle.proposed.as_ref()?.0;
                Some(Command::SealPlan { cycle: cycle.id, plan, allow_removing: self.dice.random_range(40..=101) })
            }
            Phase::Running => self.work(cycle),
        }
    }

    fn wish(&mut self, repository: RepositoryId) -> Command {
        self.wishes += 1;
        let mode = if self.dice.random_bool(0.5) { Mode::Quick } else { Mode::Full };
        let number = self.wishes / 2;
        Command::RequestCycle { repository, key: format!("{}-{number}", self.name), options: options(mode) }
    }

    fn open(&mut self, repository: RepositoryId, wanted: Option<CycleOptions>) -> Command {
        let mode = if self.dice.random_bool(0.4) { Mode::Quick } else { Mode::Full };
        let allow_removing = self.dice.random_bool(0.3).then(|| self.dice.random_range(0..=100));
        let own = CycleOptions { dry_run: self.dice.random_bool(0.05), allow_removing, ..options(mode) };
        Command::OpenCycle { repository, options: wanted.unwrap_or(own) }
    }

    fn register(&mut self, repository: RepositoryId) -> Option<Command> {
        let change = RegistrationChange::Suspended(self.dice.random_bool(0.5));
        Some(Command::ChangeRepository { repository, change })
    }

    /// What a bad worker, a bad network or a person would say.
    fn disturb(&mut self, repository: RepositoryId, cycle: &Cycle, last: u64) -> Option<Command> {
        let (id, store_now, acts_until) = (cycle.id, self.store_now, self.store_now.plus(130_000));
        Some(match self.dice.random_range(0..14) {
            0 => {
                let term = Term(last + self.dice.random_range(0..3));
                Command::TakeLease { repository, term, kept: self.dice.random_bool(0.3), store_now, acts_until }
            }
            1 => {
                let term = Term(last.saturating_sub(1));
                Command::RenewLease { repository, term, store_now, acts_until }
            }
            2 => Command::LoseLease { repository, term: Term(last), reason: "gone".to_owned() },
            3 => Command::ParkCycle { cycle: id },
            4 if self.dice.random_bool(0.3) => Command::AbortCycle { cycle: id, reason: "enough".to_owned() },
            5 => Command::LoseWorker { worker: self.name.clone() },
            6 => self.wish(repository),
            7 => {
                let kind =
                    if self.dice.random_bool(0.7) { FailureKind::StoreUnavailable } else { FailureKind::Damaged };
                let failure = Failure { kind, text: "it broke".to_owned(), retryable: self.dice.random_bool(0.9) };
                Command::FailJob { ticket: self.ticket(cycle)?, failure }
            }
            8 | 9 => {
                let mut ticket = self.ticket(cycle)?;
                ticket.term = Term(last.saturating_sub(1));
                self.about(cycle, ticket)?
            }
            10 => {
                let mut ticket = self.ticket(cycle)?;
                ticket.attempt = ticket.attempt.saturating_sub(1);
                self.about(cycle, ticket)?
            }
            11 => {
                let ticket = self.ticket(cycle)?;
                let request = self.request(cycle, self.batch(cycle, &ticket, 1)?, None);
                Command::ApproveBatch { ticket, request }
            }
            12 => Command::AddRevivals { ticket: self.ticket(cycle)?, revived: output("r"), bytes: 1 },
            _ => Command::Tick,
        })
    }

    /// The next good word about the running stage.
    fn work(&mut self, cycle: &Cycle) -> Option<Command> {
        let ticket = self.ticket(cycle)?;
        if self.dice.random_bool(0.3) {
            return Some(Command::ClaimJob { ticket });
        }
        self.about(cycle, ticket)
    }

    fn batch(&self, cycle: &Cycle, ticket: &Ticket, items: u64) -> Option<Batch> {
        let batches = &cycle.jobs.get(&ticket.job)?.batches;
        let (number, first, stage) = (batches.next, batches.done, cycle.stage);
        Some(Batch { stage, number, first, items, digest: digest(&format!("{stage} {number}")) })
    }

    fn request(&mut self, cycle: &Cycle, batch: Batch, plan: Option<verger_proto::PlanDigest>) -> BatchRequest {
        let plan = plan.or_else(|| cycle.sealed.as_ref().map(|sealed| sealed.digest));
        let plan =
            plan.or_else(|| cycle.proposed.as_ref().filter(|_| self.dice.random_bool(0.5)).map(|(plan, _)| *plan));
        let mut view = self.view();
        if self.dice.random_bool(0.05) {
            view.taken.0 -= 130_000;
        }
        let wanted = *[30_000, 500_000].choose(&mut self.dice).unwrap();
        BatchRequest { batch, plan, view, store_now: self.store_now, wanted }
    }

    fn about(&mut self, cycle: &Cycle, ticket: Ticket) -> Option<Command> {
        let job = cycle.jobs.get(&ticket.job)?;
        if let Some(outstanding) = &job.batches.outstanding {
            let batch = outstanding.approval.batch;
            if outstanding.ambiguous || self.dice.random_bool(0.1) {
                let request = self.request(cycle, batch, None);
                return Some(Command::ApproveBatch { ticket, request });
            }
            let result = *[
                BatchResult::Done,
                BatchResult::Done,
                BatchResult::Done,
                BatchResult::NotDone,
                BatchResult::Ambiguous,
            ]
            .choose(&mut self.dice)
            .unwrap();
            let changed = if result == BatchResult::Done { batch.items } else { 0 };
            let outcome = BatchOutcome { batch, result, changed, left_out: 0, bytes: 10 * changed, evidence: None };
            return Some(Command::BatchDone { ticket, outcome });
        }
        let left = cycle.items().saturating_sub(job.batches.done);
        if left > 0 || (cycle.stage == Stage::Survey && job.batches.next == 0 && self.dice.random_bool(0.2)) {
            let beyond = u64::from(self.dice.random_bool(0.05));
            let items = if left > 0 { self.dice.random_range(1..=left + beyond) } else { 0 };
            let batch = self.batch(cycle, &ticket, items)?;
            let request = self.request(cycle, batch, None);
            return Some(Command::ApproveBatch { ticket, request });
        }
        let report = Box::new(self.report(cycle, &cycle.spec(job)));
        Some(Command::CompleteJob { ticket, report })
    }

    fn report(&mut self, cycle: &Cycle, job: &JobSpec) -> JobReport {
        let mut report = JobReport::done(vec![output(&format!("{}-{}-{}", job.stage, job.id, job.attempt))]);
        match job.stage {
            Stage::Survey => report.view = Some(self.view()),
            Stage::Plan => report.plan = header(cycle, *[0, 30, 30, 60, 100].choose(&mut self.dice).unwrap()),
            Stage::Check => report.checked = job.plan,
            _ => {}
        }
        if self.dice.random_bool(0.02) {
            let (subject, text) = ("p1".to_owned(), "cannot be read".to_owned());
            let damage = Damage { severity: Severity::Noted, subject, text, snapshots: vec![], paths: vec![] };
            report.outcome = Outcome::Degraded(vec![damage]);
        }
        report
    }
}

fn header(cycle: &Cycle, removed_bytes: u64) -> Option<PlanHeader> {
    let mode = cycle.options.mode;
    let stages = [(Stage::Mark, 3), (Stage::RecordGc, 0), (Stage::Watermark, 1), (Stage::Delete, 4), (Stage::Logs, 1)];
    let work = |(stage, items): (Stage, u64)| StageWork { stage, items, bytes: 10 * items };
    Some(PlanHeader {
        repository: cycle.repository.clone(),
        store: "filesystem:///srv/photos".to_owned(),
        view: cycle.view?.0,
        term: cycle.term,
        mode,
        stages: stages.into_iter().filter(|(stage, _)| stage.is_in(mode)).map(work).collect(),
        removed_bytes,
        total_packed_bytes: 100,
        contents: 10,
        live_contents: 7,
        body: output("plan"),
    })
}

/// A good worker's next word, so that what is open comes to its end. `None`: nothing is open or wanted.
pub fn finish(voice: &mut Voice, state: &State) -> Option<Command> {
    let store_now = voice.store_now;
    for number in 0..REPOSITORIES {
        let repository = repository(number);
        let Some(entry) = state.repositories.get(&repository) else { continue };
        let acts_until = store_now.plus(120_000);
        let cycle = state.open_cycle(&repository);
        if cycle.is_none() && entry.requests.is_empty() {
            continue;
        }
        let Some(lease) = entry.lease else {
            let term = Term(entry.last_term.0 + 1);
            return Some(Command::TakeLease { repository, term, kept: false, store_now, acts_until });
        };
        if lease.acts_until.since(store_now) < 60_000 || lease.confirmed_until.since(state.now) < 60_000 {
            return Some(Command::RenewLease { repository, term: lease.term, store_now, acts_until });
        }
        let Some(cycle) = cycle else {
            return Some(Command::OpenCycle { repository, options: entry.requests[0].options });
        };
        return Some(match &cycle.phase {
            Phase::Parked => Command::ResumeCycle { cycle: cycle.id },
            Phase::Stopping(_) => Command::Tick,
            Phase::WaitingForWord => {
                let plan = cycle.proposed.as_ref()?.0;
                Command::SealPlan { cycle: cycle.id, plan, allow_removing: 100 }
            }
            Phase::Running if cycle.options.dry_run => {
                Command::AbortCycle { cycle: cycle.id, reason: "its process ended".to_owned() }
            }
            Phase::Running => good_word(voice, cycle, store_now)?,
        });
    }
    None
}

fn good_word(voice: &mut Voice, cycle: &Cycle, store_now: StoreTime) -> Option<Command> {
    use verger_coordinator::machine::JobStatus;
    let job = cycle.jobs.values().find(|job| !job.is_over())?;
    let spec = cycle.spec(job);
    let ticket = spec.ticket(&voice.name);
    match &job.status {
        JobStatus::Open(_) => return Some(Command::ClaimJob { ticket }),
        JobStatus::Claimed(worker, _) if *worker != voice.name => {
            return Some(Command::LoseWorker { worker: worker.clone() });
        }
        _ => {}
    }
    let request = |batch| {
        let view = ViewRef { digest: digest("view"), taken: store_now.max(cycle.newest_view) };
        let plan = cycle.sealed.as_ref().map(|sealed| sealed.digest);
        BatchRequest { batch, plan, view, store_now: view.taken, wanted: 120_000 }
    };
    if let Some(outstanding) = &job.batches.outstanding {
        let batch = outstanding.approval.batch;
        if outstanding.ambiguous {
            return Some(Command::ApproveBatch { ticket, request: request(batch) });
        }
        let (changed, left_out, bytes, evidence) = (batch.items, 0, 10, None);
        let outcome = BatchOutcome { batch, result: BatchResult::Done, changed, left_out, bytes, evidence };
        return Some(Command::BatchDone { ticket, outcome });
    }
    if job.batches.done < cycle.items() {
        let items = cycle.items() - job.batches.done;
        return Some(Command::ApproveBatch {
            ticket: ticket.clone(),
            request: request(voice.batch(cycle, &ticket, items)?),
        });
    }
    let mut report = JobReport::done(vec![output(&format!("{}-{}-{}", spec.stage, spec.id, spec.attempt))]);
    match spec.stage {
        Stage::Survey => report.view = Some(voice.view()),
        Stage::Plan => report.plan = header(cycle, 30),
        Stage::Check => report.checked = spec.plan,
        _ => {}
    }
    Some(Command::CompleteJob { ticket, report: Box::new(report) })
}
