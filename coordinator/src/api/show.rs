//! How things of the state look in JSON. Absent is left out, never null.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use verger_kopia::clock::Timestamp;
use verger_proto::event::{CycleEnd, Stop};
use verger_proto::{
    Acting, CycleId, CycleOptions, Failure, IndexKind, JobId, LogTime, PlanDigest, PlanHeader, Progress, RepositoryId,
    Safety, TraceId,
};

use super::board::{Board, Told, outcome};
use super::{plans, store, verification};
use crate::machine::{Cycle, Job, JobStatus, Past, Phase, Repository, State};
use crate::others::is_unable;
use crate::words::Words;

/// Milliseconds since 1970 as RFC 3339.
pub(super) fn time(milliseconds: u64) -> String {
    let stamp = i64::try_from(milliseconds).ok().and_then(|stamp| Timestamp::from_millisecond(stamp).ok());
    stamp.unwrap_or(Timestamp::MAX).to_string()
}

/// What serde gives.
pub(super) fn plain<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

pub(super) fn index_name(index: IndexKind) -> &'static str {
    match index {
        IndexKind::Epochs => "epochs",
        IndexKind::Legacy => "legacy",
    }
}

/// An object without the fields that are null.
fn filled(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn acting(acting: &Acting) -> Value {
    match acting {
        Acting::Observe => json!("observe"),
        Acting::TakeOwnership => json!("take-ownership"),
        Acting::ActAs(owner) => json!({ "actAs": owner }),
    }
}

pub(super) fn failure(failure: &Failure) -> Value {
    json!({ "error": plain(&failure.kind), "message": failure.text, "retryable": failure.retryable })
}

pub(super) fn end(end: &CycleEnd) -> Value {
    let mut value = json!({ "outcome": outcome(end) });
    match end {
        CycleEnd::Aborted(reason) => value["message"] = json!(reason),
        CycleEnd::Failed(failed) => {
            value["message"] = json!(failed.text);
            value["failure"] = failure(failed);
        }
        CycleEnd::Done | CycleEnd::Planned | CycleEnd::Degraded => {}
    }
    value
}

/// A repository; `None` if it is not looked after.
pub(super) fn repository(state: &State, id: &RepositoryId, entry: &Repository, now: LogTime) -> Option<Value> {
    let known = entry.registration.as_ref()?;
    let mut value = json!({
        "name": known.name.as_str(),
        "id": id.to_string(),
        "address": known.address,
        "tenant": known.tenant,
        "password": plain(&known.password),
        "acting": acting(&known.acting),
        "exclusive": known.exclusive,
        "index": index_name(known.index),
        "due": entry.due,
        "leaseHeld": entry.lease.is_some(),
        "term": entry.last_term.0,
        "openCycle": entry.open.map(|cycle| cycle.0),
        "queued": entry.requests.len(),
        "lastCycle": entry.past.last().map(|past| past.id.0),
        "lastEnd": entry.last_end.as_ref().map(end),
        "ownSettings": entry.calendar.own.map(|own| plain(&own)),
        "next": plans::next(state, id, entry, now),
    });
    if let Some((probe, probed)) = &entry.store {
        value["capabilities"] = store::shown(probe);
        value["probedAt"] = at(*probed);
    }
    if let Some(verified) = &entry.verified {
        value["verification"] = verification::show(verified);
    }
    add_unable(&mut value, entry, now);
    if let Some(other) = other_lease(entry).filter(|_| entry.lease.is_none()) {
        value["otherLease"] = other;
    }
    plans::shown(&mut value, known);
    Some(filled(value))
}

/// Workers that said not long ago that they cannot open it.
pub(super) fn add_unable(value: &mut Value, entry: &Repository, now: LogTime) {
    let believed = entry.unable.iter().filter(|one| is_unable(one, now));
    let unable: Vec<Value> = believed
        .map(|one| {
            let (worker, error) = (one.worker.as_str(), plain(&one.kind));
            json!({ "worker": worker, "error": error, "reason": one.reason, "since": at(one.since) })
        })
        .collect();
    if !unable.is_empty() {
        value["unable"] = Value::Array(unable);
    }
}

/// The lease of another holder, as it was seen last.
pub(super) fn other_lease(entry: &Repository) -> Option<Value> {
    let (lease, seen) = entry.other.as_ref()?;
    Some(json!({
        "holder": lease.holder,
        "term": lease.term.0,
        "actsUntil": time(lease.acts_until.0),
        "expires": time(lease.expires.0),
        "seen": at(*seen),
    }))
}

fn options(value: &mut Value, options: &CycleOptions) {
    value["mode"] = json!(options.mode.name());
    value["safety"] = json!(match options.safety {
        Safety::Full => "full",
        Safety::None => "none",
    });
    value["index"] = json!(index_name(options.index));
    value["dryRun"] = json!(options.dry_run);
    value["iAmAlone"] = json!(options.alone);
    value["exclusive"] = json!(options.exclusive);
    if let Some(percent) = options.allow_removing {
        value["allowRemoving"] = json!(percent);
    }
}

fn plan(digest: PlanDigest, header: &PlanHeader, sealed: bool) -> Value {
    let stage = |work: &verger_proto::StageWork| json!({ "stage": work.stage.name(), "items": work.items, "bytes": work.bytes });
    json!({
        "digest": digest.to_string(),
        "sealed": sealed,
        "removedBytes": header.removed_bytes,
        "totalPackedBytes": header.total_packed_bytes,
        "contents": header.contents,
        "liveContents": header.live_contents,
        "stages": header.stages.iter().map(stage).collect::<Vec<_>>(),
    })
}

/// What a cycle is found as.
pub(super) enum Found<'a> {
    Open(&'a Cycle),
    Past(&'a RepositoryId, &'a Past),
}

/// What is shown of a cycle as it is at this moment.
#[derive(Clone, Copy)]
pub(super) struct Live<'a> {
    /// What was told to this process.
    pub(super) words: Option<&'a Words>,
    pub(super) now: LogTime,
}

impl<'a> Found<'a> {
    pub(super) fn in_state(state: &'a State, id: CycleId) -> Option<Self> {
        if let Some(cycle) = state.cycles.get(&id) {
            return Some(Self::Open(cycle));
        }
        Self::all(state).find(|found| found.id() == id)
    }

    /// All that the state knows, in no order.
    pub(super) fn all(state: &'a State) -> impl Iterator<Item = Self> {
        let entries = state.repositories.iter();
        let past = entries.flat_map(|(id, entry)| entry.past.iter().map(move |past| Self::Past(id, past)));
        state.cycles.values().map(Self::Open).chain(past)
    }

    pub(super) fn id(&self) -> CycleId {
        match self {
            Self::Open(cycle) => cycle.id,
            Self::Past(_, past) => past.id,
        }
    }

    fn opened(&self) -> LogTime {
        match self {
            Self::Open(cycle) => cycle.opened,
            Self::Past(_, past) => past.opened,
        }
    }

    pub(super) fn repository(&self) -> &'a RepositoryId {
        match self {
            Self::Open(cycle) => &cycle.repository,
            Self::Past(repository, _) => repository,
        }
    }

    /// The cycle; with its jobs one by one, and its report, if `whole`.
    pub(super) fn show(&self, board: &Board, live: Live<'_>, whole: bool) -> Value {
        let (id, repository) = (self.id(), self.repository());
        let told = board.told(id);
        let mut value = json!({ "id": id.0 });
        if let Some(known) = board.owner(id).or_else(|| board.known(repository)) {
            value["repository"] = json!(known.name.as_str());
        }
        value["repositoryId"] = json!(repository.to_string());
        value["traceId"] = json!(TraceId::of(repository, id, self.opened()).to_string());
        match self {
            Self::Open(cycle) => show_open(&mut value, cycle, told, live, whole),
            Self::Past(_, past) => show_past(&mut value, past, told, whole),
        }
        value["freedBytes"] = json!(told.map_or(0, |told| told.freed));
        filled(value)
    }
}

fn show_open(value: &mut Value, cycle: &Cycle, told: Option<&Told>, live: Live<'_>, whole: bool) {
    options(value, &cycle.options);
    value["openedAt"] = json!(time(cycle.opened.0));
    let (phase, stop) = match &cycle.phase {
        Phase::Running => ("running", None),
        Phase::WaitingForWord => ("waiting-for-word", None),
        Phase::Stopping(stop) => ("stopping", Some(stop)),
        Phase::Parked => ("parked", None),
    };
    value["phase"] = json!(phase);
    value["paused"] = json!(cycle.paused);
    value["stop"] = plain(&stop.map(|stop| match stop {
        Stop::Park => "pause",
        Stop::Abort(_) => "abort",
        Stop::Fail(_) => "fail",
    }));
    value["stage"] = json!(cycle.stage.name());
    value["term"] = json!(cycle.term.0);
    value["jobs"] = counts(cycle);
    let said = told.map(|told| said(cycle, told, live.words)).unwrap_or_default();
    let spent = told.map_or(0, |told| live.now.since(told.stage_opened));
    value["progress"] = progress(cycle, &said, spent);
    if whole {
        let jobs = cycle.jobs.values().map(|one| job(one, said.get(&one.id)));
        value["jobList"] = Value::Array(jobs.collect());
    }
    let sealed = cycle.sealed.as_ref().map(|sealed| plan(sealed.digest, &sealed.header, true));
    let proposed = cycle.proposed.as_ref().map(|(digest, header)| plan(*digest, header, false));
    value["plan"] = sealed.or(proposed).unwrap_or_default();
    value["damage"] = plain(&cycle.severity);
}

fn show_past(value: &mut Value, past: &Past, told: Option<&Told>, whole: bool) {
    options(value, &past.options);
    value["openedAt"] = json!(time(past.opened.0));
    value["endedAt"] = json!(time(past.ended.0));
    value["phase"] = json!("ended");
    value["stage"] = plain(&told.map(|told| told.stage.name()));
    let sealed = !past.options.dry_run;
    let told = told.and_then(|told| told.plan.as_ref()).map(|(digest, header)| plan(*digest, header, sealed));
    value["plan"] = told.unwrap_or_default();
    value["end"] = end(&past.end);
    if whole {
        value["report"] = past.report.as_deref().map(report).unwrap_or_default();
    }
}

/// What is no object of JSON is shown as the text that it is, in one.
pub(super) fn report(text: &str) -> Value {
    let value = serde_json::from_str(text).ok().filter(Value::is_object);
    value.unwrap_or_else(|| json!({ "text": text }))
}

fn status_name(status: &JobStatus) -> &'static str {
    match status {
        JobStatus::Open(_) => "open",
        JobStatus::Claimed(..) => "claimed",
        JobStatus::Done(_) => "done",
        JobStatus::Quarantined => "quarantined",
    }
}

fn counts(cycle: &Cycle) -> Value {
    let count = |name| cycle.jobs.values().filter(|job| status_name(&job.status) == name).count();
    json!({
        "total": cycle.jobs.len(),
        "open": count("open"),
        "claimed": count("claimed"),
        "done": count("done"),
        "quarantined": count("quarantined"),
    })
}

/// How far each job is: what the ledger heard, and in its place the last word of whoever is at it.
fn said(cycle: &Cycle, told: &Told, words: Option<&Words>) -> BTreeMap<JobId, Progress> {
    let claimed = cycle.jobs.values().filter(|job| matches!(job.status, JobStatus::Claimed(..)));
    let last = claimed.filter_map(|job| Some((job.id, words?.last(cycle.id, job.id, job.attempt)?)));
    told.progress.iter().map(|(job, progress)| (*job, *progress)).chain(last).collect()
}

/// The sum over the jobs of the stage, and how fast it grew since the stage began. A total that one job does not know, the sum does
/// not know (0), and no time that is left.
fn progress(cycle: &Cycle, said: &BTreeMap<JobId, Progress>, spent_milliseconds: u64) -> Value {
    let known: Vec<&Progress> = said.values().collect();
    let Some(first) = known.first().filter(|first| known.iter().all(|one| one.unit == first.unit)) else {
        return Value::Null;
    };
    let sum = |of: fn(&Progress) -> u64| known.iter().fold(0u64, |sum, one| sum.saturating_add(of(one)));
    let complete = known.len() == cycle.jobs.len() && known.iter().all(|one| one.total > 0);
    let total = if complete { sum(|one| one.total) } else { 0 };
    let done = sum(|one| one.done);
    let spent = spent_milliseconds as f64 / 1_000.0;
    let rate = if spent > 0.0 { done as f64 / spent } else { 0.0 };
    let left = (total > 0 && rate > 0.0).then(|| total.saturating_sub(done) as f64 / rate);
    filled(json!({
        "done": done,
        "total": total,
        "unit": plain(&first.unit),
        "perSecond": (spent > 0.0).then_some(rate),
        "secondsLeft": left,
    }))
}

fn job(job: &Job, progress: Option<&Progress>) -> Value {
    let worker = match &job.status {
        JobStatus::Claimed(worker, _) | JobStatus::Done(worker) => Some(worker.as_str()),
        JobStatus::Open(_) | JobStatus::Quarantined => None,
    };
    filled(json!({
        "id": job.id.0,
        "attempt": job.attempt,
        "failures": job.failures,
        "state": status_name(&job.status),
        "worker": worker,
        "itemsDone": job.batches.done,
        "progress": progress.map(plain),
    }))
}

/// When it happened, in milliseconds since 1970.
pub(super) fn at(at: LogTime) -> Value {
    json!(time(at.0))
}
