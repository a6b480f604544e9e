//! The decrypted repository configuration.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroize as _;

use super::features::RequiredFeature;
use super::json::Fields;
use super::upgrade_lock::UpgradeLock;
use crate::error::{Error, Result};

const WHAT: &str = "the repository configuration";
const MIB: u64 = 1 << 20;
/// What old repositories mean by a pack size of 0.
const PACK_SIZE_DEFAULT: u64 = 20 * MIB;
/// Kopia's limits (`repo/format/format_provider.go`).
const PACK_SIZES: std::ops::RangeInclusive<u64> = 10 * MIB..=120 * MIB;

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
    /// Pack size at which a pack is closed. Never 0: that is read as 20 MiB.
    pub max_pack_size: u64,
    /// Index version to write: 1 or 2. A stored 0 is read as 1.
    pub index_version: u8,
    /// Epoch parameters; `enabled: false` means the legacy index.
    pub epoch: EpochParameters,
    /// False for repositories created as version 1.
    pub enable_password_change: bool,
    /// Splitter name. Never empty: that is read as `FIXED`.
    pub splitter: String,
    /// Upgrade lock, if set.
    pub upgrade_lock: Option<UpgradeLock>,
    /// Required features.
    pub required_features: Vec<RequiredFeature>,
}

impl RepositoryConfig {
    /// Parses the decrypted configuration and checks that this program can work by it. The upgrade lock is not judged.
    ///
    /// # Errors
    /// `Unsupported` for versions, features and limits that are not known, `Damaged` if it is malformed.
    pub fn parse(plain: &[u8]) -> Result<Self> {
        let mut document = Fields::parse(WHAT, plain)?;
        let Some(mut fields) = document.object("format", WHAT)? else {
            return Err(Error::damaged(format!("parse {WHAT}: it has no format")));
        };
        // First of all, because a newer format may have changed anything else.
        let version = match fields.integer("version")? {
            1 => 1,
            2 => 2,
            3 => 3,
            other => {
                return Err(Error::unsupported(format!("repository format version {other} is not known (1 to 3 are)")));
            }
        };
        let features = fields.objects("requiredFeatures", "a required feature")?;
        let features = features.into_iter().map(RequiredFeature::from_fields).collect::<Result<Vec<_>>>()?;
        features.iter().try_for_each(RequiredFeature::check)?;

        let lock = fields.object("upgradeLock", "the upgrade lock")?;
        let epoch = fields.object("epochParameters", "the epoch parameters")?;
        let config = Self {
            hash: fields.text("hash")?,
            encryption: fields.text("encryption")?,
            ecc: fields.text("ecc")?,
            ecc_overhead_percent: fields.number("eccOverheadPercent")?,
            secret: fields.bytes("secret")?,
            master_key: fields.bytes("masterKey")?,
            version,
            max_pack_size: Some(fields.number("maxPackSize")?).filter(|&size| size != 0).unwrap_or(PACK_SIZE_DEFAULT),
            index_version: fields.number::<u8>("indexVersion")?.max(1),
            epoch: epoch.map(EpochParameters::from_fields).transpose()?.unwrap_or_else(EpochParameters::disabled),
            enable_password_change: fields.flag("enablePasswordChange")?,
            splitter: Some(fields.text("splitter")?).filter(|name| !name.is_empty()).unwrap_or_else(|| "FIXED".into()),
            upgrade_lock: lock.map(UpgradeLock::from_fields).transpose()?,
            required_features: features,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        if self.master_key.is_empty() {
            return Err(Error::damaged(format!("parse {WHAT}: it has no master key")));
        }
        if !PACK_SIZES.contains(&self.max_pack_size) {
            return Err(Error::unsupported(format!(
                "a pack size of {} bytes is outside of Kopia's limits (10 to 120 MiB)",
                self.max_pack_size
            )));
        }
        if self.index_version > 2 {
            return Err(Error::unsupported(format!("index version {} is not known (1 and 2 are)", self.index_version)));
        }
        self.epoch.check()
    }

    /// Whether stored items carry error correction.
    #[must_use]
    pub fn has_ecc(&self) -> bool {
        !self.ecc.is_empty() && self.ecc_overhead_percent > 0
    }

    /// Whether everything that can never change in a repository is equal: algorithms and keys.
    pub(crate) fn is_same_repository(&self, other: &Self) -> bool {
        let fixed = |config: &Self| {
            let ecc = (config.ecc.clone(), config.ecc_overhead_percent);
            (config.hash.clone(), config.encryption.clone(), ecc, config.enable_password_change)
        };
        fixed(self) == fixed(other) && self.secret == other.secret && self.master_key == other.master_key
    }
}

impl fmt::Debug for RepositoryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepositoryConfig")
            .field("hash", &self.hash)
            .field("encryption", &self.encryption)
            .field("ecc", &self.ecc)
            .field("version", &self.version)
            .field("index_version", &self.index_version)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Drop for RepositoryConfig {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.master_key.zeroize();
    }
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
    /// Parallel deletes, at least 1.
    pub delete_parallelism: u32,
}

impl EpochParameters {
    fn disabled() -> Self {
        Self {
            enabled: false,
            refresh_frequency: Duration::ZERO,
            full_checkpoint_frequency: 0,
            cleanup_safety_margin: Duration::ZERO,
            min_epoch_duration: Duration::ZERO,
            advance_on_count: 0,
            advance_on_size: 0,
            delete_parallelism: 1,
        }
    }

    fn from_fields(mut fields: Fields) -> Result<Self> {
        if !fields.flag("Enabled")? {
            return Ok(Self::disabled());
        }
        Ok(Self {
            enabled: true,
            refresh_frequency: fields.duration("EpochRefreshFrequency")?,
            full_checkpoint_frequency: fields.number("FullCheckpointFrequency")?,
            cleanup_safety_margin: fields.duration("CleanupSafetyMargin")?,
            min_epoch_duration: fields.duration("MinEpochDuration")?,
            advance_on_count: fields.number("EpochAdvanceOnCountThreshold")?,
            advance_on_size: fields.number("EpochAdvanceOnTotalSizeBytesThreshold")?,
            delete_parallelism: fields.number::<u32>("DeleteParallelism")?.max(1),
        })
    }

    /// Kopia's limits (`internal/epoch/epoch_manager.go`): below them its clients race against index maintenance.
    fn check(&self) -> Result<()> {
        let refreshes = self.refresh_frequency.saturating_mul(3);
        let broken = if !self.enabled {
            return Ok(());
        } else if self.min_epoch_duration < Duration::from_mins(10) {
            "epochs must last 10 minutes or more"
        } else if refreshes > self.min_epoch_duration {
            "an epoch must last three refresh periods or more"
        } else if self.full_checkpoint_frequency == 0 {
            "a checkpoint must cover an epoch or more"
        } else if self.cleanup_safety_margin < refreshes {
            "the cleanup safety margin must be three refresh periods or more"
        } else if self.advance_on_count < 10 {
            "an epoch must take 10 index blobs or more"
        } else if self.advance_on_size < MIB {
            "an epoch must take 1 MiB of index blobs or more"
        } else {
            return Ok(());
        };
        Err(Error::unsupported(format!("epoch parameters outside of Kopia's limits: {broken}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use serde_json::{Value, json};

    fn sample() -> Value {
        json!({"format": {
            "hash": "BLAKE2B-256-128", "encryption": "AES256-GCM-HMAC-SHA256", "secret": "c2VjcmV0", "masterKey": "bWFzdGVy",
            "version": 3, "maxPackSize": 20971520, "indexVersion": 2, "enablePasswordChange": true,
            "epochParameters": {
                "Enabled": true, "EpochRefreshFrequency": 1200000000000u64, "FullCheckpointFrequency": 7,
                "CleanupSafetyMargin": 14400000000000u64, "MinEpochDuration": 86400000000000u64,
                "EpochAdvanceOnCountThreshold": 20, "EpochAdvanceOnTotalSizeBytesThreshold": 10485760, "DeleteParallelism": 4
            }
        }})
    }

    fn with(path: &str, value: Value) -> Result<RepositoryConfig> {
        let mut document = sample();
        let (parent, name) = path.rsplit_once('/').unwrap();
        document.pointer_mut(&format!("/format{parent}")).unwrap()[name] = value;
        RepositoryConfig::parse(&serde_json::to_vec(&document).unwrap())
    }

    #[test]
    fn all_fields_are_read_and_old_zeros_replaced() {
        let config = with("/splitter", json!("DYNAMIC-4M-BUZHASH")).unwrap();
        assert_eq!((config.secret.as_slice(), config.master_key.as_slice()), (&b"secret"[..], &b"master"[..]));
        assert_eq!((config.version, config.index_version, config.max_pack_size), (3, 2, 20 << 20));
        assert_eq!(config.epoch.cleanup_safety_margin, Duration::from_hours(4));
        assert_eq!((config.epoch.full_checkpoint_frequency, config.epoch.advance_on_size), (7, 10 << 20));
        assert!(config.enable_password_change && !config.has_ecc());

        assert_eq!(with("/maxPackSize", json!(0)).unwrap().max_pack_size, 20 << 20);
        assert_eq!(with("/indexVersion", json!(0)).unwrap().index_version, 1);
        assert_eq!(with("/splitter", json!("")).unwrap().splitter, "FIXED");
        assert!(!with("/epochParameters", json!({})).unwrap().epoch.enabled);
        assert_eq!(with("/epochParameters/DeleteParallelism", json!(0)).unwrap().epoch.delete_parallelism, 1);
    }

    #[test]
    fn s9_debug_shows_no_key() {
        let text = format!("{:?}", with("/version", json!(2)).unwrap());
        assert!(text.contains("BLAKE2B") && !text.contains("secret") && !text.contains("master"), "{text}");
    }

    #[test]
    fn what_is_outside_the_limits_is_unsupported() {
        for (path, value) in [
            ("/version", json!(0)),
            ("/version", json!(4)),
            ("/maxPackSize", json!((10 << 20) - 1)),
            ("/maxPackSize", json!((120 << 20) + 1)),
            ("/indexVersion", json!(3)),
            ("/requiredFeatures", json!([{"feature": "flux", "ifNotUnderstood": {"warn": false}}])),
            ("/epochParameters/MinEpochDuration", json!(599_999_999_999u64)),
            ("/epochParameters/EpochRefreshFrequency", json!(86_400_000_000_000u64)),
            ("/epochParameters/FullCheckpointFrequency", json!(0)),
            ("/epochParameters/CleanupSafetyMargin", json!(3_599_999_999_999u64)),
            ("/epochParameters/EpochAdvanceOnCountThreshold", json!(9)),
            ("/epochParameters/EpochAdvanceOnTotalSizeBytesThreshold", json!(1_048_575)),
        ] {
            assert_eq!(with(path, value).unwrap_err().kind(), ErrorKind::Unsupported, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_damage() {
        for (path, value) in [
            ("/version", json!("3")),
            ("/maxPackSize", json!(-1)),
            ("/indexVersion", json!(300)),
            ("/masterKey", json!("")),
            ("/secret", json!("no base64")),
            ("/epochParameters", json!(1)),
            ("/epochParameters/MinEpochDuration", json!(-5)),
            ("/upgradeLock", json!({"creationTime": "yesterday"})),
            ("/requiredFeatures", json!({})),
        ] {
            assert_eq!(with(path, value).unwrap_err().kind(), ErrorKind::Damaged, "{path}");
        }
        for text in ["", "{}", "[]", r#"{"format":3}"#] {
            assert_eq!(RepositoryConfig::parse(text.as_bytes()).unwrap_err().kind(), ErrorKind::Damaged, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_documents_are_errors(place in 0..2000usize, byte in proptest::prelude::any::<u8>(), end in 0..2000usize) {
            let mut text = serde_json::to_vec(&sample()).unwrap();
            let place = place % text.len();
            text[place] = byte;
            // Any answer will do, a panic will not; what is accepted lies inside the limits.
            if let Ok(config) = RepositoryConfig::parse(&text) {
                proptest::prop_assert!(config.check().is_ok() && (1..=3).contains(&config.version));
            }
            text.truncate(end % text.len());
            proptest::prop_assert!(RepositoryConfig::parse(&text).is_err());
        }
    }
}
