//! The chain of range checkpoints that readers use (`internal/epoch/epoch_range.go`).

use std::collections::BTreeMap;

use super::names;
use crate::storage::BlobMetadata;

/// A complete range checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRange {
    /// First epoch that it covers.
    pub min: u64,
    /// Last epoch that it covers.
    pub max: u64,
    /// Its blobs.
    pub blobs: Vec<BlobMetadata>,
}

/// Complete ranges of a sorted listing of `xr` blobs.
pub(super) fn complete_ranges(blobs: &[BlobMetadata]) -> Vec<EpochRange> {
    let mut groups: BTreeMap<(u64, u64), Vec<BlobMetadata>> = BTreeMap::new();
    for blob in blobs {
        if let Some(range) = names::range_of(&blob.id) {
            groups.entry(range).or_default().push(blob.clone());
        }
    }
    let complete = |((min, max), blobs): ((u64, u64), Vec<BlobMetadata>)| {
        Some(EpochRange { min, max, blobs: names::first_complete(&blobs)? })
    };
    groups.into_iter().filter_map(complete).collect()
}

/// Ranges that follow each other from epoch 0 on and reach furthest; the fewest on a tie. A single `[0, 0]` is never taken.
pub(super) fn longest(ranges: Vec<EpochRange>) -> Vec<EpochRange> {
    // Best chain from each first epoch: last epoch reached, number of ranges, the first of them. Later starts come first,
    // since a range only continues behind its own end.
    let mut best: BTreeMap<u64, (u64, usize, usize)> = BTreeMap::new();
    let mut order: Vec<usize> = (0..ranges.len()).filter(|at| ranges[*at].max >= ranges[*at].min).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(ranges[*at].min), *at));
    for at in order {
        let range = &ranges[at];
        let (reach, length) =
            best.get(&(range.max + 1)).map_or((range.max, 1), |(reach, length, _)| (*reach, length + 1));
        let (old_reach, old_length) = best.get(&range.min).map_or((0, 0), |(reach, length, _)| (*reach, *length));
        if reach > old_reach || (reach == old_reach && length < old_length) {
            best.insert(range.min, (reach, length, at));
        }
    }
    let mut ranges: Vec<Option<EpochRange>> = ranges.into_iter().map(Some).collect();
    let (mut chain, mut next) = (Vec::new(), 0);
    while let Some(range) = best.get(&next).and_then(|(_, _, at)| ranges[*at].take()) {
        next = range.max + 1;
        chain.push(range);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index_set::testing::blobs;

    fn chain_of(names: &[&str]) -> Vec<(u64, u64)> {
        let mut listed = blobs(names);
        listed.sort_by(|a, b| a.id.cmp(&b.id));
        longest(complete_ranges(&listed)).iter().map(|range| (range.min, range.max)).collect()
    }

    #[test]
    fn chains_begin_at_zero_reach_far_and_are_short() {
        assert_eq!(chain_of(&[]), []);
        assert_eq!(chain_of(&["xr1_8_a"]), []);
        assert_eq!(chain_of(&["xr0_0_a"]), []);
        assert_eq!(chain_of(&["xr0_7_a", "xr8_15_b", "xr0_9_c"]), [(0, 7), (8, 15)]);
        assert_eq!(chain_of(&["xr0_7_a", "xr8_15_b", "xr0_15_c"]), [(0, 15)]);
        assert_eq!(chain_of(&["xr0_7_a", "xr9_15_b"]), [(0, 7)]);
        assert_eq!(chain_of(&["xr0_7_a-s1-c2", "xr8_15_b"]), []);
        assert_eq!(chain_of(&["xr0_7_a-s1-c2", "xr0_7_b-s1-c2", "xr5_2_c"]), [(0, 7)]);
        assert_eq!(chain_of(&["xr0_0_a", "xr1_8_b"]), [(0, 0), (1, 8)]);
    }
}
