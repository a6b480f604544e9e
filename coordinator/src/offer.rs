//! Jobs go out: made, offered, claimed, kept alive, offered again.

use verger_kopia::mutant::{self, Mutant};
use verger_proto::{
    CycleId, Effect, Event, Failure, FailureKind, JobId, LogTime, Progress, Refusal, Shard, Stage, Ticket, WorkerId,
};

use crate::machine::{Batches, Cycle, Job, JobStatus, Phase, Turn};
use crate::{cycle, lease, shard, split, stage};

/// A claim ends this many milliseconds after its worker was last heard.
pub(crate) const CLAIM_MILLISECONDS: u64 = 30_000;
/// A job that nobody claims is offered again after this many milliseconds: a hint may be lost.
const OFFER_AGAIN_MILLISECONDS: u64 = 15_000;
/// For so long after its pause a job is offered with every word that time passes.
const AFTER_PAUSE_MILLISECONDS: u64 = 2_500;
/// So many attempts may fail or be lost.
pub(crate) const ATTEMPTS_MAX: u32 = 5;
/// A shard that finds no room is tried again after so many milliseconds: somebody has to make some.
const ROOM_MILLISECONDS: u64 = 60_000;
/// And so many attempts of it may come to nothing: for half an hour, a full exchange costs time only.
pub(crate) const ROOM_ATTEMPTS_MAX: u32 = 30;

/// Begins a stage: a job for each shard.
pub(crate) fn open_stage(turn: &mut Turn<'_>, cycle: &mut Cycle, stage: Stage) {
    cycle.stage = stage;
    let shards = shard::shards(cycle, stage);
    let jobs = u32::try_from(shards.len()).unwrap_or(u32::MAX);
    turn.events.push(Event::StageOpened { cycle: cycle.id, stage, jobs });
    for shard in shards {
        let id = add_job(turn, cycle, shard);
        send(turn, cycle, id);
    }
}

/// Makes a job for a shard. It is not offered yet.
pub(crate) fn add_job(turn: &mut Turn<'_>, cycle: &mut Cycle, shard: Shard) -> JobId {
    let id = JobId(turn.state.next_job);
    turn.state.next_job = turn.state.next_job.saturating_add(1);
    let (status, batches) = (JobStatus::Open(turn.at), Batches::default());
    cycle.jobs.insert(id, Job { id, shard, attempt: 1, failures: 0, status, batches });
    id
}

/// Remembers who did the jobs of the stage, so that a repeated report is known.
pub(crate) fn close_stage(cycle: &mut Cycle) {
    for (id, job) in std::mem::take(&mut cycle.jobs) {
        if let JobStatus::Done(worker) = job.status {
            cycle.finished.insert(id, (job.attempt, worker));
        }
    }
}

/// Offers a job.
pub(crate) fn send(turn: &mut Turn<'_>, cycle: &Cycle, id: JobId) {
    if let Some(job) = cycle.jobs.get(&id) {
        let (shard, attempt) = (job.shard.clone(), job.attempt);
        turn.events.push(Event::JobOffered { cycle: cycle.id, job: id, stage: cycle.stage, shard, attempt });
        turn.effects.push(Effect::OfferJob(Box::new(cycle.spec(job))));
    }
}

/// Takes an open job back from its worker. A batch that it was allowed to do must be looked at again.
pub(crate) fn take_back(job: &mut Job, at: LogTime) {
    job.status = JobStatus::Open(at);
    if let Some(outstanding) = &mut job.batches.outstanding {
        outstanding.ambiguous = true;
    }
}

/// Offers a job again as its next attempt; the one before is fenced from here on.
pub(crate) fn again(turn: &mut Turn<'_>, cycle: &mut Cycle, id: JobId) {
    if let Some(job) = cycle.jobs.get_mut(&id) {
        take_back(job, turn.at);
        job.attempt = job.attempt.saturating_add(1);
        send(turn, cycle, id);
    }
}

/// As [`again`], after a pause: until then nobody gets it.
fn later(turn: &mut Turn<'_>, cycle: &mut Cycle, id: JobId, pause: u64) {
    let Some(job) = cycle.jobs.get_mut(&id) else { return };
    take_back(job, turn.at.plus(pause));
    job.attempt = job.attempt.saturating_add(1);
    let (shard, attempt) = (job.shard.clone(), job.attempt);
    turn.events.push(Event::JobOffered { cycle: cycle.id, job: id, stage: cycle.stage, shard, attempt });
}

/// An attempt came to nothing: again, in halves, around it, or the end of the cycle (R12).
pub(crate) fn after_failure(turn: &mut Turn<'_>, cycle: &mut Cycle, id: JobId, failure: Failure) {
    let is_shards_own = is_local(failure.kind);
    failed(turn, cycle, id, failure, is_shards_own);
}

/// `is_shards_own`: it says something of this shard alone, and not of the whole repository or process.
fn failed(turn: &mut Turn<'_>, cycle: &mut Cycle, id: JobId, failure: Failure, is_shards_own: bool) {
    let Some(job) = cycle.jobs.get_mut(&id) else { return };
    // Whoever is told to stop gives a shard back: that says nothing of it.
    let is_given_back = failure.kind == FailureKind::Interrupted && !job.shard.is_whole();
    job.failures = job.failures.saturating_add(u32::from(!is_given_back));
    take_back(job, turn.at);
    if let Phase::Stopping(_) = cycle.phase {
        return cycle::settle(turn, cycle);
    }
    let failures = job.failures;
    if is_given_back {
        return again(turn, cycle, id);
    }
    if split::is_part(cycle, id) {
        if failure.kind == FailureKind::DiskFull && failure.retryable && failures < ROOM_ATTEMPTS_MAX {
            return later(turn, cycle, id, ROOM_MILLISECONDS);
        }
        let is_to_split = !failure.retryable || failures >= split::ATTEMPTS;
        if is_to_split && split::split(turn, cycle, id, &failure) {
            return;
        }
        if failure.retryable && failures < ATTEMPTS_MAX {
            return later(turn, cycle, id, split::pause(failures));
        }
    } else if failure.retryable && failures < ATTEMPTS_MAX {
        return again(turn, cycle, id);
    }
    let Some(job) = cycle.jobs.get_mut(&id) else { return };
    let (stage, settled) = (cycle.stage, job.batches.outstanding.is_none());
    if stage::can_go_around(stage) && settled && is_shards_own {
        job.status = JobStatus::Quarantined;
        cycle.severity = cycle.severity.max(Some(verger_proto::Severity::Noted));
        turn.events.push(Event::ShardQuarantined { cycle: cycle.id, job: id, stage, failure });
        cycle::advance(turn, cycle);
    } else {
        cycle::fail(turn, cycle, failure);
    }
}

/// Whether a failure says something of this shard alone, and not of the whole repository or process.
fn is_local(kind: FailureKind) -> bool {
    use FailureKind::{Damaged, MemoryLimit, NotFound, StoreUnavailable};
    matches!(kind, Damaged | MemoryLimit | NotFound | StoreUnavailable)
}

/// A shard of a stage that was cut is anybody's. All else is for whoever drives the repository, where somebody does: it needs what he
/// has found so far.
fn check_open_to_all(turn: &Turn<'_>, cycle: &Cycle, ticket: &Ticket) -> Result<(), Refusal> {
    let is_part = cycle.jobs.get(&ticket.job).is_some_and(|job| !job.shard.is_whole());
    let driver = turn.state.repositories.get(&cycle.repository).and_then(|entry| entry.driver);
    match driver {
        Some((driver, _)) if !is_part && cycle.jobs.contains_key(&ticket.job) => Err(Refusal::DrivenByOther(driver)),
        _ => Ok(()),
    }
}

/// A claim of somebody who need not drive the repository.
pub(crate) fn claim_open(turn: &mut Turn<'_>, cycle: &mut Cycle, ticket: Ticket) -> Result<(), Refusal> {
    check_open_to_all(turn, cycle, &ticket)?;
    claim(turn, cycle, ticket)
}

pub(crate) fn claim(turn: &mut Turn<'_>, cycle: &mut Cycle, ticket: Ticket) -> Result<(), Refusal> {
    let job = crate::machine::present(cycle, &ticket)?;
    if cycle.phase != Phase::Running {
        return Err(Refusal::Stopping);
    }
    match &job.status {
        JobStatus::Open(from) if *from > turn.at => return Err(Refusal::NotYet(from.since(turn.at))),
        JobStatus::Open(_) => {}
        // The answer was lost, and it asks again.
        JobStatus::Claimed(worker, _) if *worker == ticket.worker => {}
        JobStatus::Claimed(..) | JobStatus::Done(_) | JobStatus::Quarantined => return Err(Refusal::ClaimedByOther),
    }
    keep_alive(turn, cycle, &ticket);
    turn.events.push(Event::JobClaimed { ticket });
    Ok(())
}

fn keep_alive(turn: &Turn<'_>, cycle: &mut Cycle, ticket: &Ticket) {
    if let Some(job) = cycle.jobs.get_mut(&ticket.job) {
        job.status = JobStatus::Claimed(ticket.worker.clone(), turn.at.plus(CLAIM_MILLISECONDS));
    }
}

pub(crate) fn progress(
    turn: &mut Turn<'_>,
    cycle: &mut Cycle,
    ticket: Ticket,
    progress: Option<Progress>,
) -> Result<(), Refusal> {
    crate::machine::fence(cycle, &ticket)?;
    keep_alive(turn, cycle, &ticket);
    turn.events.push(Event::JobProgressed { ticket, progress });
    Ok(())
}

pub(crate) fn lose_worker(turn: &mut Turn<'_>, worker: &WorkerId) {
    lose_claims(turn, |claimed, _| claimed == worker);
}

/// Looks for what ran out: claims, offers that nobody took, deadlines that a stopping cycle waited for, leases.
pub(crate) fn tick(turn: &mut Turn<'_>) {
    let at = turn.at;
    lose_claims(turn, |_, until| until < at && !mutant::on(Mutant::S7ClaimForEver));
    for id in turn.state.cycles.keys().copied().collect::<Vec<_>>() {
        // The cycle is there: its number was read a moment ago.
        let _ = turn.with_cycle(id, |turn, cycle| {
            cycle_tick(turn, cycle);
            Ok(())
        });
    }
    lease::tick(turn);
}

fn cycle_tick(turn: &mut Turn<'_>, cycle: &mut Cycle) {
    match cycle.phase {
        Phase::Stopping(_) => cycle::settle(turn, cycle),
        Phase::Running => {
            let old = |job: &&Job| matches!(job.status, JobStatus::Open(since) if is_to_offer(job, since, turn.at));
            let hints = cycle.jobs.values().filter(old).map(|job| Effect::OfferJob(Box::new(cycle.spec(job))));
            turn.effects.extend(hints);
        }
        Phase::WaitingForWord | Phase::Parked => {}
    }
}

/// Whether an open job is to be offered now: its pause is over, or nobody took it for long.
fn is_to_offer(job: &Job, since: LogTime, at: LogTime) -> bool {
    let waited = at >= since && job.failures > 0 && !job.shard.is_whole() && at.since(since) < AFTER_PAUSE_MILLISECONDS;
    let is_old = at.since(since) >= OFFER_AGAIN_MILLISECONDS && !mutant::on(Mutant::S7AckBelieved);
    waited || is_old
}

fn lose_claims(turn: &mut Turn<'_>, is_lost: impl Fn(&WorkerId, LogTime) -> bool) {
    let mut lost: Vec<(CycleId, JobId, WorkerId)> = Vec::new();
    for (cycle, job) in turn.state.cycles.values().flat_map(|c| c.jobs.values().map(|job| (c.id, job))) {
        match &job.status {
            JobStatus::Claimed(worker, until) if is_lost(worker, *until) => lost.push((cycle, job.id, worker.clone())),
            _ => {}
        }
    }
    for (id, job, worker) in lost {
        // A cycle that a job before this one ended is not there any more; so is the job.
        let _ = turn.with_cycle(id, |turn, cycle| {
            lose(turn, cycle, job, worker);
            Ok(())
        });
    }
}

fn lose(turn: &mut Turn<'_>, cycle: &mut Cycle, id: JobId, worker: WorkerId) {
    let Some(job) = cycle.jobs.get(&id) else { return };
    turn.events.push(Event::JobLost { cycle: cycle.id, job: id, attempt: job.attempt, worker: worker.clone() });
    let text = format!("the worker {worker} is gone, as others before it on this job");
    let failure = Failure { kind: FailureKind::Internal, text, retryable: true };
    // A shard that one worker after the other dies of is a matter of that shard; a stage as a whole is its lead's.
    let is_shards_own = turn.state.level >= 1 && split::is_part(cycle, id);
    failed(turn, cycle, id, failure, is_shards_own);
}
