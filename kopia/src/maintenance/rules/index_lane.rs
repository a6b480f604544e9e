//! Index work: which steps may run, in order. Epochs after `internal/epoch`, the legacy index after
//! `repo/maintenance/index_compaction.go` and `repo/content/indexblob/index_blob_manager_v0.go`.

use super::facts::{CleanupNote, CompactionLog, before};
use super::plan::{IndexStep, Mode};
use crate::clock::Timestamp;
use crate::format::EpochParameters;
use crate::maintenance::margins::INCOMPLETE_SET_MIN_AGE;
use crate::mutant::{self, Mutant};
use crate::storage::{BlobId, BlobMetadata};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

/// What the names and times of `x` blobs say.
#[derive(Debug, Default)]
pub struct Epochs<'a> {
    /// Current write epoch W.
    pub write_epoch: u64,
    uncompacted: BTreeMap<u64, Vec<&'a BlobMetadata>>,
    single: BTreeMap<u64, Sets<'a>>,
    ranges: BTreeMap<(u64, u64), Sets<'a>>,
    markers: Vec<(u64, &'a BlobMetadata)>,
    watermarks: Vec<(i64, &'a BlobMetadata)>,
}

/// Compacted blobs of one epoch or range.
#[derive(Debug, Default)]
struct Sets<'a> {
    complete: Vec<Vec<&'a BlobMetadata>>,
    incomplete: Vec<&'a BlobMetadata>,
}

impl<'a> Sets<'a> {
    /// Groups by set ID in `…-s<id>-c<N>`; a blob named otherwise is a set of its own (`internal/completeset`).
    fn of(blobs: &[&'a BlobMetadata]) -> Self {
        let mut open: BTreeMap<(&str, usize), Vec<&BlobMetadata>> = BTreeMap::new();
        let mut sets = Self::default();
        for blob in blobs {
            let mut parts = blob.id.as_str().split('-').skip(1);
            let set = parts.next().filter(|part| part.starts_with('s'));
            let count = parts.next().and_then(|part| part.strip_prefix('c')?.parse::<usize>().ok());
            match (set, count) {
                (Some(set), Some(count)) => open.entry((set, count)).or_default().push(blob),
                _ => sets.complete.push(vec![blob]),
            }
        }
        for ((_, count), blobs) in open {
            if blobs.len() == count || mutant::on(Mutant::I11HalfASetReplaces) {
                sets.complete.push(blobs)
            } else {
                sets.incomplete.extend(blobs)
            }
        }
        sets
    }

    fn newest(&self) -> Option<Timestamp> {
        self.complete.first()?.iter().map(|blob| blob.timestamp).max()
    }
}

impl<'a> Epochs<'a> {
    /// Reads the names; those that Kopia would not read are left alone.
    #[must_use]
    pub fn of(blobs: &'a [BlobMetadata]) -> Self {
        let mut epochs = Self::default();
        let mut single: BTreeMap<u64, Vec<&BlobMetadata>> = BTreeMap::new();
        let mut ranges: BTreeMap<(u64, u64), Vec<&BlobMetadata>> = BTreeMap::new();
        for blob in blobs {
            let Some((kind, rest)) = blob.id.as_str().split_at_checked(2) else { continue };
            let mut numbers = rest.split('_').map(str::parse::<u64>);
            match (kind, numbers.next()) {
                ("xn", Some(Ok(epoch))) => epochs.uncompacted.entry(epoch).or_default().push(blob),
                ("xs", Some(Ok(epoch))) => single.entry(epoch).or_default().push(blob),
                ("xr", Some(Ok(first))) => {
                    if let Some(Ok(last)) = numbers.next().filter(|last| last.as_ref().is_ok_and(|last| *last >= first))
                    {
                        ranges.entry((first, last)).or_default().push(blob);
                    }
                }
                ("xe", Some(Ok(epoch))) => epochs.markers.push((epoch, blob)),
                ("xw", _) => epochs.watermarks.extend(rest.parse::<i64>().ok().map(|seconds| (seconds, blob))),
                _ => {}
            }
        }
        epochs.write_epoch = epochs.markers.iter().map(|marker| marker.0).max().unwrap_or(0);
        epochs.single = single.into_iter().map(|(epoch, blobs)| (epoch, Sets::of(&blobs))).collect();
        epochs.ranges = ranges.into_iter().map(|(range, blobs)| (range, Sets::of(&blobs))).collect();
        epochs
    }

    /// Greatest watermark in Unix seconds.
    #[must_use]
    pub fn watermark(&self) -> Option<i64> {
        self.watermarks.iter().map(|watermark| watermark.0).max()
    }

    /// The last settled epoch, W-2.
    fn settled(&self) -> Option<u64> {
        let unsettled = if mutant::on(Mutant::I11UnsettledCompacted) { 0 } else { 2 };
        self.write_epoch.checked_sub(unsettled)
    }

    /// First epoch after the longest chain of complete ranges from 0.
    #[must_use]
    pub fn first_after_ranges(&self) -> u64 {
        let mut reached = BTreeSet::from([0]);
        // Ranges come in order of their first epoch, so whatever a range builds on is known before it is looked at.
        for ((first, last), sets) in &self.ranges {
            if reached.contains(first) && !sets.complete.is_empty() {
                reached.insert(last.saturating_add(1));
            }
        }
        reached.last().copied().unwrap_or(0)
    }

    fn compacted(&self, epoch: u64) -> Option<&Sets<'a>> {
        self.single.get(&epoch).filter(|sets| !sets.complete.is_empty())
    }

    /// The storage's clock as Kopia reckons it: the newest `xn` of W-1 to W+1.
    fn clock(&self) -> Option<Timestamp> {
        let around = self.write_epoch.saturating_sub(1)..=self.write_epoch.saturating_add(1);
        self.uncompacted.range(around).flat_map(|(_, blobs)| blobs).map(|blob| blob.timestamp).max()
    }

    /// Replacements written before this count, for markers and superseded blobs; `None`: clean nothing.
    #[must_use]
    pub fn replaced_before(&self, parameters: &EpochParameters) -> Option<Timestamp> {
        self.clock().map(|clock| before(clock, parameters.cleanup_safety_margin))
    }

    /// Every settled epoch after the ranges that has uncompacted blobs and no complete set. Kopia takes one a run, and
    /// stops at an epoch without blobs.
    fn compact_single(&self) -> Vec<IndexStep> {
        let Some(settled) = self.settled() else { return Vec::new() };
        let first = self.first_after_ranges();
        if first > settled {
            return Vec::new();
        }
        let open = self.uncompacted.range(first..=settled).filter(|(epoch, _)| self.compacted(**epoch).is_none());
        open.map(|(epoch, blobs)| IndexStep::CompactEpoch { epoch: *epoch, inputs: ids(blobs) }).collect()
    }

    fn advance(&self, parameters: &EpochParameters) -> Option<IndexStep> {
        let blobs = self.uncompacted.get(&self.write_epoch)?;
        let newest = blobs.iter().map(|blob| blob.timestamp).max()?;
        let oldest = blobs.iter().map(|blob| blob.timestamp).min()?;
        let size = blobs.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.length));
        let old_enough = oldest <= before(newest, parameters.min_epoch_duration);
        let full = blobs.len() as u64 >= parameters.advance_on_count || size >= parameters.advance_on_size;
        let next = self.write_epoch.checked_add(1)?;
        (old_enough && full).then_some(IndexStep::AdvanceEpoch { epoch: next })
    }

    fn compact_range(&self, parameters: &EpochParameters) -> Option<IndexStep> {
        let (first, last) = (self.first_after_ranges(), self.settled()?);
        if last.checked_sub(first)? < u64::from(parameters.full_checkpoint_frequency) {
            return None;
        }
        let mut inputs = Vec::new();
        let epochs: BTreeSet<u64> = self
            .uncompacted
            .range(first..=last)
            .map(|e| *e.0)
            .chain(self.single.range(first..=last).map(|e| *e.0))
            .collect();
        for epoch in epochs {
            match (self.compacted(epoch).and_then(|sets| sets.complete.first()), self.uncompacted.get(&epoch)) {
                (Some(set), _) => inputs.extend(ids(set)),
                // This cycle compacts it first; the blobs of the range are others then, so the range is for the next one.
                (None, Some(_)) => return None,
                (None, None) => {}
            }
        }
        (!inputs.is_empty()).then_some(IndexStep::CompactRange { first, last, inputs })
    }

    fn clean_markers(&self, parameters: &EpochParameters) -> Option<IndexStep> {
        let replaced = self.replaced_before(parameters)?;
        let current = self.watermark();
        let old_epochs = self.markers.iter().filter(|(epoch, _)| epoch.saturating_add(1) < self.write_epoch);
        let old_marks = self.watermarks.iter().filter(|(at, blob)| Some(*at) != current && blob.timestamp < replaced);
        let mut blobs: Vec<BlobId> =
            old_epochs.map(|m| m.1.id.clone()).chain(old_marks.map(|m| m.1.id.clone())).collect();
        blobs.sort();
        (!blobs.is_empty()).then_some(IndexStep::CleanMarkers { blobs })
    }

    /// `xn` blobs that a complete set replaced long enough ago, and sets that dead attempts left incomplete (R16) where
    /// a complete one stands in for them.
    fn delete_superseded(&self, parameters: &EpochParameters, started: Timestamp) -> Option<IndexStep> {
        let mut blobs = Vec::new();
        if let (Some(replaced), Some(settled)) = (self.replaced_before(parameters), self.settled()) {
            for (epoch, uncompacted) in self.uncompacted.range(..=settled) {
                let written = self.compacted(*epoch).and_then(Sets::newest);
                let at_once = mutant::on(Mutant::I11SupersededAtOnce);
                if written.is_some_and(|written| written < replaced || at_once) {
                    blobs.extend(ids(uncompacted));
                }
            }
        }
        let abandoned = before(started, INCOMPLETE_SET_MIN_AGE);
        for sets in self.single.values().chain(self.ranges.values()).filter(|sets| !sets.complete.is_empty()) {
            let at_once = mutant::on(Mutant::R16YoungPartsDeleted);
            blobs.extend(
                sets.incomplete.iter().filter(|blob| blob.timestamp < abandoned || at_once).map(|blob| blob.id.clone()),
            );
        }
        blobs.sort();
        (!blobs.is_empty()).then_some(IndexStep::DeleteSuperseded { blobs })
    }
}

fn ids(blobs: &[&BlobMetadata]) -> Vec<BlobId> {
    blobs.iter().map(|blob| blob.id.clone()).collect()
}

/// Steps on an epoch index, in Kopia's order. Quick and index: compaction and advance only.
#[must_use]
pub fn epochs(blobs: &[BlobMetadata], parameters: &EpochParameters, mode: Mode, started: Timestamp) -> Vec<IndexStep> {
    let epochs = Epochs::of(blobs);
    let mut steps = epochs.compact_single();
    steps.extend(epochs.advance(parameters));
    if mode == Mode::Full {
        steps.extend(epochs.compact_range(parameters));
        steps.extend(epochs.clean_markers(parameters));
        steps.extend(epochs.delete_superseded(parameters, started));
    }
    steps
}

/// Fewest small legacy blobs worth a compaction.
const LEGACY_SMALL_BLOBS_MIN: usize = 8;

/// Below this part of a pack a legacy index blob is very small.
const VERY_SMALL_FRACTION: u64 = 20;

/// The legacy compaction of a quick or index cycle: which of the active `n` blobs are merged; empty: none.
#[must_use]
pub fn legacy_compaction(active: &[BlobMetadata], max_pack_size: u64) -> Vec<BlobId> {
    let candidates: Vec<&BlobMetadata> = active.iter().filter(|blob| blob.length <= max_pack_size).collect();
    if candidates.len() < LEGACY_SMALL_BLOBS_MIN {
        return Vec::new();
    }
    let (very_small, medium): (Vec<&BlobMetadata>, Vec<&BlobMetadata>) =
        candidates.iter().partition(|blob| blob.length < max_pack_size / VERY_SMALL_FRACTION);
    let merge_small = very_small.len() > candidates.len() / 2 && medium.len() + 1 < LEGACY_SMALL_BLOBS_MIN;
    ids(if merge_small { &very_small } else { &candidates })
}

/// Whether deleting this blob would bring back older ones: it is what a log with inputs still there made of them. Such
/// a chain goes from its old end, one link a cycle, so that the order inside a batch does not matter.
#[must_use]
pub fn unmasks(all: &[BlobMetadata], logs: &[CompactionLog], blob: &BlobId) -> bool {
    let listed = |id: &BlobId| all.iter().any(|other| other.id == *id);
    logs.iter().any(|log| log.outputs.contains(blob) && log.inputs.iter().any(listed))
}

/// Legacy blobs that go: inputs of compactions older than the settle time; then the logs of which no input is left,
/// once a note or twice the settle time allows it; then notes. A log that goes before its inputs brings them back.
#[must_use]
pub fn legacy_superseded(
    all: &[BlobMetadata],
    logs: &[CompactionLog],
    notes: &[CleanupNote],
    settle: Duration,
    started: Timestamp,
) -> Vec<BlobId> {
    let listed: HashSet<&BlobId> = all.iter().map(|blob| &blob.id).collect();
    let settled = |time: Timestamp, times: u32| time <= before(started, settle.saturating_mul(times));
    let mut gone = BTreeSet::new();
    for log in logs {
        // Only a log whose outputs are all there replaces its inputs.
        let honoured = log.outputs.iter().all(|output| listed.contains(output));
        let inputs: Vec<&BlobId> = log.inputs.iter().filter(|input| listed.contains(input)).collect();
        if !honoured && !inputs.is_empty() || !settled(log.blob.timestamp, 1) {
            continue;
        }
        let noted = notes.iter().any(|note| note.logs.contains(&log.blob.id) && settled(note.scheduled, 1));
        let can_go = inputs.is_empty() || mutant::on(Mutant::I10LogBeforeInputs);
        if can_go && (noted || settled(log.blob.timestamp, 2)) {
            gone.insert(log.blob.id.clone());
        }
        gone.extend(inputs.into_iter().filter(|input| !unmasks(all, logs, input)).cloned());
    }
    let known: HashSet<&BlobId> = logs.iter().map(|log| &log.blob.id).collect();
    for note in notes.iter().filter(|note| settled(note.scheduled, 1)) {
        if note.logs.iter().all(|log| !known.contains(log) || gone.contains(log)) {
            gone.insert(note.blob.id.clone());
        }
    }
    gone.into_iter().collect()
}

#[cfg(test)]
mod tests;
