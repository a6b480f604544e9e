//! What the API needs done to a repository: opened, and looked at.

use std::time::Duration;

use verger::embedded::{examine, identify, identify_for_all, look_at_lease, own_settings};
use verger_coordinator::api::{Hands, Probed, Wanted};
use verger_kopia::storage::Access;
use verger_kopia::{Repository, Result};
use verger_proto::{Acting, IndexKind, Registration, RepositoryId, StoreProbe, Term};
use verger_worker::bucket_lease::{self, Lease, Request, TTL_DEFAULT};
use verger_worker::task::survey::look_ahead;
use verger_worker::workspace::Workspace;

use super::opener::Opener;

impl Hands for Opener {
    fn probe(&self, wanted: &Wanted) -> Result<Probed> {
        let access = if wanted.acting == Acting::Observe { Access::ReadOnly } else { Access::ReadWrite };
        let repository = self.open(&wanted.name, &wanted.address, &wanted.password, access)?;
        let epochs = repository.config().epoch.enabled;
        let params = look_ahead(&Workspace::new(repository.clone()), None)?.params;
        let seen = examine(&repository, wanted.acting != Acting::Observe)?;
        let (state_dir, known) = (&self.engine.state_dir, wanted.known.as_ref());
        let identity = if wanted.acting != Acting::Observe && is_to_be_named(&seen, wanted) {
            identify_for_all(state_dir, &repository, known)?
        } else {
            identify(state_dir, &repository, known)?
        };
        Ok(Probed {
            repository: identity,
            lease: look_at_lease(&**repository.storage())?,
            index: if epochs { IndexKind::Epochs } else { IndexKind::Legacy },
            own: Some(own_settings(&params)),
            owner: params.owner,
            store: seen,
        })
    }

    fn under_way(&self, known: &Registration, holder: &str, term: Term) -> Result<Duration> {
        let repository = self.open_to_write(known)?;
        bucket_lease::under_way(&**repository.storage(), holder, term.0)
    }

    fn free_lease(&self, known: &Registration, holder: &str, term: Term, next: Option<&str>) -> Result<()> {
        let repository = self.open_to_write(known)?;
        let storage = repository.storage();
        let _lock = bucket_lease::lock_local(&**storage)?;
        bucket_lease::free(&**storage, holder, term.0, next)
    }

    fn hand_over_lease(&self, known: &Registration, id: &RepositoryId, holder: &str, next: &str) -> Result<()> {
        let repository = self.open_to_write(known)?;
        let storage = repository.storage();
        let lock = bucket_lease::lock_local(&**storage)?;
        let wanted = Request {
            unique_id: id.unique.to_string(),
            store_id: id.store.to_string(),
            holder: holder.to_owned(),
            lock: None,
            ttl: TTL_DEFAULT,
            // What the object says is enough: nothing is done under this term.
            last_term: 0,
            fenced: None,
            drive: None,
            drives: Vec::new(),
            local_lock: lock.is_some(),
            exclusive: known.exclusive,
            wait: false,
        };
        let lease = Lease::acquire(storage.clone(), repository.clock().clone(), &wanted, &mut |_, _| {})?;
        bucket_lease::hand_over(lease, next)
    }
}

/// Whether the store says which one it is before a lease does: where it may be written to, and what somebody else wrote is never written
/// over.
fn is_to_be_named(seen: &StoreProbe, wanted: &Wanted) -> bool {
    let looks = seen.local_disk || seen.seen.as_ref().is_some_and(|seen| seen.conditional_writes);
    looks && verger_coordinator::store::check(seen, &wanted.address, wanted.exclusive).is_ok()
}

impl Opener {
    fn open_to_write(&self, known: &Registration) -> Result<Repository> {
        self.open(&known.name, &known.address, &known.password, Access::ReadWrite)
    }
}
