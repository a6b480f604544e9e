//! Segments that were fetched from the archive: a few files beside the ledger, and the last one in memory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use verger_proto::Digest;

use crate::files;

/// Folder of the files, in the ledger's.
const FOLDER: &str = "fetched";
/// So many segments are kept: less than 200 MiB.
const FILES_MAX: usize = 8;

/// The segment that was read last: pages of one segment are read one after another.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Option<(Digest, Arc<[u8]>)>>);

impl Cache {
    /// A segment that was fetched before. What does not hold any more is none.
    pub(super) fn get(&self, ledger: &Path, digest: Digest) -> Option<Arc<[u8]>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plain)) = last.as_ref().filter(|(of, _)| *of == digest) {
            return Some(plain.clone());
        }
        let path = path(ledger, digest);
        let plain: Arc<[u8]> = std::fs::read(&path).ok()?.into();
        if Digest::of(&plain) != digest {
            tracing::warn!(path = %path.display(), "a fetched segment of the ledger does not hold any more: it is fetched again");
            let _ = std::fs::remove_file(&path);
            return None;
        }
        *last = Some((digest, plain.clone()));
        Some(plain)
    }

    /// Keeps a segment, and lets the oldest go. A disk that is full keeps none.
    pub(super) fn keep(&self, ledger: &Path, digest: Digest, plain: Vec<u8>) -> Arc<[u8]> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = path(ledger, digest);
        let kept = std::fs::create_dir_all(ledger.join(FOLDER))
            .and_then(|()| files::replace(&path, &plain))
            .and_then(|()| forget(&ledger.join(FOLDER), &path));
        if let Err(error) = kept {
            tracing::debug!(path = %path.display(), %error, "a fetched segment of the ledger was not kept");
        }
        let plain: Arc<[u8]> = plain.into();
        *last = Some((digest, plain.clone()));
        plain
    }
}

fn path(ledger: &Path, digest: Digest) -> PathBuf {
    ledger.join(FOLDER).join(digest.to_string())
}

/// Removes all but the newest.
fn forget(folder: &Path, newest: &Path) -> std::io::Result<()> {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path() != newest {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort_unstable();
    let surplus = found.len().saturating_sub(FILES_MAX.saturating_sub(1));
    found.iter().take(surplus).try_for_each(|(_, path)| std::fs::remove_file(path))
}
