//! What a cycle did, for people and scripts.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use verger_coordinator::drive::Drive;
use verger_coordinator::machine::{Phase, State};
use verger_kopia::clock::Timestamp;
use verger_kopia::index_set::epoch::EpochState;
use verger_kopia::maintenance::rules::next::Next;
use verger_kopia::maintenance::rules::plan::{Mode, Skipped};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::Own;
use verger_proto::event::CycleEnd;
use verger_proto::id::{CycleId, RepositoryId};
use verger_proto::plan::PlanHeader;
use verger_proto::report::Damage;
use verger_proto::stage::Stage;
use verger_worker::run::{Work, error_kind};
use verger_worker::task::survey::Survey;

use super::Session;

/// What a cycle did, or would do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CycleReport {
    /// `done`, `degraded`, `planned`, `nothing-due`.
    pub outcome: String,
    /// `full`, `quick` or `index`; absent if nothing was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Number of the cycle in the ledger.
    pub cycle: u64,
    /// Fencing term.
    pub term: u64,
    /// The trace that it is told under, the same over restarts; absent if nothing was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// When it began and ended, by this machine's clock.
    pub started: Timestamp,
    /// End.
    pub ended: Timestamp,
    /// `data` of each Kopia task's run record.
    pub tasks: BTreeMap<String, Value>,
    /// What could not be read, with the snapshots and paths it touches.
    pub damage: Vec<Damage>,
    /// When bytes can go next, by which rule, how many.
    pub next: Option<Next>,
    /// When a cycle is due next; only if nothing was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_due: Option<Timestamp>,
    /// Tasks that did not run, and why.
    pub skipped: Vec<Skipped>,
    /// The plan.
    pub plan: Option<PlanSummary>,
    /// Bytes of blobs that were deleted, or would be.
    pub freed_bytes: u64,
    /// Blobs that the store did not let go, all named in `damage`.
    pub refused_deletes: u64,
    /// Their bytes.
    pub refused_bytes: u64,
    /// The store keeps what is deleted as hidden versions, or may do so: nothing is free until those go (R24).
    pub deletes_hide: bool,
    /// Bytes of blobs that were written in their place.
    pub written_bytes: u64,
    /// Contents and blobs with damaged bytes that error correction made good when the cycle read them.
    pub repaired_items: u64,
    /// The repository's own Kopia settings.
    #[serde(skip)]
    pub own: Option<Own>,
    /// Milliseconds from nothing to the whole index: format blobs, keys, index blobs, as it was at the begin of the cycle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_milliseconds: Option<u64>,
    /// Index blobs that clients read, when the cycle began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index_blobs: Option<u64>,
    /// Epochs whose index blobs nobody has compacted, when the cycle began; absent with the legacy index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncompacted_epochs: Option<u64>,
}

/// The plan in figures.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanSummary {
    /// Digest of the sealed header.
    pub digest: String,
    /// Items and bytes by stage.
    pub stages: BTreeMap<String, StageFigures>,
    /// Packed bytes that are marked or dropped.
    pub removed_bytes: u64,
    /// Packed bytes of all entries.
    pub total_packed_bytes: u64,
    /// Entries in the index.
    pub contents: u64,
    /// Live contents once it is carried out.
    pub live_contents: u64,
}

/// One stage of a plan.
#[derive(Debug, Serialize)]
pub struct StageFigures {
    /// Items.
    pub items: u64,
    /// Bytes.
    pub bytes: u64,
}

impl CycleReport {
    /// Nothing was due.
    pub fn nothing_due(now: Timestamp, next_due: Option<Timestamp>) -> Self {
        Self {
            outcome: "nothing-due".to_owned(),
            mode: None,
            cycle: 0,
            term: 0,
            trace_id: None,
            started: now,
            ended: now,
            tasks: BTreeMap::new(),
            damage: Vec::new(),
            next: None,
            next_due,
            skipped: Vec::new(),
            plan: None,
            freed_bytes: 0,
            refused_deletes: 0,
            refused_bytes: 0,
            deletes_hide: false,
            written_bytes: 0,
            repaired_items: 0,
            own: None,
            open_milliseconds: None,
            index_blobs: None,
            uncompacted_epochs: None,
        }
    }

    /// Whether it was a full cycle.
    pub(super) fn is_full(&self) -> bool {
        self.mode == Some(Mode::Full)
    }

    /// Whether something could not be read.
    pub fn is_degraded(&self) -> bool {
        self.outcome == "degraded"
    }
}

/// The report of a cycle that came to its end; the failure of one that did not.
pub(super) fn of(
    drive: &Drive,
    repository: &RepositoryId,
    cycle: CycleId,
    work: &mut Work<'_>,
    session: &Session,
    mode: Mode,
) -> Result<CycleReport> {
    // The machine of a fleet has other repositories, too.
    let (started, term, end) = drive.state(|state| {
        let open = state.cycles.get(&cycle).map(|cycle| (cycle.opened, cycle.term));
        let entry = state.repositories.get(repository);
        (open, entry.map_or(0, |entry| entry.last_term.0), entry.and_then(|entry| entry.last_end.clone()))
    });
    if let Some(stage) = parked(drive, cycle, work) {
        let step = format!("stopped on request: cycle {} is parked at its stage {stage}", cycle.0);
        return Err(Error::new(ErrorKind::Interrupted, step).with_fix("Run again: the next run continues"));
    }
    let outcome = outcome(started.is_some(), end, work)?;
    let figures = work.figures().by_task();
    let tasks = figures.iter().map(|(task, data)| ((*task).to_owned(), data.clone())).collect();
    let deleted = |task: &str, field: &str| figures.get(task).and_then(|d| d.get(field)?.as_u64()).unwrap_or(0);
    let freed = deleted("full-delete-blobs", "deletedTotalSize")
        + deleted("quick-delete-blobs", "deletedTotalSize")
        + deleted("delete-superseded-epoch-indexes", "deletedTotalSize")
        + deleted("cleanup-logs", "deletedBlobSize");
    let plan = work.header().map(summary);
    let planned = ["delete", "delete-rewritten", "logs"];
    let planned = plan.iter().flat_map(|plan| planned.iter().filter_map(|s| Some(plan.stages.get(*s)?.bytes))).sum();
    let storage = session.workspace.repository.storage();
    Ok(CycleReport {
        // Without the right to ask, versions are assumed.
        deletes_hide: storage.versioning().map_or(true, |versioning| versioning.kept != Some(false)),
        freed_bytes: if outcome == "planned" { planned } else { freed },
        outcome,
        mode: Some(mode),
        cycle: cycle.0,
        term,
        trace_id: None,
        started: work.began(),
        ended: session.clock.now(),
        tasks,
        damage: work.damages(),
        refused_deletes: work.refused_deletes(),
        refused_bytes: work.refused_bytes(),
        next: work.next().cloned(),
        next_due: None,
        skipped: work.plan().map(|plan| plan.skipped.clone()).unwrap_or_default(),
        plan,
        written_bytes: work.written_bytes(),
        repaired_items: session.workspace.repository.cipher().repaired_items(),
        own: None,
        open_milliseconds: u64::try_from(session.opened_in.as_millis()).ok(),
        index_blobs: work.survey().map(|survey| survey.view.blobs.len() as u64),
        uncompacted_epochs: work.survey().and_then(|survey| uncompacted(survey)),
    })
}

fn uncompacted(survey: &Survey) -> Option<u64> {
    survey.view.write_epoch?;
    Some(EpochState::from_listing(survey.listing.indexes.clone()).uncompacted.len() as u64)
}

/// The stage at which a cycle was parked because somebody asked: in the middle of a job, or where none failed.
fn parked(drive: &Drive, cycle: CycleId, work: &Work<'_>) -> Option<Stage> {
    let asked = work.failure().is_none_or(|error| error.kind() == ErrorKind::Interrupted);
    let stage = |state: &State| state.cycles.get(&cycle).filter(|c| c.phase == Phase::Parked).map(|c| c.stage);
    if asked { drive.state(stage) } else { None }
}

fn outcome(still_open: bool, end: Option<CycleEnd>, work: &mut Work<'_>) -> Result<String> {
    if let Some(error) = work.take_failure() {
        return Err(error);
    }
    if still_open {
        let percent = work
            .header()
            .map_or(0, |header| u128::from(header.removed_bytes) * 100 / u128::from(header.total_packed_bytes.max(1)));
        return Err(Error::new(
            ErrorKind::PlanRefused,
            format!("the plan would remove {percent} % of the packed bytes"),
        )
        .with_fix(
            "Look at it with `verger plan`; if that is right, allow it for this once with --allow-removing PERCENT \
                 (100 if no live content is left)",
        ));
    }
    Ok(match end {
        None | Some(CycleEnd::Planned) => "planned",
        Some(CycleEnd::Done) => "done",
        Some(CycleEnd::Degraded) => "degraded",
        Some(CycleEnd::Aborted(reason)) => return Err(Error::new(ErrorKind::Interrupted, reason)),
        Some(CycleEnd::Failed(failure)) => return Err(Error::new(error_kind(failure.kind), failure.text)),
    }
    .to_owned())
}

fn summary(header: &PlanHeader) -> PlanSummary {
    let stage = |work: &verger_proto::plan::StageWork| {
        (work.stage.name().to_owned(), StageFigures { items: work.items, bytes: work.bytes })
    };
    PlanSummary {
        digest: header.digest().map(|digest| digest.to_string()).unwrap_or_default(),
        stages: header.stages.iter().map(stage).collect(),
        removed_bytes: header.removed_bytes,
        total_packed_bytes: header.total_packed_bytes,
        contents: header.contents,
        live_contents: header.live_contents,
    }
}
