//! Whether a repository's store may be trusted with changes: probed when it is added, and again before a cycle when that was long ago.

use verger::embedded::examine;
use verger_coordinator::drive::Backend;
use verger_coordinator::store::check;
use verger_kopia::{Repository, Result};
use verger_proto::{Acting, Command, LogTime, RepositoryId, StoreProbe};

/// Before a cycle that may change something: what is known of the store must allow it, and be known well enough. What is not, is
/// probed and recorded.
///
/// # Errors
/// As [`examine`], and why nothing may be changed there: `Unsupported`, `Clock`.
pub(super) fn ensure(
    backend: &dyn Backend,
    id: &RepositoryId,
    repository: &Repository,
    acting: &Acting,
    (exclusive, now): (bool, LogTime),
) -> Result<()> {
    if *acting == Acting::Observe {
        return Ok(());
    }
    let mut known = None;
    backend.look(&mut |state| known = state.repositories.get(id).and_then(|entry| entry.store.clone()));
    let holds = |(probe, recorded): &(StoreProbe, LogTime)| probe.is_believed(*recorded, exclusive, now);
    if known.as_ref().is_some_and(holds) {
        return Ok(());
    }
    let probe = examine(repository, true)?;
    let checked = check(&probe, &repository.storage().address(), exclusive);
    backend.submit(Command::RecordProbe { repository: id.clone(), probe: Box::new(probe) })?;
    checked
}
