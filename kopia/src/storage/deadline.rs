//! Deadlines of writes, on the clock that keeps counting while the machine sleeps (R2).

use crate::mutant::{self, Mutant};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};

/// Time left until `not_after`, `None` without a deadline.
///
/// # Errors
/// `DeadlinePassed` if nothing is left.
pub(crate) fn left(clock: &dyn Clock, not_after: Option<Duration>, step: &str) -> Result<Option<Duration>> {
    let Some(not_after) = not_after.filter(|_| !mutant::on(Mutant::R1NoDeadline)) else { return Ok(None) };
    match not_after.checked_sub(clock.since_boot()) {
        Some(left) if !left.is_zero() => Ok(Some(left)),
        _ => Err(Error::new(ErrorKind::DeadlinePassed, format!("{step}: its deadline has passed"))),
    }
}
