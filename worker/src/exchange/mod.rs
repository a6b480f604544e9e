//! The exchange: where the shards of a cycle leave what is too bulky for the machine. A folder, or a bucket and prefix, of its own.
//!
//! ```text
//! survey, plan -> order (what the shards of a range are to do) -> shard -> what it found or moved -> solve, publish
//! ```
//!
//! Parts are encrypted with a key of the repository's and bound to it, to cycle, kind, name, attempt and view. Each is written once,
//! whole, under a name that nobody else has. What is missing, cut off, damaged or another's is an error and never "nothing" (R12).

mod clean;
mod error;
mod name;
mod read;
mod records;
mod seal;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verger_kopia::clock::Timestamp;
use verger_kopia::spill::SpillFolder;
use verger_kopia::storage::{BlobId, ByteRange, Condition, PutOptions, Storage};
use verger_kopia::{Error, ErrorKind, Repository, Result};
use verger_proto::id::{CycleId, RepositoryId};
use verger_proto::job::OutputRef;
use verger_proto::{Digest, Shard};

pub use clean::{AGE_MIN, Cleaned};
pub use error::PartError;
pub use name::{PartKind, PartName};
pub use read::{Expected, PartReader};
pub use records::{EntryPen, Found, Moved, NotedSession, Records, reason, write_found, write_moved};
pub use seal::ExchangeKey;
pub use write::PartWriter;

/// The object that tells exchanges apart.
const MARKER: &str = "verger.exchange";
/// Bytes of a marker at most.
const MARKER_BYTES_MAX: u64 = 4096;
/// What a Kopia repository has.
const FORMAT_BLOB: &str = "kopia.repository";

/// An exchange's ID: workers with different ones do not see each other's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExchangeId(pub u128);

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ExchangeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_hex = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex);
        number.map(Self).ok_or_else(|| Error::damaged(format!("{text:?} is no ID of an exchange")))
    }
}

#[derive(Serialize, Deserialize)]
struct Marker {
    version: u64,
    id: String,
    written: Timestamp,
}

/// Where parts are exchanged. Cheap to clone.
#[derive(Clone)]
pub struct Exchange {
    storage: Arc<dyn Storage>,
    id: ExchangeId,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({} {})", self.id, self.storage.address())
    }
}

impl Exchange {
    /// Opens an exchange; whoever is first marks it as one.
    ///
    /// # Errors
    /// `Usage` if a Kopia repository lies there; `Damaged` for a marker that makes no sense; storage errors.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let at = |error: Error| error.at(format!("open the exchange at {}", storage.address()));
        match storage.head(&BlobId::from(FORMAT_BLOB)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(at(error)),
            Ok(_) => {
                let step = format!("{} is a Kopia repository, and no place for an exchange", storage.address());
                return Err(Error::new(ErrorKind::Usage, step)
                    .with_fix("give --exchange a folder, or a bucket and prefix, of its own"));
            }
        }
        let id = match read_marker(&*storage).map_err(at)? {
            Some(id) => id,
            None => write_marker(&*storage).map_err(at)?,
        };
        Ok(Self { storage, id })
    }

    /// Which one it is.
    #[must_use]
    pub fn id(&self) -> ExchangeId {
        self.id
    }

    /// Where it is, for people.
    #[must_use]
    pub fn address(&self) -> String {
        self.storage.address()
    }

    /// Makes sure that it is still the one that was opened: a volume that was mounted over it is not.
    ///
    /// # Errors
    /// `StoreUnavailable` if it is another, or its marker is gone; storage errors.
    pub fn check(&self) -> Result<()> {
        let found = read_marker(&*self.storage)?;
        if found == Some(self.id) {
            return Ok(());
        }
        let is = found.map_or_else(|| "no exchange".to_owned(), |id| format!("exchange {id}"));
        let step = format!("at {} is {is}; exchange {} was opened there", self.address(), self.id);
        Err(Error::new(ErrorKind::StoreUnavailable, step)
            .with_fix("See whether its volume is mounted, and whether all workers have the same exchange"))
    }

    /// The parts of one cycle of a repository.
    #[must_use]
    pub fn parts(&self, repository: &Repository, id: &RepositoryId, cycle: CycleId) -> Parts {
        let (exchange, key) = (self.clone(), ExchangeKey::of(repository));
        Parts { exchange, key, repository: id.clone(), cycle }
    }
}

/// The parts of one cycle.
#[derive(Clone)]
pub struct Parts {
    exchange: Exchange,
    key: ExchangeKey,
    repository: RepositoryId,
    cycle: CycleId,
}

impl Parts {
    /// Begins a part of `shard`'s keys. `folder`: for what does not fit memory until it is whole.
    ///
    /// # Errors
    /// `Internal`.
    pub fn write(
        &self,
        kind: PartKind,
        shard: &Shard,
        attempt: u32,
        view: Digest,
        folder: &SpillFolder,
    ) -> Result<PartWriter> {
        PartWriter::new(self.clone(), kind, shard, attempt, view, folder)
    }

    /// Opens the part that was reported so.
    ///
    /// # Errors
    /// Those of [`PartError`]; storage errors.
    pub fn read(&self, reference: &OutputRef, kind: PartKind) -> Result<PartReader> {
        self.open(reference.name.clone(), kind, Some(reference.clone()))
    }

    /// As [`Parts::read`], of a part that nobody reported.
    fn unreported(&self, name: &PartName, kind: PartKind) -> Result<PartReader> {
        self.open(name.to_string(), kind, None)
    }

    fn open(&self, name: String, kind: PartKind, reported: Option<OutputRef>) -> Result<PartReader> {
        let (repository, cycle) = (self.repository.clone(), self.cycle);
        let expected = Expected { repository, cycle, kind, name, reported };
        PartReader::open(&self.exchange.storage, &self.key, expected)
    }
}

fn read_marker(storage: &dyn Storage) -> Result<Option<ExchangeId>> {
    let marker = BlobId::from(MARKER);
    let bytes = match storage.get(&marker, ByteRange::Last(MARKER_BYTES_MAX)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.at(format!("read {MARKER}"))),
    };
    let damaged = || {
        Error::damaged(format!("read {MARKER}: it makes no sense"))
            .with_fix(format!("If no cycle is under way, delete {MARKER}; it is written anew"))
    };
    let found: Marker = serde_json::from_slice(&bytes).map_err(|error| damaged().with_source(error))?;
    if found.version != 1 {
        return Err(Error::unsupported(format!("{MARKER} has version {}", found.version))
            .with_fix("Let all workers be of one version"));
    }
    found.id.parse().map(Some).map_err(|_| damaged())
}

/// For an object that nobody writes again, where the store can see to that.
fn once(storage: &dyn Storage) -> PutOptions {
    let is_seen_to = storage.capabilities().conditional_writes;
    let condition = if is_seen_to { Condition::IfAbsent } else { Condition::Always };
    PutOptions { condition, ..PutOptions::default() }
}

/// Writes the marker, and takes the one that stands then: somebody else may have been first.
fn write_marker(storage: &dyn Storage) -> Result<ExchangeId> {
    let id = ExchangeId(rand::random());
    let marker = Marker { version: 1, id: id.to_string(), written: storage.now()? };
    let text = serde_json::to_vec(&marker)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("encode {MARKER}")).with_source(error))?;
    match storage.put(&BlobId::from(MARKER), Bytes::from(text), &once(storage)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::PreconditionFailed => {}
        Err(error) => return Err(error.at(format!("write {MARKER}"))),
    }
    let gone = || Error::new(ErrorKind::StoreUnavailable, format!("{MARKER} was written and is not there"));
    read_marker(storage)?.ok_or_else(gone)
}
