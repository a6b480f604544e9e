use verger_proto::schedule::{OwnCycle, Trigger};
use verger_proto::{Command, CycleOptions, Event, Refusal, RegistrationChange, Schedule, Stage};

use super::*;
use crate::testing::{Rig, options, registration, repository};

/// A repository that was added, and its lease.
fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.go(Command::AddRepository { repository: repository(), registration: Box::new(registration()) });
    rig
}

fn calendar(rig: &Rig) -> Calendar {
    rig.state.repositories[&repository()].calendar.clone()
}

fn change(rig: &mut Rig, change: RegistrationChange) {
    rig.pass(1_000);
    rig.go(Command::ChangeRepository { repository: repository(), change });
}

fn ask(rig: &mut Rig, options: CycleOptions) {
    rig.go(Command::RequestCycle { repository: repository(), key: "now".to_owned(), options });
}

fn finish(rig: &mut Rig) {
    while !rig.state.cycles.is_empty() {
        rig.do_job();
    }
}

#[test]
fn a_cycle_is_known_by_its_start_and_its_end() {
    let mut rig = rig();
    let began = rig.at;
    rig.open(options(Mode::Full));
    let unfinished = Some(Unfinished { stopped: began, failures: 0, requested: false });
    assert_eq!(calendar(&rig).full, Past { started: Some(began), ended: None, unfinished });
    rig.pass(5_000);
    finish(&mut rig);
    let over = Past { started: Some(began), ended: Some(rig.at), unfinished: None };
    assert_eq!((calendar(&rig).full, calendar(&rig).quick), (over, Past::default()));
    let dry = CycleOptions { dry_run: true, ..options(Mode::Quick) };
    rig.open(dry);
    assert_eq!(calendar(&rig).quick, Past::default(), "a dry run does nothing of what is due");
}

#[test]
fn s7_what_failed_or_was_given_up_is_unfinished_and_counted_until_one_is_done() {
    let mut rig = rig();
    for failures in 1..=3 {
        ask(&mut rig, options(Mode::Quick));
        rig.open(options(Mode::Quick));
        let open = rig.state.repositories[&repository()].open.unwrap();
        rig.pass(1_000);
        rig.go(Command::AbortCycle { cycle: open, reason: "enough".to_owned() });
        let unfinished = Some(Unfinished { stopped: rig.at, failures, requested: false });
        assert_eq!(calendar(&rig).quick.unfinished, unfinished);
    }
    assert_eq!(calendar(&rig).full.unfinished, None);
    rig.open(options(Mode::Full));
    finish(&mut rig);
    assert_eq!(calendar(&rig).quick.unfinished, None, "a full cycle does all that a quick one does");
}

#[test]
fn a_cycle_is_a_persons_if_it_was_asked_for_or_joined() {
    let requested = |rig: &Rig| calendar(rig).full.unfinished.map(|unfinished| unfinished.requested);
    let mut asked = rig();
    ask(&mut asked, options(Mode::Full));
    asked.open(options(Mode::Full));
    assert_eq!(requested(&asked), Some(true));
    let mut joined = rig();
    joined.open(options(Mode::Full));
    joined.open(options(Mode::Full));
    assert_eq!(requested(&joined), Some(false), "the schedule asked again");
    ask(&mut joined, options(Mode::Full));
    joined.open(options(Mode::Full));
    assert_eq!(requested(&joined), Some(true));
    joined.until(Stage::Plan);
    assert_eq!(requested(&joined), Some(true));
}

#[test]
fn a_schedule_holds_since_it_was_set_or_taken_up_again() {
    let mut rig = rig();
    let added = rig.at;
    assert_eq!(calendar(&rig).since, added);
    change(&mut rig, RegistrationChange::Weight(3));
    change(&mut rig, RegistrationChange::Schedule(Box::default()));
    assert_eq!(calendar(&rig).since, added, "it is the schedule that it was");
    change(&mut rig, RegistrationChange::Suspended(true));
    assert_eq!(calendar(&rig).since, added);
    change(&mut rig, RegistrationChange::Suspended(false));
    assert_eq!(calendar(&rig).since, rig.at);
    let daily = Schedule { full: "@daily".parse::<Trigger>().unwrap(), ..Schedule::default() };
    change(&mut rig, RegistrationChange::Schedule(Box::new(daily.clone())));
    assert_eq!(calendar(&rig).since, rig.at);
    assert_eq!(rig.state.repositories[&repository()].registration.as_ref().unwrap().schedule, daily);
}

#[test]
fn what_a_look_found_is_kept_once() {
    let mut rig = rig();
    let cycle = OwnCycle { enabled: true, interval_seconds: 3_600 };
    let own = Own { full: cycle, quick: cycle };
    let margin = Margin { at: LogTime(7), is_drop: true };
    let look = |margins| Command::RecordLook { repository: repository(), own, margins };
    assert_eq!(rig.go(look(None)).0.len(), 1);
    assert_eq!(rig.go(look(None)).0, []);
    rig.go(look(Some(vec![margin])));
    assert_eq!(rig.go(look(None)).0, [], "a quick cycle knows of no margins");
    assert_eq!((calendar(&rig).own, calendar(&rig).margins), (Some(own), vec![margin]));
    rig.go(look(Some(Vec::new())));
    assert_eq!(calendar(&rig).margins, []);
    let many = rig.go(look(Some(vec![margin; 65]))).0;
    assert!(matches!(many[..], [Event::CommandRefused { reason: Refusal::TooManyMargins(65), .. }]), "{many:?}");
}
