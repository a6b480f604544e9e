//! Contents out of the bytes of a whole pack.

use super::local_index::span;
use crate::content::Entry;
use crate::error::{Error, Result};

/// The stored bytes (sealed, compressed as recorded) of the content that `entry` names, out of its whole pack.
///
/// # Errors
/// `Damaged` if the pack ends before the content does.
pub fn stored_bytes<'p>(pack: &'p [u8], entry: &Entry) -> Result<&'p [u8]> {
    span(pack, entry.offset, entry.packed_length).ok_or_else(|| {
        Error::damaged(format!(
            "read content {} at {}+{} of pack {}: the pack ends at {}",
            entry.id,
            entry.offset,
            entry.packed_length,
            entry.pack,
            pack.len()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::CompressionId;

    #[test]
    fn a_span_beyond_the_end_is_damage() {
        let entry = |offset, packed_length| Entry {
            id: "aabb".parse().unwrap(),
            timestamp: 1,
            deleted: false,
            pack: "p1".into(),
            offset,
            packed_length,
            original_length: 2,
            compression: CompressionId(0),
            format_version: 3,
        };
        assert_eq!(stored_bytes(b"0123456789", &entry(3, 7)).unwrap(), b"3456789");
        for (offset, length) in [(3, 8), (11, 0), (u32::MAX, 1), (0, u32::MAX), (u32::MAX, u32::MAX)] {
            assert!(stored_bytes(b"0123456789", &entry(offset, length)).is_err());
        }
    }
}
