//! Every stored or sent record: a version, a kind, two checksums and a body. Names bincode, alone in the workspace.
//!
//! ```text
//! "VRGR" | version u16 | kind u16 | body length u32 | CRC-32 of these 12 bytes u32 | BLAKE3 of header and body (32) | body
//! ```
//! Numbers are little-endian. The header has a checksum of its own, so that a damaged length is never taken for a record that a
//! crash cut short.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::Digest;

/// Version that is written.
pub const VERSION: u16 = 1;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 48;
/// Largest body, in bytes.
pub const BODY_BYTES_MAX: usize = 16 << 20;

const MAGIC: &[u8; 4] = b"VRGR";
const CHECKED_BYTES: usize = 12;

/// What a record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Kind {
    /// An [`Event`](crate::Event).
    Event = 1,
    /// A [`Command`](crate::Command).
    Command = 2,
    /// A [`ChainRecord`](crate::chain::ChainRecord).
    Chain = 3,
    /// One entry of the ledger: command, events, effects' consequences.
    Entry = 4,
    /// A [`PlanHeader`](crate::PlanHeader).
    PlanHeader = 5,
    /// A [`JobSpec`](crate::JobSpec).
    JobSpec = 6,
    /// A snapshot of the machine's state.
    State = 7,
    /// Names of what was done, beside the ledger.
    Evidence = 8,
    /// Whose data folder this is.
    Identity = 9,
    /// Where a raft log begins and ends, and the vote.
    RaftHead = 10,
    /// An entry of a raft log.
    RaftEntry = 11,
    /// What of a raft log was acknowledged.
    RaftMark = 12,
    /// How far a raft log is known to be committed.
    RaftCommitted = 13,
    /// A part of a raft snapshot.
    RaftSnapshot = 14,
    /// A request between coordinators.
    RaftRequest = 15,
    /// An answer between coordinators.
    RaftAnswer = 16,
    /// A segment of a ledger that was archived.
    LedgerArchive = 20,
    /// What workers in processes of their own say and hear.
    Work = 31,
    /// A [`Message`](crate::work_queue::message::Message) of the work queue.
    WorkMessage = 30,
    /// A part of the evidence that was archived.
    EvidenceArchive = 32,
    /// Figures over all time, as far as they were counted.
    Figures = 33,
}

/// A record that cannot be read or written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Fewer bytes than the record needs.
    #[error("the record is cut short: {have} of {need} bytes")]
    Short {
        /// Bytes there.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// It does not begin as a record does, or its header's checksum is wrong.
    #[error("this is not the beginning of a record")]
    Header,
    /// A version that this program does not know.
    #[error("record version {0} is not known; a newer verger wrote it")]
    Version(u16),
    /// Another kind of record.
    #[error("record kind {found}, where {wanted:?} belongs")]
    Kind {
        /// Number in the record.
        found: u16,
        /// What was asked for.
        wanted: Kind,
    },
    /// Longer than a record may be.
    #[error("a body of {0} bytes is longer than a record may be")]
    TooLong(usize),
    /// The body's digest is wrong.
    #[error("the record's digest does not match its bytes")]
    Digest,
    /// The body is not what the kind says.
    #[error("the record's body does not decode: {0}")]
    Body(String),
}

impl EnvelopeError {
    /// Whether the record is whole, and of a program that knows more than this one: another version, or a sound body that does not decode.
    #[must_use]
    pub fn is_of_newer(&self) -> bool {
        matches!(self, Self::Version(_) | Self::Body(_))
    }
}

/// A record's header, already checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Version.
    pub version: u16,
    /// Number of its kind.
    pub kind: u16,
    /// Bytes of the whole record, header included.
    pub record_bytes: usize,
}

/// Reads a header and checks it.
///
/// # Errors
/// `Short`, `Header`, `Version` or `TooLong`.
pub fn header(bytes: &[u8]) -> Result<Header, EnvelopeError> {
    let short = EnvelopeError::Short { have: bytes.len(), need: HEADER_BYTES };
    let head: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(short)?;
    let crc = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
    if !head.starts_with(MAGIC) || crc32fast::hash(&head[..CHECKED_BYTES]) != crc {
        return Err(EnvelopeError::Header);
    }
    let version = u16::from_le_bytes([head[4], head[5]]);
    if version != VERSION {
        return Err(EnvelopeError::Version(version));
    }
    let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    if length > BODY_BYTES_MAX {
        return Err(EnvelopeError::TooLong(length));
    }
    Ok(Header { version, kind: u16::from_le_bytes([head[6], head[7]]), record_bytes: HEADER_BYTES + length })
}

/// Writes one record.
///
/// # Errors
/// `TooLong`, or `Body` if the value cannot be encoded.
pub fn encode<T: Serialize>(kind: Kind, value: &T) -> Result<Vec<u8>, EnvelopeError> {
    let body = bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|error| EnvelopeError::Body(error.to_string()))?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= BODY_BYTES_MAX);
    let length = length.ok_or(EnvelopeError::TooLong(body.len()))?;
    let mut record = Vec::with_capacity(HEADER_BYTES + body.len());
    record.extend_from_slice(MAGIC);
    record.extend_from_slice(&VERSION.to_le_bytes());
    record.extend_from_slice(&(kind as u16).to_le_bytes());
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&crc32fast::hash(&record).to_le_bytes());
    let digest = body_digest(&record, &body);
    record.extend_from_slice(digest.as_bytes());
    record.extend_from_slice(&body);
    Ok(record)
}

/// Reads a value from a record that fills `bytes` exactly.
///
/// # Errors
/// Any [`EnvelopeError`]; nothing is decoded before the digest holds.
pub fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, EnvelopeError> {
    let header = header(bytes)?;
    if header.kind != kind as u16 {
        return Err(EnvelopeError::Kind { found: header.kind, wanted: kind });
    }
    if bytes.len() != header.record_bytes {
        return Err(EnvelopeError::Short { have: bytes.len(), need: header.record_bytes });
    }
    let (head, body) = bytes.split_at(HEADER_BYTES);
    if body_digest(&head[..16], body).as_bytes() != &head[16..] {
        return Err(EnvelopeError::Digest);
    }
    let (value, used) = decode_body(body).map_err(|error| EnvelopeError::Body(error.to_string()))?;
    if used == body.len() { Ok(value) } else { Err(EnvelopeError::Body(format!("{} bytes left", body.len() - used))) }
}

/// Under a limit that bounds what a length inside the body can make us allocate. bincode counts a number as the bytes of its type,
/// at most 16, where one may be written: a tighter limit would refuse what [`encode`] wrote.
fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<(T, usize), bincode::error::DecodeError> {
    const NUMBER_BYTES_MAX: usize = 16;
    const SHORT: usize = 4 << 10;
    const MEDIUM: usize = 256 << 10;
    let config = bincode::config::standard();
    if body.len() <= SHORT {
        bincode::serde::decode_from_slice(body, config.with_limit::<{ SHORT * NUMBER_BYTES_MAX }>())
    } else if body.len() <= MEDIUM {
        bincode::serde::decode_from_slice(body, config.with_limit::<{ MEDIUM * NUMBER_BYTES_MAX }>())
    } else {
        bincode::serde::decode_from_slice(body, config.with_limit::<{ BODY_BYTES_MAX * NUMBER_BYTES_MAX }>())
    }
}

fn body_digest(head: &[u8], body: &[u8]) -> Digest {
    Digest(*blake3::Hasher::new().update(head).update(body).finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let record = encode(Kind::Event, &("closed", 7u64)).unwrap();
        assert_eq!(decode::<(String, u64)>(Kind::Event, &record).unwrap(), ("closed".to_owned(), 7));
        for at in 0..record.len() {
            assert!(decode::<(String, u64)>(Kind::Event, &record[..at]).is_err());
            for bit in 0..8 {
                let mut bad = record.clone();
                bad[at] ^= 1 << bit;
                assert!(decode::<(String, u64)>(Kind::Event, &bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn kinds_versions_and_lengths_are_told_apart() {
        let record = encode(Kind::Event, &7u64).unwrap();
        let wrong = EnvelopeError::Kind { found: 1, wanted: Kind::Command };
        assert_eq!(decode::<u64>(Kind::Command, &record), Err(wrong));
        let mut newer = record.clone();
        newer[4] = 2;
        let crc = crc32fast::hash(&newer[..12]).to_le_bytes();
        newer[12..16].copy_from_slice(&crc);
        assert_eq!(decode::<u64>(Kind::Event, &newer), Err(EnvelopeError::Version(2)));
        let mut long = record;
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let crc = crc32fast::hash(&long[..12]).to_le_bytes();
        long[12..16].copy_from_slice(&crc);
        assert_eq!(header(&long), Err(EnvelopeError::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn long_records_of_short_numbers_read_back() {
        for count in [0, 1, 4095, 4096, 300_000, 3_000_000] {
            let numbers = vec![1u64; count];
            let record = encode(Kind::Event, &numbers).unwrap();
            assert!(decode::<Vec<u64>>(Kind::Event, &record).unwrap() == numbers, "{count}");
        }
    }

    #[test]
    fn a_hostile_length_in_the_body_allocates_nothing() {
        let record = encode(Kind::Event, &u64::MAX).unwrap();
        assert!(decode::<Vec<u8>>(Kind::Event, &record).is_err());
        assert!(decode::<Vec<u64>>(Kind::Event, &record).is_err());
    }
}
