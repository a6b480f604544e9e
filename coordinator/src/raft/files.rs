//! Small files that are replaced whole, and stay whole when the power fails.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use verger_kopia::error::{Error, ErrorKind, Result};

/// What a data folder that cannot be used any more asks for.
pub(crate) const REJOIN: &str = "put the data folder back from a copy only if this is the only coordinator; otherwise stop it, move the \
                                 folder away, and let it join again under a new node ID (`verger cluster replace`)";

pub(crate) fn failed(path: &Path, doing: &str, error: std::io::Error) -> Error {
    let (kind, fix) = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            (ErrorKind::DiskFull, "make room on the disk of the data folder, then start again")
        }
        _ => (ErrorKind::Permission, "see that the data folder can be written and its disk is sound, then start again"),
    };
    Error::new(kind, format!("{doing} {}", path.display())).with_fix(fix).with_source(error)
}

pub(crate) fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::damaged(format!("{}: {what}", path.display())).with_fix(REJOIN)
}

pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| failed(folder, "sync the folder", error))
}

/// Replaces the file at `path`: it holds either the old bytes or the new ones, whatever happens, and the new ones once this returns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("tmp");
    let written = File::create(&fresh).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| failed(&fresh, "write", error))?;
    fs::rename(&fresh, path).map_err(|error| failed(path, "replace", error))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// The file's bytes; none if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, "read", error)),
    }
}
