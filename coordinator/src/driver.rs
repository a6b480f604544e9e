//! Who drives a repository where several processes could: one at a time. Whoever is silent for too long may be replaced, and is not
//! heard any more from then on, whatever he says.
//!
//! This keeps two processes from doing the same; that deeds do not overlap is the lease's business, as between fleets: a new driver
//! takes it anew, under a new term, and waits where it must (R3, R4).

use verger_proto::{Driver, Event, LogTime, Refusal, RepositoryId};

use crate::machine::Turn;

/// Milliseconds of silence after which another may take over.
pub(crate) const SILENCE_MILLISECONDS: u64 = 15_000;
/// A sign of life is kept when it makes so much difference.
const KEPT_MILLISECONDS: u64 = 3_000;
/// Drives without a lease that are known of one repository. Who is forgotten early keeps its fleet waiting like a stranger.
const DRIVES_MAX: usize = 32;

fn until(at: LogTime) -> LogTime {
    LogTime(at.0.saturating_add(SILENCE_MILLISECONDS))
}

pub(crate) fn take(turn: &mut Turn<'_>, repository: RepositoryId, driver: Driver) -> Result<(), Refusal> {
    let at = turn.at;
    let entry = turn.state.repositories.get_mut(&repository).ok_or(Refusal::UnknownRepository)?;
    let before = match entry.driver {
        // The answer was lost, and it asks again.
        Some((present, _)) if present == driver => return Ok(()),
        Some((present, until)) if at <= until && !driver.proves_dead(&present) => {
            return Err(Refusal::DrivenByOther(present));
        }
        Some((present, _)) => Some(present),
        None => None,
    };
    entry.driver = Some((driver, until(at)));
    if entry.drives.len() >= DRIVES_MAX {
        entry.drives.remove(0);
    }
    entry.drives.push(driver);
    turn.events.push(Event::DriveTaken { repository, driver, until: until(at), before });
    Ok(())
}

pub(crate) fn leave(turn: &mut Turn<'_>, repository: RepositoryId, driver: Driver) -> Result<(), Refusal> {
    check(turn, &repository, driver)?;
    if let Some(entry) = turn.state.repositories.get_mut(&repository) {
        entry.driver = None;
    }
    turn.events.push(Event::DriveLeft { repository, driver });
    Ok(())
}

/// Whether this one drives the repository. His time may be over: as long as nobody else took it, he goes on.
pub(crate) fn check(turn: &Turn<'_>, repository: &RepositoryId, driver: Driver) -> Result<(), Refusal> {
    match turn.state.repositories.get(repository).and_then(|entry| entry.driver) {
        Some((present, _)) if present == driver => Ok(()),
        Some((present, _)) => Err(Refusal::DrivenByOther(present)),
        None => Err(Refusal::NotDriving),
    }
}

/// Its driver was heard of.
pub(crate) fn heard(turn: &mut Turn<'_>, repository: &RepositoryId) {
    let at = turn.at;
    let Some((driver, old)) = turn.state.repositories.get_mut(repository).and_then(|entry| entry.driver.as_mut())
    else {
        return;
    };
    if until(at).since(*old) >= KEPT_MILLISECONDS {
        *old = until(at);
        turn.events.push(Event::DriveRenewed { repository: repository.clone(), driver: *driver, until: until(at) });
    }
}

#[cfg(test)]
mod tests;
