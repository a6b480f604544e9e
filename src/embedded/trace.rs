//! A cycle as a trace: the cycle, its stages, and below them what the worker and the store tell.

use std::sync::Arc;

use tracing::Span;
use tracing::field::Empty;
use verger_coordinator::drive::Drive;
use verger_kopia::storage::calls::Calls;
use verger_kopia::storage::scope::{CYCLE_SPANS, Within};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{
    CycleId, JobReport, JobSpec, LogTime, Mode, RepositoryId, Stage, Term, TraceId, TraceParent, WorkerId,
};
use verger_worker::run::Work;
use verger_worker::trace;
use verger_worker::workspace::Workspace;

use super::{CycleReport, Session};
use crate::telemetry::ids;

/// How a cycle is told of to those who watch many.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// What people call the repository; `None`: its address.
    pub name: Option<String>,
    /// Counts calls to its store.
    pub calls: Arc<Calls>,
}

/// The spans of a cycle under way.
pub(super) struct Told {
    trace: TraceId,
    cycle: Within,
    /// The epoch that the cycle's span names.
    epoch: Option<u64>,
    stage: Option<(Stage, Within)>,
}

impl Told {
    /// Begins to tell of a cycle, or goes on with what an earlier process told.
    pub(super) fn begin(
        session: &Session,
        drive: &Drive,
        repository: &RepositoryId,
        cycle: CycleId,
        worker: &WorkerId,
    ) -> Self {
        let known = drive.state(|state| {
            let open = state.cycles.get(&cycle);
            open.map(|open| (open.opened, open.term, open.stage, open.options.mode, open.options.dry_run))
        });
        // Without it the machine has closed the cycle already, and there is nothing more to tell.
        let (opened, term, stage, mode, dry_run) =
            known.unwrap_or((LogTime(0), Term(0), Stage::Survey, Mode::Full, false));
        let trace = TraceId::of(repository, cycle, opened);
        let mode = mode.name();
        let span = ids::root(trace, || {
            // The level is what every log shows, so that every line in it names its cycle.
            tracing::error_span!(
                target: CYCLE_SPANS,
                parent: None,
                "cycle",
                otel.name = format!("cycle {mode}"),
                repository = session.name,
                cycle = cycle.0,
                trace_id = %trace,
                worker = %worker,
                kopia.repo_id = %repository.unique,
                kopia.epoch = Empty,
                lease.term = term.0,
                cycle.mode = mode,
                cycle.dry_run = dry_run,
                cycle.resumed = stage != Stage::Survey,
                cycle.outcome = Empty,
                store.requests = Empty,
                store.bytes = Empty,
                otel.status_code = Empty,
            )
        });
        Self { trace, cycle: session.workspace.scope.enter(span), epoch: None, stage: None }
    }

    pub(super) fn span(&self) -> &Span {
        self.cycle.span()
    }

    /// Does a job, and tells of it.
    pub(super) fn job(&mut self, spec: &JobSpec, work: &mut Work<'_>) -> JobReport {
        let workspace = work.workspace().clone();
        let stage = self.stage(&workspace, spec.stage, spec.term);
        let told = trace::job(&workspace, &stage, spec);
        let under_way = told.span().clone().entered();
        let report = work.run(spec);
        trace::job_ended(told.span(), spec.stage, &report);
        drop(under_way);
        let epoch = work.survey().and_then(|survey| survey.view.write_epoch);
        // Once: each time is a field more in every line of the log.
        if let Some(known) = epoch.filter(|_| epoch != self.epoch) {
            self.cycle.span().record("kopia.epoch", known);
            self.epoch = epoch;
        }
        report
    }

    /// Stages follow each other: the one before has ended when the next one begins.
    fn stage(&mut self, workspace: &Workspace, stage: Stage, term: Term) -> Span {
        if let Some((known, within)) = &self.stage
            && *known == stage
        {
            return within.span().clone();
        }
        self.stage = None;
        let parent = self.cycle.span();
        let span = ids::named(TraceParent::of_stage(self.trace, stage, term).span, || {
            tracing::debug_span!(
                target: CYCLE_SPANS,
                parent: parent,
                "stage",
                otel.name = format!("stage {}", stage.name()),
                verger.stage = stage.name(),
                store.requests = Empty,
                store.bytes = Empty,
            )
        });
        self.stage = Some((stage, workspace.scope.enter(span.clone())));
        span
    }

    /// No stage is under way any more.
    pub(super) fn rest(&mut self) {
        self.stage = None;
    }

    /// Says how it ended, and notes its trace in the report.
    pub(super) fn end(mut self, result: Result<CycleReport>) -> Result<CycleReport> {
        self.stage = None;
        let span = self.cycle.span();
        match &result {
            Ok(report) => span.record("cycle.outcome", report.outcome.as_str()),
            Err(error) => span.record("cycle.outcome", outcome(error)),
        };
        if result.as_ref().is_err_and(|error| error.kind() != ErrorKind::Interrupted) {
            span.record("otel.status_code", "ERROR");
        }
        // A span ends when it was left last, which was with its last job: what came after it belongs to it, too.
        span.in_scope(|| ());
        let trace_id = Some(self.trace.to_string());
        result.map(|report| CycleReport { trace_id, ..report })
    }
}

fn outcome(error: &Error) -> &'static str {
    if error.kind() == ErrorKind::Interrupted { "parked" } else { "failed" }
}

/// The span of a shard of a cycle that another process leads, below its stage there. It names the cycle as that one's does.
#[must_use]
pub fn shard(parent: TraceParent, repository: &str, spec: &JobSpec, worker: &WorkerId) -> Span {
    let span = tracing::error_span!(
        target: CYCLE_SPANS,
        parent: None,
        "shard",
        otel.name = format!("shard {}", spec.stage.name()),
        repository,
        cycle = spec.cycle.0,
        trace_id = %parent.trace,
        worker = %worker,
        store.requests = Empty,
        store.bytes = Empty,
    );
    ids::below(&span, parent);
    span
}
