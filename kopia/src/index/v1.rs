//! Index version 1 (`repo/content/index/index_v1.go`): no compression, the original length follows from the packed one.

use std::collections::HashMap;

use super::write::Sorted;
use super::{Format, Index, PackNames, Raw, V1_OVERHEAD, Values, bytes_at, check_key_size, end_of_entries};
use crate::content::CompressionId;
use crate::error::{Error, ErrorKind, Result};

const HEADER: usize = 8;
const VALUE: usize = 20;
const DELETED: u32 = 1 << 31;
const TIMESTAMP_MAX: i64 = (1 << 48) - 1;

pub(super) fn parse(plain: Vec<u8>, hash_length: usize) -> Result<Index> {
    let header: [u8; HEADER] = bytes_at(&plain, 0)?;
    let key = usize::from(header[1]);
    let value = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let count = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
    check_key_size(key, count, hash_length)?;
    if value != VALUE {
        return Err(Error::damaged(format!("parse index: entries of {value} bytes, version 1 has {VALUE}")));
    }
    let stride = key + VALUE;
    end_of_entries(&plain, HEADER, stride, count)?;

    let (mut packs, mut formats) = (Vec::new(), Vec::new());
    let mut pack_ordinals = HashMap::new();
    let mut format_ordinals = Box::new([u8::MAX; 256]);
    let mut names = PackNames::new(&plain);
    for position in 0..count {
        let value: [u8; VALUE] = bytes_at(&plain, HEADER + position * stride + key)?;
        let (name_length, name_offset) = (value[7], word(&value, 8));
        if let std::collections::hash_map::Entry::Vacant(slot) = pack_ordinals.entry((name_offset, name_length)) {
            slot.insert(ordinal(packs.len())?);
            packs.push(names.read(name_offset, name_length)?);
        }
        let slot = &mut format_ordinals[usize::from(value[6])];
        let known = formats.get(usize::from(*slot)).is_some_and(|f: &Format| f.version == value[6]);
        if !known {
            *slot = u8::try_from(formats.len()).map_err(|_| Error::damaged("parse index: too many formats"))?;
            formats.push(Format { compression: CompressionId(0), version: value[6] });
        }
    }
    let values = Values::V1 { packs: pack_ordinals, formats: format_ordinals };
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
    let mut offsets: HashMap<crate::storage::BlobId, u32> = HashMap::new();
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
