//! How far the clocks of other coordinators are from this one's. Nothing is decided by it: the log's time never runs backwards, and
//! leases count with clocks that differ by a few minutes. But with a clock that is off by more, schedules, deadlines and the ends of
//! tokens are off by as much whenever its coordinator leads, and people must hear of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use verger_kopia::clock::{Clock, Timestamp};
use verger_kopia::maintenance::margins::CLOCK_SKEW_MAX;
use verger_proto::LogTime;

/// What each coordinator's last answer said of its clock. Clones share it.
#[derive(Clone, Debug)]
pub struct Clocks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    /// How far each is ahead, in milliseconds.
    ahead: Mutex<BTreeMap<u64, i64>>,
}

/// Whether a clock is so far off that people are told.
#[must_use]
pub fn is_off(ahead_milliseconds: i64) -> bool {
    Duration::from_millis(ahead_milliseconds.unsigned_abs()) > CLOCK_SKEW_MAX
}

impl Clocks {
    /// Against this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared { clock, ahead: Mutex::default() }))
    }

    /// This node's.
    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// A node's clock showed `shown` between `asked` and now. That it is off is said once, and once that it is right again.
    pub(super) fn hear(&self, node: u64, shown: LogTime, asked: Timestamp) {
        let answered = self.now();
        let half = answered.duration_since(asked) / 2;
        let ahead = LogTime::of(asked.saturating_add(half).unwrap_or(asked)).0;
        let ahead = i64::try_from(i128::from(shown.0) - i128::from(ahead)).unwrap_or(i64::MAX);
        let before = self.0.ahead.lock().unwrap_or_else(PoisonError::into_inner).insert(node, ahead);
        match (before.is_some_and(is_off), is_off(ahead)) {
            (false, true) => {
                let seconds = ahead / 1000;
                tracing::warn!(
                    node,
                    "a coordinator's clock is {seconds} s ahead of this one's: set the one that is wrong"
                );
            }
            (true, false) => tracing::info!(node, "a coordinator's clock shows the time of this one again"),
            _ => {}
        }
    }

    /// How far a node's clock is ahead of this one's, in milliseconds; `None` if it was not heard yet.
    #[must_use]
    pub fn ahead(&self, node: u64) -> Option<i64> {
        self.0.ahead.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }
}

#[cfg(test)]
mod tests {
    use verger_kopia::clock::SetClock;

    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_middle_of_a_call() {
        let began: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let clock = Arc::new(SetClock::new(began));
        let clocks = Clocks::new(clock.clone());
        assert_eq!(clocks.ahead(2), None);
        clock.advance(Duration::from_secs(4));
        for (shown, ahead) in [("12:00:02Z", 0), ("12:10:02Z", 600_000), ("11:50:02Z", -600_000)] {
            let shown: Timestamp = format!("2026-11-30T{shown}").parse().unwrap();
            clocks.hear(2, LogTime::of(shown), began);
            assert_eq!(clocks.ahead(2), Some(ahead));
        }
        assert!(is_off(300_001) && is_off(-300_001) && !is_off(300_000) && !is_off(-300_000) && is_off(i64::MIN));
        // Whatever is said, nothing breaks.
        clocks.hear(2, LogTime(u64::MAX), began);
        clocks.hear(2, LogTime(0), began);
        assert!(clocks.ahead(2).is_some_and(is_off));
    }
}
