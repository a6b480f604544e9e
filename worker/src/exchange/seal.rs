//! How a part is encrypted: a head in clear, then frames. The key of the frames is made from the repository's and the whole head, so
//! that nothing opens under another name, for another cycle or another attempt.
//!
//! ```text
//! "VRGX" | length of the head, 2 bytes | head, JSON | { length of the frame, 4 bytes | frame }*
//! frame: AES-256-GCM of zstd of records; the last one of { number of records, 8 bytes | bytes of records, 8 bytes }
//! ```
//!
//! A frame's nonce is its number, and whether it is the last: none can be left out, doubled or put elsewhere, and an end that was
//! cut off shows.

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use serde::{Deserialize, Serialize};
use verger_kopia::Repository;
use zeroize::Zeroizing;

use super::error::PartError;

pub(super) const MAGIC: &[u8; 4] = b"VRGX";
/// Version of the format.
const VERSION: u64 = 1;
/// Bytes of a head at most.
pub(super) const HEAD_BYTES_MAX: usize = 4096;
/// Bytes of records in a frame, before they are compressed.
pub(super) const FRAME_BYTES: usize = 256 << 10;
/// Bytes of a stored frame at most: what does not compress, zstd's own, and the tag.
pub(super) const STORED_FRAME_BYTES_MAX: usize = FRAME_BYTES + (FRAME_BYTES >> 8) + 1024;
/// Bytes of what the last frame says.
pub(super) const END_BYTES: usize = 16;
/// What the repository's key is asked for.
const PURPOSE: &str = "verger-exchange";

/// The key that all keys of a repository's parts are made from.
#[derive(Clone)]
pub struct ExchangeKey(Zeroizing<[u8; 32]>);

impl ExchangeKey {
    /// A repository's.
    #[must_use]
    pub fn of(repository: &Repository) -> Self {
        Self(Zeroizing::new(repository.derive_key(PURPOSE)))
    }

    /// These bytes, for tests.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

/// What a part says of itself, in clear. All of it binds the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) version: u64,
    /// The repository with its store.
    pub(super) repository: String,
    pub(super) cycle: u64,
    pub(super) kind: String,
    pub(super) attempt: u32,
    pub(super) name: String,
    /// Digest of the index view.
    pub(super) view: String,
    /// First key, in hexadecimal.
    pub(super) from: String,
    /// First key behind it, in hexadecimal.
    pub(super) to: Option<String>,
    /// So that no two parts have one key.
    pub(super) salt: String,
}

/// The version alone, so that one of a later program is named.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

impl Head {
    pub(super) fn version() -> u64 {
        VERSION
    }

    /// With all that goes before the first frame.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, PartError> {
        let text = serde_json::to_vec(self).map_err(|_| PartError::Head)?;
        let length = u16::try_from(text.len()).ok().filter(|_| text.len() <= HEAD_BYTES_MAX).ok_or(PartError::Head)?;
        Ok([&MAGIC[..], &length.to_be_bytes(), &text].concat())
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, PartError> {
        match serde_json::from_slice::<Version>(text) {
            Ok(Version { version: VERSION }) => serde_json::from_slice(text).map_err(|_| PartError::Head),
            Ok(Version { version }) => Err(PartError::Version(version)),
            Err(_) => Err(PartError::Head),
        }
    }
}

/// Seals and opens the frames of one part.
pub(super) struct Frames {
    cipher: Aes256Gcm,
}

impl Frames {
    /// `head`: as it stands in the part, with what goes before it.
    pub(super) fn new(key: &ExchangeKey, head: &[u8]) -> Self {
        let key = Zeroizing::new(*blake3::keyed_hash(&key.0, head).as_bytes());
        Self { cipher: Aes256Gcm::new((&*key).into()) }
    }

    fn nonce(number: u64, is_last: bool) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        nonce[11] = u8::from(is_last);
        nonce
    }

    pub(super) fn seal(&self, number: u64, is_last: bool, plain: &[u8]) -> Result<Vec<u8>, PartError> {
        let nonce = Nonce::from(Self::nonce(number, is_last));
        self.cipher.encrypt(&nonce, plain).map_err(|_| PartError::Sealed(number))
    }

    pub(super) fn open(&self, number: u64, is_last: bool, sealed: &[u8]) -> Result<Vec<u8>, PartError> {
        let nonce = Nonce::from(Self::nonce(number, is_last));
        self.cipher.decrypt(&nonce, sealed).map_err(|_| PartError::Sealed(number))
    }
}
