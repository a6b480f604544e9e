//! What a plan must be, and what it needs a word for.

use verger_proto::{Command, Mode, Refusal, Stage, Term};

use super::{reason, refused};
use crate::machine::Phase;
use crate::testing::{Rig, batch, digest, options, repository, words};

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
