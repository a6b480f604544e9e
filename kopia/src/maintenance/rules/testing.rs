//! Facts for tests: a full cycle with full margins on an empty epoch repository, to be changed where a test needs it.

use super::facts::{Facts, Frozen, IndexFacts, SessionFact};
use super::plan::Mode;
use super::rows::TestRows;
use crate::bitmap::Bitmap;
use crate::clock::Timestamp;
use crate::format::{BlobConfig, EpochParameters};
use crate::maintenance::{Margins, Params, Schedule};
use crate::storage::BlobMetadata;
use std::time::Duration;

/// Unix seconds of "now" and of the cycle's start.
pub(super) const NOW: i64 = 1_700_000_000;

/// A time relative to [`NOW`].
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).unwrap()
}

/// A blob of 10 bytes written `seconds` after [`NOW`].
pub(super) fn blob(name: &str, seconds: i64) -> BlobMetadata {
    BlobMetadata { id: name.into(), length: 10, timestamp: at(seconds), etag: None }
}

/// Kopia's default epoch parameters.
pub(super) fn epoch_parameters() -> EpochParameters {
    let hours = |n: u64| Duration::from_secs(n * 3600);
    EpochParameters {
        enabled: true,
        refresh_frequency: Duration::from_secs(20 * 60),
        full_checkpoint_frequency: 7,
        cleanup_safety_margin: hours(4),
        min_epoch_duration: hours(24),
        advance_on_count: 20,
        advance_on_size: 10 << 20,
        delete_parallelism: 4,
    }
}

/// What [`Facts`] borrow.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) mode: Mode,
    pub(super) margins: Margins,
    pub(super) used: Option<Bitmap>,
    pub(super) frozen: Frozen,
    pub(super) packs: Vec<BlobMetadata>,
    pub(super) sessions: Vec<SessionFact>,
    pub(super) logs: Vec<BlobMetadata>,
    pub(super) index: IndexFacts,
    pub(super) schedule: Schedule,
    pub(super) params: Params,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            mode: Mode::Full,
            margins: Margins::full(),
            used: None,
            frozen: Frozen::Nothing,
            packs: Vec::new(),
            sessions: Vec::new(),
            logs: Vec::new(),
            index: IndexFacts::Epochs { parameters: epoch_parameters(), blobs: Vec::new() },
            schedule: Schedule::default(),
            params: Params::kopia_default(),
        }
    }
}

impl Given {
    pub(super) fn facts<'a>(&'a self, table: &'a TestRows) -> Facts<'a, TestRows> {
        Facts {
            mode: self.mode,
            margins: &self.margins,
            unique_id: "abcd",
            store: "memory:",
            view: "v",
            started: at(0),
            now: at(0),
            gc_started: at(0),
            table,
            used: self.used.as_ref(),
            frozen: self.frozen,
            frozen_why: if self.frozen == Frozen::Nothing { "" } else { "directory k1 cannot be read" },
            packs: &self.packs,
            sessions: &self.sessions,
            format_blobs: &[],
            logs: &self.logs,
            index: &self.index,
            schedule: &self.schedule,
            params: &self.params,
            blob_config: BlobConfig::default(),
            max_pack_size: 20 << 20,
        }
    }
}
