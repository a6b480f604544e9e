//! Framed S2 streams. The frames are read here, the blocks by `minlz`, whose own stream reader recurses over skippable
//! chunks and takes a cut chunk header for the end.

use super::{Decoded, Failure};

const CHUNK_COMPRESSED: u8 = 0x00;
const CHUNK_PLAIN: u8 = 0x01;
/// Chunks from here on may be skipped: padding, an index, or a kind of the future.
const CHUNK_SKIPPABLE_FIRST: u8 = 0x80;
const CHUNK_STREAM_ID: u8 = 0xff;
/// The stream identifiers of S2 and of the Snappy that it grew from.
const STREAM_IDS: [&[u8]; 2] = [b"S2sTwO", b"sNaPpY"];
/// Plaintext of one block as Kopia's writer cuts it.
const BLOCK: usize = 1 << 20;
/// Largest plaintext of one block.
const BLOCK_MAX: usize = 4 << 20;

pub(super) fn decode(stream: &[u8], out: &mut [u8]) -> Decoded {
    let mut rest = stream;
    let mut total = 0;
    // Kopia's writer emits nothing at all for an empty input.
    while let Some((chunk, after)) = next_chunk(rest)? {
        if rest.len() == stream.len() && chunk.0 != CHUNK_STREAM_ID {
            return Err(Failure::malformed("the stream identifier is missing"));
        }
        rest = after;
        let (kind, body) = chunk;
        match kind {
            CHUNK_COMPRESSED | CHUNK_PLAIN => {
                let room = out.get_mut(total..).unwrap_or_default();
                total += block(kind, body, room)?;
            }
            CHUNK_STREAM_ID if STREAM_IDS.contains(&body) => {}
            CHUNK_STREAM_ID => return Err(Failure::malformed("unknown stream identifier")),
            CHUNK_SKIPPABLE_FIRST.. => {}
            _ => return Err(Failure::malformed(format!("unknown chunk type {kind:#04x}"))),
        }
    }
    Ok(total)
}

type Chunk<'a> = (u8, &'a [u8]);

fn next_chunk(rest: &[u8]) -> Result<Option<(Chunk<'_>, &[u8])>, Failure> {
    if rest.is_empty() {
        return Ok(None);
    }
    let cut = || Failure::malformed("a chunk is cut off");
    let ([kind, l0, l1, l2], rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let length = u32::from_le_bytes([*l0, *l1, *l2, 0]) as usize;
    let (body, after) = rest.split_at_checked(length).ok_or_else(cut)?;
    Ok(Some(((*kind, body), after)))
}

/// Decodes one block to the front of `out`: the number of bytes.
fn block(kind: u8, body: &[u8], out: &mut [u8]) -> Decoded {
    let (checksum, data) = body.split_first_chunk::<4>().ok_or_else(|| Failure::malformed("a block is too short"))?;
    let length = if kind == CHUNK_PLAIN { data.len() } else { minlz::decode_len(data).map_err(Failure::malformed)?.0 };
    if length > BLOCK_MAX {
        return Err(Failure::malformed(format!("a block of {length} bytes is longer than S2 allows")));
    }
    let plain = out.get_mut(..length).ok_or(Failure::Full)?;
    if kind == CHUNK_PLAIN {
        plain.copy_from_slice(data);
    } else {
        minlz::decode_into(plain, data).map_err(Failure::malformed)?;
    }
    if minlz::crc::crc(plain) != u32::from_le_bytes(*checksum) {
        return Err(Failure::malformed("a block's checksum does not hold"));
    }
    Ok(length)
}

/// Appends a stream; an empty one for nothing, as Kopia's writer.
pub(super) fn append(better: bool, plain: &[u8], out: &mut Vec<u8>) {
    for (number, block) in plain.chunks(BLOCK).enumerate() {
        if number == 0 {
            push_chunk(CHUNK_STREAM_ID, &[STREAM_IDS[0]], out);
        }
        let packed = if better { minlz::encode_better(block) } else { minlz::encode(block) };
        let checksum = minlz::crc::crc(block).to_le_bytes();
        if packed.len() < block.len() {
            push_chunk(CHUNK_COMPRESSED, &[&checksum, &packed], out);
        } else {
            push_chunk(CHUNK_PLAIN, &[&checksum, block], out);
        }
    }
}

fn push_chunk(kind: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let [l0, l1, l2, ..] = length.to_le_bytes();
    out.extend_from_slice(&[kind, l0, l1, l2]);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}
