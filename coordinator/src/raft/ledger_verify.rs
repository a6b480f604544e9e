//! Whether a ledger is the one that a snapshot speaks of: its chain is followed through all segments that are here.

use std::fs::File;
use std::io::{BufReader, ErrorKind as Io};
use std::path::Path;

use verger_kopia::error::{Error, Result};

use super::files::{REJOIN, failed};
use crate::ledger::archive::Archived;
use crate::ledger::archive::index::{self, Index};
use crate::ledger::follow::{Broken, Follower, Step};
use crate::ledger::segment::{self, LedgerHead};

/// What is said of a file of the ledger that does not hold, and is in the archive if it is.
pub(crate) fn breaks(path: &Path, archived: Option<&Archived>, what: impl std::fmt::Display) -> Error {
    let here = "put back the whole file from another node or a copy (it is the same on every node)";
    let fix = match archived {
        Some(archived) => format!(
            "{here}; or from the archive: `verger ledger restore` makes it of the object {} in {}; or {REJOIN}",
            archived.object, archived.address
        ),
        None => format!("{here}; or {REJOIN}"),
    };
    Error::damaged(format!("the ledger {} does not hold: {what}", path.display())).with_fix(fix)
}

/// Follows the chain up to `known`, and says where the segments begin. What was archived and is not here was verified when it was.
pub(crate) fn verify(folder: &Path, known: LedgerHead) -> Result<Vec<LedgerHead>> {
    let index = Index::load(folder)?;
    let mut starts = vec![LedgerHead::default()];
    let mut head = LedgerHead::default();
    while head.records < known.records {
        if starts.last() != Some(&head) {
            starts.push(head);
        }
        let path = segment::path(folder, head.records);
        let archived = index.at(head.records).filter(|archived| archived.first == head);
        head = match (File::open(&path), archived) {
            (Ok(file), _) => follow(&path, &file, head, known, archived)?,
            (Err(error), Some(archived)) if error.kind() == Io::NotFound => archived.end,
            (Err(error), None) if error.kind() == Io::NotFound => {
                return Err(breaks(&path, None, "it is missing"));
            }
            (Err(error), _) => return Err(failed(&path, "open the ledger", error)),
        };
    }
    if head == known {
        return Ok(starts);
    }
    let (path, last) =
        (segment::path(folder, starts.last().map_or(0, |start| start.records)), known.records.saturating_sub(1));
    if head.records > known.records {
        let what = format!("its segments go on after record {last}, where the snapshot ends");
        return Err(breaks(&index::path(folder), None, what));
    }
    let archived = starts.last().and_then(|start| index.at(start.records));
    Err(breaks(&path, archived, format!("its record {last} is not the one that the snapshot speaks of")))
}

/// Follows one segment, and says how far the ledger goes with it.
pub(super) fn follow(
    path: &Path,
    file: &File,
    start: LedgerHead,
    known: LedgerHead,
    archived: Option<&Archived>,
) -> Result<LedgerHead> {
    let size = file.metadata().map_err(|error| failed(path, "read the ledger", error))?.len();
    let mut follower = Follower::new(BufReader::with_capacity(1 << 16, file), start.chain(), 0, size);
    while follower.head().next < known.records {
        let (number, at) = (follower.head().next, follower.at());
        let bad = |what: &dyn std::fmt::Display| breaks(path, archived, format!("record {number} (byte {at}): {what}"));
        match follower.next() {
            Ok(Step::Record(_)) => {}
            Ok(Step::Cut) => return Err(bad(&"it is cut short")),
            Ok(Step::End) if at == 0 || archived.is_some_and(|archived| archived.end.records != number) => {
                return Err(bad(&"it is missing"));
            }
            Ok(Step::End) => break,
            Err(Broken::Unreadable(error)) => return Err(failed(path, "read the ledger", error)),
            Err(Broken::Chain(error)) => return Err(bad(&error)),
        }
    }
    Ok(start.after(follower.head(), follower.at()))
}
