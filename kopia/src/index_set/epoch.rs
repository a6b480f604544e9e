//! State of the epoch manager (`internal/epoch/epoch_manager.go`): what one listing says.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::chain::{complete_ranges, longest};
use super::{names, put_index_blob, watermark};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;
use crate::storage::{BlobId, BlobMetadata, list_all};

pub use super::chain::EpochRange;

/// Body of an epoch marker, as Kopia writes it.
const MARKER_BODY: &[u8] = b"epoch-marker";
const ATTEMPTS: u32 = 20;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// What the epoch manager's blobs say at one moment. All lists are sorted by name.
#[derive(Debug, Clone, Default)]
pub struct EpochState {
    /// W: clients write here, or into the epoch before.
    pub write_epoch: u64,
    /// Deletion watermark, Unix seconds.
    pub watermark: Option<i64>,
    /// `xn` blobs by epoch, compacted ones included.
    pub uncompacted: BTreeMap<u64, Vec<BlobMetadata>>,
    /// The complete `xs` set that readers use, by epoch.
    pub single: BTreeMap<u64, Vec<BlobMetadata>>,
    /// Range checkpoints that readers use, from epoch 0 on.
    pub chain: Vec<EpochRange>,
    /// `xe` blobs.
    pub markers: Vec<BlobMetadata>,
    /// `xw` blobs.
    pub watermarks: Vec<BlobMetadata>,
    /// All `xs` blobs, of unused and incomplete sets too.
    pub single_blobs: Vec<BlobMetadata>,
    /// All `xr` blobs, of unused and incomplete sets too.
    pub range_blobs: Vec<BlobMetadata>,
    /// Until when the state may be used, by the clock since boot.
    pub valid_until: Duration,
}

impl EpochState {
    /// Lists and groups. All `x` blobs come from one listing, in which `xn` blobs are seen before the `xs` that replace them;
    /// a listing that takes longer than the refresh period is begun again.
    ///
    /// # Errors
    /// Storage errors; `StoreUnavailable` if no listing ends in time.
    pub fn load(repository: &Repository) -> Result<Self> {
        let (clock, refresh) = (repository.clock(), repository.config().epoch.refresh_frequency);
        let mut pause = BACKOFF_FIRST;
        for _ in 0..ATTEMPTS {
            let valid_until = clock.since_boot().saturating_add(refresh);
            let listed = list_all(&**repository.storage(), names::EPOCH).map_err(|e| e.at("list index blobs"))?;
            if clock.since_boot() <= valid_until {
                return Ok(Self { valid_until, ..Self::from_listing(listed) });
            }
            clock.sleep(pause);
            pause = (pause * 3 / 2).min(BACKOFF_MAX);
        }
        let step = format!("list index blobs within {refresh:?}: the store is too slow for this repository");
        Err(Error::new(ErrorKind::StoreUnavailable, step))
    }

    /// Groups a listing of all blobs with the prefix `x`.
    #[must_use]
    pub fn from_listing(mut listed: Vec<BlobMetadata>) -> Self {
        // Sets are complete "in listing order", which is the order of names with the stores that matter.
        listed.sort_by(|a, b| a.id.cmp(&b.id));
        let mut state = Self::default();
        let mut single: BTreeMap<u64, Vec<BlobMetadata>> = BTreeMap::new();
        for blob in listed {
            let epoch = names::epoch_of(&blob.id);
            match blob.id.as_str().get(..2) {
                Some(names::UNCOMPACTED) => {
                    if let Some(epoch) = epoch {
                        state.uncompacted.entry(epoch).or_default().push(blob);
                    }
                }
                Some(names::MARKER) => {
                    state.write_epoch = state.write_epoch.max(epoch.unwrap_or(0));
                    state.markers.push(blob);
                }
                Some(names::SINGLE) => {
                    if let Some(epoch) = epoch {
                        single.entry(epoch).or_default().push(blob.clone());
                    }
                    state.single_blobs.push(blob);
                }
                Some(names::RANGE) => state.range_blobs.push(blob),
                Some(names::WATERMARK) => state.watermarks.push(blob),
                _ => {}
            }
        }
        state.single = single.into_iter().filter_map(|(e, blobs)| Some((e, names::first_complete(&blobs)?))).collect();
        state.chain = longest(complete_ranges(&state.range_blobs));
        state.watermark = watermark::highest(&state.watermarks);
        state
    }

    /// Whether nobody writes into `epoch` any more: clients lag by one epoch at most.
    #[must_use]
    pub fn is_settled(&self, epoch: u64) -> bool {
        epoch.checked_add(2).is_some_and(|end| end <= self.write_epoch)
    }

    /// First epoch behind the range chain.
    #[must_use]
    pub fn first_after_chain(&self) -> u64 {
        self.chain.last().map_or(0, |range| range.max + 1)
    }

    /// The index blobs that together hold every entry, in name order within each epoch.
    #[must_use]
    pub fn active(&self) -> Vec<BlobMetadata> {
        let (mut active, mut skipped, mut start) = (Vec::new(), Vec::new(), 0);
        for range in &self.chain {
            if range.max > start {
                // Kopia skips ranges of one epoch, and loses the epoch if another range follows. None are ever
                // written; if one is there all the same, more entries are the safe side.
                active.append(&mut skipped);
                active.extend(range.blobs.iter().cloned());
                start = range.max + 1;
            } else {
                skipped.extend(range.blobs.iter().cloned());
            }
        }
        let end = self.write_epoch.saturating_add(1);
        let settled = self.single.range(start..).filter(|(epoch, _)| self.is_settled(**epoch));
        let compacted: BTreeMap<u64, &Vec<BlobMetadata>> = settled.map(|(epoch, blobs)| (*epoch, blobs)).collect();
        active.extend(compacted.values().flat_map(|blobs| blobs.iter().cloned()));
        for (epoch, blobs) in self.uncompacted.range(start..) {
            if *epoch <= end && !compacted.contains_key(epoch) {
                active.extend(blobs.iter().cloned());
            }
        }
        active
    }

    /// Kopia's idea of the storage's clock: the newest `xn` blob of epochs W-1 to W+1.
    #[must_use]
    pub fn storage_clock(&self) -> Option<Timestamp> {
        let epochs = self.write_epoch.saturating_sub(1)..=self.write_epoch.saturating_add(1);
        self.uncompacted.range(epochs).flat_map(|(_, blobs)| blobs).map(|blob| blob.timestamp).max()
    }

    /// Newest members of `xn` sets that are incomplete: a client that was cut off, or a lost index blob (R11).
    ///
    /// A session writes many sets under its ID, so a set is incomplete if the blobs of one session and size are not a multiple
    /// of that size. Left over from a write that began again in the next epoch, and so found there, is not lost.
    #[must_use]
    pub fn incomplete_sets(&self, active: &[BlobMetadata]) -> Vec<BlobMetadata> {
        let mut groups: BTreeMap<(u64, &str, usize), Vec<&BlobMetadata>> = BTreeMap::new();
        for blob in active.iter().filter(|blob| blob.id.as_str().starts_with(names::UNCOMPACTED)) {
            if let (Some(epoch), Some((set, count))) = (names::epoch_of(&blob.id), names::set_of(&blob.id)) {
                groups.entry((epoch, set, count)).or_default().push(blob);
            }
        }
        let is_elsewhere = |epoch: u64, blob: &BlobMetadata| {
            let tail = |id: &BlobId| id.as_str().split_once('_').map(|(_, tail)| tail.to_owned());
            let others = self.uncompacted.iter().filter(|(other, _)| **other != epoch).flat_map(|(_, blobs)| blobs);
            let wanted = tail(&blob.id);
            others.into_iter().any(|other| tail(&other.id) == wanted)
        };
        let incomplete = groups.into_iter().filter(|((epoch, _, count), blobs)| {
            *count > 1 && blobs.len() % count != 0 && !blobs.iter().all(|blob| is_elsewhere(*epoch, blob))
        });
        incomplete.filter_map(|(_, blobs)| blobs.into_iter().max_by_key(|blob| blob.timestamp).cloned()).collect()
    }
}

/// Begins epoch `epoch`: writes `xe<epoch>`.
///
/// # Errors
/// Storage errors; `DeadlinePassed`.
pub fn write_marker(repository: &Repository, epoch: u64, not_after: Option<Duration>) -> Result<BlobId> {
    let id = names::marker(epoch);
    put_index_blob(repository, &id, Bytes::from_static(MARKER_BODY), not_after)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index_set::testing::blobs;

    fn active(names: &[&str]) -> Vec<String> {
        let state = EpochState::from_listing(blobs(names));
        state.active().iter().map(|blob| blob.id.to_string()).collect()
    }

    #[test]
    fn the_active_set_follows_the_format() {
        assert_eq!(active(&["xn0_a", "xn1_b", "xn2_c"]), ["xn0_a", "xn1_b"], "W+1 is read, W+2 is not");
        let settled = ["xe4", "xs2_s", "xs3_t", "xn2_a", "xn3_b", "xn4_c", "xn5_d"];
        assert_eq!(active(&settled), ["xs2_s", "xn3_b", "xn4_c", "xn5_d"], "3 is not settled");
        let incomplete = ["xe4", "xs2_s-s1-c2", "xn2_a", "xn0_e"];
        assert_eq!(active(&incomplete), ["xn0_e", "xn2_a"]);
        let ranges = ["xe10", "xr0_4_r", "xs3_s", "xn4_a", "xs5_t", "xn5_b", "xn6_c"];
        assert_eq!(active(&ranges), ["xr0_4_r", "xs5_t", "xn6_c"]);
        assert_eq!(active(&["xe5", "xr0_0_r", "xn0_a"]), ["xn0_a"], "a single range of epoch 0 is ignored");
        assert_eq!(active(&["xe20", "xr0_0_r", "xr1_8_q", "xn0_a"]), ["xr0_0_r", "xr1_8_q"]);
        assert!(active(&["xe9223372036854775807", "xw9", "n0", "x", "xn"]).is_empty());
    }

    #[test]
    fn sets_of_one_session_are_counted_by_size_and_epoch() {
        let incomplete = |names: &[&str]| {
            let state = EpochState::from_listing(blobs(names));
            state.incomplete_sets(&state.active()).iter().map(|blob| blob.id.to_string()).collect::<Vec<_>>()
        };
        assert!(incomplete(&["xn0_a-s1-c1", "xn0_b-s1-c1", "xn0_c-s1-c2", "xn0_d-s1-c2"]).is_empty());
        assert_eq!(incomplete(&["xn0_a-s1-c2", "xn1_b-s1-c2"]).len(), 2);
        assert_eq!(incomplete(&["xn0_a-s1-c3", "xn0_b-s1-c3"]), ["xn0_b-s1-c3"]);
        assert!(incomplete(&["xn0_a-s1-c2", "xn1_a-s1-c2", "xn1_b-s1-c2"]).is_empty(), "written again whole");
        assert!(incomplete(&["xe4", "xn0_a-s1-c2", "xs0_z"]).is_empty(), "compacted since");
    }
}
