//! What the kernels work on: the same bytes on every machine.

use std::fmt::Write;

use verger_kopia::content::{CompressionId, ContentHash, ContentId, Entry};

/// Entries of a directory.
pub(crate) const ENTRIES: usize = 100;
/// Length of a full pack.
pub(crate) const PACK: usize = 20 << 20;
/// Hash length of Kopia's default algorithm.
pub(crate) const HASH_LENGTH: usize = 16;

/// Numbers without a pattern (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }

    pub(crate) fn content(&mut self, prefix: u8) -> ContentId {
        let hash = self.bytes(HASH_LENGTH);
        ContentId::new(prefix, ContentHash::from_slice(&hash).unwrap()).unwrap()
    }
}

/// A directory of files as Kopia writes it, some 14 KB.
pub(crate) fn directory(numbers: &mut Numbers) -> Vec<u8> {
    let mut text = String::from(r#"{"stream":"kopia:directory","entries":["#);
    for at in 0..ENTRIES {
        let (id, number) = (numbers.content(0), numbers.next());
        let comma = if at == 0 { "" } else { "," };
        write!(
            text,
            r#"{comma}{{"name":"file-{at:05}.txt","type":"f","mode":"0644","size":{},"mtime":"2024-01-{:02}T03:04:05.{:09}Z","uid":1000,"gid":1000,"obj":"{id}"}}"#,
            200 + number % 600,
            1 + number % 28,
            number % 1_000_000_000,
        )
        .unwrap();
    }
    write!(
        text,
        r#"],"summary":{{"size":50000,"files":{ENTRIES},"symlinks":0,"dirs":1,"maxTime":"2024-01-28T03:04:05Z","numFailed":0}}}}"#
    )
    .unwrap();
    text.into_bytes()
}

/// Entries of an index blob: contents of 500 bytes, 8,000 a pack.
pub(crate) fn entries(numbers: &mut Numbers, count: u32) -> Vec<Entry> {
    let entry = |at: u32| Entry {
        id: numbers.content(0),
        timestamp: 1_700_000_000 + i64::from(at / 1000),
        deleted: false,
        pack: format!("p{:032x}-s0123456789abcdef01", at / 8000).as_str().into(),
        offset: 32 + at % 8000 * 528,
        packed_length: 528,
        original_length: 500,
        compression: CompressionId(0),
        format_version: 3,
    };
    (0..count).map(entry).collect()
}
