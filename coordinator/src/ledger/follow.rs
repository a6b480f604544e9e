//! The next record of a chain: the one reader of ledgers, whoever they belong to and wherever they lie.

use std::io::{self, Read};

use verger_proto::chain::{ChainError, ChainHead, ChainRecord};
use verger_proto::envelope::{self, EnvelopeError, HEADER_BYTES};

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    /// A record that continues the chain.
    Record(ChainRecord),
    /// The rest is a record that was never finished: cut short, or zeros where a write did not get to.
    Cut,
    /// Nothing.
    End,
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The bytes cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// What is there does not continue the chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl From<EnvelopeError> for Broken {
    fn from(error: EnvelopeError) -> Self {
        Self::Chain(error.into())
    }
}

/// Follows a chain through a stream of bytes.
#[derive(Debug)]
pub(crate) struct Follower<R> {
    source: R,
    head: ChainHead,
    at: u64,
    end: u64,
    record: Vec<u8>,
}

impl<R: Read> Follower<R> {
    /// Goes on after `head`. `source` is at byte `at`, and what is at byte `end` and after it is not looked at.
    pub(crate) fn new(source: R, head: ChainHead, at: u64, end: u64) -> Self {
        Self { source, head, at, end, record: Vec::with_capacity(HEADER_BYTES) }
    }

    /// After the last record that was given.
    pub(crate) fn head(&self) -> ChainHead {
        self.head
    }

    /// Where the last record that was given ends.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The next record. After an error, head and place are those before the record that does not hold.
    pub(crate) fn next(&mut self) -> Result<Step, Broken> {
        let left = self.end.saturating_sub(self.at);
        if left == 0 {
            return Ok(Step::End);
        }
        self.record.clear();
        (&mut self.source).take(left.min(HEADER_BYTES as u64)).read_to_end(&mut self.record)?;
        let record_bytes = match envelope::header(&self.record) {
            Ok(header) => header.record_bytes,
            Err(EnvelopeError::Short { .. }) => return Ok(Step::Cut),
            // Some file systems leave zeros where a write did not get to.
            Err(_) if is_zeros(&self.record, &mut self.source)? => return Ok(Step::Cut),
            Err(error) => return Err(error.into()),
        };
        if record_bytes as u64 > left {
            return Ok(Step::Cut);
        }
        let body_bytes = record_bytes.saturating_sub(self.record.len());
        (&mut self.source).take(body_bytes as u64).read_to_end(&mut self.record)?;
        let link = self.head.follow(&self.record)?;
        self.at = self.at.saturating_add(record_bytes as u64);
        Ok(Step::Record(link))
    }
}

fn is_zeros(start: &[u8], rest: &mut impl Read) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    if start.iter().any(|byte| *byte != 0) {
        return Ok(false);
    }
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(true),
            read if buffer[..read].iter().any(|byte| *byte != 0) => return Ok(false),
            _ => {}
        }
    }
}
