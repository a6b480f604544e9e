//! What a verification saw of a repository.

use serde::{Deserialize, Serialize};

/// All contents of files, as a share in hundredths of a percent.
pub const SHARE_ALL: u16 = 10_000;

/// What `verger verify` found, as it said so itself: nothing but figures for people rests on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verification {
    /// How much of the contents of files was to be read and hashed, in hundredths of a percent: at most [`SHARE_ALL`].
    pub share: u16,
    /// Snapshots that were walked.
    pub snapshots: u64,
    /// Contents that are where their entries say.
    pub contents: u64,
    /// Contents among them that were read and hashed.
    pub contents_read: u64,
    /// Their packed bytes.
    pub bytes_read: u64,
    /// What is damaged, by blob, content or object.
    pub problems: u64,
}

impl Verification {
    /// Whether it found nothing wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems == 0
    }
}
