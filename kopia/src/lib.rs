//! The Kopia repository format: read it, check it, maintain it.

// From the bottom of a repository to its top.
pub mod bitmap;
pub mod clock;
pub mod error;

pub mod storage;

pub mod compression;
pub mod crypto;
pub mod ecc;
pub mod format;

pub mod repository;

pub mod content;
pub mod index;
pub mod index_set;
pub mod pack;
pub mod session;
pub mod splitter;

pub mod directory;
pub mod manifest;
pub mod object;
pub mod snapshot;

pub mod maintenance;
pub mod verify;

pub use error::{Error, ErrorKind, Result};
pub use repository::Repository;

/// Lower-case hexadecimal digits of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    ::hex::encode(bytes)
}
