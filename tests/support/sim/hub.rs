//! Time and turns: one true clock, the clients' next steps, and what befalls the maintainer's requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use verger_kopia::Repository;
use verger_kopia::clock::{Clock, SetClock, Timestamp};
use verger_kopia::storage::{BlobId, PutOptions, Storage};

use super::client::{Client, Finding, Scene};
use super::files::Files;
use super::lens::Lens;
use super::model::Model;
use super::trace::{Trace, kind};
use crate::store::Door;

/// What befalls a cycle, by the number of its request.
#[derive(Debug, Default, Clone)]
pub struct Fate {
    /// The process dies at this request: right before it, or right after it.
    pub kill: Option<(u64, bool)>,
    /// It does not run for so long, right before this request.
    pub pause: Option<(u64, Duration)>,
    /// Longest time that a request takes, in milliseconds.
    pub slow: u64,
    /// Of a thousand requests, before so many a client gets its turn early.
    pub crowd: u32,
}

/// A write that a dead process had under way.
struct Ghost {
    id: BlobId,
    data: bytes::Bytes,
    options: PutOptions,
}

/// One run.
pub struct Live {
    dice: SmallRng,
    clients: Vec<Client>,
    /// Whose turn is when; the number makes each key unique.
    turns: BTreeMap<(Timestamp, u64), usize>,
    ghosts: BTreeMap<(Timestamp, u64), Ghost>,
    next: u64,
    pub lens: Lens,
    pub model: Model,
    pub trace: Trace,
    pub finding: Option<Finding>,
    fate: Fate,
    requests: u64,
    dead: bool,
    /// Seconds that the maintainer's clock is ahead of the store's.
    pub offset: i64,
}

pub struct Hub {
    pub clock: Arc<SetClock>,
    pub door: Arc<Door>,
    /// The clients' and the oracle's.
    pub outside: Repository,
    pub files: Files,
    live: Mutex<Live>,
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

/// The answer to a request that its process did not live to hear.
pub struct Dead;

impl Live {
    fn new(seed: u64, clients: usize, now: Timestamp, print: bool) -> Self {
        let mut live = Self {
            dice: SmallRng::seed_from_u64(seed),
            clients: (0..clients).map(|number| Client::new(number, seed, now)).collect(),
            turns: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            next: 0,
            lens: Lens::default(),
            model: Model::default(),
            trace: Trace::new(now, print),
            finding: None,
            fate: Fate::default(),
            requests: 0,
            dead: false,
            offset: 0,
        };
        live.offset = live.dice.random_range(-240..=240);
        for client in 0..clients {
            let first = now + Duration::from_secs(live.dice.random_range(1..20_000));
            live.turn(first, client);
        }
        live
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How many milliseconds a request takes, and whether a client gets its turn early.
    fn chance(&mut self, call: &str, slow: u64, crowd: u32) -> (u64, bool) {
        let took = self.dice.random_range(1..=slow.max(1));
        // Changes are what clients' steps fall between.
        let crowd = crowd * if matches!(call, "put" | "delete") { 4 } else { 1 };
        (took, self.dice.random_range(0..1000) < crowd)
    }

    fn turn(&mut self, at: Timestamp, client: usize) {
        let number = self.number();
        self.turns.insert((at, number), client);
    }
}

impl Hub {
    pub fn new(clock: Arc<SetClock>, door: Arc<Door>, outside: Repository) -> Self {
        let files = Files::new(&outside);
        let live = Mutex::new(Live::new(0, 0, clock.now(), false));
        Self { clock, door, outside, files, live }
    }

    pub fn begin(&self, seed: u64, clients: usize, print: bool) {
        *self.live() = Live::new(seed, clients, self.clock.now(), print);
    }

    pub fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn fate(&self, fate: Fate) {
        let mut live = self.live();
        (live.fate, live.requests, live.dead) = (fate, 0, false);
    }

    /// Whether the maintainer was killed since the last fate.
    pub fn is_dead(&self) -> bool {
        self.live().dead
    }

    pub fn note(&self, text: &str) {
        let now = self.clock.now();
        self.live().trace.line(now, text);
    }

    /// Lets time pass, and everybody whose turn it is act.
    pub fn advance(&self, duration: Duration) {
        let until = self.clock.now() + duration;
        loop {
            let mut live = self.live();
            let ghost = live.ghosts.keys().next().copied().filter(|(at, _)| *at <= until);
            let turn = live.turns.keys().next().copied().filter(|(at, _)| *at <= until);
            match (ghost, turn) {
                (Some(ghost), turn) if turn.is_none_or(|turn| ghost < turn) => {
                    self.at(ghost.0);
                    self.haunt(&mut live, ghost);
                }
                (_, Some(turn)) => {
                    self.at(turn.0);
                    self.act(&mut live, turn);
                }
                _ => break,
            }
        }
        self.at(until);
    }

    fn at(&self, time: Timestamp) {
        let left = time.duration_since(self.clock.now());
        if left.is_positive() {
            self.clock.advance(left.unsigned_abs());
        }
    }

    fn act(&self, live: &mut Live, turn: (Timestamp, u64)) {
        let Some(client) = live.turns.remove(&turn) else { return };
        if live.finding.is_some() {
            return;
        }
        let now = self.clock.now();
        let Live { clients, lens, model, trace, .. } = live;
        let mut scene = Scene { repository: &self.outside, files: &self.files, lens, model, trace, now };
        match clients[client].step(&mut scene) {
            Ok(pause) => live.turn(now + pause, client),
            Err(finding) => live.finding = Some(finding),
        }
    }

    fn haunt(&self, live: &mut Live, key: (Timestamp, u64)) {
        let Some(ghost) = live.ghosts.remove(&key) else { return };
        let done = self.door.put(&ghost.id, ghost.data, &ghost.options);
        let how = if done.is_ok() { "takes effect" } else { "is refused" };
        live.trace.line(key.0, &format!("a dead write of {} {how}", kind(ghost.id.as_str())));
    }

    /// All clients end; what they left behind stays.
    pub fn stop_clients(&self) {
        let now = self.clock.now();
        let mut live = self.live();
        let Live { clients, lens, model, trace, turns, .. } = &mut *live;
        let mut scene = Scene { repository: &self.outside, files: &self.files, lens, model, trace, now };
        clients.iter_mut().for_each(|client| client.die(&mut scene, "the end"));
        turns.clear();
    }

    /// One of the maintainer's requests. `Err`: the process is dead.
    pub fn request(&self, moment: Moment, call: &str, name: &str) -> Result<(), Dead> {
        let (pause, chance) = {
            let mut live = self.live();
            if live.dead {
                return Err(Dead);
            }
            let now = self.clock.now();
            if moment == Moment::Before {
                live.requests += 1;
                live.trace.line(now, &format!("v {call} {}", kind(name)));
            }
            let number = live.requests;
            if live.fate.kill == Some((number, moment == Moment::After)) {
                live.dead = true;
                live.trace.line(now, &format!("v dies {moment:?} {call} {}", kind(name)));
                return Err(Dead);
            }
            let pause =
                live.fate.pause.filter(|(at, _)| *at == number && moment == Moment::Before).map(|pause| pause.1);
            let (slow, crowd) = (live.fate.slow, live.fate.crowd);
            (pause, live.chance(call, slow, crowd))
        };
        if let Some(pause) = pause {
            self.note(&format!("v is paused for {} min", pause.as_secs() / 60));
            self.advance(pause);
        }
        self.take_time(chance);
        Ok(())
    }

    /// Lets the time of a request pass, up to `slow` milliseconds; in `crowd` of a thousand cases, a client gets its turn early.
    pub fn pass(&self, call: &str, slow: u64, crowd: u32) {
        let chance = self.live().chance(call, slow, crowd);
        self.take_time(chance);
    }

    fn take_time(&self, (took, early): (u64, bool)) {
        if early {
            let mut live = self.live();
            if let Some(turn) = live.turns.keys().next().copied() {
                self.act(&mut live, turn);
            }
        }
        self.advance(Duration::from_millis(took));
    }

    /// A write that was under way when its process died may take effect later, unless its deadline says no.
    pub fn haunted(&self, id: &BlobId, data: bytes::Bytes, options: &PutOptions) {
        let mut live = self.live();
        if live.dice.random_bool(0.5) {
            let late = Duration::from_secs(live.dice.random_range(1..1200));
            let key = (self.clock.now() + late, live.number());
            live.ghosts.insert(key, Ghost { id: id.clone(), data, options: options.clone() });
        }
    }
}

/// The maintainer's clock: off by a little, and whoever waits on it lets the world go on.
pub struct HubClock(pub Arc<Hub>);

impl std::fmt::Debug for HubClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HubClock")
    }
}

impl Clock for HubClock {
    fn now(&self) -> Timestamp {
        self.0.clock.now() + jiff::SignedDuration::from_secs(self.0.live().offset)
    }

    fn since_boot(&self) -> Duration {
        self.0.clock.since_boot()
    }

    fn sleep(&self, duration: Duration) {
        self.0.advance(duration);
    }
}
