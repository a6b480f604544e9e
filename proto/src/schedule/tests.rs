use proptest::prelude::*;

use super::*;
use crate::envelope::{self, Kind};

fn trigger(text: &str) -> Trigger {
    text.parse().unwrap()
}

fn why<T: std::str::FromStr<Err = ScheduleError> + std::fmt::Debug>(text: &str) -> String {
    text.parse::<T>().unwrap_err().to_string()
}

fn sample() -> Schedule {
    Schedule {
        full: trigger("0 3 * * *"),
        quick: trigger("every 6h"),
        index: Trigger::Never,
        zone: "Europe/Berlin".to_owned(),
        windows: ["mon-fri 22:00-06:00", "0 22 1 * * until 06:00"].map(|text| text.parse().unwrap()).to_vec(),
        blackouts: vec!["2026-12-24T00:00:00Z/2027-01-02T00:00:00Z stocktaking".parse().unwrap()],
        jitter_seconds: 600,
        suspended: true,
    }
}

#[test]
fn triggers_read_and_show_in_one_way() {
    let table = [
        ("own", "own"),
        (" Never ", "never"),
        ("every 6h", "every 6h"),
        ("every 90m", "every 1h30m"),
        ("every 1d 12h", "every 1d12h"),
        ("EVERY 604800s", "every 1w"),
        ("0  3 * * *", "0 3 * * *"),
        ("@midnight", "@midnight"),
        ("*/15 2-4 1,15 jan-mar MON", "*/15 2-4 1,15 jan-mar MON"),
    ];
    for (text, shown) in table {
        assert_eq!(trigger(text).to_string(), shown);
        assert_eq!(trigger(shown), trigger(text));
    }
    assert_eq!(trigger("every 6h"), Trigger::Every { seconds: 21_600 });
}

#[test]
fn every_nickname_is_known() {
    for name in ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"] {
        assert_eq!(trigger(name).to_string(), name);
    }
    assert!(why::<Trigger>("@reboot").contains("@annually"), "{}", why::<Trigger>("@reboot"));
}

#[test]
fn bad_triggers_say_what_is_wrong() {
    let table = [
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 3 * * *", "seconds are not supported"),
        ("0 0 3 * * * 2027", "seconds and years are not supported"),
        ("0 3 * *", "it has 4 fields instead of 5"),
        ("61 3 * * *", "cannot be used"),
        ("0 3 * * noday", "cannot be used"),
        ("@daily * * * *", "the nicknames are"),
        ("0 3 @daily * *", "nickname stands alone"),
        ("daily", "is not a trigger"),
        ("", "is not a trigger"),
        ("every", "is not a trigger"),
        ("every 6", "is not a trigger"),
        ("every 0h", "is not a trigger"),
        ("every 1h1h", "is not a trigger"),
        ("every -1h", "is not a trigger"),
        ("every 99999999999999999999h", "is not a trigger"),
        ("every 59s", "between a minute and ten years"),
        ("every 522w", "between a minute and ten years"),
    ];
    for (text, part) in table {
        assert!(why::<Trigger>(text).contains(part), "{text}: {}", why::<Trigger>(text));
    }
    assert!(trigger("0 0 29 2 *") != Trigger::Never, "a leap day does come");
    assert!(why::<Trigger>(&"*".repeat(300)).len() < 250, "a long text is not repeated in full");
}

#[test]
fn windows_read_and_show_in_one_way() {
    let table = [
        ("mon-fri 22:00-06:00", "mon-fri 22:00-06:00"),
        ("22:00-6:00", "daily 22:00-06:00"),
        ("daily 0:00-24:00", "daily 00:00-24:00"),
        ("fri-mon 1:00-2:00", "mon,fri-sun 01:00-02:00"),
        ("Sun,tue 23:50-00:10", "tue,sun 23:50-00:10"),
        ("0 22 1 * * until 06:00", "0 22 1 * * until 06:00"),
        ("@monthly until 24:00", "@monthly until 24:00"),
    ];
    for (text, shown) in table {
        let window: Window = text.parse().unwrap();
        assert_eq!(window.to_string(), shown);
        assert_eq!(shown.parse::<Window>().unwrap(), window);
    }
}

#[test]
fn bad_windows_say_what_is_wrong() {
    let table = [
        ("mon-fri", "is not a window"),
        ("someday 01:00-02:00", "is not a window"),
        ("mon 1:0-2:00", "is not a window"),
        ("mon 01:00-24:01", "is not a window"),
        ("mon 24:00-02:00", "is not a window"),
        ("mon +1:00-02:00", "is not a window"),
        ("mon 23:58-00:02", "can never hold a stage"),
        ("mon 01:00-01:04", "can never hold a stage"),
        ("56 5 * * * until 06:00", "can never hold a stage"),
        ("mon 01:00-01:00", "write `00:00-24:00`"),
        ("*/10 * * * * until 06:00", "more than once an hour"),
        ("0 0 30 2 * until 06:00", "never fires"),
    ];
    for (text, part) in table {
        assert!(why::<Window>(text).contains(part), "{text}: {}", why::<Window>(text));
    }
    assert!("mon 01:00-01:05".parse::<Window>().is_ok(), "five minutes are enough");
}

#[test]
fn blackouts_end_after_they_begin_and_may_be_local() {
    let sample = sample();
    assert_eq!(sample.blackouts[0].to_string(), "2026-12-24T00:00:00Z/2027-01-02T00:00:00Z stocktaking");
    let berlin = zone("Europe/Berlin").unwrap();
    let local = Blackout::parse_in("2026-12-24/2027-01-02T06:00", &berlin).unwrap();
    assert_eq!(local.to_string(), "2026-12-23T23:00:00Z/2027-01-02T05:00:00Z");
    assert_eq!(local.to_string().parse::<Blackout>().unwrap(), local);
    let backwards = "2026-12-24T00:00:00Z/2026-12-24T00:00:00Z";
    assert!(why::<Blackout>(backwards).contains("does not end after it begins"));
    for text in ["", "holidays", "2026-12-24T00:00:00Z", "1969-01-01/1970-02-01", "2026-02-30/2026-03-02"] {
        assert!(why::<Blackout>(text).contains("is not a blackout"), "{text}");
    }
    assert!(why::<Blackout>(&format!("2026-12-24/2026-12-25 {}", "x".repeat(600))).contains("at most 512"));
}

#[test]
fn the_whole_schedule_is_checked() {
    assert_eq!(sample().check(), Ok(()));
    assert_eq!(Schedule::default().check(), Ok(()));
    let bad = |change: fn(&mut Schedule)| {
        let mut schedule = sample();
        change(&mut schedule);
        schedule.check().unwrap_err()
    };
    let zone = bad(|s| s.zone = "Europe/Atlantis".to_owned());
    assert!(zone.to_string().contains("Europe/Atlantis") && zone.to_string().contains("IANA"));
    assert!(matches!(bad(|s| s.index = Trigger::Every { seconds: 0 }), ScheduleError::Interval(0)));
    assert!(matches!(bad(|s| s.quick = Trigger::Cron { line: "0 0 31 2 *".into() }), ScheduleError::NeverFires { .. }));
    assert!(matches!(
        bad(|s| s.windows = vec![s.windows[0].clone(); ENTRIES_MAX + 1]),
        ScheduleError::TooMany { have: 33, .. }
    ));
    assert!(matches!(bad(|s| s.blackouts[0].until = LogTime(0)), ScheduleError::BlackoutBackwards(_)));
    assert!(matches!(bad(|s| s.blackouts[0].until = LogTime(u64::MAX)), ScheduleError::Blackout(_)));
    let end = TimeOfDay::from_minutes(121).unwrap();
    let start = TimeOfDay::from_minutes(120).unwrap();
    let minute = Window::Weekly { days: Weekdays::ALL, start, end };
    let short = Schedule { windows: vec![minute], ..sample() }.check();
    assert!(matches!(short, Err(ScheduleError::WindowShort(_))));
}

#[test]
fn people_see_text_and_records_hold_shapes() {
    let json = serde_json::to_value(sample()).unwrap();
    assert_eq!((json["full"].as_str(), json["quick"].as_str()), (Some("0 3 * * *"), Some("every 6h")));
    assert_eq!(json["windows"][0].as_str(), Some("mon-fri 22:00-06:00"));
    assert_eq!(serde_json::from_value::<Schedule>(json).unwrap(), sample());
    assert_eq!(serde_json::from_str::<Schedule>("{}").unwrap(), Schedule::default());
    let local = r#"{"blackouts": ["2026-12-24/2026-12-27 holidays"], "zone": "Europe/Berlin"}"#;
    let local: Schedule = serde_json::from_str(local).unwrap();
    assert_eq!(local.blackouts[0].to_string(), "2026-12-23T23:00:00Z/2026-12-26T23:00:00Z holidays");
    assert!(serde_json::from_str::<Schedule>(r#"{"zone": "Nowhere"}"#).unwrap_err().to_string().contains("Nowhere"));
    let misspelt = serde_json::from_str::<Schedule>(r#"{"fulll": "own"}"#).unwrap_err().to_string();
    assert!(misspelt.contains("unknown field `fulll`"), "{misspelt}");
    assert!(serde_json::from_str::<Trigger>("\"0 0 30 2 *\"").unwrap_err().to_string().contains("never fires"));

    let bytes = envelope::encode(Kind::State, &sample()).unwrap();
    assert_eq!(envelope::decode::<Schedule>(Kind::State, &bytes).unwrap(), sample());
    // A record's bytes are for ever: variant numbers, field order, the widths of times.
    let body = &bytes[envelope::HEADER_BYTES..];
    let shown: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown, RECORD, "the record is written differently now: add a version, keep the old");
}

const RECORD: &str = concat!(
    "0309302033202a202a202a02fb6054010d4575726f70652f4265726c696e02001ffb2805fb6801010a302032322031202a202afb680101fd00f4",
    "58a5a2010000fd0030b2d3a20100000b73746f636b74616b696e67fb580201"
);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_shown_reads_back(seconds in INTERVAL_SECONDS_MIN..=INTERVAL_SECONDS_MAX, bits in 1u8..128,
                                start in 0u16..1440, length in WINDOW_MINUTES_MIN..1440, from in 0u64..4_000_000_000_000,
                                lasts in 1u64..100_000_000_000, reason in "[a-z]{0,8}( [a-z]{1,8})?") {
        let every = Trigger::Every { seconds };
        prop_assert_eq!(every.to_string().parse::<Trigger>(), Ok(every));
        let time = |minutes| TimeOfDay::from_minutes(minutes).unwrap();
        let (days, end) = (Weekdays::from_bits(bits).unwrap(), time((start + length) % 1440));
        let window = Window::Weekly { days, start: time(start), end };
        prop_assert_eq!(window.to_string().parse::<Window>(), Ok(window));
        let reason = reason.trim().to_owned();
        let blackout = Blackout { from: LogTime(from), until: LogTime(from + lasts), reason };
        prop_assert_eq!(blackout.to_string().parse::<Blackout>(), Ok(blackout));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = (text.parse::<Trigger>(), text.parse::<Window>(), text.parse::<Blackout>(), zone(&text).is_ok());
    }

    #[test]
    fn no_cron_like_text_panics(text in "[0-9*/,LW#?+@ -]{0,24}", until in "[0-9:]{0,5}") {
        let _ = (text.parse::<Trigger>(), format!("{text} until {until}").parse::<Window>());
    }
}
