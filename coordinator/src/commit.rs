//! What came of a batch, and what was revived beyond the plan.

use verger_proto::{BatchOutcome, BatchResult, Event, OutputRef, Refusal, Stage, Ticket};

use crate::cycle;
use crate::machine::{Cycle, Phase, Turn, fence};

pub(crate) fn batch_done(
    turn: &mut Turn<'_>,
    cycle: &mut Cycle,
    ticket: Ticket,
    outcome: BatchOutcome,
) -> Result<(), Refusal> {
    let job = cycle.jobs.get_mut(&ticket.job).ok_or(Refusal::UnknownJob)?;
    let batches = &mut job.batches;
    let Some(outstanding) = batches.outstanding.as_mut().filter(|o| o.approval.batch == outcome.batch) else {
        let repeated = outcome.result == BatchResult::Done && batches.last == Some(outcome.batch);
        return if repeated {
            turn.events.push(Event::ResultRepeated { ticket });
            Ok(())
        } else {
            Err(Refusal::BatchUnknown)
        };
    };
    check_figures(&outcome)?;
    match outcome.result {
        BatchResult::Done => {
            batches.done = batches.done.saturating_add(outcome.batch.items);
            batches.next = batches.next.saturating_add(1);
            batches.last = Some(outcome.batch);
            batches.outstanding = None;
            // Attempts are counted against a job that gets nowhere, not against a long one on a bad line.
            job.failures = 0;
        }
        BatchResult::NotDone => batches.outstanding = None,
        BatchResult::Ambiguous => outstanding.ambiguous = true,
    }
    turn.events.push(match outcome.result {
        BatchResult::Ambiguous => Event::BatchAmbiguous { ticket, outcome },
        BatchResult::Done | BatchResult::NotDone => Event::BatchDone { ticket, outcome },
    });
    if let Phase::Stopping(_) = cycle.phase {
        cycle::settle(turn, cycle);
    }
    Ok(())
}

fn check_figures(outcome: &BatchOutcome) -> Result<(), Refusal> {
    let named = outcome.changed.checked_add(outcome.left_out).ok_or(Refusal::BatchFigures)?;
    let adds_up = match outcome.result {
        BatchResult::Done => named == outcome.batch.items,
        BatchResult::NotDone => named == 0,
        BatchResult::Ambiguous => named <= outcome.batch.items,
    };
    if adds_up { Ok(()) } else { Err(Refusal::BatchFigures) }
}

/// Revivals are the only thing that a cycle may add to a sealed plan (R14).
pub(crate) fn add_revivals(
    turn: &mut Turn<'_>,
    cycle: &mut Cycle,
    ticket: Ticket,
    revived: OutputRef,
    bytes: u64,
) -> Result<(), Refusal> {
    fence(cycle, &ticket)?;
    let allowed = matches!(cycle.stage, Stage::Revive | Stage::Watermark | Stage::Delete | Stage::DeleteRewritten);
    if !allowed || cycle.sealed.is_none() {
        return Err(Refusal::NoRevival(cycle.stage));
    }
    turn.events.push(Event::RevivalsAdded { ticket, revived, bytes });
    Ok(())
}
