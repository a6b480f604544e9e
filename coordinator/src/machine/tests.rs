use verger_proto::event::{CycleEnd, PassReason, Stop};
use verger_proto::report::Cut;
use verger_proto::{
    BatchOutcome, BatchResult, Command, Damage, Effect, Event, FailureKind, JobReport, LogTime, Mode, Outcome, Refusal,
    Safety, Severity, Shard, Stage, StoreTime, Term,
};

use super::{JobStatus, Phase, State, apply};
use crate::testing::{Rig, batch, digest, done, failure, options, output, repository, words, worker};

mod random;
mod shards;

fn refused(events: &[Event]) -> &Refusal {
    match events {
        [Event::CommandRefused { reason, .. } | Event::ResultFenced { reason, .. }] => reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn reason(event: &Event) -> &Refusal {
    refused(std::slice::from_ref(event))
}

fn damage(severity: Severity) -> Damage {
    let (snapshots, paths) = (vec!["m1".to_owned()], vec!["/photos".to_owned()]);
    Damage { severity, subject: "k00".to_owned(), text: "cannot be read".to_owned(), snapshots, paths }
}

/// All that is said in a whole cycle, done by one good worker.
fn whole_cycle(rig: &mut Rig, first: (Vec<Event>, Vec<Effect>)) -> Vec<String> {
    let mut said = words(&first);
    while !rig.state.cycles.is_empty() {
        said.extend(words(&rig.do_job()));
    }
    said
}

#[test]
fn a_full_cycle_goes_through_its_stages_in_order() {
    let mut rig = Rig::new();
    let first = rig.open(options(Mode::Full));
    let said = whole_cycle(&mut rig, first);
    let expected = "cycle_opened
stage_opened survey
job_offered 1#1
! offer 1#1 survey
job_completed 1#1
stage_closed survey
stage_opened scan
job_offered 2#1
! offer 2#1 scan
job_completed 2#1
stage_closed scan
stage_opened solve
job_offered 3#1
! offer 3#1 solve
job_completed 3#1
stage_closed solve
stage_opened sweep
job_offered 4#1
! offer 4#1 sweep
job_completed 4#1
stage_closed sweep
stage_opened plan
job_offered 5#1
! offer 5#1 plan
job_completed 5#1
stage_closed plan
stage_opened check
job_offered 6#1
! offer 6#1 check
job_completed 6#1
stage_closed check
plan_sealed
stage_passed revive NothingToDo
stage_opened mark
job_offered 7#1
! offer 7#1 mark
job_completed 7#1
stage_closed mark
stage_opened record-gc
job_offered 8#1
! offer 8#1 record-gc
job_completed 8#1
stage_closed record-gc
stage_opened watermark
job_offered 9#1
! offer 9#1 watermark
job_completed 9#1
stage_closed watermark
stage_opened delete
job_offered 10#1
! offer 10#1 delete
job_completed 10#1
stage_closed delete
stage_opened rewrite
job_offered 11#1
! offer 11#1 rewrite
job_completed 11#1
stage_closed rewrite
stage_opened publish
job_offered 12#1
! offer 12#1 publish
job_completed 12#1
stage_closed publish
stage_passed delete-rewritten NothingToDo
stage_opened index
job_offered 13#1
! offer 13#1 index
job_completed 13#1
stage_closed index
stage_passed locks NothingToDo
stage_opened logs
job_offered 14#1
! offer 14#1 logs
job_completed 14#1
stage_closed logs
stage_opened close
job_offered 15#1
! offer 15#1 close
job_completed 15#1
stage_closed close
cycle_closed Done
! close lease 1";
    assert_eq!(said.join("\n"), expected);
    let entry = &rig.state.repositories[&repository()];
    assert_eq!((entry.due, &entry.last_end, entry.open), (false, &Some(CycleEnd::Done), None));
}

#[test]
fn a_quick_cycle_leaves_snapshot_gc_out() {
    let mut rig = Rig::new();
    let first = rig.open(options(Mode::Quick));
    let said = whole_cycle(&mut rig, first);
    let stages: Vec<&str> = said.iter().filter_map(|word| word.strip_prefix("stage_opened ")).collect();
    assert_eq!(stages.join(" "), "survey plan check delete rewrite publish index logs close");
    for stage in ["scan", "solve", "sweep", "revive", "mark", "record-gc", "watermark", "locks"] {
        assert!(said.contains(&format!("stage_passed {stage} {:?}", PassReason::NotInMode)), "{stage}");
    }
}

#[test]
fn orders_carry_the_plan_the_outputs_and_what_was_asked_for() {
    let rig = Rig::at_stage(Stage::Delete);
    let job = rig.job();
    let cycle = rig.state.cycles.values().next().unwrap();
    assert_eq!(job.plan, Some(cycle.sealed.as_ref().unwrap().digest));
    assert_eq!((job.repository.clone(), job.term, job.options), (repository(), Term(1), options(Mode::Full)));
    let names: Vec<&str> = job.inputs.iter().map(|input| input.name.as_str()).collect();
    let before = "survey-1 scan-2 solve-3 sweep-4 plan-5 check-6 mark-7 record-gc-8 watermark-9";
    assert_eq!(names.join(" "), before);
}

fn degraded(severity: Severity) -> Vec<String> {
    let mut rig = Rig::new();
    rig.open(options(Mode::Full));
    rig.until(Stage::Solve);
    let report = JobReport { outcome: Outcome::Degraded(vec![damage(severity)]), ..rig.report(&rig.job()) };
    let ticket = rig.claim();
    let first = rig.go(Command::CompleteJob { ticket, report: Box::new(report) });
    assert_eq!(words(&first)[1], "cycle_degraded");
    whole_cycle(&mut rig, first)
}

#[test]
fn damage_stops_what_it_may_protect_and_the_cycle_ends_degraded() {
    let passed = |said: &[String]| -> String {
        let by_damage = said.iter().filter_map(|word| word.strip_suffix(" Damage")?.strip_prefix("stage_passed "));
        by_damage.collect::<Vec<_>>().join(" ")
    };
    let said = degraded(Severity::Unreadable);
    assert_eq!(passed(&said), "mark record-gc watermark");
    assert!(said.contains(&"stage_opened delete".to_owned()));
    assert!(said.contains(&"cycle_closed Degraded".to_owned()));
    let said = degraded(Severity::LostIndex);
    let all = "mark record-gc watermark delete rewrite publish delete-rewritten index logs";
    assert_eq!(passed(&said), all);
    assert!(said.contains(&"cycle_closed Degraded".to_owned()));
    let said = degraded(Severity::Noted);
    assert_eq!((passed(&said).as_str(), said.contains(&"cycle_closed Degraded".to_owned())), ("", true));
}

/// Proposes a changed plan and has it checked; what comes of it.
fn with_plan(rig: &mut Rig, change: impl FnOnce(&mut verger_proto::PlanHeader)) -> Vec<String> {
    rig.until(Stage::Plan);
    let mut report = rig.report(&rig.job());
    change(report.plan.as_mut().unwrap());
    let ticket = rig.claim();
    rig.go(Command::CompleteJob { ticket, report: Box::new(report) });
    let (events, effects) = rig.do_job();
    words(&(events[2..].to_vec(), effects))
}

#[test]
fn a_plan_that_does_not_hold_together_ends_the_cycle() {
    type Change = fn(&mut verger_proto::PlanHeader);
    let other = format!("{}-{}", "ab".repeat(32), "02".repeat(16));
    assert_ne!(other.parse::<verger_proto::RepositoryId>().unwrap(), repository());
    let changes: [(Change, &str); 8] = [
        (|h| h.repository.store = "02".repeat(16).parse().unwrap(), "OtherRepository"),
        (|h| h.term = Term(7), "StaleTerm { given: Term(7), current: Term(1) }"),
        (|h| h.mode = Mode::Quick, "OtherMode"),
        (|h| h.view.digest = digest("another"), "OtherView"),
        (|h| h.stages.swap(0, 1), "Incoherent(\"its stages are not in order, each once\")"),
        (|h| h.stages[0].stage = Stage::Scan, "Incoherent(\"it has a stage that cannot be planned\")"),
        (|h| h.live_contents = 11, "Incoherent(\"it leaves more contents than there are\")"),
        (|h| h.removed_bytes = 101, "Incoherent(\"it removes more bytes than there are\")"),
    ];
    for (change, text) in changes {
        let mut rig = Rig::new();
        rig.open(options(Mode::Full));
        let said = with_plan(&mut rig, change);
        assert_eq!(said[0], format!("plan_refused {text}"));
        assert!(said[1].starts_with("cycle_closed Failed(Failure { kind: PlanRefused"), "{}", said[1]);
        assert_eq!(said[2], "! close lease 1");
        assert!(rig.state.repositories[&repository()].due);
    }
}

#[test]
fn s5_a_plan_that_takes_too_much_waits_for_a_word_that_is_for_it_alone() {
    let mut rig = Rig::new();
    rig.open(options(Mode::Full));
    let said = with_plan(&mut rig, |header| header.removed_bytes = 51);
    assert_eq!(said, ["plan_refused RemovesTooMuch { removed: 51, total: 100, allowed: 50 }"]);
    let (id, plan) = {
        let cycle = rig.state.cycles.values().next().unwrap();
        assert_eq!(cycle.phase, Phase::WaitingForWord);
        (cycle.id, cycle.proposed.as_ref().unwrap().0)
    };
    let other = verger_proto::PlanDigest(digest("another plan"));
    let say = |plan, allow_removing| Command::SealPlan { cycle: id, plan, allow_removing };
    assert_eq!(refused(&rig.go(say(other, 60)).0), &Refusal::OtherPlan);
    let too_little = Refusal::RemovesTooMuch { removed: 51, total: 100, allowed: 50 };
    assert_eq!(refused(&rig.go(say(plan, 50)).0), &too_little);
    assert_eq!(refused(&rig.go(say(plan, 101)).0), &Refusal::Percentage(101));
    let sealed = rig.go(say(plan, 51));
    assert_eq!(words(&sealed)[0], "plan_sealed");
    assert_eq!(refused(&rig.go(say(plan, 51)).0), &Refusal::AlreadySealed);
}

#[test]
fn s5_exactly_half_may_go_and_everything_needs_the_word_100() {
    let mut rig = Rig::new();
    rig.open(options(Mode::Full));
    assert_eq!(with_plan(&mut rig, |header| header.removed_bytes = 50)[0], "plan_sealed");
    for (allow, first) in [(Some(99), "plan_refused NothingLive"), (Some(100), "plan_sealed")] {
        let mut rig = Rig::new();
        rig.open(verger_proto::CycleOptions { allow_removing: allow, ..options(Mode::Full) });
        let said = with_plan(&mut rig, |header| (header.live_contents, header.removed_bytes) = (0, 90));
        assert_eq!(said[0], first);
    }
}

#[test]
fn the_check_must_be_of_the_plan_that_was_made() {
    let mut rig = Rig::at_stage(Stage::Check);
    let mut report = rig.report(&rig.job());
    let ticket = rig.claim();
    report.checked = Some(verger_proto::PlanDigest(digest("another")));
    let said = rig.go(Command::CompleteJob { ticket: ticket.clone(), report: Box::new(report.clone()) }).0;
    assert_eq!(refused(&said), &Refusal::OtherPlan);
    report.checked = None;
    let said = rig.go(Command::CompleteJob { ticket, report: Box::new(report) }).0;
    assert!(matches!(refused(&said), Refusal::Lacking { stage: Stage::Check, .. }));
}

#[test]
fn a_dry_run_needs_no_lease_says_what_a_plan_would_get_and_changes_nothing() {
    let mut rig = Rig::bare();
    rig.open(verger_proto::CycleOptions { dry_run: true, ..options(Mode::Full) });
    let ticket = rig.claim();
    assert_eq!(reason(&rig.approve(&ticket, batch(Stage::Survey, 0, 0, 0))), &Refusal::DryRun);
    let said = with_plan(&mut rig, |header| header.removed_bytes = 99);
    assert_eq!(said, ["plan_checked", "cycle_closed Planned"]);
    assert!(!rig.state.repositories[&repository()].due, "a dry run leaves nothing due");
}

#[test]
fn s3_late_and_foreign_results_are_fenced() {
    let mut rig = Rig::at_stage(Stage::Scan);
    let report = Box::new(rig.report(&rig.job()));
    let ticket = rig.claim();
    let complete = |ticket| Command::CompleteJob { ticket, report: report.clone() };
    let mut stale = ticket.clone();
    stale.term = Term(0);
    let expected = Refusal::StaleTerm { given: Term(0), current: Term(1) };
    assert_eq!(refused(&rig.go(complete(stale)).0), &expected);
    let mut other = ticket.clone();
    other.worker = worker("w2");
    assert_eq!(refused(&rig.go(complete(other.clone())).0), &Refusal::ClaimedByOther);
    assert_eq!(refused(&rig.go(Command::ClaimJob { ticket: other }).0), &Refusal::ClaimedByOther);
    let lost = rig.go(Command::LoseWorker { worker: worker("w1") });
    assert_eq!(words(&lost), ["job_lost", "job_offered 2#2", "! offer 2#2 scan"]);
    let expected = Refusal::StaleAttempt { given: 1, current: 2 };
    assert_eq!(refused(&rig.go(complete(ticket.clone())).0), &expected);
    assert_eq!(rig.stage(), Stage::Scan, "nothing was counted");
    let again = rig.claim();
    assert_eq!(again.attempt, 2);
    rig.go(complete(again));
    assert_eq!(rig.stage(), Stage::Solve);
}

#[test]
fn a_report_that_comes_twice_counts_once_even_when_the_stage_is_over() {
    let mut rig = Rig::at_stage(Stage::Scan);
    let report = Box::new(rig.report(&rig.job()));
    let ticket = rig.claim();
    rig.go(Command::CompleteJob { ticket: ticket.clone(), report: report.clone() });
    let state = rig.state.clone();
    let (events, effects) = rig.go(Command::CompleteJob { ticket, report });
    assert!(matches!(&events[..], [Event::ResultRepeated { .. }]));
    assert_eq!((effects, &rig.state), (vec![], &state));
}

#[test]
fn r10_outputs_have_one_name_each_and_are_of_the_one_view() {
    let mut rig = Rig::at_stage(Stage::Scan);
    let ticket = rig.claim();
    let mut say = |outputs| {
        let report = Box::new(JobReport::done(outputs));
        refused(&rig.go(Command::CompleteJob { ticket: ticket.clone(), report }).0).clone()
    };
    assert_eq!(say(vec![output("survey-1")]), Refusal::OutputTwice("survey-1".to_owned()));
    assert_eq!(say(vec![output("a"), output("a")]), Refusal::OutputTwice("a".to_owned()));
    let older = verger_proto::OutputRef { view: digest("older"), ..output("a") };
    assert_eq!(say(vec![older]), Refusal::OtherView);
}

#[test]
fn shards_run_side_by_side_and_the_stage_ends_with_the_last() {
    let mut rig = Rig::new();
    rig.open(options(Mode::Full));
    let halves = vec![Shard { from: vec![], to: Some(vec![b'k']) }, Shard { from: vec![b'k'], to: None }];
    let mut report = rig.report(&rig.job());
    let ticket = rig.claim();
    report.cuts = vec![Cut { stage: Stage::Scan, shards: halves[1..].to_vec() }];
    let gap = rig.go(Command::CompleteJob { ticket: ticket.clone(), report: Box::new(report.clone()) }).0;
    assert!(matches!(refused(&gap), Refusal::Coverage { stage: Stage::Scan, .. }));
    report.cuts = vec![Cut { stage: Stage::Scan, shards: halves }];
    let said = words(&rig.go(Command::CompleteJob { ticket, report: Box::new(report) }));
    assert_eq!(said[3..], ["job_offered 2#1", "job_offered 3#1", "! offer 2#1 scan", "! offer 3#1 scan"]);
    assert_eq!(words(&rig.do_job()), ["job_completed 2#1"]);
    assert_eq!(words(&rig.do_job())[..2], ["job_completed 3#1", "stage_closed scan"]);
}

#[test]
fn r5_an_approval_has_a_deadline_by_both_clocks_and_never_outlives_the_lease() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    rig.pass(50_000);
    let (store, at) = (rig.store(), rig.at);
    let Event::BatchApproved { approval, .. } = rig.approve(&ticket, batch(Stage::Mark, 0, 0, 2)) else { panic!() };
    assert_eq!((approval.valid_for, approval.again), (70_000, false), "what is left of the lease's 120 s");
    assert_eq!((approval.deadline, approval.store_deadline), (at.plus(70_000), store.plus(70_000)));
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: done(batch(Stage::Mark, 0, 0, 2)) });
    rig.renew_lease();
    let request = verger_proto::BatchRequest { wanted: 30_000, ..rig.request(batch(Stage::Mark, 1, 2, 1)) };
    let (events, _) = rig.go(Command::ApproveBatch { ticket: ticket.clone(), request });
    assert!(matches!(&events[0], Event::BatchApproved { approval, .. } if approval.valid_for == 30_000));
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: done(batch(Stage::Mark, 1, 2, 1)) });
    rig.pass(120_000);
    let request = rig.request(batch(Stage::Mark, 2, 3, 0));
    let (events, effects) = rig.go(Command::ApproveBatch { ticket, request });
    assert_eq!(refused(&events), &Refusal::NoTime);
    assert!(matches!(effects[..], [Effect::RenewLease { term: Term(1), .. }]));
}

#[test]
fn the_clock_that_is_further_on_decides() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    let ask = |rig: &mut Rig, change: fn(&mut verger_proto::BatchRequest)| {
        let mut request = rig.request(batch(Stage::Mark, 0, 0, 1));
        change(&mut request);
        rig.go(Command::ApproveBatch { ticket: ticket.clone(), request }).0
    };
    // The store is 120 s further on than our log thinks.
    let ahead = |request: &mut verger_proto::BatchRequest| {
        request.store_now = request.store_now.plus(120_000);
        request.view.taken = request.store_now;
    };
    assert_eq!(refused(&ask(&mut rig, ahead)), &Refusal::NoTime);
    // The worker looked at the store's clock right after the lease was written, and asks two minutes later.
    rig.pass(120_000);
    let behind = |request: &mut verger_proto::BatchRequest| {
        request.store_now.0 -= 120_000;
        request.view.taken = request.store_now;
    };
    assert_eq!(refused(&ask(&mut rig, behind)), &Refusal::NoTime);
    rig.renew_lease();
    assert!(matches!(ask(&mut rig, |_| {})[..], [Event::BatchApproved { .. }]));
}

#[test]
fn r4_a_lease_that_asks_for_more_than_120_s_does_not_get_it() {
    let mut rig = Rig::bare();
    let (store_now, acts_until) = (rig.store(), rig.store().plus(3_600_000));
    let take = Command::TakeLease { repository: repository(), term: Term(1), kept: false, store_now, acts_until };
    rig.go(take);
    let lease = rig.state.repositories[&repository()].lease.unwrap();
    assert_eq!((lease.acts_until, lease.confirmed_until), (store_now.plus(120_000), rig.at.plus(120_000)));
}

#[test]
fn approvals_are_refused_for_another_plan_stage_order_size_or_an_old_view() {
    let mut rig = Rig::at_stage(Stage::Delete);
    let ticket = rig.claim();
    let good = rig.request(batch(Stage::Delete, 0, 0, 2));
    let mut say = |request| {
        let ticket = ticket.clone();
        refused(&rig.go(Command::ApproveBatch { ticket, request }).0).clone()
    };
    let with = |batch| verger_proto::BatchRequest { batch, ..good };
    let other = Some(verger_proto::PlanDigest(digest("another")));
    assert_eq!(say(verger_proto::BatchRequest { plan: other, ..good }), Refusal::OtherPlan);
    assert_eq!(say(verger_proto::BatchRequest { plan: None, ..good }), Refusal::NoPlan);
    assert_eq!(say(with(batch(Stage::Publish, 0, 0, 1))), Refusal::OtherStage(Stage::Delete));
    let next = Refusal::BatchOutOfOrder { number: 0, first: 0 };
    assert_eq!(say(with(batch(Stage::Delete, 1, 0, 1))), next);
    assert_eq!(say(with(batch(Stage::Delete, 0, 1, 1))), next);
    assert_eq!(say(with(batch(Stage::Delete, 0, 0, 5))), Refusal::BatchBeyondPlan { items: 4 });
    assert_eq!(say(with(batch(Stage::Delete, 0, 0, u64::MAX))), Refusal::BatchBeyondPlan { items: 4 });
    let mut old = good;
    old.view.taken = StoreTime(good.store_now.0 - 120_001);
    let newest = Refusal::ViewOrder;
    assert_eq!(say(old), newest, "older than the view of the batch before");
    let mut ahead = good;
    ahead.view.taken = good.store_now.plus(1);
    assert_eq!(say(ahead), Refusal::ViewOrder);
    assert_eq!(say(verger_proto::BatchRequest { wanted: 0, ..good }), Refusal::NoTime);
}

#[test]
fn r14_a_view_may_be_120_seconds_old_and_no_older() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    let view = rig.view();
    rig.pass(120_001);
    rig.renew_lease();
    let mut request = verger_proto::BatchRequest { view, ..rig.request(batch(Stage::Mark, 0, 0, 3)) };
    let said = rig.go(Command::ApproveBatch { ticket: ticket.clone(), request }).0;
    assert_eq!(refused(&said), &Refusal::StaleView(120_001));
    request.view.taken = view.taken.plus(1);
    let said = rig.go(Command::ApproveBatch { ticket, request }).0;
    assert!(matches!(said[..], [Event::BatchApproved { .. }]));
}

#[test]
fn only_deeds_and_the_surveys_start_are_approved() {
    let mut rig = Rig::new();
    rig.open(options(Mode::Full));
    let ticket = rig.claim();
    let start = batch(Stage::Survey, 0, 0, 0);
    assert!(matches!(rig.approve(&ticket, start), Event::BatchApproved { .. }));
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: done(start) });
    let beyond = batch(Stage::Survey, 1, 0, 1);
    assert_eq!(reason(&rig.approve(&ticket, beyond)), &Refusal::BatchBeyondPlan { items: 0 });
    let report = Box::new(rig.report(&rig.job()));
    rig.go(Command::CompleteJob { ticket, report });
    let ticket = rig.claim();
    let refusal = Refusal::NotADeed(Stage::Scan);
    assert_eq!(reason(&rig.approve(&ticket, batch(Stage::Scan, 0, 0, 0))), &refusal);
    rig.do_job();
    rig.until(Stage::Rewrite);
    let ticket = rig.claim();
    let refusal = Refusal::NotADeed(Stage::Rewrite);
    assert_eq!(reason(&rig.approve(&ticket, batch(Stage::Rewrite, 0, 0, 1))), &refusal);
}

#[test]
fn a_lost_answer_is_given_again_without_a_second_more() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    let request = rig.request(batch(Stage::Mark, 0, 0, 1));
    let ask = Command::ApproveBatch { ticket: ticket.clone(), request };
    let first = rig.go(ask.clone()).0;
    rig.pass(5_000);
    assert_eq!(rig.go(ask).0, first);
    let other = batch(Stage::Mark, 0, 0, 2);
    assert_eq!(reason(&rig.approve(&ticket, other)), &Refusal::BatchOutstanding(0));
    let outcome = done(request.batch);
    let say = Command::BatchDone { ticket, outcome };
    assert!(matches!(rig.go(say.clone()).0[..], [Event::BatchDone { .. }]));
    assert!(matches!(rig.go(say).0[..], [Event::ResultRepeated { .. }]));
}

#[test]
fn an_ambiguous_batch_is_looked_at_again_and_never_planned_again() {
    let mut rig = Rig::at_stage(Stage::Delete);
    let ticket = rig.claim();
    let first = batch(Stage::Delete, 0, 0, 3);
    rig.approve(&ticket, first);
    let outcome = BatchOutcome { result: BatchResult::Ambiguous, changed: 1, ..done(first) };
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome });
    assert_eq!(reason(&rig.approve(&ticket, batch(Stage::Delete, 0, 0, 2))), &Refusal::BatchOutstanding(0));
    assert_eq!(reason(&rig.approve(&ticket, batch(Stage::Delete, 1, 3, 1))), &Refusal::BatchOutstanding(0));
    let report = Box::new(rig.report(&rig.job()));
    let said = rig.go(Command::CompleteJob { ticket: ticket.clone(), report }).0;
    assert_eq!(refused(&said), &Refusal::BatchOutstanding(0));
    let lost = rig.go(Command::FailJob { ticket, failure: failure(FailureKind::StoreUnavailable, true) });
    let [Effect::OfferJob(spec)] = &lost.1[..] else { panic!("{lost:?}") };
    assert_eq!((spec.attempt, spec.done, spec.batch), (2, 0, Some(first)));
    let ticket = rig.claim();
    let Event::BatchApproved { approval, .. } = rig.approve(&ticket, first) else { panic!() };
    assert!(approval.again);
    let outcome = BatchOutcome { changed: 2, left_out: 1, ..done(first) };
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome });
    assert_eq!(rig.job().done, 3);
    rig.do_batches(&ticket);
    let report = Box::new(rig.report(&rig.job()));
    assert_eq!(words(&rig.go(Command::CompleteJob { ticket, report }))[1], "stage_closed delete");
}

#[test]
fn r12_a_deed_is_not_done_before_all_its_items_are() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    let first = batch(Stage::Mark, 0, 0, 2);
    rig.approve(&ticket, first);
    let wrong = BatchOutcome { changed: 1, ..done(first) };
    let said = rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: wrong }).0;
    assert_eq!(refused(&said), &Refusal::BatchFigures);
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: done(first) });
    let report = Box::new(rig.report(&rig.job()));
    let said = rig.go(Command::CompleteJob { ticket, report }).0;
    assert_eq!(refused(&said), &Refusal::Uncovered { done: 2, items: 3 });
}

#[test]
fn a_batch_that_never_began_may_be_cut_anew() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    let first = batch(Stage::Mark, 0, 0, 3);
    rig.approve(&ticket, first);
    let outcome = BatchOutcome { result: BatchResult::NotDone, changed: 0, bytes: 0, ..done(first) };
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome });
    let smaller = batch(Stage::Mark, 0, 0, 1);
    assert!(matches!(rig.approve(&ticket, smaller), Event::BatchApproved { .. }));
}

#[test]
fn revivals_are_added_to_a_sealed_plan_and_nowhere_else() {
    let mut rig = Rig::at_stage(Stage::Scan);
    let ticket = rig.claim();
    let add = |ticket| Command::AddRevivals { ticket, revived: output("revived"), bytes: 7 };
    assert_eq!(refused(&rig.go(add(ticket)).0), &Refusal::NoRevival(Stage::Scan));
    let mut rig = Rig::at_stage(Stage::Delete);
    let ticket = rig.claim();
    assert!(matches!(rig.go(add(ticket)).0[..], [Event::RevivalsAdded { bytes: 7, .. }]));
}

#[test]
fn a_failure_that_may_pass_is_tried_five_times() {
    let mut rig = Rig::at_stage(Stage::Sweep);
    for attempt in 2..=5u32 {
        let ticket = rig.claim();
        let said = rig.go(Command::FailJob { ticket, failure: failure(FailureKind::StoreUnavailable, true) });
        assert_eq!(words(&said)[1], format!("job_offered 4#{attempt}"));
    }
    let ticket = rig.claim();
    let said = words(&rig.go(Command::FailJob { ticket, failure: failure(FailureKind::StoreUnavailable, true) }));
    assert_eq!(said[..2], ["job_failed", "cycle_stopping"]);
    assert!(said[2].starts_with("cycle_closed Failed(Failure { kind: StoreUnavailable"));
    assert!(rig.state.repositories[&repository()].due, "a cycle that failed stays due");
}

#[test]
fn r12_only_a_rewrite_logs_or_orphans_can_be_gone_around_and_only_for_their_own_faults() {
    for (stage, kind, around) in [
        (Stage::Rewrite, FailureKind::Damaged, true),
        (Stage::Delete, FailureKind::Damaged, true),
        (Stage::Logs, FailureKind::StoreUnavailable, true),
        (Stage::Rewrite, FailureKind::ForeignMaintenance, false),
        (Stage::Mark, FailureKind::Damaged, false),
        (Stage::Scan, FailureKind::Damaged, false),
        (Stage::Publish, FailureKind::Damaged, false),
    ] {
        let mut rig = Rig::at_stage(stage);
        let ticket = rig.claim();
        let said = rig.go(Command::FailJob { ticket, failure: failure(kind, false) });
        let quarantined = said.0.iter().any(|event| event.kind() == "shard_quarantined");
        assert_eq!((quarantined, rig.state.cycles.is_empty()), (around, !around), "{stage} {kind:?}");
        if around {
            let said = whole_cycle(&mut rig, said);
            assert!(said.contains(&"cycle_closed Degraded".to_owned()));
        }
    }
}

#[test]
fn what_may_have_begun_is_not_gone_around() {
    let mut rig = Rig::at_stage(Stage::Delete);
    let ticket = rig.claim();
    rig.approve(&ticket, batch(Stage::Delete, 0, 0, 1));
    let said = rig.go(Command::FailJob { ticket, failure: failure(FailureKind::Damaged, false) });
    let said = words(&said);
    assert!(said[2].starts_with("cycle_closed Failed"), "{said:?}");
    assert!(
        !said.contains(&"! close lease 1".to_owned()),
        "the end of a batch is unknown: the lease runs out by itself"
    );
}

#[test]
fn ctrl_c_waits_for_the_batch_and_parks() {
    let mut rig = Rig::at_stage(Stage::Delete);
    let id = rig.job().cycle;
    let ticket = rig.claim();
    let first = batch(Stage::Delete, 0, 0, 2);
    rig.approve(&ticket, first);
    assert_eq!(words(&rig.go(Command::ParkCycle { cycle: id })), ["cycle_stopping", "! stop 10#1"]);
    assert_eq!(rig.state.directive(&ticket), Ok(verger_proto::control::Directive::Stop));
    let release = Command::ReleaseLease { repository: repository(), term: Term(1) };
    assert_eq!(refused(&rig.go(release.clone()).0), &Refusal::LeaseInUse);
    assert_eq!(reason(&rig.approve(&ticket, batch(Stage::Delete, 1, 2, 1))), &Refusal::Stopping);
    let said = rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: done(first) });
    assert_eq!(words(&said), ["batch_done", "cycle_parked", "! close lease 1"]);
    rig.go(release);
    let late = Command::FailJob { ticket, failure: failure(FailureKind::Interrupted, false) };
    assert_eq!(refused(&rig.go(late).0), &Refusal::Stopping);
    assert!(rig.state.repositories[&repository()].due);
    assert_eq!(refused(&rig.go(Command::ResumeCycle { cycle: id }).0), &Refusal::NoLease);
    let (store_now, acts_until) = (rig.store(), rig.store().plus(120_000));
    let repository = repository();
    rig.go(Command::TakeLease { repository, term: Term(1), kept: true, store_now, acts_until });
    let said = rig.go(Command::ResumeCycle { cycle: id });
    assert_eq!(words(&said), ["cycle_resumed", "job_offered 10#2", "! offer 10#2 delete"]);
    assert_eq!(rig.job().done, 2, "it goes on where it stopped");
    rig.until(Stage::Rewrite);
}

#[test]
fn r17_another_term_or_an_old_view_begins_again_with_a_survey() {
    let mut rig = Rig::at_stage(Stage::Delete);
    let id = rig.job().cycle;
    let ticket = rig.claim();
    rig.approve(&ticket, batch(Stage::Delete, 0, 0, 2));
    let said = rig.take_lease(5);
    assert_eq!(words(&(said, vec![])), ["lease_taken", "cycle_parked"]);
    let late = Command::BatchDone { ticket, outcome: done(batch(Stage::Delete, 0, 0, 2)) };
    assert_eq!(refused(&rig.go(late).0), &Refusal::Stopping);
    let said = rig.go(Command::ResumeCycle { cycle: id });
    assert_eq!(words(&said)[..2], ["cycle_restarted", "stage_opened survey"]);
    assert_eq!(rig.job().term, Term(5));
    rig.until(Stage::Mark);
    rig.go(Command::ParkCycle { cycle: id });
    rig.pass(24 * 3_600_000 + 1);
    rig.renew_lease();
    assert_eq!(words(&rig.go(Command::ResumeCycle { cycle: id }))[0], "cycle_restarted");
}

#[test]
fn r3_a_term_only_grows() {
    let mut rig = Rig::new();
    for term in [0, 1] {
        let said = rig.take_lease(term);
        assert_eq!(refused(&said), &Refusal::StaleTerm { given: Term(term), current: Term(1) });
    }
    let lose = |term| Command::LoseLease { repository: repository(), term, reason: "taken over".to_owned() };
    assert!(matches!(refused(&rig.go(lose(Term(0))).0), Refusal::StaleTerm { .. }));
    rig.go(lose(Term(1)));
    let said = rig.open(options(Mode::Full)).0;
    assert_eq!(refused(&said), &Refusal::NoLease);
    rig.take_lease(2);
    assert_eq!(words(&rig.open(options(Mode::Full)))[0], "cycle_opened");
}

#[test]
fn an_abort_ends_at_once_or_after_the_batch_or_its_deadline() {
    let abort = |cycle| Command::AbortCycle { cycle, reason: "enough".to_owned() };
    let mut rig = Rig::at_stage(Stage::Scan);
    let id = rig.job().cycle;
    let ticket = rig.claim();
    let said = words(&rig.go(abort(id)));
    let expected = ["cycle_stopping", "cycle_closed Aborted(\"enough\")", "! stop 2#1", "! close lease 1"];
    assert_eq!(said, expected);
    let late = Command::FailJob { ticket, failure: failure(FailureKind::Interrupted, true) };
    assert_eq!(refused(&rig.go(late).0), &Refusal::UnknownCycle);
    let mut rig = Rig::at_stage(Stage::Mark);
    let id = rig.job().cycle;
    let ticket = rig.claim();
    rig.approve(&ticket, batch(Stage::Mark, 0, 0, 1));
    assert_eq!(words(&rig.go(abort(id))), ["cycle_stopping", "! stop 7#1"]);
    assert_eq!(refused(&rig.go(abort(id)).0), &Refusal::Stopping);
    assert_eq!(refused(&rig.open(options(Mode::Full)).0), &Refusal::CycleOpen(id));
    assert!(!rig.state.cycles.is_empty());
    rig.pass(10_000);
    rig.go(Command::Tick);
    assert!(!rig.state.cycles.is_empty(), "a batch may be under way until its deadline");
    rig.pass(111_000);
    let said = words(&rig.go(Command::Tick));
    assert!(said.contains(&"cycle_closed Aborted(\"enough\")".to_owned()), "{said:?}");
}

#[test]
fn equal_requests_are_one_cycle() {
    let mut rig = Rig::new();
    rig.open(options(Mode::Full));
    let id = rig.job().cycle;
    assert_eq!(rig.open(options(Mode::Full)).0, [Event::CycleJoined { cycle: id }]);
    assert_eq!(refused(&rig.open(options(Mode::Quick)).0), &Refusal::CycleOpen(id));
    let careless = verger_proto::CycleOptions { safety: Safety::None, ..options(Mode::Full) };
    assert_eq!(refused(&rig.open(careless).0), &Refusal::NotAlone);
}

#[test]
fn silent_workers_and_lost_hints_cost_time_only() {
    let mut rig = Rig::at_stage(Stage::Scan);
    rig.pass(14_999);
    assert!(words(&rig.go(Command::Tick)).is_empty());
    rig.pass(1);
    assert_eq!(words(&rig.go(Command::Tick)), ["! offer 2#1 scan"]);
    let ticket = rig.claim();
    rig.pass(30_000);
    rig.go(Command::ReportProgress { ticket, progress: None });
    rig.pass(30_000);
    rig.renew_lease();
    assert!(words(&rig.go(Command::Tick)).is_empty(), "it was heard in time");
    rig.pass(1);
    let said = words(&rig.go(Command::Tick));
    assert_eq!(said, ["job_lost", "job_offered 2#2", "! offer 2#2 scan"]);
    assert!(matches!(
        rig.state.cycles.values().next().unwrap().jobs.values().next().unwrap().status,
        JobStatus::Open(_)
    ));
}

#[test]
fn a_worker_lost_again_and_again_ends_the_cycle() {
    let mut rig = Rig::at_stage(Stage::Scan);
    for _ in 0..4 {
        rig.claim();
        assert_eq!(words(&rig.go(Command::LoseWorker { worker: worker("w1") }))[0], "job_lost");
    }
    rig.claim();
    let said = rig.go(Command::LoseWorker { worker: worker("w1") });
    assert!(said.0.iter().any(|event| matches!(event, Event::CycleStopping { stop: Stop::Fail(_), .. })));
    assert!(rig.state.cycles.is_empty());
}

#[test]
fn time_does_not_run_backwards_inside() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let now = rig.state.now;
    rig.at = LogTime(5);
    let ticket = rig.ticket();
    rig.go(Command::ClaimJob { ticket });
    assert_eq!(rig.state.now, now);
}

#[test]
fn a_state_is_made_again_from_its_commands_alone() {
    let mut rig = Rig::new();
    let first = rig.open(options(Mode::Full));
    whole_cycle(&mut rig, first);
    let mut again = State::default();
    for (at, command, events) in &rig.log {
        assert_eq!(&apply(&mut again, command.clone(), *at).0, events);
    }
    assert_eq!(again, rig.state);
}

#[test]
fn s7_what_failed_stays_due() {
    let mut rig = Rig::at_stage(Stage::Scan);
    let ticket = rig.claim();
    rig.go(Command::FailJob { ticket, failure: failure(FailureKind::Damaged, false) });
    assert!(rig.state.cycles.is_empty() && rig.state.repositories[&repository()].due, "it was not finished");
    let mut rig = Rig::new();
    let first = rig.open(options(Mode::Full));
    assert!(rig.state.repositories[&repository()].due);
    whole_cycle(&mut rig, first);
    assert!(!rig.state.repositories[&repository()].due, "all was done");
}
