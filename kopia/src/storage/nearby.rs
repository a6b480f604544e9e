//! Keeps nearby what a far store would have to be asked for again within one cycle.
//!
//! A pack never changes, so what was read of a `q` pack is kept, as it is stored, in a file on a local disk that has no name: the
//! manifests in it are read by more than one stage, the scan reads its directories, the rewrite copies the same bytes. No byte of a
//! `q` pack is fetched twice as long as the file has room and few holes are left between what is kept. The logs of legacy
//! compactions are kept likewise, in memory. The store's time is asked for now and then and counted on in between, and what the
//! store says of its versions is asked once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{
    BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, ETag, KeptPacks, PutOptions, PutReceipt, Retention,
    Storage, Versioning,
};
use crate::clock::{Clock, Timestamp};
use crate::error::Result;

/// How long the store's time is counted on from one answer (R1: a check may be 10 s old).
const TIME_AGE_MAX: Duration = Duration::from_secs(10);
/// Wall and boot clock may part by this much before the store's time is asked for again: one of them was set, or the machine slept.
const CLOCKS_PART_MAX: Duration = Duration::from_millis(500);
/// Bytes of compaction logs (`m…`, `l…`) that are kept in memory.
const LOGS_MAX: usize = 1 << 20;

/// Passes everything on, and keeps what is good for a second time.
pub struct NearbyStorage {
    inner: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    kept: Arc<KeptPacks>,
    logs: Mutex<HashMap<BlobId, Bytes>>,
    time: Mutex<Option<Asked>>,
    versioning: Mutex<Option<Versioning>>,
}

/// An answer of the store's clock, and what this machine's clocks said then.
struct Asked {
    answer: Timestamp,
    wall: Timestamp,
    boot: Duration,
}

impl NearbyStorage {
    /// Keeps packs in `kept`.
    pub fn new(inner: Arc<dyn Storage>, clock: Arc<dyn Clock>, kept: Arc<KeptPacks>) -> Self {
        Self { inner, clock, kept, logs: Mutex::default(), time: Mutex::default(), versioning: Mutex::default() }
    }

    /// A compaction log: named by its hash, so it never changes either. Whether it is still active is what a listing tells.
    fn log(&self, id: &BlobId) -> Result<Bytes> {
        let logs = || self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = logs().get(id) {
            return Ok(bytes.clone());
        }
        let bytes = self.inner.get(id, ByteRange::All)?;
        let mut logs = logs();
        if logs.values().map(Bytes::len).sum::<usize>() + bytes.len() <= LOGS_MAX {
            logs.insert(id.clone(), bytes.clone());
        }
        Ok(bytes)
    }

    fn counted(&self, asked: &Asked) -> Option<Timestamp> {
        let boot = self.clock.since_boot().checked_sub(asked.boot)?;
        let wall = Duration::try_from(self.clock.now().duration_since(asked.wall)).ok()?;
        (boot <= TIME_AGE_MAX && wall.abs_diff(boot) <= CLOCKS_PART_MAX).then(|| asked.answer + boot)
    }
}

impl std::fmt::Debug for NearbyStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "near {:?}", self.inner)
    }
}

impl Storage for NearbyStorage {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        match range {
            ByteRange::Span { offset, length } if id.as_str().starts_with('q') => {
                let fetch = |offset, length| self.inner.get(id, ByteRange::Span { offset, length });
                self.kept.span(id, offset, length, fetch)
            }
            ByteRange::All if id.as_str().starts_with(['m', 'l']) => self.log(id),
            _ => self.inner.get(id, range),
        }
    }

    fn get_with_metadata(&self, id: &BlobId) -> Result<(Bytes, BlobMetadata)> {
        self.inner.get_with_metadata(id)
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.inner.head(id)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        self.inner.list(prefix, visit)
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        self.inner.put(id, data, options)
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        self.inner.delete(ids, not_after)
    }

    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        self.inner.extend_retention(id, retention)
    }

    fn now(&self) -> Result<Timestamp> {
        let mut time = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = time.as_ref().and_then(|asked| self.counted(asked)) {
            return Ok(now);
        }
        // Counted from before the question: what is told later is never ahead of the store.
        let (wall, boot) = (self.clock.now(), self.clock.since_boot());
        let answer = self.inner.now()?;
        let spent = self.clock.since_boot().saturating_sub(boot);
        *time = Some(Asked { answer, wall: wall + spent, boot: boot + spent });
        Ok(answer)
    }

    fn versioning(&self) -> Result<Versioning> {
        let mut known = self.versioning.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = *known {
            return Ok(known);
        }
        let asked = self.inner.versioning()?;
        *known = Some(asked);
        Ok(asked)
    }

    fn purge_versions(&self, id: &BlobId) -> Result<u64> {
        self.inner.purge_versions(id)
    }

    fn delete_own_if(&self, id: &BlobId, version: &ETag) -> Result<()> {
        self.inner.delete_own_if(id, version)
    }

    fn local_root(&self) -> Option<&Path> {
        self.inner.local_root()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SetClock;
    use crate::spill::SpillFolder;
    use crate::storage::latency::LatencyStorage;
    use crate::storage::memory::MemoryStorage;

    struct Place {
        clock: Arc<SetClock>,
        far: Arc<LatencyStorage>,
        near: NearbyStorage,
        _folder: tempfile::TempDir,
    }

    fn kept(folder: &Path, most: u64) -> Arc<KeptPacks> {
        Arc::new(KeptPacks::new(&SpillFolder::new(folder), most))
    }

    fn place(most: u64) -> Place {
        let clock = Arc::new(SetClock::new(Timestamp::from_second(1_700_000_000).unwrap()));
        let memory = Arc::new(MemoryStorage::new(clock.clone()));
        let data: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
        for name in ["q1", "p1"] {
            memory.put(&BlobId::from(name), data.clone().into(), &PutOptions::default()).unwrap();
        }
        let far = Arc::new(LatencyStorage::new(memory, Duration::ZERO, clock.clone()));
        let folder = tempfile::tempdir().unwrap();
        let near = NearbyStorage::new(far.clone(), clock.clone(), kept(folder.path(), most));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has a name");
        Place { clock, far, near, _folder: folder }
    }

    impl Place {
        fn read(&self, name: &str, offset: u64, length: u64) -> (u64, u64) {
            let before = self.far.counts();
            let bytes = self.near.get(&BlobId::from(name), ByteRange::Span { offset, length }).unwrap();
            let expected: Vec<u8> = (offset..offset + length).map(|n| (n % 251) as u8).collect();
            assert_eq!(bytes, expected, "{name} {offset}+{length}");
            (self.far.counts().get - before.get, self.far.counts().bytes_in - before.bytes_in)
        }
    }

    #[test]
    fn no_byte_of_a_metadata_pack_is_fetched_twice() {
        let place = place(1 << 20);
        assert_eq!(place.read("q1", 100, 50), (1, 50));
        assert_eq!(place.read("q1", 100, 50), (0, 0));
        assert_eq!(place.read("q1", 110, 20), (0, 0));
        assert_eq!(place.read("q1", 140, 20), (1, 10));
        assert_eq!(place.read("q1", 90, 80), (2, 20));
        assert_eq!(place.read("q1", 300, 10), (1, 10));
        assert_eq!(place.read("q1", 0, 1000), (1, 1000), "many holes are one piece");
        assert_eq!(place.read("q1", 0, 1000), (0, 0));
        assert_eq!(place.read("q1", 500, 0), (0, 0));
    }

    #[test]
    fn packs_of_files_and_what_does_not_fit_are_asked_for_again() {
        let place = place(60);
        assert_eq!((place.read("p1", 0, 10), place.read("p1", 0, 10)), ((1, 10), (1, 10)));
        assert_eq!((place.read("q1", 0, 50), place.read("q1", 0, 50)), ((1, 50), (0, 0)));
        assert_eq!((place.read("q1", 40, 30), place.read("q1", 40, 30)), ((1, 20), (1, 20)));
        let nowhere = NearbyStorage::new(place.far.clone(), place.clock.clone(), kept(Path::new("/nowhere"), 60));
        let again = Place { near: nowhere, ..place };
        assert_eq!((again.read("q1", 0, 50), again.read("q1", 0, 50)), ((1, 50), (1, 50)));
    }

    #[test]
    fn an_end_that_is_missing_is_damage_each_time() {
        let place = place(1 << 20);
        place.read("q1", 900, 100);
        for _ in 0..2 {
            let beyond = place.near.get(&BlobId::from("q1"), ByteRange::Span { offset: 900, length: 101 });
            assert_eq!(beyond.unwrap_err().kind(), crate::ErrorKind::Damaged);
        }
    }

    #[test]
    fn the_time_is_counted_on_for_ten_seconds_unless_a_clock_was_set() {
        let place = place(0);
        let asked = |place: &Place| place.far.counts().other;
        let first = place.near.now().unwrap();
        place.clock.advance(Duration::from_secs(9));
        assert_eq!((place.near.now().unwrap(), asked(&place)), (first + Duration::from_secs(9), 1));
        place.clock.advance(Duration::from_secs(2));
        assert_eq!((place.near.now().unwrap(), asked(&place)), (first + Duration::from_secs(11), 2));
        place.clock.set(first + Duration::from_secs(3600));
        assert_eq!((place.near.now().unwrap(), asked(&place)), (first + Duration::from_secs(3600), 3));
        place.near.versioning().unwrap();
        place.near.versioning().unwrap();
        assert_eq!(asked(&place), 4);
    }
}
