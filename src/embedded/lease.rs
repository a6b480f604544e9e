//! The lock of a local disk, the lease in the store, and their renewal while a cycle runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use verger_coordinator::drive::Drive;
use verger_kopia::clock::Timestamp;
use verger_kopia::storage::StoreLock;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::Command;
use verger_proto::id::RepositoryId;
use verger_proto::term::Term;
use verger_proto::time::StoreTime;
use verger_worker::bucket_lease::{ACTS_MAX, Lease, LeaseKeeper, Request, TTL_DEFAULT};

use super::state::Known;
use super::{CycleRequest, Session};

/// A lease that nobody renews for its TTL has expired; long reading stages must not let it.
const RENEW_EVERY: Duration = Duration::from_secs(120);

/// Takes `verger.lock` on a local disk; `None` elsewhere.
///
/// # Errors
/// `Locked` if another Verger has it.
pub(super) fn lock_local(session: &Session) -> Result<Option<StoreLock>> {
    let storage = session.workspace.repository.storage();
    let Some(root) = storage.local_root().filter(|_| storage.capabilities().local_disk) else { return Ok(None) };
    match StoreLock::try_lock(root)? {
        Some(lock) => Ok(Some(lock)),
        None => Err(Error::new(ErrorKind::Locked, format!("another Verger is maintaining {} now", storage.address()))
            .with_fix("Try again when it has finished")),
    }
}

/// A held lease, known to the machine.
pub(super) struct Held {
    keeper: LeaseKeeper,
    id: RepositoryId,
    term: Term,
    _local: Option<StoreLock>,
}

impl Held {
    pub(super) fn take(
        session: &Session,
        request: &CycleRequest,
        drive: &Arc<Drive>,
        known: &Known,
        local: Option<StoreLock>,
        notice: &dyn Fn(&str, Duration),
    ) -> Result<Self> {
        let storage = session.workspace.repository.storage().clone();
        let wanted = Request {
            unique_id: known.id.unique.to_string(),
            store_id: known.id.store.to_string(),
            holder: session.identity.clone(),
            lock: known.lock_file(),
            ttl: TTL_DEFAULT,
            last_term: known.last_term.max(drive.state(|s| s.repositories.get(&known.id).map_or(0, |r| r.last_term.0))),
            local_lock: local.is_some(),
            exclusive: request.exclusive || request.alone,
            wait: request.wait,
        };
        let mut notice = |text: &str, left: Duration| notice(text, left);
        let lease = Lease::acquire(storage.clone(), session.clock.clone(), &wanted, &mut notice)?;
        let term = Term(lease.term());
        let store_now = storage.now()?;
        let acts_until = store_now + ACTS_MAX;
        let command = Command::TakeLease {
            repository: known.id.clone(),
            term,
            kept: false,
            store_now: store_time(store_now),
            acts_until: store_time(lease.body().acts_until.min(acts_until)),
        };
        drive.submit(command)?;
        let (told, id) = (drive.clone(), known.id.clone());
        let confirm = move |now: Timestamp, until: Timestamp| {
            let repository = id.clone();
            let (store_now, acts_until) = (store_time(now), store_time(until));
            told.submit(Command::RenewLease { repository, term, store_now, acts_until }).map(drop)
        };
        let keeper = LeaseKeeper::new(lease, Box::new(confirm));
        Ok(Self { keeper, id: known.id.clone(), term, _local: local })
    }

    pub(super) fn keeper(&self) -> &LeaseKeeper {
        &self.keeper
    }

    /// Runs `work` while another thread keeps the lease from expiring.
    pub(super) fn while_renewing<T>(&self, session: &Session, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let renewer = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::thread::park_timeout(RENEW_EVERY);
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let now = session.workspace.repository.storage().now();
                    if now.and_then(|now| self.keeper.cover(now)).is_err_and(|e| e.kind() == ErrorKind::Locked) {
                        session.workspace.stop.ask();
                        return;
                    }
                }
            });
            let done = work();
            over.store(true, Ordering::Relaxed);
            renewer.thread().unpark();
            done
        })
    }

    /// Writes "free": the next maintainer does not wait.
    pub(super) fn release(self, drive: &Drive) -> Result<()> {
        self.keeper.into_lease().release()?;
        drive.submit(Command::ReleaseLease { repository: self.id, term: self.term }).map(drop)
    }
}

fn store_time(at: Timestamp) -> StoreTime {
    verger_worker::task::deed::store_time(at)
}
