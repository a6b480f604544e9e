//! Decoding of one large stored item block by block, from something that can be read at any place.

use std::io::{self, Read, Seek, SeekFrom};

use super::Ecc;
use super::codec::{read_block, repair_block};
use super::layout::{LENGTH_BYTES, Shape};
use crate::error::Error;

/// Yields the encrypted item inside a stored one. Holds one block (at most 330 KiB) in memory.
#[derive(Debug)]
pub struct EccReader<S> {
    stored: S,
    length: u64,
    shape: Shape,
    next_block: usize,
    block: Vec<u8>,
    position: usize,
    /// Bytes of the item that are still to come; unknown until the first block is read.
    left: Option<u64>,
    repaired: bool,
}

impl Ecc {
    /// Decodes from `stored`, which holds `length` bytes. Damage beyond repair is an error of the reading, which carries
    /// a [`crate::Error`] of kind `Damaged`.
    pub fn reader<S: Read + Seek>(&self, stored: S, length: u64) -> EccReader<S> {
        // Far above what a length prefix of 4 bytes allows, and far below where sizes overflow.
        let for_shape = usize::try_from(length.min(1 << 40)).unwrap_or(usize::MAX / 4);
        let shape = self.layout.for_stored(for_shape);
        EccReader { stored, length, shape, next_block: 0, block: Vec::new(), position: 0, left: None, repaired: false }
    }
}

impl<S: Read + Seek> EccReader<S> {
    /// Whether any data had to be repaired so far.
    pub fn repaired(&self) -> bool {
        self.repaired
    }

    /// Reads a span of the stored item, or what there is of it.
    fn span(&mut self, start: u64, length: usize) -> io::Result<Vec<u8>> {
        let length = (length as u64).min(self.length.saturating_sub(start));
        self.stored.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&mut self.stored).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }

    fn load(&mut self) -> io::Result<()> {
        let shape = self.shape;
        let parity_length = shape.code.parity * shape.framed();
        let data_length = shape.code.data * shape.framed();
        let data_start = shape.parity_bytes() as u64 + (self.next_block * data_length) as u64;
        let data = self.span(data_start, data_length)?;
        self.block.clear();
        let lost = read_block(&shape, &data, 0, &mut self.block);
        if !lost.is_empty() {
            let parity = self.span((self.next_block * parity_length) as u64, parity_length)?;
            repair_block(&shape, &parity, 0, &lost, &mut self.block).map_err(io::Error::other)?;
            self.repaired = true;
        }
        self.position = 0;
        if self.left.is_none() {
            let length = self.block.first_chunk::<LENGTH_BYTES>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            if u64::from(length) + LENGTH_BYTES as u64 > shape.capacity() as u64 {
                let step = "the length inside the error correction is larger than the item";
                return Err(io::Error::other(Error::damaged(step)));
            }
            self.left = Some(u64::from(length));
            self.position = LENGTH_BYTES;
        }
        self.next_block += 1;
        Ok(())
    }
}

impl<S: Read + Seek> Read for EccReader<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.left != Some(0) && self.position == self.block.len() && self.next_block < self.shape.blocks {
            self.load()?;
        }
        let rest = self.block.get(self.position..).unwrap_or_default();
        let left = usize::try_from(self.left.unwrap_or(0)).unwrap_or(usize::MAX);
        let count = out.len().min(rest.len()).min(left);
        out[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        self.left = self.left.map(|left| left - count as u64);
        Ok(count)
    }
}
