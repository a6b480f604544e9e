//! Who drives the cycles of a repository where several processes could: one run of one process, and no other until its time is over.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::id::RepositoryId;

/// One attempt of one process at one repository. Never the same twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Driver {
    /// The coordinator's number.
    pub node: u64,
    /// How often its data folder had been opened.
    pub boots: u64,
    /// Number of the attempt in this process.
    pub run: u64,
}

impl Driver {
    /// Whether `earlier` is of the same data folder, which only one process has at a time: its process is gone.
    #[must_use]
    pub fn proves_dead(&self, earlier: &Self) -> bool {
        self.node == earlier.node && self.boots > earlier.boots
    }

    /// Whether both are of one process, whichever attempt.
    #[must_use]
    pub fn is_process(&self, other: Self) -> bool {
        (self.node, self.boots) == (other.node, other.boots)
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{}.{}.{}", self.node, self.boots, self.run)
    }
}

/// A command of whoever drives a repository. It counts only while the machine takes him for the driver, and is a sign of life.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Driven {
    /// Who.
    pub driver: Driver,
    /// Of which repository.
    pub repository: RepositoryId,
    /// What.
    pub command: Command,
}
