//! One cycle in one process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use verger_kopia::Result;
use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::rules::next::Next;
use verger_kopia::maintenance::rules::plan::{Mode, Skipped};
use verger_proto::report::Damage;
use verger_worker::progress::Stop;

use crate::config::{Engine, Target};
use crate::progress::Progress;

/// Kopia's margins, or none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Safety {
    /// All margins
    Full,
    /// No margins: only where no other client is at work
    None,
}

/// In whose name a cycle runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// As this client; it must be the owner.
    Own,
    /// As this client, which becomes the owner.
    Take,
    /// In the owner's name.
    ActAs(String),
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct CycleRequest {
    pub(crate) mode: Option<Mode>,
    pub(crate) safety: Safety,
    pub(crate) alone: bool,
    pub(crate) exclusive: bool,
    pub(crate) allow_removing: Option<u8>,
    pub(crate) dry_run: bool,
    pub(crate) wait: bool,
    pub(crate) mark_to_drop: Option<Duration>,
    pub(crate) owner: Ownership,
    pub(crate) plan_out: Option<PathBuf>,
}

/// What a cycle did, or would do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CycleReport {
    pub(crate) outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<Mode>,
    pub(crate) cycle: u64,
    pub(crate) term: u64,
    pub(crate) started: Timestamp,
    pub(crate) ended: Timestamp,
    pub(crate) tasks: BTreeMap<String, Value>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) next: Option<Next>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_due: Option<Timestamp>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) plan: Option<PlanSummary>,
    pub(crate) freed_bytes: u64,
    pub(crate) written_bytes: u64,
}

/// The plan in figures.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlanSummary {
    pub(crate) digest: String,
    pub(crate) stages: BTreeMap<String, StageFigures>,
    pub(crate) removed_bytes: u64,
    pub(crate) total_packed_bytes: u64,
    pub(crate) contents: u64,
    pub(crate) live_contents: u64,
}

/// One stage of a plan.
#[derive(Debug, Serialize)]
pub(crate) struct StageFigures {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl CycleReport {
    pub(crate) fn is_degraded(&self) -> bool {
        self.outcome == "degraded"
    }
}

pub(crate) fn cycle(
    target: &Target,
    engine: &Engine,
    request: &CycleRequest,
    progress: Arc<Progress>,
    stop: Stop,
) -> Result<CycleReport> {
    let _ = (target.maintenance_locks()?, engine, request, progress, stop);
    unreachable!("not linked in yet")
}
