//! The lease object `verger.lease` in the store (R3-R6): one maintainer at a time among all that share nothing but the store.
//!
//! A store cannot refuse writes to other keys, so overlap is excluded by waiting: the holder writes until when it acts,
//! and who comes next waits that out, unless the lease was released.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use verger_kopia::mutant::{self, Mutant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verger_kopia::clock::{Clock, Timestamp};
use verger_kopia::storage::{BlobId, BlobMetadata, Condition, ETag, PutOptions, Storage, StoreLock};
use verger_kopia::{Error, ErrorKind, Result};

use crate::progress::Stop;

pub use hand_over::{free, hand_over, under_way};
pub use name::name_store;

mod hand_over;
mod name;

/// Name of the object.
pub const LEASE: &str = "verger.lease";
/// Default time after which a lease that is not renewed has expired.
pub const TTL_DEFAULT: Duration = Duration::from_secs(600);
/// Least time to live, and the wait after taking over from a holder that is proven dead.
pub const TTL_MIN: Duration = Duration::from_secs(180);
/// A holder never announces to act longer than this ahead.
pub const ACTS_MAX: Duration = Duration::from_secs(120);
/// Longest that a request goes on after the deadline that it was sent within.
const UNDER_WAY_MAX: Duration = Duration::from_secs(60);

/// The lock file of a holder's state directory: a free lock proves a holder dead only if the lease names this very file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockFile {
    /// Random ID inside the file.
    pub id: String,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Host.
    pub host: String,
    /// Boot ID of the host.
    pub boot: String,
}

/// The object's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseBody {
    /// Version of this shape: 1.
    pub version: u32,
    /// Kopia's unique ID, hex.
    pub unique_id: String,
    /// Random ID of the store, minted by the first that saw no lease for its address. It stays as long as the address does.
    pub store_id: String,
    /// Address that it was written for.
    pub address: String,
    /// Who holds it: a fleet's identity or `user@host`; nobody if it was never held.
    pub holder: String,
    /// The holder's lock file.
    pub lock: Option<LockFile>,
    /// Fencing number: only grows.
    pub term: u64,
    /// The holder has no request under way and none will come.
    pub free: bool,
    /// Until when the holder may act, by the store's clock.
    pub acts_until: Timestamp,
    /// Seconds after which it has expired unless written again.
    pub ttl_seconds: u64,
    /// Random, for each time it is taken: tells one's own write from another's after an answer that did not come. Before it, with a
    /// `/`, the drive that took it, where there is one.
    #[serde(default)]
    pub writer: String,
    /// Free for this holder alone, until the time to live is over: it was handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl LeaseBody {
    /// Whether it was written for this repository at this address: any other may be a copy (R6).
    #[must_use]
    pub fn is_of(&self, unique_id: &str, address: &str) -> bool {
        self.unique_id == unique_id && self.address == address
    }
}

/// Who wants the lease, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// Kopia's unique ID, hex.
    pub unique_id: String,
    /// ID of the store, unless the lease object that is there was written for this address: then it is as that one says.
    pub store_id: String,
    /// Identity for people.
    pub holder: String,
    /// Our own lock file, held by this process.
    pub lock: Option<LockFile>,
    /// Time to live; never below [`TTL_MIN`].
    pub ttl: Duration,
    /// Last term known here, 0 if none: a remembered lease that is gone is waited for.
    pub last_term: u64,
    /// The term that our own machine granted last, if it hears nobody any more who acted under it: the caller has the drive of the
    /// repository now.
    pub fenced: Option<u64>,
    /// The drive under which it is wanted, for those after it: the object is written before the machine hears of it.
    pub drive: Option<String>,
    /// Drives that the repository had since that term was granted, as our machine knows them. None of them speaks any more but this one.
    pub drives: Vec<String>,
    /// The process holds `verger.lock` of a local disk: nobody else acts.
    pub local_lock: bool,
    /// No other maintainer exists, by a person's word: conditional writes are not needed.
    pub exclusive: bool,
    /// Wait for a foreign lease to end instead of failing.
    pub wait: bool,
}

/// A held lease.
pub struct Lease {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    body: LeaseBody,
    etag: Option<ETag>,
    conditional: bool,
    /// Nothing may be approved before this, by the clock since boot.
    approves_from: Duration,
}

impl Lease {
    /// Takes the lease. `notice` is told what is being waited for and how long.
    ///
    /// # Errors
    /// `Locked` if somebody holds it and `wait` is not set; `Unsupported` without conditional writes and `exclusive`;
    /// `Damaged` if the object cannot be read as a lease; storage errors.
    pub fn acquire(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        request: &Request,
        notice: &mut dyn FnMut(&str, Duration),
    ) -> Result<Self> {
        Self::acquire_unless(&Stop::default(), storage, clock, request, notice)
    }

    /// As [`Lease::acquire`], until somebody asks to stop.
    ///
    /// # Errors
    /// As [`Lease::acquire`]; `Interrupted`.
    pub fn acquire_unless(
        stop: &Stop,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        request: &Request,
        notice: &mut dyn FnMut(&str, Duration),
    ) -> Result<Self> {
        let conditional = storage.capabilities().conditional_writes;
        if !conditional && !request.exclusive && !request.local_lock && !mutant::on(Mutant::R23UnconditionalLease) {
            return Err(Error::unsupported(format!(
                "{} has no conditional writes, so two maintainers cannot exclude each other",
                storage.address()
            ))
            .with_fix("If no one else maintains this repository, say so with --exclusive"));
        }
        let mut watched: Option<(ETag, Duration)> = None;
        loop {
            let found = read(&*storage)?;
            let standing = judge(&*storage, &*clock, request, found.as_ref(), &mut watched)?;
            match standing {
                Standing::Open(wait) => match take(&storage, &clock, request, found, conditional, wait) {
                    Err(e) if e.kind() == ErrorKind::PreconditionFailed => {}
                    taken => {
                        if !wait.is_zero() {
                            notice("the last holder did not release the lease; its requests are waited out", wait);
                        }
                        return taken;
                    }
                },
                Standing::Held { holder, left } => {
                    if !request.wait {
                        return Err(Error::new(
                            ErrorKind::Locked,
                            format!(
                                "{holder} holds the lease of {} for up to {} s more",
                                storage.address(),
                                left.as_secs()
                            ),
                        )
                        .with_fix("Use --wait to wait for it"));
                    }
                    let pause = left.as_secs().clamp(1, 15);
                    notice(&format!("waiting for the lease that {holder} holds"), left);
                    for _ in 0..pause {
                        stop.check()?;
                        clock.sleep(Duration::from_secs(1));
                    }
                }
            }
        }
    }

    /// The fencing number.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.body.term
    }

    /// The body as last written.
    #[must_use]
    pub fn body(&self) -> &LeaseBody {
        &self.body
    }

    /// How long nothing may be approved yet.
    #[must_use]
    pub fn approvals_wait(&self) -> Duration {
        self.approves_from.saturating_sub(self.clock.since_boot())
    }

    /// Announces to act until [`ACTS_MAX`] after `store_now`, unless what was announced still covers half of that. Returns whether
    /// it was written.
    ///
    /// # Errors
    /// `Locked` if the lease is not ours any more; storage errors (then nothing may be approved).
    pub fn cover(&mut self, store_now: Timestamp) -> Result<bool> {
        if self.body.acts_until >= store_now + ACTS_MAX / 2 {
            return Ok(false);
        }
        let mut body = self.body.clone();
        body.acts_until = store_now + ACTS_MAX;
        body.free = false;
        self.write(body)?;
        Ok(true)
    }

    /// Writes "free": no request is under way and none will come. The object stays, so that terms last. While the requests of the
    /// holder before are not waited out nothing is written: "free" would speak for them, too.
    ///
    /// # Errors
    /// `Locked` if it is not ours any more; storage errors.
    pub fn release(mut self) -> Result<()> {
        if !self.approvals_wait().is_zero() && !mutant::on(Mutant::R4FreedInTheWait) {
            return Ok(());
        }
        let mut body = self.body.clone();
        body.free = true;
        self.write(body)
    }

    fn write(&mut self, body: LeaseBody) -> Result<()> {
        let condition = match (&self.etag, self.conditional) {
            (Some(etag), true) => Condition::IfMatch(etag.clone()),
            _ => {
                self.check_ours()?;
                Condition::Always
            }
        };
        let etag = put_or_look(&*self.storage, &body, condition).map_err(|e| match e.kind() {
            ErrorKind::PreconditionFailed => lost(e),
            _ => e.at("renew the lease"),
        })?;
        self.etag = etag;
        self.body = body;
        Ok(())
    }

    /// Without conditions the bytes must be those that we left: nothing of somebody else's is written over.
    fn check_ours(&self) -> Result<()> {
        match read(&*self.storage)? {
            Some((_, body)) if body == self.body => Ok(()),
            _ => Err(lost(Error::new(ErrorKind::Locked, "it is not as we left it"))),
        }
    }
}

fn lost(error: Error) -> Error {
    error.into_kind(ErrorKind::Locked).at("renew the lease: another maintainer took it over")
}

/// Tells whoever leads that the store confirmed a renewal: (the store's time, acts until).
pub type Confirm = Box<dyn Fn(Timestamp, Timestamp) -> Result<()> + Send + Sync>;

/// A held lease, shared by the deeds of a process; approvals need the last confirmed renewal (R5).
pub struct LeaseKeeper {
    lease: Mutex<Lease>,
    confirm: Confirm,
    local: Option<StoreLock>,
}

impl LeaseKeeper {
    /// Keeps `lease` and tells of each renewal.
    #[must_use]
    pub fn new(lease: Lease, confirm: Confirm) -> Self {
        Self { lease: Mutex::new(lease), confirm, local: None }
    }

    /// The same under `verger.lock` of a local disk, which is held as long as the lease.
    #[must_use]
    pub fn under(self, local: Option<StoreLock>) -> Self {
        Self { local, ..self }
    }

    /// As [`Lease::cover`]; a renewal is confirmed to whoever leads before this returns.
    ///
    /// # Errors
    /// As [`Lease::cover`]; what the confirmation says; `Locked` if `verger.lock` was replaced: a lock on a file that nobody finds
    /// by its name any more excludes nobody (R4).
    pub fn cover(&self, store_now: Timestamp) -> Result<()> {
        if mutant::on(Mutant::R5LeaseNotKept) {
            return Ok(());
        }
        let is_swapped = self.local.as_ref().is_some_and(|lock| !lock.is_current());
        if is_swapped && !mutant::on(Mutant::R4SwappedLockCounts) {
            let step = "verger.lock was replaced under this process: another maintainer may be at work";
            return Err(Error::new(ErrorKind::Locked, step).with_fix("Leave that file alone; run again"));
        }
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        if lease.cover(store_now)? {
            (self.confirm)(store_now, lease.body.acts_until)?;
        }
        Ok(())
    }

    /// As [`Lease::approvals_wait`].
    #[must_use]
    pub fn approvals_wait(&self) -> Duration {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).approvals_wait()
    }

    /// Until when the lease lets us act, by the store's clock.
    #[must_use]
    pub fn acts_until(&self) -> Timestamp {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).body.acts_until
    }

    /// After taking over from a holder that is proven dead, nothing is approved until its last requests have ended (R4).
    ///
    /// # Errors
    /// `Interrupted`.
    pub fn wait_for_takeover(&self, clock: &dyn Clock, stop: &Stop) -> Result<()> {
        loop {
            stop.check()?;
            let wait = self.approvals_wait();
            if wait.is_zero() {
                return Ok(());
            }
            clock.sleep(wait.min(Duration::from_secs(1)));
        }
    }

    /// As [`Lease::release`]; `verger.lock` is given back after it.
    ///
    /// # Errors
    /// As [`Lease::release`].
    pub fn release(self) -> Result<()> {
        self.lease.into_inner().unwrap_or_else(PoisonError::into_inner).release()
    }
}

/// Takes `verger.lock` on a local disk, which is the whole truth there (R4); `None` elsewhere.
///
/// # Errors
/// `Locked` if another Verger has it; whatever the file system says.
pub fn lock_local(storage: &dyn Storage) -> Result<Option<StoreLock>> {
    let Some(root) = storage.local_root().filter(|_| storage.capabilities().local_disk) else { return Ok(None) };
    match StoreLock::try_lock(root)? {
        Some(lock) => Ok(Some(lock)),
        None => Err(Error::new(ErrorKind::Locked, format!("another Verger is maintaining {} now", storage.address()))
            .with_fix("Try again when it has finished")),
    }
}

/// What a lease object says to somebody who wants it.
enum Standing {
    /// It may be taken; nothing may be approved for this long.
    Open(Duration),
    /// Somebody holds it for up to this long.
    Held { holder: String, left: Duration },
}

fn judge(
    storage: &dyn Storage,
    clock: &dyn Clock,
    request: &Request,
    found: Option<&(BlobMetadata, LeaseBody)>,
    watched: &mut Option<(ETag, Duration)>,
) -> Result<Standing> {
    let Some((blob, body)) = found else {
        // A lease that is remembered and gone may have been removed under its holder (R6).
        let is_remembered = request.last_term > 0 && !mutant::on(Mutant::R6MissingLeaseIsFree);
        let wait = if is_remembered && !request.local_lock { TTL_MIN } else { Duration::ZERO };
        return Ok(Standing::Open(wait));
    };
    if body.unique_id != request.unique_id && !mutant::on(Mutant::R6LeaseOfAnother) {
        return Err(Error::new(
            ErrorKind::Locked,
            format!("the lease object in {} belongs to another repository ({})", storage.address(), body.unique_id),
        )
        .with_fix(format!("If another repository was removed from here, delete the object {LEASE}")));
    }
    let ttl = Duration::from_secs(body.ttl_seconds).max(TTL_MIN);
    let store_now = storage.now()?;
    let age = Duration::try_from(store_now.duration_since(blob.timestamp)).unwrap_or_default();
    if let Some(next) = body.next.as_ref().filter(|next| body.free && **next != request.holder)
        && age <= ttl
    {
        let holder = format!("{next}, to whom it was handed over,");
        return Ok(Standing::Held { holder, left: ttl.saturating_sub(age) });
    }
    // On a local disk the lock is the whole truth: free means that nobody acts.
    if request.local_lock || mutant::on(Mutant::R4HeldLeaseTaken) {
        return Ok(Standing::Open(Duration::ZERO));
    }
    if body.free {
        // The one that is remembered is gone, whoever made this one since: "free" does not speak for its holder (R6).
        let is_earlier = body.term < request.last_term && !mutant::on(Mutant::R6EarlierLeaseIsFree);
        return Ok(Standing::Open(if is_earlier { TTL_MIN } else { Duration::ZERO }));
    }
    if age > ttl {
        return Ok(Standing::Open(Duration::ZERO));
    }
    if request.lock.is_some() && body.lock == request.lock {
        // Our own holder, proven dead by the lock that we hold now; its last requests may still be under way.
        let is_waited_out = !mutant::on(Mutant::R4DeadHolderNotWaitedOut);
        return Ok(Standing::Open(if is_waited_out { TTL_MIN } else { Duration::ZERO }));
    }
    if let Some(wait) = fenced(body, request, &storage.address(), store_now) {
        return Ok(Standing::Open(wait));
    }
    let now = clock.since_boot();
    let identity = blob.etag.clone().unwrap_or_else(|| ETag(blob.timestamp.to_string()));
    match watched {
        Some((seen, since)) if *seen == identity => {
            if now.saturating_sub(*since) > ttl {
                return Ok(Standing::Open(Duration::ZERO));
            }
        }
        _ => *watched = Some((identity, now)),
    }
    Ok(Standing::Held { holder: body.holder.clone(), left: ttl.saturating_sub(age) })
}

/// How long the requests of a holder have to be waited out whom our own machine granted this lease and does not hear any more. It may
/// live: nothing is approved for it from now on, and what was approved ends with what it announced, as our write of the object lets
/// it announce nothing more. Only for the very lease that the machine granted, or one that a drive of its own wrote and did not come to
/// tell it of: another fleet may have our name, and a copy our words.
fn fenced(body: &LeaseBody, request: &Request, address: &str, store_now: Timestamp) -> Option<Duration> {
    let granted = request.fenced?;
    let is_granted = granted > 0 && (body.term == granted || mutant::on(Mutant::R4FencedTermNotCompared));
    let is_known = is_granted || is_untold(body, granted, request);
    let same_place = body.address == address && body.store_id == request.store_id;
    let announced = Duration::try_from(body.acts_until.duration_since(store_now)).unwrap_or_default();
    // Ahead of any that we would write: the store's clock was set back, or it is not one of ours.
    let is_announced_by_us = announced <= TTL_MIN;
    if !(is_known && same_place && is_announced_by_us && body.holder == request.holder) {
        return None;
    }
    let is_waited_out = !mutant::on(Mutant::R4FencedNotWaitedOut);
    Some(if is_waited_out { TTL_MIN.max(announced + UNDER_WAY_MAX) } else { Duration::ZERO })
}

/// Whether a drive of our own machine wrote it, which heard nothing of it, as far as we see: whoever wrote it died, or stands still, before
/// it could say so. That nothing was approved under such a term is likely and not certain (our view may be older, a cluster be made anew,
/// a copy of the folder be at work): it is our conditional write and the whole wait that make it safe.
fn is_untold(body: &LeaseBody, granted: u64, request: &Request) -> bool {
    let drive = body.writer.split_once('/').map(|(drive, _)| drive);
    let is_ours = drive.is_some_and(|drive| request.drives.iter().any(|one| one == drive));
    body.term > granted && (is_ours || mutant::on(Mutant::R4UntoldOfAnybody))
}

fn writer(drive: Option<&str>) -> String {
    let random = format!("{:032x}", rand::random::<u128>());
    drive.map_or(random.clone(), |drive| format!("{drive}/{random}"))
}

fn take(
    storage: &Arc<dyn Storage>,
    clock: &Arc<dyn Clock>,
    request: &Request,
    found: Option<(BlobMetadata, LeaseBody)>,
    conditional: bool,
    wait: Duration,
) -> Result<Lease> {
    let address = storage.address();
    let before = found.as_ref().map(|(_, body)| body).filter(|_| !mutant::on(Mutant::R3TermOfMemoryAlone));
    let last_term = if mutant::on(Mutant::R3TermOfObjectAlone) { 0 } else { request.last_term };
    let last = before.map_or(0, |body| body.term).max(last_term);
    let term = last.checked_add(1).ok_or_else(|| {
        Error::damaged(format!("take the lease in {address}: its term {last} is the last number there is"))
            .with_fix(format!("Nobody counts so far: make sure that no other maintainer runs, then delete {LEASE}"))
    })?;
    // What fleets were told that it is, it stays: only of another address, nothing is believed (R6).
    let told = found.as_ref().map(|(_, body)| body).filter(|body| body.is_of(&request.unique_id, &address));
    let store_id = told.map_or(&request.store_id, |body| &body.store_id).clone();
    let body = LeaseBody {
        version: 1,
        unique_id: request.unique_id.clone(),
        store_id,
        address,
        holder: request.holder.clone(),
        lock: request.lock.clone(),
        term,
        free: false,
        acts_until: storage.now()? + ACTS_MAX,
        ttl_seconds: request.ttl.max(TTL_MIN).as_secs(),
        writer: writer(request.drive.as_deref()),
        next: None,
    };
    let condition = match (conditional, found) {
        (false, _) => Condition::Always,
        (true, None) => Condition::IfAbsent,
        (true, Some((blob, _))) => match blob.etag {
            Some(etag) => Condition::IfMatch(etag),
            None => return Err(Error::unsupported("take the lease: the store gives no ETags")),
        },
    };
    let etag = put_or_look(&**storage, &body, condition)?;
    let approves_from = clock.since_boot() + wait;
    Ok(Lease { storage: storage.clone(), clock: clock.clone(), body, etag, conditional, approves_from })
}

/// Reads the lease object; `None` if there is none.
///
/// # Errors
/// `Damaged` if it is there but not a lease; storage errors.
pub fn read(storage: &dyn Storage) -> Result<Option<(BlobMetadata, LeaseBody)>> {
    let (data, blob) = match storage.get_with_metadata(&BlobId::from(LEASE)) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let body = serde_json::from_slice(&data).map_err(|e| {
        Error::damaged(format!("read the lease object {LEASE} in {}", storage.address()))
            .with_source(e)
            .with_fix("Make sure that no other maintainer runs, then delete that object")
    })?;
    Ok(Some((blob, body)))
}

/// Writes, and where the answer does not tell whether it happened, looks: a retry below us is refused by what we wrote ourselves.
fn put_or_look(storage: &dyn Storage, body: &LeaseBody, condition: Condition) -> Result<Option<ETag>> {
    let error = match put(storage, body, condition) {
        Ok(etag) => return Ok(etag),
        Err(error) => error,
    };
    if error.is_retryable() || error.kind() == ErrorKind::PreconditionFailed {
        match read(storage) {
            Ok(Some((blob, found))) if found == *body => return Ok(blob.etag),
            _ => {}
        }
    }
    Err(error)
}

fn put(storage: &dyn Storage, body: &LeaseBody, condition: Condition) -> Result<Option<ETag>> {
    let id = BlobId::from(LEASE);
    let data = serde_json::to_vec_pretty(body)
        .map_err(|e| Error::new(ErrorKind::Internal, "write the lease object").with_source(e))?;
    let receipt = storage.put(&id, Bytes::from(data), &PutOptions { condition, ..PutOptions::default() })?;
    match receipt.etag {
        Some(etag) => Ok(Some(etag)),
        None => Ok(storage.head(&id)?.etag),
    }
}

#[cfg(test)]
mod tests;
