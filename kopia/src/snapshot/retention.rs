//! Why a policy keeps a snapshot (`snapshot/policy/retention_policy.go`), to the letter: what has no reason and no pin is expired.

use std::collections::HashSet;

use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span};

use super::manifest::Snapshot;
use super::policy::RetentionPolicy;
use crate::clock::Timestamp;

/// Incomplete snapshots stay while they are younger than this, against the newest one.
const INCOMPLETE_AGE: SignedDuration = SignedDuration::from_hours(4);
/// So many of the newest stay at any age.
const INCOMPLETE_COUNT: usize = 3;

/// Fills `retention_reasons` of all snapshots of one source, in any order.
pub fn fill_reasons(snapshots: &mut [Snapshot], policy: &RetentionPolicy, zone: &TimeZone) {
    let mut newest_first: Vec<&mut Snapshot> = snapshots.iter_mut().collect();
    newest_first.sort_by_key(|s| std::cmp::Reverse((s.start_time, s.end_time)));
    let newest = newest_first.first().map(|s| s.start_time);
    let newest_complete = newest_first.iter().find(|s| s.is_complete()).map(|s| s.start_time);

    let mut tests = newest_complete.map_or_else(Vec::new, |newest| tests(policy, newest, zone));
    let mut used = HashSet::new();
    for (position, snapshot) in newest_first.iter_mut().enumerate() {
        snapshot.retention_reasons.clear();
        if snapshot.is_complete() {
            let granted =
                tests.iter_mut().filter_map(|test| test.grant(position, snapshot.start_time, zone, &mut used));
            let mut granted: Vec<_> = granted.collect();
            granted.sort_unstable();
            snapshot.retention_reasons = granted.into_iter().map(|(kind, n)| format!("{}-{n}", kind.name())).collect();
        }
    }
    for (position, snapshot) in newest_first.iter_mut().enumerate() {
        let age = newest.map_or(SignedDuration::ZERO, |newest| newest.duration_since(snapshot.start_time));
        if snapshot.is_complete() || (age >= INCOMPLETE_AGE && position >= INCOMPLETE_COUNT) {
            break;
        }
        snapshot.retention_reasons.push("incomplete".to_owned());
    }
}

/// In the order in which reasons are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Latest,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Annual,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Annual => "annual",
        }
    }

    /// The bucket of a snapshot. All kinds share one set of keys, so a week `2025-02` and the month `2025-02` exclude each other.
    /// Weeks are those of the process's time zone, all else is UTC.
    fn key(self, position: usize, start: Timestamp, zone: &TimeZone) -> String {
        let utc = TimeZone::UTC.to_datetime(start);
        match self {
            Self::Latest => position.to_string(),
            Self::Hourly => utc.strftime("%Y-%m-%d %H").to_string(),
            Self::Daily => utc.strftime("%Y-%m-%d").to_string(),
            Self::Weekly => {
                let week = zone.to_datetime(start).date().iso_week_date();
                format!("{:04}-{:02}", week.year(), week.week())
            }
            Self::Monthly => utc.strftime("%Y-%m").to_string(),
            Self::Annual => utc.strftime("%Y").to_string(),
        }
    }

    /// The earliest start that `count` units before `newest` still cover.
    fn cutoff(self, newest: Timestamp, count: i64, zone: &TimeZone) -> Timestamp {
        match self {
            Self::Latest => Timestamp::MIN,
            Self::Hourly => {
                // Go multiplies in 64 bits, and lets it wrap.
                let back = count.wrapping_neg().wrapping_mul(3_600_000_000_000);
                newest.saturating_add(SignedDuration::from_nanos(back)).unwrap_or(Timestamp::MIN)
            }
            Self::Daily => days_ago(newest, (0, 0, count), zone),
            Self::Weekly => days_ago(newest, (0, 0, count.saturating_mul(7)), zone),
            Self::Monthly => days_ago(newest, (0, count, 0), zone),
            Self::Annual => days_ago(newest, (count, 0, 0), zone),
        }
    }
}

struct Test {
    kind: Kind,
    cutoff: Timestamp,
    most: i64,
    granted: i64,
}

impl Test {
    /// The reason's number, if this snapshot gets one of this kind.
    fn grant(
        &mut self,
        position: usize,
        start: Timestamp,
        zone: &TimeZone,
        used: &mut HashSet<String>,
    ) -> Option<(Kind, i64)> {
        if start < self.cutoff || self.granted >= self.most {
            return None;
        }
        if !used.insert(self.kind.key(position, start, zone)) {
            return None;
        }
        self.granted += 1;
        Some((self.kind, self.granted))
    }
}

/// Tests of what is set, in the order in which they take keys.
fn tests(policy: &RetentionPolicy, newest: Timestamp, zone: &TimeZone) -> Vec<Test> {
    let counts = [
        policy.keep_latest,
        policy.keep_hourly,
        policy.keep_daily,
        policy.keep_weekly,
        policy.keep_monthly,
        policy.keep_annual,
    ];
    let sum = counts.iter().fold(0i64, |sum, count| sum.wrapping_add(count.unwrap_or(0)));
    let latest = if sum == 0 { Some(i64::MAX) } else { policy.keep_latest };
    [
        (Kind::Latest, latest),
        (Kind::Annual, policy.keep_annual),
        (Kind::Monthly, policy.keep_monthly),
        (Kind::Weekly, policy.keep_weekly),
        (Kind::Daily, policy.keep_daily),
        (Kind::Hourly, policy.keep_hourly),
    ]
    .into_iter()
    .filter_map(|(kind, most)| Some(Test { kind, cutoff: kind.cutoff(newest, most?, zone), most: most?, granted: 0 }))
    .collect()
}

/// Calendar arithmetic of Go's `AddDate` in `zone`: the 31st of March less one month is the "31st of February", the 3rd of March.
/// Beyond the calendar it is as far as that goes.
fn days_ago(base: Timestamp, (years, months, days): (i64, i64, i64), zone: &TimeZone) -> Timestamp {
    let far = if years.max(months).max(days) > 0 { Timestamp::MIN } else { Timestamp::MAX };
    let local = zone.to_datetime(base);
    shifted(local, (years, months, days)).and_then(|moved| to_instant(moved, zone)).unwrap_or(far)
}

fn shifted(local: DateTime, (years, months, days): (i64, i64, i64)) -> Option<DateTime> {
    let month_index = (i64::from(local.year()).checked_sub(years)?)
        .checked_mul(12)?
        .checked_add(i64::from(local.month()) - 1)?
        .checked_sub(months)?;
    let year = i16::try_from(month_index.div_euclid(12)).ok()?;
    let month = i8::try_from(month_index.rem_euclid(12) + 1).ok()?;
    if !(-9999..=9999).contains(&year) {
        return None;
    }
    let offset = (i64::from(local.day()) - 1).checked_sub(days)?;
    let day = date(year, month, 1).checked_add(Span::new().try_days(offset).ok()?).ok()?;
    Some(day.to_datetime(local.time()))
}

/// Go's `time.Date`: where a change of the clocks makes local time doubtful, the offset that holds at the instant which the first
/// guess gives.
fn to_instant(local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let as_utc = TimeZone::UTC.to_timestamp(local).ok()?;
    let guess = SignedDuration::from_secs(zone.to_offset(as_utc).seconds().into());
    if guess.is_zero() {
        return Some(as_utc);
    }
    let offset = zone.to_offset(as_utc.checked_sub(guess).ok()?).seconds();
    as_utc.checked_sub(SignedDuration::from_secs(offset.into())).ok()
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
