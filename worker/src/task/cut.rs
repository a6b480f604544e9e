//! How a stage is cut: ranges of pack names that cost about as much each, and every name exactly once.

use verger_kopia::storage::BlobId;
use verger_proto::Shard;

/// The least number of shards: one is a stage that was not cut.
const SHARDS_MIN: usize = 2;
/// And the most: each is a job, and each job is told what all of them left.
const SHARDS_MAX: usize = 256;
/// Packs of a shard at most, however small: each is a request, which costs as much as this part of a shard's bytes. At 64 MiB that is a
/// mebibyte, for a round trip of 30 ms.
pub const PACKS_MAX: u64 = 64;
/// Where shards take unequally long, a stage has so many if it can, so that the last ones do not keep many workers waiting for few ...
const SHARDS_UNEQUAL: u64 = 32;
/// ... but none for fewer packs than these: a second of requests is eight times what a shard costs beyond them.
const PACKS_UNEQUAL_MIN: u64 = 32;
/// A key between two packs that is longer cuts nothing: it stands in names.
const KEY_BYTES_MAX: usize = 32;

/// How finely a stage is cut.
#[derive(Debug, Clone, Copy)]
pub struct Grain<'s> {
    /// Bytes of a shard.
    pub bytes: u64,
    /// Small packs of a shard at most.
    pub packs: u64,
    /// Keys, in order, where an earlier stage was cut. A shard ends there if it has half its share: whoever did one of that stage keeps
    /// what it read.
    pub seams: &'s [Vec<u8>],
}

/// So many small packs have the shards of a stage of unequal ones.
#[must_use]
pub fn packs_of_unequal(count: usize) -> u64 {
    (count as u64).div_ceil(SHARDS_UNEQUAL).clamp(PACKS_UNEQUAL_MIN, PACKS_MAX)
}

/// Cuts packs, in the order of their names, into shards. `None`: not worth it.
#[must_use]
pub fn cut<'p>(packs: impl IntoIterator<Item = (&'p BlobId, u64)>, grain: &Grain<'_>) -> Option<Vec<Shard>> {
    let request = grain.bytes / grain.packs.max(1);
    let packs = packs.into_iter().map(|(pack, bytes)| (pack, bytes.saturating_add(request)));
    let packs: Vec<(&BlobId, u64)> = packs.collect();
    let total = packs.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    let share = grain.bytes.max(total.div_ceil(SHARDS_MAX as u64)).max(1);
    let mut shards: Vec<Shard> = Vec::new();
    let (mut from, mut bytes) = (Vec::new(), 0u64);
    for pair in packs.windows(2) {
        let [(pack, here), (next, there)] = pair else { continue };
        bytes = bytes.saturating_add(*here);
        // Nearer to its share with the next pack than without: then that one still belongs here.
        let is_full = bytes >= share || bytes.saturating_add(there / 2) > share;
        let (pack, next) = (pack.as_str().as_bytes(), next.as_str().as_bytes());
        let seam = seam(grain.seams, pack, next).filter(|_| bytes >= share / 2);
        if !(is_full || seam.is_some()) || shards.len() + 1 == SHARDS_MAX {
            continue;
        }
        if let Some(key) = seam.or_else(|| between(pack, next)) {
            shards.push(Shard { from: std::mem::replace(&mut from, key.clone()), to: Some(key) });
            bytes = 0;
        }
    }
    shards.push(Shard { from, to: None });
    (shards.len() >= SHARDS_MIN).then_some(shards)
}

/// The first of the keys that is behind `one` and not behind `next`.
fn seam(seams: &[Vec<u8>], one: &[u8], next: &[u8]) -> Option<Vec<u8>> {
    let seam = seams.get(seams.partition_point(|seam| seam.as_slice() <= one))?;
    (seam.as_slice() <= next).then(|| seam.clone())
}

/// The shortest key that is behind `one` and not behind `next`; `None` if it is too long, or there is none.
fn between(one: &[u8], next: &[u8]) -> Option<Vec<u8>> {
    let same = one.iter().zip(next).take_while(|(a, b)| a == b).count();
    let key = next.get(..=same)?;
    (one < key && key.len() <= KEY_BYTES_MAX).then(|| key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packs(count: usize) -> Vec<BlobId> {
        let mut packs: Vec<BlobId> =
            (0..count).map(|n| BlobId::new(format!("q{}-s0", blake3::hash(&n.to_le_bytes()).to_hex()))).collect();
        packs.sort();
        packs
    }

    fn after(bytes: u64, seams: &[Vec<u8>]) -> Grain<'_> {
        Grain { bytes, packs: PACKS_MAX, seams }
    }

    fn of(bytes: u64) -> Grain<'static> {
        after(bytes, &[])
    }

    #[test]
    fn r12_a_cut_holds_every_name_once_and_about_as_much_everywhere() {
        for (count, bytes, shard_bytes, least, most) in [
            (100, 20 << 20, 64 << 20, 28, 40),
            (1000, 20 << 20, 64 << 20, 250, 256),
            (5000, 20 << 20, 1, 200, 256),
            (3, 20 << 20, 1, 3, 3),
            (2, 1, 1, 2, 2),
        ] {
            let packs = packs(count);
            let shards = cut(packs.iter().map(|pack| (pack, bytes)), &of(shard_bytes)).unwrap();
            assert_eq!(Shard::prove_coverage(&shards), Ok(()));
            assert!((least..=most).contains(&shards.len()), "{count} {}", shards.len());
            let held = |shard: &Shard| packs.iter().filter(|pack| shard.contains(pack.as_str().as_bytes())).count();
            let held: Vec<usize> = shards.iter().map(held).collect();
            assert_eq!(held.iter().sum::<usize>(), count);
            assert!(held.iter().all(|held| *held > 0), "no shard without work");
            assert!(shards.iter().all(|shard| shard.from.len() <= 8), "keys are short");
        }
    }

    #[test]
    fn many_small_packs_are_as_many_requests() {
        let packs = packs(1000);
        let shards = cut(packs.iter().map(|pack| (pack, 10_000)), &of(64 << 20)).unwrap();
        assert_eq!(Shard::prove_coverage(&shards), Ok(()));
        assert!((15..=18).contains(&shards.len()), "{}", shards.len());
        // Small ones and large ones: what takes many requests is cut as finely as what takes many bytes.
        let mixed = packs.iter().enumerate().map(|(number, pack)| (pack, if number < 500 { 100 } else { 9 << 20 }));
        let shards = cut(mixed, &of(64 << 20)).unwrap();
        let of_small = |shard: &&Shard| packs[..500].iter().any(|pack| shard.contains(pack.as_str().as_bytes()));
        assert!((8..=10).contains(&shards.iter().filter(of_small).count()), "{shards:?}");
    }

    #[test]
    fn unequal_shards_are_many_as_long_as_each_is_worth_it() {
        for (count, packs, shards) in [(10_000, 64, 157), (1_600, 50, 32), (900, 32, 29), (200, 32, 7)] {
            assert_eq!(packs_of_unequal(count), packs);
            let (names, grain) = (self::packs(count), Grain { packs, ..of(64 << 20) });
            let found = cut(names.iter().map(|pack| (pack, 1_000)), &grain).unwrap();
            assert!(found.len().abs_diff(shards) <= 1 + shards / 20, "{count}: {}", found.len());
        }
    }

    #[test]
    fn a_shard_ends_where_one_of_an_earlier_stage_did() {
        let packs = packs(300);
        let scan = cut(packs.iter().map(|pack| (pack, 1 << 20)), &of(20 << 20)).unwrap();
        let seams: Vec<Vec<u8>> = scan.iter().map(|shard| shard.from.clone()).collect();
        let ends = |count: usize| {
            let some =
                packs.iter().enumerate().filter(|(number, _)| number % 20 < count).map(|(_, pack)| (pack, 1 << 20));
            let shards = cut(some, &after(20 << 20, &seams)).unwrap();
            assert_eq!(Shard::prove_coverage(&shards), Ok(()));
            let at_seams = shards.iter().filter(|shard| seams.contains(&shard.from)).count();
            (shards.len(), at_seams)
        };
        // Most of what was scanned: as many shards. Little of it: several of them in one, which ends at one of theirs.
        let (shards, at_seams) = ends(13);
        assert!(shards == at_seams && shards.abs_diff(seams.len()) <= 1, "{shards} {at_seams} {}", seams.len());
        let (shards, at_seams) = ends(3);
        assert!(shards == at_seams && (3..=5).contains(&shards), "{shards} {at_seams}");
        // Packs of files stand before all seams.
        let files: Vec<BlobId> = (10..50).map(|n| BlobId::new(format!("p{n}"))).collect();
        assert_eq!(cut(files.iter().map(|pack| (pack, 5 << 20)), &after(20 << 20, &seams)).unwrap().len(), 10);
    }

    #[test]
    fn little_is_not_cut_and_names_that_are_alike_are_not_cut_between() {
        let small = packs(10);
        assert_eq!(cut(small.iter().map(|pack| (pack, 1 << 20)), &of(64 << 20)), None);
        assert_eq!(cut(std::iter::empty(), &of(1)), None);
        assert_eq!(cut(small.iter().take(1).map(|pack| (pack, u64::MAX)), &of(1)), None);
        let long: Vec<BlobId> = (0..3).map(|n| BlobId::new(format!("q{}{n}", "a".repeat(40)))).collect();
        assert_eq!(cut(long.iter().map(|pack| (pack, 1 << 30)), &of(1)), None);
        // The same name twice, and one that the other begins with.
        let odd = ["q1", "q1", "q11", "q2"].map(BlobId::from);
        let shards = cut(odd.iter().map(|pack| (pack, u64::MAX)), &of(1)).unwrap();
        assert_eq!(Shard::prove_coverage(&shards), Ok(()));
        assert_eq!(shards.len(), 3);
    }
}
