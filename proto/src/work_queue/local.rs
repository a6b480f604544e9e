//! The queue of one process: the same contract, no server.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::meters::Fate;
use super::{LATER_DEFAULT, LATER_MAX, Meters, Offer, Taken, WAITING_MAX, WorkQueue, WorkQueueError};
use crate::digest::Digest;
use crate::id::Pool;
use crate::time::LogTime;

/// The queue of one process.
#[derive(Clone, Default, Debug)]
pub struct LocalWorkQueue {
    shared: Arc<Shared>,
}

#[derive(Default, Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    meters: Meters,
}

/// Offers by pool, the oldest first; those that were put off; and the IDs of all of them and of those that somebody holds.
#[derive(Default, Debug)]
struct State {
    waiting: BTreeMap<Pool, VecDeque<Entry>>,
    put_off: Vec<(Instant, Entry)>,
    known: BTreeSet<Digest>,
    number: u64,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    offer: Offer,
    id: Digest,
    number: u64,
    was_delivered: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Puts in line what was put off until now; when the next one comes.
    fn bring_back(&mut self, now: Instant) -> Option<Instant> {
        let (due, put_off) = std::mem::take(&mut self.put_off).into_iter().partition(|(at, _)| *at <= now);
        self.put_off = put_off;
        due.into_iter().for_each(|(_, entry): (Instant, Entry)| self.put(entry));
        self.put_off.iter().map(|(at, _)| *at).min()
    }

    fn put(&mut self, entry: Entry) {
        self.waiting.entry(entry.offer.pool.clone()).or_default().push_back(entry);
    }

    /// What has waited longest in one of these pools.
    fn next(&mut self, pools: &[Pool]) -> Option<Entry> {
        let first = |pool: &&Pool| self.waiting.get(pool).and_then(|line| line.front()).map(|entry| entry.number);
        let pool = pools.iter().filter(|pool| first(pool).is_some()).min_by_key(first)?;
        let line = self.waiting.get_mut(pool)?;
        let entry = line.pop_front();
        if line.is_empty() {
            self.waiting.remove(pool);
        }
        entry
    }
}

impl WorkQueue for LocalWorkQueue {
    fn offer(&self, offer: &Offer) -> Result<(), WorkQueueError> {
        let mut state = self.shared.state();
        if state.is_closed {
            return Err(WorkQueueError::Closed);
        }
        // It is one cycle's until somebody is done with it, however long that takes.
        let id = offer.message_id(LogTime::default());
        if state.known.contains(&id) {
            self.shared.meters.count(Fate::Repeated);
            return Ok(());
        }
        if state.known.len() >= WAITING_MAX {
            self.shared.meters.count(Fate::Unoffered);
            return Err(WorkQueueError::Full);
        }
        state.known.insert(id);
        state.number += 1;
        let entry = Entry { offer: offer.clone(), id, number: state.number, was_delivered: false };
        state.put(entry);
        self.shared.meters.count(Fate::Offered);
        // Not one alone: who wakes may wait for another pool.
        self.shared.changed.notify_all();
        Ok(())
    }

    fn take(&self, pools: &[Pool], wait: Duration) -> Result<Option<Box<dyn Taken>>, WorkQueueError> {
        let began = Instant::now();
        let mut state = self.shared.state();
        loop {
            if state.is_closed {
                return Err(WorkQueueError::Closed);
            }
            let now = Instant::now();
            let next = state.bring_back(now);
            if let Some(entry) = state.next(pools) {
                self.shared.meters.count(Fate::Taken);
                if entry.was_delivered {
                    self.shared.meters.count(Fate::Redelivered);
                }
                return Ok(Some(Box::new(Held { shared: Arc::clone(&self.shared), entry: Some(entry) })));
            }
            let left = wait.saturating_sub(now.duration_since(began));
            if left.is_zero() {
                return Ok(None);
            }
            let nap = next.map_or(left, |at| left.min(at.duration_since(now)));
            state = self.shared.changed.wait_timeout(state, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn close(&self) {
        self.shared.state().is_closed = true;
        self.shared.changed.notify_all();
    }

    fn meters(&self) -> &Meters {
        &self.shared.meters
    }
}

/// An offer in somebody's hands; `None` once it was said what becomes of it.
struct Held {
    shared: Arc<Shared>,
    entry: Option<Entry>,
}

impl Held {
    fn put_off(&mut self, after: Duration) {
        let Some(mut entry) = self.entry.take() else { return };
        entry.was_delivered = true;
        self.shared.meters.count(Fate::Later);
        self.shared.state().put_off.push((Instant::now() + after.min(LATER_MAX), entry));
        // Somebody may wait for longer than this one is put off.
        self.shared.changed.notify_all();
    }
}

impl Taken for Held {
    fn offer(&self) -> &Offer {
        // There until `done` or `later`, which take the whole of it.
        &self.entry.as_ref().expect("an offer that is held").offer
    }

    fn done(mut self: Box<Self>) {
        if let Some(entry) = self.entry.take() {
            self.shared.state().known.remove(&entry.id);
            self.shared.meters.count(Fate::Done);
        }
    }

    fn later(mut self: Box<Self>, after: Duration) {
        self.put_off(after);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.put_off(LATER_DEFAULT);
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, Ends};
    use super::*;

    fn queue() -> Arc<LocalWorkQueue> {
        Arc::default()
    }

    #[test]
    fn it_keeps_the_contract() {
        conformance::suite(&|| {
            let queue = queue();
            Ends { offering: queue.clone(), taking: queue }
        });
    }

    #[test]
    fn what_has_waited_longest_comes_first_whatever_its_pool() {
        let (queue, pools) = (queue(), conformance::pools());
        for number in 0..6 {
            queue.offer(&conformance::job(&pools[number as usize % 2], number)).unwrap();
        }
        for number in 0..6 {
            let taken = queue.take(&pools, Duration::ZERO).unwrap().unwrap();
            assert_eq!(*taken.offer(), conformance::job(&pools[number as usize % 2], number));
            taken.done();
        }
    }

    #[test]
    fn a_full_queue_says_so_and_has_room_again() {
        let (queue, pool) = (queue(), Pool::default());
        let count = u64::try_from(WAITING_MAX).unwrap();
        (0..count).for_each(|number| queue.offer(&conformance::job(&pool, number)).unwrap());
        assert_eq!(queue.offer(&conformance::job(&pool, count)), Err(WorkQueueError::Full));
        queue.offer(&conformance::job(&pool, 0)).unwrap();
        // Held, it still takes its place: it may come back.
        let taken = queue.take(std::slice::from_ref(&pool), Duration::ZERO).unwrap().unwrap();
        assert_eq!(queue.offer(&conformance::job(&pool, count)), Err(WorkQueueError::Full));
        taken.done();
        queue.offer(&conformance::job(&pool, count)).unwrap();
        assert_eq!(queue.meters().get(Fate::Unoffered), 2);
    }

    #[test]
    fn figures_say_what_happened() {
        let (queue, pool) = (queue(), Pool::default());
        let offer = conformance::job(&pool, 1);
        queue.offer(&offer).unwrap();
        queue.offer(&offer).unwrap();
        let take = || queue.take(std::slice::from_ref(&pool), Duration::from_secs(5)).unwrap().unwrap();
        take().later(Duration::ZERO);
        take().done();
        let figures = Fate::ALL.map(|(fate, label)| format!("{label} {}", queue.meters().get(fate)));
        let expected = ["offered 1", "repeated 1", "unoffered 0", "taken 2", "redelivered 1", "done 1", "later 1"];
        assert_eq!(figures, expected);
        assert_eq!(queue.meters().rejected().map(|(_, count)| count).iter().sum::<u64>(), 0);
    }
}
