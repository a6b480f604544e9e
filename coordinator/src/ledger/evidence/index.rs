//! Which parts of a repository's evidence are in the archive: a file beside it, replaced whole.

use std::path::Path;

use serde::{Deserialize, Serialize};
use verger_kopia::error::{Error, Result};
use verger_proto::envelope::Kind;
use verger_proto::{CycleId, Digest};

use super::EvidenceFolder;
use super::filter::Filter;
use crate::files;
use crate::ledger::list::{self, Unreadable};

/// Name of the file in the folder of the evidence.
const FILE_NAME: &str = "archived";

/// Whole records of a cycle's evidence, written to the archive, read back and compared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ArchivedPart {
    pub(crate) cycle: CycleId,
    /// Where it began in the file that it comes from.
    pub(crate) from: u64,
    /// Its bytes.
    pub(crate) bytes: u64,
    /// Their digest.
    pub(crate) digest: Digest,
    /// Name of the object.
    pub(crate) object: String,
    /// Where the object lies.
    pub(crate) address: String,
    /// Which names may be in it.
    pub(super) names: Filter,
}

/// All parts that are known to be in the archive, by cycle. Several processes may have driven one cycle: then parts begin at one place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PartIndex(Vec<ArchivedPart>);

impl PartIndex {
    /// What is known of the evidence in this folder.
    ///
    /// # Errors
    /// `Damaged` if the file does not hold, or what reading it gives.
    pub(crate) fn load(folder: &EvidenceFolder) -> Result<Self> {
        let path = folder.folder.join(FILE_NAME);
        let Some(bytes) = files::read_if_there(&path)? else { return Ok(Self::default()) };
        decode(&bytes).map_err(|error| {
            let step = format!("{} does not say what was archived of the evidence", path.display());
            let fix = "stop the coordinator; `verger ledger restore` makes it again of what is in the archive";
            Error::damaged(step).with_fix(fix).with_source(error)
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ArchivedPart> {
        self.0.iter()
    }

    pub(crate) fn of(&self, cycle: CycleId) -> &[ArchivedPart] {
        let begin = self.0.partition_point(|part| part.cycle < cycle);
        let end = self.0.partition_point(|part| part.cycle <= cycle);
        self.0.get(begin..end).unwrap_or_default()
    }

    pub(super) fn has(&self, object: &str, address: &str) -> bool {
        self.0.iter().any(|part| part.object == object && part.address == address)
    }

    /// Adds a part, in the place of what was known of its object.
    pub(super) fn insert(&mut self, part: ArchivedPart) {
        self.0.retain(|known| known.object != part.object);
        let place = self.0.partition_point(|known| (known.cycle, known.from) <= (part.cycle, part.from));
        self.0.insert(place, part);
    }

    /// Writes the file. What it says lasts once this returns.
    ///
    /// # Errors
    /// `DiskFull`, `Permission`; the file is then as it was.
    pub(super) fn write(&self, folder: &EvidenceFolder) -> Result<()> {
        let path = folder.folder.join(FILE_NAME);
        let failed = |error| Error::of_file(format!("write {}", path.display()), error);
        files::make_folders(&folder.folder).map_err(failed)?;
        files::replace(&path, &list::encode(Kind::EvidenceArchive, &self.0)?).map_err(failed)
    }

    /// As if nothing had been archived.
    pub(crate) fn forget(folder: &EvidenceFolder) -> Result<()> {
        let path: &Path = &folder.folder.join(FILE_NAME);
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::of_file(format!("remove {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }
}

/// Reads what is in the file.
pub(crate) fn decode(bytes: &[u8]) -> Result<PartIndex, Unreadable> {
    let parts: Vec<ArchivedPart> = list::decode(Kind::EvidenceArchive, bytes)?;
    let is_sorted = parts.is_sorted_by_key(|part| (part.cycle, part.from));
    if !is_sorted || parts.iter().any(|part| part.bytes == 0) {
        return Err("its parts are not in order".into());
    }
    Ok(PartIndex(parts))
}
