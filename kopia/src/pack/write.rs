//! Fills a pack. Writing it to the store, with the retention that the repository asks for, is the caller's deed.

use crate::mutant::{self, Mutant};
use std::fmt;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngCore;
use sha2::Sha256;

use crate::compression::{ZSTD_FASTEST, compress_zstd_fastest};
use crate::content::{CompressionId, ContentId, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::index::write::{BuildOptions, build};
use crate::pack::Postamble;
use crate::repository::Repository;
use crate::session::SessionId;
use crate::storage::BlobId;

const PREAMBLE_LENGTH: usize = 32;
const PADDING_UNIT: usize = 4096;
const PACK_SIZE_DEFAULT: u64 = 20 << 20;
const ROOM_MAX: usize = 64 << 20;
/// Kopia's writers keep offsets and lengths of version 2 entries below these.
const OFFSET_MAX: usize = (1 << 30) - 1;
const LENGTH_MAX: usize = (1 << 28) - 1;
/// Key of the replica's checksum, and the most bytes it may cover (`repo/format/format_blob.go`).
const REPLICA_KEY: &[u8] = b"kopia-repository";
const REPLICA_MAX: usize = 65_000;

/// A pack that is being filled. Nothing is visible until it is stored, and then until an index names it.
pub struct PackWriter {
    letter: char,
    close_at: usize,
    data: Vec<u8>,
    entries: Vec<Entry>,
    has_content: bool,
    /// Plaintext of what is being checked; kept to allocate once.
    scratch: Vec<u8>,
}

impl PackWriter {
    /// An empty pack of this letter (`p` or `q`, see [`ContentId::pack_letter`]).
    ///
    /// # Errors
    /// `Unsupported` if the format blob is too long for its replica.
    pub fn new(repository: &Repository, letter: char) -> Result<Self> {
        let config = repository.config();
        let size = if config.max_pack_size == 0 { PACK_SIZE_DEFAULT } else { config.max_pack_size };
        let close_at = usize::try_from(size).unwrap_or(OFFSET_MAX).min(OFFSET_MAX);
        // Room for all of it: memory that is not written to costs nothing, growing would hold the pack twice.
        let mut data = Vec::with_capacity(close_at.min(ROOM_MAX));
        if !config.enable_password_change {
            append_replica(&mut data, repository.format_blob())?;
        }
        append_random(&mut data, PREAMBLE_LENGTH);
        Ok(Self { letter, close_at, data, entries: Vec::new(), has_content: false, scratch: Vec::new() })
    }

    /// Appends the stored bytes of an existing content as they are, once their tag holds; what ECC had to repair is sealed
    /// anew (R19). Everything but place and time stays as `entry` says, the deleted flag too. `timestamp`: Unix seconds.
    ///
    /// # Errors
    /// `Damaged` if the tag does not hold, or the length is not the recorded one.
    pub fn add_copy(&mut self, repository: &Repository, entry: &Entry, stored: &[u8], timestamp: i64) -> Result<()> {
        let at = |error: Error| error.at(format!("copy content {} from pack {}", entry.id, entry.pack));
        if u32::try_from(stored.len()) != Ok(entry.packed_length) {
            let found = format!("{} bytes instead of {}", stored.len(), entry.packed_length);
            return Err(at(Error::damaged(found)));
        }
        let iv = entry.id.hash().iv();
        let mut scratch = std::mem::take(&mut self.scratch);
        let opened = repository.cipher().open_into(iv, stored, &mut scratch);
        if mutant::on(Mutant::R19TagNotChecked) && opened.is_err() {
            return self.append(entry.clone(), stored, timestamp);
        }
        let repaired = opened.map_err(at)?;
        // Opening an intact item reads no parity, and a copy must not carry damaged parity on.
        let intact = repository.cipher().ecc().is_none_or(|ecc| ecc.is_intact(stored));
        let is_damaged = (repaired.0 || !intact) && !mutant::on(Mutant::R19DamagedParityCopied);
        let appended = if is_damaged {
            let sealed = repository.cipher().seal(iv, &scratch).map_err(at)?;
            self.append(entry.clone(), &sealed, timestamp)
        } else {
            self.append(entry.clone(), stored, timestamp)
        };
        self.scratch = scratch;
        appended.map_err(at)
    }

    /// Seals and appends a new content of this prefix (0 for none). With `compress`, `zstd-fastest` is tried where the
    /// index can record it (version 2 on). `timestamp`: Unix seconds.
    ///
    /// # Errors
    /// `Usage` for another prefix than Kopia's, or one that belongs in packs of another letter.
    pub fn add_new(
        &mut self,
        repository: &Repository,
        prefix: u8,
        plain: &[u8],
        compress: bool,
        timestamp: i64,
    ) -> Result<ContentId> {
        let config = repository.config();
        let hash = repository.hasher().hash(plain);
        let id = ContentId::new(prefix, hash)
            .ok_or_else(|| Error::new(ErrorKind::Usage, format!("add a content with prefix {prefix:#04x}")))?;
        let too_long = |_| Error::unsupported(format!("add content {id} of {} bytes", plain.len()));
        let original_length = u32::try_from(plain.len()).map_err(too_long)?;
        let packed = if compress && config.index_version >= 2 { compress_zstd_fastest(plain) } else { None };
        let (bytes, compression) = match &packed {
            Some(packed) => (&packed[..], ZSTD_FASTEST),
            None => (plain, CompressionId(0)),
        };
        let sealed = repository.cipher().seal(hash.iv(), bytes)?;
        let entry = Entry {
            id,
            timestamp,
            deleted: false,
            pack: BlobId::new(""),
            offset: 0,
            packed_length: 0,
            original_length,
            compression,
            format_version: config.version,
        };
        self.append(entry, &sealed, timestamp)?;
        Ok(id)
    }

    fn append(&mut self, mut entry: Entry, sealed: &[u8], timestamp: i64) -> Result<()> {
        if entry.id.pack_letter() != self.letter {
            let step = format!("content {} does not belong in a {} pack", entry.id, self.letter);
            return Err(Error::new(ErrorKind::Usage, step));
        }
        if self.data.len() > OFFSET_MAX || sealed.len() > LENGTH_MAX {
            return Err(Error::unsupported(format!(
                "place {} bytes of content {} at {}: an index cannot record that",
                sealed.len(),
                entry.id,
                self.data.len()
            )));
        }
        entry.offset = u32::try_from(self.data.len()).expect("checked to be below 2^30");
        entry.packed_length = u32::try_from(sealed.len()).expect("checked to be below 2^28");
        entry.timestamp = timestamp;
        self.data.extend_from_slice(sealed);
        self.entries.push(entry);
        self.has_content = true;
        Ok(())
    }

    /// Whether it has reached the repository's pack size and should be finished.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.data.len() >= self.close_at
    }

    /// Whether no content was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.has_content
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Pads it, adds its own index, and gives it a random name of this session: name, bytes, and the entries to publish
    /// once the bytes are durable.
    ///
    /// # Errors
    /// `Usage` if it is empty; what building the index says.
    pub fn finish(self, repository: &Repository, session: &SessionId) -> Result<(BlobId, Bytes, Vec<Entry>)> {
        if self.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "finish a pack without contents"));
        }
        let Self { letter, mut data, mut entries, .. } = self;
        let mut name = [0; 16];
        rand::rng().fill_bytes(&mut name);
        let id = BlobId::new(format!("{letter}{}-{session}", hex::encode(name)));
        for entry in &mut entries {
            entry.pack = id.clone();
        }
        // A multiple already gets a whole unit more, as Kopia's writer pads (never nothing).
        let padding = PADDING_UNIT - data.len() % PADDING_UNIT;
        append_random(&mut data, padding);
        append_local_index(repository, &mut data, &entries).map_err(|error| error.at(format!("index pack {id}")))?;
        data.shrink_to_fit();
        Ok((id, Bytes::from(data), entries))
    }
}

impl fmt::Debug for PackWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("PackWriter");
        out.field("letter", &self.letter).field("bytes", &self.data.len()).field("contents", &self.entries.len());
        out.finish_non_exhaustive()
    }
}

fn append_local_index(repository: &Repository, data: &mut Vec<u8>, entries: &[Entry]) -> Result<()> {
    let hasher = repository.hasher();
    let options =
        BuildOptions { version: repository.config().index_version, hash_length: hasher.length(), random_tail: true };
    let mut shards = build(entries.to_vec(), &options)?;
    let plain = match (shards.pop(), shards.is_empty()) {
        (Some(plain), true) => plain,
        _ => return Err(Error::unsupported(format!("one index of {} entries", entries.len()))),
    };
    // Unlike a content's, the IV is the whole hash.
    let iv = hasher.hash(&plain);
    let sealed = repository.cipher().seal(iv.as_bytes(), &plain)?;
    let too_long = |_| Error::unsupported("a pack beyond 4 GiB");
    let postamble = Postamble {
        iv,
        offset: u32::try_from(data.len()).map_err(too_long)?,
        length: u32::try_from(sealed.len()).map_err(too_long)?,
    };
    data.extend_from_slice(&sealed);
    data.extend_from_slice(&postamble.encode());
    Ok(())
}

/// A copy of `kopia.repository` with checksum and length on both sides: repositories that cannot change their password keep
/// one in front of every pack.
fn append_replica(data: &mut Vec<u8>, format_blob: &[u8]) -> Result<()> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(REPLICA_KEY).expect("HMAC takes keys of any length");
    mac.update(format_blob);
    let checksum = mac.finalize().into_bytes();
    let covered = format_blob.len().saturating_add(checksum.len());
    let length = u16::try_from(covered).ok().filter(|_| covered <= REPLICA_MAX).ok_or_else(|| {
        Error::unsupported(format!("put a replica of kopia.repository into a pack: {covered} bytes are too many"))
    })?;
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(format_blob);
    data.extend_from_slice(&checksum);
    data.extend_from_slice(&length.to_le_bytes());
    Ok(())
}

fn append_random(data: &mut Vec<u8>, length: usize) {
    let start = data.len();
    data.resize(start + length, 0);
    rand::rng().fill_bytes(&mut data[start..]);
}
