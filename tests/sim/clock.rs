//! Clocks: one true time, in which nobody's machine keeps quite in step.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use verger_kopia::clock::{Clock, Timestamp};

/// Milliseconds of the epoch at which every run begins.
pub const BEGIN: u64 = 1_780_000_000_000;

/// The true time, in milliseconds since the beginning. Clones are the same one. The cluster moves it on.
#[derive(Clone, Debug, Default)]
pub struct TrueTime {
    lived: Arc<AtomicU64>,
    slept: Arc<AtomicU64>,
}

impl TrueTime {
    /// The cluster has lived for so long.
    pub fn set(&self, milliseconds: u64) {
        self.lived.fetch_max(milliseconds, Ordering::Relaxed);
    }

    /// All machines sleep for so long: their clocks go on, and nothing else.
    pub fn sleep(&self, milliseconds: u64) {
        self.slept.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// Since the beginning.
    pub fn since_begin(&self) -> u64 {
        self.lived.load(Ordering::Relaxed) + self.slept.load(Ordering::Relaxed)
    }

    /// Of the epoch.
    pub fn milliseconds(&self) -> u64 {
        BEGIN + self.since_begin()
    }
}

/// The clock of one machine.
#[derive(Clone, Debug)]
pub struct MachineClock {
    time: TrueTime,
    ahead: Arc<AtomicI64>,
}

impl MachineClock {
    pub fn new(time: TrueTime) -> Self {
        Self { time, ahead: Arc::default() }
    }

    /// From now on the wall clock is ahead by so many milliseconds.
    pub fn set_ahead(&self, milliseconds: i64) {
        self.ahead.store(milliseconds, Ordering::Relaxed);
    }

    pub fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        let milliseconds = self.time.milliseconds().saturating_add_signed(self.ahead());
        Timestamp::UNIX_EPOCH + SignedDuration::from_millis(i64::try_from(milliseconds).unwrap())
    }

    fn since_boot(&self) -> Duration {
        Duration::from_secs(1_000_000) + Duration::from_millis(self.time.since_begin())
    }

    fn sleep(&self, _: Duration) {
        panic!("a coordinator's node waits on its runtime, not on its clock");
    }
}
