//! Slots where the clock jumps, windows, blackouts.

use super::*;

fn slots(trigger: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
    let table = timetable(&full(trigger, zone));
    starts(&table, &mut since(at(from)), at(until)).into_iter().map(shown).collect()
}

#[test]
fn a_slot_in_the_gap_comes_once_right_after_it() {
    let berlin = slots("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
    assert_eq!(berlin, ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    let many = slots("*/20 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T12:00:00Z");
    assert_eq!(
        many,
        ["2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z", "2026-03-29T01:40:00Z"],
        "02:00 to 02:40 fall on 03:00"
    );
    let new_york = slots("15 2 8 3 *", "America/New_York", "2026-01-01T00:00:00Z", "2026-12-31T00:00:00Z");
    assert_eq!(new_york, ["2026-03-08T07:00:00Z"]);
    // Half an hour is skipped: 02:00 becomes 02:30, which is 15:30 the day before in UTC.
    let lord_howe = slots("10 2 * * *", "Australia/Lord_Howe", "2026-10-02T20:00:00Z", "2026-10-05T00:00:00Z");
    assert_eq!(lord_howe, ["2026-10-03T15:30:00Z", "2026-10-04T15:10:00Z"]);
    // A whole day is skipped: 30 December 2011 was not.
    let apia = slots("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", "2012-02-01T00:00:00Z");
    assert_eq!(apia, ["2011-12-30T10:00:00Z"]);
}

#[test]
fn a_doubled_hour_comes_once() {
    let berlin = slots("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
    assert_eq!(berlin, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    let hourly = slots("@hourly", "America/New_York", "2026-11-01T04:30:00Z", "2026-11-01T09:00:00Z");
    assert_eq!(hourly, ["2026-11-01T05:00:00Z", "2026-11-01T07:00:00Z", "2026-11-01T08:00:00Z"]);
    // The coordinator comes up in the second half of the doubled half hour.
    let lord_howe = slots("*/10 1 * * *", "Australia/Lord_Howe", "2026-04-04T15:05:00Z", "2026-04-04T20:00:00Z");
    assert_eq!(lord_howe, Vec::<String>::new());
    let lord_howe = slots("*/10 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:25:00Z", "2026-04-04T20:00:00Z");
    let expected = ["14:30", "14:40", "14:50"].map(|time| format!("2026-04-04T{time}:00Z"));
    assert_eq!(lord_howe, expected);
}

#[test]
fn a_window_over_midnight_holds_what_comes_too_early_and_parks_what_takes_too_long() {
    let table = timetable(&windowed("0 12 * * *", "UTC", &["mon-fri 22:00-06:00"]));
    let mut history = since(at("2026-11-20T00:00:00Z")); // A Friday.
    let found = starts(&table, &mut history, at("2026-11-25T00:00:00Z"));
    let expected = ["2026-11-20T22:00:00Z", "2026-11-23T22:00:00Z", "2026-11-24T22:00:00Z"];
    assert_eq!(found.into_iter().map(shown).collect::<Vec<_>>(), expected, "three slots of a weekend are one cycle");
    let ends = |text: &str| table.ends(at(text)).map(shown).unwrap();
    assert_eq!(ends("2026-11-20T23:00:00Z"), "2026-11-21T06:00:00Z");
    assert_eq!(ends("2026-11-21T05:59:00Z"), "2026-11-21T06:00:00Z", "of the window that began on Friday");
    assert_eq!(ends("2026-11-21T06:00:00Z"), "2026-11-21T06:00:00Z", "over: park at once");
    assert_eq!(ends("2026-11-23T05:00:00Z"), "2026-11-23T05:00:00Z", "no window began on Sunday");
}

#[test]
fn nothing_begins_in_the_last_five_minutes() {
    let table = timetable(&windowed("0 12 * * *", "UTC", &["10:00-12:04"]));
    let found = starts(&table, &mut since(at("2026-11-20T11:00:00Z")), at("2026-11-22T00:00:00Z"));
    assert_eq!(found.into_iter().map(shown).collect::<Vec<_>>(), ["2026-11-21T10:00:00Z"]);
    let table = timetable(&windowed("0 12 * * *", "UTC", &["10:00-12:05"]));
    let found = starts(&table, &mut since(at("2026-11-20T11:00:00Z")), at("2026-11-21T00:00:00Z"));
    assert_eq!(found.into_iter().map(shown).collect::<Vec<_>>(), ["2026-11-20T12:00:00Z"]);
}

#[test]
fn windows_that_touch_are_one_and_some_have_no_end() {
    let ends = |windows: &[&str], now: &str| timetable(&windowed("@daily", "UTC", windows)).ends(at(now)).map(shown);
    let touching = ends(&["mon 22:00-24:00", "tue 00:00-03:00", "tue 2:00-5:00"], "2026-11-23T23:00:00Z");
    assert_eq!(touching.as_deref(), Some("2026-11-24T05:00:00Z"));
    assert_eq!(ends(&["00:00-24:00"], "2026-11-23T23:00:00Z"), None);
    assert_eq!(ends(&[], "2026-11-23T23:00:00Z"), None);
    let monthly = ends(&["0 22 1 * * until 06:00"], "2026-12-02T03:00:00Z");
    assert_eq!(monthly.as_deref(), Some("2026-12-02T06:00:00Z"));
    let whole = ends(&["0 6 1 * * until 06:00"], "2026-12-01T06:00:00Z");
    assert_eq!(whole.as_deref(), Some("2026-12-02T06:00:00Z"), "up to the next such time, a day later");
    let table = timetable(&windowed("@daily", "UTC", &["0 22 1 * * until 06:00"]));
    assert_eq!(table.opening(at("2026-11-02T06:00:00Z")).unwrap().start, at("2026-12-01T22:00:00Z"));
}

#[test]
fn windows_follow_the_wall_over_a_jump() {
    let table = timetable(&windowed("@daily", "Europe/Berlin", &["sat 22:00-06:00"]));
    let night = |from: &str| {
        let opening = table.opening(at(from)).unwrap();
        (opening.end.unwrap().since(opening.start)) / HOUR
    };
    assert_eq!(
        [night("2026-03-28T00:00:00Z"), night("2026-10-24T00:00:00Z"), night("2026-06-06T00:00:00Z")],
        [7, 9, 8]
    );
    let gap = timetable(&windowed("@daily", "Europe/Berlin", &["sun 02:00-02:45"]));
    let next = gap.opening(at("2026-03-28T00:00:00Z")).unwrap();
    assert_eq!(shown(next.start), "2026-04-05T00:00:00Z", "a window within the gap is no window that week");
}

#[test]
fn blackouts_hold_and_park() {
    let mut schedule = windowed("0 3 * * *", "UTC", &["02:00-05:00"]);
    schedule.blackouts = vec![
        blackout("2026-11-23T00:00:00Z/2026-11-24T04:00:00Z"),
        blackout("2026-11-24T03:00:00Z/2026-11-24T04:58:00Z overlapping"),
        blackout("2026-11-25T04:00:00Z/2026-11-26T00:00:00Z"),
    ];
    let table = timetable(&schedule);
    let found = starts(&table, &mut since(at("2026-11-22T00:00:00Z")), at("2026-11-27T00:00:00Z"));
    let expected = ["2026-11-22T03:00:00Z", "2026-11-25T02:00:00Z", "2026-11-25T03:00:00Z", "2026-11-26T03:00:00Z"];
    assert_eq!(found.into_iter().map(shown).collect::<Vec<_>>(), expected);
    let ends = |text: &str| table.ends(at(text)).map(shown).unwrap();
    assert_eq!(ends("2026-11-25T03:00:00Z"), "2026-11-25T04:00:00Z", "parks where the blackout begins");
    assert_eq!(ends("2026-11-24T03:30:00Z"), "2026-11-24T03:30:00Z", "in a blackout: at once");
    assert_eq!(table.opening(at("2026-11-25T03:00:00Z")).unwrap().end, Some(at("2026-11-25T04:00:00Z")));
    let just_before =
        timetable(&Schedule { full: "57 3 25 * *".parse().unwrap(), windows: Vec::new(), ..schedule.clone() });
    let found = starts(&just_before, &mut since(at("2026-11-25T00:00:00Z")), at("2026-11-27T00:00:00Z"));
    assert_eq!(found, [at("2026-11-26T00:00:00Z")], "no stage fits before the blackout");
    let mut into_window = windowed("0 12 * * *", "UTC", &["22:00-06:00"]);
    into_window.blackouts = vec![blackout("2026-11-25T20:00:00Z/2026-11-25T23:00:00Z")];
    let open = timetable(&into_window).opening(at("2026-11-25T12:00:00Z")).unwrap();
    assert_eq!(open.start, at("2026-11-25T23:00:00Z"));
    let found = starts(&timetable(&into_window), &mut since(at("2026-11-25T00:00:00Z")), at("2026-11-26T00:00:00Z"));
    assert_eq!(found, [at("2026-11-25T23:00:00Z")], "a window that begins in a blackout is open after it");
    let open = Schedule { windows: Vec::new(), ..schedule };
    assert_eq!(timetable(&open).ends(at("2026-11-22T00:00:00Z")), Some(at("2026-11-23T00:00:00Z")));
}

#[test]
fn windows_and_blackouts_that_leave_no_time_are_refused() {
    let now = at("2026-11-22T00:00:00Z");
    assert_eq!(check(&windowed("@daily", "UTC", &["0 22 29 2 * until 06:00"]), now), Ok(()), "a leap day comes");
    let mut schedule = full("@daily", "UTC");
    schedule.blackouts = vec![blackout("2020-01-01T00:00:00Z/2045-01-01T00:00:00Z for good")];
    assert_eq!(check(&schedule, now), Err(ScheduleError::NoTime));
    assert_eq!(check(&schedule, at("2040-01-01T00:00:00Z")), Ok(()));
    let leap = Schedule { windows: vec!["0 22 29 2 * until 06:00".parse().unwrap()], ..schedule };
    assert_eq!(check(&leap, at("2026-01-01T00:00:00Z")), Err(ScheduleError::NoTime));
    let zone = Schedule { zone: "Mars/Olympus".to_owned(), ..full("@daily", "UTC") };
    assert!(matches!(check(&zone, now), Err(ScheduleError::Zone(_))));
}
