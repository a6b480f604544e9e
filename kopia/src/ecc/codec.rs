//! Encoding, checking and repairing one item.

use super::Ecc;
use super::gf256;
use super::layout::{CRC_BYTES, Code, LENGTH_BYTES, Shape};
use crate::error::{Error, Result};

impl Ecc {
    /// Adds parity to an encrypted item.
    ///
    /// # Errors
    /// `Unsupported` from 4 GiB on.
    pub fn encode(&self, message: &[u8]) -> Result<Vec<u8>> {
        let too_long = || Error::unsupported(format!("add error correction to {} bytes", message.len()));
        let shape = self.layout.for_message(message.len()).ok_or_else(too_long)?;
        let length = u32::try_from(message.len()).map_err(|_| too_long())?;
        let mut padded = Vec::with_capacity(shape.capacity());
        padded.extend_from_slice(&length.to_be_bytes());
        padded.extend_from_slice(message);
        padded.resize(shape.capacity(), 0);

        let framed = shape.capacity().div_ceil(shape.shard) * shape.framed();
        let mut stored = Vec::with_capacity(shape.parity_bytes() + framed);
        for block in padded.chunks_exact(shape.code.data * shape.shard) {
            for row in self.rows(shape.code) {
                let mut parity = vec![0; shape.shard];
                for (&coefficient, shard) in row.iter().zip(block.chunks_exact(shape.shard)) {
                    gf256::add_multiple(&mut parity, coefficient, shard);
                }
                stored.extend_from_slice(&crc32fast::hash(&parity).to_be_bytes());
                stored.extend_from_slice(&parity);
            }
        }
        let end = if shape.stores_padding { padded.len() } else { LENGTH_BYTES + message.len() };
        for start in (0..end).step_by(shape.shard) {
            // The CRC is over the whole shard, though padding at the very end is not stored.
            let shard = &padded[start..start + shape.shard];
            stored.extend_from_slice(&crc32fast::hash(shard).to_be_bytes());
            stored.extend_from_slice(&shard[..shape.shard.min(end - start)]);
        }
        Ok(stored)
    }

    /// The encrypted item, and whether any of its data had to be repaired. Parity is only looked at if data is lost.
    ///
    /// # Errors
    /// `Damaged` if more shards of a block are lost than parity can make good.
    pub fn decode(&self, stored: &[u8]) -> Result<(Vec<u8>, bool)> {
        let shape = self.layout.for_stored(stored.len());
        let (parity, data) = stored
            .split_at_checked(shape.parity_bytes())
            .ok_or_else(|| Error::damaged(format!("{} bytes are too few for error correction", stored.len())))?;
        let mut padded = Vec::with_capacity(shape.capacity());
        let mut repaired = false;
        for block in 0..shape.blocks {
            let start = padded.len();
            let lost = read_block(&shape, data, block, &mut padded);
            if !lost.is_empty() {
                repair_block(&shape, parity, block, &lost, &mut padded[start..])?;
                repaired = true;
            }
        }
        let length = padded.first_chunk::<LENGTH_BYTES>().map(|bytes| u32::from_be_bytes(*bytes));
        let end = length.and_then(|length| usize::try_from(length).ok()?.checked_add(LENGTH_BYTES));
        let end = end.filter(|&end| end <= padded.len());
        let end =
            end.ok_or_else(|| Error::damaged("the length inside the error correction is larger than the item"))?;
        padded.truncate(end);
        padded.drain(..LENGTH_BYTES);
        Ok((padded, repaired))
    }

    /// Whether every shard, parity included, is as it was written, so that a copy of `stored` is as good as new.
    #[must_use]
    pub fn is_intact(&self, stored: &[u8]) -> bool {
        let shape = self.layout.for_stored(stored.len());
        let Some((parity, _)) = stored.split_at_checked(shape.parity_bytes()) else { return false };
        let parity_holds = parity.chunks_exact(shape.framed()).all(|framed| intact(framed).is_some());
        parity_holds
            && self
                .decode(stored)
                .is_ok_and(|(message, repaired)| !repaired && self.layout.for_message(message.len()) == Some(shape))
    }

    fn rows(&self, code: Code) -> &[Vec<u8>] {
        let slot = if code == self.layout.code { &self.rows.large } else { &self.rows.small };
        slot.get_or_init(|| {
            let data: Vec<u8> = (0..code.data).map(point).collect();
            (code.data..code.shards()).map(|row| gf256::interpolate(&data, point(row))).collect()
        })
    }
}

/// Where in the field the shard of this number lies.
fn point(shard: usize) -> u8 {
    u8::try_from(shard).expect("a code has at most 256 shards")
}

/// The shard behind a CRC that holds.
fn intact(framed: &[u8]) -> Option<&[u8]> {
    let (crc, shard) = framed.split_first_chunk::<CRC_BYTES>()?;
    (u32::from_be_bytes(*crc) == crc32fast::hash(shard)).then_some(shard)
}

/// Appends the data shards of a block, padding included, and names those whose CRC does not hold.
pub(super) fn read_block(shape: &Shape, data: &[u8], block: usize, padded: &mut Vec<u8>) -> Vec<usize> {
    let mut lost = Vec::new();
    for shard in 0..shape.code.data {
        let start = (block * shape.code.data + shard) * shape.framed();
        let shard_end = padded.len() + shape.shard;
        let framed = data.get(start..).unwrap_or_default();
        let framed = &framed[..framed.len().min(shape.framed())];
        let (crc, bytes) = framed.split_at(framed.len().min(CRC_BYTES));
        padded.extend_from_slice(bytes);
        padded.resize(shard_end, 0);
        // A shard that was not stored at all is padding: zeros, and never lost.
        let actual = crc32fast::hash(&padded[shard_end - shape.shard..]);
        if !framed.is_empty() && crc != actual.to_be_bytes() {
            lost.push(shard);
        }
    }
    lost
}

/// Computes lost data shards of a block from the others and as many intact parity shards.
pub(super) fn repair_block(shape: &Shape, parity: &[u8], block: usize, lost: &[usize], data: &mut [u8]) -> Result<()> {
    let block_parity = parity.chunks_exact(shape.framed()).skip(block * shape.code.parity).take(shape.code.parity);
    let found: Vec<(usize, &[u8])> = block_parity
        .enumerate()
        .filter_map(|(index, framed)| Some((shape.code.data + index, intact(framed)?)))
        .take(lost.len())
        .collect();
    if found.len() < lost.len() {
        return Err(Error::damaged(format!(
            "{} data shards of block {block} are lost, and {} parity shards are not enough to repair them",
            lost.len(),
            found.len()
        )));
    }
    let present = (0..shape.code.data).filter(|shard| !lost.contains(shard));
    let points: Vec<u8> = present.clone().chain(found.iter().map(|&(shard, _)| shard)).map(point).collect();
    for &shard in lost {
        let mut sum = vec![0; shape.shard];
        let known = present.clone().map(|shard| &data[shard * shape.shard..][..shape.shard]);
        let known = known.chain(found.iter().map(|&(_, bytes)| bytes));
        for (coefficient, bytes) in gf256::interpolate(&points, point(shard)).into_iter().zip(known) {
            gf256::add_multiple(&mut sum, coefficient, bytes);
        }
        data[shard * shape.shard..][..shape.shard].copy_from_slice(&sum);
    }
    Ok(())
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
