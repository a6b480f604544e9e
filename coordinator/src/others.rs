//! What is known of others: fleets that share a store with this one, and workers that cannot reach it.
//!
//! Nobody takes or leaves a lease by what is kept here: that is the object's business alone.

use verger_kopia::mutant::{self, Mutant};
use verger_proto::lease::is_plain;
use verger_proto::{
    Command, Driver, Event, Failure, FailureKind, LogTime, Refusal, RepositoryId, SeenLease, StoreId, Term, Unable,
    WorkerId,
};

use crate::machine::{Repository, State, Turn, Worker};
use crate::workers::SILENCE_MILLISECONDS;

/// A renewal of somebody else's is kept when it makes so much difference, in milliseconds.
const RENEWAL_KEPT_MILLISECONDS: u64 = 300_000;
/// How long a worker that cannot open a repository is not given it, in milliseconds.
pub const UNABLE_MILLISECONDS: u64 = 300_000;
/// Workers that are known so, of one repository.
const UNABLE_MAX: usize = 64;

/// The store of a repository is another fleet's word until this one held a lease there: which of them is the first to say it in the
/// store is chance. After that, notes and sessions are of that store, and another one is another repository (R6).
pub(crate) fn identify(turn: &mut Turn<'_>, before: RepositoryId, store: StoreId) -> Result<(), Refusal> {
    let repository = RepositoryId { unique: before.unique.clone(), store };
    let repositories = &turn.state.repositories;
    let entry = repositories.get(&before).filter(|entry| entry.registration.is_some());
    let entry = entry.ok_or(Refusal::UnknownRepository)?;
    if repository == before {
        return Ok(());
    }
    if entry.last_term > Term(0) && !mutant::on(Mutant::R6UsedStoreRenamed) {
        return Err(Refusal::OtherRepository);
    }
    if let Some(open) = entry.open {
        return Err(Refusal::CycleOpen(open));
    }
    let there = repositories.get(&repository);
    if let Some(known) = there.and_then(|entry| entry.registration.as_ref()) {
        return Err(Refusal::AlreadyAdded(known.name.clone()));
    }
    let at = turn.at;
    let Some(moved) = turn.state.repositories.remove(&before) else { return Err(Refusal::UnknownRepository) };
    // Who drives it speaks of the one before; it is taken anew.
    let moved = Repository { driver: None, ..moved };
    let known = turn.state.repositories.entry(repository.clone()).or_default();
    if *known == Repository::default() {
        *known = moved;
    } else {
        // It was looked after here before, and goes on where it was.
        let Repository { registration, requests, answered, store, other, unable, calendar, .. } = moved;
        (known.registration, known.requests, known.answered) = (registration, requests, answered);
        (known.store, known.other, known.unable) = (store, other, unable);
        (known.calendar.since, known.calendar.own) = (at, calendar.own);
    }
    turn.events.push(Event::StoreIdentified { repository, before: before.store });
    Ok(())
}

/// The lease object is somebody else's. What is known already is no event.
pub(crate) fn lease(turn: &mut Turn<'_>, repository: RepositoryId, lease: SeenLease) -> Result<(), Refusal> {
    let entry = turn.state.repositories.get_mut(&repository).ok_or(Refusal::UnknownRepository)?;
    let is_news = match &entry.other {
        None => !lease.free,
        Some((known, _)) => {
            let is_same = (&known.holder, known.term, known.free) == (&lease.holder, lease.term, lease.free);
            !is_same || lease.expires.since(known.expires) >= RENEWAL_KEPT_MILLISECONDS
        }
    };
    // While the lease is ours, what somebody saw before that is over.
    if !is_news || entry.lease.is_some() || entry.registration.is_none() || !is_plain(&lease.holder) {
        return Ok(());
    }
    entry.other = (!lease.free).then(|| (lease.clone(), turn.at));
    turn.events.push(Event::LeaseSeen { repository, lease: Box::new(lease) });
    Ok(())
}

/// A worker says that it leaves a repository to others. Whoever said only that, lacked a secret.
pub(crate) fn left(turn: &mut Turn<'_>, word: Command) -> Result<(), Refusal> {
    match word {
        Command::NoteUnable { repository, worker, driver, reason } => {
            let failure = Failure { kind: FailureKind::Usage, text: reason, retryable: false };
            unable(turn, repository, worker, driver, failure)
        }
        Command::NoteShutOut { repository, worker, driver, failure } => {
            unable(turn, repository, worker, driver, *failure)
        }
        _ => Ok(()),
    }
}

/// Said again, it is an event when the worker could have been given the repository again.
fn unable(
    turn: &mut Turn<'_>,
    repository: RepositoryId,
    worker: WorkerId,
    driver: Driver,
    failure: Failure,
) -> Result<(), Refusal> {
    let (at, Failure { kind, text: reason, .. }) = (turn.at, failure);
    let entry = turn.state.repositories.get_mut(&repository).ok_or(Refusal::UnknownRepository)?;
    let is_known = entry.unable.iter().any(|one| one.driver.is_process(driver) && is_unable(one, at));
    if is_known || entry.registration.is_none() || !is_plain(&reason) {
        return Ok(());
    }
    // A later process of that name, but none that merely says that name with another token.
    let is_it = |one: &Unable| one.worker == worker && one.driver.boots == driver.boots;
    entry.unable.retain(|one| is_unable(one, at) && !is_it(one));
    if entry.unable.len() >= UNABLE_MAX {
        entry.unable.remove(0);
    }
    entry.unable.push(Unable { worker: worker.clone(), driver, kind, reason: reason.clone(), since: at });
    turn.events.push(Event::WorkerUnable { repository, worker, reason });
    Ok(())
}

/// Whether a word that a worker cannot is still believed. What it lacks may be there by now.
pub(crate) fn is_unable(one: &Unable, now: LogTime) -> bool {
    now.since(one.since) < UNABLE_MILLISECONDS
}

/// Whether this process said not long ago that it cannot open the repository.
#[must_use]
pub fn is_left_by(entry: &Repository, driver: Driver, now: LogTime) -> bool {
    entry.unable.iter().any(|one| one.driver.is_process(driver) && is_unable(one, now))
}

/// A later process has the name of a worker: it may have what the one before lacked.
pub(crate) fn renewed(state: &mut State, worker: &WorkerId) {
    state.repositories.values_mut().for_each(|entry| entry.unable.retain(|one| one.worker != *worker));
}

/// Whether a worker in a process of its own is there that may be given this repository, and has not said that it cannot open it. Of
/// which tenants its token speaks is not known here.
#[must_use]
pub fn is_anybody_able(state: &State, entry: &Repository, now: LogTime) -> bool {
    candidates(state, entry, now).any(|name| !entry.unable.iter().any(|one| one.worker == *name && is_unable(one, now)))
}

/// Why nobody who is there can open a repository; none while somebody may, or nobody has said that he cannot.
pub(crate) fn shut_out(state: &State, entry: &Repository, now: LogTime) -> Option<Failure> {
    if is_anybody_able(state, entry, now) {
        return None;
    }
    let unable: Vec<&Unable> = entry.unable.iter().filter(|one| is_unable(one, now)).collect();
    // A secret that is refused tells more than one that is not there: somebody meant it.
    let order = |kind| match kind {
        FailureKind::WrongPassword => 0,
        FailureKind::Permission => 1,
        _ => 2,
    };
    let kind = unable.iter().map(|one| one.kind).min_by_key(|kind| order(*kind))?;
    let each: Vec<String> = unable.iter().map(|one| format!("{}: {}", one.worker, one.reason)).collect();
    let name = entry.registration.as_ref().map_or("it", |known| known.name.as_str());
    let text = format!("no worker that is there can open {name} ({})", each.join("; "));
    Some(Failure { kind, text, retryable: true })
}

/// Workers that are there, take work, and work for the pool of a repository.
fn candidates<'a>(state: &'a State, entry: &'a Repository, now: LogTime) -> impl Iterator<Item = &'a WorkerId> {
    let pool = entry.registration.as_ref().map_or("", |known| known.pool.as_str());
    let is_there = move |worker: &Worker| {
        let is_heard = now.since(worker.seen) <= SILENCE_MILLISECONDS;
        is_heard && !worker.drained && worker.info.pools.iter().any(|one| one == pool)
    };
    state.workers.iter().filter(move |(_, worker)| is_there(worker)).map(|(name, _)| name)
}

/// What a worker cannot open, with the repositories' names.
pub(crate) fn unable_of<'a>(
    state: &'a State,
    worker: &'a WorkerId,
    now: LogTime,
) -> impl Iterator<Item = (&'a Repository, &'a Unable)> {
    let all = state.repositories.values().flat_map(|entry| entry.unable.iter().map(move |one| (entry, one)));
    all.filter(move |(_, one)| one.worker == *worker && is_unable(one, now))
}

#[cfg(test)]
mod tests {
    use verger_proto::{StoreTime, WorkerInfo};

    use super::*;
    use crate::drive::refusal;
    use crate::testing::{Rig, options, registration, repository, store, worker, worker_info};

    fn named() -> StoreId {
        "09".repeat(16).parse().unwrap()
    }

    fn other() -> RepositoryId {
        RepositoryId { store: named(), ..repository() }
    }

    fn added() -> Rig {
        let mut rig = Rig::bare();
        rig.go(Command::AddRepository { repository: repository(), registration: Box::new(registration()) });
        rig
    }

    fn identify(rig: &mut Rig, repository: RepositoryId, store: StoreId) -> Vec<Event> {
        rig.go(Command::IdentifyStore { repository, store }).0
    }

    #[test]
    fn r6_a_store_is_another_fleets_word_only_until_a_lease_was_held_there() {
        let mut rig = added();
        let driver = Driver { node: 1, boots: 1, run: 1 };
        rig.go(Command::TakeDrive { repository: repository(), driver });
        let wish = Command::RequestCycle {
            repository: repository(),
            key: "one".to_owned(),
            options: options(verger_proto::Mode::Full),
        };
        rig.go(wish);
        rig.go(Command::RecordProbe { repository: repository(), probe: Box::new(store()) });
        let before = rig.state.repositories[&repository()].clone();
        let events = identify(&mut rig, repository(), named());
        assert_eq!(events, [Event::StoreIdentified { repository: other(), before: repository().store }]);
        let after = &rig.state.repositories[&other()];
        assert_eq!(*after, Repository { driver: None, ..before }, "it is looked after as before, and taken anew");
        assert!(!rig.state.repositories.contains_key(&repository()));
        // Whoever was at it under the ID before is not heard any more.
        let late = verger_proto::Driven { driver, repository: repository(), command: Command::Tick };
        assert_eq!(refusal(&rig.go(Command::Driven(Box::new(late))).0), Some(Refusal::NotDriving));
        assert_eq!(refusal(&identify(&mut rig, repository(), named())), Some(Refusal::UnknownRepository), "twice");
        assert!(identify(&mut rig, other(), named()).is_empty());
        let (store_now, acts_until) = (rig.store(), rig.store().plus(60_000));
        let take = Command::TakeLease { repository: other(), term: Term(3), kept: false, store_now, acts_until };
        rig.go(take);
        rig.go(Command::ReleaseLease { repository: other(), term: Term(3) });
        let back = identify(&mut rig, other(), repository().store);
        assert_eq!(refusal(&back), Some(Refusal::OtherRepository), "what was begun there is of that store");
    }

    #[test]
    fn r6_a_store_that_is_looked_after_already_or_was_once_stays_itself() {
        let mut rig = added();
        let second = verger_proto::Registration { name: "music".parse().unwrap(), ..registration() };
        rig.go(Command::AddRepository { repository: other(), registration: Box::new(second) });
        let known = identify(&mut rig, repository(), named());
        assert_eq!(refusal(&known), Some(Refusal::AlreadyAdded("music".parse().unwrap())));
        let (store_now, acts_until) = (rig.store(), rig.store().plus(60_000));
        rig.go(Command::TakeLease { repository: other(), term: Term(7), kept: false, store_now, acts_until });
        rig.go(Command::ReleaseLease { repository: other(), term: Term(7) });
        rig.go(Command::RemoveRepository { repository: other() });
        assert_eq!(identify(&mut rig, repository(), named()).len(), 1);
        let entry = &rig.state.repositories[&other()];
        assert_eq!(entry.last_term, Term(7), "terms only grow");
        assert_eq!(entry.registration.as_ref().map(|known| known.name.as_str()), Some("photos"));
    }

    #[test]
    fn r6_a_cycle_that_is_open_is_of_the_store_that_it_began_with() {
        let mut rig = added();
        let dry_run = verger_proto::CycleOptions { dry_run: true, ..options(verger_proto::Mode::Full) };
        rig.go(Command::OpenCycle { repository: repository(), options: dry_run });
        let open = rig.state.open_cycle(&repository()).unwrap().id;
        assert_eq!(refusal(&identify(&mut rig, repository(), named())), Some(Refusal::CycleOpen(open)));
    }

    fn seen(holder: &str, term: u64, expires: u64, free: bool) -> Command {
        let holder = holder.to_owned();
        let (acts_until, expires) = (StoreTime(expires / 2), StoreTime(expires));
        let lease = Box::new(SeenLease { holder, term: Term(term), acts_until, expires, free });
        Command::NoteLease { repository: repository(), lease }
    }

    #[test]
    fn what_is_seen_of_a_lease_of_others_is_kept_when_it_is_news_and_ends_with_ones_own() {
        let mut rig = added();
        assert!(rig.go(seen("a", 4, 600_000, true)).0.is_empty(), "nobody holds it");
        assert_eq!(rig.go(seen("a", 4, 600_000, false)).0.len(), 1);
        assert!(rig.go(seen("a", 4, 600_000 + RENEWAL_KEPT_MILLISECONDS - 1, false)).0.is_empty());
        assert_eq!(rig.go(seen("a", 4, 600_000 + RENEWAL_KEPT_MILLISECONDS, false)).0.len(), 1);
        assert_eq!(rig.go(seen("b", 5, 600_000, false)).0.len(), 1);
        let known = |rig: &Rig| rig.state.repositories[&repository()].other.clone().map(|(lease, _)| lease.holder);
        assert_eq!(known(&rig).as_deref(), Some("b"));
        assert!(rig.go(seen(&"x".repeat(300), 6, 600_000, false)).0.is_empty(), "too long to be a name");
        assert_eq!(rig.go(seen("b", 5, 600_000, true)).0.len(), 1);
        assert_eq!(known(&rig), None);
        rig.go(seen("b", 6, 600_000, false));
        rig.take_lease(7);
        assert_eq!(known(&rig), None);
        assert!(rig.go(seen("b", 6, 900_000, false)).0.is_empty(), "late: it is ours by now");
    }

    fn shut_out_as(name: &str, node: u64, run: u64, kind: FailureKind, text: &str) -> Command {
        Command::NoteShutOut {
            repository: repository(),
            worker: worker(name),
            driver: Driver { node, boots: 9, run },
            failure: Box::new(Failure { kind, text: text.to_owned(), retryable: false }),
        }
    }

    fn there(rig: &mut Rig, name: &str, instance: u64, pool: &str) {
        let info = WorkerInfo { instance, pools: vec![pool.to_owned()], ..worker_info() };
        rig.go(Command::SeeWorker { worker: worker(name), info: Box::new(info) });
    }

    fn all_shut_out(rig: &Rig) -> Option<Failure> {
        shut_out(&rig.state, &rig.state.repositories[&repository()], rig.at)
    }

    #[test]
    fn that_nobody_can_open_it_is_said_when_all_who_are_there_have_said_so_and_the_worst_is_its_kind() {
        let mut rig = added();
        assert_eq!(all_shut_out(&rig), None, "nobody has said anything");
        there(&mut rig, "cellar", 1, "default");
        there(&mut rig, "attic", 2, "default");
        there(&mut rig, "far", 3, "elsewhere");
        let wrong = "open photos with the password in the environment variable PHOTOS: it does not open it";
        rig.go(shut_out_as("cellar", 5, 1, FailureKind::Usage, "the variable PHOTOS is not set"));
        assert_eq!(all_shut_out(&rig), None, "the one in the attic may");
        rig.go(shut_out_as("attic", 6, 1, FailureKind::WrongPassword, wrong));
        let told = all_shut_out(&rig).unwrap();
        assert_eq!(told.kind, FailureKind::WrongPassword);
        assert!(told.text.contains("cellar: the variable PHOTOS is not set; attic: open photos"), "{}", told.text);
        // A new process of that name may have what the one before lacked.
        there(&mut rig, "attic", 7, "default");
        assert_eq!(all_shut_out(&rig), None);
        rig.go(Command::DrainWorker { worker: worker("attic"), drain: true });
        assert_eq!(all_shut_out(&rig).unwrap().kind, FailureKind::Usage, "it takes nothing");
        rig.go(Command::DrainWorker { worker: worker("attic"), drain: false });
        rig.at = rig.at.plus(SILENCE_MILLISECONDS + 1);
        assert_eq!(all_shut_out(&rig).unwrap().kind, FailureKind::Usage, "it is not there any more");
        rig.at = rig.at.plus(UNABLE_MILLISECONDS);
        assert_eq!(all_shut_out(&rig), None, "they are asked again");
    }

    #[test]
    fn what_was_said_before_there_were_kinds_is_a_secret_that_is_missing() {
        let mut rig = added();
        let (driver, reason) = (Driver { node: 5, boots: 9, run: 1 }, "the variable PHOTOS is not set".to_owned());
        rig.go(Command::NoteUnable { repository: repository(), worker: worker("cellar"), driver, reason });
        assert_eq!(rig.state.repositories[&repository()].unable[0].kind, FailureKind::Usage);
    }

    #[test]
    fn a_worker_that_cannot_is_left_alone_for_a_while_and_is_an_event_once() {
        let mut rig = added();
        let unable = |name: &str, node: u64, run: u64| {
            shut_out_as(name, node, run, FailureKind::Usage, "the variable PHOTOS is not set")
        };
        let began = rig.at;
        assert_eq!(rig.go(unable("cellar", 5, 1)).0.len(), 1);
        assert!(rig.go(unable("cellar", 5, 2)).0.is_empty(), "another run of the same process");
        assert_eq!(rig.go(unable("attic", 6, 1)).0.len(), 1);
        let left = |rig: &Rig, node, now| {
            is_left_by(&rig.state.repositories[&repository()], Driver { node, boots: 9, run: 77 }, now)
        };
        assert!(left(&rig, 5, began) && left(&rig, 6, began) && !left(&rig, 7, began));
        let later = began.plus(UNABLE_MILLISECONDS);
        assert!(!left(&rig, 5, later), "what it lacks may be there by now");
        assert_eq!(unable_of(&rig.state, &worker("cellar"), began).count(), 1);
        rig.at = later;
        assert_eq!(rig.go(unable("cellar", 5, 9)).0.len(), 1);
        assert_eq!(rig.state.repositories[&repository()].unable.len(), 1, "the others were long ago");
        for number in 0..2 * UNABLE_MAX as u64 {
            rig.go(unable(&format!("w{number}"), 100 + number, 1));
        }
        assert_eq!(rig.state.repositories[&repository()].unable.len(), UNABLE_MAX);
        rig.go(Command::RemoveRepository { repository: repository() });
        assert!(rig.state.repositories[&repository()].unable.is_empty());
    }
}
