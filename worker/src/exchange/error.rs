//! Why a part does not count. None of these is ever taken for "nothing there" (R12).

use verger_kopia::{Error, ErrorKind};

/// Why a part of the exchange is not what was named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    /// The exchange does not have it.
    #[error("it is not there")]
    Missing,
    /// It ends before its last frame.
    #[error("it ends early")]
    Truncated,
    /// Bytes follow its last frame.
    #[error("it goes on behind its end")]
    Overlong,
    /// It is no part at all, or its head is damaged.
    #[error("its head cannot be read")]
    Head,
    /// A later version of this program wrote it.
    #[error("it has format version {0}, which this program does not know")]
    Version(u64),
    /// A frame does not open: other bytes, or another key.
    #[error("frame {0} does not open with this repository's key")]
    Sealed(u64),
    /// A frame opens and is no list of records.
    #[error("frame {0} is malformed")]
    Frame(u64),
    /// It opens, and its records make no sense.
    #[error("record {number}: {what}")]
    Record {
        /// Which one, from 0.
        number: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Its bytes are others than those that were reported.
    #[error("its bytes have another digest than was reported")]
    Digest,
    /// It has fewer or more records than were reported.
    #[error("it has {found} records, {expected} were reported")]
    Count {
        /// In the report.
        expected: u64,
        /// In the part.
        found: u64,
    },
    /// It is another repository's.
    #[error("it is another repository's")]
    OtherRepository,
    /// It is another cycle's.
    #[error("it is cycle {0}'s")]
    OtherCycle(u64),
    /// It holds something else, or is another stage's.
    #[error("it holds {0:?}")]
    OtherKind(String),
    /// It is another attempt's.
    #[error("it is attempt {0}'s")]
    OtherAttempt(u32),
    /// It was written under another name.
    #[error("it was written as {0:?}")]
    OtherName(String),
    /// It was made from another index view.
    #[error("it was made from another view of the index")]
    OtherView,
    /// It is of other keys than the shard's.
    #[error("it does not hold the keys of this shard")]
    OtherShard,
    /// No order was reported that holds the shard.
    #[error("nothing that was reported says what this shard is to do")]
    NoOrder,
    /// Something that was ordered has no line in any part.
    #[error("{0} of what was ordered is in no part")]
    Uncovered(u64),
    /// Something has two lines.
    #[error("{0} is in two parts")]
    Twice(String),
    /// Something was not ordered.
    #[error("{0} was not ordered")]
    NotOrdered(String),
}

impl PartError {
    /// The one that a failure comes from.
    #[must_use]
    pub fn of(error: &Error) -> Option<&Self> {
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            match cause.downcast_ref::<Self>() {
                Some(found) => return Some(found),
                None => source = cause.source(),
            }
        }
        None
    }

    /// As a failure of `step`. What is missing may be there for another worker: that one is worth another attempt.
    #[must_use]
    pub fn at(self, step: impl Into<String>) -> Error {
        let (kind, fix) = match &self {
            Self::Missing => (
                ErrorKind::StoreUnavailable,
                "See whether all workers have the same exchange; nothing was changed by this, the next cycle makes it anew",
            ),
            Self::Version(_) => (ErrorKind::Unsupported, "Let all workers be of one version"),
            _ => (
                ErrorKind::Damaged,
                "Nothing was changed by this, and the next cycle makes it anew; if it happens again, look at the exchange's store",
            ),
        };
        Error::new(kind, step).with_fix(fix).with_source(self)
    }
}
