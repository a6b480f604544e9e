use super::*;
use crate::ErrorKind;
use proptest::prelude::*;

fn ecc(percent: u32) -> Ecc {
    Ecc::new("REED-SOLOMON-CRC32", percent).unwrap()
}

/// Bytes without a pattern that could hide a mix-up of shards.
fn sample(length: usize) -> Vec<u8> {
    (0..length as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u8).collect()
}

/// Where the frames of a block lie in the stored item: parity, then data that is stored.
fn frames(shape: &Shape, stored: usize, block: usize) -> Vec<std::ops::Range<usize>> {
    let frame = |start: usize| start..(start + shape.framed()).min(stored);
    let parity = (0..shape.code.parity).map(|i| (block * shape.code.parity + i) * shape.framed());
    let data = (0..shape.code.data).map(|i| shape.parity_bytes() + (block * shape.code.data + i) * shape.framed());
    parity.chain(data).filter(|&start| start < stored).map(frame).collect()
}

#[test]
fn output_is_that_of_kopia() {
    let stored = ecc(10).encode(b"abc").unwrap();
    assert_eq!(
        hex::encode(&stored),
        "36ea4cb069fd3e697ffc6b9c41d912ff0000d8d0434500039e83486d61620f092a9b630041d912ff000041d912ff0000"
    );
    assert_eq!(ecc(10).decode(&stored).unwrap(), (b"abc".to_vec(), false));
}

#[test]
fn all_lengths_around_the_borders_of_the_three_cases_read_back() {
    for percent in [1, 2, 5, 7, 10, 50, 100] {
        let ecc = ecc(percent);
        let small = 8 * ecc.layout.code.shards();
        let block = ecc.layout.code.data * ecc.layout.shard_max;
        let borders = [4, small, block, 2 * block, 3 * block];
        for length in borders.iter().flat_map(|&border| border.saturating_sub(8)..border + 8) {
            let message = sample(length);
            let stored = ecc.encode(&message).unwrap();
            assert!(ecc.is_intact(&stored), "{percent} %, {length} bytes");
            assert_eq!(ecc.decode(&stored).unwrap(), (message, false), "{percent} %, {length} bytes");
        }
    }
}

#[test]
fn as_many_lost_shards_as_parity_are_repaired_and_one_more_is_damage() {
    for (percent, length) in [(10, 100), (10, 5000), (10, 20_000), (1, 3000), (50, 40_000), (100, 30_000)] {
        let ecc = ecc(percent);
        let message = sample(length);
        let stored = ecc.encode(&message).unwrap();
        let shape = ecc.layout.for_stored(stored.len());
        for block in 0..shape.blocks {
            let frames = frames(&shape, stored.len(), block);
            let parity = shape.code.parity;
            let mut hit = stored.clone();
            // Data shards from the first on: parity stays whole.
            for frame in frames[parity..].iter().take(parity) {
                hit[frame.start + frame.len() / 2] ^= 0x40;
            }
            assert_eq!(ecc.decode(&hit).unwrap(), (message.clone(), true), "{percent} %, block {block}");
            assert!(!ecc.is_intact(&hit));
            // One parity shard lost as well is one too many.
            hit[frames[parity - 1].start] ^= 1;
            if frames.len() >= 2 * parity {
                let error = ecc.decode(&hit).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Damaged);
            }
        }
    }
}

#[test]
fn lost_parity_alone_is_no_repair_but_not_intact() {
    let ecc = ecc(10);
    let mut stored = ecc.encode(&sample(9000)).unwrap();
    stored[6] ^= 1;
    assert_eq!(ecc.decode(&stored).unwrap(), (sample(9000), false));
    assert!(!ecc.is_intact(&stored));
}

#[test]
fn a_last_shard_cut_short_is_repaired_as_kopia_does() {
    let ecc = ecc(10);
    let mut stored = ecc.encode(&sample(20_000)).unwrap();
    stored.truncate(stored.len() - 3);
    assert_eq!(ecc.decode(&stored).unwrap(), (sample(20_000), true));
    assert!(!ecc.is_intact(&stored));
}

#[test]
fn unknown_algorithms_are_refused() {
    let error = Ecc::new("HAMMING", 5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("HAMMING"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_damage_up_to_parity_in_each_block_is_repaired(
        percent in 1u32..=100,
        message in proptest::collection::vec(any::<u8>(), 0..40_000),
        seed in any::<u64>(),
    ) {
        let ecc = ecc(percent);
        let stored = ecc.encode(&message).unwrap();
        let shape = ecc.layout.for_stored(stored.len());
        let mut hit = stored.clone();
        let mut state = seed | 1;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for block in 0..shape.blocks {
            let mut frames = frames(&shape, stored.len(), block);
            for _ in 0..next(shape.code.parity + 1).min(frames.len()) {
                let frame = frames.swap_remove(next(frames.len()));
                hit[frame.start + next(frame.len())] ^= 1 << next(8);
            }
        }
        prop_assert_eq!(ecc.decode(&hit).unwrap().0, message);
        prop_assert_eq!(ecc.is_intact(&hit), hit == stored);
    }

    #[test]
    fn hostile_bytes_never_panic_nor_grow(
        percent in 1u32..=200,
        stored in proptest::collection::vec(any::<u8>(), 0..70_000),
    ) {
        if let Ok((message, _)) = ecc(percent).decode(&stored) {
            prop_assert!(message.len() <= stored.len() + 300_000);
        }
        prop_assert!(stored.len() < 32 || !ecc(percent).is_intact(&stored));
    }
}
