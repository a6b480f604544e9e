//! What happened in one run, as lines and as one hash: the same seed has the same trace.

use super::clients::lines::Lines;

/// Lines kept for the report of a failure.
const KEPT: usize = 120;

/// The trace of one run.
pub struct Trace(Lines);

impl Trace {
    pub fn new(print: bool) -> Self {
        Self(Lines::new(KEPT, print))
    }

    pub fn hash(&self) -> u64 {
        self.0.hash()
    }

    /// One line, at so many milliseconds since the beginning.
    pub fn line(&mut self, at: u64, text: &str) {
        self.0.push(format!("{:>7}.{:03} {text}", at / 1000, at % 1000));
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        self.0.tail().map(|line| format!("{line}\n")).collect()
    }
}
