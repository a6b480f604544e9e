//! Reads what happened, record by record.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::LogTime;

use crate::ledger::Record;
use crate::ledger::archive::Archive;
use crate::ledger::folder::{LedgerFolder, Place};

/// Places are remembered every so many records, so that a reading begins near where it wants to.
const EVERY: u64 = 512;

/// What happened, in order. Calls may block.
pub trait Events: Send + Sync {
    /// Gives the records from number `from` on to `visit`, in order, until there is none or `visit` fails.
    ///
    /// # Errors
    /// What cannot be read, or whatever `visit` says.
    fn read(&self, from: u64, visit: &mut dyn FnMut(Record) -> Result<()>) -> Result<()>;

    /// As [`Self::read`], with the places before and after each record, where those are known.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_placed(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Record, Option<(Place, Place)>) -> Result<()>,
    ) -> Result<()> {
        self.read(from, &mut |record| visit(record, None))
    }

    /// Whether one record lies between these places, as when they were written down; `None`: nothing does yet. If so, reading begins
    /// there.
    fn resume(&self, before: &Place, after: &Place) -> Option<bool> {
        let _ = (before, after);
        Some(false)
    }

    /// A file for figures that follow from what happened.
    fn figures(&self) -> Option<PathBuf> {
        None
    }

    /// One more than the number of the newest record; 0 if there is none.
    fn newest(&self) -> u64;

    /// Number of the first record after all that is only in an archive.
    fn first_here(&self) -> u64 {
        0
    }

    /// Number of a record before which all are older than `time`.
    fn not_before(&self, time: LogTime) -> u64 {
        let _ = time;
        0
    }

    /// Parts of what happened that wait to be archived; none if nothing is.
    fn archive_pending(&self) -> Option<u64> {
        None
    }
}

/// Reads the ledger in a folder, which this or another process writes.
#[derive(Debug)]
pub struct LedgerEvents {
    folder: PathBuf,
    ledger: LedgerFolder,
    places: Mutex<Vec<Place>>,
    /// Where an earlier process was: nothing before it is read unless somebody asks for that.
    resumed: OnceLock<Place>,
}

impl LedgerEvents {
    /// Of the ledger in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            ledger: LedgerFolder::new(folder, None),
            places: Mutex::new(vec![Place::default()]),
            resumed: OnceLock::new(),
        }
    }

    /// What is not in the folder any more is read from this archive.
    #[must_use]
    pub fn with_archive(mut self, folder: &Path, archive: Arc<Archive>) -> Self {
        self.ledger = LedgerFolder::new(folder, Some(archive));
        self
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last known place that is not after `record`. The last in the list is the farthest that anybody came, the others are
    /// every [`EVERY`] records.
    fn before(&self, record: u64) -> Place {
        let places = self.places();
        let after = places.partition_point(|place| place.next() <= record);
        let last = after.checked_sub(1).and_then(|index| places.get(index)).copied().unwrap_or_default();
        let resumed = self.resumed.get().filter(|place| last.next() < place.next() && place.next() <= record);
        resumed.copied().unwrap_or(last)
    }

    fn remember(&self, place: Place) {
        let mut places = self.places();
        let last = places.last().copied().unwrap_or_default();
        if place.next() <= last.next() {
            // Old records from an archive are read after newer ones were.
            if place.next().is_multiple_of(EVERY)
                && let Err(between) = places.binary_search_by_key(&place.next(), Place::next)
            {
                places.insert(between, place);
            }
            return;
        }
        // The farthest place alone moves on; those at the marks stay.
        if !last.next().is_multiple_of(EVERY) {
            places.pop();
        }
        places.push(place);
    }
}

impl Events for LedgerEvents {
    fn read(&self, from: u64, visit: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        self.read_placed(from, &mut |record, _| visit(record))
    }

    fn read_placed(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Record, Option<(Place, Place)>) -> Result<()>,
    ) -> Result<()> {
        let mut before = self.ledger.before(from, self.before(from))?;
        let read = self.ledger.read_on(before, |record, place| {
            let wanted = record.sequence >= from;
            self.remember(place);
            let places = (std::mem::replace(&mut before, place), place);
            if wanted { visit(record, Some(places)) } else { Ok(()) }
        })?;
        self.remember(read);
        Ok(())
    }

    fn resume(&self, before: &Place, after: &Place) -> Option<bool> {
        if self.ledger.is_before(after) {
            return None;
        }
        let mut first = None;
        // One record is read; what comes after it is for whoever reads on.
        let read = self.ledger.read_on(*before, |_, place| {
            first = Some(place);
            Err(Error::new(ErrorKind::Interrupted, "enough was read"))
        });
        let is_same = read.is_err() && first == Some(*after);
        if is_same {
            self.remember(*after);
            self.resumed.get_or_init(|| *after);
        }
        Some(is_same)
    }

    fn figures(&self) -> Option<PathBuf> {
        Some(self.folder.join("figures"))
    }

    fn newest(&self) -> u64 {
        // What cannot be read is told by `read`, which can say why.
        let _ = self.read(u64::MAX, &mut |_| Ok(()));
        self.places().last().map_or(0, Place::next)
    }

    fn first_here(&self) -> u64 {
        self.ledger.first_here()
    }

    fn not_before(&self, time: LogTime) -> u64 {
        self.ledger.not_before(time.0)
    }

    fn archive_pending(&self) -> Option<u64> {
        self.ledger.pending()
    }
}

/// Reads records from `from` on until `take` has enough (`false`), and says where to go on.
pub(super) fn read_until(events: &dyn Events, from: u64, take: &mut dyn FnMut(Record) -> bool) -> Result<u64> {
    let (mut next, mut enough) = (from, false);
    let read = events.read(from, &mut |record| {
        next = record.sequence.saturating_add(1);
        if take(record) {
            return Ok(());
        }
        enough = true;
        Err(Error::new(ErrorKind::Interrupted, "enough was read"))
    });
    match read {
        Err(_) if enough => Ok(next),
        other => other.map(|()| next),
    }
}
