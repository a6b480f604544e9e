//! Index blobs: reading and writing both versions, and merging many into one sorted table.

mod columns;
pub mod merge;
pub mod spooled;
pub mod table;
pub mod v1;
pub mod v2;
pub mod write;

pub use merge::TableBuilder;
pub use spooled::{Place, Plaintext, SpooledIndex, merge_spooled};
pub use table::{PackRows, PackSize, Table};

use std::collections::HashMap;
use std::sync::Arc;

use crate::content::{CompressionId, ContentId, Entry};
use crate::error::{Error, Result};
use crate::storage::BlobId;

/// Bytes that encryption adds to a content; index version 1 derives the original length from it.
pub(crate) const V1_OVERHEAD: u32 = 28;

/// Key size that Kopia writes into an index without entries.
const KEY_SIZE_EMPTY: usize = 0xFF;

/// How a content is stored: what the format table of index version 2 says, and version 1's format byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Format {
    pub(crate) compression: CompressionId,
    pub(crate) version: u8,
}

/// The value of one entry; pack and format are ordinals in the tables of its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) timestamp: i64,
    pub(crate) deleted: bool,
    pub(crate) offset: u32,
    pub(crate) packed_length: u32,
    pub(crate) original_length: u32,
    pub(crate) pack: u32,
    pub(crate) format: u8,
}

/// One parsed index (version 1 or 2), over plaintext bytes. Parsing checks bounds, sizes and order once.
pub struct Index {
    plain: Vec<u8>,
    /// Where the entries begin.
    start: usize,
    /// Length of key and value.
    stride: usize,
    key: usize,
    count: usize,
    packs: Vec<BlobId>,
    formats: Vec<Format>,
    values: Arc<Values>,
}

/// What differs between the versions when a value is read.
enum Values {
    V1 { packs: HashMap<(u32, u8), u32>, formats: Box<[u8; 256]> },
    V2 { base: u32 },
}

impl Index {
    /// Parses `plain`, the whole payload of an index blob or of a pack-local index, of a repository whose hashes are
    /// `hash_length` bytes long. Bytes behind the index (random tails) are ignored.
    ///
    /// # Errors
    /// `Unsupported` for another version; `Damaged` for anything that Kopia does not write: sizes that do not fit the
    /// input, keys of another length, out of order or twice, impossible pack names, unknown packs or formats.
    pub fn parse(plain: Vec<u8>, hash_length: usize) -> Result<Self> {
        match plain.first() {
            Some(1) => v1::parse(plain, hash_length),
            Some(2) => v2::parse(plain, hash_length),
            Some(other) => Err(Error::unsupported(format!("parse an index of version {other}"))),
            None => Err(Error::damaged("parse an index of no bytes")),
        }
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

    /// Packs that it names, in its own order.
    #[must_use]
    pub fn packs(&self) -> &[BlobId] {
        &self.packs
    }

    /// Entries in key order.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        (0..self.count).map(|position| self.entry(position))
    }

    fn entry(&self, position: usize) -> Result<Entry> {
        let raw = self.raw(position)?;
        let missing = || Error::damaged(format!("parse index entry {position}: unknown pack or format"));
        let format = self.formats.get(usize::from(raw.format)).ok_or_else(missing)?;
        Ok(Entry {
            id: ContentId::from_key(self.key(position))?,
            timestamp: raw.timestamp,
            deleted: raw.deleted,
            pack: self.packs.get(raw.pack as usize).ok_or_else(missing)?.clone(),
            offset: raw.offset,
            packed_length: raw.packed_length,
            original_length: raw.original_length,
            compression: format.compression,
            format_version: format.version,
        })
    }

    /// Binary key of an entry. Parsing has checked that all entries lie inside the input.
    #[inline]
    pub(crate) fn key(&self, position: usize) -> &[u8] {
        let at = self.start + position * self.stride;
        &self.plain[at..at + self.key]
    }

    /// Value of an entry.
    ///
    /// # Errors
    /// `Damaged` for a value that no writer makes; never after parsing has gone over it.
    #[inline]
    pub(crate) fn raw(&self, position: usize) -> Result<Raw> {
        let at = self.start + position * self.stride;
        let value = &self.plain[at + self.key..at + self.stride];
        match &*self.values {
            Values::V1 { packs, formats } => v1::raw(value, packs, formats),
            Values::V2 { base } => v2::raw(value, *base),
        }
    }

    pub(crate) fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// Number of entries whose key is smaller than the one that begins with `prefix` and the hash bytes `top`.
    pub(crate) fn partition(&self, prefix: u8, top: u64) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let key = self.key(middle);
            if (key[0], top_of(&key[1..])) < (prefix, top) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// One pass over all entries: keys strictly ascending with known prefixes, values within the tables.
    fn check_entries(self) -> Result<Self> {
        self.check_part(0, &[], (self.packs.len(), self.formats.len()))?;
        Ok(self)
    }

    /// As [`Index::check_entries`], of a part that begins at entry `first` of an index, after the key `last`.
    fn check_part<'a>(&'a self, first: usize, mut last: &'a [u8], (packs, formats): (usize, usize)) -> Result<()> {
        for position in 0..self.count {
            let key = self.key(position);
            if key <= last || !(key[0] == 0 || (b'g'..=b'z').contains(&key[0])) {
                let (what, at) =
                    (if key <= last { "is out of order" } else { "has an unknown prefix" }, first + position);
                return Err(Error::damaged(format!("parse index entry {at}: key {} {what}", hex::encode(key))));
            }
            last = key;
            let raw = self.raw(position)?;
            if raw.pack as usize >= packs || usize::from(raw.format) >= formats {
                return Err(Error::damaged(format!("parse index entry {}: unknown pack or format", first + position)));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("entries", &self.count).field("packs", &self.packs.len()).finish_non_exhaustive()
    }
}

/// The first 8 bytes of a hash as a number (shorter ones padded with zeros): order and look-ups go by it first.
#[inline]
pub(crate) fn top_of(hash: &[u8]) -> u64 {
    if let Some(first) = hash.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut bytes = [0; 8];
    bytes[..hash.len()].copy_from_slice(hash);
    u64::from_be_bytes(bytes)
}

/// `N` bytes at `at`, checked.
fn bytes_at<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N]> {
    let found = data.get(at..).and_then(|rest| rest.first_chunk::<N>());
    found.copied().ok_or_else(|| Error::damaged(format!("parse index: it ends before byte {}", at.saturating_add(N))))
}

/// The key size of a header, held against the repository's; `None` for Kopia's empty index.
fn check_key_size(key: usize, count: usize, hash_length: usize) -> Result<()> {
    if key == hash_length + 1 || (key == KEY_SIZE_EMPTY && count == 0) {
        return Ok(());
    }
    Err(Error::damaged(format!("parse index: keys of {key} bytes where this repository has {}", hash_length + 1)))
}

/// End of the entries, if they fit the input of this length.
fn end_of_entries(length: usize, start: usize, stride: usize, count: usize) -> Result<usize> {
    let end = count.checked_mul(stride).and_then(|all| all.checked_add(start));
    end.filter(|end| *end <= length)
        .ok_or_else(|| Error::damaged(format!("parse index: {count} entries do not fit {length} bytes")))
}

/// Reads pack names out of an index. Overlapping names could make a small input name gigabytes: all together may not be longer
/// than the input.
struct PackNames<'a> {
    part: Part<'a>,
    total: usize,
}

/// The end of an index from a place on, or all of it, and the length of the whole.
#[derive(Clone, Copy)]
struct Part<'a> {
    bytes: &'a [u8],
    at: usize,
    length: usize,
}

impl<'a> Part<'a> {
    fn whole(plain: &'a [u8]) -> Self {
        Self { bytes: plain, at: 0, length: plain.len() }
    }

    fn bytes_at<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        bytes_at(self.bytes, at.checked_sub(self.at).unwrap_or(usize::MAX))
    }
}

impl<'a> PackNames<'a> {
    fn new(part: Part<'a>) -> Self {
        Self { part, total: 0 }
    }

    fn read(&mut self, offset: u32, length: u8) -> Result<BlobId> {
        let start = (offset as usize).checked_sub(self.part.at);
        let end = start.and_then(|start| start.checked_add(usize::from(length)));
        let name = start.zip(end).and_then(|(start, end)| self.part.bytes.get(start..end));
        let name = name.ok_or_else(|| Error::damaged("parse index: a pack name lies outside of it"))?;
        self.total += name.len();
        if self.total > self.part.length {
            return Err(Error::damaged("parse index: pack names are longer than the index"));
        }
        let text = std::str::from_utf8(name).ok().filter(|text| is_pack_name(text));
        text.map(BlobId::new).ok_or_else(|| Error::damaged(format!("parse index: {:?} names no pack", Lossy(name))))
    }
}

struct Lossy<'a>(&'a [u8]);

impl std::fmt::Debug for Lossy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.0))
    }
}

/// `p…` or `q…` of letters, digits, `-` and `_`: such names are deleted by, so nothing else may pass for one.
fn is_pack_name(name: &str) -> bool {
    name.len() > 1
        && name.starts_with(['p', 'q'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests;
