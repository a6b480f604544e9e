//! Writes a part: records into frames, and all of it into the exchange at once, so that half of one never counts.

use bytes::Bytes;
use verger_kopia::spill::{SpillFile, SpillFolder};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::job::OutputRef;
use verger_proto::{Digest, Shard};

use super::error::PartError;
use super::name::{PartKind, PartName};
use super::seal::{FRAME_BYTES, Frames, Head};
use super::{Parts, once};
use crate::limit::MemoryLimit;

/// Stored bytes held in memory; more go into a file until the part is whole.
const MEMORY_MAX: usize = 4 << 20;

/// Frames are compressed for speed: what they hold most of, hashes, does not compress.
const ZSTD_LEVEL: i32 = 1;

/// A part in the making.
pub struct PartWriter {
    parts: Parts,
    name: String,
    view: Digest,
    frames: Frames,
    compressor: zstd::bulk::Compressor<'static>,
    plain: Vec<u8>,
    number: u64,
    count: u64,
    length: u64,
    stored: Stored,
    digest: blake3::Hasher,
}

/// Where stored bytes wait.
struct Stored {
    memory: Vec<u8>,
    file: Option<SpillFile>,
    folder: SpillFolder,
}

impl Stored {
    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.memory.extend_from_slice(bytes);
        if self.memory.len() <= MEMORY_MAX {
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(self.folder.file()?),
        };
        file.append(&self.memory)?;
        self.memory.clear();
        Ok(())
    }

    /// All of it, in memory.
    fn whole(self) -> Result<Vec<u8>> {
        let Some(file) = self.file else { return Ok(self.memory) };
        let aside = usize::try_from(file.length()).unwrap_or(usize::MAX);
        let mut whole = vec![0; aside];
        file.read(&mut whole, 0)?;
        whole.extend_from_slice(&self.memory);
        Ok(whole)
    }

    fn length(&self) -> u64 {
        self.memory.len() as u64 + self.file.as_ref().map_or(0, SpillFile::length)
    }
}

impl PartWriter {
    pub(super) fn new(
        parts: Parts,
        kind: PartKind,
        shard: &Shard,
        attempt: u32,
        view: Digest,
        folder: &SpillFolder,
    ) -> Result<Self> {
        let name = PartName::new(&parts.repository, parts.cycle, kind, shard, attempt).to_string();
        let head = Head {
            version: Head::version(),
            repository: parts.repository.to_string(),
            cycle: parts.cycle.0,
            kind: kind.label().to_owned(),
            attempt,
            name: name.clone(),
            view: view.to_string(),
            from: hex::encode(&shard.from),
            to: shard.to.as_ref().map(hex::encode),
            salt: hex::encode(rand::random::<[u8; 16]>()),
        };
        let head = head.bytes().map_err(|error| error.at(format!("write part {name} of the exchange")))?;
        let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)
            .map_err(|error| Error::new(ErrorKind::Internal, "compress a part of the exchange").with_source(error))?;
        let mut stored = Stored { memory: Vec::new(), file: None, folder: folder.clone() };
        stored.add(&head)?;
        let mut digest = blake3::Hasher::new();
        digest.update(&head);
        let (frames, plain) = (Frames::new(&parts.key, &head), Vec::with_capacity(FRAME_BYTES));
        let (number, count, length) = (0, 0, 0);
        Ok(Self { parts, name, view, frames, compressor, plain, number, count, length, stored, digest })
    }

    /// One more record.
    ///
    /// # Errors
    /// `DiskFull`: what waits to be stored has no room.
    pub fn record(&mut self, record: &[u8]) -> Result<()> {
        self.count += 1;
        self.length += record.len() as u64;
        let mut rest = record;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(FRAME_BYTES - self.plain.len()));
            self.plain.extend_from_slice(now);
            rest = later;
            if self.plain.len() == FRAME_BYTES {
                self.close_frame()?;
            }
        }
        Ok(())
    }

    /// Records so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    fn close_frame(&mut self) -> Result<()> {
        let packed = self.compressor.compress(&self.plain).map_err(|error| self.failed(error))?;
        self.plain.clear();
        self.add_frame(false, &packed)
    }

    fn add_frame(&mut self, is_last: bool, plain: &[u8]) -> Result<()> {
        let sealed = self.frames.seal(self.number, is_last, plain).map_err(|error| self.at(error))?;
        self.number += 1;
        let length = u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_be_bytes();
        for bytes in [&length[..], &sealed] {
            self.digest.update(bytes);
            self.stored.add(bytes)?;
        }
        Ok(())
    }

    /// Stores the part. Before this returns, nothing of it is there for anybody.
    ///
    /// # Errors
    /// `DiskFull`, `StoreUnavailable`, `Permission`.
    pub fn finish(mut self, memory: &MemoryLimit) -> Result<OutputRef> {
        if !self.plain.is_empty() {
            self.close_frame()?;
        }
        let end = [self.count.to_be_bytes(), self.length.to_be_bytes()].concat();
        self.add_frame(true, &end)?;
        let _grant = memory.grant(self.stored.length());
        let step = format!("write part {} of the exchange at {}", self.name, self.parts.exchange.address());
        let data = Bytes::from(self.stored.whole()?);
        let storage = &self.parts.exchange.storage;
        storage.put(&PartName::blob(&self.name), data, &once(&**storage)).map_err(|error| match error.kind() {
            // The answer to a first request was lost: nobody knows the name, the next attempt takes another.
            ErrorKind::PreconditionFailed => error.into_kind(ErrorKind::StoreUnavailable).at(step),
            // What the store says of room is said of a repository's.
            ErrorKind::DiskFull => {
                error.at(step).with_fix("make room where the exchange is (--exchange); the repository lacks none")
            }
            _ => error.at(step),
        })?;
        let digest = Digest(*self.digest.finalize().as_bytes());
        Ok(OutputRef { name: self.name, digest, count: self.count, view: self.view })
    }

    fn at(&self, error: PartError) -> Error {
        error.at(format!("write part {} of the exchange", self.name))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::new(ErrorKind::Internal, format!("write part {} of the exchange", self.name)).with_source(error)
    }
}
