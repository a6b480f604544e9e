//! A year of random schedules, with a coordinator that is down at random times, against a walk over every minute of the year.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

const ZONES: [&str; 6] =
    ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu", "America/St_Johns"];
const YEAR_MINUTES: u64 = 366 * 24 * 60;

#[derive(Debug, Clone)]
struct Line {
    minutes: BTreeSet<u8>,
    hours: BTreeSet<u8>,
    weekdays: BTreeSet<u8>,
}

impl Line {
    fn text(&self) -> String {
        let list = |set: &BTreeSet<u8>| set.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        format!("{} {} * * {}", list(&self.minutes), list(&self.hours), list(&self.weekdays))
    }

    fn names(&self, wall: DateTime) -> bool {
        let part = |number: i8| u8::try_from(number).unwrap();
        self.minutes.contains(&part(wall.minute()))
            && self.hours.contains(&part(wall.hour()))
            && self.weekdays.contains(&part(wall.weekday().to_sunday_zero_offset()))
    }

    /// Every slot after `from`, found by looking at the wall each minute.
    fn slots(&self, zone: &TimeZone, from: LogTime, minutes: u64) -> Vec<LogTime> {
        let wall = |time: u64| zone.to_datetime(Timestamp::from_millisecond(i64::try_from(time).unwrap()).unwrap());
        let begin = from.0 / MINUTE * MINUTE - DAY;
        let (mut seen, mut slots) = (wall(begin), Vec::new());
        for minute in 1..minutes + DAY / MINUTE {
            let time = begin + minute * MINUTE;
            let shows = wall(time);
            if shows <= seen {
                continue;
            }
            let mut hit = false;
            while seen < shows {
                seen = seen.checked_add(jiff::Span::new().minutes(1)).unwrap();
                hit |= self.names(seen);
            }
            if hit && time > from.0 {
                slots.push(LogTime(time));
            }
        }
        slots
    }
}

fn line() -> impl Strategy<Value = Line> {
    let set = |values: std::ops::Range<u8>, most| prop::collection::btree_set(values, 1..=most);
    // Early hours more often than others: that is where clocks jump.
    let hours = prop_oneof![set(0..4, 4), set(0..24, 6), Just((0..24).collect())];
    let weekdays = prop_oneof![Just((0..7).collect::<BTreeSet<u8>>()), set(0..7, 3)];
    (set(0..60, 3), hours, weekdays).prop_map(|(minutes, hours, weekdays)| Line { minutes, hours, weekdays })
}

/// The first time from `time` on at which the coordinator is up.
fn up(downs: &[(LogTime, LogTime)], mut time: LogTime) -> LogTime {
    while let Some(down) = downs.iter().find(|down| down.0 <= time && time < down.1) {
        time = down.1;
    }
    time
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_slot_is_lost_or_doubled_over_a_year(
        line in line(), zone in 0..ZONES.len(), offset in 0u64..YEAR_MINUTES, jitter in prop_oneof![Just(0u32), 1u32..5400],
        downs in prop::collection::vec((0..YEAR_MINUTES, 1u64..4000), 0..20),
        lengths in prop::collection::vec(1u64..300, 1..20),
    ) {
        let from = LogTime(1_767_225_600_000 + offset * MINUTE);
        let until = from.plus(YEAR_MINUTES * MINUTE);
        let downs: Vec<_> = downs.iter().map(|(at, length)| (from.plus(at * MINUTE), from.plus((at + length) * MINUTE))).collect();
        let schedule = Schedule { jitter_seconds: jitter, ..full(&line.text(), ZONES[zone]) };
        let slots = line.slots(&schedule::zone(ZONES[zone]).unwrap(), from, YEAR_MINUTES + 8 * DAY / MINUTE);
        let slot_after = |time: LogTime| slots.get(slots.partition_point(|slot| *slot <= time)).copied();

        let table = timetable(&schedule);
        let (mut history, mut lengths) = (since(from), lengths.iter().cycle());
        let (mut now, mut free, mut last) = (up(&downs, from), from, from);
        while now < until {
            match table.next(Lane::Full, &history, now) {
                Next::Never(reason) => return Err(TestCaseError::fail(reason)),
                Next::At(time) => {
                    prop_assert!(time > now);
                    now = up(&downs, time);
                }
                Next::Now(why) => {
                    let expected = slot_after(last).ok_or_else(|| TestCaseError::fail(format!("one too many at {}", shown(now))))?;
                    prop_assert_eq!(&why, &Why::Scheduled { slot: expected }, "{}: {}", shown(now), shown(expected));
                    let most = slot_after(expected).map_or(0, |next| next.since(expected) - 1).min(u64::from(jitter) * SECOND);
                    let earliest = up(&downs, expected.max(free));
                    let latest = up(&downs, expected.plus(most).max(free));
                    prop_assert!(earliest <= now && now <= latest, "{} <= {} <= {}", shown(earliest), shown(now), shown(latest));
                    last = now;
                    free = now.plus(lengths.next().unwrap() * MINUTE);
                    history.full = Past { started: Some(now), ended: Some(free), unfinished: None };
                    now = up(&downs, free);
                }
            }
        }
        let lost = slot_after(last).filter(|slot| up(&downs, slot.max(&free).plus(u64::from(jitter) * SECOND)) < until);
        prop_assert_eq!(lost, None, "a slot that nobody came for");
    }
}
