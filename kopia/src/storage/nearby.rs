//! Keeps nearby what a far store would have to be asked for again within one cycle.
//!
//! A pack never changes, so what was read of a `q` pack is kept, as it is stored, in a file on a local disk that has no name: the
//! manifests in it are read by more than one stage, the scan reads its directories, the rewrite copies the same bytes. No byte of a
//! `q` pack is fetched twice as long as the file has room and few holes are left between what is kept. The logs of legacy
//! compactions are kept likewise, in memory. The store's time is asked for now and then and counted on in between, and what the
//! store says of its versions is asked once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{
    BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, ETag, PutOptions, PutReceipt, Retention, Storage,
    Versioning,
};
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::spill::{SpillFile, SpillFolder};

/// How long the store's time is counted on from one answer (R1: a check may be 10 s old).
const TIME_AGE_MAX: Duration = Duration::from_secs(10);
/// Wall and boot clock may part by this much before the store's time is asked for again: one of them was set, or the machine slept.
const CLOCKS_PART_MAX: Duration = Duration::from_millis(500);
/// Bytes of compaction logs (`m…`, `l…`) that are kept in memory.
const LOGS_MAX: usize = 1 << 20;
/// More holes than this between kept parts are fetched as one piece.
const HOLES_MAX: usize = 2;

/// Passes everything on, and keeps what is good for a second time.
pub struct NearbyStorage {
    inner: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
    logs: Mutex<HashMap<BlobId, Bytes>>,
    time: Mutex<Option<Asked>>,
    versioning: Mutex<Option<Versioning>>,
}

/// Parts of packs, in the file.
struct Kept {
    /// `None`: there is no disk to keep anything on, or it is full.
    file: Option<SpillFile>,
    most: u64,
    parts: HashMap<BlobId, Vec<Part>>,
}

/// Bytes of a pack that are in the file.
#[derive(Debug, Clone, Copy)]
struct Part {
    offset: u64,
    length: u64,
    place: u64,
}

impl Part {
    fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// An answer of the store's clock, and what this machine's clocks said then.
struct Asked {
    answer: Timestamp,
    wall: Timestamp,
    boot: Duration,
}

impl NearbyStorage {
    /// Keeps at most `most` bytes of packs in a nameless file in `folder`; none where that cannot be made.
    pub fn new(inner: Arc<dyn Storage>, clock: Arc<dyn Clock>, folder: &SpillFolder, most: u64) -> Self {
        let file = folder.file().ok();
        let kept = Mutex::new(Kept { file, most, parts: HashMap::new() });
        Self { inner, clock, kept, logs: Mutex::default(), time: Mutex::default(), versioning: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The span, with as little of it from the store as possible.
    fn span(&self, id: &BlobId, offset: u64, length: u64) -> Result<Bytes> {
        let fetch = |offset, length| {
            let bytes = self.inner.get(id, ByteRange::Span { offset, length })?;
            self.keep(id, offset, &bytes);
            Ok::<_, crate::Error>(bytes)
        };
        let (file, parts) = {
            let kept = self.kept();
            let parts = kept.parts.get(id).map(|parts| overlapping(parts, offset, offset.saturating_add(length)));
            (kept.file.clone(), parts.unwrap_or_default())
        };
        let (Some(file), Some(end), false) = (file, offset.checked_add(length), parts.is_empty()) else {
            return fetch(offset, length);
        };
        let mut holes = holes(&parts, offset, end);
        if holes.len() > HOLES_MAX {
            holes = holes.first().zip(holes.last()).map(|(first, last)| (first.0, last.1)).into_iter().collect();
        }
        // First what the store has to say to it: a length that no pack has is refused there, before memory is taken for it.
        let fetched = holes.into_iter().map(|(from, to)| Ok((from, fetch(from, to - from)?)));
        let fetched = fetched.collect::<Result<Vec<_>>>()?;
        let mut out = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let place = |from: u64, to: u64| Some(usize::try_from(from - offset).ok()?..usize::try_from(to - offset).ok()?);
        for part in parts {
            let (from, to) = (part.offset.max(offset), part.end().min(end));
            let room = place(from, to).and_then(|range| out.get_mut(range));
            if room.is_none_or(|room| file.read(room, part.place + (from - part.offset)).is_err()) {
                return self.inner.get(id, ByteRange::Span { offset, length });
            }
        }
        for (from, bytes) in fetched {
            if let Some(room) = place(from, from + bytes.len() as u64).and_then(|range| out.get_mut(range)) {
                room.copy_from_slice(&bytes);
            }
        }
        Ok(Bytes::from(out))
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

    fn keep(&self, id: &BlobId, offset: u64, bytes: &[u8]) {
        let length = bytes.len() as u64;
        let (file, place) = {
            let kept = self.kept();
            let Some(file) = kept.file.clone().filter(|file| length > 0 && file.length() + length <= kept.most) else {
                return;
            };
            let place = file.reserve(length);
            (file, place)
        };
        let written = file.write(bytes, place);
        let mut kept = self.kept();
        if written.is_err() {
            // A full disk is no reason to fail: from now on the store is asked.
            kept.file = None;
            kept.parts.clear();
            return;
        }
        let parts = kept.parts.entry(id.clone()).or_default();
        parts.push(Part { offset, length, place });
        parts.sort_unstable_by_key(|part| part.offset);
    }

    fn counted(&self, asked: &Asked) -> Option<Timestamp> {
        let boot = self.clock.since_boot().checked_sub(asked.boot)?;
        let wall = Duration::try_from(self.clock.now().duration_since(asked.wall)).ok()?;
        (boot <= TIME_AGE_MAX && wall.abs_diff(boot) <= CLOCKS_PART_MAX).then(|| asked.answer + boot)
    }
}

/// Parts with something of the span, by offset.
fn overlapping(parts: &[Part], from: u64, to: u64) -> Vec<Part> {
    parts.iter().filter(|part| part.offset < to && part.end() > from).copied().collect()
}

/// What of the span no part has. The parts are in the order of their offsets.
fn holes(parts: &[Part], from: u64, to: u64) -> Vec<(u64, u64)> {
    let (mut holes, mut at) = (Vec::new(), from);
    for part in parts {
        if part.offset > at {
            holes.push((at, part.offset));
        }
        at = at.max(part.end());
    }
    if at < to {
        holes.push((at, to));
    }
    holes
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
            ByteRange::Span { offset, length } if id.as_str().starts_with('q') => self.span(id, offset, length),
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
    use crate::storage::latency::LatencyStorage;
    use crate::storage::memory::MemoryStorage;

    struct Place {
        clock: Arc<SetClock>,
        far: Arc<LatencyStorage>,
        near: NearbyStorage,
        _folder: tempfile::TempDir,
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
        let near = NearbyStorage::new(far.clone(), clock.clone(), &SpillFolder::new(folder.path()), most);
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
        let nowhere = NearbyStorage::new(place.far.clone(), place.clock.clone(), &SpillFolder::new("/nowhere"), 60);
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
