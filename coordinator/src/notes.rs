//! What processes of this fleet left in a repository's store, so that another one goes on at once where they ended: which versions
//! of Kopia's schedule they wrote, behind which no other maintainer's run is at work (R22), and which sessions they began (R21).
//!
//! Both are said before anything is written, by whoever holds the lease, and count from then on: a note of something that was never
//! written says nothing of what anybody else wrote.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use verger_kopia::mutant::{self, Mutant};
use verger_proto::event::CycleEnd;
use verger_proto::{Digest, Event, LogTime, Mode, Refusal, RepositoryId, SessionName, Severity, Term};

use crate::lease;
use crate::machine::Turn;

/// The last writes may not have reached the store: then one before them is there still.
const VERSIONS_KEPT: usize = 8;
/// Milliseconds. Older sessions have expired for Kopia, too.
const SESSIONS_KEPT: u64 = 8 * 24 * 3_600_000;
/// Most sessions of one repository; those that are forgotten early expire by themselves.
const SESSIONS_MAX: usize = 1_024;

/// What was left in a repository's store.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Notes {
    /// Versions of Kopia's schedule, the newest last.
    versions: Vec<Digest>,
    /// Sessions, the newest last.
    sessions: Vec<Began>,
    /// The last full cycle found that an index blob may be lost, which only another full one can see (R11).
    lost_index: bool,
}

/// A session that began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Began {
    session: SessionName,
    term: Term,
    at: LogTime,
}

impl Notes {
    /// Whether a schedule that says this is one of ours.
    #[must_use]
    pub fn wrote(&self, version: &Digest) -> bool {
        self.versions.contains(version)
    }

    /// Sessions of the terms before this one. Whoever holds the lease under `term`, and has waited out what it says of its last holder
    /// (R4), knows that they write nothing any more.
    #[must_use]
    pub fn sessions_before(&self, term: Term) -> BTreeSet<String> {
        let earlier = |began: &&Began| began.term < term || mutant::on(Mutant::R21PresentSessionIsOver);
        self.sessions.iter().filter(earlier).map(|began| began.session.to_string()).collect()
    }

    /// Whether only a full cycle may run.
    #[must_use]
    pub fn lost_index(&self) -> bool {
        self.lost_index && !mutant::on(Mutant::R11QuickForgetsTheLoss)
    }

    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A cycle ended.
    pub(crate) fn closed(&mut self, mode: Mode, severity: Option<Severity>, end: &CycleEnd) {
        if mode == Mode::Full && matches!(end, CycleEnd::Done | CycleEnd::Degraded) {
            self.lost_index = severity == Some(Severity::LostIndex);
        }
    }
}

pub(crate) fn write(turn: &mut Turn<'_>, repository: RepositoryId, term: Term, version: Digest) -> Result<(), Refusal> {
    let notes = held(turn, &repository, term)?;
    if notes.versions.last() == Some(&version) {
        return Ok(());
    }
    notes.versions.push(version);
    let over = notes.versions.len().saturating_sub(VERSIONS_KEPT);
    notes.versions.drain(..over);
    turn.events.push(Event::WriteNoted { repository, term, version });
    Ok(())
}

pub(crate) fn session(
    turn: &mut Turn<'_>,
    repository: RepositoryId,
    term: Term,
    session: SessionName,
) -> Result<(), Refusal> {
    let at = turn.at;
    let notes = held(turn, &repository, term)?;
    if notes.sessions.iter().any(|began| began.session == session) {
        return Ok(());
    }
    notes.sessions.retain(|began| at.since(began.at) <= SESSIONS_KEPT);
    notes.sessions.push(Began { session: session.clone(), term, at });
    let over = notes.sessions.len().saturating_sub(SESSIONS_MAX);
    notes.sessions.drain(..over);
    turn.events.push(Event::SessionNoted { repository, term, session });
    Ok(())
}

/// The notes of a repository whose lease is held under this term: nobody else writes there in our name.
fn held<'a>(turn: &'a mut Turn<'_>, repository: &RepositoryId, term: Term) -> Result<&'a mut Notes, Refusal> {
    lease::held(turn, repository, term)?;
    turn.state.repositories.get_mut(repository).map(|entry| &mut entry.notes).ok_or(Refusal::NoLease)
}

#[cfg(test)]
mod tests;
