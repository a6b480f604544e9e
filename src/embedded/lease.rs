//! The lock of a local disk, the lease in the store, and their renewal while a cycle runs.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use verger_kopia::mutant::{self, Mutant};

use verger_coordinator::drive::{Drive, refusal};
use verger_coordinator::machine::Cycle;
use verger_kopia::clock::Timestamp;
use verger_kopia::storage::lock::LockIdentity;
use verger_kopia::storage::{BlobId, Storage, StoreLock, Versioning};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::id::RepositoryId;
use verger_proto::term::Term;
use verger_proto::{Command, Effect, StoreTime};
use verger_worker::bucket_lease::{ACTS_MAX, LEASE, Lease, LeaseKeeper, LockFile, Request, TTL_DEFAULT};

use super::beside::beside;
use super::others::note_lease;
use super::state::Known;
use super::{CycleRequest, Session};

/// A lease that nobody renews for its TTL has expired; long reading stages must not let it.
const RENEW_EVERY: Duration = Duration::from_secs(120);

/// The lock of this state directory's ledger, by which a later process proves that this one is dead (R4). `None` where files have
/// no identity that can be relied on: then the lease just has to expire.
pub(super) fn lock_own(ledger: &Path) -> Option<(StoreLock, LockFile)> {
    let lock = StoreLock::try_lock(ledger).ok()??;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let LockIdentity { id, device, inode } = lock.identity().clone();
    Some((lock, LockFile { id, device, inode, host, boot }))
}

/// A held lease, known to the machine.
pub(super) struct Held {
    keeper: LeaseKeeper,
    id: RepositoryId,
    term: Term,
    /// Requests end with the call that made them: a local disk has no network in between.
    local: bool,
    /// The cycle was begun: before that there were no batches.
    began: AtomicBool,
    _own: Option<(StoreLock, LockFile)>,
}

impl Held {
    /// `None`: while the lease was waited for, somebody said that the store is another one than was known, and had not said it before.
    pub(super) fn take(
        session: &Session,
        request: &CycleRequest,
        drive: &Arc<Drive>,
        known: &Known,
        local: Option<StoreLock>,
        own: Option<(StoreLock, LockFile)>,
        notice: &dyn Fn(&str, Duration),
    ) -> Result<Option<Self>> {
        let storage = session.workspace.repository.storage().clone();
        // Who lost the drive while it opened the repository would take the lease from whoever has it now.
        if session.fleet.is_some() {
            drive.submit(Command::Tick)?;
            session.workspace.stop.check()?;
        }
        let wanted = wanted(session, request, drive, known, (local.is_some(), own.as_ref()));
        let mut notice = |text: &str, left: Duration| notice(text, left);
        let stop = &session.workspace.stop;
        let is_sure = storage.capabilities().conditional_writes || local.is_some();
        let lease = Lease::acquire_unless(stop, storage.clone(), session.clock.clone(), &wanted, &mut notice)
            .inspect_err(|error| {
                if error.kind() == ErrorKind::Locked
                    && let Some(backend) = session.fleet.as_ref()
                {
                    note_lease(&**backend, &known.id, &*storage, &session.holder);
                }
            })?;
        if lease.body().store_id != known.id.store.as_str() {
            give_back(is_sure, || lease.release());
            return Ok(None);
        }
        let term = Term(lease.term());
        let acts_until = lease.body().acts_until;
        let (told, id) = (drive.clone(), known.id.clone());
        let confirm = move |now: Timestamp, until: Timestamp| {
            let repository = id.clone();
            let (store_now, acts_until) = (StoreTime::of(now), StoreTime::of(until));
            told.submit(Command::RenewLease { repository, term, store_now, acts_until }).map(drop)
        };
        let is_local = local.is_some();
        let keeper = LeaseKeeper::new(lease, Box::new(confirm)).under(local);
        let held =
            Self { keeper, id: known.id.clone(), term, local: is_local, began: AtomicBool::new(false), _own: own };
        match held.tell(&*storage, drive, acts_until) {
            Ok(()) => Ok(Some(held)),
            Err(error) => {
                give_back(is_sure, || held.keeper.release());
                Err(error)
            }
        }
    }

    /// Tells the machine that the lease was taken.
    fn tell(&self, storage: &dyn Storage, drive: &Drive, acts_until: Timestamp) -> Result<()> {
        let store_now = storage.now()?;
        let acts_until = StoreTime::of(acts_until.min(store_now + ACTS_MAX));
        let (repository, store_now) = (self.id.clone(), StoreTime::of(store_now));
        let events =
            drive.submit(Command::TakeLease { repository, term: self.term, kept: false, store_now, acts_until })?;
        match refusal(&events) {
            None => Ok(()),
            Some(reason) => Err(Error::new(ErrorKind::Internal, "begin a term").with_source(reason)),
        }
    }

    pub(super) fn term(&self) -> u64 {
        self.term.0
    }

    pub(super) fn keeper(&self) -> &LeaseKeeper {
        &self.keeper
    }

    /// Runs `work` while another thread keeps the lease from expiring. A lease that is lost stops the work, and is the error then.
    pub(super) fn while_renewing<T>(
        &self,
        session: &Session,
        drive: &Drive,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.began.store(true, Ordering::Relaxed);
        let lost: Mutex<Option<Error>> = Mutex::default();
        let renew = || {
            let Err(error) = self.renew(session) else { return ControlFlow::Continue(()) };
            if error.kind() != ErrorKind::Locked {
                return ControlFlow::Continue(());
            }
            let (repository, reason) = (self.id.clone(), error.chain());
            let _ = drive.submit(Command::LoseLease { repository, term: self.term, reason });
            lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            session.workspace.stop.ask();
            ControlFlow::Break(())
        };
        let done = beside(RENEW_EVERY, renew, work);
        match lost.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => done,
        }
    }

    fn renew(&self, session: &Session) -> Result<()> {
        let now = session.workspace.repository.storage().now()?;
        self.keeper.cover(now)
    }

    /// Writes "free", so that the next maintainer does not wait; unless the end of a request is not known: then it may still be
    /// under way, and the next one has to wait it out (R4).
    pub(super) fn release(self, storage: &dyn Storage, drive: &Drive) -> Result<()> {
        let is_quiet = mutant::on(Mutant::R4FreedTooEarly) || is_quiet(drive, &self.id);
        if !self.local && self.began.load(Ordering::Relaxed) && !is_quiet {
            return Ok(());
        }
        self.keeper.release()?;
        // Each renewal left a version behind where versions are kept; ours may go (R24). Without the right to, they stay.
        if !self.local && storage.versioning().is_ok_and(|versioning| versioning != Versioning::NONE) {
            let _ = storage.purge_versions(&BlobId::from(LEASE));
        }
        drive.submit(Command::ReleaseLease { repository: self.id, term: self.term }).map(drop)
    }
}

/// Nothing was done under it: the next one need not wait. Where writes have no conditions, it may be written over another one's that is
/// at work: then it runs out.
fn give_back(is_sure: bool, release: impl FnOnce() -> Result<()>) {
    if is_sure && let Err(error) = release() {
        tracing::debug!(error = error.chain(), "a lease that was not used runs out");
    }
}

/// The lease that is wanted, by what this process and its fleet's machine know.
fn wanted(
    session: &Session,
    request: &CycleRequest,
    drive: &Drive,
    known: &Known,
    (local_lock, own): (bool, Option<&(StoreLock, LockFile)>),
) -> Request {
    let found = drive.state(|state| {
        let entry = state.repositories.get(&known.id)?;
        let own = entry.driver.map(|(driver, _)| driver.to_string());
        Some((entry.last_term.0, own, entry.drives.iter().map(ToString::to_string).collect()))
    });
    let (granted, own_drive, drives) = found.unwrap_or_default();
    Request {
        unique_id: known.id.unique.to_string(),
        store_id: known.id.store.to_string(),
        holder: session.holder.clone(),
        lock: own.map(|(_, file)| file.clone()),
        ttl: TTL_DEFAULT,
        last_term: known.last_term.max(granted),
        // What memory of a disk says was granted to nobody that the machine could fence.
        fenced: session.fleet.is_some().then_some(granted),
        drive: own_drive,
        drives,
        local_lock,
        exclusive: request.exclusive || request.alone,
        wait: request.wait,
    }
}

/// Whether no batch's end is unknown: the machine asks for "free" when a cycle ends so, and an open cycle tells itself.
fn is_quiet(drive: &Drive, id: &RepositoryId) -> bool {
    let outstanding = drive.state(|state| state.open_cycle(id).map(Cycle::has_outstanding));
    match outstanding {
        Some(outstanding) => !outstanding,
        None => std::iter::from_fn(|| drive.next_lease_order()).any(|order| matches!(order, Effect::CloseLease { .. })),
    }
}
