//! Packs that a worker keeps nearby, and which shard it had better do for that: whoever scanned a range has its packs of directories.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use verger_kopia::Repository;
use verger_kopia::spill::SpillFolder;
use verger_kopia::storage::{KeptPacks, NearbyStorage};
use verger_proto::id::{CycleId, RepositoryId, WorkerId};
use verger_proto::queue::Hint;
use verger_proto::{Digest, Shard};

/// Most bytes of packs kept on this machine's disk for the length of a cycle.
pub const KEPT_BYTES_MAX: u64 = 1 << 30;
/// Repositories that packs are kept of at once.
const REPOSITORIES_MAX: usize = 4;
/// How long packs are kept that nobody asks for: between its scan and its rewrite a cycle of a very large repository is solved and planned.
const UNUSED_MAX: Duration = Duration::from_secs(3600);
/// Only packs of metadata are kept, and this is behind all names of others.
const KEPT_FROM: &[u8] = b"q";

/// What a process keeps of the repositories whose cycles it works on. Clones share it.
#[derive(Clone, Default)]
pub struct KeptNearby(Arc<Mutex<BTreeMap<RepositoryId, Entry>>>);

struct Entry {
    /// `None`: it is led from here, and no shard was asked for yet.
    cycle: Option<CycleId>,
    packs: Arc<KeptPacks>,
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
    pub fn begin(&self, repository: &RepositoryId, folder: &SpillFolder) -> Arc<KeptPacks> {
        self.put(repository, None, folder)
    }

    /// For a shard of a cycle: what this process keeps of that cycle.
    #[must_use]
    pub fn of(&self, repository: &RepositoryId, cycle: CycleId, folder: &SpillFolder) -> Arc<KeptPacks> {
        let known = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = all.get_mut(repository).filter(|entry| entry.cycle.is_none_or(|known| known == cycle));
            entry.map(|entry| {
                (entry.cycle, entry.used) = (Some(cycle), Instant::now());
                entry.packs.clone()
            })
        };
        known.unwrap_or_else(|| self.put(repository, Some(cycle), folder))
    }

    fn put(&self, repository: &RepositoryId, cycle: Option<CycleId>, folder: &SpillFolder) -> Arc<KeptPacks> {
        let packs = Arc::new(KeptPacks::new(folder, KEPT_BYTES_MAX));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other, entry| other != repository && entry.used.elapsed() < UNUSED_MAX);
        if all.len() >= REPOSITORIES_MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| id.clone())
        {
            all.remove(&oldest);
        }
        all.insert(repository.clone(), Entry { cycle, packs: packs.clone(), used: Instant::now() });
        packs
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

/// The one of some waiting shards that is done first here. Those whose packs nobody keeps, as they take longest; then the one with most of
/// its packs nearby, and those that others keep packs of only when there are no more. Of equals each worker begins with another one.
#[must_use]
pub fn preferred(packs: &KeptPacks, worker: &WorkerId, waiting: Vec<(Hint, Shard)>) -> Option<Hint> {
    let rank = |(hint, shard): &(Hint, Shard)| {
        let nearby = packs.bytes_between(&shard.from, shard.to.as_deref());
        let is_kept_anywhere = shard.to.as_deref().is_none_or(|to| to > KEPT_FROM);
        (is_kept_anywhere, Reverse(nearby), Digest::of(format!("{worker} {}", hint.job).as_bytes()))
    };
    waiting.into_iter().min_by_key(rank).map(|(hint, _)| hint)
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

    #[test]
    fn packs_of_files_are_first_then_what_is_nearby_then_what_others_keep() {
        let (_folder, spill) = folder();
        let kept = Arc::new(KeptPacks::new(&spill, 1000));
        let all = [("", Some("p8")), ("p8", Some("q2")), ("q2", Some("q4")), ("q4", Some("q6")), ("q6", None)];
        let chosen = |some: &[(&str, Option<&str>)]| {
            let one = |number: u32| {
                let worker = WorkerId::new(format!("w{number}")).unwrap();
                preferred(&kept, &worker, waiting(some)).map(|hint| hint.job.0)
            };
            assert_eq!(one(7), one(7), "a worker means what it says");
            (0..100).filter_map(one).collect::<BTreeSet<_>>()
        };
        assert_eq!(chosen(&[]), BTreeSet::new());
        assert_eq!(chosen(&all), [0].into(), "nobody keeps packs of files");
        assert_eq!(chosen(&all[2..]), [0, 1, 2].into(), "any of equals");
        read(&kept, "p9", 50);
        read(&kept, "q3", 10);
        assert_eq!(chosen(&all), [0].into(), "what takes longest");
        assert_eq!(chosen(&all[1..]), [1].into());
        read(&kept, "q9", 20);
        assert_eq!(chosen(&all[1..]), [3].into());
    }
}
