//! The second key of a deed: batch by batch, with a deadline (R1, R14).

use verger_kopia::mutant::{self, Mutant};
use verger_proto::batch::{DEADLINE_MILLISECONDS_MAX, VIEW_AGE_MILLISECONDS_MAX};
use verger_proto::{Approval, Batch, BatchRequest, Effect, Event, Refusal, Stage, Ticket};

use crate::machine::{Batches, Cycle, Lease, Outstanding, Phase, Turn, fence};

/// Less than this many milliseconds left: renew the lease now, so that the next batch need not wait.
const RENEW_BELOW_MILLISECONDS: u64 = 60_000;

pub(crate) fn approve(
    turn: &mut Turn<'_>,
    cycle: &mut Cycle,
    ticket: Ticket,
    request: BatchRequest,
) -> Result<(), Refusal> {
    fence(cycle, &ticket)?;
    if cycle.phase != Phase::Running {
        return Err(Refusal::Stopping);
    }
    let anything = cycle.sealed.is_none() && mutant::on(Mutant::P2DeedBeforeSeal);
    if !anything {
        check_plan(cycle, &request)?;
    }
    let items = cycle.items();
    let job = cycle.jobs.get(&ticket.job).ok_or(Refusal::UnknownJob)?;
    // The answer was lost and it asks again: the same answer, not a second of time more.
    if let Some(same) = same_again(turn, &job.batches, &request) {
        turn.events.push(Event::BatchApproved { ticket, approval: same });
        return Ok(());
    }
    let again = !anything && check_order(&job.batches, &request.batch, items)?;
    let lease = check_lease(turn, cycle)?;
    check_view(cycle, &request)?;
    let valid_for = time_left(turn, &lease, &request);
    if valid_for < RENEW_BELOW_MILLISECONDS {
        let (repository, term) = (cycle.repository.clone(), cycle.term);
        turn.effects.push(Effect::RenewLease { repository, term });
    }
    let valid_for = valid_for.min(request.wanted);
    if valid_for == 0 {
        return Err(Refusal::NoTime);
    }
    let approval = Approval {
        batch: request.batch,
        term: cycle.term,
        plan: request.plan,
        view: request.view,
        deadline: turn.at.plus(valid_for),
        store_deadline: request.store_now.plus(valid_for),
        valid_for,
        again,
    };
    cycle.newest_view = request.view.taken;
    if let Some(job) = cycle.jobs.get_mut(&ticket.job) {
        job.batches.outstanding = Some(Outstanding { approval, ambiguous: false });
    }
    turn.events.push(Event::BatchApproved { ticket, approval });
    Ok(())
}

/// The batch belongs to the stage and to the sealed plan. Before the seal, only the survey writes: its start (R10).
fn check_plan(cycle: &Cycle, request: &BatchRequest) -> Result<(), Refusal> {
    if cycle.options.dry_run {
        return Err(Refusal::DryRun);
    }
    if request.batch.stage != cycle.stage {
        return Err(Refusal::OtherStage(cycle.stage));
    }
    let sealed = cycle.sealed.as_ref().map(|sealed| sealed.digest);
    match (cycle.stage, request.plan) {
        (Stage::Survey, None) => Ok(()),
        (Stage::Survey, Some(_)) => Err(Refusal::OtherPlan),
        (stage, _) if stage.is_repeatable() => Err(Refusal::NotADeed(stage)),
        (_, None) => Err(Refusal::NoPlan),
        (_, plan) if plan == sealed => Ok(()),
        _ => Err(Refusal::OtherPlan),
    }
}

fn same_again(turn: &Turn<'_>, batches: &Batches, request: &BatchRequest) -> Option<Approval> {
    let outstanding = batches.outstanding.as_ref()?;
    let approval = outstanding.approval;
    let same = (approval.batch, approval.view) == (request.batch, request.view);
    (same && !outstanding.ambiguous && turn.at < approval.deadline).then_some(approval)
}

/// In order, without gaps, inside the plan, one at a time. `true`: it was approved before and its end is unknown.
fn check_order(batches: &Batches, batch: &Batch, items: u64) -> Result<bool, Refusal> {
    if let Some(outstanding) = &batches.outstanding {
        let known = outstanding.approval.batch;
        return if known == *batch { Ok(true) } else { Err(Refusal::BatchOutstanding(known.number)) };
    }
    if (batch.number, batch.first) != (batches.next, batches.done) {
        return Err(Refusal::BatchOutOfOrder { number: batches.next, first: batches.done });
    }
    match batch.first.checked_add(batch.items) {
        Some(end) if end <= items => Ok(false),
        _ => Err(Refusal::BatchBeyondPlan { items }),
    }
}

fn check_lease(turn: &mut Turn<'_>, cycle: &Cycle) -> Result<Lease, Refusal> {
    let lease = turn.state.repositories.get(&cycle.repository).and_then(|entry| entry.lease);
    let lease = lease.ok_or(Refusal::NoLease)?;
    if lease.term != cycle.term {
        return Err(Refusal::StaleTerm { given: cycle.term, current: lease.term });
    }
    Ok(lease)
}

/// The view is at most 120 s old by the store's clock, and not older than the one before it.
fn check_view(cycle: &Cycle, request: &BatchRequest) -> Result<(), Refusal> {
    let (taken, now) = (request.view.taken, request.store_now);
    if taken > now || taken < cycle.newest_view {
        return Err(Refusal::ViewOrder);
    }
    let age = now.since(taken);
    if age > VIEW_AGE_MILLISECONDS_MAX && !mutant::on(Mutant::R14OldViewApproved) {
        Err(Refusal::StaleView(age))
    } else {
        Ok(())
    }
}

/// Milliseconds that are left by both clocks; never more than 120 s.
fn time_left(turn: &Turn<'_>, lease: &Lease, request: &BatchRequest) -> u64 {
    if mutant::on(Mutant::R5UnconfirmedLeaseCounts) {
        return DEADLINE_MILLISECONDS_MAX;
    }
    let by_store = lease.acts_until.since(request.store_now);
    let by_log = lease.confirmed_until.since(turn.at);
    let more = u64::from(mutant::on(Mutant::P2OneMillisecondMore));
    by_store.min(by_log).min(DEADLINE_MILLISECONDS_MAX).saturating_add(more)
}
