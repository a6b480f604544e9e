//! What is next: own settings, failures, requests, the chase, jitter.

use proptest::prelude::*;

use super::*;

const NOW: LogTime = LogTime(1_800_000_000_000);

fn own(full: bool, quick: bool) -> Option<Own> {
    let cycle = |enabled, interval_seconds| OwnCycle { enabled, interval_seconds };
    Some(Own { full: cycle(full, 86_400), quick: cycle(quick, 3600) })
}

fn past(ago: u64) -> Past {
    let started = LogTime(NOW.0 - ago);
    Past { started: Some(started), ended: Some(started.plus(MINUTE)), unfinished: None }
}

fn lanes(history: &History) -> [Next; 3] {
    let table = timetable(&Schedule::default());
    Lane::ALL.map(|lane| table.next(lane, history, NOW))
}

fn is_never(next: &Next, part: &str) -> bool {
    matches!(next, Next::Never(reason) if reason.contains(part))
}

#[test]
fn own_settings_count_from_our_own_starts() {
    let [full, quick, index] = lanes(&History { own: own(true, true), ..since(NOW) });
    assert_eq!([&full, &quick, &index].map(|next| matches!(next, Next::Now(Why::Scheduled { .. }))), [true; 3]);
    let history = History { own: own(true, true), full: past(2 * HOUR), quick: past(30 * MINUTE), ..since(NOW) };
    let [full, quick, index] = lanes(&history);
    assert_eq!(full, Next::At(NOW.plus(22 * HOUR)));
    assert_eq!(quick, Next::At(NOW.plus(30 * MINUTE)));
    assert_eq!(index, quick, "a quick cycle counts as index work");
    let after_full = History { quick: past(20 * HOUR), full: past(10 * MINUTE), ..history };
    assert_eq!(lanes(&after_full)[1], Next::At(NOW.plus(50 * MINUTE)), "a full cycle counts as a quick one");
}

#[test]
fn what_is_disabled_or_unknown_does_not_run_by_itself() {
    let [full, quick, index] = lanes(&History { own: own(false, true), ..since(NOW) });
    assert!(
        is_never(&full, "full cycles are disabled") && matches!(quick, Next::Now(_)) && matches!(index, Next::Now(_))
    );
    let [full, quick, index] = lanes(&History { own: own(true, false), ..since(NOW) });
    assert!(matches!(full, Next::Now(_)) && is_never(&quick, "quick cycles are disabled") && is_never(&index, "quick"));
    assert!(lanes(&since(NOW)).iter().all(|next| is_never(next, "have not been read yet")));
    let suspended = Schedule { suspended: true, ..Schedule::default() };
    let history = History { own: own(true, true), ..since(NOW) };
    assert!(is_never(&timetable(&suspended).next(Lane::Full, &history, NOW), "suspended"));
    assert!(is_never(
        &timetable(&super::full("@daily", "UTC")).next(Lane::Quick, &history, NOW),
        "quick lane is `never`"
    ));
}

#[test]
fn an_interval_of_nothing_is_not_a_busy_loop() {
    let zero = OwnCycle { enabled: true, interval_seconds: 0 };
    let history = History { own: Some(Own { full: zero, quick: zero }), full: past(0), ..since(NOW) };
    assert_eq!(lanes(&history)[0], Next::At(NOW.plus(MINUTE)));
    let endless = OwnCycle { enabled: true, interval_seconds: u64::MAX };
    let history = History { own: Some(Own { full: endless, quick: endless }), ..history };
    assert!(matches!(lanes(&history)[0], Next::At(_)));
}

#[test]
fn a_failed_cycle_stays_due_and_waits_longer_each_time() {
    let minutes: Vec<u64> = (0..9).chain([40, u32::MAX]).map(|n| back_off(n) / MINUTE).collect();
    assert_eq!(minutes, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    let stopped = |failures, requested| {
        let unfinished = Some(Unfinished { stopped: NOW, failures, requested });
        History { full: Past { unfinished, ..past(HOUR) }, ..since(NOW) }
    };
    let table = timetable(&windowed("@daily", "UTC", &[]));
    assert_eq!(table.next(Lane::Full, &stopped(0, false), NOW), Next::Now(Why::Unfinished), "parked: at once");
    let failed = stopped(3, false);
    assert_eq!(table.next(Lane::Full, &failed, NOW), Next::At(NOW.plus(4 * MINUTE)));
    assert_eq!(table.next(Lane::Full, &failed, NOW.plus(4 * MINUTE)), Next::Now(Why::Unfinished));
    let never = timetable(&full("never", "UTC"));
    assert_eq!(never.next(Lane::Full, &stopped(0, false), NOW), Next::Now(Why::Unfinished), "whatever the trigger");

    // NOW is 08:00: the window is shut.
    let closed = timetable(&windowed("@daily", "UTC", &["22:00-06:00"]));
    assert_eq!(closed.next(Lane::Full, &stopped(1, false), NOW), Next::At(NOW.plus(14 * HOUR)));
    assert_eq!(closed.next(Lane::Full, &stopped(1, true), NOW), Next::At(NOW.plus(MINUTE)), "a person asked for it");
    assert_eq!(closed.next(Lane::Full, &stopped(1, true), NOW.plus(MINUTE)), Next::Now(Why::Unfinished));
    let suspended = timetable(&Schedule { suspended: true, ..full("@daily", "UTC") });
    assert!(is_never(&suspended.next(Lane::Full, &stopped(0, false), NOW), "suspended"));
}

#[test]
fn a_request_is_remembered_by_its_key() {
    let mut history = since(NOW);
    let shut = Schedule { suspended: true, ..windowed("never", "UTC", &["22:00-06:00"]) };
    let table = timetable(&shut);
    assert_eq!(history.requests.ask(Lane::Full, "monday"), Asked::New);
    assert_eq!(history.requests.ask(Lane::Full, "monday"), Asked::Waiting);
    assert_eq!(history.requests.ask(Lane::Quick, "monday"), Asked::Waiting, "the key alone counts");
    assert_eq!(history.requests.ask(Lane::Full, "tuesday"), Asked::New);
    assert_eq!(table.next(Lane::Full, &history, NOW), Next::Now(Why::Requested("monday".to_owned())));
    assert!(is_never(&table.next(Lane::Quick, &history, NOW), "suspended"));
    assert!(history.requests.begin("monday"));
    assert!(!history.requests.begin("monday"));
    assert_eq!(table.next(Lane::Full, &history, NOW), Next::Now(Why::Requested("tuesday".to_owned())));
    assert!(history.requests.begin("tuesday"));
    assert_eq!(history.requests.ask(Lane::Full, "monday"), Asked::Begun, "one cycle, now and later");
    assert!(is_never(&table.next(Lane::Full, &history, NOW), "suspended"));
}

#[test]
fn requests_are_bounded() {
    let mut requests = Requests::default();
    assert_eq!(requests.ask(Lane::Full, ""), Asked::BadKey);
    assert_eq!(requests.ask(Lane::Full, &"k".repeat(KEY_BYTES_MAX + 1)), Asked::BadKey);
    for number in 0..REQUESTS_MAX {
        assert_eq!(requests.ask(Lane::Full, &format!("k{number}")), Asked::New);
    }
    assert_eq!(requests.ask(Lane::Full, "one more"), Asked::TooMany);
    for number in 0..=KEYS_KEPT {
        let key = format!("k{number}");
        requests.ask(Lane::Full, &key);
        assert!(requests.begin(&key));
    }
    assert_eq!(requests.ask(Lane::Full, &format!("k{KEYS_KEPT}")), Asked::Begun);
    assert_eq!(requests.ask(Lane::Full, "k0"), Asked::New, "the oldest of more than {KEYS_KEPT} keys is forgotten");
}

/// Full cycles of ten minutes: each reports the wait from mark to drop of what was marked first. When are bytes dropped?
fn chased(schedule: &Schedule, wait: MarkToDrop) -> (u64, Vec<u64>) {
    let table = timetable(schedule);
    let mut history = History { mark_to_drop: wait, full: past(0), ..since(NOW) };
    let (mark, mut now, mut runs) = (NOW.plus(5 * MINUTE), NOW, Vec::new());
    // (start, end) of the GCs; Kopia wants one that began an hour after the mark and ended four hours before the drop.
    let mut collections = vec![(NOW, NOW.plus(10 * MINUTE))];
    loop {
        let paired = collections.iter().filter(|gc| gc.0 >= mark.plus(HOUR)).map(|gc| gc.1).min();
        let drop = paired.unwrap_or(mark.plus(HOUR)).plus(4 * HOUR).max(mark.plus(wait.wait()));
        history.margins = vec![Margin { at: drop, is_drop: true }];
        history.full.ended = collections.last().map(|gc| gc.1);
        while !matches!(table.next(Lane::Full, &history, now), Next::Now(_)) {
            let Next::At(time) = table.next(Lane::Full, &history, now) else { panic!("never") };
            now = time;
        }
        runs.push(now.since(NOW) / MINUTE);
        if paired.is_some_and(|end| now > end.plus(4 * HOUR)) && now > mark.plus(wait.wait()) {
            return (now.since(mark) / MINUTE, runs);
        }
        history.full.started = Some(now);
        collections.push((now, now.plus(10 * MINUTE)));
        assert!(runs.len() < 20, "{runs:?}");
    }
}

#[test]
fn r15_the_chase_comes_back_when_each_margin_ends() {
    let weekly = full("every 1w", "UTC");
    assert_eq!(chased(&weekly, MarkToDrop::Day), (24 * 60 + 1, vec![19 * 60 + 6, 24 * 60 + 6]), "not a minute earlier");
    let (five, runs) = chased(&weekly, MarkToDrop::FiveHours);
    assert!(five < 6 * 60, "{five} {runs:?}");
    assert!(five > 5 * 60, "{five} {runs:?}");
    assert!(runs.len() <= 3, "{runs:?}");
    let windowed = windowed("every 1w", "UTC", &["07:00-09:00"]);
    assert_eq!(chased(&windowed, MarkToDrop::Day).0, 47 * 60 - 5, "windows hold the chase, too: NOW is 08:00");
}

#[test]
fn the_chase_is_hourly_at_most_and_only_where_full_cycles_run_by_themselves() {
    let margin = |ahead: u64| Margin { at: NOW.plus(ahead), is_drop: false };
    let history = |margins: &[Margin]| History { margins: margins.to_vec(), full: past(0), ..since(NOW) };
    let table = timetable(&full("every 1w", "UTC"));
    let next = |margins: &[Margin]| table.next(Lane::Full, &history(margins), NOW.plus(MINUTE));
    assert_eq!(next(&[margin(3 * HOUR), margin(2 * HOUR)]), Next::At(NOW.plus(2 * HOUR + CHASE_SLACK)));
    assert_eq!(next(&[margin(2 * MINUTE)]), Next::At(NOW.plus(HOUR + MINUTE)), "an hour after the end of the last");
    assert_eq!(next(&[margin(0)]), Next::At(NOW.plus(7 * DAY)), "it had its chance");
    let paired = Margin { at: NOW.plus(22 * HOUR), is_drop: true };
    assert_eq!(
        next(&[paired]),
        Next::At(NOW.plus(22 * HOUR + CHASE_SLACK)),
        "the last GC came two hours after the mark"
    );
    let weekly = timetable(&Schedule { quick: "every 1w".parse().unwrap(), ..super::full("every 1w", "UTC") });
    assert_eq!(weekly.next(Lane::Quick, &history(&[margin(2 * HOUR)]), NOW), Next::At(NOW.plus(7 * DAY)));
    let slot = table.next(Lane::Full, &history(&[margin(9 * DAY)]), NOW.plus(8 * DAY));
    assert_eq!(slot, Next::Now(Why::Scheduled { slot: NOW.plus(7 * DAY) }), "a slot does not wait for the chase");
    let due = table.next(Lane::Full, &history(&[margin(2 * HOUR)]), NOW.plus(3 * HOUR));
    assert_eq!(due, Next::Now(Why::MarginEnded));
    let never = timetable(&full("never", "UTC"));
    assert!(is_never(&never.next(Lane::Full, &history(&[margin(2 * HOUR)]), NOW.plus(3 * HOUR)), "never"));
}

#[test]
fn changes_of_a_schedule_do_not_make_up_for_slots_before_them() {
    let table = timetable(&full("0 3 * * *", "UTC"));
    let history = History { full: past(30 * DAY), ..since(NOW) };
    assert_eq!(table.next(Lane::Full, &history, NOW), Next::At(NOW.plus(19 * HOUR)));
    let earlier = History { since: LogTime(NOW.0 - DAY), ..history };
    assert!(matches!(table.next(Lane::Full, &earlier, NOW), Next::Now(Why::Scheduled { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn jitter_stays_within_its_bounds_and_is_the_same_each_time(
        number in 0u32..10_000, jitter in 0u32..7200, minutes in 1u64..120, windows in any::<bool>(), back in 0u64..400,
    ) {
        let trigger = if minutes % 2 == 0 { format!("every {minutes}m") } else { format!("{} */2 * * *", minutes % 60) };
        let windows: &[&str] = if windows { &["08:00-08:30", "22:00-06:00"] } else { &[] };
        let schedule = Schedule { jitter_seconds: jitter, ..windowed(&trigger, "UTC", windows) };
        let plain = Timetable::new(repository(number), &Schedule { jitter_seconds: 0, ..schedule.clone() }).unwrap();
        let table = Timetable::new(repository(number), &schedule).unwrap();
        let history = History { full: past(0), ..since(LogTime(NOW.0 - back * MINUTE)) };
        let Next::At(slot) = plain.next(Lane::Full, &history, NOW) else { return Ok(()) };
        let first = table.next(Lane::Full, &history, NOW);
        prop_assert_eq!(&first, &Timetable::new(repository(number), &schedule).unwrap().next(Lane::Full, &history, NOW));
        let Next::At(time) = first else { return Err(TestCaseError::fail("it was due later")) };
        prop_assert!(time >= slot && time.since(slot) <= u64::from(jitter) * SECOND);
        let following = History { full: Past { started: Some(slot), ..past(0) }, ..history.clone() };
        if let (Next::At(next), true) = (plain.next(Lane::Full, &following, slot), windows.is_empty()) {
            prop_assert!(time < next, "{} reaches the next slot {}", shown(time), shown(next));
        }
        prop_assert!(table.ends(time).is_none_or(|end| end.since(time) >= HOLD), "a stage fits before the end");
        let now = table.next(Lane::Full, &history, time);
        prop_assert!(matches!(now, Next::Now(Why::Scheduled { .. })), "{:?}", now);
        let almost = table.next(Lane::Full, &history, LogTime(time.0 - 1));
        prop_assert_eq!(almost, Next::At(time));
    }
}

#[test]
fn jitter_spreads_repositories() {
    let schedule = Schedule { jitter_seconds: 3600, ..full("0 3 * * *", "UTC") };
    let starts: std::collections::BTreeSet<u64> = (0..200)
        .map(|number| match Timetable::new(repository(number), &schedule).unwrap().next(Lane::Full, &since(NOW), NOW) {
            Next::At(time) => time.since(NOW) / (5 * MINUTE),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(starts.len(), 12, "two hundred in each five minutes of an hour: {starts:?}");
}
