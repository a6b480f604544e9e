use verger_proto::event::{CycleEnd, PassReason};
use verger_proto::{Command, Damage, Effect, Event, JobReport, Mode, Outcome, Refusal, Severity, Stage, Term};

use crate::testing::{Rig, options, repository, words};

mod approvals;
mod ends;
mod failures;
mod plan;
mod random;
mod reports;
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
