//! What counts as ours: noted in time, by the holder of the lease, and never for ever.

use verger_proto::{Command, Damage, Driven, Driver, Outcome};

use super::*;
use crate::machine::{State, apply};
use crate::raft::snapshot::{self, LedgerHead, Replicated};
use crate::testing::{Rig, digest, options, repository};

const HOUR: u64 = 3_600_000;

fn version(number: u64) -> Digest {
    digest(&format!("schedule {number}"))
}

fn named(number: u64) -> SessionName {
    format!("s{number:016x}142").parse().unwrap()
}

fn note_write(rig: &mut Rig, term: u64, number: u64) -> Vec<Event> {
    let version = version(number);
    rig.go(Command::NoteWrite { repository: repository(), term: Term(term), version }).0
}

fn note_session(rig: &mut Rig, term: u64, number: u64) -> Vec<Event> {
    let session = named(number);
    rig.go(Command::NoteSession { repository: repository(), term: Term(term), session }).0
}

fn notes(rig: &Rig) -> Notes {
    rig.state.repositories[&repository()].notes.clone()
}

fn is_refused(events: &[Event]) -> bool {
    matches!(events, [Event::CommandRefused { .. }])
}

#[test]
fn r22_what_was_noted_is_ours_and_what_anybody_else_wrote_is_not() {
    let mut rig = Rig::new();
    for number in 0..20 {
        assert_eq!(note_write(&mut rig, 1, number).len(), 1);
        assert_eq!(note_write(&mut rig, 1, number), [], "said again after a lost answer");
    }
    let notes = notes(&rig);
    assert!((12..20).all(|number| notes.wrote(&version(number))), "the newest may not have reached the store");
    assert!((0..12).all(|number| !notes.wrote(&version(number))), "it is bounded");
    assert!(!notes.wrote(&version(99)), "other bytes are another's");
}

#[test]
fn r21_a_session_is_over_for_a_later_term_and_for_no_other() {
    let mut rig = Rig::new();
    note_session(&mut rig, 1, 1);
    assert!(notes(&rig).sessions_before(Term(1)).is_empty(), "whoever began it is at work");
    rig.take_lease(2);
    note_session(&mut rig, 2, 2);
    assert_eq!(notes(&rig).sessions_before(Term(2)), [named(1).to_string()].into());
    assert_eq!(notes(&rig).sessions_before(Term(3)).len(), 2);
}

#[test]
fn r21_r22_nobody_notes_without_the_present_lease() {
    let mut rig = Rig::new();
    rig.take_lease(2);
    for term in [0, 1, 3] {
        assert!(is_refused(&note_write(&mut rig, term, 1)) && is_refused(&note_session(&mut rig, term, 1)));
    }
    rig.go(Command::LoseLease { repository: repository(), term: Term(2), reason: "taken over".to_owned() });
    assert!(is_refused(&note_write(&mut rig, 2, 1)) && is_refused(&note_session(&mut rig, 2, 1)));
    assert!(notes(&rig).is_empty());
}

#[test]
fn r21_r22_a_driver_that_was_replaced_notes_nothing_any_more() {
    let mut rig = Rig::new();
    let (first, second) = (Driver { node: 1, boots: 1, run: 1 }, Driver { node: 2, boots: 1, run: 1 });
    let said = |driver, command| Command::Driven(Box::new(Driven { driver, repository: repository(), command }));
    let write = || Command::NoteWrite { repository: repository(), term: Term(1), version: version(1) };
    rig.go(Command::TakeDrive { repository: repository(), driver: first });
    rig.pass(20_000);
    rig.go(Command::TakeDrive { repository: repository(), driver: second });
    assert!(is_refused(&rig.go(said(first, write())).0), "though the lease is still of its term");
    assert_eq!(rig.go(said(second, write())).0[0].kind(), "write_noted");
}

#[test]
fn sessions_are_forgotten_after_eight_days_and_beyond_a_thousand() {
    let mut rig = Rig::new();
    note_session(&mut rig, 1, 0);
    rig.pass(SESSIONS_KEPT + 1);
    rig.take_lease(2);
    note_session(&mut rig, 2, 1);
    assert_eq!(notes(&rig).sessions_before(Term(9)), [named(1).to_string()].into());
    for number in 0..1_100 {
        rig.pass(1_000);
        rig.renew_lease();
        note_session(&mut rig, 2, 100 + number);
    }
    let kept = notes(&rig).sessions_before(Term(9));
    assert_eq!(kept.len(), SESSIONS_MAX);
    assert!(kept.contains(named(1_199).as_str()) && !kept.contains(named(100).as_str()));
}

#[test]
fn notes_are_made_again_from_the_commands_and_outlast_a_snapshot() {
    let mut rig = Rig::new();
    for number in 0..9 {
        note_write(&mut rig, 1, number);
        note_session(&mut rig, 1, number);
        rig.pass(HOUR);
    }
    rig.take_lease(2);
    rig.open(options(Mode::Index));
    while !rig.state.cycles.is_empty() {
        rig.do_job();
    }
    let mut again = State::default();
    for (at, command, events) in &rig.log {
        assert_eq!(&apply(&mut again, command.clone(), *at).0, events);
    }
    assert_eq!(again, rig.state);
    let replicated = Replicated { state: rig.state.clone(), ..Replicated::default() };
    let bytes = snapshot::encode(&replicated, LedgerHead::default()).unwrap();
    let kept = snapshot::decode(&bytes, verger_proto::level::LEVEL).unwrap().0.state;
    assert_eq!(kept, rig.state);
    assert!(kept.repositories[&repository()].calendar.index.ended.is_some());
}

#[test]
fn r11_a_lost_index_is_remembered_until_a_full_cycle_finds_none() {
    let mut rig = Rig::new();
    let lost = |rig: &Rig| notes(rig).lost_index();
    let damage = Damage {
        severity: Severity::LostIndex,
        subject: "k00".to_owned(),
        text: "no entry".to_owned(),
        snapshots: Vec::new(),
        paths: Vec::new(),
    };
    let finish = |rig: &mut Rig, found: Option<Damage>| {
        while !rig.state.cycles.is_empty() {
            let job = rig.job();
            let mut report = rig.report(&job);
            if let Some(found) = found.clone().filter(|_| job.stage == verger_proto::Stage::Solve) {
                report.outcome = Outcome::Degraded(vec![found]);
            }
            let ticket = rig.claim();
            rig.do_batches(&ticket);
            rig.go(Command::CompleteJob { ticket, report: Box::new(report) });
        }
    };
    rig.open(options(Mode::Full));
    finish(&mut rig, Some(damage));
    assert!(lost(&rig));
    for mode in [Mode::Quick, Mode::Index] {
        rig.open(options(mode));
        finish(&mut rig, None);
        assert!(lost(&rig), "such a cycle cannot see it");
    }
    rig.open(options(Mode::Full));
    finish(&mut rig, None);
    assert!(!lost(&rig));
}
