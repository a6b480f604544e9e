//! Parts of packs in a file on a local disk that has no name. A pack never changes, so what was read of one is good for ever.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::BlobId;
use crate::error::Result;
use crate::spill::{SpillFile, SpillFolder};

/// More holes than this between kept parts are fetched as one piece.
const HOLES_MAX: usize = 2;

/// Bytes of the disk that are left to what cannot be done without. Whatever is kept goes when there is less: it can be read again.
const SPARED: u64 = 1 << 30;

/// Parts of packs. Storages over the same repository may share them.
#[derive(Debug)]
pub struct KeptPacks(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    /// `None`: there is no disk to keep anything on, or it is full.
    file: Option<SpillFile>,
    most: u64,
    spared: u64,
    /// By the pack's name.
    parts: BTreeMap<Vec<u8>, Vec<Part>>,
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

impl Kept {
    /// A full disk is no reason to fail: from now on the store is asked. What reads the file lets go of it soon.
    fn give_up(&mut self) {
        self.file = None;
        self.parts.clear();
    }
}

impl KeptPacks {
    /// Keeps at most `most` bytes in a nameless file in `folder`; nothing where that cannot be made.
    #[must_use]
    pub fn new(folder: &SpillFolder, most: u64) -> Self {
        Self::sparing(folder, most, SPARED)
    }

    fn sparing(folder: &SpillFolder, most: u64, spared: u64) -> Self {
        Self(Mutex::new(Kept { file: folder.file().ok(), most, spared, parts: BTreeMap::new() }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes are here of packs whose names are `from` or behind it, and before `to` (`None`: up to the last).
    #[must_use]
    pub fn bytes_between(&self, from: &[u8], to: Option<&[u8]>) -> u64 {
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        let kept = self.kept();
        let within = kept.parts.range::<[u8], _>((Bound::Included(from), to));
        within.flat_map(|(_, parts)| parts).map(|part| part.length).sum()
    }

    /// The span of a pack, with as little of it as possible from `fetch` (offset, length).
    ///
    /// # Errors
    /// What `fetch` says.
    pub(super) fn span(
        &self,
        id: &BlobId,
        offset: u64,
        length: u64,
        fetch: impl Fn(u64, u64) -> Result<Bytes>,
    ) -> Result<Bytes> {
        let fetch_and_keep = |offset, length| {
            let bytes = fetch(offset, length)?;
            self.keep(id, offset, &bytes);
            Ok::<_, crate::Error>(bytes)
        };
        let (file, parts) = {
            let kept = self.kept();
            let parts = kept.parts.get(id.as_str().as_bytes());
            let parts = parts.map(|parts| overlapping(parts, offset, offset.saturating_add(length)));
            (kept.file.clone(), parts.unwrap_or_default())
        };
        let (Some(file), Some(end), false) = (file, offset.checked_add(length), parts.is_empty()) else {
            return fetch_and_keep(offset, length);
        };
        let mut holes = holes(&parts, offset, end);
        if holes.len() > HOLES_MAX {
            holes = holes.first().zip(holes.last()).map(|(first, last)| (first.0, last.1)).into_iter().collect();
        }
        // First what the store has to say to it: a length that no pack has is refused there, before memory is taken for it.
        let fetched = holes.into_iter().map(|(from, to)| Ok((from, fetch_and_keep(from, to - from)?)));
        let fetched = fetched.collect::<Result<Vec<_>>>()?;
        let mut out = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let place = |from: u64, to: u64| Some(usize::try_from(from - offset).ok()?..usize::try_from(to - offset).ok()?);
        for part in parts {
            let (from, to) = (part.offset.max(offset), part.end().min(end));
            let room = place(from, to).and_then(|range| out.get_mut(range));
            if room.is_none_or(|room| file.read(room, part.place + (from - part.offset)).is_err()) {
                return fetch(offset, length);
            }
        }
        for (from, bytes) in fetched {
            if let Some(room) = place(from, from + bytes.len() as u64).and_then(|range| out.get_mut(range)) {
                room.copy_from_slice(&bytes);
            }
        }
        Ok(Bytes::from(out))
    }

    fn keep(&self, id: &BlobId, offset: u64, bytes: &[u8]) {
        let length = bytes.len() as u64;
        let (file, place) = {
            let mut kept = self.kept();
            let Some(file) = kept.file.clone().filter(|file| length > 0 && file.length() + length <= kept.most) else {
                return;
            };
            if file.free().is_some_and(|free| free < kept.spared.saturating_add(length)) {
                kept.give_up();
                return;
            }
            let place = file.reserve(length);
            (file, place)
        };
        let written = file.write(bytes, place);
        let mut kept = self.kept();
        if written.is_err() {
            kept.give_up();
            return;
        }
        if kept.file.is_none() {
            return;
        }
        let parts = kept.parts.entry(id.as_str().as_bytes().to_vec()).or_default();
        parts.push(Part { offset, length, place });
        parts.sort_unstable_by_key(|part| part.offset);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_goes_where_the_disk_is_nearly_full() {
        let folder = tempfile::tempdir().unwrap();
        let free = SpillFolder::new(folder.path()).file().unwrap().free().unwrap();
        for (spared, is_kept) in [(0, true), (free * 2, false)] {
            let kept = KeptPacks::sparing(&SpillFolder::new(folder.path()), 100, spared);
            let read = || kept.span(&BlobId::from("q1"), 0, 10, |_, length| Ok(vec![7; length as usize].into()));
            assert_eq!(read().unwrap(), vec![7; 10]);
            assert_eq!(kept.bytes_between(b"", None), if is_kept { 10 } else { 0 });
            assert_eq!(read().unwrap(), vec![7; 10]);
        }
    }

    #[test]
    fn what_is_kept_between_two_names_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptPacks::new(&SpillFolder::new(folder.path()), 100);
        let read = |name: &str, offset, length| {
            kept.span(&BlobId::from(name), offset, length, |_, length| Ok(vec![7; length as usize].into())).unwrap();
        };
        read("q1", 0, 10);
        read("q1", 20, 5);
        read("q2", 0, 30);
        read("q2", 10, 10);
        assert_eq!(kept.bytes_between(b"", None), 45);
        assert_eq!(kept.bytes_between(b"q1", Some(b"q2")), 15);
        assert_eq!(kept.bytes_between(b"q11", None), 30);
        assert_eq!(kept.bytes_between(b"p", Some(b"q")), 0);
        read("q3", 0, 60);
        assert_eq!(kept.bytes_between(b"q3", None), 0, "there is no room for it");
    }
}
