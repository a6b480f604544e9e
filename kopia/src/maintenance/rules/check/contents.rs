//! Rows: what is marked, revived, forgotten, copied.

use super::super::facts::{Facts, Frozen, IndexFacts};
use super::super::plan::PlanBody;
use super::super::rows::Rows;
use super::{Note, Notes, Severity};
use crate::bitmap::Bitmap;
use std::collections::HashMap;

const NANOS: i128 = 1_000_000_000;

/// Returns false if rows are so wrong that nothing else can be looked at.
pub(super) fn check<R: Rows>(plan: &PlanBody, facts: &Facts<'_, R>, allow: u8, notes: &mut Notes) -> bool {
    let no_rows = Vec::new();
    let marked = plan.gc.as_ref().map_or(&no_rows, |gc| &gc.mark);
    let revived = plan.gc.as_ref().map_or(&no_rows, |gc| &gc.undelete);
    let dropped = plan.drop.as_ref().map_or(&no_rows, |drop| &drop.rows);
    let mut copied = plan.rewrite.iter().flat_map(|plan| &plan.packs).flat_map(|pack| &pack.rows);
    for (what, rows) in [("marked", marked), ("revived", revived), ("forgotten", dropped)] {
        if let Some(row) = rows.iter().find(|row| **row >= facts.table.len()) {
            notes.fatal("a row that does not exist", format_args!("{what} {row}"));
            return false;
        }
    }
    if let Some(row) = copied.find(|row| **row >= facts.table.len()) {
        notes.fatal("a row that does not exist", format_args!("copied {row}"));
        return false;
    }
    for (what, rows) in [("marked", marked), ("revived", revived), ("forgotten", dropped)] {
        if let Some(pair) = rows.windows(2).find(|pair| pair[0] >= pair[1]) {
            notes.fatal("rows out of order", format_args!("{what} {} before {}", pair[0], pair[1]));
            return false;
        }
    }
    // Each row of the table is asked for in all of them, several times.
    let [marks_set, revived_set, dropped_set] = [marked, revived, dropped].map(|rows| set(rows, facts.table.len()));
    let sets = Sets { marked: &marks_set, revived: &revived_set, dropped: &dropped_set };
    marks(plan, facts, marked, &sets, notes);
    drops(plan, facts, &sets, notes);
    copies(plan, facts, &sets, notes);
    removal(facts, &sets, allow, notes);
    true
}

/// What the plan does to which rows.
struct Sets<'a> {
    marked: &'a Bitmap,
    revived: &'a Bitmap,
    dropped: &'a Bitmap,
}

fn set(rows: &[u32], length: u32) -> Bitmap {
    let mut set = Bitmap::new(length);
    for row in rows {
        set.insert(*row);
    }
    set
}

fn marks<R: Rows>(plan: &PlanBody, facts: &Facts<'_, R>, marked: &[u32], sets: &Sets<'_>, notes: &mut Notes) {
    let Some(gc) = &plan.gc else { return };
    let table = facts.table;
    let Some(used) = facts.used else {
        notes.fatal("a snapshot GC without knowledge of what is used", facts.view);
        return;
    };
    if facts.frozen != Frozen::Nothing && !marked.is_empty() {
        notes.fatal("marks although something cannot be read", facts.frozen_why);
    }
    let started = facts.started.as_nanosecond();
    let written: HashMap<&str, i128> =
        facts.packs.iter().map(|blob| (blob.id.as_str(), blob.timestamp.as_nanosecond())).collect();
    let content_age = i128::try_from(facts.margins.min_content_age_subject_to_gc.as_nanos()).unwrap_or(i128::MAX);
    let pack_age = i128::try_from(facts.margins.pack_age_subject_to_gc.as_nanos()).unwrap_or(i128::MAX);
    for &row in marked {
        if sets.revived.contains(row) {
            notes.fatal("both marked and revived", row);
        }
        if used.contains(row) {
            notes.fatal("marked although a snapshot needs it", row);
        }
        if table.prefix(row) == b'm' {
            notes.fatal("a manifest content is marked", row);
        }
        if table.is_deleted(row) {
            notes.fatal("marked twice", row);
        }
        let pack = &table.packs()[table.pack(row) as usize];
        let too_young = started - i128::from(table.timestamp(row)) * NANOS < content_age
            || written.get(pack.as_str()).is_none_or(|written| started - written < pack_age);
        if too_young {
            notes.fatal("marked although it, or its pack, is too young or not there", row);
        }
    }
    for row in 0..table.len() {
        let needs = used.contains(row) && table.is_deleted(row) && table.prefix(row) != b'm';
        if needs && !sets.revived.contains(row) {
            notes.fatal("a snapshot needs it, it is marked, and not revived", row);
        }
        if !needs && sets.revived.contains(row) {
            notes.fatal("revived without need", row);
        }
    }
    let stats = &gc.stats;
    let sum = u128::from(stats.in_use_content_count)
        + u128::from(stats.in_use_system_content_count)
        + u128::from(stats.unreferenced_content_count)
        + u128::from(stats.unreferenced_recent_content_count);
    if sum != u128::from(plan.rows) {
        notes.fatal("figures that do not add up to the contents of the view", format_args!("{sum} of {}", plan.rows));
    }
}

fn drops<R: Rows>(plan: &PlanBody, facts: &Facts<'_, R>, sets: &Sets<'_>, notes: &mut Notes) {
    let Some(drop) = &plan.drop else { return };
    if facts.frozen != Frozen::Nothing {
        notes.fatal("forgetting although something cannot be read", facts.frozen_why);
    }
    let legacy = matches!(facts.index, IndexFacts::Legacy { .. });
    let (cutoff, now) = (drop.cutoff.as_nanosecond(), facts.now.as_nanosecond());
    let wait = i128::try_from(facts.margins.mark_to_drop_wait.as_nanos()).unwrap_or(i128::MAX);
    let slack = if legacy && wait == 0 { NANOS } else { 0 };
    if cutoff > now - wait + slack {
        notes.fatal("forgetting marks that are too young", drop.cutoff);
    }
    if facts.margins.require_two_gc_cycles && !two_cycles(facts, cutoff) {
        notes.fatal("forgetting marks that two snapshot GCs have not seen", drop.cutoff);
    }
    let covered = |seconds: i64| {
        let at = i128::from(seconds) * NANOS;
        // A watermark is kept in whole seconds and covers its own; the legacy index forgets strictly before.
        if legacy { at < cutoff } else { at <= cutoff.div_euclid(NANOS) * NANOS }
    };
    let stamp = plan.gc.as_ref().map_or(0, |gc| gc.stamp);
    for row in 0..facts.table.len() {
        let old = facts.table.timestamp(row);
        let goes = if facts.table.is_deleted(row) {
            covered(old) && !sets.revived.contains(row)
        } else {
            sets.marked.contains(row) && covered(stamp.max(old.saturating_add(1)))
        };
        match (goes, sets.dropped.contains(row)) {
            (false, true) => notes.fatal("forgotten, but live, revived or too young", row),
            (true, false) => notes.fatal("the cutoff hides it, and the plan does not say so", row),
            _ => {}
        }
    }
}

/// Whether a GC that began an hour after the cutoff, and one that began four hours after that one ended, are on record
/// or are this cycle's.
fn two_cycles<R: Rows>(facts: &Facts<'_, R>, cutoff: i128) -> bool {
    let runs = facts.schedule.runs.get("snapshot-gc").map_or(&[][..], Vec::as_slice);
    let extra = i128::try_from(facts.margins.drop_content_from_index_extra_margin.as_nanos()).unwrap_or(i128::MAX);
    let gap = i128::try_from(facts.margins.margin_between_snapshot_gc.as_nanos()).unwrap_or(i128::MAX);
    let starts = runs.iter().filter(|run| run.success).map(|run| run.start.as_nanosecond());
    let last = starts.chain([facts.gc_started.as_nanosecond()]).max().unwrap_or(i128::MIN);
    runs.iter()
        .filter(|run| run.success)
        .any(|run| run.start.as_nanosecond() >= cutoff.saturating_add(extra) && last - run.end.as_nanosecond() > gap)
}

fn copies<R: Rows>(plan: &PlanBody, facts: &Facts<'_, R>, sets: &Sets<'_>, notes: &mut Notes) {
    let Some(rewrite) = &plan.rewrite else { return };
    if facts.frozen == Frozen::Everything {
        notes.fatal("rewriting although an index may be lost", facts.frozen_why);
    }
    let gone = |row: u32| sets.dropped.contains(row);
    let handled = |row: u32| sets.marked.contains(row) || sets.revived.contains(row);
    let now = facts.now.as_nanosecond();
    let mut seen = Bitmap::new(facts.table.len());
    for pack in &rewrite.packs {
        let mut end = 0;
        for &row in &pack.rows {
            let age = now - i128::from(facts.table.timestamp(row)) * NANOS;
            let least = if facts.table.prefix(row) == b'm' {
                facts.margins.rewrite_min_age.max(facts.margins.manifest_rewrite_min_age)
            } else {
                facts.margins.rewrite_min_age
            };
            if !seen.insert(row) || facts.table.pack(row) != pack.pack || facts.table.offset(row) < end {
                notes.fatal("copied twice, out of order, or from another pack", row);
            }
            if gone(row) {
                notes.fatal("copied, but no longer visible", row);
            } else if facts.table.is_deleted(row) || handled(row) {
                notes.fatal("copied, but marked or revived", row);
            }
            if age < i128::try_from(least.as_nanos()).unwrap_or(i128::MAX) {
                notes.fatal("copied, but too young", row);
            }
            if rewrite.quick && !facts.table.packs()[pack.pack as usize].as_str().starts_with('q') {
                notes.fatal("a quick rewrite of a data pack", row);
            }
            end = facts.table.offset(row);
        }
    }
}

/// S5: what needs a person's word. Bytes only moved do not count.
fn removal<R: Rows>(facts: &Facts<'_, R>, sets: &Sets<'_>, allow: u8, notes: &mut Notes) {
    let (mut all, mut removed, mut live) = (0u128, 0u128, 0u64);
    for row in 0..facts.table.len() {
        let bytes = u128::from(facts.table.packed_length(row));
        let goes = sets.marked.contains(row) || sets.dropped.contains(row);
        all += bytes;
        removed += if goes { bytes } else { 0 };
        let stays_live = !goes && (!facts.table.is_deleted(row) || sets.revived.contains(row));
        live += u64::from(stays_live && facts.table.prefix(row) != b'm');
    }
    let mut say = |text| notes.notes.push(Note { severity: Severity::NeedsWord, text });
    if removed * 100 > all * u128::from(allow) {
        let percent = (removed * 100).div_ceil(all.max(1));
        say(format!(
            "it removes {percent} % of the packed bytes ({removed} of {all}), more than the {allow} % allowed; \
             the word for it is --allow-removing {percent}"
        ));
    }
    if live == 0 && (sets.marked.count() > 0 || sets.dropped.count() > 0) && allow < 100 {
        say("it leaves no live content; the word for it is --allow-removing 100".to_owned());
    }
}
