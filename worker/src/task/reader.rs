//! Reads objects whole: the chunks of large directories in order, tables of tables, legacy compressed ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use verger_kopia::compression::Decompressor;
use verger_kopia::content::read::read_content;
use verger_kopia::error::{Error, Result};
use verger_kopia::index::Table;

use super::bulk;
use super::holds::{self, Push};
use super::summary::{Edge, Holds, Line, Role, Summaries, Target, resolve};
use crate::workspace::Workspace;

/// Tables inside tables beyond this are not Kopia's work.
const NESTING_MAX: usize = 32;

/// The most that one legacy compressed object may hold: its length is not recorded anywhere.
const PACKED_OBJECT_BYTES_MAX: usize = 256 << 20;

/// Part of the free buffers that chunks read ahead may take.
const AHEAD: u64 = 2;

/// Reads objects; chunks that were wanted beforehand are read ahead, in pack order.
pub struct ObjectReader<'a> {
    workspace: &'a Workspace,
    table: &'a Table,
    summaries: &'a Summaries,
    tables: &'a HashMap<u32, Vec<Edge>>,
    ahead: HashMap<u32, Vec<u8>>,
    room: u64,
}

impl<'a> ObjectReader<'a> {
    /// Knows the tables of the summaries and those in `tables`.
    pub fn new(
        workspace: &'a Workspace,
        table: &'a Table,
        summaries: &'a Summaries,
        tables: &'a HashMap<u32, Vec<Edge>>,
    ) -> Self {
        let room = workspace.memory.buffers() / AHEAD;
        Self { workspace, table, summaries, tables, ahead: HashMap::new(), room }
    }

    /// Will read this object: notes its chunks, as far as its table is known. False once the buffers are full.
    pub fn want(&mut self, target: Target) -> bool {
        let mut rows = Vec::new();
        self.chunks(target, &mut rows, 0);
        for row in rows {
            let length = u64::from(self.table.original_length(row));
            if self.ahead.contains_key(&row) {
                continue;
            }
            if length > self.room {
                self.room = 0;
                return false;
            }
            self.room -= length;
            self.ahead.insert(row, Vec::new());
        }
        self.room > 0
    }

    fn chunks(&self, target: Target, rows: &mut Vec<u32>, nesting: usize) {
        match target {
            Target::Row(row) | Target::Packed(row) => rows.push(row),
            Target::Indirect { row, depth: 1 } if nesting < NESTING_MAX => {
                for edge in self.known_table(row).unwrap_or_default() {
                    self.chunks(edge.target, rows, nesting + 1);
                }
            }
            Target::Indirect { .. } | Target::Missing(_) => {}
        }
    }

    /// Reads what was wanted. What cannot be read is asked for again later, by itself, and fails there.
    pub fn prefetch(&mut self) -> Result<()> {
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
    pub fn fetched(&self) -> u64 {
        self.ahead.len() as u64
    }

    fn known_table(&self, row: u32) -> Option<Vec<Edge>> {
        match self.summaries.line(row) {
            Line::Points(Holds::Table, edges) => Some(edges.iter().collect()),
            _ => self.tables.get(&row).cloned(),
        }
    }

    fn content(&self, row: u32, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if let Some(plain) = self.ahead.get(&row) {
            return sink(plain);
        }
        self.workspace.stop.check()?;
        let entry = self.table.entry(row);
        let _grant = self.workspace.memory.grant(u64::from(entry.packed_length));
        let plain = read_content(&self.workspace.repository, &entry)?;
        sink(&plain)
    }

    /// Shows the bytes of an object to `sink`, chunk by chunk, in order.
    ///
    /// # Errors
    /// `Damaged` and what the store says; what `sink` returns.
    pub fn read(&self, target: Target, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.read_nested(target, sink, 0)
    }

    fn read_nested(&self, target: Target, sink: &mut dyn FnMut(&[u8]) -> Result<()>, nesting: usize) -> Result<()> {
        match target {
            Target::Row(row) => self.content(row, sink),
            Target::Packed(row) => self.content(row, &mut |stored| {
                let mut plain = Vec::new();
                Decompressor::new().decompress_headed(stored, PACKED_OBJECT_BYTES_MAX, &mut plain)?;
                sink(&plain)
            }),
            Target::Indirect { row, depth } => {
                for edge in self.table_of(row, depth, nesting)? {
                    self.read_nested(edge.target, sink, nesting + 1)?;
                }
                Ok(())
            }
            Target::Missing(object) => {
                Err(Error::damaged(format!("object {object}: no index entry names its content")))
            }
        }
    }

    /// Chunks of an indirect object, in order.
    ///
    /// # Errors
    /// As [`ObjectReader::read`].
    pub fn table_of(&self, row: u32, depth: u8, nesting: usize) -> Result<Vec<Edge>> {
        if nesting >= NESTING_MAX {
            return Err(Error::damaged(format!("seek tables nested more than {NESTING_MAX} deep")));
        }
        let inner = match depth.checked_sub(1) {
            None | Some(0) => {
                if let Some(edges) = self.known_table(row) {
                    return Ok(edges);
                }
                Target::Row(row)
            }
            Some(depth) => Target::Indirect { row, depth },
        };
        let mut bytes = Vec::new();
        let append = &mut |chunk: &[u8]| {
            bytes.extend_from_slice(chunk);
            Ok(())
        };
        self.read_nested(inner, append, nesting + 1)?;
        let mut edges = Vec::new();
        holds::parse_table(&bytes, &mut |object| {
            edges.push(Edge { role: Role::File, target: resolve(self.table, object) });
            Ok(())
        })?;
        Ok(edges)
    }

    /// What a large object points to: its chunks, or as a directory its entries.
    ///
    /// # Errors
    /// As [`ObjectReader::read`].
    pub fn points(&self, target: Target, role: Role) -> Result<Vec<Edge>> {
        match (role, target) {
            (Role::File, Target::Indirect { row, depth }) => self.table_of(row, depth, 0),
            (Role::File, _) => Ok(Vec::new()),
            (Role::Directory, _) => {
                let mut edges = Vec::new();
                let mut push = Push::new(|role, object: &_, _: &_| {
                    edges.push(Edge { role, target: resolve(self.table, object) });
                    Ok(())
                });
                self.read(target, &mut |chunk| push.feed(chunk))?;
                push.finish()?;
                Ok(edges)
            }
        }
    }
}

/// What came of each object: what it points to, or why it cannot be read.
type Found = (Target, Role, Result<Vec<Edge>>);

/// Reads each of `batch` in as many threads as there are. Damage is in the answers; the first other failure ends it.
///
/// # Errors
/// `StoreUnavailable`, `Permission`, `Interrupted`.
pub fn read_all(workspace: &Workspace, reader: &ObjectReader<'_>, batch: &[(Target, Role)]) -> Result<Vec<Found>> {
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
    let (damaged, mut fatal): (Vec<Found>, Vec<Found>) =
        found.into_iter().partition(|(_, _, edges)| edges.as_ref().err().is_none_or(bulk::is_damage));
    match fatal.pop() {
        Some((_, _, Err(error))) => Err(error),
        _ => Ok(damaged),
    }
}
