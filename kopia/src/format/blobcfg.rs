//! `kopia.blobcfg`: retention settings.

use crate::storage::RetentionMode;
use std::time::Duration;

/// Object-lock settings; both or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobConfig {
    /// Mode and period.
    pub retention: Option<(RetentionMode, Duration)>,
}
