//! Reads objects whole: large directories chunk by chunk, seek tables of seek tables, legacy compressed ones.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use verger_kopia::content::ContentId;
use verger_kopia::content::read::read_content;
use verger_kopia::directory::{Parser, Reference};
use verger_kopia::error::{Error, Result};
use verger_kopia::index::Table;
use verger_kopia::object::{ObjectId, read};

use super::bulk;
use super::holds;
use super::solve::object_name;
use super::summary::{Edge, Holds, Line, Role, Summaries, Target, resolve};
use crate::workspace::Workspace;

/// Tables inside tables whose chunks are read ahead; what is deeper is read when its turn comes.
const AHEAD_NESTING_MAX: usize = 4;

/// How often one content may come in one directory. Names are unique and splitters cut long pieces, so none ever comes twice; tables
/// that name one another over and over make a directory without end of a few.
const REPEATS_MAX: u8 = 64;

/// Part of the free buffers that chunks read ahead may take.
const AHEAD_SHARE: u64 = 2;

/// Reads objects; contents that were wanted beforehand are read ahead, in pack order and in parallel.
pub(super) struct ObjectReader<'a> {
    workspace: &'a Workspace,
    table: &'a Table,
    summaries: &'a Summaries,
    tables: &'a HashMap<u32, Vec<Edge>>,
    ahead: HashMap<u32, Vec<u8>>,
    room: u64,
}

impl<'a> ObjectReader<'a> {
    /// Knows the tables of the summaries and those in `tables`.
    pub(super) fn new(
        workspace: &'a Workspace,
        table: &'a Table,
        summaries: &'a Summaries,
        tables: &'a HashMap<u32, Vec<Edge>>,
    ) -> Self {
        let room = workspace.memory.buffers() / AHEAD_SHARE;
        Self { workspace, table, summaries, tables, ahead: HashMap::new(), room }
    }

    /// Will read this object: notes its contents, as far as its table is known. False once the buffers are full.
    pub(super) fn want(&mut self, target: Target) -> bool {
        let mut rows = Vec::new();
        self.contents(target, &mut rows, &mut HashSet::new(), 0);
        for row in rows {
            if self.ahead.contains_key(&row) {
                continue;
            }
            let length = u64::from(self.table.original_length(row));
            if length > self.room {
                self.room = 0;
                return false;
            }
            self.room -= length;
            self.ahead.insert(row, Vec::new());
        }
        self.room > 0
    }

    fn contents(&self, target: Target, rows: &mut Vec<u32>, seen: &mut HashSet<u32>, nesting: usize) {
        match target {
            Target::Row(row) | Target::Packed(row) => rows.push(row),
            // Tables may name each other, and each of them more than once.
            Target::Indirect { row, .. } if seen.insert(row) => {
                rows.push(row);
                let edges = self.known_table(row).filter(|_| nesting < AHEAD_NESTING_MAX);
                for edge in edges.unwrap_or_default() {
                    self.contents(edge.target, rows, seen, nesting + 1);
                }
            }
            Target::Indirect { .. } | Target::Missing(_) => {}
        }
    }

    fn known_table(&self, row: u32) -> Option<Vec<Edge>> {
        match self.summaries.line(row) {
            Line::Points(Holds::Table, edges) => Some(edges.iter().collect()),
            _ => self.tables.get(&row).cloned(),
        }
    }

    /// Reads what was wanted. What cannot be read is asked for again when its turn comes, and fails there.
    ///
    /// # Errors
    /// `StoreUnavailable`, `Permission`, `Interrupted`.
    pub(super) fn prefetch(&mut self) -> Result<()> {
        let mut rows: Vec<u32> = self.ahead.drain().map(|(row, _)| row).collect();
        bulk::pack_order(self.table, &mut rows);
        let read = bulk::read_contents(self.workspace, self.table, &rows, None, Vec::new, |read, row, plain| {
            if let Ok(plain) = plain {
                read.push((row, plain.to_vec()));
            }
            Ok(())
        })?;
        self.ahead = read.into_iter().flatten().collect();
        Ok(())
    }

    /// Contents that were read ahead.
    #[must_use]
    pub(super) fn fetched(&self) -> u64 {
        self.ahead.len() as u64
    }

    fn fetch(&self, content: &ContentId) -> Result<Vec<u8>> {
        let row = self.table.find(content);
        let row = row.ok_or_else(|| Error::damaged(format!("read content {content}: no index entry names it")))?;
        if let Some(plain) = self.ahead.get(&row) {
            return Ok(plain.clone());
        }
        self.workspace.stop.check()?;
        let entry = self.table.entry(row);
        let _grant = self.workspace.memory.grant(u64::from(entry.packed_length));
        read_content(&self.workspace.repository, &entry)
    }

    /// Shows the bytes of a directory to `sink`, chunk by chunk, in order.
    ///
    /// # Errors
    /// `Damaged` and what the store says; what `sink` returns.
    pub(super) fn read(&self, object: ObjectId, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut times: HashMap<ContentId, u8> = HashMap::new();
        let mut reader = read::ObjectReader::open(object, |content: &ContentId| {
            let times = times.entry(*content).or_default();
            *times += 1;
            if *times > REPEATS_MAX {
                return Err(Error::damaged(format!(
                    "read directory {object}: it has content {content} again and again"
                )));
            }
            self.fetch(content)
        })?;
        while let Some(chunk) = reader.next_chunk()? {
            sink(chunk)?;
        }
        Ok(())
    }

    /// What a large object points to: as a file its chunks, as a directory its entries.
    ///
    /// # Errors
    /// As [`ObjectReader::read`].
    pub(super) fn points(&self, target: Target, role: Role) -> Result<Vec<Edge>> {
        let object = object_name(self.table, target);
        let mut edges = Vec::new();
        let edge = |role, object: &ObjectId| Edge { role, target: resolve(self.table, object) };
        match role {
            Role::File => {
                let table = read::seek_table(&object, |content: &ContentId| self.fetch(content))?;
                let entries = table.map(|table| table.entries).unwrap_or_default();
                edges.extend(entries.iter().map(|entry| edge(Role::File, &entry.object)));
            }
            Role::Directory => {
                let mut parser = Parser::new();
                let mut visit = |entry: Reference| edges.push(edge(holds::role(entry.kind), &entry.object));
                self.read(object, &mut |chunk| parser.push(chunk, &mut visit))?;
                parser.finish(&mut visit)?;
            }
        }
        Ok(edges)
    }
}

/// What came of each object: what it points to, or why it cannot be read.
type Found = (Target, Role, Result<Vec<Edge>>);

/// Reads each of `batch` in as many threads as there are. Damage is in the answers; any other failure ends it.
///
/// # Errors
/// `StoreUnavailable`, `Permission`, `Interrupted`.
pub(super) fn read_all(
    workspace: &Workspace,
    reader: &ObjectReader<'_>,
    batch: &[(Target, Role)],
) -> Result<Vec<Found>> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let work = || {
        while let Some(&(target, role)) = batch.get(next.fetch_add(1, Ordering::Relaxed)) {
            let edges = reader.points(target, role);
            found.lock().unwrap_or_else(PoisonError::into_inner).push((target, role, edges));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workspace.threads.clamp(1, batch.len().max(1)) {
            scope.spawn(work);
        }
    });
    let found: Vec<Found> = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (found, mut fatal): (Vec<Found>, Vec<Found>) =
        found.into_iter().partition(|(_, _, edges)| edges.as_ref().err().is_none_or(bulk::is_damage));
    match fatal.pop() {
        Some((_, _, Err(error))) => Err(error),
        _ => Ok(found),
    }
}
