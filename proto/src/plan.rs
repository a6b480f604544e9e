//! What the machine sees of a plan: its header. The body stays in the exchange.

use serde::{Deserialize, Serialize};

use crate::envelope::{self, Kind};
use crate::id::{PlanDigest, RepositoryId};
use crate::job::{OutputRef, ViewRef};
use crate::mode::Mode;
use crate::stage::Stage;
use crate::term::Term;

/// What one stage is going to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StageWork {
    /// The stage.
    pub stage: Stage,
    /// Items: marks, revivals, blobs, contents, steps. With 0 the stage still runs and leaves its record.
    pub items: u64,
    /// Bytes that they stand for (packed length of contents, length of blobs).
    pub bytes: u64,
}

/// The header of a plan: immutable, hashed, refused if it does not hold together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlanHeader {
    /// The repository that it was made from.
    pub repository: RepositoryId,
    /// Address of the store.
    pub store: String,
    /// The index view that it was made from.
    pub view: ViewRef,
    /// The lease's term under which it was made.
    pub term: Term,
    /// Quick or full.
    pub mode: Mode,
    /// Stages after the seal that run, ascending; a stage that is not here is passed. `Close` always runs.
    pub stages: Vec<StageWork>,
    /// Packed bytes of the entries that are marked or dropped; bytes that a rewrite moves do not count (S5).
    pub removed_bytes: u64,
    /// Packed bytes of all entries in the view, system contents included (S5).
    pub total_packed_bytes: u64,
    /// Entries in the view.
    pub contents: u64,
    /// Contents that are live once the plan is carried out.
    pub live_contents: u64,
    /// The body in the exchange.
    pub body: OutputRef,
}

impl PlanHeader {
    /// Digest of the header and, through it, of the body.
    ///
    /// # Errors
    /// The header is larger than a record may be.
    pub fn digest(&self) -> Result<PlanDigest, envelope::EnvelopeError> {
        Ok(PlanDigest(crate::Digest::of(&envelope::encode(Kind::PlanHeader, self)?)))
    }

    /// What `stage` is going to do; `None` if it is passed.
    #[must_use]
    pub fn work(&self, stage: Stage) -> Option<StageWork> {
        self.stages.iter().find(|work| work.stage == stage).copied()
    }
}
