use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn snapshot(start: Timestamp, incomplete: &str) -> Snapshot {
    let body = serde_json::json!({
        "startTime": start, "endTime": start, "incomplete": incomplete, "rootEntry": { "name": "x", "obj": "k82b3" },
    });
    serde_json::from_value(body).unwrap()
}

fn reasons(policy: RetentionPolicy, zone: &TimeZone, starts: &[(&str, &str)]) -> Vec<String> {
    let mut snapshots: Vec<_> = starts.iter().map(|(start, incomplete)| snapshot(at(start), incomplete)).collect();
    fill_reasons(&mut snapshots, &policy, zone);
    snapshots.iter().map(|s| s.retention_reasons.join(",")).collect()
}

fn complete(policy: RetentionPolicy, starts: &[&str]) -> Vec<String> {
    let starts: Vec<_> = starts.iter().map(|start| (*start, "")).collect();
    reasons(policy, &TimeZone::UTC, &starts)
}

const NONE: RetentionPolicy = RetentionPolicy {
    keep_latest: None,
    keep_hourly: None,
    keep_daily: None,
    keep_weekly: None,
    keep_monthly: None,
    keep_annual: None,
    ignore_identical_snapshots: None,
};

#[test]
fn defaults_give_all_kinds_in_shown_order() {
    let found = complete(
        RetentionPolicy::DEFAULT,
        &["2025-06-01T10:00:00Z", "2025-06-02T10:00:00Z", "2025-06-02T10:30:00Z", "2025-06-02T11:00:00Z"],
    );
    let expected = [
        "latest-4,hourly-3,daily-2,weekly-2",
        "latest-3",
        "latest-2,hourly-2",
        "latest-1,hourly-1,daily-1,weekly-1,monthly-1,annual-1",
    ];
    assert_eq!(found, expected);
}

#[test]
fn all_zero_or_unset_keeps_everything() {
    let starts = ["2020-01-01T00:00:00Z", "2025-06-02T10:00:00Z"];
    let zero = RetentionPolicy { keep_latest: Some(0), keep_daily: Some(0), ..NONE };
    assert_eq!(complete(zero, &starts), ["latest-2", "latest-1"]);
    assert_eq!(complete(NONE, &starts), ["latest-2", "latest-1"]);
    let cancelling = RetentionPolicy { keep_latest: Some(-1), keep_daily: Some(1), ..NONE };
    assert_eq!(complete(cancelling, &starts), ["latest-2", "latest-1,daily-1"]);
}

#[test]
fn counts_are_windows_too() {
    let daily = RetentionPolicy { keep_daily: Some(2), ..NONE };
    // Two days before the newest is the cutoff, to the nanosecond.
    let starts = ["2025-06-08T09:59:59.999999999Z", "2025-06-08T10:00:00Z", "2025-06-10T10:00:00Z"];
    assert_eq!(complete(daily, &starts), ["", "daily-2", "daily-1"]);
}

#[test]
fn weeks_and_months_share_keys() {
    let policy = RetentionPolicy { keep_weekly: Some(200), keep_monthly: Some(200), ..NONE };
    let starts = ["2025-01-08T00:00:00Z", "2025-01-22T00:00:00Z", "2025-02-05T00:00:00Z", "2025-03-05T00:00:00Z"];
    // The 8th of January lies in week 2, and the month 2025-02 has taken that key; week 4 is free; week 6 and 10 are.
    assert_eq!(complete(policy, &starts), ["", "weekly-3,monthly-3", "weekly-2,monthly-2", "weekly-1,monthly-1"]);
}

#[test]
fn weeks_are_local_and_days_are_not() {
    let policy = RetentionPolicy { keep_weekly: Some(5), ..NONE };
    // Sunday evening and Monday morning in UTC; the same Monday in Auckland.
    let starts = [("2025-06-01T20:00:00Z", ""), ("2025-06-02T02:00:00Z", "")];
    let auckland = TimeZone::get("Pacific/Auckland").unwrap();
    assert_eq!(reasons(policy, &TimeZone::UTC, &starts), ["weekly-2", "weekly-1"]);
    assert_eq!(reasons(policy, &auckland, &starts), ["", "weekly-1"]);
    let daily = RetentionPolicy { keep_daily: Some(5), ..NONE };
    assert_eq!(reasons(daily, &auckland, &starts), ["daily-2", "daily-1"]);
    // The ISO year of a late December day is the next one.
    assert_eq!(Kind::Weekly.key(0, at("2024-12-31T00:00:00Z"), &TimeZone::UTC), "2025-01");
}

#[test]
fn incomplete_ones_stay_a_while() {
    let none = RetentionPolicy { keep_latest: Some(1), ..NONE };
    let starts = [
        ("2025-06-01T00:00:00Z", "checkpoint"),
        ("2025-06-01T01:00:00Z", ""),
        ("2025-06-01T02:00:00Z", "checkpoint"),
        ("2025-06-01T03:00:00Z", "checkpoint"),
        ("2025-06-01T04:00:00Z", "canceled"),
        ("2025-06-01T06:30:00Z", "canceled"),
        ("2025-06-01T07:00:00Z", "checkpoint"),
    ];
    // By age: 3 h; by count: three; then the first that fails ends it, and nothing beyond the complete one has a reason.
    let expected = ["", "latest-1", "", "", "incomplete", "incomplete", "incomplete"];
    assert_eq!(reasons(none, &TimeZone::UTC, &starts), expected);
    let young = [("2025-06-01T03:00:00.000000001Z", "x"), ("2025-06-01T04:00:00Z", "x"), ("2025-06-01T05:00:00Z", "x")];
    let older = [("2025-06-01T03:00:00Z", "x"), young[0], young[1], young[2], ("2025-06-01T07:00:00Z", "x")];
    let expected = ["", "incomplete", "incomplete", "incomplete", "incomplete"];
    assert_eq!(reasons(none, &TimeZone::UTC, &older), expected);
}

#[test]
fn positions_count_incomplete_ones() {
    // Position 1 is the key "1"; were incomplete ones not counted, "latest" would still be numbered by grants.
    assert_eq!(Kind::Latest.key(2024, at("2024-06-01T00:00:00Z"), &TimeZone::UTC), "2024");
    let two = RetentionPolicy { keep_latest: Some(2), ..NONE };
    let starts = [("2025-06-01T01:00:00Z", ""), ("2025-06-01T02:00:00Z", "x"), ("2025-06-01T03:00:00Z", "")];
    assert_eq!(reasons(two, &TimeZone::UTC, &starts), ["latest-2", "", "latest-1"]);
}

#[test]
fn months_overflow_as_in_go() {
    let zone = &TimeZone::UTC;
    for (base, back, expected) in [
        ("2025-03-31T12:00:00Z", (0, 1, 0), "2025-03-03T12:00:00Z"),
        ("2024-02-29T00:00:00Z", (1, 0, 0), "2023-03-01T00:00:00Z"),
        ("2025-01-15T00:00:00Z", (0, 13, 0), "2023-12-15T00:00:00Z"),
        ("2025-01-01T00:00:00Z", (0, 0, 366), "2024-01-01T00:00:00Z"),
        ("2025-01-31T00:00:00Z", (0, -1, 0), "2025-03-03T00:00:00Z"),
    ] {
        assert_eq!(days_ago(at(base), back, zone), at(expected), "{base}");
    }
    for far in [i64::MAX, 1_000_000_000, 100_000] {
        assert_eq!(days_ago(at("2025-01-01T00:00:00Z"), (far, 0, 0), zone), Timestamp::MIN);
        assert_eq!(days_ago(at("2025-01-01T00:00:00Z"), (-far, 0, 0), zone), Timestamp::MAX);
    }
    assert_eq!(days_ago(at("2025-01-01T00:00:00Z"), (0, 0, i64::MAX), zone), Timestamp::MIN);
}

#[test]
fn changes_of_the_clocks_follow_go() {
    // New York: 2:30 on the 9th of March 2025 does not exist, 1:30 on the 2nd of November 2024 + 2 days is twice there.
    let zone = &TimeZone::get("America/New_York").unwrap();
    assert_eq!(days_ago(at("2025-03-10T06:30:00Z"), (0, 0, 1), zone), at("2025-03-09T06:30:00Z"));
    assert_eq!(days_ago(at("2025-11-03T06:30:00Z"), (0, 0, 1), zone), at("2025-11-02T05:30:00Z"));
    assert_eq!(days_ago(at("2025-11-03T12:00:00Z"), (0, 0, 2), zone), at("2025-11-01T11:00:00Z"));
}

#[test]
fn hours_wrap_as_in_go() {
    let base = at("2025-01-01T00:00:00Z");
    assert_eq!(Kind::Hourly.cutoff(base, 5, &TimeZone::UTC), at("2024-12-31T19:00:00Z"));
    assert!(Kind::Hourly.cutoff(base, 3_000_000, &TimeZone::UTC) > base);
}

#[test]
fn nothing_and_ties_are_fine() {
    fill_reasons(&mut [], &RetentionPolicy::DEFAULT, &TimeZone::UTC);
    let one = RetentionPolicy { keep_latest: Some(1), ..NONE };
    let found = complete(one, &["2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z"]);
    assert_eq!(found.iter().filter(|r| r.as_str() == "latest-1").count(), 1);
}
