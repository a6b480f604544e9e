//! A scan in shards: each reads its packs and says what each content points to, by ID; whoever leads makes the same summaries of it as
//! if it had read everything itself.

use std::sync::{Mutex, PoisonError};

use verger_kopia::bitmap::Bitmap;
use verger_kopia::error::Result;
use verger_kopia::mutant::{self, Mutant};
use verger_proto::Shard;
use verger_proto::job::{JobSpec, OutputRef};

use super::cut::{self, Grain, PACKS_MAX};
use super::order::{self, Making};
use super::places::Ordered;
use super::scan::{first_prefixed, wanted};
use super::summary::{Ledger, LedgerPen, Summaries};
use super::survey::Survey;
use super::{bulk, holds};
use crate::exchange::{Found, PartError, PartKind, Parts, Records, write_found};
use crate::progress::{Meter, Unit};
use crate::workspace::Workspace;

/// Cuts the scan by the bytes that are to be read of each pack, and writes the orders. `None`: it is too little.
///
/// # Errors
/// Those of the exchange.
pub fn cut_scan(
    workspace: &Workspace,
    survey: &Survey,
    making: &Making<'_>,
    shard_bytes: u64,
) -> Result<Option<(Vec<Shard>, Vec<OutputRef>)>> {
    let table = &survey.view.table;
    let rows = wanted(table, first_prefixed(table));
    let packs = rows.chunk_by(|one, other| table.pack(*one) == table.pack(*other));
    let sizes = packs.filter_map(|rows| {
        let pack = table.packs().get(table.pack(*rows.first()?) as usize)?;
        Some((pack, bulk::read_bytes(workspace, table, rows)))
    });
    let grain = Grain { bytes: shard_bytes, packs: PACKS_MAX, seams: &[] };
    let Some(shards) = cut::cut(sizes, &grain) else { return Ok(None) };
    let orders = order::write_orders(workspace, making, table, &shards, &rows)?;
    Ok(Some((shards, orders)))
}

/// Reads what was ordered, and leaves a line of each content. What cannot be read is such a line, and no failure.
///
/// # Errors
/// `StoreUnavailable`, `Permission`, `Interrupted`; those of the exchange.
pub fn scan_shard(
    workspace: &Workspace,
    parts: &Parts,
    ordered: &Ordered,
    spec: &JobSpec,
    order: &OutputRef,
) -> Result<OutputRef> {
    let rows: Vec<u32> = (0..ordered.len()).collect();
    let total = bulk::read_bytes(workspace, ordered, &rows);
    let meter = Meter::start(&*workspace.progress, "scan", Some(total), Unit::Bytes);
    let part = parts.write(PartKind::Scan, &spec.shard, spec.attempt, order.view, &workspace.spill)?;
    let part = Mutex::new(part);
    bulk::read_contents(
        workspace,
        ordered,
        &rows,
        Some(&meter),
        || (holds::Unpacker::default(), Vec::new(), Vec::new()),
        |(unpacker, references, line), row, plain| {
            let found = match plain {
                Err(_) => Found::Unreadable,
                Ok(plain) => match holds::classify(plain, references, unpacker) {
                    Some(holds) => Found::Points(holds, std::mem::take(references)),
                    None => Found::Opaque,
                },
            };
            write_found(&super::places::Places::id(ordered, row), &found, line)?;
            if let Found::Points(_, list) = found {
                *references = list;
            }
            part.lock().unwrap_or_else(PoisonError::into_inner).record(line)
        },
    )?;
    part.into_inner().unwrap_or_else(PoisonError::into_inner).finish(&workspace.memory)
}

/// Makes summaries of what the shards found. Each content that was ordered has exactly one line, whatever the machine says of the
/// shards (R12).
///
/// # Errors
/// Those of [`PartError`]; as [`scan`](super::scan::scan).
pub fn gather(workspace: &Workspace, survey: &Survey, parts: &Parts, found: &[&OutputRef]) -> Result<Summaries> {
    let table = &survey.view.table;
    let first = first_prefixed(table);
    let kept = table.memory().saturating_add(survey.estimate.rest);
    let aside = survey.put_summaries_aside(workspace, u64::from(table.len() as u32 - first))?;
    let summaries = if aside.is_some() { 0 } else { survey.estimate.summaries };
    workspace.memory.keep(kept.saturating_add(summaries));
    let mut ordered = Bitmap::new(table.len() as u32);
    let mut missing = 0u64;
    for row in wanted(table, first) {
        missing += u64::from(ordered.insert(row));
    }
    let ledger = Ledger::new(table, first, aside)?;
    let lines = order::each(workspace.parallel, found.len(), |number| {
        workspace.stop.check()?;
        let records = Records::new(parts.read(found[number], PartKind::Scan)?);
        let mut pen = ledger.pen();
        take_in(records, &ledger, &mut pen, |content| table.find(content).filter(|row| ordered.contains(*row)))
    })?;
    missing -= lines.iter().sum::<u64>();
    if missing > 0 && !mutant::on(Mutant::R12MissingShardIgnored) {
        return Err(PartError::Uncovered(missing).at("put together what the shards of the scan found"));
    }
    let summaries = ledger.close()?;
    workspace.memory.keep(kept.saturating_add(summaries.bytes()));
    Ok(summaries)
}

/// Takes in one part; tells how many lines it had.
fn take_in(
    mut records: Records,
    ledger: &Ledger<'_>,
    pen: &mut LedgerPen<'_>,
    row_of: impl Fn(&verger_kopia::content::ContentId) -> Option<u32>,
) -> Result<u64> {
    let mut lines = 0;
    while let Some((content, found)) = records.found()? {
        let Some(row) = row_of(&content) else {
            return Err(records.part().fail(PartError::NotOrdered(content.to_string())));
        };
        if !ledger.claim(row) {
            return Err(records.part().fail(PartError::Twice(content.to_string())));
        }
        match found {
            Found::Opaque => pen.opaque(row),
            Found::Unreadable => pen.unreadable(row),
            Found::Points(holds, references) => {
                pen.pen().begin();
                references.iter().for_each(|(role, object)| pen.pen().refer(*role, object));
                pen.points(row, holds)?;
            }
        }
        lines += 1;
    }
    records.finish()?;
    Ok(lines)
}
