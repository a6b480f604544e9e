//! The machine's clocks. The storage's clock is another one: see `Storage::now`.

use std::sync::Mutex;
use std::time::Duration;

pub use jiff::Timestamp;

/// Wall time, a clock that keeps counting while the machine sleeps, and a way to wait. Tests set theirs.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Wall-clock time of this machine.
    fn now(&self) -> Timestamp;
    /// Time since some fixed point, suspend included (`CLOCK_BOOTTIME` on Linux): `Instant` stops while a machine sleeps.
    fn since_boot(&self) -> Duration;
    /// Waits for this long.
    fn sleep(&self, duration: Duration);
}

/// The machine's real clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn since_boot(&self) -> Duration {
        #[cfg(target_os = "linux")]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let id = rustix::time::ClockId::Monotonic;
        let t = rustix::time::clock_gettime(id);
        Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap_or(0))
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock that stands still until it is set or slept on.
#[derive(Debug)]
pub struct SetClock(Mutex<(Timestamp, Duration)>);

impl SetClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(Mutex::new((now, Duration::from_secs(1_000_000))))
    }

    /// Moves wall and boot time on by `duration`.
    pub fn advance(&self, duration: Duration) {
        let mut inner = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.0 += duration;
        inner.1 += duration;
    }

    /// Sets wall time alone, as a person or a time server does.
    pub fn set(&self, now: Timestamp) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0 = now;
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    fn since_boot(&self) -> Duration {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).1
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}
