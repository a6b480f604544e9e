//! A repository that a fleet looks after: its name, where it lies, in whose name it is maintained, and where its secrets are.

use serde::{Deserialize, Serialize};

use crate::id::RepositoryName;
use crate::mode::{CycleOptions, IndexKind};
use crate::schedule::{MarkToDrop, Schedule};
use crate::time::LogTime;

/// Where a secret is. The secret itself never goes through the machine (S9).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretRef {
    /// An environment variable of the worker.
    Env(String),
    /// A file on the worker; a line end at its end does not count.
    File(String),
    /// A file of this name in each worker's folder of secrets, as Kubernetes mounts them.
    Mounted(String),
}

impl SecretRef {
    /// Where that is, in words.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Env(name) => format!("the environment variable {name}"),
            Self::File(path) => format!("the file {path}"),
            Self::Mounted(name) => format!("the mounted secret {name}"),
        }
    }
}

/// In whose name a repository is maintained (R22).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acting {
    /// Not at all: it is looked at, and plans are made.
    Observe,
    /// In the fleet's own name, which becomes the owner.
    TakeOwnership,
    /// As this owner (`user@host`).
    ActAs(String),
}

/// A repository that is looked after.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// Name.
    pub name: RepositoryName,
    /// Address, without secrets.
    pub address: String,
    /// Whose it is.
    pub tenant: String,
    /// Where its password is.
    pub password: SecretRef,
    /// In whose name it is maintained.
    pub acting: Acting,
    /// A person's word that nobody else maintains it (R4, R23).
    pub exclusive: bool,
    /// Which index it had when it was last looked at.
    pub index: IndexKind,
    /// When it is looked after.
    pub schedule: Schedule,
    /// The pool of workers that may do it.
    pub pool: String,
    /// Its share of the workers' time in relation to others; 0 counts as 1.
    pub weight: u32,
    /// The least time from mark to drop (R15), by its owner's word.
    pub mark_to_drop: MarkToDrop,
}

/// The pool of a repository of which nobody said another.
pub const POOL_DEFAULT: &str = "default";

/// A change of a registration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistrationChange {
    /// Nothing runs by itself any more, or again.
    Suspended(bool),
    /// In whose name it is maintained.
    Acting(Acting),
    /// A person's word that nobody else maintains it.
    Exclusive(bool),
    /// Where its password is.
    Password(SecretRef),
    /// It has another index now.
    Index(IndexKind),
    /// When it is looked after.
    Schedule(Box<Schedule>),
    /// The pool of workers that may do it.
    Pool(String),
    /// Its share of the workers' time.
    Weight(u32),
    /// The least time from mark to drop.
    MarkToDrop(MarkToDrop),
}

/// A cycle that somebody wants, remembered by its key until it is opened: the same key again is the same wish.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CycleRequest {
    /// Chosen by whoever asks.
    pub key: String,
    /// What for.
    pub options: CycleOptions,
    /// When it was asked for.
    pub asked: LogTime,
}
