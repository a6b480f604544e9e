//! Sees to it that every repository gets its cycles: what somebody asked for, what was left unfinished, what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use verger_coordinator::drive::{Backend, Router};
use verger_coordinator::machine::{Phase, Repository, State};
use verger_coordinator::meters::Meters;
use verger_kopia::clock::{Clock, Timestamp};
use verger_proto::{Acting, Command, CycleOptions, Registration, RepositoryId};
use verger_worker::progress::Stop;

use super::opener::Opener;
use super::run;

/// How often the machine is told that time passes.
const TICK: Duration = Duration::from_secs(1);
/// How long a repository that gave an error is left alone, at first and at most.
const BACKOFF_FIRST: Duration = Duration::from_secs(60);
const BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// A repository is looked at again after this long, whatever it said.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Why a cycle runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody asked for it, by this key.
    Asked(String, CycleOptions),
    /// It was begun and not finished.
    Unfinished(CycleOptions),
    /// It may be due: the repository is looked at.
    Due,
}

/// What is to be done now.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) repository: RepositoryId,
    pub(super) registration: Registration,
    pub(super) why: Why,
}

/// What came of it.
pub(super) enum Outcome {
    /// Nothing is due before then.
    Wait(Option<Timestamp>),
    /// A cycle ran.
    Ran,
    /// It could not.
    Failed,
}

/// Looks after all repositories of one process.
pub(crate) struct Supervisor {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) router: Arc<Router>,
    pub(super) opener: Arc<Opener>,
    pub(super) clock: Arc<dyn Clock>,
    /// `user@host` of this fleet.
    pub(super) identity: String,
    /// Counts what the workers do.
    pub(super) meters: Arc<Meters>,
    workers: usize,
    stop: Stop,
    crew: Mutex<Crew>,
    free: Condvar,
}

/// Who is at work, and what is known of the others.
#[derive(Default)]
struct Crew {
    busy: BTreeMap<RepositoryId, Stop>,
    looks: BTreeMap<RepositoryId, Look>,
    runs: u64,
}

/// When a repository is looked at next.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Timestamp,
    backoff: Duration,
}

impl Supervisor {
    /// With so many cycles at once.
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        router: Arc<Router>,
        opener: Arc<Opener>,
        clock: Arc<dyn Clock>,
        identity: String,
        workers: usize,
        stop: Stop,
    ) -> Self {
        let (crew, free) = (Mutex::default(), Condvar::new());
        Self { backend, router, opener, clock, identity, meters: Arc::default(), workers, stop, crew, free }
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until it is asked to stop; what is under way then is parked at its next boundary.
    pub(crate) fn work(self: &Arc<Self>) {
        while !self.stop.is_asked() {
            // What it asks for is there again a second later. A machine at rest is not told, for telling it is a record.
            if self.is_at_work()
                && let Err(error) = self.backend.submit(Command::Tick)
            {
                tracing::error!(error = error.chain(), "the machine takes no commands");
            }
            while let Some((task, stop, number)) = self.take() {
                let supervisor = self.clone();
                let name = format!("cycle {}", task.registration.name);
                let begun = std::thread::Builder::new().name(name).spawn({
                    let task = task.clone();
                    move || {
                        let outcome = run::run(&supervisor, &task, stop, number);
                        supervisor.done(&task.repository, &outcome);
                    }
                });
                if let Err(error) = begun {
                    tracing::error!(%error, repository = %task.registration.name, "no thread for a cycle");
                    self.done(&task.repository, &Outcome::Failed);
                }
            }
            let (stop, seen) = (&self.stop, self.wishes());
            self.backend.wait(TICK, &mut |state| stop.is_asked() || count_wishes(state) != seen);
            self.stop_paused();
        }
        let mut crew = self.crew();
        crew.busy.values().for_each(Stop::ask);
        while !crew.busy.is_empty() {
            crew = self.free.wait(crew).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_at_work(&self) -> bool {
        let mut at_work = false;
        self.backend.look(&mut |state| at_work = state.cycles.values().any(|cycle| cycle.phase != Phase::Parked));
        at_work
    }

    fn wishes(&self) -> usize {
        let mut wishes = 0;
        self.backend.look(&mut |state| wishes = count_wishes(state));
        wishes
    }

    /// The next thing to do, if there is one and a worker is free.
    fn take(&self) -> Option<(Task, Stop, u64)> {
        let now = self.clock.now();
        let mut crew = self.crew();
        if crew.busy.len() >= self.workers || self.stop.is_asked() {
            return None;
        }
        let mut task = None;
        self.backend.look(&mut |state| task = next(state, &crew.busy.keys().collect(), &crew.looks, now));
        let task = task?;
        let stop = Stop::default();
        crew.busy.insert(task.repository.clone(), stop.clone());
        crew.runs += 1;
        let number = crew.runs;
        Some((task, stop, number))
    }

    fn done(&self, repository: &RepositoryId, outcome: &Outcome) {
        let now = self.clock.now();
        let mut crew = self.crew();
        crew.busy.remove(repository);
        let before = crew.looks.get(repository).map_or(Duration::ZERO, |look| look.backoff);
        let backoff = match outcome {
            Outcome::Failed => (before * 2).clamp(BACKOFF_FIRST, BACKOFF_MAX),
            Outcome::Wait(_) | Outcome::Ran => Duration::ZERO,
        };
        let at = match outcome {
            Outcome::Failed => now + backoff,
            Outcome::Wait(Some(at)) => (*at).clamp(now, now + LOOK_EVERY),
            Outcome::Wait(None) | Outcome::Ran => now + LOOK_EVERY,
        };
        crew.looks.insert(repository.clone(), Look { at, backoff });
        drop(crew);
        self.free.notify_all();
    }

    /// Asks cycles that a person paused to stop at their next boundary.
    fn stop_paused(&self) {
        let crew = self.crew();
        let is_paused = |state: &State, repository| state.open_cycle(repository).is_some_and(|cycle| cycle.paused);
        self.backend.look(&mut |state| {
            crew.busy.iter().filter(|(repository, _)| is_paused(state, repository)).for_each(|(_, stop)| stop.ask());
        });
    }
}

fn count_wishes(state: &State) -> usize {
    let open = state.cycles.values().filter(|cycle| !cycle.paused).count();
    open + state
        .repositories
        .values()
        .map(|entry| entry.requests.len() + usize::from(entry.registration.is_some()))
        .sum::<usize>()
}

/// What somebody asked for comes first, then what was begun, then what may be due; each by the order of the repositories.
fn next(
    state: &State,
    busy: &BTreeSet<&RepositoryId>,
    looks: &BTreeMap<RepositoryId, Look>,
    now: Timestamp,
) -> Option<Task> {
    let free = || state.repositories.iter().filter(|(id, _)| !busy.contains(id));
    let due = |id: &RepositoryId| looks.get(id).is_none_or(|look| look.at <= now);
    let backs_off = |id: &RepositoryId| looks.get(id).is_some_and(|look| look.at > now && !look.backoff.is_zero());
    let task = |(id, entry): (&RepositoryId, &Repository), why: Why| {
        let registration = entry.registration.clone()?;
        Some(Task { repository: id.clone(), registration, why })
    };
    let open = |entry: &Repository| entry.open.and_then(|id| state.cycles.get(&id));
    let asked = free().find_map(|(id, entry)| {
        let request = entry.requests.first()?;
        // One with other options comes first, and a paused one has to be taken up or given up by a person.
        let waits = open(entry).is_some_and(|cycle| cycle.options != request.options || cycle.paused);
        if waits { None } else { task((id, entry), Why::Asked(request.key.clone(), request.options)) }
    });
    let unfinished = || {
        free().filter(|(id, _)| !backs_off(id)).find_map(|(id, entry)| {
            let cycle = open(entry).filter(|cycle| !cycle.paused)?;
            task((id, entry), Why::Unfinished(cycle.options))
        })
    };
    let looked = || {
        free().filter(|(id, _)| due(id)).find_map(|(id, entry)| {
            let registration = entry.registration.as_ref()?;
            let rests = registration.suspended || registration.acting == Acting::Observe || entry.open.is_some();
            if rests { None } else { task((id, entry), Why::Due) }
        })
    };
    asked.or_else(unfinished).or_else(looked)
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
