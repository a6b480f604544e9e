//! What `next` and `ends` promise, whatever the schedule and the history.

use proptest::prelude::*;
use verger_proto::schedule::{TimeOfDay, Weekdays, Window};

use super::*;

const WEEK_MINUTES: u64 = 7 * 24 * 60;
/// A Monday, in UTC.
const MONDAY: LogTime = LogTime(1_767_571_200_000);

fn window() -> impl Strategy<Value = Window> {
    let time = |minutes| TimeOfDay::from_minutes(minutes).unwrap();
    let weekly = (1u8..128, 0u16..1440, 5u16..1440).prop_map(move |(days, start, length)| Window::Weekly {
        days: Weekdays::from_bits(days).unwrap(),
        start: time(start),
        end: time((start + length) % 1440),
    });
    let cron = (0u16..1440, 5u16..1440, 0u8..7).prop_map(move |(start, length, day)| Window::Cron {
        line: format!("{} {} * * {day}", start % 60, start / 60),
        end: time((start + length) % 1440),
    });
    prop_oneof![3 => weekly, 1 => cron]
}

fn blackouts() -> impl Strategy<Value = Vec<Blackout>> {
    let one = (0u64..4 * WEEK_MINUTES, 1u64..10_000).prop_map(|(from, length)| {
        let from = MONDAY.plus(from * MINUTE);
        Blackout { from, until: from.plus(length * MINUTE), reason: String::new() }
    });
    prop::collection::vec(one, 0..5)
}

fn trigger() -> impl Strategy<Value = Trigger> {
    let cron = (0u8..60, 0u8..24, 0u8..7)
        .prop_map(|(minute, hour, day)| format!("{minute} {hour} * * *,{day}").replace("*,", ""));
    prop_oneof![
        Just(Trigger::Own),
        Just(Trigger::Never),
        (60u64..200_000).prop_map(|seconds| Trigger::Every { seconds }),
        cron.prop_map(|line| Trigger::Cron { line }),
    ]
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let zone = prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("Australia/Lord_Howe"), Just("America/New_York")];
    let parts = (trigger(), zone, prop::collection::vec(window(), 0..4), blackouts(), 0u32..7200);
    parts.prop_map(|(full, zone, windows, blackouts, jitter_seconds)| {
        let (quick, index, zone) = (Trigger::Own, Trigger::Own, zone.to_owned());
        Schedule { full, quick, index, zone, windows, blackouts, jitter_seconds, suspended: false }
    })
}

fn history(now: LogTime) -> impl Strategy<Value = History> {
    let ago = move |minutes: u64| LogTime(now.0 - minutes * MINUTE);
    let started = prop::option::of(0u64..20_000);
    let unfinished = prop::option::weighted(0.2, (0u64..100, 0u32..9, any::<bool>()));
    let margins = prop::collection::vec((0u64..6000, any::<bool>()), 0..4);
    (started, unfinished, margins, 0u64..20_000).prop_map(move |(started, unfinished, margins, since)| {
        let cycle = OwnCycle { enabled: true, interval_seconds: 86_400 };
        let unfinished =
            unfinished.map(|(at, failures, requested)| Unfinished { stopped: ago(at), failures, requested });
        let margin = |(at, is_drop): &(u64, bool)| Margin { at: ago(3000).plus(at * MINUTE), is_drop: *is_drop };
        History {
            since: ago(since),
            own: Some(Own { full: cycle, quick: OwnCycle { interval_seconds: 3600, ..cycle } }),
            full: Past { started: started.map(ago), ended: None, unfinished },
            margins: margins.iter().map(margin).collect(),
            ..History::default()
        }
    })
}

/// Whether a schedule in UTC with weekly windows is open, minute by minute of the week.
fn is_open(schedule: &Schedule, time: LogTime) -> bool {
    if schedule.blackouts.iter().any(|blackout| blackout.from <= time && time < blackout.until) {
        return false;
    }
    let now = time.since(MONDAY) / MINUTE % WEEK_MINUTES;
    schedule.windows.is_empty()
        || schedule.windows.iter().any(|window| {
            let Window::Weekly { days, start, end } = window else { panic!("weekly") };
            let (start, end) = (u64::from(start.minutes()), u64::from(end.minutes()));
            let length = if end > start { end - start } else { end + 1440 - start };
            (0u8..7).filter(|day| days.contains(*day)).any(|day| {
                let begin = u64::from(day) * 1440 + start;
                (now + WEEK_MINUTES - begin) % WEEK_MINUTES < length
            })
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn an_answer_holds_until_its_time_and_then_it_is_now(
        schedule in schedule(), (now, history) in (0..2 * WEEK_MINUTES).prop_flat_map(|minutes| {
            let now = MONDAY.plus(WEEK_MINUTES * MINUTE + minutes * MINUTE);
            (Just(now), history(now))
        }),
    ) {
        let table = timetable(&schedule);
        for lane in Lane::ALL {
            match table.next(lane, &history, now) {
                Next::At(time) => {
                    prop_assert!(time > now);
                    let then = table.next(lane, &history, time);
                    prop_assert!(matches!(then, Next::Now(_)), "{lane}: {} then {:?}", shown(time), then);
                    for between in [now.0 + 1, now.0.midpoint(time.0), time.0 - 1].map(LogTime).into_iter().filter(|t| *t < time) {
                        prop_assert_eq!(table.next(lane, &history, between), Next::At(time), "asked at {}", shown(between));
                    }
                }
                Next::Now(_) if history.past(lane).unfinished.is_some_and(|unfinished| unfinished.requested) => {}
                Next::Now(_) => {
                    let end = table.ends(now);
                    prop_assert!(end.is_none_or(|end| end.since(now) >= HOLD), "{lane}: a stage fits before {:?}", end.map(shown));
                }
                Next::Never(reason) => prop_assert!(reason.contains("never"), "{}", reason),
            }
        }
    }

    #[test]
    fn ends_and_openings_agree_with_a_walk_over_the_week(schedule in schedule(), minute in 0..4 * WEEK_MINUTES) {
        let windows = schedule.windows.into_iter().filter(|window| matches!(window, Window::Weekly { .. })).collect();
        let schedule = Schedule { zone: "UTC".to_owned(), windows, ..schedule };
        let (table, now) = (timetable(&schedule), MONDAY.plus(minute * MINUTE));
        let walk = |from: LogTime, open: bool, minutes: u64| {
            (0..=minutes).map(|m| from.plus(m * MINUTE)).find(|time| is_open(&schedule, *time) == open)
        };
        let horizon = 5 * WEEK_MINUTES;
        match (table.ends(now), walk(now, false, horizon)) {
            (None, None) => {}
            (Some(end), Some(closed)) => prop_assert_eq!(end, closed, "{} and {}", shown(end), shown(closed)),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
        // The first time from which it is open for five minutes.
        let mut from = now;
        let expected = loop {
            let Some(start) = walk(from, true, horizon) else { break None };
            match walk(start, false, HOLD / MINUTE - 1) {
                Some(closed) => from = closed,
                None => break Some(start),
            }
        };
        prop_assert_eq!(table.opening(now).map(|opening| opening.start), expected);
    }
}
