//! The machine of a coordinator elsewhere, as the work of one repository sees it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use verger_coordinator::api::work::{View, Word};
use verger_coordinator::drive::{Backend, Router, Run as _};
use verger_coordinator::machine::{Cycle, JobStatus, Phase, State};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{Command, Effect, Event, JobId, Progress, RepositoryId, Ticket};

use super::link::Link;

/// A job that is still open is offered again after this long: it may have been asked for too early.
const OFFER_AGAIN: Duration = Duration::from_secs(2);
/// After an answer that did not come.
const PAUSE: Duration = Duration::from_millis(500);

/// Says commands to a coordinator, and knows the state of one repository as it was after the last.
pub(super) struct Remote {
    link: Arc<Link>,
    repository: RepositoryId,
    /// Gets the jobs that are open: a coordinator's effects do not come this far, and all follow from the state.
    router: Arc<Router>,
    seen: Mutex<Seen>,
    changed: Condvar,
    is_over: AtomicBool,
}

struct Seen {
    view: View,
    digest: String,
    offered: BTreeMap<JobId, (u32, Instant)>,
}

impl Remote {
    /// Knows the state from the start.
    ///
    /// # Errors
    /// No coordinator answers, or none that knows the repository.
    pub(super) fn new(link: Arc<Link>, repository: RepositoryId, router: Arc<Router>) -> Result<Self> {
        let view = link.view(&repository, "")?;
        let seen = Seen { digest: digest(&view)?, view, offered: BTreeMap::new() };
        let (seen, changed, is_over) = (Mutex::new(seen), Condvar::new(), AtomicBool::new(false));
        Ok(Self { link, repository, router, seen, changed, is_over })
    }

    /// Looks for changes until the work is over: somebody else does shards, pauses, or takes over.
    pub(super) fn follow(&self) {
        while !self.is_over.load(Ordering::Relaxed) {
            let (known, asked) = (self.seen().digest.clone(), Instant::now());
            match self.link.view(&self.repository, &known).and_then(|view| self.take_in(view)) {
                // A coordinator that is behind shows at once what is old news here, again and again.
                Ok(false) if asked.elapsed() < PAUSE => std::thread::sleep(PAUSE),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(repository = %self.repository, error = error.chain(), "no coordinator shows the state");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// The work is over.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is news.
    fn take_in(&self, view: View) -> Result<bool> {
        let digest = digest(&view)?;
        let mut seen = self.seen();
        // An answer that was overtaken by a later one says nothing new.
        let is_news = view.applied >= seen.view.applied && digest != seen.digest;
        if view.applied >= seen.view.applied {
            let closing = closing(&self.repository, &seen.view.state, &view.state);
            (seen.view, seen.digest) = (view, digest);
            // Before anybody sees the end: who leads looks once whether the lease may be given back.
            closing.into_iter().for_each(|order| self.router.run(order));
        }
        let offers = self.offers(&mut seen);
        drop(seen);
        self.changed.notify_all();
        offers.into_iter().for_each(|offer| self.router.run(offer));
        Ok(is_news)
    }

    /// Jobs that nobody has, each once for each attempt, and again after a while.
    fn offers(&self, seen: &mut Seen) -> Vec<Effect> {
        let Seen { view, offered, .. } = seen;
        let Some(cycle) = view.state.open_cycle(&self.repository) else {
            offered.clear();
            return Vec::new();
        };
        offered.retain(|id, _| cycle.jobs.contains_key(id));
        if cycle.phase != Phase::Running {
            return Vec::new();
        }
        open(cycle)
            .filter_map(|id| {
                let job = cycle.jobs.get(&id)?;
                let known = offered.get(&id);
                let is_known = known.is_some_and(|(attempt, at)| *attempt == job.attempt && at.elapsed() < OFFER_AGAIN);
                if is_known {
                    return None;
                }
                offered.insert(id, (job.attempt, Instant::now()));
                Some(Effect::OfferJob(Box::new(cycle.spec(job))))
            })
            .collect()
    }
}

/// The order to free the lease object, as the machine gives it when a cycle ends and no batch may be under way (R4): a coordinator's
/// orders do not come this far. A batch is approved for whoever leads alone, and he acts on nothing that he did not hear of: what was
/// seen last while the cycle was open knows of all that may be under way.
fn closing(repository: &RepositoryId, before: &State, after: &State) -> Option<Effect> {
    let ended = before.open_cycle(repository)?;
    if after.open_cycle(repository).is_some() || ended.has_outstanding() {
        return None;
    }
    let lease = after.repositories.get(repository)?.lease?;
    (lease.term == ended.term).then(|| Effect::CloseLease { repository: repository.clone(), term: lease.term })
}

fn open(cycle: &Cycle) -> impl Iterator<Item = JobId> + '_ {
    cycle.jobs.values().filter(|job| matches!(job.status, JobStatus::Open(_))).map(|job| job.id)
}

fn digest(view: &View) -> Result<String> {
    let digest = view.digest();
    let digest = digest.map_err(|error| Error::new(ErrorKind::Internal, "tell two states apart").with_source(error))?;
    Ok(digest.to_string())
}

impl Backend for Remote {
    fn submit(&self, command: Command) -> Result<Vec<Event>> {
        let heard = self.link.say(command)?;
        self.take_in(heard.view)?;
        Ok(heard.events)
    }

    fn applied(&self) -> u64 {
        self.seen().view.applied
    }

    fn look(&self, look: &mut dyn FnMut(&State)) {
        look(&self.seen().view.state);
    }

    fn wait(&self, at_most: Duration, look: &mut dyn FnMut(&State) -> bool) {
        let until = |seen: &mut Seen| !look(&seen.view.state);
        drop(self.changed.wait_timeout_while(self.seen(), at_most, until));
    }

    fn tell(&self, ticket: &Ticket, progress: Progress) {
        let word = Word { ticket: ticket.clone(), progress };
        if let Err(error) = self.link.progress(&word) {
            tracing::debug!(repository = %self.repository, error = error.chain(), "nobody heard how far a job is");
        }
    }
}
