//! What is known to be our own in the store: which versions of Kopia's schedule we wrote (R22), and which sessions we began that are
//! over by now (R21). One process keeps it beside its ledger; a fleet keeps it in its machine, so that any of its processes goes on at once
//! where another one ended.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use verger_coordinator::drive::{self, Drive};
use verger_coordinator::notes::Notes;
use verger_kopia::clock::Clock;
use verger_kopia::session::SessionId;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{Command, RepositoryId, SessionName, Term};
use verger_worker::task::record::{BeforeWrite, ScheduleFile};
use verger_worker::workspace::BeganSession;

use super::state::Known;
use super::written::Written;
use super::{Coordination, Means, sessions};

/// Who remembers it.
pub(super) enum Ours {
    /// Files of this state directory.
    Alone {
        /// Versions of the schedule.
        written: Written,
        /// Folder of the ledger, with the sessions.
        ledger: PathBuf,
        /// The last full cycle found that an index blob may be lost.
        lost_index: bool,
    },
    /// The machine of a fleet.
    Shared {
        /// Who orders commands.
        drive: Arc<Drive>,
        /// Which repository.
        repository: RepositoryId,
    },
}

impl Ours {
    pub(super) fn new(means: &Means, drive: &Arc<Drive>, known: &Known) -> Self {
        match &means.coordination {
            Coordination::Alone => Self::Alone {
                written: Written::new(&means.state_dir, &known.id),
                ledger: drive::folder(&means.state_dir, &known.id),
                lost_index: known.lost_index(),
            },
            Coordination::Shared(_) => Self::Shared { drive: drive.clone(), repository: known.id.clone() },
        }
    }

    /// Whether the schedule is as one of ours left it: then no other maintainer's run is at work behind it.
    pub(super) fn wrote(&self, schedule: &ScheduleFile) -> Result<bool> {
        match self {
            Self::Alone { written, .. } => written.is_ours(schedule),
            Self::Shared { drive, repository } => {
                let version = schedule.digest()?;
                Ok(notes(drive, repository, |notes| notes.wrote(&version)))
            }
        }
    }

    /// Whether only a full cycle may run, because only that one can see what is lost (R11).
    pub(super) fn lost_index(&self) -> bool {
        match self {
            Self::Alone { lost_index, .. } => *lost_index,
            Self::Shared { drive, repository } => notes(drive, repository, Notes::lost_index),
        }
    }

    /// Keeps every version of the schedule before it is written under this term.
    pub(super) fn before_write(&self, term: Term) -> BeforeWrite {
        match self {
            Self::Alone { written, .. } => written.keeper(),
            Self::Shared { drive, repository } => {
                let (drive, repository) = (drive.clone(), repository.clone());
                Box::new(move |version| {
                    let repository = repository.clone();
                    note(&drive, Command::NoteWrite { repository, term, version: *version })
                })
            }
        }
    }

    /// Sessions that are over, for the holder of the lease under this term.
    pub(super) fn sessions_over(&self, term: Term, clock: &dyn Clock) -> Result<BTreeSet<String>> {
        match self {
            Self::Alone { ledger, .. } => sessions::of_earlier_processes(ledger, clock.now()),
            Self::Shared { drive, repository } => Ok(notes(drive, repository, |notes| notes.sessions_before(term))),
        }
    }

    /// Keeps every session before it begins under this term.
    pub(super) fn began_session(&self, term: Term, clock: Arc<dyn Clock>) -> BeganSession {
        match self {
            Self::Alone { ledger, .. } => sessions::keeper(ledger.clone(), clock),
            Self::Shared { drive, repository } => {
                let (drive, repository) = (drive.clone(), repository.clone());
                Arc::new(move |session: &SessionId| {
                    let session = SessionName::new(session.as_str())
                        .map_err(|error| Error::new(ErrorKind::Internal, "name a session").with_source(error))?;
                    note(&drive, Command::NoteSession { repository: repository.clone(), term, session })
                })
            }
        }
    }
}

fn notes<T: Default>(drive: &Drive, repository: &RepositoryId, look: impl FnOnce(&Notes) -> T) -> T {
    drive.state(|state| state.repositories.get(repository).map(|entry| look(&entry.notes)).unwrap_or_default())
}

/// Nothing is written before its note is kept, nor by one whose note is refused: it holds the lease no more.
fn note(drive: &Drive, command: Command) -> Result<()> {
    match drive::refusal(&drive.submit(command)?) {
        None => Ok(()),
        Some(reason) => Err(Error::new(ErrorKind::Locked, "note what is to be written").with_source(reason)),
    }
}
