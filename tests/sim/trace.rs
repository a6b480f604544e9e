//! What happened in one run, as lines and as one hash: the same seed has the same trace.

use std::collections::VecDeque;
use std::io::Write;

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Lines kept for the report of a failure.
const KEPT: usize = 120;

/// The trace of one run.
pub struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    print: bool,
}

impl Trace {
    pub fn new(print: bool) -> Self {
        Self { hash: FNV_BASIS, lines: VecDeque::new(), print }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// One line, at so many milliseconds since the beginning.
    pub fn line(&mut self, at: u64, text: &str) {
        let line = format!("{:>7}.{:03} {text}", at / 1000, at % 1000);
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        if self.print {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
        self.lines.push_back(line);
        if self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}
