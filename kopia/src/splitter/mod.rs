//! Where Kopia cuts a file into contents (`repo/splitter`). Reading never needs it; writing the same cuts makes new data
//! deduplicate against what Kopia wrote.

mod buzhash;
mod buzhash_table;
mod rabin_karp;

use crate::error::{Error, Result};
use buzhash::Buzhash;
use rabin_karp::RabinKarp;

/// Kopia's splitter of new repositories.
pub const DEFAULT: &str = "DYNAMIC-4M-BUZHASH";

/// Kopia's names of all splitters, in its order; [`Splitter::new`] knows each.
pub const NAMES: [&str; 23] = [
    "DYNAMIC",
    "DYNAMIC-128K-BUZHASH",
    "DYNAMIC-128K-RABINKARP",
    "DYNAMIC-1M-BUZHASH",
    "DYNAMIC-1M-RABINKARP",
    "DYNAMIC-256K-BUZHASH",
    "DYNAMIC-256K-RABINKARP",
    "DYNAMIC-2M-BUZHASH",
    "DYNAMIC-2M-RABINKARP",
    "DYNAMIC-4M-BUZHASH",
    "DYNAMIC-4M-RABINKARP",
    "DYNAMIC-512K-BUZHASH",
    "DYNAMIC-512K-RABINKARP",
    "DYNAMIC-8M-BUZHASH",
    "DYNAMIC-8M-RABINKARP",
    "FIXED",
    "FIXED-128K",
    "FIXED-1M",
    "FIXED-256K",
    "FIXED-2M",
    "FIXED-4M",
    "FIXED-512K",
    "FIXED-8M",
];

/// Bytes that a rolling hash covers.
const WINDOW: usize = 64;

/// Finds the cuts of one object after another.
#[derive(Debug, Clone)]
pub struct Splitter(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Fixed { length: usize, count: usize },
    Buzhash(Dynamic<Buzhash>),
    RabinKarp(Dynamic<RabinKarp>),
}

impl Splitter {
    /// The splitter of this Kopia name; an empty one is `FIXED`.
    ///
    /// # Errors
    /// `Unsupported` for another name.
    pub fn new(name: &str) -> Result<Self> {
        let unknown = || Error::unsupported(format!("splitter {name:?} is not known"));
        let parts: Vec<&str> = name.split('-').collect();
        let kind = match parts[..] {
            ["" | "FIXED"] => Kind::Fixed { length: 4 << 20, count: 0 },
            ["DYNAMIC"] => Kind::Buzhash(Dynamic::new(4 << 20)),
            ["FIXED", size] => Kind::Fixed { length: size_of(size).ok_or_else(unknown)?, count: 0 },
            ["DYNAMIC", size, "BUZHASH"] => Kind::Buzhash(Dynamic::new(size_of(size).ok_or_else(unknown)?)),
            ["DYNAMIC", size, "RABINKARP"] => Kind::RabinKarp(Dynamic::new(size_of(size).ok_or_else(unknown)?)),
            _ => return Err(unknown()),
        };
        Ok(Self(kind))
    }

    /// Length of the first chunk's part in `data`, the next bytes of the object, if a chunk ends there; `None` takes all of
    /// `data` into the chunk that goes on.
    pub fn next_cut(&mut self, data: &[u8]) -> Option<usize> {
        match &mut self.0 {
            Kind::Fixed { length, count } => {
                let left = *length - *count;
                if data.len() < left {
                    *count += data.len();
                    return None;
                }
                *count = 0;
                Some(left)
            }
            Kind::Buzhash(dynamic) => dynamic.next_cut(data),
            Kind::RabinKarp(dynamic) => dynamic.next_cut(data),
        }
    }

    /// Longest chunk in bytes.
    #[must_use]
    pub fn chunk_max(&self) -> usize {
        match &self.0 {
            Kind::Fixed { length, .. } => *length,
            Kind::Buzhash(dynamic) => dynamic.max,
            Kind::RabinKarp(dynamic) => dynamic.max,
        }
    }

    /// Forgets the object so far: the next byte begins another one.
    pub fn reset(&mut self) {
        match &mut self.0 {
            Kind::Fixed { count, .. } => *count = 0,
            Kind::Buzhash(dynamic) => dynamic.count = 0,
            Kind::RabinKarp(dynamic) => dynamic.count = 0,
        }
    }
}

fn size_of(size: &str) -> Option<usize> {
    match size {
        "128K" => Some(128 << 10),
        "256K" => Some(256 << 10),
        "512K" => Some(512 << 10),
        "1M" => Some(1 << 20),
        "2M" => Some(2 << 20),
        "4M" => Some(4 << 20),
        "8M" => Some(8 << 20),
        _ => None,
    }
}

/// A hash of the last [`WINDOW`] bytes.
trait RollingHash: Default {
    fn roll(&mut self, byte: u8);
    fn value(&self) -> u64;
}

/// Cuts after the first byte, from half the average length on, where the low bits of the hash are zero, at the latest at
/// twice the average.
#[derive(Debug, Clone)]
struct Dynamic<H> {
    hash: H,
    mask: u64,
    min: usize,
    max: usize,
    count: usize,
}

impl<H: RollingHash> Dynamic<H> {
    fn new(average: usize) -> Self {
        Self { hash: H::default(), mask: average as u64 - 1, min: average / 2, max: average * 2, count: 0 }
    }

    fn next_cut(&mut self, data: &[u8]) -> Option<usize> {
        // The hash depends on the last bytes alone, so of those before the shortest chunk only a window full counts.
        let skipped = (self.min - 1).saturating_sub(self.count).min(data.len());
        let (before, rest) = data.split_at(skipped);
        for &byte in &before[skipped.saturating_sub(WINDOW)..] {
            self.hash.roll(byte);
        }
        self.count += skipped;
        let candidates = rest.len().min(self.max - self.count);
        for (at, &byte) in rest[..candidates].iter().enumerate() {
            self.hash.roll(byte);
            if self.hash.value() & self.mask == 0 {
                self.count = 0;
                return Some(skipped + at + 1);
            }
        }
        self.count += candidates;
        if self.count >= self.max {
            self.count = 0;
            return Some(skipped + candidates);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut x: u32 = 12345;
        let mut next = || {
            x = x.wrapping_mul(1_103_515_245).wrapping_add(12345);
            (x >> 16) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn cuts(name: &str, data: &[u8], mut step: impl FnMut() -> usize) -> Vec<usize> {
        let mut splitter = Splitter::new(name).unwrap();
        let (mut at, mut cuts) = (0, Vec::new());
        while at < data.len() {
            let part = &data[at..data.len().min(at + step().max(1))];
            match splitter.next_cut(part) {
                Some(length) => {
                    at += length;
                    cuts.push(at);
                }
                None => at += part.len(),
            }
        }
        cuts
    }

    #[test]
    fn cuts_are_those_of_the_real_program() {
        let data = noise(1_500_000);
        for (name, expected) in [
            ("DYNAMIC-128K-BUZHASH", &[262_144, 332_374, 594_518, 848_879, 916_330, 1_030_553, 1_292_697][..]),
            ("DYNAMIC-256K-BUZHASH", &[332_374, 848_879, 1_297_139]),
            (
                "DYNAMIC-128K-RABINKARP",
                &[69_118, 162_285, 370_204, 441_640, 565_865, 676_404, 938_548, 1_200_692, 1_286_003, 1_418_742],
            ),
            ("FIXED-512K", &[524_288, 1_048_576]),
        ] {
            assert_eq!(cuts(name, &data, || usize::MAX / 2), expected, "{name}");
        }
    }

    #[test]
    fn names_are_kopias() {
        assert_eq!(Splitter::new("").unwrap().chunk_max(), 4 << 20);
        assert_eq!(Splitter::new("DYNAMIC").unwrap().chunk_max(), 8 << 20);
        assert_eq!(Splitter::new("FIXED-8M").unwrap().chunk_max(), 8 << 20);
        for name in ["DYNAMIC-3M-BUZHASH", "FIXED-", "DYNAMIC-4M", "FIXED-4M-BUZHASH", "fixed"] {
            assert!(Splitter::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_object_begins_anew_after_reset() {
        let data = noise(400_000);
        for name in ["DYNAMIC-128K-BUZHASH", "DYNAMIC-128K-RABINKARP", "FIXED-128K"] {
            let mut splitter = Splitter::new(name).unwrap();
            let first = splitter.next_cut(&data);
            splitter.next_cut(&data[..1000]);
            splitter.reset();
            assert_eq!(splitter.next_cut(&data), first, "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn cuts_do_not_depend_on_how_the_bytes_arrive(steps in prop::collection::vec(1usize..100_000, 1..20), which in 0usize..3) {
            let name = ["DYNAMIC-128K-BUZHASH", "DYNAMIC-128K-RABINKARP", "FIXED-128K"][which];
            let data = noise(700_000);
            let mut turn = steps.iter().cycle();
            prop_assert_eq!(cuts(name, &data, || *turn.next().unwrap()), cuts(name, &data, || data.len()));
        }
    }
}
