//! Merges index blobs into one sorted table of winners, in columns: about 40 bytes a content.

use super::Index;
use crate::content::{ContentId, Entry};
use crate::error::Result;
use crate::storage::BlobId;
use std::sync::Arc;

/// The winners of an index view, sorted by content ID, one row a content; rows are named by ordinal.
/// Marks at or below the watermark are not rows (to readers such a content does not exist); their packs are remembered apart.
pub struct Table {}

impl Table {
    /// Number of rows.
    pub fn len(&self) -> usize {
        unreachable!("stub")
    }
    /// Row of a content.
    pub fn find(&self, id: &ContentId) -> Option<u32> {
        let _ = id;
        unreachable!("stub")
    }
    /// ID of a row.
    pub fn id(&self, row: u32) -> ContentId {
        let _ = row;
        unreachable!("stub")
    }
    /// The whole entry of a row.
    pub fn entry(&self, row: u32) -> Entry {
        let _ = row;
        unreachable!("stub")
    }
    /// Prefix byte of a row's ID.
    pub fn prefix(&self, row: u32) -> u8 {
        let _ = row;
        unreachable!("stub")
    }
    /// Whether the winner is a mark.
    pub fn is_deleted(&self, row: u32) -> bool {
        let _ = row;
        unreachable!("stub")
    }
    /// Unix seconds.
    pub fn timestamp(&self, row: u32) -> i64 {
        let _ = row;
        unreachable!("stub")
    }
    /// Stored bytes.
    pub fn packed_length(&self, row: u32) -> u32 {
        let _ = row;
        unreachable!("stub")
    }
    /// Plaintext bytes.
    pub fn original_length(&self, row: u32) -> u32 {
        let _ = row;
        unreachable!("stub")
    }
    /// Offset in the pack.
    pub fn offset(&self, row: u32) -> u32 {
        let _ = row;
        unreachable!("stub")
    }
    /// Ordinal of the row's pack in [`Table::packs`].
    pub fn pack(&self, row: u32) -> u32 {
        let _ = row;
        unreachable!("stub")
    }
    /// Packs of the visible winners, each once, sorted by name.
    pub fn packs(&self) -> &[BlobId] {
        unreachable!("stub")
    }
    /// Packs named by winners that the watermark hides, sorted.
    pub fn hidden_packs(&self) -> &[BlobId] {
        unreachable!("stub")
    }
    /// Number of winners that the watermark hides.
    pub fn hidden_count(&self) -> u64 {
        unreachable!("stub")
    }
}

/// Collects index blobs and merges them.
pub struct TableBuilder {}

impl TableBuilder {
    /// For a repository whose hashes are `hash_length` bytes long. `watermark`: Unix seconds, `None` with the legacy index.
    pub fn new(hash_length: usize, watermark: Option<i64>) -> Self {
        let _ = (hash_length, watermark);
        Self {}
    }
    /// Adds one index.
    pub fn add(&mut self, index: Arc<Index>) -> Result<()> {
        let _ = index;
        unreachable!("stub")
    }
    /// Merges with `threads` threads.
    pub fn build(self, threads: usize) -> Result<Table> {
        let _ = threads;
        unreachable!("stub")
    }
}
