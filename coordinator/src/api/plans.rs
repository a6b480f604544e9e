//! When a repository is looked after, and by whose hands: what may be said of it, and what its schedule comes to.

use serde_json::{Map, Value, json};
use verger_proto::repo::POOL_DEFAULT;
use verger_proto::schedule::{MarkToDrop, Schedule};
use verger_proto::{LogTime, Registration, RegistrationChange, RepositoryId, RepositoryName};

use super::problem::Problem;
use super::show;
use crate::machine::{Repository, State};
use crate::schedule::{self, outlook};

/// Largest weight.
const WEIGHT_MAX: u32 = 1_000;

/// What may be said when a repository is added, and again later. What is left out stays as it is.
pub(super) struct PlanBody {
    pub(super) schedule: Option<Map<String, Value>>,
    pub(super) pool: Option<String>,
    pub(super) weight: Option<u32>,
    pub(super) mark_to_drop: Option<MarkToDrop>,
}

/// How a repository is looked after if nobody says otherwise: by its own Kopia settings.
pub(super) struct Plan {
    pub(super) schedule: Schedule,
    pub(super) pool: String,
    pub(super) weight: u32,
    pub(super) mark_to_drop: MarkToDrop,
}

impl PlanBody {
    /// For a repository that is added now.
    pub(super) fn of_new(self, now: LogTime) -> Result<Plan, Problem> {
        let mut plan = Plan {
            schedule: Schedule::default(),
            pool: POOL_DEFAULT.to_owned(),
            weight: 1,
            mark_to_drop: MarkToDrop::default(),
        };
        for change in self.changes(&plan.schedule, now)? {
            match change {
                RegistrationChange::Schedule(schedule) => plan.schedule = *schedule,
                RegistrationChange::Pool(pool) => plan.pool = pool,
                RegistrationChange::Weight(weight) => plan.weight = weight,
                RegistrationChange::MarkToDrop(wait) => plan.mark_to_drop = wait,
                _ => {}
            }
        }
        Ok(plan)
    }

    /// Of a repository that has this schedule.
    pub(super) fn changes(self, current: &Schedule, now: LogTime) -> Result<Vec<RegistrationChange>, Problem> {
        let mut changes = Vec::new();
        if let Some(given) = self.schedule {
            changes.push(RegistrationChange::Schedule(Box::new(merged(current, given, now)?)));
        }
        if let Some(pool) = self.pool {
            let named = RepositoryName::new(&pool).map_err(|_| {
                Problem::bad_request(
                    "pool: must be 1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit",
                )
            })?;
            changes.push(RegistrationChange::Pool(named.to_string()));
        }
        if let Some(weight) = self.weight {
            if !(1..=WEIGHT_MAX).contains(&weight) {
                let message = format!("weight: {weight} is not between 1 and {WEIGHT_MAX}");
                return Err(Problem::bad_request(message).with_fix("twice the weight gets twice the time; 1 is usual"));
            }
            changes.push(RegistrationChange::Weight(weight));
        }
        changes.extend(self.mark_to_drop.map(RegistrationChange::MarkToDrop));
        Ok(changes)
    }
}

/// The schedule with what was given in place of what it had, if it can be kept.
fn merged(current: &Schedule, given: Map<String, Value>, now: LogTime) -> Result<Schedule, Problem> {
    let bad = |why: String| {
        Problem::new(axum::http::StatusCode::BAD_REQUEST, "bad-schedule", format!("schedule: {why}"))
            .with_fix("see docs/schedules.md; `verger repo set --help` has examples. Nothing was changed")
    };
    let mut whole = show::plain(current);
    if let Value::Object(fields) = &mut whole {
        fields.extend(given);
    }
    let schedule: Schedule = serde_json::from_value(whole).map_err(|error| bad(error.to_string()))?;
    schedule::check(&schedule, now).map_err(|error| bad(error.to_string()))?;
    Ok(schedule)
}

/// What is shown of a registration's schedule.
pub(super) fn shown(value: &mut Value, known: &Registration) {
    value["suspended"] = json!(known.schedule.suspended);
    value["schedule"] = show::plain(&known.schedule);
    value["pool"] = json!(known.pool);
    value["weight"] = json!(known.weight);
    value["markToDrop"] = show::plain(&known.mark_to_drop);
}

/// What its lanes do next.
pub(super) fn next(state: &State, id: &RepositoryId, entry: &Repository, now: LogTime) -> Value {
    let lanes = outlook(state, id, entry, now).into_iter().map(|one| {
        let mut lane = json!({ "reason": one.reason });
        if let Some(at) = one.at {
            lane["at"] = show::at(at);
        }
        if let Some(late) = one.overdue.filter(|late| *late > 0) {
            lane["overdueSeconds"] = json!(late / 1000);
        }
        (one.lane.name().to_owned(), lane)
    });
    Value::Object(lanes.collect())
}
