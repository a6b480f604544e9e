//! The index lane: compacts and advances epochs, cleans what newer blobs replace; with the legacy index, compacts it and deletes
//! in three settled steps what was replaced.

use std::time::Duration;
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::index_set::compact::{Epochs, Frugal, count_entries, merge_epochs, merge_legacy};
use verger_kopia::index_set::epoch::EpochState;
use verger_kopia::index_set::legacy::{self, LegacyState};
use verger_kopia::index_set::{epoch, list_active, names};
use verger_kopia::maintenance::rules::plan::{DeleteRule, Deletion, IndexStep};
use verger_kopia::storage::{BlobId, BlobMetadata, list_all};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::Digest;
use verger_proto::stage::Stage;

use super::deed::{Deeds, Effect, digest_of_names};
use super::delete::Deleted;
use crate::limit::Estimate;
use crate::progress::{Meter, Unit};
use crate::workspace::Workspace;

/// What a step did.
#[derive(Debug, Default)]
pub struct StepDone {
    /// Index blobs that were merged, and their bytes.
    pub inputs: u64,
    /// Bytes.
    pub input_bytes: u64,
    /// What was deleted.
    pub deleted: Deleted,
}

impl Deeds<'_> {
    /// Carries out one step of the index lane.
    ///
    /// # Errors
    /// What [`Deeds::batch`] says; `Damaged` if a compacted set does not read back whole (R16); storage errors.
    pub fn index_step(&mut self, step: &IndexStep, settle: Duration) -> Result<StepDone> {
        let meter = Meter::start(&*self.workspace.progress, Stage::Index.name(), None, Unit::Blobs);
        let done = match step {
            IndexStep::CompactEpoch { epoch, inputs } => self.compact_epochs(Epochs::Single(*epoch), inputs),
            IndexStep::CompactRange { first, last, inputs } => {
                self.compact_epochs(Epochs::Range(*first, *last), inputs)
            }
            IndexStep::AdvanceEpoch { epoch } => self.advance(*epoch),
            IndexStep::CleanMarkers { blobs } => self.delete_index_blobs(blobs, DeleteRule::OldMarker),
            IndexStep::DeleteSuperseded { blobs } => self.delete_index_blobs(blobs, DeleteRule::SupersededIndex),
            IndexStep::CompactLegacy { inputs, drop_before } => {
                let before = drop_before.map(|before| before.as_second());
                self.compact_legacy(inputs, before).and_then(|mut done| {
                    done.deleted = self.settle_legacy(settle)?;
                    Ok(done)
                })
            }
        }?;
        meter.add(done.inputs + done.deleted.count);
        Ok(done)
    }

    fn compact_epochs(&mut self, epochs: Epochs, inputs: &[BlobId]) -> Result<StepDone> {
        let active = list_active(self.guard.repository())?.blobs;
        let inputs = find(&active, inputs)?;
        let repository = self.guard.repository().clone();
        let threads = self.workspace.threads;
        let frugal = self.frugal(&inputs)?;
        let set = merge_epochs(&repository, &inputs, epochs, threads, frugal.as_ref())?;
        let digest = digest_of_names(&set.blobs);
        self.batch(Stage::Index, 0, digest, |_, approved| {
            // Readers will see the set in place of all that these epochs have, so it must hold all of it (I11).
            let listed = list_all(&**repository.storage(), names::EPOCH)?;
            if let Some(late) = left_out(&EpochState::from_listing(listed).active(), &inputs, epochs) {
                let step = format!("index blob {late} came into an epoch that is being compacted");
                return Err(Error::new(ErrorKind::ForeignMaintenance, step).with_fix("Run again; nothing was changed"));
            }
            set.publish(&repository, Some(approved.deadline.since_boot()))?;
            Ok(Effect::default())
        })?;
        let is_read_back = !mutant::on(Mutant::R16NotReadBack);
        let found =
            if is_read_back { count_entries(&repository, &set.blobs, threads, frugal.as_ref())? } else { set.entries };
        if found != set.entries && !mutant::on(Mutant::I10CompactionDropsMarks) {
            let step = format!("read back a compacted index set: {found} of {} entries", set.entries);
            return Err(Error::damaged(step).with_fix("Nothing was deleted; check the store, then run again"));
        }
        self.guard.compacted(&ids(&inputs), &set.blobs);
        let input_bytes = inputs.iter().map(|blob| blob.length).sum();
        Ok(StepDone { inputs: inputs.len() as u64, input_bytes, ..StepDone::default() })
    }

    /// How to merge these index blobs within the memory limit, beside the view.
    pub(super) fn frugal(&self, inputs: &[BlobMetadata]) -> Result<Option<Frugal>> {
        let bytes = inputs.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.length));
        let hash_length = self.guard.repository().hasher().length();
        let estimate = Estimate::new(bytes, 0, inputs.len() as u64, hash_length);
        let Workspace { memory, spill, parallel, .. } = self.workspace;
        estimate.fit_compaction(memory, memory.kept(), spill, *parallel)
    }

    fn advance(&mut self, epoch: u64) -> Result<StepDone> {
        self.batch(Stage::Index, 0, Digest::of(&epoch.to_be_bytes()), |deeds, approved| {
            epoch::write_marker(deeds.guard.repository(), epoch, Some(approved.deadline.since_boot()))?;
            Ok(Effect::default())
        })?;
        self.guard.advanced(epoch);
        Ok(StepDone { inputs: 1, ..StepDone::default() })
    }

    fn compact_legacy(&mut self, inputs: &[BlobId], drop_before: Option<i64>) -> Result<StepDone> {
        let active = list_active(self.guard.repository())?.blobs;
        let inputs = if drop_before.is_some() { active } else { find(&active, inputs)? };
        let repository = self.guard.repository().clone();
        let merged =
            merge_legacy(&repository, &inputs, drop_before, self.workspace.threads, self.frugal(&inputs)?.as_ref())?;
        let digest = digest_of_names(&merged.outputs);
        self.batch(Stage::Index, 0, digest, |deeds, approved| {
            merged.publish(&repository, Some(approved.deadline.since_boot()))?;
            deeds.guard.compacted(&ids(&inputs), &merged.outputs);
            Ok(Effect::default())
        })?;
        let input_bytes = inputs.iter().map(|blob| blob.length).sum();
        Ok(StepDone { inputs: inputs.len() as u64, input_bytes, ..StepDone::default() })
    }

    /// Deletes what legacy compactions replaced long enough ago: inputs, then (after a schedule of their own) the logs, then the schedules.
    /// A log that goes before its inputs brings those back.
    ///
    /// # Errors
    /// What [`Deeds::batch`] says; damage of the logs; storage errors.
    pub fn settle_legacy(&mut self, settle: Duration) -> Result<Deleted> {
        let repository = self.guard.repository().clone();
        let state = LegacyState::load(&repository)?;
        let cleanups = legacy::load_cleanups(&repository)?;
        let mut deleted = Deleted::default();
        let Some(newest) = state.logs.iter().map(|(blob, _)| blob.timestamp).max() else { return Ok(deleted) };
        let steps = legacy::deferred(&state, &cleanups, newest, settle);
        self.add_deletions(&steps.inputs, &mut deleted)?;
        if !steps.retire.is_empty() && deleted.left.is_empty() {
            self.batch(Stage::Index, 0, digest_of_names(&steps.retire), |_, approved| {
                let not_after = Some(approved.deadline.since_boot());
                legacy::write_cleanup(&repository, steps.retire.clone(), newest, not_after)?;
                Ok(Effect::default())
            })?;
        }
        let (logs, schedules) = legacy::expired(&legacy::load_cleanups(&repository)?, settle);
        self.add_deletions(&logs, &mut deleted)?;
        if deleted.left.is_empty() {
            self.add_deletions(&schedules, &mut deleted)?;
        }
        Ok(deleted)
    }

    fn add_deletions(&mut self, blobs: &[BlobId], total: &mut Deleted) -> Result<()> {
        let done = self.delete_index_blobs(blobs, DeleteRule::SupersededIndex)?.deleted;
        total.count += done.count;
        total.bytes += done.bytes;
        total.left.extend(done.left);
        Ok(())
    }

    fn delete_index_blobs(&mut self, blobs: &[BlobId], rule: DeleteRule) -> Result<StepDone> {
        if blobs.is_empty() {
            return Ok(StepDone::default());
        }
        let listed = list_lengths(self, blobs)?;
        let deletions: Vec<Deletion> =
            listed.into_iter().map(|(blob, length)| Deletion { blob, length, rule }).collect();
        let deleted = self.delete(Stage::Index, &deletions)?;
        Ok(StepDone { deleted, ..StepDone::default() })
    }
}

/// Lengths of blobs, by one listing for each kind (a letter, of epochs two); what is gone is left out.
fn list_lengths(deeds: &Deeds<'_>, blobs: &[BlobId]) -> Result<Vec<(BlobId, u64)>> {
    let kind = |name: &'_ str| if name.starts_with('x') { 2 } else { 1 };
    let prefix = |blob: &'_ BlobId| blob.as_str().get(..kind(blob.as_str())).unwrap_or(blob.as_str()).to_owned();
    let mut prefixes: Vec<String> = blobs.iter().map(prefix).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let mut wanted: Vec<&BlobId> = blobs.iter().collect();
    wanted.sort_unstable();
    let mut found = Vec::with_capacity(blobs.len());
    for prefix in prefixes {
        deeds.guard.repository().storage().list(&prefix, &mut |blob| {
            if wanted.binary_search(&&blob.id).is_ok() {
                found.push((blob.id, blob.length));
            }
            Ok(())
        })?;
    }
    found.sort_unstable();
    Ok(found)
}

/// An active blob of these epochs that is not among the inputs.
fn left_out<'a>(active: &'a [BlobMetadata], inputs: &[BlobMetadata], epochs: Epochs) -> Option<&'a BlobId> {
    let (first, last) = match epochs {
        Epochs::Single(epoch) => (epoch, epoch),
        Epochs::Range(first, last) => (first, last),
    };
    let inside = |id: &BlobId| names::epoch_of(id).is_some_and(|epoch| (first..=last).contains(&epoch));
    let not_left =
        |id: &&BlobId| !mutant::on(Mutant::I11LateBlobLeftOut) || inputs.iter().any(|input| input.id == **id);
    active
        .iter()
        .map(|blob| &blob.id)
        .filter(not_left)
        .find(|id| inside(id) && !inputs.iter().any(|input| input.id == **id))
}

/// Names of these blobs.
pub(super) fn ids(blobs: &[BlobMetadata]) -> Vec<BlobId> {
    blobs.iter().map(|blob| blob.id.clone()).collect()
}

fn find(active: &[BlobMetadata], names: &[BlobId]) -> Result<Vec<BlobMetadata>> {
    let one = |name: &BlobId| {
        active.iter().find(|blob| blob.id == *name).cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::ForeignMaintenance,
                format!("index blob {name} is not active any more: somebody else compacted it"),
            )
        })
    };
    names.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use verger_kopia::clock::Timestamp;

    #[test]
    fn i11_a_blob_that_comes_late_into_an_epoch_is_noticed() {
        let blobs = |names: &[&str]| -> Vec<BlobMetadata> {
            let one = |name: &&str| BlobMetadata {
                id: BlobId::from(*name),
                length: 1,
                timestamp: Timestamp::UNIX_EPOCH,
                etag: None,
            };
            names.iter().map(one).collect()
        };
        let inputs = blobs(&["xn3_aa-s1-c1", "xn3_bb-s1-c1"]);
        let late = blobs(&["xn2_dd-s1-c1", "xn3_aa-s1-c1", "xn3_bb-s1-c1", "xn3_cc-s2-c1", "xn4_ee-s1-c1"]);
        assert_eq!(left_out(&late, &inputs, Epochs::Single(3)).map(BlobId::as_str), Some("xn3_cc-s2-c1"));
        assert_eq!(left_out(&inputs, &inputs, Epochs::Single(3)), None);
        assert_eq!(left_out(&late, &late, Epochs::Range(2, 4)), None);
        assert_eq!(left_out(&late, &inputs, Epochs::Range(3, 4)).map(BlobId::as_str), Some("xn3_cc-s2-c1"));
        assert_eq!(left_out(&late[..1], &inputs, Epochs::Single(3)), None, "another epoch's");
    }
}
