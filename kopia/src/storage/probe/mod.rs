//! What a store really does, measured on objects of our own that go away again.

mod leftovers;
mod object;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;

use self::object::{Patience, ProbeObject};
use super::{ByteRange, Capabilities, Storage, Versioning};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};

/// How long what was written is waited for, of all waits together: a caller has half a minute.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// When what was written is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sight {
    /// By the next request.
    AtOnce,
    /// After so long.
    After(Duration),
    /// Not before it was given up, after so long.
    NotWithin(Duration),
}

/// What a store is seen to do with an object that is written, overwritten and deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// `IfAbsent` and `IfMatch` were honoured, and refused where they had to be.
    pub conditional_writes: bool,
    /// A delete of another version than the present one was refused, one of the present version done.
    pub conditional_deletes: bool,
    /// When a read gives what was written last, or that it is gone.
    pub reads: Sight,
    /// When a listing shows it so.
    pub lists: Sight,
    /// The time that the store stamps on what is written, minus the time that it tells.
    pub stamp_offset: SignedDuration,
}

/// What a store does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// What it can do, by its kind.
    pub kind: Capabilities,
    /// What it was seen to do; `None`: nothing was written.
    pub written: Option<Written>,
    /// The storage's clock minus this machine's, good to about `round_trip` and the store's rounding (a second on S3).
    pub clock_offset: SignedDuration,
    /// Time of one small request.
    pub round_trip: Duration,
    /// Whether deletes free anything.
    pub versioning: Versioning,
}

/// Writes, reads, lists and deletes one object of ours, and says what that showed. Leaves nothing behind, except hidden
/// versions where the store keeps those and lets nobody delete them. What a probe that was killed left more than a day ago goes, too.
///
/// # Errors
/// `Permission`, and then nothing is tried twice; `DiskFull`; `StoreUnavailable`. A store that answers wrongly is no error: the report
/// says so.
pub fn probe(storage: &dyn Storage, clock: &dyn Clock) -> Result<ProbeReport> {
    let report = look(storage, clock)?;
    let mut object = ProbeObject::new(storage);
    let written = object.measure(&mut Patience::new(clock, PATIENCE)).map_err(|error| error.at("probe the store"))?;
    // Last, so that whoever may not write is told so by one request.
    leftovers::remove(storage).map_err(|error| error.at("remove what an earlier probe of the store left"))?;
    Ok(ProbeReport { written: Some(written), ..report })
}

/// What can be said of a store without writing to it.
///
/// # Errors
/// `Permission`; `StoreUnavailable`.
pub fn look(storage: &dyn Storage, clock: &dyn Clock) -> Result<ProbeReport> {
    let (clock_offset, round_trip) = clock_offset(storage, clock).map_err(|error| error.at("look at the store"))?;
    let versioning = storage.versioning().map_err(|error| error.at("look at the store"))?;
    Ok(ProbeReport { kind: storage.capabilities(), written: None, clock_offset, round_trip, versioning })
}

/// Whether two stores are one under two names: an object written through one is seen through the other (R6).
///
/// # Errors
/// Those of writing to `a` and reading from `b`.
pub fn is_same_store(a: &dyn Storage, b: &dyn Storage) -> Result<bool> {
    let mut object = ProbeObject::new(a);
    let token = Bytes::from(format!("{:032x}", rand::random::<u128>()));
    object.write(&token)?;
    let seen = match b.get(object.id(), ByteRange::All) {
        Ok(data) => data == token,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    object.remove()?;
    Ok(seen)
}

/// Compares the store's time with the middle of the request that asked for it.
fn clock_offset(storage: &dyn Storage, clock: &dyn Clock) -> Result<(SignedDuration, Duration)> {
    let (began, here) = (clock.since_boot(), clock.now());
    let there = storage.now()?;
    let round_trip = clock.since_boot().saturating_sub(began);
    let middle = here
        .checked_add(round_trip / 2)
        .map_err(|error| Error::new(ErrorKind::Clock, "this machine's clock is out of range").with_source(error))?;
    Ok((there.duration_since(middle), round_trip))
}
