//! Evidence goes to the ledger's archive: what a cycle that is over left, in parts, by the same steps as segments.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::PoisonError;

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::storage::list_all;
use verger_proto::{CycleId, Digest, Evidence, RepositoryId};

use super::filter::Filter;
use super::index::{ArchivedPart, PartIndex};
use super::{EvidenceFolder, records};
use crate::drive;
use crate::files::sync_folder;
use crate::ledger::archive::{Archive, object};

/// So many cycles of each repository stay on the disk although they are archived.
const CYCLES_LOCAL: usize = 16;
/// Digits of the repository's digest in names.
const REPOSITORY_DIGITS: usize = 32;

/// Files that are known to be archived, with the length that they had then: nothing is read to see it again.
pub(crate) type Known = BTreeMap<(RepositoryId, CycleId), u64>;

fn repository_part(repository: &RepositoryId) -> String {
    Digest::of(repository.to_string().as_bytes()).to_string().chars().take(REPOSITORY_DIGITS).collect()
}

/// What the objects of a fleet are called, those of one repository if it is given.
fn prefix(fleet: &str, repository: Option<&RepositoryId>) -> String {
    match repository {
        Some(repository) => format!("verger.evidence.{fleet}.{}.", repository_part(repository)),
        None => format!("verger.evidence.{fleet}."),
    }
}

/// Repository, cycle, first byte and digest of an object of this fleet, by its name.
fn parse<'a>(fleet: &str, name: &'a str) -> Option<(&'a str, CycleId, u64, Digest)> {
    let (repository, rest) = name.strip_prefix(&prefix(fleet, None))?.split_once('.')?;
    let (place, digest) = rest.strip_suffix(".zst")?.split_once('.')?;
    let (cycle, from) = place.split_once('-')?;
    Some((repository, CycleId(cycle.parse().ok()?), from.parse().ok()?, digest.parse().ok()?))
}

/// The repositories whose evidence is in a folder of work.
pub(crate) fn repositories(work: &Path) -> Result<Vec<RepositoryId>> {
    let failed = |error| Error::of_file(format!("list {}", work.display()), error);
    let entries = match std::fs::read_dir(work) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<RepositoryId>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

impl Archive {
    /// Archives the evidence of cycles that are over, and removes the files of what was archived but the newest few. Says how many
    /// files wait; why, is in the log, once.
    pub(crate) fn evidence_round(&self, work: &Path, is_over: &dyn Fn(CycleId) -> bool) -> u64 {
        let mut known = self.evidence.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut pending, mut trouble) = (0u64, None);
        let all = repositories(work).unwrap_or_else(|error| {
            trouble = Some(error);
            Vec::new()
        });
        for repository in all {
            let folder = EvidenceFolder::beside(&drive::folder(work, &repository));
            if let Err((left, error)) = self.keep_evidence(&folder, &repository, is_over, &mut known) {
                pending = pending.saturating_add(left);
                trouble.get_or_insert(error);
            }
        }
        drop(known);
        self.evidence.waiting.tell("evidence", &self.address, pending, trouble.as_ref());
        pending
    }

    /// Of one repository. An error says how many files wait.
    fn keep_evidence(
        &self,
        folder: &EvidenceFolder,
        repository: &RepositoryId,
        is_over: &dyn Fn(CycleId) -> bool,
        known: &mut Known,
    ) -> Result<(), (u64, Error)> {
        let files = folder.cycles().map_err(|error| (0, error))?;
        let over: Vec<(CycleId, u64)> = files.into_iter().filter(|(cycle, _)| is_over(*cycle)).collect();
        let is_known =
            |known: &Known, (cycle, length): &(CycleId, u64)| known.get(&(repository.clone(), *cycle)) == Some(length);
        let waiting: Vec<_> = over.iter().filter(|file| !is_known(known, file)).copied().collect();
        let left = || u64::try_from(waiting.len()).unwrap_or(u64::MAX);
        if !waiting.is_empty() {
            let mut index = PartIndex::load(folder).map_err(|error| (left(), error))?;
            let (mut failed, mut trouble) = (0, None);
            for (cycle, length) in &waiting {
                match self.keep_cycle(folder, repository, *cycle, &mut index) {
                    Ok(()) => {
                        known.insert((repository.clone(), *cycle), *length);
                    }
                    Err(error) => {
                        failed += 1;
                        trouble.get_or_insert(error);
                    }
                }
            }
            if let Some(error) = trouble {
                return Err((failed, error));
            }
        }
        let surplus = over.len().saturating_sub(CYCLES_LOCAL);
        let old: Vec<_> = over.iter().take(surplus).filter(|file| is_known(known, file)).collect();
        remove(folder, &old).map_err(|error| (0, error))?;
        for (cycle, _) in old {
            known.remove(&(repository.clone(), *cycle));
        }
        Ok(())
    }

    /// Write, read back, compare, note: part by part.
    fn keep_cycle(
        &self,
        folder: &EvidenceFolder,
        repository: &RepositoryId,
        cycle: CycleId,
        index: &mut PartIndex,
    ) -> Result<()> {
        folder.parts(cycle, &mut |from, plain| {
            let digest = Digest::of(plain);
            let object = format!("{}{:020}-{from:020}.{digest}.zst", prefix(&self.fleet, Some(repository)), cycle.0);
            if index.has(&object, &self.address) {
                return Ok(());
            }
            let found = folder.records(cycle, plain)?;
            let part = self.described(object, (cycle, from), plain, digest, &found);
            let storage = self.storage()?;
            object::write(&*storage, &part.object, object::compress(plain)?)
                .map_err(|error| error.at(format!("archive the object {}", part.object)))?;
            if self.fetch_part(&part)? != plain {
                return Err(Error::damaged(format!("the object {} holds other bytes than were written", part.object)));
            }
            index.insert(part);
            index.write(folder)
        })
    }

    /// The records of an archived part: exactly those that were archived.
    ///
    /// # Errors
    /// `Damaged` if the object is gone or holds something else; what reading it gives.
    pub(crate) fn fetch_part(&self, part: &ArchivedPart) -> Result<Vec<u8>> {
        let read = self.storage().and_then(|storage| object::read(&*storage, &part.object, part.bytes, part.digest));
        read.map(|(plain, _)| plain).map_err(|error| {
            let step = format!("read the object {} in {}", part.object, self.address);
            match error.kind() {
                ErrorKind::NotFound | ErrorKind::Damaged => {
                    let fix = "put the object back from a copy of the archive, or the cycle's file from the node that drove it";
                    error.into_kind(ErrorKind::Damaged).at(step).with_fix(fix)
                }
                _ => error.at(step),
            }
        })
    }

    /// Looks for parts of these repositories' evidence in the archive that are not known here: others archived them, or what was known
    /// is lost. Says how many there were, and what does not hold.
    ///
    /// # Errors
    /// What listing and reading gives, and what is known already may not hold.
    pub(crate) fn learn_evidence(&self, work: &Path, repositories: &[RepositoryId]) -> Result<(u64, Vec<Error>)> {
        let one = if let [only] = repositories { Some(only) } else { None };
        let storage = self.storage()?;
        let mut unknown: BTreeMap<&str, Vec<(&str, CycleId, u64, Digest)>> = BTreeMap::new();
        let listed = list_all(&*storage, &prefix(&self.fleet, one))?;
        for blob in &listed {
            if let Some((repository, cycle, from, digest)) = parse(&self.fleet, blob.id.as_str()) {
                unknown.entry(repository).or_default().push((blob.id.as_str(), cycle, from, digest));
            }
        }
        let (mut learned, mut bad) = (0u64, Vec::new());
        for repository in repositories {
            let Some(objects) = unknown.get(repository_part(repository).as_str()) else { continue };
            let folder = EvidenceFolder::beside(&drive::folder(work, repository));
            let mut index = PartIndex::load(&folder)?;
            let before = learned;
            for (object, cycle, from, digest) in objects {
                if index.has(object, &self.address) {
                    continue;
                }
                match object::read_any(&*storage, object, *digest)
                    .and_then(|plain| self.part(object, *cycle, *from, &plain))
                {
                    Ok(part) => {
                        index.insert(part);
                        learned = learned.saturating_add(1);
                    }
                    Err(error) if error.kind() == ErrorKind::Damaged => {
                        bad.push(error.at(format!("the object {object} in {} does not hold", self.address)));
                    }
                    Err(error) => return Err(error.at(format!("read the object {object} in {}", self.address))),
                }
            }
            if learned > before {
                index.write(&folder)?;
            }
        }
        Ok((learned, bad))
    }

    fn part(&self, object: &str, cycle: CycleId, from: u64, plain: &[u8]) -> Result<ArchivedPart> {
        let (found, whole) =
            records(plain).map_err(|error| Error::damaged("it holds no evidence").with_source(error))?;
        if whole != plain.len() || whole == 0 {
            return Err(Error::damaged("it holds no whole records"));
        }
        Ok(self.described(object.to_owned(), (cycle, from), plain, Digest::of(plain), &found))
    }

    fn described(
        &self,
        object: String,
        (cycle, from): (CycleId, u64),
        plain: &[u8],
        digest: Digest,
        found: &[(Digest, Evidence)],
    ) -> ArchivedPart {
        let names: Vec<&str> = found.iter().flat_map(|(_, evidence)| &evidence.names).map(String::as_str).collect();
        let (names, address) = (Filter::of(names.into_iter()), self.address.clone());
        ArchivedPart { cycle, from, bytes: plain.len() as u64, digest, object, address, names }
    }
}

/// Removes files whose length is still that which was archived.
fn remove(folder: &EvidenceFolder, old: &[&(CycleId, u64)]) -> Result<()> {
    let mut removed = false;
    for (cycle, length) in old {
        let path = folder.path(*cycle);
        let failed = |error| Error::of_file(format!("remove {}", path.display()), error);
        if std::fs::metadata(&path).map_err(failed)?.len() == *length {
            std::fs::remove_file(&path).map_err(failed)?;
            removed = true;
        }
    }
    if removed {
        let failed = |error| Error::of_file(format!("sync {}", folder.folder.display()), error);
        sync_folder(&folder.folder).map_err(failed)?;
    }
    Ok(())
}
