//! Which deeds named a blob or content: asked of all evidence, here and in the archive (S6).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::{Batch, CycleId, Digest, Evidence, RepositoryId};

use super::index::PartIndex;
use super::{EvidenceFolder, records};
use crate::drive;
use crate::ledger::archive::Archive;

/// All evidence that can be read here.
#[derive(Debug, Clone)]
pub struct Shelf {
    work: PathBuf,
    archive: Option<Arc<Archive>>,
}

/// A record that names what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Whose.
    pub repository: RepositoryId,
    /// Which cycle did it.
    pub cycle: CycleId,
    /// In which batch.
    pub batch: Batch,
    /// By which rule.
    pub rule: String,
    /// The record's digest.
    pub record: Digest,
    /// The object that holds the record; `None`: it is on this disk.
    pub object: Option<String>,
}

/// What a search found, and what it could not read.
#[derive(Debug, Default)]
pub struct Search {
    /// By repository and cycle.
    pub hits: Vec<Hit>,
    /// Evidence that could not be read: there may be more.
    pub unread: Vec<Error>,
}

impl Shelf {
    /// Of the repositories whose folders are in `work`.
    #[must_use]
    pub fn new(work: &Path, archive: Option<Arc<Archive>>) -> Self {
        Self { work: work.to_owned(), archive }
    }

    /// Looks for a name in the evidence of these repositories. What cannot be read is told, and keeps nothing else from being found.
    #[must_use]
    pub fn find(&self, repositories: &[RepositoryId], name: &str) -> Search {
        let mut search = Search::default();
        if let Some(archive) = &self.archive {
            match archive.learn_evidence(&self.work, repositories) {
                Ok((_, bad)) => search.unread.extend(bad),
                Err(error) => search.unread.push(error),
            }
        }
        for repository in repositories {
            if let Err(error) = self.find_in(repository, name, &mut search) {
                search.unread.push(error);
            }
        }
        search
    }

    fn find_in(&self, repository: &RepositoryId, name: &str, search: &mut Search) -> Result<()> {
        let folder = EvidenceFolder::beside(&drive::folder(&self.work, repository));
        let (mut seen, mut here) = (BTreeSet::new(), BTreeSet::new());
        for cycle in folder.cycles()?.into_keys() {
            let read = folder.parts(cycle, &mut |_, part| {
                here.insert(Digest::of(part));
                take(&folder.records(cycle, part)?, (repository, cycle, None), name, &mut seen, &mut search.hits);
                Ok(())
            });
            match read {
                // Archived and removed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => search.unread.push(error),
                Ok(()) => {}
            }
        }
        let index = PartIndex::load(&folder)?;
        for part in index.iter().filter(|part| part.names.may_have(name) && !here.contains(&part.digest)) {
            let found = match &self.archive {
                Some(archive) => archive.fetch_part(part),
                None => Err(Error::new(
                    ErrorKind::Usage,
                    format!("this process was given no archive to read the object {}", part.object),
                )
                .with_fix(format!("start it with --ledger-archive {}", part.address))),
            };
            match found.and_then(|plain| {
                records(&plain)
                    .map_err(|error| Error::damaged(format!("read the object {}", part.object)).with_source(error))
            }) {
                Ok((found, _)) => {
                    let place = (repository, part.cycle, Some(part.object.as_str()));
                    take(&found, place, name, &mut seen, &mut search.hits);
                }
                Err(error) => search.unread.push(error),
            }
        }
        search
            .hits
            .sort_by(|a, b| (&a.repository, a.cycle, a.batch.number).cmp(&(&b.repository, b.cycle, b.batch.number)));
        Ok(())
    }
}

/// Takes those of the records that hold the name and were not seen yet.
fn take(
    records: &[(Digest, Evidence)],
    (repository, cycle, object): (&RepositoryId, CycleId, Option<&str>),
    name: &str,
    seen: &mut BTreeSet<(CycleId, Digest)>,
    hits: &mut Vec<Hit>,
) {
    for (record, evidence) in records {
        if evidence.names.iter().any(|one| one == name) && seen.insert((cycle, *record)) {
            hits.push(Hit {
                repository: repository.clone(),
                cycle,
                batch: evidence.batch,
                rule: evidence.rule.clone(),
                record: *record,
                object: object.map(str::to_owned),
            });
        }
    }
}
