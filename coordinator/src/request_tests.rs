use verger_proto::event::CycleEnd;
use verger_proto::{
    Acting, Command, Event, FailureKind, Mode, Refusal, Registration, RegistrationChange, RepositoryId, RepositoryName,
    Safety, SecretRef, Stage, Verification,
};

use super::*;
use crate::machine::Phase;
use crate::testing::{Rig, options, repository, store};

fn registration(name: &str) -> Registration {
    Registration { name: RepositoryName::new(name).unwrap(), ..crate::testing::registration() }
}

fn other() -> RepositoryId {
    format!("{}-{}", "cd".repeat(32), "02".repeat(16)).parse().unwrap()
}

fn add(rig: &mut Rig, repository: RepositoryId, registration: Registration) -> Vec<Event> {
    rig.go(Command::AddRepository { repository, registration: Box::new(registration) }).0
}

fn change(rig: &mut Rig, change: RegistrationChange) -> Vec<Event> {
    rig.go(Command::ChangeRepository { repository: repository(), change }).0
}

fn wish(rig: &mut Rig, key: &str, options: CycleOptions) -> Vec<Event> {
    rig.go(Command::RequestCycle { repository: repository(), key: key.to_owned(), options }).0
}

fn refusal(events: &[Event]) -> Option<Refusal> {
    events.iter().find_map(|event| match event {
        Event::CommandRefused { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

fn failure() -> Failure {
    Failure { kind: FailureKind::WrongPassword, text: "the password does not fit".to_owned(), retryable: false }
}

fn keys(rig: &Rig) -> Vec<&str> {
    rig.state.repositories[&repository()].requests.iter().map(|request| request.key.as_str()).collect()
}

#[test]
fn a_repository_is_added_once_under_one_name() {
    let mut rig = Rig::bare();
    assert_eq!(refusal(&add(&mut rig, repository(), registration("photos"))), None);
    assert_eq!(
        refusal(&add(&mut rig, repository(), registration("photos"))),
        None,
        "asked again, for the answer was lost"
    );
    let renamed = add(&mut rig, repository(), registration("pictures"));
    assert_eq!(refusal(&renamed), Some(Refusal::AlreadyAdded(RepositoryName::new("photos").unwrap())));
    let taken = add(&mut rig, other(), registration("photos"));
    assert_eq!(refusal(&taken), Some(Refusal::NameTaken(RepositoryName::new("photos").unwrap())));
    add(&mut rig, other(), registration("attic"));
    assert_eq!(rig.state.named(&RepositoryName::new("attic").unwrap()).unwrap().0, &other());
    change(&mut rig, RegistrationChange::Suspended(true));
    change(&mut rig, RegistrationChange::Password(SecretRef::File("/run/photos".to_owned())));
    let now = rig.state.repositories[&repository()].registration.clone().unwrap();
    assert_eq!((now.schedule.suspended, now.password), (true, SecretRef::File("/run/photos".to_owned())));
    rig.go(Command::RemoveRepository { repository: repository() });
    assert_eq!(refusal(&change(&mut rig, RegistrationChange::Suspended(false))), Some(Refusal::UnknownRepository));
    assert_eq!(refusal(&add(&mut rig, repository(), registration("pictures"))), None, "it may come back");
}

#[test]
fn terms_survive_that_a_repository_is_removed_and_an_open_cycle_keeps_it() {
    let mut rig = Rig::new();
    add(&mut rig, repository(), registration("photos"));
    rig.open(options(Mode::Full));
    let id = *rig.state.cycles.keys().next().unwrap();
    let removed = rig.go(Command::RemoveRepository { repository: repository() }).0;
    assert_eq!(refusal(&removed), Some(Refusal::CycleOpen(id)));
    rig.go(Command::AbortCycle { cycle: id, reason: "enough".to_owned() });
    rig.go(Command::RemoveRepository { repository: repository() });
    add(&mut rig, repository(), registration("photos"));
    assert_eq!(rig.state.repositories[&repository()].last_term.0, 1);
}

#[test]
fn what_a_probe_saw_is_kept_with_its_time_as_long_as_the_repository_is_looked_after() {
    let mut rig = Rig::new();
    let probe = |rig: &mut Rig| rig.go(Command::RecordProbe { repository: repository(), probe: Box::new(store()) }).0;
    assert_eq!(refusal(&probe(&mut rig)), Some(Refusal::UnknownRepository));
    add(&mut rig, repository(), registration("photos"));
    let events = probe(&mut rig);
    assert_eq!(events, [Event::StoreProbed { repository: repository(), probe: Box::new(store()) }]);
    assert_eq!(rig.state.repositories[&repository()].store, Some((store(), rig.state.now)));
    assert_eq!(probe(&mut rig).len(), 1, "the same again is younger");
    rig.go(Command::RemoveRepository { repository: repository() });
    assert_eq!(rig.state.repositories[&repository()].store, None, "whoever adds it next may reach it by another way");
    assert_eq!(refusal(&probe(&mut rig)), Some(Refusal::UnknownRepository));
}

#[test]
fn when_a_verification_found_nothing_wrong_is_kept_as_long_as_the_repository_is_looked_after() {
    let mut rig = Rig::new();
    let found = |problems: u64| {
        let (contents, bytes_read) = (9, 70);
        Verification { share: 500, snapshots: 3, contents, contents_read: 1, bytes_read, problems }
    };
    let say = |rig: &mut Rig, problems: u64| {
        rig.go(Command::RecordVerification { repository: repository(), verification: found(problems) }).0
    };
    assert_eq!(refusal(&say(&mut rig, 0)), Some(Refusal::UnknownRepository));
    add(&mut rig, repository(), registration("photos"));
    let events = say(&mut rig, 0);
    assert_eq!(events, [Event::RepositoryVerified { repository: repository(), verification: found(0) }]);
    let sound = rig.state.now;
    rig.at = rig.at.plus(60_000);
    say(&mut rig, 2);
    let verified = rig.state.repositories[&repository()].verified.unwrap();
    assert_eq!((verified.last, verified.at, verified.sound_at), (found(2), rig.state.now, Some(sound)));
    assert!(verified.at > sound);
    rig.go(Command::RemoveRepository { repository: repository() });
    assert_eq!(rig.state.repositories[&repository()].verified, None, "whoever adds it next is another tenant, maybe");
    assert_eq!(refusal(&say(&mut rig, 0)), Some(Refusal::UnknownRepository));
}

#[test]
fn what_is_observed_or_shared_is_not_changed_on_anybodys_word() {
    let mut rig = Rig::new();
    add(&mut rig, repository(), Registration { acting: Acting::Observe, ..registration("photos") });
    let full = options(Mode::Full);
    let none = CycleOptions { safety: Safety::None, alone: true, ..full };
    assert_eq!(refusal(&wish(&mut rig, "a", full)), Some(Refusal::OnlyObserved));
    assert_eq!(refusal(&rig.open(full).0), Some(Refusal::OnlyObserved));
    assert_eq!(refusal(&wish(&mut rig, "a", CycleOptions { dry_run: true, ..full })), None);
    change(&mut rig, RegistrationChange::Acting(Acting::TakeOwnership));
    assert_eq!(refusal(&wish(&mut rig, "b", none)), Some(Refusal::NotExclusive));
    assert_eq!(refusal(&rig.open(none).0), Some(Refusal::NotExclusive));
    change(&mut rig, RegistrationChange::Exclusive(true));
    assert_eq!(refusal(&wish(&mut rig, "c", CycleOptions { alone: false, ..none })), Some(Refusal::NotAlone));
    assert_eq!(refusal(&wish(&mut rig, "c", none)), None);
    let much = CycleOptions { allow_removing: Some(101), ..full };
    assert_eq!(refusal(&wish(&mut rig, "d", much)), Some(Refusal::Percentage(101)));
}

#[test]
fn a_wish_is_remembered_by_its_key_until_a_cycle_answers_it() {
    let mut rig = Rig::new();
    let (full, quick) = (options(Mode::Full), options(Mode::Quick));
    assert_eq!(refusal(&wish(&mut rig, "a", full)), Some(Refusal::UnknownRepository));
    add(&mut rig, repository(), registration("photos"));
    for key in ["a", "b", "a"] {
        assert_eq!(refusal(&wish(&mut rig, key, full)), None);
    }
    wish(&mut rig, "q", quick);
    assert_eq!(keys(&rig), ["a", "b", "q"]);
    rig.open(full);
    let id = *rig.state.cycles.keys().next().unwrap();
    assert_eq!(keys(&rig), ["q"], "another kind of cycle waits");
    let answered = rig.state.repositories[&repository()].answered.clone();
    assert_eq!(answered, ["a", "b"].map(|key| (key.to_owned(), Answer::Cycle(id))));
    // Asked again: it is answered, and not asked for a second time. A new wish for the same joins when the cycle is opened again.
    wish(&mut rig, "a", full);
    wish(&mut rig, "late", full);
    assert_eq!(keys(&rig), ["q", "late"]);
    rig.open(full);
    assert_eq!(keys(&rig), ["q"]);
    let given_up = Command::DropRequest { repository: repository(), key: "q".to_owned(), failure: failure() };
    assert_eq!(refusal(&rig.go(given_up.clone()).0), None);
    assert_eq!(refusal(&rig.go(given_up).0), Some(Refusal::UnknownRequest));
    let answered = &rig.state.repositories[&repository()].answered;
    assert_eq!(answered.last(), Some(&("q".to_owned(), Answer::Dropped(failure()))));
}

#[test]
fn wishes_and_answers_have_their_bounds() {
    let mut rig = Rig::new();
    add(&mut rig, repository(), registration("photos"));
    for number in 0..WAITING_MAX {
        assert_eq!(refusal(&wish(&mut rig, &number.to_string(), options(Mode::Quick))), None);
    }
    assert_eq!(refusal(&wish(&mut rig, "more", options(Mode::Quick))), Some(Refusal::TooManyRequests(16)));
    assert_eq!(refusal(&wish(&mut rig, "3", options(Mode::Quick))), None, "one that waits already");
    for number in 0..2 * ANSWERED_MAX {
        let key = format!("full {number}");
        rig.go(Command::DropRequest { repository: repository(), key: number.to_string(), failure: failure() });
        wish(&mut rig, &key, options(Mode::Full));
        rig.go(Command::DropRequest { repository: repository(), key, failure: failure() });
    }
    assert_eq!(rig.state.repositories[&repository()].answered.len(), ANSWERED_MAX);
}

#[test]
fn the_past_is_remembered_with_its_report() {
    let mut rig = Rig::new();
    add(&mut rig, repository(), registration("photos"));
    for _ in 0..PAST_MAX + 3 {
        rig.take_lease(rig.state.repositories[&repository()].last_term.0 + 1);
        rig.open(options(Mode::Full));
        let id = *rig.state.cycles.keys().next().unwrap();
        rig.go(Command::AbortCycle { cycle: id, reason: "enough".to_owned() });
        let report =
            Command::RecordReport { repository: repository(), cycle: id, report: format!("{{\"cycle\":{id}}}") };
        assert_eq!(refusal(&rig.go(report).0), None);
    }
    let past = &rig.state.repositories[&repository()].past;
    assert_eq!(past.len(), PAST_MAX);
    assert_eq!(past.last().unwrap().end, CycleEnd::Aborted("enough".to_owned()));
    assert!(past.iter().all(|one| one.report.as_deref() == Some(&format!("{{\"cycle\":{}}}", one.id))));
    let unknown = Command::RecordReport { repository: repository(), cycle: CycleId(1), report: String::new() };
    assert_eq!(refusal(&rig.go(unknown).0), Some(Refusal::UnknownCycle), "forgotten here; the ledger has it");
}

#[test]
fn a_pause_is_a_persons_and_lasts() {
    let mut rig = Rig::at_stage(Stage::Delete);
    let id = *rig.state.cycles.keys().next().unwrap();
    rig.go(Command::PauseCycle { cycle: id });
    let cycle = &rig.state.cycles[&id];
    assert!(cycle.paused && cycle.phase == Phase::Parked);
    assert_eq!(refusal(&rig.go(Command::PauseCycle { cycle: id }).0), None, "again is no harm");
    rig.go(Command::UnpauseCycle { cycle: id });
    assert!(!rig.state.cycles[&id].paused && rig.state.cycles[&id].phase == Phase::Parked);
    assert_eq!(refusal(&rig.go(Command::UnpauseCycle { cycle: id }).0), Some(Refusal::NotParked));
    rig.take_lease(2);
    rig.go(Command::ResumeCycle { cycle: id });
    assert_eq!(rig.state.cycles[&id].phase, Phase::Running);
}
