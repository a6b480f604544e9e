//! Index work: settled epochs only, and nothing goes without what replaces it.

use super::super::facts::{CompactionLog, Facts, Frozen, IndexFacts};
use super::super::plan::{IndexStep, Mode, PlanBody};
use super::super::rows::Rows;
use super::Notes;
use crate::storage::{BlobId, BlobMetadata};
use std::collections::{BTreeMap, HashSet};

pub(super) fn check<R: Rows>(plan: &PlanBody, facts: &Facts<'_, R>, notes: &mut Notes) {
    if facts.frozen == Frozen::Everything && !plan.index.is_empty() {
        notes.fatal("index work although an index may be lost", facts.frozen_why);
    }
    match facts.index {
        IndexFacts::Epochs { blobs, parameters } => {
            let seen = Seen::of(blobs);
            for step in &plan.index {
                epoch_step(step, &seen, notes);
            }
            let newest = seen.recent().map(|blob| blob.timestamp.as_nanosecond()).max();
            let margin = i128::try_from(parameters.cleanup_safety_margin.as_nanos()).unwrap_or(i128::MAX / 4);
            for step in &plan.index {
                replaced(step, &seen, newest.map(|newest| newest - margin), notes);
            }
        }
        IndexFacts::Legacy { active, all, logs, .. } => legacy(plan, facts, active, all, logs, notes),
    }
}

/// Number behind a two-letter prefix, up to the first underscore.
fn number(name: &str) -> Option<u64> {
    name.get(2..)?.split('_').next()?.parse().ok()
}

struct Seen<'a> {
    by_name: BTreeMap<&'a str, &'a BlobMetadata>,
    write_epoch: u64,
}

impl<'a> Seen<'a> {
    fn of(blobs: &'a [BlobMetadata]) -> Self {
        let by_name: BTreeMap<&str, &BlobMetadata> = blobs.iter().map(|blob| (blob.id.as_str(), blob)).collect();
        let write_epoch = by_name.keys().filter(|name| name.starts_with("xe")).filter_map(|name| number(name)).max();
        Self { by_name, write_epoch: write_epoch.unwrap_or(0) }
    }

    fn with(&self, prefix: &str) -> impl Iterator<Item = &'a BlobMetadata> {
        self.by_name.values().filter(move |blob| blob.id.as_str().starts_with(prefix)).copied()
    }

    /// Uncompacted blobs around the write epoch, whose newest is the storage's clock.
    fn recent(&self) -> impl Iterator<Item = &'a BlobMetadata> {
        let epoch = self.write_epoch;
        self.with("xn").filter(move |blob| number(blob.id.as_str()).is_some_and(|n| n.abs_diff(epoch) <= 1))
    }

    fn settled(&self, epoch: u64) -> bool {
        epoch.checked_add(2).is_some_and(|needed| needed <= self.write_epoch)
    }

    /// Newest time of a complete set among blobs with this prefix: as many members as each of them says.
    fn complete(&self, prefix: &str) -> Option<i128> {
        let mut sets: BTreeMap<&str, (usize, i128)> = BTreeMap::new();
        for blob in self.with(prefix) {
            let (_, suffix) = blob.id.as_str().split_once("-s").unwrap_or(("", blob.id.as_str()));
            let set = sets.entry(suffix).or_insert((0, i128::MIN));
            *set = (set.0 + 1, set.1.max(blob.timestamp.as_nanosecond()));
        }
        let count = |suffix: &str| suffix.rsplit_once("-c").map_or(Some(1), |(_, count)| count.parse().ok());
        sets.into_iter().filter(|(suffix, set)| count(suffix) == Some(set.0)).map(|(_, set)| set.1).max()
    }
}

fn epoch_step(step: &IndexStep, seen: &Seen<'_>, notes: &mut Notes) {
    match step {
        IndexStep::CompactEpoch { epoch, inputs } => {
            if !seen.settled(*epoch) {
                notes.fatal("an epoch that is not settled is compacted", epoch);
            }
            let all: HashSet<&str> = seen.with(&format!("xn{epoch}_")).map(|blob| blob.id.as_str()).collect();
            if inputs.is_empty() || inputs.len() != all.len() || !inputs.iter().all(|i| all.contains(i.as_str())) {
                notes.fatal("an epoch is compacted without all its blobs", epoch);
            }
        }
        IndexStep::CompactRange { first, last, inputs } => {
            if !seen.settled(*last) || first > last {
                notes.fatal("a range that is not settled is compacted", last);
            }
            range_inputs(*first, *last, inputs, seen, notes);
        }
        IndexStep::AdvanceEpoch { epoch } => {
            if seen.write_epoch.checked_add(1) != Some(*epoch) {
                notes.fatal("the write epoch does not advance by one", epoch);
            }
        }
        IndexStep::CleanMarkers { .. } | IndexStep::DeleteSuperseded { .. } => {}
        IndexStep::CompactLegacy { .. } => notes.fatal("legacy compaction of an epoch index", "CompactLegacy"),
    }
}

/// A range stands in for every epoch in it, so each epoch's blobs, or a complete set of them, have to go in.
fn range_inputs(first: u64, last: u64, inputs: &[BlobId], seen: &Seen<'_>, notes: &mut Notes) {
    let given: HashSet<&str> = inputs.iter().map(BlobId::as_str).collect();
    for name in &given {
        let inside = number(name).is_some_and(|epoch| (first..=last).contains(&epoch));
        if !inside || !seen.by_name.contains_key(name) || !(name.starts_with("xn") || name.starts_with("xs")) {
            notes.fatal("a range is made from blobs outside it", name);
        }
    }
    let compacted: HashSet<u64> = given.iter().filter(|n| n.starts_with("xs")).filter_map(|n| number(n)).collect();
    for epoch in &compacted {
        let members = given.iter().filter(|name| name.starts_with(&format!("xs{epoch}_")));
        let whole = members.clone().next().and_then(|name| name.rsplit_once("-c")?.1.parse().ok()).unwrap_or(1);
        if members.count() != whole {
            notes.fatal("a range is made from a part of a set", epoch);
        }
    }
    for blob in seen.with("xn") {
        let epoch = number(blob.id.as_str()).filter(|epoch| (first..=last).contains(epoch));
        if epoch.is_some_and(|epoch| !compacted.contains(&epoch)) && !given.contains(blob.id.as_str()) {
            notes.fatal("a range leaves out an index blob", &blob.id);
        }
    }
}

fn replaced(step: &IndexStep, seen: &Seen<'_>, limit: Option<i128>, notes: &mut Notes) {
    let (IndexStep::CleanMarkers { blobs } | IndexStep::DeleteSuperseded { blobs }) = step else { return };
    let markers = matches!(step, IndexStep::CleanMarkers { .. });
    let watermark = seen.with("xw").filter_map(|blob| blob.id.as_str()[2..].parse::<i64>().ok()).max();
    for blob in blobs {
        let name = blob.as_str();
        let Some(listed) = seen.by_name.get(name) else {
            notes.fatal("deleted but not listed", name);
            continue;
        };
        let written = listed.timestamp.as_nanosecond();
        let replaced = |time: Option<i128>| matches!((time, limit), (Some(time), Some(limit)) if time < limit);
        let epoch = number(name);
        let right = match name.get(..2) {
            Some("xe") => markers && epoch.is_some_and(|epoch| epoch.saturating_add(1) < seen.write_epoch),
            Some("xw") => markers && name[2..].parse().ok() != watermark && replaced(Some(written)),
            Some("xn") => {
                !markers
                    && epoch.is_some_and(|epoch| seen.settled(epoch) && replaced(seen.complete(&format!("xs{epoch}_"))))
            }
            Some("xs" | "xr") => !markers && abandoned(name, blobs, seen),
            _ => false,
        };
        if !right {
            notes.fatal("an index blob is deleted that nothing replaces", name);
        }
    }
}

/// Whether a compacted blob belongs to a set that lacks members, with a complete set of the same name beside it.
fn abandoned(name: &str, deleted: &[BlobId], seen: &Seen<'_>) -> bool {
    let Some((stem, _)) = name.rsplit_once('_') else { return false };
    let Some((_, set)) = name.split_once("-s") else { return false };
    let prefix = format!("{stem}_");
    let members = seen.with(&prefix).filter(|blob| blob.id.as_str().ends_with(&format!("-s{set}"))).count();
    let lacking =
        set.rsplit_once("-c").and_then(|(_, count)| count.parse().ok()).is_some_and(|count: usize| members < count);
    let survives = seen.with(&prefix).any(|blob| !deleted.contains(&blob.id));
    lacking && survives && seen.complete(&prefix).is_some()
}

fn legacy<R: Rows>(
    plan: &PlanBody,
    facts: &Facts<'_, R>,
    active: &[BlobMetadata],
    all: &[BlobMetadata],
    logs: &[CompactionLog],
    notes: &mut Notes,
) {
    let active: HashSet<&str> = active.iter().map(|blob| blob.id.as_str()).collect();
    let mut merged: HashSet<&str> = HashSet::new();
    for step in &plan.index {
        match step {
            IndexStep::CompactLegacy { inputs, drop_before } => {
                merged.extend(inputs.iter().map(BlobId::as_str));
                if inputs.is_empty() || !merged.is_subset(&active) || merged.len() != inputs.len() {
                    notes.fatal("a legacy compaction of blobs that are not active", inputs.len());
                }
                // I10: a mark may only be removed together with every older entry that it hides.
                if drop_before.is_some() && merged != active {
                    notes.fatal("marks are removed without all index blobs", inputs.len());
                }
                if *drop_before != plan.drop.as_ref().map(|drop| drop.cutoff)
                    || plan.mode != Mode::Full && drop_before.is_some()
                {
                    notes.fatal("marks are removed by another cutoff than the plan's", format_args!("{drop_before:?}"));
                }
            }
            IndexStep::DeleteSuperseded { blobs } => {
                let settled = facts.margins.legacy_settle_time.is_zero();
                let known: HashSet<&str> = all.iter().map(|blob| blob.id.as_str()).collect();
                for name in blobs.iter().map(BlobId::as_str) {
                    let index = name.starts_with('n');
                    let kept = index && active.contains(name) && !(settled && merged.contains(name));
                    // A log counts only while all its outputs are there: without them its inputs are active again.
                    let brings_back = logs.iter().any(|log| {
                        let made = log.outputs.iter().any(|output| output.as_str() == name);
                        let inputs_left = log.inputs.iter().any(|input| known.contains(input.as_str()));
                        inputs_left && (made || log.blob.id.as_str() == name)
                    });
                    if brings_back {
                        notes.fatal("superseded index blobs would be active again", name);
                    }
                    if kept || index && !known.contains(name) || !name.starts_with(['n', 'm', 'l']) {
                        notes.fatal("an index blob is deleted that nothing replaces", name);
                    }
                }
            }
            _ => notes.fatal("epoch work on a legacy index", format_args!("{step:?}")),
        }
    }
    if plan.drop.is_some() && merged.is_empty() && !active.is_empty() {
        notes.odd("marks are to be forgotten, and no index is written for it");
    }
}
