//! Blobs: what is deleted, and that each is deleted once and kept by nothing.

use super::super::facts::{Facts, Frozen};
use super::super::plan::{DeletePlan, DeleteRule, IndexStep, PlanBody};
use super::super::rows::Rows;
use super::Notes;
use crate::bitmap::Bitmap;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

const SECOND: i128 = 1_000_000_000;

pub(super) fn check<R: Rows>(plan: &PlanBody, facts: &Facts<'_, R>, notes: &mut Notes) {
    if let Some(delete) = &plan.delete {
        let early = last_rewrite(facts).is_some_and(|end| {
            facts.now.as_nanosecond() < end + nanos(facts.margins.min_rewrite_to_orphan_deletion_delay)
        });
        if early {
            notes.fatal("deletion too soon after a rewrite", facts.now);
        }
        deletions(delete, plan, facts, false, notes);
    }
    if let Some(delete) = &plan.delete_rewritten {
        if !facts.margins.min_rewrite_to_orphan_deletion_delay.is_zero() || plan.rewrite.is_none() {
            notes.fatal("deletion of what was rewritten without the wait", facts.now);
        }
        deletions(delete, plan, facts, true, notes);
    }
    if let Some(logs) = &plan.logs {
        let known: HashMap<&str, u64> = facts.logs.iter().map(|log| (log.id.as_str(), log.length)).collect();
        if facts.frozen == Frozen::Everything && !logs.blobs.is_empty() {
            notes.fatal("logs deleted although an index may be lost", facts.frozen_why);
        }
        for log in &logs.blobs {
            let name = log.blob.as_str();
            if !name.starts_with("_log_") || log.rule != DeleteRule::Log || known.get(name) != Some(&log.length) {
                notes.fatal("not a log that was listed", name);
            }
        }
    }
    once(plan, notes);
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / 4)
}

fn last_rewrite<R: Rows>(facts: &Facts<'_, R>) -> Option<i128> {
    let runs =
        ["full-rewrite-contents", "quick-rewrite-contents"].into_iter().filter_map(|t| facts.schedule.runs.get(t));
    runs.flatten().filter(|run| run.success).map(|run| run.end.as_nanosecond()).max()
}

/// Names of packs that some row still needs.
fn needed<'a, R: Rows>(plan: &PlanBody, facts: &Facts<'a, R>, after_rewrite: bool) -> HashSet<&'a str> {
    let table = facts.table;
    let mut leaves = Bitmap::new(table.len());
    let dropped = plan.drop.iter().flat_map(|drop| &drop.rows);
    let copied = plan.rewrite.iter().flat_map(|rewrite| &rewrite.packs).flat_map(|pack| &pack.rows);
    for row in dropped.chain(copied.filter(|_| after_rewrite)) {
        leaves.insert(*row);
    }
    let mut holds = vec![false; table.packs().len()];
    for row in (0..table.len()).filter(|row| !leaves.contains(*row)) {
        holds[table.pack(row) as usize] = true;
    }
    let mut names: HashSet<&str> =
        table.packs().iter().zip(holds).filter(|(_, holds)| *holds).map(|(pack, _)| pack.as_str()).collect();
    if facts.frozen == Frozen::MarksAndDrops {
        names.extend(table.hidden_packs().iter().map(|pack| pack.as_str()));
    }
    names
}

fn deletions<R: Rows>(delete: &DeletePlan, plan: &PlanBody, facts: &Facts<'_, R>, rewritten: bool, notes: &mut Notes) {
    if facts.frozen == Frozen::Everything && !delete.blobs.is_empty() {
        notes.fatal("deletion although an index may be lost", facts.frozen_why);
    }
    let needed = needed(plan, facts, rewritten);
    let listed: HashMap<&str, (u64, i128)> =
        facts.packs.iter().map(|blob| (blob.id.as_str(), (blob.length, blob.timestamp.as_nanosecond()))).collect();
    let protected = sessions(facts);
    let cutoff = facts.started.as_nanosecond() + SECOND;
    for pair in delete.blobs.windows(2).filter(|pair| pair[0].blob >= pair[1].blob) {
        notes.fatal("deletions out of order", &pair[1].blob);
    }
    for deletion in &delete.blobs {
        let name = deletion.blob.as_str();
        let Some((length, written)) = listed.get(name) else {
            notes.fatal("deleted but not listed", name);
            continue;
        };
        if needed.contains(name) {
            notes.fatal("deleted although contents lie in it", name);
        }
        if !matches!(name.as_bytes().first(), Some(b'p' | b'q' | b's')) || delete.quick && !name.starts_with('q') {
            notes.fatal("deleted but not a pack or session marker of this deletion", name);
        }
        let rule = match (name.starts_with('s'), rewritten) {
            (true, _) => DeleteRule::ExpiredSession,
            (false, true) => DeleteRule::RewrittenPack,
            (false, false) => DeleteRule::UnreferencedPack,
        };
        if *length != deletion.length || rule != deletion.rule {
            notes.fatal("deleted with another length or rule than its own", name);
        }
        if cutoff - written < nanos(facts.margins.pack_delete_min_age) || *written > cutoff {
            notes.fatal("deleted too young", name);
        }
        // The first dash-separated part behind the first that begins with an `s` names the session.
        let session = name.split('-').skip(1).find(|part| part.starts_with('s'));
        if session.is_some_and(|session| protected.contains(session)) {
            notes.fatal("deleted although its session may still write", name);
        }
    }
}

/// Sessions that have not expired.
fn sessions<'a, R: Rows>(facts: &Facts<'a, R>) -> BTreeSet<&'a str> {
    let cutoff = facts.started.as_nanosecond() + SECOND;
    let lives = nanos(facts.margins.session_expiration_age);
    let active = facts.sessions.iter().filter(|session| {
        let checkpoint = session.checkpoint.unwrap_or(session.marker.timestamp).as_nanosecond();
        !session.over && cutoff - checkpoint < lives
    });
    active
        .filter_map(|session| session.marker.id.as_str().split('-').skip(1).find(|part| part.starts_with('s')))
        .collect()
}

/// No blob goes twice, is copied from and deleted before that, or is kept by another part of the plan.
fn once(plan: &PlanBody, notes: &mut Notes) {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let packs = plan.delete.iter().chain(&plan.delete_rewritten).flat_map(|delete| &delete.blobs);
    let logs = plan.logs.iter().flat_map(|logs| &logs.blobs);
    for deletion in packs.chain(logs) {
        *seen.entry(deletion.blob.as_str()).or_default() += 1;
    }
    for step in &plan.index {
        if let IndexStep::CleanMarkers { blobs } | IndexStep::DeleteSuperseded { blobs } = step {
            blobs.iter().for_each(|blob| *seen.entry(blob.as_str()).or_default() += 1);
        }
    }
    for (name, count) in &seen {
        if *count > 1 {
            notes.fatal("deleted twice", name);
        }
        if !matches!(name.as_bytes().first(), Some(b'p' | b'q' | b's' | b'x' | b'n' | b'm' | b'l' | b'_')) {
            notes.fatal("deleted but not a blob that maintenance deletes", name);
        }
    }
    for blob in plan.locks.iter().flat_map(|locks| &locks.blobs) {
        if seen.contains_key(blob.as_str()) {
            notes.fatal("both locked and deleted", blob);
        }
    }
}
