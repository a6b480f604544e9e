//! Index version 2 (`repo/content/index/index_v2.go`): tables of packs and formats, entries of 16 to 19 bytes.

use std::collections::HashMap;
use std::sync::Arc;

use super::write::Sorted;
use super::{Format, Index, PackNames, Part, Raw, Values, bytes_at, check_key_size, end_of_entries};
use crate::content::{CompressionId, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::BlobId;

pub(super) const HEADER: usize = 17;
const PACK: usize = 5;
const FORMAT: usize = 6;
const PACKS_MAX: usize = 1 << 24;
const PACKS_SHORT: usize = 1 << 16;
const FORMATS_MAX: usize = 255;
const LENGTH_MAX: u32 = 1 << 28;
const LENGTH_SHORT: u32 = 1 << 24;
/// Kopia's writer stops here although 31 bits are read.
const OFFSET_MAX: u32 = 1 << 30;
const STRIDE_MAX: usize = 256;
const DELETED: u32 = 1 << 31;

/// Where everything is.
pub(super) struct Header {
    pub(super) key: usize,
    pub(super) stride: usize,
    pub(super) count: usize,
    packs: usize,
    formats: usize,
    /// Where the tables begin, right behind the entries.
    pub(super) packs_at: usize,
    formats_at: usize,
    base: u32,
}

impl Header {
    /// From the first bytes of an index of `length` bytes.
    pub(super) fn parse(start: &[u8], length: usize, hash_length: usize) -> Result<Self> {
        let header: [u8; HEADER] = bytes_at(start, 0)?;
        let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let key = usize::from(header[1]);
        let value = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let (count, packs, base) = (number(4) as usize, number(8) as usize, number(13));
        let formats = usize::from(header[12]);
        check_key_size(key, count, hash_length)?;
        if !(16..=19).contains(&value) || key + value > STRIDE_MAX && count > 0 || packs > PACKS_MAX {
            return Err(Error::damaged("parse index: sizes in the header are impossible"));
        }
        let stride = key + value;
        let packs_at = end_of_entries(length, HEADER, stride, count)?;
        let formats_at = end_of_entries(length, packs_at, PACK, packs)?;
        end_of_entries(length, formats_at, FORMAT, formats)?;
        Ok(Self { key, stride, count, packs, formats, packs_at, formats_at, base })
    }

    /// Reads the tables of packs and formats; `part` holds them and the names.
    pub(super) fn tables(&self, part: Part<'_>) -> Result<(Vec<BlobId>, Vec<Format>)> {
        let mut names = PackNames::new(part);
        let mut packs = Vec::with_capacity(self.packs);
        for position in 0..self.packs {
            let row: [u8; PACK] = part.bytes_at(self.packs_at + position * PACK)?;
            packs.push(names.read(u32::from_be_bytes([row[1], row[2], row[3], row[4]]), row[0])?);
        }
        let mut formats = Vec::with_capacity(self.formats);
        for position in 0..self.formats {
            let row: [u8; FORMAT] = part.bytes_at(self.formats_at + position * FORMAT)?;
            if row[5] != 0 {
                return Err(Error::unsupported(format!("read contents of encryption key {}", row[5])));
            }
            let compression = CompressionId(u32::from_be_bytes([row[0], row[1], row[2], row[3]]));
            formats.push(Format { compression, version: row[4] });
        }
        Ok((packs, formats))
    }

    pub(super) fn values(&self) -> Values {
        Values::V2 { base: self.base }
    }
}

pub(super) fn parse(plain: Vec<u8>, hash_length: usize) -> Result<Index> {
    let header = Header::parse(&plain, plain.len(), hash_length)?;
    let (packs, formats) = header.tables(Part::whole(&plain))?;
    let values = Arc::new(header.values());
    let Header { key, stride, count, .. } = header;
    Index { plain, start: HEADER, stride, key, count, packs, formats, values }.check_entries()
}

#[inline]
pub(super) fn raw(value: &[u8], base: u32) -> Result<Raw> {
    let (fixed, rest) = value.split_first_chunk::<16>().ok_or_else(|| Error::damaged("parse index: short entry"))?;
    let place = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let (format, pack_high, lengths_high) = match *rest {
        [] => (0, 0, 0),
        [format] => (format, 0, 0),
        [format, pack] => (format, pack, 0),
        [format, pack, lengths, ..] => (format, pack, lengths),
    };
    Ok(Raw {
        timestamp: i64::from(u32::from_be_bytes([fixed[0], fixed[1], fixed[2], fixed[3]])) + i64::from(base),
        deleted: place & DELETED != 0,
        offset: place & !DELETED,
        original_length: u32::from_be_bytes([lengths_high >> 4, fixed[8], fixed[9], fixed[10]]),
        packed_length: u32::from_be_bytes([lengths_high & 15, fixed[11], fixed[12], fixed[13]]),
        pack: u32::from_be_bytes([0, pack_high, fixed[14], fixed[15]]),
        format,
    })
}

/// What one pass over the entries tells before the first is written: the tables, in order of first use, and the entry size.
struct Tables {
    packs: Vec<BlobId>,
    pack_ordinals: HashMap<BlobId, u32>,
    formats: Vec<Format>,
    value: usize,
}

impl Tables {
    fn of(entries: &Sorted<'_>) -> Result<Self> {
        let mut tables = Self { packs: Vec::new(), pack_ordinals: HashMap::new(), formats: Vec::new(), value: 16 };
        let mut long = false;
        for position in 0..entries.len() {
            let entry = entries.get(position);
            check(&entry)?;
            long |= entry.packed_length >= LENGTH_SHORT || entry.original_length >= LENGTH_SHORT;
            if !tables.pack_ordinals.contains_key(&entry.pack) {
                let ordinal = u32::try_from(tables.packs.len()).map_err(|_| too_big("packs"))?;
                tables.pack_ordinals.insert(entry.pack.clone(), ordinal);
                tables.packs.push(entry.pack.clone());
            }
            let format = format_of(&entry);
            if !tables.formats.contains(&format) {
                tables.formats.push(format);
            }
            if tables.packs.len() > PACKS_MAX || tables.formats.len() > FORMATS_MAX {
                return Err(too_big("packs or formats"));
            }
        }
        tables.value = match (long, tables.packs.len() > PACKS_SHORT, tables.formats.len() > 1) {
            (true, _, _) => 19,
            (_, true, _) => 18,
            (_, _, true) => 17,
            _ => 16,
        };
        Ok(tables)
    }

    fn value(&self, entry: &Entry) -> Result<[u8; 19]> {
        let pack = self.pack_ordinals.get(&entry.pack).ok_or_else(|| too_big("packs"))?.to_be_bytes();
        let format = self.formats.iter().position(|f| *f == format_of(entry)).and_then(|f| u8::try_from(f).ok());
        let (original, packed) = (entry.original_length.to_be_bytes(), entry.packed_length.to_be_bytes());
        let timestamp = u32::try_from(entry.timestamp).map_err(|_| too_big("timestamp"))?;
        let mut value = [0; 19];
        value[..4].copy_from_slice(&timestamp.to_be_bytes());
        value[4..8].copy_from_slice(&(entry.offset | if entry.deleted { DELETED } else { 0 }).to_be_bytes());
        value[8..11].copy_from_slice(&original[1..]);
        value[11..14].copy_from_slice(&packed[1..]);
        value[14..16].copy_from_slice(&pack[2..]);
        value[16] = format.ok_or_else(|| too_big("formats"))?;
        value[17] = pack[1];
        value[18] = (original[0] << 4) | packed[0];
        Ok(value)
    }
}

/// Writes an index of these entries (at least one). The base timestamp is 0, as Kopia writes it.
pub(super) fn build(entries: &Sorted<'_>, hash_length: usize) -> Result<Vec<u8>> {
    let tables = Tables::of(entries)?;
    let key = hash_length + 1;
    let count = u32::try_from(entries.len()).map_err(|_| too_big("entries"))?;
    let extra_at = entries
        .len()
        .checked_mul(key + tables.value)
        .and_then(|length| length.checked_add(HEADER + tables.packs.len() * PACK + tables.formats.len() * FORMAT));
    let extra_at = extra_at.ok_or_else(|| too_big("entries"))?;
    let name_bytes: usize = tables.packs.iter().map(|pack| pack.as_str().len()).sum();

    let mut out = Vec::with_capacity(extra_at + name_bytes);
    out.extend_from_slice(&[2, u8::try_from(key).map_err(|_| too_big("key"))?, 0, tables.value.to_be_bytes()[7]]);
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&u32::try_from(tables.packs.len()).map_err(|_| too_big("packs"))?.to_be_bytes());
    out.push(u8::try_from(tables.formats.len()).map_err(|_| too_big("formats"))?);
    out.extend_from_slice(&[0; 4]);
    for position in 0..entries.len() {
        let entry = entries.get(position);
        entry.id.write_key(&mut out);
        out.extend_from_slice(&tables.value(&entry)?[..tables.value]);
    }
    let mut name_at = extra_at;
    for pack in &tables.packs {
        out.push(u8::try_from(pack.as_str().len()).map_err(|_| too_big("pack name"))?);
        out.extend_from_slice(&u32::try_from(name_at).map_err(|_| too_big("entries"))?.to_be_bytes());
        name_at += pack.as_str().len();
    }
    for format in &tables.formats {
        out.extend_from_slice(&format.compression.0.to_be_bytes());
        out.extend_from_slice(&[format.version, 0]);
    }
    for pack in &tables.packs {
        out.extend_from_slice(pack.as_str().as_bytes());
    }
    Ok(out)
}

fn check(entry: &Entry) -> Result<()> {
    let fits = entry.packed_length < LENGTH_MAX
        && entry.original_length < LENGTH_MAX
        && entry.offset < OFFSET_MAX
        && u32::try_from(entry.timestamp).is_ok();
    let refuse = || format!("write {} into an index of version 2: offset, length or timestamp is too high", entry.id);
    fits.then_some(()).ok_or_else(|| Error::new(ErrorKind::Unsupported, refuse()))
}

fn format_of(entry: &Entry) -> Format {
    Format { compression: entry.compression, version: entry.format_version }
}

fn too_big(what: &str) -> Error {
    Error::unsupported(format!("build an index of version 2: too many or too large: {what}"))
}
