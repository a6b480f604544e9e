//! Does the jobs of one cycle in one process: a job's specification in, a report out.
//!
//! What a stage found is kept for the stages after it (small stays simple): the view is read once, and nothing is looked up again.

mod begin;
mod deeds;
mod header;
mod reading;
mod records;
mod shard;
mod sharded;

use std::sync::Arc;

use verger_kopia::clock::Timestamp;
use verger_kopia::index_set::IndexView;
use verger_kopia::maintenance::Margins;
use verger_kopia::maintenance::rules::next::Next;
use verger_kopia::maintenance::rules::plan::{Mode, PlanBody};
use verger_kopia::storage::BlobMetadata;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::control::Control;
use verger_proto::id::WorkerId;
use verger_proto::job::{JobSpec, ViewRef};
use verger_proto::plan::PlanHeader;
use verger_proto::report::{Damage, Failure, FailureKind, JobReport, Outcome, Severity};
use verger_proto::stage::Stage;

use crate::bucket_lease::LeaseKeeper;
use crate::evidence::Evidence;
use crate::task::deed::{Deeds, Position};
use crate::task::guard::Guard;
use crate::task::record::ScheduleFile;
use crate::task::revive::OpenSession;
use crate::task::rewrite::Copied;
use crate::task::solve::Used;
use crate::task::summary::Summaries;
use crate::task::survey::Survey;
use crate::workspace::Workspace;

pub use header::{recorded, ruled};
pub use records::Figures;
pub use shard::{SHARD_BYTES, Shards, TELL_EVERY, run_shard, word};

/// What a cycle is to be like, beyond what the machine knows of it.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Quick, full, or index.
    pub mode: Mode,
    /// Waits.
    pub margins: Margins,
    /// Percentage that the plan may remove (S5), for the check's notes.
    pub allow_removing: Option<u8>,
    /// Next times are set by this cycle (not by a dry run).
    pub dry_run: bool,
}

/// The cycle that this worker works on.
pub struct Work<'a> {
    workspace: Workspace,
    control: &'a dyn Control,
    worker: WorkerId,
    choice: Choice,
    lease: Option<&'a LeaseKeeper>,
    schedule: ScheduleFile,
    /// A view from before the start, used again if the index is still the same.
    earlier: Option<Arc<IndexView>>,
    /// Start that the history will show for snapshot GC, by this machine's clock.
    gc_started: Timestamp,
    /// Storage time of this cycle's first write, once it was made.
    started: Option<Timestamp>,
    /// What a listing of `kopia.` said before the survey.
    listed_before: Vec<BlobMetadata>,
    survey: Option<Arc<Survey>>,
    view: Option<ViewRef>,
    summaries: Option<Summaries>,
    used: Option<Arc<Used>>,
    plan: Option<Arc<PlanBody>>,
    header: Option<PlanHeader>,
    guard: Option<Guard>,
    /// What was moved, and the sessions that its packs were written in.
    copied: Option<(Copied, Vec<OpenSession>)>,
    shards: Option<Shards>,
    figures: Figures,
    damages: Vec<Damage>,
    refused_deletes: u64,
    refused_bytes: u64,
    next: Option<Next>,
    failure: Option<Error>,
    /// Stages that did not come to their end, and why.
    unfinished: std::collections::BTreeMap<&'static str, String>,
}

impl<'a> Work<'a> {
    /// A worker for one cycle. `lease` is `None` for dry runs, which change nothing.
    pub fn new(
        workspace: Workspace,
        control: &'a dyn Control,
        worker: WorkerId,
        choice: Choice,
        lease: Option<&'a LeaseKeeper>,
        schedule: ScheduleFile,
        earlier: Option<Arc<IndexView>>,
    ) -> Self {
        let gc_started = workspace.repository.clock().now();
        Self {
            workspace,
            control,
            worker,
            choice,
            lease,
            schedule,
            earlier,
            gc_started,
            started: None,
            listed_before: Vec::new(),
            survey: None,
            view: None,
            summaries: None,
            used: None,
            plan: None,
            header: None,
            guard: None,
            copied: None,
            shards: None,
            figures: Figures::default(),
            damages: Vec::new(),
            refused_deletes: 0,
            refused_bytes: 0,
            next: None,
            failure: None,
            unfinished: std::collections::BTreeMap::new(),
        }
    }

    /// What its tasks share.
    #[must_use]
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// When the cycle began, by this machine's clock.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.gc_started
    }

    /// When bytes can go next, by which rule.
    #[must_use]
    pub fn next(&self) -> Option<&Next> {
        self.next.as_ref()
    }

    /// Bytes of blobs that this cycle wrote for contents it moved.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.figures.written_bytes
    }

    /// The last failure that no later attempt made good.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// As [`Work::failure`], with what helps; it is handed over once.
    pub fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Figures of Kopia's tasks that ran.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The plan, once there is one.
    #[must_use]
    pub fn plan(&self) -> Option<&Arc<PlanBody>> {
        self.plan.as_ref()
    }

    /// The plan's header, once there is one.
    #[must_use]
    pub fn header(&self) -> Option<&PlanHeader> {
        self.header.as_ref()
    }

    /// The survey, once it was made.
    #[must_use]
    pub fn survey(&self) -> Option<&Arc<Survey>> {
        self.survey.as_ref()
    }

    /// What could not be read, and the stages that were gone around.
    #[must_use]
    pub fn damages(&self) -> Vec<Damage> {
        let around = self.unfinished.iter().map(|(stage, text)| Damage {
            severity: Severity::Noted,
            subject: format!("stage {stage}"),
            text: format!("it was gone around, the next cycle tries it again: {text}"),
            snapshots: Vec::new(),
            paths: Vec::new(),
        });
        self.damages.iter().cloned().chain(around).collect()
    }

    /// Blobs that the store did not let go; they are among the damages.
    #[must_use]
    pub fn refused_deletes(&self) -> u64 {
        self.refused_deletes
    }

    /// Bytes of these.
    #[must_use]
    pub fn refused_bytes(&self) -> u64 {
        self.refused_bytes
    }

    /// Does one job. A failure is in the report; deeds that failed are not tried again in this cycle, since only a fresh view
    /// shows what became of them.
    pub fn run(&mut self, spec: &JobSpec) -> JobReport {
        if spec.attempt > 1 && spec.stage.is_deed() {
            let text = "a deed was interrupted; the next cycle looks at what became of it".to_owned();
            return JobReport::failed(FailureKind::Interrupted, text, false);
        }
        let done = match spec.stage {
            _ if self.is_shard(spec) => self.run_shard(spec),
            Stage::Survey => self.take_stock(spec),
            Stage::Scan => self.scan(),
            Stage::Solve => self.solve(spec),
            Stage::Sweep => Ok(JobReport::done(Vec::new())),
            Stage::Plan => self.make_plan(spec),
            Stage::Check => self.check_plan(),
            stage => self.deed(spec, stage),
        };
        match done {
            Ok(report) => {
                self.failure = None;
                self.unfinished.remove(spec.stage.name());
                report
            }
            Err(error) => {
                let failure = failure(&error, spec.stage);
                self.unfinished.insert(spec.stage.name(), failure.text.clone());
                self.failure = Some(error);
                JobReport::new(Outcome::Failed(failure))
            }
        }
    }

    fn taken_stock(&self) -> Result<Arc<Survey>> {
        self.survey.clone().ok_or_else(|| out_of_order("survey"))
    }

    fn planned(&self) -> Result<Arc<PlanBody>> {
        self.plan.clone().ok_or_else(|| out_of_order("plan"))
    }

    fn deeds(&mut self, spec: &JobSpec) -> Result<Deeds<'_>> {
        let lease = self.lease.ok_or_else(|| out_of_order("lease"))?;
        Ok(Deeds {
            workspace: &self.workspace,
            control: self.control,
            ticket: spec.ticket(&self.worker),
            plan: spec.plan,
            guard: self.guard.as_mut().ok_or_else(|| out_of_order("plan"))?,
            schedule: &mut self.schedule,
            lease,
            evidence: Evidence::default(),
            kept: None,
            position: Position::default(),
        })
    }
}

fn out_of_order(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("a job came before the {what} that it needs"))
}

/// A failure as the machine and the ledger keep it.
#[must_use]
pub fn failure(error: &Error, stage: Stage) -> Failure {
    let text = match error.fix() {
        Some(fix) => format!("{}. {fix}", error.chain().trim_end_matches('.')),
        None => error.chain(),
    };
    // A deed whose answer did not come is for the next cycle's fresh view; the storage layer has retried what it may.
    let retryable = error.is_retryable() && stage.is_repeatable();
    Failure { kind: failure_kind(error.kind()), text, retryable }
}

/// The recorded kind of a failure of the library.
#[must_use]
pub fn failure_kind(kind: ErrorKind) -> FailureKind {
    match kind {
        ErrorKind::Usage => FailureKind::Usage,
        ErrorKind::NotARepository => FailureKind::NotARepository,
        ErrorKind::NotFound => FailureKind::NotFound,
        ErrorKind::Locked => FailureKind::Locked,
        ErrorKind::WrongPassword => FailureKind::WrongPassword,
        ErrorKind::NotOwner => FailureKind::NotOwner,
        ErrorKind::Unsupported => FailureKind::Unsupported,
        ErrorKind::PlanRefused => FailureKind::PlanRefused,
        ErrorKind::Damaged => FailureKind::Damaged,
        ErrorKind::UpgradeInProgress => FailureKind::UpgradeInProgress,
        ErrorKind::Clock => FailureKind::Clock,
        ErrorKind::Permission => FailureKind::Permission,
        ErrorKind::ForeignMaintenance => FailureKind::ForeignMaintenance,
        ErrorKind::StoreUnavailable => FailureKind::StoreUnavailable,
        ErrorKind::PreconditionFailed => FailureKind::PreconditionFailed,
        ErrorKind::DiskFull => FailureKind::DiskFull,
        ErrorKind::MemoryLimit => FailureKind::MemoryLimit,
        ErrorKind::DeadlinePassed => FailureKind::DeadlinePassed,
        ErrorKind::Interrupted => FailureKind::Interrupted,
        _ => FailureKind::Internal,
    }
}

/// The library's kind of a recorded failure, for exit codes.
#[must_use]
pub fn error_kind(kind: FailureKind) -> ErrorKind {
    match kind {
        FailureKind::Internal => ErrorKind::Internal,
        FailureKind::Usage => ErrorKind::Usage,
        FailureKind::NotARepository => ErrorKind::NotARepository,
        FailureKind::NotFound => ErrorKind::NotFound,
        FailureKind::Locked => ErrorKind::Locked,
        FailureKind::WrongPassword => ErrorKind::WrongPassword,
        FailureKind::NotOwner => ErrorKind::NotOwner,
        FailureKind::Unsupported => ErrorKind::Unsupported,
        FailureKind::PlanRefused => ErrorKind::PlanRefused,
        FailureKind::Damaged => ErrorKind::Damaged,
        FailureKind::UpgradeInProgress => ErrorKind::UpgradeInProgress,
        FailureKind::Clock => ErrorKind::Clock,
        FailureKind::Permission => ErrorKind::Permission,
        FailureKind::ForeignMaintenance => ErrorKind::ForeignMaintenance,
        FailureKind::StoreUnavailable => ErrorKind::StoreUnavailable,
        FailureKind::PreconditionFailed => ErrorKind::PreconditionFailed,
        FailureKind::DiskFull => ErrorKind::DiskFull,
        FailureKind::MemoryLimit => ErrorKind::MemoryLimit,
        FailureKind::DeadlinePassed => ErrorKind::DeadlinePassed,
        FailureKind::Interrupted => ErrorKind::Interrupted,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_name_in_records_and_in_errors() {
        use FailureKind::{
            Clock, Damaged, DeadlinePassed, DiskFull, ForeignMaintenance, Internal, Interrupted, Locked, MemoryLimit,
            NotARepository, NotFound, NotOwner, Permission, PlanRefused, PreconditionFailed, StoreUnavailable,
            Unsupported, UpgradeInProgress, Usage, WrongPassword,
        };
        for kind in [
            Internal,
            Usage,
            NotARepository,
            NotFound,
            Locked,
            WrongPassword,
            NotOwner,
            Unsupported,
            PlanRefused,
            Damaged,
            UpgradeInProgress,
            Clock,
            Permission,
            ForeignMaintenance,
            StoreUnavailable,
            PreconditionFailed,
            DiskFull,
            MemoryLimit,
            DeadlinePassed,
            Interrupted,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), error_kind(kind).name());
            assert_eq!(failure_kind(error_kind(kind)), kind);
        }
    }
}
