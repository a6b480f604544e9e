//! Workers that said that they are there, for people.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use verger_proto::{Command, LogTime, Refusal, WorkerId};

use super::call::Call;
use super::health::ok;
use super::problem::Problem;
use super::server::{Answer, Server};
use super::show;
use crate::machine::{JobStatus, State, Worker};

/// A worker says that it is there every few seconds, and it is kept once a minute: after this it is not there any more.
const GONE_MILLISECONDS: u64 = 90_000;

pub(super) fn list(server: &Arc<Server>, _: Call) -> Answer {
    let now = server.now();
    let all = server.state(|state| {
        let show = |(name, worker): (&WorkerId, &Worker)| shown(state, now, name, worker);
        state.workers.iter().map(show).collect::<Vec<Value>>()
    });
    ok(&Value::Array(all))
}

fn shown(state: &State, now: LogTime, name: &WorkerId, worker: &Worker) -> Value {
    let prefix = format!("{name}/");
    let claimed = state.cycles.values().flat_map(|cycle| cycle.jobs.values().map(move |job| (cycle, job)));
    let jobs: Vec<Value> = claimed
        .filter(|(_, job)| matches!(&job.status, JobStatus::Claimed(by, _) if by.as_str().starts_with(&prefix)))
        .map(|(cycle, job)| json!({ "cycle": cycle.id.0, "job": job.id.0, "stage": cycle.stage.name() }))
        .collect();
    let is_gone = now.since(worker.seen) > GONE_MILLISECONDS;
    let standing = match (is_gone, worker.drained) {
        (true, _) => "gone",
        (false, true) if jobs.is_empty() => "drained",
        (false, true) => "draining",
        (false, false) => "ready",
    };
    json!({
        "name": name.as_str(),
        "state": standing,
        "pools": worker.info.pools,
        "labels": worker.info.labels,
        "places": worker.info.places,
        "version": worker.info.version,
        "exchange": worker.info.exchange,
        "startedAt": show::at(worker.info.started),
        "seenAt": show::at(worker.seen),
        "jobs": jobs,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    #[serde(default = "yes")]
    drain: bool,
}

impl Default for Drain {
    fn default() -> Self {
        Self { drain: true }
    }
}

fn yes() -> bool {
    true
}

pub(super) fn drain(server: &Arc<Server>, call: Call) -> Answer {
    let Drain { drain } = call.json_or_default()?;
    let worker = WorkerId::new(call.parameter("name")).map_err(|_| Problem::refused(&Refusal::UnknownWorker))?;
    server.order(&call.actor, Command::DrainWorker { worker: worker.clone(), drain })?;
    let now = server.now();
    let value = server.state(|state| state.workers.get(&worker).map(|known| shown(state, now, &worker, known)));
    ok(&value.ok_or_else(|| Problem::refused(&Refusal::UnknownWorker))?)
}
