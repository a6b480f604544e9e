//! `kopia.maintenance` in this cycle: next times, run records, and whether somebody else wrote it (R20, R22).

use std::time::Duration;
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::history::{Figures, RunRecord, Task};
use verger_kopia::maintenance::schedule::{self, BLOB, Loaded, Schedule};
use verger_kopia::storage::{BlobId, BlobMetadata, Condition, ETag};
use verger_kopia::{Error, ErrorKind, Repository, Result};
use verger_proto::Digest;

/// The schedule as this cycle knows it: the version in the store, and what is to be written next.
pub struct ScheduleFile {
    loaded: Loaded,
    schedule: Schedule,
    dirty: bool,
    /// The store's answer to a write and its answer to a look name a version alike (seen once).
    tags_agree: bool,
    before_write: Option<BeforeWrite>,
    /// A version whose write had no answer, and that could not be read back: if it is in the store, it is ours.
    unknown: Option<Schedule>,
}

/// How often a write is read back before its end is left unknown.
const LOOKS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// Told what is about to be written: who keeps it knows later that no other maintainer wrote it.
pub type BeforeWrite = Box<dyn Fn(&Digest) -> Result<()> + Send + Sync>;

impl ScheduleFile {
    /// Reads it.
    ///
    /// # Errors
    /// As [`schedule::load`].
    pub fn load(repository: &Repository) -> Result<Self> {
        let loaded = schedule::load(repository)?;
        Ok(Self {
            schedule: loaded.schedule.clone(),
            loaded,
            dirty: false,
            tags_agree: false,
            before_write: None,
            unknown: None,
        })
    }

    /// What it says, records of this cycle that are not written yet included.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Has `tell` told of every version before it is written.
    pub fn tell_before_writing(&mut self, tell: BeforeWrite) {
        self.before_write = Some(tell);
    }

    /// Digest of what it says: equal for equal schedules, whatever the nonce of the blob.
    ///
    /// # Errors
    /// `Internal` if it cannot be written as JSON.
    pub fn digest(&self) -> Result<Digest> {
        let text = serde_json::to_vec(&self.schedule);
        let text = text.map_err(|e| Error::new(ErrorKind::Internal, "write the schedule as JSON").with_source(e))?;
        Ok(Digest::of(&text))
    }

    /// When its present version was written, by the storage's clock.
    #[must_use]
    pub fn written(&self) -> Option<Timestamp> {
        self.loaded.timestamp
    }

    /// Sets next times; they reach the store with the next write.
    pub fn set_next(&mut self, full: Option<Timestamp>, quick: Option<Timestamp>) {
        self.schedule.next_full = full.or(self.schedule.next_full);
        self.schedule.next_quick = quick.or(self.schedule.next_quick);
        self.dirty = true;
    }

    /// Adds the record of a task; it reaches the store with the next write.
    pub fn add(&mut self, task: Task, record: RunRecord) {
        self.schedule.report(task, record);
        self.dirty = true;
    }

    /// Adds the record of a successful task with its figures (`None`: it ran and found nothing to do).
    pub fn success<F: Figures>(&mut self, task: Task, start: Timestamp, end: Timestamp, figures: Option<&F>) {
        self.add(task, RunRecord::success(start, end).with_figures(figures));
    }

    /// Replaces the record of a task that began at `record.start` (R20: same start, still one of the 50).
    pub fn revise(&mut self, task: Task, record: RunRecord) {
        self.schedule.revise(task, record);
        self.dirty = true;
    }

    /// Whether something waits to be written.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Writes it, over the version last seen and no other.
    ///
    /// # Errors
    /// `ForeignMaintenance` if somebody else wrote it; `DeadlinePassed`; storage errors.
    pub fn write(&mut self, repository: &Repository, not_after: Option<Duration>) -> Result<()> {
        if let Some(tell) = &self.before_write {
            tell(&self.digest()?)?;
        }
        self.settle(repository)?;
        let conditional = repository.storage().capabilities().conditional_writes;
        let certain = self.loaded.condition(conditional) != Condition::Always;
        let answer = schedule::replace(repository, &self.loaded, &self.schedule, not_after);
        let (etag, failed) = match answer {
            Ok(receipt) => (receipt.etag.filter(|_| certain), None),
            Err(error) if !error.is_retryable() => return Err(error),
            // An ambiguous answer is looked at like a good one.
            Err(error) => (None, Some(error)),
        };
        self.unknown = Some(self.schedule.clone());
        let written = self.version_of(repository, etag)?;
        self.unknown = None;
        match failed {
            Some(error) if self.is_as_loaded(&written) => return Err(error),
            // Between our write and this read somebody else may have written: then it is not what we wrote.
            _ if written.schedule != self.schedule => return Err(foreign()),
            _ => self.loaded = written,
        }
        self.dirty = false;
        Ok(())
    }

    /// The same, and the storage's timestamp of the new version.
    ///
    /// # Errors
    /// As [`ScheduleFile::write`].
    pub fn write_stamped(&mut self, repository: &Repository, not_after: Option<Duration>) -> Result<Timestamp> {
        self.write(repository, not_after)?;
        if self.loaded.timestamp.is_none() {
            let found = look(repository)?;
            if found.schedule != self.schedule {
                return Err(foreign());
            }
            self.loaded = found;
        }
        self.loaded.timestamp.ok_or_else(|| Error::new(ErrorKind::Internal, format!("{BLOB} has no timestamp")))
    }

    /// Looks whether what was written last is still there.
    ///
    /// # Errors
    /// `ForeignMaintenance` if not; storage errors.
    pub fn confirm(&self, repository: &Repository) -> Result<()> {
        match repository.storage().head(&blob()) {
            Err(e) if e.kind() == ErrorKind::NotFound => self.check(None),
            found => self.check(Some(&found.map_err(|e| e.at(format!("read {BLOB}")))?)),
        }
    }

    /// What is in the store after a write that was answered with this tag.
    fn version_of(&mut self, repository: &Repository, etag: Option<ETag>) -> Result<Loaded> {
        let Some(etag) = etag else { return look(repository) };
        // The store took it in place of the version that we knew, and says which version it is now: there is nothing to look at.
        if self.tags_agree {
            return Ok(self.now_at(etag, None));
        }
        let found = repository.storage().head(&blob()).map_err(|e| e.at(format!("read {BLOB}")))?;
        self.tags_agree = found.etag.as_ref() == Some(&etag);
        if self.tags_agree { Ok(self.now_at(etag, Some(found.timestamp))) } else { look(repository) }
    }

    fn now_at(&self, etag: ETag, timestamp: Option<Timestamp>) -> Loaded {
        Loaded { schedule: self.schedule.clone(), exists: true, etag: Some(etag), timestamp, digest: None }
    }

    /// Whether a write left no trace. The bytes of one that was answered with a tag are not known: then what they say has to do.
    fn is_as_loaded(&self, found: &Loaded) -> bool {
        match self.loaded.digest {
            Some(digest) => found.digest == Some(digest),
            None => found.exists == self.loaded.exists && found.schedule == self.loaded.schedule,
        }
    }

    /// Finds out what became of a write of ours that could not be read back.
    ///
    /// # Errors
    /// Storage errors: then it is still not known.
    pub fn settle(&mut self, repository: &Repository) -> Result<()> {
        if let Some(ours) = &self.unknown {
            let found = look(repository)?;
            if found.schedule == *ours {
                self.loaded = found;
            }
            self.unknown = None;
        }
        Ok(())
    }

    /// Whether the store still has the version last seen. `found`: what a listing says of the blob.
    ///
    /// # Errors
    /// `ForeignMaintenance` if not.
    pub fn check(&self, found: Option<&BlobMetadata>) -> Result<()> {
        let same = match found {
            None => !self.loaded.exists,
            Some(found) => match (&found.etag, &self.loaded.etag) {
                (Some(found), Some(known)) => found == known,
                _ => Some(found.timestamp) == self.loaded.timestamp,
            },
        };
        if same || mutant::on(Mutant::R22ForeignScheduleIgnored) { Ok(()) } else { Err(foreign()) }
    }
}

/// What the store has now; asked again if it does not answer, since without it the end of a write of ours is not known.
fn look(repository: &Repository) -> Result<Loaded> {
    for number in 1..LOOKS {
        match schedule::load(repository) {
            Err(error) if error.is_retryable() => repository.clock().sleep(PAUSE * number),
            answer => return answer,
        }
    }
    schedule::load(repository)
}

/// Name of the blob.
#[must_use]
pub fn blob() -> BlobId {
    BlobId::from(BLOB)
}

fn foreign() -> Error {
    Error::new(ErrorKind::ForeignMaintenance, format!("another maintainer wrote {BLOB} during this cycle"))
        .with_fix("Find out who maintains this repository (`kopia maintenance info`), then run again; nothing is lost")
}
