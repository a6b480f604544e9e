//! The folder of a worker: what its cycles put aside while they run. Nothing in it outlasts the process.

use std::path::Path;

use verger_coordinator::files::make_folders;
use verger_kopia::storage::StoreLock;
use verger_kopia::{Error, ErrorKind, Result};

/// Takes the folder for this process alone, and empties it: what is there was left by one that was killed.
///
/// # Errors
/// `Locked` if another worker uses it; `Permission`, `DiskFull`.
pub(super) fn prepare(folder: &Path) -> Result<StoreLock> {
    let failed = |doing: &str, error| Error::of_file(format!("{doing} {}", folder.display()), error);
    make_folders(folder).map_err(|error| failed("make", error))?;
    let lock = StoreLock::try_lock(folder)?.ok_or_else(|| {
        Error::new(ErrorKind::Locked, format!("another worker uses {}", folder.display()))
            .with_fix("Give each worker a folder of its own: --cache-dir DIR")
    })?;
    for entry in std::fs::read_dir(folder).map_err(|error| failed("read", error))? {
        let entry = entry.map_err(|error| failed("read", error))?;
        if entry.path() == lock.path() {
            continue;
        }
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(|error| Error::of_file(format!("remove {}", path.display()), error))?;
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_worker_left_is_gone_and_a_second_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let first = prepare(&path).unwrap();
        std::fs::create_dir(path.join("spill")).unwrap();
        std::fs::write(path.join("spill/one"), "x").unwrap();
        std::fs::write(path.join("two"), "x").unwrap();
        assert_eq!(prepare(&path).err().unwrap().kind(), ErrorKind::Locked);
        drop(first);
        let _second = prepare(&path).unwrap();
        let left: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
