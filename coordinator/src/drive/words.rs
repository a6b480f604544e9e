//! How far jobs are, between what the ledger hears of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use verger_proto::{CycleId, JobId, Progress, Ticket};

/// Jobs whose last word is known.
const JOBS_MAX: usize = 16_384;

/// The last word of each job, as this process heard it: gone with it, and nothing rests on it.
#[derive(Debug, Default)]
pub struct Words {
    last: Mutex<BTreeMap<(CycleId, JobId), (u32, Progress)>>,
    heard: AtomicU64,
}

impl Words {
    /// Keeps a word in the place of the one before.
    pub fn hear(&self, ticket: &Ticket, progress: Progress) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.insert((ticket.cycle, ticket.job), (ticket.attempt, progress));
        // Those of the oldest cycle: its end was not waited for.
        if last.len() > JOBS_MAX {
            last.pop_first();
        }
        drop(last);
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// The last word of this attempt.
    #[must_use]
    pub fn last(&self, cycle: CycleId, job: JobId, attempt: u32) -> Option<Progress> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(&(cycle, job)).filter(|(of, _)| *of == attempt).map(|(_, progress)| *progress)
    }

    /// Grows with every word.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use verger_proto::{Term, Unit, WorkerId};

    use super::*;

    fn ticket(cycle: u64, job: u64, attempt: u32) -> Ticket {
        let worker = WorkerId::new("w".to_owned()).unwrap();
        Ticket { cycle: CycleId(cycle), job: JobId(job), attempt, term: Term(1), worker }
    }

    fn word(done: u64) -> Progress {
        Progress { done, total: 9, unit: Unit::Blobs }
    }

    #[test]
    fn a_word_is_of_one_attempt_and_stands_until_the_next() {
        let words = Words::default();
        let last = |attempt| words.last(CycleId(1), JobId(2), attempt);
        assert_eq!((last(1), words.heard()), (None, 0));
        words.hear(&ticket(1, 2, 1), word(3));
        words.hear(&ticket(1, 2, 1), word(4));
        assert_eq!((last(1), last(2), words.heard()), (Some(word(4)), None, 2));
        words.hear(&ticket(1, 2, 2), word(1));
        assert_eq!((last(1), last(2)), (None, Some(word(1))));
    }

    #[test]
    fn what_is_kept_has_an_end() {
        let words = Words::default();
        (0..=JOBS_MAX as u64).for_each(|job| words.hear(&ticket(1, job, 1), word(job)));
        assert_eq!(words.last(CycleId(1), JobId(0), 1), None);
        assert_eq!(words.last.lock().unwrap().len(), JOBS_MAX);
    }
}
