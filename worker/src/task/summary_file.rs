//! Segments of summaries in a file.

use verger_kopia::content::{ContentHash, ContentId};
use verger_kopia::error::Result;
use verger_kopia::object::ObjectId;
use verger_kopia::spill::SpillFile;

use super::summary::{Segment, Target};

const WORD: usize = size_of::<u32>();

/// Bytes of a form that a word cannot hold: kind, depth or flags, a row, and for what is missing its whole ID.
const RARE_BYTES: usize = 42;
const KIND_ROW: u8 = 0;
const KIND_PACKED: u8 = 1;
const KIND_INDIRECT: u8 = 2;
const KIND_MISSING: u8 = 3;

/// Where a segment is.
#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentPlace {
    words_at: u64,
    rare_at: u64,
}

impl SegmentPlace {
    /// Writes a segment to the end of the file.
    ///
    /// # Errors
    /// `DiskFull`.
    pub(super) fn write(file: &SpillFile, segment: &Segment) -> Result<Self> {
        let mut bytes = Vec::with_capacity(segment.words.len() * WORD + segment.rare.len() * RARE_BYTES);
        segment.words.iter().for_each(|word| bytes.extend_from_slice(&word.to_ne_bytes()));
        let words = bytes.len() as u64;
        segment.rare.iter().for_each(|target| bytes.extend_from_slice(&encode(target)));
        let words_at = file.append(&bytes)?;
        Ok(Self { words_at, rare_at: words_at + words })
    }

    /// Words in it.
    pub(super) fn words(self) -> u64 {
        (self.rare_at - self.words_at) / WORD as u64
    }
}

/// Reads words of a segment.
///
/// # Panics
/// If the disk does not give back what was written to it: there is nothing to go on with.
pub(super) fn read_words(file: &SpillFile, place: SegmentPlace, start: u32, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; count * WORD];
    file.read_back(&mut bytes, place.words_at + u64::from(start) * WORD as u64);
    let (words, _) = bytes.as_chunks::<WORD>();
    words.iter().map(|word| u32::from_ne_bytes(*word)).collect()
}

/// Reads a form that a word cannot hold.
///
/// # Panics
/// As [`read_words`].
pub(super) fn read_rare(file: &SpillFile, place: SegmentPlace, number: u32) -> Target {
    let mut bytes = [0; RARE_BYTES];
    file.read_back(&mut bytes, place.rare_at + u64::from(number) * RARE_BYTES as u64);
    decode(&bytes).expect("what was written is read back")
}

fn encode(target: &Target) -> [u8; RARE_BYTES] {
    let mut bytes = [0; RARE_BYTES];
    let (kind, depth, row) = match target {
        Target::Row(row) => (KIND_ROW, 0, *row),
        Target::Packed(row) => (KIND_PACKED, 0, *row),
        Target::Indirect { row, depth } => (KIND_INDIRECT, *depth, *row),
        Target::Missing(object) => (KIND_MISSING, object.indirection, 0),
    };
    bytes[..2].copy_from_slice(&[kind, depth]);
    bytes[2..6].copy_from_slice(&row.to_ne_bytes());
    if let Target::Missing(object) = target {
        let hash = object.content.hash().as_bytes();
        bytes[6] = u8::from(object.compressed);
        bytes[7] = object.content.prefix();
        bytes[8] = u8::try_from(hash.len()).unwrap_or(0);
        bytes[9..9 + hash.len()].copy_from_slice(hash);
    }
    bytes
}

fn decode(bytes: &[u8; RARE_BYTES]) -> Option<Target> {
    let [kind, depth, r0, r1, r2, r3, compressed, prefix, length, hash @ ..] = bytes;
    let row = u32::from_ne_bytes([*r0, *r1, *r2, *r3]);
    Some(match *kind {
        KIND_ROW => Target::Row(row),
        KIND_PACKED => Target::Packed(row),
        KIND_INDIRECT => Target::Indirect { row, depth: *depth },
        _ => {
            let hash = ContentHash::from_slice(hash.get(..usize::from(*length))?)?;
            let content = ContentId::new(*prefix, hash)?;
            Target::Missing(ObjectId { indirection: *depth, compressed: *compressed != 0, content })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use verger_kopia::spill::SpillFolder;

    #[test]
    fn segments_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = SpillFolder::new(folder.path()).file().unwrap();
        let object = |text: &str| text.parse::<ObjectId>().unwrap();
        let long = format!("IIk{}", "ab".repeat(32));
        let rare = vec![
            Target::Packed(7),
            Target::Indirect { row: u32::MAX, depth: 3 },
            Target::Missing(object("Z82b39a12512935970065e53a3aa78c41")),
            Target::Missing(object(&long)),
        ];
        for first in [0, 100] {
            let segment = Segment { words: (first..first + 50).collect(), rare: rare.clone() };
            let place = SegmentPlace::write(&file, &segment).unwrap();
            assert_eq!(place.words(), 50);
            assert_eq!(read_words(&file, place, 3, 5), (first + 3..first + 8).collect::<Vec<_>>());
            let back: Vec<Target> = (0..4).map(|number| read_rare(&file, place, number)).collect();
            assert_eq!(back, rare);
        }
    }
}
