//! A command on its way into the log: with the time, who asked, and a number by which a repeated one is known.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::time::LogTime;

/// Whoever asks chooses it at random, and asks again with the same: the command counts once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub u128);

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What raft replicates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// The same whenever the same is asked again.
    pub id: CommandId,
    /// The clock of the coordinator that proposed it; the machine takes the later of this and its own.
    pub at: LogTime,
    /// Who asked, as the API knows them; none for the coordinator itself.
    pub actor: Option<String>,
    /// What is asked.
    pub command: Command,
}
