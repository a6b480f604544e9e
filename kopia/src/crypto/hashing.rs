//! The keyed hashes.

use blake2::{Blake2bMac, Blake2sMac};
use hmac::digest::consts::{U16, U32};
use hmac::{Hmac, KeyInit, Mac, SimpleHmac};
use sha2::{Sha224, Sha256};
use sha3::{Sha3_224, Sha3_256};
use zeroize::Zeroizing;

use crate::content::ContentHash;
use crate::error::{Error, Result};

/// Kopia stretches shorter keys for BLAKE3 under this name (`repo/hashing/blake3_hashes.go`).
const BLAKE3_STRETCH_CONTEXT: &str = "kopia blake3 derived key v1";

/// Kopia's names of all algorithms, in its order; [`Hasher::new`] knows each.
pub const NAMES: [&str; 11] = [
    "BLAKE2B-256",
    "BLAKE2B-256-128",
    "BLAKE2S-128",
    "BLAKE2S-256",
    "BLAKE3-256",
    "BLAKE3-256-128",
    "HMAC-SHA224",
    "HMAC-SHA256",
    "HMAC-SHA256-128",
    "HMAC-SHA3-224",
    "HMAC-SHA3-256",
];

/// A keyed hash algorithm with its key.
#[derive(Clone)]
pub struct Hasher {
    name: &'static str,
    length: usize,
    state: State,
}

/// What the key leaves behind: hashing starts from a copy, so the key is worked in once.
#[derive(Clone)]
enum State {
    Blake2b(Box<Blake2bMac<U32>>),
    Blake2s128(Box<Blake2sMac<U16>>),
    Blake2s(Box<Blake2sMac<U32>>),
    Blake3(Zeroizing<[u8; 32]>),
    HmacSha256(Box<Hmac<Sha256>>),
    HmacSha224(Box<Hmac<Sha224>>),
    HmacSha3x256(Box<SimpleHmac<Sha3_256>>),
    HmacSha3x224(Box<SimpleHmac<Sha3_224>>),
}

impl Hasher {
    /// The algorithm of this Kopia name, with the repository's `secret` as key.
    ///
    /// # Errors
    /// `Unsupported` for an unknown name, `Damaged` for a key that the algorithm cannot take.
    pub fn new(name: &str, secret: &[u8]) -> Result<Self> {
        let (name, length, state) = match name {
            // Not BLAKE2b-128: the digest length is a parameter of the function, and Kopia cuts the 32-byte digest.
            "BLAKE2B-256-128" => ("BLAKE2B-256-128", 16, State::Blake2b(keyed(name, secret, 64)?)),
            "BLAKE2B-256" => ("BLAKE2B-256", 32, State::Blake2b(keyed(name, secret, 64)?)),
            "BLAKE2S-128" => ("BLAKE2S-128", 16, State::Blake2s128(keyed(name, secret, 32)?)),
            "BLAKE2S-256" => ("BLAKE2S-256", 32, State::Blake2s(keyed(name, secret, 32)?)),
            "BLAKE3-256" => ("BLAKE3-256", 32, State::Blake3(blake3_key(secret))),
            "BLAKE3-256-128" => ("BLAKE3-256-128", 16, State::Blake3(blake3_key(secret))),
            "HMAC-SHA256" => ("HMAC-SHA256", 32, State::HmacSha256(keyed(name, secret, usize::MAX)?)),
            "HMAC-SHA256-128" => ("HMAC-SHA256-128", 16, State::HmacSha256(keyed(name, secret, usize::MAX)?)),
            "HMAC-SHA224" => ("HMAC-SHA224", 28, State::HmacSha224(keyed(name, secret, usize::MAX)?)),
            "HMAC-SHA3-224" => ("HMAC-SHA3-224", 28, State::HmacSha3x224(keyed(name, secret, usize::MAX)?)),
            "HMAC-SHA3-256" => ("HMAC-SHA3-256", 32, State::HmacSha3x256(keyed(name, secret, usize::MAX)?)),
            _ => return Err(Error::unsupported(format!("hash algorithm {name:?} is not known"))),
        };
        Ok(Self { name, length, state })
    }

    /// Kopia's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Length of a hash in bytes: 16, 28 or 32.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Hash of `data`.
    #[must_use]
    pub fn hash(&self, data: &[u8]) -> ContentHash {
        match &self.state {
            State::Blake2b(mac) => self.run(mac.as_ref(), data),
            State::Blake2s128(mac) => self.run(mac.as_ref(), data),
            State::Blake2s(mac) => self.run(mac.as_ref(), data),
            State::Blake3(key) => self.cut(blake3::keyed_hash(key, data).as_bytes()),
            State::HmacSha256(mac) => self.run(mac.as_ref(), data),
            State::HmacSha224(mac) => self.run(mac.as_ref(), data),
            State::HmacSha3x256(mac) => self.run(mac.as_ref(), data),
            State::HmacSha3x224(mac) => self.run(mac.as_ref(), data),
        }
    }

    fn run<M: Mac + Clone>(&self, keyed: &M, data: &[u8]) -> ContentHash {
        let mut mac = keyed.clone();
        mac.update(data);
        self.cut(&mac.finalize().into_bytes())
    }

    fn cut(&self, digest: &[u8]) -> ContentHash {
        ContentHash::from_slice(&digest[..self.length]).expect("hash lengths are 16 to 32 bytes")
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").field("name", &self.name).finish_non_exhaustive()
    }
}

fn keyed<M: KeyInit>(name: &str, secret: &[u8], longest: usize) -> Result<Box<M>> {
    let bad = || Error::damaged(format!("hash algorithm {name} cannot take a key of {} bytes", secret.len()));
    // BLAKE2 with an empty key is another function than BLAKE2 without one; Kopia itself does not open such repositories.
    if secret.is_empty() || secret.len() > longest {
        return Err(bad());
    }
    M::new_from_slice(secret).map(Box::new).map_err(|_| bad())
}

fn blake3_key(secret: &[u8]) -> Zeroizing<[u8; 32]> {
    match secret.first_chunk::<32>() {
        Some(key) => Zeroizing::new(*key),
        None => Zeroizing::new(blake3::derive_key(BLAKE3_STRETCH_CONTEXT, secret)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET_A1: &str = "43629528c561dda7a76d0336ed6def1ab87252e93c396bccfe26d23632163c36";
    const SECRET_A2: &str = "ad0d8bad0b99d795d33c24c7e5cf4cfca79114536fe41e3cfee89b0edd4bcb17";
    const SECRET_A3: &str = "e7b28933e21a22a9ecfd1a53603ef102026aace770d2c517df4acdccffb1903f";

    fn hash(name: &str, secret: &str, data: &[u8]) -> String {
        Hasher::new(name, &hex::decode(secret).unwrap()).unwrap().hash(data).to_string()
    }

    #[test]
    fn hashes_are_those_of_real_repositories() {
        for (name, secret, of_abc, of_nothing) in [
            ("BLAKE2B-256-128", SECRET_A1, "82b39a12512935970065e53a3aa78c41", "f31d473c6a242b1033147e11f63256f4"),
            ("HMAC-SHA256-128", SECRET_A2, "ed0a8a0825dc73fe8a7a8022f597940c", "f07642fd46857d4babf78cd67d8c0003"),
            ("BLAKE2B-256-128", SECRET_A3, "bfecfa7185562585e8e35ac36a29fe43", "3f88ca693efad7f7939c342c3d873241"),
        ] {
            assert_eq!(hash(name, secret, b"abc"), of_abc);
            assert_eq!(hash(name, secret, b""), of_nothing);
        }
    }

    #[test]
    fn every_name_has_its_length_and_depends_on_the_key() {
        let lengths = [
            ("BLAKE2B-256-128", 16),
            ("BLAKE2B-256", 32),
            ("BLAKE2S-128", 16),
            ("BLAKE2S-256", 32),
            ("BLAKE3-256", 32),
            ("BLAKE3-256-128", 16),
            ("HMAC-SHA256", 32),
            ("HMAC-SHA256-128", 16),
            ("HMAC-SHA224", 28),
            ("HMAC-SHA3-224", 28),
            ("HMAC-SHA3-256", 32),
        ];
        for (name, length) in lengths {
            let hasher = Hasher::new(name, &[7; 32]).unwrap();
            assert_eq!((hasher.name(), hasher.length()), (name, length));
            assert_eq!(hasher.hash(b"x").as_bytes().len(), length);
            assert_eq!(hasher.hash(b"x"), hasher.hash(b"x"), "{name} keeps state between hashes");
            assert_ne!(hasher.hash(b"x"), Hasher::new(name, &[8; 32]).unwrap().hash(b"x"), "{name}");
        }
        assert_eq!(&hash("BLAKE2B-256", SECRET_A1, b"abc")[..32], hash("BLAKE2B-256-128", SECRET_A1, b"abc"));
        assert_ne!(&hash("BLAKE2S-256", SECRET_A1, b"abc")[..32], hash("BLAKE2S-128", SECRET_A1, b"abc"));
    }

    #[test]
    fn short_keys_are_stretched_for_blake3_and_refused_where_impossible() {
        assert!(Hasher::new("BLAKE3-256", b"short").is_ok());
        for (name, key) in [("BLAKE2S-128", vec![1; 33]), ("BLAKE2B-256", vec![1; 65]), ("BLAKE2B-256-128", vec![])] {
            assert_eq!(Hasher::new(name, &key).unwrap_err().kind(), crate::ErrorKind::Damaged, "{name}");
        }
        let error = Hasher::new("MD5", &[1; 32]).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert!(error.to_string().contains("MD5"));
    }
}
