//! The ledger: who asked what, when, and what came of it. Append-only, synced, hash-chained.

pub mod archive;
pub mod evidence;
pub mod file;
pub mod folder;
pub(crate) mod follow;
pub(crate) mod list;
pub mod segment;

use serde::{Deserialize, Serialize};
use verger_kopia::error::Result;
use verger_proto::chain::{ChainError, ChainRecord};
use verger_proto::envelope::{self, Kind};
use verger_proto::{Command, Event, LogTime};

/// A command and what the machine made of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// What was asked.
    pub command: Command,
    /// What happened.
    pub events: Vec<Event>,
}

/// An entry with its place and time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Number, from 0.
    pub sequence: u64,
    /// When.
    pub at: LogTime,
    /// What.
    pub entry: Entry,
}

impl Record {
    /// Reads the entry of a link.
    fn of(link: &ChainRecord) -> Result<Self, ChainError> {
        let entry = envelope::decode(Kind::Entry, &link.body)?;
        Ok(Self { sequence: link.sequence, at: link.at, entry })
    }
}

/// Where entries are kept.
pub trait Ledger: Send {
    /// Keeps an entry. It is on stable storage when this returns (S6).
    ///
    /// # Errors
    /// It may not have been kept: nothing may be done that rests on it, and nothing more is taken.
    fn append(&mut self, at: LogTime, entry: &Entry) -> Result<()>;
}
