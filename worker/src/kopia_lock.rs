//! Kopia's own local lock, `<connection file>.mlock` (R22): while we hold it, no Kopia of this machine maintains the repository.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use verger_kopia::mutant::{self, Mutant};

use rustix::fs::FlockOperation;
use verger_kopia::{Error, ErrorKind, Result};

/// Held locks; dropping them gives them back.
#[derive(Debug)]
pub struct KopiaLocks(Vec<File>);

impl KopiaLocks {
    /// Takes the lock files at these paths, without waiting.
    ///
    /// # Errors
    /// `ForeignMaintenance` if one is held: a Kopia of this machine is at it; `Permission` if one cannot be opened.
    pub fn take(paths: &[PathBuf]) -> Result<Self> {
        paths.iter().map(|path| lock(path)).collect::<Result<_>>().map(Self)
    }

    /// How many are held.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

fn lock(path: &Path) -> Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(|e| {
            Error::new(ErrorKind::Permission, format!("open Kopia's maintenance lock {}", path.display()))
                .with_source(e)
        })?;
    let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    if mutant::on(Mutant::R22BusyLockIgnored) {
        return Ok(file);
    }
    locked.map_err(|e| {
        Error::new(
            ErrorKind::ForeignMaintenance,
            format!("Kopia is maintaining this repository now ({} is locked)", path.display()),
        )
        .with_source(e)
        .with_fix("Try again when it has finished")
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r22_a_busy_lock_is_foreign_maintenance() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("repository.config.mlock");
        let held = KopiaLocks::take(std::slice::from_ref(&path)).unwrap();
        assert_eq!(held.count(), 1);
        assert_eq!(KopiaLocks::take(std::slice::from_ref(&path)).unwrap_err().kind(), ErrorKind::ForeignMaintenance);
        drop(held);
        KopiaLocks::take(&[path]).unwrap();
    }
}
