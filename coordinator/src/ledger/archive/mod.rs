//! The archive of a ledger: its old segments, in a store.
//!
//! ```text
//! a closed segment that a snapshot speaks for -> compress -> write if absent -> read back, compare -> index -> remove the file
//! ```
//! Each step can be done again: whoever is killed between two of them goes on there, and several replicas write the same objects.

mod cache;
pub mod index;
pub(in crate::ledger) mod object;
mod round;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::storage::{Storage, list_all};

use verger_proto::CycleId;

use super::evidence::Known;
use super::follow::{Follower, Step};
use super::segment::LedgerHead;

pub use index::Archived;
pub(crate) use round::Segments;

/// Segments that stay on the disk although they are archived, unless something else is said.
pub const KEEP_LOCAL_DEFAULT: u32 = 4;

type Open = Box<dyn Fn() -> Result<Arc<dyn Storage>> + Send + Sync>;

/// Where old segments of one ledger go, and come back from.
pub struct Archive {
    pub(in crate::ledger) address: String,
    pub(in crate::ledger) fleet: String,
    keep_local: u32,
    open: Open,
    storage: OnceLock<Arc<dyn Storage>>,
    cache: cache::Cache,
    segments: Waiting,
    rounds: Mutex<()>,
    pub(in crate::ledger) evidence: EvidenceRounds,
    /// Where the repositories' evidence is.
    work: Option<PathBuf>,
}

/// What waits, and whether that was said.
#[derive(Default)]
pub(in crate::ledger) struct Waiting {
    pending: AtomicU64,
    has_warned: AtomicBool,
}

/// Rounds of archiving evidence, one at a time.
#[derive(Default)]
pub(in crate::ledger) struct EvidenceRounds {
    pub(in crate::ledger) known: Mutex<Known>,
    pub(in crate::ledger) waiting: Waiting,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("address", &self.address).field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

impl Archive {
    /// The archive at `address` of the ledger of `fleet`, the newest `keep_local` of whose closed segments also stay on the disk. `open`
    /// is asked until it succeeds: a store that cannot be reached keeps nothing else from going on.
    pub fn new(
        address: impl Into<String>,
        fleet: &str,
        keep_local: u32,
        open: impl Fn() -> Result<Arc<dyn Storage>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            address: address.into(),
            fleet: object::fleet_part(fleet),
            keep_local,
            open: Box::new(open),
            storage: OnceLock::new(),
            cache: cache::Cache::default(),
            segments: Waiting::default(),
            rounds: Mutex::default(),
            evidence: EvidenceRounds::default(),
            work: None,
        }
    }

    /// The evidence of the repositories in `work` goes there, too.
    #[must_use]
    pub fn with_evidence(self, work: &Path) -> Self {
        Self { work: Some(work.to_owned()), ..self }
    }

    /// Archives what cycles that are over left as evidence; says how many files wait.
    pub(crate) fn keep_all_evidence(&self, is_over: &dyn Fn(CycleId) -> bool) -> u64 {
        self.work.as_ref().map_or(0, |work| self.evidence_round(work, is_over))
    }

    /// Segments, and files of evidence, that wait to be archived.
    #[must_use]
    pub fn pending(&self) -> u64 {
        let pending = |waiting: &Waiting| waiting.pending.load(Ordering::Relaxed);
        pending(&self.segments).saturating_add(pending(&self.evidence.waiting))
    }

    pub(in crate::ledger) fn storage(&self) -> Result<Arc<dyn Storage>> {
        if let Some(storage) = self.storage.get() {
            return Ok(storage.clone());
        }
        let storage = (self.open)()?;
        Ok(self.storage.get_or_init(|| storage).clone())
    }

    /// The bytes of an archived segment of the ledger in `ledger`: exactly those that were archived.
    ///
    /// # Errors
    /// `Damaged` if the object is gone or holds something else: the object is named; or what reading it gives.
    pub(crate) fn fetch(&self, ledger: &Path, archived: &Archived) -> Result<Arc<[u8]>> {
        if let Some(plain) = self.cache.get(ledger, archived.digest) {
            return Ok(plain);
        }
        let plain = self.download(archived)?;
        Ok(self.cache.keep(ledger, archived.digest, plain))
    }

    /// As [`Self::fetch`], from the store itself.
    pub(crate) fn download(&self, archived: &Archived) -> Result<Vec<u8>> {
        let read = self
            .storage()
            .and_then(|storage| object::read(&*storage, &archived.object, archived.bytes(), archived.digest));
        read.map(|(plain, _)| plain).map_err(|error| object::unreadable(archived, error))
    }

    /// The bytes of the segment that continues a ledger after `head`, if the archive has it: another replica may have archived what
    /// this one has not.
    ///
    /// # Errors
    /// What listing or reading gives. Objects that hold something else are passed over, with a word in the log.
    pub(crate) fn find(&self, head: LedgerHead) -> Result<Option<Vec<u8>>> {
        let storage = self.storage()?;
        let prefix = format!("verger.ledger.{}.{:020}-", self.fleet, head.records);
        for blob in list_all(&*storage, &prefix)? {
            let name = blob.id.as_str();
            let Some((_, digest)) = object::parse(&self.fleet, name).filter(|(first, _)| *first == head.records) else {
                continue;
            };
            match object::read_any(&*storage, name, digest) {
                Ok(plain) if continues(&plain, head) => return Ok(Some(plain)),
                Ok(_) => tracing::warn!(object = name, "an archived segment is not of this ledger"),
                Err(error) if error.kind() == ErrorKind::Damaged => {
                    tracing::warn!(object = name, error = error.chain(), "an archived segment does not hold");
                }
                Err(error) => return Err(error.at(format!("read the object {name} in {}", self.address))),
            }
        }
        Ok(None)
    }
}

impl Waiting {
    /// Keeps how much waits. One warning while something is in the way, and a word when it is not any more.
    pub(in crate::ledger) fn tell(&self, what: &str, address: &str, pending: u64, trouble: Option<&Error>) {
        self.pending.store(pending, Ordering::Relaxed);
        match trouble {
            Some(error) if !self.has_warned.swap(true, Ordering::Relaxed) => {
                let fix = error.fix().unwrap_or("see that the archive can be reached; it is tried again by itself");
                tracing::warn!(archive = address, pending, error = error.chain(), fix, "{what} stays here");
            }
            None if self.has_warned.swap(false, Ordering::Relaxed) => {
                tracing::info!(archive = address, pending, "{what} is archived again");
            }
            _ => {}
        }
    }
}

fn continues(plain: &[u8], head: LedgerHead) -> bool {
    let mut follower = Follower::new(plain, head.chain(), 0, plain.len() as u64);
    loop {
        match follower.next() {
            Ok(Step::Record(_)) => {}
            Ok(Step::End) => return follower.at() > 0,
            Ok(Step::Cut) | Err(_) => return false,
        }
    }
}
