//! The two AEAD algorithms of contents, and the AES-GCM of format blobs. Messages are `nonce[12] ‖ ciphertext ‖ tag[16]`.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;
use rand::RngCore as _;

/// Bytes of nonce before a message.
pub(crate) const NONCE_BYTES: usize = 12;
/// Bytes of tag after a message.
pub(crate) const TAG_BYTES: usize = 16;
/// What sealing adds.
pub(crate) const OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;

/// Which AEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305 with a nonce of 12 bytes.
    ChaCha20Poly1305,
}

/// The message is shorter than nonce and tag, or its tag does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// Too short.
    #[error("{0} bytes are too few for an encrypted item")]
    Short(usize),
    /// Changed after it was written, or another key or name.
    #[error("its authentication tag does not hold")]
    Tag,
}

/// Appends the plaintext of `message` to `out`. On an error `out` is as it was: nothing unverified can be seen.
pub(crate) fn open(
    algorithm: Algorithm,
    key: &[u8; 32],
    aad: &[u8],
    message: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), OpenError> {
    let short = || OpenError::Short(message.len());
    let (nonce, rest) = message.split_first_chunk::<NONCE_BYTES>().ok_or_else(short)?;
    let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(short)?;
    let start = out.len();
    out.extend_from_slice(ciphertext);
    let buffer = InOutBuf::from(&mut out[start..]);
    let (nonce, tag) = (nonce.into(), tag.into());
    // Both crates check the tag over the ciphertext before they touch the buffer.
    let opened = match algorithm {
        Algorithm::Aes256Gcm => Aes256Gcm::new(key.into()).decrypt_inout_detached(nonce, aad, buffer, tag),
        Algorithm::ChaCha20Poly1305 => {
            ChaCha20Poly1305::new(key.into()).decrypt_inout_detached(nonce, aad, buffer, tag)
        }
    };
    if opened.is_err() {
        out.truncate(start);
        return Err(OpenError::Tag);
    }
    Ok(())
}

/// Encrypts with a fresh random nonce.
pub(crate) fn seal(algorithm: Algorithm, key: &[u8; 32], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_BYTES];
    rand::rng().fill_bytes(&mut nonce);
    let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(plain);
    let buffer = InOutBuf::from(&mut out[NONCE_BYTES..]);
    let nonce = (&nonce).into();
    let tag = match algorithm {
        Algorithm::Aes256Gcm => Aes256Gcm::new(key.into()).encrypt_inout_detached(nonce, aad, buffer),
        Algorithm::ChaCha20Poly1305 => ChaCha20Poly1305::new(key.into()).encrypt_inout_detached(nonce, aad, buffer),
    };
    out.extend_from_slice(&tag.expect("messages in memory are far below the 64 GiB limit"));
    out
}
