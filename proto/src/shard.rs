//! A part of a stage: a range of keys (content IDs or blob names, as bytes).

use serde::{Deserialize, Serialize};

/// Keys from `from` (included) to `to` (excluded; `None` is the end). The empty key is the beginning.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Shard {
    /// First key.
    pub from: Vec<u8>,
    /// First key that is not in it.
    pub to: Option<Vec<u8>>,
}

/// Shards that do not cover all keys exactly once (R12).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoverageError {
    /// There is none.
    #[error("there is no shard")]
    Empty,
    /// A shard is empty or runs backwards.
    #[error("shard {0} holds no key")]
    Hollow(u32),
    /// Keys before this shard are in none.
    #[error("keys before shard {0} are in no shard")]
    Gap(u32),
    /// This shard begins inside the one before.
    #[error("shard {0} overlaps the one before")]
    Overlap(u32),
    /// Keys after the last shard are in none.
    #[error("keys after the last shard are in no shard")]
    OpenEnd,
}

impl Shard {
    /// Everything.
    #[must_use]
    pub fn whole() -> Self {
        Self::default()
    }

    /// Whether it is everything.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.from.is_empty() && self.to.is_none()
    }

    /// Whether `key` is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.from.as_slice() <= key && self.to.as_deref().is_none_or(|to| key < to)
    }

    /// Proves that `shards`, in order, hold each key exactly once.
    ///
    /// # Errors
    /// The first place where they do not.
    pub fn prove_coverage(shards: &[Shard]) -> Result<(), CoverageError> {
        let mut reached: Option<&[u8]> = Some(&[]);
        if shards.is_empty() {
            return Err(CoverageError::Empty);
        }
        for (index, shard) in (0u32..).zip(shards) {
            let Some(end) = reached else { return Err(CoverageError::Overlap(index)) };
            match shard.from.as_slice().cmp(end) {
                std::cmp::Ordering::Less => return Err(CoverageError::Overlap(index)),
                std::cmp::Ordering::Greater => return Err(CoverageError::Gap(index)),
                std::cmp::Ordering::Equal => {}
            }
            if shard.to.as_ref().is_some_and(|to| *to <= shard.from) {
                return Err(CoverageError::Hollow(index));
            }
            reached = shard.to.as_deref();
        }
        if reached.is_some() { Err(CoverageError::OpenEnd) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(from: &[u8], to: Option<&[u8]>) -> Shard {
        Shard { from: from.to_vec(), to: to.map(<[u8]>::to_vec) }
    }

    #[test]
    fn coverage_is_exact() {
        let whole = [Shard::whole()];
        assert_eq!(Shard::prove_coverage(&whole), Ok(()));
        let three = [shard(b"", Some(b"k")), shard(b"k", Some(b"ka")), shard(b"ka", None)];
        assert_eq!(Shard::prove_coverage(&three), Ok(()));
        for key in [&b""[..], b"a", b"k", b"ka", b"z"] {
            assert_eq!(three.iter().filter(|shard| shard.contains(key)).count(), 1);
        }
        assert_eq!(Shard::prove_coverage(&[]), Err(CoverageError::Empty));
        assert_eq!(Shard::prove_coverage(&three[..2]), Err(CoverageError::OpenEnd));
        assert_eq!(Shard::prove_coverage(&three[1..]), Err(CoverageError::Gap(0)));
        let twice = [three[0].clone(), three[0].clone()];
        assert_eq!(Shard::prove_coverage(&twice), Err(CoverageError::Overlap(1)));
        assert_eq!(Shard::prove_coverage(&[Shard::whole(), Shard::whole()]), Err(CoverageError::Overlap(1)));
        let hollow = [three[0].clone(), shard(b"k", Some(b"k")), three[1].clone(), three[2].clone()];
        assert_eq!(Shard::prove_coverage(&hollow), Err(CoverageError::Hollow(1)));
    }
}
