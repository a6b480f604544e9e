//! Sessions that processes of this ledger began (R21). Whoever holds the ledger knows that the processes before it have ended, and so
//! that their sessions write nothing any more: their markers and unnamed packs need not wait for Kopia's 96 hours.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use verger_coordinator::files::{replace, sync_folder};
use verger_kopia::clock::Timestamp;
use verger_kopia::session::SessionId;
use verger_kopia::{Error, ErrorKind, Result};
use verger_worker::workspace::BeganSession;

const FILE: &str = "sessions";

/// Older ones have expired for Kopia too.
const KEPT: Duration = Duration::from_secs(8 * 24 * 3600);

/// Sessions of the processes before this one. Forgets those that are too old to matter.
pub(super) fn of_earlier_processes(ledger: &Path, now: Timestamp) -> Result<BTreeSet<String>> {
    let path = ledger.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(failed("read", &path, error)),
    };
    let (mut known, mut kept) = (BTreeSet::new(), String::new());
    for line in text.lines() {
        // A line that was cut short by the end of its process names a session that began nothing yet.
        let Some((id, at)) = line.split_once(' ') else { continue };
        let Ok(at) = at.parse::<Timestamp>() else { continue };
        if now.duration_since(at).unsigned_abs() <= KEPT {
            known.insert(id.to_owned());
            kept.push_str(line);
            kept.push('\n');
        }
    }
    if kept.len() < text.len() {
        replace(&path, kept.as_bytes()).map_err(|e| failed("shorten", &path, e))?;
    }
    Ok(known)
}

/// Notes each session of this process beside the ledger.
pub(super) fn keeper(ledger: PathBuf, clock: Arc<dyn verger_kopia::clock::Clock>) -> BeganSession {
    Arc::new(move |id: &SessionId| {
        let path = ledger.join(FILE);
        let is_new = !path.exists();
        let open = std::fs::OpenOptions::new().append(true).create(true).open(&path);
        let written = open.and_then(|mut file| {
            writeln!(file, "{id} {}", clock.now())?;
            file.sync_data()?;
            if is_new { sync_folder(&ledger) } else { Ok(()) }
        });
        written.map_err(|e| failed("write", &path, e))
    })
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Permission, format!("{doing} {}", path.display())).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use verger_kopia::clock::SetClock;

    #[test]
    fn r21_the_sessions_of_earlier_processes_are_known_until_they_have_expired() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock::new("2026-11-21T10:00:00Z".parse().unwrap()));
        let now = || verger_kopia::clock::Clock::now(&*clock);
        assert!(of_earlier_processes(folder.path(), now()).unwrap().is_empty());
        let began = keeper(folder.path().to_owned(), clock.clone());
        let (one, two) = (SessionId::generate(now()), SessionId::generate(now()));
        began(&one).unwrap();
        clock.advance(KEPT / 2);
        began(&two).unwrap();
        let known = of_earlier_processes(folder.path(), now()).unwrap();
        assert!(known.contains(one.as_str()) && known.contains(two.as_str()));
        clock.advance(KEPT / 2 + Duration::from_secs(1));
        assert_eq!(of_earlier_processes(folder.path(), now()).unwrap(), [two.to_string()].into());
        // What a killed process wrote half of a line of is passed over.
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}s0123")).unwrap();
        assert_eq!(of_earlier_processes(folder.path(), now()).unwrap(), [two.to_string()].into());
    }
}
