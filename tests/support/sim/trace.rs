//! What happened in one run, as lines and as one hash. Names that are drawn at random (of packs, sessions, index blobs) are
//! told by their kind alone, so that one seed has one trace.

use verger_kopia::clock::Timestamp;

use super::lines::Lines;

/// Lines kept for the report of a failure.
const KEPT: usize = 400;

pub struct Trace {
    begun: Timestamp,
    lines: Lines,
}

impl Trace {
    pub fn new(begun: Timestamp, print: bool) -> Self {
        Self { begun, lines: Lines::new(KEPT, print) }
    }

    pub fn hash(&self) -> u64 {
        self.lines.hash()
    }

    pub fn line(&mut self, at: Timestamp, text: &str) {
        let since = at.duration_since(self.begun);
        let (hours, rest) = (since.as_secs() / 3600, since.as_millis() % 3_600_000);
        let seconds = (rest % 60_000) as f64 / 1000.0;
        let (days, hours, minutes) = (hours / 24, hours % 24, rest / 60_000);
        self.lines.push(format!("{days:>3}d {hours:02}:{minutes:02}:{seconds:06.3} {text}"));
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        self.lines.tail().map(|line| format!("  {line}\n")).collect()
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
