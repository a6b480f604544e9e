//! Listing: the names of the directories, put together, begin the names of the blobs below them.

use std::fs::DirEntry;
use std::io::ErrorKind as Io;
use std::path::Path;

use super::{FsStorage, errors};
use crate::error::Result;
use crate::storage::sharding::Sharding;
use crate::storage::{BlobId, BlobMetadata, names};

/// Deeper trees are none that a sharding made.
const DEPTH_MAX: usize = 64;

/// One listing of a store.
pub(super) struct Listing<'a> {
    pub(super) store: &'a FsStorage,
    pub(super) prefix: &'a str,
}

type Visit<'v> = &'v mut dyn FnMut(BlobMetadata) -> Result<()>;

impl Listing<'_> {
    pub(super) fn run(&self, visit: Visit<'_>) -> Result<()> {
        self.store.check_root()?;
        self.directory(Path::new(""), "", 0, visit)?;
        // A volume that was unmounted on the way may have looked empty.
        self.store.check_root()
    }

    fn directory(&self, relative: &Path, so_far: &str, depth: usize, visit: Visit<'_>) -> Result<()> {
        let path = self.store.root.join(relative);
        let failure = |error| errors::from_io(error, format!("list the directory {}", path.display()));
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            // Someone has removed it since its parent was read; the root is checked once more at the end.
            Err(error) if error.kind() == Io::NotFound && depth > 0 => return Ok(()),
            Err(error) => return Err(self.store.failure(error, format!("list the directory {}", path.display()))),
        };
        for entry in entries {
            let entry = entry.map_err(failure)?;
            // Blob names are text; what is not is no blob.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type().map_err(failure)?;
            if kind.is_dir() {
                let below = format!("{so_far}{name}");
                let may_match = below.starts_with(self.prefix) || self.prefix.starts_with(&below);
                if may_match && depth < DEPTH_MAX {
                    self.directory(&relative.join(&name), &below, depth + 1, visit)?;
                }
            } else if kind.is_file() {
                self.file(&entry, relative, so_far, &name, visit)?;
            }
        }
        Ok(())
    }

    fn file(&self, entry: &DirEntry, relative: &Path, so_far: &str, file: &str, visit: Visit<'_>) -> Result<()> {
        let own = relative.as_os_str().is_empty() && names::is_own(file) && !file.contains(".tmp.");
        let name = if own && !file.ends_with(super::super::sharding::SUFFIX) {
            Some(file.to_owned())
        } else {
            Sharding::name(so_far, file)
        };
        let Some(name) = name.filter(|name| name.starts_with(self.prefix)) else { return Ok(()) };
        let expected = self.store.sharding.path(&name);
        if expected != relative.join(file) && self.store.root.join(expected).exists() {
            // The same name in two places: only the one that reading finds counts.
            return Ok(());
        }
        match entry.metadata() {
            Ok(metadata) => visit(self.store.describe(BlobId::new(name), &metadata)?),
            Err(error) if error.kind() == Io::NotFound => Ok(()),
            Err(error) => Err(errors::from_io(error, format!("look at {}", entry.path().display()))),
        }
    }
}
