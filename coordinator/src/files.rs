//! Files and folders that are there as a whole, before or after a process or the power ended, and never in between.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use verger_kopia::error::{Error, Result};

/// What helps against a file that is whole, and that a newer program wrote.
pub(crate) const NEWER: &str =
    "nothing is damaged and nothing was changed: start the verger that wrote it, or a newer one";

/// Makes a folder and those above it, each on stable storage when this returns: a synced file in a folder whose own name was lost with
/// the power is lost, too.
///
/// # Errors
/// The file system's.
pub fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return fs::create_dir_all(folder);
    };
    make_folders(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(parent),
    }
}

/// Makes the names in a folder last: a new file's name is durable only after its folder was synced.
///
/// # Errors
/// The file system's.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The file's bytes; none if there is no such file.
///
/// # Errors
/// The file system's, with the path.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::of_file(format!("read {}", path.display()), error)),
    }
}

/// Puts `bytes` in the place of the file: it holds either the old ones or these, whatever happens, and these once this returns. One
/// writer at a time: what an earlier one was killed over is written over.
///
/// # Errors
/// The file system's.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, File::options().write(true).create(true).truncate(true))
}

/// As [`replace`], readable by its owner alone.
///
/// # Errors
/// The file system's.
pub fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Whoever may read what an earlier one was killed over could read this, too: it is another file.
    match fs::remove_file(temporary(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    put(path, bytes, File::options().write(true).create_new(true).mode(0o600))
}

fn put(path: &Path, bytes: &[u8], options: &OpenOptions) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    // A name that is durable before its bytes are would stand for an empty file.
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Where the bytes lie that will take the place of a file.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    temporary.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_private_file_is_its_owners_alone_even_over_what_a_killed_writer_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("127.0.0.1_7420");
        fs::write(temporary(&path), "half").unwrap();
        fs::set_permissions(temporary(&path), fs::Permissions::from_mode(0o644)).unwrap();
        replace_private(&path, b"token\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"token\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!temporary(&path).exists());
    }

    #[test]
    fn names_that_end_alike_have_their_own_temporary_files() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["127.0.0.1_7420", "127.0.0.1_7421"].map(|name| temporary(&folder.path().join(name)));
        assert_ne!(names[0], names[1]);
    }
}
