//! What raft replicates here, and among whom.

use std::io::Cursor;

use super::runtime::Runtime;
use serde::{Deserialize, Serialize};
use verger_proto::{Event, Proposal};

/// A coordinator, as the others reach it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Peer {
    /// Host and port of its raft endpoint.
    pub address: String,
    /// Address of its API, for people and their command lines; empty if it is not told.
    pub api: String,
}

impl Peer {
    /// A coordinator at `address`.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), api: String::new() }
    }
}

/// What came of a proposal.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Applied {
    /// What the machine made of it. Of a repeated proposal: what it made of the first.
    pub events: Vec<Event>,
    /// It had been applied before.
    pub repeated: bool,
}

openraft::declare_raft_types!(
    /// Types of our raft.
    pub TypeConfig:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = Peer,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = Runtime,
);

/// An entry of the log.
pub type LogEntry = openraft::Entry<TypeConfig>;
/// Term, leader and index.
pub type LogId = openraft::LogId<u64>;
/// A vote.
pub type Vote = openraft::Vote<u64>;
/// Who belongs to the cluster, and which entry said so.
pub type Membership = openraft::StoredMembership<u64, Peer>;
/// A failure that stops a node.
pub type StorageError = openraft::StorageError<u64>;
