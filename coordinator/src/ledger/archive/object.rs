//! A segment, or a part of the evidence, as an object of the archive: its name, and its bytes under zstd with a checksum.

use std::io::Read as _;

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::storage::{BlobId, ByteRange, Condition, PutOptions, Storage};
use verger_proto::Digest;

use super::index::Archived;
use crate::ledger::segment::{LedgerHead, SEGMENT_BYTES_MAX};

/// Records compress to a fifth of their size or less at this level, at some 100 MB a second.
const LEVEL: i32 = 6;
/// Largest window that a decoder may be made to keep: 32 MiB, more than the longest segment.
const WINDOW_LOG_MAX: u32 = 25;
/// Memory that is reserved before anything was decompressed.
const RESERVED_BYTES: u64 = 1 << 20;
/// Longer names are replaced by their digest.
const FLEET_BYTES_MAX: usize = 48;

/// What objects of a fleet's ledger are called after: its name where that can stand in a blob's name, else the digest of it.
pub(in crate::ledger) fn fleet_part(fleet: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !fleet.is_empty() && fleet.len() <= FLEET_BYTES_MAX && fleet.bytes().all(plain) {
        return fleet.to_owned();
    }
    format!("={:.32}", Digest::of(fleet.as_bytes()).to_string())
}

/// Name of the object of a segment. The same records always give the same name, and other bytes another.
pub(super) fn name(fleet_part: &str, first: LedgerHead, end: LedgerHead, digest: Digest) -> String {
    let last = end.records.saturating_sub(1);
    format!("verger.ledger.{fleet_part}.{:020}-{last:020}.{digest}.zst", first.records)
}

/// The bytes of the object.
pub(in crate::ledger) fn compress(plain: &[u8]) -> Result<Vec<u8>> {
    let compressed = zstd::bulk::Compressor::new(LEVEL).and_then(|mut compressor| {
        compressor.include_checksum(true)?;
        compressor.compress(plain)
    });
    compressed.map_err(|error| Error::new(ErrorKind::Internal, "compress for the archive").with_source(error))
}

/// First record and digest of an object of this fleet, by its name.
pub(super) fn parse(fleet_part: &str, name: &str) -> Option<(u64, Digest)> {
    let rest = name.strip_prefix("verger.ledger.")?.strip_prefix(fleet_part)?.strip_prefix('.')?;
    let (records, digest) = rest.strip_suffix(".zst")?.split_once('.')?;
    let (first, _) = records.split_once('-')?;
    Some((first.parse().ok()?, digest.parse().ok()?))
}

/// The segment of an object that should have `bytes` bytes with this digest. No more memory than that is used, whatever it holds.
pub(super) fn decompress(stored: &[u8], bytes: u64, digest: Digest) -> Result<Vec<u8>> {
    let plain = decompress_at_most(stored, bytes, digest)?;
    if plain.len() as u64 == bytes {
        return Ok(plain);
    }
    Err(Error::damaged(format!("it holds {} bytes instead of {bytes}", plain.len())))
}

fn decompress_at_most(stored: &[u8], most: u64, digest: Digest) -> Result<Vec<u8>> {
    let bad = |error: std::io::Error| Error::damaged("decompress what is archived").with_source(error);
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stored).map_err(bad)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(bad)?;
    let mut plain = Vec::with_capacity(usize::try_from(most.min(RESERVED_BYTES)).unwrap_or_default());
    decoder.take(most.saturating_add(1)).read_to_end(&mut plain).map_err(bad)?;
    if plain.len() as u64 > most || Digest::of(&plain) != digest {
        return Err(Error::damaged(format!("it does not hold at most {most} bytes with the digest {digest}")));
    }
    Ok(plain)
}

/// Reads the object and gives the segment in it, with the object's length.
pub(in crate::ledger) fn read(storage: &dyn Storage, name: &str, bytes: u64, digest: Digest) -> Result<(Vec<u8>, u64)> {
    let stored = get(storage, name, bytes)?;
    Ok((decompress(&stored, bytes, digest)?, stored.len() as u64))
}

/// As [`read`], of a segment of whatever length a segment may have.
pub(in crate::ledger) fn read_any(storage: &dyn Storage, name: &str, digest: Digest) -> Result<Vec<u8>> {
    decompress_at_most(&get(storage, name, SEGMENT_BYTES_MAX)?, SEGMENT_BYTES_MAX, digest)
}

fn get(storage: &dyn Storage, name: &str, bytes: u64) -> Result<bytes::Bytes> {
    let id = BlobId::new(name);
    let length = storage.head(&id)?.length;
    // Nothing that was written here is longer, and what is longer may be anything.
    let most = zstd::zstd_safe::compress_bound(usize::try_from(bytes).unwrap_or(usize::MAX)) as u64;
    if length > most {
        return Err(Error::damaged(format!("it has {length} bytes, one that holds {bytes} bytes has at most {most}")));
    }
    storage.get(&id, ByteRange::Span { offset: 0, length })
}

/// Writes the object unless there is one of that name. Whether it holds what it should is for whoever reads it back to see.
pub(in crate::ledger) fn write(storage: &dyn Storage, name: &str, stored: Vec<u8>) -> Result<()> {
    let id = BlobId::new(name);
    let data = bytes::Bytes::from(stored);
    let if_absent = PutOptions { condition: Condition::IfAbsent, ..PutOptions::default() };
    let written = match storage.put(&id, data.clone(), &if_absent) {
        // Whoever else comes between the look and the write has the same bytes for this name.
        Err(error) if error.kind() == ErrorKind::Unsupported => match storage.head(&id) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => storage.put(&id, data, &PutOptions::default()),
            Err(error) => Err(error),
        },
        other => other,
    };
    match written {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::PreconditionFailed => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is said when an object cannot be had.
pub(super) fn unreadable(archived: &Archived, error: Error) -> Error {
    let step = format!("read {}", archived.shown());
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Damaged => {
            error.into_kind(ErrorKind::Damaged).at(step).with_fix(archived.way_out())
        }
        _ => error.at(step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_an_object_is_noticed() {
        let plain: Vec<u8> = (0..3_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let (bytes, digest) = (plain.len() as u64, Digest::of(&plain));
        let stored = compress(&plain).unwrap();
        assert_eq!(decompress(&stored, bytes, digest).unwrap(), plain);
        for at in 0..stored.len() {
            assert!(decompress(&stored[..at], bytes, digest).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bad = stored.clone();
                bad[at] ^= 1 << bit;
                // A frame has bits that say nothing.
                match decompress(&bad, bytes, digest) {
                    Ok(read) => assert!(read == plain, "byte {at} bit {bit}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "byte {at} bit {bit}"),
                }
            }
        }
        assert!(decompress(&stored, bytes - 1, digest).is_err() && decompress(&stored, bytes + 1, digest).is_err());
    }
}
