//! Which versions of Kopia's schedule this state directory wrote: nobody else's run is at work behind them (R22).

use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};

use verger_coordinator::files::replace;
use verger_kopia::{Error, Result};
use verger_proto::id::RepositoryId;
use verger_worker::task::record::{BeforeWrite, ScheduleFile};

/// The last writes may not have reached the store: then one before them is there still.
const KEPT: usize = 8;

/// Where a repository's versions are kept.
#[derive(Debug, Clone)]
pub(super) struct Written(PathBuf);

impl Written {
    pub(super) fn new(state_dir: &Path, id: &RepositoryId) -> Self {
        Self(state_dir.join(format!("schedule-{}-{}", id.unique, id.store)))
    }

    /// Whether the schedule is as one of ours left it.
    pub(super) fn is_ours(&self, schedule: &ScheduleFile) -> Result<bool> {
        let digest = schedule.digest()?.to_string();
        Ok(self.read()?.contains(&digest))
    }

    /// Keeps every version before it is written.
    pub(super) fn keeper(&self) -> BeforeWrite {
        let kept = self.clone();
        Box::new(move |digest| kept.keep(digest.to_string()))
    }

    fn keep(&self, digest: String) -> Result<()> {
        let mut all = self.read()?;
        all.push(digest);
        let text = all.split_off(all.len().saturating_sub(KEPT)).join("\n");
        replace(&self.0, text.as_bytes()).map_err(|e| self.failed("write", e))
    }

    fn read(&self) -> Result<Vec<String>> {
        match std::fs::read_to_string(&self.0) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(e) if e.kind() == IoErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(self.failed("read", e)),
        }
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Error {
        Error::of_file(format!("{what} {}", self.0.display()), error)
    }
}
