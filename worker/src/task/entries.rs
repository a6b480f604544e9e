//! Entries of contents that were moved, until they are published: a few in memory, more in a file.

use std::io::{self, Read};

use verger_kopia::content::{CompressionId, ContentId, Entry};
use verger_kopia::error::Result;
use verger_kopia::spill::{self, SpillFile, SpillFolder};
use verger_kopia::storage::BlobId;

/// Entries held in memory.
const MEMORY_MAX: usize = 1 << 15;

/// Bytes of an entry besides its key.
const FIXED: usize = 8 + 5 * 4 + 2;

/// A list that is filled once and read once.
#[derive(Debug, Default)]
pub struct Entries {
    memory: Vec<Entry>,
    aside: Option<Aside>,
    length: usize,
}

#[derive(Debug)]
struct Aside {
    file: SpillFile,
    key: usize,
    packs: Vec<BlobId>,
    length: usize,
}

impl Entries {
    /// Adds entries of one repository. What is too much for memory goes into a file in `folder`.
    ///
    /// # Errors
    /// `DiskFull`, `Permission`.
    pub fn extend(&mut self, folder: &SpillFolder, entries: impl IntoIterator<Item = Entry>) -> Result<()> {
        let before = self.memory.len();
        self.memory.extend(entries);
        self.length += self.memory.len() - before;
        if self.memory.len() <= MEMORY_MAX {
            return Ok(());
        }
        let aside = match &mut self.aside {
            Some(aside) => aside,
            slot => {
                let key = self.memory.first().map_or(0, |entry| entry.id.key_length());
                slot.insert(Aside { file: folder.file()?, key, packs: Vec::new(), length: 0 })
            }
        };
        aside.add(&std::mem::take(&mut self.memory))
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl IntoIterator for Entries {
    type Item = Entry;
    type IntoIter = Box<dyn Iterator<Item = Entry>>;

    /// All entries, in order.
    ///
    /// # Panics
    /// If the disk does not give back what was written to it: there is nothing to go on with.
    fn into_iter(self) -> Self::IntoIter {
        let aside = self.aside.into_iter().flat_map(Aside::read);
        Box::new(aside.chain(self.memory))
    }
}

impl Aside {
    fn add(&mut self, entries: &[Entry]) -> Result<()> {
        let mut bytes = Vec::with_capacity(entries.len() * (self.key + FIXED));
        for entry in entries {
            // One pack after another: nearly always the last one.
            let pack = self.packs.iter().rposition(|pack| *pack == entry.pack).unwrap_or_else(|| {
                self.packs.push(entry.pack.clone());
                self.packs.len() - 1
            });
            entry.id.write_key(&mut bytes);
            bytes.extend_from_slice(&entry.timestamp.to_ne_bytes());
            let pack = u32::try_from(pack).unwrap_or(u32::MAX);
            for number in [pack, entry.offset, entry.packed_length, entry.original_length, entry.compression.0] {
                bytes.extend_from_slice(&number.to_ne_bytes());
            }
            bytes.extend_from_slice(&[u8::from(entry.deleted), entry.format_version]);
        }
        self.length += entries.len();
        self.file.append(&bytes).map(drop)
    }

    fn read(self) -> impl Iterator<Item = Entry> {
        let mut reader = io::BufReader::with_capacity(1 << 16, self.file.reader(0, self.file.length()));
        let mut bytes = vec![0; self.key + FIXED];
        (0..self.length).map(move |_| {
            reader.read_exact(&mut bytes).unwrap_or_else(|error| spill::lost(&error));
            decode(&bytes, self.key, &self.packs).expect("what was written is read back")
        })
    }
}

fn decode(bytes: &[u8], key: usize, packs: &[BlobId]) -> Option<Entry> {
    let (id, rest) = bytes.split_at_checked(key)?;
    let (timestamp, rest) = rest.split_first_chunk::<8>()?;
    let (numbers, last) = rest.as_chunks::<4>();
    let [pack, offset, packed_length, original_length, compression] = *numbers.first_chunk::<5>()?;
    let [deleted, format_version] = *last.first_chunk::<2>()?;
    Some(Entry {
        id: ContentId::from_key(id).ok()?,
        timestamp: i64::from_ne_bytes(*timestamp),
        deleted: deleted != 0,
        pack: packs.get(u32::from_ne_bytes(pack) as usize)?.clone(),
        offset: u32::from_ne_bytes(offset),
        packed_length: u32::from_ne_bytes(packed_length),
        original_length: u32::from_ne_bytes(original_length),
        compression: CompressionId(u32::from_ne_bytes(compression)),
        format_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_in_order_however_many() {
        let folder = tempfile::tempdir().unwrap();
        let spill = SpillFolder::new(folder.path());
        let entry = |n: u32| Entry {
            id: format!("k{:032x}", u128::from(n) << 64).parse().unwrap(),
            timestamp: i64::from(n) - 5,
            deleted: n.is_multiple_of(3),
            pack: format!("q{}", n / 1000).as_str().into(),
            offset: n,
            packed_length: n + 1,
            original_length: n + 2,
            compression: CompressionId(n % 4),
            format_version: 3,
        };
        for parts in [&[10][..], &[40_000], &[30_000, 30_000, 5, 33_000]] {
            let (mut entries, mut count) = (Entries::default(), 0);
            for part in parts {
                entries.extend(&spill, (count..count + part).map(entry)).unwrap();
                count += part;
            }
            assert_eq!((entries.len(), entries.is_empty()), (count as usize, false));
            assert!(entries.into_iter().eq((0..count).map(entry)));
        }
        let full = spill.with_limit(100);
        let error = Entries::default().extend(&full, (0..40_000).map(entry)).unwrap_err();
        assert_eq!(error.kind(), verger_kopia::ErrorKind::DiskFull);
    }
}
