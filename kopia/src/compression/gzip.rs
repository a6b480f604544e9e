//! Gzip (RFC 1952), as the plain and the parallel writer of Kopia make it; several members may follow each other.

use flate2::Decompress;

use super::deflate::inflate;
use super::{Decoded, Failure};

const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;

pub(super) fn decode(context: &mut Decompress, stream: &[u8], out: &mut [u8]) -> Decoded {
    let mut rest = stream;
    let mut total = 0;
    loop {
        rest = skip_header(rest).ok_or_else(|| Failure::malformed("bad gzip header"))?;
        let room = out.get_mut(total..).unwrap_or_default();
        let (read, written) = inflate(context, rest, room)?;
        let plain = room.get(..written).unwrap_or_default();
        let trailer = rest.get(read..).and_then(<[u8]>::split_first_chunk::<8>);
        let Some(([c0, c1, c2, c3, l0, l1, l2, l3], after)) = trailer else {
            return Err(Failure::malformed("the gzip trailer is cut off"));
        };
        if crc32fast::hash(plain) != u32::from_le_bytes([*c0, *c1, *c2, *c3]) {
            return Err(Failure::malformed("the gzip checksum does not hold"));
        }
        // The trailer has the length modulo 2^32, and outputs are far shorter.
        if u32::try_from(written) != Ok(u32::from_le_bytes([*l0, *l1, *l2, *l3])) {
            return Err(Failure::malformed("the gzip length does not hold"));
        }
        total += written;
        rest = after;
        if rest.is_empty() {
            return Ok(total);
        }
    }
}

/// What follows the header of a member.
fn skip_header(member: &[u8]) -> Option<&[u8]> {
    let ([0x1f, 0x8b, 8, flags, ..], mut rest) = member.split_first_chunk::<10>()? else { return None };
    if flags & FLAG_EXTRA != 0 {
        let (length, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            rest = rest.get(memchr::memchr(0, rest)? + 1..)?;
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        let header = member.get(..member.len().checked_sub(rest.len())?)?;
        let (crc, after) = rest.split_first_chunk::<2>()?;
        let [low, high, ..] = crc32fast::hash(header).to_le_bytes();
        if *crc != [low, high] {
            return None;
        }
        rest = after;
    }
    Some(rest)
}
