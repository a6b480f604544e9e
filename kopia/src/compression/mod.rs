//! Content compression: a 4-byte header ID and a codec stream.

use crate::content::CompressionId;
use crate::error::Result;

/// A reusable decompressor (contexts and buffers are kept between calls). One a thread.
#[derive(Default)]
pub struct Decompressor {}

impl Decompressor {
    /// A new one.
    pub fn new() -> Self {
        Self {}
    }
    /// Decompresses `stored` (header included) into `out` (cleared first), which ends up `original_length` long.
    /// `Damaged`: another header than `expected`, a malformed stream, or more or fewer bytes than `original_length` (R25).
    pub fn decompress(
        &mut self,
        expected: CompressionId,
        stored: &[u8],
        original_length: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let _ = (expected, stored, original_length, out);
        unreachable!("stub")
    }
    /// As [`Decompressor::decompress`] for a legacy `Z` object, whose header is in the bytes and whose length is not recorded; never more than `cap` bytes.
    pub fn decompress_headed(&mut self, stored: &[u8], cap: usize, out: &mut Vec<u8>) -> Result<()> {
        let _ = (stored, cap, out);
        unreachable!("stub")
    }
}
