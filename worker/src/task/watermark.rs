//! Forgets marks: the watermark moves on (epochs), or a compaction drops them (legacy index).

use verger_kopia::clock::Timestamp;
use verger_kopia::index_set::{compact, watermark};
use verger_kopia::maintenance::rules::plan::DropPlan;
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::{ErrorKind, Result};
use verger_proto::Digest;
use verger_proto::stage::Stage;

use super::compact::ids;
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
            let ahead = if mutant::on(Mutant::I5WatermarkAhead) { 3600 } else { 0 };
            let cutoff = cutoff + std::time::Duration::from_secs(ahead);
            let moved = if deeds.guard.repository().config().epoch.enabled {
                deeds.move_watermark(cutoff, approved)?
            } else {
                deeds.drop_legacy(cutoff, at_once, approved)?
            };
            dropped = Dropped { cutoff, moved };
            Ok(Effect { changed: u64::from(moved), left_out: u64::from(!moved), bytes: 0 })
        })?;
        self.keep_what_is_not_hidden(plan, dropped.cutoff, at_once);
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
        let before = dropped_before(cutoff, at_once);
        let inputs = match self.guard.all_active() {
            // A client wrote between the look and this: look once more, and take that in too.
            Err(e) if e.kind() == ErrorKind::ForeignMaintenance => {
                self.guard.look(self.workspace, self.schedule)?;
                self.revive_newcomers(approved)?;
                self.guard.all_active()?
            }
            other => other?,
        };
        let repository = self.guard.repository().clone();
        let merged = compact::merge_legacy(
            &repository,
            &inputs,
            Some(before),
            self.workspace.threads,
            self.frugal(&inputs)?.as_ref(),
        )?;
        merged.publish(&repository, Some(approved.deadline.since_boot()))?;
        self.guard.compacted(&ids(&inputs), &merged.outputs);
        Ok(true)
    }

    /// A mark that this drop does not cover still needs its pack.
    fn keep_what_is_not_hidden(&mut self, plan: &DropPlan, cutoff: Timestamp, at_once: bool) {
        let epochs = self.guard.repository().config().epoch.enabled;
        // The first second whose marks are still there.
        let stays = if epochs { cutoff.as_second().saturating_add(1) } else { dropped_before(cutoff, at_once) };
        let late: Vec<_> = plan
            .rows
            .iter()
            .filter(|row| self.guard.mark_time(**row).is_none_or(|time| time >= stays))
            .map(|row| self.guard.view().table.entry(*row).pack)
            .collect();
        for pack in late {
            self.guard.keep_pack(pack);
        }
    }
}

/// The first second whose marks the legacy index keeps. Marks bear whole seconds: before 10.5 s are those of 10 s too, as Kopia
/// and the plan count.
fn dropped_before(cutoff: Timestamp, at_once: bool) -> i64 {
    let second = cutoff.as_second();
    let inside = cutoff.subsec_nanosecond() > 0;
    let more = mutant::on(Mutant::R18DropTakesMore);
    second.saturating_add(i64::from(inside || at_once)).saturating_add(i64::from(more))
}

#[cfg(test)]
mod tests {
    use super::*;
    use verger_kopia::maintenance::rules::drop::covers;

    #[test]
    fn i10_the_legacy_drop_takes_exactly_the_marks_that_the_plan_counts_as_gone() {
        for nanoseconds in [0, 1, 500_000_000, 999_999_999] {
            let cutoff = Timestamp::new(1_700_000_000, nanoseconds).unwrap();
            for mark in 1_699_999_998..1_700_000_003 {
                let gone = mark < dropped_before(cutoff, false);
                assert_eq!(gone, covers(cutoff, true, mark), "{cutoff} {mark}");
            }
            assert_eq!(dropped_before(cutoff, true), 1_700_000_001);
        }
    }
}
