//! Many repositories under a set clock: the real machine, and somebody who does the work of workers.

mod fleet;

use verger_proto::schedule::{Margin, Own, OwnCycle};
use verger_proto::{Acting, Command, Mode, RegistrationChange};

use super::*;
use fleet::{Fleet, NIGHT, cycle, id, of, wish};

#[test]
fn hundreds_get_their_turns_by_weight_and_no_more_run_than_there_are_places() {
    let mut fleet = Fleet::new(NIGHT);
    fleet.limits = Limits { total: 8, bucket_default: 3, short_percent: 0, ..Limits::default() };
    fleet.length = 4 * MINUTE;
    for number in 0..200 {
        fleet.add(number, Schedule { quick: "every 1m".parse().unwrap(), ..full("never", "UTC") });
        // All are due all the time: only shares can be had.
        let weight = if number / 4 % 2 == 0 { 3 } else { 1 };
        fleet.change(number, RegistrationChange::Weight(weight));
    }
    fleet.run(DAY);
    assert_eq!(fleet.most, 8, "at once");
    assert!(fleet.most_in_a_bucket <= 3, "{} at once in a bucket", fleet.most_in_a_bucket);
    let turns =
        |rest| -> Vec<usize> { (0..200).filter(|n| n / 4 % 2 == rest).map(|n| fleet.starts_of(n).len()).collect() };
    let (heavy, light) = (turns(0), turns(1));
    assert!(light.iter().all(|turns| *turns >= 5), "somebody starves: {light:?}");
    let share = heavy.iter().sum::<usize>() as f64 / light.iter().sum::<usize>() as f64;
    assert!((2.5..3.5).contains(&share), "{share}");
}

#[test]
fn a_cycle_parks_where_its_window_ends_and_goes_on_in_the_next() {
    for elsewhere in [false, true] {
        let mut fleet = Fleet::new("2026-11-21T21:00:00Z");
        fleet.elsewhere = elsewhere;
        fleet.length = 10 * HOUR;
        fleet.add(1, windowed("@daily", "UTC", &["22:00-06:00"]));
        fleet.run(2 * DAY);
        let times: Vec<String> = fleet.log.iter().map(|(at, what)| format!("{} {what}", shown(*at))).collect();
        let expected = [
            "2026-11-22T00:00:00Z 1 due full",
            "2026-11-22T06:00:00Z 1 parks",
            "2026-11-22T22:00:00Z 1 goes on",
            "2026-11-23T06:00:00Z 1 parks",
        ];
        assert_eq!(times[..4], expected);
    }
}

#[test]
fn what_a_person_asked_for_knows_no_window_and_is_not_parked() {
    for elsewhere in [false, true] {
        let mut fleet = Fleet::new("2026-11-21T09:00:00Z");
        fleet.elsewhere = elsewhere;
        fleet.length = 2 * HOUR;
        fleet.add(1, windowed("@daily", "UTC", &["22:00-23:00"]));
        fleet.go(Command::RequestCycle { repository: id(1), key: "now".to_owned(), options: cycle(Mode::Full) });
        fleet.run(3 * HOUR);
        assert_eq!(fleet.said(), ["1 asked full", "1 done"]);
        // One that runs by itself is theirs as soon as somebody wants the same.
        fleet.run(34 * HOUR);
        assert_eq!(fleet.said()[2..], ["1 due full"], "{:?}", fleet.said());
        wish(&mut fleet, 1, "again", Mode::Full);
        fleet.run(HOUR);
        assert!(!fleet.said().contains(&"1 parks".to_owned()), "{:?}", fleet.said());
    }
}

#[test]
fn a_blackout_parks_and_a_wish_behind_what_it_holds_lets_that_go_on() {
    for elsewhere in [false, true] {
        let mut fleet = Fleet::new("2026-11-21T09:00:00Z");
        fleet.elsewhere = elsewhere;
        fleet.length = 3 * HOUR;
        let dark = blackout("2026-11-21T10:00:00Z/2026-12-24T00:00:00Z");
        fleet.add(1, Schedule { blackouts: vec![dark], ..full("every 1d", "UTC") });
        fleet.run(DAY);
        assert_eq!(fleet.said(), ["1 due full", "1 parks"]);
        wish(&mut fleet, 1, "index", Mode::Quick);
        fleet.run(7 * HOUR);
        assert_eq!(fleet.said()[2..], ["1 goes on", "1 done", "1 asked quick", "1 done"]);
    }
}

#[test]
fn missed_slots_come_once_and_a_start_changes_nothing() {
    let mut fleet = Fleet::new(NIGHT);
    fleet.add(1, full("0 3 * * *", "UTC"));
    fleet.run(DAY);
    assert_eq!(fleet.starts_of(1).len(), 1);
    fleet.at = fleet.at.plus(10 * DAY + 4 * HOUR);
    fleet.restart();
    fleet.run(10 * MINUTE);
    assert_eq!(fleet.starts_of(1).len(), 2, "ten slots were missed");
    fleet.restart();
    fleet.run(20 * HOUR);
    assert_eq!(fleet.starts_of(1).len(), 2, "the next slot is tomorrow's");
}

#[test]
fn a_killed_cycle_stays_due() {
    let mut fleet = Fleet::new(NIGHT);
    fleet.length = HOUR;
    fleet.add(1, full("every 1w", "UTC"));
    fleet.run(10 * MINUTE);
    assert_eq!(fleet.said(), ["1 due full"]);
    fleet.restart();
    fleet.run(2 * HOUR);
    assert_eq!(fleet.said(), ["1 due full", "1 goes on", "1 done"]);
}

#[test]
fn what_is_suspended_rests_until_it_is_taken_up_again() {
    let mut fleet = Fleet::new(NIGHT);
    fleet.add(1, full("0 3 * * *", "UTC"));
    fleet.change(1, RegistrationChange::Suspended(true));
    fleet.run(5 * DAY);
    assert_eq!(fleet.said(), Vec::<String>::new());
    wish(&mut fleet, 1, "now", Mode::Full);
    fleet.run(HOUR);
    assert_eq!(fleet.said(), ["1 asked full", "1 done"]);
    fleet.run(5 * DAY);
    fleet.change(1, RegistrationChange::Suspended(false));
    fleet.run(HOUR);
    assert_eq!(fleet.said().len(), 2, "slots of that time are not made up for");
    fleet.run(DAY);
    assert_eq!(fleet.said()[2..], ["1 due full", "1 done"]);
}

#[test]
fn what_fails_is_let_alone_longer_each_time_but_not_by_a_person() {
    let mut fleet = Fleet::new(NIGHT);
    fleet.add(1, full("every 1w", "UTC"));
    fleet.fails = true;
    fleet.run(8 * HOUR);
    let starts = fleet.starts_of(1);
    let waits: Vec<u64> = starts.windows(2).map(|pair| pair[1].since(pair[0]) / MINUTE).collect();
    assert_eq!(waits[..8], [2, 3, 5, 9, 17, 33, 61, 61], "each attempt takes a minute");
    let before = starts.len();
    wish(&mut fleet, 1, "now", Mode::Full);
    fleet.run(2 * MINUTE);
    assert_eq!(fleet.starts_of(1).len(), before + 1);
    fleet.fails = false;
    fleet.run(2 * HOUR);
    assert_eq!(fleet.said().last().unwrap(), "1 done");
    fleet.run(DAY);
    assert_eq!(fleet.said().last().unwrap(), "1 done", "and then a week of rest");
}

#[test]
fn what_cannot_even_begin_is_let_alone_longer_each_time() {
    let mut fleet = Fleet::new(NIGHT);
    fleet.add(1, full("every 1w", "UTC"));
    fleet.shut = true;
    fleet.run(HOUR);
    let waits: Vec<u64> = fleet.starts_of(1).windows(2).map(|pair| pair[1].since(pair[0]) / MINUTE).collect();
    assert_eq!(waits, [2, 3, 5, 9, 17]);
    assert!(fleet.state.cycles.is_empty());
    fleet.shut = false;
    fleet.run(HOUR);
    assert_eq!(fleet.said().last().unwrap(), "1 done");
}

#[test]
fn a_failed_cycle_is_remembered_by_the_machine() {
    let mut fleet = Fleet::new(NIGHT);
    fleet.add(1, full("every 1w", "UTC"));
    fleet.run(0);
    let open = fleet.state.repositories[&id(1)].open.unwrap();
    fleet.go(Command::AbortCycle { cycle: open, reason: "enough".to_owned() });
    fleet.restart();
    fleet.run(0);
    assert_eq!(fleet.said(), ["1 due full"], "not at once");
    let unfinished = |fleet: &Fleet| fleet.state.repositories[&id(1)].calendar.full.unfinished;
    let failed = unfinished(&fleet).unwrap();
    assert_eq!((failed.failures, failed.requested), (1, false));
    fleet.run(2 * MINUTE);
    assert_eq!(fleet.said()[1..], ["1 due full", "1 done"], "but before the next slot");
    assert_eq!(unfinished(&fleet), None);
}

#[test]
fn kopias_own_settings_are_looked_at_and_followed() {
    let mut fleet = Fleet::new(NIGHT);
    let settings = |full, quick| {
        let cycle = |(enabled, interval_seconds)| OwnCycle { enabled, interval_seconds };
        Own { full: cycle(full), quick: cycle(quick) }
    };
    fleet.own = settings((false, 86_400), (false, 3_600));
    fleet.add(1, Schedule::default());
    fleet.run(DAY);
    assert_eq!(fleet.starts_of(1), [], "disabled there: nothing runs by itself");
    assert!((23..=26).contains(&fleet.looks), "{} looks", fleet.looks);
    fleet.own = settings((true, 86_400), (true, 21_600));
    fleet.run(2 * DAY);
    let said = fleet.said();
    let counts = ["1 due full", "1 due quick"].map(|what| said.iter().filter(|one| *one == what).count());
    assert_eq!(counts, [2, 6], "{said:?}");
}

#[test]
fn r15_it_comes_back_when_a_margin_ends() {
    let mut fleet = Fleet::new(NIGHT);
    fleet.add(1, full("every 1w", "UTC"));
    fleet.run(HOUR);
    let ends = fleet.at.plus(9 * HOUR);
    let margins = Some(vec![Margin { at: ends, is_drop: false }]);
    fleet.go(Command::RecordLook { repository: id(1), own: fleet.own, margins });
    fleet.restart();
    fleet.run(DAY);
    let starts = fleet.starts_of(1);
    assert_eq!(starts.len(), 2, "{:?}", fleet.said());
    assert_eq!(starts[1].since(ends), CHASE_SLACK);
}

#[test]
fn an_observed_repository_and_a_paused_cycle_are_let_alone() {
    let mut fleet = Fleet::new(NIGHT);
    fleet.length = HOUR;
    fleet.add(1, full("every 1h", "UTC"));
    fleet.change(1, RegistrationChange::Acting(Acting::Observe));
    fleet.run(DAY);
    assert_eq!(fleet.said(), Vec::<String>::new());
    fleet.change(1, RegistrationChange::Acting(Acting::TakeOwnership));
    fleet.run(MINUTE);
    let open = fleet.state.repositories[&id(1)].open.unwrap();
    fleet.go(Command::PauseCycle { cycle: open });
    wish(&mut fleet, 1, "again", Mode::Full);
    fleet.run(DAY);
    assert_eq!(fleet.said(), ["1 due full", "1 parks"], "nor is it taken up by a wish");
    fleet.go(Command::UnpauseCycle { cycle: open });
    fleet.run(MINUTE);
    assert_eq!(fleet.said()[2], "1 asked full");
}

#[test]
fn wishes_come_before_all_that_is_due() {
    let mut fleet = Fleet::new(NIGHT);
    fleet.limits = Limits { total: 1, ..Limits::default() };
    for number in 0..20 {
        fleet.add(number, full("every 1d", "UTC"));
    }
    wish(&mut fleet, 13, "now", Mode::Quick);
    fleet.run(0);
    assert_eq!(fleet.said(), ["13 asked quick"]);
}

#[test]
fn index_work_has_cycles_of_its_own_and_a_wider_cycle_counts_for_it() {
    let mut fleet = Fleet::new(NIGHT);
    let (quick, index) = ("every 3h".parse().unwrap(), "every 1h".parse().unwrap());
    fleet.add(1, Schedule { quick, index, ..full("never", "UTC") });
    fleet.run(5 * HOUR + 30 * MINUTE);
    let due: Vec<String> = fleet.said().into_iter().filter(|what| what.contains("due")).collect();
    assert_eq!(due, ["quick", "index", "index", "quick", "index", "index"].map(|mode| format!("1 due {mode}")));
    let calendar = &fleet.state.repositories[&id(1)].calendar;
    assert!(calendar.index.started > calendar.quick.started && calendar.index.unfinished.is_none());
}

#[test]
fn where_both_go_by_kopias_quick_interval_one_cycle_does_for_both() {
    let mut fleet = Fleet::new(NIGHT);
    let cycle = OwnCycle { enabled: true, interval_seconds: 3_600 };
    fleet.own = Own { full: OwnCycle { enabled: false, ..cycle }, quick: cycle };
    for number in 0..8 {
        fleet.add(number, Schedule { jitter_seconds: 1_800, ..Schedule::default() });
    }
    fleet.run(6 * HOUR);
    let said = fleet.said();
    assert!(said.iter().filter(|what| what.contains("due quick")).count() >= 8 * 3, "{said:?}");
    assert!(!said.iter().any(|what| what.contains("index")), "{said:?}");
}

#[test]
fn people_are_told_when_and_why() {
    let mut fleet = Fleet::new(NIGHT);
    fleet.add(1, Schedule { quick: Trigger::Own, ..windowed("0 3 * * *", "UTC", &["02:00-06:00"]) });
    let told = |fleet: &Fleet| -> Vec<String> {
        let all = outlook(&fleet.state, &id(1), &fleet.state.repositories[&id(1)], fleet.at);
        all.iter().map(|one| format!("{:?} {}", one.at.map(shown), one.reason)).collect()
    };
    let own = "None the repository's own Kopia settings have not been read yet";
    let never = "None the trigger of the index lane is `never`";
    assert_eq!(told(&fleet), ["Some(\"2026-11-21T03:00:00Z\") scheduled: 0 3 * * *", own, never]);
    fleet.length = HOUR;
    fleet.run(3 * HOUR);
    assert_eq!(told(&fleet)[0], "None cycle 2 is open");
    fleet.change(1, RegistrationChange::Acting(Acting::Observe));
    assert_eq!(told(&fleet)[0], "None the repository is only observed");
    let late = |at: LogTime| outlook(&fleet.state, &id(2), &of(&fleet, "every 1h"), at)[0].overdue;
    assert_eq!((late(fleet.at), late(fleet.at.plus(HOUR))), (Some(0), Some(HOUR)));
}
