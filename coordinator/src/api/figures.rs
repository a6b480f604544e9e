//! What the board counted, on the disk: a start goes on from there in place of reading the ledger from its beginning.
//!
//! The file says up to which record it counted, with that record's place before and after it. It holds if exactly that record lies
//! there still; else all is counted again. It is a cache: nothing is lost with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::envelope::Kind;
use verger_proto::event::CycleEnd;
use verger_proto::{CycleId, LogTime, Mode, RepositoryId};

use super::board::{Board, Known, Told, outcome};
use super::events::Events;
use super::metrics::Durations;
use super::shards::Shards;
use crate::files;
use crate::ledger::folder::{Mark, Place};
use crate::ledger::list;

/// After so many records it is written again.
const EVERY: u64 = 4_096;
/// Entries of one record of the file.
const PIECE: usize = 1_024;

/// How long a ledger that is shorter than it was is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// One record of the file.
#[derive(Serialize, Deserialize)]
enum Piece {
    Begin {
        before: Mark,
        after: Mark,
    },
    Names(Vec<(RepositoryId, Vec<(u64, Known)>)>),
    Owned(Vec<(CycleId, Known)>),
    Cycles(Vec<(CycleId, Told)>),
    Ends(Vec<(String, String, u64)>),
    Successes(Vec<(RepositoryId, String, LogTime)>),
    Freed(Vec<(RepositoryId, u64)>),
    Durations(Durations),
    /// Nothing is missing.
    End,
    Shards(Shards),
}

/// A board as far as it was counted before; an empty one if that cannot be told.
pub(super) fn load(events: &dyn Events) -> Board {
    let Some(path) = events.figures() else { return Board::default() };
    match read(&path) {
        Ok(Some(board)) => match board.last {
            Some((before, after)) if resume(events, &before, &after) => board,
            _ => {
                tracing::info!(path = %path.display(), "figures were counted of another ledger: they are counted again");
                Board::default()
            }
        },
        Ok(None) => Board::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), error = error.chain(), "figures cannot be read: they are counted again");
            Board::default()
        }
    }
}

/// After a crash the ledger may be shorter for a moment: its end comes again from the raft log.
fn resume(events: &dyn Events, before: &Place, after: &Place) -> bool {
    let waits = (PATIENCE.as_millis() / PAUSE.as_millis()).max(1);
    for _ in 0..waits {
        if let Some(is_same) = events.resume(before, after) {
            return is_same;
        }
        std::thread::sleep(PAUSE);
    }
    false
}

/// Whether much was counted since it was written down.
pub(super) fn is_much(board: &Board, kept: u64) -> bool {
    board.next >= kept.saturating_add(EVERY)
}

/// Writes the board down. A disk that is full keeps none; they are counted again then.
pub(super) fn keep(events: &dyn Events, board: &Board) {
    let (Some(path), Some((before, after))) = (events.figures(), board.last) else { return };
    if let Err(error) = write(&path, board, (before, after)) {
        tracing::debug!(path = %path.display(), error = error.chain(), "figures were not kept");
    }
}

fn write(path: &Path, board: &Board, (before, after): (Place, Place)) -> Result<()> {
    let mut pieces = vec![Piece::Begin { before: before.mark(), after: after.mark() }];
    let plain = |times: &Vec<(u64, Arc<Known>)>| times.iter().map(|(from, known)| (*from, (**known).clone())).collect();
    let names = board.names.iter().map(|(id, times)| (id.clone(), plain(times)));
    pieces.extend(cut(names).map(Piece::Names));
    pieces.extend(cut(board.owned.iter().map(|(id, known)| (*id, (**known).clone()))).map(Piece::Owned));
    pieces.extend(cut(board.cycles.iter().map(|(id, told)| (*id, told.clone()))).map(Piece::Cycles));
    let ends = board.ends.iter().map(|((end, mode), count)| ((*end).to_owned(), (*mode).to_owned(), *count));
    pieces.push(Piece::Ends(ends.collect()));
    let successes = board.successes.iter().map(|((id, mode), at)| (id.clone(), (*mode).to_owned(), *at));
    pieces.extend(cut(successes).map(Piece::Successes));
    pieces.extend(cut(board.freed.iter().map(|(id, bytes)| (id.clone(), *bytes))).map(Piece::Freed));
    pieces.extend([Piece::Durations(board.durations.clone()), Piece::Shards(board.shards.clone()), Piece::End]);
    let bytes = list::encode(Kind::Figures, &pieces)?;
    files::replace(path, &bytes).map_err(|error| Error::of_file(format!("write {}", path.display()), error))
}

fn cut<T>(mut entries: impl Iterator<Item = T>) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let piece: Vec<T> = entries.by_ref().take(PIECE).collect();
        (!piece.is_empty()).then_some(piece)
    })
}

fn read(path: &Path) -> Result<Option<Board>> {
    files::read_if_there(path)?.map(|bytes| decode(&bytes)).transpose()
}

fn decode(bytes: &[u8]) -> Result<Board> {
    let pieces: Vec<Piece> = list::decode(Kind::Figures, bytes)
        .map_err(|error| Error::new(ErrorKind::Damaged, "the file of figures does not hold").with_source(error))?;
    if !matches!(pieces.last(), Some(Piece::End)) {
        return Err(Error::damaged("the file of figures is cut short"));
    }
    if !pieces.iter().any(|piece| matches!(piece, Piece::Shards(_))) {
        return Err(Error::damaged("the file of figures is of a version that did not count shards"));
    }
    let (mut board, mut one) = (Board::default(), BTreeMap::<Known, Arc<Known>>::new());
    let mut shared = |known: Known| one.entry(known.clone()).or_insert_with(|| Arc::new(known)).clone();
    for piece in pieces {
        match piece {
            Piece::Begin { before, after } => {
                let after = Place::marked(&after);
                (board.next, board.last) = (after.next(), Some((Place::marked(&before), after)));
            }
            Piece::Names(names) => {
                let mut times =
                    |times: Vec<(u64, Known)>| times.into_iter().map(|(from, known)| (from, shared(known))).collect();
                board.names.extend(names.into_iter().map(|(id, all)| (id, times(all))));
            }
            Piece::Owned(owned) => board.owned.extend(owned.into_iter().map(|(id, known)| (id, shared(known)))),
            Piece::Cycles(cycles) => board.cycles.extend(cycles),
            Piece::Ends(ends) => {
                for (end, mode, count) in ends {
                    board.ends.insert((end_of(&end)?, mode_of(&mode)?), count);
                }
            }
            Piece::Successes(successes) => {
                for (id, mode, at) in successes {
                    board.successes.insert((id, mode_of(&mode)?), at);
                }
            }
            Piece::Freed(freed) => board.freed.extend(freed),
            Piece::Durations(durations) => board.durations = durations,
            Piece::Shards(shards) => board.shards = shards,
            Piece::End => {}
        }
    }
    Ok(board)
}

fn mode_of(name: &str) -> Result<&'static str> {
    let known = [Mode::Quick, Mode::Full, Mode::Index].into_iter().map(Mode::name).find(|known| *known == name);
    known.ok_or_else(|| Error::damaged(format!("the file of figures has a mode {name:?}")))
}

fn end_of(name: &str) -> Result<&'static str> {
    let nothing = String::new;
    let failure =
        verger_proto::Failure { kind: verger_proto::FailureKind::Internal, text: nothing(), retryable: false };
    let ends = [
        CycleEnd::Done,
        CycleEnd::Planned,
        CycleEnd::Degraded,
        CycleEnd::Aborted(nothing()),
        CycleEnd::Failed(failure),
    ];
    let known = ends.iter().map(outcome).find(|known| *known == name);
    known.ok_or_else(|| Error::damaged(format!("the file of figures has an outcome {name:?}")))
}

#[cfg(test)]
#[path = "figures_tests.rs"]
mod tests;
