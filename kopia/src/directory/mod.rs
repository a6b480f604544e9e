//! Directory objects: a strict streaming parser, fast for the field order that Kopia writes.
//!
//! Garbage collection needs of each entry what it is and where it lies: [`parse_slice`] for a directory in one content,
//! [`Parser`] for one that comes in pieces, [`parse_object`] for an object of either kind. People need the rest:
//! [`Directory`].

mod entry;
mod parse;
mod scan;
mod token;

pub use entry::{Directory, DirectoryEntry, DirectorySummary, FailedEntry, Permissions};
pub use parse::{Parser, parse_slice};

use crate::content::ContentId;
use crate::error::Result;
use crate::object::{ObjectId, ObjectReader};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum EntryType {
    /// `f`
    File,
    /// `d`
    Directory,
    /// `s`: the object is the target's text.
    Symlink,
    /// Anything else. Kopia keeps its object and does not look inside.
    #[default]
    Unknown,
}

impl EntryType {
    /// Of the stored text.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        match text {
            "f" => Self::File,
            "d" => Self::Directory,
            "s" => Self::Symlink,
            _ => Self::Unknown,
        }
    }
}

/// One entry, as garbage collection sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reference {
    /// What it is.
    pub kind: EntryType,
    /// Where it lies.
    pub object: ObjectId,
}

/// Visits all entries of a directory object, however it is stored; its chunks are fetched one after another, in order.
///
/// # Errors
/// Those of `fetch`; `Damaged` as [`Parser`].
pub fn parse_object(
    object: ObjectId,
    fetch: impl FnMut(&ContentId) -> Result<Vec<u8>>,
    mut visit: impl FnMut(Reference),
) -> Result<()> {
    let mut reader = ObjectReader::open(object, fetch)?;
    let mut parser = Parser::new();
    while let Some(chunk) = reader.next_chunk()? {
        parser.push(chunk, &mut visit).map_err(|error| error.at(format!("read directory {object}")))?;
    }
    parser.finish(&mut visit).map_err(|error| error.at(format!("read directory {object}")))
}

#[cfg(test)]
mod tests;
