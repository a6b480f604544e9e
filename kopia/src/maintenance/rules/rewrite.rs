//! Which short packs to rewrite, and what of them (`repo/maintenance/content_rewrite.go`).

use super::facts::{Facts, Frozen, age, shorter};
use super::gc::MANIFEST_PREFIX;
use super::plan::{DropPlan, GcPlan, RewritePack, RewritePlan};
use super::rows::Rows;
use crate::bitmap::Bitmap;
use crate::clock::Timestamp;
use crate::maintenance::Margins;
use crate::mutant::{self, Mutant};

/// A pack is short below this share of the maximum (Kopia's comments say 80, its constant is 60).
pub const SHORT_PACK_PERCENT: u64 = 60;

/// Bytes below which a pack is short.
#[must_use]
pub fn short_below(max_pack_size: u64) -> u64 {
    max_pack_size / 100 * SHORT_PACK_PERCENT + max_pack_size % 100 * SHORT_PACK_PERCENT / 100
}

/// What this cycle does with rows before it rewrites.
#[derive(Debug)]
pub struct Fate {
    dropped: Bitmap,
    dying: Bitmap,
}

impl Fate {
    /// Of the rows of `table` under these parts of the plan.
    pub fn new<R: Rows>(table: &R, gc: Option<&GcPlan>, drop: Option<&DropPlan>) -> Self {
        let mut dropped = Bitmap::new(table.len());
        drop.iter().flat_map(|drop| &drop.rows).for_each(|row| {
            dropped.insert(*row);
        });
        let mut dying = Bitmap::new(table.len());
        for row in gc.iter().flat_map(|gc| gc.mark.iter().chain(&gc.undelete)) {
            dying.insert(*row);
        }
        Self { dropped, dying }
    }

    /// Whether the row is invisible after the drop.
    #[must_use]
    pub fn is_dropped(&self, row: u32) -> bool {
        self.dropped.contains(row)
    }

    /// Whether there is no use in copying it: marks and what becomes one die where they lie (a copy would restart their
    /// age), and what is revived is packed again anyway (R13).
    fn stays<R: Rows>(&self, table: &R, row: u32) -> bool {
        (table.is_deleted(row) || self.dying.contains(row)) && !mutant::on(Mutant::R19MarksCopied)
    }

    /// Packs, by ordinal, that a row names after the drop. Revived rows count: their new entry is not durable yet.
    pub fn surviving_packs<R: Rows>(&self, table: &R) -> Vec<bool> {
        let mut survives = vec![false; table.packs().len()];
        for row in (0..table.len()).filter(|row| !self.is_dropped(*row)) {
            if table.is_deleted(row) && mutant::on(Mutant::I6MarksDoNotCount) {
                continue;
            }
            survives[table.pack(row) as usize] = true;
        }
        survives
    }
}

/// Whether a row of a short pack stays for its age.
fn young_row<R: Rows>(table: &R, row: u32, now: Timestamp, margins: &Margins) -> bool {
    let age = age(now, table.timestamp(row));
    shorter(age, margins.rewrite_min_age)
        // R19: a manifest content revived from a stale index would bring deleted snapshots back.
        || !mutant::on(Mutant::R19YoungManifestsCopied)
            && table.prefix(row) == MANIFEST_PREFIX && shorter(age, margins.manifest_rewrite_min_age)
}

/// Selects short packs by what is left in them after the drop, and of those the rows that are worth a copy.
///
/// Packs from which nothing would be copied, or that are not there, do not count as short, nor do those with anything young in
/// them: they would have to stay. A letter with a single short pack is left alone.
///
/// # Errors
/// The reason why nothing is rewritten.
pub fn plan<R: Rows>(facts: &Facts<'_, R>, fate: &Fate, quick: bool) -> Result<RewritePlan, &'static str> {
    if facts.frozen == Frozen::Everything {
        return Err("Not rewriting contents: an index may be lost.");
    }
    let table = facts.table;
    let listed = facts.pack_times();
    let mut sizes = vec![0u64; table.packs().len()];
    for row in (0..table.len()).filter(|row| !fate.is_dropped(*row)) {
        let size = &mut sizes[table.pack(row) as usize];
        *size = size.saturating_add(u64::from(table.packed_length(row)));
    }
    let limit = short_below(facts.max_pack_size);
    let letter = |pack: usize| table.packs()[pack].as_str().as_bytes().first().copied().unwrap_or_default();
    let short = |pack: usize| sizes[pack] < limit && listed[pack].is_some() && (!quick || letter(pack) == b'q');

    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); sizes.len()];
    let mut young = vec![(0u64, 0u64); sizes.len()];
    for row in (0..table.len()).filter(|row| !fate.is_dropped(*row) && !fate.stays(table, *row)) {
        let pack = table.pack(row) as usize;
        if !short(pack) {
            continue;
        }
        if young_row(table, row, facts.now, facts.margins) {
            young[pack].0 += 1;
            young[pack].1 += u64::from(table.packed_length(row));
        } else {
            rows[pack].push(row);
        }
    }
    // What is young keeps its pack: copying the rest would free nothing, and leave one more short pack behind.
    let worth = |pack: &usize| !rows[*pack].is_empty() && young[*pack].0 == 0;
    let (mut letters, mut candidates) = ([0u32; 256], [0u32; 256]);
    for pack in 0..rows.len() {
        letters[usize::from(letter(pack))] += u32::from(worth(&pack));
        candidates[usize::from(letter(pack))] += u32::from(!rows[pack].is_empty() || young[pack].0 > 0);
    }
    let packs = (0..rows.len()).filter(|pack| worth(pack) && letters[usize::from(letter(*pack))] > 1).collect();
    let mut plan = collect(table, packs, rows, quick);
    for (_, (count, size)) in young.iter().enumerate().filter(|(pack, _)| candidates[usize::from(letter(*pack))] > 1) {
        plan.stats.retained_content_count += count;
        plan.stats.retained_content_size += size;
    }
    Ok(plan)
}

fn collect<R: Rows>(table: &R, packs: Vec<usize>, mut rows: Vec<Vec<u32>>, quick: bool) -> RewritePlan {
    let mut plan = RewritePlan { quick, ..RewritePlan::default() };
    for pack in packs {
        let mut rows = std::mem::take(&mut rows[pack]);
        rows.sort_by_key(|row| (table.offset(*row), *row));
        let stats = &mut plan.stats;
        stats.to_rewrite_content_count += rows.len() as u64;
        stats.to_rewrite_content_size += rows.iter().map(|row| u64::from(table.packed_length(*row))).sum::<u64>();
        // A table has fewer packs than rows, and rows are 32 bits wide.
        plan.packs.push(RewritePack { pack: u32::try_from(pack).unwrap_or(u32::MAX), rows });
    }
    plan.stats.rewritten_content_count = plan.stats.to_rewrite_content_count;
    plan.stats.rewritten_content_size = plan.stats.to_rewrite_content_size;
    plan
}

/// Packs, by ordinal, that a row still names once the plan's rows lie elsewhere.
pub fn surviving_packs<R: Rows>(table: &R, fate: &Fate, plan: &RewritePlan) -> Vec<bool> {
    let moved: Bitmap = plan.packs.iter().flat_map(|pack| pack.rows.iter().copied()).collect();
    let mut survives = vec![false; table.packs().len()];
    for row in (0..table.len()).filter(|row| !fate.is_dropped(*row) && !moved.contains(*row)) {
        survives[table.pack(row) as usize] = true;
    }
    survives
}

#[cfg(test)]
mod tests;
