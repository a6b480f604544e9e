//! The control of workers in the same process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use verger_kopia::error::{Error, ErrorKind};
use verger_proto::control::{Control, ControlError, Directive};
use verger_proto::{
    Approval, BatchOutcome, BatchRequest, Command, Event, Evidence, FailureKind, JobId, JobReport, JobSpec, Outcome,
    OutputRef, Progress, Refusal, Ticket,
};

use super::{Drive, refusal};

/// Progress goes into the ledger this often at most.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// The control of workers in the same process. Any number of threads may use it.
#[derive(Debug)]
pub struct LocalControl {
    drive: Arc<Drive>,
    progress: Mutex<BTreeMap<JobId, Latest>>,
}

#[derive(Debug, Clone, Copy)]
struct Latest {
    attempt: u32,
    progress: Option<Progress>,
    recorded: Duration,
}

impl LocalControl {
    /// A control of this machine.
    #[must_use]
    pub fn new(drive: Arc<Drive>) -> Self {
        Self { drive, progress: Mutex::default() }
    }

    /// The latest word about a job, thinned by nothing.
    #[must_use]
    pub fn latest(&self, job: JobId) -> Option<Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).get(&job).and_then(|latest| latest.progress)
    }

    fn submit(&self, command: Command) -> Result<Vec<Event>, ControlError> {
        let events = self.drive.submit(command).map_err(|error| unwritten(&error))?;
        refusal(&events).map_or(Ok(events), |reason| Err(ControlError::Refused(reason)))
    }

    fn directive(&self, ticket: &Ticket) -> Result<Directive, ControlError> {
        self.drive.state(|state| state.directive(ticket)).map_err(ControlError::Refused)
    }

    /// Notes the word; whether it is time for the ledger to hear it, too.
    fn is_for_the_ledger(&self, ticket: &Ticket, progress: Option<Progress>) -> bool {
        let now = self.drive.clock.since_boot();
        let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&ticket.job).copied().filter(|latest| latest.attempt == ticket.attempt);
        let known = known.unwrap_or(Latest { attempt: ticket.attempt, progress: None, recorded: now });
        let due = now.saturating_sub(known.recorded) >= PROGRESS_EVERY;
        let progress = progress.or(known.progress);
        all.insert(ticket.job, Latest { progress, ..known });
        due
    }

    fn say(&self, ticket: &Ticket, progress: Option<Progress>) -> Result<Directive, ControlError> {
        progress.into_iter().for_each(|progress| self.drive.tell(ticket, progress));
        if self.is_for_the_ledger(ticket, progress) {
            let progress = self.latest(ticket.job);
            self.submit(Command::ReportProgress { ticket: ticket.clone(), progress })?;
            // A word that nobody heard is said again with the next one.
            let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(latest) = all.get_mut(&ticket.job).filter(|latest| latest.attempt == ticket.attempt) {
                latest.recorded = self.drive.clock.since_boot();
            }
        }
        self.directive(ticket)
    }
}

/// Nobody who leads heard it: that passes. A ledger that cannot be written does not.
pub(super) fn unwritten(error: &Error) -> ControlError {
    let kind = match error.kind() {
        ErrorKind::StoreUnavailable => return ControlError::Unavailable(error.chain()),
        ErrorKind::DiskFull => FailureKind::DiskFull,
        _ => FailureKind::Permission,
    };
    ControlError::Ledger { kind, text: error.chain() }
}

impl Control for LocalControl {
    fn claim(&self, ticket: &Ticket) -> Result<JobSpec, ControlError> {
        self.submit(Command::ClaimJob { ticket: ticket.clone() })?;
        // The claim is a word, too: the next one is due so long after it, whenever the first word about progress comes.
        let latest = Latest { attempt: ticket.attempt, progress: None, recorded: self.drive.clock.since_boot() };
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket.job, latest);
        let spec = self.drive.state(|state| state.spec(ticket.cycle, ticket.job));
        // Between the two the cycle may have been stopped.
        spec.filter(|spec| spec.attempt == ticket.attempt).ok_or(ControlError::Refused(Refusal::Stopping))
    }

    fn renew(&self, ticket: &Ticket) -> Result<Directive, ControlError> {
        self.say(ticket, None)
    }

    fn progress(&self, ticket: &Ticket, progress: Progress) -> Result<Directive, ControlError> {
        self.say(ticket, Some(progress))
    }

    fn approve_batch(&self, ticket: &Ticket, request: BatchRequest) -> Result<Approval, ControlError> {
        let events = self.submit(Command::ApproveBatch { ticket: ticket.clone(), request })?;
        let approval = events.iter().find_map(|event| match event {
            Event::BatchApproved { approval, .. } => Some(*approval),
            _ => None,
        });
        approval.ok_or_else(|| ControlError::Unavailable("an approval without an approval".to_owned()))
    }

    fn batch_done(&self, ticket: &Ticket, outcome: BatchOutcome) -> Result<Directive, ControlError> {
        self.submit(Command::BatchDone { ticket: ticket.clone(), outcome })?;
        // With its last batch a stopping cycle is parked or over, and the ticket with it.
        Ok(self.directive(ticket).unwrap_or(Directive::Stop))
    }

    fn keep_evidence(&self, ticket: &Ticket, evidence: Evidence) -> Result<OutputRef, ControlError> {
        self.drive.keep(ticket, &evidence).map_err(|error| unwritten(&error))
    }

    fn add_revivals(&self, ticket: &Ticket, revived: OutputRef, bytes: u64) -> Result<(), ControlError> {
        self.submit(Command::AddRevivals { ticket: ticket.clone(), revived, bytes }).map(drop)
    }

    fn report(&self, ticket: &Ticket, report: JobReport) -> Result<(), ControlError> {
        let ticket = ticket.clone();
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket.job);
        let command = match report.outcome {
            Outcome::Failed(failure) => Command::FailJob { ticket, failure },
            Outcome::Done | Outcome::Degraded(_) => Command::CompleteJob { ticket, report: Box::new(report) },
        };
        self.submit(command).map(drop)
    }
}
