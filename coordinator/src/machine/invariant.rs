//! What holds after every command. One numbered list for the tests, the simulator, and a running coordinator.

use verger_proto::batch::DEADLINE_MILLISECONDS_MAX;
use verger_proto::{Shard, Stage};

use super::state::{Cycle, Job, JobStatus, Outstanding, Phase, State};

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// Its number.
    pub number: u32,
    /// Where.
    pub what: String,
}

type Check = fn(&State, &Cycle) -> bool;

/// Number, what it says, and the check for each open cycle.
pub const INVARIANTS: [(u32, &str, Check); 12] = [
    (1, "a repository has at most one open cycle, and it is the one that the repository names", one_open),
    (2, "a cycle's term is not newer than the newest of its repository, and a held lease is of the newest", terms),
    (3, "the jobs of a stage cover every key once; the cycle waits, stops, or has jobs", coverage),
    (4, "a batch is approved only by a sealed plan, except the survey's record of its start", two_keys),
    (5, "a deadline is at most 120 s after its approval", deadlines),
    (6, "a batch lies inside the plan's items and begins where the one before ended", inside_the_plan),
    (7, "past the check there is a sealed plan; before it there is none", sealed_past_check),
    (8, "a sealed plan is of this repository, term, mode and view", plan_is_ours),
    (9, "a dry run never leaves the stages that only read, and approves nothing", dry_run),
    (10, "a parked cycle has no claimed job, and no batch that counts as under way", parked),
    (11, "outputs have different names", outputs),
    (12, "no number is given twice", numbers),
];

/// All invariants that do not hold.
#[must_use]
pub fn broken(state: &State) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (number, text, check) in INVARIANTS {
        for cycle in state.cycles.values().filter(|cycle| !check(state, cycle)) {
            broken.push(Broken { number, what: format!("cycle {}: {text}", cycle.id) });
        }
    }
    for (id, entry) in &state.repositories {
        if entry.open.is_some_and(|open| state.cycles.get(&open).is_none_or(|cycle| cycle.repository != *id)) {
            broken.push(Broken { number: 1, what: format!("{id} names an open cycle that is not there") });
        }
    }
    broken
}

fn outstanding(cycle: &Cycle) -> impl Iterator<Item = (&Job, &Outstanding)> {
    cycle.jobs.values().filter_map(|job| job.batches.outstanding.as_ref().map(|o| (job, o)))
}

fn one_open(state: &State, cycle: &Cycle) -> bool {
    state.repositories.get(&cycle.repository).is_some_and(|entry| entry.open == Some(cycle.id))
}

fn terms(state: &State, cycle: &Cycle) -> bool {
    let Some(entry) = state.repositories.get(&cycle.repository) else { return false };
    let running_under_old = cycle.term < entry.last_term && cycle.phase != Phase::Parked && !cycle.options.dry_run;
    cycle.term <= entry.last_term && entry.lease.is_none_or(|lease| lease.term == entry.last_term) && !running_under_old
}

fn coverage(_: &State, cycle: &Cycle) -> bool {
    if cycle.jobs.is_empty() {
        return cycle.phase != Phase::Running;
    }
    let mut shards: Vec<Shard> = cycle.jobs.values().map(|job| job.shard.clone()).collect();
    shards.sort_by(|a, b| a.from.cmp(&b.from));
    let unfinished = cycle.jobs.values().any(|job| !job.is_over());
    Shard::prove_coverage(&shards).is_ok() && (unfinished || cycle.phase != Phase::Running)
}

fn two_keys(_: &State, cycle: &Cycle) -> bool {
    let sealed = cycle.sealed.as_ref().map(|sealed| sealed.digest);
    outstanding(cycle).all(|(_, o)| {
        let survey = cycle.stage == Stage::Survey && o.approval.plan.is_none();
        let deed = cycle.stage.is_deed() && sealed.is_some() && o.approval.plan == sealed;
        o.approval.batch.stage == cycle.stage && (survey || deed)
    })
}

fn deadlines(state: &State, cycle: &Cycle) -> bool {
    outstanding(cycle).all(|(_, o)| {
        let ahead = o.approval.deadline.since(state.now);
        o.approval.valid_for <= DEADLINE_MILLISECONDS_MAX && ahead <= DEADLINE_MILLISECONDS_MAX
    })
}

fn inside_the_plan(_: &State, cycle: &Cycle) -> bool {
    let items = cycle.items();
    cycle.jobs.values().all(|job| job.batches.done <= items)
        && outstanding(cycle).all(|(job, o)| {
            let batch = o.approval.batch;
            let end = batch.first.checked_add(batch.items);
            (batch.number, batch.first) == (job.batches.next, job.batches.done) && end.is_some_and(|end| end <= items)
        })
}

fn sealed_past_check(_: &State, cycle: &Cycle) -> bool {
    cycle.sealed.is_some() == (cycle.stage > Stage::Check)
}

fn plan_is_ours(_: &State, cycle: &Cycle) -> bool {
    cycle.sealed.as_ref().is_none_or(|sealed| {
        let header = &sealed.header;
        header.repository == cycle.repository
            && header.term == cycle.term
            && header.mode == cycle.options.mode
            && cycle.view.is_some_and(|(view, _)| view == header.view)
    })
}

fn dry_run(_: &State, cycle: &Cycle) -> bool {
    !cycle.options.dry_run || (cycle.stage.is_before_seal() && !cycle.has_outstanding())
}

fn parked(_: &State, cycle: &Cycle) -> bool {
    cycle.phase != Phase::Parked
        || (cycle.jobs.values().all(|job| !matches!(job.status, JobStatus::Claimed(..)))
            && outstanding(cycle).all(|(_, o)| o.ambiguous))
}

fn outputs(_: &State, cycle: &Cycle) -> bool {
    let mut names: Vec<&str> = cycle.outputs.iter().map(|output| output.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).all(|pair| pair[0] != pair[1])
}

fn numbers(state: &State, cycle: &Cycle) -> bool {
    let fresh = |id: &verger_proto::JobId| id.0 < state.next_job && !cycle.finished.contains_key(id);
    cycle.id.0 < state.next_cycle && cycle.jobs.keys().all(fresh)
}
