//! The backend of one run of one process at one repository: all that it says counts only as long as it drives that repository.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::{Command, Driven, Driver, Event, Progress, Refusal, RepositoryId, Ticket};

use super::backend::Backend;
use super::refusal;
use crate::machine::State;
use crate::words::Words;

/// Says everything in the name of a driver.
pub struct DrivenBackend {
    inner: Arc<dyn Backend>,
    repository: RepositoryId,
    driver: Driver,
    is_over: AtomicBool,
}

impl DrivenBackend {
    /// Takes the drive of a repository; `None` if somebody else has it.
    ///
    /// # Errors
    /// What [`Backend::submit`] says, and `Internal` for a refusal of another kind.
    pub fn take(inner: Arc<dyn Backend>, repository: &RepositoryId, driver: Driver) -> Result<Option<Self>> {
        let events = inner.submit(Command::TakeDrive { repository: repository.clone(), driver })?;
        match refusal(&events) {
            None => {}
            Some(Refusal::DrivenByOther(_)) => return Ok(None),
            Some(other) => {
                return Err(Error::new(ErrorKind::Internal, "take the drive of a repository").with_source(other));
            }
        }
        Ok(Some(Self::given(inner, repository, driver)))
    }

    /// For a drive that was given to this driver already.
    #[must_use]
    pub fn given(inner: Arc<dyn Backend>, repository: &RepositoryId, driver: Driver) -> Self {
        let (repository, is_over) = (repository.clone(), AtomicBool::new(false));
        Self { inner, repository, driver, is_over }
    }

    /// Says that the process lives and is at work.
    ///
    /// # Errors
    /// `Interrupted`: another process drives the repository now.
    pub fn live(&self) -> Result<()> {
        self.submit(Command::Tick).map(drop)
    }

    /// Lets go, so that the next one need not wait. Nothing that was said before may be under way.
    pub fn leave(&self) {
        if self.is_over.swap(true, Ordering::Relaxed) {
            return;
        }
        let (repository, driver) = (self.repository.clone(), self.driver);
        if let Err(error) = self.inner.submit(Command::LeaveDrive { repository, driver }) {
            tracing::warn!(error = error.chain(), "a drive was not left: it is over by itself after its time");
        }
    }
}

impl Backend for DrivenBackend {
    fn submit(&self, command: Command) -> Result<Vec<Event>> {
        let lost = || {
            let step = format!("another process drives {} now", self.repository);
            Error::new(ErrorKind::Interrupted, step).with_fix("nothing is to be done: it goes on there")
        };
        if self.is_over.load(Ordering::Relaxed) {
            return Err(lost());
        }
        let (driver, repository) = (self.driver, self.repository.clone());
        let events = self.inner.submit(Command::Driven(Box::new(Driven { driver, repository, command })))?;
        if let Some(Refusal::DrivenByOther(_) | Refusal::NotDriving) = refusal(&events) {
            self.is_over.store(true, Ordering::Relaxed);
            return Err(lost());
        }
        Ok(events)
    }

    fn applied(&self) -> u64 {
        self.inner.applied()
    }

    fn look(&self, look: &mut dyn FnMut(&State)) {
        self.inner.look(look);
    }

    fn wait(&self, at_most: Duration, look: &mut dyn FnMut(&State) -> bool) {
        self.inner.wait(at_most, look);
    }

    fn tell(&self, ticket: &Ticket, progress: Progress) {
        self.inner.tell(ticket, progress);
    }

    fn words(&self) -> Option<&Words> {
        self.inner.words()
    }
}
