//! AEAD of contents, pack-local indexes and whole blobs, ECC included.

use super::Hasher;
use crate::error::Result;
use crate::storage::BlobId;
use bytes::Bytes;

/// A content cipher with its key, and the ECC layer where the repository has one.
#[derive(Clone)]
pub struct Cipher {}

/// What opening found besides the plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repaired(pub bool);

impl Cipher {
    /// The algorithm of this Kopia name. `content_secret` is 32 bytes (`crypto::keys::content_secret`).
    pub fn new(name: &str, content_secret: &[u8; 32], ecc: Option<crate::ecc::Ecc>) -> Result<Self> {
        let _ = (name, content_secret, ecc);
        unreachable!("stub")
    }
    /// Bytes that sealing adds, without ECC: 28.
    pub fn overhead(&self) -> usize {
        28
    }
    /// The ECC layer.
    pub fn ecc(&self) -> Option<&crate::ecc::Ecc> {
        unreachable!("stub")
    }
    /// Checks and decrypts one item (content: `hash.iv()`; local index: the whole hash). `Damaged` if its tag does not hold.
    pub fn open(&self, iv: &[u8], stored: &[u8]) -> Result<(Vec<u8>, Repaired)> {
        let _ = (iv, stored);
        unreachable!("stub")
    }
    /// As [`Cipher::open`], into a buffer that is cleared first, so that a loop allocates once.
    pub fn open_into(&self, iv: &[u8], stored: &[u8], plain: &mut Vec<u8>) -> Result<Repaired> {
        let _ = (iv, stored, plain);
        unreachable!("stub")
    }
    /// Encrypts one item.
    pub fn seal(&self, iv: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let _ = (iv, plain);
        unreachable!("stub")
    }
    /// Decrypts a whole blob (`n m l xn xs xr s _log_`); the IV is in its name.
    pub fn open_blob(&self, id: &BlobId, stored: &[u8]) -> Result<Vec<u8>> {
        let _ = (id, stored);
        unreachable!("stub")
    }
    /// Encrypts a whole blob: `prefix` ‖ hex hash of the payload ‖ ("-" ‖ suffix, if any).
    pub fn seal_blob(&self, hasher: &Hasher, prefix: &str, suffix: &str, payload: &[u8]) -> Result<(BlobId, Bytes)> {
        let _ = (hasher, prefix, suffix, payload);
        unreachable!("stub")
    }
}
