//! When a repository is looked after: the flags that say so, and what is shown of it.

use serde_json::{Map, Value, json};
use verger_kopia::{Error, ErrorKind};
use verger_proto::schedule::{self, Blackout, ScheduleError, Trigger, Window};

use super::text_of;

/// No window at all: any time.
const ALWAYS: &str = "always";
/// No blackout.
const NONE: &str = "none";

/// When, and by whose hands.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Schedule")]
pub(super) struct ScheduleArgs {
    /// When full cycles run: `own` (Kopia's settings of the repository), `never`, `every 6h`, `@daily`, or a cron line [default: own]
    #[arg(long, value_name = "WHEN")]
    full_schedule: Option<String>,
    /// When quick cycles run [default: own]
    #[arg(long, value_name = "WHEN")]
    quick_schedule: Option<String>,
    /// When index work alone runs [default: own, which is the quick cycle's]
    #[arg(long, value_name = "WHEN")]
    index_schedule: Option<String>,
    /// Zone of cron lines, windows and blackouts, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// When cycles may begin and go on: `22:00-06:00`, `mon-fri 22:00-06:00`, `0 22 1 * * until 06:00`, or `always`; may be
    /// given again, and replaces all that there were
    #[arg(long, value_name = "WINDOW")]
    window: Vec<String>,
    /// When they may not: `2026-12-24/2027-01-02 holidays`, or `none`; may be given again, and replaces all that there were
    #[arg(long, value_name = "FROM/UNTIL REASON")]
    blackout: Vec<String>,
    /// Begin up to so much later, each repository in its own way: `10m`, `1h30m`, `0` [default: 0]
    #[arg(long, value_name = "DURATION")]
    jitter: Option<String>,
    /// Pool of workers that may do it [default: default]
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Share of the workers' time in relation to other repositories [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    weight: Option<u32>,
    /// Least hours from mark to drop: 5 only if no client sleeps in the middle of a snapshot [default: 24]
    #[arg(long, value_name = "HOURS", value_parser = ["24", "5"])]
    mark_to_drop: Option<String>,
}

/// Checks a text, and writes it as it is kept.
type Check = fn(&str) -> Result<String, ScheduleError>;

/// A mistake is told before anybody is asked.
fn checked<T, E: std::fmt::Display>(flag: &str, result: Result<T, E>) -> verger_kopia::Result<T> {
    result.map_err(|error| {
        Error::new(ErrorKind::Usage, format!("{flag}: {error}"))
            .with_fix("Nothing was changed; `verger repo set --help` has examples")
    })
}

fn trigger(text: &str) -> Result<String, ScheduleError> {
    text.parse::<Trigger>().map(|trigger| trigger.to_string())
}

fn zone(text: &str) -> Result<String, ScheduleError> {
    schedule::zone(text).map(|_| text.to_owned())
}

fn window(text: &str) -> Result<String, ScheduleError> {
    text.parse::<Window>().map(|window| window.to_string())
}

/// Kept as it was written: its times are of the schedule's zone.
fn blackout(text: &str) -> Result<String, ScheduleError> {
    text.parse::<Blackout>().map(|_| text.to_owned())
}

fn jitter(text: &str) -> Result<u32, String> {
    if text == "0" {
        return Ok(0);
    }
    match format!("every {text}").parse::<Trigger>() {
        Ok(Trigger::Every { seconds }) => u32::try_from(seconds).map_err(|_| format!("{text} is too long")),
        _ => Err(format!("{text:?} is not a time of a minute or more; write `10m`, `1h30m` or `0`")),
    }
}

/// All of them; none for the word that stands for none. The word beside others is a mistake.
fn list(flag: &str, given: &[String], none: &str, check: Check) -> verger_kopia::Result<Option<Value>> {
    match given {
        [] => Ok(None),
        [one] if one == none => Ok(Some(json!([]))),
        all if all.iter().any(|one| one == none) => {
            let step = format!("{flag} {none} contradicts the others");
            Err(Error::new(ErrorKind::Usage, step).with_fix(format!("Give {flag} {none} alone, or leave it out")))
        }
        all => {
            let all: verger_kopia::Result<Vec<String>> = all.iter().map(|one| checked(flag, check(one))).collect();
            Ok(Some(json!(all?)))
        }
    }
}

impl ScheduleArgs {
    /// Writes what was given into a request.
    pub(super) fn add_to(&self, wanted: &mut Value) -> verger_kopia::Result<()> {
        let mut schedule = Map::new();
        let texts: [(_, _, _, Check); 4] = [
            ("full", "--full-schedule", &self.full_schedule, trigger),
            ("quick", "--quick-schedule", &self.quick_schedule, trigger),
            ("index", "--index-schedule", &self.index_schedule, trigger),
            ("zone", "--time-zone", &self.time_zone, zone),
        ];
        for (name, flag, text, check) in texts {
            let text = text.as_ref().map(|text| checked(flag, check(text))).transpose()?;
            schedule.extend(text.map(|text| (name.to_owned(), json!(text))));
        }
        let windows = list("--window", &self.window, ALWAYS, window)?;
        let blackouts = list("--blackout", &self.blackout, NONE, blackout)?;
        schedule.extend(windows.map(|windows| ("windows".to_owned(), windows)));
        schedule.extend(blackouts.map(|blackouts| ("blackouts".to_owned(), blackouts)));
        let jitter = self.jitter.as_ref().map(|text| checked("--jitter", jitter(text))).transpose()?;
        schedule.extend(jitter.map(|seconds| ("jitterSeconds".to_owned(), json!(seconds))));
        if !schedule.is_empty() {
            wanted["schedule"] = Value::Object(schedule);
        }
        if let Some(pool) = &self.pool {
            wanted["pool"] = json!(pool);
        }
        if let Some(weight) = self.weight {
            wanted["weight"] = json!(weight);
        }
        if let Some(hours) = &self.mark_to_drop {
            wanted["markToDrop"] = json!(if hours == "5" { "five-hours" } else { "day" });
        }
        Ok(())
    }
}

const LANES: [&str; 3] = ["full", "quick", "index"];

/// A repository's schedule, and what its lanes do next.
pub(super) fn lines(repository: &Value) -> Vec<String> {
    let schedule = &repository["schedule"];
    if schedule.is_null() {
        return Vec::new();
    }
    let mut lines = vec![format!("{:<14} {}", "time zone", text_of(schedule, "zone"))];
    for (name, field) in [("window", "windows"), ("blackout", "blackouts")] {
        let all = schedule[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        lines.extend(all.map(|text| format!("{name:<14} {text}")));
    }
    if schedule["jitterSeconds"].as_u64().is_some_and(|seconds| seconds > 0) {
        lines.push(format!("{:<14} {} s", "jitter", text_of(schedule, "jitterSeconds")));
    }
    for lane in LANES {
        let next = &repository["next"][lane];
        let when = next["at"].as_str().map_or_else(|| "not by itself".to_owned(), |at| format!("next {at}"));
        let late = next["overdueSeconds"].as_u64().map(|late| format!(", {late} s late")).unwrap_or_default();
        let trigger = text_of(schedule, lane);
        lines.push(format!("{lane:<14} {trigger:<16} {when}{late}: {}", text_of(next, "reason")));
    }
    lines
}

/// The lane that runs next, for a list.
pub(super) fn soonest(repository: &Value) -> String {
    let at = |lane: &&str| repository["next"][*lane]["at"].as_str().map(|at| (at.to_owned(), (*lane).to_owned()));
    let times: Vec<(String, String)> = LANES.iter().filter_map(at).collect();
    times.into_iter().min_by_key(|(at, _)| at.parse::<jiff::Timestamp>().ok()).map_or_else(
        || "nothing by itself".to_owned(),
        |(at, lane)| format!("{lane} next {at}: {}", text_of(&repository["next"][lane.as_str()], "reason")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_with_the_way_to_write_it() {
        let text = |result: Result<String, ScheduleError>| result.unwrap_err().to_string();
        assert!(text(trigger("0 0 30 2 *")).contains("never fires"));
        assert!(text(trigger("0 0 3 * * *")).contains("seconds are not supported"));
        assert!(text(trigger("tomorrow")).contains("write `own`"));
        assert!(text(zone("Europe/Atlantis")).contains("IANA"));
        assert!(text(window("22:00-22:03")).contains("never hold a stage"));
        assert!(text(blackout("soon")).contains("2026-12-24"));
        assert_eq!(jitter("1h30m"), Ok(5_400));
        assert!(jitter("half").unwrap_err().contains("10m"));
    }

    #[test]
    fn none_is_said_by_a_word_of_its_own_and_alone() {
        let given = |all: &[&str]| {
            list("--window", &all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>(), ALWAYS, window)
        };
        assert_eq!(given(&[]).unwrap(), None);
        assert_eq!(given(&["always"]).unwrap(), Some(json!([])));
        assert_eq!(given(&["22:00-06:00"]).unwrap(), Some(json!(["daily 22:00-06:00"])));
        assert_eq!(given(&["22:00-06:00", "always"]).unwrap_err().kind(), ErrorKind::Usage);
    }
}
