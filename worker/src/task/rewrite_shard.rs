//! A rewrite in shards: each copies its contents into packs of a session of its worker, and says what is to be published. Nothing points
//! to those packs: of a late or doubled attempt they are orphans, since only what the attempt that counted reported is published.

use std::collections::BTreeMap;

use verger_kopia::bitmap::Bitmap;
use verger_kopia::content::ContentId;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::index::Table;
use verger_kopia::maintenance::rules::plan::{RewritePack, RewritePlan};
use verger_kopia::session::SessionId;
use verger_kopia::storage::BlobId;
use verger_proto::Shard;
use verger_proto::job::{JobSpec, OutputRef};
use verger_proto::stage::Stage;

use super::cut::{self, Grain};
use super::order::{self, Making};
use super::places::{Ordered, Places};
use super::rewrite::{Copied, Order, copy};
use super::shard_session::ShardSessions;
use crate::exchange::{
    EntryPen, Moved, NotedSession, PartError, PartKind, PartName, Parts, Records, reason, write_moved,
};
use crate::workspace::Workspace;

/// Cuts the rewrite by the bytes that are to be copied of each pack, and writes the orders. `scanned`: where the scan was cut. `None`: it
/// is too little.
///
/// # Errors
/// Those of the exchange.
pub fn cut_rewrite(
    workspace: &Workspace,
    table: &Table,
    plan: &RewritePlan,
    making: &Making<'_>,
    shard_bytes: u64,
    scanned: &[Vec<u8>],
) -> Result<Option<(Vec<Shard>, Vec<OutputRef>)>> {
    let sizes = plan.packs.iter().filter_map(|source| {
        let bytes = source.rows.iter().map(|row| u64::from(table.packed_length(*row))).sum();
        Some((table.packs().get(source.pack as usize)?, bytes))
    });
    // Some are nearby, others are not.
    let packs = cut::packs_of_unequal(plan.packs.len());
    let Some(shards) = cut::cut(sizes, &Grain { bytes: shard_bytes, packs, seams: scanned }) else { return Ok(None) };
    let rows: Vec<u32> = plan.packs.iter().flat_map(|source| source.rows.iter().copied()).collect();
    let orders = order::write_orders(workspace, making, table, &shards, &rows)?;
    Ok(Some((shards, orders)))
}

/// What a shard of a rewrite left.
pub struct ShardMoved {
    /// Its output.
    pub output: OutputRef,
    /// What could not be copied, whether it was a mark, and why.
    pub left: Vec<(ContentId, bool, Error)>,
}

/// Copies what was ordered.
///
/// # Errors
/// As [`copy`]; those of the exchange.
pub fn rewrite_shard(
    workspace: &Workspace,
    parts: &Parts,
    ordered: &Ordered,
    spec: &JobSpec,
    order: &OutputRef,
    sessions: &ShardSessions,
) -> Result<ShardMoved> {
    let (session, marker) = sessions.of(workspace, parts, spec, order)?;
    let now = workspace.repository.storage().now()?.as_second();
    let packs = by_pack(ordered);
    let (stage, session) = (Stage::Rewrite.name(), &session);
    let copied = copy(workspace, &Order { stage, table: ordered, packs: &packs, session, now, revive: false })?;
    let mut part = parts.write(PartKind::Rewrite, &spec.shard, spec.attempt, order.view, &workspace.spill)?;
    let mut pen = EntryPen::default();
    let noted = NotedSession { session: session.to_string(), marker: Some(marker) };
    write_moved(&Moved::Session(noted), &mut pen, &mut part)?;
    for entry in copied.entries {
        pen.write(&entry, &mut part)?;
    }
    for (row, error) in &copied.left {
        let (content, is_damage) = (ordered.id(*row), error.kind() == ErrorKind::Damaged);
        write_moved(&Moved::Left { content, is_damage, text: error.chain() }, &mut pen, &mut part)?;
    }
    let figures = Moved::Figures { bytes: copied.bytes, pack_bytes: copied.pack_bytes };
    write_moved(&figures, &mut pen, &mut part)?;
    let output = part.finish(&workspace.memory)?;
    let left = copied.left.into_iter().map(|(row, error)| (ordered.id(row), ordered.entry(row).deleted, error));
    Ok(ShardMoved { output, left: left.collect() })
}

fn by_pack(ordered: &Ordered) -> Vec<RewritePack> {
    let mut packs: Vec<RewritePack> = Vec::new();
    for row in 0..ordered.len() {
        let pack = ordered.pack(row);
        match packs.last_mut() {
            Some(last) if last.pack == pack => last.rows.push(row),
            _ => packs.push(RewritePack { pack, rows: vec![row] }),
        }
    }
    packs
}

/// What all shards moved.
#[derive(Default)]
pub struct Gathered {
    /// Everything to publish, and what was left, in the order of the shards.
    pub copied: Copied,
    /// The sessions of the packs, with their markers.
    pub sessions: BTreeMap<SessionId, Option<BlobId>>,
    /// Planned rows that a shard has said something of.
    covered: Bitmap,
    planned: u64,
}

impl Gathered {
    /// How many contents no shard has said anything of, if there are any.
    #[must_use]
    pub fn not_covered(&self) -> Option<u64> {
        let covered = (self.copied.entries.len() + self.copied.left.len()) as u64;
        self.planned.checked_sub(covered).filter(|missing| *missing > 0)
    }
}

/// Puts together what the shards of a rewrite moved. A shard that was gone around has nothing here: its rows are not covered, and stay
/// where they are.
///
/// # Errors
/// Those of [`PartError`]: a row that was not planned, or that two shards moved; storage errors; `DiskFull`.
pub fn gather(
    workspace: &Workspace,
    table: &Table,
    plan: &RewritePlan,
    parts: &Parts,
    outputs: &[&OutputRef],
) -> Result<Gathered> {
    let planned: Bitmap = plan.packs.iter().flat_map(|source| source.rows.iter().copied()).collect();
    let covered = Bitmap::new(table.len() as u32);
    let mut gathered = Gathered { covered, planned: planned.iter().count() as u64, ..Gathered::default() };
    let mut outputs = outputs.to_vec();
    outputs.sort_by_key(|output| PartName::parse(&output.name).map(|name| name.from));
    // Several are asked for at once, and taken in one after another, in the order of their keys.
    for some in outputs.chunks(workspace.parallel.max(1)) {
        let opened = order::each(some.len(), some.len(), |number| {
            workspace.stop.check()?;
            parts.read(some[number], PartKind::Rewrite).map(Records::new)
        })?;
        opened.into_iter().try_for_each(|records| take_in(workspace, table, &planned, records, &mut gathered))?;
    }
    Ok(gathered)
}

fn take_in(
    workspace: &Workspace,
    table: &Table,
    planned: &Bitmap,
    mut records: Records,
    gathered: &mut Gathered,
) -> Result<()> {
    while let Some(moved) = records.moved()? {
        let content = match &moved {
            Moved::Entry(entry) => entry.id,
            Moved::Left { content, .. } => *content,
            Moved::Pack(pack) => {
                gathered.copied.packs.push(pack.clone());
                continue;
            }
            Moved::Figures { bytes, pack_bytes } => {
                gathered.copied.bytes = gathered.copied.bytes.saturating_add(*bytes);
                gathered.copied.pack_bytes = gathered.copied.pack_bytes.saturating_add(*pack_bytes);
                continue;
            }
            Moved::Session(noted) => {
                let id = SessionId::from_text(&noted.session).ok_or_else(|| records.part().bad("it has no session"))?;
                gathered.sessions.insert(id, noted.marker.clone());
                continue;
            }
        };
        let Some(row) = table.find(&content).filter(|row| planned.contains(*row)) else {
            return Err(records.part().fail(PartError::NotOrdered(content.to_string())));
        };
        if !gathered.covered.insert(row) {
            return Err(records.part().fail(PartError::Twice(content.to_string())));
        }
        match moved {
            Moved::Left { is_damage, text, .. } => gathered.copied.left.push((row, reason(is_damage, text))),
            Moved::Entry(entry) => gathered.copied.entries.extend(&workspace.spill, [entry])?,
            _ => {}
        }
    }
    records.finish()
}
