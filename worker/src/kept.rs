//! Packs that a worker keeps nearby, and which shard it had better do for that: whoever scanned a range has its packs of directories.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use verger_kopia::Repository;
use verger_kopia::spill::SpillFolder;
use verger_kopia::storage::{KeptPacks, NearbyStorage};
use verger_proto::id::{CycleId, RepositoryId, WorkerId};
use verger_proto::queue::Hint;
use verger_proto::{Digest, Shard, Stage};

/// Most bytes of packs kept on this machine's disk for the length of a cycle.
pub const KEPT_BYTES_MAX: u64 = 1 << 30;
/// Repositories that packs are kept of at once.
const REPOSITORIES_MAX: usize = 4;
/// How long packs are kept that nobody asks for: between its scan and its rewrite a cycle of a very large repository is solved and planned.
const UNUSED_MAX: Duration = Duration::from_secs(3600);
/// What others have nearby is left to them for so long, once a cycle.
const OTHERS_FIRST: Duration = Duration::from_secs(1);
/// Only packs of metadata are kept, and this is behind all names of others.
const KEPT_FROM: &[u8] = b"q";

/// What a process keeps of the repositories whose cycles it works on. Clones share it.
#[derive(Clone, Default)]
pub struct KeptNearby(Arc<Mutex<BTreeMap<RepositoryId, Entry>>>);

struct Entry {
    /// `None`: it is led from here, and no shard was asked for yet.
    cycle: Option<CycleId>,
    kept: Arc<Kept>,
    used: Instant,
}

impl fmt::Debug for KeptNearby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptNearby")
    }
}

impl KeptNearby {
    /// For whoever begins to lead a cycle: it reads everything anew, as packs of an earlier cycle may be gone or damaged by now.
    #[must_use]
    pub fn begin(&self, repository: &RepositoryId, folder: &SpillFolder) -> Arc<Kept> {
        self.put(repository, None, folder)
    }

    /// For a shard of a cycle: what this process keeps of that cycle.
    #[must_use]
    pub fn of(&self, repository: &RepositoryId, cycle: CycleId, folder: &SpillFolder) -> Arc<Kept> {
        let known = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = all.get_mut(repository).filter(|entry| entry.cycle.is_none_or(|known| known == cycle));
            entry.map(|entry| {
                (entry.cycle, entry.used) = (Some(cycle), Instant::now());
                entry.kept.clone()
            })
        };
        known.unwrap_or_else(|| self.put(repository, Some(cycle), folder))
    }

    fn put(&self, repository: &RepositoryId, cycle: Option<CycleId>, folder: &SpillFolder) -> Arc<Kept> {
        let kept = Arc::new(Kept::new(folder));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other, entry| other != repository && entry.used.elapsed() < UNUSED_MAX);
        if all.len() >= REPOSITORIES_MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| id.clone())
        {
            all.remove(&oldest);
        }
        all.insert(repository.clone(), Entry { cycle, kept: kept.clone(), used: Instant::now() });
        kept
    }
}

/// The repository as it is read here: a far store is asked once for what is needed more than once.
#[must_use]
pub fn near(repository: &Repository, packs: Arc<KeptPacks>) -> Repository {
    let storage = repository.storage().clone();
    if storage.capabilities().local_disk {
        return repository.clone();
    }
    repository.through(Arc::new(NearbyStorage::new(storage, repository.clock().clone(), packs)))
}

/// What a process keeps of a cycle's packs, and which of its shards are done next for that.
pub struct Kept {
    packs: Arc<KeptPacks>,
    /// When nothing waited for the first time but what others keep packs of.
    others_only: Mutex<Option<Instant>>,
    /// The most bytes that were ever nearby of one shard.
    most: AtomicU64,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

/// What is done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// This one.
    Shard(Hint),
    /// None for now: others keep packs of all that wait, and do them in a moment.
    LeftToOthers,
}

impl Kept {
    /// Nothing yet.
    #[must_use]
    pub fn new(folder: &SpillFolder) -> Self {
        Self {
            packs: Arc::new(KeptPacks::new(folder, KEPT_BYTES_MAX)),
            others_only: Mutex::default(),
            most: AtomicU64::new(0),
        }
    }

    /// The packs themselves.
    #[must_use]
    pub fn packs(&self) -> Arc<KeptPacks> {
        self.packs.clone()
    }

    /// The one of some waiting shards that is done first here. Those whose packs nobody keeps, as they take longest; then the one with
    /// most of its packs nearby, and those that others keep packs of only when there are no more, and then not at once. Of equals each
    /// worker begins with another one. `None`: nothing waits.
    #[must_use]
    pub fn next(&self, worker: &WorkerId, waiting: &[(Hint, Shard)], now: Instant) -> Option<Next> {
        self.first(waiting, |hint| Digest::of(format!("{worker} {}", hint.job).as_bytes()), now)
    }

    /// The same for whoever leads, who hears of each job: of equals, the one that it heard of, or the first. As many are done as it hears
    /// of.
    #[must_use]
    pub fn next_of_lead(&self, heard: Hint, waiting: &[(Hint, Shard)], now: Instant) -> Next {
        self.first(waiting, |hint| *hint != heard, now).unwrap_or(Next::Shard(heard))
    }

    /// `of_equals`: the least of it goes first.
    fn first<T: Ord>(&self, waiting: &[(Hint, Shard)], of_equals: impl Fn(&Hint) -> T, now: Instant) -> Option<Next> {
        let nearby = |shard: &Shard| self.packs.bytes_between(&shard.from, shard.to.as_deref());
        let ranked = waiting.iter().map(|(hint, shard)| (is_kept_anywhere(shard), nearby(shard), hint));
        let ranked: Vec<_> = ranked.collect();
        self.most.fetch_max(ranked.iter().map(|(_, nearby, _)| *nearby).max()?, Ordering::Relaxed);
        let rank = |(is_kept, nearby, hint): &(bool, u64, &Hint)| (*is_kept, Reverse(*nearby), of_equals(hint));
        let (is_kept, nearby, hint) = ranked.into_iter().min_by_key(rank)?;
        let is_left = is_kept && hint.stage == Stage::Rewrite && self.is_left(nearby, now);
        Some(if is_left { Next::LeftToOthers } else { Next::Shard(hint.clone()) })
    }

    /// Whether others have a shard nearby, of which so many bytes are here, and may do it first: that takes them a tenth of the time. A few
    /// packs at its edge may be here all the same. Who keeps nothing cannot tell, and nobody waits twice in a cycle: they may be gone.
    fn is_left(&self, nearby: u64, now: Instant) -> bool {
        if nearby >= self.most.load(Ordering::Relaxed) / 4 {
            return false;
        }
        let mut since = self.others_only.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(*since.get_or_insert(now)) < OTHERS_FIRST
    }
}

fn is_kept_anywhere(shard: &Shard) -> bool {
    shard.to.as_deref().is_none_or(|to| to > KEPT_FROM)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use verger_kopia::clock::SystemClock;
    use verger_kopia::storage::{BlobId, ByteRange, MemoryStorage, PutOptions, Storage as _};

    use verger_proto::{JobId, Stage, Term};

    use super::*;

    fn repository(number: u8) -> RepositoryId {
        format!("{}-{number:032x}", "ab".repeat(32)).parse().unwrap()
    }

    fn folder() -> (tempfile::TempDir, SpillFolder) {
        let folder = tempfile::tempdir().unwrap();
        let spill = SpillFolder::new(folder.path());
        (folder, spill)
    }

    fn waiting(shards: &[(&str, Option<&str>)]) -> Vec<(Hint, Shard)> {
        let (repository, cycle, term, stage) = (repository(1), CycleId(1), Term(1), Stage::Rewrite);
        let hint = |job| Hint { repository: repository.clone(), cycle, job: JobId(job), attempt: 1, term, stage };
        let bytes = |text: &str| text.as_bytes().to_vec();
        let shard = |(from, to): &(&str, Option<&str>)| Shard { from: bytes(from), to: to.map(bytes) };
        (0..).zip(shards).map(|(job, range)| (hint(job), shard(range))).collect()
    }

    /// Reads so many bytes of a pack, which are kept if it is one of directories.
    fn read(kept: &Arc<KeptPacks>, name: &str, length: u64) {
        let clock = Arc::new(SystemClock);
        let store = Arc::new(MemoryStorage::new(clock.clone()));
        store.put(&BlobId::from(name), vec![7; 100].into(), &PutOptions::default()).unwrap();
        let near = NearbyStorage::new(store, clock, kept.clone());
        near.get(&BlobId::from(name), ByteRange::Span { offset: 0, length }).unwrap();
    }

    #[test]
    fn shards_of_a_cycle_share_what_its_lead_keeps_and_another_cycle_begins_anew() {
        let (_folder, spill) = folder();
        let all = KeptNearby::default();
        let led = all.begin(&repository(1), &spill);
        let shard = all.of(&repository(1), CycleId(1), &spill);
        assert!(Arc::ptr_eq(&led, &shard));
        assert!(Arc::ptr_eq(&shard, &all.clone().of(&repository(1), CycleId(1), &spill)));
        let other = all.of(&repository(2), CycleId(1), &spill);
        assert!(!Arc::ptr_eq(&shard, &other));
        let next = all.of(&repository(1), CycleId(2), &spill);
        assert!(!Arc::ptr_eq(&shard, &next));
        assert!(!Arc::ptr_eq(&next, &all.begin(&repository(1), &spill)), "led anew, read anew");
    }

    #[test]
    fn so_many_repositories_are_kept_and_the_one_longest_unused_goes() {
        let (_folder, spill) = folder();
        let all = KeptNearby::default();
        let ids: Vec<RepositoryId> = (0..=REPOSITORIES_MAX as u8).map(repository).collect();
        let kept: Vec<_> = ids.iter().map(|id| all.of(id, CycleId(1), &spill)).collect();
        let is_kept = |number: usize| Arc::ptr_eq(&kept[number], &all.of(&ids[number], CycleId(1), &spill));
        assert!((1..ids.len()).all(is_kept));
        assert!(!is_kept(0));
    }

    /// Keeps parts of some packs, for shards that lie at the letters and figures of their names.
    fn keeping(packs: &[(&str, u64)]) -> (tempfile::TempDir, Kept) {
        let (folder, spill) = folder();
        let kept = Kept::new(&spill);
        packs.iter().for_each(|(name, length)| read(&kept.packs, name, *length));
        (folder, kept)
    }

    const ALL: [(&str, Option<&str>); 5] =
        [("", Some("p8")), ("p8", Some("q")), ("q", Some("q4")), ("q4", Some("q6")), ("q6", None)];

    fn some(numbers: &[usize]) -> Vec<(Hint, Shard)> {
        let all = waiting(&ALL);
        numbers.iter().map(|number| all[*number].clone()).collect()
    }

    fn number(next: Next) -> Option<u64> {
        match next {
            Next::Shard(hint) => Some(hint.job.0),
            Next::LeftToOthers => None,
        }
    }

    #[test]
    fn a_lead_does_what_it_hears_of_and_at_last_what_is_nearby() {
        let (_folder, kept) = keeping(&[("q3", 10), ("q9", 20)]);
        let chosen = |heard: usize, numbers: &[usize]| {
            let heard = waiting(&ALL)[heard].0.clone();
            number(kept.next_of_lead(heard, &some(numbers), Instant::now()))
        };
        assert_eq!(chosen(1, &[0, 1, 2, 3, 4]), Some(1), "in the order in which it hears of packs of files");
        assert_eq!(chosen(0, &[1, 2, 3, 4]), Some(1), "another one did what it heard of");
        assert_eq!(chosen(2, &[1, 2, 3, 4]), Some(1), "it did this one already, or one in its place");
        assert_eq!(chosen(2, &[2, 3, 4]), Some(4), "that it has most of");
        assert_eq!(chosen(3, &[2, 3]), Some(2));
        assert_eq!(chosen(4, &[]), Some(4));
    }

    #[test]
    fn what_others_keep_is_left_to_them_for_a_moment_and_once_in_a_cycle() {
        let (_folder, kept) = keeping(&[("q5", 4), ("q9", 20)]);
        let (worker, began) = (WorkerId::new("w1").unwrap(), Instant::now());
        let next = |numbers: &[usize], after: f64| {
            kept.next(&worker, &some(numbers), began + Duration::from_secs_f64(after)).map(number)
        };
        let of_lead = |numbers: &[usize], after: f64| {
            let heard = waiting(&ALL)[3].0.clone();
            number(kept.next_of_lead(heard, &some(numbers), began + Duration::from_secs_f64(after)))
        };
        assert_eq!(next(&[1, 2], 0.0), Some(Some(1)), "nobody keeps packs of files");
        assert_eq!(next(&[2, 3, 4], 9.0), Some(Some(4)));
        assert_eq!((next(&[2, 3], 9.0), of_lead(&[2, 3], 9.9)), (Some(None), None), "a pack at the edge is not enough");
        assert_eq!(next(&[], 9.9), None, "they did them");
        assert!(next(&[2, 3], 10.0).flatten().is_some());
        assert_eq!(of_lead(&[2, 3], 10.0), Some(3), "what it heard of, of equals");
        assert!(next(&[2, 3], 90.0).flatten().is_some(), "they may be gone");
        let (_folder, empty) = keeping(&[]);
        assert!(
            empty.next(&worker, &some(&[2, 3]), began).and_then(number).is_some(),
            "it cannot tell what others keep"
        );
        let scan = |(hint, shard)| (Hint { stage: Stage::Scan, ..hint }, shard);
        let (_folder, kept) = keeping(&[("q9", 20)]);
        let waiting: Vec<_> = some(&[2, 3]).into_iter().map(scan).collect();
        assert!(kept.next(&worker, &waiting, began).and_then(number).is_some(), "nobody has read them yet");
    }

    #[test]
    fn packs_of_files_are_first_then_what_is_nearby_then_what_others_keep() {
        let (_folder, kept) = keeping(&[]);
        let all = [("", Some("p8")), ("p8", Some("q2")), ("q2", Some("q4")), ("q4", Some("q6")), ("q6", None)];
        let chosen = |some: &[(&str, Option<&str>)]| {
            let one = |number: u32| {
                let worker = WorkerId::new(format!("w{number}")).unwrap();
                kept.next(&worker, &waiting(some), Instant::now()).and_then(super::tests::number)
            };
            assert_eq!(one(7), one(7), "a worker means what it says");
            (0..100).filter_map(one).collect::<BTreeSet<_>>()
        };
        assert_eq!(chosen(&[]), BTreeSet::new());
        assert_eq!(chosen(&all), [0].into(), "nobody keeps packs of files");
        assert_eq!(chosen(&all[2..]), [0, 1, 2].into(), "any of equals");
        read(&kept.packs, "p9", 50);
        read(&kept.packs, "q3", 10);
        assert_eq!(chosen(&all), [0].into(), "what takes longest");
        assert_eq!(chosen(&all[1..]), [1].into());
        read(&kept.packs, "q9", 20);
        assert_eq!(chosen(&all[1..]), [3].into());
    }
}
