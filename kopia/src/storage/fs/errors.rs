//! What the kernel's errors mean for a repository.

use std::io::ErrorKind as Io;

use crate::error::{Error, ErrorKind};

/// The failure of `step`. `NotFound` here means that the path is absent; whoever asks makes sure that the root is not.
pub(crate) fn from_io(error: std::io::Error, step: String) -> Error {
    let (kind, fix) = match error.kind() {
        Io::NotFound => (ErrorKind::NotFound, None),
        Io::PermissionDenied => (
            ErrorKind::Permission,
            Some("run as the user that owns the repository's files, or give this user read and write rights to them"),
        ),
        Io::ReadOnlyFilesystem => (ErrorKind::Permission, Some("mount the file system read-write")),
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => {
            (ErrorKind::DiskFull, Some("make room on the file system of the repository, or raise the quota"))
        }
        Io::UnexpectedEof | Io::IsADirectory | Io::NotADirectory => (ErrorKind::Damaged, None),
        Io::InvalidFilename => (ErrorKind::Usage, None),
        Io::OutOfMemory => (ErrorKind::MemoryLimit, None),
        _ => (ErrorKind::StoreUnavailable, None),
    };
    let failure = Error::new(kind, step).with_source(error);
    match fix {
        Some(fix) => failure.with_fix(fix),
        None => failure,
    }
}
