//! Reads every pack of directories and seek tables once, in order, and notes what each content points to.

use verger_kopia::error::Result;
use verger_kopia::index::Table;

use super::bulk;
use super::holds;
use super::summary::{Ledger, Summaries};
use super::survey::Survey;
use crate::progress::{Meter, Unit};
use crate::workspace::Workspace;

/// Manifests: no directory, no seek table, and read by the survey.
const MANIFEST_PREFIX: u8 = b'm';

/// Reads the packs that hold live contents with a prefix, in several threads, and summarises every content with a prefix in them.
///
/// What cannot be read is noted as such and does not end the scan: only the solve knows whether anybody needs it.
///
/// # Errors
/// `StoreUnavailable`, `Permission`, `Interrupted`.
pub fn scan(workspace: &Workspace, survey: &Survey) -> Result<Summaries> {
    let table = &survey.view.table;
    let first = first_prefixed(table);
    let kept = table.memory().saturating_add(survey.estimate.rest);
    let aside = survey.put_summaries_aside(workspace, u64::from(table.len() as u32 - first))?;
    let rows = wanted(table, first);
    let summaries = if aside.is_some() { 0 } else { survey.estimate.summaries };
    workspace.memory.keep(kept.saturating_add(summaries));
    let total = bulk::read_bytes(workspace, table, &rows);
    let meter = Meter::start(&*workspace.progress, "scan", Some(total), Unit::Bytes);
    let ledger = Ledger::new(table, first, aside)?;
    let pens = bulk::read_contents(
        workspace,
        table,
        &rows,
        Some(&meter),
        || (ledger.pen(), holds::Unpacker::default()),
        |(pen, unpacker), row, plain| {
            match plain {
                Ok(plain) => match holds::classify(plain, pen.pen(), unpacker) {
                    Some(holds) => pen.points(row, holds)?,
                    None => pen.opaque(row),
                },
                Err(_) => pen.unreadable(row),
            }
            Ok(())
        },
    )?;
    drop(pens);
    let summaries = ledger.close()?;
    workspace.memory.keep(kept.saturating_add(summaries.bytes()));
    Ok(summaries)
}

/// Rows are sorted by ID, and an ID without prefix comes before all with one.
pub(super) fn first_prefixed(table: &Table) -> u32 {
    let (mut low, mut high) = (0, table.len() as u32);
    while low < high {
        let middle = low + (high - low) / 2;
        if table.prefix(middle) == 0 { low = middle + 1 } else { high = middle }
    }
    low
}

/// Rows to read, pack by pack. A pack with nothing live in it is left alone: what a snapshot needs of it is fetched by itself.
pub(super) fn wanted(table: &Table, first: u32) -> Vec<u32> {
    let packs = table.packs().len();
    let mut live = vec![false; packs];
    let mut counts = vec![0u32; packs + 1];
    let rows = || (first..table.len() as u32).filter(|&row| table.prefix(row) != MANIFEST_PREFIX);
    for row in rows() {
        live[table.pack(row) as usize] |= !table.is_deleted(row);
        counts[table.pack(row) as usize] += 1;
    }
    // A counting sort by pack, then each pack by offset: the order of the bytes.
    let mut total = 0;
    for (count, live) in counts.iter_mut().zip(live.iter().chain([&false])) {
        let here = if *live { *count } else { 0 };
        *count = total;
        total += here;
    }
    let mut order = vec![0u32; total as usize];
    let mut next = counts.clone();
    for row in rows() {
        let pack = table.pack(row) as usize;
        if live[pack] {
            order[next[pack] as usize] = row;
            next[pack] += 1;
        }
    }
    for pack in counts.windows(2) {
        order[pack[0] as usize..pack[1] as usize].sort_unstable_by_key(|&row| table.offset(row));
    }
    order
}
