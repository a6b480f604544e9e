//! What next: for each lane, run now, come back then, or never by itself.

use serde::{Deserialize, Serialize};
use verger_proto::LogTime;
use verger_proto::schedule::{CronLine, INTERVAL_SECONDS_MIN, Lane, Margin, MarkToDrop, Own};

use super::chase;
use super::manual::Requests;
use super::trigger::{Rule, slot_after};
use super::{HOLD, HOUR, MINUTE, Opening, SECOND, Timetable};

/// Wait after a first failure, in milliseconds; it doubles with each.
pub const BACK_OFF_MIN: u64 = MINUTE;
/// Longest wait after a failure, in milliseconds.
pub const BACK_OFF_MAX: u64 = HOUR;

const INTERVAL_MIN: u64 = INTERVAL_SECONDS_MIN * SECOND;

/// What a lane does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Begin now.
    Now(Why),
    /// Nothing before this time, as things stand; it lies after now.
    At(LogTime),
    /// Nothing by itself, and why.
    Never(String),
}

/// Why a cycle begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// A person asked, with this key. Windows, blackouts and a suspension are overruled.
    Requested(String),
    /// The last one did not end.
    Unfinished,
    /// A margin has ended and bytes can go.
    MarginEnded,
    /// Its slot has come; missed ones are made up for by this one.
    Scheduled {
        /// The first slot since the last start.
        slot: LogTime,
    },
}

/// A cycle that began and did not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// When it stopped.
    pub stopped: LogTime,
    /// Attempts that failed or were killed, one after the other; 0: it was parked, or its coordinator went away.
    pub failures: u32,
    /// A person asked for it, so that windows do not hold it.
    pub requested: bool,
}

/// What the ledger knows of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Past {
    /// Start of the last cycle, however it ended.
    pub started: Option<LogTime>,
    /// End of the last cycle that ended.
    pub ended: Option<LogTime>,
    /// A cycle that is to go on.
    pub unfinished: Option<Unfinished>,
}

/// What the ledger knows of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// Since when the schedule holds: slots before it are not made up for. Set it when the repository is added, its schedule
    /// changed or taken up again.
    pub since: LogTime,
    /// Its own Kopia settings; `None`: not read yet.
    pub own: Option<Own>,
    /// Full cycles.
    pub full: Past,
    /// Quick cycles.
    pub quick: Past,
    /// Index work alone.
    pub index: Past,
    /// Margins that the last report of a full cycle named.
    pub margins: Vec<Margin>,
    /// The least time from mark to drop.
    pub mark_to_drop: MarkToDrop,
    /// What a person asked for.
    pub requests: Requests,
}

impl History {
    /// What is known of a lane.
    #[must_use]
    pub fn past(&self, lane: Lane) -> &Past {
        match lane {
            Lane::Full => &self.full,
            Lane::Quick => &self.quick,
            Lane::Index => &self.index,
        }
    }

    /// The last start of a cycle that did this lane's work: a full one does all.
    fn started(&self, lane: Lane) -> Option<LogTime> {
        Lane::ALL.into_iter().filter(|wider| *wider <= lane).filter_map(|wider| self.past(wider).started).max()
    }
}

/// The wait after so many failures in a row, in milliseconds: a minute, doubling to an hour.
#[must_use]
pub fn back_off(failures: u32) -> u64 {
    match failures.checked_sub(1) {
        None => 0,
        Some(doublings) => BACK_OFF_MIN.checked_shl(doublings.min(16)).map_or(BACK_OFF_MAX, |w| w.min(BACK_OFF_MAX)),
    }
}

/// A slot and the one after it would be.
enum Slots<'a> {
    Every(LogTime, u64),
    Cron(LogTime, &'a CronLine),
}

impl Timetable {
    /// What a lane without an open cycle does next. Asked again at the time of an `At`, it says `Now`.
    #[must_use]
    pub fn next(&self, lane: Lane, history: &History, now: LogTime) -> Next {
        if let Some(key) = history.requests.first(lane) {
            return Next::Now(Why::Requested(key.to_owned()));
        }
        if let Some(unfinished) = history.past(lane).unfinished {
            let at = unfinished.stopped.plus(back_off(unfinished.failures));
            return match unfinished.requested {
                true if at <= now => Next::Now(Why::Unfinished),
                true => Next::At(at),
                false if self.suspended => Next::Never(SUSPENDED.to_owned()),
                false => self.when_open(at, now, Why::Unfinished),
            };
        }
        if self.suspended {
            return Next::Never(SUSPENDED.to_owned());
        }
        let slots = match self.slots(lane, history) {
            Ok(slots) => slots,
            Err(reason) => return Next::Never(reason),
        };
        let scheduled = self.scheduled(lane, &slots, now);
        match self.chase(lane, history) {
            Some(at) => sooner(scheduled, self.when_open(at, now, Why::MarginEnded)),
            None => scheduled,
        }
    }

    fn slots(&self, lane: Lane, history: &History) -> Result<Slots<'_>, String> {
        let started = history.started(lane);
        let every = |interval: u64| {
            let interval = interval.max(INTERVAL_MIN);
            Slots::Every(started.map_or(history.since, |started| started.plus(interval)), interval)
        };
        match self.rule(lane) {
            Rule::Never => Err(format!("the trigger of the {lane} lane is `never`")),
            Rule::Every(interval) => Ok(every(*interval)),
            Rule::Own => {
                let own = history.own.ok_or("the repository's own Kopia settings have not been read yet")?;
                let cycle = if lane == Lane::Full { own.full } else { own.quick };
                let name = if lane == Lane::Full { Lane::Full } else { Lane::Quick };
                let disabled = || format!("{name} cycles are disabled in the repository's own Kopia settings");
                let interval = cycle.enabled.then_some(cycle.interval_seconds).ok_or_else(disabled)?;
                Ok(every(interval.saturating_mul(SECOND)))
            }
            Rule::Cron(line) => {
                let from = started.map_or(history.since, |started| started.max(history.since));
                let slot = slot_after(line, &self.zone, from).ok_or("the cron line names no further time")?;
                Ok(Slots::Cron(slot, line))
            }
        }
    }

    fn scheduled(&self, lane: Lane, slots: &Slots<'_>, now: LogTime) -> Next {
        let (Slots::Every(slot, _) | Slots::Cron(slot, _)) = *slots;
        let Some(opening) = self.openings.opening(slot) else { return Next::Never(NO_TIME.to_owned()) };
        let at = opening.start.plus(self.jitter(lane, opening, slots));
        if now < at { Next::At(at) } else { self.when_open(at, now, Why::Scheduled { slot }) }
    }

    /// Up to the schedule's jitter, by the repository, the lane and the slot alone; short of the next slot, and of the end.
    fn jitter(&self, lane: Lane, opening: Opening, slots: &Slots<'_>) -> u64 {
        let start = opening.start;
        let following = match slots {
            Slots::Every(_, interval) => *interval,
            Slots::Cron(_, line) => slot_after(line, &self.zone, start).map_or(u64::MAX, |next| next.since(start)),
        };
        let end = opening.end.map_or(u64::MAX, |end| end.since(start).saturating_sub(HOLD));
        let most = self.jitter.min(following.saturating_sub(1)).min(end);
        // Where both go by Kopia's quick interval they come at once, so that one cycle does for both.
        let both_own = matches!((self.rule(Lane::Quick), self.rule(Lane::Index)), (Rule::Own, Rule::Own));
        let lane = if lane == Lane::Index && both_own { Lane::Quick } else { lane };
        let text = format!("verger jitter 1 {} {lane} {}", self.repository, start.0);
        let digest = blake3::hash(text.as_bytes());
        let number = digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        number % most.saturating_add(1).max(1)
    }

    fn chase(&self, lane: Lane, history: &History) -> Option<LogTime> {
        let started = history.full.started.filter(|_| lane == Lane::Full)?;
        let ended = history.full.ended.unwrap_or(started);
        chase::next(&history.margins, history.mark_to_drop, started, ended)
    }

    /// At this time or later, when a window is open.
    fn when_open(&self, at: LogTime, now: LogTime, why: Why) -> Next {
        match self.openings.opening(at.max(now)) {
            Some(opening) if opening.start <= now => Next::Now(why),
            Some(opening) => Next::At(opening.start),
            None => Next::Never(NO_TIME.to_owned()),
        }
    }
}

const SUSPENDED: &str = "the schedule is suspended";
const NO_TIME: &str = "windows and blackouts leave no time";

/// The one that comes first; the schedule's own of two that are due.
fn sooner(scheduled: Next, other: Next) -> Next {
    match (&scheduled, &other) {
        (Next::Now(_), _) | (_, Next::Never(_)) => scheduled,
        (Next::At(a), Next::At(b)) if a <= b => scheduled,
        _ => other,
    }
}
