//! Results come back: fenced, checked, counted once.

use verger_kopia::mutant::{self, Mutant};
use verger_proto::{Damage, Event, Failure, JobReport, Outcome, Refusal, Stage, Ticket};

use crate::machine::{Cycle, JobStatus, Phase, Turn};
use crate::{cycle, offer, shard};

pub(crate) fn complete(
    turn: &mut Turn<'_>,
    cycle: &mut Cycle,
    ticket: Ticket,
    report: JobReport,
) -> Result<(), Refusal> {
    let damage = match report.outcome {
        Outcome::Failed(failure) => return fail(turn, cycle, ticket, failure),
        Outcome::Degraded(ref damage) => damage.clone(),
        Outcome::Done => Vec::new(),
    };
    check(cycle, &ticket, &report)?;
    let plan = match report.plan {
        Some(header) => {
            let digest = header.digest().map_err(|error| Refusal::Incoherent(error.to_string()))?;
            Some((digest, header))
        }
        None => None,
    };
    let (id, view) = (cycle.id, report.view);
    if let Some(job) = cycle.jobs.get_mut(&ticket.job) {
        job.status = JobStatus::Done(ticket.worker.clone());
    }
    if let Some(view) = view {
        cycle.view = Some((view, turn.at));
    }
    cycle.proposed = plan.or(cycle.proposed.take());
    cycle.cuts.extend(report.cuts.into_iter().map(|cut| (cut.stage, cut.shards)));
    cycle.outputs.extend(report.outputs.iter().cloned());
    turn.events.push(Event::JobCompleted { ticket, outputs: report.outputs, stats: report.stats, view });
    degrade(turn, cycle, id, damage);
    match cycle.phase {
        Phase::Stopping(_) => cycle::settle(turn, cycle),
        _ => cycle::advance(turn, cycle),
    }
    Ok(())
}

fn degrade(turn: &mut Turn<'_>, cycle: &mut Cycle, id: verger_proto::CycleId, damage: Vec<Damage>) {
    if let Some(severity) = damage.iter().map(|one| one.severity).max() {
        cycle.severity = cycle.severity.max(Some(severity));
        turn.events.push(Event::CycleDegraded { cycle: id, severity, damage });
    }
}

/// Refuses a report that leaves out what its stage must leave. The job stays with its worker.
fn check(cycle: &Cycle, ticket: &Ticket, report: &JobReport) -> Result<(), Refusal> {
    let job = cycle.jobs.get(&ticket.job).ok_or(Refusal::UnknownJob)?;
    if let Some(outstanding) = &job.batches.outstanding {
        return Err(Refusal::BatchOutstanding(outstanding.approval.batch.number));
    }
    let (done, items) = (job.batches.done, cycle.items());
    if done != items && !mutant::on(Mutant::R12UncoveredIsDone) {
        return Err(Refusal::Uncovered { done, items });
    }
    let stage = cycle.stage;
    let lacking = |what: &str| Refusal::Lacking { stage, what: what.to_owned() };
    let unexpected = |what: &str| Refusal::Incoherent(format!("{stage} reports {what}"));
    match stage {
        Stage::Survey if report.view.is_none() => return Err(lacking("the index view")),
        Stage::Plan if report.plan.is_none() => return Err(lacking("the plan's header")),
        Stage::Check if report.checked.is_none() => return Err(lacking("the digest of the plan that was checked")),
        Stage::Check if report.checked != cycle.proposed.as_ref().map(|(digest, _)| *digest) => {
            return Err(Refusal::OtherPlan);
        }
        _ => {}
    }
    if report.view.is_some() && stage != Stage::Survey {
        return Err(unexpected("an index view"));
    }
    if report.plan.is_some() && stage != Stage::Plan {
        return Err(unexpected("a plan"));
    }
    shard::check(&report.cuts, stage)?;
    check_outputs(cycle, report)
}

/// Names are unique in the cycle, and what the plan rests on is made from the cycle's one view (R10, R12).
fn check_outputs(cycle: &Cycle, report: &JobReport) -> Result<(), Refusal> {
    let view = report.view.or(cycle.view.map(|(view, _)| view)).map(|view| view.digest);
    for (index, output) in report.outputs.iter().enumerate() {
        let before = cycle.outputs.iter().chain(report.outputs.iter().take(index));
        if before.into_iter().any(|other| other.name == output.name) {
            return Err(Refusal::OutputTwice(output.name.clone()));
        }
        let is_other = Some(output.view) != view && !mutant::on(Mutant::R10OutputsOfAnotherView);
        if cycle.stage.is_repeatable() && is_other {
            return Err(Refusal::OtherView);
        }
    }
    Ok(())
}

pub(crate) fn fail(turn: &mut Turn<'_>, cycle: &mut Cycle, ticket: Ticket, failure: Failure) -> Result<(), Refusal> {
    let job = ticket.job;
    turn.events.push(Event::JobFailed { ticket, failure: failure.clone() });
    offer::after_failure(turn, cycle, job, failure);
    Ok(())
}
