//! What a store was seen to do, as people and scripts read it, and what is said of it in words.

use axum::http::StatusCode;
use serde_json::{Value, json};
use verger_proto::schedule::{Own, Schedule};
use verger_proto::{LogTime, Sight, StoreProbe};

use super::problem::Problem;
use crate::schedule::cycles_a_day;

/// What only writing shows.
const NOT_TRIED: [&str; 5] =
    ["conditionalWrites", "conditionalDeletes", "readAfterWrite", "listAfterWrite", "permissions"];
/// Versions that one cycle leaves: its lease taken, covered and freed, and Kopia's schedule with what ran.
const VERSIONS_A_CYCLE: u64 = 8;
/// More than so many locked versions a day are no maintenance but a leak (R24).
const VERSIONS_A_DAY_MAX: u64 = 10_000;
const HOUR_SECONDS: u64 = 3_600;

/// As JSON.
pub(super) fn shown(probe: &StoreProbe) -> Value {
    let mut value = json!({
        "localDisk": probe.local_disk,
        "clockOffsetMs": probe.clock_offset,
        "roundTripMs": probe.round_trip,
    });
    match &probe.seen {
        None => value["notTried"] = json!(NOT_TRIED),
        Some(seen) => {
            value["conditionalWrites"] = json!(seen.conditional_writes);
            value["conditionalDeletes"] = json!(seen.conditional_deletes);
            for (name, late, sight) in
                [("readAfterWrite", "readLateMs", seen.reads), ("listAfterWrite", "listLateMs", seen.lists)]
            {
                value[name] = json!(sight == Sight::AtOnce);
                if let Sight::After(milliseconds) | Sight::NotWithin(milliseconds) = sight {
                    value[late] = json!(milliseconds);
                }
            }
            value["stampOffsetMs"] = json!(seen.stamp_offset);
        }
    }
    if let Some(kept) = probe.keeps_versions {
        value["versions"] = json!(kept);
    }
    if let Some(seconds) = probe.default_retention {
        value["defaultRetentionSeconds"] = json!(seconds);
    }
    value
}

/// Versions that our own objects leave in a day under this schedule, about.
fn versions_a_day(schedule: &Schedule, own: Option<Own>, now: LogTime) -> u64 {
    cycles_a_day(schedule, own, now).saturating_mul(VERSIONS_A_CYCLE)
}

/// What whoever looks after the repository should know of its store.
pub(super) fn warnings(
    probe: &StoreProbe,
    exclusive: bool,
    schedule: &Schedule,
    (own, now): (Option<Own>, LogTime),
) -> Vec<String> {
    let mut all = Vec::new();
    let (Some(seen), versions) = (&probe.seen, versions_a_day(schedule, own, now)) else { return all };
    match (probe.keeps_versions, probe.default_retention) {
        (Some(true), Some(seconds)) if seconds > 0 => all.push(format!(
            "the bucket locks each new version for {} h by default: about {versions} versions a day of Verger's lease and of \
             Kopia's schedule stay so long",
            seconds.div_ceil(HOUR_SECONDS)
        )),
        (Some(true), _) => all.push(
            "the bucket keeps old versions: what is deleted is hidden, and freed when a lifecycle rule removes it".to_owned(),
        ),
        (None, _) => all.push(format!(
            "whether the bucket keeps and locks versions could not be asked (s3:GetBucketVersioning, \
             s3:GetBucketObjectLockConfiguration), so it is assumed: then about {versions} versions a day stay"
        )),
        (Some(false), _) => {}
    }
    if !seen.conditional_writes && !probe.local_disk && exclusive {
        all.push(
            "the store has no conditional writes: only the word that nobody else maintains this repository keeps a second \
             maintainer out"
                .to_owned(),
        );
    }
    all
}

/// Refuses a schedule that would leave too many versions that nobody can delete (R24).
pub(super) fn check_versions(
    probe: &StoreProbe,
    schedule: &Schedule,
    (own, now): (Option<Own>, LogTime),
) -> Result<(), Problem> {
    let versions = versions_a_day(schedule, own, now);
    if probe.seen.is_none() || !probe.may_lock_versions() || versions <= VERSIONS_A_DAY_MAX {
        return Ok(());
    }
    let known = if probe.keeps_versions.is_some() { "locks" } else { "may lock" };
    let message = format!(
        "the bucket {known} each new version, and cycles as often as this schedule has them would leave about {versions} a day, \
         more than {VERSIONS_A_DAY_MAX}"
    );
    let fix =
        "give fewer cycles a day (verger repo add --quick-schedule 'every 1h'), or a bucket without default retention";
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unsupported", message).with_fix(fix))
}

#[cfg(test)]
mod tests {
    use verger_proto::schedule::Trigger;

    use super::*;
    use crate::testing::store as good;

    fn each_minute() -> Schedule {
        let quick: Trigger = "* * * * *".parse().unwrap();
        Schedule { full: Trigger::Never, quick, index: Trigger::Never, ..Schedule::default() }
    }

    fn locked() -> StoreProbe {
        StoreProbe { keeps_versions: Some(true), default_retention: Some(72 * HOUR_SECONDS), ..good() }
    }

    #[test]
    fn r24_more_locked_versions_than_ten_thousand_a_day_are_refused() {
        let when = (None, LogTime(1_700_000_000_000));
        assert_eq!(check_versions(&locked(), &each_minute(), when).unwrap_err().kind(), "unsupported");
        let unknown = StoreProbe { keeps_versions: None, ..good() };
        assert_eq!(check_versions(&unknown, &each_minute(), when).unwrap_err().kind(), "unsupported");
        assert!(check_versions(&locked(), &Schedule::default(), when).is_ok());
        let only_kept = StoreProbe { default_retention: None, ..locked() };
        for fine in [good(), only_kept, StoreProbe { seen: None, ..locked() }] {
            assert!(check_versions(&fine, &each_minute(), when).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn what_stays_is_said_with_its_number() {
        let when = (None, LogTime(1_700_000_000_000));
        let said = warnings(&locked(), false, &each_minute(), when);
        assert!(said.len() == 1 && said[0].contains("72 h") && said[0].contains("11520 versions"), "{said:?}");
        assert!(warnings(&good(), true, &each_minute(), when).is_empty());
        let mut bare = good();
        if let Some(seen) = &mut bare.seen {
            seen.conditional_writes = false;
        }
        assert_eq!(warnings(&bare, true, &each_minute(), when).len(), 1);
    }

    #[test]
    fn what_was_not_tried_is_named_and_not_denied() {
        let value = shown(&StoreProbe { seen: None, ..good() });
        assert_eq!(value["notTried"], json!(NOT_TRIED));
        assert!(NOT_TRIED.iter().all(|name| value.get(name).is_none()));
    }
}
