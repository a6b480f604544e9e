//! The merged index: columns sorted by content ID, about 40 bytes a content in memory, or in files.

use std::ops::Range;

use super::Format;
use super::columns::{Columns, DELETED, FileColumns, LATE};
use crate::content::{CompressionId, ContentHash, ContentId, Entry};
use crate::storage::BlobId;

/// Bytes of a row besides its hash and its part of the bucket table: six columns.
const ROW_BYTES: u64 = 22;
/// Rows a bucket holds on average; the second where rows are in files, and the bucket table is what is left in memory.
const BUCKET_ROWS: usize = 8;
const BUCKET_ROWS_FILES: usize = 64;
/// Longer buckets (hashes that are not evenly spread) are searched by halves.
const BUCKET_SCAN_MAX: usize = 32;

/// Where the rows are.
pub(super) enum Store {
    Memory(Columns),
    Files(Box<FileColumns>),
}

/// The rows of one prefix and where their buckets are.
struct Prefix {
    prefix: u8,
    rows: Range<u32>,
    /// Ordinal of the first of `2^bits + 1` bucket starts.
    first_bucket: usize,
    bits: u32,
}

/// The winners of an index view, sorted by content ID, one row a content; rows are named by ordinal.
/// Marks at or below the watermark are not rows (to readers such a content does not exist); their packs are remembered apart.
///
/// Asking for a row that is not below [`Table::len`] is a defect of the caller and panics.
pub struct Table {
    hash_length: usize,
    length: usize,
    store: Store,
    /// Timestamps that do not fit the column, by row.
    late: Vec<(u32, i64)>,
    formats: Vec<Format>,
    packs: Vec<BlobId>,
    hidden_packs: Vec<BlobId>,
    hidden_count: u64,
    prefixes: Vec<Prefix>,
    buckets: Vec<u32>,
}

/// What the merge hands over.
pub(super) struct Parts {
    pub(super) hash_length: usize,
    pub(super) store: Store,
    pub(super) late: Vec<(u32, i64)>,
    pub(super) formats: Vec<Format>,
    pub(super) packs: Vec<BlobId>,
    pub(super) hidden_packs: Vec<BlobId>,
    pub(super) hidden_count: u64,
    /// Prefixes in order and how many rows each has.
    pub(super) prefixes: Vec<(u8, u32)>,
}

/// Live and marked rows of one pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackSize {
    /// Stored bytes of all its rows, marked ones included (what Kopia's rewrite rule adds up).
    pub bytes: u64,
    /// Stored bytes of rows that are not marked.
    pub live_bytes: u64,
    /// Rows, marked ones included.
    pub rows: u32,
    /// Rows that are not marked.
    pub live_rows: u32,
}

/// The rows of each pack in the order of their offsets: 4 bytes a row and 4 a pack.
pub struct PackRows {
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl PackRows {
    /// Rows of a pack (ordinal in [`Table::packs`]), by offset.
    #[must_use]
    pub fn of(&self, pack: u32) -> &[u32] {
        let pack = pack as usize;
        &self.rows[self.starts[pack] as usize..self.starts[pack + 1] as usize]
    }
}

impl Table {
    pub(super) fn new(parts: Parts) -> Self {
        let length = parts.prefixes.iter().map(|(_, rows)| *rows as usize).sum();
        let mut table = Self {
            hash_length: parts.hash_length,
            length,
            store: parts.store,
            late: parts.late,
            formats: parts.formats,
            packs: parts.packs,
            hidden_packs: parts.hidden_packs,
            hidden_count: parts.hidden_count,
            prefixes: Vec::new(),
            buckets: Vec::new(),
        };
        let mut start = 0;
        for (prefix, count) in parts.prefixes {
            table.add_prefix(prefix, start..start + count);
            start += count;
        }
        table
    }

    fn add_prefix(&mut self, prefix: u8, rows: Range<u32>) {
        let bucket_rows = if self.is_in_memory() { BUCKET_ROWS } else { BUCKET_ROWS_FILES };
        let bits = (rows.len() / bucket_rows).checked_ilog2().map_or(0, |bits| bits + 1);
        let first_bucket = self.buckets.len();
        let last = first_bucket + (1usize << bits);
        self.buckets.reserve_exact(last + 1 - first_bucket);
        for row in rows.clone() {
            let bucket = first_bucket + bucket_of(self.top(row), bits);
            while self.buckets.len() <= bucket {
                self.buckets.push(row);
            }
        }
        self.buckets.resize(last + 1, rows.end);
        self.prefixes.push(Prefix { prefix, rows, first_bucket, bits });
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the rows are in memory: then one look-up by itself is as good as many.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        matches!(self.store, Store::Memory(_))
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let columns = match &self.store {
            Store::Memory(_) => self.length as u64 * (ROW_BYTES + self.hash_length as u64),
            Store::Files(columns) => columns.memory(),
        };
        columns + (self.buckets.len() * size_of::<u32>()) as u64
    }

    /// All rows.
    pub fn rows(&self) -> Range<u32> {
        0..self.prefixes.last().map_or(0, |prefix| prefix.rows.end)
    }

    /// Row of a content.
    #[must_use]
    pub fn find(&self, id: &ContentId) -> Option<u32> {
        self.find_in(id, self.bucket(id)?)
    }

    /// Rows of many contents, in their order, appended to `rows`. Faster than one by one where the table is larger than the
    /// processor's caches: each pass is a row of reads that do not wait for each other.
    pub fn find_many<'i>(&self, ids: impl Iterator<Item = &'i ContentId> + Clone, rows: &mut Vec<Option<u32>>) {
        let from = rows.len();
        rows.extend(ids.clone().map(|id| self.bucket(id).and_then(|bucket| u32::try_from(bucket).ok())));
        let found = &mut rows[from..];
        match &self.store {
            Store::Memory(columns) => {
                let mut warm = 0u64;
                for slot in found.iter() {
                    let first = slot.map_or(0, |bucket| self.buckets[bucket as usize]);
                    warm ^= columns.hash.get(first as usize * self.hash_length).copied().map_or(0, u64::from);
                }
                std::hint::black_box(warm);
                for (slot, id) in found.iter_mut().zip(ids) {
                    *slot = slot.and_then(|bucket| self.find_in(id, bucket as usize));
                }
            }
            Store::Files(_) => {
                // In the order of the rows, so that each page is read once.
                let ids: Vec<&ContentId> = ids.collect();
                let mut order: Vec<(u32, u32)> =
                    found.iter().zip(0u32..).filter_map(|(slot, place)| Some(((*slot)?, place))).collect();
                order.sort_unstable();
                for (bucket, place) in order {
                    found[place as usize] = self.find_in(ids[place as usize], bucket as usize);
                }
            }
        }
    }

    /// Where in the bucket table a content belongs.
    fn bucket(&self, id: &ContentId) -> Option<usize> {
        let hash = id.hash().as_bytes();
        let prefix = self.prefixes.iter().find(|prefix| prefix.prefix == id.prefix())?;
        (hash.len() == self.hash_length).then(|| prefix.first_bucket + bucket_of(super::top_of(hash), prefix.bits))
    }

    fn find_in(&self, id: &ContentId, bucket: usize) -> Option<u32> {
        let hash = id.hash().as_bytes();
        let top = super::top_of(hash);
        let (mut low, mut high) = (self.buckets[bucket], self.buckets[bucket + 1]);
        while high as usize - low as usize > BUCKET_SCAN_MAX {
            let middle = low + (high - low) / 2;
            if self.with_hash(middle, |found| found < hash) {
                low = middle + 1;
            } else {
                high = middle + 1;
            }
        }
        match &self.store {
            Store::Memory(_) => {
                (low..high).find(|row| self.with_hash(*row, |found| super::top_of(found) == top && found == hash))
            }
            Store::Files(_) => {
                while low < high {
                    let middle = low + (high - low) / 2;
                    match self.with_hash(middle, |found| found.cmp(hash)) {
                        std::cmp::Ordering::Less => low = middle + 1,
                        std::cmp::Ordering::Equal => return Some(middle),
                        std::cmp::Ordering::Greater => high = middle,
                    }
                }
                None
            }
        }
    }

    /// ID of a row.
    #[must_use]
    pub fn id(&self, row: u32) -> ContentId {
        self.id_of(self.prefix(row), row)
    }

    /// IDs of all rows, in order.
    pub fn ids(&self) -> impl Iterator<Item = ContentId> + '_ {
        self.prefixes.iter().flat_map(|prefix| prefix.rows.clone().map(|row| self.id_of(prefix.prefix, row)))
    }

    fn id_of(&self, prefix: u8, row: u32) -> ContentId {
        ContentId::new(prefix, self.hash(row)).expect("parsing has checked the prefix of every key")
    }

    /// Hash of a row's ID.
    #[must_use]
    pub fn hash(&self, row: u32) -> ContentHash {
        let hash = self.with_hash(row, ContentHash::from_slice);
        hash.expect("parsing has checked the length of every key")
    }

    #[inline]
    fn with_hash<T>(&self, row: u32, show: impl FnOnce(&[u8]) -> T) -> T {
        match &self.store {
            Store::Memory(columns) => {
                let at = row as usize * self.hash_length;
                show(&columns.hash[at..at + self.hash_length])
            }
            Store::Files(columns) => columns.hash.with(row, show),
        }
    }

    fn top(&self, row: u32) -> u64 {
        self.with_hash(row, super::top_of)
    }

    /// Offset and deletion mark.
    #[inline]
    fn place(&self, row: u32) -> u32 {
        match &self.store {
            Store::Memory(columns) => columns.place[row as usize],
            Store::Files(columns) => columns.place.u32(row),
        }
    }

    /// The whole entry of a row.
    #[must_use]
    pub fn entry(&self, row: u32) -> Entry {
        Entry {
            id: self.id(row),
            timestamp: self.timestamp(row),
            deleted: self.is_deleted(row),
            pack: self.packs[self.pack(row) as usize].clone(),
            offset: self.offset(row),
            packed_length: self.packed_length(row),
            original_length: self.original_length(row),
            compression: self.compression(row),
            format_version: self.format_version(row),
        }
    }

    /// Prefix byte of a row's ID.
    #[must_use]
    pub fn prefix(&self, row: u32) -> u8 {
        let at = self.prefixes.partition_point(|prefix| prefix.rows.end <= row);
        self.prefixes[at].prefix
    }

    /// Rows whose IDs have this prefix byte (0: none).
    #[must_use]
    pub fn row_range_of_prefix(&self, prefix: u8) -> Range<u32> {
        self.prefixes.iter().find(|range| range.prefix == prefix).map_or(0..0, |range| range.rows.clone())
    }

    /// Whether the winner is a mark.
    #[must_use]
    pub fn is_deleted(&self, row: u32) -> bool {
        self.place(row) & DELETED != 0
    }

    /// Unix seconds.
    #[must_use]
    pub fn timestamp(&self, row: u32) -> i64 {
        let time = match &self.store {
            Store::Memory(columns) => columns.time[row as usize],
            Store::Files(columns) => columns.time.u32(row),
        };
        if time != LATE {
            return i64::from(time);
        }
        let found = self.late.binary_search_by_key(&row, |(late, _)| *late);
        found.map_or(i64::from(LATE), |at| self.late[at].1)
    }

    /// Stored bytes.
    #[must_use]
    pub fn packed_length(&self, row: u32) -> u32 {
        match &self.store {
            Store::Memory(columns) => columns.packed[row as usize],
            Store::Files(columns) => columns.packed.u32(row),
        }
    }

    /// Plaintext bytes.
    #[must_use]
    pub fn original_length(&self, row: u32) -> u32 {
        match &self.store {
            Store::Memory(columns) => columns.original[row as usize],
            Store::Files(columns) => columns.original.u32(row),
        }
    }

    /// Offset in the pack.
    #[must_use]
    pub fn offset(&self, row: u32) -> u32 {
        self.place(row) & !DELETED
    }

    /// Compression header.
    #[must_use]
    pub fn compression(&self, row: u32) -> CompressionId {
        self.format(row).compression
    }

    /// Format version that wrote the content.
    #[must_use]
    pub fn format_version(&self, row: u32) -> u8 {
        self.format(row).version
    }

    fn format(&self, row: u32) -> Format {
        let format = match &self.store {
            Store::Memory(columns) => columns.format[row as usize],
            Store::Files(columns) => columns.format.u16(row),
        };
        self.formats[usize::from(format)]
    }

    /// Ordinal of the row's pack in [`Table::packs`].
    #[must_use]
    pub fn pack(&self, row: u32) -> u32 {
        match &self.store {
            Store::Memory(columns) => columns.pack[row as usize],
            Store::Files(columns) => columns.pack_names[columns.pack.u32(row) as usize],
        }
    }

    /// Packs of the visible winners, each once, sorted by name.
    #[must_use]
    pub fn packs(&self) -> &[BlobId] {
        &self.packs
    }

    /// Ordinal of a pack in [`Table::packs`].
    #[must_use]
    pub fn find_pack(&self, pack: &BlobId) -> Option<u32> {
        self.packs.binary_search(pack).ok().and_then(|at| u32::try_from(at).ok())
    }

    /// Packs named by winners that the watermark hides, sorted; visible winners may name some of them too.
    #[must_use]
    pub fn hidden_packs(&self) -> &[BlobId] {
        &self.hidden_packs
    }

    /// Number of winners that the watermark hides.
    #[must_use]
    pub fn hidden_count(&self) -> u64 {
        self.hidden_count
    }

    /// Bytes and rows of each pack, by its ordinal.
    #[must_use]
    pub fn pack_sizes(&self) -> Vec<PackSize> {
        let mut sizes = vec![PackSize::default(); self.packs.len()];
        for row in self.rows() {
            let size = &mut sizes[self.pack(row) as usize];
            let bytes = u64::from(self.packed_length(row));
            size.bytes += bytes;
            size.rows += 1;
            if !self.is_deleted(row) {
                size.live_bytes += bytes;
                size.live_rows += 1;
            }
        }
        sizes
    }

    /// Groups all rows by pack.
    #[must_use]
    pub fn pack_rows(&self) -> PackRows {
        let mut starts = vec![0u32; self.packs.len() + 1];
        for row in self.rows() {
            starts[self.pack(row) as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; self.len()];
        for row in self.rows() {
            let slot = &mut next[self.pack(row) as usize];
            rows[*slot as usize] = row;
            *slot += 1;
        }
        for pack in starts.windows(2) {
            rows[pack[0] as usize..pack[1] as usize].sort_unstable_by_key(|row| (self.offset(*row), *row));
        }
        PackRows { starts, rows }
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("rows", &self.len()).field("packs", &self.packs.len()).finish_non_exhaustive()
    }
}

fn bucket_of(top: u64, bits: u32) -> usize {
    top.checked_shr(64 - bits).map_or(0, |bucket| usize::try_from(bucket).unwrap_or(usize::MAX))
}
