//! Finds every content that a snapshot needs, on the summaries; what they do not cover is fetched by itself (R7).

use std::collections::{BTreeMap, HashMap, HashSet};
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::Repository;
use verger_kopia::bitmap::Bitmap;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::index::Table;
use verger_kopia::object::ObjectId;
use verger_kopia::storage::{BlobId, BlobMetadata};

use super::bulk;
use super::holds;
use super::reader::{self, ObjectReader};
use super::summary::{Edge, Holds, Line, Pen, Role, Segment, Summaries, Target, resolve};
use super::survey::Survey;
use super::trace;
use crate::progress::{Meter, Unit};
use crate::workspace::Workspace;

/// Contents fetched by themselves in one go, and bytes of them; their references are held meanwhile.
const BATCH: usize = 1 << 14;
const BATCH_BYTES: u64 = 128 << 20;

/// Objects to look into that are held at a time; more are remembered by a bit. Few where it is tested, so that it is.
const HELD_MAX: usize = if cfg!(debug_assertions) { 1 << 10 } else { 1 << 19 };

/// Why something that a snapshot needs is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wrong {
    /// No entry of the view names it: perhaps an index blob is lost.
    Missing,
    /// Its entry names it, but it cannot be read.
    Unreadable,
    /// It holds only bytes of files, and its pack is gone or ends before it. That protects nothing else (R11).
    Cut,
}

/// Something a snapshot needs that is missing or unreadable, and what it touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Missing or unreadable.
    pub wrong: Wrong,
    /// The object, as Kopia writes it.
    pub object: String,
    /// What happened, the whole chain.
    pub error: String,
    /// Which snapshots need it, and where; the first few.
    pub touches: Vec<Touch>,
}

/// A place in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touch {
    /// ID of the snapshot's manifest.
    pub snapshot: String,
    /// Path from its root; empty for the root itself.
    pub path: String,
}

/// What the snapshots need.
pub struct Used {
    /// One bit a row.
    pub rows: Bitmap,
    /// Rows that were read as directories.
    pub directories: Bitmap,
    /// What they need and cannot have, sorted by object.
    pub damages: Vec<Damage>,
    /// Contents that had to be fetched by themselves.
    pub fetched: u64,
}

/// Walks breadth-first from all snapshot roots, each object once in each role.
///
/// # Errors
/// `StoreUnavailable`, `Permission`, `Interrupted`. Damage is no error here: it is in [`Used`].
pub fn solve(workspace: &Workspace, survey: &Survey, summaries: &Summaries) -> Result<Used> {
    let mut walk = walked(workspace, survey, summaries)?;
    walk.look_for_cut(&survey.listing.packs)?;
    let damages = if walk.faults.is_empty() { Vec::new() } else { trace::damages(&walk, survey)? };
    Ok(Used { rows: walk.used, directories: walk.listed, damages, fetched: walk.fetched })
}

/// Where these contents lie in the snapshots: bytes of files, found unreadable after the walk (files are not read there).
///
/// # Errors
/// As [`solve`].
pub fn locate(
    workspace: &Workspace,
    survey: &Survey,
    summaries: &Summaries,
    cut: impl Iterator<Item = (u32, String)>,
) -> Result<Vec<Damage>> {
    let mut walk = walked(workspace, survey, summaries)?;
    walk.faults = cut.map(|(row, error)| ((Target::Row(row), Role::File), (Wrong::Cut, error))).collect();
    trace::damages(&walk, survey)
}

fn walked<'a>(workspace: &'a Workspace, survey: &'a Survey, summaries: &'a Summaries) -> Result<Walk<'a>> {
    let table = &survey.view.table;
    let mut walk = Walk::new(workspace, table, summaries);
    for root in &survey.roots {
        walk.follow(Edge { role: root.role, target: resolve(table, &root.object) });
    }
    walk.run()?;
    Ok(walk)
}

/// What a fault is named by: what was looked for, and as what.
pub(super) type FaultKey = (Target, Role);

pub(super) struct Walk<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) table: &'a Table,
    pub(super) summaries: &'a Summaries,
    used: Bitmap,
    /// Rows seen as directories, and as seek tables.
    listed: Bitmap,
    tabled: Bitmap,
    /// Rare forms seen.
    seen: HashSet<(Target, Role)>,
    todo: Vec<(u32, Holds)>,
    /// Directories and tables that were looked into; those that were found and not are found again if what is held was full.
    expanded: [Bitmap; 2],
    overflowed: bool,
    /// Not covered by the summaries.
    alone: Vec<(u32, Holds)>,
    /// Directories in several chunks, and tables of tables.
    large: Vec<(Target, Role)>,
    /// Tables that were fetched by themselves, for the reader of large objects.
    tables: HashMap<u32, Vec<Edge>>,
    pub(super) faults: HashMap<FaultKey, (Wrong, String)>,
    fetched: u64,
}

impl<'a> Walk<'a> {
    fn new(workspace: &'a Workspace, table: &'a Table, summaries: &'a Summaries) -> Self {
        Self {
            workspace,
            table,
            summaries,
            used: Bitmap::new(table.len() as u32),
            listed: Bitmap::new(table.len() as u32),
            tabled: Bitmap::new(table.len() as u32),
            seen: HashSet::new(),
            todo: Vec::new(),
            expanded: [Bitmap::new(table.len() as u32), Bitmap::new(table.len() as u32)],
            overflowed: false,
            alone: Vec::new(),
            large: Vec::new(),
            tables: HashMap::new(),
            faults: HashMap::new(),
            fetched: 0,
        }
    }

    fn run(&mut self) -> Result<()> {
        let meter = Meter::start(&*self.workspace.progress, "solve", None, Unit::Objects);
        loop {
            self.workspace.stop.check()?;
            meter.add(self.expand());
            if !self.alone.is_empty() {
                self.fetch_alone()?;
            } else if !self.large.is_empty() {
                self.read_large()?;
            } else {
                return Ok(());
            }
        }
    }

    /// Marks what an edge points to, and remembers what is to be looked into. Everything is looked into once in each role.
    fn follow(&mut self, edge: Edge) {
        match edge.target {
            Target::Row(row) => {
                self.used.insert(row);
                if edge.role == Role::Directory && self.listed.insert(row) {
                    self.push(row, Holds::Directory);
                }
            }
            Target::Packed(row) => {
                self.used.insert(row);
                if edge.role == Role::Directory && self.seen.insert((edge.target, edge.role)) {
                    // Legacy, and few: never left for later.
                    self.todo.push((row, Holds::PackedDirectory));
                }
            }
            Target::Indirect { row, depth } => {
                self.used.insert(row);
                if depth == 1 {
                    if self.tabled.insert(row) {
                        self.push(row, Holds::Table);
                    }
                } else if self.seen.insert((edge.target, Role::File)) {
                    // The table is an object itself: all its chunks are needed too.
                    self.large.push((edge.target, Role::File));
                    self.follow(Edge { role: Role::File, target: Target::Indirect { row, depth: depth - 1 } });
                }
                let is_directory = edge.role == Role::Directory && !mutant::on(Mutant::R8LargeDirectoryIsFile);
                if is_directory && self.seen.insert((edge.target, Role::Directory)) {
                    self.large.push((edge.target, Role::Directory));
                }
            }
            Target::Missing(_) if mutant::on(Mutant::R11MissingIsNothing) => {}
            Target::Missing(_) => self.fault(edge, &Error::damaged("no index entry names this content")),
        }
    }

    fn push(&mut self, row: u32, holds: Holds) {
        if self.todo.len() < HELD_MAX {
            self.todo.push((row, holds));
        } else {
            self.overflowed = true;
        }
    }

    /// Takes up what was found while what is held was full. False if there is nothing.
    fn refill(&mut self) -> bool {
        if !std::mem::take(&mut self.overflowed) {
            return false;
        }
        for (found, expanded, holds) in
            [(&self.listed, &self.expanded[0], Holds::Directory), (&self.tabled, &self.expanded[1], Holds::Table)]
        {
            for row in found.iter().filter(|row| !expanded.contains(*row)) {
                if self.todo.len() == HELD_MAX {
                    self.overflowed = true;
                    return true;
                }
                self.todo.push((row, holds));
            }
        }
        !self.todo.is_empty()
    }

    fn fault(&mut self, edge: Edge, error: &Error) {
        let wrong = if matches!(edge.target, Target::Missing(_)) { Wrong::Missing } else { Wrong::Unreadable };
        self.faults.entry((edge.target, edge.role)).or_insert_with(|| (wrong, error.chain()));
    }

    /// Follows what the summaries know. Returns how many objects it looked into.
    fn expand(&mut self) -> u64 {
        let summaries = self.summaries;
        let mut count = 0;
        while self.alone.len() < HELD_MAX && (!self.todo.is_empty() || self.refill()) {
            let Some((row, holds)) = self.todo.pop() else { break };
            match holds {
                Holds::Directory => self.expanded[0].insert(row),
                Holds::Table => self.expanded[1].insert(row),
                Holds::PackedDirectory => true,
            };
            count += 1;
            match summaries.line(row) {
                Line::Points(held, edges) if held == holds => edges.iter().for_each(|edge| self.follow(edge)),
                // Not read, or read as something else, or not readable: the walk is the truth, ask once more by itself.
                _ if mutant::on(Mutant::R7UncoveredIsLeaf) => {}
                _ => self.alone.push((row, holds)),
            }
        }
        count
    }

    fn fetch_alone(&mut self) -> Result<()> {
        let mut bytes = 0u64;
        let fits = |(row, _): &&(u32, Holds)| {
            bytes = bytes.saturating_add(u64::from(self.table.original_length(*row)));
            bytes <= BATCH_BYTES
        };
        let count = self.alone.iter().rev().take(BATCH).take_while(fits).count().max(1);
        let take = self.alone.len().saturating_sub(count);
        let mut wanted: HashMap<u32, Vec<Holds>> = HashMap::new();
        for (row, holds) in self.alone.drain(take..) {
            wanted.entry(row).or_default().push(holds);
        }
        self.fetched += wanted.len() as u64;
        let table = self.table;
        let mut rows: Vec<u32> = wanted.keys().copied().collect();
        bulk::pack_order(table, &mut rows);
        let found = bulk::read_contents(
            self.workspace,
            table,
            &rows,
            None,
            || (Pen::new(table), Vec::new()),
            |(pen, found), row, plain| {
                let plain = plain.map_err(|error| error.chain());
                for &holds in wanted.get(&row).map_or(&[][..], Vec::as_slice) {
                    let start = match &plain {
                        Ok(plain) => holds::write_as(holds, table.id(row), plain, pen).map_err(|error| error.chain()),
                        Err(error) => Err(error.clone()),
                    };
                    found.push((row, holds, start));
                }
                Ok(())
            },
        )?;
        for (pen, found) in found {
            let segment = pen.close();
            for (row, holds, start) in found {
                self.take_in(&segment, row, holds, start);
            }
        }
        Ok(())
    }

    fn take_in(&mut self, segment: &Segment, row: u32, holds: Holds, start: Result<u32, String>) {
        let edges: Vec<Edge> = match start.map(|start| segment.line(start)) {
            Ok(Line::Points(_, edges)) => edges.iter().collect(),
            Ok(_) => Vec::new(),
            Err(_) if mutant::on(Mutant::R11UnreadableDirectoryIsEmpty) => return,
            Err(error) => {
                let key = match holds {
                    Holds::Directory => (Target::Row(row), Role::Directory),
                    Holds::PackedDirectory => (Target::Packed(row), Role::Directory),
                    Holds::Table => (Target::Indirect { row, depth: 1 }, Role::File),
                };
                self.faults.entry(key).or_insert((Wrong::Unreadable, error));
                return;
            }
        };
        edges.iter().for_each(|&edge| self.follow(edge));
        if holds == Holds::Table {
            self.tables.insert(row, edges);
        }
    }

    /// Reads large directories and tables of tables, as many at once as their chunks fit the buffers.
    fn read_large(&mut self) -> Result<()> {
        let mut reader = ObjectReader::new(self.workspace, self.table, self.summaries, &self.tables);
        let mut batch = Vec::new();
        while let Some((target, role)) = self.large.pop() {
            batch.push((target, role));
            if !reader.want(target) {
                break;
            }
        }
        reader.prefetch()?;
        let found = reader::read_all(self.workspace, &reader, &batch)?;
        self.fetched += reader.fetched();
        drop(reader);
        for (target, role, edges) in found {
            match edges {
                Ok(edges) => edges.into_iter().for_each(|edge| self.follow(edge)),
                Err(error) => self.fault(Edge { role, target }, &error),
            }
        }
        Ok(())
    }

    /// Names every content that is needed and that its pack cannot hold. Files are not read, so nothing else would tell.
    fn look_for_cut(&mut self, listed: &[BlobMetadata]) -> Result<()> {
        let table = self.table;
        let lengths: HashMap<&BlobId, u64> = listed.iter().map(|blob| (&blob.id, blob.length)).collect();
        let mut lengths: Vec<Option<u64>> = table.packs().iter().map(|pack| lengths.get(pack).copied()).collect();
        let mut looked_at: HashSet<u32> = HashSet::new();
        for row in self.used.iter().filter(|row| !self.listed.contains(*row) && !self.tabled.contains(*row)) {
            let number = table.pack(row);
            let known = (lengths.get_mut(number as usize), table.packs().get(number as usize));
            let (Some(length), Some(pack)) = known else { continue };
            let end = u64::from(table.offset(row)) + u64::from(table.packed_length(row));
            if length.is_some_and(|length| end <= length) {
                continue;
            }
            // The listing is older than the view, which may name packs that came between.
            if looked_at.insert(number) {
                *length = length_of(&self.workspace.repository, pack)?;
            }
            let text = match *length {
                None => format!("its pack {pack} is gone"),
                Some(length) if end > length => format!("its pack {pack} has {length} bytes, it should end at {end}"),
                Some(_) => continue,
            };
            self.faults.entry((Target::Row(row), Role::File)).or_insert((Wrong::Cut, text));
        }
        Ok(())
    }

    /// A reader that knows every table found so far.
    pub(super) fn reader(&self) -> ObjectReader<'_> {
        ObjectReader::new(self.workspace, self.table, self.summaries, &self.tables)
    }

    /// Rows that were looked into as directories.
    pub(super) fn listed(&self) -> &Bitmap {
        &self.listed
    }

    /// Rows that were looked into as seek tables.
    pub(super) fn tabled(&self) -> &Bitmap {
        &self.tabled
    }

    /// Edges of a table or directory that is known.
    pub(super) fn edges(&self, row: u32, holds: Holds) -> Option<Vec<Edge>> {
        match self.summaries.line(row) {
            Line::Points(held, edges) if held == holds => Some(edges.iter().collect()),
            _ if holds == Holds::Table => self.tables.get(&row).cloned(),
            _ => None,
        }
    }
}

fn length_of(repository: &Repository, pack: &BlobId) -> Result<Option<u64>> {
    match repository.storage().head(pack) {
        Ok(found) => Ok(Some(found.length)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.at(format!("look at pack {pack}"))),
    }
}

/// How a target reads in Kopia's words.
pub(super) fn object_name(table: &Table, target: Target) -> ObjectId {
    let plain = |row| ObjectId { indirection: 0, compressed: false, content: table.id(row) };
    match target {
        Target::Row(row) => plain(row),
        Target::Packed(row) => ObjectId { compressed: true, ..plain(row) },
        Target::Indirect { row, depth } => ObjectId { indirection: depth, ..plain(row) },
        Target::Missing(object) => object,
    }
}

/// Faults by object, each once: the worse word wins.
pub(super) fn by_object(walk: &Walk<'_>) -> BTreeMap<String, (Wrong, String)> {
    let mut faults = BTreeMap::new();
    for ((target, _), (wrong, error)) in &walk.faults {
        let name = object_name(walk.table, *target).to_string();
        let slot = faults.entry(name).or_insert_with(|| (*wrong, error.clone()));
        if *wrong < slot.0 {
            *slot = (*wrong, error.clone());
        }
    }
    faults
}
