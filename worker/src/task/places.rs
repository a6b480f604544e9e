//! Where contents lie: rows of an index table, or what an order names. Reading and copying ask no more.

use std::cmp::Ordering;

use verger_kopia::content::{CompressionId, ContentId, Entry};
use verger_kopia::index::Table;
use verger_kopia::storage::BlobId;

/// Contents by number.
pub trait Places: Sync {
    /// The whole entry of one.
    fn entry(&self, row: u32) -> Entry;
    /// Its ID.
    fn id(&self, row: u32) -> ContentId;
    /// Its pack, by ordinal in [`Places::packs`].
    fn pack(&self, row: u32) -> u32;
    /// Its offset in the pack.
    fn offset(&self, row: u32) -> u32;
    /// Its stored bytes.
    fn packed_length(&self, row: u32) -> u32;
    /// The packs.
    fn packs(&self) -> &[BlobId];
}

impl Places for Table {
    fn entry(&self, row: u32) -> Entry {
        Table::entry(self, row)
    }
    fn id(&self, row: u32) -> ContentId {
        Table::id(self, row)
    }
    fn pack(&self, row: u32) -> u32 {
        Table::pack(self, row)
    }
    fn offset(&self, row: u32) -> u32 {
        Table::offset(self, row)
    }
    fn packed_length(&self, row: u32) -> u32 {
        Table::packed_length(self, row)
    }
    fn packs(&self) -> &[BlobId] {
        Table::packs(self)
    }
}

/// What an order names, in its order.
#[derive(Debug, Default)]
pub struct Ordered {
    packs: Vec<BlobId>,
    rows: Vec<OrderedRow>,
}

#[derive(Debug)]
struct OrderedRow {
    id: ContentId,
    timestamp: i64,
    pack: u32,
    offset: u32,
    packed_length: u32,
    original_length: u32,
    compression: CompressionId,
    format_version: u8,
    deleted: bool,
}

impl Ordered {
    /// Bytes of memory that one content takes.
    pub const ROW_BYTES: u64 = size_of::<OrderedRow>() as u64;

    /// Adds one. False if it stands before the last: orders go by pack and offset, so that each pack comes once.
    pub fn add(&mut self, entry: Entry) -> bool {
        match self.packs.last().map(|last| last.cmp(&entry.pack)) {
            Some(Ordering::Equal) => {
                if self.rows.last().is_some_and(|last| last.offset > entry.offset) {
                    return false;
                }
            }
            Some(Ordering::Greater) => return false,
            Some(Ordering::Less) | None => self.packs.push(entry.pack),
        }
        let Some(pack) = self.packs.len().checked_sub(1).and_then(|last| u32::try_from(last).ok()) else {
            return false;
        };
        let Entry {
            id, timestamp, deleted, offset, packed_length, original_length, compression, format_version, ..
        } = entry;
        let row = OrderedRow {
            id,
            timestamp,
            pack,
            offset,
            packed_length,
            original_length,
            compression,
            format_version,
            deleted,
        };
        self.rows.push(row);
        u32::try_from(self.rows.len()).is_ok()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn row(&self, row: u32) -> &OrderedRow {
        &self.rows[row as usize]
    }
}

impl Places for Ordered {
    fn entry(&self, row: u32) -> Entry {
        let row = self.row(row);
        Entry {
            id: row.id,
            timestamp: row.timestamp,
            deleted: row.deleted,
            pack: self.packs[row.pack as usize].clone(),
            offset: row.offset,
            packed_length: row.packed_length,
            original_length: row.original_length,
            compression: row.compression,
            format_version: row.format_version,
        }
    }
    fn id(&self, row: u32) -> ContentId {
        self.row(row).id
    }
    fn pack(&self, row: u32) -> u32 {
        self.row(row).pack
    }
    fn offset(&self, row: u32) -> u32 {
        self.row(row).offset
    }
    fn packed_length(&self, row: u32) -> u32 {
        self.row(row).packed_length
    }
    fn packs(&self) -> &[BlobId] {
        &self.packs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_goes_by_pack_and_offset() {
        let entry = |pack: &str, offset| Entry {
            id: "k00".parse().unwrap(),
            timestamp: -1,
            deleted: true,
            pack: pack.into(),
            offset,
            packed_length: 30,
            original_length: 2,
            compression: CompressionId(0x1100),
            format_version: 3,
        };
        let mut ordered = Ordered::default();
        let entries = [entry("q1", 5), entry("q1", 5), entry("q1", 9), entry("q3", 0)];
        assert!(entries.iter().all(|entry| ordered.add(entry.clone())));
        assert!((0..ordered.len()).map(|row| ordered.entry(row)).eq(entries));
        assert!(!ordered.add(entry("q2", 9)) && !ordered.add(entry("q1", 20)));
        let mut ordered = Ordered::default();
        assert!(ordered.add(entry("q1", 5)) && !ordered.add(entry("q1", 4)));
    }
}
