//! Rabin's fingerprint: the window as a polynomial over GF(2), modulo one of degree 53.

use super::{RollingHash, WINDOW};

const POLYNOMIAL: u64 = 0x2e_3e3e_4a30_5605;
const DEGREE: u32 = 53;

/// What a byte does that is shifted out at the top, and what is left of a byte that leaves the window.
struct Tables {
    reduce: [u64; 256],
    leave: [u64; 256],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut tables = Tables { reduce: [0; 256], leave: [0; 256] };
    let mut byte = 0;
    while byte < 256 {
        // byte * x^53 mod P, with the bits above that the caller shifts in cleared by the same XOR.
        let high = (byte as u64) << DEGREE;
        tables.reduce[byte] = high ^ remainder_of_shifted(byte as u64, DEGREE);
        tables.leave[byte] = remainder_of_shifted(byte as u64, 8 * (WINDOW as u32 - 1));
        byte += 1;
    }
    tables
}

/// `value * x^shift mod P`.
const fn remainder_of_shifted(value: u64, shift: u32) -> u64 {
    let mut remainder = value;
    let mut left = shift;
    while left > 0 {
        remainder <<= 1;
        if remainder >> DEGREE & 1 == 1 {
            remainder ^= POLYNOMIAL;
        }
        left -= 1;
    }
    remainder
}

#[derive(Debug, Clone)]
pub(super) struct RabinKarp {
    window: [u8; WINDOW],
    oldest: usize,
    value: u64,
}

impl Default for RabinKarp {
    fn default() -> Self {
        Self { window: [0; WINDOW], oldest: 0, value: 0 }
    }
}

impl RollingHash for RabinKarp {
    #[inline]
    fn roll(&mut self, byte: u8) {
        let leaving = std::mem::replace(&mut self.window[self.oldest], byte);
        self.oldest = (self.oldest + 1) % WINDOW;
        let shifted = (self.value ^ TABLES.leave[usize::from(leaving)]) << 8;
        // 53 bits and a byte fit in 64, so the byte above the degree is what must be reduced.
        self.value = shifted ^ TABLES.reduce[(shifted >> DEGREE) as usize] ^ u64::from(byte);
    }

    #[inline]
    fn value(&self) -> u64 {
        self.value
    }
}
