//! Small files of a node's data folder, and what is said when they fail.

use std::path::Path;

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::envelope::EnvelopeError;

use crate::files;

/// What a data folder that cannot be used any more asks for.
pub(crate) const REJOIN: &str = "put the data folder back from a copy only if this is the only coordinator; otherwise stop it, move the \
                                 folder away, and let it join again under a new node ID (`verger cluster replace`)";

pub(crate) fn failed(path: &Path, doing: &str, error: std::io::Error) -> Error {
    advised(Error::of_file(format!("{doing} {}", path.display()), error))
}

fn advised(error: Error) -> Error {
    let fix = match error.kind() {
        ErrorKind::DiskFull => "make room on the disk of the data folder, then start again",
        _ => "see that the data folder can be written and its disk is sound, then start again",
    };
    error.with_fix(fix)
}

pub(crate) fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::damaged(format!("{}: {what}", path.display())).with_fix(REJOIN)
}

/// What is whole, and of a verger that knows more.
pub(crate) fn newer(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())).with_fix(files::NEWER)
}

/// A record in the file that cannot be read: damaged, or of a verger that knows more.
pub(crate) fn unfit(path: &Path, error: &EnvelopeError) -> Error {
    if error.is_of_newer() { newer(path, error) } else { damaged(path, error) }
}

pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    files::sync_folder(folder).map_err(|error| failed(folder, "sync the folder", error))
}

/// Replaces the file at `path`, as [`files::replace`].
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    files::replace(path, bytes).map_err(|error| failed(path, "replace", error))
}

/// The file's bytes, as [`files::read_if_there`].
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    files::read_if_there(path).map_err(advised)
}
