//! A repository on a mounted file system, as Kopia's `filesystem` provider lays it out.

mod errors;
pub(crate) use errors::from_io;
pub use leftovers::remove_leftovers;
mod leftovers;
mod list;
mod write;

use std::fs::File;
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::sharding::{SHARDS_FILE, Sharding};
use super::{
    Access, BlobId, BlobMetadata, ByteRange, Capabilities, Condition, DeleteReport, ETag, PutOptions, PutReceipt,
    Storage, Versioning, local_disk, names,
};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// Largest `.shards` that is read.
const SHARDS_FILE_MAX: u64 = 1 << 20;

/// Kopia's own modes.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// A repository on a mounted file system.
///
/// On local disks writes are conditional: `IfAbsent` is atomic against everyone, `IfMatch` against everyone who holds
/// `verger.lock` (see [`StoreLock`](super::StoreLock)) while writing. On network mounts there are neither conditions nor
/// identities of versions: their inode numbers, times and locks cannot be relied on.
#[derive(Debug)]
pub struct FsStorage {
    root: PathBuf,
    access: Access,
    sharding: Sharding,
    local: bool,
    /// Of the root when it was opened: an unmounted volume must not look like an empty repository.
    device: u64,
    file_mode: u32,
    directory_mode: u32,
    /// Whom new files belong to, if this process may give files away.
    owner: Option<(u32, u32)>,
    clock: Arc<dyn Clock>,
    /// Holds the comparison and the rename of `IfMatch` together within this process.
    swap: Mutex<()>,
}

impl FsStorage {
    /// Opens the directory `path`. Creates nothing; without `.shards` Kopia's rule for old repositories holds.
    ///
    /// # Errors
    /// `NotARepository` if there is no such directory; `Permission`; `Damaged` if `.shards` is malformed; `StoreUnavailable`.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        let path = path.as_ref();
        let step = || format!("open the directory {}", path.display());
        let root = std::fs::canonicalize(path).map_err(|error| match error.kind() {
            IoErrorKind::NotFound | IoErrorKind::NotADirectory => Error::new(ErrorKind::NotARepository, step())
                .with_fix("check the path, and that its volume is mounted")
                .with_source(error),
            _ => errors::from_io(error, step()),
        })?;
        let directory = File::open(&root).map_err(|error| errors::from_io(error, step()))?;
        let metadata = directory.metadata().map_err(|error| errors::from_io(error, step()))?;
        if !metadata.is_dir() {
            let step = format!("{}: it is no directory", step());
            return Err(Error::new(ErrorKind::NotARepository, step).with_fix("check the path"));
        }
        let owner = rustix::process::geteuid().is_root().then(|| (metadata.uid(), metadata.gid()));
        Ok(Self {
            sharding: read_sharding(&root)?,
            access,
            local: local_disk::is_local(&directory, metadata.dev()),
            device: metadata.dev(),
            file_mode: FILE_MODE,
            directory_mode: DIRECTORY_MODE,
            owner,
            clock: Arc::new(SystemClock),
            swap: Mutex::new(()),
            root,
        })
    }

    /// The same store with other modes for new files and directories, as a Kopia connection may set them.
    #[must_use]
    pub fn with_modes(mut self, file: Option<u32>, directory: Option<u32>) -> Self {
        self.file_mode = file.unwrap_or(self.file_mode);
        self.directory_mode = directory.unwrap_or(self.directory_mode);
        self
    }

    /// The same store whose deadlines are measured by `clock`. Timestamps stay the file system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same store taken for a network mount, or a local disk.
    #[must_use]
    pub fn with_local_disk(mut self, local: bool) -> Self {
        self.local = local;
        self
    }

    fn path(&self, id: &BlobId) -> PathBuf {
        self.root.join(self.sharding.path(id.as_str()))
    }

    /// Whether the root is still the directory that was opened.
    fn check_root(&self) -> Result<()> {
        let gone = |error: Option<std::io::Error>| {
            let step = format!("{} is no longer the volume that was opened", self.root.display());
            let failure = Error::new(ErrorKind::StoreUnavailable, step).with_fix("mount the volume again");
            match error {
                Some(error) => failure.with_source(error),
                None => failure,
            }
        };
        match std::fs::metadata(&self.root) {
            Ok(metadata) if metadata.dev() == self.device => Ok(()),
            Ok(_) => Err(gone(None)),
            Err(error) => Err(gone(Some(error))),
        }
    }

    /// An error of touching a blob; "absent" only with the root in place.
    fn failure(&self, error: std::io::Error, step: String) -> Error {
        if error.kind() == IoErrorKind::NotFound
            && let Err(gone) = self.check_root()
        {
            return gone.at(step);
        }
        errors::from_io(error, step)
    }

    fn open_blob(&self, id: &BlobId, step: &dyn Fn() -> String) -> Result<(File, std::fs::Metadata)> {
        names::check(id)?;
        // Opening a pipe would wait for its other end.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let open = File::options().read(true).custom_flags(flags).open(self.path(id));
        let file = open.map_err(|error| self.failure(error, step()))?;
        let metadata = file.metadata().map_err(|error| self.failure(error, step()))?;
        if !metadata.is_file() {
            return Err(Error::damaged(format!("{}: it is no regular file", step())));
        }
        Ok((file, metadata))
    }

    fn describe(&self, id: BlobId, metadata: &std::fs::Metadata) -> Result<BlobMetadata> {
        let timestamp = timestamp(metadata).map_err(|error| error.at(format!("read the time of blob {id}")))?;
        Ok(BlobMetadata { id, length: metadata.len(), timestamp, etag: self.etag(metadata) })
    }

    fn etag(&self, metadata: &std::fs::Metadata) -> Option<ETag> {
        let (inode, length) = (metadata.ino(), metadata.len());
        self.local.then(|| ETag(format!("{inode:x}-{length:x}-{}.{:09}", metadata.mtime(), metadata.mtime_nsec())))
    }

    fn check_writable(&self, step: &str) -> Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => {
                Err(Error::new(ErrorKind::Permission, format!("{step}: the store was opened read-only")))
            }
        }
    }
}

fn timestamp(metadata: &std::fs::Metadata) -> Result<Timestamp> {
    let nanoseconds = i32::try_from(metadata.mtime_nsec()).unwrap_or(0);
    Timestamp::new(metadata.mtime(), nanoseconds)
        .map_err(|error| Error::damaged("its modification time is out of range").with_source(error))
}

fn read_sharding(root: &Path) -> Result<Sharding> {
    let step = || format!("read {SHARDS_FILE} in {}", root.display());
    let file = match File::open(root.join(SHARDS_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(Sharding::legacy()),
        Err(error) => return Err(errors::from_io(error, step())),
    };
    let length = file.metadata().map_err(|error| errors::from_io(error, step()))?.len();
    if length > SHARDS_FILE_MAX {
        return Err(Error::damaged(format!("{}: it has {length} bytes", step())));
    }
    Sharding::parse(&read_span(&file, 0, length).map_err(|error| errors::from_io(error, step()))?)
        .map_err(|error| error.at(step()))
}

/// Exactly these bytes; `UnexpectedEof` if the file has become shorter.
fn read_span(file: &File, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(|_| IoErrorKind::OutOfMemory)?;
    let mut data = Vec::new();
    // A sparse file may claim any length.
    data.try_reserve_exact(length).map_err(|_| IoErrorKind::OutOfMemory)?;
    data.resize(length, 0);
    file.read_exact_at(&mut data, offset)?;
    Ok(data)
}

impl Storage for FsStorage {
    fn address(&self) -> String {
        format!("filesystem://{}", self.root.display())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_writes: self.local, local_disk: self.local, ..Capabilities::LEAST }
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        let step = || format!("read blob {id}");
        let (file, metadata) = self.open_blob(id, &step)?;
        let (offset, length) = range.within(id, metadata.len())?;
        read_span(&file, offset, length).map(Bytes::from).map_err(|error| self.failure(error, step()))
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        names::check(id)?;
        let step = || format!("look at blob {id}");
        let metadata = std::fs::metadata(self.path(id)).map_err(|error| self.failure(error, step()))?;
        if !metadata.is_file() {
            return Err(Error::damaged(format!("{}: it is no regular file", step())));
        }
        self.describe(id.clone(), &metadata)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        list::Listing { store: self, prefix }.run(visit)
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        names::check_change(id)?;
        let step = format!("write blob {id}");
        self.check_writable(&step)?;
        if options.retention.is_some() {
            return Err(Error::unsupported(format!("{step}: file systems have no object locks")));
        }
        if options.condition != Condition::Always && !self.local {
            return Err(Error::unsupported(format!("{step}: a network mount has no conditional writes")));
        }
        self.write(id, &data, options, &step)
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        let mut report = DeleteReport::default();
        for id in ids {
            match self.delete_one(id, not_after) {
                Ok(()) => report.deleted.push(id.clone()),
                Err(error) => report.failed.push((id.clone(), error)),
            }
        }
        self.make_deletions_last(&mut report);
        report
    }

    fn now(&self) -> Result<Timestamp> {
        // A server stamps the files of a network mount, by its own clock.
        if self.local || self.access == Access::ReadOnly { Ok(Timestamp::now()) } else { self.server_time() }
    }

    fn versioning(&self) -> Result<Versioning> {
        Ok(Versioning::NONE)
    }

    fn local_root(&self) -> Option<&Path> {
        Some(&self.root)
    }
}

#[cfg(test)]
mod tests;
