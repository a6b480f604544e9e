//! Forgets marks: the watermark moves on (epochs), or a compaction drops them (legacy index).

use verger_kopia::Result;
use verger_kopia::clock::Timestamp;
use verger_kopia::index_set::{compact, watermark};
use verger_kopia::maintenance::rules::plan::DropPlan;
use verger_proto::Digest;
use verger_proto::stage::Stage;

use super::deed::{Approved, Deeds, Effect};

/// What was forgotten.
#[derive(Debug, Clone, Copy)]
pub struct Dropped {
    /// Marks at (epochs) or before (legacy) this are gone for readers.
    pub cutoff: Timestamp,
    /// Marks of this second and later ones are still visible.
    pub visible_from: i64,
    /// Whether something was written.
    pub moved: bool,
}

impl Deeds<'_> {
    /// Carries out the drop. With `at_once` (safety none) the cutoff is the store's time of the deed, so that this cycle's own
    /// marks are among it; never later: a watermark in the future cannot be taken back (I5).
    ///
    /// # Errors
    /// What [`Deeds::batch`] says; storage errors.
    pub fn drop_marks(&mut self, plan: &DropPlan, at_once: bool) -> Result<Dropped> {
        let digest = Digest::of(plan.cutoff.to_string().as_bytes());
        let mut dropped = Dropped { cutoff: plan.cutoff, visible_from: i64::MIN, moved: false };
        self.batch(Stage::Watermark, 1, digest, |deeds, approved| {
            deeds.revive_newcomers(approved)?;
            approved.deadline.check(&**deeds.workspace.repository.clock(), "forget marks")?;
            let cutoff = if at_once { approved.store_now } else { plan.cutoff.min(approved.store_now) };
            let (moved, visible_from) = if deeds.guard.repository().config().epoch.enabled {
                (deeds.move_watermark(cutoff, approved)?, cutoff.as_second().saturating_add(1))
            } else {
                let before = legacy_before(cutoff, at_once);
                (deeds.drop_legacy(before, approved)?, before)
            };
            dropped = Dropped { cutoff, visible_from, moved };
            Ok(Effect { changed: u64::from(moved), left_out: u64::from(!moved), bytes: 0 })
        })?;
        self.keep_what_is_not_hidden(plan, dropped.visible_from);
        Ok(dropped)
    }

    fn move_watermark(&mut self, cutoff: Timestamp, approved: &Approved) -> Result<bool> {
        let seconds = cutoff.as_second();
        if self.guard.watermark().is_some_and(|now| now >= seconds) {
            return Ok(false);
        }
        let moved = watermark::advance(self.guard.repository(), seconds, Some(approved.deadline.since_boot()))?;
        self.guard.moved_watermark(seconds);
        Ok(moved)
    }

    /// Drops marks of seconds *before* this one.
    fn drop_legacy(&mut self, before: i64, approved: &Approved) -> Result<bool> {
        let inputs = self.guard.all_active()?;
        let repository = self.guard.repository().clone();
        let merged = compact::merge_legacy(&repository, &inputs, Some(before), self.workspace.threads)?;
        merged.publish(&repository, Some(approved.deadline.since_boot()))?;
        self.guard.compacted(&merged.outputs)?;
        Ok(true)
    }

    /// A mark that this drop does not cover still needs its pack.
    fn keep_what_is_not_hidden(&mut self, plan: &DropPlan, visible_from: i64) {
        let late: Vec<_> = plan
            .rows
            .iter()
            .filter(|row| self.guard.mark_time(**row).is_none_or(|time| time >= visible_from))
            .map(|row| self.guard.view().table.entry(*row).pack)
            .collect();
        for pack in late {
            self.guard.keep_pack(pack);
        }
    }
}

/// The legacy index forgets marks *before* the cutoff: those of a second that the cutoff lies in the middle of too, as the plan
/// has it. With safety none those of this very second count, as with epochs.
fn legacy_before(cutoff: Timestamp, at_once: bool) -> i64 {
    let is_between = cutoff.subsec_nanosecond() > 0;
    cutoff.as_second().saturating_add(i64::from(at_once || is_between))
}
