//! How far jobs are, between what the ledger hears of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use verger_proto::{CycleId, JobId, Progress, Ticket};

use crate::machine::{JobStatus, State};

/// Jobs whose last word is known.
const JOBS_MAX: usize = 16_384;
/// Words of one cycle that are told at a time.
const TOLD_MAX: usize = 4_096;

/// How far an attempt at a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Word {
    /// Of this cycle.
    pub cycle: CycleId,
    /// At this job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// How far.
    pub progress: Progress,
}

impl Word {
    /// Of whoever has this ticket.
    #[must_use]
    pub fn of(ticket: &Ticket, progress: Progress) -> Self {
        Self { cycle: ticket.cycle, job: ticket.job, attempt: ticket.attempt, progress }
    }
}

/// The last word of each job, as this process heard it: gone with it, and nothing rests on it.
#[derive(Debug)]
pub struct Words {
    last: Mutex<BTreeMap<(CycleId, JobId), (u32, Progress)>>,
    heard: watch::Sender<u64>,
}

impl Default for Words {
    fn default() -> Self {
        Self { last: Mutex::default(), heard: watch::channel(0).0 }
    }
}

impl Words {
    /// Keeps a word in the place of the one before.
    pub fn hear(&self, word: Word) {
        let (at, now) = ((word.cycle, word.job), (word.attempt, word.progress));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = last.insert(at, now) != Some(now);
        // Those of the oldest cycle: its end was not waited for.
        if last.len() > JOBS_MAX {
            last.pop_first();
        }
        drop(last);
        if is_news {
            self.heard.send_modify(|heard| *heard = heard.wrapping_add(1));
        }
    }

    /// The last word of this attempt.
    #[must_use]
    pub fn last(&self, cycle: CycleId, job: JobId, attempt: u32) -> Option<Progress> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(&(cycle, job)).filter(|(of, _)| *of == attempt).map(|(_, progress)| *progress)
    }

    /// The last words of whoever is at work on an open cycle.
    #[must_use]
    pub fn of(&self, state: &State, id: CycleId) -> Vec<Word> {
        let Some(cycle) = state.cycles.get(&id) else { return Vec::new() };
        let claimed = cycle.jobs.values().filter(|job| matches!(job.status, JobStatus::Claimed(..)));
        let said = claimed.filter_map(|job| {
            let progress = self.last(id, job.id, job.attempt)?;
            Some(Word { cycle: id, job: job.id, attempt: job.attempt, progress })
        });
        said.take(TOLD_MAX).collect()
    }

    /// Goes on with every word that is another than the one before.
    #[must_use]
    pub fn heard(&self) -> watch::Receiver<u64> {
        self.heard.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use verger_proto::Unit;

    use super::*;

    fn progress(done: u64) -> Progress {
        Progress { done, total: 9, unit: Unit::Blobs }
    }

    fn word(cycle: u64, job: u64, attempt: u32, done: u64) -> Word {
        Word { cycle: CycleId(cycle), job: JobId(job), attempt, progress: progress(done) }
    }

    #[test]
    fn a_word_is_of_one_attempt_and_stands_until_the_next() {
        let words = Words::default();
        let last = |attempt| words.last(CycleId(1), JobId(2), attempt);
        let heard = || *words.heard().borrow();
        assert_eq!((last(1), heard()), (None, 0));
        words.hear(word(1, 2, 1, 3));
        words.hear(word(1, 2, 1, 4));
        words.hear(word(1, 2, 1, 4));
        assert_eq!((last(1), last(2), heard()), (Some(progress(4)), None, 2), "the same again is no news");
        words.hear(word(1, 2, 2, 1));
        assert_eq!((last(1), last(2)), (None, Some(progress(1))));
    }

    #[test]
    fn what_is_kept_has_an_end() {
        let words = Words::default();
        (0..=JOBS_MAX as u64).for_each(|job| words.hear(word(1, job, 1, job)));
        assert_eq!(words.last(CycleId(1), JobId(0), 1), None);
        assert_eq!(words.last.lock().unwrap().len(), JOBS_MAX);
    }
}
