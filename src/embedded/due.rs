//! Is a cycle due, and which.

use verger_coordinator::drive::Drive;
use verger_kopia::maintenance::params::{CycleParams, Params};
use verger_kopia::maintenance::rules::mode::{self, Due, NextTimes};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::{Error, Result};
use verger_proto::{Own, OwnCycle};
use verger_worker::run::ruled;
use verger_worker::task::record::ScheduleFile;

use super::ours::Ours;
use super::report::CycleReport;
use super::state::Known;
use super::{CycleRequest, Session};

/// What to do now.
pub(super) enum Decision {
    /// Run this.
    Run(Mode),
    /// Nothing is due: the report that says so.
    Wait(Box<CycleReport>),
}

/// What was asked for, or what is due by Kopia's times, an unfinished cycle, or the end of a margin.
pub(super) fn decide(
    request: &CycleRequest,
    session: &Session,
    drive: &Drive,
    known: &Known,
    ours: &Ours,
    schedule: &ScheduleFile,
) -> Result<Decision> {
    if let Some(mode) = request.mode {
        if mode != Mode::Full && ours.lost_index() {
            if request.by_itself {
                return Ok(Decision::Run(Mode::Full));
            }
            let step = "the last full cycle found that an index blob may be lost, and no other one can see that";
            return Err(Error::damaged(step).with_fix("Look at `kopia index recover`, then run a full cycle"));
        }
        return Ok(Decision::Run(mode));
    }
    let unfinished = drive.is_due(&known.id).then(|| match drive.unfinished(&known.id) {
        Some((_, options)) => ruled(options.mode),
        None => Mode::Full,
    });
    let due = Due {
        params: &session.ahead.params,
        next: NextTimes::of_schedule(schedule.schedule()),
        now: session.clock.now(),
        unfinished,
        freeing: known.freeing(),
        last_cycle: known.last_cycle(),
    };
    Ok(match due.decide() {
        mode::Decision::Run(..) if ours.lost_index() => Decision::Run(Mode::Full),
        mode::Decision::Run(mode, _) => Decision::Run(mode),
        mode::Decision::Wait(next) => Decision::Wait(Box::new(CycleReport::nothing_due(session.clock.now(), next))),
    })
}

/// Kopia's own settings of when cycles are due, for a fleet's schedule.
#[must_use]
pub fn own_settings(params: &Params) -> Own {
    let cycle = |cycle: &CycleParams| OwnCycle { enabled: cycle.enabled, interval_seconds: cycle.interval.as_secs() };
    Own { full: cycle(&params.full), quick: cycle(&params.quick) }
}
