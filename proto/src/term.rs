//! The number that fences: it only grows, and it is fixed by the bucket (R3).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A term of the lease on a repository.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl Term {
    /// The term of the next grant: one more than the larger of what the bucket and what we knew last.
    #[must_use]
    pub fn after(bucket: Term, known: Term) -> Option<Term> {
        bucket.0.max(known.0).checked_add(1).map(Term)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
