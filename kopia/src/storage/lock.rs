//! `verger.lock`: on a local disk, who holds it is the one who acts (R4).

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::fs::from_io;
use super::names::LOCK_NAME;
use crate::error::{Error, Result};

/// How often a file that was swapped in the middle is opened again.
const ATTEMPTS: usize = 5;

/// A held lock on `verger.lock` in a directory. Dropping it, or the end of the process, releases it; the file stays.
///
/// The lock is of the open file, so it holds between threads of one process as well as between processes.
#[derive(Debug)]
pub struct StoreLock {
    file: File,
    path: PathBuf,
    identity: LockIdentity,
}

/// Which lock file it is, for telling whether a lease was held under this very file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LockIdentity {
    /// Random, written into the file when it is first locked: 32 hex digits.
    pub id: String,
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

impl StoreLock {
    /// Takes the lock in `directory` if nobody holds it; `None` if somebody does. Creates the file once, never replaces it.
    ///
    /// # Errors
    /// `Permission`; `DiskFull`; `NotFound` if there is no such directory; `StoreUnavailable` where locks do not work.
    pub fn try_lock(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(LOCK_NAME);
        let step = || format!("lock {}", path.display());
        let failure = |error| from_io(error, step());
        for _ in 0..ATTEMPTS {
            let file = open(directory, &path).map_err(failure)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(failure(error.into())),
            }
            let held = file.metadata().map_err(failure)?;
            // A lock on a file that nobody finds by its name any more excludes nobody.
            if !std::fs::metadata(&path).is_ok_and(|named| same(&named, &held)) {
                continue;
            }
            let id = identity(&file).map_err(failure)?;
            let identity = LockIdentity { id, device: held.dev(), inode: held.ino() };
            return Ok(Some(Self { file, path, identity }));
        }
        Err(Error::new(crate::error::ErrorKind::StoreUnavailable, format!("{}: something keeps replacing it", step())))
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which file is held.
    #[must_use]
    pub fn identity(&self) -> &LockIdentity {
        &self.identity
    }

    /// Whether the file that is held is still the one that others find. To be asked before each deed.
    #[must_use]
    pub fn is_current(&self) -> bool {
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(held), Ok(named)) => same(&held, &named),
            _ => false,
        }
    }
}

fn same(a: &Metadata, b: &Metadata) -> bool {
    a.dev() == b.dev() && a.ino() == b.ino()
}

fn open(directory: &Path, path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // Whoever may write the repository may lock it: the directory says who that is.
            let owner = std::fs::metadata(directory)?;
            let shared = owner.permissions().mode() & 0o020 != 0;
            file.set_permissions(std::fs::Permissions::from_mode(if shared { 0o660 } else { 0o600 }))?;
            if rustix::process::geteuid().is_root() {
                let (user, group) = (rustix::fs::Uid::from_raw(owner.uid()), rustix::fs::Gid::from_raw(owner.gid()));
                // Mounts without owners decide by themselves.
                let _ = rustix::fs::fchown(&file, Some(user), Some(group));
            }
            Ok(file)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}

/// The random ID in the file, written by whoever first holds it.
fn identity(file: &File) -> std::io::Result<String> {
    let mut text = String::new();
    file.take(64).read_to_string(&mut text)?;
    let id = text.trim();
    if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(id.to_owned());
    }
    let id = format!("{:032x}", rand::random::<u128>());
    file.set_len(0)?;
    std::io::Seek::rewind(&mut &*file)?;
    (&*file).write_all(format!("{id}\n").as_bytes())?;
    file.sync_all()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let first = StoreLock::try_lock(directory.path()).unwrap().unwrap();
        assert!(StoreLock::try_lock(directory.path()).unwrap().is_none());
        let identity = first.identity().clone();
        drop(first);
        let second = StoreLock::try_lock(directory.path()).unwrap().unwrap();
        assert_eq!(*second.identity(), identity);
        assert!(second.is_current());
        std::fs::rename(directory.path().join(LOCK_NAME), directory.path().join("gone")).unwrap();
        assert!(!second.is_current());
    }

    #[test]
    fn threads_race_for_one_lock() {
        let directory = tempfile::tempdir().unwrap();
        let held = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let lock = StoreLock::try_lock(directory.path()).unwrap();
                    held.lock().unwrap().extend(lock);
                });
            }
        });
        assert_eq!(held.into_inner().unwrap().len(), 1);
    }
}
