//! Object IDs.

use std::fmt;
use std::str::FromStr;

use crate::content::{ContentHash, ContentId};
use crate::error::{Error, ErrorKind, Result};

/// Most levels of indirection in one ID. Kopia needs two at the sizes of today; more than this is damage or an attack.
pub const INDIRECTION_MAX: u8 = 16;

/// `I`* `Z`? `D`? content ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// Levels of indirection.
    pub indirection: u8,
    /// Object-level compression of index-v1 repositories.
    pub compressed: bool,
    /// The content behind the prefixes.
    pub content: ContentId,
}

impl ObjectId {
    /// The object that is one content.
    #[must_use]
    pub fn direct(content: ContentId) -> Self {
        Self { indirection: 0, compressed: false, content }
    }

    /// The object that holds this one's seek table; `None` for a direct object.
    #[must_use]
    pub fn table(&self) -> Option<Self> {
        let indirection = self.indirection.checked_sub(1)?;
        Some(Self { indirection, ..*self })
    }

    /// Reads an ID from raw bytes; `None` if it is not one.
    #[must_use]
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        let unprefixed = text.iter().position(|&b| b != b'I').unwrap_or(text.len());
        let indirection = u8::try_from(unprefixed).ok().filter(|&n| n <= INDIRECTION_MAX)?;
        let mut rest = text.get(unprefixed..)?;
        let compressed = rest.first() == Some(&b'Z');
        rest = rest.strip_prefix(b"Z").unwrap_or(rest);
        rest = rest.strip_prefix(b"D").unwrap_or(rest);
        if indirection > 0 && compressed {
            return None;
        }
        Some(Self { indirection, compressed, content: content_from_bytes(rest)? })
    }
}

/// As the `FromStr` of content IDs, without a way over `str`: a directory scan reads one for each entry.
fn content_from_bytes(text: &[u8]) -> Option<ContentId> {
    let (prefix, digits) = match text.split_first() {
        Some((&prefix @ b'g'..=b'z', digits)) if text.len() % 2 == 1 => (prefix, digits),
        _ => (0, text),
    };
    let mut bytes = [0u8; crate::content::HASH_BYTES_MAX];
    let hash = bytes.get_mut(..digits.len() / 2)?;
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    let mut invalid = 0;
    for (byte, &[high, low]) in hash.iter_mut().zip(pairs) {
        let (high, low) = (NIBBLE[usize::from(high)], NIBBLE[usize::from(low)]);
        invalid |= high | low;
        *byte = high << 4 | low & 15;
    }
    if invalid > 15 {
        return None;
    }
    ContentId::new(prefix, ContentHash::from_slice(hash)?)
}

/// Values of the lower-case hex digits, 255 for all other bytes.
const NIBBLE: [u8; 256] = {
    let mut table = [255u8; 256];
    let mut value = 0u8;
    while value < 16 {
        table[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    table
};

impl FromStr for ObjectId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::from_bytes(text.as_bytes())
            .ok_or_else(|| Error::new(ErrorKind::Usage, format!("{text:?} is not an object ID")))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for _ in 0..self.indirection {
            f.write_str("I")?;
        }
        if self.compressed {
            f.write_str("Z")?;
        }
        fmt::Display::fmt(&self.content, f)
    }
}

impl serde::Serialize for ObjectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ObjectId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "82b39a12512935970065e53a3aa78c41";

    #[test]
    fn all_prefixes_read_back() {
        for (text, indirection, compressed, shown) in [
            (HASH.to_owned(), 0, false, HASH.to_owned()),
            (format!("k{HASH}"), 0, false, format!("k{HASH}")),
            (format!("Ix{HASH}"), 1, false, format!("Ix{HASH}")),
            (format!("IIk{HASH}"), 2, false, format!("IIk{HASH}")),
            (format!("Z{HASH}"), 0, true, format!("Z{HASH}")),
            (format!("D{HASH}"), 0, false, HASH.to_owned()),
            (format!("ID{HASH}"), 1, false, format!("I{HASH}")),
            (format!("ZDk{HASH}"), 0, true, format!("Zk{HASH}")),
        ] {
            let id: ObjectId = text.parse().unwrap();
            assert_eq!((id.indirection, id.compressed, id.to_string()), (indirection, compressed, shown), "{text}");
        }
    }

    #[test]
    fn malformed_ids_are_refused() {
        let deep = format!("{}x{HASH}", "I".repeat(usize::from(INDIRECTION_MAX) + 1));
        let long = "ab".repeat(33);
        for text in
            ["", "I", "Z", "D", "IZ82b3", "ZI82b3", "DD82b3", "82B3", "82b", "a82b3", "k", "k82é3", &deep, &long]
        {
            assert!(text.parse::<ObjectId>().is_err(), "{text}");
        }
        assert!(format!("I{}", "I".repeat(1_000_000)).parse::<ObjectId>().is_err());
    }

    #[test]
    fn content_part_agrees_with_the_content_parser() {
        for text in [HASH, "k82b3", "g00", "z00", "f00", "y", "0", "00", "0g", "A0", "xx", " 00", "aabbccz"] {
            assert_eq!(content_from_bytes(text.as_bytes()), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn the_table_is_one_level_down() {
        let id: ObjectId = format!("IIx{HASH}").parse().unwrap();
        let table = id.table().unwrap();
        assert_eq!(table.to_string(), format!("Ix{HASH}"));
        assert_eq!(table.table().unwrap().table(), None);
    }
}
