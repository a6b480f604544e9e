//! Forgetting of marks: up to when, and which rows disappear (`findSafeDropTime` in
//! `repo/maintenance/maintenance_run.go`).

use super::facts::{Frozen, age, before, shorter};
use super::gc;
use super::plan::{DropPlan, GcPlan};
use super::rows::Rows;
use crate::clock::Timestamp;
use crate::maintenance::Margins;
use crate::maintenance::history::RunRecord;
use crate::mutant::{self, Mutant};
use std::time::Duration;

/// Kopia's safe drop time from the `snapshot-gc` history, in which this cycle's GC counts as a success that began at
/// `this_start`. `None`: no drop this time.
#[must_use]
pub fn safe_drop_time(history: &[RunRecord], this_start: Option<Timestamp>, margins: &Margins) -> Option<Timestamp> {
    let done = history.iter().filter(|run| run.success).map(|run| (run.start, run.end));
    // Only the start of the newest counts, so its end may still be open.
    let mut runs: Vec<_> = done.chain(this_start.map(|start| (start, start))).collect();
    runs.sort_by_key(|run| std::cmp::Reverse(run.0));
    let (newest, rest) = runs.split_first()?;
    let gap = |end: Timestamp| newest.0.as_nanosecond() - end.as_nanosecond();
    let margin = i128::try_from(margins.margin_between_snapshot_gc.as_nanos()).unwrap_or(i128::MAX);
    let pair = rest.iter().find(|run| gap(run.1) > margin || mutant::on(Mutant::R15OneGcIsEnough))?;
    Some(before(pair.0, margins.drop_content_from_index_extra_margin))
}

/// Marks of which time may be forgotten now: the earlier of Kopia's safe drop time and R15's wait before `now`.
///
/// Without margins all go that bear the sealed second or an earlier one. The legacy index forgets marks *before* the
/// cutoff and not those *at* it, so there the cutoff is one second later.
#[must_use]
pub fn cutoff(
    history: &[RunRecord],
    this_start: Option<Timestamp>,
    now: Timestamp,
    legacy: bool,
    margins: &Margins,
) -> Option<Timestamp> {
    let safe = if margins.require_two_gc_cycles {
        safe_drop_time(history, this_start, margins)?
    } else if legacy && margins.mark_to_drop_wait.is_zero() {
        let sealed = Timestamp::from_second(now.as_second()).unwrap_or(now);
        return Some(super::facts::after(sealed, Duration::from_secs(1)));
    } else {
        now
    };
    if mutant::on(Mutant::R15NoWait) {
        return Some(safe);
    }
    Some(safe.min(before(now, margins.mark_to_drop_wait)))
}

/// Whether a mark of this second falls under the cutoff (`merged.go` with a watermark: at or before; legacy: before).
#[must_use]
pub fn covers(cutoff: Timestamp, legacy: bool, mark: i64) -> bool {
    if legacy { age(cutoff, mark) > 0 } else { mark <= cutoff.as_second() }
}

/// Which rows disappear under the cutoff: marks, and those that `gc` makes where it reaches them; never what `gc`
/// revives.
pub fn rows<R: Rows>(table: &R, gc: Option<&GcPlan>, cutoff: Timestamp, legacy: bool) -> DropPlan {
    // Both lists are in the order of the rows: each is gone through once, in step.
    let mut revived = Steps(gc.map_or(&[][..], |gc| &gc.undelete));
    let mut marked = Steps(gc.map_or(&[][..], |gc| &gc.mark));
    let dropped = |row: &u32| {
        let row = *row;
        let (is_revived, is_marked) = (revived.reaches(row), marked.reaches(row));
        if table.is_deleted(row) {
            covers(cutoff, legacy, table.timestamp(row)) && !is_revived
        } else {
            is_marked && gc.is_some_and(|gc| covers(cutoff, legacy, gc::stamp(gc.stamp, table.timestamp(row))))
        }
    };
    DropPlan { cutoff, rows: (0..table.len()).filter(dropped).collect() }
}

/// Rows in ascending order, gone through beside the table.
struct Steps<'a>(&'a [u32]);

impl Steps<'_> {
    /// Whether `row` is one of them. Asked for ascending rows only.
    fn reaches(&mut self, row: u32) -> bool {
        while let Some((first, rest)) = self.0.split_first() {
            if *first > row {
                return false;
            }
            self.0 = rest;
            if *first == row {
                return true;
            }
        }
        false
    }
}

/// The whole rule. `Err` is the reason why nothing is dropped.
///
/// # Errors
/// Kopia's words for why not.
pub fn plan<R: Rows>(
    table: &R,
    gc: Option<&GcPlan>,
    cutoff: Option<Timestamp>,
    legacy: bool,
    frozen: Frozen,
) -> Result<DropPlan, &'static str> {
    if frozen != Frozen::Nothing {
        return Err("Not forgetting deleted contents: something that may protect them cannot be read.");
    }
    let cutoff = cutoff.ok_or(
        "Not forgetting deleted contents yet since not enough time has passed since previous successful Snapshot GC. \
         Will try again next time.",
    )?;
    Ok(rows(table, gc, cutoff, legacy))
}

/// When a mark of this second can be dropped at the earliest, if a GC runs as soon as each margin ends.
#[must_use]
pub fn earliest(mark: i64, history: &[RunRecord], this_start: Timestamp, margins: &Margins) -> Timestamp {
    let mark = Timestamp::from_second(mark).unwrap_or(Timestamp::MAX);
    if !margins.require_two_gc_cycles {
        return super::facts::after(mark, margins.mark_to_drop_wait);
    }
    let start_needed = super::facts::after(mark, margins.drop_content_from_index_extra_margin);
    let done = history.iter().filter(|run| run.success).map(|run| (run.start, run.end));
    // The earliest-ending GC that began late enough; else the next one, which can begin when the margin after the mark
    // ends.
    let first = done.chain([(this_start, this_start)]).filter(|run| run.0 >= start_needed).map(|run| run.1).min();
    let second = super::facts::after(first.unwrap_or(start_needed), margins.margin_between_snapshot_gc);
    second.max(super::facts::after(mark, margins.mark_to_drop_wait))
}

/// Whether a mark of this second is younger than R15's wait.
#[must_use]
pub fn waits(mark: i64, now: Timestamp, margins: &Margins) -> bool {
    shorter(age(now, mark), margins.mark_to_drop_wait)
}

#[cfg(test)]
mod tests {
    use super::super::rows::TestRows;
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + minutes * 60).unwrap()
    }

    fn gc_run(start: i64, end: i64, success: bool) -> RunRecord {
        RunRecord { success, ..RunRecord::success(at(start), at(end)) }
    }

    const H: i64 = 60;

    #[test]
    fn i5_safe_drop_time_is_kopias() {
        let full = Margins::full();
        let table: [(&str, Vec<RunRecord>, Option<i64>); 8] = [
            ("none", vec![], None),
            ("one", vec![gc_run(0, 1, true)], None),
            ("gap of four hours exactly is too short", vec![gc_run(4 * H + 1, 5 * H, true), gc_run(0, 1, true)], None),
            ("a minute more", vec![gc_run(4 * H + 2, 5 * H, true), gc_run(0, 1, true)], Some(-H)),
            ("failed ones do not count", vec![gc_run(9 * H, 9 * H, true), gc_run(0, 1, false)], None),
            (
                "the newest that is far enough away",
                vec![
                    gc_run(30 * H, 31 * H, true),
                    gc_run(27 * H, 28 * H, true),
                    gc_run(24 * H, 25 * H, true),
                    gc_run(0, 1, true),
                ],
                Some(23 * H),
            ),
            (
                "order in the history does not matter",
                vec![gc_run(0, 1, true), gc_run(30 * H, 31 * H, true), gc_run(24 * H, 25 * H, true)],
                Some(23 * H),
            ),
            ("a long one ends late", vec![gc_run(10 * H, 11 * H, true), gc_run(0, 7 * H, true)], None),
        ];
        for (name, history, expected) in table {
            assert_eq!(safe_drop_time(&history, None, &full), expected.map(at), "{name}");
        }
        // This cycle's own GC is the newest.
        assert_eq!(safe_drop_time(&[gc_run(0, 1, true)], Some(at(24 * H)), &full), Some(at(-H)));
    }

    #[test]
    fn r15_the_wait_of_a_sleeping_client_comes_on_top() {
        let history = [gc_run(0, 1, true)];
        let cut = |now: i64, margins: &Margins| cutoff(&history, Some(at(now)), at(now), false, margins);
        assert_eq!(cut(4 * H, &Margins::full()), None);
        assert_eq!(cut(6 * H, &Margins::full()), Some(at(6 * H - 24 * H)), "R15's wait is the earlier");
        assert_eq!(cut(30 * H, &Margins::full()), Some(at(-H)), "Kopia's is the earlier");
        let five = Margins { mark_to_drop_wait: Duration::from_secs(5 * 3600), ..Margins::full() };
        assert_eq!(cut(6 * H, &five), Some(at(-H)));
        assert_eq!(cut(6 * H, &Margins::none()), Some(at(6 * H)));
        assert_eq!(
            cutoff(&[], None, at(0), true, &Margins::none()),
            Some(at(0) + Duration::from_secs(1)),
            "legacy drops strictly before"
        );
    }

    #[test]
    fn rows_at_the_boundary_of_both_managers() {
        let second = at(0).as_second();
        let table = TestRows::new(&[
            (0, true, second - 1, 1, "p0"),
            (0, true, second, 1, "p0"),
            (0, true, second + 1, 1, "p0"),
            (0, false, second - 9, 1, "p0"),
            (b'm', true, second - 1, 1, "q0"),
            (0, false, second - 1, 1, "p0"),
            (0, false, second, 1, "p0"),
        ]);
        assert_eq!(rows(&table, None, at(0), false).rows, [0, 1, 4]);
        assert_eq!(rows(&table, None, at(0), true).rows, [0, 4]);
        let gc = GcPlan { mark: vec![5, 6], undelete: vec![0], stamp: second, ..GcPlan::default() };
        // Row 6 has to be stamped a second later, so the watermark does not cover it.
        assert_eq!(rows(&table, Some(&gc), at(0), false).rows, [1, 4, 5]);
        assert!(plan(&table, None, Some(at(0)), false, Frozen::MarksAndDrops).is_err());
        assert!(plan(&table, None, None, false, Frozen::Nothing).unwrap_err().starts_with("Not forgetting"));
    }

    #[test]
    fn r15_the_earliest_time_follows_the_chase() {
        let mark = at(0).as_second();
        let five = Margins { mark_to_drop_wait: Duration::from_secs(5 * 3600), ..Margins::full() };
        assert_eq!(earliest(mark, &[], at(0), &five), at(5 * H));
        assert_eq!(earliest(mark, &[], at(0), &Margins::full()), at(24 * H));
        assert_eq!(earliest(mark, &[gc_run(2 * H, 3 * H, true)], at(4 * H), &five), at(7 * H));
        assert!(waits(mark, at(24 * H - 1), &Margins::full()) && !waits(mark, at(24 * H), &Margins::full()));
    }
}
