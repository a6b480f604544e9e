//! What goes from an exchange: a cycle's parts when it has closed, and what nobody came back for.

use std::time::Duration;

use verger_kopia::storage::{BlobId, list_all};
use verger_kopia::{Error, Result};
use verger_proto::id::{CycleId, RepositoryId};

use super::error::PartError;
use super::name::{PartKind, PartName, cycle_prefix, repository_prefix};
use super::{Exchange, Moved, NotedSession, Parts, Records};

/// Parts of a cycle that is not open any more stay so long: its end may not have reached everybody.
pub const AGE_MIN: Duration = Duration::from_secs(24 * 3600);

/// What was cleaned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// Parts.
    pub parts: u64,
    /// Stored bytes of them.
    pub bytes: u64,
}

impl Exchange {
    /// Deletes all parts of a cycle that has closed.
    ///
    /// # Errors
    /// Storage errors; what could not be deleted goes by its age.
    pub fn clean_cycle(&self, repository: &RepositoryId, cycle: CycleId) -> Result<Cleaned> {
        let found = list_all(&*self.storage, &cycle_prefix(repository, cycle))?;
        self.delete(found.into_iter().map(|blob| (blob.id, blob.length)).collect())
    }

    /// Deletes parts of cycles of this repository that came before `cycle` and were left unclean, once they are older than [`AGE_MIN`] by
    /// the store's clock. Numbers of cycles only grow and one is open at a time, so whoever calls this late, or twice, deletes nothing
    /// of a cycle that is open. Another fleet may count otherwise: its parts are that old only if its view is given up anyway (R17).
    /// What is no part is left alone.
    ///
    /// # Errors
    /// Storage errors.
    pub fn clean_before(&self, repository: &RepositoryId, cycle: CycleId) -> Result<Cleaned> {
        let now = self.storage.now()?;
        let is_old = |age: jiff::SignedDuration| jiff::SignedDuration::try_from(AGE_MIN).is_ok_and(|least| age > least);
        let found = list_all(&*self.storage, &repository_prefix(repository))?;
        let old = found.into_iter().filter(|blob| {
            let is_before = PartName::of_blob(&blob.id).is_some_and(|name| name.cycle < cycle);
            is_before && is_old(now.duration_since(blob.timestamp))
        });
        self.delete(old.map(|blob| (blob.id, blob.length)).collect())
    }

    fn delete(&self, blobs: Vec<(BlobId, u64)>) -> Result<Cleaned> {
        let cleaned = Cleaned { parts: blobs.len() as u64, bytes: blobs.iter().map(|(_, length)| length).sum() };
        let names: Vec<BlobId> = blobs.into_iter().map(|(name, _)| name).collect();
        let report = self.storage.delete(&names, None);
        match report.failed.into_iter().next() {
            Some((blob, error)) => Err(error.at(format!("delete part {blob} of the exchange at {}", self.address()))),
            None => Ok(cleaned),
        }
    }
}

impl Parts {
    /// Sessions that shards of this cycle noted, those of attempts that came to nothing too. What cannot be read is passed over: its
    /// marker expires as a dead client's does.
    ///
    /// # Errors
    /// Storage errors.
    pub fn sessions(&self) -> Result<Vec<NotedSession>> {
        let mut sessions = Vec::new();
        for blob in list_all(&*self.exchange.storage, &cycle_prefix(&self.repository, self.cycle))? {
            let Some(name) = PartName::of_blob(&blob.id) else { continue };
            if name.kind != PartKind::RewriteSession {
                continue;
            }
            match self.session(&name) {
                Ok(session) => sessions.extend(session),
                Err(error) if PartError::of(&error).is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sessions)
    }

    /// Nobody reported it, so nothing but its seal says what it is; it only names what may go anyway.
    fn session(&self, name: &PartName) -> Result<Option<NotedSession>, Error> {
        let part = self.unreported(name, PartKind::RewriteSession)?;
        let mut records = Records::new(part);
        match records.moved()? {
            Some(Moved::Session(noted)) => Ok(Some(noted)),
            _ => Ok(None),
        }
    }
}
