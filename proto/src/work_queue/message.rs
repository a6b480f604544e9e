//! What of an offer goes over a wire, and whether it is believed when it comes back.
//!
//! ```text
//! record of the envelope (WorkMessage) | number of the coordinator u64 | Ed25519 over all before (64)
//! ```
//! IDs only: who reads the queue learns which repositories there are by number, and nothing of where they lie. Nothing is decoded before
//! the signature holds.

use serde::{Deserialize, Serialize};

use super::signing::{Keyring, SIGNATURE_BYTES, SigningKey};
use super::{AGE_MAX, Offer, Wake};
use crate::envelope::{self, EnvelopeError, HEADER_BYTES, Kind};
use crate::id::{FleetId, Pool};
use crate::mutant::{self, Check};
use crate::time::LogTime;

/// Longest message, in bytes. One of a job has about 300.
pub const MESSAGE_BYTES_MAX: usize = 4096;

const NODE_BYTES: usize = 8;
const TRAILER_BYTES: usize = NODE_BYTES + SIGNATURE_BYTES;

/// What a coordinator says to a pool's workers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Whose workers.
    pub fleet: FleetId,
    /// Which of them: as the subject is not signed for, nor what somebody copies to another.
    pub pool: Pool,
    /// When, by the coordinator's clock.
    pub sent: LogTime,
    /// What there is to do.
    pub wake: Wake,
}

/// Why a message is thrown away.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// Longer than a message can be.
    #[error("it has {0} bytes, and at most {MESSAGE_BYTES_MAX} are read")]
    Oversized(usize),
    /// Not a message, or one of a newer program.
    #[error("it is not a message: {0}")]
    Malformed(EnvelopeError),
    /// No signature behind it.
    #[error("it is not signed")]
    Unsigned,
    /// A coordinator whose public key is not known here, or not any more.
    #[error("it says that coordinator {0} signed it, whose key is not known")]
    UnknownKey(u64),
    /// Somebody else signed it, or it was changed.
    #[error("the signature in the name of coordinator {0} is wrong")]
    Forged(u64),
    /// It is for other workers.
    #[error("it is for fleet {fleet}, pool {pool}")]
    Astray {
        /// Whose.
        fleet: FleetId,
        /// Which.
        pool: Pool,
    },
    /// Sent too long ago, or the clocks are hours apart.
    #[error("it was sent {0} ms from now, and an hour is allowed (replayed, or the clocks differ)")]
    Stale(u64),
}

impl Rejection {
    /// Labels, by number.
    pub const LABELS: [&'static str; 7] =
        ["oversized", "malformed", "unsigned", "unknown-key", "forged", "astray", "stale"];

    /// Number of its kind.
    #[must_use]
    pub fn number(&self) -> usize {
        match self {
            Rejection::Oversized(_) => 0,
            Rejection::Malformed(_) => 1,
            Rejection::Unsigned => 2,
            Rejection::UnknownKey(_) => 3,
            Rejection::Forged(_) => 4,
            Rejection::Astray { .. } => 5,
            Rejection::Stale(_) => 6,
        }
    }

    /// Whether no other worker can find the message good: one may have heard of a new key, be of a newer version, or have a better clock.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(
            self,
            Rejection::UnknownKey(_)
                | Rejection::Forged(_)
                | Rejection::Stale(_)
                | Rejection::Malformed(EnvelopeError::Version(_))
        )
    }

    /// As in metrics and logs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        Self::LABELS[self.number()]
    }
}

impl Message {
    /// Of an offer, without its trace, which goes beside the message.
    #[must_use]
    pub fn of(offer: &Offer, fleet: FleetId, sent: LogTime) -> Self {
        Self { fleet, pool: offer.pool.clone(), sent, wake: offer.wake.clone() }
    }

    /// As bytes, signed.
    ///
    /// # Errors
    /// It is too long.
    pub fn seal(&self, key: &SigningKey) -> Result<Vec<u8>, EnvelopeError> {
        let mut bytes = envelope::encode(Kind::WorkMessage, self)?;
        bytes.extend_from_slice(&key.node().to_le_bytes());
        bytes.extend_from_slice(&key.sign(&bytes));
        if bytes.len() <= MESSAGE_BYTES_MAX { Ok(bytes) } else { Err(EnvelopeError::TooLong(bytes.len())) }
    }

    /// Reads a message that a coordinator of the ring signed.
    ///
    /// # Errors
    /// [`Rejection`], of anything but the right fleet, pool and time.
    pub fn open(bytes: &[u8], keys: &Keyring) -> Result<Self, Rejection> {
        if bytes.len() > MESSAGE_BYTES_MAX && !mutant::is_out(Check::Length) {
            return Err(Rejection::Oversized(bytes.len()));
        }
        let header = envelope::header(bytes).map_err(Rejection::Malformed)?;
        if bytes.len() == header.record_bytes {
            return Err(Rejection::Unsigned);
        }
        let need = header.record_bytes + TRAILER_BYTES;
        if bytes.len() != need {
            return Err(Rejection::Malformed(EnvelopeError::Short { have: bytes.len(), need }));
        }
        let (signed, signature) = bytes.split_at(header.record_bytes + NODE_BYTES);
        let (record, node) = signed.split_at(header.record_bytes);
        let mut number = [0; NODE_BYTES];
        number.copy_from_slice(node);
        keys.verify(u64::from_le_bytes(number), signed, signature)?;
        envelope::decode(Kind::WorkMessage, record).map_err(Rejection::Malformed)
    }

    /// Whether it is for these workers, and now.
    ///
    /// # Errors
    /// [`Rejection::Astray`] or [`Rejection::Stale`].
    pub fn check(&self, fleet: &FleetId, pool: &Pool, now: LogTime) -> Result<(), Rejection> {
        if self.fleet != *fleet || self.pool != *pool {
            return Err(Rejection::Astray { fleet: self.fleet.clone(), pool: self.pool.clone() });
        }
        let apart = now.0.abs_diff(self.sent.0);
        if u128::from(apart) > AGE_MAX.as_millis() { Err(Rejection::Stale(apart)) } else { Ok(()) }
    }
}

// What is read of a message whose body says nothing: less than this is none.
const _: () = assert!(MESSAGE_BYTES_MAX > HEADER_BYTES + TRAILER_BYTES);
