//! The index that a pack carries of itself (`repo/content/content_index_recovery.go`).

use crate::content::Entry;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::pack::Postamble;
use crate::repository::Repository;
use crate::storage::{BlobId, ByteRange};

/// What is read first of a pack: enough for the index of most.
const TAIL_LENGTH: u64 = 8192;

/// Entries of the local index in `pack`, the bytes of a whole pack blob. Marks in it may name other packs.
///
/// # Errors
/// `Damaged` without a postamble, or if the index does not hold.
pub fn recover_local_index(repository: &Repository, pack: &[u8]) -> Result<Vec<Entry>> {
    let (postamble, _) = Postamble::find(pack)?;
    let stored = span(pack, postamble.offset, postamble.length)
        .ok_or_else(|| Error::damaged("read the local index: the pack ends before it"))?;
    open(repository, &postamble, stored)
}

/// As [`recover_local_index`] for a pack in the store, with one or two ranged reads from its end.
///
/// # Errors
/// As [`recover_local_index`]; `NotFound` if the pack is not there; storage errors.
pub fn fetch_local_index(repository: &Repository, pack: &BlobId) -> Result<Vec<Entry>> {
    let at = |error: Error| error.at(format!("read the local index of pack {pack}"));
    let tail = repository.storage().get(pack, ByteRange::Last(TAIL_LENGTH)).map_err(at)?;
    let (postamble, length) = Postamble::find(&tail).map_err(at)?;
    // The postamble follows the index without a gap, so the end of the index is known without the blob's length.
    let end = tail.len().saturating_sub(length);
    let start = usize::try_from(postamble.length).ok().and_then(|length| end.checked_sub(length));
    let entries = if let Some(stored) = start.and_then(|start| tail.get(start..end)) {
        open(repository, &postamble, stored)
    } else {
        let range = ByteRange::Span { offset: u64::from(postamble.offset), length: u64::from(postamble.length) };
        let stored = repository.storage().get(pack, range).map_err(at)?;
        open(repository, &postamble, &stored)
    };
    entries.map_err(at)
}

fn open(repository: &Repository, postamble: &Postamble, stored: &[u8]) -> Result<Vec<Entry>> {
    let (plain, _) = repository.cipher().open(postamble.iv.as_bytes(), stored)?;
    let index = Index::parse(plain, repository.hasher().length())?;
    index.entries().collect()
}

pub(super) fn span(pack: &[u8], offset: u32, length: u32) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    pack.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}
