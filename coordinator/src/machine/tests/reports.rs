//! Which reports count: once, of the present attempt, and of the one view.

use verger_proto::report::Cut;
use verger_proto::{Command, Event, JobReport, Mode, Refusal, Shard, Stage, Term};

use super::refused;
use crate::testing::{Rig, digest, options, output, words, worker};

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
