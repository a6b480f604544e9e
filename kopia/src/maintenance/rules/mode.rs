//! Is a cycle due, and which (`shouldRun` in `repo/maintenance/maintenance_run.go`, and what Verger adds: unfinished
//! cycles and margins that have ended).

use super::facts::after;
use super::plan::Mode;
use crate::clock::Timestamp;
use crate::maintenance::{Params, Schedule};
use std::time::Duration;

/// A cycle only because a margin has ended comes at most this often.
pub const CHASE_INTERVAL: Duration = Duration::from_secs(3600);

/// When cycles are next due; `None`: never ran, so due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NextTimes {
    /// Full.
    pub full: Option<Timestamp>,
    /// Quick.
    pub quick: Option<Timestamp>,
}

impl NextTimes {
    /// As Kopia's schedule says.
    #[must_use]
    pub fn of_schedule(schedule: &Schedule) -> Self {
        Self { full: schedule.next_full, quick: schedule.next_quick }
    }

    /// From the starts of the last cycles and Kopia's intervals: where Verger itself set the schedule's times far ahead
    /// (R22) they say nothing. A full cycle counts as a quick one.
    #[must_use]
    pub fn of_ledger(params: &Params, last_full: Option<Timestamp>, last_quick: Option<Timestamp>) -> Self {
        Self {
            full: last_full.map(|last| after(last, params.full.interval)),
            quick: last_full.max(last_quick).map(|last| after(last, params.quick.interval)),
        }
    }
}

/// What decides whether a cycle is due.
#[derive(Debug, Clone, Copy)]
pub struct Due<'a> {
    /// Parameters: disabled cycles do not run by themselves.
    pub params: &'a Params,
    /// Next times.
    pub next: NextTimes,
    /// Now.
    pub now: Timestamp,
    /// A cycle that the ledger shows as begun and not ended.
    pub unfinished: Option<Mode>,
    /// When a margin ends after which bytes can go (see [`next`](super::next)), from the last report.
    pub freeing: Option<Timestamp>,
    /// End of the last cycle.
    pub last_cycle: Option<Timestamp>,
}

/// Why a cycle runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A cycle was killed, and stays due.
    Unfinished,
    /// Kopia's schedule.
    Scheduled,
    /// A margin has ended and bytes can go.
    MarginEnded,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Run this.
    Run(Mode, Why),
    /// Nothing is due; the next time, if any cycle is enabled.
    Wait(Option<Timestamp>),
}

impl Due<'_> {
    /// Kopia's order: full before quick. A time that was never set lies in the past, so the first run is a full one.
    #[must_use]
    pub fn decide(&self) -> Decision {
        let past = |time: Option<Timestamp>| time.is_none_or(|time| self.now >= time);
        let chase = self.chase();
        if let Some(mode) = self.unfinished {
            Decision::Run(mode, Why::Unfinished)
        } else if self.params.full.enabled && past(self.next.full) {
            Decision::Run(Mode::Full, Why::Scheduled)
        } else if chase.is_some_and(|at| self.now >= at) {
            Decision::Run(Mode::Full, Why::MarginEnded)
        } else if self.params.quick.enabled && past(self.next.quick) {
            Decision::Run(Mode::Quick, Why::Scheduled)
        } else {
            let full = self.next.full.filter(|_| self.params.full.enabled);
            let quick = self.next.quick.filter(|_| self.params.quick.enabled);
            Decision::Wait([full, quick, chase].into_iter().flatten().min())
        }
    }

    fn chase(&self) -> Option<Timestamp> {
        let at = self.freeing.filter(|_| self.params.full.enabled)?;
        Some(self.last_cycle.map_or(at, |last| at.max(after(last, CHASE_INTERVAL))))
    }
}

/// The first write of a run moves the next times: a full run both, a quick one its own only. It comes before the work,
/// so that a crash does not make Kopia start again at once.
pub fn advance(schedule: &mut Schedule, params: &Params, mode: Mode, now: Timestamp) {
    if mode == Mode::Full {
        schedule.next_full = Some(after(now, params.full.interval));
    }
    if mode != Mode::Index {
        schedule.next_quick = Some(after(now, params.quick.interval));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    const H: i64 = 3600;

    fn due(params: &Params, full: Option<i64>, quick: Option<i64>) -> Due<'_> {
        let next = NextTimes { full: full.map(at), quick: quick.map(at) };
        Due { params, next, now: at(0), unfinished: None, freeing: None, last_cycle: None }
    }

    #[test]
    fn kopias_order() {
        use Mode::{Full, Quick};
        let enabled = |full: bool, quick: bool| {
            let mut params = Params::kopia_default();
            (params.full.enabled, params.quick.enabled) = (full, quick);
            params
        };
        // (full enabled, quick enabled, next full, next quick) -> mode, or next time
        let table = [
            ((true, true, None, None), Ok(Full)),
            ((true, true, Some(0), Some(-1)), Ok(Full)),
            ((true, true, Some(1), Some(0)), Ok(Quick)),
            ((true, true, Some(5), Some(3)), Err(Some(3))),
            ((false, true, Some(-9), Some(-9)), Ok(Quick)),
            ((false, true, None, Some(9)), Err(Some(9))),
            ((true, false, Some(9), None), Err(Some(9))),
            ((false, false, None, None), Err(None)),
        ];
        for ((full, quick, next_full, next_quick), expected) in table {
            let params = enabled(full, quick);
            let expected = match expected {
                Ok(mode) => Decision::Run(mode, Why::Scheduled),
                Err(next) => Decision::Wait(next.map(at)),
            };
            assert_eq!(due(&params, next_full, next_quick).decide(), expected, "{full} {quick} {next_full:?}");
        }
    }

    #[test]
    fn s7_a_killed_cycle_stays_due_and_margins_are_chased_hourly() {
        let params = Params::kopia_default();
        let calm = due(&params, Some(20 * H), Some(H));
        assert_eq!(Due { unfinished: Some(Mode::Full), ..calm }.decide(), Decision::Run(Mode::Full, Why::Unfinished));
        let chase = Due { freeing: Some(at(-9)), last_cycle: Some(at(-H)), ..calm };
        assert_eq!(chase.decide(), Decision::Run(Mode::Full, Why::MarginEnded));
        assert_eq!(Due { last_cycle: Some(at(60 - H)), ..chase }.decide(), Decision::Wait(Some(at(60))));
        let mut off = params.clone();
        off.full.enabled = false;
        assert_eq!(Due { params: &off, ..chase }.decide(), Decision::Wait(Some(at(H))), "disabled: not by itself");
    }

    /// Over two days with Kopia's defaults, asked every ten minutes: two full runs, and a quick one in every other
    /// hour.
    #[test]
    fn simulated_days() {
        let (params, mut schedule) = (Params::kopia_default(), Schedule::default());
        let (mut full, mut quick) = (Vec::new(), 0);
        for minutes in (0..48 * 60).step_by(10) {
            let now = at(minutes * 60);
            let due = Due { next: NextTimes::of_schedule(&schedule), now, ..due(&params, None, None) };
            if let Decision::Run(mode, Why::Scheduled) = due.decide() {
                advance(&mut schedule, &params, mode, now);
                match mode {
                    Mode::Full => full.push(minutes),
                    Mode::Quick => quick += 1,
                    Mode::Index => unreachable!("Kopia has no such cycle"),
                }
            }
        }
        assert_eq!((full, quick), (vec![0, 24 * 60], 46));
        let last = NextTimes::of_ledger(&params, Some(at(0)), None);
        assert_eq!(last, NextTimes { full: Some(at(24 * H)), quick: Some(at(H)) });
        assert_eq!(NextTimes::of_ledger(&params, None, Some(at(5))).full, None);
    }
}
