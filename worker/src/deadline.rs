//! Deadlines that survive suspend (R2): boot time, wall time, and the store's time where it was asked; any one past stops the deed.

use std::time::Duration;
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::clock::{Clock, Timestamp};
use verger_kopia::{Error, ErrorKind, Result};

/// A moment after which a deed must not take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    since_boot: Duration,
    wall: Timestamp,
}

impl Deadline {
    /// `after` from now, by both clocks of this machine.
    #[must_use]
    pub fn after(clock: &dyn Clock, after: Duration) -> Self {
        Self { since_boot: clock.since_boot() + after, wall: clock.now() + after }
    }

    /// For `PutOptions::not_after`.
    #[must_use]
    pub fn since_boot(&self) -> Duration {
        self.since_boot
    }

    /// Time left by the clock that is nearer to the end; zero when past.
    #[must_use]
    pub fn left(&self, clock: &dyn Clock) -> Duration {
        let boot = self.since_boot.saturating_sub(clock.since_boot());
        let wall = Duration::try_from(self.wall.duration_since(clock.now())).unwrap_or_default();
        match () {
            () if mutant::on(Mutant::R2BootTimeIgnored) => wall,
            () if mutant::on(Mutant::R2WallTimeIgnored) => boot,
            () => boot.min(wall),
        }
    }

    /// Refuses a deed that is late.
    ///
    /// # Errors
    /// `DeadlinePassed`.
    pub fn check(&self, clock: &dyn Clock, deed: &str) -> Result<()> {
        if self.left(clock).is_zero() {
            return Err(Error::new(ErrorKind::DeadlinePassed, format!("{deed}: its approval ended before it began")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verger_kopia::clock::SetClock;

    #[test]
    fn r2_either_clock_past_the_deadline_stops_the_deed() {
        let start: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let clock = SetClock::new(start);
        let deadline = Deadline::after(&clock, Duration::from_secs(120));
        assert_eq!(deadline.left(&clock), Duration::from_secs(120));
        clock.advance(Duration::from_secs(119));
        deadline.check(&clock, "delete").unwrap();
        // The wall clock is set back an hour: boot time still counts.
        clock.set(start - Duration::from_secs(3600));
        clock.advance(Duration::from_secs(2));
        assert_eq!(deadline.check(&clock, "delete").unwrap_err().kind(), ErrorKind::DeadlinePassed);
        // The wall clock alone jumps ahead (a machine that slept where boot time does not count sleep).
        let deadline = Deadline::after(&clock, Duration::from_secs(120));
        clock.set(start + Duration::from_secs(7200));
        assert_eq!(deadline.check(&clock, "delete").unwrap_err().kind(), ErrorKind::DeadlinePassed);
    }
}
