//! Sets of rows, one bit a row: a plain one, and one that many threads fill at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// A set of rows below a fixed length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bitmap {
    words: Vec<u64>,
    length: u32,
}

fn place(bit: u32) -> (usize, u64) {
    ((bit / 64) as usize, 1 << (bit % 64))
}

impl Bitmap {
    /// An empty set of rows below `length`.
    #[must_use]
    pub fn new(length: u32) -> Self {
        Self { words: vec![0; length.div_ceil(64) as usize], length }
    }

    /// Rows below this can be in the set.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Whether `bit` is in the set; rows beyond the length never are.
    #[must_use]
    pub fn contains(&self, bit: u32) -> bool {
        let (word, mask) = place(bit);
        bit < self.length && self.words[word] & mask != 0
    }

    /// Adds `bit`; false if it was there, or lies beyond the length.
    pub fn insert(&mut self, bit: u32) -> bool {
        let (word, mask) = place(bit);
        let new = bit < self.length && self.words[word] & mask == 0;
        if new {
            self.words[word] |= mask;
        }
        new
    }

    /// Adds `bit`; where it lies beyond the length, the set grows.
    pub fn insert_growing(&mut self, bit: u32) -> bool {
        if bit >= self.length {
            let (word, _) = place(bit);
            self.length = bit.saturating_add(1);
            self.words.resize(word + 1, 0);
        }
        self.insert(bit)
    }

    /// Rows in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Adds the rows of `other`, which has to be of the same length.
    ///
    /// # Errors
    /// `Internal` for another length: the sets belong to different tables.
    pub fn union(&mut self, other: &Self) -> crate::Result<()> {
        if self.length != other.length {
            let step = format!("join row sets of lengths {} and {}", self.length, other.length);
            return Err(crate::Error::new(crate::ErrorKind::Internal, step));
        }
        self.words.iter_mut().zip(&other.words).for_each(|(word, add)| *word |= add);
        Ok(())
    }

    /// Rows in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(place, word)| {
            // The length is 32 bits wide, so there are at most 2^26 words.
            let base = u32::try_from(place).unwrap_or(u32::MAX).saturating_mul(64);
            std::iter::successors(Some(*word), |left| Some(left & left.wrapping_sub(1)))
                .take_while(|left| *left != 0)
                .map(move |left| base + left.trailing_zeros())
        })
    }
}

impl FromIterator<u32> for Bitmap {
    /// A set just long enough for its greatest row.
    fn from_iter<I: IntoIterator<Item = u32>>(rows: I) -> Self {
        let rows: Vec<u32> = rows.into_iter().collect();
        let mut set = Self::new(rows.iter().max().map_or(0, |max| max.saturating_add(1)));
        for row in rows {
            set.insert(row);
        }
        set
    }
}

/// A set that threads fill together.
#[derive(Debug)]
pub struct AtomicBitmap {
    words: Vec<AtomicU64>,
    length: u32,
}

impl AtomicBitmap {
    /// An empty set of rows below `length`.
    #[must_use]
    pub fn new(length: u32) -> Self {
        Self { words: (0..length.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(), length }
    }

    /// Adds `bit`; true for exactly one of the threads that add it.
    pub fn insert(&self, bit: u32) -> bool {
        let (word, mask) = place(bit);
        // Most marks repeat: reading first keeps the cache line shared.
        bit < self.length
            && self.words[word].load(Ordering::Relaxed) & mask == 0
            && self.words[word].fetch_or(mask, Ordering::Relaxed) & mask == 0
    }

    /// Whether `bit` is in the set.
    #[must_use]
    pub fn contains(&self, bit: u32) -> bool {
        let (word, mask) = place(bit);
        bit < self.length && self.words[word].load(Ordering::Relaxed) & mask != 0
    }

    /// The set, when all threads are done.
    #[must_use]
    pub fn into_bitmap(self) -> Bitmap {
        Bitmap { words: self.words.into_iter().map(AtomicU64::into_inner).collect(), length: self.length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_set(rows in proptest::collection::vec(0u32..300, 0..80)) {
            let expected: std::collections::BTreeSet<u32> = rows.iter().copied().collect();
            let mut plain = Bitmap::new(300);
            let shared = AtomicBitmap::new(300);
            for row in &rows {
                let new = plain.insert(*row);
                prop_assert_eq!(new, shared.insert(*row));
            }
            prop_assert_eq!(plain.iter().collect::<Vec<_>>(), expected.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(plain.count(), expected.len() as u64);
            prop_assert!((0..300).all(|row| plain.contains(row) == expected.contains(&row)));
            prop_assert!((0..300).all(|row| shared.contains(row) == expected.contains(&row)));
            prop_assert_eq!(shared.into_bitmap(), plain);
        }
    }

    #[test]
    fn rows_beyond_the_length_are_never_in() {
        let mut set = Bitmap::new(65);
        assert!(set.insert(64) && !set.insert(64) && !set.insert(65) && !set.contains(1000));
        assert!(!AtomicBitmap::new(0).insert(0));
        assert!(set.union(&Bitmap::new(64)).is_err());
        let mut other = Bitmap::new(65);
        other.insert(3);
        set.union(&other).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 64]);
    }
}
