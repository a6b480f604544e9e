//! The last bytes of a pack: where its own index lies. Not authenticated; the index is.

use crate::content::ContentHash;
use crate::error::{Error, Result};

const FLAGS: u64 = 1;
const CRC_LENGTH: usize = 4;

/// Where the local index of a pack lies, and its IV.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postamble {
    /// IV of the local index: the whole hash of its plaintext.
    pub iv: ContentHash,
    /// Offset of the encrypted index in the blob.
    pub offset: u32,
    /// Stored length of the encrypted index.
    pub length: u32,
}

impl Postamble {
    /// The bytes to write at the end of the blob.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let iv = self.iv.as_bytes();
        let mut out = Vec::with_capacity(64);
        push_uvarint(&mut out, FLAGS);
        push_uvarint(&mut out, iv.len() as u64);
        out.extend_from_slice(iv);
        push_uvarint(&mut out, u64::from(self.offset));
        push_uvarint(&mut out, u64::from(self.length));
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out.push(u8::try_from(out.len()).expect("an IV of at most 32 bytes and four short numbers"));
        out
    }

    /// Finds it at the end of `tail`, the last bytes of a blob; also tells how many bytes it takes there.
    ///
    /// # Errors
    /// `Damaged` if there is none.
    pub fn find(tail: &[u8]) -> Result<(Self, usize)> {
        Self::parse(tail).ok_or_else(|| Error::damaged("find the postamble at the end of the pack"))
    }

    fn parse(tail: &[u8]) -> Option<(Self, usize)> {
        let (&length, before) = tail.split_last()?;
        let length = usize::from(length);
        let fields_and_crc = before.get(before.len().checked_sub(length)?..)?;
        let (fields, crc) = fields_and_crc.split_last_chunk::<CRC_LENGTH>()?;
        if fields.is_empty() || crc32fast::hash(fields) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut rest = fields;
        if take_uvarint(&mut rest)? != FLAGS {
            return None;
        }
        let iv_length = usize::try_from(take_uvarint(&mut rest)?).ok()?;
        let (iv, mut rest) = rest.split_at_checked(iv_length)?;
        let offset = u32::try_from(take_uvarint(&mut rest)?).ok()?;
        let index_length = u32::try_from(take_uvarint(&mut rest)?).ok()?;
        Some((Self { iv: ContentHash::from_slice(iv)?, offset, length: index_length }, length + 1))
    }
}

fn push_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_uvarint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if bits.checked_shl(shift)? >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn postambles_of_the_real_program_are_read_and_written_alike() {
        for (text, pack_length) in [
            ("011059d941ab74807325d5dc82db825508e58020af01986a29361a", 4298),
            ("011047ddb4055f708d0893b6ad892c5e50478040b30262a043a91a", 8526),
            ("0110a16cc5045c2602573f2a8ceafd6126ac8020b30230dd905d1a", 4430),
        ] {
            let bytes = hex::decode(text).unwrap();
            let (postamble, length) = Postamble::find(&[&b"index"[..], &bytes].concat()).unwrap();
            assert_eq!(length, bytes.len());
            assert_eq!(postamble.offset % 4096, 0);
            assert_eq!(postamble.offset as usize + postamble.length as usize + length, pack_length);
            assert_eq!(postamble.encode(), bytes);
        }
    }

    #[test]
    fn rubbish_is_damage() {
        for tail in [&b""[..], b"\0", b"\x04", b"\0\0\0\0\x04", b"\xff", b"abc\xfe"] {
            assert!(Postamble::find(tail).is_err(), "{tail:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_found(iv in prop::collection::vec(any::<u8>(), 1..=32), offset: u32, length: u32, flip in 0usize..256) {
            let postamble = Postamble { iv: ContentHash::from_slice(&iv).unwrap(), offset, length };
            let mut bytes = postamble.encode();
            prop_assert_eq!(Postamble::find(&bytes).unwrap(), (postamble, bytes.len()));
            let at = flip % (bytes.len() * 8);
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert!(Postamble::find(&bytes).is_err());
        }

        #[test]
        fn numbers_read_back(value: u64) {
            let mut bytes = Vec::new();
            push_uvarint(&mut bytes, value);
            let mut rest = &bytes[..];
            prop_assert_eq!(take_uvarint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
            prop_assert_eq!(take_uvarint(&mut &bytes[..bytes.len() - 1]), None);
        }
    }
}
