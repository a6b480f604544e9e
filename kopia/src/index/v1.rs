//! Index version 1 (`repo/content/index/index_v1.go`): no compression, the original length follows from the packed one.

use std::collections::HashMap;
use std::sync::Arc;

use super::write::Sorted;
use super::{Format, Index, PackNames, Part, Raw, V1_OVERHEAD, Values, bytes_at, check_key_size, end_of_entries};
use crate::content::CompressionId;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::BlobId;

pub(super) const HEADER: usize = 8;
const VALUE: usize = 20;
const DELETED: u32 = 1 << 31;
const TIMESTAMP_MAX: i64 = (1 << 48) - 1;

/// Where everything is.
pub(super) struct Header {
    pub(super) key: usize,
    pub(super) stride: usize,
    pub(super) count: usize,
    /// Where the names begin, right behind the entries.
    pub(super) names_at: usize,
}

impl Header {
    /// From the first bytes of an index of `length` bytes.
    pub(super) fn parse(start: &[u8], length: usize, hash_length: usize) -> Result<Self> {
        let header: [u8; HEADER] = bytes_at(start, 0)?;
        let key = usize::from(header[1]);
        let value = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let count = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        check_key_size(key, count, hash_length)?;
        if value != VALUE {
            return Err(Error::damaged(format!("parse index: entries of {value} bytes, version 1 has {VALUE}")));
        }
        let stride = key + VALUE;
        Ok(Self { key, stride, count, names_at: end_of_entries(length, HEADER, stride, count)? })
    }
}

/// Packs and formats, which this version tells with each entry.
pub(super) struct Tables<'a> {
    names: PackNames<'a>,
    pub(super) packs: Vec<BlobId>,
    pub(super) formats: Vec<Format>,
    pack_ordinals: HashMap<(u32, u8), u32>,
    format_ordinals: Box<[u8; 256]>,
}

impl<'a> Tables<'a> {
    /// `part` holds the names.
    pub(super) fn new(part: Part<'a>) -> Self {
        Self {
            names: PackNames::new(part),
            packs: Vec::new(),
            formats: Vec::new(),
            pack_ordinals: HashMap::new(),
            format_ordinals: Box::new([u8::MAX; 256]),
        }
    }

    /// Notes what the value of an entry names.
    pub(super) fn note(&mut self, value: &[u8]) -> Result<()> {
        let value: [u8; VALUE] = bytes_at(value, 0)?;
        let (name_length, name_offset) = (value[7], word(&value, 8));
        if let std::collections::hash_map::Entry::Vacant(slot) = self.pack_ordinals.entry((name_offset, name_length)) {
            slot.insert(ordinal(self.packs.len())?);
            self.packs.push(self.names.read(name_offset, name_length)?);
        }
        let slot = &mut self.format_ordinals[usize::from(value[6])];
        let known = self.formats.get(usize::from(*slot)).is_some_and(|f: &Format| f.version == value[6]);
        if !known {
            *slot = u8::try_from(self.formats.len()).map_err(|_| Error::damaged("parse index: too many formats"))?;
            self.formats.push(Format { compression: CompressionId(0), version: value[6] });
        }
        Ok(())
    }

    pub(super) fn finish(self) -> (Vec<BlobId>, Vec<Format>, Values) {
        let values = Values::V1 { packs: self.pack_ordinals, formats: self.format_ordinals };
        (self.packs, self.formats, values)
    }
}

pub(super) fn parse(plain: Vec<u8>, hash_length: usize) -> Result<Index> {
    let Header { key, stride, count, .. } = Header::parse(&plain, plain.len(), hash_length)?;
    let mut tables = Tables::new(Part::whole(&plain));
    for entry in plain.get(HEADER..).unwrap_or_default().chunks_exact(stride).take(count) {
        tables.note(&entry[key..])?;
    }
    let (packs, formats, values) = tables.finish();
    let values = Arc::new(values);
    Index { plain, start: HEADER, stride, key, count, packs, formats, values }.check_entries()
}

pub(super) fn raw(value: &[u8], packs: &HashMap<(u32, u8), u32>, formats: &[u8; 256]) -> Result<Raw> {
    let value: [u8; VALUE] = bytes_at(value, 0)?;
    let seconds = u64::from_be_bytes([0, 0, value[0], value[1], value[2], value[3], value[4], value[5]]);
    let place = word(&value, 12);
    let packed_length = word(&value, 16);
    let damaged = |what: &str| Error::damaged(format!("parse index entry: {what}"));
    Ok(Raw {
        timestamp: i64::try_from(seconds).map_err(|_| damaged("impossible timestamp"))?,
        deleted: place & DELETED != 0,
        offset: place & !DELETED,
        packed_length,
        original_length: packed_length.checked_sub(V1_OVERHEAD).ok_or_else(|| damaged("packed length below 28"))?,
        pack: *packs.get(&(word(&value, 8), value[7])).ok_or_else(|| damaged("unknown pack"))?,
        format: formats[usize::from(value[6])],
    })
}

/// Writes an index of these entries.
pub(super) fn build(entries: &Sorted<'_>, hash_length: usize) -> Result<Vec<u8>> {
    let key = hash_length + 1;
    let too_many = || Error::unsupported("build an index of more than 4 GiB");
    let count = u32::try_from(entries.len()).map_err(|_| too_many())?;
    let extra_at = entries.len().checked_mul(key + VALUE).and_then(|length| length.checked_add(HEADER));
    let extra_at = extra_at.ok_or_else(too_many)?;

    let mut out = Vec::with_capacity(extra_at);
    out.extend_from_slice(&[1, u8::try_from(key).map_err(|_| too_many())?]);
    out.extend_from_slice(&[0, 20]);
    out.extend_from_slice(&count.to_be_bytes());
    let mut extra = Vec::new();
    let mut offsets: HashMap<BlobId, u32> = HashMap::new();
    for position in 0..entries.len() {
        let entry = entries.get(position);
        let refuse = |what: &str| {
            Error::new(ErrorKind::Internal, format!("write {} into an index of version 1: {what}", entry.id))
        };
        if entry.compression != CompressionId(0) {
            return Err(refuse("it has no compression"));
        }
        if entry.packed_length.checked_sub(V1_OVERHEAD) != Some(entry.original_length) {
            return Err(refuse("its lengths do not differ by 28 bytes"));
        }
        if entry.offset >= DELETED || !(0..=TIMESTAMP_MAX).contains(&entry.timestamp) {
            return Err(refuse("offset or timestamp is too high"));
        }
        let name = entry.pack.as_str().as_bytes();
        let name_length = u8::try_from(name.len()).map_err(|_| refuse("its pack name is too long"))?;
        let name_offset = if let Some(offset) = offsets.get(&entry.pack) {
            *offset
        } else {
            let offset = u32::try_from(extra_at + extra.len()).map_err(|_| too_many())?;
            extra.extend_from_slice(name);
            offsets.insert(entry.pack.clone(), offset);
            offset
        };
        entry.id.write_key(&mut out);
        out.extend_from_slice(&entry.timestamp.to_be_bytes()[2..]);
        out.extend_from_slice(&[entry.format_version, name_length]);
        out.extend_from_slice(&name_offset.to_be_bytes());
        out.extend_from_slice(&(entry.offset | if entry.deleted { DELETED } else { 0 }).to_be_bytes());
        out.extend_from_slice(&entry.packed_length.to_be_bytes());
    }
    out.extend_from_slice(&extra);
    Ok(out)
}

fn word(value: &[u8; VALUE], at: usize) -> u32 {
    u32::from_be_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]])
}

fn ordinal(count: usize) -> Result<u32> {
    u32::try_from(count).map_err(|_| Error::damaged("parse index: too many packs"))
}
