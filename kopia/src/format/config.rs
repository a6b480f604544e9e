//! The decrypted repository configuration.

use std::time::Duration;

/// The decrypted configuration in `kopia.repository`. Sizes in bytes.
#[derive(Clone)]
pub struct RepositoryConfig {
    /// Hash name.
    pub hash: String,
    /// Encryption name.
    pub encryption: String,
    /// ECC name, empty without.
    pub ecc: String,
    /// ECC overhead in percent.
    pub ecc_overhead_percent: u32,
    /// Hash key.
    pub secret: Vec<u8>,
    /// Root of content encryption.
    pub master_key: Vec<u8>,
    /// 1, 2 or 3.
    pub version: u8,
    /// Pack size at which a pack is closed (0 is read as 20 MiB).
    pub max_pack_size: u64,
    /// Index version to write: 1 or 2 (0 is read as 1).
    pub index_version: u8,
    /// Epoch parameters; `enabled: false` means the legacy index.
    pub epoch: EpochParameters,
    /// False for repositories created as version 1.
    pub enable_password_change: bool,
    /// Splitter name (empty is read as `FIXED`).
    pub splitter: String,
    /// Upgrade lock, if set.
    pub upgrade_lock: Option<super::upgrade_lock::UpgradeLock>,
    /// Required features.
    pub required_features: Vec<super::features::RequiredFeature>,
}

/// Epoch manager parameters (JSON keys in PascalCase).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochParameters {
    /// Whether the epoch manager is in use.
    pub enabled: bool,
    /// How long a loaded state may be used.
    pub refresh_frequency: Duration,
    /// Epochs a range checkpoint must cover.
    pub full_checkpoint_frequency: u32,
    /// Age of a replacement before what it replaces goes.
    pub cleanup_safety_margin: Duration,
    /// Least age of an epoch.
    pub min_epoch_duration: Duration,
    /// Index blobs that make an epoch advance.
    pub advance_on_count: u64,
    /// Bytes of index blobs that make an epoch advance.
    pub advance_on_size: u64,
    /// Parallel deletes (0 is read as 1).
    pub delete_parallelism: u32,
}
