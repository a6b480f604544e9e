//! What all deeds share: the look before a batch, the leader's approval, the deadline, and the word after it.
//!
//! A deed is done only between `approve_batch` and its deadline; an ambiguous answer is looked at again, never planned again (R1).

use std::time::Duration;
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::clock::Timestamp;
use verger_kopia::storage::BlobId;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::Digest;
use verger_proto::FailureKind;
use verger_proto::Refusal;
use verger_proto::batch::{Batch, BatchOutcome, BatchRequest, BatchResult, DEADLINE_MILLISECONDS_MAX};
use verger_proto::control::{Control, ControlError, Directive};
use verger_proto::id::PlanDigest;
use verger_proto::job::{OutputRef, Ticket, ViewRef};
use verger_proto::stage::Stage;
use verger_proto::time::StoreTime;

use super::guard::{Guard, Look};
use super::record::ScheduleFile;
use crate::bucket_lease::LeaseKeeper;
use crate::deadline::Deadline;
use crate::evidence::Evidence;
use crate::trace;
use crate::workspace::Workspace;

/// A look that took this long has read much; the next one will be quick.
const LOOK_QUICK: Duration = Duration::from_secs(10);
const LOOKS_MAX: u32 = 3;

/// What the deeds of a job share.
pub struct Deeds<'a> {
    /// Repository, limits, progress.
    pub workspace: &'a Workspace,
    /// Whoever leads.
    pub control: &'a dyn Control,
    /// Who asks.
    pub ticket: Ticket,
    /// The sealed plan; `None` only for the survey's record of its start.
    pub plan: Option<PlanDigest>,
    /// What changed since the plan's view.
    pub guard: &'a mut Guard,
    /// `kopia.maintenance`.
    pub schedule: &'a mut ScheduleFile,
    /// The lease in the store.
    pub lease: &'a LeaseKeeper,
    /// Names of what the batch under way does.
    pub evidence: Evidence,
    /// The last evidence of the batch under way.
    pub kept: Option<OutputRef>,
    /// Where the job is: its next batch, and the first item of it.
    pub position: Position,
}

/// The next batch of a job, and its first item.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the next batch.
    pub number: u32,
    /// Items done.
    pub first: u64,
}

/// What a deed did with its batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// Items done.
    pub changed: u64,
    /// Items left out because their winner changed, they were gone, or locked.
    pub left_out: u64,
    /// Bytes that the changed items stand for.
    pub bytes: u64,
}

/// A batch that may be done now.
#[derive(Debug, Clone, Copy)]
pub struct Approved {
    /// No request may take effect after this.
    pub deadline: Deadline,
    /// It was approved before and its end is unknown: look first, do what is left.
    pub again: bool,
    /// The store's time when the worker looked.
    pub store_now: Timestamp,
    /// Which batch.
    pub batch: Batch,
}

impl Deeds<'_> {
    /// Looks, asks, does, and tells: one batch of `items` items of the plan. 0 for what is no item of it: a record, the index lane.
    ///
    /// # Errors
    /// What looking, approval or the deed say. After `StoreUnavailable` in the deed the batch is ambiguous.
    pub fn batch(
        &mut self,
        stage: Stage,
        items: u64,
        digest: Digest,
        deed: impl FnOnce(&mut Self, &Approved) -> Result<Effect>,
    ) -> Result<Effect> {
        let Position { number, first } = self.position;
        let batch = Batch { stage, number, first, items, digest };
        let told_of = trace::batch(self.workspace, &batch);
        let approved = trace::part(self.workspace, "approve", || self.approve(batch))?;
        let in_time = approved.deadline.check(&**self.workspace.repository.clock(), stage.name());
        let begun = in_time.is_ok();
        let done = in_time.and_then(|()| trace::part(self.workspace, "deed", || deed(self, &approved)));
        let evidence = self.kept.take();
        let (result, effect) = match &done {
            Ok(effect) => (BatchResult::Done, *effect),
            // A deed that ran out of time in the middle has done a part.
            Err(_) if begun => (BatchResult::Ambiguous, Effect::default()),
            Err(_) => (BatchResult::NotDone, Effect::default()),
        };
        trace::batch_ended(told_of.span(), result, &effect);
        let told = self.tell(batch, result, effect, evidence);
        let effect = done?;
        if told? == Directive::Stop {
            self.workspace.stop.ask();
        }
        self.position = Position { number: number + 1, first: first + items };
        Ok(effect)
    }

    /// Tells of planned items that nothing came of: they were gone around, and their old places stay.
    pub(crate) fn leave_out(&mut self, stage: Stage, items: u64) -> Result<()> {
        if items == 0 {
            return Ok(());
        }
        let left = Effect { changed: 0, left_out: items, bytes: 0 };
        self.batch(stage, items, Digest::of(b"left out"), |_, _| Ok(left)).map(drop)
    }

    fn approve(&mut self, batch: Batch) -> Result<Approved> {
        self.lease.wait_for_takeover(&**self.workspace.repository.clock(), &self.workspace.stop)?;
        let (looked_at, look) = self.look()?;
        self.lease.cover(look.store_now)?;
        if mutant::on(Mutant::R1NobodyAsked) {
            let deadline = Deadline::after(&**self.workspace.repository.clock(), Duration::from_secs(120));
            return Ok(Approved { deadline, again: false, store_now: look.store_now, batch });
        }
        let request = BatchRequest {
            batch,
            plan: self.plan,
            view: look.view,
            store_now: StoreTime::of(look.store_now),
            wanted: DEADLINE_MILLISECONDS_MAX,
        };
        let approval = self.control.approve_batch(&self.ticket, request).map_err(|e| refused(e, batch.stage))?;
        // Counted from before the look, so that a slow answer shortens the time (R2).
        let clock = &**self.workspace.repository.clock();
        let looked_at = if mutant::on(Mutant::R2TimeOfTheLookGiven) { clock.since_boot() } else { looked_at };
        let spent = clock.since_boot().saturating_sub(looked_at);
        let left = Duration::from_millis(approval.valid_for).saturating_sub(spent);
        Ok(Approved { deadline: Deadline::after(clock, left), again: approval.again, store_now: look.store_now, batch })
    }

    /// Looks, and once more if reading what is new took long: the approval's time counts from the beginning of the look.
    fn look(&mut self) -> Result<(Duration, Look)> {
        let clock = self.workspace.repository.clock();
        for _ in 0..LOOKS_MAX {
            let looked_at = clock.since_boot();
            let look = self.guard.look(self.workspace, self.schedule)?;
            if clock.since_boot().saturating_sub(looked_at) < LOOK_QUICK {
                return Ok((looked_at, look));
            }
        }
        Ok((clock.since_boot(), self.guard.look(self.workspace, self.schedule)?))
    }

    /// Keeps the names beside the ledger, before the request that makes it so (S6).
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn keep_evidence(&mut self, batch: Batch) -> Result<()> {
        for (rule, names) in self.evidence.take() {
            if mutant::on(Mutant::S6NoEvidence) {
                continue;
            }
            let evidence = verger_proto::batch::Evidence { batch, rule: rule.to_owned(), names };
            let kept = self.control.keep_evidence(&self.ticket, evidence).map_err(|e| refused(e, batch.stage))?;
            self.kept = Some(kept);
        }
        Ok(())
    }

    fn tell(
        &self,
        batch: Batch,
        result: BatchResult,
        effect: Effect,
        evidence: Option<OutputRef>,
    ) -> Result<Directive> {
        let Effect { changed, left_out, bytes } = effect;
        let outcome = BatchOutcome { batch, result, changed, left_out, bytes, evidence };
        self.control.batch_done(&self.ticket, outcome).map_err(|e| refused(e, batch.stage))
    }
}

/// Digest of a batch of blobs: their names, a line each.
pub(super) fn digest_of_names<'a>(blobs: impl IntoIterator<Item = &'a BlobId>) -> Digest {
    let names: Vec<&str> = blobs.into_iter().map(BlobId::as_str).collect();
    Digest::of(names.join("\n").as_bytes())
}

/// The reference of a view: its digest, and when the store was asked for it.
#[must_use]
pub fn view_ref(digest: &str, taken: Timestamp) -> ViewRef {
    ViewRef { digest: Digest::of(digest.as_bytes()), taken: StoreTime::of(taken) }
}

fn refused(error: ControlError, stage: Stage) -> Error {
    let kind = match &error {
        // Somebody wants the cycle to stop, and said so while this looked.
        ControlError::Refused(Refusal::Stopping) => ErrorKind::Interrupted,
        ControlError::Refused(_) => ErrorKind::PlanRefused,
        ControlError::Unavailable(_) => ErrorKind::StoreUnavailable,
        ControlError::Ledger { kind: FailureKind::DiskFull, .. } => ErrorKind::DiskFull,
        ControlError::Ledger { .. } => ErrorKind::Permission,
    };
    Error::new(kind, format!("approve a batch of {stage}")).with_source(error)
}
