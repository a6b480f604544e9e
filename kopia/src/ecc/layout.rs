//! How many shards of which size: from the overhead percentage, and for a message or a stored item of some length
//! (`repo/ecc/ecc_rs_crc.go`, `repo/ecc/ecc_utils.go`).

pub(super) const LENGTH_BYTES: usize = 4;
pub(super) const CRC_BYTES: usize = 4;
/// Short items have their own code, 6 + 2.
const SMALL: Code = Code { data: 6, parity: 2 };

/// Numbers of data and parity shards in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Code {
    pub data: usize,
    pub parity: usize,
}

impl Code {
    pub(super) fn shards(self) -> usize {
        self.data + self.parity
    }

    /// From the overhead that is left for parity, in percent.
    fn of_overhead(percent: f32) -> Self {
        let parity = apply_percent(128, percent / 100.0).clamp(1, 128);
        if parity > 1 {
            return Self { data: 128, parity };
        }
        Self { data: apply_percent(2, 100.0 / percent).clamp(128, 254), parity: 2 }
    }
}

/// Kopia computes the fraction in 32-bit floats and the product in 64-bit ones; other roundings give other shards.
fn apply_percent(value: u8, fraction: f32) -> usize {
    let product = (f64::from(value) * f64::from(fraction)).floor();
    // A float cast saturates, and 256 is above every clamp of the callers.
    product.clamp(0.0, 256.0) as usize
}

/// The layout for one overhead percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub code: Code,
    pub shard_max: usize,
}

/// The shape of one encoded item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub code: Code,
    pub shard: usize,
    pub blocks: usize,
    /// Whether zeros that fill the last block are stored.
    pub stores_padding: bool,
}

impl Shape {
    /// Bytes of CRC and shard.
    pub(super) fn framed(&self) -> usize {
        CRC_BYTES + self.shard
    }

    /// Where data shards begin in the stored item.
    pub(super) fn parity_bytes(&self) -> usize {
        self.blocks * self.code.parity * self.framed()
    }

    /// Bytes of length prefix and message that fit.
    pub(super) fn capacity(&self) -> usize {
        self.blocks * self.code.data * self.shard
    }
}

impl Layout {
    pub(super) fn of_percent(percent: u32) -> Self {
        let shard_max: u16 = match percent {
            1 => 1024,
            2 => 512,
            3 => 256,
            0 | 4..=6 => 128,
            _ => 64,
        };
        // The CRCs take their part of the overhead.
        let free = (percent as f32 - 400.0 / f32::from(shard_max)).max(0.01);
        Self { code: Code::of_overhead(free), shard_max: usize::from(shard_max) }
    }

    /// For a message of `length` bytes, or `None` if its length does not fit the prefix of 4 bytes.
    pub(super) fn for_message(&self, length: usize) -> Option<Shape> {
        u32::try_from(length).ok()?;
        let total = length.checked_add(LENGTH_BYTES)?;
        Some(if total <= self.small_input() {
            self.single(SMALL, total.div_ceil(SMALL.data))
        } else if total <= self.code.data * self.shard_max {
            self.single(self.code, total.div_ceil(self.code.data))
        } else {
            self.many(total.div_ceil(self.code.data * self.shard_max))
        })
    }

    /// For a stored item of `length` bytes.
    pub(super) fn for_stored(&self, length: usize) -> Shape {
        let small_output = SMALL.shards() * (CRC_BYTES + self.small_input().div_ceil(SMALL.data));
        let block_output = self.code.shards() * (CRC_BYTES + self.shard_max);
        let shard = |code: Code| length.div_ceil(code.shards()).max(1 + CRC_BYTES) - CRC_BYTES;
        if length <= small_output {
            self.single(SMALL, shard(SMALL))
        } else if length <= block_output {
            self.single(self.code, shard(self.code))
        } else {
            self.many(length.div_ceil(block_output))
        }
    }

    fn small_input(&self) -> usize {
        2 * CRC_BYTES * self.code.shards()
    }

    fn single(&self, code: Code, shard: usize) -> Shape {
        Shape { code, shard, blocks: 1, stores_padding: true }
    }

    fn many(&self, blocks: usize) -> Shape {
        Shape { code: self.code, shard: self.shard_max, blocks, stores_padding: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_follow_the_percentage_as_in_kopia() {
        let table = [
            (1, 254, 2),
            (2, 164, 2),
            (3, 139, 2),
            (4, 228, 2),
            (5, 128, 2),
            (6, 128, 3),
            (7, 254, 2),
            (8, 128, 2),
            (9, 128, 3),
            (10, 128, 4),
            (11, 128, 6),
            (12, 128, 7),
            (13, 128, 8),
            (15, 128, 11),
            (20, 128, 17),
            (25, 128, 24),
            (30, 128, 30),
            (50, 128, 56),
            (100, 128, 120),
        ];
        for (percent, data, parity) in table {
            assert_eq!(Layout::of_percent(percent).code, Code { data, parity }, "{percent} %");
        }
        assert_eq!(Layout::of_percent(u32::MAX).code, Code { data: 128, parity: 128 });
    }

    #[test]
    fn shapes_are_found_again_from_the_stored_length() {
        for percent in [1, 4, 7, 10, 50, 100] {
            let layout = Layout::of_percent(percent);
            for length in (0..3000).chain((3000..600_000).step_by(997)) {
                let shape = layout.for_message(length).unwrap();
                let data = if shape.stores_padding {
                    shape.code.data * shape.framed()
                } else {
                    length + LENGTH_BYTES + CRC_BYTES * (length + LENGTH_BYTES).div_ceil(shape.shard)
                };
                assert_eq!(layout.for_stored(shape.parity_bytes() + data), shape, "{percent} %, {length} bytes");
            }
        }
    }
}
