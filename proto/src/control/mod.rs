//! The seam between a worker and whoever leads: claim, renew, progress, approve, done, report.

pub mod local;

use crate::batch::{Approval, BatchOutcome, BatchRequest, Evidence};
use crate::job::{JobSpec, OutputRef, Ticket};
use crate::refusal::Refusal;
use crate::report::{FailureKind, JobReport, Progress};

/// Why there is no answer, or which.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// The machine said no. Nothing was changed; stop, or do what the refusal asks for.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// Nobody answered. What was asked for may have happened; ask the same again.
    #[error("the coordinator does not answer: {0}")]
    Unavailable(String),
    /// The ledger cannot be written, so nothing may happen.
    #[error("the ledger cannot be written: {text}")]
    Ledger {
        /// No room, or no right to.
        kind: FailureKind,
        /// What, why, and the fix.
        text: String,
    },
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Directive {
    /// Go on.
    Continue,
    /// Finish the batch under way, if any, and come back: the cycle is being parked, aborted, or the attempt is not yours.
    Stop,
}

/// What a worker can ask. Asking twice is safe: the second answer is that of the first.
pub trait Control: Send + Sync {
    /// Takes a job that was offered.
    ///
    /// # Errors
    /// Refused if somebody else has it or it is not open any more.
    fn claim(&self, ticket: &Ticket) -> Result<JobSpec, ControlError>;

    /// Says that the worker is alive; learns whether to go on.
    ///
    /// # Errors
    /// Refused if the attempt is not the worker's any more.
    fn renew(&self, ticket: &Ticket) -> Result<Directive, ControlError>;

    /// Says how far it is; renews as well. Cheap: may be called for every blob.
    ///
    /// # Errors
    /// Refused if the attempt is not the worker's any more.
    fn progress(&self, ticket: &Ticket, progress: Progress) -> Result<Directive, ControlError>;

    /// Asks for a batch right before doing it. The intent is durable when this returns (S6).
    ///
    /// # Errors
    /// Refused: the deed must not be done.
    fn approve_batch(&self, ticket: &Ticket, request: BatchRequest) -> Result<Approval, ControlError>;

    /// Says how a batch ended. Say it once for every approval.
    ///
    /// # Errors
    /// Refused if no such batch was approved.
    fn batch_done(&self, ticket: &Ticket, outcome: BatchOutcome) -> Result<Directive, ControlError>;

    /// Keeps the names of what a batch did beside the ledger; the answer goes into [`BatchOutcome::evidence`].
    ///
    /// # Errors
    /// It could not be kept.
    fn keep_evidence(&self, ticket: &Ticket, evidence: Evidence) -> Result<OutputRef, ControlError>;

    /// Says which contents were revived beyond the plan (R14).
    ///
    /// # Errors
    /// Refused where nothing can be revived.
    fn add_revivals(&self, ticket: &Ticket, revived: OutputRef, bytes: u64) -> Result<(), ControlError>;

    /// Ends the attempt.
    ///
    /// # Errors
    /// Refused if the result was fenced: nothing of it counts.
    fn report(&self, ticket: &Ticket, report: JobReport) -> Result<(), ControlError>;
}
