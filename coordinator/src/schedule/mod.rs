//! When a repository is looked after, and which of many go first. Pure: the time comes in, nothing else is asked.
//!
//! ```text
//! Schedule -> Timetable: trigger (which slots) -> window (when it may run) -> due (what next) ; fair (which of the due ones)
//! State -> Agenda: wishes, what is unfinished, what is due -> what begins now ; outlook: the same for people
//! ```
//! Records of when something began or failed come from the ledger, as [`History`]; times that Kopia's own schedule holds are not
//! asked, because Verger itself may have set them.

mod agenda;
mod chase;
mod due;
mod fair;
mod manual;
mod outlook;
mod trigger;
mod window;

use jiff::tz::TimeZone;
use verger_proto::schedule::{self, Lane, Schedule, ScheduleError};
use verger_proto::{LogTime, RepositoryId};

pub use agenda::{Agenda, LOOK_EVERY, Start, Work, bucket_of};
pub use chase::CHASE_SLACK;
pub use due::{BACK_OFF_MAX, BACK_OFF_MIN, History, Next, Past, Unfinished, Why, back_off};
pub use fair::{Candidate, Fair, Limits, Running};
pub use manual::{Asked, KEY_BYTES_MAX, KEYS_KEPT, REQUESTS_MAX, Requests};
pub use outlook::{Outlook, outlook};
pub use verger_proto::schedule::{Margin, MarkToDrop, Own, OwnCycle};
pub use window::{HOLD, Opening};

use trigger::Rule;
use window::Openings;

/// Times are milliseconds.
pub(crate) const SECOND: u64 = 1000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;

/// A schedule read once: its zone, cron lines and windows. Keep it for as long as the schedule stays the same.
#[derive(Debug, Clone)]
pub struct Timetable {
    repository: RepositoryId,
    zone: TimeZone,
    rules: [Rule; 3],
    openings: Openings,
    jitter: u64,
    suspended: bool,
}

impl Timetable {
    /// Reads the schedule of a repository.
    ///
    /// # Errors
    /// As [`Schedule::check`].
    pub fn new(repository: RepositoryId, schedule: &Schedule) -> Result<Self, ScheduleError> {
        schedule.check()?;
        let rule = |lane: Lane| Rule::new(schedule.trigger(lane));
        let zone = schedule::zone(&schedule.zone)?;
        Ok(Self {
            repository,
            rules: [rule(Lane::Full)?, rule(Lane::Quick)?, rule(Lane::Index)?],
            openings: Openings::new(zone.clone(), &schedule.windows, &schedule.blackouts)?,
            zone,
            jitter: u64::from(schedule.jitter_seconds) * SECOND,
            suspended: schedule.suspended,
        })
    }

    /// When a cycle that runs now by itself must park: the end of the window, or the start of a blackout. `None`: no end in
    /// sight. A cycle that a person asked for does not park.
    #[must_use]
    pub fn ends(&self, now: LogTime) -> Option<LogTime> {
        self.openings.ends(now)
    }

    /// The first time from `from` on in which a cycle may begin; `None` if there is none for years.
    #[must_use]
    pub fn opening(&self, from: LogTime) -> Option<Opening> {
        self.openings.opening(from)
    }

    fn rule(&self, lane: Lane) -> &Rule {
        match lane {
            Lane::Full => &self.rules[0],
            Lane::Quick => &self.rules[1],
            Lane::Index => &self.rules[2],
        }
    }
}

/// Checks everything about a schedule that is about to be set.
///
/// # Errors
/// As [`Schedule::check`]; [`ScheduleError::NoTime`] if windows and blackouts leave nothing from `now` on.
pub fn check(schedule: &Schedule, now: LogTime) -> Result<(), ScheduleError> {
    schedule.check()?;
    let zone = schedule::zone(&schedule.zone)?;
    let openings = Openings::new(zone, &schedule.windows, &schedule.blackouts)?;
    let limit = now.plus(10 * 365 * DAY);
    let opening = openings.opening(now).filter(|opening| opening.start <= limit);
    opening.map(drop).ok_or(ScheduleError::NoTime)
}

/// How many cycles a schedule has in the day after `now`, if each takes no time and no window is closed.
#[must_use]
pub fn cycles_a_day(schedule: &Schedule, own: Option<Own>, now: LogTime) -> u64 {
    let every = |seconds: u64| DAY / seconds.saturating_mul(SECOND).max(SECOND);
    let count = |lane: Lane| match (Rule::new(schedule.trigger(lane)), own) {
        (Ok(Rule::Every(interval)), _) => DAY / interval.max(SECOND),
        (Ok(Rule::Cron(line)), _) => slots_a_day(&line, &schedule.zone, now),
        (Ok(Rule::Own), Some(own)) => match lane {
            Lane::Full if own.full.enabled => every(own.full.interval_seconds),
            Lane::Quick if own.quick.enabled => every(own.quick.interval_seconds),
            _ => 0,
        },
        _ => 0,
    };
    Lane::ALL.into_iter().map(count).fold(0, u64::saturating_add)
}

fn slots_a_day(line: &schedule::CronLine, zone: &str, now: LogTime) -> u64 {
    let Ok(zone) = schedule::zone(zone) else { return 0 };
    let next = |time: &LogTime| trigger::slot_after(line, &zone, *time);
    let slots = std::iter::successors(next(&now), next).take_while(|slot| *slot <= now.plus(DAY));
    u64::try_from(slots.count()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
