//! A ledger in a folder as it is read: segment after segment, those that are not here any more from the archive.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::Digest;
use verger_proto::chain::{ChainError, ChainHead};

use super::archive::index::Index;
use super::archive::{Archive, Archived};
use super::follow::{Broken, Follower, Step};
use super::{Record, segment};
use crate::files::NEWER;

/// Between two records of a ledger, its chain verified up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub(super) head: ChainHead,
    /// First record of the segment that it is in.
    pub(super) segment: u64,
    /// Bytes of that segment before it.
    pub(super) length: u64,
}

impl Place {
    /// Number of the record after it.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.head.next
    }

    /// To be written down, and read again by [`Self::marked`].
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { next: self.head.next, last: self.head.last, segment: self.segment, length: self.length }
    }

    /// The place of a mark. Whether the ledger still is as it was there, whoever reads on from it sees.
    #[must_use]
    pub fn marked(mark: &Mark) -> Self {
        let head = ChainHead { next: mark.next, last: mark.last };
        Self { head, segment: mark.segment, length: mark.length }
    }

    /// Where an archived segment ends.
    fn after(archived: &Archived) -> Self {
        Self { head: archived.end.chain(), segment: archived.end.records, length: 0 }
    }
}

/// A place, as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    next: u64,
    last: Digest,
    segment: u64,
    length: u64,
}

/// A ledger that this or another process may be writing.
#[derive(Debug, Clone)]
pub struct LedgerFolder {
    folder: PathBuf,
    archive: Option<Arc<Archive>>,
}

/// Bytes of a segment, from one place on.
struct Opened {
    source: Box<dyn Read>,
    bytes: u64,
}

impl LedgerFolder {
    /// Of the ledger in `folder`, whose old segments may be in `archive`.
    #[must_use]
    pub fn new(folder: &Path, archive: Option<Arc<Archive>>) -> Self {
        Self { folder: folder.to_owned(), archive }
    }

    /// Segments that wait to be archived; none without an archive.
    #[must_use]
    pub fn pending(&self) -> Option<u64> {
        self.archive.as_ref().map(|archive| archive.pending())
    }

    /// Reads from a place of an earlier reading on; gives each record with the place after it, and returns the last. An unfinished
    /// record at the end is left alone.
    ///
    /// # Errors
    /// `NotFound` if there is no ledger, `Damaged`, what reading from the archive gives, or whatever `visit` says.
    pub fn read_on(&self, from: Place, mut visit: impl FnMut(Record, Place) -> Result<()>) -> Result<Place> {
        self.scan(from, &mut visit).map(|(place, _)| place)
    }

    /// As [`Self::read_on`], with the bytes of the unfinished record.
    pub(super) fn scan(
        &self,
        from: Place,
        visit: &mut impl FnMut(Record, Place) -> Result<()>,
    ) -> Result<(Place, u64)> {
        let mut place = from;
        loop {
            let path = segment::path(&self.folder, place.segment);
            let Opened { source, bytes } = self.open(place, &path)?;
            let segment = place.segment;
            let (head, length) = scan(source, bytes, &path, place, &mut |record, head, length| {
                visit(record, Place { head, segment, length })
            })?;
            place = Place { head, segment, length };
            if self.is_last(segment)? {
                return Ok((place, bytes.saturating_sub(length)));
            }
            // A later one was begun: this one is whole now, and the next is there, if nothing is lost.
            if length == bytes && head.next > segment && self.has(head.next)? {
                place = Place { head, segment: head.next, length: 0 };
            } else if !std::fs::metadata(&path).is_ok_and(|now| now.len() > bytes) {
                return Err(cut_short(&path, head.next));
            }
        }
    }

    fn is_last(&self, segment: u64) -> Result<bool> {
        let here = segment::local(&self.folder).map_err(|error| failed(&self.folder, "list", error))?;
        Ok(here.last().is_none_or(|last| *last <= segment))
    }

    fn has(&self, first: u64) -> Result<bool> {
        Ok(segment::path(&self.folder, first).exists() || Index::load(&self.folder)?.at(first).is_some())
    }

    fn open(&self, place: Place, path: &Path) -> Result<Opened> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.fetch(place, path, error),
            Err(error) => return Err(failed(path, "open the ledger", error)),
        };
        let unreadable = |error| failed(path, "read the ledger", error);
        let bytes = file.metadata().map_err(unreadable)?.len();
        if bytes < place.length {
            let step = format!("the ledger {} is shorter than it was", path.display());
            return Err(Error::damaged(step).with_fix("put the file back from a copy"));
        }
        let mut reader = BufReader::with_capacity(1 << 16, file);
        reader.seek(SeekFrom::Start(place.length)).map_err(unreadable)?;
        Ok(Opened { source: Box::new(reader), bytes })
    }

    fn fetch(&self, place: Place, path: &Path, absent: io::Error) -> Result<Opened> {
        let index = Index::load(&self.folder)?;
        let Some(archived) = index.at(place.segment) else {
            let step = format!("there is no ledger at {}", path.display());
            return Err(Error::new(ErrorKind::NotFound, step).with_source(absent));
        };
        let plain = match &self.archive {
            Some(archive) => archive.fetch(&self.folder, archived)?,
            None => return Err(archived.elsewhere()),
        };
        let bytes = plain.len() as u64;
        let mut reader = Cursor::new(plain);
        reader.set_position(place.length);
        Ok(Opened { source: Box::new(reader), bytes })
    }

    /// The last place up to `record` that can be told without reading; `known` if that is as good.
    ///
    /// # Errors
    /// `Damaged` if what is known of the archive does not hold.
    pub fn before(&self, record: u64, known: Place) -> Result<Place> {
        // What is here is read faster than it is thought about.
        if segment::path(&self.folder, known.segment).exists() {
            return Ok(known);
        }
        let index = Index::load(&self.folder)?;
        let last = index.last_until(record).map(Place::after).filter(|place| place.next() > known.next());
        Ok(last.unwrap_or(known))
    }

    /// Whether it ends before a place, as far as can be told without reading.
    #[must_use]
    pub fn is_before(&self, place: &Place) -> bool {
        let Ok(here) = segment::local(&self.folder) else { return false };
        if here.last().is_some_and(|last| *last > place.segment)
            || here.first().is_some_and(|first| *first > place.segment)
        {
            return false;
        }
        std::fs::metadata(segment::path(&self.folder, place.segment)).map_or(true, |file| file.len() < place.length)
    }

    /// Number of the first record after all that is only in the archive.
    #[must_use]
    pub fn first_here(&self) -> u64 {
        // What cannot be listed is told by whoever reads it.
        segment::local(&self.folder).ok().and_then(|found| found.first().copied()).unwrap_or(0)
    }

    /// Number of a record before which all are older than `time`, in milliseconds since 1970.
    #[must_use]
    pub fn not_before(&self, time: u64) -> u64 {
        let index = Index::load(&self.folder).unwrap_or_default();
        index.last_older_than(time).map_or(0, |archived| archived.end.records)
    }
}

/// Follows the chain to its end, and says where that is.
pub(super) fn scan(
    source: impl Read,
    size: u64,
    path: &Path,
    from: Place,
    visit: &mut dyn FnMut(Record, ChainHead, u64) -> Result<()>,
) -> Result<(ChainHead, u64)> {
    let mut follower = Follower::new(source, from.head, from.length, size);
    loop {
        let at = follower.at();
        let number = follower.head().next;
        let record = match follower.next() {
            Ok(Step::Record(link)) => Record::of(&link).map_err(|error| damaged(path, number, at, error))?,
            Ok(Step::Cut | Step::End) => return Ok((follower.head(), at)),
            Err(Broken::Unreadable(error)) => return Err(failed(path, "read the ledger", error)),
            Err(Broken::Chain(error)) => return Err(damaged(path, number, at, error)),
        };
        visit(record, follower.head(), follower.at())?;
    }
}

pub(super) fn failed(path: &Path, doing: &str, error: io::Error) -> Error {
    Error::of_file(format!("{doing} {}", path.display()), error).with_fix("choose another place with --state-dir")
}

fn cut_short(path: &Path, next: u64) -> Error {
    let step = format!("the ledger {} ends before record {next}, and a later segment is there", path.display());
    Error::damaged(step)
        .with_fix("put back the whole file from another node or a copy, or with `verger ledger restore`")
}

fn damaged(path: &Path, sequence: u64, at: u64, error: ChainError) -> Error {
    if error.is_of_newer() {
        let step =
            format!("record {sequence} of the ledger {} (byte {at}) is not known to this verger", path.display());
        return Error::new(ErrorKind::Unsupported, step).with_fix(NEWER).with_source(error);
    }
    let step = format!("record {sequence} of the ledger {} (byte {at}) does not continue its chain", path.display());
    let fix = "put the file back from a copy; or move its folder away: the repository is not harmed by that, a new ledger \
               begins, and what was deleted so far can be read from the old one up to this record";
    Error::damaged(step).with_fix(fix).with_source(error)
}
