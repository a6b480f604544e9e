//! Shards: who may have them, pauses between attempts, and halves of what fails again and again.

use verger_proto::event::CycleEnd;
use verger_proto::{
    Command, Driven, Driver, Effect, Event, FailureKind, JobId, JobReport, JobSpec, Refusal, Severity, Shard, Stage,
    Ticket,
};

use super::refused;
use crate::machine::{Job, JobStatus};
use crate::offer::ROOM_ATTEMPTS_MAX;
use crate::testing::{Rig, cut_scan, failure, output, repository, worker};

const DRIVER: Driver = Driver { node: 1, boots: 1, run: 1 };

fn driven(command: Command) -> Command {
    Command::Driven(Box::new(Driven { driver: DRIVER, repository: repository(), command }))
}

fn drive(rig: &mut Rig) {
    let events = rig.go(Command::TakeDrive { repository: repository(), driver: DRIVER }).0;
    assert!(matches!(events[..], [Event::DriveTaken { .. }]));
}

fn jobs(rig: &Rig) -> Vec<Job> {
    rig.state.cycles.values().next().unwrap().jobs.values().cloned().collect()
}

fn spec(rig: &Rig, job: JobId) -> JobSpec {
    let cycle = rig.state.cycles.values().next().unwrap();
    cycle.spec(&cycle.jobs[&job])
}

fn claim(rig: &mut Rig, job: JobId, name: &str) -> Result<Ticket, Refusal> {
    let ticket = spec(rig, job).ticket(&worker(name));
    let events = rig.go(Command::ClaimJob { ticket: ticket.clone() }).0;
    match events.as_slice() {
        [Event::JobClaimed { .. }] => Ok(ticket),
        refusal => Err(refused(refusal).clone()),
    }
}

/// Claims a shard as soon as its pause is over, and fails.
fn fail(rig: &mut Rig, job: JobId, kind: FailureKind, retryable: bool) -> (Vec<Event>, Vec<Effect>) {
    if let JobStatus::Open(from) = jobs(rig).into_iter().find(|one| one.id == job).unwrap().status {
        rig.at = rig.at.max(from);
    }
    let ticket = claim(rig, job, "w2").unwrap();
    rig.go(Command::FailJob { ticket, failure: failure(kind, retryable) })
}

fn split_into(events: &[Event]) -> Option<Vec<JobId>> {
    events.iter().find_map(|event| match event {
        Event::ShardSplit { into, .. } => Some(into.clone()),
        _ => None,
    })
}

#[test]
fn only_the_driver_has_jobs_for_whole_stages_and_anybody_has_shards() {
    let mut rig = Rig::at_stage(Stage::Solve);
    drive(&mut rig);
    let whole = jobs(&rig)[0].id;
    assert_eq!(claim(&mut rig, whole, "w2"), Err(Refusal::DrivenByOther(DRIVER)));
    let ticket = spec(&rig, whole).ticket(&worker("w1"));
    assert!(matches!(rig.go(driven(Command::ClaimJob { ticket })).0[..], [Event::JobClaimed { .. }]));

    let mut rig = cut_scan(&["p8", "q8"]);
    drive(&mut rig);
    let [first, second, third] = [0, 1, 2].map(|at| jobs(&rig)[at].id);
    claim(&mut rig, first, "w2").unwrap();
    claim(&mut rig, first, "w2").unwrap();
    assert_eq!(claim(&mut rig, first, "w3"), Err(Refusal::ClaimedByOther));
    claim(&mut rig, second, "w3").unwrap();
    let ticket = spec(&rig, third).ticket(&worker("w1"));
    rig.go(driven(Command::ClaimJob { ticket: ticket.clone() }));
    let other = Driver { node: 2, ..DRIVER };
    let command = Command::FailJob { ticket, failure: failure(FailureKind::Damaged, true) };
    let stolen = Command::Driven(Box::new(Driven { driver: other, repository: repository(), command }));
    assert_eq!(*refused(&rig.go(stolen).0), Refusal::DrivenByOther(DRIVER));
}

#[test]
fn a_shard_rests_longer_after_each_failure() {
    let mut rig = cut_scan(&["q"]);
    let job = jobs(&rig)[0].id;
    for pause in [1_000, 2_000, 4_000, 8_000] {
        let (events, effects) = fail(&mut rig, job, FailureKind::StoreUnavailable, true);
        assert!(matches!(events[..], [Event::JobFailed { .. }, Event::JobOffered { .. }]), "{events:?}");
        assert_eq!(effects, [], "nobody is told before the pause is over");
        assert_eq!(claim(&mut rig, job, "w3"), Err(Refusal::NotYet(pause)));
        rig.pass(pause - 1);
        assert_eq!(claim(&mut rig, job, "w3"), Err(Refusal::NotYet(1)));
        assert!(rig.go(Command::Tick).1.is_empty());
        rig.pass(1);
        let offers = rig.go(Command::Tick).1;
        assert!(offers.iter().any(|offer| matches!(offer, Effect::OfferJob(spec) if spec.id == job)), "{offers:?}");
    }
    let (events, _) = fail(&mut rig, job, FailureKind::StoreUnavailable, true);
    assert!(matches!(events.last(), Some(Event::CycleClosed { end: CycleEnd::Failed(_), .. })), "{events:?}");
}

/// A full exchange, or a full disk of whoever does it: nothing is wrong with the shard, and somebody may make room.
#[test]
fn a_shard_that_finds_no_room_waits_a_minute_each_time_and_for_half_an_hour() {
    let waited = || {
        let mut rig = cut_scan(&["q"]);
        let job = jobs(&rig)[0].id;
        for _ in 1..ROOM_ATTEMPTS_MAX {
            let (events, _) = fail(&mut rig, job, FailureKind::DiskFull, true);
            assert!(matches!(events[..], [Event::JobFailed { .. }, Event::JobOffered { .. }]), "{events:?}");
            assert_eq!(claim(&mut rig, job, "w3"), Err(Refusal::NotYet(60_000)));
        }
        (rig, job)
    };
    let (mut rig, job) = waited();
    let (events, _) = fail(&mut rig, job, FailureKind::DiskFull, true);
    let end = events.last();
    let is_named = |end: &CycleEnd| matches!(end, CycleEnd::Failed(failure) if failure.kind == FailureKind::DiskFull);
    assert!(matches!(end, Some(Event::CycleClosed { end, .. }) if is_named(end)), "{events:?}");
    // There is room again.
    let (mut rig, job) = waited();
    rig.pass(60_000);
    let ticket = claim(&mut rig, job, "w3").unwrap();
    let report = Box::new(JobReport::done(vec![output("x/scan-1")]));
    assert!(matches!(rig.go(Command::CompleteJob { ticket, report }).0[0], Event::JobCompleted { .. }));
}

#[test]
fn s7_what_nobody_claims_is_offered_again() {
    let mut rig = cut_scan(&["q"]);
    let [first, second] = [0, 1].map(|at| jobs(&rig)[at].id);
    claim(&mut rig, first, "w2").unwrap();
    let offered = |effects: Vec<Effect>| -> Vec<(JobId, u32)> {
        let offer = |effect| match effect {
            Effect::OfferJob(spec) => Some((spec.id, spec.attempt)),
            _ => None,
        };
        effects.into_iter().filter_map(offer).collect()
    };
    rig.pass(14_999);
    assert_eq!(offered(rig.go(Command::Tick).1), []);
    rig.pass(1);
    assert_eq!(offered(rig.go(Command::Tick).1), [(second, 1)], "whatever became of the first hint");
    claim(&mut rig, second, "w3").unwrap();
    rig.pass(14_999);
    assert_eq!(offered(rig.go(Command::Tick).1), [], "claimed");
}

#[test]
fn a_shard_that_is_given_back_is_offered_at_once_and_nothing_is_counted() {
    let mut rig = cut_scan(&["q"]);
    let job = jobs(&rig)[0].id;
    for attempt in 2..20 {
        let (_, effects) = fail(&mut rig, job, FailureKind::Interrupted, true);
        assert!(matches!(&effects[..], [Effect::OfferJob(spec)] if spec.attempt == attempt));
    }
    assert_eq!((jobs(&rig).len(), jobs(&rig)[0].failures), (2, 0));
    claim(&mut rig, job, "w3").unwrap();
}

#[test]
fn three_failures_split_a_shard_into_halves_that_hold_its_keys_once() {
    let mut rig = cut_scan(&["p8", "q8"]);
    let job = jobs(&rig)[1].clone();
    for _ in 0..2 {
        assert_eq!(split_into(&fail(&mut rig, job.id, FailureKind::Damaged, true).0), None);
    }
    rig.pass(60_000);
    let late = claim(&mut rig, job.id, "w2").unwrap();
    let (events, effects) =
        rig.go(Command::FailJob { ticket: late.clone(), failure: failure(FailureKind::MemoryLimit, true) });
    let into = split_into(&events).unwrap();
    let halves: Vec<Job> = jobs(&rig).into_iter().filter(|job| into.contains(&job.id)).collect();
    assert_eq!((halves.len(), effects.len(), jobs(&rig).len()), (2, 2, 4));
    assert_eq!((&halves[0].shard.from, &halves[1].shard.to), (&job.shard.from, &job.shard.to));
    assert_eq!(halves[0].shard.to.as_ref(), Some(&halves[1].shard.from));
    let mut all: Vec<Shard> = jobs(&rig).into_iter().map(|job| job.shard).collect();
    all.sort_by(|a, b| a.from.cmp(&b.from));
    assert_eq!(Shard::prove_coverage(&all), Ok(()));
    // Whoever had the whole one comes too late, whatever he says.
    let report = Box::new(JobReport::done(vec![output("late")]));
    let said = [
        Command::CompleteJob { ticket: late.clone(), report },
        Command::FailJob { ticket: late.clone(), failure: failure(FailureKind::Damaged, true) },
        Command::ReportProgress { ticket: late.clone(), progress: None },
        Command::ClaimJob { ticket: late },
    ];
    for command in said {
        assert_eq!(*refused(&rig.go(command.clone()).0), Refusal::UnknownJob, "{command:?}");
    }
    // A half that fails shows at once that it is no accident.
    assert!(split_into(&fail(&mut rig, into[0], FailureKind::Damaged, true).0).is_some());
}

#[test]
fn what_cannot_be_better_next_time_is_split_at_once_and_a_busy_store_never() {
    let mut rig = cut_scan(&["p8", "q8"]);
    let [first, second] = [0, 1].map(|at| jobs(&rig)[at].id);
    assert!(split_into(&fail(&mut rig, first, FailureKind::Damaged, false).0).is_some());
    let (events, _) = fail(&mut rig, second, FailureKind::StoreUnavailable, false);
    assert_eq!(split_into(&events), None);
    assert!(matches!(events.last(), Some(Event::CycleClosed { end: CycleEnd::Failed(_), .. })));
}

/// Fails every shard that holds a key, and does all others.
fn until_it_is_over(rig: &mut Rig, stage: Stage, key: &[u8]) -> (usize, Vec<Event>) {
    let (mut splits, mut last) = (0, Vec::new());
    while !rig.state.cycles.is_empty() && rig.stage() == stage {
        let job = jobs(rig).into_iter().find(|job| !job.is_over()).unwrap();
        if job.shard.contains(key) {
            last = fail(rig, job.id, FailureKind::Damaged, true).0;
            splits += usize::from(split_into(&last).is_some());
        } else {
            let report = rig.report(&spec(rig, job.id));
            let ticket = claim(rig, job.id, "w2").unwrap();
            last = rig.go(Command::CompleteJob { ticket, report: Box::new(report) }).0;
        }
        rig.renew_lease();
    }
    (splits, last)
}

#[test]
fn a_pack_that_cannot_be_rewritten_is_gone_around_alone_and_one_that_cannot_be_read_ends_the_cycle() {
    let key = format!("q5{}", "7".repeat(31));
    let mut rig = cut_scan(&["p8", "q8"]);
    rig.until(Stage::Rewrite);
    let (splits, _) = until_it_is_over(&mut rig, Stage::Rewrite, key.as_bytes());
    assert_eq!(splits, 8);
    assert_eq!(rig.stage(), Stage::Publish);
    assert_eq!(rig.state.cycles.values().next().unwrap().severity, Some(Severity::Noted));
    let quarantined: Vec<&Event> =
        rig.log.iter().flat_map(|(_, _, events)| events).filter(|event| event.kind() == "shard_quarantined").collect();
    assert_eq!(quarantined.len(), 1);

    let mut rig = cut_scan(&["p8", "q8"]);
    let (splits, last) = until_it_is_over(&mut rig, Stage::Scan, key.as_bytes());
    assert_eq!(splits, 8);
    assert!(matches!(last.last(), Some(Event::CycleClosed { end: CycleEnd::Failed(_), .. })), "{last:?}");
}

/// Whoever does the shards that hold a key is not heard any more, one worker after the other; all others are done.
fn until_all_have_died(rig: &mut Rig, stage: Stage, key: &[u8]) -> usize {
    let mut deaths = 0;
    while !rig.state.cycles.is_empty() && rig.stage() == stage {
        let job = jobs(rig).into_iter().find(|job| !job.is_over()).unwrap();
        if let JobStatus::Open(from) = job.status {
            rig.at = rig.at.max(from);
        }
        rig.renew_lease();
        let name = format!("w{deaths}");
        let ticket = claim(rig, job.id, &name).unwrap();
        if job.shard.contains(key) {
            deaths += 1;
            rig.go(Command::LoseWorker { worker: worker(&name) });
        } else {
            let report = rig.report(&spec(rig, job.id));
            rig.go(Command::CompleteJob { ticket, report: Box::new(report) });
        }
    }
    deaths
}

#[test]
fn r12_a_pack_that_every_worker_dies_of_is_gone_around_in_a_rewrite_and_ends_a_scan() {
    let key = format!("q5{}", "7".repeat(31));
    let ended = |level: u32, stage: Stage| {
        let mut rig = cut_scan(&["p8", "q8"]);
        rig.go(Command::RaiseLevel { level });
        rig.until(stage);
        let deaths = until_all_have_died(&mut rig, stage, key.as_bytes());
        let kinds: Vec<&str> = rig.log.iter().flat_map(|(_, _, events)| events).map(Event::kind).collect();
        let quarantined = kinds.iter().filter(|kind| **kind == "shard_quarantined").count();
        (deaths, quarantined, rig.state.cycles.values().next().map(|cycle| cycle.severity))
    };
    // Three of the whole, one of each half of a half, and two more of the smallest part.
    assert_eq!(ended(1, Stage::Rewrite), (13, 1, Some(Some(Severity::Noted))));
    assert_eq!(ended(1, Stage::Scan), (13, 0, None));
    assert_eq!(ended(0, Stage::Rewrite), (13, 0, None), "as programs did that know no level");
}

#[test]
fn s7_a_lost_worker_s_shards_are_others_and_its_late_word_is_fenced() {
    let mut rig = cut_scan(&["p8", "q8"]);
    drive(&mut rig);
    let [first, second] = [0, 1].map(|at| jobs(&rig)[at].id);
    let ticket = claim(&mut rig, first, "w2").unwrap();
    claim(&mut rig, second, "w3").unwrap();
    rig.pass(20_000);
    let alive = spec(&rig, second).ticket(&worker("w3"));
    rig.go(Command::ReportProgress { ticket: alive.clone(), progress: None });
    rig.pass(11_000);
    let (events, _) = rig.go(Command::Tick);
    let lost: Vec<&Event> = events.iter().filter(|event| event.kind() == "job_lost").collect();
    assert!(matches!(lost[..], [Event::JobLost { job, .. }] if *job == first), "{events:?}");
    assert_eq!(jobs(&rig)[0].failures, 1);
    let report = |name| Box::new(JobReport::done(vec![output(name)]));
    let events = rig.go(Command::CompleteJob { ticket: ticket.clone(), report: report("late") }).0;
    assert_eq!(*refused(&events), Refusal::StaleAttempt { given: 1, current: 2 });
    rig.pass(1_000);
    let again = claim(&mut rig, first, "w4").unwrap();
    rig.go(Command::CompleteJob { ticket: again.clone(), report: report("again") });
    let twice = rig.go(Command::CompleteJob { ticket: again, report: report("again") }).0;
    assert!(matches!(twice[..], [Event::ResultRepeated { .. }]));
    rig.go(Command::CompleteJob { ticket: alive, report: report("alive") });
    assert_eq!(jobs(&rig).iter().filter(|job| job.is_over()).count(), 2);
}
