//! A machine at hand for tests: time to set, commands in short, invariants after each of them.

use std::collections::BTreeMap;

use verger_proto::envelope::VERSION;
use verger_proto::{
    Acting, Approval, Batch, BatchOutcome, BatchRequest, BatchResult, Command, CycleId, CycleOptions, Digest, Effect,
    Event, Failure, FailureKind, IndexKind, JobReport, JobSpec, LogTime, MarkToDrop, Mode, OutputRef, PlanHeader,
    Registration, RepositoryId, RepositoryName, Safety, Schedule, SecretRef, Shard, Sight, Stage, StageWork,
    StoreProbe, StoreSeen, StoreTime, Term, Ticket, ViewRef, WorkerId,
};

use crate::machine::{State, apply, invariant};

pub(crate) fn repository() -> RepositoryId {
    format!("{}-{}", "ab".repeat(32), "01".repeat(16)).parse().unwrap()
}

/// The record that `record` begins with, as a program writes it whose records have this version: whole, and what comes after it.
pub(crate) fn of_version(record: &[u8], version: u16) -> Vec<u8> {
    let mut record = record.to_vec();
    record[4..6].copy_from_slice(&version.to_le_bytes());
    let bit = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    let crc = !record[..12].iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit));
    record[12..16].copy_from_slice(&crc.to_le_bytes());
    record
}

/// As [`of_version`], of the version after this one.
pub(crate) fn of_newer(record: &[u8]) -> Vec<u8> {
    of_version(record, VERSION + 1)
}

pub(crate) fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

pub(crate) fn options(mode: Mode) -> CycleOptions {
    let (safety, index) = (Safety::Full, IndexKind::Epochs);
    CycleOptions { mode, safety, index, dry_run: false, allow_removing: None, exclusive: false, alone: false }
}

pub(crate) fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

pub(crate) fn output(name: &str) -> OutputRef {
    OutputRef { name: name.to_owned(), digest: digest(name), count: 1, view: digest("view") }
}

pub(crate) fn batch(stage: Stage, number: u32, first: u64, items: u64) -> Batch {
    Batch { stage, number, first, items, digest: digest(&format!("{stage} {number}")) }
}

pub(crate) fn done(batch: Batch) -> BatchOutcome {
    let (changed, left_out, bytes, evidence) = (batch.items, 0, 10 * batch.items, None);
    BatchOutcome { batch, result: BatchResult::Done, changed, left_out, bytes, evidence }
}

/// What every approved batch must fit: the order of things in the ledger, kept apart from the machine's own state.
#[derive(Default)]
pub(crate) struct History {
    sealed: BTreeMap<CycleId, PlanHeader>,
    reached: BTreeMap<(CycleId, Stage), u64>,
    open: BTreeMap<CycleId, Approval>,
    completed: Vec<(CycleId, u64)>,
    terms: Term,
    offered: BTreeMap<u64, u32>,
    cycle_terms: BTreeMap<CycleId, Term>,
}

impl History {
    pub(crate) fn see(&mut self, event: &Event) {
        match event {
            Event::LeaseTaken { term, .. } => {
                assert!(*term >= self.terms, "terms only grow");
                self.terms = *term;
            }
            Event::PlanSealed { cycle, header, .. } => {
                assert!(self.sealed.insert(*cycle, (**header).clone()).is_none(), "one plan a cycle");
            }
            Event::CycleRestarted { cycle, term, .. } => {
                self.cycle_terms.insert(*cycle, *term);
                self.sealed.remove(cycle);
                self.open.remove(cycle);
                self.reached.retain(|(of, _), _| of != cycle);
            }
            Event::BatchApproved { ticket, approval } => {
                let batch = approval.batch;
                if let Some(open) = self.open.insert(ticket.cycle, *approval) {
                    assert_eq!(open.batch, batch, "one batch at a time, and the same again");
                }
                let reached = self.reached.get(&(ticket.cycle, batch.stage)).copied().unwrap_or(0);
                assert_eq!(batch.first, reached, "no gap, nothing twice");
                if batch.stage != Stage::Survey {
                    let header = self.sealed.get(&ticket.cycle).expect("no deed before the seal");
                    assert_eq!(approval.plan, Some(header.digest().unwrap()));
                    assert!(reached + batch.items <= header.work(batch.stage).map_or(0, |work| work.items));
                }
                assert_eq!(ticket.term, self.terms, "only the newest term acts");
            }
            Event::CycleOpened { cycle, term, .. } => {
                self.cycle_terms.insert(*cycle, *term);
            }
            Event::JobOffered { job, attempt, .. } => {
                self.offered.insert(job.0, *attempt);
            }
            Event::BatchDone { ticket, outcome } => {
                let open = self.open.remove(&ticket.cycle).expect("a batch ends after its approval");
                assert_eq!(open.batch, outcome.batch);
                if outcome.result == BatchResult::Done {
                    *self.reached.entry((ticket.cycle, outcome.batch.stage)).or_default() += outcome.batch.items;
                }
            }
            Event::StageClosed { cycle, stage } if stage.is_deed() => {
                let items = self.sealed[cycle].work(*stage).map_or(0, |work| work.items);
                let reached = self.reached.get(&(*cycle, *stage)).copied().unwrap_or(0);
                let may_lack = matches!(stage, Stage::Delete | Stage::Logs);
                assert!(reached == items || may_lack, "{stage} closed at {reached} of {items}");
            }
            Event::JobCompleted { ticket, .. } => {
                let key = (ticket.cycle, ticket.job.0);
                assert!(!self.completed.contains(&key), "a job counts once");
                assert_eq!(self.offered[&ticket.job.0], ticket.attempt, "only the newest attempt counts");
                assert_eq!(ticket.term, self.cycle_terms[&ticket.cycle], "only the cycle's term counts");
                self.completed.push(key);
            }
            Event::CycleClosed { cycle, .. } => {
                self.open.remove(cycle);
            }
            _ => {}
        }
    }
}

pub(crate) struct Rig {
    pub(crate) state: State,
    pub(crate) at: LogTime,
    pub(crate) log: Vec<(LogTime, Command, Vec<Event>)>,
    pub(crate) history: History,
}

impl Rig {
    /// A machine that holds the lease under term 1, at a time far from zero.
    pub(crate) fn new() -> Self {
        let mut rig = Self::bare();
        rig.take_lease(1);
        rig
    }

    pub(crate) fn bare() -> Self {
        Self { state: State::default(), at: LogTime(1_000_000), log: Vec::new(), history: History::default() }
    }

    pub(crate) fn go(&mut self, command: Command) -> (Vec<Event>, Vec<Effect>) {
        let before = self.state.clone();
        let (events, effects) = apply(&mut self.state, command.clone(), self.at);
        assert_eq!(invariant::broken(&self.state), [], "after {command:?}");
        if events.is_empty() {
            assert_eq!(self.state, before, "no event, no change");
        }
        if let [Event::CommandRefused { .. } | Event::ResultFenced { .. } | Event::ResultRepeated { .. }] = &events[..]
        {
            let mut unchanged = before;
            unchanged.now = self.state.now;
            assert_eq!(self.state, unchanged, "a refusal changes nothing: {command:?}");
        }
        events.iter().for_each(|event| self.history.see(event));
        if !events.is_empty() {
            self.log.push((self.at.max(self.state.now), command, events.clone()));
        }
        (events, effects)
    }

    pub(crate) fn store(&self) -> StoreTime {
        StoreTime(self.at.0 + 500)
    }

    pub(crate) fn take_lease(&mut self, term: u64) -> Vec<Event> {
        let (store_now, acts_until) = (self.store(), self.store().plus(120_000));
        let (repository, term) = (repository(), Term(term));
        self.go(Command::TakeLease { repository, term, kept: false, store_now, acts_until }).0
    }

    pub(crate) fn renew_lease(&mut self) {
        let term = self.state.repositories[&repository()].last_term;
        let (store_now, acts_until) = (self.store(), self.store().plus(120_000));
        self.go(Command::RenewLease { repository: repository(), term, store_now, acts_until });
    }

    pub(crate) fn open(&mut self, options: CycleOptions) -> (Vec<Event>, Vec<Effect>) {
        self.go(Command::OpenCycle { repository: repository(), options })
    }

    /// The only job that is not over.
    pub(crate) fn job(&self) -> JobSpec {
        let cycle = self.state.cycles.values().next().unwrap();
        cycle.spec(cycle.jobs.values().find(|job| !job.is_over()).unwrap())
    }

    pub(crate) fn stage(&self) -> Stage {
        self.state.cycles.values().next().unwrap().stage
    }

    pub(crate) fn view(&self) -> ViewRef {
        ViewRef { digest: digest("view"), taken: self.store() }
    }

    pub(crate) fn ticket(&self) -> Ticket {
        self.job().ticket(&worker("w1"))
    }

    pub(crate) fn claim(&mut self) -> Ticket {
        let ticket = self.ticket();
        self.go(Command::ClaimJob { ticket: ticket.clone() });
        ticket
    }

    pub(crate) fn request(&self, batch: Batch) -> BatchRequest {
        let plan = self.state.cycles.values().next().unwrap().sealed.as_ref().map(|sealed| sealed.digest);
        BatchRequest { batch, plan, view: self.view(), store_now: self.store(), wanted: 120_000 }
    }

    pub(crate) fn approve(&mut self, ticket: &Ticket, batch: Batch) -> Event {
        let request = self.request(batch);
        self.go(Command::ApproveBatch { ticket: ticket.clone(), request }).0.remove(0)
    }

    pub(crate) fn header(&self) -> PlanHeader {
        let cycle = self.state.cycles.values().next().unwrap();
        let work = |(stage, items): (Stage, u64)| StageWork { stage, items, bytes: 10 * items };
        let stages = [
            (Stage::Mark, 3),
            (Stage::RecordGc, 0),
            (Stage::Watermark, 1),
            (Stage::Delete, 4),
            (Stage::Rewrite, 2),
            (Stage::Publish, 2),
            (Stage::Index, 1),
            (Stage::Logs, 1),
        ];
        let mode = cycle.options.mode;
        PlanHeader {
            repository: repository(),
            store: "filesystem:///srv/photos".to_owned(),
            view: cycle.view.unwrap().0,
            term: cycle.term,
            mode,
            stages: stages.into_iter().filter(|(stage, _)| stage.is_in(mode)).map(work).collect(),
            removed_bytes: 30,
            total_packed_bytes: 100,
            contents: 10,
            live_contents: 7,
            body: output("plan"),
        }
    }

    /// What a good worker says at the end of the present stage.
    pub(crate) fn report(&self, job: &JobSpec) -> JobReport {
        let mut report = JobReport::done(vec![output(&format!("{}-{}", job.stage, job.id))]);
        match job.stage {
            Stage::Survey => report.view = Some(self.view()),
            Stage::Plan => report.plan = Some(self.header()),
            Stage::Check => report.checked = job.plan,
            _ => {}
        }
        report
    }

    /// Does the present job: claim, all batches one by one, report.
    pub(crate) fn do_job(&mut self) -> (Vec<Event>, Vec<Effect>) {
        let job = self.job();
        let report = self.report(&job);
        let ticket = self.claim();
        self.do_batches(&ticket);
        self.go(Command::CompleteJob { ticket, report: Box::new(report) })
    }

    pub(crate) fn do_batches(&mut self, ticket: &Ticket) {
        let cycle = self.state.cycles.values().next().unwrap();
        let (items, batches) = (cycle.items(), cycle.jobs[&ticket.job].batches.clone());
        for (number, first) in (batches.next..).zip(batches.done..items) {
            let batch = batch(self.stage(), number, first, 1);
            assert!(matches!(self.approve(ticket, batch), Event::BatchApproved { .. }));
            self.go(Command::BatchDone { ticket: ticket.clone(), outcome: done(batch) });
        }
    }

    /// Does jobs until the cycle is at `stage`.
    pub(crate) fn until(&mut self, stage: Stage) {
        while self.stage() < stage {
            self.do_job();
        }
        assert_eq!(self.stage(), stage);
    }

    /// A cycle at the stage of its plan's first deed of this kind.
    pub(crate) fn at_stage(stage: Stage) -> Self {
        let mut rig = Self::new();
        rig.open(options(Mode::Full));
        rig.until(stage);
        rig
    }

    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.at = self.at.plus(milliseconds);
    }
}

/// Events and effects in a few words each.
pub(crate) fn words((events, effects): &(Vec<Event>, Vec<Effect>)) -> Vec<String> {
    let event = |event: &Event| match event {
        Event::StageOpened { stage, .. } | Event::StageClosed { stage, .. } => format!("{} {stage}", event.kind()),
        Event::StagePassed { stage, reason, .. } => format!("stage_passed {stage} {reason:?}"),
        Event::JobOffered { job, attempt, .. } => format!("job_offered {job}#{attempt}"),
        Event::JobCompleted { ticket, .. } => format!("job_completed {}#{}", ticket.job, ticket.attempt),
        Event::CycleClosed { end, .. } => format!("cycle_closed {end:?}"),
        Event::CommandRefused { reason, .. }
        | Event::ResultFenced { reason, .. }
        | Event::PlanRefused { reason, .. } => format!("{} {reason:?}", event.kind()),
        other => other.kind().to_owned(),
    };
    let effect = |effect: &Effect| match effect {
        Effect::OfferJob(job) => format!("! offer {}#{} {}", job.id, job.attempt, job.stage),
        Effect::StopJob { job, attempt, .. } => format!("! stop {job}#{attempt}"),
        Effect::RenewLease { term, .. } => format!("! renew lease {term}"),
        Effect::CloseLease { term, .. } => format!("! close lease {term}"),
    };
    events.iter().map(event).chain(effects.iter().map(effect)).collect()
}

/// A store that is good in every way.
pub(crate) fn store() -> StoreProbe {
    let seen = StoreSeen {
        conditional_writes: true,
        conditional_deletes: false,
        reads: Sight::AtOnce,
        lists: Sight::AtOnce,
        stamp_offset: 0,
    };
    StoreProbe {
        local_disk: false,
        seen: Some(seen),
        clock_offset: 12,
        round_trip: 30,
        keeps_versions: Some(false),
        default_retention: None,
    }
}

pub(crate) fn failure(kind: FailureKind, retryable: bool) -> Failure {
    Failure { kind, text: "it failed".to_owned(), retryable }
}

/// Shards that begin at these keys, and one before them.
pub(crate) fn shards(keys: &[&str]) -> Vec<Shard> {
    let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
    let from = std::iter::once(Vec::new()).chain(keys.iter().cloned());
    from.zip(keys.iter().cloned().map(Some).chain([None])).map(|(from, to)| Shard { from, to }).collect()
}

/// A cycle whose scan is cut there, and has begun.
pub(crate) fn cut_scan(keys: &[&str]) -> Rig {
    let mut rig = Rig::new();
    rig.open(options(Mode::Full));
    let cut = |stage| verger_proto::report::Cut { stage, shards: shards(keys) };
    let report = JobReport { cuts: vec![cut(Stage::Scan), cut(Stage::Rewrite)], ..rig.report(&rig.job()) };
    let ticket = rig.claim();
    rig.go(Command::CompleteJob { ticket, report: Box::new(report) });
    assert_eq!(rig.stage(), Stage::Scan);
    rig
}

/// What a worker says of itself.
pub(crate) fn worker_info() -> verger_proto::WorkerInfo {
    verger_proto::WorkerInfo {
        instance: 7,
        started: LogTime(1),
        version: "0.1.0".to_owned(),
        pools: vec!["default".to_owned()],
        labels: std::collections::BTreeMap::new(),
        places: 1,
        exchange: None,
    }
}

/// A repository that somebody added.
pub(crate) fn registration() -> Registration {
    Registration {
        name: RepositoryName::new("photos").unwrap(),
        address: "filesystem:///srv/photos".to_owned(),
        tenant: "home".to_owned(),
        password: SecretRef::Env("PHOTOS".to_owned()),
        acting: Acting::TakeOwnership,
        exclusive: false,
        index: IndexKind::Epochs,
        schedule: Schedule::default(),
        pool: "default".to_owned(),
        weight: 1,
        mark_to_drop: MarkToDrop::Day,
    }
}
