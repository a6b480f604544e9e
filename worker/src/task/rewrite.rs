//! Copies contents out of packs into new ones, pack by pack (design 3.3): one ranged GET covers what is wanted of a pack, and the
//! stored bytes are copied as they are once their tag holds (R19). Nothing points to the new packs yet: late or twice is harmless.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use verger_kopia::mutant::{self, Mutant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::rules::plan::RewritePack;
use verger_kopia::pack::write::PackWriter;
use verger_kopia::session::SessionId;
use verger_kopia::storage::{BlobId, ByteRange, PutOptions, Retention};
use verger_kopia::{Error, ErrorKind, Repository, Result};

use super::entries::Entries;
use super::places::Places;
use crate::limit::Grant;
use crate::progress::{Meter, Unit};
use crate::workspace::Workspace;

/// Wanted spans of a pack that lie nearer than this are read in one request.
const GAP_MAX_REMOTE: u64 = 1 << 20;
const GAP_MAX_LOCAL: u64 = 64 << 10;

/// What to copy, and how the copies are stamped.
pub struct Order<'a> {
    /// Stage's name, for progress.
    pub stage: &'static str,
    /// The view's table, or what was ordered.
    pub table: &'a dyn Places,
    /// Packs and rows.
    pub packs: &'a [RewritePack],
    /// The session whose marker is written already (R21).
    pub session: &'a SessionId,
    /// Unix seconds of now; an entry gets max(now, old + 1) (R18).
    pub now: i64,
    /// Copies become live: marked contents that a snapshot needs (R13).
    pub revive: bool,
}

/// Bytes read in one request. Locally a request costs nothing, and what is in flight is memory.
const SPAN_MAX_REMOTE: u64 = 32 << 20;
const SPAN_MAX_LOCAL: u64 = 1 << 20;

/// What was copied.
#[derive(Debug, Default)]
pub struct Copied {
    /// Entries to publish; their packs are durable.
    pub entries: Entries,
    /// New packs.
    pub packs: Vec<BlobId>,
    /// Rows that could not be copied, with the reason. Their old packs must stay.
    pub left: Vec<(u32, Error)>,
    /// Stored bytes of the copied contents.
    pub bytes: u64,
    /// Bytes of the new packs.
    pub pack_bytes: u64,
}

/// What one request brought, paid from the memory limit until it is written.
struct Batch<'w> {
    pieces: Vec<Piece>,
    _grant: Grant<'w>,
}

/// Stored bytes of one row, or why there are none.
struct Piece {
    row: u32,
    stored: Result<Bytes>,
}

/// Copies. A row that cannot be read is left, named, and stops nothing else.
///
/// # Errors
/// Failures to write a pack; `StoreUnavailable` on reading; `Interrupted`.
pub fn copy(workspace: &Workspace, order: &Order<'_>) -> Result<Copied> {
    let rows: u64 = order.packs.iter().map(|pack| pack.rows.len() as u64).sum();
    let meter = Meter::start(&*workspace.progress, order.stage, Some(rows), Unit::Contents);
    let readers = workspace.parallel.clamp(1, order.packs.len().max(1));
    let (sender, receiver) = bounded::<Batch<'_>>(readers);
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..readers {
            let sender = sender.clone();
            let (next, failure) = (&next, &failure);
            scope.spawn(move || {
                if let Err(error) = read_packs(workspace, order, next, &sender) {
                    failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                    next.store(usize::MAX, Ordering::Relaxed);
                }
            });
        }
        drop(sender);
        let copied = fill(workspace, order, &receiver, &meter);
        if copied.is_err() {
            next.store(usize::MAX, Ordering::Relaxed);
            // Readers that wait for room in the channel go on and then end.
            while receiver.recv().is_ok() {}
        }
        let failure = &failure;
        match (copied, failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()) {
            (Err(error), _) | (Ok(_), Some(error)) => Err(error),
            (Ok(copied), None) => Ok(copied),
        }
    })
}

fn read_packs<'w>(
    workspace: &'w Workspace,
    order: &Order<'_>,
    next: &AtomicUsize,
    out: &Sender<Batch<'w>>,
) -> Result<()> {
    loop {
        let index = next.load(Ordering::Relaxed);
        let Some(pack) = order.packs.get(index) else { return Ok(()) };
        if next.compare_exchange(index, index + 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            continue;
        }
        workspace.stop.check()?;
        for span in spans(workspace, order.table, pack) {
            let grant = workspace.memory.grant(span.end - span.offset);
            let pieces = read_span(&workspace.repository, order.table, &span)?;
            if out.send(Batch { pieces, _grant: grant }).is_err() {
                return Ok(());
            }
        }
    }
}

/// Rows of one pack that are read in one request, by offset.
struct Span {
    offset: u64,
    end: u64,
    rows: Vec<u32>,
}

fn spans(workspace: &Workspace, table: &dyn Places, pack: &RewritePack) -> Vec<Span> {
    let (gap, most) =
        if workspace.is_local() { (GAP_MAX_LOCAL, SPAN_MAX_LOCAL) } else { (GAP_MAX_REMOTE, SPAN_MAX_REMOTE) };
    let most = most.min(workspace.memory.buffers() / 4);
    let mut rows = pack.rows.clone();
    rows.sort_unstable_by_key(|row| table.offset(*row));
    let mut spans: Vec<Span> = Vec::new();
    for row in rows {
        let offset = u64::from(table.offset(row));
        let end = offset + u64::from(table.packed_length(row));
        match spans.last_mut() {
            Some(span) if offset <= span.end.saturating_add(gap) && end.max(span.end) - span.offset <= most => {
                span.end = span.end.max(end);
                span.rows.push(row);
            }
            _ => spans.push(Span { offset, end, rows: vec![row] }),
        }
    }
    spans
}

fn read_span(repository: &Repository, table: &dyn Places, span: &Span) -> Result<Vec<Piece>> {
    let Some(first) = span.rows.first() else { return Ok(Vec::new()) };
    let pack = table.entry(*first).pack;
    let range = ByteRange::Span { offset: span.offset, length: span.end - span.offset };
    match repository.storage().get(&pack, range) {
        Ok(bytes) => {
            let cut = |row: u32| {
                let start = usize::try_from(u64::from(table.offset(row)) - span.offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(table.packed_length(row) as usize);
                let inside = end <= bytes.len();
                let short = || Error::damaged(format!("read pack {pack}: it ends before content {}", table.id(row)));
                Piece { row, stored: if inside { Ok(bytes.slice(start..end)) } else { Err(short()) } }
            };
            Ok(span.rows.iter().map(|row| cut(*row)).collect())
        }
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Damaged) => {
            // The whole span fails; a pack that only ends early may still hold some of its rows.
            Ok(span.rows.iter().map(|row| alone(repository, table, *row)).collect())
        }
        Err(e) => Err(e.at(format!("read pack {pack}"))),
    }
}

fn alone(repository: &Repository, table: &dyn Places, row: u32) -> Piece {
    Piece { row, stored: verger_kopia::content::read::fetch_stored(repository, &table.entry(row)) }
}

fn fill(workspace: &Workspace, order: &Order<'_>, batches: &Receiver<Batch<'_>>, meter: &Meter<'_>) -> Result<Copied> {
    let repository = &workspace.repository;
    let mut copied = Copied::default();
    let mut writers: BTreeMap<char, PackWriter> = BTreeMap::new();
    for batch in batches {
        workspace.stop.check()?;
        let count = batch.pieces.len() as u64;
        for piece in batch.pieces {
            let mut entry = order.table.entry(piece.row);
            let letter = entry.id.pack_letter();
            let timestamp = order.now.max(entry.timestamp.saturating_add(1));
            if order.revive {
                entry.deleted = false;
            }
            let writer = match writers.entry(letter) {
                std::collections::btree_map::Entry::Occupied(slot) => slot.into_mut(),
                std::collections::btree_map::Entry::Vacant(slot) => slot.insert(PackWriter::new(repository, letter)?),
            };
            let added = piece.stored.and_then(|stored| writer.add_copy(repository, &entry, &stored, timestamp));
            match added {
                Ok(()) => copied.bytes += u64::from(entry.packed_length),
                Err(e) if e.kind() == ErrorKind::Damaged => copied.left.push((piece.row, e)),
                Err(e) => return Err(e),
            }
            if writer.is_full()
                && let Some(full) = writers.remove(&letter)
            {
                store(workspace, full, order.session, &mut copied)?;
            }
        }
        meter.add(count);
    }
    for writer in writers.into_values().filter(|writer| !writer.is_empty()) {
        store(workspace, writer, order.session, &mut copied)?;
    }
    copied.left.sort_by_key(|(row, _)| *row);
    Ok(copied)
}

fn store(workspace: &Workspace, writer: PackWriter, session: &SessionId, copied: &mut Copied) -> Result<()> {
    let repository = &workspace.repository;
    let (id, data, entries) = writer.finish(repository, session)?;
    copied.pack_bytes += data.len() as u64;
    let options = PutOptions { retention: retention(repository), ..PutOptions::default() };
    if !mutant::on(Mutant::I12EntriesWithoutPacks) {
        repository.storage().put(&id, data, &options).map_err(|e| e.at(format!("write pack {id}")))?;
    }
    copied.packs.push(id);
    copied.entries.extend(&workspace.spill, entries)
}

/// The object lock that the repository's settings ask for with each pack and index blob.
#[must_use]
pub fn retention(repository: &Repository) -> Option<Retention> {
    let (mode, period) = repository.blob_config().retention?;
    // A period beyond the calendar is a lock for ever.
    let until = repository.clock().now().checked_add(period).unwrap_or(Timestamp::MAX);
    Some(Retention { mode, until })
}
