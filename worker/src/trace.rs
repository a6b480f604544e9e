//! Spans of what a worker does. Attributes are counts, names of stages and tasks, and IDs: no name of a blob, no address, no secret.

use tracing::Span;
use tracing::field::Empty;
use verger_kopia::error::Result;
use verger_kopia::storage::scope::{CYCLE_SPANS, Within};
use verger_proto::{Batch, BatchResult, JobReport, JobSpec, Outcome, Stage};

use crate::task::deed::Effect;
use crate::workspace::Workspace;

/// Kopia's name of what a stage does, as its own log and history have it. Stages of Verger's own have none.
#[must_use]
pub fn kopia_task(stage: Stage, is_full: bool) -> Option<&'static str> {
    match stage {
        Stage::Scan | Stage::Solve | Stage::Sweep | Stage::Revive | Stage::Mark | Stage::RecordGc => {
            Some("snapshot-gc")
        }
        Stage::Watermark => Some("full-drop-deleted-content"),
        Stage::Delete | Stage::DeleteRewritten if is_full => Some("full-delete-blobs"),
        Stage::Delete | Stage::DeleteRewritten => Some("quick-delete-blobs"),
        Stage::Rewrite | Stage::Publish if is_full => Some("full-rewrite-contents"),
        Stage::Rewrite | Stage::Publish => Some("quick-rewrite-contents"),
        Stage::Index => Some("compact-single-epoch"),
        Stage::Locks => Some("extend-blob-retention-time"),
        Stage::Logs => Some("cleanup-logs"),
        Stage::Survey | Stage::Plan | Stage::Check | Stage::Close => None,
    }
}

/// The span of one job, below `stage`'s. Calls to the store are its own until it ends.
#[must_use = "the job is under way as long as this is held"]
pub fn job(workspace: &Workspace, stage: &Span, spec: &JobSpec) -> Within {
    let is_full = spec.options.mode == verger_proto::Mode::Full;
    let span = tracing::debug_span!(
        target: CYCLE_SPANS,
        parent: stage,
        "job",
        otel.name = format!("job {}", spec.stage.name()),
        verger.stage = spec.stage.name(),
        kopia.task = kopia_task(spec.stage, is_full),
        shard.id = spec.id.0,
        job.attempt = spec.attempt,
        lease.term = spec.term.0,
        job.outcome = Empty,
        store.requests = Empty,
        store.bytes = Empty,
        store.spans_omitted = Empty,
        otel.status_code = Empty,
    );
    workspace.scope.enter_job(span)
}

/// Says how a job ended. Its text may name places, and stays in the ledger.
pub fn job_ended(span: &Span, stage: Stage, report: &JobReport) {
    let (outcome, is_bad) = match &report.outcome {
        Outcome::Done => ("done", false),
        Outcome::Degraded(_) => ("degraded", false),
        Outcome::Failed(_) => ("failed", true),
    };
    span.record("job.outcome", outcome);
    tracing::debug!(stage = stage.name(), outcome, "a job ended");
    if is_bad {
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of one batch, below its job's.
#[must_use = "the batch is under way as long as this is held"]
pub(crate) fn batch(workspace: &Workspace, batch: &Batch) -> Within {
    let Some(parent) = workspace.scope.span() else { return workspace.scope.enter(Span::none()) };
    let span = tracing::debug_span!(
        target: CYCLE_SPANS,
        parent: &parent,
        "batch",
        otel.name = format!("batch {}", batch.stage.name()),
        verger.stage = batch.stage.name(),
        batch.number = batch.number,
        batch.items = batch.items,
        batch.changed = Empty,
        batch.left_out = Empty,
        batch.result = Empty,
        store.requests = Empty,
        store.bytes = Empty,
        otel.status_code = Empty,
    );
    workspace.scope.enter(span)
}

pub(crate) fn batch_ended(span: &Span, result: BatchResult, effect: &Effect) {
    let name = match result {
        BatchResult::Done => "done",
        BatchResult::NotDone => "not-done",
        BatchResult::Ambiguous => "ambiguous",
    };
    span.record("batch.result", name);
    span.record("batch.changed", effect.changed);
    span.record("batch.left_out", effect.left_out);
    if result != BatchResult::Done {
        span.record("otel.status_code", "ERROR");
    }
}

/// A part of a batch: `approve`, `deed`.
pub(crate) fn part<T>(workspace: &Workspace, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(parent) = workspace.scope.span() else { return work() };
    let span = tracing::debug_span!(
        target: CYCLE_SPANS,
        parent: &parent,
        "part",
        otel.name = name,
        store.requests = Empty,
        store.bytes = Empty,
        otel.status_code = Empty,
    );
    let _within = workspace.scope.enter(span.clone());
    let done = work();
    if done.is_err() {
        span.record("otel.status_code", "ERROR");
    }
    done
}
