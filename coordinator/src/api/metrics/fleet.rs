//! What the ledger and the state say of repositories and their cycles.

use std::collections::BTreeMap;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use serde::{Deserialize, Serialize};
use verger_proto::schedule::{Lane, Trigger};
use verger_proto::{CycleId, LogTime, Progress, RepositoryId, Stage};

use super::super::board::{Board, Told};
use super::super::workers;
use crate::machine::{Cycle, JobStatus, State};
use crate::page::{Labels, Page};
use crate::schedule::outlook;

/// Seconds: a quick cycle of a small repository to a full one that takes a week.
const BUCKETS: [f64; 13] =
    [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 28_800.0, 86_400.0, 172_800.0, 259_200.0, 604_800.0];

/// How long cycles took, by mode, or shards, by stage.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(in super::super) struct Durations(BTreeMap<String, Taken>);

/// How long those of one name took.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Taken {
    /// How many took up to each of [`BUCKETS`] and longer than the one before; the last: longer than all.
    counts: Vec<u64>,
    milliseconds: u64,
}

impl Durations {
    pub(in super::super) fn observe(&mut self, name: &'static str, milliseconds: u64) {
        let taken = self.0.entry(name.to_owned()).or_default();
        taken.counts.resize(BUCKETS.len() + 1, 0);
        let seconds = milliseconds as f64 / 1_000.0;
        let bucket = BUCKETS.iter().position(|most| seconds <= *most).unwrap_or(BUCKETS.len());
        if let Some(count) = taken.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        taken.milliseconds = taken.milliseconds.saturating_add(milliseconds);
    }
}

/// Durations, and the label that their names are shown under.
#[derive(Debug)]
struct Histogram(&'static str, Durations);

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        for (name, taken) in &self.1.0 {
            let ends = BUCKETS.into_iter().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = ends.zip(taken.counts.iter().copied()).collect();
            let count = taken.counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
            let seconds = taken.milliseconds as f64 / 1_000.0;
            let labels = vec![(self.0, name.clone())];
            encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

pub(super) fn of_the_board(page: &mut Page, board: &Board) {
    let name = |repository: &RepositoryId| {
        board.known(repository).map_or_else(|| repository.to_string(), |known| known.name.to_string())
    };
    let ends = board.ends.iter().map(|((outcome, mode), count)| {
        (vec![("outcome", (*outcome).to_owned()), ("mode", (*mode).to_owned())], *count)
    });
    page.counts("cycles", "Cycles that ended, by how", ends);
    let successes = board.successes.iter().map(|((repository, mode), at)| {
        (vec![("repo", name(repository)), ("mode", (*mode).to_owned())], at.0 as f64 / 1_000.0)
    });
    let help = "When the last cycle that did all it was to do ended, in seconds since 1970";
    page.levels("cycle_last_success_timestamp_seconds", help, successes);
    let freed = board.freed.iter().map(|(repository, bytes)| (vec![("repo", name(repository))], *bytes));
    page.counts("bytes_reclaimed", "Bytes of blobs that were deleted from the store", freed);
    let help = "How long cycles took from open to end, time that they were parked among it";
    page.kept("cycle_duration_seconds", help, Histogram("mode", board.durations.clone()));
    let help = "How long shards took from claim to report";
    page.kept("shard_duration_seconds", help, Histogram("phase", board.shards.durations.clone()));
    let ends = board
        .shards
        .ends()
        .map(|(stage, how, count)| (vec![("phase", stage.name().to_owned()), ("outcome", how.to_owned())], count));
    page.counts("shard_claims", "Claims of shards that ended, by how", ends);
}

pub(super) fn of_the_state(page: &mut Page, state: &State, fleet: &str, now: LogTime) {
    page.level("cycles_open", "Cycles that began and have not ended", state.cycles.len() as f64);
    let (mut held, mut terms, mut holders, mut expires, mut due) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut lasted, mut queued, mut overdue, mut verified) = (vec![], vec![], vec![], vec![]);
    for (id, entry) in &state.repositories {
        let Some(registration) = &entry.registration else { continue };
        let label: Labels = vec![("repo", registration.name.to_string())];
        // Without a trigger of its own, index work comes with quick cycles.
        let is_apart = |lane: Lane| lane != Lane::Index || registration.schedule.index != Trigger::Own;
        for one in outlook(state, id, entry, now).into_iter().filter(|one| is_apart(one.lane)) {
            let labels = [label.clone(), vec![("mode", one.lane.name().to_owned())]].concat();
            overdue.extend(one.overdue.map(|late| (labels, late as f64 / 1_000.0)));
        }
        held.push((label.clone(), if entry.lease.is_some() { 1.0 } else { 0.0 }));
        terms.push((label.clone(), entry.last_term.0 as f64));
        due.push((label.clone(), if entry.due { 1.0 } else { 0.0 }));
        queued.push((label.clone(), entry.requests.len() as f64));
        if let Some(sound_at) = entry.verified.and_then(|verified| verified.sound_at) {
            verified.push((label.clone(), now.0.saturating_sub(sound_at.0) as f64 / 1_000.0));
        }
        if let Some(lease) = &entry.lease {
            holders.push(([label.clone(), vec![("holder", fleet.to_owned())]].concat(), 1.0));
            let left = lease.confirmed_until.0 as f64 - now.0 as f64;
            expires.push((label.clone(), left / 1_000.0));
        }
        for past in entry.past.iter().filter(|past| !past.options.dry_run) {
            let labels = [label.clone(), vec![("mode", past.options.mode.name().to_owned())]].concat();
            // The newest comes last and stays.
            lasted.push((labels, past.ended.0.saturating_sub(past.opened.0) as f64 / 1_000.0));
        }
    }
    page.levels("lease_held", "Whether this fleet holds the lease on the repository", held);
    page.levels("lease_term", "Highest term that was seen for the repository", terms);
    page.levels("lease_holder_info", "Who holds the lease on the repository; only where it is held", holders);
    page.levels(
        "lease_expires_seconds",
        "Seconds until the lease ends unless it is renewed; only where it is held",
        expires,
    );
    page.levels("cycle_due", "Whether a cycle of the repository began and did not come to its end", due);
    let help = "How long a cycle has been due that did not begin, in seconds; none where nothing runs by itself";
    page.levels("cycle_overdue_seconds", help, overdue);
    page.levels("cycles_queued", "Cycles that somebody asked for and that have not begun", queued);
    let help = "How long ago a verification that was told found nothing wrong, in seconds";
    page.levels("verify_age_seconds", help, verified);
    page.levels("cycle_last_duration_seconds", "How long the last cycle took from open to end", lasted);
}

pub(super) fn of_the_workers(page: &mut Page, state: &State, now: LogTime) {
    let all = workers::standings(state, now);
    let count = |name: &&str| all.iter().filter(|one| *one == name).count() as f64;
    let levels = workers::STANDINGS.iter().map(|name| (vec![("state", (*name).to_owned())], count(name)));
    page.levels("workers", "Workers in processes of their own, by state", levels.collect::<Vec<_>>());
}

/// What is under way.
pub(super) fn of_the_cycles(page: &mut Page, state: &State, board: &Board, now: LogTime) {
    let (mut phases, mut shards, mut ratios, mut etas) = (vec![], vec![], vec![], vec![]);
    for cycle in state.cycles.values() {
        let registration = state.repositories.get(&cycle.repository).and_then(|entry| entry.registration.as_ref());
        let Some(registration) = registration else { continue };
        let repo: Labels = vec![("repo", registration.name.to_string())];
        let mode = cycle.options.mode;
        for stage in Stage::ALL.into_iter().filter(|stage| stage.is_in(mode)) {
            let own = vec![("mode", mode.name().to_owned()), ("phase", stage.name().to_owned())];
            phases.push(([repo.clone(), own].concat(), if stage == cycle.stage { 1.0 } else { 0.0 }));
        }
        for (name, count) in counted(cycle) {
            shards.push(([repo.clone(), vec![("state", name.to_owned())]].concat(), count as f64));
        }
        let Some(ratio) = board.told(cycle.id).and_then(|told| ratio(cycle, told)) else { continue };
        let labels = [repo, vec![("phase", cycle.stage.name().to_owned())]].concat();
        if let Some(seconds) = eta(board, cycle.id, ratio, now) {
            etas.push((labels.clone(), seconds));
        }
        ratios.push((labels, ratio));
    }
    page.levels("cycle_phase", "Whether an open cycle is at this phase", phases);
    page.levels("shards", "Shards of the present phase of open cycles, by state", shards);
    page.levels(
        "phase_progress_ratio",
        "How much of the present phase is done, 0 to 1, where its total is known",
        ratios,
    );
    let help = "Seconds until the present phase ends, if it goes on as it did";
    page.levels("phase_eta_seconds", help, etas);
}

fn counted(cycle: &Cycle) -> [(&'static str, usize); 4] {
    let count = |is: fn(&JobStatus) -> bool| cycle.jobs.values().filter(|job| is(&job.status)).count();
    [
        ("open", count(|status| matches!(status, JobStatus::Open(_)))),
        ("claimed", count(|status| matches!(status, JobStatus::Claimed(..)))),
        ("done", count(|status| matches!(status, JobStatus::Done(_)))),
        ("quarantined", count(|status| matches!(status, JobStatus::Quarantined))),
    ]
}

/// `None` unless every job has said what its total is.
fn ratio(cycle: &Cycle, told: &Told) -> Option<f64> {
    let known: Vec<&Progress> = told.progress.values().collect();
    let complete = !known.is_empty() && known.len() == cycle.jobs.len() && known.iter().all(|one| one.total > 0);
    let sum = |of: fn(&Progress) -> u64| known.iter().fold(0.0, |sum, one| sum + of(one) as f64);
    complete.then(|| (sum(|one| one.done) / sum(|one| one.total)).clamp(0.0, 1.0))
}

fn eta(board: &Board, cycle: CycleId, ratio: f64, now: LogTime) -> Option<f64> {
    let began = board.told(cycle)?.stage_opened;
    let spent = now.0.saturating_sub(began.0) as f64 / 1_000.0;
    (ratio > 0.0).then(|| spent * (1.0 - ratio) / ratio)
}
