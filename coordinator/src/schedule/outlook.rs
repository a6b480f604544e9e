//! What a repository's schedule comes to, for people: when each lane runs next, why, and how late it is.

use verger_proto::schedule::{Lane, Trigger};
use verger_proto::{Acting, LogTime, Registration, RepositoryId};

use super::{Next, SECOND, Timetable, Why};
use crate::machine::{Phase, Repository, State, lane_of, mode_of};

/// What a lane does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// The lane.
    pub lane: Lane,
    /// When, as things stand; `None`: not by itself, or it runs.
    pub at: Option<LogTime>,
    /// Why then, or why not.
    pub reason: String,
    /// Milliseconds that it is late; `None`: it never is.
    pub overdue: Option<u64>,
}

impl Outlook {
    fn never(lane: Lane, reason: impl Into<String>) -> Self {
        Self { lane, at: None, reason: reason.into(), overdue: None }
    }
}

/// All lanes of a repository; none if it is not looked after.
#[must_use]
pub fn outlook(state: &State, id: &RepositoryId, entry: &Repository, now: LogTime) -> Vec<Outlook> {
    let Some(known) = &entry.registration else { return Vec::new() };
    if known.acting == Acting::Observe {
        return Lane::ALL.map(|lane| Outlook::never(lane, "the repository is only observed")).into();
    }
    let now = now.max(state.now);
    match Timetable::new(id.clone(), &known.schedule) {
        Ok(table) => Lane::ALL.map(|lane| of_lane(state, (id, entry, known), &table, lane, now)).into(),
        Err(error) => Lane::ALL.map(|lane| Outlook::never(lane, error.to_string())).into(),
    }
}

fn of_lane(
    state: &State,
    (id, entry, known): (&RepositoryId, &Repository, &Registration),
    table: &Timetable,
    lane: Lane,
    now: LogTime,
) -> Outlook {
    let open = state.open_cycle(id).filter(|cycle| !cycle.options.dry_run && lane_of(cycle.options.mode) == lane);
    if let Some(cycle) = open.filter(|cycle| cycle.paused || cycle.phase != Phase::Parked) {
        let what = if cycle.paused { "is paused by a person" } else { "is open" };
        return Outlook { overdue: Some(0), ..Outlook::never(lane, format!("cycle {} {what}", cycle.id)) };
    }
    let history = entry.calendar.history(known.mark_to_drop);
    let why = |why: &Why| reason(why, known.schedule.trigger(lane), entry, lane);
    match table.next(lane, &history, now) {
        Next::Never(reason) => Outlook::never(lane, reason),
        Next::Now(due) => {
            let since = match &due {
                Why::Scheduled { slot } => *slot,
                Why::Unfinished => entry.calendar.of(mode_of(lane)).unfinished.map_or(now, |one| one.stopped),
                Why::MarginEnded | Why::Requested(_) => now,
            };
            Outlook { lane, at: Some(now), reason: why(&due), overdue: Some(now.since(since)) }
        }
        Next::At(at) => {
            let reason = match table.next(lane, &history, at) {
                Next::Now(due) => why(&due),
                Next::At(_) | Next::Never(_) => "looked at again".to_owned(),
            };
            Outlook { lane, at: Some(at), reason, overdue: Some(0) }
        }
    }
}

fn reason(why: &Why, trigger: &Trigger, entry: &Repository, lane: Lane) -> String {
    match why {
        Why::Requested(_) => "somebody asked for it".to_owned(),
        Why::Unfinished => "the last cycle did not come to its end".to_owned(),
        Why::MarginEnded => "a margin ends and bytes can go".to_owned(),
        Why::Scheduled { .. } => match (trigger, entry.calendar.own) {
            (Trigger::Own, Some(own)) => {
                let cycle = if lane == Lane::Full { own.full } else { own.quick };
                let every = Trigger::Every { seconds: cycle.interval_seconds.max(60_000 / SECOND) };
                format!("{every}, as Kopia's own settings say")
            }
            (trigger, _) => format!("scheduled: {trigger}"),
        },
    }
}
