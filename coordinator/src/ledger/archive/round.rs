//! One round of archiving: what is not in the archive goes there, and what need not be here any more goes away.

use std::io::Cursor;
use std::path::Path;
use std::sync::PoisonError;

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::{Digest, LogTime};

use super::index::Index;
use super::{Archive, Archived, object};
use crate::files::sync_folder;
use crate::ledger::follow::{Follower, Step};
use crate::ledger::segment::{self, LedgerHead, SEGMENT_BYTES_MAX};

/// A ledger that is cut into segments.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    /// Where each begins; the last one is still written to.
    pub(crate) starts: std::sync::Arc<Vec<LedgerHead>>,
    /// Records that a snapshot speaks for: what comes after them may be taken back.
    pub(crate) known: u64,
}

impl Segments {
    /// Where the segments that will never change begin and end.
    fn closed(&self) -> Vec<(LedgerHead, LedgerHead)> {
        let pairs = self.starts.windows(2).map(|pair| (pair[0], pair[1]));
        pairs.take_while(|(_, end)| end.records <= self.known).collect()
    }
}

impl Archive {
    /// Archives what can be, and removes the files of what was archived and is older than the newest few. Says how many segments
    /// wait; why, is in the log, once.
    pub(crate) fn round(&self, folder: &Path, segments: &Segments) -> u64 {
        let _one = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = segments.closed();
        let mut trouble = None;
        let pending = match Index::load(folder) {
            Ok(mut index) => {
                let pending = self.archive(folder, &closed, &mut index, &mut trouble);
                let surplus = closed.len().saturating_sub(usize::try_from(self.keep_local).unwrap_or(usize::MAX));
                if let Err(error) = remove(folder, &closed[..surplus], &index) {
                    trouble.get_or_insert(error);
                }
                pending
            }
            Err(error) => {
                trouble = Some(error);
                closed.len() as u64
            }
        };
        self.segments.tell("a part of the ledger", &self.address, pending, trouble.as_ref());
        pending
    }

    fn archive(
        &self,
        folder: &Path,
        closed: &[(LedgerHead, LedgerHead)],
        index: &mut Index,
        trouble: &mut Option<Error>,
    ) -> u64 {
        let (mut pending, mut is_reached) = (0u64, true);
        for (first, end) in closed {
            let here = index.at(first.records).is_some_and(|known| known.end == *end && known.address == self.address);
            // What is in another archive alone stays there.
            if here || !segment::path(folder, first.records).exists() {
                continue;
            }
            let kept = if is_reached { self.keep(folder, *first, *end) } else { Ok(None) };
            let noted = kept.and_then(|archived| {
                let Some(archived) = archived else { return Ok(false) };
                index.insert(archived);
                index.write(folder).map(|()| true)
            });
            match noted {
                Ok(true) => {}
                Ok(false) => pending = pending.saturating_add(1),
                Err(error) => {
                    // One segment that does not hold says nothing of the others.
                    is_reached &= error.kind() == ErrorKind::Damaged;
                    pending = pending.saturating_add(1);
                    trouble.get_or_insert(error);
                }
            }
        }
        pending
    }

    /// Brings one segment into the archive, and sees that it is there.
    fn keep(&self, folder: &Path, first: LedgerHead, end: LedgerHead) -> Result<Option<Archived>> {
        let (plain, until) = read(folder, first, end)?;
        let digest = Digest::of(&plain);
        let object = object::name(&self.fleet, first, end, digest);
        let archived = Archived { first, end, until, digest, stored_bytes: 0, object, address: self.address.clone() };
        let storage =
            self.storage().map_err(|error| error.at(format!("open the ledger's archive {}", self.address)))?;
        object::write(&*storage, &archived.object, object::compress(&plain)?)
            .map_err(|error| error.at(format!("archive {}", archived.shown())))?;
        let read = object::read(&*storage, &archived.object, archived.bytes(), digest).map_err(|error| match error.kind() {
            ErrorKind::Damaged => error.at(format!("{} holds other bytes than its name says", archived.shown())).with_fix(
                "nothing writes over it: look who wrote it, and move it away; the segment stays here until then",
            ),
            _ => error.at(format!("read back {}", archived.shown())),
        });
        let (again, stored_bytes) = read?;
        if again != plain {
            return Err(Error::damaged(format!("{} holds other bytes than were written", archived.shown())));
        }
        tracing::info!(
            object = archived.object,
            bytes = archived.bytes(),
            stored_bytes,
            "archived a segment of the ledger"
        );
        Ok(Some(Archived { stored_bytes, ..archived }))
    }
}

/// The bytes of a closed segment, which holds from end to end, and the time of its last record.
fn read(folder: &Path, first: LedgerHead, end: LedgerHead) -> Result<(Vec<u8>, LogTime)> {
    let path = segment::path(folder, first.records);
    let broken = |what: String| {
        Error::damaged(format!("the ledger segment {} does not hold: {what}", path.display()))
            .with_fix("it is not archived as it is: put back the whole file from another node")
    };
    let wanted = end.bytes.saturating_sub(first.bytes);
    let found =
        std::fs::metadata(&path).map_err(|error| Error::of_file(format!("read {}", path.display()), error))?.len();
    if found != wanted || wanted > SEGMENT_BYTES_MAX {
        return Err(broken(format!("it has {found} bytes instead of {wanted}")));
    }
    let plain = std::fs::read(&path).map_err(|error| Error::of_file(format!("read {}", path.display()), error))?;
    let mut follower = Follower::new(Cursor::new(&plain), first.chain(), 0, plain.len() as u64);
    let mut until = LogTime(0);
    loop {
        match follower.next() {
            Ok(Step::Record(link)) => until = link.at,
            Ok(Step::End) => break,
            Ok(Step::Cut) => return Err(broken(format!("record {} is cut short", follower.head().next))),
            Err(error) => return Err(broken(format!("record {}: {error}", follower.head().next))),
        }
    }
    if follower.head() != end.chain() {
        return Err(broken(format!("it ends with another record than {}", end.records.saturating_sub(1))));
    }
    Ok((plain, until))
}

/// Removes the files of archived segments, the oldest first: what is left has no gaps.
fn remove(folder: &Path, closed: &[(LedgerHead, LedgerHead)], index: &Index) -> Result<()> {
    let mut removed = false;
    for (first, end) in closed {
        let path = segment::path(folder, first.records);
        if index.at(first.records).is_none_or(|archived| archived.end != *end) || !path.exists() {
            continue;
        }
        std::fs::remove_file(&path).map_err(|error| Error::of_file(format!("remove {}", path.display()), error))?;
        removed = true;
    }
    if removed {
        sync_folder(folder).map_err(|error| Error::of_file(format!("sync {}", folder.display()), error))?;
    }
    Ok(())
}
