//! Where hints wait for workers: a queue in this process ([`local`]) or JetStream ([`nats`]), one contract ([`conformance`]).
//!
//! A hint decides nothing, the claim does. So the queue may lose offers, bring them late, twice, to two workers at once, or in any
//! order, and it costs time only. Whoever takes an offer claims what it points to *before* it says [`Taken::done`], and goes on by asking
//! the coordinator now and then while the queue is away.

pub mod local;
pub mod message;
pub mod meters;
pub mod nats;
pub mod signing;

pub mod conformance;

use std::time::Duration;

use crate::digest::Digest;
use crate::id::{Pool, RepositoryId};
use crate::queue::Hint;
use crate::time::LogTime;
use crate::trace::TraceParent;

pub use message::Rejection;
pub use meters::Meters;
pub use signing::{Keyring, PublicKey, SigningKey};

/// How long a taker may keep an offer; then somebody else gets it as well.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// How long an offer is kept for a taker. Whoever offers looks for what nobody claimed long before.
pub const AGE_MAX: Duration = Duration::from_secs(3600);
/// When an offer that was dropped comes back.
pub const LATER_DEFAULT: Duration = Duration::from_secs(1);
/// The longest that an offer can be put off.
pub const LATER_MAX: Duration = Duration::from_secs(300);
/// How many offers wait at most, in all pools together.
pub const WAITING_MAX: usize = 1 << 16;

/// Offers of a drive are the same offer only within this many milliseconds: a repository has one cycle after another.
const DRIVE_SLOT_MILLISECONDS: u64 = 10_000;

/// What there is to do.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Wake {
    /// A repository has a cycle that wants a lead.
    Drive {
        /// The repository.
        repository: RepositoryId,
    },
    /// There is a job.
    Job(Hint),
}

/// A hint for one of a pool's workers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Whose workers may do it.
    pub pool: Pool,
    /// What there is to do.
    pub wake: Wake,
    /// The trace that goes on in the worker. Nobody signs for it.
    pub trace: Option<TraceParent>,
}

impl Offer {
    /// By what a queue knows an offer that it already has: pool, job, attempt and term, or pool, repository and a few seconds.
    #[must_use]
    pub fn message_id(&self, now: LogTime) -> Digest {
        let what = match &self.wake {
            Wake::Drive { repository } => format!("drive {repository} {}", now.0 / DRIVE_SLOT_MILLISECONDS),
            Wake::Job(hint) => {
                let Hint { repository, cycle, job, attempt, term, stage: _ } = hint;
                format!("job {repository} {cycle} {job} {attempt} {}", term.0)
            }
        };
        Digest::of(format!("verger offer {} {what}", self.pool).as_bytes())
    }
}

/// Why nothing was offered or taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WorkQueueError {
    /// It was closed, for good.
    #[error("the work queue is closed")]
    Closed,
    /// It takes nothing in before something is taken out.
    #[error("the work queue is full")]
    Full,
    /// It cannot be reached, or does not answer. Said at once: wait before asking again, and ask the coordinator meanwhile.
    #[error("the work queue does not answer: {0}")]
    Away(String),
    /// It is there, but nobody has made what was asked for yet; a coordinator does that by itself.
    #[error("the work queue has no {0} yet; a coordinator that offers work makes it")]
    Absent(String),
    /// The server lets us do less than we need.
    #[error("the NATS server does not let this process {0}; the permissions are listed in deploy/nats/nats.conf")]
    Denied(Denied),
    /// The offer does not fit a message.
    #[error("the offer cannot be sent: {0}")]
    Unfit(String),
}

/// What a server refuses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// To connect with these credentials.
    #[error("connect: {0}")]
    Connect(String),
    /// A permission is missing.
    #[error("{verb} {subject:?}: allow it to {verb} there")]
    Permission {
        /// `publish` or `subscribe`.
        verb: &'static str,
        /// Where.
        subject: String,
    },
}

/// Where offers wait. Calls block, for no longer than they say; any number of threads may call at once.
pub trait WorkQueue: Send + Sync {
    /// Puts an offer in line. What is offered again while it waits, or within two minutes, may be dropped: it counts as offered.
    ///
    /// # Errors
    /// [`WorkQueueError`]; whether it is in line is not known if the queue is away.
    fn offer(&self, offer: &Offer) -> Result<(), WorkQueueError>;

    /// Waits up to `wait` (and for as long as a message is under way) for an offer to one of these pools; zero looks only.
    ///
    /// # Errors
    /// [`WorkQueueError`]; never [`WorkQueueError::Full`] or [`WorkQueueError::Unfit`].
    fn take(&self, pools: &[Pool], wait: Duration) -> Result<Option<Box<dyn Taken>>, WorkQueueError>;

    /// Lets all who wait go. This handle neither takes anything in nor gives anything out any more.
    fn close(&self);

    /// What it did so far.
    fn meters(&self) -> &Meters;
}

/// An offer in the hands of a worker. Dropped, it comes back after [`LATER_DEFAULT`]; kept longer than [`ACK_WAIT`], it may come to
/// somebody else, too.
pub trait Taken: Send {
    /// The offer.
    fn offer(&self) -> &Offer;

    /// Nobody else needs it: it was claimed, or there is nothing to claim any more.
    fn done(self: Box<Self>);

    /// Somebody shall have it after a while (at most [`LATER_MAX`]).
    fn later(self: Box<Self>, after: Duration);
}
