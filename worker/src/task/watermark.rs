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
        let mut dropped = Dropped { cutoff: plan.cutoff, moved: false };
        self.batch(Stage::Watermark, 1, digest, |deeds, approved| {
            deeds.revive_newcomers(approved)?;
            approved.deadline.check(&**deeds.workspace.repository.clock(), "forget marks")?;
            let cutoff = if at_once { approved.store_now } else { plan.cutoff.min(approved.store_now) };
            let moved = if deeds.guard.repository().config().epoch.enabled {
                deeds.move_watermark(cutoff, approved)?
            } else {
                deeds.drop_legacy(cutoff, at_once, approved)?
            };
            dropped = Dropped { cutoff, moved };
            Ok(Effect { changed: u64::from(moved), left_out: u64::from(!moved), bytes: 0 })
        })?;
        self.keep_what_is_not_hidden(plan, dropped.cutoff);
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

    /// The legacy index drops marks *before* the cutoff; those of this very second count with safety none, as with epochs.
    fn drop_legacy(&mut self, cutoff: Timestamp, at_once: bool, approved: &Approved) -> Result<bool> {
        let before = if at_once { cutoff + std::time::Duration::from_secs(1) } else { cutoff };
        let inputs = self.guard.all_active()?;
        let repository = self.guard.repository().clone();
        let merged = compact::merge_legacy(&repository, &inputs, Some(before.as_second()), self.workspace.threads)?;
        merged.publish(&repository, Some(approved.deadline.since_boot()))?;
        self.guard.compacted(&merged.outputs)?;
        Ok(true)
    }

    /// A mark that this drop does not cover still needs its pack.
    fn keep_what_is_not_hidden(&mut self, plan: &DropPlan, cutoff: Timestamp) {
        let seconds = cutoff.as_second();
        let late: Vec<_> = plan
            .rows
            .iter()
            .filter(|row| self.guard.mark_time(**row).is_none_or(|time| time > seconds))
            .map(|row| self.guard.view().table.entry(*row).pack)
            .collect();
        for pack in late {
            self.guard.keep_pack(pack);
        }
    }
}
