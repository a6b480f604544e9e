//! Whole cycles of the real engine whose commands a simulated cluster orders: machines, disks and wires break, and so does the store.
//!
//! The engine blocks, and the cluster runs on one thread: so they take turns under one time. The engine asks through a channel; the
//! cluster lives until there is an answer, and then waits without its time going on.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use verger::embedded::{Coordination, Shared, cycle, identify};
use verger_coordinator::drive::Backend;
use verger_coordinator::machine::State;
use verger_kopia::clock::{Clock, SetClock, Timestamp};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::storage::fault::{Call, Effect};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{Command, CommandId, Event, RepositoryId, StoreTime, WorkerId};

use super::course::{Course, Failure, lived};
use super::faults::{heal, storm};
use super::oracle::Finding;
use super::store::{self, HOUR, Saved, alone};
use super::world::{World, dice};

/// So long a command is asked again before it has no answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Cycles while everything breaks.
const STORMY: u32 = 3;

type Answer<T> = SyncSender<T>;

enum Ask {
    /// A command, at so many milliseconds after the beginning. With the answer comes the time at which it was there.
    Submit(u64, Box<Command>, Answer<(u64, Option<Vec<Event>>)>),
    /// The engine has come to an end.
    Over(std::result::Result<String, ErrorKind>),
}

/// The cluster, as an engine sees it.
struct ClusterBackend {
    world: World,
    asks: SyncSender<Ask>,
    clock: Arc<SetClock>,
    begin: Duration,
}

/// The state of the node that has applied most.
fn look<T>(world: &World, look: impl FnOnce(&State) -> T) -> T {
    let nodes = world.running().into_iter().filter_map(|id| world.node(id));
    match nodes.max_by_key(|node| *node.applied().borrow()) {
        Some(node) => node.state(look),
        None => look(&world.replicas().oracle.state),
    }
}

impl Backend for ClusterBackend {
    fn submit(&self, command: Command) -> Result<Vec<Event>> {
        let (sender, answer) = sync_channel(1);
        let since = |clock: &SetClock| u64::try_from((clock.since_boot() - self.begin).as_millis()).unwrap();
        let gone = || Error::new(ErrorKind::Interrupted, "the simulation is over");
        self.asks.send(Ask::Submit(since(&self.clock), Box::new(command), sender)).map_err(|_| gone())?;
        let (now, events) = answer.recv().map_err(|_| gone())?;
        self.clock.advance(Duration::from_millis(now.saturating_sub(since(&self.clock))));
        events.ok_or_else(|| Error::new(ErrorKind::StoreUnavailable, "nobody leads: the command has no answer"))
    }

    fn applied(&self) -> u64 {
        0
    }

    fn look(&self, show: &mut dyn FnMut(&State)) {
        look(&self.world, show);
    }

    fn wait(&self, _: Duration, show: &mut dyn FnMut(&State) -> bool) {
        look(&self.world, show);
    }
}

/// A repository whose keys were derived once, for run after run.
pub struct Stage {
    sea: store::World,
    start: Saved,
}

impl Stage {
    pub fn new() -> Self {
        let sea = store::World::golden("default", HOUR);
        let start = sea.save();
        Self { sea, start }
    }

    /// Lives through one seed, on this thread.
    pub fn run(&mut self, seed: u64, print: bool) -> std::result::Result<Course, Failure> {
        self.sea.restore(&self.start);
        let done = lived(seed, print, async |world| self.course(&world, seed).await);
        self.sea.faults.heal();
        done
    }

    async fn course(&self, world: &World, seed: u64) -> std::result::Result<(), Finding> {
        let repository = identify(&self.sea.state_dir(), &self.sea.repository).unwrap();
        let breaks = {
            let (world, mut dice) = (world.clone(), dice(seed, 1));
            tokio::spawn(async move { storm(&world, &mut dice, u64::MAX).await })
        };
        let begin = self.sea.clock.since_boot();
        self.watch(world, &repository);
        let mut dice = dice(seed, 2);
        for number in 0..STORMY {
            self.sea.faults.seed(seed ^ u64::from(number), dice.random_range(0..15));
            let ended = self.cycle(world, &repository, number, begin, seed).await?;
            world.trace(&format!("cycle {number} ends: {ended:?}"));
            self.check(world)?;
        }
        breaks.abort();
        self.sea.faults.seed(seed, 0);
        world.network().mend();
        heal(world, &mut dice).await;
        self.sea.clock.advance(Duration::from_secs(400));
        let ended = self.cycle(world, &repository, STORMY, begin, seed).await?;
        world.trace(&format!("the last cycle ends: {ended:?}"));
        self.check(world)?;
        if !ended.as_ref().is_ok_and(|outcome| outcome == "done") {
            return Err(format!("the last cycle, when all is well, ends: {ended:?}"));
        }
        world.replicas().oracle.check_over()
    }

    /// No entry appears and nothing goes but inside an approved batch, before its deadline.
    fn watch(&self, world: &World, repository: &RepositoryId) {
        let (clock, world, repository) = (self.sea.clock.clone(), world.clone(), repository.clone());
        let seen: Mutex<Option<Timestamp>> = Mutex::default();
        self.sea.faults.hook(Box::new(move |effect: &Effect| {
            if effect.done {
                clock.advance(Duration::from_millis(600));
                return Ok(());
            }
            *seen.lock().unwrap() = Some(clock.now());
            let name = effect.id.as_str();
            let deed = match effect.call {
                Call::Put => name.starts_with(['x', 'n', 'm']),
                Call::Delete => name.starts_with(['x', 'n', 'm', 'p', 'q']),
                _ => false,
            };
            let now = StoreTime(u64::try_from(clock.now().as_millisecond()).unwrap());
            let approved = look(&world, |state| {
                let cycle = state.open_cycle(&repository)?;
                let mut outstanding = cycle.jobs.values().filter_map(|job| job.batches.outstanding.as_ref());
                outstanding.find(|outstanding| outstanding.approval.store_deadline >= now).map(drop)
            });
            if deed && approved.is_none() {
                world.find(format!("{:?} of {name} outside an approved batch", effect.call));
            }
            Ok(())
        }));
    }

    fn check(&self, world: &World) -> std::result::Result<(), Finding> {
        if let Some(finding) = world.finding() {
            return Err(finding);
        }
        let report = self.sea.verify();
        let is_whole = report.is_clean() && report.contents_read > 0;
        if is_whole { Ok(()) } else { Err(format!("the repository is damaged: {:?}", report.problems)) }
    }

    /// One cycle of the engine, on a thread of its own, while the cluster answers it.
    async fn cycle(
        &self,
        world: &World,
        repository: &RepositoryId,
        number: u32,
        begin: Duration,
        seed: u64,
    ) -> std::result::Result<std::result::Result<String, ErrorKind>, Finding> {
        let (asks, asked) = sync_channel(0);
        let clock = self.sea.clock.clone();
        let backend = Arc::new(ClusterBackend { world: world.clone(), asks: asks.clone(), clock, begin });
        let worker = WorkerId::new(format!("w{number}")).unwrap();
        let shared = Shared { backend, router: world.router(), repository: repository.clone(), worker };
        let mut means = self.sea.means();
        (means.coordination, means.parallel) = (Coordination::Shared(shared), Some(1));
        let engine = std::thread::spawn(move || {
            let ended = cycle(means, &alone(Mode::Full));
            let told = ended.map(|report| report.outcome.to_string()).map_err(|error| error.kind());
            let _ = asks.send(Ask::Over(told));
        });
        let ended = serve(world, &asked, seed ^ u64::from(number)).await;
        drop(asked);
        engine.join().map_err(|_| "the engine panicked".to_owned())?;
        ended.ok_or_else(|| "the engine went away".to_owned())
    }
}

async fn serve(world: &World, asked: &Receiver<Ask>, seed: u64) -> Option<std::result::Result<String, ErrorKind>> {
    let mut dice = dice(seed, 3);
    loop {
        match asked.recv().ok()? {
            Ask::Over(ended) => return Some(ended),
            Ask::Submit(at, command, answer) => {
                tokio::time::sleep(Duration::from_millis(at.saturating_sub(world.now()))).await;
                let events = world.submit(CommandId(dice.random()), &command, PATIENCE).await;
                let _ = answer.send((world.now(), events));
            }
        }
    }
}
