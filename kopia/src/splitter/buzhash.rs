//! Buzhash of 32 bits.

use super::buzhash_table::TABLE;
use super::{RollingHash, WINDOW};

#[derive(Debug, Clone)]
pub(super) struct Buzhash {
    window: [u8; WINDOW],
    oldest: usize,
    sum: u32,
}

impl Default for Buzhash {
    fn default() -> Self {
        let mut hash = Self { window: [0; WINDOW], oldest: 0, sum: 0 };
        for _ in 0..WINDOW {
            hash.sum = hash.sum.rotate_left(1) ^ TABLE[0];
        }
        hash
    }
}

impl RollingHash for Buzhash {
    #[inline]
    fn roll(&mut self, byte: u8) {
        let leaving = std::mem::replace(&mut self.window[self.oldest], byte);
        self.oldest = (self.oldest + 1) % WINDOW;
        // What leaves was rotated once for each byte of the window: twice around, so not at all.
        self.sum = self.sum.rotate_left(1) ^ TABLE[usize::from(leaving)] ^ TABLE[usize::from(byte)];
    }

    #[inline]
    fn value(&self) -> u64 {
        u64::from(self.sum)
    }
}
