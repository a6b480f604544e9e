//! Reading whole objects, chunk after chunk.

use std::io;

use super::{ObjectId, SeekEntry, SeekTable};
use crate::compression::Decompressor;
use crate::content::ContentId;
use crate::error::{Error, ErrorKind, Result};

/// Deepest nesting of seek tables within seek tables; the recursion of this module ends there.
pub const NESTING_MAX: u32 = 32;

/// Longest seek table that is held in memory: 8 million chunks.
pub const TABLE_BYTES_MAX: u64 = 512 << 20;

/// Most contents that one seek table is put together from. A splitter makes a table of [`TABLE_BYTES_MAX`] of some thousands; tables
/// that name one another can ask for any number of tiny ones.
const TABLE_PIECES_MAX: u32 = 1 << 20;

/// Longest plaintext of a `Z` object whose length no seek table states; such an object is one chunk of a splitter.
const COMPRESSED_BYTES_MAX: usize = 256 << 20;

/// Reads the plaintext of one content.
pub trait Fetch: FnMut(&ContentId) -> Result<Vec<u8>> {}
impl<F: FnMut(&ContentId) -> Result<Vec<u8>> + ?Sized> Fetch for F {}

/// An object's bytes, one chunk in memory at a time.
pub struct ObjectReader<F> {
    object: ObjectId,
    fetch: F,
    decompressor: Decompressor,
    /// Parts yet to come; the innermost table last.
    parts: Vec<std::vec::IntoIter<SeekEntry>>,
    /// A direct object that has not been read yet.
    single: bool,
    length: Option<u64>,
    chunk: Vec<u8>,
    position: usize,
}

impl<F: Fetch> ObjectReader<F> {
    /// Opens `object`. An indirect object's tables are read now, a direct object only on the first read.
    ///
    /// # Errors
    /// Those of `fetch`; `Damaged` if a table is malformed.
    pub fn open(object: ObjectId, mut fetch: F) -> Result<Self> {
        let mut decompressor = Decompressor::new();
        let mut parts = Vec::new();
        let mut length = None;
        if let Some(table) = object.table() {
            let table = read_table(&table, &mut fetch, &mut decompressor, NESTING_MAX)?;
            length = Some(table.length());
            parts.push(table.entries.into_iter());
        }
        let single = parts.is_empty();
        Ok(Self { object, fetch, decompressor, parts, single, length, chunk: Vec::new(), position: 0 })
    }

    /// Length in bytes, if a table states it.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next chunk; `None` after the last.
    ///
    /// # Errors
    /// Those of `fetch`; `Damaged` if a chunk is not as long as its table says, or a nested table is malformed.
    pub fn next_chunk(&mut self) -> Result<Option<&[u8]>> {
        self.position = 0;
        self.chunk.clear();
        if std::mem::take(&mut self.single) {
            self.chunk = read_direct(&self.object, None, &mut self.fetch, &mut self.decompressor)?;
            self.position = self.chunk.len();
            return Ok(Some(&self.chunk));
        }
        while let Some(level) = self.parts.last_mut() {
            let Some(part) = level.next() else {
                self.parts.pop();
                continue;
            };
            let Some(table) = part.object.table() else {
                self.chunk = read_direct(&part.object, Some(part.length), &mut self.fetch, &mut self.decompressor)?;
                self.position = self.chunk.len();
                return Ok(Some(&self.chunk));
            };
            let depth = u32::try_from(self.parts.len() + 1).ok().and_then(|levels| NESTING_MAX.checked_sub(levels));
            let depth = depth.ok_or_else(|| too_deep(&part.object))?;
            let table = read_table(&table, &mut self.fetch, &mut self.decompressor, depth)?;
            check_length(&part.object, table.length(), part.length)?;
            self.parts.push(table.entries.into_iter());
        }
        Ok(None)
    }
}

impl<F: Fetch> io::Read for ObjectReader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.chunk.len() && !buffer.is_empty() {
            match self.next_chunk() {
                Ok(Some(_)) => self.position = 0,
                Ok(None) => return Ok(0),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let rest = self.chunk.get(self.position..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

/// The seek table of an indirect object; `None` of a direct one.
///
/// # Errors
/// Those of `fetch`; `Damaged` if the table is malformed; `Unsupported` beyond [`TABLE_BYTES_MAX`].
pub fn seek_table<F: Fetch>(object: &ObjectId, mut fetch: F) -> Result<Option<SeekTable>> {
    let Some(table) = object.table() else { return Ok(None) };
    read_table(&table, &mut fetch, &mut Decompressor::new(), NESTING_MAX).map(Some)
}

/// Reads and parses the table that `table` (an object, itself perhaps in chunks) holds.
pub(super) fn read_table<F: Fetch + ?Sized>(
    table: &ObjectId,
    fetch: &mut F,
    decompressor: &mut Decompressor,
    depth: u32,
) -> Result<SeekTable> {
    read_pieces(table, fetch, decompressor, depth, &mut 0)
}

fn read_pieces<F: Fetch + ?Sized>(
    table: &ObjectId,
    fetch: &mut F,
    decompressor: &mut Decompressor,
    depth: u32,
    pieces: &mut u32,
) -> Result<SeekTable> {
    let plain = read_whole(table, TABLE_BYTES_MAX, fetch, decompressor, depth, pieces)
        .and_then(|plain| SeekTable::parse(&plain))
        .map_err(|error| error.at(format!("read seek table {table}")))?;
    Ok(plain)
}

/// All bytes of an object, at most `cap`.
fn read_whole<F: Fetch + ?Sized>(
    object: &ObjectId,
    cap: u64,
    fetch: &mut F,
    decompressor: &mut Decompressor,
    depth: u32,
    pieces: &mut u32,
) -> Result<Vec<u8>> {
    let Some(table) = object.table() else { return read_direct(object, None, fetch, decompressor) };
    let depth = depth.checked_sub(1).ok_or_else(|| too_deep(object))?;
    let table = read_pieces(&table, fetch, decompressor, depth, pieces)?;
    if table.length() > cap {
        let step = format!("read object {object}: {} bytes are more than the {cap} a table may have", table.length());
        return Err(Error::new(ErrorKind::Unsupported, step));
    }
    let mut whole = Vec::new();
    for part in table.entries {
        *pieces = pieces.saturating_add(1);
        if *pieces > TABLE_PIECES_MAX {
            return Err(Error::damaged(format!(
                "read object {object}: a table of more than {TABLE_PIECES_MAX} pieces"
            )));
        }
        let bytes = match part.object.table() {
            None => read_direct(&part.object, Some(part.length), fetch, decompressor)?,
            Some(_) => read_whole(&part.object, part.length, fetch, decompressor, depth, pieces)?,
        };
        check_length(&part.object, bytes.len() as u64, part.length)?;
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

/// The bytes of an object that is one content.
fn read_direct<F: Fetch + ?Sized>(
    object: &ObjectId,
    length: Option<u64>,
    fetch: &mut F,
    decompressor: &mut Decompressor,
) -> Result<Vec<u8>> {
    let mut plain = fetch(&object.content)?;
    if object.compressed {
        let cap = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(COMPRESSED_BYTES_MAX);
        let mut out = Vec::new();
        decompressor
            .decompress_headed(&plain, cap, &mut out)
            .map_err(|error| error.at(format!("decompress object {object}")))?;
        plain = out;
    }
    if let Some(length) = length {
        check_length(object, plain.len() as u64, length)?;
    }
    Ok(plain)
}

fn check_length(object: &ObjectId, found: u64, expected: u64) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::damaged(format!("read object {object}: {found} bytes, its seek table says {expected}")))
}

pub(super) fn too_deep(object: &ObjectId) -> Error {
    Error::damaged(format!("read object {object}: seek tables nested more than {NESTING_MAX} deep"))
}

#[cfg(test)]
mod tests;
