//! Sees to it that every repository gets its cycles: what somebody asked for, what was left unfinished, what is due. Which those are
//! says the agenda; here they run, a thread each, and stop where they have to.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use verger_coordinator::api::work::Task;
use verger_coordinator::drive::{Backend, DrivenBackend};
use verger_coordinator::ledger::evidence::EvidenceFolder;
use verger_coordinator::machine::{Phase, Repository, State};
use verger_coordinator::others::{is_anybody_able, is_left_by};
use verger_coordinator::schedule::{Agenda, Limits, Running, Start, Work};
use verger_kopia::ErrorKind;
use verger_kopia::clock::Clock;
use verger_proto::{Command, Driver, Failure, LogTime, RepositoryId, WorkerId, lease};
use verger_worker::progress::Stop;

use super::desk::Outside;
use super::notify;
use super::run::{self, Site};

/// How often the machine is told that time passes.
const TICK: Duration = Duration::from_secs(1);
/// How soon it is noticed that a run has ended.
const GLANCE: Duration = Duration::from_millis(50);
/// How often it is told that a cycle's driver lives: three signs may be lost.
const LIVE_EVERY: Duration = Duration::from_millis(LIVE_EVERY_MILLISECONDS);
const LIVE_EVERY_MILLISECONDS: u64 = 4_000;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It ran, or was stopped.
    Ran,
    /// It could not.
    Failed,
    /// This process cannot open the repository with what it has, and nothing was begun.
    Unable(Failure),
}

/// Looks after all repositories of one process.
pub(crate) struct Supervisor {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) clock: Arc<dyn Clock>,
    /// What its runs share.
    pub(super) site: Site,
    pub(super) limits: Limits,
    stop: Stop,
    crew: Mutex<Crew>,
    free: Condvar,
    pub(super) drives: Drives,
    /// Number of a run before its first, another one in each process.
    first_run: u64,
    outside: Mutex<Outside>,
    /// Where names are kept that workers of other processes send.
    kept: Mutex<BTreeMap<RepositoryId, EvidenceFolder>>,
}

/// This process among those that could drive the same repositories.
pub(crate) struct Drives {
    /// The node's number.
    pub(crate) node: u64,
    /// How often its folder was opened.
    pub(crate) boots: u64,
    /// Whether it is this process's turn to tell the machine that time passes.
    pub(crate) leads: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Who is at work, and what is next.
#[derive(Default)]
pub(super) struct Crew {
    pub(super) busy: BTreeMap<RepositoryId, (Start, Stop)>,
    driven: BTreeMap<RepositoryId, Arc<DrivenBackend>>,
    /// The machine said that another process drives these; asked again then, whatever this process's clock says of it.
    elsewhere: BTreeMap<RepositoryId, LogTime>,
    pub(super) agenda: Agenda,
    /// Runs that began, and those that ended.
    runs: u64,
    ended: u64,
}

impl Supervisor {
    /// With so many cycles at once, beside others that could drive the same repositories: it drives none before it has taken it.
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
        site: Site,
        limits: Limits,
        drives: Drives,
        stop: Stop,
    ) -> Self {
        let (crew, free, outside, kept) = (Mutex::default(), Condvar::new(), Mutex::default(), Mutex::default());
        let first_run = rand::random::<u32>().into();
        Self { backend, clock, site, limits, stop, crew, free, drives, first_run, outside, kept }
    }

    /// As whom a run drives. One of a copy of the data folder, as often opened, never has the same number: it would take leases for ours.
    fn driver(&self, number: u64) -> Driver {
        Driver { run: self.first_run + number, ..self.drives.process() }
    }

    /// What speaks for one run at a repository, and the run's name; `None` if another process drives it.
    fn drive(&self, task: &Task, number: u64) -> verger_kopia::Result<Option<(Arc<dyn Backend>, String)>> {
        let driver = self.driver(number);
        let driven = DrivenBackend::take(self.backend.clone(), &task.repository, driver)?.map(Arc::new);
        if driven.is_none() {
            self.crew().elsewhere.insert(task.repository.clone(), self.now().plus(LIVE_EVERY_MILLISECONDS));
        }
        Ok(driven.map(|driven| {
            self.crew().driven.insert(task.repository.clone(), driven.clone());
            (driven as Arc<dyn Backend>, format!("{}-{driver}", self.site.identity))
        }))
    }

    fn run(&self, task: &Task, stop: Stop, number: u64) -> Outcome {
        let begin = |backend, worker: &str| match run::run(&self.site, task, stop, backend, worker) {
            Outcome::Unable(failure) => self.unable(task, backend, failure, number),
            other => other,
        };
        if task.work == Work::Look {
            return begin(&self.backend, "");
        }
        match self.drive(task, number) {
            Ok(Some((backend, worker))) => begin(&backend, &worker),
            // Another process does it.
            Ok(None) => Outcome::Ran,
            Err(error) => {
                let name = &task.registration.name;
                tracing::warn!(repository = %name, error = error.chain(), "the machine takes no commands");
                Outcome::Failed
            }
        }
    }

    /// It is left to a worker that is there and has not said that it cannot, either. Where there is none, a wish is answered at once.
    fn unable(&self, task: &Task, backend: &Arc<dyn Backend>, failure: Failure, number: u64) -> Outcome {
        let (name, now) = (&task.registration.name, self.now());
        tracing::warn!(repository = %name, error = failure.text, "it cannot be opened here");
        let mut is_left = false;
        self.backend.look(&mut |state| {
            let entry = state.repositories.get(&task.repository);
            is_left = entry.is_some_and(|entry| is_anybody_able(state, entry, now));
        });
        if !is_left {
            run::give_up(&**backend, task, failure);
            return Outcome::Failed;
        }
        let (repository, driver) = (task.repository.clone(), self.driver(number));
        let failure = Box::new(Failure { text: lease::plain(&failure.text), ..failure });
        let noted = WorkerId::new(format!("coordinator-{}", self.drives.node))
            .map(|worker| self.backend.submit(Command::NoteShutOut { repository, worker, driver, failure }));
        if matches!(noted, Ok(Ok(_))) { Outcome::Ran } else { Outcome::Failed }
    }

    /// Tells that this process is still at what it drives. What is not its own any more stops.
    fn live(&self) {
        let driven = self.crew().driven.clone();
        for (repository, driven) in driven {
            match driven.live() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    tracing::warn!(%repository, error = error.chain(), "a cycle is given away");
                    if let Some((_, stop)) = self.crew().busy.get(&repository) {
                        stop.ask();
                    }
                }
                Err(error) => tracing::error!(error = error.chain(), "no sign of life was kept"),
            }
        }
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, BTreeMap<RepositoryId, EvidenceFolder>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn outside(&self) -> MutexGuard<'_, Outside> {
        self.outside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> LogTime {
        LogTime::of(self.clock.now())
    }

    /// Works until it is asked to stop; what is under way then is parked at its next boundary.
    pub(crate) fn work(self: &Arc<Self>) {
        let mut lived = Instant::now();
        while !self.stop.is_asked() {
            if lived.elapsed() >= LIVE_EVERY {
                lived = Instant::now();
                self.live();
            }
            // What it asks for is there again a second later. A machine at rest is not told, for telling it is a record.
            if (self.drives.leads)()
                && self.is_at_work()
                && let Err(error) = self.backend.submit(Command::Tick)
            {
                tracing::error!(error = error.chain(), "the machine takes no commands");
            }
            let ended = self.crew().ended;
            for (task, stop, number) in self.take() {
                self.begin(task, stop, number);
            }
            self.rest(ended);
            self.park();
            self.park_elsewhere();
        }
        notify::tell(notify::State::Stopping);
        let mut crew = self.crew();
        crew.busy.values().for_each(|(_, stop)| stop.ask());
        while !crew.busy.is_empty() {
            crew = self.free.wait_timeout(crew, LIVE_EVERY).unwrap_or_else(PoisonError::into_inner).0;
            drop(crew);
            self.live();
            crew = self.crew();
        }
    }

    /// Until there are other wishes, a run has ended since there were `ended` of them, or it is time to tell the machine that time
    /// passes.
    fn rest(&self, ended: u64) {
        let (until, seen) = (Instant::now() + TICK, self.wishes());
        // Where nothing runs, nothing can end.
        let glance = if self.crew().busy.is_empty() { TICK } else { GLANCE };
        let mut is_over = false;
        while !is_over && self.crew().ended == ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.backend.wait(left.min(glance), &mut |state| {
                is_over = self.stop.is_asked() || count_wishes(state) != seen;
                is_over
            });
        }
    }

    fn begin(self: &Arc<Self>, task: Task, stop: Stop, number: u64) {
        let supervisor = self.clone();
        let (repository, name) = (task.repository.clone(), task.registration.name.clone());
        let begun = std::thread::Builder::new().name(format!("cycle {name}")).spawn(move || {
            let outcome = supervisor.run(&task, stop, number);
            supervisor.done(&task.repository, outcome);
        });
        if let Err(error) = begun {
            tracing::error!(%error, repository = %name, "no thread for a cycle");
            self.done(&repository, Outcome::Failed);
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

    /// What begins now, as far as there are places.
    fn take(&self) -> Vec<(Task, Stop, u64)> {
        let now = self.now();
        let mut crew = self.crew();
        if self.stop.is_asked() {
            return Vec::new();
        }
        let Crew { busy, elsewhere, agenda, runs, .. } = &mut *crew;
        elsewhere.retain(|_, until| *until > now);
        let running: Vec<Running> = busy.values().map(|(start, _)| start.running.clone()).collect();
        let outside = self.outside();
        let mut tasks = Vec::new();
        self.backend.look(&mut |state| {
            let is_elsewhere = |id: &RepositoryId, entry: &Repository| {
                let is_left = || is_left_by(entry, self.drives.process(), now);
                elsewhere.contains_key(id) || self.drives.is_elsewhere(entry, now) || is_left()
            };
            let (running, limits) = self.with_others(state, running.clone(), &outside, now);
            for start in agenda.begin_but(&is_elsewhere, state, &running, &limits, now) {
                let id = start.running.repository.clone();
                let entry = state.repositories.get(&id).and_then(|entry| entry.registration.clone());
                let Some(registration) = entry else { continue };
                let stop = Stop::default();
                *runs += 1;
                tasks.push((
                    Task { repository: id.clone(), registration, work: start.work.clone() },
                    stop.clone(),
                    *runs,
                ));
                busy.insert(id, (start, stop));
            }
        });
        tasks
    }

    fn done(&self, repository: &RepositoryId, outcome: Outcome) {
        let now = self.now();
        let mut crew = self.crew();
        crew.busy.remove(repository);
        crew.ended += 1;
        let driven = crew.driven.remove(repository);
        crew.agenda.done(repository, outcome == Outcome::Failed, now);
        self.outside().done(repository, outcome == Outcome::Failed, now);
        drop(crew);
        if let Some(driven) = driven {
            driven.leave();
        }
        self.free.notify_all();
    }

    /// Asks cycles to stop at their next boundary that a person paused, or that run by themselves and have come to the end of a window.
    fn park(&self) {
        let now = self.now();
        let mut crew = self.crew();
        let Crew { busy, agenda, .. } = &mut *crew;
        self.backend.look(&mut |state| {
            for (start, stop) in busy.values().filter(|(_, stop)| !stop.is_asked()) {
                if agenda.must_park(state, start, now) {
                    tracing::info!(repository = %start.running.repository, "a cycle is to stop at its next boundary");
                    stop.ask();
                }
            }
        });
    }

    /// The same for cycles that other processes lead: workers do not know of windows, and hear from the machine that they are to stop.
    /// One process sees to all of them.
    fn park_elsewhere(&self) {
        if !(self.drives.leads)() {
            return;
        }
        let (now, mut over) = (self.now(), Vec::new());
        {
            let mut crew = self.crew();
            let Crew { busy, agenda, .. } = &mut *crew;
            let is_elsewhere =
                |id: &RepositoryId, entry: &Repository| !busy.contains_key(id) && self.drives.is_elsewhere(entry, now);
            self.backend.look(&mut |state| over = agenda.overdue_elsewhere(&is_elsewhere, state, now));
        }
        for cycle in over {
            tracing::info!(%cycle, "a cycle that another process leads is to stop: its window has ended");
            if let Err(error) = self.backend.submit(Command::ParkCycle { cycle }) {
                tracing::error!(error = error.chain(), "the machine takes no commands");
            }
        }
    }
}

impl Drives {
    /// Whether another process drives this repository, as far as this one can tell; the machine decides.
    pub(super) fn is_elsewhere(&self, entry: &Repository, now: LogTime) -> bool {
        let mine = self.process();
        entry.driver.is_some_and(|(driver, until)| until >= now && !mine.proves_dead(&driver))
    }

    /// This process, whatever its run.
    pub(super) fn process(&self) -> Driver {
        Driver { node: self.node, boots: self.boots, run: 0 }
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
