//! Building index blobs.

use std::borrow::Cow;

use super::{Table, v1, v2};
use crate::content::{ContentId, Entry};
use crate::error::{Error, ErrorKind, Result};

/// Most entries of one index blob (`repo/content/content_manager.go`).
pub const SHARD_ENTRIES_MAX: usize = 16_000_000;

const RANDOM_TAIL: usize = 32;

/// How to build.
#[derive(Debug, Clone, Copy)]
pub struct BuildOptions {
    /// 1 or 2.
    pub version: u8,
    /// Hash length of the repository in bytes.
    pub hash_length: usize,
    /// Append 32 random bytes (pack-local indexes and legacy compaction outputs).
    pub random_tail: bool,
}

/// Builds the index payloads of these entries (sorted inside; one for each shard of at most 16 million entries). Of several
/// entries of one content the winner is kept. No entries: no payloads.
///
/// # Errors
/// `Unsupported` for a value that the index version cannot hold; `Internal` for entries that do not fit the repository.
pub fn build(entries: Vec<Entry>, options: &BuildOptions) -> Result<Vec<Vec<u8>>> {
    build_shards(entries, options, SHARD_ENTRIES_MAX)
}

/// As [`build`], of the rows of a table for which `keep` says so, without making entries of them all.
///
/// # Errors
/// As [`build`].
pub fn build_from_table(table: &Table, keep: impl Fn(u32) -> bool, options: &BuildOptions) -> Result<Vec<Vec<u8>>> {
    let rows: Vec<u32> = table.rows().filter(|row| keep(*row)).collect();
    let shards = shard(rows, SHARD_ENTRIES_MAX, |row| table.id(*row));
    let build = |rows: Vec<u32>| build_one(&Sorted::Rows(table, &rows), options);
    shards.into_iter().map(build).collect()
}

/// As [`build_from_table`], of rows in order, at most `rows_max` in a payload, each shown before the next is built. The number of
/// payloads is told first: it is part of their names. Readers merge all blobs, so how entries are dealt out says nothing.
///
/// # Errors
/// As [`build`]; what `show` returns.
pub fn build_in_parts(
    table: &Table,
    keep: impl Fn(u32) -> bool,
    rows_max: usize,
    options: &BuildOptions,
    mut show: impl FnMut(usize, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let kept = || table.rows().filter(|row| keep(*row));
    let count = kept().count().div_ceil(rows_max.max(1));
    let mut rows = kept();
    for _ in 0..count {
        let part: Vec<u32> = rows.by_ref().take(rows_max.max(1)).collect();
        show(count, build_one(&Sorted::Rows(table, &part), options)?)?;
    }
    Ok(())
}

fn build_shards(mut entries: Vec<Entry>, options: &BuildOptions, shard_max: usize) -> Result<Vec<Vec<u8>>> {
    entries.sort_by_key(|entry| entry.id);
    entries.dedup_by(|next, kept| {
        let same = next.id == kept.id;
        if same && wins(next, kept) {
            std::mem::swap(next, kept);
        }
        same
    });
    let shards = shard(entries, shard_max, |entry| entry.id);
    shards.into_iter().map(|entries| build_one(&Sorted::Entries(&entries), options)).collect()
}

fn build_one(entries: &Sorted<'_>, options: &BuildOptions) -> Result<Vec<u8>> {
    if let Some(id) = entries.of_other_length(options.hash_length) {
        return Err(Error::new(ErrorKind::Internal, format!("build an index: {id} is not of this repository")));
    }
    let mut payload = match options.version {
        1 => v1::build(entries, options.hash_length)?,
        2 => v2::build(entries, options.hash_length)?,
        other => return Err(Error::unsupported(format!("write an index of version {other}"))),
    };
    if options.random_tail {
        payload.extend_from_slice(&rand::random::<[u8; RANDOM_TAIL]>());
    }
    Ok(payload)
}

/// [`Entry::beats`], and on a full tie, where Kopia keeps either, the rest of the entry: the output does not depend on the order
/// of the input. The merge has the same rule.
fn wins(a: &Entry, b: &Entry) -> bool {
    let rest = |e: &Entry| (e.offset, e.packed_length, e.original_length, e.compression, e.format_version);
    a.beats(b) || (!b.beats(a) && rest(a) > rest(b))
}

/// Cuts sorted items as `index_builder.go` does: FNV-1a of the ID's text; empty shards are left out.
fn shard<T>(items: Vec<T>, shard_max: usize, id: impl Fn(&T) -> ContentId) -> Vec<Vec<T>> {
    let count = items.len().div_ceil(shard_max);
    if count <= 1 {
        return if items.is_empty() { Vec::new() } else { vec![items] };
    }
    let mut shards: Vec<Vec<T>> = (0..count).map(|_| Vec::new()).collect();
    for item in items {
        let shard = fnv1a(id(&item).to_string().as_bytes()) as usize % count;
        shards[shard].push(item);
    }
    shards.retain(|shard| !shard.is_empty());
    shards
}

fn fnv1a(text: &[u8]) -> u32 {
    text.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Entries in key order, each content once: what the builders read.
pub(super) enum Sorted<'a> {
    Entries(&'a [Entry]),
    Rows(&'a Table, &'a [u32]),
}

impl Sorted<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Entries(entries) => entries.len(),
            Self::Rows(_, rows) => rows.len(),
        }
    }

    fn of_other_length(&self, hash_length: usize) -> Option<ContentId> {
        match self {
            Self::Entries(entries) => {
                entries.iter().map(|entry| entry.id).find(|id| id.key_length() != hash_length + 1)
            }
            Self::Rows(table, rows) => {
                rows.first().map(|row| table.id(*row)).filter(|id| id.key_length() != hash_length + 1)
            }
        }
    }

    pub(super) fn get(&self, position: usize) -> Cow<'_, Entry> {
        match self {
            Self::Entries(entries) => Cow::Borrowed(&entries[position]),
            Self::Rows(table, rows) => Cow::Owned(table.entry(rows[position])),
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// [`build`] with small shards.
    pub(in crate::index) fn build_small(entries: Vec<Entry>, options: &BuildOptions, shard_max: usize) -> Vec<Vec<u8>> {
        build_shards(entries, options, shard_max).unwrap()
    }

    #[test]
    fn fnv1a_as_published() {
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }
}
