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
use crate::machine::{Cycle, Job, JobStatus, State, Worker};
use crate::others::unable_of;
use crate::workers::SILENCE_MILLISECONDS;

pub(super) fn list(server: &Arc<Server>, call: Call) -> Answer {
    let now = server.now();
    let all = server
        .state(|state| state.workers.iter().map(|worker| shown(state, now, &call, worker)).collect::<Vec<Value>>());
    ok(&Value::Array(all))
}

/// How it is with workers.
pub(super) const STANDINGS: [&str; 4] = ["ready", "draining", "drained", "gone"];

/// How it is with each worker.
pub(super) fn standings(state: &State, now: LogTime) -> Vec<&'static str> {
    let standing =
        |(name, worker): (&WorkerId, &Worker)| standing(now, worker, || claimed(state, name).next().is_none());
    state.workers.iter().map(standing).collect()
}

fn standing(now: LogTime, worker: &Worker, is_idle: impl FnOnce() -> bool) -> &'static str {
    let [ready, draining, drained, gone] = STANDINGS;
    match worker.drained {
        _ if now.since(worker.seen) > SILENCE_MILLISECONDS => gone,
        true if is_idle() => drained,
        true => draining,
        false => ready,
    }
}

/// What a worker has: its runs are called after it.
fn claimed<'a>(state: &'a State, name: &WorkerId) -> impl Iterator<Item = (&'a Cycle, &'a Job)> {
    let prefix = format!("{name}/");
    let jobs = state.cycles.values().flat_map(|cycle| cycle.jobs.values().map(move |job| (cycle, job)));
    jobs.filter(move |(_, job)| matches!(&job.status, JobStatus::Claimed(by, _) if by.as_str().starts_with(&prefix)))
}

fn shown(state: &State, now: LogTime, call: &Call, (name, worker): (&WorkerId, &Worker)) -> Value {
    let jobs: Vec<Value> = claimed(state, name)
        .map(|(cycle, job)| json!({ "cycle": cycle.id.0, "job": job.id.0, "stage": cycle.stage.name() }))
        .collect();
    let standing = standing(now, worker, || jobs.is_empty());
    let mut value = json!({
        "name": name.as_str(),
        "state": standing,
        "pools": worker.info.pools,
        "labels": worker.info.labels,
        "places": worker.info.places,
        "version": worker.info.version,
        "startedAt": show::at(worker.info.started),
        "seenAt": show::at(worker.seen),
        "jobs": jobs,
    });
    let unable: Vec<Value> = unable_of(state, name, now)
        .filter_map(|(entry, one)| {
            let known = entry.registration.as_ref().filter(|known| call.sees(Some(&known.tenant)))?;
            let (repository, error) = (known.name.as_str(), show::plain(&one.kind));
            Some(
                json!({ "repository": repository, "error": error, "reason": one.reason, "since": show::at(one.since) }),
            )
        })
        .collect();
    if !unable.is_empty() {
        value["unable"] = Value::Array(unable);
    }
    if let Some(exchange) = &worker.info.exchange {
        value["exchange"] = json!(exchange);
    }
    value
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
    let value =
        server.state(|state| state.workers.get(&worker).map(|known| shown(state, now, &call, (&worker, known))));
    ok(&value.ok_or_else(|| Problem::refused(&Refusal::UnknownWorker))?)
}
