//! The places of a worker: threads that take hints, or ask, and do what there is.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::work_queue::{Wake, WorkQueueError};

use super::presence::{EVERY, Presence};
use super::{Crew, lead, shards};

/// How long a hint is waited for at a time, and how often somebody asks while there is none.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// After somebody else had a shard first: there may be more of them, and who asks may be told of the same once again.
const AFTER_LOST: Duration = Duration::from_millis(50);
/// So often in a row; then it is as if there were none.
const LOST_MAX: u32 = 10;
/// Until others have begun what they do sooner.
const AFTER_LATER: Duration = Duration::from_millis(200);
/// How soon it is noticed that the worker is to stop.
const GLANCE: Duration = Duration::from_millis(100);

/// Works until the crew is asked to stop, and for at most `drain_timeout` longer; the error that ended it, if it was one.
pub(super) fn work(crew: &Arc<Crew>, presence: &Presence, places: u32, drain_timeout: Duration) -> Option<Error> {
    let busy = Arc::new(AtomicU32::new(places));
    for number in 0..places {
        let (crew, busy) = (crew.clone(), busy.clone());
        let begun = std::thread::Builder::new().name(format!("place {number}")).spawn(move || {
            let _place = Place(busy);
            fill(&crew);
        });
        if let Err(error) = begun {
            return Some(Error::new(ErrorKind::Internal, "begin a thread").with_source(error));
        }
    }
    let lost = stay(crew, presence);
    crew.stop.ask();
    if let Some(queue) = &crew.queue {
        queue.close();
    }
    let until = Instant::now() + drain_timeout;
    while busy.load(Ordering::Acquire) > 0 && Instant::now() < until {
        std::thread::sleep(GLANCE);
    }
    if busy.load(Ordering::Acquire) > 0 {
        tracing::warn!(
            "what is under way did not come to a boundary in time; others take it up when its claims have run out"
        );
    }
    lost
}

/// Says that the worker is there until it is to stop.
fn stay(crew: &Crew, presence: &Presence) -> Option<Error> {
    let mut said = Instant::now();
    crew.counts.heard(&*crew.clock);
    while !crew.stop.is_asked() {
        std::thread::sleep(GLANCE);
        if said.elapsed() >= EVERY {
            said = Instant::now();
            if let Some(error) = presence.renew(crew) {
                return Some(error);
            }
        }
    }
    None
}

/// One place: free again when its thread ends, however it does.
struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

fn fill(crew: &Arc<Crew>) {
    let (mut worked, mut lost) = (true, 0);
    while !crew.stop.is_asked() {
        if crew.drained.load(Ordering::Relaxed) {
            std::thread::sleep(GLANCE);
            continue;
        }
        match crew.counts.at_work(|| once(crew, worked)) {
            Ok(Found::Work) => (worked, lost) = (true, 0),
            Ok(Found::Later) => nap(crew, AFTER_LATER),
            Ok(Found::Lost) if lost < LOST_MAX => {
                lost += 1;
                nap(crew, AFTER_LOST);
            }
            Ok(Found::Lost | Found::Nothing) => {
                (worked, lost) = (false, 0);
                wait(crew);
            }
            Err(error) => {
                tracing::warn!(error = error.chain(), "no work could be asked for");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// What came of asking for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It is done.
    Work,
    /// Somebody else has it, or it is over.
    Lost,
    /// Somebody else does it sooner, and has a moment to begin.
    Later,
    /// There is none that this worker can do.
    Nothing,
}

/// Does what there is, once. One place at a time asks, as the others would hear the same: who comes from work waits until it may, who
/// had none waits on.
fn once(crew: &Arc<Crew>, worked: bool) -> Result<Found> {
    let asking = match crew.asking.try_lock() {
        Ok(asking) => asking,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) if worked => crew.asking.lock().unwrap_or_else(PoisonError::into_inner),
        Err(TryLockError::WouldBlock) => return Ok(Found::Nothing),
    };
    let hint = first_shard(crew)?;
    drop(asking);
    match hint {
        Some(hint) => shards::take(crew, &hint),
        None => lead::take(crew),
    }
}

/// A shard that waits; not always the same one, so that several workers do not all want that.
fn first_shard(crew: &Crew) -> Result<Option<verger_proto::queue::Hint>> {
    if crew.site.shards.is_none() {
        return Ok(None);
    }
    let mut all = crew.link.jobs(&crew.pools)?;
    all.retain(|hint| !crew.opened.is_unable(&hint.repository));
    if all.is_empty() {
        return Ok(None);
    }
    let chosen = rand::Rng::random_range(&mut rand::rng(), 0..all.len());
    Ok(Some(all.swap_remove(chosen)))
}

/// Waits for a hint, or for the time to ask.
fn wait(crew: &Arc<Crew>) {
    let Some(queue) = &crew.queue else { return nap(crew, ASK_EVERY) };
    match queue.take(&crew.pools, ASK_EVERY) {
        Ok(None) => {}
        Ok(Some(taken)) => {
            let done = crew.counts.at_work(|| match &taken.offer().wake {
                Wake::Job(hint) => shards::take(crew, hint),
                Wake::Drive { .. } => lead::take(crew),
            });
            match done {
                Ok(Found::Later) => taken.later(AFTER_LATER),
                Ok(_) => taken.done(),
                Err(error) => {
                    tracing::warn!(error = error.chain(), "what a hint was of could not be done");
                    taken.later(PAUSE);
                }
            }
        }
        Err(WorkQueueError::Closed) => nap(crew, GLANCE),
        // It is said where the queue is: here work is asked for meanwhile.
        Err(_) => nap(crew, ASK_EVERY),
    }
}

fn nap(crew: &Crew, at_most: Duration) {
    let until = Instant::now() + at_most;
    while !crew.stop.is_asked() && Instant::now() < until {
        std::thread::sleep(GLANCE.min(until.saturating_duration_since(Instant::now())));
    }
}
