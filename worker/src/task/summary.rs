//! What contents point to, by ordinal: four bytes a reference, in memory or in a file.
//!
//! A summary says what a content *holds*, not what it is for: one content may be a directory here and a chunk of a larger one there,
//! so roles are given by whoever refers to it (R8).

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::index::Table;
use verger_kopia::object::ObjectId;
use verger_kopia::spill::SpillFile;

use super::summary_file::{SegmentPlace, read_rare, read_words};

/// A reference is one word: bit 31 the role, bit 30 a rare form, the rest a row or a place in the list of rare forms.
const AS_DIRECTORY: u32 = 1 << 31;
const RARE: u32 = 1 << 30;
const PLACE: u32 = RARE - 1;

/// Kind and number of references, in the word before them.
const KIND_SHIFT: u32 = 29;
const COUNT: u32 = (1 << KIND_SHIFT) - 1;

/// Words after which a segment is closed, so that growing one never copies much.
const SEGMENT_WORDS: usize = 1 << 18;
/// As that, for segments that go to a file.
const SEGMENT_WORDS_FILE: usize = 1 << 15;

/// References looked up together where rows are in files: in the order of the rows.
const WAITING_MAX: usize = 1 << 14;

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
#[derive(Clone)]
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
#[derive(Clone)]
pub struct Edges<'a> {
    words: Cow<'a, [u32]>,
    rare: Rare<'a>,
}

/// Where the forms are that a word cannot hold.
#[derive(Clone, Copy)]
enum Rare<'a> {
    Memory(&'a [Target]),
    File(&'a SpillFile, SegmentPlace),
}

impl Rare<'_> {
    fn decode(self, word: u32) -> Edge {
        let role = if word & AS_DIRECTORY == 0 { Role::File } else { Role::Directory };
        let place = word & PLACE;
        let target = match self {
            _ if word & RARE == 0 => Target::Row(place),
            Self::Memory(rare) => rare[place as usize],
            Self::File(file, segment) => read_rare(file, segment, place),
        };
        Edge { role, target }
    }
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
    pub fn iter(&self) -> impl Iterator<Item = Edge> + '_ {
        self.words.iter().map(|&word| self.rare.decode(word))
    }
}

/// A run of lines: words, and the forms that a word cannot hold.
#[derive(Default)]
pub struct Segment {
    pub(super) words: Vec<u32>,
    pub(super) rare: Vec<Target>,
}

impl Segment {
    /// What stands at `start`.
    #[must_use]
    pub fn line(&self, start: u32) -> Line<'_> {
        let start = start as usize;
        let (holds, count) = head(self.words[start]);
        let words = &self.words[start + 1..start + 1 + count];
        Line::Points(holds, Edges { words: words.into(), rare: Rare::Memory(&self.rare) })
    }

    fn bytes(&self) -> u64 {
        (self.words.capacity() * size_of::<u32>() + self.rare.capacity() * size_of::<Target>()) as u64
    }
}

/// What the word before references says: kind, and number.
fn head(word: u32) -> (Holds, usize) {
    let holds = match word >> KIND_SHIFT {
        0 => Holds::Directory,
        1 => Holds::PackedDirectory,
        _ => Holds::Table,
    };
    (holds, (word & COUNT) as usize)
}

/// Writes references of one content after another.
pub struct Pen<'a> {
    table: &'a Table,
    segment: Segment,
    /// References of the content in hand: looked up together when it is finished.
    pending: Vec<(Role, ObjectId)>,
    /// References whose words are not written yet, and where they belong.
    waiting: Vec<(u32, Role, ObjectId)>,
    rows: Vec<Option<u32>>,
}

impl<'a> Pen<'a> {
    /// Looks up in `table`.
    #[must_use]
    pub fn new(table: &'a Table) -> Self {
        Self { table, segment: Segment::default(), pending: Vec::new(), waiting: Vec::new(), rows: Vec::new() }
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
        if !self.table.is_in_memory() {
            self.wait();
            return Ok(start);
        }
        self.rows.clear();
        self.table.find_many(self.pending.iter().map(|(_, object)| &object.content), &mut self.rows);
        for ((role, object), row) in self.pending.drain(..).zip(&self.rows) {
            let word = word(&mut self.segment.rare, role, &object, *row);
            self.segment.words.push(word);
        }
        Ok(start)
    }

    /// Leaves the words for later: one look-up in a file is worth many that are done in order.
    fn wait(&mut self) {
        let first = self.segment.words.len();
        self.segment.words.resize(first + self.pending.len(), 0);
        let places = (first..).map(|place| u32::try_from(place).unwrap_or(u32::MAX));
        self.waiting.extend(places.zip(self.pending.drain(..)).map(|(place, (role, object))| (place, role, object)));
        if self.waiting.len() >= WAITING_MAX {
            self.look_up();
        }
    }

    fn look_up(&mut self) {
        self.rows.clear();
        self.table.find_many(self.waiting.iter().map(|(_, _, object)| &object.content), &mut self.rows);
        for ((place, role, object), row) in self.waiting.drain(..).zip(&self.rows) {
            self.segment.words[place as usize] = word(&mut self.segment.rare, role, &object, *row);
        }
    }

    /// The finished lines.
    #[must_use]
    pub fn close(mut self) -> Segment {
        self.look_up();
        self.segment.words.shrink_to_fit();
        self.segment.rare.shrink_to_fit();
        self.segment
    }

    fn words(&self) -> usize {
        self.segment.words.len()
    }
}

fn word(rare: &mut Vec<Target>, role: Role, object: &ObjectId, row: Option<u32>) -> u32 {
    let word = match target(object, row) {
        Target::Row(row) => row,
        form => {
            rare.push(form);
            // A segment is closed long before its list of rare forms is that long.
            RARE | (rare.len() - 1) as u32
        }
    };
    if role == Role::Directory { word | AS_DIRECTORY } else { word }
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
    segments: Segments,
}

enum Segments {
    Memory(Vec<Segment>),
    File(SpillFile, Vec<SegmentPlace>),
}

impl Summaries {
    /// Covers nothing: a solve on these fetches everything by itself.
    #[must_use]
    pub fn empty() -> Self {
        Self { first: 0, lines: Vec::new(), segments: Segments::Memory(Vec::new()) }
    }

    /// What is known of a row.
    #[must_use]
    pub fn line(&self, row: u32) -> Line<'_> {
        let line = row.checked_sub(self.first).and_then(|place| self.lines.get(place as usize));
        match line.map_or(LINE_NONE, |line| line.load(Ordering::Relaxed)) {
            LINE_NONE => Line::None,
            LINE_OPAQUE => Line::Opaque,
            LINE_UNREADABLE => Line::Unreadable,
            line => self.points((line >> 32) as usize - 1, line as u32),
        }
    }

    fn points(&self, segment: usize, start: u32) -> Line<'_> {
        match &self.segments {
            Segments::Memory(segments) => segments[segment].line(start),
            Segments::File(file, places) => {
                let place = places[segment];
                let (holds, count) = head(read_words(file, place, start, 1)[0]);
                let words = read_words(file, place, start + 1, count);
                Line::Points(holds, Edges { words: words.into(), rare: Rare::File(file, place) })
            }
        }
    }

    /// Bytes of memory they take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let segments = match &self.segments {
            Segments::Memory(segments) => segments.iter().map(Segment::bytes).sum(),
            Segments::File(_, places) => size_of_val(&places[..]) as u64,
        };
        segments + (self.lines.len() * size_of::<u64>()) as u64
    }

    /// References in all.
    #[must_use]
    pub fn references(&self) -> u64 {
        match &self.segments {
            Segments::Memory(segments) => segments.iter().map(|segment| segment.words.len() as u64).sum(),
            Segments::File(_, places) => places.iter().map(|place| place.words()).sum(),
        }
    }
}

/// Summaries in the making, filled by several threads.
pub struct Ledger<'a> {
    table: &'a Table,
    first: u32,
    lines: Vec<AtomicU64>,
    next: AtomicU32,
    closed: Mutex<Closed>,
    failure: Mutex<Option<Error>>,
    file: Option<SpillFile>,
}

#[derive(Default)]
struct Closed {
    memory: Vec<(u32, Segment)>,
    file: Vec<(u32, SegmentPlace)>,
}

impl<'a> Ledger<'a> {
    /// For the rows from `first` (the first with a prefix) to the end of `table`. The references go to `file`, if one is given.
    ///
    /// # Errors
    /// `Unsupported`: more rows than a reference can name.
    pub fn new(table: &'a Table, first: u32, file: Option<SpillFile>) -> Result<Self> {
        if table.len() > PLACE as usize {
            return Err(Error::new(ErrorKind::Unsupported, "an index of more than a thousand million contents"));
        }
        let lines = (first as usize..table.len()).map(|_| AtomicU64::new(LINE_NONE)).collect();
        let (next, closed, failure) = (AtomicU32::new(0), Mutex::default(), Mutex::default());
        Ok(Self { table, first, lines, next, closed, failure, file })
    }

    /// A pen of one thread.
    pub fn pen(&'a self) -> LedgerPen<'a> {
        LedgerPen { ledger: self, pen: Pen::new(self.table), id: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Takes a row for a line of its own. False if it has one already.
    pub fn claim(&self, row: u32) -> bool {
        let slot = row.checked_sub(self.first).and_then(|place| self.lines.get(place as usize));
        let taken = |slot: &AtomicU64| {
            slot.compare_exchange(LINE_NONE, LINE_UNREADABLE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        slot.is_some_and(taken)
    }

    /// All lines, once every pen is dropped.
    ///
    /// # Errors
    /// `DiskFull`: some could not be put aside.
    pub fn close(self) -> Result<Summaries> {
        if let Some(error) = self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut closed = self.closed.into_inner().unwrap_or_else(PoisonError::into_inner);
        closed.memory.sort_unstable_by_key(|(id, _)| *id);
        closed.file.sort_unstable_by_key(|(id, _)| *id);
        let segments = match self.file {
            None => Segments::Memory(closed.memory.into_iter().map(|(_, segment)| segment).collect()),
            Some(file) => Segments::File(file, closed.file.into_iter().map(|(_, place)| place).collect()),
        };
        Ok(Summaries { first: self.first, lines: self.lines, segments })
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
        let most = if self.ledger.file.is_some() { SEGMENT_WORDS_FILE } else { SEGMENT_WORDS };
        if self.pen.words() >= most {
            self.hand_over()?;
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

    fn hand_over(&mut self) -> Result<()> {
        let ledger = self.ledger;
        let segment = std::mem::replace(&mut self.pen, Pen::new(ledger.table)).close();
        let place = ledger.file.as_ref().map(|file| SegmentPlace::write(file, &segment)).transpose()?;
        let mut closed = ledger.closed.lock().unwrap_or_else(PoisonError::into_inner);
        match place {
            None => closed.memory.push((self.id, segment)),
            Some(place) => closed.file.push((self.id, place)),
        }
        Ok(())
    }
}

impl Drop for LedgerPen<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.hand_over() {
            self.ledger.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}
