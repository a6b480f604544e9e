//! How a cycle stops, goes on and ends, and what is left of it.

use verger_proto::event::Stop;
use verger_proto::{Command, Event, FailureKind, LogTime, Mode, Refusal, Safety, Stage, Term};

use super::{reason, refused, whole_cycle};
use crate::machine::{JobStatus, State, apply};
use crate::testing::{Rig, batch, done, failure, options, repository, words, worker};

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
