//! What the tasks of one cycle share in one process.

use std::collections::BTreeSet;
use std::sync::Arc;

use verger_kopia::session::{SessionId, SessionInfo, write_marker};
use verger_kopia::spill::SpillFolder;
use verger_kopia::storage::{BlobId, PutOptions, Scope};
use verger_kopia::{Repository, Result};

use crate::limit::MemoryLimit;
use crate::progress::{Progress, Quiet, Stop};

/// The repository, the means, and those who listen.
#[derive(Clone)]
pub struct Workspace {
    /// The open repository.
    pub repository: Repository,
    /// Memory for the whole process.
    pub memory: MemoryLimit,
    /// Where goes what does not fit memory.
    pub spill: SpillFolder,
    /// Threads that compute.
    pub threads: usize,
    /// Requests in flight at once.
    pub parallel: usize,
    /// Who hears how far it is.
    pub progress: Arc<dyn Progress>,
    /// Who may ask to stop.
    pub stop: Stop,
    /// `user@host` of this maintainer, for session markers.
    pub identity: String,
    /// Sessions of earlier jobs that provably ended (R21).
    pub dead_sessions: Arc<BTreeSet<String>>,
    /// Told of each session of this process before it begins, so that the next one knows whose it was.
    pub began_session: BeganSession,
    /// The span of what is done now, for the store's calls.
    pub scope: Scope,
}

/// Keeps the name of a session that is about to begin.
pub type BeganSession = Arc<dyn Fn(&SessionId) -> Result<()> + Send + Sync>;

impl Workspace {
    /// Requests in flight where a round trip costs more than the bytes.
    pub const REMOTE_PARALLEL: usize = 16;

    /// With defaults: as many threads as the machine has, more requests than threads where the store is remote, 512 MiB, silence.
    #[must_use]
    pub fn new(repository: Repository) -> Self {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let local = repository.storage().capabilities().local_disk;
        Self {
            parallel: if local { threads } else { threads.max(Self::REMOTE_PARALLEL) },
            threads,
            repository,
            memory: MemoryLimit::new(MemoryLimit::DEFAULT_BYTES),
            spill: SpillFolder::new(std::env::temp_dir()),
            progress: Arc::new(Quiet),
            stop: Stop::default(),
            identity: "verger@localhost".to_owned(),
            dead_sessions: Arc::default(),
            began_session: Arc::new(|_| Ok(())),
            scope: Scope::default(),
        }
    }

    /// Starts a session of this maintainer: its name is kept, then its marker is written, and then come its packs (R21).
    ///
    /// # Errors
    /// What keeps the name says; storage errors.
    pub fn start_session(&self, repository: &Repository) -> Result<(SessionInfo, BlobId)> {
        let info = self.new_session(repository);
        let marker = self.begin_session(repository, &info)?;
        Ok((info, marker))
    }

    /// A session of this maintainer that has not begun.
    #[must_use]
    pub fn new_session(&self, repository: &Repository) -> SessionInfo {
        let (user, host) = self.identity.split_once('@').unwrap_or((&self.identity, ""));
        let now = repository.clock().now();
        let (start_time, checkpoint_time, id) = (now, now, SessionId::generate(now));
        SessionInfo { id, start_time, checkpoint_time, user: user.to_owned(), host: host.to_owned() }
    }

    /// Begins it: as [`Workspace::start_session`], which tells the marker's name.
    ///
    /// # Errors
    /// As [`Workspace::start_session`].
    pub fn begin_session(&self, repository: &Repository, info: &SessionInfo) -> Result<BlobId> {
        (self.began_session)(&info.id)?;
        write_marker(repository, info, &PutOptions::default())
    }

    /// Whether a round trip costs about nothing, so that small reads are as good as large ones.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.repository.storage().capabilities().local_disk
    }
}
