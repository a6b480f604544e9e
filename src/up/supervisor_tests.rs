use verger_coordinator::machine::apply;
use verger_proto::{
    CycleId, IndexKind, LogTime, Mode, RegistrationChange, RepositoryName, Safety, SecretRef, StoreTime, Term,
};

use super::*;

fn id(digit: &str) -> RepositoryId {
    format!("{}-{}", digit.repeat(64), "01".repeat(16)).parse().unwrap()
}

fn registration(name: &str) -> Registration {
    Registration {
        name: RepositoryName::new(name).unwrap(),
        address: format!("filesystem:///srv/{name}"),
        tenant: "home".to_owned(),
        password: SecretRef::Env("PHOTOS".to_owned()),
        acting: Acting::TakeOwnership,
        exclusive: false,
        suspended: false,
        index: IndexKind::Epochs,
    }
}

fn options(mode: Mode) -> CycleOptions {
    let (safety, index) = (Safety::Full, IndexKind::Epochs);
    CycleOptions { mode, safety, index, dry_run: false, allow_removing: None, exclusive: false, alone: false }
}

/// Two repositories, `a` and `b`, whose looks are all in the future.
struct Fleet {
    state: State,
    looks: BTreeMap<RepositoryId, Look>,
    now: Timestamp,
}

impl Fleet {
    fn new() -> Self {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let mut fleet = Self { state: State::default(), looks: BTreeMap::new(), now };
        for name in ["a", "b"] {
            let registration = Box::new(registration(name));
            fleet.go(Command::AddRepository { repository: id(name), registration });
            fleet.look(name, 60, 0);
        }
        fleet
    }

    fn go(&mut self, command: Command) {
        apply(&mut self.state, command, LogTime(1_000_000));
    }

    fn look(&mut self, name: &str, seconds: i64, backoff: u64) {
        let at = self.now + jiff::SignedDuration::from_secs(seconds);
        self.looks.insert(id(name), Look { at, backoff: Duration::from_secs(backoff) });
    }

    fn wish(&mut self, name: &str, key: &str, options: CycleOptions) {
        self.go(Command::RequestCycle { repository: id(name), key: key.to_owned(), options });
    }

    /// Opens a cycle under a fresh lease.
    fn open(&mut self, name: &str, options: CycleOptions) -> CycleId {
        let repository = id(name);
        let term = Term(self.state.repositories[&repository].last_term.0 + 1);
        let (store_now, acts_until) = (StoreTime(1_000_000), StoreTime(1_120_000));
        self.go(Command::TakeLease { repository: repository.clone(), term, kept: false, store_now, acts_until });
        self.go(Command::OpenCycle { repository: repository.clone(), options });
        self.state.repositories[&repository].open.unwrap()
    }

    fn next(&self, busy: &[&str]) -> Option<(String, Why)> {
        let busy: Vec<RepositoryId> = busy.iter().map(|name| id(name)).collect();
        let task = next(&self.state, &busy.iter().collect(), &self.looks, self.now)?;
        Some((task.registration.name.to_string(), task.why))
    }
}

fn asked(key: &str, mode: Mode) -> Why {
    Why::Asked(key.to_owned(), options(mode))
}

#[test]
fn with_nothing_asked_for_a_repository_is_looked_at_when_its_time_has_come() {
    let mut fleet = Fleet::new();
    assert_eq!(fleet.next(&[]), None);
    fleet.look("b", 0, 0);
    assert_eq!(fleet.next(&[]), Some(("b".to_owned(), Why::Due)));
    assert_eq!(fleet.next(&["b"]), None, "somebody is at it");
    fleet.looks.remove(&id("a"));
    assert_eq!(fleet.next(&["b"]), Some(("a".to_owned(), Why::Due)), "never looked at");
    for change in [RegistrationChange::Suspended(true), RegistrationChange::Acting(Acting::Observe)] {
        let before = fleet.state.clone();
        fleet.go(Command::ChangeRepository { repository: id("a"), change: change.clone() });
        assert_eq!(fleet.next(&["b"]), None, "{change:?}");
        fleet.state = before;
    }
}

#[test]
fn a_wish_comes_first_and_waits_for_a_cycle_with_other_options() {
    let mut fleet = Fleet::new();
    fleet.look("a", 0, 0);
    fleet.look("b", 600, 300);
    fleet.wish("b", "now", options(Mode::Full));
    assert_eq!(fleet.next(&[]), Some(("b".to_owned(), asked("now", Mode::Full))), "a person does not back off");
    fleet.go(Command::ChangeRepository { repository: id("b"), change: RegistrationChange::Suspended(true) });
    assert_eq!(fleet.next(&[]), Some(("b".to_owned(), asked("now", Mode::Full))), "nor wait for what is suspended");
    let open = fleet.open("b", options(Mode::Quick));
    assert_eq!(fleet.next(&["a"]), None, "the quick one was begun, failed, and is let alone for a while");
    fleet.look("b", 600, 0);
    assert_eq!(fleet.next(&["a"]), Some(("b".to_owned(), Why::Unfinished(options(Mode::Quick)))));
    fleet.go(Command::AbortCycle { cycle: open, reason: "enough".to_owned() });
    assert_eq!(fleet.next(&["a"]), Some(("b".to_owned(), asked("now", Mode::Full))));
}

#[test]
fn what_was_begun_goes_on_unless_a_person_paused_it() {
    let mut fleet = Fleet::new();
    let cycle = fleet.open("a", options(Mode::Full));
    assert_eq!(fleet.next(&[]), Some(("a".to_owned(), Why::Unfinished(options(Mode::Full)))));
    fleet.go(Command::ParkCycle { cycle });
    assert_eq!(fleet.next(&[]), Some(("a".to_owned(), Why::Unfinished(options(Mode::Full)))), "parked by a signal");
    fleet.go(Command::PauseCycle { cycle });
    assert_eq!(fleet.next(&[]), None);
    fleet.wish("a", "again", options(Mode::Full));
    fleet.look("a", 0, 0);
    assert_eq!(fleet.next(&[]), None, "nor is it taken up by a wish, or a look");
    fleet.go(Command::UnpauseCycle { cycle });
    assert!(fleet.next(&[]).is_some());
}
