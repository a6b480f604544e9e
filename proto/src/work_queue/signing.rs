//! Which coordinator a message comes from: Ed25519. Each has a key of its own in its data folder; workers get the public ones from
//! whoever leads, over the interface that they trust anyway.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{PoisonError, RwLock};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::message::Rejection;
use crate::mutant::{self, Check};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Keys that a ring holds at most; a cluster has a few coordinators.
pub const KEYS_MAX: usize = 64;
/// Bytes of a file with a key at most.
pub const FILE_BYTES_MAX: usize = 256;

const KEY_BYTES: usize = 32;
const FILE_WORD: &str = "verger-work-key-1";

/// Why there is no key. Nothing of the key is in the text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is damaged, or another file.
    #[error(
        "this is not the file of a key for the work queue, or it is damaged; remove it, and a new key is made at the next start"
    )]
    File,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// What a coordinator signs with.
pub struct SigningKey {
    node: u64,
    seed: Zeroizing<[u8; KEY_BYTES]>,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey of coordinator {}", self.node)
    }
}

impl SigningKey {
    /// A new one for coordinator `node`.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate(node: u64) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(&mut *seed).map_err(|_| KeyError::Random)?;
        Self::from_seed(node, seed)
    }

    /// From its 32 secret bytes.
    ///
    /// # Errors
    /// [`KeyError::File`], which 32 bytes never are.
    pub fn from_seed(node: u64, seed: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| KeyError::File)?;
        Ok(Self { node, seed, pair })
    }

    /// The content of the file that it is kept in, readable by its owner alone.
    #[must_use]
    pub fn to_file(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{FILE_WORD} {} {}\n", *hex(&*self.seed), self.public()))
    }

    /// From the content of its file.
    ///
    /// # Errors
    /// [`KeyError::File`]: nobody shall sign with a damaged key, as no worker would believe it.
    pub fn from_file(node: u64, content: &[u8]) -> Result<Self, KeyError> {
        let text =
            std::str::from_utf8(content).ok().filter(|text| text.len() <= FILE_BYTES_MAX).ok_or(KeyError::File)?;
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [FILE_WORD, seed, public] = words[..] else { return Err(KeyError::File) };
        let key = Self::from_seed(node, Zeroizing::new(unhex(seed).ok_or(KeyError::File)?))?;
        if key.public().to_string() == public { Ok(key) } else { Err(KeyError::File) }
    }

    /// The number of the coordinator whose it is.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.node
    }

    /// What workers know it by.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; KEY_BYTES];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// A signature of `bytes`.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(self.pair.sign(bytes).as_ref());
        signature
    }
}

/// What a coordinator's messages are checked with: 64 hexadecimal digits for people and in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub [u8; KEY_BYTES]);

/// Text that is not a public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a public key has 64 lower-case hexadecimal digits")]
pub struct BadPublicKey;

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for PublicKey {
    type Err = BadPublicKey;

    fn from_str(text: &str) -> Result<Self, BadPublicKey> {
        unhex(text).map(Self).ok_or(BadPublicKey)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = BadPublicKey;

    fn try_from(text: String) -> Result<Self, BadPublicKey> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// The public keys of a fleet's coordinators, by number. It changes while it is used.
#[derive(Default, Debug)]
pub struct Keyring {
    keys: RwLock<BTreeMap<u64, PublicKey>>,
}

impl Keyring {
    /// Believes coordinator `node` from now on, by this key alone. Whether there was room.
    pub fn add(&self, node: u64, key: PublicKey) -> bool {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let has_room = keys.len() < KEYS_MAX || keys.contains_key(&node);
        if has_room {
            keys.insert(node, key);
        }
        has_room
    }

    /// Does not believe coordinator `node` any more.
    pub fn remove(&self, node: u64) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// Believes these, and nobody else: what a coordinator said of all of them. Those beyond [`KEYS_MAX`] are left out.
    pub fn replace(&self, all: impl IntoIterator<Item = (u64, PublicKey)>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = all.into_iter().take(KEYS_MAX).collect();
    }

    /// Whether coordinator `node` signed `bytes`.
    ///
    /// # Errors
    /// [`Rejection::UnknownKey`] or [`Rejection::Forged`].
    pub fn verify(&self, node: u64, bytes: &[u8], signature: &[u8]) -> Result<(), Rejection> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner).get(&node).copied();
        let key = known.ok_or(Rejection::UnknownKey(node))?;
        if mutant::is_out(Check::Signature) {
            return Ok(());
        }
        UnparsedPublicKey::new(&ED25519, key.0).verify(bytes, signature).map_err(|_| Rejection::Forged(node))
    }
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // In one piece: what a growing text leaves behind is not wiped.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2));
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn unhex(text: &str) -> Option<[u8; KEY_BYTES]> {
    text.parse::<crate::Digest>().ok().map(|digest| digest.0)
}
