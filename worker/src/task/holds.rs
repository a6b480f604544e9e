//! What the plaintext of a content is, and which objects it refers to.

use verger_kopia::compression::Decompressor;
use verger_kopia::content::ContentId;
use verger_kopia::directory::{EntryType, parse_slice};
use verger_kopia::error::{Error, Result};
use verger_kopia::object::{ObjectId, SeekTable};

use super::summary::{Holds, Pen, Role};

/// The most that one legacy compressed directory may hold: its length is not recorded anywhere.
const PACKED_BYTES_MAX: usize = 256 << 20;

/// And the most that is unpacked only to see whether it is one. Kopia compresses no content with a prefix as an object, so any
/// such is odd; what is larger is looked at again by itself if a snapshot has it for a directory.
const TRIED_BYTES_MAX: usize = 8 << 20;

/// Takes down what a content refers to.
pub(super) trait References {
    /// Begins a content; what was taken down of one that was not finished is forgotten.
    fn begin(&mut self);
    /// One reference of it.
    fn refer(&mut self, role: Role, object: &ObjectId);
}

impl References for Pen<'_> {
    fn begin(&mut self) {
        Pen::begin(self);
    }
    fn refer(&mut self, role: Role, object: &ObjectId) {
        Pen::refer(self, role, object);
    }
}

/// By ID, as no table is at hand.
impl References for Vec<(Role, ObjectId)> {
    fn begin(&mut self) {
        self.clear();
    }
    fn refer(&mut self, role: Role, object: &ObjectId) {
        self.push((role, *object));
    }
}

/// Unpacks legacy compressed directories, one after another.
#[derive(Default)]
pub(super) struct Unpacker {
    decompressor: Decompressor,
    plain: Vec<u8>,
}

/// Writes what `plain` refers to, if it is a whole directory or a whole seek table; else forgets it.
///
/// A fragment of a larger directory is neither, even if it begins like one (R8).
pub(super) fn classify(plain: &[u8], pen: &mut impl References, unpacker: &mut Unpacker) -> Option<Holds> {
    if plain.first().is_some_and(|byte| *byte == b'{' || byte.is_ascii_whitespace()) {
        if directory(plain, pen).is_ok() {
            return Some(Holds::Directory);
        }
        return table(plain, pen).is_ok().then_some(Holds::Table);
    }
    let unpacked = unpacker.decompressor.decompress_headed(plain, TRIED_BYTES_MAX, &mut unpacker.plain);
    (unpacked.is_ok() && directory(&unpacker.plain, pen).is_ok()).then_some(Holds::PackedDirectory)
}

/// Writes what `plain` refers to as what it is wanted for. Says where its line starts.
///
/// # Errors
/// `Damaged` if it is not that.
pub(super) fn write_as(holds: Holds, id: ContentId, plain: &[u8], pen: &mut Pen<'_>) -> Result<u32> {
    let written = match holds {
        Holds::Directory => directory(plain, pen),
        Holds::Table => table(plain, pen),
        Holds::PackedDirectory => {
            let mut unpacked = Vec::new();
            Decompressor::new()
                .decompress_headed(plain, PACKED_BYTES_MAX, &mut unpacked)
                .and_then(|()| directory(&unpacked, pen))
        }
    };
    let what = if holds == Holds::Table { "seek table" } else { "directory" };
    written.map_err(|error: Error| error.at(format!("read {what} in content {id}")))?;
    pen.finish(holds)
}

fn directory(plain: &[u8], pen: &mut impl References) -> Result<()> {
    pen.begin();
    parse_slice(plain, |reference| pen.refer(role(reference.kind), &reference.object))
}

fn table(plain: &[u8], pen: &mut impl References) -> Result<()> {
    pen.begin();
    for entry in SeekTable::parse(plain)?.entries {
        pen.refer(Role::File, &entry.object);
    }
    Ok(())
}

/// As what an entry of this kind refers to its object: Kopia looks into directories alone.
#[must_use]
pub(super) fn role(kind: EntryType) -> Role {
    if kind == EntryType::Directory { Role::Directory } else { Role::File }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use verger_kopia::index::TableBuilder;

    use super::*;

    #[test]
    fn r25_what_only_might_be_a_directory_is_not_unpacked_without_end() {
        let table = TableBuilder::new(16, None).build(1).unwrap();
        let directory = br#"{"stream":"kopia:directory","entries":[]}"#;
        for (spaces, expected) in [(10, Some(Holds::PackedDirectory)), (TRIED_BYTES_MAX, None)] {
            let mut gzip = flate2::write::GzEncoder::new(vec![0, 0, 0x10, 0], flate2::Compression::best());
            gzip.write_all(directory).unwrap();
            gzip.write_all(&vec![b' '; spaces]).unwrap();
            let packed = gzip.finish().unwrap();
            let mut unpacker = Unpacker::default();
            assert_eq!(classify(&packed, &mut Pen::new(&table), &mut unpacker), expected);
            assert!(unpacker.plain.capacity() <= 2 * TRIED_BYTES_MAX);
            // Asked for as a directory, it is one.
            let id = "k00".parse().unwrap();
            assert!(write_as(Holds::PackedDirectory, id, &packed, &mut Pen::new(&table)).is_ok());
        }
    }
}
