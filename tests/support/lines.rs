//! Lines of what happened, hashed, the last of them kept: what traces of simulations have in common.

#![allow(unreachable_pub, reason = "helpers of tests are tests")]

use std::collections::VecDeque;
use std::io::Write;

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

pub struct Lines {
    hash: u64,
    last: VecDeque<String>,
    kept: usize,
    print: bool,
}

impl Lines {
    /// The last `kept` are kept for the report of a failure.
    pub fn new(kept: usize, print: bool) -> Self {
        Self { hash: FNV_BASIS, last: VecDeque::new(), kept, print }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn push(&mut self, line: String) {
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        if self.print {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
        self.last.push_back(line);
        if self.last.len() > self.kept {
            self.last.pop_front();
        }
    }

    /// The last lines.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}
