//! What a process counts of its own work, for its figures. It begins at zero with the process, as counters may.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use verger_kopia::storage::calls::Calls;
use verger_proto::RepositoryName;
use verger_proto::work_queue::WorkQueue;

use crate::prices::Prices;

/// What became of spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spans {
    /// The collector has them.
    pub exported: u64,
    /// There was no room in the queue.
    pub no_room: u64,
    /// The collector did not take them.
    pub refused: u64,
}

/// Where a node of a raft group is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Raft {
    /// Whether it leads.
    pub leads: bool,
    /// Its term; not a lease's.
    pub term: u64,
    /// The last entry of its log.
    pub last: Option<u64>,
    /// The last entry that its machine has seen.
    pub applied: Option<u64>,
    /// The last entry in its newest snapshot.
    pub snapshot: Option<u64>,
    /// What its cluster goes by ([`verger_proto::level`]).
    pub level: u32,
    /// What its program knows.
    pub program_level: u32,
}

type Ask<T> = Box<dyn Fn() -> T + Send + Sync>;

/// What this process counts. What nobody counts has no figure: missing is not measured, and never zero.
#[derive(Default)]
pub struct Meters {
    calls: Mutex<BTreeMap<RepositoryName, Arc<Calls>>>,
    /// Where spans are made.
    pub spans: Option<Ask<Spans>>,
    /// Where there is a raft group.
    pub raft: Option<Ask<Raft>>,
    /// Where hints for workers go, where there is a queue.
    pub queue: Option<Arc<dyn WorkQueue>>,
    /// What calls cost, where somebody said.
    pub prices: Prices,
    /// Most bytes that workers of this process may use together, where there are any.
    pub memory_limit: Option<u64>,
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").field("memory_limit", &self.memory_limit).finish_non_exhaustive()
    }
}

impl Meters {
    /// Where the calls to a repository's store are counted: the same for as long as the process lives.
    pub fn calls(&self, name: &RepositoryName) -> Arc<Calls> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.entry(name.clone()).or_default().clone()
    }

    /// Those of all repositories that this process worked on.
    #[must_use]
    pub fn all_calls(&self) -> Vec<Arc<Calls>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Those of a repository that this process worked on.
    #[must_use]
    pub fn known_calls(&self, name: &RepositoryName) -> Option<Arc<Calls>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}
