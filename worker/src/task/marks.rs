//! Which rows a cycle marked, and with which time: there may be many millions, nearly all with the time of their batch.

use std::collections::BTreeMap;

use verger_kopia::bitmap::Bitmap;

/// Marks by row: a bit each, and the time where it changes from one row to the next.
#[derive(Debug, Default)]
pub(super) struct Marks {
    rows: Bitmap,
    /// Time of the marks from a row on.
    times: BTreeMap<u32, i64>,
    last: Option<u32>,
    /// Marks that came out of order.
    others: BTreeMap<u32, i64>,
}

impl Marks {
    /// Notes a mark. Cheap if rows come in order.
    pub(super) fn add(&mut self, row: u32, time: i64) {
        if self.last.is_some_and(|last| row <= last) {
            self.others.insert(row, time);
            return;
        }
        if self.times.last_key_value().is_none_or(|(_, before)| *before != time) {
            self.times.insert(row, time);
        }
        self.rows.insert_growing(row);
        self.last = Some(row);
    }

    /// Time of a row's mark, if this cycle made one.
    pub(super) fn time(&self, row: u32) -> Option<i64> {
        if let Some(time) = self.others.get(&row) {
            return Some(*time);
        }
        self.rows.contains(row).then(|| self.times.range(..=row).next_back().map(|(_, time)| *time))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_keeps_its_time_in_any_order() {
        let marks = [(3, 10), (4, 10), (70, 11), (71, 10), (200, 10), (5, 9), (4, 12), (1 << 20, 13)];
        let mut kept = Marks::default();
        let mut expected = BTreeMap::new();
        for (row, time) in marks {
            kept.add(row, time);
            expected.insert(row, time);
            assert!((0..300).all(|row| kept.time(row) == expected.get(&row).copied()));
        }
        assert_eq!((kept.time(1 << 20), kept.time((1 << 20) + 1)), (Some(13), None));
        assert_eq!(kept.times.len(), 4, "one for each change");
    }
}
