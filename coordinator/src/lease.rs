//! The lease on a repository, as the store confirmed it. Terms only grow (R3); approvals need the last confirmed renewal (R5).

use verger_kopia::mutant::{self, Mutant};
use verger_proto::batch::DEADLINE_MILLISECONDS_MAX;
use verger_proto::{Effect, Event, Refusal, RepositoryId, StoreTime, Term};

use crate::cycle;
use crate::machine::{Lease, Phase, Turn};

/// Milliseconds after which a held lease should be written again.
const RENEW_AFTER_MILLISECONDS: u64 = 60_000;

/// The store's clock at a write of the lease, and until when that lets us act.
type Window = (StoreTime, StoreTime);

/// Never more than 120 s ahead (R4), whatever the object says.
fn lease(turn: &Turn<'_>, term: Term, (store_now, acts_until): Window) -> Lease {
    let most = if mutant::on(Mutant::R4ActsWithoutEnd) { u64::MAX } else { DEADLINE_MILLISECONDS_MAX };
    let window = acts_until.since(store_now).min(most);
    Lease { term, acts_until: store_now.plus(window), confirmed_until: turn.at.plus(window), confirmed: turn.at }
}

pub(crate) fn take(
    turn: &mut Turn<'_>,
    repository: RepositoryId,
    term: Term,
    kept: bool,
    window: Window,
) -> Result<(), Refusal> {
    let last = turn.state.repositories.get(&repository).map_or(Term(0), |r| r.last_term);
    let fits = if kept { term == last && term > Term(0) } else { term > last };
    if !fits {
        return Err(Refusal::StaleTerm { given: term, current: last });
    }
    let lease = lease(turn, term, window);
    let entry = turn.state.repositories.entry(repository.clone()).or_default();
    (entry.last_term, entry.lease, entry.other) = (term, Some(lease), None);
    // What they wrote is older than this one's, which is known now.
    entry.drives.clear();
    let open = entry.open;
    let (store_now, acts_until) = (window.0, lease.acts_until);
    turn.events.push(Event::LeaseTaken { repository, term, store_now, acts_until });
    // Whoever acted under the older term cannot speak any more; what it left is looked at with fresh eyes.
    match open {
        Some(id) if !kept => turn.with_cycle(id, |turn, c| {
            if !c.options.dry_run && c.phase != Phase::Parked {
                cycle::park_at_once(turn, c);
            }
            Ok(())
        }),
        _ => Ok(()),
    }
}

/// The lease under this term, or why not.
pub(crate) fn held<'a>(
    turn: &'a mut Turn<'_>,
    repository: &RepositoryId,
    term: Term,
) -> Result<&'a mut Lease, Refusal> {
    let entry = turn.state.repositories.get_mut(repository).ok_or(Refusal::NoLease)?;
    let current = entry.last_term;
    let lease = entry.lease.as_mut().ok_or(Refusal::NoLease)?;
    if lease.term == term { Ok(lease) } else { Err(Refusal::StaleTerm { given: term, current }) }
}

pub(crate) fn renew(turn: &mut Turn<'_>, repository: RepositoryId, term: Term, window: Window) -> Result<(), Refusal> {
    let new = lease(turn, term, window);
    let old = held(turn, &repository, term)?;
    // A confirmation that was overtaken by a newer one takes nothing back.
    if new.acts_until >= old.acts_until {
        *old = new;
    }
    let (store_now, acts_until) = (window.0, old.acts_until);
    turn.events.push(Event::LeaseRenewed { repository, term, store_now, acts_until });
    Ok(())
}

pub(crate) fn lose(turn: &mut Turn<'_>, repository: RepositoryId, term: Term, reason: String) -> Result<(), Refusal> {
    held(turn, &repository, term)?;
    let open = drop_lease(turn, &repository);
    turn.events.push(Event::LeaseLost { repository, term, reason });
    match open {
        Some(id) => turn.with_cycle(id, |turn, c| {
            match &c.phase {
                _ if c.options.dry_run => {}
                Phase::Parked => {}
                Phase::Stopping(_) => cycle::settle_without_lease(turn, c),
                Phase::Running | Phase::WaitingForWord => cycle::park_at_once(turn, c),
            }
            Ok(())
        }),
        None => Ok(()),
    }
}

pub(crate) fn release(turn: &mut Turn<'_>, repository: RepositoryId, term: Term) -> Result<(), Refusal> {
    held(turn, &repository, term)?;
    let at = turn.at;
    if turn.state.open_cycle(&repository).is_some_and(|cycle| cycle.acts_at(at)) {
        return Err(Refusal::LeaseInUse);
    }
    drop_lease(turn, &repository);
    turn.events.push(Event::LeaseReleased { repository, term });
    Ok(())
}

fn drop_lease(turn: &mut Turn<'_>, repository: &RepositoryId) -> Option<verger_proto::CycleId> {
    let entry = turn.state.repositories.get_mut(repository)?;
    entry.lease = None;
    entry.open
}

/// Asks for a renewal of every lease that an open cycle needs soon.
pub(crate) fn tick(turn: &mut Turn<'_>) {
    for (repository, entry) in &turn.state.repositories {
        let Some(lease) = entry.lease.filter(|_| entry.open.is_some()) else { continue };
        if turn.at.since(lease.confirmed) >= RENEW_AFTER_MILLISECONDS {
            turn.effects.push(Effect::RenewLease { repository: repository.clone(), term: lease.term });
        }
    }
}

/// Asks for "free" in the lease object, if it is ours and nothing may be under way (R4).
pub(crate) fn close(turn: &mut Turn<'_>, repository: &RepositoryId, term: Term) {
    let held = turn.state.repositories.get(repository).and_then(|entry| entry.lease);
    if held.is_some_and(|lease| lease.term == term) {
        turn.effects.push(Effect::CloseLease { repository: repository.clone(), term });
    }
}
