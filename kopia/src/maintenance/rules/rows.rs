//! What the rules need of an index table.

use crate::index::Table;
use crate::storage::BlobId;

/// The winners of an index view, one row a content, sorted by content ID; see [`Table`], whose methods these are.
pub trait Rows {
    /// Number of rows.
    fn len(&self) -> u32;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Prefix byte of a row's ID.
    fn prefix(&self, row: u32) -> u8;
    /// Whether the winner is a mark.
    fn is_deleted(&self, row: u32) -> bool;
    /// Unix seconds by the writer's clock.
    fn timestamp(&self, row: u32) -> i64;
    /// Stored bytes.
    fn packed_length(&self, row: u32) -> u32;
    /// Offset in the pack.
    fn offset(&self, row: u32) -> u32;
    /// Ordinal of the row's pack in [`Rows::packs`].
    fn pack(&self, row: u32) -> u32;
    /// Packs of the visible winners, each once, sorted by name.
    fn packs(&self) -> &[BlobId];
    /// Packs named by winners that the watermark hides, sorted.
    fn hidden_packs(&self) -> &[BlobId];
}

impl Rows for Table {
    fn len(&self) -> u32 {
        // Ordinals are 32 bits wide, so no table has more rows.
        u32::try_from(Table::len(self)).unwrap_or(u32::MAX)
    }
    fn prefix(&self, row: u32) -> u8 {
        Table::prefix(self, row)
    }
    fn is_deleted(&self, row: u32) -> bool {
        Table::is_deleted(self, row)
    }
    fn timestamp(&self, row: u32) -> i64 {
        Table::timestamp(self, row)
    }
    fn packed_length(&self, row: u32) -> u32 {
        Table::packed_length(self, row)
    }
    fn offset(&self, row: u32) -> u32 {
        Table::offset(self, row)
    }
    fn pack(&self, row: u32) -> u32 {
        Table::pack(self, row)
    }
    fn packs(&self) -> &[BlobId] {
        Table::packs(self)
    }
    fn hidden_packs(&self) -> &[BlobId] {
        Table::hidden_packs(self)
    }
}

#[cfg(test)]
pub(crate) use for_tests::TestRows;

#[cfg(test)]
mod for_tests {
    use super::{BlobId, Rows};

    /// A table made of `(prefix, deleted, timestamp, packed length, pack)`.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct TestRows {
        rows: Vec<(u8, bool, i64, u32, u32)>,
        packs: Vec<BlobId>,
        pub(crate) hidden: Vec<BlobId>,
    }

    impl TestRows {
        pub(crate) fn new(rows: &[(u8, bool, i64, u32, &str)]) -> Self {
            let mut packs: Vec<BlobId> = rows.iter().map(|row| BlobId::from(row.4)).collect();
            packs.sort();
            packs.dedup();
            let ordinal = |pack: &str| u32::try_from(packs.binary_search(&pack.into()).unwrap()).unwrap();
            let rows = rows.iter().map(|row| (row.0, row.1, row.2, row.3, ordinal(row.4))).collect();
            Self { rows, packs, hidden: Vec::new() }
        }
        fn row(&self, row: u32) -> (u8, bool, i64, u32, u32) {
            self.rows[row as usize]
        }
    }

    impl Rows for TestRows {
        fn len(&self) -> u32 {
            u32::try_from(self.rows.len()).unwrap()
        }
        fn prefix(&self, row: u32) -> u8 {
            self.row(row).0
        }
        fn is_deleted(&self, row: u32) -> bool {
            self.row(row).1
        }
        fn timestamp(&self, row: u32) -> i64 {
            self.row(row).2
        }
        fn packed_length(&self, row: u32) -> u32 {
            self.row(row).3
        }
        fn offset(&self, row: u32) -> u32 {
            self.rows.iter().take(row as usize).map(|other| other.3).sum()
        }
        fn pack(&self, row: u32) -> u32 {
            self.row(row).4
        }
        fn packs(&self) -> &[BlobId] {
            &self.packs
        }
        fn hidden_packs(&self) -> &[BlobId] {
            &self.hidden
        }
    }
}
