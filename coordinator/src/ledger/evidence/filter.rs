//! Which names may be in a part of the evidence: asked before the part is fetched. It can be wrong by saying yes, about once in a hundred.

use serde::{Deserialize, Serialize};
use verger_proto::Digest;

/// Bits for each name.
const BITS_A_NAME: usize = 10;
/// Bits that a name sets.
const PROBES: u64 = 7;

/// Names, as bits.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Filter(Vec<u8>);

impl Filter {
    pub(super) fn of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let mut filter = Self(vec![0; (names.len() * BITS_A_NAME).div_ceil(8).max(1)]);
        for name in names {
            for (byte, bit) in filter.places(name) {
                filter.0[byte] |= bit;
            }
        }
        filter
    }

    pub(super) fn may_have(&self, name: &str) -> bool {
        self.places(name).into_iter().all(|(byte, bit)| self.0.get(byte).is_some_and(|bits| bits & bit != 0))
    }

    fn places(&self, name: &str) -> Vec<(usize, u8)> {
        let digest = Digest::of(name.as_bytes());
        let part = |at: usize| digest.0[at..at + 8].iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        let (first, step, bits) = (part(0), part(8) | 1, self.0.len() as u64 * 8);
        let place = |probe: u64| first.wrapping_add(probe.wrapping_mul(step)).checked_rem(bits).unwrap_or_default();
        (0..PROBES).map(place).map(|bit| (usize::try_from(bit / 8).unwrap_or_default(), 1 << (bit % 8))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_denied_and_few_others_are_not() {
        let names: Vec<String> = (0..5_000).map(|number| format!("p{number:032x}-s{number:016x}")).collect();
        let filter = Filter::of(names.iter().map(String::as_str));
        assert!(names.iter().all(|name| filter.may_have(name)));
        let wrong = (5_000..15_000).filter(|number| filter.may_have(&format!("p{number:032x}-s{number:016x}"))).count();
        assert!(wrong < 300, "{wrong} of 10000");
        assert!(!Filter::default().may_have("p01"), "what is empty has nothing");
        assert!(!Filter::of([].into_iter()).may_have("p01"));
    }
}
