//! Reads a part in bounded memory. What it gives out was opened with the repository's key; that it is whole, and what was reported, is
//! known only once [`PartReader::finish`] says so.

use std::sync::Arc;

use bytes::Bytes;
use verger_kopia::mutant::{self, Mutant};
use verger_kopia::storage::{BlobId, ByteRange, Storage};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::id::{CycleId, RepositoryId};
use verger_proto::job::OutputRef;
use verger_proto::{Digest, Shard};

use super::error::PartError;
use super::name::{PartKind, PartName};
use super::seal::{END_BYTES, ExchangeKey, FRAME_BYTES, Frames, HEAD_BYTES_MAX, Head, MAGIC, STORED_FRAME_BYTES_MAX};

/// Stored bytes asked for at once.
const READ_BYTES: u64 = 4 << 20;
/// The end of a part is asked for first: of most it is all, and then nothing else is asked.
const LAST_BYTES: u64 = 1 << 20;

/// What a part must be.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The repository with its store.
    pub repository: RepositoryId,
    /// The cycle.
    pub cycle: CycleId,
    /// What it holds.
    pub kind: PartKind,
    /// Its name.
    pub name: String,
    /// Digest, records and view, as they were reported; `None` for what nobody reported, which only its seal speaks for.
    pub reported: Option<OutputRef>,
}

/// Where stored bytes come from.
enum Source {
    Bytes(Bytes),
    Blob { storage: Arc<dyn Storage>, blob: BlobId },
}

/// A part that is being read.
pub struct PartReader {
    source: Source,
    /// Stored bytes in all, and how many of them were taken.
    length: u64,
    taken: u64,
    window: Bytes,
    frames: Frames,
    shard: Shard,
    expected: Expected,
    decompressor: zstd::bulk::Decompressor<'static>,
    plain: Vec<u8>,
    at: usize,
    number: u64,
    /// Bytes of records that were opened.
    opened: u64,
    end: Option<(u64, u64)>,
    /// Only ever of a mutant.
    is_absent: bool,
    count: u64,
    digest: blake3::Hasher,
}

impl PartReader {
    /// Opens a part of `storage`, and looks at its head.
    ///
    /// # Errors
    /// Those of [`PartError`]; storage errors.
    pub(super) fn open(storage: &Arc<dyn Storage>, key: &ExchangeKey, expected: Expected) -> Result<Self> {
        let blob = PartName::blob(&expected.name);
        let failed = |error: Error| match error.kind() {
            ErrorKind::NotFound => PartError::Missing.at(read_step(&expected.name)),
            _ => error.at(read_step(&expected.name)),
        };
        let last = storage.get(&blob, ByteRange::Last(LAST_BYTES)).map_err(failed)?;
        if (last.len() as u64) < LAST_BYTES {
            let length = last.len() as u64;
            return Self::new(Source::Bytes(last), length, key, expected);
        }
        let length = storage.head(&blob).map_err(failed)?.length;
        Self::new(Source::Blob { storage: storage.clone(), blob }, length, key, expected)
    }

    /// The same of bytes in memory.
    ///
    /// # Errors
    /// Those of [`PartError`].
    pub fn of_bytes(stored: &[u8], key: &ExchangeKey, expected: Expected) -> Result<Self> {
        let bytes = Bytes::copy_from_slice(stored);
        Self::new(Source::Bytes(bytes), stored.len() as u64, key, expected)
    }

    fn new(source: Source, length: u64, key: &ExchangeKey, expected: Expected) -> Result<Self> {
        let internal = |error| Error::new(ErrorKind::Internal, "decompress a part of the exchange").with_source(error);
        let decompressor = zstd::bulk::Decompressor::new().map_err(internal)?;
        let mut reader = Self {
            source,
            length,
            taken: 0,
            window: Bytes::new(),
            frames: Frames::new(key, &[]),
            shard: Shard::whole(),
            expected,
            decompressor,
            plain: Vec::new(),
            at: 0,
            number: 0,
            opened: 0,
            end: None,
            is_absent: false,
            count: 0,
            digest: blake3::Hasher::new(),
        };
        if length == 0 && mutant::on(Mutant::R12EmptyPartIsNothing) {
            (reader.end, reader.is_absent) = (Some((0, 0)), true);
            return Ok(reader);
        }
        let before = reader.stored(MAGIC.len() + 2)?;
        let Some((&[high, low], true)) = before.last_chunk::<2>().map(|last| (last, before.starts_with(MAGIC))) else {
            return Err(reader.fail(PartError::Head));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > HEAD_BYTES_MAX {
            return Err(reader.fail(PartError::Head));
        }
        let text = reader.stored(length)?;
        let head = Head::parse(&text).map_err(|error| reader.fail(error))?;
        reader.shard = reader.check_head(&head).map_err(|error| reader.fail(error))?;
        reader.frames = Frames::new(key, &[&before[..], &text].concat());
        Ok(reader)
    }

    /// Everything is said first: a part that is somebody else's is named as that, and not as damage.
    fn check_head(&self, head: &Head) -> Result<Shard, PartError> {
        let Expected { repository, cycle, kind, name, reported } = &self.expected;
        if head.repository != repository.to_string() {
            return Err(PartError::OtherRepository);
        }
        if head.cycle != cycle.0 {
            return Err(PartError::OtherCycle(head.cycle));
        }
        if head.kind != kind.label() {
            return Err(PartError::OtherKind(head.kind.clone()));
        }
        let parsed = PartName::parse(name).ok_or(PartError::Head)?;
        if head.attempt != parsed.attempt {
            return Err(PartError::OtherAttempt(head.attempt));
        }
        if head.name != *name {
            return Err(PartError::OtherName(head.name.clone()));
        }
        if reported.as_ref().is_some_and(|reported| head.view != reported.view.to_string()) {
            return Err(PartError::OtherView);
        }
        let key = |text: &String| hex::decode(text).map_err(|_| PartError::Head);
        Ok(Shard { from: key(&head.from)?, to: head.to.as_ref().map(key).transpose()? })
    }

    /// The keys that it was made for.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// A failure of this part.
    #[must_use]
    pub fn fail(&self, error: PartError) -> Error {
        error.at(read_step(&self.expected.name))
    }

    /// A failure of the record in hand.
    #[must_use]
    pub fn bad(&self, what: &'static str) -> Error {
        self.fail(PartError::Record { number: self.count, what })
    }

    /// The next stored bytes.
    fn stored(&mut self, count: usize) -> Result<Bytes> {
        let left = self.length - self.taken;
        if count as u64 > left {
            return Err(self.fail(PartError::Truncated));
        }
        if self.window.len() < count {
            self.fetch(count as u64)?;
        }
        let bytes = self.window.split_to(count);
        self.taken += count as u64;
        self.digest.update(&bytes);
        Ok(bytes)
    }

    fn fetch(&mut self, count: u64) -> Result<()> {
        let fetched = match &self.source {
            Source::Bytes(bytes) => {
                self.window = bytes.slice(usize::try_from(self.taken).unwrap_or(usize::MAX)..);
                return Ok(());
            }
            Source::Blob { storage, blob } => {
                let length = READ_BYTES.max(count).min(self.length - self.taken);
                storage.get(blob, ByteRange::Span { offset: self.taken, length })
            }
        };
        match fetched {
            Ok(bytes) if bytes.len() as u64 >= count => self.window = bytes,
            Ok(_) => return Err(self.fail(PartError::Truncated)),
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(self.fail(PartError::Missing)),
            Err(error) if error.kind() == ErrorKind::Damaged => return Err(self.fail(PartError::Truncated)),
            Err(error) => return Err(error.at(read_step(&self.expected.name))),
        }
        Ok(())
    }

    /// Opens the next frame. False at the end.
    fn next_frame(&mut self) -> Result<bool> {
        if self.end.is_some() {
            return Ok(false);
        }
        let length = self.stored(4)?;
        let length = length.first_chunk::<4>().map_or(usize::MAX, |bytes| u32::from_be_bytes(*bytes) as usize);
        if length > STORED_FRAME_BYTES_MAX {
            return Err(self.fail(PartError::Frame(self.number)));
        }
        let sealed = self.stored(length)?;
        // Nothing but the end stands at the end.
        let is_last = self.taken == self.length;
        let opened = self.frames.open(self.number, is_last, &sealed);
        if opened.is_err() && mutant::on(Mutant::R12UndecryptableIsAbsent) {
            (self.end, self.is_absent) = (Some((0, 0)), true);
            return Ok(false);
        }
        let opened = match opened {
            Ok(opened) => opened,
            // A last frame with something behind it, or another one where the rest was cut off.
            Err(_) if !is_last && self.frames.open(self.number, true, &sealed).is_ok() => {
                return Err(self.fail(PartError::Overlong));
            }
            Err(_) if is_last && self.frames.open(self.number, false, &sealed).is_ok() => {
                return Err(self.fail(PartError::Truncated));
            }
            Err(error) => return Err(self.fail(error)),
        };
        if is_last {
            return self.read_end(&opened);
        }
        self.plain =
            self.decompressor.decompress(&opened, FRAME_BYTES).map_err(|_| self.fail(PartError::Frame(self.number)))?;
        self.at = 0;
        self.opened += self.plain.len() as u64;
        self.number += 1;
        Ok(true)
    }

    fn read_end(&mut self, opened: &[u8]) -> Result<bool> {
        let numbers = opened.as_chunks::<8>();
        let ([count, length], true) = (numbers.0, opened.len() == END_BYTES) else {
            return Err(self.fail(PartError::Frame(self.number)));
        };
        self.end = Some((u64::from_be_bytes(*count), u64::from_be_bytes(*length)));
        Ok(false)
    }

    /// Whether nothing more comes.
    ///
    /// # Errors
    /// Those of [`PartError`]; storage errors.
    pub fn is_at_end(&mut self) -> Result<bool> {
        while self.at == self.plain.len() {
            if !self.next_frame()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fills `out` from the records.
    ///
    /// # Errors
    /// As [`PartReader::is_at_end`]; there is less.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < out.len() {
            if self.is_at_end()? {
                return Err(self.bad("it ends early"));
            }
            let now = (out.len() - filled).min(self.plain.len() - self.at);
            out[filled..filled + now].copy_from_slice(&self.plain[self.at..self.at + now]);
            self.at += now;
            filled += now;
        }
        Ok(())
    }

    /// A record was read whole.
    pub fn counted(&mut self) {
        self.count += 1;
    }

    /// Makes sure that this was all of it, and what was reported (R12). Reads on to the end first.
    ///
    /// # Errors
    /// Those of [`PartError`]; storage errors.
    pub fn finish(mut self) -> Result<()> {
        if !self.is_at_end()? {
            return Err(self.bad("there is more than was read"));
        }
        let (count, length) = self.end.unwrap_or_default();
        if self.is_absent || count == 0 && mutant::on(Mutant::R12EmptyPartIsNothing) {
            return Ok(());
        }
        if (count, length) != (self.count, self.opened) {
            return Err(self.bad("there are not as many as its end says"));
        }
        let Some(reported) = &self.expected.reported else { return Ok(()) };
        if count != reported.count {
            return Err(self.fail(PartError::Count { expected: reported.count, found: count }));
        }
        if Digest(*self.digest.finalize().as_bytes()) != reported.digest {
            return Err(self.fail(PartError::Digest));
        }
        Ok(())
    }
}

fn read_step(name: &str) -> String {
    format!("read part {name} of the exchange")
}
