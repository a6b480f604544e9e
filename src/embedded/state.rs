//! What this state directory remembers of repositories: their store IDs, terms, and when bytes can go next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use verger_kopia::mutant::{self, Mutant};

use rand::Rng;
use serde::{Deserialize, Serialize};
use verger_coordinator::files::{make_folders, replace};
use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::rules::next::Next;
use verger_kopia::spill::SpillFolder;
use verger_kopia::storage::{Storage, StoreLock};
use verger_kopia::{Error, ErrorKind, Repository, Result};
use verger_proto::id::{RepositoryId, StoreId, UniqueId};
use verger_proto::report::Severity;
use verger_worker::bucket_lease::{self, LeaseBody};

use super::Session;
use super::report::CycleReport;
use super::store::Tried;

const FILE: &str = "known.json";
/// How often `verger.lock` is tried, and how long apart.
const LOCK_ATTEMPTS: usize = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// What is remembered of one repository at one address.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Memory {
    store_id: String,
    term: u64,
    /// When bytes can go next, from the last report.
    freeing: Option<Timestamp>,
    /// End of the last cycle.
    last_cycle: Option<Timestamp>,
    /// Start of the last full cycle.
    last_full: Option<Timestamp>,
    /// The last full cycle found that an index blob may be lost.
    lost_index: bool,
    /// What the store was seen to do (R3).
    #[serde(skip_serializing_if = "Option::is_none")]
    tried: Option<Tried>,
}

/// A repository as this state directory knows it.
pub(super) struct Known {
    pub(super) id: RepositoryId,
    pub(super) last_term: u64,
    key: String,
    memory: Memory,
}

impl Known {
    /// Looks the repository up, by the lease in its store or by what is remembered. `added`: what it was when it was added to a
    /// fleet; another one is refused.
    pub(super) fn open(state_dir: &Path, session: &Session, added: Option<&RepositoryId>) -> Result<Self> {
        let known = Self::of(state_dir, &session.workspace.repository, added)?;
        match added.filter(|added| **added != known.id) {
            None => Ok(known),
            Some(added) => Err(another(&session.workspace.repository, added)),
        }
    }

    /// As [`Known::open`], without holding it against anything.
    pub(super) fn of(state_dir: &Path, repository: &Repository, added: Option<&RepositoryId>) -> Result<Self> {
        let storage = repository.storage();
        let address = storage.address();
        let unique = unique(repository)?;
        let key = format!("{unique}@{address}");
        let mut all = read(state_dir)?;
        let mut memory = all.remove(&key).unwrap_or_default();
        let lease = bucket_lease::read(&**storage)?;
        // A lease that was written for another address may be a copy: its store ID is not believed (R6).
        let is_of_here = |body: &LeaseBody| {
            let is_copy_believed = body.unique_id == unique.as_str() && mutant::on(Mutant::R6StoreIdOfACopy);
            body.is_of(unique.as_str(), &address) || is_copy_believed
        };
        if let Some(body) = lease.map(|(_, body)| body).filter(is_of_here) {
            memory.store_id = body.store_id;
        } else if let Some(added) = added {
            memory.store_id = added.store.to_string();
        } else if memory.store_id.is_empty() {
            memory.store_id = format!("{:032x}", rand::rng().random::<u128>());
        }
        let store =
            StoreId::new(memory.store_id.clone()).map_err(|e| Error::damaged("read the lease").with_source(e))?;
        Ok(Self { id: RepositoryId { unique, store }, last_term: memory.term, key, memory })
    }

    /// Says in the store which one it is, unless somebody has: whoever comes later means the same.
    fn named(self, repository: &Repository) -> Result<Self> {
        let storage = repository.storage();
        let (unique, store) = (self.id.unique.as_str(), self.id.store.as_str());
        let body = match lock_to_name(&**storage)? {
            Some(_lock) => Some(bucket_lease::name_store(&**storage, unique, store)?),
            // Whoever is at work there says it, and is asked again when this one wants to work.
            None => bucket_lease::read(&**storage)?.map(|(_, body)| body),
        };
        let Some(body) = body.filter(|body| body.is_of(unique, &storage.address())) else { return Ok(self) };
        let store = StoreId::new(body.store_id.clone()).map_err(|e| Error::damaged("read the lease").with_source(e))?;
        let memory = Memory { store_id: body.store_id, ..self.memory };
        Ok(Self { id: RepositoryId { unique: self.id.unique, store }, memory, ..self })
    }

    /// Whether the last full cycle found that an index blob may be lost: only a full cycle can find that it is not (R11).
    pub(super) fn lost_index(&self) -> bool {
        self.memory.lost_index && !mutant::on(Mutant::R11QuickForgetsTheLoss)
    }

    pub(super) fn freeing(&self) -> Option<Timestamp> {
        self.memory.freeing
    }

    pub(super) fn last_cycle(&self) -> Option<Timestamp> {
        self.memory.last_cycle
    }

    pub(super) fn tried(&self) -> Option<Tried> {
        self.memory.tried
    }

    /// Keeps that the store may be trusted.
    pub(super) fn remember_tried(&mut self, state_dir: &Path, tried: Tried) -> Result<()> {
        self.memory.tried = Some(tried);
        keep(state_dir, &self.key, self.memory.clone())
    }

    /// Keeps the term before anything is done under it: a lease that is remembered and gone is waited for (R6).
    pub(super) fn took(&self, state_dir: &Path, term: u64) -> Result<()> {
        if mutant::on(Mutant::R6TermForgotten) {
            return Ok(());
        }
        let memory = Memory { term: self.memory.term.max(term), ..self.memory.clone() };
        keep(state_dir, &self.key, memory)
    }

    /// Keeps what the next run needs to know.
    pub(super) fn remember(mut self, state_dir: &Path, report: &mut CycleReport) -> Result<()> {
        let next: Option<&Next> = report.next.as_ref();
        self.memory.term = self.memory.term.max(report.term);
        self.memory.last_cycle = Some(report.ended);
        if report.is_full() {
            self.memory.freeing = next.map(|next| next.at);
            self.memory.last_full = Some(report.started);
            self.memory.lost_index = report.damage.iter().any(|one| one.severity == Severity::LostIndex);
        }
        keep(state_dir, &self.key, self.memory)
    }
}

/// `verger.lock` of a local disk, and nothing elsewhere, where nobody is locked out; `None` if somebody holds it for longer than it takes
/// to say which store this is.
#[allow(clippy::option_option, reason = "whether it was taken, and whether there is one")]
fn lock_to_name(storage: &dyn Storage) -> Result<Option<Option<StoreLock>>> {
    for _ in 0..LOCK_ATTEMPTS {
        match bucket_lease::lock_local(storage) {
            Err(error) if error.kind() == ErrorKind::Locked => std::thread::sleep(LOCK_PAUSE),
            taken => return taken.map(Some),
        }
    }
    Ok(None)
}

/// The refusal of a store that is not the one that was added.
pub(super) fn another(repository: &Repository, added: &RepositoryId) -> Error {
    let address = repository.storage().address();
    let step = format!("{address} holds another repository than the one that was added ({added})");
    Error::new(ErrorKind::PlanRefused, step)
        .with_fix("Nothing was changed. If it was moved or made anew: verger repo remove NAME, then repo add")
}

/// What a repository is to a fleet: its unique ID and its store's. Asked again it is the same. `added`: what it was when it was added.
///
/// # Errors
/// `Damaged` if the lease or what is remembered cannot be read; `Permission` or `DiskFull` if it cannot be kept; storage errors.
pub fn identify(state_dir: &Path, repository: &Repository, added: Option<&RepositoryId>) -> Result<RepositoryId> {
    check_writable(state_dir)?;
    let known = Known::of(state_dir, repository, added)?;
    keep(state_dir, &known.key, known.memory)?;
    Ok(known.id)
}

/// As [`identify`], and from then on it is that to every fleet: the store says so itself. For stores that look at conditions of writes
/// and local disks alone; elsewhere the first lease says it.
///
/// # Errors
/// As [`identify`]; `Permission` if the store cannot be written to.
pub fn identify_for_all(
    state_dir: &Path,
    repository: &Repository,
    added: Option<&RepositoryId>,
) -> Result<RepositoryId> {
    check_writable(state_dir)?;
    let known = Known::of(state_dir, repository, added)?.named(repository)?;
    keep(state_dir, &known.key, known.memory)?;
    Ok(known.id)
}

/// Writes one repository's memory into the file. Cycles of other repositories may do so at this moment.
fn keep(state_dir: &Path, key: &str, memory: Memory) -> Result<()> {
    let path = state_dir.join(format!("{FILE}.lock"));
    let failed =
        |e: std::io::Error| Error::new(ErrorKind::Permission, format!("lock {}", path.display())).with_source(e);
    let lock = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut all = read(state_dir)?;
    all.insert(key.to_owned(), memory);
    write(state_dir, &all)
}

fn unique(repository: &Repository) -> Result<UniqueId> {
    UniqueId::new(verger_kopia::hex(repository.unique_id()))
        .map_err(|e| Error::new(ErrorKind::Internal, "name the repository").with_source(e))
}

/// An ID for a dry run, which takes no lease and so learns of no store.
pub(super) fn unknown_store(repository: &Repository) -> Result<RepositoryId> {
    let store =
        StoreId::new("0".repeat(32)).map_err(|e| Error::new(ErrorKind::Internal, "name the store").with_source(e))?;
    Ok(RepositoryId { unique: unique(repository)?, store })
}

/// Refuses before any write if the ledger could not be kept.
pub(super) fn check_writable(state_dir: &Path) -> Result<()> {
    // Without a name, so that nothing is left of it however this process ends.
    let write = || make_folders(state_dir).and_then(|()| tempfile::tempfile_in(state_dir)).map(drop);
    write().map_err(|e| {
        Error::of_file(format!("the ledger cannot be kept in {}", state_dir.display()), e)
            .with_fix("Name a folder that can be written with --state-dir")
    })
}

/// Where temporary files go: the folder of the ledger, which lies on a disk; where nothing may be written there, TMPDIR.
pub(super) fn spill_folder(state_dir: &Path, may_create: bool) -> SpillFolder {
    let is_there = state_dir.is_dir() || may_create && make_folders(state_dir).is_ok();
    let here = SpillFolder::new(state_dir);
    if is_there && here.file().is_ok() { here } else { SpillFolder::new(std::env::temp_dir()) }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

fn read(state_dir: &Path) -> Result<BTreeMap<String, Memory>> {
    let path = path(state_dir);
    let bad = || {
        Error::damaged(format!("read {}", path.display()))
            .with_fix("Remove that file; the lease in the store is then waited for once")
    };
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| bad().with_source(e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(bad().into_kind(ErrorKind::Permission).with_source(e)),
    }
}

fn write(state_dir: &Path, all: &BTreeMap<String, Memory>) -> Result<()> {
    let path = path(state_dir);
    let failed =
        |e: std::io::Error| Error::new(ErrorKind::Permission, format!("write {}", path.display())).with_source(e);
    let text = serde_json::to_vec_pretty(all).map_err(|e| failed(e.into()))?;
    replace(&path, &text).map_err(failed)
}
