//! An open repository: storage, format and keys.

use crate::mutant::{self, Mutant};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::clock::Clock;
use crate::crypto::aead::OpenError;
use crate::crypto::keys::{self, Key};
use crate::crypto::{Cipher, Hasher};
use crate::ecc::Ecc;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BLOB_CONFIG_BLOB, BlobConfig, Envelope, FORMAT_BLOB, RepositoryConfig};
use crate::storage::{BlobId, ByteRange, Storage};

/// An open repository. Cheap to clone. Its `Debug` shows address and unique ID only.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    opened_in: Duration,
    format: Format,
    hasher: Hasher,
    cipher: Cipher,
}

/// What the format blobs say, and the key that opened them.
#[derive(Clone)]
struct Format {
    blob: Bytes,
    unique_id: Vec<u8>,
    key: Key,
    config: RepositoryConfig,
    blob_config: BlobConfig,
}

impl Repository {
    /// Opens the repository in `storage` with `password`. Deriving the key takes part of a second by design.
    ///
    /// # Errors
    /// `NotARepository`, `WrongPassword`, `Unsupported`, `UpgradeInProgress`, `Damaged`, storage errors.
    pub fn open(storage: Arc<dyn Storage>, password: &str, clock: Arc<dyn Clock>) -> Result<Self> {
        let began = clock.since_boot();
        let format = Format::load(&*storage, &*clock, |envelope| envelope.derive_key(password))?;
        let opened_in = clock.since_boot().saturating_sub(began);
        let config = &format.config;
        let ecc = config.has_ecc().then(|| Ecc::new(&config.ecc, config.ecc_overhead_percent)).transpose()?;
        let hasher = Hasher::new(&config.hash, &config.secret)?;
        let cipher = Cipher::new(&config.encryption, &keys::content_secret(&config.master_key), ecc)?;
        Ok(Self { inner: Arc::new(Inner { storage, clock, opened_in, format, hasher, cipher }) })
    }

    /// Reads the format blobs again: the new state of mutable parameters, locks and features, or the error that now forbids going on.
    /// The derived format key is reused (a changed password is an error).
    ///
    /// # Errors
    /// As [`Repository::open`]; `Damaged` if another repository lies at the address now.
    pub fn refresh(&self) -> Result<Self> {
        let inner = &*self.inner;
        let replaced = || Error::damaged(format!("another repository lies at {} now", inner.storage.address()));
        let format = Format::load(&*inner.storage, &*inner.clock, |envelope| {
            if envelope.unique_id != inner.format.unique_id {
                return Err(replaced());
            }
            Ok(inner.format.key.clone())
        })?;
        if !format.config.is_same_repository(&inner.format.config) {
            return Err(replaced());
        }
        Ok(Self {
            inner: Arc::new(Inner {
                storage: Arc::clone(&inner.storage),
                clock: Arc::clone(&inner.clock),
                opened_in: inner.opened_in,
                format,
                hasher: inner.hasher.clone(),
                cipher: inner.cipher.clone(),
            }),
        })
    }

    /// The same repository, whose [`Cipher::repaired_items`] begins at nothing: for whoever reports what one run repaired.
    #[must_use]
    pub fn counting_repairs(&self) -> Self {
        let inner = &*self.inner;
        Self {
            inner: Arc::new(Inner {
                storage: Arc::clone(&inner.storage),
                clock: Arc::clone(&inner.clock),
                opened_in: inner.opened_in,
                format: inner.format.clone(),
                hasher: inner.hasher.clone(),
                cipher: inner.cipher.counting_anew(),
            }),
        }
    }

    /// The same repository, reached through `storage`: something that lies around its own.
    #[must_use]
    pub fn through(&self, storage: Arc<dyn Storage>) -> Self {
        let Inner { clock, opened_in, format, hasher, cipher, .. } = &*self.inner;
        let (clock, opened_in, format) = (Arc::clone(clock), *opened_in, format.clone());
        let (hasher, cipher) = (hasher.clone(), cipher.clone());
        Self { inner: Arc::new(Inner { storage, clock, opened_in, format, hasher, cipher }) }
    }

    /// Where it lies.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.inner.storage
    }

    /// The machine's clocks.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// How long it took to read the format blobs and to derive the keys.
    #[must_use]
    pub fn opened_in(&self) -> Duration {
        self.inner.opened_in
    }

    /// Kopia's unique ID, 32 bytes.
    #[must_use]
    pub fn unique_id(&self) -> &[u8] {
        &self.inner.format.unique_id
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &RepositoryConfig {
        &self.inner.format.config
    }

    /// Retention settings.
    #[must_use]
    pub fn blob_config(&self) -> BlobConfig {
        self.inner.format.blob_config
    }

    /// The keyed hash.
    #[must_use]
    pub fn hasher(&self) -> &Hasher {
        &self.inner.hasher
    }

    /// The content cipher.
    #[must_use]
    pub fn cipher(&self) -> &Cipher {
        &self.inner.cipher
    }

    /// `derive(purpose, 32)` of the format: HKDF-SHA256 of the master key (or the format key), salted with the unique ID.
    #[must_use]
    pub fn derive_key(&self, purpose: &str) -> [u8; 32] {
        let format = &self.inner.format;
        // Repositories created as version 1 keep the old root even after an upgrade.
        let root = if format.config.enable_password_change { &format.config.master_key[..] } else { &format.key[..] };
        *keys::derive(root, &format.unique_id, purpose.as_bytes())
    }

    /// Raw bytes of `kopia.repository`, for the replica in packs (only where `enable_password_change` is false).
    #[must_use]
    pub fn format_blob(&self) -> &[u8] {
        &self.inner.format.blob
    }

    /// SHA-256 of the bytes of `kopia.repository`: tells whether anyone changed it, also in stores without ETags.
    #[must_use]
    pub fn format_digest(&self) -> [u8; 32] {
        Sha256::digest(&self.inner.format.blob).into()
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if mutant::on(Mutant::S9KeyInDebug) {
            f.write_str(&hex::encode(&self.inner.format.config.master_key))?;
        }
        f.debug_struct("Repository")
            .field("address", &self.inner.storage.address())
            .field("unique_id", &hex::encode(&self.inner.format.unique_id))
            .finish()
    }
}

impl Format {
    /// Under an upgrade lock nothing but `kopia.repository` is touched: the order matters.
    fn load(storage: &dyn Storage, clock: &dyn Clock, key: impl FnOnce(&Envelope) -> Result<Key>) -> Result<Self> {
        let blob =
            storage.get(&BlobId::from(FORMAT_BLOB), ByteRange::All).map_err(|error| not_found(storage, error))?;
        let at = |error: Error| error.at(format!("open the repository at {}", storage.address()));
        let envelope = Envelope::parse(&blob).map_err(|error| match error.kind() {
            ErrorKind::Damaged => {
                at(error).with_fix(format!("restore {FORMAT_BLOB} from a copy, or see `kopia repository repair`"))
            }
            _ => at(error),
        })?;
        let key = key(&envelope).map_err(at)?;
        let plain = envelope.open_config(&key).map_err(shut)?;
        let config = RepositoryConfig::parse(&plain).map_err(at)?;
        if let Some(lock) = config.upgrade_lock.as_ref().filter(|_| !mutant::on(Mutant::I1UpgradeLockIgnored)) {
            lock.check(clock.now()).map_err(at)?;
        }
        let blob_config = load_blob_config(storage, &envelope, &key)?;
        Ok(Self { blob, unique_id: envelope.unique_id, key, config, blob_config })
    }
}

fn not_found(storage: &dyn Storage, error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        let step = format!("there is no Kopia repository at {}: it has no {FORMAT_BLOB}", storage.address());
        let fix = format!(
            "check the address; if it is right, restore {FORMAT_BLOB} from a copy, or see `kopia repository repair`"
        );
        return Error::new(ErrorKind::NotARepository, step).with_fix(fix).with_source(error);
    }
    error.at(format!("read {FORMAT_BLOB}"))
}

fn shut(error: OpenError) -> Error {
    if let OpenError::Short(_) = error {
        return Error::damaged(format!("decrypt {FORMAT_BLOB}")).with_source(error);
    }
    Error::new(ErrorKind::WrongPassword, format!("the password does not open {FORMAT_BLOB}"))
        .with_source(error)
        .with_fix("give the password of this repository; if it was changed meanwhile, the new one")
}

fn load_blob_config(storage: &dyn Storage, envelope: &Envelope, key: &Key) -> Result<BlobConfig> {
    let stored = match storage.get(&BlobId::from(BLOB_CONFIG_BLOB), ByteRange::All) {
        Ok(stored) => stored,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BlobConfig::default()),
        Err(error) => return Err(error.at(format!("read {BLOB_CONFIG_BLOB}"))),
    };
    let plain = envelope.open(key, &stored).map_err(|error| {
        Error::damaged(format!("decrypt {BLOB_CONFIG_BLOB}"))
            .with_source(error)
            // Kopia writes it first, then the format blob with the new key.
            .with_fix("try again: a change of the password may be under way")
    })?;
    BlobConfig::parse(&plain)
}

#[cfg(test)]
#[path = "repository_tests.rs"]
mod tests;
