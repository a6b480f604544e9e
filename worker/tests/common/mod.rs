//! Golden repositories, unpacked, and what the real program says of them.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use verger_kopia::Repository;
use verger_kopia::clock::SystemClock;
use verger_kopia::storage::{Access, fs::FsStorage};
use verger_worker::workspace::Workspace;

/// All of them.
pub const GOLDEN: [&str; 27] = [
    "blake2b-256",
    "blake2s-128",
    "blake2s",
    "blake3-128",
    "chacha-blake3",
    "default",
    "ecc",
    "epochs",
    "format1-upgraded",
    "format1",
    "format2",
    "hmac-sha224",
    "hmac-sha256-128",
    "hmac-sha256",
    "hmac-sha3-224",
    "hmac-sha3-256",
    "meta-deflate",
    "meta-gzip",
    "meta-none",
    "meta-pgzip",
    "meta-s2-parallel",
    "meta-s2",
    "meta-zstd-better",
    "pbkdf2",
    "split-1m-rabinkarp",
    "split-fixed-128k-large-dirs",
    "v1-gzip",
];

/// One golden repository in a temporary directory.
pub struct Golden {
    directory: TempDir,
    name: String,
    /// `expect.json`.
    pub expect: Value,
}

impl Golden {
    /// Unpacks it, modification times included: they are the storage's clock.
    pub fn unpack(name: &str) -> Self {
        let archive = format!("{}/../tests/golden/{name}.tar.gz", env!("CARGO_MANIFEST_DIR"));
        let file = std::fs::File::open(&archive).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        archive.set_preserve_mtime(true);
        archive.unpack(directory.path()).unwrap();
        let expect = std::fs::read(directory.path().join(name).join("expect.json")).unwrap();
        Self { expect: serde_json::from_slice(&expect).unwrap(), directory, name: name.to_owned() }
    }

    /// Where the repository lies.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name).join("repo")
    }

    /// Opens it.
    pub fn workspace(&self) -> Workspace {
        open(&self.path(), "golden")
    }

    /// The file of a blob.
    pub fn blob_file(&self, blob: &str) -> PathBuf {
        fn find(directory: &Path, wanted: &str, prefix: &str) -> Option<PathBuf> {
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()).find_map(|entry| {
                let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    find(&entry.path(), wanted, &name)
                } else {
                    (name == wanted).then(|| entry.path())
                }
            })
        }
        find(&self.path(), &format!("{blob}.f"), "").unwrap_or_else(|| panic!("no blob {blob}"))
    }
}

/// Opens any repository on disk.
pub fn open(path: &Path, password: &str) -> Workspace {
    let storage = Arc::new(FsStorage::open(path, Access::ReadOnly).unwrap());
    Workspace::new(Repository::open(storage, password, Arc::new(SystemClock)).unwrap())
}
