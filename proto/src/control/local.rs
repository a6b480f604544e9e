//! A control that records what it is asked and answers as told: for the tests of workers.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Control, ControlError, Directive};
use crate::batch::{Approval, BatchOutcome, BatchRequest, Evidence};
use crate::digest::Digest;
use crate::job::{JobSpec, OutputRef, Ticket};
use crate::refusal::Refusal;
use crate::report::{JobReport, Progress};
use crate::time::{LogTime, StoreTime};

/// What was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// `approve_batch`.
    Approve(BatchRequest),
    /// `batch_done`.
    Done(BatchOutcome),
    /// `keep_evidence`.
    Evidence(Evidence),
    /// `add_revivals`.
    Revivals(OutputRef, u64),
    /// `report`.
    Report(Box<JobReport>),
}

/// Approves everything, except where refusals were put in line.
#[derive(Debug)]
pub struct ScriptedControl {
    job: JobSpec,
    asked: Mutex<Vec<Asked>>,
    refusals: Mutex<VecDeque<Option<Refusal>>>,
    stop: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScriptedControl {
    /// A control with one job.
    #[must_use]
    pub fn new(job: JobSpec) -> Self {
        Self { job, asked: Mutex::default(), refusals: Mutex::default(), stop: Mutex::default() }
    }

    /// The next approval is refused (`Some`) or given (`None`); after the last in line all are given.
    pub fn next_approval(&self, answer: Option<Refusal>) {
        lock(&self.refusals).push_back(answer);
    }

    /// From now on workers are told to stop.
    pub fn stop(&self) {
        *lock(&self.stop) = true;
    }

    /// All that was asked, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }

    fn directive(&self) -> Directive {
        if *lock(&self.stop) { Directive::Stop } else { Directive::Continue }
    }
}

impl Control for ScriptedControl {
    fn claim(&self, _ticket: &Ticket) -> Result<JobSpec, ControlError> {
        Ok(self.job.clone())
    }

    fn renew(&self, _ticket: &Ticket) -> Result<Directive, ControlError> {
        Ok(self.directive())
    }

    fn progress(&self, _ticket: &Ticket, _progress: Progress) -> Result<Directive, ControlError> {
        Ok(self.directive())
    }

    fn approve_batch(&self, _ticket: &Ticket, request: BatchRequest) -> Result<Approval, ControlError> {
        lock(&self.asked).push(Asked::Approve(request));
        if let Some(Some(refusal)) = lock(&self.refusals).pop_front() {
            return Err(ControlError::Refused(refusal));
        }
        let valid_for = request.wanted.min(crate::batch::DEADLINE_MILLISECONDS_MAX);
        let deadline = LogTime(request.store_now.plus(valid_for).0);
        Ok(Approval {
            batch: request.batch,
            term: self.job.term,
            plan: request.plan,
            view: request.view,
            deadline,
            store_deadline: StoreTime(deadline.0),
            valid_for,
            again: self.job.batch == Some(request.batch),
        })
    }

    fn batch_done(&self, _ticket: &Ticket, outcome: BatchOutcome) -> Result<Directive, ControlError> {
        lock(&self.asked).push(Asked::Done(outcome));
        Ok(self.directive())
    }

    fn keep_evidence(&self, _ticket: &Ticket, evidence: Evidence) -> Result<OutputRef, ControlError> {
        let count = u64::try_from(evidence.names.len()).unwrap_or(u64::MAX);
        let digest = Digest::of(evidence.names.join("\n").as_bytes());
        lock(&self.asked).push(Asked::Evidence(evidence));
        Ok(OutputRef { name: "evidence".to_owned(), digest, count, view: Digest::default() })
    }

    fn add_revivals(&self, _ticket: &Ticket, revived: OutputRef, bytes: u64) -> Result<(), ControlError> {
        lock(&self.asked).push(Asked::Revivals(revived, bytes));
        Ok(())
    }

    fn report(&self, _ticket: &Ticket, report: JobReport) -> Result<(), ControlError> {
        lock(&self.asked).push(Asked::Report(Box::new(report)));
        Ok(())
    }
}
