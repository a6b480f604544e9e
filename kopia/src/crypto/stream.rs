//! Decryption of one large AEAD message in bounded memory.
//!
//! An index blob is one message of up to some 760 MiB (R26). Its plaintext goes into a writer before the tag at its end is
//! known, so the writer is taken away and given back, as [`Verified`], only if the tag holds.

use std::io::{self, Read, Write};

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _, StreamCipherSeek as _};
use ctr::Ctr32BE;
use ghash::GHash;
use ghash::universal_hash::UniversalHash as _;
use poly1305::Poly1305;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::Cipher;
use super::aead::{Algorithm, NONCE_BYTES, OpenError, TAG_BYTES};
use super::encryption::blob_iv;
use super::keys::Key;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::BlobId;

/// Bytes decrypted at a time: a multiple of both block sizes.
const CHUNK: usize = 64 * 1024;
/// Longest message of either algorithm: where AES-GCM's counter would come round (ChaCha20's is 4 times as far).
const LENGTH_MAX: u64 = (1 << 36) - 32;

/// A writer that holds the whole plaintext of a message whose tag held. Only a successful decryption makes one.
#[derive(Debug)]
pub struct Verified<W> {
    writer: W,
    length: u64,
    nonce: [u8; NONCE_BYTES],
}

impl<W> Verified<W> {
    /// Bytes of plaintext.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its nonce, for [`Cipher::anywhere`].
    #[must_use]
    pub fn nonce(&self) -> [u8; NONCE_BYTES] {
        self.nonce
    }

    /// The writer. Nothing was flushed.
    #[must_use]
    pub fn into_inner(self) -> W {
        self.writer
    }
}

impl Cipher {
    /// Decrypts a whole blob from `stored` into `plain`, in bounded memory. As `stored` give, where the repository has
    /// error correction, what [`Ecc::reader`](crate::ecc::Ecc::reader) makes of the stored bytes.
    ///
    /// `plain` must be private to the caller: what goes into it is not verified until this returns, and after an error it
    /// is dropped, so it should remove what it holds then.
    ///
    /// # Errors
    /// `Damaged` for a name without an IV, a message too short, or a tag that does not hold; `DiskFull`; errors of either
    /// end, with the kind that they carry.
    pub fn open_blob_stream<R: Read, W: Write>(&self, id: &BlobId, stored: R, plain: W) -> Result<Verified<W>> {
        let at = |error: Error| error.at(format!("decrypt blob {id}"));
        let iv = blob_iv(id).map_err(at)?;
        self.open_stream(&iv, stored, plain).map_err(at)
    }

    /// As [`Cipher::open_blob_stream`], for an item whose IV is known.
    ///
    /// # Errors
    /// As there.
    pub fn open_stream<R: Read, W: Write>(&self, iv: &[u8], stored: R, plain: W) -> Result<Verified<W>> {
        let key = self.item_key(iv);
        open(self.algorithm(), &key, iv, stored, plain)
    }
}

impl Cipher {
    /// Decrypts parts of a blob whose tag held ([`Verified`]), in any order. Nothing says whether a part is what it was then: who
    /// uses it has to know.
    ///
    /// # Errors
    /// `Damaged` for a name without an IV.
    pub fn anywhere(&self, id: &BlobId, nonce: [u8; NONCE_BYTES]) -> Result<Anywhere> {
        let iv = blob_iv(id).map_err(|error| error.at(format!("decrypt blob {id}")))?;
        Ok(Anywhere { algorithm: self.algorithm(), key: self.item_key(&iv), nonce })
    }
}

/// Decrypts any part of one message, by the counter.
pub struct Anywhere {
    algorithm: Algorithm,
    key: Key,
    nonce: [u8; NONCE_BYTES],
}

impl Anywhere {
    /// Decrypts `bytes`, which lie at `at` in the message.
    ///
    /// # Errors
    /// `Damaged` beyond what the algorithm allows.
    pub fn apply(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let too_long = || Error::damaged("read an encrypted item beyond what its algorithm allows");
        if at.checked_add(bytes.len() as u64).is_none_or(|end| end > LENGTH_MAX) {
            return Err(too_long());
        }
        match self.algorithm {
            Algorithm::Aes256Gcm => {
                // As in `State::new`: the message starts with block 2, and the counter with block 1.
                let mut counter = [0; 16];
                counter[..NONCE_BYTES].copy_from_slice(&self.nonce);
                counter[15] = 1;
                let mut ctr = Ctr32BE::<Aes256>::new((&*self.key).into(), (&counter).into());
                ctr.try_seek(16 + at).map_err(|_| too_long())?;
                ctr.apply_keystream(bytes);
            }
            Algorithm::ChaCha20Poly1305 => {
                let mut stream = ChaCha20::new((&*self.key).into(), (&self.nonce).into());
                stream.try_seek(64 + at).map_err(|_| too_long())?;
                stream.apply_keystream(bytes);
            }
        }
        Ok(())
    }
}

fn open<R: Read, W: Write>(
    algorithm: Algorithm,
    key: &[u8; 32],
    aad: &[u8],
    mut stored: R,
    mut writer: W,
) -> Result<Verified<W>> {
    let damaged = |error: OpenError| Error::damaged("read an encrypted item").with_source(error);
    let mut nonce = [0; NONCE_BYTES];
    let got = fill(&mut stored, &mut nonce)?;
    if got < NONCE_BYTES {
        return Err(damaged(OpenError::Short(got)));
    }
    let mut state = State::new(algorithm, key, &nonce, aad);
    // The last bytes read may be the tag: they are held back until more follow.
    let mut buffer = Zeroizing::new(vec![0; CHUNK + TAG_BYTES]);
    let (mut held, mut length) = (0, 0u64);
    loop {
        let filled = held + fill(&mut stored, &mut buffer[held..])?;
        let is_last = filled < buffer.len();
        let Some(body) = filled.checked_sub(TAG_BYTES) else {
            return Err(damaged(OpenError::Short(filled + NONCE_BYTES)));
        };
        length = length.saturating_add(body as u64);
        if length > LENGTH_MAX {
            return Err(Error::damaged("read an encrypted item: it is longer than its algorithm allows"));
        }
        state.decrypt(&mut buffer[..body]);
        writer.write_all(&buffer[..body]).map_err(|error| failed("write decrypted bytes aside", error))?;
        if is_last {
            let tag = buffer.get(body..filled).unwrap_or_default();
            let holds: bool = state.tag(aad.len() as u64, length).ct_eq(tag).into();
            return if holds { Ok(Verified { writer, length, nonce }) } else { Err(damaged(OpenError::Tag)) };
        }
        buffer.copy_within(body..filled, 0);
        held = TAG_BYTES;
    }
}

/// The running cipher and authenticator of one message.
enum State {
    Gcm { ctr: Box<Ctr32BE<Aes256>>, hash: Box<GHash>, mask: [u8; TAG_BYTES] },
    ChaCha { stream: Box<ChaCha20>, hash: Box<Poly1305> },
}

impl State {
    fn new(algorithm: Algorithm, key: &[u8; 32], nonce: &[u8; NONCE_BYTES], aad: &[u8]) -> Self {
        match algorithm {
            Algorithm::Aes256Gcm => {
                let aes = Aes256::new(key.into());
                let mut hash_key = ghash::Key::default();
                aes.encrypt_block(&mut hash_key);
                let mut hash = Box::new(GHash::new(&hash_key));
                hash_key.zeroize();
                hash.update_padded(aad);
                // Block 1 masks the tag, the message starts with block 2 (NIST SP 800-38D, 7.1).
                let mut counter = [0; 16];
                counter[..NONCE_BYTES].copy_from_slice(nonce);
                counter[15] = 1;
                let mut ctr = Box::new(Ctr32BE::<Aes256>::new(key.into(), (&counter).into()));
                let mut mask = [0; TAG_BYTES];
                ctr.apply_keystream(&mut mask);
                Self::Gcm { ctr, hash, mask }
            }
            Algorithm::ChaCha20Poly1305 => {
                // Block 0 holds the authenticator's key, the message starts with block 1 (RFC 8439, 2.8).
                let mut stream = Box::new(ChaCha20::new(key.into(), nonce.into()));
                let mut hash_key = poly1305::Key::default();
                stream.apply_keystream(&mut hash_key);
                let mut hash = Box::new(Poly1305::new(&hash_key));
                hash_key.zeroize();
                hash.update_padded(aad);
                stream.seek(64u32);
                Self::ChaCha { stream, hash }
            }
        }
    }

    /// Every part but the last must be a multiple of the block sizes: each is padded for the authenticator.
    fn decrypt(&mut self, part: &mut [u8]) {
        match self {
            Self::Gcm { ctr, hash, .. } => {
                hash.update_padded(part);
                ctr.apply_keystream(part);
            }
            Self::ChaCha { stream, hash } => {
                hash.update_padded(part);
                stream.apply_keystream(part);
            }
        }
    }

    fn tag(self, aad_length: u64, length: u64) -> [u8; TAG_BYTES] {
        let lengths = |encode: fn(u64) -> [u8; 8], unit: u64| {
            let mut block = [0; 16];
            block[..8].copy_from_slice(&encode(aad_length * unit));
            block[8..].copy_from_slice(&encode(length * unit));
            block
        };
        match self {
            Self::Gcm { mut hash, mut mask, .. } => {
                hash.update(&[lengths(u64::to_be_bytes, 8).into()]);
                mask.iter_mut().zip(hash.finalize()).for_each(|(mask, byte)| *mask ^= byte);
                mask
            }
            Self::ChaCha { mut hash, .. } => {
                hash.update(&[lengths(u64::to_le_bytes, 1).into()]);
                hash.finalize().into()
            }
        }
    }
}

/// Reads until `buffer` is full or the source ends.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read an encrypted item", error)),
        }
    }
    Ok(filled)
}

/// An error of a stream: its own, if it carries one of ours.
fn failed(step: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error.at(step),
        Err(error) => {
            let kind = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
                io::ErrorKind::PermissionDenied => ErrorKind::Permission,
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorKind::Damaged,
                _ => ErrorKind::StoreUnavailable,
            };
            Error::new(kind, step).with_source(error)
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
