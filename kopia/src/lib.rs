//! The repository format of [Kopia](https://kopia.io): read it, check it, maintain it, beside real Kopia clients.
//!
//! From the bottom up: [`storage`] holds blobs; [`format`](mod@format) and [`crypto`] give the keys; [`index_set`] says which
//! index blobs are active and merges them into one [`index::Table`]; [`pack`] and [`content`] give the deduplicated chunks;
//! [`object`], [`directory`], [`manifest`] and [`snapshot`] give them meaning; [`maintenance`] holds Kopia's parameters, history,
//! and pure rules; [`verify`] checks a whole repository. Calls block; parallelism is threads.
//!
//! Open a repository, list its snapshots, and read a file out of one:
//!
//! ```
//! # fn main() -> verger_kopia::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/default.tar.gz");
//! # let archive = flate2::read::GzDecoder::new(std::fs::File::open(archive).unwrap());
//! # tar::Archive::new(archive).unpack(folder.path()).unwrap();
//! # let path = folder.path().join("default/repo");
//! use std::io::Read;
//! use std::sync::Arc;
//! use verger_kopia::clock::SystemClock;
//! use verger_kopia::content::read::read_content;
//! use verger_kopia::directory::Directory;
//! use verger_kopia::index_set::load_view;
//! use verger_kopia::manifest::ManifestSet;
//! use verger_kopia::object::{ObjectId, read::ObjectReader};
//! use verger_kopia::snapshot::manifest::load_snapshots;
//! use verger_kopia::storage::{Access, FsStorage};
//! use verger_kopia::{Error, Repository};
//!
//! let storage = Arc::new(FsStorage::open(&path, Access::ReadOnly)?);
//! let repository = Repository::open(storage, "golden", Arc::new(SystemClock))?;
//! assert_eq!(repository.config().hash, "BLAKE2B-256-128");
//!
//! let view = load_view(&repository, 2)?;
//! let (snapshots, unreadable) = load_snapshots(&ManifestSet::load(&repository, &view)?);
//! assert!(unreadable.is_empty() && !snapshots.is_empty());
//!
//! let fetch = |id: &_| {
//!     let row = view.table.find(id).ok_or_else(|| Error::damaged("a content without an index entry"))?;
//!     read_content(&repository, &view.table.entry(row))
//! };
//! let open = |object: ObjectId| -> verger_kopia::Result<Vec<u8>> {
//!     let mut bytes = Vec::new();
//!     ObjectReader::open(object, fetch)?.read_to_end(&mut bytes).map_err(|e| Error::damaged("read").with_source(e))?;
//!     Ok(bytes)
//! };
//! # let root = &snapshots[0];
//! # let root: ObjectId = serde_json::to_value(root).unwrap()["rootEntry"]["obj"].as_str().unwrap().parse()?;
//! let directory = Directory::parse(&open(root)?)?;
//! assert!(directory.entries.is_some_and(|entries| !entries.is_empty()));
//! # Ok(())
//! # }
//! ```
//!
//! Check a repository as a restore would find it:
//!
//! ```
//! # fn main() -> verger_kopia::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/default.tar.gz");
//! # let archive = flate2::read::GzDecoder::new(std::fs::File::open(archive).unwrap());
//! # tar::Archive::new(archive).unpack(folder.path()).unwrap();
//! # let path = folder.path().join("default/repo");
//! # use std::sync::Arc;
//! # use verger_kopia::storage::{Access, FsStorage};
//! # let storage = Arc::new(FsStorage::open(&path, Access::ReadOnly)?);
//! # let clock = Arc::new(verger_kopia::clock::SystemClock);
//! # let repository = verger_kopia::Repository::open(storage, "golden", clock)?;
//! use std::sync::atomic::AtomicBool;
//! use verger_kopia::verify::{Options, verify};
//!
//! let options = Options { full: true, ..Options::default() };
//! let report = verify(&repository, &options, &AtomicBool::new(false), &|_, _, _| {})?;
//! assert!(report.is_clean() && report.contents_read > 0);
//! # Ok(())
//! # }
//! ```
//!
//! Content IDs and objects are values:
//!
//! ```
//! use verger_kopia::content::ContentId;
//! use verger_kopia::object::ObjectId;
//!
//! let directory: ContentId = "k82b39a12512935970065e53a3aa78c41".parse().unwrap();
//! assert_eq!(directory.pack_letter(), 'q');
//! let large: ObjectId = "Ixf31d473c6a242b1033147e11f63256f4".parse().unwrap();
//! assert_eq!(large.indirection, 1);
//! ```

// From the bottom of a repository to its top.
pub mod bitmap;
pub mod clock;
pub mod error;
pub mod mutant;
pub mod spill;

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
