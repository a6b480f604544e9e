//! Snapshot GC: what to mark and what to revive (`snapshot/snapshotgc/gc.go`).

use super::facts::{age, shorter};
use super::plan::GcPlan;
use super::rows::Rows;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::maintenance::Margins;
use crate::maintenance::history::SnapshotGcStats;
use crate::mutant::{self, Mutant};

/// Prefix of manifest contents, which snapshot GC never touches.
pub const MANIFEST_PREFIX: u8 = b'm';

/// The timestamp of a new entry for a content: strictly greater than the one it replaces (I13).
#[must_use]
pub fn stamp(sealed: i64, old: i64) -> i64 {
    let later = if mutant::on(Mutant::I13NotLater) { old } else { old.saturating_add(1) };
    sealed.max(later)
}

/// Goes through all rows in Kopia's order of tests. `used` says which rows snapshots need, `pack_times` when the store
/// got each pack (by ordinal), `started` is the cycle's first storage time, `stamp` the time to mark with.
///
/// R10: a live content also counts as too recent while its pack is younger than the margin by the storage's clock,
/// since its own timestamp is a client's; and while its pack is not there at all, since a mark must name a pack that
/// exists.
///
/// # Errors
/// `Internal` if the parts do not add up to the whole (R12), or `pack_times` belongs to another table.
pub fn classify<R: Rows>(
    rows: &R,
    used: impl Fn(u32) -> bool,
    pack_times: &[Option<Timestamp>],
    started: Timestamp,
    stamp: i64,
    margins: &Margins,
) -> Result<GcPlan> {
    if pack_times.len() != rows.packs().len() {
        return Err(Error::new(ErrorKind::Internal, "classify contents: pack times of another view"));
    }
    let mut plan = GcPlan { stamp, ..GcPlan::default() };
    let stats = &mut plan.stats;
    let young = |row: u32| {
        shorter(age(started, rows.timestamp(row)), margins.min_content_age_subject_to_gc)
            || !mutant::on(Mutant::R10PackAgeIgnored)
                && !rows.is_deleted(row)
                && pack_times[rows.pack(row) as usize].is_none_or(|written| {
                    let age = started.as_nanosecond() - written.as_nanosecond();
                    shorter(age, margins.pack_age_subject_to_gc)
                })
    };
    for row in 0..rows.len() {
        let size = u64::from(rows.packed_length(row));
        let (count, sum) = if rows.prefix(row) == MANIFEST_PREFIX && !mutant::on(Mutant::I3ManifestsMarked) {
            (&mut stats.in_use_system_content_count, &mut stats.in_use_system_content_size)
        } else if used(row) {
            if rows.is_deleted(row) && !mutant::on(Mutant::I3NothingRevived) {
                plan.undelete.push(row);
                stats.recovered_content_count += 1;
                stats.recovered_content_size += size;
            }
            (&mut stats.in_use_content_count, &mut stats.in_use_content_size)
        } else if young(row) {
            (&mut stats.unreferenced_recent_content_count, &mut stats.unreferenced_recent_content_size)
        } else {
            if !rows.is_deleted(row) {
                plan.mark.push(row);
            }
            (&mut stats.unreferenced_content_count, &mut stats.unreferenced_content_size)
        };
        *count += 1;
        *sum += size;
    }
    // Kopia counts already marked ones as deleted too.
    stats.deleted_content_count = stats.unreferenced_content_count;
    stats.deleted_content_size = stats.unreferenced_content_size;
    complete(stats, u64::from(rows.len()))?;
    Ok(plan)
}

/// R12: live + marked + young + system = entries of the view; anything else is a lost or doubled shard.
///
/// # Errors
/// `Internal`.
pub fn complete(stats: &SnapshotGcStats, rows: u64) -> Result<()> {
    let parts = [
        stats.in_use_content_count,
        stats.unreferenced_content_count,
        stats.unreferenced_recent_content_count,
        stats.in_use_system_content_count,
    ];
    if parts.iter().try_fold(0u64, |sum, part| sum.checked_add(*part)) == Some(rows)
        || mutant::on(Mutant::R12PartsNotAdded)
    {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Internal, format!("sweep: {parts:?} contents do not add up to the {rows} of the view")))
}

#[cfg(test)]
mod tests {
    use super::super::rows::TestRows;
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3600;
    const START: i64 = 1_700_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn i3_r10_kopias_table_row_by_row() {
        let (old, edge, young) = (START - 25 * HOUR, START - 24 * HOUR, START - 24 * HOUR + 1);
        let table = TestRows::new(&[
            (b'm', true, old, 1, "q0"), // 0 system, even marked and unused
            (b'k', true, old, 2, "q0"), // 1 used and marked: undelete
            (0, false, old, 4, "p0"),   // 2 used and live
            (0, false, young, 8, "p0"), // 3 too recent
            (0, false, edge, 16, "p0"), // 4 exactly 24 h old: mark
            (0, true, old, 32, "p0"),   // 5 marked already: counted, no new entry
            (0, true, young, 64, "p0"), // 6 fresh mark: too recent
            (0, false, old, 128, "p1"), // 7 old entry in a young pack: too recent (R10)
            (0, true, old, 256, "p1"),  // 8 an old mark there stays counted as unused
            (0, false, old, 512, "p2"), // 9 pack is not there: never marked
        ]);
        let times = [Some(at(edge)), Some(at(young)), None, Some(at(old))];
        let plan = classify(&table, |row| [1, 2].contains(&row), &times, at(START), START, &Margins::full()).unwrap();
        assert_eq!((plan.mark, plan.undelete), (vec![4], vec![1]));
        let stats = plan.stats;
        assert_eq!((stats.in_use_system_content_count, stats.in_use_system_content_size), (1, 1));
        assert_eq!((stats.in_use_content_count, stats.in_use_content_size), (2, 6));
        assert_eq!((stats.recovered_content_count, stats.recovered_content_size), (1, 2));
        assert_eq!(stats.unreferenced_recent_content_size, 8 + 64 + 128 + 512);
        assert_eq!((stats.unreferenced_content_count, stats.unreferenced_content_size), (3, 16 + 32 + 256));
        assert_eq!(stats.deleted_content_size, stats.unreferenced_content_size);

        let none = classify(&table, |_| false, &times, at(START), START, &Margins::none()).unwrap();
        assert_eq!(none.mark, [2, 3, 4, 7], "without margins only the missing pack protects");
    }

    #[test]
    fn r12_a_sum_that_does_not_add_up_is_refused() {
        let stats =
            SnapshotGcStats { in_use_content_count: u64::MAX, unreferenced_content_count: 1, ..Default::default() };
        assert!(complete(&stats, 0).is_err() && complete(&SnapshotGcStats::default(), 0).is_ok());
        assert!(classify(&TestRows::default(), |_| true, &[None], at(0), 0, &Margins::full()).is_err());
    }

    #[test]
    fn i13_a_stamp_is_later_than_what_it_replaces() {
        assert_eq!((stamp(5, 5), stamp(5, 1), stamp(5, 9), stamp(5, i64::MAX)), (6, 5, 10, i64::MAX));
    }

    proptest! {
        /// Whatever timestamps say, the parts add up, and nothing used, young or `m` is marked.
        #[test]
        fn r12_parts_add_up(
            rows in proptest::collection::vec(
                (prop::sample::select(vec![0u8, b'm', b'k']), any::<bool>(), any::<i64>(), 0u32..1000,
                 prop::sample::select(vec!["p1", "p2", "q1"]), any::<bool>()), 0..60),
            times in proptest::collection::vec(proptest::option::of(START - 60 * HOUR..START + HOUR), 3),
        ) {
            let table = TestRows::new(&rows.iter().map(|r| (r.0, r.1, r.2, r.3, r.4)).collect::<Vec<_>>());
            let times: Vec<_> = times.iter().take(table.packs().len()).map(|time| time.map(at)).collect();
            let used = |row: u32| rows[row as usize].5;
            let plan = classify(&table, used, &times, at(START), START, &Margins::full()).unwrap();
            prop_assert!(complete(&plan.stats, rows.len() as u64).is_ok());
            for row in plan.mark {
                let r = &rows[row as usize];
                prop_assert!(r.0 != b'm' && !r.1 && !r.5 && r.2 <= START - 24 * HOUR);
            }
            let revive = |r: &(u8, bool, i64, u32, &str, bool)| r.0 != b'm' && r.1 && r.5;
            let revived: Vec<u32> = (0u32..).zip(&rows).filter(|(_, r)| revive(r)).map(|r| r.0).collect();
            prop_assert_eq!(plan.undelete, revived);
        }
    }
}
