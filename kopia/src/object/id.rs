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
    #[inline]
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        // Nearly all: a content in a pack of files or of metadata.
        if text.first().is_some_and(|first| !matches!(first, b'D' | b'I' | b'Z')) {
            return content_from_bytes(text).map(Self::direct);
        }
        Self::from_prefixed(text)
    }

    #[cold]
    fn from_prefixed(text: &[u8]) -> Option<Self> {
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
#[inline]
fn content_from_bytes(text: &[u8]) -> Option<ContentId> {
    let (prefix, digits) = match text.split_first() {
        Some((&prefix @ b'g'..=b'z', digits)) if text.len() % 2 == 1 => (prefix, digits),
        _ => (0, text),
    };
    let mut bytes = [0u8; crate::content::HASH_BYTES_MAX];
    let (words, tail) = digits.as_chunks::<8>();
    let (quads, _) = bytes.as_chunks_mut::<4>();
    if tail.len() % 2 == 1 || digits.len() / 2 > quads.len() * 4 {
        return None;
    }
    let mut invalid = 0;
    for (quad, word) in quads.iter_mut().zip(words) {
        let (decoded, bad) = hex_word(*word);
        *quad = decoded;
        invalid |= bad;
    }
    if !tail.is_empty() {
        let mut word = [b'0'; 8];
        word.get_mut(..tail.len())?.copy_from_slice(tail);
        let (decoded, bad) = hex_word(word);
        *quads.get_mut(words.len())? = decoded;
        invalid |= bad;
    }
    if invalid != 0 {
        return None;
    }
    ContentId::new(prefix, ContentHash::from_array(bytes, digits.len() / 2)?)
}

/// Decodes eight lower-case hex digits at once. The second value is zero if they are.
#[inline]
fn hex_word(digits: [u8; 8]) -> ([u8; 4], u64) {
    const ONES: u64 = u64::MAX / 255;
    let word = u64::from_le_bytes(digits);
    // Letters have bit 6 set and count from 9; no byte carries into its neighbour (15 + 9 < 256).
    let nibbles = (word & (ONES * 15)) + ((word >> 6 & ONES) * 9);
    // What these nibbles would be written as must be what was read.
    let letters = (nibbles + ONES * 6) >> 4 & ONES;
    let written = nibbles.wrapping_add(ONES * 0x30).wrapping_add(letters * 0x27);
    let invalid = (written ^ word) | (nibbles & (ONES * 0xf0));
    let pairs = (nibbles << 4 | nibbles >> 8) & 0x00ff_00ff_00ff_00ff;
    let pairs = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    let [a, b, _, _, c, d, _, _] = pairs.to_le_bytes();
    ([a, b, c, d], invalid)
}

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
        for length in 0..70 {
            let text: String = HASH.chars().cycle().take(length).collect();
            assert_eq!(content_from_bytes(text.as_bytes()), text.parse().ok(), "{text}");
        }
        // Every byte in every place of a word and of its tail.
        for place in 0..12 {
            for byte in 0..=255u8 {
                let mut text = *b"0123456789ab";
                text[place] = byte;
                let expected = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                assert_eq!(content_from_bytes(&text), expected, "{place} {byte}");
            }
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
