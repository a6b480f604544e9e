//! What happened in one run, as lines and as one hash. Names that are drawn at random (of packs, sessions, index blobs) are
//! told by their kind alone, so that one seed has one trace.

use std::collections::VecDeque;

use verger_kopia::clock::Timestamp;

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Lines kept for the report of a failure.
const KEPT: usize = 400;

pub struct Trace {
    hash: u64,
    begun: Timestamp,
    lines: VecDeque<String>,
    print: bool,
}

impl Trace {
    pub fn new(begun: Timestamp, print: bool) -> Self {
        Self { hash: FNV_BASIS, begun, lines: VecDeque::new(), print }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn line(&mut self, at: Timestamp, text: &str) {
        let since = at.duration_since(self.begun);
        let (hours, rest) = (since.as_secs() / 3600, since.as_millis() % 3_600_000);
        let line = format!("{:>3}d {:02}:{:02}:{:06.3} {text}", hours / 24, hours % 24, rest / 60_000, {
            let seconds = rest % 60_000;
            seconds as f64 / 1000.0
        });
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        if self.print {
            use std::io::Write;
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
        self.lines.push_back(line);
        if self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        self.lines.iter().map(|line| format!("  {line}\n")).collect()
    }
}

/// A blob's name without what is random in it.
pub fn kind(name: &str) -> &str {
    if name.starts_with("kopia.") || name.starts_with("verger.") || name.starts_with("xe") || name.starts_with("xw") {
        return name;
    }
    match name.as_bytes() {
        [b'x', ..] => {
            let end = name.match_indices('_').nth(usize::from(name.starts_with("xr"))).map_or(2, |(at, _)| at);
            &name[..end.min(name.len())]
        }
        _ => &name[..name.len().min(1)],
    }
}
