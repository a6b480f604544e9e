//! An open repository: storage, format and keys.

use std::sync::Arc;

use crate::clock::Clock;
use crate::crypto::{Cipher, Hasher};
use crate::error::Result;
use crate::format::{BlobConfig, RepositoryConfig};
use crate::storage::Storage;

/// An open repository. Cheap to clone. Its `Debug` shows address and unique ID only.
#[derive(Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
}

impl Repository {
    /// Opens the repository in `storage` with `password`.
    ///
    /// # Errors
    /// `NotARepository`, `WrongPassword`, `Unsupported`, `UpgradeInProgress`, `Damaged`, storage errors.
    pub fn open(storage: Arc<dyn Storage>, password: &str, clock: Arc<dyn Clock>) -> Result<Self> {
        let _ = (storage, password, clock);
        unreachable!("stub")
    }
    /// Reads the format blobs again: the new state of mutable parameters, locks and features, or the error that now forbids going on.
    /// The derived format key is reused (a changed password is an error).
    pub fn refresh(&self) -> Result<Self> {
        unreachable!("stub")
    }
    /// Where it lies.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.inner.storage
    }
    /// The machine's clocks.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }
    /// Kopia's unique ID, 32 bytes.
    pub fn unique_id(&self) -> &[u8] {
        unreachable!("stub")
    }
    /// The configuration.
    pub fn config(&self) -> &RepositoryConfig {
        unreachable!("stub")
    }
    /// Retention settings.
    pub fn blob_config(&self) -> BlobConfig {
        unreachable!("stub")
    }
    /// The keyed hash.
    pub fn hasher(&self) -> &Hasher {
        unreachable!("stub")
    }
    /// The content cipher.
    pub fn cipher(&self) -> &Cipher {
        unreachable!("stub")
    }
    /// `derive(purpose, L)` of the format: HKDF-SHA256 of the master key (or the format key), salted with the unique ID.
    pub fn derive_key(&self, purpose: &str) -> [u8; 32] {
        let _ = purpose;
        unreachable!("stub")
    }
    /// Raw bytes of `kopia.repository`, for the replica in packs (only where `enable_password_change` is false).
    pub fn format_blob(&self) -> &[u8] {
        unreachable!("stub")
    }
}
