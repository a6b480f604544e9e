//! The ledger of a node that does not run: looked at as a whole, and made whole from its archive.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::{RepositoryId, level};

use super::ledger_verify::{breaks, follow};
use super::state_machine::LEDGER_FOLDER;
use super::{files, identity, snapshot};
use crate::ledger::archive::index::Index;
use crate::ledger::archive::{Archive, Archived};
use crate::ledger::evidence::{self, EvidenceChecked};
use crate::ledger::folder::LedgerFolder;
use crate::ledger::segment::{self, LedgerHead};

/// The ledger of a node that does not run, as long as this lives.
#[derive(Debug)]
pub struct StoppedLedger {
    folder: PathBuf,
    cluster: String,
    known: LedgerHead,
    repositories: Vec<RepositoryId>,
    _lock: File,
}

/// What one look at a ledger found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Records that the last snapshot speaks for; what comes after them is in the raft log.
    pub records: u64,
    /// Segments whose files are here.
    pub here: u64,
    /// Segments that are in the archive alone.
    pub archived: u64,
    /// Objects that were read.
    pub objects_read: u64,
    /// What does not hold.
    pub problems: Vec<Error>,
}

impl StoppedLedger {
    /// Of the node's own folder.
    ///
    /// # Errors
    /// `Locked` if the node runs, `NotFound` if there is none, `Damaged` if its identity or snapshot does not hold, `Unsupported` if a
    /// newer verger wrote them.
    pub fn open(data: &Path) -> Result<Self> {
        let (identity, lock) = identity::open_stopped(data)?;
        let (repositories, known) = snapshot::load(data, level::LEVEL)?
            .map_or_else(Default::default, |(replicated, head)| {
                (replicated.state.repositories.into_keys().collect(), head)
            });
        Ok(Self { folder: data.join(LEDGER_FOLDER), cluster: identity.cluster, known, repositories, _lock: lock })
    }

    /// The cluster whose ledger it is.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Follows the chain through all that is here; with an archive, every archived segment is read, too. Changes nothing.
    ///
    /// # Errors
    /// `Damaged` if what is known of the archive does not hold, or what reading a file gives.
    pub fn check(&self, archive: Option<&Archive>) -> Result<Checked> {
        let index = Index::load(&self.folder)?;
        let mut checked = Checked { records: self.known.records, ..Checked::default() };
        let mut head = LedgerHead::default();
        while head.records < self.known.records {
            let archived = index.at(head.records).filter(|archived| archived.first == head);
            let end = match self.segment(head, archived)? {
                Segment::Here(end) => {
                    checked.here = checked.here.saturating_add(1);
                    Some(end)
                }
                Segment::Archived(end) => {
                    checked.archived = checked.archived.saturating_add(1);
                    Some(end)
                }
                Segment::Broken(error) => {
                    checked.problems.push(error);
                    archived.map(|archived| archived.end)
                }
            };
            if let (Some(archive), Some(archived)) = (archive, archived) {
                checked.objects_read = checked.objects_read.saturating_add(1);
                checked.problems.extend(archive.download(archived).err());
            }
            // Without its end, nothing can be said of what comes after it.
            let Some(end) = end else { return Ok(checked) };
            head = end;
        }
        if head != self.known {
            let what = format!(
                "its record {} is not the one that the snapshot speaks of",
                self.known.records.saturating_sub(1)
            );
            checked.problems.push(breaks(&self.folder, None, what));
        }
        Ok(checked)
    }

    /// Reads all evidence in the folder of work, and what is known to be in the archive if it is given.
    ///
    /// # Errors
    /// As [`evidence::check`].
    pub fn check_evidence(&self, work: &Path, archive: Option<&Arc<Archive>>) -> Result<EvidenceChecked> {
        let ledger = LedgerFolder::new(&self.folder, archive.cloned());
        evidence::check(work, &ledger, archive.map(AsRef::as_ref))
    }

    /// Puts evidence back that does not hold, and makes what is known of the archive again.
    ///
    /// # Errors
    /// As [`evidence::restore`].
    pub fn restore_evidence(&self, work: &Path, archive: &Archive) -> Result<Vec<PathBuf>> {
        evidence::restore(work, &self.repositories, archive)
    }

    /// Puts files that do not hold, or are missing, back from the archive, and says which. What is in the archive alone stays there.
    ///
    /// # Errors
    /// `Damaged` for a segment that the archive does not have either; what was put back before it stays.
    pub fn restore(&self, archive: &Archive) -> Result<Vec<PathBuf>> {
        let index = Index::load(&self.folder)?;
        let (mut restored, mut head) = (Vec::new(), LedgerHead::default());
        while head.records < self.known.records {
            let archived = index.at(head.records).filter(|archived| archived.first == head);
            head = match self.segment(head, archived)? {
                Segment::Here(end) | Segment::Archived(end) => end,
                Segment::Broken(broken) => {
                    let path = segment::path(&self.folder, head.records);
                    let plain = match archived {
                        Some(archived) => archive.download(archived)?,
                        None => archive.find(head)?.ok_or(broken)?,
                    };
                    files::replace(&path, &plain)?;
                    restored.push(path);
                    match self.segment(head, archived)? {
                        Segment::Here(end) | Segment::Archived(end) => end,
                        Segment::Broken(error) => return Err(error),
                    }
                }
            };
        }
        if head == self.known {
            return Ok(restored);
        }
        Err(breaks(&self.folder, None, "its records are not those that the snapshot speaks of"))
    }

    fn segment(&self, head: LedgerHead, archived: Option<&Archived>) -> Result<Segment> {
        let path = segment::path(&self.folder, head.records);
        let file = match (File::open(&path), archived) {
            (Ok(file), _) => file,
            (Err(error), Some(archived)) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Segment::Archived(archived.end));
            }
            (Err(error), None) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Segment::Broken(breaks(&path, None, "it is missing")));
            }
            (Err(error), _) => return Err(files::failed(&path, "open the ledger", error)),
        };
        match follow(&path, &file, head, self.known, archived) {
            Ok(end) => Ok(Segment::Here(end)),
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(Segment::Broken(error)),
            Err(error) => Err(error),
        }
    }
}

enum Segment {
    Here(LedgerHead),
    Archived(LedgerHead),
    Broken(Error),
}
