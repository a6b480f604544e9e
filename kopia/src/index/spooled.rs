//! Merging index blobs that do not fit memory: they lie decrypted in a private file, or are decrypted as they are read, and only
//! a part of the key space of each is in memory at a time. The merge of each part is the same as in memory.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::columns::{Columns, FileColumns};
use super::merge::{KeyRange, Merge, Names, Source, Summary, cut_span, cuts, ordinals_of_named, pieces};
use super::table::Store;
use super::{Format, Index, Part, Table, Values, top_of, v1, v2};
use crate::error::{Error, Result};
use crate::spill::{SpillFile, SpillFolder};
use crate::storage::BlobId;

/// Bytes read at once when an index is gone through.
const CHUNK: usize = 128 << 10;

/// Where the rows of a merged table go.
#[derive(Debug, Clone)]
pub enum Place {
    /// Into memory.
    Memory,
    /// Into files, read through a cache of about so many bytes.
    Files {
        /// Where the files are.
        folder: SpillFolder,
        /// Bytes of the cache.
        cache: u64,
    },
}

/// Where the plaintext of an index is read, part by part.
pub trait Plaintext: Send + Sync {
    /// Reads `out` at `at`.
    ///
    /// # Errors
    /// `StoreUnavailable`, `Damaged`.
    fn read(&self, out: &mut [u8], at: u64) -> Result<()>;

    /// As [`Plaintext::read`], of few bytes, and perhaps with less care: what is done with them is held against what is read.
    ///
    /// # Errors
    /// As there.
    fn peek(&self, out: &mut [u8], at: u64) -> Result<()> {
        self.read(out, at)
    }
}

impl Plaintext for SpillFile {
    fn read(&self, out: &mut [u8], at: u64) -> Result<()> {
        SpillFile::read(self, out, at)
    }
}

/// An index whose plaintext is not in memory; checked like [`Index`].
pub struct SpooledIndex {
    plaintext: Arc<dyn Plaintext>,
    /// Where its entries begin there.
    entries_at: u64,
    stride: usize,
    key: usize,
    count: usize,
    packs: Vec<BlobId>,
    formats: Vec<Format>,
    values: Arc<Values>,
}

impl SpooledIndex {
    /// Goes once through the plaintext of an index, `length` bytes at `at` of `plaintext`.
    ///
    /// # Errors
    /// As [`Index::parse`]; reading the file.
    pub fn open(plaintext: Arc<dyn Plaintext>, at: u64, length: u64, hash_length: usize) -> Result<Self> {
        let total =
            usize::try_from(length).map_err(|_| Error::unsupported("parse an index larger than memory can be"))?;
        let mut start = vec![0; total.min(v2::HEADER)];
        plaintext.read(&mut start, at)?;
        let tail = |from: usize| -> Result<Vec<u8>> {
            let mut bytes = vec![0; total.saturating_sub(from)];
            plaintext.read(&mut bytes, at + from as u64)?;
            Ok(bytes)
        };
        let index = match start.first() {
            Some(1) => {
                let v1::Header { key, stride, count, names_at } = v1::Header::parse(&start, total, hash_length)?;
                let tail = tail(names_at)?;
                let mut tables = v1::Tables::new(Part { bytes: &tail, at: names_at, length: total });
                let entries_at = at + v1::HEADER as u64;
                let values = Arc::new(Values::V2 { base: 0 });
                let (packs, formats) = (Vec::new(), Vec::new());
                let plaintext = plaintext.clone();
                let mut index = Self { plaintext, entries_at, stride, key, count, packs, formats, values };
                index.parts(|_, part| part.each_value(|value| tables.note(value)))?;
                let (packs, formats, values) = tables.finish();
                (index.packs, index.formats, index.values) = (packs, formats, Arc::new(values));
                index
            }
            Some(2) => {
                let header = v2::Header::parse(&start, total, hash_length)?;
                let tail = tail(header.packs_at)?;
                let (packs, formats) = header.tables(Part { bytes: &tail, at: header.packs_at, length: total })?;
                let values = Arc::new(header.values());
                let v2::Header { key, stride, count, .. } = header;
                let entries_at = at + v2::HEADER as u64;
                let plaintext = plaintext.clone();
                Self { plaintext, entries_at, stride, key, count, packs, formats, values }
            }
            Some(other) => return Err(Error::unsupported(format!("parse an index of version {other}"))),
            None => return Err(Error::damaged("parse an index of no bytes")),
        };
        let mut last = Vec::new();
        let sizes = (index.packs.len(), index.formats.len());
        index.parts(|first, part| {
            part.check_part(first, &last, sizes)?;
            last.clear();
            last.extend_from_slice(part.key(part.len() - 1));
            Ok(())
        })?;
        Ok(index)
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Loads some of its entries; they have no names of packs and formats.
    fn load(&self, entries: Range<usize>) -> Result<Index> {
        let mut plain = vec![0; entries.len() * self.stride];
        self.plaintext.read(&mut plain, self.entries_at + (entries.start * self.stride) as u64)?;
        let Self { stride, key, .. } = *self;
        let (packs, formats, values) = (Vec::new(), Vec::new(), Arc::clone(&self.values));
        Ok(Index { plain, start: 0, stride, key, count: entries.len(), packs, formats, values })
    }

    /// Shows all entries, part by part, none of them empty, with the number of the first.
    fn parts(&self, mut show: impl FnMut(usize, &Index) -> Result<()>) -> Result<()> {
        let step = (CHUNK / self.stride.max(1)).max(1);
        for first in (0..self.count).step_by(step) {
            show(first, &self.load(first..self.count.min(first + step))?)?;
        }
        Ok(())
    }

    /// As [`Index::partition`], among these entries.
    fn partition(&self, within: &Range<usize>, prefix: u8, top: u64) -> Result<usize> {
        let (mut low, mut high) = (within.start, within.end);
        let mut key = [0; 9];
        let length = self.key.min(key.len());
        while low < high {
            let middle = low + (high - low) / 2;
            self.plaintext.peek(&mut key[..length], self.entries_at + (middle * self.stride) as u64)?;
            if (key[0], top_of(&key[1..length])) < (prefix, top) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

impl Index {
    fn each_value(&self, mut show: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.plain.chunks_exact(self.stride).try_for_each(|entry| show(&entry[self.key..]))
    }
}

/// A part of the hashes of one prefix, and where it is in each source.
struct Span {
    prefix: u8,
    low: u64,
    /// The next part begins here; the last one has none.
    high: Option<u64>,
    entries: Vec<Range<usize>>,
}

impl Span {
    fn len(&self) -> usize {
        self.entries.iter().map(Range::len).sum()
    }

    /// In two, in the middle of the hashes; itself if there is no middle.
    fn halve(self, sources: &[SpooledIndex]) -> Result<(Self, Option<Self>)> {
        let high = self.high.unwrap_or(u64::MAX);
        let middle = self.low + (high - self.low) / 2;
        if middle == self.low {
            return Ok((self, None));
        }
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for (source, entries) in sources.iter().zip(&self.entries) {
            let cut = source.partition(entries, self.prefix, middle)?;
            first.push(entries.start..cut);
            second.push(cut..entries.end);
        }
        let second = Self { prefix: self.prefix, low: middle, high: self.high, entries: second };
        Ok((Self { high: Some(middle), entries: first, ..self }, Some(second)))
    }
}

/// Merges indexes part by part, so that about `at_once` entries are in memory at a time, with `threads` threads.
/// `hash_length` and `watermark`: as for a [`TableBuilder`](super::TableBuilder).
///
/// # Errors
/// `Unsupported` for more than 4,294,967,295 entries or 65,535 formats; `DiskFull`; reading the file.
pub fn merge_spooled(
    mut indexes: Vec<SpooledIndex>,
    (hash_length, watermark): (usize, Option<i64>),
    threads: usize,
    at_once: usize,
    place: &Place,
) -> Result<Table> {
    let total = indexes.iter().try_fold(0u32, |sum, index| sum.checked_add(u32::try_from(index.len()).ok()?));
    let total = total.ok_or_else(|| Error::unsupported("merge more than 4,294,967,295 index entries"))? as usize;
    let mut names = Names::new(indexes.iter_mut().flat_map(|index| index.packs.iter().cloned()).collect());
    let mut ordinals: Vec<Ordinals> = Vec::with_capacity(indexes.len());
    for index in &mut indexes {
        let (packs, formats) = names.ordinals(&index.packs, &index.formats)?;
        index.packs = Vec::new();
        ordinals.push((packs.into(), formats.into()));
    }
    let names = Arc::new(names);
    let mut out = Out::new(place, total, hash_length, names.packs.len())?;
    let mut summary = Summary::default();
    // Keys are taken in order: what lies before the last ones is not looked at again.
    let mut merged = vec![0; indexes.len()];
    for prefix in std::iter::once(0).chain(b'g'..=b'z') {
        let entries = indexes.iter().zip(&merged).map(|(index, merged)| {
            let rest = *merged..index.len();
            let end = index.partition(&rest, prefix + 1, 0)?;
            Ok(rest.start..end)
        });
        let entries = entries.collect::<Result<_>>()?;
        let mut todo = VecDeque::from([Span { prefix, low: 0, high: None, entries }]);
        while let Some(mut span) = todo.pop_front() {
            if span.len() > at_once.max(1) {
                let (first, second) = span.halve(&indexes)?;
                if let Some(second) = second {
                    todo.push_front(second);
                    todo.push_front(first);
                    continue;
                }
                span = first;
            }
            if span.len() == 0 {
                continue;
            }
            let merge = load(&indexes, &ordinals, &span, (hash_length, watermark), &names)?;
            let mut columns = Columns::zeroed(merge.entries(), hash_length);
            let done = merge.run(&mut columns, threads.max(1))?;
            let Merge { ranges, .. } = merge;
            columns.close_gaps(&pieces(&done), hash_length);
            summary.add(&ranges, done);
            out.extend(&columns)?;
            for (merged, entries) in merged.iter_mut().zip(&span.entries) {
                *merged = (*merged).max(entries.end);
            }
        }
    }
    if indexes.iter().zip(&merged).any(|(index, merged)| *merged != index.len()) {
        return Err(changed());
    }
    drop(indexes);
    let Names { packs, formats, .. } = Arc::unwrap_or_clone(names);
    Ok(out.finish(summary, hash_length, packs, formats))
}

fn changed() -> Error {
    Error::damaged("merge index entries: an index blob changed while it was read")
}

/// Packs and formats of one index blob, as ordinals of the names of all.
type Ordinals = (Arc<[u32]>, Arc<[u16]>);

/// The merge of one part.
fn load(
    indexes: &[SpooledIndex],
    ordinals: &[Ordinals],
    span: &Span,
    (hash_length, watermark): (usize, Option<i64>),
    names: &Arc<Names>,
) -> Result<Merge> {
    let high = span.high.unwrap_or(u64::MAX);
    let ranges: Vec<KeyRange> = cut_span(span.prefix, span.low, high, span.len()).collect();
    let mut sources = Vec::with_capacity(indexes.len());
    for ((index, entries), (packs, formats)) in indexes.iter().zip(&span.entries).zip(ordinals) {
        if entries.is_empty() {
            continue;
        }
        let index = Arc::new(index.load(entries.clone())?);
        let of_prefix = index.partition(span.prefix, span.low)..index.partition(span.prefix + 1, 0);
        let end = span.high.map_or(of_prefix.end, |high| index.partition(span.prefix, high));
        if of_prefix.start != 0 || of_prefix.end != index.len() || end != index.len() {
            // Where a part begins and ends was looked up by keys that are not what is read now.
            return Err(changed());
        }
        let cuts = cuts(&index, &ranges);
        sources.push(Source { index, packs: Arc::clone(packs), formats: Arc::clone(formats), cuts });
    }
    Ok(Merge { hash_length, watermark, sources, ranges, names: Arc::clone(names) })
}

/// Where merged rows go.
enum Out {
    Memory(Columns),
    Files(Box<FileColumns>, Vec<bool>),
}

impl Out {
    fn new(place: &Place, rows: usize, hash_length: usize, packs: usize) -> Result<Self> {
        Ok(match place {
            Place::Memory => Self::Memory(Columns::with_capacity(rows, hash_length)),
            Place::Files { folder, cache } => {
                Self::Files(Box::new(FileColumns::new(folder, hash_length, *cache)?), vec![false; packs])
            }
        })
    }

    fn extend(&mut self, rows: &Columns) -> Result<()> {
        match self {
            Self::Memory(columns) => columns.extend(rows),
            Self::Files(columns, named) => {
                rows.pack.iter().for_each(|pack| named[*pack as usize] = true);
                columns.append(rows)?;
            }
        }
        Ok(())
    }

    fn finish(self, summary: Summary, hash_length: usize, packs: Vec<BlobId>, formats: Vec<Format>) -> Table {
        match self {
            Self::Memory(mut columns) => {
                columns.shrink_to_fit();
                summary.finish_in_memory(columns, hash_length, packs, formats)
            }
            Self::Files(mut columns, named) => {
                columns.pack_names = ordinals_of_named(&named);
                summary.finish(Store::Files(columns), hash_length, packs, formats, &named)
            }
        }
    }
}
