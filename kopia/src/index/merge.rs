//! Merges index blobs into one sorted table of winners.
//!
//! The key space is cut into ranges; each is merged by the top 64 bits of the hash and written straight into its part of the
//! final columns, which are as long as all entries together. Pages that nobody writes to cost nothing, and the gaps that
//! beaten entries leave are closed at the end.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::columns::{Columns, DELETED, LATE};
use super::table::{Parts, Store};
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
        let Merge { hash_length, sources, ranges, names, .. } = merge;
        drop(sources);
        columns.close_gaps(&pieces(&done), hash_length);
        let mut summary = Summary::default();
        summary.add(&ranges, done);
        let Names { packs, formats, .. } = Arc::unwrap_or_clone(names);
        Ok(summary.finish_in_memory(columns, hash_length, packs, formats))
    }
}

/// One index with its packs and formats as ordinals of the tables of all.
pub(super) struct Source {
    pub(super) index: Arc<Index>,
    pub(super) packs: Arc<[u32]>,
    pub(super) formats: Arc<[u16]>,
    /// Entry where each range begins, and the end.
    pub(super) cuts: Vec<usize>,
}

/// Part of the key space; all its IDs have one prefix.
pub(super) struct KeyRange {
    pub(super) prefix: u8,
    pub(super) low: u64,
}

pub(super) struct Merge {
    pub(super) hash_length: usize,
    pub(super) watermark: Option<i64>,
    pub(super) sources: Vec<Source>,
    pub(super) ranges: Vec<KeyRange>,
    pub(super) names: Arc<Names>,
}

/// Packs and formats of all sources.
#[derive(Clone)]
pub(super) struct Names {
    /// Sorted by name, so that ordinals compare as the winner rule wants names compared.
    pub(super) packs: Vec<BlobId>,
    pub(super) formats: Vec<Format>,
    format_ordinals: HashMap<Format, u16>,
}

impl Names {
    pub(super) fn new(mut packs: Vec<BlobId>) -> Self {
        packs.sort_unstable();
        packs.dedup();
        packs.shrink_to_fit();
        Self { packs, formats: Vec::new(), format_ordinals: HashMap::new() }
    }

    /// Ordinals of one source's packs, which have to be known, and of its formats.
    pub(super) fn ordinals(&mut self, packs: &[BlobId], formats: &[Format]) -> Result<(Vec<u32>, Vec<u16>)> {
        let mut local_formats = Vec::with_capacity(formats.len());
        for format in formats {
            let next = self.formats.len();
            let next = u16::try_from(next).map_err(|_| Error::unsupported("merge over 65,535 formats"))?;
            let ordinal = *self.format_ordinals.entry(*format).or_insert(next);
            if ordinal == next {
                self.formats.push(*format);
            }
            local_formats.push(ordinal);
        }
        let find = |pack| self.packs.binary_search(pack).ok().and_then(|at| u32::try_from(at).ok());
        let local: Option<Vec<u32>> = packs.iter().map(find).collect();
        let local = local.ok_or_else(|| Error::unsupported("merge over 4,294,967,295 packs"))?;
        Ok((local, local_formats))
    }
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
pub(super) struct Done {
    /// Where its part of the columns begins.
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) hidden: u64,
    pub(super) hidden_packs: Vec<u32>,
    pub(super) late: Vec<(u32, i64)>,
}

/// A range and its part of the columns.
struct Job<'a> {
    range: usize,
    start: usize,
    out: Slices<'a>,
}

impl Merge {
    fn new(builder: TableBuilder) -> Result<Self> {
        let mut names = Names::new(builder.indexes.iter().flat_map(|index| index.packs()).cloned().collect());
        let ranges = cut(&builder.indexes);
        let mut sources = Vec::with_capacity(builder.indexes.len());
        for index in builder.indexes {
            let (packs, formats) = names.ordinals(index.packs(), index.formats())?;
            let cuts = cuts(&index, &ranges);
            sources.push(Source { index, packs: packs.into(), formats: formats.into(), cuts });
        }
        let TableBuilder { hash_length, watermark, .. } = builder;
        Ok(Self { hash_length, watermark, sources, ranges, names: Arc::new(names) })
    }

    /// Entries of all sources in all ranges.
    pub(super) fn entries(&self) -> usize {
        self.sources.iter().map(|source| source.cuts.last().unwrap_or(&0) - source.cuts.first().unwrap_or(&0)).sum()
    }

    pub(super) fn run(&self, columns: &mut Columns, threads: usize) -> Result<Vec<Done>> {
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
            (e.raw.offset, e.raw.packed_length, e.raw.original_length, self.names.formats[usize::from(e.format)])
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
        ranges.extend(cut_span(prefix, 0, u64::MAX, count));
    }
    ranges
}

/// Where each range's rows are in the columns that it was merged into: start and length.
pub(super) fn pieces(done: &[Done]) -> Vec<(usize, usize)> {
    done.iter().map(|done| (done.start, done.rows)).collect()
}

/// What all ranges together say besides the columns.
#[derive(Default)]
pub(super) struct Summary {
    pub(super) rows: u32,
    late: Vec<(u32, i64)>,
    hidden_packs: Vec<u32>,
    hidden_count: u64,
    prefixes: Vec<(u8, u32)>,
}

impl Summary {
    /// Adds ranges, in order.
    pub(super) fn add(&mut self, ranges: &[KeyRange], done: Vec<Done>) {
        for (range, done) in ranges.iter().zip(done) {
            let rows = u32::try_from(done.rows).unwrap_or(u32::MAX);
            self.late.extend(done.late.iter().map(|(row, time)| (self.rows + row, *time)));
            self.hidden_packs.extend(done.hidden_packs);
            self.hidden_count += done.hidden;
            self.rows += rows;
            match self.prefixes.last_mut() {
                Some((prefix, count)) if *prefix == range.prefix => *count += rows,
                _ => self.prefixes.push((range.prefix, rows)),
            }
        }
        self.hidden_packs.sort_unstable();
        self.hidden_packs.dedup();
    }

    /// Leaves out packs that no visible winner names.
    pub(super) fn finish_in_memory(
        self,
        mut columns: Columns,
        hash_length: usize,
        packs: Vec<BlobId>,
        formats: Vec<Format>,
    ) -> Table {
        let mut named = vec![false; packs.len()];
        columns.pack.iter().for_each(|pack| named[*pack as usize] = true);
        if !named.iter().all(|named| *named) {
            let ordinals = ordinals_of_named(&named);
            columns.pack.iter_mut().for_each(|pack| *pack = ordinals[*pack as usize]);
        }
        self.finish(Store::Memory(columns), hash_length, packs, formats, &named)
    }

    pub(super) fn finish(
        mut self,
        store: Store,
        hash_length: usize,
        packs: Vec<BlobId>,
        formats: Vec<Format>,
        named: &[bool],
    ) -> Table {
        self.prefixes.retain(|(_, rows)| *rows > 0);
        let hidden_packs = self.hidden_packs.iter().map(|pack| packs[*pack as usize].clone()).collect();
        let packs = packs.into_iter().zip(named).filter_map(|(pack, named)| named.then_some(pack)).collect();
        let Self { late, hidden_count, prefixes, .. } = self;
        Table::new(Parts { hash_length, store, late, formats, packs, hidden_packs, hidden_count, prefixes })
    }
}

/// New ordinals of the packs that are named, by the old ones.
pub(super) fn ordinals_of_named(named: &[bool]) -> Vec<u32> {
    let mut kept = 0u32;
    let next = |named: &bool| {
        let ordinal = kept;
        kept += u32::from(*named);
        ordinal
    };
    named.iter().map(next).collect()
}

/// Where each range begins in an index, and the end of the last.
pub(super) fn cuts(index: &Index, ranges: &[KeyRange]) -> Vec<usize> {
    let starts = ranges.iter().map(|range| index.partition(range.prefix, range.low));
    starts.chain([index.len()]).collect()
}

/// Cuts a part of one prefix's hashes, which are spread evenly, into equal ranges for so many entries.
pub(super) fn cut_span(prefix: u8, low: u64, high: u64, entries: usize) -> impl Iterator<Item = KeyRange> {
    let parts = entries.div_ceil(RANGE_ENTRIES).min(RANGES_MAX) as u64;
    let step = (high - low).checked_div(parts).unwrap_or(0);
    (0..parts).map(move |part| KeyRange { prefix, low: low + part * step })
}

/// Parts of all columns, split in step.
pub(super) struct Slices<'a> {
    pub(super) hash: &'a mut [u8],
    pub(super) time: &'a mut [u32],
    pub(super) place: &'a mut [u32],
    pub(super) packed: &'a mut [u32],
    pub(super) original: &'a mut [u32],
    pub(super) pack: &'a mut [u32],
    pub(super) format: &'a mut [u16],
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
