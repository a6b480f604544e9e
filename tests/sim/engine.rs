//! Days in the life of a repository whose cycles a simulated cluster orders: real engines, simulated clients at work meanwhile, and
//! machines, disks, wires, processes and the store that break.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use tokio::runtime::{Builder, RngSeed};
use verger::embedded::{Coordination, CycleReport, CycleRequest, Means, Shared, cycle, identify};
use verger_coordinator::drive::{Backend, DrivenBackend};
use verger_coordinator::raft::runtime;
use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::{ErrorKind, Repository, verify};
use verger_proto::{Command, CommandId, Driver, RepositoryId, WorkerId};

use super::clients::hub::Hub;
use super::clients::oracle::Oracle;
use super::clients::{Kind, Scene, means, state_folder};
use super::clock::BEGIN;
use super::course::Failure;
use super::faults::{heal, storm};
use super::judge::{Judge, Seen};
use super::oracle::Finding;
use super::others::{Fate, NEVER, Worker, shards};
use super::post::{self, Ear, Hearing};
use super::steps::registration;
use super::store::{alone, careful};
use super::turns::{ClusterBackend, Ended, Lot, Table, Time};
use super::way::{Way, Weather};
use super::world::{World, dice};
use super::yard::{Cart, Damage, Hand, KINDS, Spoiling, Yard};

const HOUR: u64 = 3_600_000;
/// Cycles while everything breaks.
const STORMY: u32 = 4;
/// What befalls an engine befalls it within so many requests; a cycle has about that many.
const REQUESTS: u64 = 120;
/// Nodes on which an engine may run, each with a folder of its own.
const NODES: u64 = 3;
/// A drive whose driver is silent for a quarter of a minute may be taken: so often it is tried, every four seconds.
const TRIES: u32 = 6;
/// After so long, an expired lease and a silent driver are waited for no more.
const ALL_EXPIRED: Duration = Duration::from_secs(700);
/// Of a listing that is old, how much it may lack.
const STALE_MAX: u64 = 60_000;
/// How a cycle ends that left something for the next one.
const GONE_AROUND: &str = "gone around";
/// The same, and why is that the machine did not answer in time: in a storm it may be without a leader for as long as a step asks it.
const UNANSWERED: &str = "gone around without an answer";
/// In one of so many seeds, cycles are cut into shards.
const SHARED: u64 = 4;
/// What befalls whoever does shards befalls it within so many requests.
const SHARD_REQUESTS: u64 = 60;

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Course {
    /// Of the cluster's trace and of the clients'.
    pub hash: (u64, u64),
    pub acknowledged: u64,
    pub cycles: u32,
    pub batches: u32,
    /// Engines, those that were killed, those that ran beside another one, and those that ended well.
    pub engines: u32,
    pub killed: u32,
    pub rivals: u32,
    pub done: u32,
    pub snapshots: u32,
    /// Changes in the store that were looked at, and marks among them.
    pub deeds: u32,
    pub marks: u32,
    /// Shards that others did than who led.
    pub shards: u32,
    /// Those among them whose workers hear no hints.
    pub asked: u32,
    /// Parts of the exchange that were not what was reported.
    pub spoiled: u32,
    /// Shards that were gone around because their order was among them.
    pub around: u32,
}

/// A repository of each index kind, whose keys were derived once, for run after run.
pub struct Stage {
    epochs: Scene,
    legacy: Scene,
}

impl Stage {
    pub fn new() -> Self {
        let begin = Timestamp::from_millisecond(i64::try_from(BEGIN).unwrap()).unwrap();
        Self { epochs: Scene::new("default", begin), legacy: Scene::new("format1", begin) }
    }

    /// Lives through one seed, on this thread.
    pub fn run(&self, seed: u64, print: bool) -> Result<Course, Failure> {
        self.run_with(seed, None, print)
    }

    /// The same; in a run whose cycles are cut, these parts are damaged.
    pub fn run_with(&self, seed: u64, spoiled: Option<&'static str>, print: bool) -> Result<Course, Failure> {
        let (kind, scene) = if seed % 3 == 2 { (Kind::Legacy, &self.legacy) } else { (Kind::Epochs, &self.epochs) };
        scene.begin(kind, seed, print);
        runtime::set_seed(Some(seed));
        let mut machine = Builder::new_current_thread();
        let machine = machine.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()));
        let done = machine.build().unwrap().block_on(live(scene, seed, spoiled, print));
        runtime::set_seed(None);
        done
    }
}

async fn live(scene: &Scene, seed: u64, spoiled: Option<&'static str>, print: bool) -> Result<Course, Failure> {
    let world = World::new(seed, print).await;
    let mut run = Run::new(scene, &world, seed);
    run.spoiled = spoiled;
    let done = run.days().await;
    let done = world.finding().map_or(done, Err);
    let course = run.course();
    world.end().await;
    let trace = || format!("{}\nclients and engines:\n{}", world.tail(), scene.hub.live().trace.tail());
    done.map(|()| course).map_err(|finding| Failure { finding, trace: trace() })
}

/// What of a cycle is told beforehand.
struct Plan {
    request: CycleRequest,
    lot: Lot,
    weather: Weather,
    rival: Option<Rival>,
    hints: post::Weather,
    /// Whoever does shards of it; none: it is not cut.
    others: Option<Others>,
}

/// Workers of other processes, and what befalls them.
#[derive(Clone, Debug, Default)]
struct Others {
    fates: Vec<Fate>,
    /// Which part is damaged, and how.
    spoiling: Option<Spoiling>,
}

impl Plan {
    /// A shard may come to nothing.
    fn may_be_spoiled(&self) -> bool {
        self.others.as_ref().is_some_and(|others| {
            others.spoiling.is_some() || self.weather.faults > 0 || others.fates.iter().any(Fate::is_struck)
        })
    }
}

/// Somebody else who wants to do the same at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rival {
    /// An engine on another node of the cluster.
    Node,
    /// A process that shares nothing with the cluster but the store.
    Foreign,
}

struct Run<'a> {
    scene: &'a Scene,
    world: World,
    time: Time,
    dice: SmallRng,
    repository: Option<RepositoryId>,
    /// One for each node, and one for whoever is none.
    folders: Vec<tempfile::TempDir>,
    oracle: Oracle,
    seen: Arc<Seen>,
    /// What shards are shared through, in a run whose cycles are cut.
    exchange: Option<(Arc<Yard>, Ear)>,
    course: Course,
    /// Number of the last engine: no two are the same.
    runs: u64,
    /// Which parts are damaged, if that is not by chance.
    spoiled: Option<&'static str>,
}

impl<'a> Run<'a> {
    fn new(scene: &'a Scene, world: &World, seed: u64) -> Self {
        let exchange = (seed % SHARED == 1).then(|| {
            let ear = Ear::new(world.time(), dice(seed, 6));
            world.tell(Arc::new(ear.clone()));
            (Arc::new(Yard::new(scene.hub.clone())), ear)
        });
        Self {
            scene,
            world: world.clone(),
            time: Time::new(scene.hub.clone()),
            dice: dice(seed, 2),
            repository: None,
            folders: (0..=NODES).map(|_| state_folder()).collect(),
            oracle: Oracle::default(),
            seen: Arc::default(),
            exchange,
            course: Course::default(),
            runs: 0,
            spoiled: None,
        }
    }

    fn course(&self) -> Course {
        let replicas = self.world.replicas();
        let live = self.scene.hub.live();
        Course {
            hash: (self.world.hash(), live.trace.hash()),
            acknowledged: self.world.acknowledged(),
            cycles: replicas.oracle.cycles,
            batches: replicas.oracle.batches,
            around: replicas.oracle.around,
            snapshots: u32::try_from(live.model.snapshots.len()).unwrap(),
            deeds: self.seen.deeds.load(Ordering::Relaxed),
            marks: self.seen.marks.load(Ordering::Relaxed),
            shards: self.seen.shards.load(Ordering::Relaxed) + self.seen.asked.load(Ordering::Relaxed),
            asked: self.seen.asked.load(Ordering::Relaxed),
            spoiled: self.exchange.as_ref().map_or(0, |(yard, _)| yard.spoiled()),
            ..self.course.clone()
        }
    }

    async fn days(&mut self) -> Result<(), Finding> {
        let hub = self.scene.hub.clone();
        self.begin().await?;
        let breaks = {
            let (world, mut dice) = (self.world.clone(), dice(self.dice.random(), 1));
            tokio::spawn(async move { storm(&world, &mut dice, u64::MAX).await })
        };
        hub.advance(Duration::from_millis(self.dice.random_range(26 * HOUR..40 * HOUR)));
        for number in 0..STORMY {
            let plan = self.plan();
            self.cycle(number, plan).await?;
            let pause = if self.dice.random_bool(0.5) { 24 * HOUR..30 * HOUR } else { HOUR..12 * HOUR };
            hub.advance(Duration::from_millis(self.dice.random_range(pause)));
        }
        breaks.abort();
        hub.stop_clients();
        self.world.network().mend();
        self.time.catch_up(&self.world).await;
        heal(&self.world, &mut self.dice).await;
        for (number, request) in [careful(Some(Mode::Full)), alone(Mode::Full)].into_iter().enumerate() {
            hub.advance(ALL_EXPIRED);
            let weather = Weather { slow: 200, ..Weather::default() };
            let fates = [false, true].map(|asks| Fate { asks, ..Fate::default() }).to_vec();
            let others = self.exchange.is_some().then_some(Others { fates, spoiling: None });
            let hints = post::Weather::default();
            let plan = Plan { request, lot: Lot::default(), weather, rival: None, hints, others };
            let done = self.course.done;
            self.cycle(STORMY + u32::try_from(number).unwrap(), plan).await?;
            if self.course.done == done {
                return Err("a cycle does not end well although all is well".to_owned());
            }
        }
        self.world.replicas().oracle.check_over()
    }

    /// The repository is added.
    async fn begin(&mut self) -> Result<(), Finding> {
        let repository =
            identify(self.folders[0].path(), &self.scene.maintainer, None).map_err(|error| error.chain())?;
        let command =
            Command::AddRepository { repository: repository.clone(), registration: Box::new(registration(0)) };
        let id = CommandId(self.dice.random());
        let answer = self.world.submit(id, &command, Duration::from_secs(60)).await;
        self.repository = Some(repository);
        answer.map(drop).ok_or_else(|| "the repository could not be added".to_owned())
    }

    fn plan(&mut self) -> Plan {
        let mut others = self.exchange.is_some().then(|| others(&mut self.dice));
        if let (Some(kind), Some(others)) = (self.spoiled, &mut others) {
            let how = others.spoiling.map_or(Damage::Flipped, |spoiling| spoiling.how);
            others.spoiling = Some(Spoiling { kind, number: 1, how });
        }
        let dice = &mut self.dice;
        let mode = *[Mode::Full, Mode::Full, Mode::Full, Mode::Quick].choose(dice).unwrap();
        Plan {
            request: CycleRequest { wait: dice.random_bool(0.5), ..careful(Some(mode)) },
            lot: Lot {
                kill: dice.random_bool(0.35).then(|| (dice.random_range(1..REQUESTS), dice.random_bool(0.5))),
                pause: dice.random_bool(0.25).then(|| (dice.random_range(1..REQUESTS), dice.random_range(5_000..HOUR))),
            },
            weather: Weather {
                slow: *[200, 1_000, 4_000].choose(dice).unwrap(),
                crowd: *[0, 40, 200, 400].choose(dice).unwrap(),
                faults: *[0, 2, 8].choose(dice).unwrap(),
                stale: *[0, 0, STALE_MAX].choose(dice).unwrap(),
            },
            rival: *[None, None, None, Some(Rival::Node), Some(Rival::Foreign)].choose(dice).unwrap(),
            hints: post::Weather {
                lost: *[0, 10, 40].choose(dice).unwrap(),
                twice: *[0, 100, 300].choose(dice).unwrap(),
                late: *[0, 20, 50].choose(dice).unwrap(),
            },
            others,
        }
    }

    /// One cycle, with whatever befalls it; an engine that was killed is started again, there or elsewhere.
    async fn cycle(&mut self, number: u32, plan: Plan) -> Result<(), Finding> {
        let note = format!("cycle {number} {:?} {:?} {:?} {:?}", plan.request.mode, plan.lot, plan.weather, plan.rival);
        let note = format!("{note} {:?} {:?}", plan.hints, plan.others);
        self.world.trace(&note);
        self.scene.hub.note(&note);
        let mut table = Table::new(&self.world, &self.time, dice(self.dice.random(), 3));
        let (home, shares) = (self.dice.random_range(1..=NODES), plan.rival.is_some() || plan.others.is_some());
        let over = Arc::<AtomicBool>::default();
        self.others(&mut table, &plan, &over);
        self.engine(&mut table, home, &plan, plan.lot.clone(), shares);
        let mut rival_after = plan.rival.map(|rival| (self.dice.random_range(1..REQUESTS), rival));
        let mut served = 0;
        while table.is_busy() {
            table.serve().await;
            served += 1;
            if let Some((_, rival)) = rival_after.take_if(|(after, _)| *after <= served) {
                self.course.rivals += 1;
                match rival {
                    Rival::Node => self.engine(&mut table, home % NODES + 1, &plan, Lot::default(), true),
                    Rival::Foreign => self.foreign(&mut table, &plan),
                }
            }
            if let Some((_, Err((ErrorKind::Interrupted, _)))) = table.ended.last()
                && !table.is_led()
                && table.ended.len() == 1
            {
                self.course.killed += 1;
                let node = if self.dice.random_bool(0.5) { home } else { self.dice.random_range(1..=NODES) };
                self.engine(&mut table, node, &plan, Lot::default(), plan.others.is_some());
            }
            over.store(!table.is_led(), Ordering::Relaxed);
        }
        self.ended(&table, number, &plan)?;
        self.check()
    }

    fn ended(&mut self, table: &Table, number: u32, plan: &Plan) -> Result<(), Finding> {
        for (engine, ended) in &table.ended {
            let told = ended.as_ref().map_err(|(kind, _)| kind);
            let text = format!("engine {engine} of cycle {number} ends: {told:?}");
            self.world.trace(&text);
            self.scene.hub.note(&text);
            self.course.done += u32::from(ended.as_ref().is_ok_and(|outcome| outcome == "done"));
            judge(ended, plan).map_err(|why| format!("{text}: {why}"))?;
        }
        for (worker, ended) in &table.others_ended {
            let text =
                format!("worker {worker} of cycle {number} ends: {:?}", ended.as_ref().map_err(|(kind, _)| kind));
            self.scene.hub.note(&text);
            if ended.as_ref().is_err_and(|(kind, _)| *kind != ErrorKind::Interrupted) {
                return Err(format!("{text}: {ended:?}"));
            }
        }
        Ok(())
    }

    /// Workers of other processes.
    fn others(&mut self, table: &mut Table, plan: &Plan, over: &Arc<AtomicBool>) {
        let (Some((yard, ear)), Some(others)) = (&self.exchange, &plan.others) else { return };
        yard.plan(others.spoiling);
        ear.set_weather(plan.hints);
        for fate in &others.fates {
            let repository = self.repository.clone().unwrap();
            let judge = Judge::new(self.scene.hub.clone(), &self.world, self.seen.clone(), Some(repository.clone()));
            let (weather, over, dices) =
                (plan.weather, over.clone(), [7, 8, 11].map(|use_| dice(self.dice.random(), use_)));
            let (world, time, ear, yard) = (self.world.clone(), self.time.clone(), ear.clone(), yard.clone());
            let (maintainer, folder) = (self.scene.maintainer.clone(), self.folders[0].path().to_owned());
            let (fate, done) = (fate.clone(), if fate.asks { &self.seen.asked } else { &self.seen.shards }.clone());
            table.seat_other(fate.lot.clone(), move |seat| {
                let [first, second, third] = dices;
                let way = Way::new(seat.clone(), Arc::new(judge), weather, first).in_shards(true);
                let cart = Cart::new(yard.clone(), seat.clone(), Arc::<Hand>::default(), weather, second);
                let ear = ear.of(seat.clone(), time.clone());
                let dice = Mutex::new(third);
                let worker = Worker { world, time, seat, ear, yard, maintainer, repository, folder, fate, dice, done };
                worker.work(way, cart, &over)
            });
        }
    }

    /// An engine on one of the nodes.
    fn engine(&mut self, table: &mut Table, node: u64, plan: &Plan, lot: Lot, shares: bool) {
        (self.runs, self.course.engines) = (self.runs + 1, self.course.engines + 1);
        // Its process was started for this.
        let driver = Driver { node, boots: self.runs, run: 1 };
        let repository = self.repository.clone().unwrap();
        let judge = Judge::new(self.scene.hub.clone(), &self.world, self.seen.clone(), Some(repository.clone()));
        let (means, request) = (self.means(node), plan.request.clone());
        let (world, weather, dice_of_way) = (self.world.clone(), plan.weather, dice(self.dice.random(), 4));
        let (time, sent, hints, router) = (self.time.clone(), self.world.time(), plan.hints, self.world.router());
        let [dice_of_hints, dice_of_parts] = [9, 10].map(|use_| dice(self.dice.random(), use_));
        let yard = plan.others.as_ref().and(self.exchange.as_ref()).map(|(yard, _)| yard.clone());
        table.seat(lot, shares, move |seat| {
            let hand = Arc::<Hand>::default();
            let way = Way::new(seat.clone(), Arc::new(judge), weather, dice_of_way).in_shards(yard.is_some());
            let cart = yard.map(|yard| Cart::new(yard, seat.clone(), hand.clone(), weather, dice_of_parts));
            let means = Means { shards: cart.map(shards), ..means };
            let queue = Arc::new(Hearing::new(&world, &time, seat.clone(), sent, hints, dice_of_hints));
            let backend: Arc<dyn Backend> = Arc::new(ClusterBackend { world: world.clone(), seat, hand: hand.clone() });
            let driven = drive(&backend, &repository, driver, &way.hub)?;
            let worker = WorkerId::new(format!("w-{driver}")).unwrap();
            let (backend, evidence, queue, tell_every) = (driven.clone(), None, Some(queue as Arc<_>), NEVER);
            let shared = Shared { backend, router, repository, worker, evidence, queue, tell_every };
            let ended = run(means, way, Coordination::Shared(shared), &request);
            if hand.has_ordered_badly() && matches!(&ended, Ok(outcome) if outcome == "done") {
                world.find("a cycle is done whose rewrite nobody can have done".to_owned());
            }
            driven.leave();
            ended
        });
    }

    /// A process that shares nothing but the store.
    fn foreign(&mut self, table: &mut Table, plan: &Plan) {
        self.course.engines += 1;
        let judge = Judge::new(self.scene.hub.clone(), &self.world, self.seen.clone(), None);
        let (means, request) = (self.means(0), plan.request.clone());
        let (weather, dice) = (plan.weather, dice(self.dice.random(), 5));
        table.seat(Lot::default(), true, move |seat| {
            let way = Way::new(seat, Arc::new(judge), weather, dice);
            run(means, way, Coordination::Alone, &request)
        });
    }

    fn means(&self, node: u64) -> Means {
        means(&self.scene.maintainer, self.folders[usize::try_from(node).unwrap()].path())
    }

    /// Nothing was seen that must not be, and every snapshot is whole: for the oracle of the clients, and for the independent check.
    fn check(&mut self) -> Result<(), Finding> {
        if let Some(finding) = self.world.finding() {
            return Err(finding);
        }
        self.oracle.check(&self.scene.hub)?;
        let report = whole(&self.scene.hub.outside);
        let is_whole = report.is_clean() && report.contents_read > 0;
        if is_whole { Ok(()) } else { Err(format!("the repository is damaged: {:?}", report.problems)) }
    }
}

fn whole(outside: &Repository) -> verify::Report {
    let options = verify::Options { full: true, threads: 1, ..verify::Options::default() };
    verify::verify(outside, &options, &Default::default(), &|_, _, _| {}).unwrap()
}

/// Takes the drive, as soon as nobody else has it.
fn drive(
    backend: &Arc<dyn Backend>,
    repository: &RepositoryId,
    driver: Driver,
    hub: &Hub,
) -> Result<Arc<DrivenBackend>, (ErrorKind, String)> {
    for _ in 0..TRIES {
        let taken =
            DrivenBackend::take(backend.clone(), repository, driver).map_err(|error| (error.kind(), error.chain()))?;
        if let Some(driven) = taken {
            return Ok(Arc::new(driven));
        }
        hub.advance(Duration::from_secs(4));
    }
    Err((ErrorKind::Locked, "another process drives it".to_owned()))
}

fn run(means: Means, way: Way, coordination: Coordination, request: &CycleRequest) -> Ended {
    let repository = means.repository.through(Arc::new(way));
    let ended = cycle(Means { repository, coordination, ..means }, request);
    ended.map(|report| outcome(&report)).map_err(|error| (error.kind(), error.chain()))
}

/// Stages and shards that were gone around are no damage that was found.
fn outcome(report: &CycleReport) -> String {
    let all_say = |text: &str| report.is_degraded() && report.damage.iter().all(|one| one.text.contains(text));
    match (all_say(GONE_AROUND), all_say("the coordinator does not answer")) {
        (true, true) if !report.damage.is_empty() => UNANSWERED.to_owned(),
        (true, _) => GONE_AROUND.to_owned(),
        (false, _) => report.outcome.to_string(),
    }
}

/// Workers of other processes, and what befalls them and what they leave.
fn others(dice: &mut SmallRng) -> Others {
    let fate = |dice: &mut SmallRng| {
        let kill = dice.random_bool(0.3).then(|| (dice.random_range(1..SHARD_REQUESTS), dice.random_bool(0.5)));
        let pause =
            dice.random_bool(0.3).then(|| (dice.random_range(1..SHARD_REQUESTS), dice.random_range(5_000..HOUR)));
        let lazy_at = dice.random_bool(0.1).then(|| dice.random_range(1..4));
        let (asks, is_unheard) = (dice.random_bool(0.3), dice.random_bool(0.2));
        Fate { lot: Lot { kill, pause }, lazy_at, asks, is_unheard }
    };
    let fates = (0..dice.random_range(1..=3)).map(|_| fate(dice)).collect();
    let spoiling = |dice: &mut SmallRng| {
        let (kind, how) = (*KINDS.choose(dice).unwrap(), *Damage::ALL.choose(dice).unwrap());
        Spoiling { kind, number: dice.random_range(1..3), how }
    };
    let spoiling = dice.random_bool(0.6).then(|| spoiling(dice));
    Others { fates, spoiling }
}

/// How a process may end.
fn judge(ended: &Ended, plan: &Plan) -> Result<(), Finding> {
    match ended {
        Ok(outcome) if outcome == "degraded" && plan.weather.stale == 0 => Err("damage where there is none".to_owned()),
        Ok(outcome) if outcome == GONE_AROUND && plan.weather.faults == 0 && !plan.may_be_spoiled() => {
            Err("something was gone around although nothing failed".to_owned())
        }
        Ok(_) => Ok(()),
        Err((kind, why)) => {
            let may_be = [
                ErrorKind::Interrupted,
                ErrorKind::StoreUnavailable,
                ErrorKind::Locked,
                ErrorKind::DeadlinePassed,
                ErrorKind::PlanRefused,
                ErrorKind::ForeignMaintenance,
                // The machine could not be asked, or its answer did not come.
                ErrorKind::Permission,
            ];
            // Who stands still between a look at the store's clock and one at its own sees two times.
            let stood_still = *kind == ErrorKind::Clock && plan.lot.pause.is_some();
            // A part is damaged, or a shard's workers are gone one after the other.
            let is_spoiled = matches!(kind, ErrorKind::Damaged | ErrorKind::Internal) && plan.may_be_spoiled();
            if may_be.contains(kind) || stood_still || is_spoiled {
                Ok(())
            } else {
                Err(format!("a cycle must not end so: {why}"))
            }
        }
    }
}
