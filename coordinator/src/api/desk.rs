//! What the interface needs of whoever gives out work to workers in processes of their own.

use verger_kopia::error::Result;
use verger_proto::{CycleId, Digest, Driver, Evidence, LogTime, OutputRef, Pool, RepositoryId};

use super::work::Task;
use crate::machine::Repository;

/// A worker that asks for a cycle.
pub struct Ask<'a> {
    /// As whom it would drive it.
    pub driver: Driver,
    /// Whose repositories it works on.
    pub pools: &'a [Pool],
    /// Whether its token reaches a tenant's repositories.
    pub sees: &'a dyn Fn(&str) -> bool,
}

/// Gives out work. Calls block.
pub trait Desk: Send + Sync {
    /// A cycle that is to be run now; whoever asks drives it from here on. `None`: there is none for him.
    ///
    /// # Errors
    /// The machine takes no commands.
    fn next(&self, ask: &Ask<'_>) -> Result<Option<Task>>;

    /// What came of a cycle that was given to this driver; of others, and said again, it is not heard. `failed`: it became none, so that
    /// it is let alone for a while.
    fn ended(&self, repository: &RepositoryId, driver: Driver, failed: bool);

    /// Whether this process runs cycles of this repository itself, and has not found that it cannot open it.
    fn is_able(&self, entry: &Repository, now: LogTime) -> bool;

    /// Keeps names of what a batch does beside the ledger.
    ///
    /// # Errors
    /// They may not have been kept.
    fn keep(&self, repository: &RepositoryId, cycle: CycleId, view: Digest, evidence: &Evidence) -> Result<OutputRef>;
}
