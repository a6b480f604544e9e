//! Keyed hashing and authenticated encryption as the repository format uses them.

pub mod encryption;
pub mod hashing;
pub mod keys;
pub mod stream;

pub(crate) mod aead;

pub(crate) use aead::NONCE_BYTES;
pub use encryption::Cipher;
pub use hashing::Hasher;
pub use stream::Anywhere;
