//! Temporary files of writers that were killed.

use std::fs::File;
use std::path::Path;

use rustix::fs::FlockOperation;

/// What the name of a temporary file of ours goes on with after the blob's. Kopia's have 16 hex digits right after `.tmp.`: nobody
/// but Kopia knows whether those are still being written.
pub(super) const MARK: &str = ".tmp.verger-";

/// Deeper trees are none that a sharding made.
const DEPTH_MAX: usize = 64;

/// Says that somebody is writing this temporary file, until it is closed.
pub(super) fn claim(file: &File) {
    // Where locks do not work nothing is removed either.
    let _ = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
}

/// Removes the temporary files below `root` whose writers have ended, and says how many went. What cannot be removed stays: it is in
/// nobody's way. For local disks only: elsewhere locks say nothing of other machines.
pub fn remove_leftovers(root: &Path) -> u64 {
    below(root, 0)
}

fn below(directory: &Path, depth: usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let removed = entries.flatten().map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() && depth < DEPTH_MAX => below(&entry.path(), depth + 1),
        Ok(kind) if kind.is_file() && entry.file_name().to_string_lossy().contains(MARK) => {
            u64::from(remove(&entry.path()))
        }
        _ => 0,
    });
    removed.sum()
}

fn remove(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && std::fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_writes_now_and_what_others_left_stays() {
        let folder = tempfile::tempdir().unwrap();
        let shard = folder.path().join("p/abc");
        std::fs::create_dir_all(&shard).unwrap();
        let path = |name: &str| shard.join(name);
        let (dead, alive) = (path("def.f.tmp.verger-0011223344556677"), path("abc.f.tmp.verger-8899aabbccddeeff"));
        let others = [path("abc.f"), path("abc.f.tmp.0011223344556677"), folder.path().join("verger.lease")];
        for path in others.iter().chain([&dead, &alive]) {
            std::fs::write(path, b"x").unwrap();
        }
        let writer = File::open(&alive).unwrap();
        claim(&writer);
        assert_eq!(remove_leftovers(folder.path()), 1);
        assert!(!dead.exists() && alive.exists() && others.iter().all(|path| path.exists()));
        drop(writer);
        assert_eq!((remove_leftovers(folder.path()), remove_leftovers(folder.path())), (1, 0));
    }
}
