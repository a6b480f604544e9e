//! All rules together, in the order of a cycle's stages: one plan.

use super::alternation::{DELETE_WAITS, REWRITE_WAITS, Turns};
use super::delete::{self, Sessions};
use super::drop;
use super::facts::{Facts, Frozen, IndexFacts, after};
use super::gc;
use super::index_lane;
use super::locks;
use super::logs;
use super::plan::{
    DeletePlan, DeleteRule, DropPlan, GcPlan, IndexStep, LocksPlan, Mode, PlanBody, RewritePlan, Skipped,
};
use super::rewrite::{self, Fate};
use super::rows::Rows;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::maintenance::history::Task;
use crate::storage::BlobId;
use std::collections::HashSet;

/// What is left out, with the reasons.
#[derive(Default)]
struct Skips(Vec<Skipped>);

impl Skips {
    fn note(&mut self, task: Task, reason: impl Into<String>, until: Option<Timestamp>) {
        self.0.push(Skipped { task: task.as_str().into(), reason: reason.into(), until });
    }

    /// Keeps a part of the plan, or notes why there is none.
    fn keep<T>(&mut self, task: Task, part: std::result::Result<T, &'static str>) -> Option<T> {
        part.map_err(|reason| self.note(task, reason, None)).ok()
    }
}

/// Plans a cycle. A plan with marks may only be carried out if [`check`](super::check) finds nothing against it.
///
/// While something is unreadable (R11) the plan may still hold a `gc` part with revivals and no marks; `skipped` then
/// names `snapshot-gc`, and no success of it may be recorded.
///
/// # Errors
/// `Internal` if a full cycle does not know what snapshots need, or figures do not add up (R12).
pub fn compose<R: Rows>(facts: &Facts<'_, R>) -> Result<PlanBody> {
    let mut skips = Skips::default();
    let packs = facts.mode == Mode::Full || facts.mode == Mode::Quick && facts.is_legacy();
    let gc = if facts.mode == Mode::Full { collect_garbage(facts, &mut skips)? } else { None };
    let drop = if facts.mode == Mode::Full { forget(facts, gc.as_ref(), &mut skips) } else { None };
    let fate = Fate::new(facts.table, gc.as_ref(), drop.as_ref());
    let turns = Turns::of(facts.schedule);
    let delete = if packs { remove(facts, &fate, turns, &mut skips) } else { None };
    // R20: decided once, here, as the history will read when the deletion of this cycle has run.
    let turns = if delete.is_some() { turns.after_delete(facts.now) } else { turns };
    let rewrite = if packs { move_contents(facts, &fate, turns, &mut skips) } else { None };
    let delete_rewritten = rewrite.as_ref().and_then(|plan| orphans(facts, &fate, plan));
    let index = index_steps(facts, drop.as_ref(), &mut skips);
    let leaving = leaving(&[delete.as_ref(), delete_rewritten.as_ref()], &index);
    let locks = if facts.mode == Mode::Full { extend(facts, &leaving, &mut skips) } else { None };
    let logs = if packs {
        let frozen = facts.frozen == Frozen::Everything;
        let plan = (!frozen).then(|| logs::plan(facts.logs, &facts.params.log_retention, facts.now));
        skips.keep(Task::CleanupLogs, plan.ok_or("Not cleaning up logs: an index may be lost."))
    } else {
        None
    };
    Ok(PlanBody {
        mode: facts.mode,
        unique_id: facts.unique_id.into(),
        store: facts.store.into(),
        started: facts.started,
        view: facts.view.into(),
        rows: u64::from(facts.table.len()),
        gc,
        drop,
        delete,
        rewrite,
        delete_rewritten,
        index,
        locks,
        logs,
        skipped: skips.0,
    })
}

fn collect_garbage<R: Rows>(facts: &Facts<'_, R>, skips: &mut Skips) -> Result<Option<GcPlan>> {
    if facts.frozen != Frozen::Nothing {
        skips.note(Task::SnapshotGc, format!("snapshot GC failure: {}", facts.frozen_why), None);
    }
    let Some(used) = facts.used else {
        if facts.frozen != Frozen::Nothing {
            return Ok(None);
        }
        return Err(Error::new(ErrorKind::Internal, "plan a full cycle: what snapshots need was not worked out"));
    };
    if used.length() != facts.table.len() {
        return Err(Error::new(ErrorKind::Internal, "plan a full cycle: the used contents are of another view"));
    }
    let stamp = facts.now.as_second();
    let times = facts.pack_times();
    let mut gc = gc::classify(facts.table, |row| used.contains(row), &times, facts.started, stamp, facts.margins)?;
    if facts.frozen != Frozen::Nothing {
        gc.mark.clear();
    }
    Ok(Some(gc))
}

fn forget<R: Rows>(facts: &Facts<'_, R>, gc: Option<&GcPlan>, skips: &mut Skips) -> Option<DropPlan> {
    let history = facts.schedule.history(Task::SnapshotGc);
    let legacy = facts.is_legacy();
    let cutoff = drop::cutoff(history, Some(facts.gc_started), facts.now, legacy, facts.margins);
    match drop::plan(facts.table, gc, cutoff, legacy, facts.frozen) {
        Ok(plan) => Some(plan),
        Err(reason) => {
            let pair = after(facts.gc_started, facts.margins.margin_between_snapshot_gc);
            skips.note(Task::FullDropDeletedContent, reason, (facts.frozen == Frozen::Nothing).then_some(pair));
            None
        }
    }
}

fn remove<R: Rows>(facts: &Facts<'_, R>, fate: &Fate, turns: Turns, skips: &mut Skips) -> Option<DeletePlan> {
    let quick = turns.quick_delete(facts.mode);
    let task = if quick { Task::QuickDeleteBlobs } else { Task::FullDeleteBlobs };
    if !turns.may_delete(facts.now, facts.margins) {
        skips.note(task, DELETE_WAITS, turns.delete_from(facts.margins));
        return None;
    }
    skips.keep(task, delete::plan(facts, &fate.surviving_packs(facts.table), quick))
}

fn move_contents<R: Rows>(facts: &Facts<'_, R>, fate: &Fate, turns: Turns, skips: &mut Skips) -> Option<RewritePlan> {
    let quick = facts.mode == Mode::Quick;
    let task = if quick { Task::QuickRewriteContents } else { Task::FullRewriteContents };
    if !turns.may_rewrite(facts.mode, facts.margins) {
        skips.note(task, REWRITE_WAITS, turns.delete_from(facts.margins));
        return None;
    }
    skips.keep(task, rewrite::plan(facts, fate, quick))
}

/// What the rewrite orphans, if it may go at once. None of it is in the deletion before, as rows still named it then.
fn orphans<R: Rows>(facts: &Facts<'_, R>, fate: &Fate, plan: &RewritePlan) -> Option<DeletePlan> {
    if !facts.margins.min_rewrite_to_orphan_deletion_delay.is_zero() || plan.packs.is_empty() {
        return None;
    }
    let survives = rewrite::surviving_packs(facts.table, fate, plan);
    let sources: HashSet<&BlobId> = plan
        .packs
        .iter()
        .filter(|pack| !survives[pack.pack as usize])
        .map(|pack| &facts.table.packs()[pack.pack as usize])
        .collect();
    let hidden = facts.table.hidden_packs();
    let kept = |id: &BlobId| facts.frozen == Frozen::MarksAndDrops && hidden.binary_search(id).is_ok();
    let listed = facts.packs.iter().filter(|blob| sources.contains(&blob.id));
    let sessions = Sessions::of(facts.sessions);
    let mut orphans = delete::select(listed, kept, &sessions, facts.started, facts.margins);
    orphans.blobs.iter_mut().for_each(|deletion| deletion.rule = DeleteRule::RewrittenPack);
    orphans.quick = plan.quick;
    Some(orphans)
}

fn index_steps<R: Rows>(facts: &Facts<'_, R>, drop: Option<&DropPlan>, skips: &mut Skips) -> Vec<IndexStep> {
    if facts.frozen == Frozen::Everything {
        let task = if facts.is_legacy() { Task::IndexCompaction } else { Task::CompactSingleEpoch };
        skips.note(task, "Not compacting indexes: one may be lost.", None);
        return Vec::new();
    }
    let (active, all, logs, notes) = match facts.index {
        IndexFacts::Epochs { parameters, blobs } => {
            return index_lane::epochs(blobs, parameters, facts.mode, facts.started);
        }
        IndexFacts::Legacy { active, all, logs, notes } => (active, all, logs, notes),
    };
    let inputs = match (facts.mode, drop) {
        (Mode::Full, Some(_)) => active.iter().map(|blob| blob.id.clone()).collect(),
        (Mode::Full, None) => Vec::new(),
        (Mode::Quick | Mode::Index, _) => index_lane::legacy_compaction(active, facts.max_pack_size),
    };
    let settle = facts.margins.legacy_settle_time;
    let mut gone = index_lane::legacy_superseded(all, logs, notes, settle, facts.started);
    let mut steps = Vec::new();
    if !inputs.is_empty() {
        if settle.is_zero() {
            gone.extend(inputs.iter().filter(|input| !index_lane::unmasks(all, logs, input)).cloned());
            gone.sort();
            gone.dedup();
        }
        steps.push(IndexStep::CompactLegacy { inputs, drop_before: drop.map(|drop| drop.cutoff) });
    }
    if !gone.is_empty() {
        steps.push(IndexStep::DeleteSuperseded { blobs: gone });
    }
    steps
}

/// Blobs that this plan deletes.
fn leaving(deletions: &[Option<&DeletePlan>], index: &[IndexStep]) -> HashSet<BlobId> {
    let packs = deletions.iter().flatten().flat_map(|plan| &plan.blobs).map(|deletion| deletion.blob.clone());
    let blobs = index.iter().flat_map(|step| match step {
        IndexStep::CleanMarkers { blobs } | IndexStep::DeleteSuperseded { blobs } => blobs.clone(),
        _ => Vec::new(),
    });
    packs.chain(blobs).collect()
}

fn extend<R: Rows>(facts: &Facts<'_, R>, leaving: &HashSet<BlobId>, skips: &mut Skips) -> Option<LocksPlan> {
    let index = match facts.index {
        IndexFacts::Epochs { blobs, .. } => blobs,
        IndexFacts::Legacy { all, .. } => all,
    };
    let listed = facts.packs.iter().chain(facts.format_blobs).chain(index);
    let plan = locks::plan(listed, |id| leaving.contains(id), facts.params, &facts.blob_config);
    skips.keep(Task::ExtendBlobRetentionTime, plan)
}

#[cfg(test)]
#[path = "compose/tests/golden.rs"]
mod golden;
#[cfg(test)]
mod tests;
