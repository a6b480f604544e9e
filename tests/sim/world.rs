//! One cluster in virtual time: its nodes, disks, wires and clocks, and everything that is checked about them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use verger_coordinator::drive::{Router, Run};
use verger_coordinator::machine::State;
use verger_coordinator::raft::durable::DurableLog;
use verger_coordinator::raft::node::{Node, NodeOptions, Pace, SubmitError};
use verger_coordinator::raft::types::Peer;
use verger_proto::level::LEVEL;
use verger_proto::{Command, CommandId, Effect, Event, LogTime, Proposal};

use super::clock::{MachineClock, TrueTime};
use super::disk::{Disk, Seen};
use super::network::Network;
use super::oracle::Finding;
use super::replicas::Replicas;
use super::trace::Trace;

pub fn pace() -> Pace {
    Pace {
        heartbeat: Duration::from_millis(400),
        election: (Duration::from_millis(1_000), Duration::from_millis(2_000)),
        answer: Duration::from_secs(3),
        snapshot_entries: 60,
        kept_entries: 15,
        ..Pace::default()
    }
}

/// A cluster. Clones are the same one.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    folder: tempfile::TempDir,
    pub network: Network,
    time: TrueTime,
    begin: Instant,
    live: Mutex<Live>,
    trace: Mutex<Trace>,
    replicas: Mutex<Replicas>,
    seen: Seen,
    routers: Mutex<Vec<Arc<dyn Run>>>,
}

#[derive(Default)]
struct Live {
    nodes: BTreeMap<u64, Arc<Node>>,
    disks: BTreeMap<u64, Disk>,
    clocks: BTreeMap<u64, MachineClock>,
    /// Nodes that are down, and when they start again, in milliseconds.
    down: BTreeMap<u64, u64>,
    /// Nodes that must not come back.
    gone: Vec<u64>,
    /// What the program of each knows.
    programs: BTreeMap<u64, u32>,
    /// There is a newer program, and each start may be the first of it.
    upgrades: Option<SmallRng>,
    next_id: u64,
    pub acknowledged: u64,
}

pub fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Folders of runs lie in memory where there is such a thing: nodes sync files.
pub fn folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

impl World {
    /// A cluster of three that has just been begun.
    pub async fn new(seed: u64, print: bool) -> Self {
        let world = Self(Arc::new(Inner {
            folder: folder(),
            network: Network::new(seed),
            time: TrueTime::default(),
            begin: Instant::now(),
            live: Mutex::default(),
            trace: Mutex::new(Trace::new(print)),
            replicas: Mutex::default(),
            seen: Seen::default(),
            routers: Mutex::default(),
        }));
        {
            let mut live = lock(&world.0.live);
            live.next_id = 4;
            live.programs = (1..=3).map(|id| (id, LEVEL)).collect();
            live.upgrades = (seed % 2 == 1).then(|| dice(seed, 7));
        }
        for id in 1..=3 {
            world.start(id).await;
        }
        let members = (1..=3).map(|id| (id, Peer::at(format!("memory:{id}")))).collect();
        let first = world.node(1).unwrap();
        first.initialize(members).await.unwrap();
        world
    }

    /// The router of one more process: effects that the leader's machine orders go to all of them.
    pub fn router(&self) -> Arc<Router> {
        let router = Arc::<Router>::default();
        self.tell(router.clone());
        router
    }

    /// Effects that the leader's machine orders go there, too.
    pub fn tell(&self, whom: Arc<dyn Run>) {
        lock(&self.0.routers).push(whom);
    }

    pub fn network(&self) -> &Network {
        &self.0.network
    }

    pub fn time(&self) -> TrueTime {
        let since = u64::try_from(self.0.begin.elapsed().as_millis()).unwrap();
        self.0.time.set(since);
        self.0.time.clone()
    }

    /// All machines sleep for so many milliseconds.
    pub fn sleep(&self, milliseconds: u64) {
        self.0.time.sleep(milliseconds);
    }

    /// Milliseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.time().since_begin()
    }

    pub fn trace(&self, text: &str) {
        let now = self.now();
        lock(&self.0.trace).line(now, text);
    }

    pub fn hash(&self) -> u64 {
        lock(&self.0.trace).hash()
    }

    pub fn tail(&self) -> String {
        lock(&self.0.trace).tail()
    }

    pub fn replicas(&self) -> MutexGuard<'_, Replicas> {
        lock(&self.0.replicas)
    }

    pub fn find(&self, finding: Finding) {
        self.replicas().finding.get_or_insert(finding);
    }

    /// What must not be, if anything was seen.
    pub fn finding(&self) -> Option<Finding> {
        let found = self.replicas().finding.clone();
        found.or_else(|| lock(&self.0.live).disks.values().find_map(Disk::finding))
    }

    pub fn folder_of(&self, id: u64) -> PathBuf {
        self.0.folder.path().join(id.to_string())
    }

    pub fn node(&self, id: u64) -> Option<Arc<Node>> {
        lock(&self.0.live).nodes.get(&id).cloned()
    }

    /// Nodes that run.
    pub fn running(&self) -> Vec<u64> {
        lock(&self.0.live).nodes.keys().copied().collect()
    }

    /// Nodes that are to run, whether or not they do now.
    pub fn members(&self) -> Vec<u64> {
        let live = lock(&self.0.live);
        live.disks.keys().copied().filter(|id| !live.gone.contains(id)).collect()
    }

    pub fn disk(&self, id: u64) -> Disk {
        let seen = self.0.seen.clone();
        lock(&self.0.live).disks.entry(id).or_insert_with(|| Disk::new(seen)).clone()
    }

    pub fn clock(&self, id: u64) -> MachineClock {
        let time = self.0.time.clone();
        lock(&self.0.live).clocks.entry(id).or_insert_with(|| MachineClock::new(time)).clone()
    }

    pub fn next_id(&self) -> u64 {
        let mut live = lock(&self.0.live);
        live.next_id += 1;
        live.next_id - 1
    }

    pub fn acknowledged(&self) -> u64 {
        lock(&self.0.live).acknowledged
    }

    /// What the program of a node knows that is started now. A newcomer gets the newest there is.
    fn program(&self, id: u64) -> u32 {
        let mut live = lock(&self.0.live);
        let newest = live.programs.values().copied().max().unwrap_or(LEVEL);
        let known = live.programs.get(&id).copied().unwrap_or(newest);
        let is_upgraded = live.upgrades.as_mut().is_some_and(|dice| dice.random_bool(0.2));
        let level = if is_upgraded { LEVEL + 1 } else { known };
        live.programs.insert(id, level);
        level
    }

    /// Once all run, the cluster goes by what all of their programs know.
    pub fn check_level(&self) -> Result<(), Finding> {
        let members = self.members();
        let known = members.iter().filter_map(|id| lock(&self.0.live).programs.get(id).copied());
        let expected = known.min().unwrap_or(LEVEL);
        let goes_by = |id: &u64| self.node(*id).map(|node| node.state(|state| state.level));
        match members.iter().find(|id| goes_by(id) != Some(expected)) {
            Some(id) => Err(format!("all know level {expected}, and node {id} goes by {:?}", goes_by(id))),
            None => Ok(()),
        }
    }

    /// Starts a node on what is left of its disk.
    pub async fn start(&self, id: u64) {
        lock(&self.0.live).down.remove(&id);
        self.replicas().started(id);
        until_nobody_has(&self.folder_of(id).join("lock"));
        let log = self.disk(id).open();
        let options = NodeOptions {
            id,
            cluster: "attic".to_owned(),
            data_dir: self.folder_of(id),
            transport: Arc::new(self.0.network.clone()),
            clock: Arc::new(self.clock(id)),
            effects: Some({
                let world = Arc::downgrade(&self.0);
                Arc::new(move |effect, _| {
                    let Some(world) = world.upgrade() else { return };
                    let routers = lock(&world.routers).clone();
                    routers.into_iter().for_each(|router| router.run(Effect::clone(&effect)));
                })
            }),
            pace: pace(),
            level: self.program(id),
        };
        let opened = Node::open_with(options, move |_| Ok(Arc::new(log) as Arc<dyn DurableLog>)).await;
        match opened {
            Ok(node) => {
                let node = Arc::new(node);
                self.0.network.join(id, &node);
                lock(&self.0.live).nodes.insert(id, node.clone());
                self.trace(&format!("node {id} starts, boot {}", node.boots()));
                self.watch(id, &node);
            }
            Err(error) => self.find(format!("node {id} does not start: {}", error.chain())),
        }
    }

    /// Looks at a node after each of its steps.
    fn watch(&self, id: u64, node: &Arc<Node>) {
        let (world, weak, mut applied) = (self.clone(), Arc::downgrade(node), node.applied());
        tokio::spawn(async move {
            while applied.changed().await.is_ok() {
                let Some(node) = weak.upgrade().filter(|node| world.is_current(id, node)) else { return };
                world.replicas().look(id, &node, &world.folder_of(id));
            }
        });
        let (world, weak, mut figures) = (self.clone(), Arc::downgrade(node), node.metrics());
        tokio::spawn(async move {
            while figures.changed().await.is_ok() {
                let Some(_) = weak.upgrade().filter(|node| world.is_current(id, node)) else { return };
                let figures = figures.borrow_and_update().clone();
                let is_new = world.replicas().figures(id, &figures, &lock(&world.0.live).disks);
                if is_new {
                    world.trace(&format!("node {id} leads in term {}", figures.current_term));
                }
            }
            // The raft has ended.
            let ended = weak.upgrade().filter(|node| world.is_current(id, node) && !world.disk(id).is_dead());
            if let Some(node) = ended.filter(|_| world.replicas().disk_lost != Some(id)) {
                world.find(format!("node {id} ended by itself: {}", node.stopped().await.chain()));
            }
        });
    }

    fn is_current(&self, id: u64, node: &Arc<Node>) -> bool {
        self.node(id).is_some_and(|current| Arc::ptr_eq(&current, node))
    }

    /// A machine ends at once. With `power`, what was not synced is gone.
    pub async fn crash(&self, id: u64, power: bool) {
        self.0.network.leave(id);
        let node = lock(&self.0.live).nodes.remove(&id);
        let Some(node) = node else { return };
        self.disk(id).die(power);
        self.trace(&format!("node {id} dies{}", if power { ", and its power is gone" } else { "" }));
        node.shutdown().await;
    }

    pub fn restart_at(&self, id: u64, at: u64) {
        lock(&self.0.live).down.insert(id, at);
    }

    /// Starts what is due, and finds what ended by itself.
    pub async fn turn(&self, dice: &mut SmallRng) {
        for id in self.running() {
            if self.disk(id).is_dead() {
                self.crash(id, dice.random_bool(0.5)).await;
                self.restart_at(id, self.now() + dice.random_range(20..3_000));
            }
        }
        let now = self.now();
        let due: Vec<u64> = lock(&self.0.live).down.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in due {
            self.start(id).await;
        }
    }

    /// Starts all that is down.
    pub async fn start_all(&self, dice: &mut SmallRng) {
        lock(&self.0.live).down.values_mut().for_each(|at| *at = 0);
        self.turn(dice).await;
        self.turn(dice).await;
    }

    /// It does not come back under this number.
    pub fn bury(&self, id: u64) {
        let mut live = lock(&self.0.live);
        live.down.remove(&id);
        live.gone.push(id);
    }

    /// Asks one node, once.
    pub async fn ask(&self, id: u64, number: CommandId, command: &Command) -> Result<Vec<Event>, SubmitError> {
        let Some(node) = self.node(id) else { return Err(SubmitError::NotLeader { leader: None }) };
        self.time();
        let proposal = Proposal { id: number, at: node.now(), actor: None, command: command.clone() };
        let at: LogTime = proposal.at;
        let answer = node.submit(proposal).await;
        if let Ok(events) = &answer {
            // Sessions are noted in the order of names that no seed tells, and some of them for the second time.
            let told = events.iter().filter(|event| event.kind() != "session_noted");
            let kinds: Vec<&str> = told.map(Event::kind).collect();
            self.trace(&format!("node {id} at {} answers {} {kinds:?}", at.0, command.name()));
            self.replicas().answered(&self.folder_of(id));
            lock(&self.0.live).acknowledged += 1;
        }
        answer
    }

    /// Asks everybody, again and again, until there is an answer; `None` if there is none in time.
    pub async fn submit(&self, number: CommandId, command: &Command, at_most: Duration) -> Option<Vec<Event>> {
        let until = Instant::now() + at_most;
        while Instant::now() < until {
            for id in self.running() {
                if let Ok(events) = self.ask(id, number, command).await {
                    return Some(events);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// Looks at the state of some node that runs.
    pub fn state<T>(&self, dice: &mut SmallRng, look: impl FnOnce(&State) -> T) -> Option<T> {
        let running = self.running();
        let id = running.get(dice.random_range(0..running.len().max(1)))?;
        self.node(*id).map(|node| node.state(look))
    }

    pub fn is_whole(&self) -> bool {
        let members = self.members();
        members
            .iter()
            .all(|id| self.node(*id).is_some_and(|node| self.replicas().is_whole(&node, &self.folder_of(*id))))
    }

    /// How far each node is, for a report.
    pub fn standing(&self) -> String {
        let tell = |id: &u64| match self.node(*id) {
            None => format!("node {id} is down\n"),
            Some(node) => {
                let figures = node.metrics().borrow().clone();
                let ledger = super::replicas::ledger_length(&self.folder_of(*id));
                let (running, vote) = (&figures.running_state, figures.vote);
                let logs = (figures.snapshot, figures.last_log_index, figures.last_applied);
                format!("node {id}: {:?}, {vote}, {logs:?}, ledger {ledger}, {running:?}\n", figures.state)
            }
        };
        self.members().iter().map(tell).collect()
    }

    pub async fn end(&self) {
        for id in self.running() {
            self.crash(id, false).await;
        }
    }
}

/// Chance for one purpose of one seed.
pub fn dice(seed: u64, purpose: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ purpose)
}

/// A program that another test starts at this moment has copies of all open files until it is loaded, and with them their locks.
fn until_nobody_has(lock: &Path) {
    let Ok(file) = std::fs::File::open(lock) else { return };
    let is_free = || file.try_lock().is_ok() && file.unlock().is_ok();
    for _ in 0..200 {
        if is_free() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
