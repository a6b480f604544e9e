//! Blob storage: one trait, one conformance suite (`conformance`), several stores.
//!
//! Calls block; parallelism comes from threads of the caller. A blob that is provably absent gives
//! [`ErrorKind::NotFound`]; anything else that keeps a blob from being read is another kind, never "absent".

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

// What stores are told by.
pub mod address;
mod names;
pub mod secret;
pub mod settings;

// Stores.
pub mod fs;
pub mod memory;

#[cfg(feature = "azure")]
pub mod azure;
#[cfg(feature = "gcs")]
pub mod gcs;
#[cfg(any(feature = "gcs", feature = "azure"))]
pub mod object;
#[cfg(any(feature = "gcs", feature = "azure"))]
mod object_date;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod parallel;
#[cfg(feature = "s3")]
pub mod s3;

// What lies around a store.
pub mod calls;
pub mod fault;
pub mod kept;
pub mod latency;
pub mod lock;
pub mod nearby;
pub mod readonly;
pub mod scope;
pub mod throttle;
pub mod traced;

// What stores are held to.
pub mod conformance;
pub mod probe;

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod cloud_runtime;
mod deadline;
mod local_disk;
mod sharding;

pub use address::Address;
pub use fs::{FsStorage, remove_leftovers};
pub use kept::KeptPacks;
pub use lock::StoreLock;
pub use memory::MemoryStorage;
pub use names::{LOCK_NAME, OWN_PREFIX};
pub use nearby::NearbyStorage;
pub use scope::Scope;
pub use settings::{StoreSettings, open};
pub use traced::TracedStorage;

/// How often a blob that changes while it is read is read again.
const VERSION_ATTEMPTS: usize = 5;

/// What the caller is going to do with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing is ever written: `put`, `delete` and `extend_retention` answer `Permission`.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

/// Name of a blob in a store, as Kopia writes it (`p…`, `xn0_…`, `kopia.repository`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(Arc<str>);

impl BlobId {
    /// Takes a name as it is.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for BlobId {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl serde::Serialize for BlobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for BlobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Ok(Self::new(String::deserialize(deserializer)?))
    }
}

/// What a listing or a HEAD says of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobMetadata {
    /// Name.
    pub id: BlobId,
    /// Length in bytes.
    pub length: u64,
    /// When it was last written, by the storage's clock.
    pub timestamp: Timestamp,
    /// Identity of this version, where the store has one. On file systems: made of inode, size and modification time.
    pub etag: Option<ETag>,
}

/// Opaque identity of one version of a blob, for conditional writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ETag(pub String);

/// Which bytes to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// The whole blob.
    All,
    /// `length` bytes from `offset`; a blob that ends earlier is an error (`Damaged`).
    Span {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// The last `n` bytes, or the whole blob if it is shorter.
    Last(u64),
}

impl ByteRange {
    /// Offset and length of this range in a blob of `blob_length` bytes.
    ///
    /// # Errors
    /// `Damaged` if the blob ends before the span does.
    pub fn within(self, id: &BlobId, blob_length: u64) -> Result<(u64, u64)> {
        match self {
            Self::All => Ok((0, blob_length)),
            Self::Last(n) => Ok((blob_length.saturating_sub(n), n.min(blob_length))),
            Self::Span { offset, length } => match offset.checked_add(length) {
                Some(end) if end <= blob_length => Ok((offset, length)),
                _ => Err(Error::damaged(format!(
                    "read blob {id}: {length} bytes are wanted from offset {offset}, it has {blob_length}"
                ))),
            },
        }
    }
}

/// When a write may happen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Condition {
    /// Always; replaces what is there.
    #[default]
    Always,
    /// Only if no such blob exists.
    IfAbsent,
    /// Only if the blob is still this version.
    IfMatch(ETag),
}

/// Object lock modes of Kopia's `kopia.blobcfg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionMode {
    /// Can be shortened by privileged users.
    Governance,
    /// Cannot be shortened by anyone.
    Compliance,
}

/// An object lock to set with a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Mode.
    pub mode: RetentionMode,
    /// Locked until.
    pub until: Timestamp,
}

/// How to write.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// When the write may happen; stores without conditional writes refuse other than `Always` as `Unsupported`.
    pub condition: Condition,
    /// Object lock to set; refused as `Unsupported` where the store has none.
    pub retention: Option<Retention>,
    /// The request must not take effect after this time of the clock since boot
    /// (see [`Clock::since_boot`](crate::clock::Clock::since_boot));
    /// no retries once it is set. `None`: retries as the store likes.
    pub not_after: Option<Duration>,
}

/// What a write answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutReceipt {
    /// Identity of the version written, where known.
    pub etag: Option<ETag>,
    /// The storage's timestamp of the version written, where the answer tells (file systems do, S3 needs a HEAD).
    pub timestamp: Option<Timestamp>,
}

/// What happened to each blob of a delete batch. A blob that was already absent counts as deleted.
#[derive(Debug, Default)]
pub struct DeleteReport {
    /// Gone now.
    pub deleted: Vec<BlobId>,
    /// Still there, or not known.
    pub failed: Vec<(BlobId, Error)>,
}

impl DeleteReport {
    /// Adds what came of one blob.
    pub(crate) fn add(&mut self, id: &BlobId, result: Result<()>) {
        match result {
            Ok(()) => self.deleted.push(id.clone()),
            Err(error) => self.failed.push((id.clone(), error)),
        }
    }

    /// Adds what came of others.
    pub fn extend(&mut self, other: Self) {
        self.deleted.extend(other.deleted);
        self.failed.extend(other.failed);
    }
}

/// What a store can do, by its kind; what it really does is measured by `probe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// `IfAbsent` and `IfMatch` are atomic.
    pub conditional_writes: bool,
    /// Object locks can be set and extended.
    pub retention: bool,
    /// Most blobs one delete request takes (1: no batches).
    pub delete_batch_max: usize,
    /// Blobs that one call of `delete` takes at most, if it is to end within seconds.
    pub delete_at_once: usize,
    /// A local file system, where `verger.lock` with `flock` is the whole truth (`docs/safety.md` R4).
    pub local_disk: bool,
}

impl Capabilities {
    /// Of a store of which nothing is known.
    pub const LEAST: Self = Self {
        conditional_writes: false,
        retention: false,
        delete_batch_max: 1,
        delete_at_once: 1000,
        local_disk: false,
    };
}

/// Whether deletes free anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Versioning {
    /// Overwritten and deleted blobs stay as hidden versions. `None`: not known, to be taken for yes.
    pub kept: Option<bool>,
    /// Object lock that the bucket sets on every new version by itself.
    pub default_retention: Option<Duration>,
}

impl Versioning {
    /// Nothing is kept: a delete frees.
    pub const NONE: Self = Self { kept: Some(false), default_retention: None };
}

/// A place where blobs lie.
pub trait Storage: Send + Sync + fmt::Debug {
    /// The address for people and for the lease object, without secrets: `filesystem:///srv/x`, `s3://bucket/prefix`.
    fn address(&self) -> String;

    /// What this kind of store can do.
    fn capabilities(&self) -> Capabilities;

    /// Reads a blob or a part of it.
    ///
    /// # Errors
    /// `NotFound` if provably absent; `Damaged` if it ends before the span does; `Permission`; `StoreUnavailable`.
    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes>;

    /// A whole blob, and of which version its bytes are. One request where the store tells both in one answer.
    ///
    /// # Errors
    /// As [`Storage::get`]; `StoreUnavailable` also if the blob changed all the time.
    fn get_with_metadata(&self, id: &BlobId) -> Result<(Bytes, BlobMetadata)> {
        // Of two requests the answers belong together only if the version was the same before and after.
        for _ in 0..VERSION_ATTEMPTS {
            let before = self.head(id)?;
            let bytes = self.get(id, ByteRange::All)?;
            if self.head(id)? == before {
                return Ok((bytes, before));
            }
        }
        Err(Error::new(ErrorKind::StoreUnavailable, format!("read blob {id}: it changes all the time")))
    }

    /// Length, timestamp and identity of one blob.
    ///
    /// # Errors
    /// As [`Storage::get`].
    fn head(&self, id: &BlobId) -> Result<BlobMetadata>;

    /// Visits all blobs whose name starts with `prefix`, in no promised order, each once. An error of `visit` ends the listing.
    ///
    /// # Errors
    /// `Permission`; `StoreUnavailable`; what `visit` returns. A listing that ends early is an error, never a short list.
    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()>;

    /// Writes a blob atomically: after a success everyone sees the whole of it.
    ///
    /// # Errors
    /// `PreconditionFailed`; `Permission`; `DiskFull`; `DeadlinePassed`; `Unsupported` for an option that the store lacks;
    /// `StoreUnavailable` (then it may or may not have happened).
    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt>;

    /// Deletes blobs, in batches where the store has them. `not_after` as in [`PutOptions`]. Absent blobs count as deleted.
    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport;

    /// Extends the object lock of a blob.
    ///
    /// # Errors
    /// `Unsupported` where the store has none; else as [`Storage::head`].
    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        let _ = retention;
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("extend the object lock of {id}: this store has no object locks"),
        ))
    }

    /// The storage's clock, as near as one cheap request tells (S3: the `Date` header; file systems: the kernel's).
    ///
    /// # Errors
    /// `StoreUnavailable`, `Permission`.
    fn now(&self) -> Result<Timestamp>;

    /// Whether the store keeps what was overwritten and deleted (R24).
    ///
    /// # Errors
    /// `StoreUnavailable`. No right to ask is no error: it is not known then.
    fn versioning(&self) -> Result<Versioning> {
        Ok(Versioning::default())
    }

    /// Deletes older versions and delete markers of one of our own blobs (`verger.…`), by version ID. Versions under an object
    /// lock stay. Returns how many went.
    ///
    /// # Errors
    /// `Usage` for any other blob; `Permission`; `StoreUnavailable`.
    fn purge_versions(&self, id: &BlobId) -> Result<u64> {
        let _ = id;
        Ok(0)
    }

    /// Deletes one of our own blobs (`verger.…`) if it is still this version.
    ///
    /// # Errors
    /// `PreconditionFailed` if it is another; `Unsupported` where the store has no conditional deletes; `Usage` for any other blob; else
    /// as [`Storage::head`].
    fn delete_own_if(&self, id: &BlobId, version: &ETag) -> Result<()> {
        let _ = version;
        Err(Error::unsupported(format!("delete blob {id} only as it is: this store has no conditional deletes")))
    }

    /// The directory behind it, for stores on a file system.
    fn local_root(&self) -> Option<&std::path::Path> {
        None
    }
}

/// Collects a listing.
///
/// # Errors
/// As [`Storage::list`].
pub fn list_all(storage: &dyn Storage, prefix: &str) -> Result<Vec<BlobMetadata>> {
    let mut blobs = Vec::new();
    storage.list(prefix, &mut |blob| {
        blobs.push(blob);
        Ok(())
    })?;
    Ok(blobs)
}
