//! Reads contents: ranged GET, decrypt, decompress.

use crate::compression::Decompressor;
use crate::content::{CompressionId, Entry};
use crate::crypto::encryption::Repaired;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;
use crate::storage::ByteRange;

/// Plaintext of the content that `entry` names, with one ranged GET. For many, use a [`ContentReader`].
///
/// # Errors
/// `Damaged` if the pack is missing or ends early, the tag does not hold, or decompression fails; storage errors.
pub fn read_content(repository: &Repository, entry: &Entry) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    ContentReader::new(repository).read_into(entry, &mut out)?;
    Ok(out)
}

/// Reads contents one after another, with the same contexts and buffers. One a thread.
pub struct ContentReader<'r> {
    repository: &'r Repository,
    decompressor: Decompressor,
    hash_check: HashCheck,
    out: Vec<u8>,
}

/// Whether the keyed hash of a plaintext is compared with its content ID. The tag already proves that whoever has the
/// repository's keys wrote these bytes for this ID; the hash proves that they also wrote the right ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashCheck {
    /// Trust the tag, as Kopia does.
    #[default]
    Skip,
    /// Hash every plaintext; `Damaged` if it is not the content's.
    Verify,
}

impl<'r> ContentReader<'r> {
    /// A reader that trusts tags.
    #[must_use]
    pub fn new(repository: &'r Repository) -> Self {
        Self { repository, decompressor: Decompressor::new(), hash_check: HashCheck::Skip, out: Vec::new() }
    }

    /// The same reader with this check.
    #[must_use]
    pub fn with_hash_check(mut self, hash_check: HashCheck) -> Self {
        self.hash_check = hash_check;
        self
    }

    /// The plaintext of `entry`'s content, valid until the next read.
    ///
    /// # Errors
    /// As [`read_content`].
    pub fn read(&mut self, entry: &Entry) -> Result<&[u8]> {
        let mut out = std::mem::take(&mut self.out);
        let result = self.read_into(entry, &mut out);
        self.out = out;
        result.map(|()| &self.out[..])
    }

    /// As [`ContentReader::read`], into a buffer of the caller (replaced; empty after an error).
    ///
    /// # Errors
    /// As [`read_content`].
    pub fn read_into(&mut self, entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let stored = fetch_stored(self.repository, entry)?;
        self.open(entry, &stored, out).map(drop)
    }

    /// As [`ContentReader::read_into`] for stored bytes already in memory. Tells whether ECC had to repair them.
    ///
    /// # Errors
    /// As [`open_content`]; `Damaged` if the hash is checked and is another.
    pub fn open(&mut self, entry: &Entry, stored: &[u8], out: &mut Vec<u8>) -> Result<Repaired> {
        let repaired = open_content(self.repository, entry, stored, &mut self.decompressor, out)?;
        if self.hash_check == HashCheck::Verify && self.repository.hasher().hash(out) != *entry.id.hash() {
            out.clear();
            return Err(Error::damaged(format!(
                "check content {} in pack {}: its bytes have another hash",
                entry.id, entry.pack
            )));
        }
        Ok(repaired)
    }
}

/// The stored bytes of `entry`'s content, with one ranged GET: to be opened, or copied verbatim.
///
/// # Errors
/// `Damaged` if the pack is missing or ends early; storage errors.
pub fn fetch_stored(repository: &Repository, entry: &Entry) -> Result<bytes::Bytes> {
    let range = ByteRange::Span { offset: u64::from(entry.offset), length: u64::from(entry.packed_length) };
    repository.storage().get(&entry.pack, range).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            // An index names it, so its absence is damage of the repository, not an answer.
            let step = format!("read content {}: its pack {} is missing", entry.id, entry.pack);
            error.into_kind(ErrorKind::Damaged).at(step)
        } else {
            error.at(format!("read content {} from pack {}", entry.id, entry.pack))
        }
    })
}

/// Plaintext of the content whose stored bytes are in memory, into `out` (replaced; empty after an error). Tells whether
/// ECC had to repair them.
///
/// # Errors
/// `Damaged` if the tag does not hold, or decompression does not give the recorded length; `Unsupported` for an unknown
/// compression.
pub fn open_content(
    repository: &Repository,
    entry: &Entry,
    stored: &[u8],
    decompressor: &mut Decompressor,
    out: &mut Vec<u8>,
) -> Result<Repaired> {
    let cipher = repository.cipher();
    let iv = entry.id.hash().iv();
    let opened = if entry.compression == CompressionId(0) {
        cipher.open_into(iv, stored, out).and_then(|repaired| {
            plain_length_holds(repository, entry, out.len())?;
            Ok(repaired)
        })
    } else {
        let mut packed = std::mem::take(&mut decompressor.scratch);
        let opened = cipher.open_into(iv, stored, &mut packed).and_then(|repaired| {
            let original_length = usize::try_from(entry.original_length).unwrap_or(usize::MAX);
            decompressor.decompress(entry.compression, &packed, original_length, out)?;
            Ok(repaired)
        });
        decompressor.scratch = packed;
        opened
    };
    opened.map_err(|error| {
        out.clear();
        error.at(format!("open content {} at {} of pack {}", entry.id, entry.offset, entry.pack))
    })
}

/// Version 1 indexes do not record the plain length; it is counted back from the stored one, which ECC makes longer. So with
/// ECC there is nothing to compare.
fn plain_length_holds(repository: &Repository, entry: &Entry, length: usize) -> Result<()> {
    if repository.cipher().ecc().is_some() || u32::try_from(length) == Ok(entry.original_length) {
        return Ok(());
    }
    Err(Error::damaged(format!("the index says {} bytes, there are {length}", entry.original_length)))
}
