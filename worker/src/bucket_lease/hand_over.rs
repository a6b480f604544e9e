//! Writing "free" into a lease object for a holder that is gone, and handing a lease over.

use std::time::Duration;

use verger_kopia::clock::Timestamp;
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::storage::{Condition, Storage};
use verger_kopia::{Error, ErrorKind, Result};

use super::{LEASE, Lease, LeaseBody, UNDER_WAY_MAX, put_or_look, read};

/// How long requests may be under way that were sent by whoever wrote the object under this term, or by the holder before him, whom he
/// waits out for as long: he may have died in that wait, and nobody else knows of it (R4). Nothing where that is not the object.
///
/// # Errors
/// As [`free`].
pub fn under_way(storage: &dyn Storage, holder: &str, term: u64) -> Result<Duration> {
    let found = read(storage)?.map(|(_, body)| body).filter(|body| body.holder == holder && body.term == term);
    found.map_or(Ok(Duration::ZERO), |body| Ok(still(storage, &body, storage.now()?)))
}

fn still(storage: &dyn Storage, body: &LeaseBody, store_now: Timestamp) -> Duration {
    // On a local disk the lock tells: requests end with the process that made them.
    if body.free || storage.capabilities().local_disk || mutant::on(Mutant::R4FreedWhileWaitedOut) {
        return Duration::ZERO;
    }
    Duration::try_from((body.acts_until + UNDER_WAY_MAX).duration_since(store_now)).unwrap_or_default()
}

/// Writes "free" into the object that `holder` wrote under `term` (R4). Only for one under whom nothing acts or will act any more;
/// on a local disk the caller holds `verger.lock`. `next`: as in [`hand_over`].
///
/// # Errors
/// `NotFound` if there is no lease; `Locked` if it is not that one, is taken meanwhile, or [`under_way`] is not over; `Damaged` if it
/// cannot be read; storage errors.
pub fn free(storage: &dyn Storage, holder: &str, term: u64, next: Option<&str>) -> Result<()> {
    let step = format!("free the lease object {LEASE} in {}", storage.address());
    let Some((blob, mut body)) = read(storage)? else {
        return Err(Error::new(ErrorKind::NotFound, step).with_source("there is none"));
    };
    if body.holder != holder || body.term != term {
        let whose = format!("it was written by {} under term {}", body.holder, body.term);
        return Err(Error::new(ErrorKind::Locked, step).with_source(whose));
    }
    if body.free && body.next.as_deref() == next {
        return Ok(());
    }
    let wait = still(storage, &body, storage.now()?);
    if !wait.is_zero() {
        let left = format!("requests of a holder may be under way for {} s more", wait.as_secs() + 1);
        return Err(Error::new(ErrorKind::Locked, step).with_source(left).with_fix("Try again then"));
    }
    (body.free, body.next) = (true, next.map(str::to_owned));
    // Without conditions, what was read just now is all that can be known.
    let condition = match blob.etag.filter(|_| storage.capabilities().conditional_writes) {
        Some(etag) => Condition::IfMatch(etag),
        None => Condition::Always,
    };
    put_or_look(storage, &body, condition).map(drop).map_err(|error| match error.kind() {
        ErrorKind::PreconditionFailed => error.into_kind(ErrorKind::Locked).at(step),
        _ => error.at(step),
    })
}

/// Gives a held lease back for `next` alone: for the object's time to live nobody else takes it.
///
/// # Errors
/// As [`Lease::release`]; `Locked` while the requests of the holder before are not waited out.
pub fn hand_over(mut lease: Lease, next: &str) -> Result<()> {
    let wait = lease.approvals_wait();
    if !wait.is_zero() {
        let step =
            format!("hand the lease over: the last holder's requests may be under way for {} s more", wait.as_secs());
        return Err(Error::new(ErrorKind::Locked, step).with_fix("Try again when the lease has run out"));
    }
    let mut body = lease.body.clone();
    (body.free, body.next) = (true, Some(next.to_owned()));
    lease.write(body)
}
