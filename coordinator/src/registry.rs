//! Repositories that are looked after.

use verger_proto::{Event, Refusal, Registration, RegistrationChange, RepositoryId};

use crate::machine::Turn;

/// A repository is its unique ID and its store: the same bucket under two names is one repository, a copy is another (R6).
pub(crate) fn add(turn: &mut Turn<'_>, repository: RepositoryId, registration: Registration) -> Result<(), Refusal> {
    let known = |id: &RepositoryId| turn.state.repositories.get(id).and_then(|entry| entry.registration.as_ref());
    if let Some(known) = known(&repository) {
        // Asked again because the answer was lost.
        if *known == registration {
            turn.events.push(Event::RepositoryAdded { repository, registration: Box::new(registration) });
            return Ok(());
        }
        return Err(Refusal::AlreadyAdded(known.name.clone()));
    }
    if turn.state.named(&registration.name).is_some() {
        return Err(Refusal::NameTaken(registration.name));
    }
    turn.state.repositories.entry(repository.clone()).or_default().registration = Some(registration.clone());
    turn.events.push(Event::RepositoryAdded { repository, registration: Box::new(registration) });
    Ok(())
}

pub(crate) fn change(turn: &mut Turn<'_>, repository: RepositoryId, change: RegistrationChange) -> Result<(), Refusal> {
    let entry = turn.state.repositories.get_mut(&repository).and_then(|entry| entry.registration.as_mut());
    let known = entry.ok_or(Refusal::UnknownRepository)?;
    match change.clone() {
        RegistrationChange::Suspended(suspended) => known.suspended = suspended,
        RegistrationChange::Acting(acting) => known.acting = acting,
        RegistrationChange::Exclusive(exclusive) => known.exclusive = exclusive,
        RegistrationChange::Password(password) => known.password = password,
        RegistrationChange::Index(index) => known.index = index,
    }
    turn.events.push(Event::RepositoryChanged { repository, change });
    Ok(())
}

/// Its terms and its past stay known: a repository that comes back goes on where it was (R3).
pub(crate) fn remove(turn: &mut Turn<'_>, repository: RepositoryId) -> Result<(), Refusal> {
    let entry = turn.state.repositories.get_mut(&repository).ok_or(Refusal::UnknownRepository)?;
    if let Some(open) = entry.open {
        return Err(Refusal::CycleOpen(open));
    }
    let registration = entry.registration.take().ok_or(Refusal::UnknownRepository)?;
    entry.requests.clear();
    // Whoever adds it next, maybe for another tenant, does not meet the wishes of those before.
    entry.answered.clear();
    turn.events.push(Event::RepositoryRemoved { repository, name: registration.name });
    Ok(())
}
