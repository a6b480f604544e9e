//! Writing and deleting: a temporary file beside the target, synced, then renamed over it, as Kopia does.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind as Io, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::{FsStorage, errors, leftovers, timestamp};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{BlobId, Condition, DeleteReport, PutOptions, PutReceipt, deadline, names};

/// A temporary file that goes away unless it became the blob.
struct Temporary {
    path: PathBuf,
    done: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl FsStorage {
    pub(super) fn write(&self, id: &BlobId, data: &[u8], options: &PutOptions, step: &str) -> Result<PutReceipt> {
        let target = self.path(id);
        let parent = target.parent().unwrap_or(&self.root);
        deadline::left(&*self.clock, options.not_after, step)?;
        if options.condition == Condition::IfAbsent && target.exists() {
            return Err(exists(step));
        }
        let (file, mut temporary) = self.temporary(&target, parent, step)?;
        let failure = |error| self.failure(error, step.to_owned());
        (&file).write_all(data).and_then(|()| file.sync_all()).map_err(failure)?;
        let metadata = file.metadata().map_err(failure)?;
        // The deed itself is the rename: nothing of it is visible before.
        deadline::left(&*self.clock, options.not_after, step)?;
        match &options.condition {
            Condition::Always => std::fs::rename(&temporary.path, &target).map_err(failure)?,
            Condition::IfAbsent => rename_new(&temporary.path, &target, step)?,
            Condition::IfMatch(wanted) => {
                let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
                let found = std::fs::metadata(&target).ok().and_then(|metadata| self.etag(&metadata));
                if found.as_ref() != Some(wanted) {
                    return Err(Error::new(ErrorKind::PreconditionFailed, format!("{step}: it has changed")));
                }
                std::fs::rename(&temporary.path, &target).map_err(failure)?;
            }
        }
        temporary.done = true;
        // Later deletes of what this blob replaces must not outlive it in a power failure.
        sync_directory(parent).map_err(failure)?;
        Ok(PutReceipt { etag: self.etag(&metadata), timestamp: Some(timestamp(&metadata)?) })
    }

    pub(super) fn delete_one(&self, id: &BlobId, not_after: Option<Duration>) -> Result<()> {
        names::check_change(id)?;
        let step = format!("delete blob {id}");
        self.check_writable(&step)?;
        deadline::left(&*self.clock, not_after, &step)?;
        match std::fs::remove_file(self.path(id)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == Io::NotFound => self.check_root().map_err(|error| error.at(step)),
            Err(error) => Err(errors::from_io(error, step)),
        }
    }

    /// The time that the file system stamps on a file written now.
    pub(super) fn server_time(&self) -> Result<Timestamp> {
        let step = format!("ask {} for its time", self.root.display());
        let target = self.root.join(format!("{}probe-now", names::OWN_PREFIX));
        let (file, _temporary) = self.temporary(&target, &self.root, &step)?;
        (&file).write_all(b"now").and_then(|()| file.sync_all()).map_err(|error| self.failure(error, step.clone()))?;
        let metadata = file.metadata().map_err(|error| self.failure(error, step))?;
        timestamp(&metadata)
    }

    /// An index blob that comes back after a power failure names packs that were deleted after it. Packs, markers and logs that come back are
    /// deleted again by the next cycle: their directories, thousands of them, are not waited for.
    pub(super) fn make_deletions_last(&self, report: &mut DeleteReport) {
        let directory = |id: &BlobId| self.path(id).parent().unwrap_or(&self.root).to_owned();
        let rest = report.deleted.iter().filter(|id| !id.as_str().starts_with(['p', 'q', 's', '_']));
        let directories: BTreeMap<PathBuf, BlobId> = rest.map(|id| (directory(id), id.clone())).collect();
        for (directory, id) in directories {
            match sync_directory(&directory) {
                Err(error) if error.kind() != Io::NotFound => {
                    report.deleted.retain(|deleted| *deleted != id);
                    let error = errors::from_io(error, format!("make the deletion of blob {id} last"));
                    report.failed.push((id, error));
                }
                // Where there never was such a directory nothing comes back.
                _ => {}
            }
        }
    }

    /// Creates `<target>.tmp.verger-<16 hex>` for this writer alone, with the directories above it.
    fn temporary(&self, target: &Path, parent: &Path, step: &str) -> Result<(File, Temporary)> {
        let mut name = target.as_os_str().to_owned();
        name.push(format!("{}{:016x}", leftovers::MARK, rand::random::<u64>()));
        let path = PathBuf::from(name);
        let create = || File::options().write(true).create_new(true).mode(self.file_mode).open(&path);
        let file = match create() {
            Err(error) if error.kind() == Io::NotFound && parent != self.root => {
                self.check_root().map_err(|error| error.at(step))?;
                self.create_directories(parent).map_err(|error| self.failure(error, step.to_owned()))?;
                create()
            }
            other => other,
        };
        let file = file.map_err(|error| self.failure(error, step.to_owned()))?;
        let temporary = Temporary { path, done: false };
        if self.local {
            leftovers::claim(&file);
        }
        self.give_away(&file).map_err(|error| self.failure(error, step.to_owned()))?;
        Ok((file, temporary))
    }

    fn create_directories(&self, directory: &Path) -> std::io::Result<()> {
        let parent = directory.parent().unwrap_or(&self.root);
        if parent != self.root && !parent.is_dir() {
            self.create_directories(parent)?;
        }
        match DirBuilder::new().mode(self.directory_mode).create(directory) {
            Ok(()) => {
                self.give_away(&File::open(directory)?)?;
                sync_directory(parent)
            }
            Err(error) if error.kind() == Io::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What root writes must stay readable for the user whose repository it is.
    fn give_away(&self, file: &File) -> std::io::Result<()> {
        let Some((user, group)) = self.owner.filter(|owner| *owner != (0, 0)) else { return Ok(()) };
        let (user, group) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(group));
        match rustix::fs::fchown(file, Some(user), Some(group)) {
            // Mounts without owners (vfat, root squashed by a server) decide by themselves.
            Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn exists(step: &str) -> Error {
    Error::new(ErrorKind::PreconditionFailed, format!("{step}: it exists"))
}

/// Renames only if the target does not exist, in one step.
fn rename_new(from: &Path, to: &Path, step: &str) -> Result<()> {
    let failure = |error: Errno| errors::from_io(error.into(), step.to_owned());
    #[cfg(target_os = "linux")]
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(()),
        Err(Errno::EXIST) => return Err(exists(step)),
        // Not on this file system, or not on this kernel: a hard link is as good.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(failure(error)),
    }
    match rustix::fs::link(from, to) {
        Ok(()) => rustix::fs::unlink(from).map_err(failure),
        Err(Errno::EXIST) => Err(exists(step)),
        Err(error) => Err(failure(error)),
    }
}

/// Makes the names in a directory last. Some file systems have no such call; theirs last by themselves or not at all.
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    match File::open(directory)?.sync_all() {
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::BADF)) => {
            Ok(())
        }
        other => other,
    }
}
