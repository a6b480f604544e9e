//! Orders: what the shards of a range are to read or to copy, entry by entry. A shard needs no index and no plan.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use verger_kopia::index::Table;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::job::{JobSpec, OutputRef};
use verger_proto::{Digest, Shard};

use super::places::Ordered;
use crate::exchange::{EntryPen, PartError, PartKind, PartName, Parts, Records};
use crate::limit;
use crate::workspace::Workspace;

/// What orders are made of: where they go, what for, and by which attempt.
pub struct Making<'a> {
    /// The cycle's parts.
    pub parts: &'a Parts,
    /// What the orders are for.
    pub kind: PartKind,
    /// The attempt that makes them.
    pub attempt: u32,
    /// Digest of the view.
    pub view: Digest,
}

/// Writes an order for each shard: `rows` by pack and offset, in the order of the packs' names.
///
/// # Errors
/// Those of the exchange; `Internal` for rows that are in no shard (R12).
pub fn write_orders(
    workspace: &Workspace,
    making: &Making<'_>,
    table: &Table,
    shards: &[Shard],
    rows: &[u32],
) -> Result<Vec<OutputRef>> {
    let mut cuts: Vec<&[u32]> = Vec::with_capacity(shards.len());
    let mut rest = rows;
    for shard in shards {
        let inside = |row: &u32| shard.contains(table.packs()[table.pack(*row) as usize].as_str().as_bytes());
        let end = rest.iter().position(|row| !inside(row)).unwrap_or(rest.len());
        let (here, later) = rest.split_at(end);
        cuts.push(here);
        rest = later;
    }
    if !rest.is_empty() {
        return Err(Error::new(ErrorKind::Internal, "write orders: packs are in no shard, or not in order"));
    }
    let one = |number: usize| {
        workspace.stop.check()?;
        let Making { parts, kind, attempt, view } = making;
        let mut part = parts.write(*kind, &shards[number], *attempt, *view, &workspace.spill)?;
        let mut pen = EntryPen::default();
        for row in cuts[number] {
            pen.write(&table.entry(*row), &mut part)?;
        }
        part.finish(&workspace.memory)
    };
    each(workspace.parallel, shards.len(), one)
}

/// Reads what a shard is to do: the order that holds its keys, and of that what lies in them.
///
/// # Errors
/// Those of [`PartError`], `StoreUnavailable` all that would be `Damaged`; `MemoryLimit`; storage errors.
pub fn read_order(
    workspace: &Workspace,
    parts: &Parts,
    spec: &JobSpec,
    kind: PartKind,
) -> Result<(Ordered, OutputRef)> {
    read(workspace, parts, spec, kind).map_err(no_matter_of_a_part)
}

/// A smaller shard has the same order: what is wrong with it is no matter of a part of it, to be looked for in ever smaller ones. As one
/// that is not there, it is tried again, and then that is the reason why the shard is not done.
fn no_matter_of_a_part(error: Error) -> Error {
    let is_damaged = error.kind() == ErrorKind::Damaged && PartError::of(&error).is_some();
    if is_damaged { error.into_kind(ErrorKind::StoreUnavailable) } else { error }
}

fn read(workspace: &Workspace, parts: &Parts, spec: &JobSpec, kind: PartKind) -> Result<(Ordered, OutputRef)> {
    let Some(reference) = order_of(spec, kind) else {
        return Err(PartError::NoOrder.at(format!("look for the order of {} shard {}", spec.stage, spec.id)));
    };
    let mut records = Records::new(parts.read(reference, kind)?);
    let whole = records.part().shard();
    let ends_inside = match (&spec.shard.to, &whole.to) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(end), Some(whole)) => end <= whole,
    };
    if whole.from > spec.shard.from || !ends_inside {
        return Err(records.part().fail(PartError::OtherShard));
    }
    let room = workspace.memory.bytes().saturating_sub(limit::BASE_BYTES + limit::BUFFERS_BYTES_MIN);
    let most = room.saturating_sub(workspace.memory.kept()) / Ordered::ROW_BYTES;
    let mut ordered = Ordered::default();
    while let Some(entry) = records.entry()? {
        if !spec.shard.contains(entry.pack.as_str().as_bytes()) {
            continue;
        }
        if u64::from(ordered.len()) >= most {
            return Err(too_large(workspace));
        }
        if !ordered.add(entry) {
            return Err(records.part().bad("it stands before the one before it"));
        }
    }
    records.finish()?;
    Ok((ordered, reference.clone()))
}

fn too_large(workspace: &Workspace) -> Error {
    let mib = workspace.memory.bytes().div_ceil(1 << 20);
    Error::new(
        ErrorKind::MemoryLimit,
        format!("the list of a shard's contents does not fit the memory limit of {mib} MiB"),
    )
    .with_fix("give --memory-limit more, or --shard-bytes less, or run fewer shards at once")
}

/// The order with the last first key that is not behind the shard's: a shard that was split lies in the order of the whole.
fn order_of(spec: &JobSpec, kind: PartKind) -> Option<&OutputRef> {
    let orders = keyed_parts_of(spec, kind).filter(|(from, _)| *from <= spec.shard.from);
    orders.max_by(|one, other| one.0.cmp(&other.0)).map(|(_, order)| order)
}

/// Whether a job is a shard of a stage that was cut, and not the whole of it.
#[must_use]
pub fn is_ordered(spec: &JobSpec) -> bool {
    PartKind::order_of(spec.stage).is_some_and(|kind| order_of(spec, kind).is_some())
}

/// Parts of a kind that were reported in this cycle.
pub fn parts_of(spec: &JobSpec, kind: PartKind) -> impl Iterator<Item = &OutputRef> {
    spec.inputs.iter().filter(move |input| {
        PartName::parse(&input.name).is_some_and(|name| name.kind == kind && name.cycle == spec.cycle)
    })
}

/// First keys of the parts of a kind, in order.
#[must_use]
pub fn keys_of(spec: &JobSpec, kind: PartKind) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = keyed_parts_of(spec, kind).map(|(from, _)| from).collect();
    keys.sort_unstable();
    keys
}

/// The same as [`parts_of`], each with its first key.
fn keyed_parts_of(spec: &JobSpec, kind: PartKind) -> impl Iterator<Item = (Vec<u8>, &OutputRef)> {
    parts_of(spec, kind).filter_map(|part| Some((hex::decode(PartName::parse(&part.name)?.from).ok()?, part)))
}

/// Does `count` things in at most `threads` threads; the results come in order. The first failure ends it.
///
/// # Errors
/// What one of them says.
pub(super) fn each<T: Send>(threads: usize, count: usize, one: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<T>)>> = Mutex::default();
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let result = one(number);
            if result.is_err() {
                next.store(count, Ordering::Relaxed);
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}
