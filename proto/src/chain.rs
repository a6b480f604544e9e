//! Ledger records are chained: each holds the digest of the one before.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::envelope::{self, EnvelopeError, Kind};
use crate::time::LogTime;

/// One link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChainRecord {
    /// Number, from 0.
    pub sequence: u64,
    /// Digest of the whole record before (zeros for the first).
    pub previous: Digest,
    /// When it was written.
    pub at: LogTime,
    /// An enveloped record.
    pub body: Vec<u8>,
}

/// Where a chain ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChainHead {
    /// Number of the next record.
    pub next: u64,
    /// Digest of the last record.
    pub last: Digest,
}

/// A link that does not fit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChainError {
    /// The record itself is bad.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Another number than the next.
    #[error("record {found} follows where record {wanted} belongs")]
    Sequence {
        /// In the record.
        found: u64,
        /// The next.
        wanted: u64,
    },
    /// It names another record as the one before.
    #[error("record {0} does not continue the one before")]
    Previous(u64),
}

impl ChainError {
    /// As [`EnvelopeError::is_of_newer`].
    #[must_use]
    pub fn is_of_newer(&self) -> bool {
        matches!(self, Self::Envelope(error) if error.is_of_newer())
    }
}

impl ChainHead {
    /// Encodes the next record and moves on.
    ///
    /// # Errors
    /// The body is too long.
    pub fn append(&mut self, at: LogTime, body: Vec<u8>) -> Result<Vec<u8>, EnvelopeError> {
        let record = ChainRecord { sequence: self.next, previous: self.last, at, body };
        let bytes = envelope::encode(Kind::Chain, &record)?;
        *self = Self { next: self.next.saturating_add(1), last: Digest::of(&bytes) };
        Ok(bytes)
    }

    /// Decodes the next record, checks that it continues the chain, and moves on.
    ///
    /// # Errors
    /// [`ChainError`]; the head stays where it was.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<ChainRecord, ChainError> {
        let record: ChainRecord = envelope::decode(Kind::Chain, bytes)?;
        if record.sequence != self.next {
            return Err(ChainError::Sequence { found: record.sequence, wanted: self.next });
        }
        if record.previous != self.last {
            return Err(ChainError::Previous(record.sequence));
        }
        *self = Self { next: self.next.saturating_add(1), last: Digest::of(bytes) };
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_follow_each_other_and_no_other() {
        let (mut head, mut other) = (ChainHead::default(), ChainHead::default());
        let first = head.append(LogTime(1), b"a".to_vec()).unwrap();
        let second = head.append(LogTime(2), b"b".to_vec()).unwrap();
        let foreign = other.append(LogTime(1), b"x".to_vec()).unwrap();
        let mut reader = ChainHead::default();
        assert_eq!(reader.follow(&second), Err(ChainError::Sequence { found: 1, wanted: 0 }));
        reader.follow(&foreign).unwrap();
        assert_eq!(reader.follow(&second), Err(ChainError::Previous(1)));
        let mut reader = ChainHead::default();
        reader.follow(&first).unwrap();
        assert_eq!(reader.follow(&second).unwrap().body, b"b");
        assert_eq!(reader, head);
    }
}
