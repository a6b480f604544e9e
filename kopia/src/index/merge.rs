//! Merges index blobs into one sorted table of winners.
//!
//! The key space is cut into ranges; each is merged by the top 64 bits of the hash and written straight into its part of the
//! final columns, which are as long as all entries together. Pages that nobody writes to cost nothing, and the gaps that
//! beaten entries leave are closed at the end.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::table::{Columns, DELETED, LATE, Parts};
use super::{Format, Index, Raw, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::BlobId;

/// Entries that make a range of their own; a range is sorted inside the processor's cache.
const RANGE_ENTRIES: usize = 16 * 1024;
const RANGES_MAX: usize = 4096;

/// Collects index blobs and merges them.
pub struct TableBuilder {
    hash_length: usize,
    watermark: Option<i64>,
    indexes: Vec<Arc<Index>>,
}

impl TableBuilder {
    /// For a repository whose hashes are `hash_length` bytes long. `watermark`: Unix seconds, `None` with the legacy index
    /// and where marks have to stay.
    #[must_use]
    pub fn new(hash_length: usize, watermark: Option<i64>) -> Self {
        Self { hash_length, watermark, indexes: Vec::new() }
    }

    /// Adds one index.
    ///
    /// # Errors
    /// `Internal` if it was parsed for another hash length.
    pub fn add(&mut self, index: Arc<Index>) -> Result<()> {
        if !index.is_empty() && index.key != self.hash_length + 1 {
            return Err(Error::new(ErrorKind::Internal, "merge indexes of different hash lengths"));
        }
        self.indexes.push(index);
        Ok(())
    }

    /// Merges with `threads` threads. Indexes that nobody else holds are freed.
    ///
    /// # Errors
    /// `Unsupported` for more than 4,294,967,295 entries or 65,535 formats.
    pub fn build(self, threads: usize) -> Result<Table> {
        let total = self.indexes.iter().try_fold(0u32, |sum, index| sum.checked_add(u32::try_from(index.len()).ok()?));
        let total = total.ok_or_else(|| Error::unsupported("merge more than 4,294,967,295 index entries"))? as usize;
        let merge = Merge::new(self)?;
        let mut columns = Columns::zeroed(total, merge.hash_length);
        let done = merge.run(&mut columns, threads.max(1))?;
        let Merge { hash_length, sources, ranges, packs, formats, .. } = merge;
        drop(sources);
        Ok(finish(columns, done, &ranges, hash_length, packs, formats))
    }
}

/// One index with its packs and formats as ordinals of the tables of all.
struct Source {
    index: Arc<Index>,
    packs: Vec<u32>,
    formats: Vec<u16>,
    /// Entry where each range begins, and the end.
    cuts: Vec<usize>,
}

/// Part of the key space; all its IDs have one prefix.
struct KeyRange {
    prefix: u8,
    low: u64,
}

struct Merge {
    hash_length: usize,
    watermark: Option<i64>,
    sources: Vec<Source>,
    ranges: Vec<KeyRange>,
    packs: Vec<BlobId>,
    formats: Vec<Format>,
}

/// One entry to merge.
#[derive(Clone, Copy)]
struct Item {
    top: u64,
    source: u32,
    position: u32,
}

/// What became of one range.
#[derive(Default)]
struct Done {
    /// Where its part of the columns begins.
    start: usize,
    rows: usize,
    hidden: u64,
    hidden_packs: Vec<u32>,
    late: Vec<(u32, i64)>,
}

/// A range and its part of the columns.
struct Job<'a> {
    range: usize,
    start: usize,
    out: Slices<'a>,
}

impl Merge {
    fn new(builder: TableBuilder) -> Result<Self> {
        // Sorted by name, so that ordinals compare as the winner rule wants names compared.
        let mut packs: Vec<BlobId> = builder.indexes.iter().flat_map(|index| index.packs()).cloned().collect();
        packs.sort_unstable();
        packs.dedup();
        let mut formats = Vec::new();
        let mut ordinals: HashMap<Format, u16> = HashMap::new();
        let ranges = cut(&builder.indexes);
        let mut sources = Vec::with_capacity(builder.indexes.len());
        for index in builder.indexes {
            let mut local_formats = Vec::with_capacity(index.formats().len());
            for format in index.formats() {
                let next = u16::try_from(formats.len()).map_err(|_| Error::unsupported("merge over 65,535 formats"))?;
                let ordinal = *ordinals.entry(*format).or_insert(next);
                if ordinal == next {
                    formats.push(*format);
                }
                local_formats.push(ordinal);
            }
            let find = |pack| packs.binary_search(pack).ok().and_then(|at| u32::try_from(at).ok());
            let local: Option<Vec<u32>> = index.packs().iter().map(find).collect();
            let mut cuts: Vec<usize> = ranges.iter().map(|range| index.partition(range.prefix, range.low)).collect();
            cuts.push(index.len());
            let packs = local.ok_or_else(|| Error::unsupported("merge over 4,294,967,295 packs"))?;
            sources.push(Source { index, packs, formats: local_formats, cuts });
        }
        let TableBuilder { hash_length, watermark, .. } = builder;
        Ok(Self { hash_length, watermark, sources, ranges, packs, formats })
    }

    fn run(&self, columns: &mut Columns, threads: usize) -> Result<Vec<Done>> {
        let mut jobs = Vec::with_capacity(self.ranges.len());
        let (mut rest, mut start) = (columns.slices(), 0);
        for range in 0..self.ranges.len() {
            let length: usize = self.sources.iter().map(|source| source.cuts[range + 1] - source.cuts[range]).sum();
            let (out, after) = rest.split_at(length, self.hash_length);
            jobs.push(Job { range, start, out });
            rest = after;
            start += length;
        }
        let threads = threads.min(jobs.len()).max(1);
        let jobs = Mutex::new(jobs.into_iter());
        let work = || -> Result<Vec<(usize, Done)>> {
            let (mut done, mut items) = (Vec::new(), Vec::new());
            loop {
                let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(job) = next else { return Ok(done) };
                done.push((job.range, self.merge_range(job, &mut items)?));
            }
        };
        let mut done = if threads == 1 {
            work()?
        } else {
            std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                let mut done = Vec::new();
                for worker in workers {
                    let part = worker.join().map_err(|_| Error::new(ErrorKind::Internal, "merge index entries"))?;
                    done.extend(part?);
                }
                Ok::<_, Error>(done)
            })?
        };
        done.sort_unstable_by_key(|(range, _)| *range);
        Ok(done.into_iter().map(|(_, done)| done).collect())
    }

    fn merge_range(&self, job: Job<'_>, items: &mut Vec<Item>) -> Result<Done> {
        let mut out = job.out;
        let mut done = Done { start: job.start, ..Done::default() };
        items.clear();
        for (source, index) in (0u32..).zip(&self.sources) {
            let span = index.cuts[job.range]..index.cuts[job.range + 1];
            items.extend(span.map(|position| Item {
                top: super::top_of(&index.index.key(position)[1..]),
                source,
                // Counts of entries are 32 bits wide in both versions.
                position: u32::try_from(position).unwrap_or(u32::MAX),
            }));
        }
        // The stable sort finds the runs, one an index, and merges them.
        items.sort_by_key(|item| item.top);
        let mut at = 0;
        while at < items.len() {
            let mut end = at + 1;
            while end < items.len() && items[end].top == items[at].top {
                end += 1;
            }
            if end == at + 1 {
                self.take(items[at], self.raw(items[at])?, &mut out, &mut done);
            } else {
                self.take_group(&mut items[at..end], &mut out, &mut done)?;
            }
            at = end;
        }
        done.hidden_packs.sort_unstable();
        done.hidden_packs.dedup();
        Ok(done)
    }

    /// Entries that begin alike: nearly always one content in several indexes.
    fn take_group(&self, group: &mut [Item], out: &mut Slices<'_>, done: &mut Done) -> Result<()> {
        group.sort_by(|a, b| self.key(*a).cmp(self.key(*b)));
        for same in group.chunk_by(|a, b| self.key(*a) == self.key(*b)) {
            let mut winner = (same[0], self.raw(same[0])?);
            for item in &same[1..] {
                let raw = self.raw(*item)?;
                if self.compare(&raw, &winner.1) == Ordering::Greater {
                    winner = (*item, raw);
                }
            }
            self.take(winner.0, winner.1, out, done);
        }
        Ok(())
    }

    #[inline]
    fn key(&self, item: Item) -> &[u8] {
        self.sources[item.source as usize].index.key(item.position as usize)
    }

    /// The value with ordinals of the common tables.
    #[inline]
    fn raw(&self, item: Item) -> Result<Global> {
        let source = &self.sources[item.source as usize];
        let raw = source.index.raw(item.position as usize)?;
        // Parsing has held both ordinals against the tables.
        Ok(Global { raw, pack: source.packs[raw.pack as usize], format: source.formats[usize::from(raw.format)] })
    }

    /// The rule of [`Entry::beats`](crate::content::Entry::beats). Where that leaves a tie Kopia takes either; here the rest
    /// of the entry decides, so that the order of the indexes does not matter.
    fn compare(&self, a: &Global, b: &Global) -> Ordering {
        let rule = |e: &Global| (e.raw.timestamp, !e.raw.deleted, e.pack);
        let rest = |e: &Global| {
            (e.raw.offset, e.raw.packed_length, e.raw.original_length, self.formats[usize::from(e.format)])
        };
        rule(a).cmp(&rule(b)).then_with(|| rest(a).cmp(&rest(b)))
    }

    #[inline]
    fn take(&self, item: Item, winner: Global, out: &mut Slices<'_>, done: &mut Done) {
        let raw = winner.raw;
        if raw.deleted && self.watermark.is_some_and(|watermark| raw.timestamp <= watermark) {
            done.hidden += 1;
            if done.hidden_packs.last() != Some(&winner.pack) {
                done.hidden_packs.push(winner.pack);
            }
            return;
        }
        let row = done.rows;
        let hash = row * self.hash_length;
        out.hash[hash..hash + self.hash_length].copy_from_slice(&self.key(item)[1..]);
        out.time[row] = u32::try_from(raw.timestamp).unwrap_or(LATE);
        if out.time[row] == LATE {
            done.late.push((u32::try_from(row).unwrap_or(u32::MAX), raw.timestamp));
        }
        out.place[row] = raw.offset | if raw.deleted { DELETED } else { 0 };
        out.packed[row] = raw.packed_length;
        out.original[row] = raw.original_length;
        out.pack[row] = winner.pack;
        out.format[row] = winner.format;
        done.rows += 1;
    }
}

/// A value whose pack and format are ordinals of the common tables.
#[derive(Clone, Copy)]
struct Global {
    raw: Raw,
    pack: u32,
    format: u16,
}

/// Cuts the key space: every prefix by itself, its hashes (which are spread evenly) into equal parts.
fn cut(indexes: &[Arc<Index>]) -> Vec<KeyRange> {
    let mut ranges = Vec::new();
    for prefix in std::iter::once(0).chain(b'g'..=b'z') {
        let count: usize = indexes.iter().map(|i| i.partition(prefix + 1, 0) - i.partition(prefix, 0)).sum();
        let parts = count.div_ceil(RANGE_ENTRIES).min(RANGES_MAX) as u64;
        let step = u64::MAX.checked_div(parts).unwrap_or(0);
        ranges.extend((0..parts).map(|part| KeyRange { prefix, low: part * step }));
    }
    ranges
}

/// Closes the gaps, leaves out packs that no visible winner names, and makes the table.
fn finish(
    mut columns: Columns,
    done: Vec<Done>,
    ranges: &[KeyRange],
    hash_length: usize,
    packs: Vec<BlobId>,
    formats: Vec<Format>,
) -> Table {
    let pieces: Vec<(usize, usize)> = done.iter().map(|done| (done.start, done.rows)).collect();
    columns.close_gaps(&pieces, hash_length);
    let (mut late, mut hidden_packs, mut hidden_count, mut first_row) = (Vec::new(), Vec::new(), 0, 0u32);
    let mut prefixes: Vec<(u8, u32)> = Vec::new();
    for (range, done) in ranges.iter().zip(done) {
        let rows = u32::try_from(done.rows).unwrap_or(u32::MAX);
        late.extend(done.late.iter().map(|(row, time)| (first_row + row, *time)));
        hidden_packs.extend(done.hidden_packs);
        hidden_count += done.hidden;
        first_row += rows;
        match prefixes.last_mut() {
            Some((prefix, count)) if *prefix == range.prefix => *count += rows,
            _ => prefixes.push((range.prefix, rows)),
        }
    }
    prefixes.retain(|(_, rows)| *rows > 0);
    hidden_packs.sort_unstable();
    hidden_packs.dedup();
    let hidden_packs = hidden_packs.iter().map(|pack| packs[*pack as usize].clone()).collect();
    let packs = keep_named_packs(&mut columns.pack, packs);
    Table::new(Parts { hash_length, columns, late, formats, packs, hidden_packs, hidden_count, prefixes })
}

fn keep_named_packs(column: &mut [u32], packs: Vec<BlobId>) -> Vec<BlobId> {
    let mut named = vec![false; packs.len()];
    for pack in column.iter() {
        named[*pack as usize] = true;
    }
    if named.iter().all(|named| *named) {
        return packs;
    }
    let mut kept = 0u32;
    let ordinals: Vec<u32> = named
        .iter()
        .map(|named| {
            let ordinal = kept;
            kept += u32::from(*named);
            ordinal
        })
        .collect();
    for pack in column.iter_mut() {
        *pack = ordinals[*pack as usize];
    }
    packs.into_iter().zip(named).filter_map(|(pack, named)| named.then_some(pack)).collect()
}

/// Parts of all columns, split in step.
struct Slices<'a> {
    hash: &'a mut [u8],
    time: &'a mut [u32],
    place: &'a mut [u32],
    packed: &'a mut [u32],
    original: &'a mut [u32],
    pack: &'a mut [u32],
    format: &'a mut [u16],
}

impl<'a> Slices<'a> {
    fn split_at(self, rows: usize, hash_length: usize) -> (Self, Self) {
        let (hash, hash_after) = self.hash.split_at_mut(rows * hash_length);
        let (time, time_after) = self.time.split_at_mut(rows);
        let (place, place_after) = self.place.split_at_mut(rows);
        let (packed, packed_after) = self.packed.split_at_mut(rows);
        let (original, original_after) = self.original.split_at_mut(rows);
        let (pack, pack_after) = self.pack.split_at_mut(rows);
        let (format, format_after) = self.format.split_at_mut(rows);
        let after = Slices {
            hash: hash_after,
            time: time_after,
            place: place_after,
            packed: packed_after,
            original: original_after,
            pack: pack_after,
            format: format_after,
        };
        (Slices { hash, time, place, packed, original, pack, format }, after)
    }
}

impl Columns {
    /// Room for `rows` rows. Zeroed memory comes from the system page by page, on first use.
    fn zeroed(rows: usize, hash_length: usize) -> Self {
        Self {
            hash: vec![0; rows * hash_length],
            time: vec![0; rows],
            place: vec![0; rows],
            packed: vec![0; rows],
            original: vec![0; rows],
            pack: vec![0; rows],
            format: vec![0; rows],
        }
    }

    fn slices(&mut self) -> Slices<'_> {
        Slices {
            hash: &mut self.hash,
            time: &mut self.time,
            place: &mut self.place,
            packed: &mut self.packed,
            original: &mut self.original,
            pack: &mut self.pack,
            format: &mut self.format,
        }
    }

    fn close_gaps(&mut self, pieces: &[(usize, usize)], hash_length: usize) {
        close_gaps(&mut self.hash, pieces, hash_length);
        for column in [&mut self.time, &mut self.place, &mut self.packed, &mut self.original, &mut self.pack] {
            close_gaps(column, pieces, 1);
        }
        close_gaps(&mut self.format, pieces, 1);
    }
}

/// Moves pieces (start and length in rows of `width` values) together to the front.
fn close_gaps<T: Copy>(column: &mut Vec<T>, pieces: &[(usize, usize)], width: usize) {
    let mut end = 0;
    for (start, rows) in pieces {
        let (from, length) = (start * width, rows * width);
        if from != end {
            column.copy_within(from..from + length, end);
        }
        end += length;
    }
    column.truncate(end);
    column.shrink_to_fit();
}
