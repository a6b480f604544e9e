//! Engines, clients and the cluster take turns under one time.
//!
//! An engine blocks, and the cluster runs on one thread: so the engine asks through a channel, the cluster lives until there is an
//! answer, and then waits without its time going on. Of several engines one runs at a time; who is next, chance says.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use verger_coordinator::drive::{Backend, refusal};
use verger_coordinator::machine::State;
use verger_kopia::clock::Clock as _;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{Command, CommandId, Event};

use super::clients::hub::Hub;
use super::world::World;
use super::yard::Hand;

/// So long a command is asked again before it has no answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a longer wait the cluster lives so much, in milliseconds; the rest of it all machines sleep.
const LIVED: u64 = 3_000;

/// How a process came to its end: with an outcome, or with an error and its words, which have random names in them.
pub type Ended = std::result::Result<String, (ErrorKind, String)>;

enum Ask {
    /// It goes on when it is its turn, and not before this time (milliseconds since the beginning).
    Turn(u64),
    /// A command.
    Submit(Box<Command>),
    Over(Ended),
}

enum Answer {
    Go,
    Events(Option<Vec<Event>>),
}

/// What befalls a process, by the number of its request, to the store or to the cluster.
#[derive(Clone, Debug, Default)]
pub struct Lot {
    /// It dies at this request: right before it, or right after it.
    pub kill: Option<(u64, bool)>,
    /// It does not run for so many milliseconds, right before this request.
    pub pause: Option<(u64, u64)>,
}

/// The answer to a request that its process does not live to hear.
pub struct Dead;

/// What a process does at each of its requests.
type AtRequest = Box<dyn Fn() + Send + Sync>;

/// A process at the table.
pub struct Seat {
    pub number: usize,
    /// Of no other process of the run.
    name: u64,
    at_request: OnceLock<AtRequest>,
    asks: SyncSender<Ask>,
    answers: Mutex<Receiver<Answer>>,
    lot: Lot,
    requests: AtomicU64,
    is_dead: AtomicBool,
    shares: bool,
    time: Time,
}

impl Seat {
    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    fn ask(&self, ask: Ask) -> std::result::Result<Answer, Dead> {
        self.asks.send(ask).map_err(|_| Dead)?;
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).recv().map_err(|_| Dead)
    }

    /// No other process of the run has this name.
    pub fn name(&self) -> u64 {
        self.name
    }

    /// It ends, for whatever reason.
    pub fn end_process(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
    }

    /// This is done before each request.
    pub fn at_each_request(&self, what: AtRequest) {
        let _ = self.at_request.set(what);
    }

    /// It has nothing to do for so many milliseconds. No request of its own.
    pub fn wait(&self, milliseconds: u64) -> std::result::Result<(), Dead> {
        if self.is_dead() {
            return Err(Dead);
        }
        self.ask(Ask::Turn(self.time.now() + milliseconds)).map(drop)
    }

    /// Right before a request.
    pub fn begin(&self) -> std::result::Result<(), Dead> {
        if let Some(what) = self.at_request.get().filter(|_| !self.is_dead()) {
            what();
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        self.die_at(number, false)?;
        match self.lot.pause.filter(|(at, _)| *at == number) {
            Some((_, pause)) => {
                self.time.hub.note(&format!("e{} is paused for {} s", self.number, pause / 1000));
                self.ask(Ask::Turn(self.time.now() + pause)).map(drop)
            }
            None if self.shares => self.ask(Ask::Turn(0)).map(drop),
            None => Ok(()),
        }
    }

    /// Right after a request.
    pub fn end(&self) -> std::result::Result<(), Dead> {
        self.die_at(self.requests.load(Ordering::Relaxed), true)
    }

    fn die_at(&self, number: u64, after: bool) -> std::result::Result<(), Dead> {
        if !self.is_dead() && self.lot.kill == Some((number, after)) {
            self.is_dead.store(true, Ordering::Relaxed);
            self.time.hub.note(&format!("e{} dies", self.number));
        }
        if self.is_dead() { Err(Dead) } else { Ok(()) }
    }
}

/// The store's time, which clients and engines share, and the cluster's.
#[derive(Clone)]
pub struct Time {
    pub hub: Arc<Hub>,
    begin: Duration,
    /// The next process's name.
    names: Arc<AtomicU64>,
}

impl Time {
    pub fn new(hub: Arc<Hub>) -> Self {
        let begin = hub.clock.since_boot();
        Self { hub, begin, names: Arc::default() }
    }

    /// Milliseconds since the beginning, as the store tells them.
    pub fn now(&self) -> u64 {
        u64::try_from((self.hub.clock.since_boot() - self.begin).as_millis()).unwrap()
    }

    /// The cluster lives until it is as late there as at the store.
    pub async fn catch_up(&self, world: &World) {
        let behind = self.now().saturating_sub(world.now());
        world.sleep(behind.saturating_sub(LIVED));
        tokio::time::sleep(Duration::from_millis(behind.min(LIVED))).await;
    }

    /// The store's time goes on to the cluster's, and clients with it.
    fn follow(&self, world: &World) {
        self.hub.advance(Duration::from_millis(world.now().saturating_sub(self.now())));
    }
}

/// The cluster, as an engine sees it.
pub struct ClusterBackend {
    pub world: World,
    pub seat: Arc<Seat>,
    pub hand: Arc<Hand>,
}

/// What a process asks, whether or not it drives.
fn asked(command: &Command) -> &Command {
    match command {
        Command::Driven(driven) => &driven.command,
        other => other,
    }
}

impl ClusterBackend {
    /// Who has claimed a job has it in hand until it says what came of it, and must not say that it is done if it rests on what was
    /// damaged (R12).
    fn heard(&self, asked: &Command, events: &[Event]) {
        match asked {
            Command::ClaimJob { ticket } if refusal(events).is_none() => {
                self.hand.begin(ticket.clone(), self.seat.time.now());
            }
            Command::CompleteJob { ticket, .. } => {
                let is_done = events.iter().any(|event| matches!(event, Event::JobCompleted { .. }));
                if let Some(part) = self.hand.rests_on().filter(|_| is_done) {
                    self.world.find(format!("job {} is done, and rests on {part}", ticket.job));
                }
                self.hand.end();
            }
            Command::FailJob { .. } => self.hand.end(),
            _ => {}
        }
    }
}

/// The state of the node that has applied most.
pub fn look<T>(world: &World, look: impl FnOnce(&State) -> T) -> T {
    let nodes = world.running().into_iter().filter_map(|id| world.node(id));
    match nodes.max_by_key(|node| *node.applied().borrow()) {
        Some(node) => node.state(look),
        None => look(&world.replicas().oracle.state),
    }
}

impl Backend for ClusterBackend {
    fn applied(&self) -> u64 {
        0
    }

    fn submit(&self, command: Command) -> Result<Vec<Event>> {
        let gone = |_| Error::new(ErrorKind::Interrupted, "the process was killed");
        self.seat.begin().map_err(gone)?;
        let said = asked(&command).clone();
        let answer = self.seat.ask(Ask::Submit(Box::new(command))).map_err(gone)?;
        self.seat.end().map_err(gone)?;
        match answer {
            Answer::Events(Some(events)) => {
                self.heard(&said, &events);
                Ok(events)
            }
            _ => Err(Error::new(ErrorKind::StoreUnavailable, "nobody leads: the command has no answer")),
        }
    }

    fn look(&self, show: &mut dyn FnMut(&State)) {
        look(&self.world, show);
    }

    fn wait(&self, _: Duration, show: &mut dyn FnMut(&State) -> bool) {
        look(&self.world, show);
    }
}

fn panicked() -> Ended {
    Err((ErrorKind::Internal, "it panicked".to_owned()))
}

struct Player {
    asked: Receiver<Ask>,
    answers: SyncSender<Answer>,
    pending: Option<Ask>,
    thread: JoinHandle<()>,
    /// It does shards of whoever leads a cycle.
    is_other: bool,
}

/// Where processes sit, and the cluster with them.
pub struct Table {
    world: World,
    time: Time,
    dice: SmallRng,
    players: Vec<Option<Player>>,
    names: Arc<AtomicU64>,
    /// How they ended, in this order.
    pub ended: Vec<(usize, Ended)>,
    /// The same of those who did shards.
    pub others_ended: Vec<(usize, Ended)>,
}

impl Table {
    pub fn new(world: &World, time: &Time, dice: SmallRng) -> Self {
        let (players, ended, others_ended, names) = (Vec::new(), Vec::new(), Vec::new(), time.names.clone());
        Self { world: world.clone(), time: time.clone(), dice, players, names, ended, others_ended }
    }

    /// One more process, which runs to its first request. `shares`: others may run between any two requests of it.
    pub fn seat(&mut self, lot: Lot, shares: bool, run: impl FnOnce(Arc<Seat>) -> Ended + Send + 'static) {
        self.sit(lot, shares, false, run);
    }

    /// One more process, which does shards of whoever leads.
    pub fn seat_other(&mut self, lot: Lot, run: impl FnOnce(Arc<Seat>) -> Ended + Send + 'static) {
        self.sit(lot, true, true, run);
    }

    fn sit(&mut self, lot: Lot, shares: bool, is_other: bool, run: impl FnOnce(Arc<Seat>) -> Ended + Send + 'static) {
        let ((asks, asked), (answers, answered)) = (sync_channel(1), sync_channel(1));
        let number = self.players.len();
        let seat = Seat {
            number,
            name: self.names.fetch_add(1, Ordering::Relaxed),
            at_request: OnceLock::new(),
            asks: asks.clone(),
            answers: Mutex::new(answered),
            lot,
            requests: AtomicU64::new(0),
            is_dead: AtomicBool::new(false),
            shares,
            time: self.time.clone(),
        };
        let thread = std::thread::spawn(move || {
            let ended = run(Arc::new(seat));
            let _ = asks.send(Ask::Over(ended));
        });
        self.players.push(Some(Player { asked, answers, pending: None, thread, is_other }));
        self.hear(number);
    }

    /// Whether somebody is still at it.
    pub fn is_busy(&self) -> bool {
        self.players.iter().any(Option::is_some)
    }

    /// Whether somebody leads a cycle, or wants to.
    pub fn is_led(&self) -> bool {
        self.players.iter().flatten().any(|player| !player.is_other)
    }

    /// Waits for the next request of a process that runs.
    fn hear(&mut self, number: usize) {
        let Some(player) = self.players[number].as_mut() else { return };
        match player.asked.recv() {
            Ok(Ask::Over(ended)) => self.leave(number, ended),
            Ok(ask) => player.pending = Some(ask),
            Err(_) => self.leave(number, panicked()),
        }
    }

    fn leave(&mut self, number: usize, ended: Ended) {
        let Some(player) = self.players[number].take() else { return };
        drop((player.answers, player.asked));
        let is_whole = player.thread.join().is_ok();
        let ended = (number, if is_whole { ended } else { panicked() });
        if player.is_other { self.others_ended.push(ended) } else { self.ended.push(ended) }
    }

    /// Answers one request.
    pub async fn serve(&mut self) {
        let now = self.time.now();
        let due = |player: &Player| match player.pending {
            Some(Ask::Turn(at)) => at,
            _ => 0,
        };
        let waiting = self.players.iter().enumerate();
        let waiting: Vec<(usize, u64)> =
            waiting.filter_map(|(number, player)| Some((number, due(player.as_ref()?)))).collect();
        let ready: Vec<usize> = waiting.iter().filter(|(_, at)| *at <= now).map(|(number, _)| *number).collect();
        let Some(number) = ready.choose(&mut self.dice).copied() else {
            let next = waiting.iter().map(|(_, at)| *at).min().unwrap_or(now);
            return self.time.hub.advance(Duration::from_millis(next - now));
        };
        let ask = self.players[number].as_mut().and_then(|player| player.pending.take());
        let answer = match ask {
            Some(Ask::Submit(command)) => Answer::Events(self.submit(&command).await),
            _ => Answer::Go,
        };
        if let Some(player) = &self.players[number] {
            let _ = player.answers.send(answer);
        }
        self.hear(number);
    }

    async fn submit(&mut self, command: &Command) -> Option<Vec<Event>> {
        self.time.catch_up(&self.world).await;
        let events = self.world.submit(CommandId(self.dice.random()), command, PATIENCE).await;
        self.time.follow(&self.world);
        events
    }
}
