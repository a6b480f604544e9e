//! The trace that a cycle is told under.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::id::{CycleId, RepositoryId};
use crate::stage::Stage;
use crate::term::Term;
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

/// Where in a trace somebody else goes on: the value of a W3C `traceparent`, version 00. Nothing else is taken over from others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceParent {
    /// The trace; not all zeros.
    pub trace: TraceId,
    /// The span that caused what follows; not all zeros.
    pub span: [u8; 8],
    /// The flags; the lowest bit says that the trace is recorded.
    pub flags: u8,
}

/// Text that is not a `traceparent` of version 00.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a traceparent is 00-<32 hexadecimal digits>-<16>-<2>, in lower case and not all zeros")]
pub struct BadTraceParent;

impl TraceParent {
    /// The stage of a cycle under a term. Its span is made under this ID by whoever leads the cycle, so that those who do a shard of it
    /// elsewhere need not be told.
    #[must_use]
    pub fn of_stage(trace: TraceId, stage: Stage, term: Term) -> Self {
        let digest = Digest::of(format!("verger span of {trace} {stage} term {}", term.0).as_bytes());
        let mut span = [0; 8];
        span.copy_from_slice(&digest.as_bytes()[..8]);
        // All zeros are no span.
        span[7] |= u8::from(span == [0; 8]);
        Self { trace, span, flags: 1 }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace, u64::from_be_bytes(self.span), self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = BadTraceParent;

    fn from_str(text: &str) -> Result<Self, BadTraceParent> {
        let digits = |from: usize, to: usize| {
            let part = text.get(from..to).filter(|part| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
            u128::from_str_radix(part.ok_or(BadTraceParent)?, 16).map_err(|_| BadTraceParent)
        };
        let dashes = [2, 35, 52].iter().all(|at| text.as_bytes().get(*at) == Some(&b'-'));
        if text.len() != 55 || !dashes || digits(0, 2)? != 0 {
            return Err(BadTraceParent);
        }
        let trace = TraceId(digits(3, 35)?.to_be_bytes());
        let span = u64::try_from(digits(36, 52)?).map_err(|_| BadTraceParent)?.to_be_bytes();
        let flags = u8::try_from(digits(53, 55)?).map_err(|_| BadTraceParent)?;
        if trace.0 == [0; 16] || span == [0; 8] { Err(BadTraceParent) } else { Ok(Self { trace, span, flags }) }
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

    #[test]
    fn a_traceparent_reads_back_and_only_the_known_form_is_taken() {
        let text = "00-edc6efca19ffa74f669f6cc3e5f7db46-00f067aa0ba902b7-01";
        let parent: TraceParent = text.parse().unwrap();
        assert_eq!((parent.to_string().as_str(), parent.flags), (text, 1));
        let zeros = [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            &text.replace("00f067aa0ba902b7", "0000000000000000"),
        ];
        let mut bad = vec![String::new(), text.to_uppercase(), format!("{text}-00"), text.replacen("00", "01", 1)];
        bad.extend(zeros.map(str::to_owned));
        bad.extend([text.replacen('-', "_", 1), text.replace('c', "+"), text.replace('c', "é"), " ".repeat(55)]);
        for text in bad {
            assert_eq!(text.parse::<TraceParent>(), Err(BadTraceParent), "{text}");
        }
    }
}
