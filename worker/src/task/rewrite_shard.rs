//! A rewrite in shards: each copies its contents into packs of a session of its own, and says what is to be published. Nothing points
//! to those packs: of a late or doubled attempt they are orphans, since only what the attempt that counted reported is published.

use verger_kopia::bitmap::Bitmap;
use verger_kopia::content::ContentId;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::index::Table;
use verger_kopia::maintenance::rules::plan::{RewritePack, RewritePlan};
use verger_kopia::session::{self, SessionId, SessionInfo};
use verger_kopia::storage::{BlobId, PutOptions};
use verger_proto::Shard;
use verger_proto::job::{JobSpec, OutputRef};
use verger_proto::stage::Stage;

use super::cut;
use super::order::{self, Making};
use super::places::{Ordered, Places};
use super::rewrite::{Copied, Order, copy};
use crate::exchange::{EntryPen, Moved, NotedSession, PartError, PartKind, Parts, Records, reason, write_moved};
use crate::workspace::Workspace;

/// Cuts the rewrite by the bytes that are to be copied of each pack, and writes the orders. `None`: it is too little.
///
/// # Errors
/// Those of the exchange.
pub fn cut_rewrite(
    workspace: &Workspace,
    table: &Table,
    plan: &RewritePlan,
    making: &Making<'_>,
    shard_bytes: u64,
) -> Result<Option<(Vec<Shard>, Vec<OutputRef>)>> {
    let sizes = plan.packs.iter().filter_map(|source| {
        let bytes = source.rows.iter().map(|row| u64::from(table.packed_length(*row))).sum();
        Some((table.packs().get(source.pack as usize)?, bytes))
    });
    let Some(shards) = cut::cut(sizes, shard_bytes) else { return Ok(None) };
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
) -> Result<ShardMoved> {
    let noted = begin_session(workspace, parts, spec, order)?;
    let now = workspace.repository.storage().now()?.as_second();
    let packs = by_pack(ordered);
    let (stage, session) = (Stage::Rewrite.name(), &noted.0);
    let copied = copy(workspace, &Order { stage, table: ordered, packs: &packs, session, now, revive: false })?;
    let mut part = parts.write(PartKind::Rewrite, &spec.shard, spec.attempt, order.view, &workspace.spill)?;
    let mut pen = EntryPen::default();
    write_moved(&Moved::Session(noted.1), &mut pen, &mut part)?;
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

/// Notes the session where the lead finds it, then where this process keeps its own, then writes its marker: all before the first
/// pack (R21).
fn begin_session(
    workspace: &Workspace,
    parts: &Parts,
    spec: &JobSpec,
    order: &OutputRef,
) -> Result<(SessionId, NotedSession)> {
    let repository = &workspace.repository;
    let now = repository.clock().now();
    let id = SessionId::generate(now);
    let mut noted = NotedSession { session: id.to_string(), marker: None };
    let mut note = parts.write(PartKind::RewriteSession, &spec.shard, spec.attempt, order.view, &workspace.spill)?;
    write_moved(&Moved::Session(noted.clone()), &mut EntryPen::default(), &mut note)?;
    note.finish(&workspace.memory)?;
    (workspace.began_session)(&id)?;
    let (user, host) = workspace.identity.split_once('@').unwrap_or((&workspace.identity, ""));
    let (user, host) = (user.to_owned(), host.to_owned());
    let info = SessionInfo { id: id.clone(), start_time: now, checkpoint_time: now, user, host };
    noted.marker = Some(session::write_marker(repository, &info, &PutOptions::default())?);
    Ok((id, noted))
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
    pub sessions: Vec<(SessionId, Option<BlobId>)>,
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
    let mut readers = Vec::new();
    for output in outputs {
        readers.push(Records::new(parts.read(output, PartKind::Rewrite)?));
    }
    readers.sort_by(|one, other| one.part().shard().from.cmp(&other.part().shard().from));
    let planned: Bitmap = plan.packs.iter().flat_map(|source| source.rows.iter().copied()).collect();
    let covered = Bitmap::new(table.len() as u32);
    let mut gathered = Gathered { covered, planned: planned.iter().count() as u64, ..Gathered::default() };
    for records in readers {
        workspace.stop.check()?;
        take_in(workspace, table, &planned, records, &mut gathered)?;
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
                gathered.sessions.push((id, noted.marker.clone()));
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
