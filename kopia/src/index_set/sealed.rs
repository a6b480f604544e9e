//! An index blob on a local disk, decrypted again wherever it is looked into: a second copy of it would cost more.
//!
//! Its tag is checked once, over all of it (R26). Each part that is read afterwards must be what it was then, by a digest.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::spool::StoredBlob;
use crate::crypto::{Anywhere, NONCE_BYTES};
use crate::error::{Error, Result};
use crate::index::Plaintext;
use crate::repository::Repository;
use crate::storage::{BlobId, BlobMetadata, ByteRange};

/// Bytes that have a digest of their own.
const PART: usize = 64 << 10;

/// An index blob whose tag held.
pub(super) struct SealedIndex {
    repository: Repository,
    id: BlobId,
    length: u64,
    cipher: Anywhere,
    digests: Vec<blake3::Hash>,
    /// The last part of the last read, with its number: the next read mostly begins in it.
    last: Mutex<Option<(usize, Vec<u8>)>>,
}

impl SealedIndex {
    /// Reads all of it and checks its tag.
    ///
    /// # Errors
    /// As [`Cipher::open_blob_stream`](crate::crypto::Cipher::open_blob_stream).
    pub(super) fn open(repository: &Repository, blob: &BlobMetadata) -> Result<Self> {
        let stored = StoredBlob::new(repository, blob);
        let verified = repository.cipher().open_blob_stream(&blob.id, stored, Digests::default())?;
        let (length, nonce) = (verified.length(), verified.nonce());
        let cipher = repository.cipher().anywhere(&blob.id, nonce)?;
        let (repository, id, digests) = (repository.clone(), blob.id.clone(), verified.into_inner().finish());
        Ok(Self { repository, id, length, cipher, digests, last: Mutex::default() })
    }

    /// Bytes of plaintext.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Decrypts a span.
    fn span(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let stored = ByteRange::Span { offset: NONCE_BYTES as u64 + offset, length };
        let mut bytes: Vec<u8> = self.repository.storage().get(&self.id, stored)?.into();
        self.cipher.apply(offset, &mut bytes)?;
        Ok(bytes)
    }

    fn end_of(&self, at: u64, wanted: usize) -> Result<u64> {
        let end = at.checked_add(wanted as u64).filter(|end| *end <= self.length);
        end.ok_or_else(|| Error::damaged(format!("{} ends early", self.id)))
    }
}

impl Plaintext for SealedIndex {
    fn read(&self, mut out: &mut [u8], at: u64) -> Result<()> {
        let end = self.end_of(at, out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (mut number, mut skip) =
            (usize::try_from(at / PART as u64).unwrap_or(usize::MAX), (at % PART as u64) as usize);
        if let Some((_, part)) = last.as_ref().filter(|(known, _)| *known == number) {
            let count = out.len().min(part.len().saturating_sub(skip));
            out[..count].copy_from_slice(&part[skip..skip + count]);
            out = &mut out[count..];
            (number, skip) = (number + 1, 0);
        }
        if !out.is_empty() {
            let from = number as u64 * PART as u64;
            let to = (end.div_ceil(PART as u64) * PART as u64).min(self.length);
            let bytes = self.span(from, to - from)?;
            for (place, part) in bytes.chunks(PART).enumerate() {
                if self.digests.get(number + place) != Some(&blake3::hash(part)) {
                    return Err(Error::damaged(format!("index blob {} changed while it was read", self.id)));
                }
            }
            let wanted = bytes.get(skip..skip + out.len());
            out.copy_from_slice(wanted.ok_or_else(|| Error::damaged(format!("{} ends early", self.id)))?);
            let tail = (bytes.len() - 1) / PART;
            last = Some((number + tail, bytes[tail * PART..].to_vec()));
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        Ok(())
    }

    fn peek(&self, out: &mut [u8], at: u64) -> Result<()> {
        self.end_of(at, out.len())?;
        let bytes = self.span(at, out.len() as u64)?;
        out.copy_from_slice(bytes.get(..out.len()).ok_or_else(|| Error::damaged(format!("{} ends early", self.id)))?);
        Ok(())
    }
}

/// Takes plaintext and keeps the digest of each part.
#[derive(Default)]
struct Digests {
    done: Vec<blake3::Hash>,
    part: blake3::Hasher,
    filled: usize,
}

impl Digests {
    fn finish(mut self) -> Vec<blake3::Hash> {
        if self.filled > 0 {
            self.done.push(self.part.finalize());
        }
        self.done
    }
}

impl Write for Digests {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(PART - self.filled));
            self.part.update(piece);
            self.filled += piece.len();
            if self.filled == PART {
                self.done.push(self.part.finalize());
                self.part.reset();
                self.filled = 0;
            }
            rest = after;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::clock::Clock as _;
    use crate::index_set::load_view;
    use crate::index_set::testing::golden;
    use crate::storage::{PutOptions, Storage as _};

    #[test]
    fn every_span_is_that_of_the_whole_and_a_changed_byte_is_found() {
        for name in ["default", "chacha-blake3"] {
            let golden = golden(name);
            let plain: Vec<u8> = (0..3 * PART as u32 + 1000).map(|n| (n % 251) as u8).collect();
            let (repository, store) = (&golden.repository, &golden.store.memory);
            let (cipher, hasher) = (repository.cipher(), repository.hasher());
            let (id, sealed) = cipher.seal_blob(hasher, "xn0_", "-c1", &plain).unwrap();
            store.put(&id, sealed.clone(), &PutOptions::default()).unwrap();
            let index = SealedIndex::open(repository, &store.head(&id).unwrap()).unwrap();
            assert_eq!(index.length(), plain.len() as u64);
            let check = |at: usize, length: usize| {
                for read in [SealedIndex::read, SealedIndex::peek] {
                    let mut out = vec![0; length];
                    read(&index, &mut out, at as u64).unwrap();
                    assert_eq!(out, plain[at..at + length], "{name} {at}+{length}");
                }
            };
            for at in [0, 1, 15, PART - 1, PART, 2 * PART + 17, 3 * PART + 990] {
                [0, 1, 10, 16, PART, PART + 1, 2 * PART + 5, plain.len()]
                    .into_iter()
                    .filter(|length| at + length <= plain.len())
                    .for_each(|length| check(at, length));
            }
            // In order, as entries are gone through: each read begins in the part that the one before ended in.
            (0..plain.len() / 1000).for_each(|piece| check(piece * 1000, 1000));
            let beyond = index.read(&mut [0; 2], plain.len() as u64 - 1);
            assert_eq!(beyond.unwrap_err().kind(), ErrorKind::Damaged);
            let mut bent = sealed.to_vec();
            bent[NONCE_BYTES + PART + 5] ^= 1;
            store.put_at(&id, bent.into(), golden.clock.now());
            let mut out = vec![0; 10];
            assert!(index.read(&mut out, 2 * PART as u64).is_ok(), "another part");
            let changed = index.read(&mut out, PART as u64 + 100).unwrap_err();
            assert!(changed.kind() == ErrorKind::Damaged && changed.chain().contains("changed"), "{}", changed.chain());
        }
    }

    #[test]
    fn an_index_that_changes_between_looking_and_reading_is_damage() {
        let golden = golden("default");
        golden.store.is_local.store(true, std::sync::atomic::Ordering::Relaxed);
        let view = load_view(&golden.repository, 1).unwrap();
        let id = view.blobs.iter().max_by_key(|blob| blob.length).unwrap().id.clone();
        let good = golden.store.memory.contents()[&id].clone();
        let (mut reads, at) = (0, id.clone());
        golden.store.on_request(move |request, memory| {
            if request == format!("get {at}") {
                reads += 1;
                // The tag was checked by then, and the entries were gone through.
                if reads == 3 {
                    let bent: Vec<u8> = good.iter().map(|byte| byte ^ 0x55).collect();
                    memory.put_at(&at, bent.into(), memory.now().unwrap());
                }
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let aside = crate::index_set::Aside {
            folder: crate::spill::SpillFolder::new(folder.path()),
            at_once: 7,
            place: crate::index::Place::Memory,
            requests: 1,
        };
        let error = crate::index_set::load_view_aside(&golden.repository, 1, &aside).unwrap_err();
        assert!(error.kind() == ErrorKind::Damaged && error.chain().contains(id.as_str()), "{}", error.chain());
    }
}
