//! What workers in processes of their own say and hear. Records of the envelope: both ends are this program.

use serde::{Deserialize, Serialize, Serializer};
use verger_proto::envelope::{self, EnvelopeError, Kind};
use verger_proto::work_queue::PublicKey;
use verger_proto::{
    Command, CommandId, Digest, Driver, Event, Evidence, LogTime, Pool, Progress, Registration, RepositoryId,
    SeenLease, StoreProbe, Ticket, Unable, WorkerId, WorkerInfo,
};

use crate::machine::{Repository, State};
use crate::notes::Notes;
use crate::schedule::{Past, Work};

/// A worker that would drive a cycle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// As whom.
    pub driver: Driver,
    /// Whose repositories it works on.
    pub pools: Vec<Pool>,
}

/// A cycle that is to be run by whoever gets this.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// The repository.
    pub repository: RepositoryId,
    /// How it is looked after.
    pub registration: Registration,
    /// What is to be done.
    pub work: Work,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// The repository.
    pub repository: RepositoryId,
    /// As whom it was driven.
    pub driver: Driver,
    /// It became no cycle.
    pub failed: bool,
}

/// A command. The same number again counts once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Said {
    /// Its number.
    pub id: CommandId,
    /// What.
    pub command: Command,
}

/// What came of a command, and how things stand after it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heard {
    /// What happened.
    pub events: Vec<Event>,
    /// The state of its repository.
    pub view: View,
}

/// One repository of the state.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(from = "Sent")]
pub struct View {
    /// It is not older than this entry of the log.
    pub applied: u64,
    /// See [`State::view_of`].
    pub state: State,
}

impl View {
    /// What tells it from a later one.
    ///
    /// # Errors
    /// It is longer than a record may be.
    pub fn digest(&self) -> Result<Digest, EnvelopeError> {
        Ok(Digest::of(&envelope::encode(Kind::Work, &(&self.state, self.more()))?))
    }

    fn more(&self) -> Vec<(RepositoryId, More)> {
        self.state.repositories.iter().map(|(id, entry)| (id.clone(), More::of(entry))).collect()
    }
}

impl Serialize for View {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Sent { applied: self.applied, state: &self.state, more: self.more() }.serialize(serializer)
    }
}

/// A view under way. What the state itself leaves out, as it has parts of its own in snapshots, goes beside it: whoever leads a cycle has
/// to know what the fleet wrote, and which index was lost. What came of verifying it is for people alone, and wakes no worker.
#[derive(Serialize, Deserialize)]
struct Sent<S = State> {
    applied: u64,
    state: S,
    more: Vec<(RepositoryId, More)>,
}

#[derive(Serialize, Deserialize)]
struct More {
    notes: Notes,
    index: Past,
    store: Option<(StoreProbe, LogTime)>,
    other: Option<(SeenLease, LogTime)>,
    unable: Vec<Unable>,
    drives: Vec<Driver>,
}

impl More {
    fn of(entry: &Repository) -> Self {
        Self {
            notes: entry.notes.clone(),
            index: entry.calendar.index,
            store: entry.store.clone(),
            other: entry.other.clone(),
            unable: entry.unable.clone(),
            drives: entry.drives.clone(),
        }
    }
}

impl From<Sent> for View {
    fn from(Sent { applied, mut state, more }: Sent) -> Self {
        for (id, More { notes, index, store, other, unable, drives }) in more {
            if let Some(entry) = state.repositories.get_mut(&id) {
                (entry.calendar.index, entry.drives) = (index, drives);
                (entry.notes, entry.store, entry.other, entry.unable) = (notes, store, other, unable);
            }
        }
        Self { applied, state }
    }
}

/// Names that are to be kept beside the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Names {
    /// Of whose job.
    pub ticket: Ticket,
    /// What.
    pub evidence: Evidence,
}

/// How far a job is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Word {
    /// Whose job.
    pub ticket: Ticket,
    /// How far.
    pub progress: Progress,
}

/// A worker says that it is there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Presence {
    /// Its name.
    pub worker: WorkerId,
    /// What it says of itself.
    pub info: WorkerInfo,
    /// It goes.
    pub leaves: bool,
}

/// What it is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Instructions {
    /// The fleet's own name.
    pub fleet: String,
    /// Take nothing new.
    pub drain: bool,
    /// What messages of the work queue are checked with, by number of the coordinator.
    pub keys: Vec<(u64, PublicKey)>,
}
