//! Content IDs: an optional one-letter prefix and a keyed hash of the plaintext.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Longest hash of any supported algorithm, in bytes.
pub const HASH_BYTES_MAX: usize = 32;

/// A keyed hash of up to 32 bytes, as the repository's hash algorithm gives it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash {
    bytes: [u8; HASH_BYTES_MAX],
    length: u8,
}

impl ContentHash {
    /// Takes 1 to 32 bytes; `None` otherwise.
    #[must_use]
    pub fn from_slice(hash: &[u8]) -> Option<Self> {
        if hash.is_empty() || hash.len() > HASH_BYTES_MAX {
            return None;
        }
        let mut bytes = [0; HASH_BYTES_MAX];
        bytes[..hash.len()].copy_from_slice(hash);
        Some(Self { bytes, length: u8::try_from(hash.len()).ok()? })
    }

    /// The first `length` bytes of `bytes`, which must be zero after them: what is parsed in place is not copied again.
    #[inline]
    pub(crate) fn from_array(bytes: [u8; HASH_BYTES_MAX], length: usize) -> Option<Self> {
        debug_assert!(bytes.iter().skip(length).all(|byte| *byte == 0), "equal hashes have equal bytes");
        let length = u8::try_from(length).ok().filter(|length| (1..=HASH_BYTES_MAX as u8).contains(length))?;
        Some(Self { bytes, length })
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The last 16 bytes (or all, if shorter): the IV of contents and of whole blobs.
    #[must_use]
    pub fn iv(&self) -> &[u8] {
        let bytes = self.as_bytes();
        &bytes[bytes.len().saturating_sub(16)..]
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In one piece: plans and evidence name millions of them.
        let mut text = [0; 2 * HASH_BYTES_MAX];
        let digits = &mut text[..2 * usize::from(self.length)];
        hex::encode_to_slice(self.as_bytes(), digits).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// ID of a content. Ordered as its binary key: prefix byte (0 without one), then the hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId {
    prefix: u8,
    hash: ContentHash,
}

impl ContentId {
    /// An ID of a prefix (0, or `b'g'..=b'z'`) and a hash; `None` for another prefix.
    #[must_use]
    pub fn new(prefix: u8, hash: ContentHash) -> Option<Self> {
        (prefix == 0 || (b'g'..=b'z').contains(&prefix)).then_some(Self { prefix, hash })
    }

    /// From the binary key of an index entry.
    ///
    /// # Errors
    /// `Damaged` if the prefix or the length is not one that Kopia writes.
    pub fn from_key(key: &[u8]) -> Result<Self> {
        let parsed = key.split_first().and_then(|(&prefix, hash)| Self::new(prefix, ContentHash::from_slice(hash)?));
        parsed.ok_or_else(|| Error::damaged(format!("parse content key {}", hex::encode(key))))
    }

    /// 0 for none, else `b'g'..=b'z'`.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it has a prefix, and so lies in `q` packs.
    #[must_use]
    pub fn is_prefixed(&self) -> bool {
        self.prefix != 0
    }

    /// The keyed hash.
    #[must_use]
    pub fn hash(&self) -> &ContentHash {
        &self.hash
    }

    /// Writes the binary key (prefix byte and hash) to the end of `out`.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        out.push(self.prefix);
        out.extend_from_slice(self.hash.as_bytes());
    }

    /// Writes the text (the prefix, and the hash in hexadecimal) to the end of `out`.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        if self.prefix != 0 {
            out.push(self.prefix);
        }
        let (hash, at) = (self.hash.as_bytes(), out.len());
        out.resize(at + 2 * hash.len(), 0);
        hex::encode_to_slice(hash, &mut out[at..]).expect("there is room for two digits a byte");
    }

    /// Length of the binary key.
    #[must_use]
    pub fn key_length(&self) -> usize {
        1 + self.hash.as_bytes().len()
    }

    /// The letter of the packs it belongs in: `q` with a prefix, else `p`.
    #[must_use]
    pub fn pack_letter(&self) -> char {
        if self.is_prefixed() { 'q' } else { 'p' }
    }
}

impl FromStr for ContentId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::new(ErrorKind::Usage, format!("{text:?} is not a content ID"));
        let (prefix, digits) = match text.as_bytes() {
            [first @ b'g'..=b'z', ..] if text.len() % 2 == 1 => (*first, &text[1..]),
            _ => (0, text),
        };
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut bytes = [0u8; HASH_BYTES_MAX];
        let length = digits.len() / 2;
        let slot = bytes.get_mut(..length).ok_or_else(bad)?;
        hex::decode_to_slice(digits, slot).map_err(|_| bad())?;
        ContentHash::from_slice(slot).and_then(|hash| Self::new(prefix, hash)).ok_or_else(bad)
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix != 0 {
            fmt::Write::write_char(f, char::from(self.prefix))?;
        }
        fmt::Display::fmt(&self.hash, f)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for ContentId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ContentId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_key_read_back_and_order_as_the_binary_key() {
        let plain: ContentId = "82b39a12512935970065e53a3aa78c41".parse().unwrap();
        let directory: ContentId = "k82b39a12512935970065e53a3aa78c41".parse().unwrap();
        assert_eq!(directory.to_string(), "k82b39a12512935970065e53a3aa78c41");
        assert_eq!((plain.pack_letter(), directory.pack_letter()), ('p', 'q'));
        assert!(plain < directory);
        let mut key = Vec::new();
        directory.write_key(&mut key);
        assert_eq!(key.len(), 17);
        assert_eq!(ContentId::from_key(&key).unwrap(), directory);
    }

    #[test]
    fn what_kopia_does_not_write_is_refused() {
        for text in [
            "",
            "a",
            "zz",
            "a82b39a12512935970065e53a3aa78c41",
            "K82b3",
            "82B3",
            "82b3é1",
            "k82b3x1",
            "\0aa",
            "0aa",
            "kké",
        ] {
            assert!(text.parse::<ContentId>().is_err(), "{text}");
        }
        assert!(ContentId::from_key(&[b'a', 1, 2]).is_err());
        assert!(ContentId::from_key(&[0]).is_err());
    }
}
