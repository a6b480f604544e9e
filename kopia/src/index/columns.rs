//! Where the rows of a table are: in memory, or in files that are read through a small cache.

use std::sync::{Mutex, PoisonError};

use super::merge::Slices;
use crate::error::Result;
use crate::spill::{SpillFile, SpillFolder};

/// Where the time column says that the row's timestamp stands in a list of its own.
pub(super) const LATE: u32 = u32::MAX;
pub(super) const DELETED: u32 = 1 << 31;

/// Bytes of a page of the cache, about: a page holds whole values.
const PAGE_BYTES: usize = 4096;
/// Pages of each column's cache at least: as many places as threads and passes may be at.
const PAGES_MIN: usize = 16;
/// Share of the cache that the hashes get, which are looked up at random; the others are read in order.
const HASH_SHARE: u64 = 2;
const OTHERS: u64 = 6;

/// One value a row, each column by itself: a pass over one column touches nothing else.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) hash: Vec<u8>,
    pub(super) time: Vec<u32>,
    /// Offset in the pack; top bit: deleted.
    pub(super) place: Vec<u32>,
    pub(super) packed: Vec<u32>,
    pub(super) original: Vec<u32>,
    pub(super) pack: Vec<u32>,
    pub(super) format: Vec<u16>,
}

impl Columns {
    /// Room for `rows` rows. Zeroed memory comes from the system page by page, on first use.
    pub(super) fn zeroed(rows: usize, hash_length: usize) -> Self {
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

    /// No rows, and room for so many: memory comes on first use here too.
    pub(super) fn with_capacity(rows: usize, hash_length: usize) -> Self {
        Self {
            hash: Vec::with_capacity(rows * hash_length),
            time: Vec::with_capacity(rows),
            place: Vec::with_capacity(rows),
            packed: Vec::with_capacity(rows),
            original: Vec::with_capacity(rows),
            pack: Vec::with_capacity(rows),
            format: Vec::with_capacity(rows),
        }
    }

    pub(super) fn slices(&mut self) -> Slices<'_> {
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

    /// Moves pieces (start and length in rows) together to the front.
    pub(super) fn close_gaps(&mut self, pieces: &[(usize, usize)], hash_length: usize) {
        close_gaps(&mut self.hash, pieces, hash_length);
        for column in [&mut self.time, &mut self.place, &mut self.packed, &mut self.original, &mut self.pack] {
            close_gaps(column, pieces, 1);
        }
        close_gaps(&mut self.format, pieces, 1);
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.hash.extend_from_slice(&other.hash);
        self.time.extend_from_slice(&other.time);
        self.place.extend_from_slice(&other.place);
        self.packed.extend_from_slice(&other.packed);
        self.original.extend_from_slice(&other.original);
        self.pack.extend_from_slice(&other.pack);
        self.format.extend_from_slice(&other.format);
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.hash.shrink_to_fit();
        for column in [&mut self.time, &mut self.place, &mut self.packed, &mut self.original, &mut self.pack] {
            column.shrink_to_fit();
        }
        self.format.shrink_to_fit();
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

/// Columns in files.
pub(super) struct FileColumns {
    pub(super) hash: FileColumn,
    pub(super) time: FileColumn,
    pub(super) place: FileColumn,
    pub(super) packed: FileColumn,
    pub(super) original: FileColumn,
    pub(super) pack: FileColumn,
    pub(super) format: FileColumn,
    /// Ordinals of the packs that are named by a row, by those in the file.
    pub(super) pack_names: Vec<u32>,
}

impl FileColumns {
    /// Empty ones, whose caches hold about `cache` bytes.
    pub(super) fn new(folder: &SpillFolder, hash_length: usize, cache: u64) -> Result<Self> {
        let column = |width: usize, share: u64| FileColumn::new(folder, width, share);
        let (hash, other) = (cache / HASH_SHARE, cache / HASH_SHARE / OTHERS);
        Ok(Self {
            hash: column(hash_length, hash)?,
            time: column(4, other)?,
            place: column(4, other)?,
            packed: column(4, other)?,
            original: column(4, other)?,
            pack: column(4, other)?,
            format: column(2, other)?,
            pack_names: Vec::new(),
        })
    }

    /// Bytes of the caches, when they are full.
    pub(super) fn memory(&self) -> u64 {
        let columns = [&self.hash, &self.time, &self.place, &self.packed, &self.original, &self.pack, &self.format];
        columns.iter().map(|column| column.memory()).sum::<u64>() + (self.pack_names.len() * 4) as u64
    }

    pub(super) fn append(&mut self, rows: &Columns) -> Result<()> {
        let mut bytes = Vec::with_capacity(rows.time.len() * 4);
        self.hash.append(&rows.hash)?;
        for (file, column) in [
            (&mut self.time, &rows.time),
            (&mut self.place, &rows.place),
            (&mut self.packed, &rows.packed),
            (&mut self.original, &rows.original),
            (&mut self.pack, &rows.pack),
        ] {
            bytes.clear();
            column.iter().for_each(|value| bytes.extend_from_slice(&value.to_ne_bytes()));
            file.append(&bytes)?;
        }
        bytes.clear();
        rows.format.iter().for_each(|value| bytes.extend_from_slice(&value.to_ne_bytes()));
        self.format.append(&bytes)
    }
}

/// One column in a file, and the pages of it that were read last.
pub(super) struct FileColumn {
    file: SpillFile,
    width: usize,
    rows: usize,
    rows_per_page: usize,
    pages: Box<[Mutex<Page>]>,
}

#[derive(Default)]
struct Page {
    /// Number of the page, plus one; 0: nothing was read yet.
    number: usize,
    bytes: Vec<u8>,
}

impl FileColumn {
    fn new(folder: &SpillFolder, width: usize, cache: u64) -> Result<Self> {
        let pages = usize::try_from(cache).unwrap_or(usize::MAX) / PAGE_BYTES;
        let pages = (0..pages.max(PAGES_MIN)).map(|_| Mutex::default()).collect();
        Ok(Self { file: folder.file()?, width, rows: 0, rows_per_page: PAGE_BYTES / width, pages })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.append(bytes)?;
        self.rows += bytes.len() / self.width;
        Ok(())
    }

    fn memory(&self) -> u64 {
        (self.pages.len() * (PAGE_BYTES + size_of::<Mutex<Page>>())) as u64
    }

    /// Shows the value of a row.
    ///
    /// # Panics
    /// For a row that is not there, as a slice does; and if the disk does not give back what was written to it: there is
    /// nothing to go on with, and nothing half done that the next cycle would not find.
    #[inline]
    pub(super) fn with<T>(&self, row: u32, show: impl FnOnce(&[u8]) -> T) -> T {
        let row = row as usize;
        let (number, within) = (row / self.rows_per_page, row % self.rows_per_page);
        // Neighbours lie in different slots, so a pass evicts nothing that it comes back to.
        let slot = &self.pages[number % self.pages.len()];
        let mut page = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if page.number != number + 1 {
            self.load(&mut page, number);
        }
        show(&page.bytes[within * self.width..][..self.width])
    }

    #[cold]
    fn load(&self, page: &mut Page, number: usize) {
        let first = number * self.rows_per_page;
        let rows = self.rows_per_page.min(self.rows.saturating_sub(first));
        page.number = 0;
        page.bytes.resize(rows * self.width, 0);
        self.file.read_back(&mut page.bytes, (first * self.width) as u64);
        page.number = number + 1;
    }

    #[inline]
    pub(super) fn u32(&self, row: u32) -> u32 {
        self.with(row, |bytes| bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes)))
    }

    #[inline]
    pub(super) fn u16(&self, row: u32) -> u16 {
        self.with(row, |bytes| bytes.first_chunk::<2>().map_or(0, |bytes| u16::from_ne_bytes(*bytes)))
    }
}
