//! The header IDs and their names in Kopia (`repo/compression/compression_ids.go`). Never reused by Kopia.

use crate::content::CompressionId;

/// `zstd-fastest`, what Kopia compresses metadata with by default.
pub const ZSTD_FASTEST: CompressionId = CompressionId(0x1101);

/// How a stream is coded; the level of the writer does not matter to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Gzip,
    Zstd,
    S2,
    Lz4,
    Deflate,
}

impl Family {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::S2 => "s2",
            Self::Lz4 => "lz4",
            Self::Deflate => "deflate",
        }
    }

    /// Most bytes that one byte of a stream can become, rounded up: bounds what is allocated before anything is decoded.
    pub(super) fn expansion_max(self) -> usize {
        match self {
            // A match of 258 bytes takes at least two bits.
            Self::Gzip | Self::Deflate => 258 * 4,
            // A repeated byte fills a block of 128 KiB from four bytes.
            Self::Zstd => (128 << 10) / 4,
            // A block of 4 MiB takes at least a chunk header and its checksum.
            Self::S2 => (4 << 20) / 8,
            // Each further byte of a length stands for at most 255.
            Self::Lz4 => 256,
        }
    }
}

const TABLE: [(u32, &str, Family); 18] = [
    (0x1000, "gzip", Family::Gzip),
    (0x1001, "gzip-best-speed", Family::Gzip),
    (0x1002, "gzip-best-compression", Family::Gzip),
    (0x1100, "zstd", Family::Zstd),
    (0x1101, "zstd-fastest", Family::Zstd),
    (0x1102, "zstd-better-compression", Family::Zstd),
    (0x1103, "zstd-best-compression", Family::Zstd),
    (0x1200, "s2-default", Family::S2),
    (0x1201, "s2-better", Family::S2),
    (0x1202, "s2-parallel-4", Family::S2),
    (0x1203, "s2-parallel-8", Family::S2),
    (0x1300, "pgzip", Family::Gzip),
    (0x1301, "pgzip-best-speed", Family::Gzip),
    (0x1302, "pgzip-best-compression", Family::Gzip),
    (0x1400, "lz4", Family::Lz4),
    (0x1500, "deflate-default", Family::Deflate),
    (0x1501, "deflate-best-speed", Family::Deflate),
    (0x1502, "deflate-best-compression", Family::Deflate),
];

/// Names of all compressions, by ID: what can be read.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.1)
}

/// Whether Kopia reads this compression and no longer offers it for writing.
#[must_use]
pub fn is_deprecated(name: &str) -> bool {
    matches!(name, "zstd-best-compression" | "lz4")
}

/// Kopia's name of a compression; `None` for an unknown one and for 0, which is no compression.
#[must_use]
pub fn name(id: CompressionId) -> Option<&'static str> {
    TABLE.iter().find(|row| row.0 == id.0).map(|row| row.1)
}

/// The ID of a compression of this Kopia name.
#[must_use]
pub fn id_of(name: &str) -> Option<CompressionId> {
    TABLE.iter().find(|row| row.1 == name).map(|row| CompressionId(row.0))
}

pub(super) fn family(id: CompressionId) -> Option<Family> {
    TABLE.iter().find(|row| row.0 == id.0).map(|row| row.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_name_each_other() {
        for (id, text, _) in TABLE {
            assert_eq!(name(CompressionId(id)), Some(text));
            assert_eq!(id_of(text), Some(CompressionId(id)));
        }
        assert_eq!(id_of("zstd-fastest"), Some(ZSTD_FASTEST));
        assert_eq!(name(CompressionId(0)), None);
        assert_eq!(id_of(""), None);
    }
}
