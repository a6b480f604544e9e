//! AEAD of contents, pack-local indexes and whole blobs, ECC included.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Hasher;
use super::aead::{self, Algorithm};
use super::keys::Key;
use crate::ecc::Ecc;
use crate::error::{Error, Result};
use crate::storage::BlobId;

/// Kopia's names of all ciphers, in its order; [`Cipher::new`] knows each.
pub const NAMES: [&str; 2] = ["AES256-GCM-HMAC-SHA256", "CHACHA20-POLY1305-HMAC-SHA256"];

/// IVs of contents and whole blobs.
const IV_BYTES: usize = 16;

/// Repaired items that are told apart; later ones count each time that they are read.
const REPAIRS_APART_MAX: usize = 1 << 16;

/// A content cipher with its key, and the ECC layer where the repository has one.
#[derive(Clone)]
pub struct Cipher {
    algorithm: Algorithm,
    /// HMAC-SHA256 keyed with the content secret; the key of an item is the MAC of its IV.
    item_keys: Hmac<Sha256>,
    ecc: Option<Ecc>,
    repairs: Arc<Mutex<Repairs>>,
}

/// Items that error correction repaired.
#[derive(Default)]
struct Repairs {
    count: u64,
    seen: HashSet<Vec<u8>>,
}

/// What opening found besides the plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repaired(pub bool);

impl Cipher {
    /// The algorithm of this Kopia name. `content_secret` is 32 bytes (`crypto::keys::content_secret`).
    ///
    /// # Errors
    /// `Unsupported` for unknown names and for ciphers that Kopia removed.
    pub fn new(name: &str, content_secret: &[u8; 32], ecc: Option<Ecc>) -> Result<Self> {
        let algorithm = match name {
            "AES256-GCM-HMAC-SHA256" => Algorithm::Aes256Gcm,
            "CHACHA20-POLY1305-HMAC-SHA256" => Algorithm::ChaCha20Poly1305,
            _ if was_removed(name) => {
                return Err(Error::unsupported(format!("content encryption {name} was removed from Kopia"))
                    .with_fix("use an old Kopia that still has it to copy the snapshots to a new repository"));
            }
            _ => return Err(Error::unsupported(format!("content encryption {name:?} is not known"))),
        };
        let item_keys =
            <Hmac<Sha256> as KeyInit>::new_from_slice(content_secret).expect("HMAC takes keys of any length");
        Ok(Self { algorithm, item_keys, ecc, repairs: Arc::default() })
    }

    /// Bytes that sealing adds, without ECC: 28.
    #[must_use]
    pub fn overhead(&self) -> usize {
        aead::OVERHEAD
    }

    /// The ECC layer.
    #[must_use]
    pub fn ecc(&self) -> Option<&Ecc> {
        self.ecc.as_ref()
    }

    /// The same cipher, which counts repairs from nothing. (A clone counts together with the original.)
    #[must_use]
    pub(crate) fn counting_anew(&self) -> Self {
        Self { repairs: Arc::default(), ..self.clone() }
    }

    /// Items with damaged bytes that error correction made good, each once however often it is read.
    #[must_use]
    pub fn repaired_items(&self) -> u64 {
        self.repairs.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    fn count_repair(&self, iv: &[u8]) {
        let mut repairs = self.repairs.lock().unwrap_or_else(PoisonError::into_inner);
        if repairs.seen.len() >= REPAIRS_APART_MAX || repairs.seen.insert(iv.to_vec()) {
            repairs.count += 1;
        }
    }

    /// Which AEAD it is.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key of one item.
    pub(crate) fn item_key(&self, iv: &[u8]) -> Key {
        let mut mac = self.item_keys.clone();
        mac.update(iv);
        Key::new(mac.finalize().into_bytes().into())
    }

    /// Checks and decrypts one item (content: `hash.iv()`; local index: the whole hash).
    ///
    /// # Errors
    /// `Damaged` if its tag does not hold, or if ECC cannot repair it.
    pub fn open(&self, iv: &[u8], stored: &[u8]) -> Result<(Vec<u8>, Repaired)> {
        let mut plain = Vec::new();
        let repaired = self.open_into(iv, stored, &mut plain)?;
        Ok((plain, repaired))
    }

    /// As [`Cipher::open`], into a buffer that is cleared first, so that a loop allocates once. Empty after an error.
    ///
    /// # Errors
    /// As [`Cipher::open`].
    pub fn open_into(&self, iv: &[u8], stored: &[u8], plain: &mut Vec<u8>) -> Result<Repaired> {
        plain.clear();
        let key = self.item_key(iv);
        let (opened, repaired) = match &self.ecc {
            None => (aead::open(self.algorithm, &key, iv, stored, plain), Repaired(false)),
            Some(ecc) => {
                let (message, repaired) = ecc.decode(stored).map_err(|error| error.at(describe(iv)))?;
                (aead::open(self.algorithm, &key, iv, &message, plain), Repaired(repaired))
            }
        };
        opened.map_err(|error| Error::damaged(describe(iv)).with_source(error))?;
        if repaired.0 {
            self.count_repair(iv);
        }
        Ok(repaired)
    }

    /// Encrypts one item.
    ///
    /// # Errors
    /// `Unsupported` for an item too long for ECC (4 GiB).
    pub fn seal(&self, iv: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let message = aead::seal(self.algorithm, &self.item_key(iv), iv, plain);
        match &self.ecc {
            None => Ok(message),
            Some(ecc) => ecc.encode(&message),
        }
    }

    /// Decrypts a whole blob (`n m l xn xs xr s _log_`); the IV is in its name.
    ///
    /// # Errors
    /// As [`Cipher::open`]; `Damaged` for a name without an IV.
    pub fn open_blob(&self, id: &BlobId, stored: &[u8]) -> Result<Vec<u8>> {
        let at = |error: Error| error.at(format!("decrypt blob {id}"));
        let (plain, _) = self.open(&blob_iv(id).map_err(at)?, stored).map_err(at)?;
        Ok(plain)
    }

    /// Encrypts a whole blob: `prefix` ‖ hex hash of the payload ‖ ("-" ‖ suffix, if any).
    ///
    /// # Errors
    /// As [`Cipher::seal`].
    pub fn seal_blob(&self, hasher: &Hasher, prefix: &str, suffix: &str, payload: &[u8]) -> Result<(BlobId, Bytes)> {
        let hash = hasher.hash(payload);
        let id = if suffix.is_empty() { format!("{prefix}{hash}") } else { format!("{prefix}{hash}-{suffix}") };
        let stored = self.seal(hash.iv(), payload)?;
        Ok((BlobId::new(id), Bytes::from(stored)))
    }
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Cipher");
        out.field("algorithm", &self.algorithm).field("ecc", &self.ecc).finish_non_exhaustive()
    }
}

/// The IV of a whole blob: the last 32 hex digits before the first `-`. With hashes longer than 16 bytes
/// these are not the first 32 (`internal/blobcrypto/blob_crypto.go`).
///
/// # Errors
/// `Damaged` if the name does not hold one.
pub fn blob_iv(id: &BlobId) -> Result<[u8; IV_BYTES]> {
    let name = id.as_str();
    let head = name.split_once('-').map_or(name, |(head, _)| head).as_bytes();
    let mut iv = [0; IV_BYTES];
    let digits = head.last_chunk::<{ 2 * IV_BYTES }>();
    digits
        .and_then(|digits| hex::decode_to_slice(digits, &mut iv).ok())
        .ok_or_else(|| Error::damaged(format!("blob name {name:?} has no IV: 32 hex digits are needed")))?;
    Ok(iv)
}

/// Ciphers of Kopia before 0.6 or so: without authentication, or with keys made another way.
fn was_removed(name: &str) -> bool {
    name == "NONE" || name.starts_with("AES-") && name.contains("-CTR") || name.contains("SALSA20")
}

fn describe(iv: &[u8]) -> String {
    format!("decrypt the item with IV {}", hex::encode(iv))
}

#[cfg(test)]
#[path = "encryption_tests.rs"]
mod tests;
