//! A note beside sled of what was acknowledged. sled takes damage at the end of its log for a write that a crash cut short, and
//! goes on without it: only a note of ours can tell the two apart.
//!
//! Two slots are written in turn, each a record of its own, so that a torn write leaves the note before it. A slot is written after
//! what it notes was synced, and is not synced itself: after a power loss it may be behind, never ahead.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use verger_kopia::error::Result;
use verger_proto::envelope::{self, Kind};

use crate::raft::files::{self, damaged, failed};

const SLOT_BYTES: usize = 512;

/// What was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Mark {
    writes: u64,
}

#[derive(Debug)]
pub(super) struct MarkFile {
    file: File,
    path: PathBuf,
}

fn slot(writes: u64) -> Result<Vec<u8>> {
    let too_long = |error| {
        verger_kopia::error::Error::new(verger_kopia::error::ErrorKind::Internal, "encode a mark").with_source(error)
    };
    let mut bytes = envelope::encode(Kind::RaftMark, &Mark { writes }).map_err(too_long)?;
    bytes.resize(SLOT_BYTES, 0);
    Ok(bytes)
}

fn read_slot(bytes: &[u8]) -> Option<u64> {
    let length = envelope::header(bytes).ok()?.record_bytes;
    let mark: Mark = envelope::decode(Kind::RaftMark, bytes.get(..length)?).ok()?;
    Some(mark.writes)
}

impl MarkFile {
    /// Makes the file, synced, for a log that was just made.
    pub(super) fn create(path: &Path) -> Result<()> {
        files::replace(path, &[slot(0)?, slot(0)?].concat())
    }

    /// Opens the file. The number is of the last write that was acknowledged, or one before it if a slot is torn.
    pub(super) fn open(path: &Path) -> Result<(Self, u64)> {
        let bytes = files::read(path)?.ok_or_else(|| damaged(path, "is missing"))?;
        if bytes.len() != 2 * SLOT_BYTES {
            return Err(damaged(path, format!("has {} bytes instead of {}", bytes.len(), 2 * SLOT_BYTES)));
        }
        let writes = bytes.chunks(SLOT_BYTES).filter_map(read_slot).max();
        let writes = writes.ok_or_else(|| damaged(path, "neither of its records can be read"))?;
        let file = OpenOptions::new().write(true).open(path).map_err(|error| failed(path, "open", error))?;
        Ok((Self { file, path: path.to_owned() }, writes))
    }

    pub(super) fn set(&self, writes: u64) -> Result<()> {
        let offset = if writes.is_multiple_of(2) { 0 } else { SLOT_BYTES as u64 };
        self.file.write_all_at(&slot(writes)?, offset).map_err(|error| failed(&self.path, "write", error))
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| failed(&self.path, "sync", error))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Forgets the newest of the two records.
    pub(in crate::raft::durable) fn set_back(path: &Path) {
        let mut bytes = std::fs::read(path).unwrap();
        let newest = (0..2).max_by_key(|n| read_slot(&bytes[n * SLOT_BYTES..(n + 1) * SLOT_BYTES])).unwrap();
        bytes[newest * SLOT_BYTES..(newest + 1) * SLOT_BYTES].fill(0);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_torn_record_leaves_the_one_before_and_two_are_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.mark");
        MarkFile::create(&path).unwrap();
        let (mark, _) = MarkFile::open(&path).unwrap();
        for writes in 1..=7 {
            mark.set(writes).unwrap();
            assert_eq!(MarkFile::open(&path).unwrap().1, writes);
        }
        set_back(&path);
        assert_eq!(MarkFile::open(&path).unwrap().1, 6);
        std::fs::write(&path, [0xA5; 2 * SLOT_BYTES]).unwrap();
        assert!(MarkFile::open(&path).unwrap_err().chain().contains("log.mark"));
        std::fs::write(&path, []).unwrap();
        assert!(MarkFile::open(&path).is_err());
    }
}
