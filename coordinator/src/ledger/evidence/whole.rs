//! All evidence of a coordinator that does not run: looked at as a whole, and made whole from the archive.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::{CycleId, Digest, Event, RepositoryId};

use super::archive::repositories;
use super::index::PartIndex;
use super::{EvidenceFolder, records};
use crate::files;
use crate::ledger::archive::Archive;
use crate::ledger::folder::{LedgerFolder, Place};
use crate::{drive, ledger};

/// What one look at the evidence found.
#[derive(Debug, Default)]
pub struct EvidenceChecked {
    /// Files that are here.
    pub files: u64,
    /// Parts that are in the archive.
    pub parts: u64,
    /// Objects that were read.
    pub objects_read: u64,
    /// Records that the ledger names and that were not seen: who drove the cycle has them. `None`: not everything could be looked at.
    pub elsewhere: Option<u64>,
    /// What does not hold.
    pub problems: Vec<Error>,
}

/// Reads all evidence below `work`; with an archive, what is there, too. `ledger`: what names the records. Changes nothing.
///
/// # Errors
/// What listing and reading files gives.
pub fn check(work: &Path, ledger: &LedgerFolder, archive: Option<&Archive>) -> Result<EvidenceChecked> {
    let (mut checked, mut seen, mut is_all) = (EvidenceChecked::default(), BTreeSet::new(), true);
    for repository in repositories(work)? {
        let folder = EvidenceFolder::beside(&drive::folder(work, &repository));
        for cycle in folder.cycles()?.into_keys() {
            checked.files = checked.files.saturating_add(1);
            match folder.read(cycle) {
                Ok(found) => seen.extend(found.into_iter().map(|(digest, _)| digest)),
                Err(error) => checked.problems.push(restorable(error)),
            }
        }
        let index = match PartIndex::load(&folder) {
            Ok(index) => index,
            Err(error) => {
                checked.problems.push(error);
                continue;
            }
        };
        for part in index.iter() {
            checked.parts = checked.parts.saturating_add(1);
            let Some(archive) = archive else {
                is_all = false;
                continue;
            };
            checked.objects_read = checked.objects_read.saturating_add(1);
            match archive.fetch_part(part).map(|plain| records(&plain)) {
                Ok(Ok((found, _))) => seen.extend(found.into_iter().map(|(digest, _)| digest)),
                Ok(Err(error)) => {
                    let step = format!("the object {} holds no evidence", part.object);
                    checked.problems.push(Error::damaged(step).with_source(error));
                }
                Err(error) => checked.problems.push(error),
            }
        }
    }
    if is_all && checked.problems.is_empty() {
        match named(ledger) {
            Ok(named) => {
                let missing = named.keys().filter(|digest| !seen.contains(digest)).count();
                checked.elsewhere = Some(u64::try_from(missing).unwrap_or(u64::MAX));
            }
            // The look at the ledger itself tells.
            Err(error) if error.kind() == ErrorKind::Damaged => {}
            Err(error) => checked.problems.push(error),
        }
    }
    Ok(checked)
}

/// The records that the ledger names.
fn named(ledger: &LedgerFolder) -> Result<BTreeMap<Digest, CycleId>> {
    let mut named = BTreeMap::new();
    ledger.read_on(Place::default(), |record: ledger::Record, _| {
        for event in record.entry.events {
            if let Event::BatchDone { ticket, outcome } = event {
                named.extend(outcome.evidence.map(|evidence| (evidence.digest, ticket.cycle)));
            }
        }
        Ok(())
    })?;
    Ok(named)
}

fn restorable(error: Error) -> Error {
    error.with_fix("`verger ledger restore` puts the file back if the archive has it; else put it back from a copy")
}

/// Puts files that do not hold back from the archive, and makes what is known of the archive again. Says which files those are. What is
/// in the archive alone stays there.
///
/// # Errors
/// `Damaged` for a file that the archive does not have; what was put back before it stays.
pub fn restore(work: &Path, known: &[RepositoryId], archive: &Archive) -> Result<Vec<PathBuf>> {
    let all: BTreeSet<RepositoryId> = repositories(work)?.into_iter().chain(known.iter().cloned()).collect();
    let all: Vec<RepositoryId> = all.into_iter().collect();
    let folders = || all.iter().map(|repository| EvidenceFolder::beside(&drive::folder(work, repository)));
    for folder in folders() {
        if PartIndex::load(&folder).is_err_and(|error| error.kind() == ErrorKind::Damaged) {
            PartIndex::forget(&folder)?;
        }
    }
    let (learned, bad) = archive.learn_evidence(work, &all)?;
    for error in bad {
        tracing::warn!(error = error.chain(), "what is in the archive in this place is passed over");
    }
    let mut restored = Vec::new();
    for folder in folders() {
        if learned > 0 {
            restored.extend(PartIndex::load(&folder)?.iter().next().map(|_| folder.folder.join("archived")));
        }
        for cycle in folder.cycles()?.into_keys() {
            match folder.read(cycle) {
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    restored.push(restore_cycle(&folder, cycle, archive, error)?);
                }
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
    }
    Ok(restored)
}

fn restore_cycle(folder: &EvidenceFolder, cycle: CycleId, archive: &Archive, broken: Error) -> Result<PathBuf> {
    let index = PartIndex::load(folder)?;
    let (path, mut plain) = (folder.path(cycle), Vec::new());
    for part in index.of(cycle) {
        plain.extend(archive.fetch_part(part)?);
    }
    if plain.is_empty() {
        return Err(broken);
    }
    files::replace(&path, &plain).map_err(|error| Error::of_file(format!("write {}", path.display()), error))?;
    Ok(path)
}
