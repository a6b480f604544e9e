//! Repositories that are looked after.

use verger_proto::schedule::{Margin, Own};
use verger_proto::{Event, Refusal, Registration, RegistrationChange, RepositoryId, StoreProbe, Verification};

use crate::machine::{Repository, State, Turn, Verified};

/// Margins of one report.
const MARGINS_MAX: usize = 64;

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
    let entry = turn.state.repositories.entry(repository.clone()).or_default();
    entry.registration = Some(registration.clone());
    entry.calendar.since = turn.at;
    turn.events.push(Event::RepositoryAdded { repository, registration: Box::new(registration) });
    Ok(())
}

pub(crate) fn change(turn: &mut Turn<'_>, repository: RepositoryId, change: RegistrationChange) -> Result<(), Refusal> {
    let entry = turn.state.repositories.get_mut(&repository).ok_or(Refusal::UnknownRepository)?;
    let known = entry.registration.as_mut().ok_or(Refusal::UnknownRepository)?;
    let before = known.schedule.clone();
    match change.clone() {
        RegistrationChange::Suspended(suspended) => known.schedule.suspended = suspended,
        RegistrationChange::Acting(acting) => known.acting = acting,
        RegistrationChange::Exclusive(exclusive) => known.exclusive = exclusive,
        RegistrationChange::Password(password) => known.password = password,
        RegistrationChange::Index(index) => known.index = index,
        RegistrationChange::Schedule(schedule) => known.schedule = *schedule,
        RegistrationChange::Pool(pool) => known.pool = pool,
        RegistrationChange::Weight(weight) => known.weight = weight,
        RegistrationChange::MarkToDrop(wait) => known.mark_to_drop = wait,
    }
    if known.schedule != before && !known.schedule.suspended {
        // Slots of another schedule, or of the time while it was suspended, are not made up for.
        entry.calendar.since = turn.at;
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
    (entry.store, entry.other, entry.unable, entry.verified) = (None, None, Vec::new(), None);
    turn.events.push(Event::RepositoryRemoved { repository, name: registration.name });
    Ok(())
}

/// A repository that is looked after. Others that the machine knows are those of its past.
pub(crate) fn looked_after<'a>(state: &'a mut State, id: &RepositoryId) -> Result<&'a mut Repository, Refusal> {
    let entry = state.repositories.get_mut(id).filter(|entry| entry.registration.is_some());
    entry.ok_or(Refusal::UnknownRepository)
}

/// What a probe saw. It is an event each time: what is known is believed for a while only.
pub(crate) fn probed(turn: &mut Turn<'_>, repository: RepositoryId, probe: StoreProbe) -> Result<(), Refusal> {
    let entry = looked_after(turn.state, &repository)?;
    entry.store = Some((probe.clone(), turn.at));
    turn.events.push(Event::StoreProbed { repository, probe: Box::new(probe) });
    Ok(())
}

/// What came of verifying it, as whoever did so says.
pub(crate) fn verified(
    turn: &mut Turn<'_>,
    repository: RepositoryId,
    verification: Verification,
) -> Result<(), Refusal> {
    let entry = looked_after(turn.state, &repository)?;
    let sound_at =
        if verification.is_sound() { Some(turn.at) } else { entry.verified.and_then(|before| before.sound_at) };
    entry.verified = Some(Verified { last: verification, at: turn.at, sound_at });
    turn.events.push(Event::RepositoryVerified { repository, verification });
    Ok(())
}

/// What is known already is no event, and no record.
pub(crate) fn look(
    turn: &mut Turn<'_>,
    repository: RepositoryId,
    own: Own,
    margins: Option<Vec<Margin>>,
) -> Result<(), Refusal> {
    if let Some(have) = margins.as_ref().map(Vec::len).filter(|have| *have > MARGINS_MAX) {
        return Err(Refusal::TooManyMargins(u32::try_from(have).unwrap_or(u32::MAX)));
    }
    let entry = turn.state.repositories.get_mut(&repository).ok_or(Refusal::UnknownRepository)?;
    let calendar = &mut entry.calendar;
    let is_new = calendar.own != Some(own) || margins.as_ref().is_some_and(|margins| *margins != calendar.margins);
    if !is_new {
        return Ok(());
    }
    calendar.own = Some(own);
    if let Some(margins) = &margins {
        calendar.margins.clone_from(margins);
    }
    turn.events.push(Event::LookRecorded { repository, own, margins });
    Ok(())
}
