//! What contents point to, by ordinal: four bytes a reference.
//!
//! A summary says what a content *holds*, not what it is for: one content may be a directory here and a chunk of a larger one there,
//! so roles are given by whoever refers to it (R8).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::index::Table;
use verger_kopia::object::ObjectId;

/// A reference is one word: bit 31 the role, bit 30 a rare form, the rest a row or a place in the list of rare forms.
const AS_DIRECTORY: u32 = 1 << 31;
const RARE: u32 = 1 << 30;
const PLACE: u32 = RARE - 1;

/// Kind and number of references, in the word before them.
const KIND_SHIFT: u32 = 29;
const COUNT: u32 = (1 << KIND_SHIFT) - 1;

/// Words after which a segment is closed, so that growing one never copies much.
const SEGMENT_WORDS: usize = 1 << 18;

const LINE_NONE: u64 = 0;
const LINE_OPAQUE: u64 = 1;
const LINE_UNREADABLE: u64 = 2;

/// As what an object is referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Its bytes: a file, a symlink target, a chunk.
    File,
    /// What it lists as well.
    Directory,
}

/// What a reference points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A content.
    Row(u32),
    /// A legacy object that is one compressed content (`Z`).
    Packed(u32),
    /// An object cut into chunks: so many levels of seek tables, the last in this row.
    Indirect {
        /// Row of the innermost table.
        row: u32,
        /// Levels, at least one.
        depth: u8,
    },
    /// Something that no entry of the view names.
    Missing(ObjectId),
}

/// One reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// As what.
    pub role: Role,
    /// To what.
    pub target: Target,
}

/// What a content holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A whole directory.
    Directory,
    /// A whole directory, compressed as an object (`Z`).
    PackedDirectory,
    /// A whole seek table.
    Table,
}

/// What the scan knows of a content.
#[derive(Clone, Copy)]
pub enum Line<'a> {
    /// It was not read: fetch it by itself.
    None,
    /// It was read and is neither a directory nor a seek table as a whole.
    Opaque,
    /// It could not be read.
    Unreadable,
    /// It points to these.
    Points(Holds, Edges<'a>),
}

/// References of one content.
#[derive(Clone, Copy)]
pub struct Edges<'a> {
    words: &'a [u32],
    segment: &'a Segment,
}

impl<'a> Edges<'a> {
    /// Number of references.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Each reference, in order.
    pub fn iter(self) -> impl Iterator<Item = Edge> + 'a {
        let segment = self.segment;
        self.words.iter().map(move |&word| segment.decode(word))
    }
}

/// A run of lines: words, and the forms that a word cannot hold.
#[derive(Default)]
pub struct Segment {
    words: Vec<u32>,
    rare: Vec<Target>,
}

impl Segment {
    fn decode(&self, word: u32) -> Edge {
        let role = if word & AS_DIRECTORY == 0 { Role::File } else { Role::Directory };
        let place = word & PLACE;
        let target = if word & RARE == 0 { Target::Row(place) } else { self.rare[place as usize] };
        Edge { role, target }
    }

    /// What stands at `start`.
    #[must_use]
    pub fn line(&self, start: u32) -> Line<'_> {
        let start = start as usize;
        let head = self.words[start];
        let holds = match head >> KIND_SHIFT {
            0 => Holds::Directory,
            1 => Holds::PackedDirectory,
            _ => Holds::Table,
        };
        let words = &self.words[start + 1..start + 1 + (head & COUNT) as usize];
        Line::Points(holds, Edges { words, segment: self })
    }

    fn bytes(&self) -> u64 {
        (self.words.capacity() * size_of::<u32>() + self.rare.capacity() * size_of::<Target>()) as u64
    }
}

/// Writes references of one content after another.
pub struct Pen<'a> {
    table: &'a Table,
    segment: Segment,
    /// References of the content in hand: looked up together when it is finished.
    pending: Vec<(Role, ObjectId)>,
    rows: Vec<Option<u32>>,
}

impl<'a> Pen<'a> {
    /// Looks up in `table`.
    #[must_use]
    pub fn new(table: &'a Table) -> Self {
        Self { table, segment: Segment::default(), pending: Vec::new(), rows: Vec::new() }
    }

    /// Begins a content; what was begun and not finished is forgotten.
    pub fn begin(&mut self) {
        self.pending.clear();
    }

    /// One reference of the content that was begun.
    pub fn refer(&mut self, role: Role, object: &ObjectId) {
        self.pending.push((role, *object));
    }

    /// Finishes the content and says where its line starts.
    ///
    /// # Errors
    /// `Unsupported`: more references than a line can count.
    pub fn finish(&mut self, holds: Holds) -> Result<u32> {
        let count = u32::try_from(self.pending.len()).ok().filter(|&count| count <= COUNT);
        let start = u32::try_from(self.segment.words.len()).ok();
        let (Some(count), Some(start)) = (count, start) else {
            return Err(Error::unsupported("a directory with more than 500 million entries in one content"));
        };
        let kind = match holds {
            Holds::Directory => 0,
            Holds::PackedDirectory => 1,
            Holds::Table => 2,
        };
        self.segment.words.push(kind << KIND_SHIFT | count);
        self.rows.clear();
        self.table.find_many(self.pending.iter().map(|(_, object)| &object.content), &mut self.rows);
        for ((role, object), row) in self.pending.drain(..).zip(&self.rows) {
            let word = match target(&object, *row) {
                Target::Row(row) => row,
                rare => {
                    self.segment.rare.push(rare);
                    // A segment is closed long before its list of rare forms is that long.
                    RARE | (self.segment.rare.len() - 1) as u32
                }
            };
            self.segment.words.push(if role == Role::Directory { word | AS_DIRECTORY } else { word });
        }
        Ok(start)
    }

    /// The finished lines.
    #[must_use]
    pub fn close(mut self) -> Segment {
        self.segment.words.shrink_to_fit();
        self.segment.rare.shrink_to_fit();
        self.segment
    }

    fn is_full(&self) -> bool {
        self.segment.words.len() >= SEGMENT_WORDS
    }
}

/// Where an object ID leads in this view.
#[must_use]
pub fn resolve(table: &Table, object: &ObjectId) -> Target {
    target(object, table.find(&object.content))
}

fn target(object: &ObjectId, row: Option<u32>) -> Target {
    match row {
        None => Target::Missing(*object),
        Some(row) if object.indirection > 0 => Target::Indirect { row, depth: object.indirection },
        Some(row) if object.compressed => Target::Packed(row),
        Some(row) => Target::Row(row),
    }
}

/// What the contents with a prefix hold and point to.
pub struct Summaries {
    first: u32,
    lines: Vec<AtomicU64>,
    segments: Vec<Segment>,
}

impl Summaries {
    /// Covers nothing: a solve on these fetches everything by itself.
    #[must_use]
    pub fn empty() -> Self {
        Self { first: 0, lines: Vec::new(), segments: Vec::new() }
    }

    /// What is known of a row.
    #[must_use]
    pub fn line(&self, row: u32) -> Line<'_> {
        let line = row.checked_sub(self.first).and_then(|place| self.lines.get(place as usize));
        match line.map_or(LINE_NONE, |line| line.load(Ordering::Relaxed)) {
            LINE_NONE => Line::None,
            LINE_OPAQUE => Line::Opaque,
            LINE_UNREADABLE => Line::Unreadable,
            line => self.segments[(line >> 32) as usize - 1].line(line as u32),
        }
    }

    /// Bytes they take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(Segment::bytes).sum();
        segments + (self.lines.len() * size_of::<u64>()) as u64
    }

    /// References in all.
    #[must_use]
    pub fn references(&self) -> u64 {
        self.segments.iter().map(|segment| segment.words.len() as u64).sum()
    }
}

/// Summaries in the making, filled by several threads.
pub struct Ledger<'a> {
    table: &'a Table,
    first: u32,
    lines: Vec<AtomicU64>,
    next: AtomicU32,
    closed: Mutex<Vec<(u32, Segment)>>,
}

impl<'a> Ledger<'a> {
    /// For the rows from `first` (the first with a prefix) to the end of `table`.
    ///
    /// # Errors
    /// `Unsupported`: more rows than a reference can name.
    pub fn new(table: &'a Table, first: u32) -> Result<Self> {
        if table.len() > PLACE as usize {
            return Err(Error::new(ErrorKind::Unsupported, "an index of more than a thousand million contents"));
        }
        let lines = (first as usize..table.len()).map(|_| AtomicU64::new(LINE_NONE)).collect();
        Ok(Self { table, first, lines, next: AtomicU32::new(0), closed: Mutex::default() })
    }

    /// A pen of one thread.
    pub fn pen(&'a self) -> LedgerPen<'a> {
        LedgerPen { ledger: self, pen: Pen::new(self.table), id: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// All lines, once every pen is dropped.
    #[must_use]
    pub fn close(self) -> Summaries {
        let mut closed = self.closed.into_inner().unwrap_or_else(PoisonError::into_inner);
        closed.sort_unstable_by_key(|(id, _)| *id);
        let segments = closed.into_iter().map(|(_, segment)| segment).collect();
        Summaries { first: self.first, lines: self.lines, segments }
    }

    fn set(&self, row: u32, line: u64) {
        if let Some(slot) = row.checked_sub(self.first).and_then(|place| self.lines.get(place as usize)) {
            slot.store(line, Ordering::Relaxed);
        }
    }
}

/// Writes lines of a [`Ledger`]. Dropping it hands over what it wrote.
pub struct LedgerPen<'a> {
    ledger: &'a Ledger<'a>,
    pen: Pen<'a>,
    id: u32,
}

impl<'a> LedgerPen<'a> {
    /// To write the references of the next content.
    pub fn pen(&mut self) -> &mut Pen<'a> {
        &mut self.pen
    }

    /// Finishes a content that points to what was written.
    ///
    /// # Errors
    /// As [`Pen::finish`].
    pub fn points(&mut self, row: u32, holds: Holds) -> Result<()> {
        let start = self.pen.finish(holds)?;
        self.ledger.set(row, (u64::from(self.id) + 1) << 32 | u64::from(start));
        if self.pen.is_full() {
            self.hand_over();
            self.id = self.ledger.next.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The content is no whole directory and no whole seek table.
    pub fn opaque(&mut self, row: u32) {
        self.ledger.set(row, LINE_OPAQUE);
    }

    /// The content could not be read.
    pub fn unreadable(&mut self, row: u32) {
        self.ledger.set(row, LINE_UNREADABLE);
    }

    fn hand_over(&mut self) {
        let pen = std::mem::replace(&mut self.pen, Pen::new(self.ledger.table));
        let mut closed = self.ledger.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.push((self.id, pen.close()));
    }
}

impl Drop for LedgerPen<'_> {
    fn drop(&mut self) {
        self.hand_over();
    }
}
