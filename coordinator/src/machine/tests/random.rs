//! Random commands, good and bad, from many workers: the invariants hold after each, and then everything finishes.

use proptest::prelude::*;
use verger_proto::{
    BatchOutcome, BatchResult, Command, CycleOptions, Driven, Driver, Effect, FailureKind, JobReport, LogTime, Mode,
    Outcome, Severity, Stage, Term, Ticket, WorkerInfo,
};

use super::damage;
use crate::machine::apply;
use crate::machine::{Phase, State};
use crate::testing::{Rig, batch, digest, done, failure, options, output, repository, shards, worker, worker_info};

/// One step, small enough to shrink well; numbers are choices among what there is.
#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Take {
        ahead: u64,
        kept: bool,
    },
    Renew,
    Lose,
    Release,
    Open {
        mode: Mode,
        dry_run: bool,
        allow: Option<u8>,
    },
    Claim(u8),
    Progress(u8),
    Complete {
        worker: u8,
        severity: Option<Severity>,
        cut: bool,
        removed: u64,
    },
    Fail {
        worker: u8,
        retryable: bool,
        kind: FailureKind,
    },
    LoseWorker(u8),
    Word(u8),
    Revive(u8),
    Approve {
        worker: u8,
        number: u8,
        items: u8,
        wanted: u64,
        old: u64,
    },
    Done {
        worker: u8,
        result: BatchResult,
    },
    Park,
    Resume,
    Abort,
    Tick,
    Drive {
        number: u64,
    },
    LeaveDrive {
        number: u64,
    },
    /// As a driver.
    Driven {
        number: u64,
        step: Box<Step>,
    },
    /// A process that says that it is there, goes, or is to take nothing.
    See {
        worker: u8,
        instance: u64,
    },
    Forget {
        worker: u8,
        instance: u64,
    },
    Drain {
        worker: u8,
        drain: bool,
    },
    /// Of a write or a session that is about to come, under a term so far behind.
    Note {
        session: bool,
        number: u8,
        behind: u64,
    },
    /// Says again what was said so many commands ago.
    Repeat(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let driven = (1..3u64, plain_step()).prop_map(|(number, step)| Step::Driven { number, step: Box::new(step) });
    let drive = prop_oneof![
        2 => (1..3u64).prop_map(|number| Step::Drive { number }),
        1 => (1..3u64).prop_map(|number| Step::LeaveDrive { number }),
    ];
    prop_oneof![12 => plain_step(), 3 => driven, 1 => drive]
}

fn plain_step() -> impl Strategy<Value = Step> {
    let who = 0..3u8;
    let kind = prop::sample::select(vec![
        FailureKind::Damaged,
        FailureKind::StoreUnavailable,
        FailureKind::Interrupted,
        FailureKind::MemoryLimit,
    ]);
    let severity = prop::option::weighted(
        0.1,
        prop::sample::select(vec![Severity::Noted, Severity::Unreadable, Severity::LostIndex]),
    );
    let mode = prop::sample::select(vec![Mode::Full, Mode::Full, Mode::Quick, Mode::Index]);
    let result = prop::sample::select(vec![BatchResult::Done, BatchResult::NotDone, BatchResult::Ambiguous]);
    prop_oneof![
        3 => prop::sample::select(vec![1, 1_000, 31_000, 121_000, 86_400_001]).prop_map(Step::Pass),
        2 => (0..3u64, any::<bool>()).prop_map(|(ahead, kept)| Step::Take { ahead, kept }),
        6 => Just(Step::Renew),
        1 => Just(Step::Lose),
        1 => Just(Step::Release),
        4 => (mode, prop::bool::weighted(0.1), prop::option::of(0..=100u8))
            .prop_map(|(mode, dry_run, allow)| Step::Open { mode, dry_run, allow }),
        20 => who.clone().prop_map(Step::Claim),
        1 => who.clone().prop_map(Step::Progress),
        20 => (who.clone(), severity, any::<bool>(), prop::sample::select(vec![0, 30, 51, 100]))
            .prop_map(|(worker, severity, cut, removed)| Step::Complete { worker, severity, cut, removed }),
        4 => (who.clone(), prop::bool::weighted(0.8), kind)
            .prop_map(|(worker, retryable, kind)| Step::Fail { worker, retryable, kind }),
        1 => who.clone().prop_map(Step::LoseWorker),
        2 => (0..=100u8).prop_map(Step::Word),
        1 => who.clone().prop_map(Step::Revive),
        20 => (who.clone(), 0..3u8, 0..4u8, prop::sample::select(vec![0, 30_000, 500_000]), prop::sample::select(vec![0, 0, 0, 130_000]))
            .prop_map(|(worker, number, items, wanted, old)| Step::Approve { worker, number, items, wanted, old }),
        20 => (who.clone(), result).prop_map(|(worker, result)| Step::Done { worker, result }),
        1 => Just(Step::Park),
        3 => Just(Step::Resume),
        1 => Just(Step::Abort),
        2 => Just(Step::Tick),
        2 => (any::<bool>(), 0..12u8, prop::sample::select(vec![0, 0, 1]))
            .prop_map(|(session, number, behind)| Step::Note { session, number, behind }),
        1 => (who.clone(), 0..3u64).prop_map(|(worker, instance)| Step::See { worker, instance }),
        1 => (who.clone(), 0..3u64).prop_map(|(worker, instance)| Step::Forget { worker, instance }),
        1 => (who, any::<bool>()).prop_map(|(worker, drain)| Step::Drain { worker, drain }),
        3 => (1..20usize).prop_map(Step::Repeat),
    ]
}

fn driver(node: u64) -> Driver {
    Driver { node, boots: 1, run: 1 }
}

/// The ticket of worker `n` for some job that is not over; mostly its own.
fn ticket(rig: &Rig, n: u8) -> Option<Ticket> {
    let cycle = rig.state.cycles.values().next()?;
    let jobs: Vec<_> = cycle.jobs.values().filter(|job| !job.is_over()).collect();
    let job = jobs.get(usize::from(n) % jobs.len().max(1))?;
    Some(cycle.spec(job).ticket(&worker(&format!("w{}", n % 2))))
}

fn report(rig: &Rig, ticket: &Ticket, severity: Option<Severity>, cut: bool, removed: u64) -> JobReport {
    let cycle = &rig.state.cycles[&ticket.cycle];
    let mut spec = cycle.spec(&cycle.jobs[&ticket.job]);
    spec.attempt = ticket.attempt;
    let mut report = match (spec.stage, cycle.view) {
        (Stage::Survey, _) | (_, Some(_)) => rig.report(&spec),
        (_, None) => JobReport::done(vec![output("x")]),
    };
    if let Some(header) = &mut report.plan {
        header.removed_bytes = removed;
    }
    if let Some(severity) = severity {
        report.outcome = Outcome::Degraded(vec![damage(severity)]);
    }
    if cut && spec.stage == Stage::Survey {
        let cut = |stage| verger_proto::report::Cut { stage, shards: shards(&["p4", "q", "q4"]) };
        report.cuts = vec![cut(Stage::Scan), cut(Stage::Rewrite)];
    }
    report
}

fn command(rig: &mut Rig, step: Step) -> Option<Command> {
    let last = rig.state.repositories.get(&repository()).map_or(0, |entry| entry.last_term.0);
    let (repository, term) = (repository(), Term(last));
    let (store_now, acts_until) = (rig.store(), rig.store().plus(120_000));
    let id = rig.state.cycles.keys().next().copied();
    Some(match step {
        Step::Pass(milliseconds) => {
            rig.pass(milliseconds);
            return None;
        }
        Step::Take { ahead, kept } => {
            Command::TakeLease { repository, term: Term(last + ahead), kept, store_now, acts_until }
        }
        Step::Renew => Command::RenewLease { repository, term, store_now, acts_until },
        Step::Lose => Command::LoseLease { repository, term, reason: "gone".to_owned() },
        Step::Release => Command::ReleaseLease { repository, term },
        Step::Note { session, number, behind } => {
            let term = Term(last.saturating_sub(behind));
            match session {
                true => {
                    let session = format!("s{number:016x}142").parse().unwrap();
                    Command::NoteSession { repository, term, session }
                }
                false => Command::NoteWrite { repository, term, version: digest(&format!("{number}")) },
            }
        }
        Step::Open { mode, dry_run, allow } => {
            let options = CycleOptions { dry_run, allow_removing: allow, ..options(mode) };
            Command::OpenCycle { repository, options }
        }
        Step::Claim(n) => Command::ClaimJob { ticket: ticket(rig, n)? },
        Step::Progress(n) => Command::ReportProgress { ticket: ticket(rig, n)?, progress: None },
        Step::Complete { worker, severity, cut, removed } => {
            let ticket = ticket(rig, worker)?;
            let report = Box::new(report(rig, &ticket, severity, cut, removed));
            Command::CompleteJob { ticket, report }
        }
        Step::Fail { worker, retryable, kind } => {
            Command::FailJob { ticket: ticket(rig, worker)?, failure: failure(kind, retryable) }
        }
        Step::LoseWorker(n) => Command::LoseWorker { worker: worker(&format!("w{}", n % 2)) },
        Step::Word(allow_removing) => {
            let plan = rig.state.cycles.values().next()?.proposed.as_ref()?.0;
            Command::SealPlan { cycle: id?, plan, allow_removing }
        }
        Step::Revive(n) => Command::AddRevivals { ticket: ticket(rig, n)?, revived: output("r"), bytes: 1 },
        Step::Approve { worker, number, items, wanted, old } => {
            let ticket = ticket(rig, worker)?;
            let batches = rig.state.cycles[&ticket.cycle].jobs[&ticket.job].batches.clone();
            let known = batches.outstanding.map(|outstanding| outstanding.approval.batch);
            let next = batch(rig.stage(), batches.next + u32::from(number / 2), batches.done, u64::from(items));
            let mut request = rig.request(known.filter(|_| number == 0).unwrap_or(next));
            request.wanted = wanted;
            request.view.taken.0 -= old;
            Command::ApproveBatch { ticket, request }
        }
        Step::Done { worker, result } => {
            let ticket = ticket(rig, worker)?;
            let batches = &rig.state.cycles[&ticket.cycle].jobs[&ticket.job].batches;
            let batch = batches.outstanding.as_ref()?.approval.batch;
            let changed = if result == BatchResult::Done { batch.items } else { 0 };
            Command::BatchDone { ticket, outcome: BatchOutcome { result, changed, ..done(batch) } }
        }
        Step::Park => Command::ParkCycle { cycle: id? },
        Step::Resume => Command::ResumeCycle { cycle: id? },
        Step::Abort => Command::AbortCycle { cycle: id?, reason: "enough".to_owned() },
        Step::Tick => Command::Tick,
        Step::Drive { number } => Command::TakeDrive { repository, driver: driver(number) },
        Step::LeaveDrive { number } => Command::LeaveDrive { repository, driver: driver(number) },
        Step::Driven { number, step } => match command(rig, *step)? {
            Command::Driven(driven) => Command::Driven(driven),
            command => Command::Driven(Box::new(Driven { driver: driver(number), repository, command })),
        },
        Step::See { worker: n, instance } => {
            let info = WorkerInfo { instance, started: LogTime(instance), ..worker_info() };
            Command::SeeWorker { worker: worker(&format!("p{n}")), info: Box::new(info) }
        }
        Step::Forget { worker: n, instance } => Command::ForgetWorker { worker: worker(&format!("p{n}")), instance },
        Step::Drain { worker: n, drain } => Command::DrainWorker { worker: worker(&format!("p{n}")), drain },
        Step::Repeat(back) => {
            let at = rig.log.len().checked_sub(back)?;
            rig.log[at].1.clone()
        }
    })
}

/// Faults are over: with one good worker the cycle comes to an end, whatever happened before.
fn heal(rig: &mut Rig) {
    let last = rig.state.repositories.get(&repository()).map_or(0, |entry| entry.last_term.0);
    rig.pass(200_000);
    if let Some((driver, _)) = rig.state.repositories.get(&repository()).and_then(|entry| entry.driver) {
        rig.go(Command::LeaveDrive { repository: repository(), driver });
    }
    rig.take_lease(last + 1);
    for _ in 0..2_000 {
        let Some(cycle) = rig.state.cycles.values().next() else { return };
        let (id, phase, dry_run) = (cycle.id, cycle.phase.clone(), cycle.options.dry_run);
        rig.renew_lease();
        match phase {
            Phase::Parked => drop(rig.go(Command::ResumeCycle { cycle: id })),
            Phase::Stopping(_) => drop(rig.go(Command::Tick)),
            Phase::WaitingForWord => {
                let plan = rig.state.cycles[&id].proposed.as_ref().unwrap().0;
                drop(rig.go(Command::SealPlan { cycle: id, plan, allow_removing: 100 }));
            }
            Phase::Running if dry_run => {
                drop(rig.go(Command::AbortCycle { cycle: id, reason: "its process ended".to_owned() }));
            }
            Phase::Running => step_of_a_good_worker(rig),
        }
        rig.pass(40_000);
        drop(rig.go(Command::Tick));
    }
    panic!("the cycle does not come to an end: {:?}", rig.state.cycles);
}

fn step_of_a_good_worker(rig: &mut Rig) {
    let job = rig.job();
    let ticket = rig.claim();
    if let Some(batch) = job.batch {
        rig.approve(&ticket, batch);
        rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: done(batch) });
    }
    rig.do_batches(&ticket);
    let report = Box::new(rig.report(&job));
    rig.go(Command::CompleteJob { ticket, report });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_invariants_hold_and_everything_finishes(steps in prop::collection::vec(step(), 1..250)) {
        let mut rig = Rig::new();
        for step in steps {
            if let Some(command) = command(&mut rig, step) {
                let (_, effects) = rig.go(command);
                for effect in effects {
                    if let Effect::OfferJob(spec) = effect {
                        prop_assert!(spec.term <= rig.state.repositories[&repository()].last_term);
                    }
                }
            }
        }
        heal(&mut rig);
        let mut again = State::default();
        for (at, command, events) in &rig.log {
            prop_assert_eq!(&apply(&mut again, command.clone(), *at).0, events);
        }
        prop_assert_eq!(again, rig.state);
    }
}
