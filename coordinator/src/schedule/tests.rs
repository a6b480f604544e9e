mod agenda;
mod due;
mod fair;
mod promise;
mod slots;
mod year;

use verger_proto::schedule::{Blackout, Lane, Schedule, Trigger};
use verger_proto::{LogTime, RepositoryId};

use super::*;

pub(super) fn repository(number: u32) -> RepositoryId {
    format!("{number:064x}-{}", "01".repeat(16)).parse().unwrap()
}

/// A time, with its offset.
pub(super) fn at(text: &str) -> LogTime {
    let time: jiff::Timestamp = text.parse().unwrap();
    LogTime(u64::try_from(time.as_millisecond()).unwrap())
}

pub(super) fn shown(time: LogTime) -> String {
    jiff::Timestamp::from_millisecond(i64::try_from(time.0).unwrap()).unwrap().to_string()
}

/// A schedule of full cycles alone.
pub(super) fn full(trigger: &str, zone: &str) -> Schedule {
    let full: Trigger = trigger.parse().unwrap();
    Schedule { full, quick: Trigger::Never, index: Trigger::Never, zone: zone.to_owned(), ..Schedule::default() }
}

pub(super) fn windowed(trigger: &str, zone: &str, windows: &[&str]) -> Schedule {
    Schedule { windows: windows.iter().map(|text| text.parse().unwrap()).collect(), ..full(trigger, zone) }
}

pub(super) fn blackout(text: &str) -> Blackout {
    text.parse().unwrap()
}

pub(super) fn timetable(schedule: &Schedule) -> Timetable {
    Timetable::new(repository(1), schedule).unwrap()
}

pub(super) fn since(time: LogTime) -> History {
    History { since: time, ..History::default() }
}

#[test]
fn cycles_of_a_day_are_counted() {
    let now = at("2026-03-04T05:06:07Z");
    let of = |full: &str, quick: &str, own| {
        let (full, quick): (Trigger, Trigger) = (full.parse().unwrap(), quick.parse().unwrap());
        cycles_a_day(&Schedule { full, quick, index: Trigger::Never, ..Schedule::default() }, own, now)
    };
    let own = |enabled| {
        let cycle = |interval_seconds| OwnCycle { enabled, interval_seconds };
        Some(Own { full: cycle(86_400), quick: cycle(3_600) })
    };
    assert_eq!(of("@daily", "every 6h", None), 1 + 4);
    assert_eq!(of("never", "* * * * *", None), 1_440);
    assert_eq!((of("own", "own", own(true)), of("own", "own", own(false)), of("own", "own", None)), (25, 0, 0));
}

/// Runs full cycles of a minute from `history.since` until `until`: the starts.
pub(super) fn starts(table: &Timetable, history: &mut History, until: LogTime) -> Vec<LogTime> {
    let (mut now, mut starts) = (history.since, Vec::new());
    while now < until {
        match table.next(Lane::Full, history, now) {
            Next::Now(_) => {
                starts.push(now);
                history.full = Past { started: Some(now), ended: Some(now.plus(MINUTE)), unfinished: None };
                now = now.plus(MINUTE);
            }
            Next::At(time) => {
                assert!(time > now, "{} is not after {}", shown(time), shown(now));
                now = time;
            }
            Next::Never(_) => break,
        }
    }
    starts
}
