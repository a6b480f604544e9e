//! What is stale, and what was said before.

use verger_kopia::mutant::{self, Mutant};
use verger_proto::{Command, CycleId, JobId, Refusal, Ticket};

use super::state::{Cycle, JobStatus, Phase};

/// Name, cycle and job of a command, for the record of its refusal.
pub(super) fn about(command: &Command) -> (&'static str, Option<CycleId>, Option<JobId>) {
    let (cycle, job) = match command {
        Command::ClaimJob { ticket }
        | Command::ReportProgress { ticket, .. }
        | Command::CompleteJob { ticket, .. }
        | Command::FailJob { ticket, .. }
        | Command::AddRevivals { ticket, .. }
        | Command::ApproveBatch { ticket, .. }
        | Command::BatchDone { ticket, .. } => (Some(ticket.cycle), Some(ticket.job)),
        Command::SealPlan { cycle, .. }
        | Command::ParkCycle { cycle }
        | Command::ResumeCycle { cycle }
        | Command::PauseCycle { cycle }
        | Command::UnpauseCycle { cycle }
        | Command::AbortCycle { cycle, .. } => (Some(*cycle), None),
        Command::TakeLease { .. }
        | Command::RenewLease { .. }
        | Command::LoseLease { .. }
        | Command::ReleaseLease { .. }
        | Command::OpenCycle { .. }
        | Command::LoseWorker { .. }
        | Command::Tick
        | Command::AddRepository { .. }
        | Command::ChangeRepository { .. }
        | Command::RemoveRepository { .. }
        | Command::RequestCycle { .. }
        | Command::DropRequest { .. }
        | Command::RecordLook { .. }
        | Command::RecordProbe { .. }
        | Command::CreateToken { .. }
        | Command::RevokeToken { .. } => (None, None),
        Command::RecordReport { cycle, .. } => (Some(*cycle), None),
        Command::Ordered(ordered) => return about(&ordered.command),
        Command::Driven(driven) => return about(&driven.command),
        Command::AdmitNode { .. }
        | Command::TakeDrive { .. }
        | Command::LeaveDrive { .. }
        | Command::NoteWrite { .. }
        | Command::NoteSession { .. }
        | Command::SeeWorker { .. }
        | Command::ForgetWorker { .. }
        | Command::DrainWorker { .. }
        | Command::NoteWorkKey { .. } => (None, None),
        Command::DismissNode { .. } | Command::MoveNode { .. } | Command::RecoverCluster(_) => (None, None),
        Command::IdentifyStore { .. }
        | Command::NoteLease { .. }
        | Command::NoteUnable { .. }
        | Command::NoteShutOut { .. }
        | Command::RecordVerification { .. } => (None, None),
        Command::RaiseLevel { .. } => (None, None),
    };
    (command.name(), cycle, job)
}

/// Refuses who speaks under another term, about another attempt, or for another worker's job.
pub(crate) fn fence(cycle: &Cycle, ticket: &Ticket) -> Result<(), Refusal> {
    let job = present(cycle, ticket)?;
    match &job.status {
        JobStatus::Claimed(worker, _) if *worker == ticket.worker => Ok(()),
        JobStatus::Open(_) => Err(Refusal::NotClaimed),
        JobStatus::Claimed(..) | JobStatus::Done(_) => Err(Refusal::ClaimedByOther),
        JobStatus::Quarantined => Err(Refusal::UnknownJob),
    }
}

/// The job that the ticket is about, if term and attempt are the present ones.
pub(crate) fn present<'a>(cycle: &'a Cycle, ticket: &Ticket) -> Result<&'a super::state::Job, Refusal> {
    if ticket.term != cycle.term && !mutant::on(Mutant::S3OldTermHeard) {
        return Err(Refusal::StaleTerm { given: ticket.term, current: cycle.term });
    }
    if cycle.phase == Phase::Parked {
        return Err(Refusal::Stopping);
    }
    let job = cycle.jobs.get(&ticket.job).ok_or(Refusal::UnknownJob)?;
    if ticket.attempt != job.attempt && !mutant::on(Mutant::S3OldAttemptHeard) {
        return Err(Refusal::StaleAttempt { given: ticket.attempt, current: job.attempt });
    }
    Ok(job)
}

/// Whether this very attempt of this very worker was counted already.
pub(super) fn is_repeated(cycle: &Cycle, ticket: &Ticket) -> bool {
    let earlier = cycle.finished.get(&ticket.job);
    let before = earlier.is_some_and(|(attempt, worker)| (*attempt, worker) == (ticket.attempt, &ticket.worker));
    let job = cycle.jobs.get(&ticket.job).filter(|job| job.attempt == ticket.attempt);
    let present = job.is_some_and(|job| matches!(&job.status, JobStatus::Done(worker) if *worker == ticket.worker));
    ticket.term == cycle.term && (before || present)
}
