//! May packs be rewritten, may orphans be deleted: the alternation of both (`shouldFullRewriteContents`,
//! `shouldQuickRewriteContents`, `shouldDeleteOrphanedPacks`, `hadRecentFullRewrite` in
//! `repo/maintenance/maintenance_run.go`).

use super::facts::after;
use super::plan::Mode;
use crate::clock::Timestamp;
use crate::maintenance::history::Task;
use crate::maintenance::{Margins, Schedule};
use crate::mutant::{self, Mutant};

/// Why a rewrite does not run, in Kopia's words.
pub const REWRITE_WAITS: &str =
    "Previous content rewrite has not been finalized yet, waiting until the next blob deletion.";

/// Why a deletion does not run, in Kopia's words.
pub const DELETE_WAITS: &str = "Skipping pack deletion because not enough time has passed yet";

/// Latest successful ends of the tasks that take turns; `None` is Go's zero time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turns {
    /// Full rewrite.
    pub full_rewrite: Option<Timestamp>,
    /// Quick rewrite.
    pub quick_rewrite: Option<Timestamp>,
    /// Either deletion.
    pub delete: Option<Timestamp>,
}

impl Turns {
    /// Reads them from the history.
    #[must_use]
    pub fn of(schedule: &Schedule) -> Self {
        Self {
            full_rewrite: schedule.latest_success(&[Task::FullRewriteContents]),
            quick_rewrite: schedule.latest_success(&[Task::QuickRewriteContents]),
            delete: schedule.latest_success(&[Task::FullDeleteBlobs, Task::QuickDeleteBlobs]),
        }
    }

    /// Whether a rewrite is allowed. A full one ignores quick ones on purpose, as Kopia does.
    #[must_use]
    pub fn may_rewrite(&self, mode: Mode, margins: &Margins) -> bool {
        let latest = match mode {
            Mode::Index => return false,
            Mode::Full => self.full_rewrite,
            Mode::Quick => self.full_rewrite.max(self.quick_rewrite),
        };
        latest.is_none() || margins.min_rewrite_to_orphan_deletion_delay.is_zero() || self.delete >= latest
    }

    /// From when on orphans may be deleted; `None`: no rewrite ever, so at once.
    #[must_use]
    pub fn delete_from(&self, margins: &Margins) -> Option<Timestamp> {
        let latest = self.full_rewrite.max(self.quick_rewrite)?;
        Some(after(latest, margins.min_rewrite_to_orphan_deletion_delay))
    }

    /// Whether orphans may be deleted now.
    #[must_use]
    pub fn may_delete(&self, now: Timestamp, margins: &Margins) -> bool {
        self.delete_from(margins).is_none_or(|from| now >= from) || mutant::on(Mutant::I7NoHour)
    }

    /// Whether a deletion in this mode looks at `q` packs only. A quick one finishes what a full rewrite orphaned.
    #[must_use]
    pub fn quick_delete(&self, mode: Mode) -> bool {
        mode == Mode::Quick && self.full_rewrite < self.quick_rewrite
    }

    /// The same after a deletion that ends at `end`.
    #[must_use]
    pub fn after_delete(self, end: Timestamp) -> Self {
        Self { delete: self.delete.max(Some(end)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintenance::history::RunRecord;

    const H: i64 = 3600;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn turns(full: Option<i64>, quick: Option<i64>, delete: Option<i64>) -> Turns {
        Turns { full_rewrite: full.map(at), quick_rewrite: quick.map(at), delete: delete.map(at) }
    }

    #[test]
    fn i7_kopias_conditions() {
        let full = Margins::full();
        // (Rf, Rq, D) -> full rewrite, quick rewrite, deletion at 10 h, quick deletion covers q only
        let table = [
            ((None, None, None), (true, true, true, false)),
            ((Some(9 * H), None, None), (false, false, true, false)),
            ((Some(9 * H + 1), None, None), (false, false, false, false)),
            ((Some(5 * H), None, Some(5 * H)), (true, true, true, false)),
            ((Some(5 * H), None, Some(5 * H - 1)), (false, false, true, false)),
            ((Some(5 * H), Some(7 * H), Some(6 * H)), (true, false, true, true)),
            ((None, Some(7 * H), None), (true, false, true, true)),
            ((Some(7 * H), Some(7 * H), Some(8 * H)), (true, true, true, false)),
        ];
        for ((rf, rq, d), (full_rewrite, quick_rewrite, delete, q_only)) in table {
            let turns = turns(rf, rq, d);
            let name = format!("{rf:?} {rq:?} {d:?}");
            assert_eq!(turns.may_rewrite(Mode::Full, &full), full_rewrite, "{name}");
            assert_eq!(turns.may_rewrite(Mode::Quick, &full), quick_rewrite, "{name}");
            assert_eq!(turns.may_delete(at(10 * H), &full), delete, "{name}");
            assert_eq!(turns.quick_delete(Mode::Quick), q_only, "{name}");
            assert!(!turns.quick_delete(Mode::Full));
            assert!(
                turns.may_rewrite(Mode::Full, &Margins::none()) && turns.may_rewrite(Mode::Quick, &Margins::none())
            );
            assert!(turns.may_delete(at(10 * H), &Margins::none()));
        }
    }

    /// Daily full runs in Kopia's order (rewrite, then delete): one rewrites and cannot delete, the next deletes and
    /// cannot rewrite.
    #[test]
    fn a_kopia_owner_alternates_over_days() {
        let (full, mut schedule) = (Margins::full(), Schedule::default());
        let mut seen = Vec::new();
        for day in 0..6 {
            let (start, end) = (at(day * 24 * H), at(day * 24 * H + 60));
            let rewrites = Turns::of(&schedule).may_rewrite(Mode::Full, &full);
            if rewrites {
                schedule.report(Task::FullRewriteContents, RunRecord::success(start, end));
            }
            let deletes = Turns::of(&schedule).may_delete(end, &full);
            if deletes {
                schedule.report(Task::FullDeleteBlobs, RunRecord::success(end, end));
            }
            seen.push((rewrites, deletes));
        }
        assert_eq!(seen, [(true, false), (false, true), (true, false), (false, true), (true, false), (false, true)]);
    }

    /// R20: a dead run left a rewrite record; it blocks until a deletion ran, an hour later at most.
    #[test]
    fn r20_a_dead_runs_record_blocks_for_an_hour_at_most() {
        let (full, left) = (Margins::full(), turns(Some(0), None, None));
        assert!(!left.may_rewrite(Mode::Full, &full) && !left.may_delete(at(H - 1), &full));
        assert!(left.may_delete(at(H), &full));
        assert!(left.after_delete(at(H)).may_rewrite(Mode::Full, &full));
    }
}
