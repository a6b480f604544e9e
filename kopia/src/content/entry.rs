//! One index record of a content.

use crate::content::ContentId;
use crate::storage::BlobId;

/// Compression header of a content (`0` is none); see [`crate::compression`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub struct CompressionId(pub u32);

/// Where a content lies and how it is stored, as one index entry says. Lengths in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// The content.
    pub id: ContentId,
    /// Unix seconds by the writer's clock.
    pub timestamp: i64,
    /// A mark: the content is deleted, its data still readable until the mark is dropped.
    pub deleted: bool,
    /// Pack that holds it.
    pub pack: BlobId,
    /// Offset in the pack; below 2^31.
    pub offset: u32,
    /// Stored length: nonce, ciphertext, tag, and ECC where active.
    pub packed_length: u32,
    /// Length of the plaintext.
    pub original_length: u32,
    /// Compression header.
    pub compression: CompressionId,
    /// Format version that wrote it; copied as read.
    pub format_version: u8,
}

impl Entry {
    /// Whether `self` beats `other`, an entry of the same content (`repo/content/index/merged.go`): newer; on a tie the one
    /// that is not deleted; on a further tie the greater pack ID.
    #[must_use]
    pub fn beats(&self, other: &Self) -> bool {
        let key = |e: &Self| (e.timestamp, !e.deleted);
        (key(self), self.pack.as_str()) > (key(other), other.pack.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn winner_is_newer_then_live_then_greater_pack() {
        let entry = |timestamp, deleted, pack: &str| Entry {
            id: "aabb".parse().unwrap(),
            timestamp,
            deleted,
            pack: pack.into(),
            offset: 32,
            packed_length: 30,
            original_length: 2,
            compression: CompressionId(0),
            format_version: 3,
        };
        assert!(entry(2, true, "p1").beats(&entry(1, false, "p9")));
        assert!(entry(1, false, "p1").beats(&entry(1, true, "p9")));
        assert!(entry(1, true, "p2").beats(&entry(1, true, "p1")));
        assert!(!entry(1, true, "p1").beats(&entry(1, true, "p1")));
    }
}
