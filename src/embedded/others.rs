//! What the lease object says of others, for people: whoever wants the lease reads it anew.

use std::time::Duration;

use verger_coordinator::drive::Backend;
use verger_kopia::Result;
use verger_kopia::storage::Storage;
use verger_proto::lease::plain;
use verger_proto::{Command, RepositoryId, SeenLease, StoreTime, Term};
use verger_worker::bucket_lease::{self, TTL_MIN};

/// What the lease object says; `None` if there is none.
///
/// # Errors
/// As [`bucket_lease::read`].
pub fn look_at_lease(storage: &dyn Storage) -> Result<Option<SeenLease>> {
    let found = bucket_lease::read(storage)?;
    Ok(found.map(|(blob, body)| SeenLease {
        holder: plain(&body.holder),
        term: Term(body.term),
        acts_until: StoreTime::of(body.acts_until),
        expires: StoreTime::of(blob.timestamp + Duration::from_secs(body.ttl_seconds).max(TTL_MIN)),
        free: body.free,
    }))
}

/// Tells the machine of a lease that is not the fleet's own. Nothing rests on it: what cannot be read or kept is not told.
pub fn note_lease(backend: &dyn Backend, repository: &RepositoryId, storage: &dyn Storage, own: &str) {
    let lease = match look_at_lease(storage) {
        Ok(Some(lease)) if lease.holder != own => lease,
        Ok(_) => return,
        Err(error) => {
            tracing::debug!(error = error.chain(), "the lease of another was not looked at");
            return;
        }
    };
    let (repository, lease) = (repository.clone(), Box::new(lease));
    if let Err(error) = backend.submit(Command::NoteLease { repository, lease }) {
        tracing::debug!(error = error.chain(), "the lease of another was not kept");
    }
}
