//! Private temporary files for what does not fit memory: without a name from the start, so that nothing is left behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Names that may be taken by others before giving up.
const ATTEMPTS: u32 = 16;

/// A folder to put temporary files in.
#[derive(Debug, Clone)]
pub struct SpillFolder {
    path: PathBuf,
    limit: u64,
}

impl SpillFolder {
    /// In `path`, which has to exist once a file is wanted.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), limit: u64::MAX }
    }

    /// At most so many bytes for each file; what is beyond is `DiskFull`.
    #[must_use]
    pub fn with_limit(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new empty file that nobody else can open and that is gone when it is dropped, however the process ends.
    ///
    /// # Errors
    /// `DiskFull`; `Permission` for a folder that cannot be written.
    pub fn file(&self) -> Result<SpillFile> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let path = self.path.join(format!(".verger-{:016x}", rand::random::<u64>()));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    std::fs::remove_file(&path).map_err(|error| failed("make", &self.path, error))?;
                    let inner = Inner { file, length: AtomicU64::new(0), folder: self.clone() };
                    return Ok(SpillFile(Arc::new(inner)));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(error),
                Err(error) => return Err(failed("make", &self.path, error)),
            }
        }
        let error = last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into());
        Err(failed("make", &self.path, error))
    }
}

/// A temporary file without a name. Clones are the same file.
#[derive(Debug, Clone)]
pub struct SpillFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    length: AtomicU64,
    folder: SpillFolder,
}

impl SpillFile {
    /// Sets `bytes` at the end of the file aside, for one writer; says where they begin.
    #[must_use]
    pub fn reserve(&self, bytes: u64) -> u64 {
        self.0.length.fetch_add(bytes, Ordering::Relaxed)
    }

    /// Bytes that may still be written to its disk, where the system tells.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        let disk = rustix::fs::fstatvfs(&self.0.file).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Writes at the end; says where it begins.
    ///
    /// # Errors
    /// `DiskFull`; `Permission`.
    pub fn append(&self, bytes: &[u8]) -> Result<u64> {
        let at = self.reserve(bytes.len() as u64);
        self.write(bytes, at)?;
        Ok(at)
    }

    /// Writes at a place that was reserved.
    ///
    /// # Errors
    /// `DiskFull`; `Permission`.
    pub fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        let inner = &*self.0;
        let written = if at.saturating_add(bytes.len() as u64) > inner.folder.limit {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            inner.file.write_all_at(bytes, at)
        };
        written.map_err(|error| failed("write", &inner.folder.path, error))
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// `StoreUnavailable`: the disk failed.
    pub fn read(&self, out: &mut [u8], at: u64) -> Result<()> {
        self.0.file.read_exact_at(out, at).map_err(|error| failed("read", &self.0.folder.path, error))
    }

    /// Reads what this process wrote, where nothing else could take its place.
    ///
    /// # Panics
    /// If the disk does not give back what was written to it.
    pub fn read_back(&self, out: &mut [u8], at: u64) {
        self.read(out, at).unwrap_or_else(|error| lost(&error.chain()));
    }

    /// Bytes written or reserved.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.0.length.load(Ordering::Relaxed)
    }

    /// A writer of up to `most` bytes from `at` on.
    #[must_use]
    pub fn writer(&self, at: u64, most: u64) -> SpillWriter {
        SpillWriter { file: self.clone(), at, end: at.saturating_add(most) }
    }

    /// Reads `length` bytes from `at` on, in order.
    #[must_use]
    pub fn reader(&self, at: u64, length: u64) -> SpillReader {
        SpillReader { file: self.clone(), at, end: at.saturating_add(length) }
    }
}

/// There is no going on without what was put aside, and no other copy of it: a defect of the machine, not of the repository.
///
/// # Panics
/// Always.
pub fn lost(error: &dyn std::fmt::Display) -> ! {
    panic!("{error}: this disk lost what was written to it")
}

/// Writes a part of a file in order.
#[derive(Debug)]
pub struct SpillWriter {
    file: SpillFile,
    at: u64,
    end: u64,
}

impl Write for SpillWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.end.saturating_sub(self.at) {
            return Err(io::Error::other(Error::damaged("more bytes than the item was said to have")));
        }
        self.file.write(bytes, self.at).map_err(io::Error::other)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a part of a file in order. Unbuffered.
#[derive(Debug)]
pub struct SpillReader {
    file: SpillFile,
    at: u64,
    end: u64,
}

impl Read for SpillReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = out.len().min(left);
        self.file.read(&mut out[..count], self.at).map_err(io::Error::other)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn failed(what: &str, folder: &Path, error: io::Error) -> Error {
    let step = format!("{what} a temporary file in {}", folder.display());
    if what == "read" {
        return Error::new(ErrorKind::StoreUnavailable, step).with_source(error);
    }
    let error = Error::of_file(step, error);
    match error.kind() {
        ErrorKind::DiskFull => {
            error.with_fix("make room there, or give --memory-limit more, so that less has to be put aside")
        }
        ErrorKind::Permission => error.with_fix("give --state-dir or TMPDIR a folder that can be written"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_no_name_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let spill = SpillFolder::new(folder.path());
        let file = spill.file().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left if the process dies now");
        let at = file.reserve(6);
        assert_eq!((at, file.append(b"tail").unwrap(), file.length()), (0, 6, 10));
        let mut writer = file.writer(at, 6);
        writer.write_all(b"abc").unwrap();
        writer.write_all(b"def").unwrap();
        assert!(writer.write_all(b"g").is_err(), "not into another's part");
        let mut text = String::new();
        file.reader(2, 6).read_to_string(&mut text).unwrap();
        assert_eq!(text, "cdefta");
        assert!(file.read(&mut [0; 8], 6).is_err(), "beyond the end");
    }

    #[test]
    fn a_full_disk_and_a_missing_folder_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = SpillFolder::new(folder.path()).with_limit(4).file().unwrap();
        file.append(b"1234").unwrap();
        let error = file.append(b"5").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DiskFull);
        assert!(error.fix().is_some() && error.to_string().contains(&folder.path().display().to_string()));
        let error = SpillFolder::new(folder.path().join("none")).file().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permission);
    }
}
