//! Cycles that somebody wants: remembered by value until they are opened, and what became of them.

use verger_proto::{Acting, CycleId, CycleOptions, CycleRequest, Event, Failure, Refusal, RepositoryId, Safety};

use crate::machine::{Answer, Repository, Turn};
use crate::registry;

/// Wishes of one repository that wait.
const WAITING_MAX: usize = 16;
/// Wishes whose answer is remembered.
const ANSWERED_MAX: usize = 64;
/// Cycles whose end is remembered here; the ledger has all.
pub(crate) const PAST_MAX: usize = 32;
/// Bytes of reports that a repository keeps, and the newest in any case: a repository must fit a record of a snapshot. All of them
/// are in the ledger.
const REPORTS_BYTES_MAX: usize = 1 << 20;

pub(crate) fn ask(
    turn: &mut Turn<'_>,
    repository: RepositoryId,
    key: String,
    options: CycleOptions,
) -> Result<(), Refusal> {
    if let Some(percent) = options.allow_removing.filter(|percent| *percent > 100) {
        return Err(Refusal::Percentage(percent));
    }
    if options.safety == Safety::None && !options.alone {
        return Err(Refusal::NotAlone);
    }
    let entry = registry::looked_after(turn.state, &repository)?;
    check_allowed(Some(entry), options)?;
    let known = entry.requests.iter().any(|request| request.key == key);
    let answered = entry.answered.iter().any(|(answered, _)| *answered == key);
    if !known && !answered {
        if entry.requests.len() >= WAITING_MAX {
            return Err(Refusal::TooManyRequests(WAITING_MAX as u32));
        }
        entry.requests.push(CycleRequest { key: key.clone(), options, asked: turn.at });
    }
    turn.events.push(Event::CycleRequested { repository, key, options });
    Ok(())
}

/// Whether what was said when the repository was added allows such a cycle.
pub(crate) fn check_allowed(entry: Option<&Repository>, options: CycleOptions) -> Result<(), Refusal> {
    let Some(registration) = entry.and_then(|entry| entry.registration.as_ref()) else { return Ok(()) };
    if options.dry_run {
        return Ok(());
    }
    if registration.acting == Acting::Observe {
        return Err(Refusal::OnlyObserved);
    }
    if options.safety == Safety::None && !registration.exclusive {
        return Err(Refusal::NotExclusive);
    }
    Ok(())
}

pub(crate) fn give_up(
    turn: &mut Turn<'_>,
    repository: RepositoryId,
    key: String,
    failure: Failure,
) -> Result<(), Refusal> {
    let entry = turn.state.repositories.get_mut(&repository).ok_or(Refusal::UnknownRepository)?;
    let before = entry.requests.len();
    entry.requests.retain(|request| request.key != key);
    if entry.requests.len() == before {
        return Err(Refusal::UnknownRequest);
    }
    remember(&mut entry.answered, key.clone(), Answer::Dropped(failure.clone()));
    turn.events.push(Event::RequestDropped { repository, key, failure });
    Ok(())
}

/// A cycle began, or was joined: it is what all wishes for the same waited for. Says whether there were any.
pub(crate) fn fulfil(turn: &mut Turn<'_>, repository: &RepositoryId, options: CycleOptions, cycle: CycleId) -> bool {
    let Some(entry) = turn.state.repositories.get_mut(repository) else { return false };
    let (same, others) = std::mem::take(&mut entry.requests).into_iter().partition(|one| one.options == options);
    entry.requests = others;
    let same: Vec<CycleRequest> = same;
    let any = !same.is_empty();
    for request in same {
        remember(&mut entry.answered, request.key, Answer::Cycle(cycle));
    }
    any
}

pub(crate) fn report(
    turn: &mut Turn<'_>,
    repository: RepositoryId,
    cycle: CycleId,
    report: String,
) -> Result<(), Refusal> {
    let entry = turn.state.repositories.get_mut(&repository).ok_or(Refusal::UnknownRepository)?;
    let past = entry.past.iter_mut().find(|past| past.id == cycle).ok_or(Refusal::UnknownCycle)?;
    past.report = Some(report.clone());
    let mut bytes = 0usize;
    for past in entry.past.iter_mut().rev() {
        bytes = bytes.saturating_add(past.report.as_ref().map_or(0, String::len));
        if bytes > REPORTS_BYTES_MAX && past.id != cycle {
            past.report = None;
        }
    }
    turn.events.push(Event::CycleReported { repository, cycle, report });
    Ok(())
}

fn remember(answered: &mut Vec<(String, Answer)>, key: String, answer: Answer) {
    answered.push((key, answer));
    if answered.len() > ANSWERED_MAX {
        answered.remove(0);
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
