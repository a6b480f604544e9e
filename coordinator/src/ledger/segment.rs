//! How a ledger is cut into files: where each begins, and what it is called.
//!
//! A record begins a new segment if the present one has [`SEGMENT_BYTES`] or more. That follows from the records alone, so every replica
//! has the same segments, byte for byte.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use verger_proto::Digest;
use verger_proto::chain::ChainHead;
use verger_proto::envelope::{BODY_BYTES_MAX, HEADER_BYTES};

/// Name of the first segment. A ledger that is never cut, of one process alone, is this file.
pub const FILE_NAME: &str = "ledger";
/// A segment with so many bytes gets no further record.
pub const SEGMENT_BYTES: u64 = 8 << 20;
/// No segment is longer: the record that fills it may be as long as a record can be.
pub(crate) const SEGMENT_BYTES_MAX: u64 = SEGMENT_BYTES + (BODY_BYTES_MAX + HEADER_BYTES) as u64;

/// How far a ledger goes, over all its segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LedgerHead {
    /// Records.
    pub records: u64,
    /// Digest of the last record.
    pub last: Digest,
    /// Bytes.
    pub bytes: u64,
}

impl LedgerHead {
    /// Where its chain is.
    pub(crate) fn chain(self) -> ChainHead {
        ChainHead { next: self.records, last: self.last }
    }

    /// As far as `chain`, so many bytes further on.
    pub(crate) fn after(self, chain: ChainHead, bytes: u64) -> Self {
        Self { records: chain.next, last: chain.last, bytes: self.bytes.saturating_add(bytes) }
    }
}

/// Name of the segment that begins with the record of this number.
#[must_use]
pub fn file_name(first: u64) -> String {
    if first == 0 { FILE_NAME.to_owned() } else { format!("{FILE_NAME}.{first:020}") }
}

/// The file of the segment that begins with the record of this number.
#[must_use]
pub fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(file_name(first))
}

/// Number of the first record in the segment of this name; none if it is no segment's.
pub(crate) fn first_of(name: &str) -> Option<u64> {
    let first = match name.strip_prefix(FILE_NAME)? {
        "" => 0,
        rest => rest.strip_prefix('.')?.parse().ok()?,
    };
    (file_name(first) == name).then_some(first)
}

/// The segments that are in a folder: numbers of their first records, in order.
pub(crate) fn local(folder: &Path) -> std::io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        found.extend(entry?.file_name().to_str().and_then(first_of));
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_others() {
        for first in [0, 1, 27_000, u64::MAX] {
            assert_eq!(first_of(&file_name(first)), Some(first));
        }
        for other in [
            "",
            "ledger.",
            "ledger.1",
            "ledger.new",
            "ledger.00000000000000000000",
            "archive",
            "ledger.0000000000000000001x",
        ] {
            assert_eq!(first_of(other), None, "{other}");
        }
    }
}
