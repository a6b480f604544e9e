//! What is in the archive: a small file beside the ledger, replaced whole.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::envelope::Kind;
use verger_proto::{Digest, LogTime};

use crate::files;
use crate::ledger::list::{self, Unreadable};
use crate::ledger::segment::{self, LedgerHead};

/// Name of the file in the ledger's folder.
pub(crate) const FILE_NAME: &str = "archived";

/// A segment that was archived: written, read back and compared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Archived {
    /// How far the ledger goes before it.
    pub first: LedgerHead,
    /// How far the ledger goes with it.
    pub end: LedgerHead,
    /// Time of its last record.
    pub until: LogTime,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Bytes of the object.
    pub stored_bytes: u64,
    /// Name of the object.
    pub object: String,
    /// Where the object lies.
    pub address: String,
}

impl Archived {
    /// Bytes of the segment.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end.bytes.saturating_sub(self.first.bytes)
    }

    /// What it holds and where it is, in words.
    pub(crate) fn shown(&self) -> String {
        let last = self.end.records.saturating_sub(1);
        format!(
            "records {} to {last} of the ledger: the object {} in {}",
            self.first.records, self.object, self.address
        )
    }

    /// What whoever cannot have the object can do.
    pub(crate) fn way_out(&self) -> String {
        let (file, last) = (segment::file_name(self.first.records), self.end.records.saturating_sub(1));
        format!(
            "put the object back from a copy of the archive, or the file {file} into the ledger's folder from another node; \
             newer records can be read (`verger events --since {last}`)"
        )
    }

    /// Said where no archive is given.
    pub(crate) fn elsewhere(&self) -> Error {
        let step = format!("this process was given no archive to read {}", self.shown());
        Error::new(ErrorKind::Usage, step).with_fix(format!("start it with --ledger-archive {}", self.address))
    }
}

/// All that is known to be in the archive, by first record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Index(Vec<Archived>);

impl Index {
    /// What is known of the ledger in this folder.
    ///
    /// # Errors
    /// `Damaged` if the file does not hold, or what reading it gives.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = path(folder);
        let Some(bytes) = files::read_if_there(&path)? else { return Ok(Self::default()) };
        decode(&bytes).map_err(|error| {
            let step = format!("{} does not say what was archived of the ledger", path.display());
            let fix = "put the file back from a copy of the data folder; or stop this node, and let it join again under a new ID \
                       (`verger cluster replace`): what is in the archive stays there";
            Error::damaged(step).with_fix(fix).with_source(error)
        })
    }

    /// The segment that begins with the record of this number.
    #[must_use]
    pub fn at(&self, first: u64) -> Option<&Archived> {
        let found = self.0.binary_search_by_key(&first, |archived| archived.first.records).ok()?;
        self.0.get(found)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Archived> {
        self.0.iter()
    }

    /// The last segment that ends before the record of this number.
    pub(crate) fn last_until(&self, record: u64) -> Option<&Archived> {
        let after = self.0.partition_point(|archived| archived.end.records <= record);
        after.checked_sub(1).and_then(|last| self.0.get(last))
    }

    /// The last segment all of which is older than this time.
    pub(crate) fn last_older_than(&self, time: u64) -> Option<&Archived> {
        let after = self.0.partition_point(|archived| archived.until.0 < time);
        after.checked_sub(1).and_then(|last| self.0.get(last))
    }

    /// Adds a segment, in the place of what was known of it.
    pub(crate) fn insert(&mut self, archived: Archived) {
        match self.0.binary_search_by_key(&archived.first.records, |known| known.first.records) {
            Ok(found) => self.0[found] = archived,
            Err(place) => self.0.insert(place, archived),
        }
    }

    #[cfg(test)]
    pub(crate) fn forget_last(&mut self) {
        self.0.pop();
    }

    /// Writes the file. What it says lasts once this returns.
    ///
    /// # Errors
    /// `DiskFull`, `Permission`; the file is then as it was.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = path(folder);
        let bytes = list::encode(Kind::LedgerArchive, &self.0)?;
        files::replace(&path, &bytes).map_err(|error| Error::of_file(format!("write {}", path.display()), error))
    }
}

pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join(FILE_NAME)
}

fn decode(bytes: &[u8]) -> Result<Index, Unreadable> {
    let found: Vec<Archived> = list::decode(Kind::LedgerArchive, bytes)?;
    let follow = |pair: &[Archived]| pair[0].end.records <= pair[1].first.records;
    let has_records = |one: &Archived| one.end.records > one.first.records && one.end.bytes > one.first.bytes;
    if found.windows(2).all(follow) && found.iter().all(has_records) {
        return Ok(Index(found));
    }
    Err("its segments do not follow each other".into())
}
