//! Reads many contents, pack by pack, in as few requests as the wanted bytes allow.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use verger_kopia::content::read::ContentReader;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::storage::ByteRange;

use super::places::Places;
use crate::progress::Meter;
use crate::workspace::Workspace;

/// How far apart wanted contents may lie to be read at once, and how much is read at once. Bytes.
#[derive(Debug, Clone, Copy)]
struct Shape {
    gap: u64,
    most: u64,
}

/// Locally a seek costs nothing and small batches stay in the processor's cache.
const LOCAL: Shape = Shape { gap: 16 << 10, most: 1 << 20 };

/// A round trip of 30 ms is worth some 2 MB; a whole pack of 20 MiB is one request.
const REMOTE: Shape = Shape { gap: 2 << 20, most: 32 << 20 };

/// One read: rows `from..to` of the order, which lie in `span` of one pack.
struct Read {
    from: usize,
    to: usize,
    offset: u64,
    length: u64,
}

/// What one thread opens contents with.
struct Opener<'r> {
    reader: ContentReader<'r>,
    plain: Vec<u8>,
}

/// Puts `rows` in the order in which they lie in the packs.
pub(super) fn pack_order(table: &dyn Places, rows: &mut [u32]) {
    rows.sort_unstable_by_key(|&row| (table.pack(row), table.offset(row)));
}

/// Reads each of `rows` (in [`pack_order`]) and shows its plaintext to `visit`, in several threads; each thread begins with a state of
/// its own, and the states come back. What cannot be read is shown as an error; only a store that does not answer, a wish to stop,
/// and errors of `visit` end it.
///
/// # Errors
/// `StoreUnavailable`, `Permission`, `Interrupted`, what `visit` returns.
pub(super) fn read_contents<S: Send>(
    workspace: &Workspace,
    table: &dyn Places,
    rows: &[u32],
    meter: Option<&Meter<'_>>,
    state: impl Fn() -> S + Sync,
    visit: impl Fn(&mut S, u32, Result<&[u8]>) -> Result<()> + Sync,
) -> Result<Vec<S>> {
    let reads = cut(table, rows, if workspace.is_local() { LOCAL } else { REMOTE });
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let states: Mutex<Vec<S>> = Mutex::new(Vec::new());
    let work = || {
        let mut state = state();
        let mut opener = Opener { reader: ContentReader::new(&workspace.repository), plain: Vec::new() };
        while !failed.load(Ordering::Relaxed) {
            let Some(read) = reads.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let done = workspace.stop.check().and_then(|()| {
                read_one(workspace, table, &rows[read.from..read.to], read, &mut opener, &mut state, &visit)
            });
            if let Err(error) = done {
                failed.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            } else if let Some(meter) = meter {
                meter.add(read.length);
            }
        }
        states.lock().unwrap_or_else(PoisonError::into_inner).push(state);
    };
    // Each has a request in flight: a line that is to be spared is, whatever the processor could do.
    let threads = if workspace.is_local() { workspace.parallel.max(workspace.threads) } else { workspace.parallel };
    let threads = threads.clamp(1, reads.len().max(1));
    if threads == 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(states.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Bytes that [`read_contents`] is going to ask for.
#[must_use]
pub(super) fn read_bytes(workspace: &Workspace, table: &dyn Places, rows: &[u32]) -> u64 {
    cut(table, rows, if workspace.is_local() { LOCAL } else { REMOTE }).iter().map(|read| read.length).sum()
}

fn cut(table: &dyn Places, rows: &[u32], shape: Shape) -> Vec<Read> {
    let mut reads: Vec<Read> = Vec::new();
    let mut pack = None;
    for (place, &row) in rows.iter().enumerate() {
        let offset = u64::from(table.offset(row));
        let end = offset + u64::from(table.packed_length(row));
        match reads.last_mut() {
            Some(last)
                if pack == Some(table.pack(row))
                    && offset >= last.offset
                    && offset <= last.offset + last.length + shape.gap
                    && end.max(last.offset + last.length) - last.offset <= shape.most =>
            {
                last.to = place + 1;
                last.length = last.length.max(end - last.offset);
            }
            _ => {
                pack = Some(table.pack(row));
                reads.push(Read { from: place, to: place + 1, offset, length: end - offset });
            }
        }
    }
    reads
}

fn read_one<S>(
    workspace: &Workspace,
    table: &dyn Places,
    rows: &[u32],
    read: &Read,
    opener: &mut Opener<'_>,
    state: &mut S,
    visit: &(impl Fn(&mut S, u32, Result<&[u8]>) -> Result<()> + Sync),
) -> Result<()> {
    let Some(&first) = rows.first() else { return Ok(()) };
    let pack = &table.packs()[table.pack(first) as usize];
    let grant = workspace.memory.grant(read.length);
    let range = ByteRange::Span { offset: read.offset, length: read.length };
    let bytes = match workspace.repository.storage().get(pack, range) {
        Ok(bytes) => bytes,
        Err(error) if is_damage(&error) && rows.len() > 1 => {
            // A pack that ends early still has its first contents: ask for each by itself.
            drop(grant);
            for &row in rows {
                let read =
                    Read { from: 0, to: 1, offset: table.offset(row).into(), length: table.packed_length(row).into() };
                read_one(workspace, table, &[row], &read, opener, state, visit)?;
            }
            return Ok(());
        }
        Err(error) if is_damage(&error) => {
            let error = error.into_kind(ErrorKind::Damaged).at(format!("read content {} in {pack}", table.id(first)));
            return visit(state, first, Err(error));
        }
        Err(error) => return Err(error.at(format!("read {pack}"))),
    };
    for &row in rows {
        let entry = table.entry(row);
        let from = usize::try_from(u64::from(entry.offset) - read.offset).unwrap_or(usize::MAX);
        let stored = bytes.get(from..).and_then(|rest| rest.get(..entry.packed_length as usize));
        let opened = match stored {
            Some(stored) => opener.reader.open(&entry, stored, &mut opener.plain).map(|_| &opener.plain[..]),
            None => Err(Error::damaged(format!("open content {}: {pack} ends early", entry.id))),
        };
        visit(state, row, opened)?;
    }
    Ok(())
}

/// Whether this says something about the blob, rather than about the way to it.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged | ErrorKind::Unsupported)
}
