//! The trace that a cycle is told under.

use std::fmt;

use crate::digest::Digest;
use crate::id::{CycleId, RepositoryId};
use crate::time::LogTime;

/// A W3C trace ID: 16 bytes, 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TraceId(pub [u8; 16]);

impl TraceId {
    /// Of a cycle. It follows from what the ledger says of it, so that whoever goes on with the cycle goes on with its trace. The
    /// time tells apart cycles of one number in ledgers that know nothing of each other.
    #[must_use]
    pub fn of(repository: &RepositoryId, cycle: CycleId, opened: LogTime) -> Self {
        let digest = Digest::of(format!("verger trace of {repository} cycle {} at {}", cycle.0, opened.0).as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_bytes()[..16]);
        Self(id)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cycle_has_one_trace_for_ever() {
        let repository: RepositoryId = format!("{}-{}", "0a".repeat(32), "1b".repeat(16)).parse().unwrap();
        let trace = TraceId::of(&repository, CycleId(7), LogTime(1_700_000_000_000));
        assert_eq!(trace, TraceId::of(&repository, CycleId(7), LogTime(1_700_000_000_000)));
        // Traces that are under way over an upgrade must not break in two.
        assert_eq!(trace.to_string(), "edc6efca19ffa74f669f6cc3e5f7db46");
        assert_ne!(trace, TraceId::of(&repository, CycleId(8), LogTime(1_700_000_000_000)));
        assert_ne!(trace, TraceId::of(&repository, CycleId(7), LogTime(1_700_000_000_001)));
    }
}
