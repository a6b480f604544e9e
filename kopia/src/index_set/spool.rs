//! Decrypts index blobs into a private temporary file, which is used only after their tags hold (R26). Those on a local disk stay
//! where they are.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::fetch::{for_each_of, unreadable};
use super::sealed::SealedIndex;
use crate::error::{Error, ErrorKind, Result};
use crate::index::SpooledIndex;
use crate::repository::Repository;
use crate::spill::{SpillFile, SpillFolder};
use crate::storage::{BlobId, BlobMetadata, ByteRange};

/// Bytes of one request: a blob may be hundreds of megabytes, and is never whole in memory.
const REQUEST: u64 = 1 << 20;

/// Reads, decrypts and checks index blobs one by one in `threads` threads; results in the order of `blobs`, whose lengths count.
///
/// # Errors
/// As [`fetch_indexes`](super::fetch_indexes); `DiskFull`.
pub(super) fn spool_indexes(
    repository: &Repository,
    blobs: &[BlobMetadata],
    folder: &SpillFolder,
    threads: usize,
) -> Result<Vec<SpooledIndex>> {
    if repository.storage().capabilities().local_disk && repository.cipher().ecc().is_none() {
        return for_each_of(blobs, threads, |blob| {
            let opened = SealedIndex::open(repository, blob).and_then(|sealed| {
                let length = sealed.length();
                SpooledIndex::open(Arc::new(sealed), 0, length, repository.hasher().length())
            });
            opened.map_err(|error| unreadable(error, &blob.id))
        });
    }
    let file = folder.file()?;
    for_each_of(blobs, threads, |blob| spool(repository, blob, &file).map_err(|error| unreadable(error, &blob.id)))
}

fn spool(repository: &Repository, blob: &BlobMetadata, file: &SpillFile) -> Result<SpooledIndex> {
    // What encryption and error correction add makes it no shorter.
    let at = file.reserve(blob.length);
    let stored = StoredBlob::new(repository, blob);
    let plain = file.writer(at, blob.length);
    let cipher = repository.cipher();
    let verified = match cipher.ecc() {
        None => cipher.open_blob_stream(&blob.id, stored, plain)?,
        Some(ecc) => cipher.open_blob_stream(&blob.id, ecc.reader(stored, blob.length), plain)?,
    };
    let length = verified.length();
    SpooledIndex::open(Arc::new(file.clone()), at, length, repository.hasher().length())
}

/// A blob, read span by span.
pub(super) struct StoredBlob<'a> {
    repository: &'a Repository,
    id: &'a BlobId,
    length: u64,
    at: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> StoredBlob<'a> {
    pub(super) fn new(repository: &'a Repository, blob: &'a BlobMetadata) -> Self {
        Self { repository, id: &blob.id, length: blob.length, at: 0, buffer: Vec::new(), buffer_at: 0 }
    }
}

impl Read for StoredBlob<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let inside = |at: u64, buffer: &[u8], from: u64| {
            at.checked_sub(from).and_then(|skip| usize::try_from(skip).ok()).filter(|skip| *skip < buffer.len())
        };
        if out.is_empty() || self.at >= self.length {
            return Ok(0);
        }
        let skip = match inside(self.at, &self.buffer, self.buffer_at) {
            Some(skip) => skip,
            None => {
                let length = REQUEST.min(self.length - self.at);
                // The old span goes before the new one comes.
                self.buffer = Vec::new();
                let bytes = self.repository.storage().get(self.id, ByteRange::Span { offset: self.at, length });
                self.buffer = bytes.map_err(io::Error::other)?.into();
                self.buffer_at = self.at;
                if self.buffer.is_empty() {
                    return Err(io::Error::other(Error::damaged(format!("{} ends early", self.id))));
                }
                0
            }
        };
        let rest = &self.buffer[skip..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for StoredBlob<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::other(Error::new(ErrorKind::Internal, "seek before a blob")))?;
        Ok(self.at)
    }
}
