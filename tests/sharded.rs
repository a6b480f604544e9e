//! Whole cycles whose scan and rewrite are cut into shards that several workers do: the plan and the end are those of one worker alone,
//! and a part that is not what was reported ends the cycle before anything is published.

#![allow(clippy::unwrap_used)]

#[path = "sharded/any_order.rs"]
mod any_order;
#[path = "sharded/claims.rs"]
mod claims;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use store::{HOUR, Saved, World, alone};
use support::Kopia;
use verger::embedded::{Coordination, CycleReport, CycleRequest, Means, Shared, cycle, identify};
use verger_coordinator::drive::{Backend, FileBackend, Router, folder};
use verger_coordinator::files::make_folders;
use verger_coordinator::machine::{JobStatus, State};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::session::SessionId;
use verger_kopia::storage::fault::{Call, Effect, Fault, FaultStorage};
use verger_kopia::storage::{Access, BlobId, ByteRange, FsStorage, MemoryStorage, PutOptions, Storage, list_all};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::control::{Control, ControlError, Directive};
use verger_proto::report::Progress;
use verger_proto::{
    Approval, BatchOutcome, BatchRequest, Command, Digest, Event, Evidence, JobReport, JobSpec, Outcome, OutputRef,
    Refusal, RepositoryId, Stage, Ticket, WorkerId,
};
use verger_worker::exchange::{Exchange, PartError};
use verger_worker::run::{Shards, run_shard};
use verger_worker::workspace::Workspace;

/// How often a lead says how far it is: it need not be waited for.
const TELL_EVERY: Duration = Duration::from_millis(20);

/// Bytes of a shard that cut the smaller golden repositories into a few.
const SOME: u64 = 30_000;

/// A control over whoever orders commands: what a worker of another process would have.
struct Remote(Arc<dyn Backend>);

impl Remote {
    fn submit(&self, command: Command) -> std::result::Result<Vec<Event>, ControlError> {
        let events = self.0.submit(command).map_err(|error| ControlError::Unavailable(error.chain()))?;
        let refused = events.iter().find_map(|event| match event {
            Event::CommandRefused { reason, .. } | Event::ResultFenced { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        refused.map_or(Ok(events), |reason| Err(ControlError::Refused(reason)))
    }
}

fn look<T>(backend: &Arc<dyn Backend>, mut look: impl FnMut(&State) -> T) -> T {
    let mut found = None;
    backend.look(&mut |state| found = Some(look(state)));
    found.unwrap()
}

impl Control for Remote {
    fn claim(&self, ticket: &Ticket) -> std::result::Result<JobSpec, ControlError> {
        self.submit(Command::ClaimJob { ticket: ticket.clone() })?;
        let spec = look(&self.0, |state| state.spec(ticket.cycle, ticket.job));
        spec.filter(|spec| spec.attempt == ticket.attempt).ok_or(ControlError::Refused(Refusal::Stopping))
    }

    fn renew(&self, ticket: &Ticket) -> std::result::Result<Directive, ControlError> {
        self.submit(Command::ReportProgress { ticket: ticket.clone(), progress: None })?;
        Ok(Directive::Continue)
    }

    fn progress(&self, ticket: &Ticket, progress: Progress) -> std::result::Result<Directive, ControlError> {
        self.submit(Command::ReportProgress { ticket: ticket.clone(), progress: Some(progress) })?;
        Ok(Directive::Continue)
    }

    fn approve_batch(&self, _: &Ticket, _: BatchRequest) -> std::result::Result<Approval, ControlError> {
        panic!("a shard asks for no batch");
    }

    fn batch_done(&self, _: &Ticket, _: BatchOutcome) -> std::result::Result<Directive, ControlError> {
        panic!("a shard does no batch");
    }

    fn keep_evidence(&self, _: &Ticket, _: Evidence) -> std::result::Result<OutputRef, ControlError> {
        panic!("a shard keeps no evidence");
    }

    fn add_revivals(&self, _: &Ticket, _: OutputRef, _: u64) -> std::result::Result<(), ControlError> {
        panic!("a shard revives nothing");
    }

    fn report(&self, ticket: &Ticket, report: JobReport) -> std::result::Result<(), ControlError> {
        let ticket = ticket.clone();
        let command = match report.outcome {
            Outcome::Failed(failure) => Command::FailJob { ticket, failure },
            Outcome::Done | Outcome::Degraded(_) => Command::CompleteJob { ticket, report: Box::new(report) },
        };
        self.submit(command).map(drop)
    }
}

/// Who orders commands, and where parts are exchanged.
struct Fleet {
    backend: Arc<dyn Backend>,
    router: Arc<Router>,
    id: RepositoryId,
    store: Arc<MemoryStorage>,
    faults: Arc<FaultStorage>,
    exchange: Exchange,
    shard_bytes: u64,
    /// Events, by kind.
    kinds: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Fleet {
    fn new(world: &World, id: &RepositoryId, shard_bytes: u64) -> Self {
        let store = Arc::new(MemoryStorage::new(world.clock.clone()));
        let faults = Arc::new(FaultStorage::new(store.clone()));
        let exchange = Exchange::open(faults.clone()).unwrap();
        let router = Arc::new(Router::default());
        let ledger = folder(&world.state_dir(), id);
        make_folders(&ledger).unwrap();
        let kinds = Arc::<Mutex<BTreeMap<&str, usize>>>::default();
        let counted = kinds.clone();
        let observer = Box::new(move |_, event: &Event| *counted.lock().unwrap().entry(event.kind()).or_default() += 1);
        let backend = FileBackend::open(&ledger, world.clock.clone(), router.clone(), Some(observer)).unwrap();
        Self { backend: Arc::new(backend), router, id: id.clone(), store, faults, exchange, shard_bytes, kinds }
    }

    fn events(&self, kind: &str) -> usize {
        self.kinds.lock().unwrap().get(kind).copied().unwrap_or(0)
    }

    fn shards(&self) -> Shards {
        Shards::new(self.exchange.clone(), self.shard_bytes)
    }

    fn means(&self, world: &World) -> Means {
        let shared = Shared {
            backend: self.backend.clone(),
            router: self.router.clone(),
            repository: self.id.clone(),
            worker: WorkerId::new("lead").unwrap(),
            evidence: None,
            queue: None,
            tell_every: TELL_EVERY,
        };
        let shards = (self.shard_bytes > 0).then(|| self.shards());
        Means { coordination: Coordination::Shared(shared), shards, ..world.means() }
    }

    /// Shards that nobody has, as orders.
    fn open(&self) -> Vec<JobSpec> {
        look(&self.backend, |state| {
            let jobs = state.cycles.values().flat_map(|cycle| cycle.jobs.values().map(move |job| (cycle, job)));
            let open = jobs.filter(|(cycle, job)| {
                let is_cut = matches!(cycle.stage, Stage::Scan | Stage::Rewrite) && !job.shard.is_whole();
                is_cut && matches!(job.status, JobStatus::Open(_))
            });
            open.map(|(cycle, job)| cycle.spec(job)).collect()
        })
    }

    fn workspace(&self, world: &World) -> Workspace {
        let mut workspace = Workspace::new(world.repository.clone());
        workspace.parallel = 2;
        workspace
    }

    /// Does shards until `over`: `number` says in which order. Each shard that it claims goes through `deed`.
    fn work(
        &self,
        world: &World,
        number: usize,
        over: &AtomicBool,
        deed: impl Fn(&Remote, &Ticket, &JobSpec, &dyn Fn(&Shards) -> JobReport),
    ) -> usize {
        let (remote, worker) = (Remote(self.backend.clone()), WorkerId::new(format!("w{number}")).unwrap());
        let (workspace, mut done) = (self.workspace(world), 0);
        while !over.load(Ordering::Relaxed) {
            let open = self.open();
            let Some(spec) = open.get(number * 7 % open.len().max(1)) else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            let ticket = spec.ticket(&worker);
            let spec = match remote.claim(&ticket) {
                Ok(spec) => spec,
                Err(ControlError::Refused(Refusal::NotYet(wait))) => {
                    world.clock.advance(Duration::from_millis(wait));
                    continue;
                }
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
            };
            deed(&remote, &ticket, &spec, &|shards| run_shard(&workspace, shards, &remote, &spec, &worker));
            done += 1;
        }
        done
    }

    /// A cycle with so many other workers, and how many shards they did.
    fn cycle(&self, world: &World, others: usize) -> (Result<CycleReport>, usize) {
        let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        let report = std::thread::scope(|scope| {
            for number in 1..=others {
                let (over, done) = (&over, &done);
                scope.spawn(move || {
                    let shards = self.shards();
                    let count = self.work(world, number, over, |remote, ticket, _, run| {
                        let _ = remote.report(ticket, run(&shards));
                    });
                    done.fetch_add(count, Ordering::Relaxed);
                });
            }
            let report = cycle(self.means(world), &request(world));
            over.store(true, Ordering::Relaxed);
            report
        });
        (report, done.load(Ordering::Relaxed))
    }

    fn parts(&self) -> Vec<String> {
        list_all(&*self.store, "x.").unwrap().into_iter().map(|blob| blob.id.to_string()).collect()
    }
}

/// A full cycle that writes down its plan.
fn request(world: &World) -> CycleRequest {
    CycleRequest { plan_out: Some(world.state_dir().join("plan")), ..alone(Mode::Full) }
}

/// What clients see of a cycle, and what it did; times and names of packs are its own.
#[derive(Debug, PartialEq)]
struct End {
    /// Of the plan's body: its header has the number of the job that made it.
    plan: Digest,
    figures: BTreeMap<String, serde_json::Value>,
    outcome: String,
    contents: Vec<(String, bool, u32, u32)>,
    sessions: usize,
}

impl End {
    /// For cycles that took longer: what they count back from the present is another time, here and in the plan.
    fn but_for_times(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let mut figures = self.figures.clone();
        for (task, time) in [
            ("full-drop-deleted-content", "droppedContentsDeletedBefore"),
            ("delete-superseded-epoch-indexes", "maxReplacementTime"),
        ] {
            let figures = figures.get_mut(task).and_then(serde_json::Value::as_object_mut);
            assert!(figures.and_then(|figures| figures.remove(time)).is_some(), "{task}");
        }
        (figures, self.outcome.clone(), self.contents.clone(), self.sessions)
    }
}

fn end(world: &World, report: &CycleReport) -> End {
    world.assert_whole("a cycle in shards");
    let table = world.view().table;
    let row = |row: u32| {
        let (length, original) = (table.packed_length(row), table.original_length(row));
        (table.id(row).to_string(), table.is_deleted(row), length, original)
    };
    End {
        plan: Digest::of(&std::fs::read(world.state_dir().join("plan")).unwrap()),
        figures: report.tasks.clone(),
        outcome: report.outcome.clone(),
        contents: table.rows().map(row).collect(),
        sessions: world.count("s"),
    }
}

struct Course {
    world: World,
    start: Saved,
    id: RepositoryId,
    end: End,
}

impl Course {
    /// What one worker does alone.
    fn new(name: &str) -> Self {
        let mut world = World::golden(name, HOUR);
        let id = identify(&world.state_dir(), &world.repository, None).unwrap();
        let start = world.save();
        let (report, _) = Fleet::new(&world, &id, 0).cycle(&world, 0);
        let end = end(&world, &report.unwrap());
        world.restore(&start);
        Self { world, start, id, end }
    }

    fn fleet(&mut self, shard_bytes: u64) -> Fleet {
        self.world.restore(&self.start);
        Fleet::new(&self.world, &self.id, shard_bytes)
    }
}

/// Counts the orders of each stage that are written.
fn count_orders(fleet: &Fleet) -> Arc<Mutex<BTreeMap<&'static str, usize>>> {
    let counts: Arc<Mutex<BTreeMap<&str, usize>>> = Arc::default();
    let counted = counts.clone();
    fleet.faults.hook(Box::new(move |effect: &Effect| {
        for stage in ["scan", "rewrite"] {
            if effect.done && effect.call == Call::Put && effect.id.as_str().contains(&format!(".{stage}.order-")) {
                *counted.lock().unwrap().entry(stage).or_default() += 1;
            }
        }
        Ok(())
    }));
    counts
}

/// Orders where bytes cut nothing: no shard of a scan has more than 64 packs, none of a small rewrite more than 32.
fn by_packs(name: &str) -> BTreeMap<&'static str, usize> {
    if name == "epochs" { BTreeMap::from([("rewrite", 3)]) } else { BTreeMap::new() }
}

#[test]
fn r12_r21_the_plan_and_the_end_are_the_same_for_any_number_of_shards_and_workers() {
    let mut others_did = 0;
    for name in ["default", "epochs", "format1", "v1-gzip", "ecc", "split-fixed-128k-large-dirs"] {
        let mut course = Course::new(name);
        for (shard_bytes, others) in [(1, 0), (1, 3), (20_000, 1), (200_000, 2), (u64::MAX, 2)] {
            let fleet = course.fleet(shard_bytes);
            let orders = count_orders(&fleet);
            let (report, done) = fleet.cycle(&course.world, others);
            let report = report.unwrap_or_else(|e| panic!("{name} {shard_bytes} {others}: {}", e.chain()));
            assert_eq!(end(&course.world, &report), course.end, "{name} {shard_bytes} {others}");
            assert_eq!(fleet.parts(), [] as [String; 0], "a closed cycle leaves nothing in the exchange");
            others_did += done;
            let orders = orders.lock().unwrap().clone();
            match shard_bytes {
                1 => assert!(orders["scan"] > 1 && orders["rewrite"] > 1, "{name}: {orders:?}"),
                u64::MAX => {
                    assert_eq!(orders, by_packs(name), "{name}: too little to cut, but for the number of packs")
                }
                _ => {}
            }
        }
    }
    assert!(others_did > 20, "others did {others_did} shards");
}

/// What becomes of a part between the one who wrote it and the one who reads it.
type Damage = fn(&MemoryStorage, &BlobId);

fn cut(store: &MemoryStorage, part: &BlobId) {
    let bytes = store.get(part, ByteRange::All).unwrap();
    store.put(part, bytes.slice(..bytes.len() / 2), &PutOptions::default()).unwrap();
}

fn flip(store: &MemoryStorage, part: &BlobId) {
    let mut bytes = store.get(part, ByteRange::All).unwrap().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    store.put(part, bytes.into(), &PutOptions::default()).unwrap();
}

fn lose(store: &MemoryStorage, part: &BlobId) {
    assert!(store.delete(std::slice::from_ref(part), None).failed.is_empty());
}

fn empty(store: &MemoryStorage, part: &BlobId) {
    store.put(part, bytes::Bytes::new(), &PutOptions::default()).unwrap();
}

#[test]
fn r12_a_part_that_is_lost_or_damaged_ends_the_cycle_before_anything_is_published() {
    let mut course = Course::new("epochs");
    let damages: [(&str, Damage); 4] = [("cut", cut), ("flip", flip), ("lose", lose), ("empty", empty)];
    for (what, damage) in damages {
        for kind in ["scan.order", "scan", "rewrite.order", "rewrite"] {
            let fleet = course.fleet(1);
            let before = published(&course.world);
            let (store, hit) = (fleet.store.clone(), Arc::new(AtomicBool::new(false)));
            let (once, marked) = (hit.clone(), format!(".{kind}-"));
            fleet.faults.hook(Box::new(move |effect: &Effect| {
                let is_it = effect.done && effect.call == Call::Put && effect.id.as_str().contains(&marked);
                if is_it && !once.swap(true, Ordering::Relaxed) {
                    damage(&store, &effect.id);
                }
                Ok(())
            }));
            let (report, _) = fleet.cycle(&course.world, 1);
            assert!(hit.load(Ordering::Relaxed), "{what} {kind}");
            // In a half of its shard the same order is damaged in the same way.
            assert_eq!(fleet.events("shard_split"), 0, "{what} {kind}");
            match report {
                // A shard of the rewrite that has no order is gone around: nothing of it moves.
                Ok(report) => {
                    assert_eq!((kind, report.outcome.as_str()), ("rewrite.order", "degraded"), "{what}");
                    assert!(report.damage.iter().any(|one| one.text.contains("gone around")), "{:?}", report.damage);
                }
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::StoreUnavailable), "{error:?}");
                    let told = error.chain();
                    assert!(told.contains("of the exchange"), "{what} {kind}: {told}");
                    if kind.starts_with("scan") {
                        assert_eq!(published(&course.world), before, "{what} {kind}");
                    }
                }
            }
            course.world.assert_whole(&format!("{what} {kind}"));
            // The next one makes it anew.
            fleet.faults.heal();
            course.world.clock.advance(HOUR);
            let (report, _) = fleet.cycle(&course.world, 1);
            assert_eq!(report.unwrap_or_else(|e| panic!("{what} {kind}: {}", e.chain())).outcome, "done");
            course.world.assert_whole(&format!("{what} {kind}, and the next cycle"));
        }
    }
}

/// Index blobs and packs.
fn published(world: &World) -> Vec<BlobId> {
    ["x", "n", "p", "q"].iter().flat_map(|prefix| world.blobs(prefix)).map(|blob| blob.id).collect()
}

#[test]
fn r21_a_late_attempt_is_fenced_and_what_it_wrote_is_never_published() {
    let mut course = Course::new("epochs");
    let fleet = course.fleet(1);
    let over = AtomicBool::new(false);
    let late: Mutex<Vec<(Ticket, JobReport)>> = Mutex::default();
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Takes every shard that it can, does it, and keeps quiet; whoever leads gives it up.
            fleet.work(&course.world, 1, &over, |remote, ticket, _, run| {
                if ticket.attempt > 1 {
                    let _ = remote.report(ticket, run(&fleet.shards()));
                    return;
                }
                // Each in a session of its own, of which nothing counts.
                late.lock().unwrap().push((ticket.clone(), run(&fleet.shards())));
                remote.submit(Command::LoseWorker { worker: ticket.worker.clone() }).unwrap();
                // It says so only after another attempt has counted, if it has.
                let (ticket, report) = late.lock().unwrap().last().unwrap().clone();
                let refused = remote.report(&ticket, report).unwrap_err();
                assert!(matches!(refused, ControlError::Refused(_)), "{refused:?}");
            })
        });
        let report = cycle(fleet.means(&course.world), &request(&course.world));
        over.store(true, Ordering::Relaxed);
        report.unwrap()
    });
    let late = late.into_inner().unwrap();
    let rewrites = late.iter().filter(|(_, report)| report.outputs.iter().any(|one| one.name.contains("/rewrite-")));
    assert!(rewrites.count() > 0, "{} late shards", late.len());
    // The sessions of the late ones still have their markers; their packs are named by nothing.
    let world = &course.world;
    let found = end(world, &report);
    assert!(found.sessions > course.end.sessions, "late sessions keep their markers until the next cycle");
    let found = End { sessions: course.end.sessions, ..found };
    assert_eq!(found.but_for_times(), course.end.but_for_times());
    let named: BTreeSet<BlobId> = world.view().table.packs().iter().cloned().collect();
    let marked: Vec<SessionId> = world.blobs("s").iter().filter_map(|blob| SessionId::of_blob(&blob.id)).collect();
    let orphans = world.blobs("p").into_iter().chain(world.blobs("q")).filter(|blob| !named.contains(&blob.id));
    let orphans: Vec<BlobId> = orphans.map(|blob| blob.id).collect();
    assert!(orphans.iter().any(|blob| SessionId::of_blob(blob).is_some_and(|id| marked.contains(&id))), "{orphans:?}");
    // The next cycle knows that those sessions are over, and takes their markers and their packs away.
    world.clock.advance(HOUR);
    let (report, _) = fleet.cycle(world, 1);
    report.unwrap();
    world.assert_whole("a late attempt, and the next cycle");
    assert_eq!(world.count("s"), course.end.sessions);
    let named: BTreeSet<BlobId> = world.view().table.packs().iter().cloned().collect();
    assert!(orphans.iter().all(|orphan| !named.contains(orphan)), "nobody published them meanwhile");
    assert!(world.blobs("p").iter().chain(&world.blobs("q")).all(|blob| named.contains(&blob.id)), "and they are gone");
}

#[test]
fn r21_a_worker_has_one_session_for_its_shards_of_a_cycle_and_its_marker_stands_before_the_first_pack() {
    let mut course = Course::new("epochs");
    let fleet = course.fleet(1);
    let (orders, world) = (count_orders(&fleet), &course.world);
    let written: Arc<Mutex<Vec<BlobId>>> = Arc::default();
    let seen = written.clone();
    world.faults.hook(Box::new(move |effect: &Effect| {
        if effect.done && effect.call == Call::Put {
            seen.lock().unwrap().push(effect.id.clone());
        }
        Ok(())
    }));
    let (report, done) = fleet.cycle(world, 2);
    assert_eq!(end(world, &report.unwrap()), course.end);
    let (mut marked, mut used) = (BTreeSet::new(), BTreeSet::new());
    for blob in &*written.lock().unwrap() {
        let Some(session) = SessionId::of_blob(blob) else { continue };
        match blob.as_str().chars().next() {
            Some('s') => assert!(marked.insert(session), "one marker a session"),
            Some('p' | 'q') => {
                assert!(marked.contains(&session), "{blob} was written before its session's marker");
                used.insert(session);
            }
            _ => {}
        }
    }
    let shards = orders.lock().unwrap()["rewrite"];
    assert!(shards > 3 && done > 0, "{shards} {done}");
    // Who leads and two others.
    assert!((1..=3).contains(&used.len()), "{used:?}");
}

#[test]
fn r12_a_worker_that_cannot_do_its_shards_costs_time_only() {
    let mut course = Course::new("default");
    let fleet = course.fleet(1);
    let (over, failed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Its exchange is another one, of the same address as far as anybody sees.
            let other = Exchange::open(Arc::new(MemoryStorage::new(course.world.clock.clone()))).unwrap();
            let other = Shards::new(other, SOME);
            let workspace = fleet.workspace(&course.world);
            fleet.work(&course.world, 1, &over, |remote, ticket, spec, run| {
                if ticket.attempt > 1 {
                    let _ = remote.report(ticket, run(&fleet.shards()));
                    return;
                }
                let report = run_shard(&workspace, &other, remote, spec, &ticket.worker);
                let Outcome::Failed(failure) = &report.outcome else { panic!("{report:?}") };
                assert!(failure.retryable && failure.text.contains("same exchange"), "{failure:?}");
                let _ = remote.report(ticket, report);
                failed.fetch_add(1, Ordering::Relaxed);
            })
        });
        let report = cycle(fleet.means(&course.world), &request(&course.world));
        over.store(true, Ordering::Relaxed);
        report.unwrap()
    });
    assert!(failed.load(Ordering::Relaxed) > 0);
    assert_eq!(end(&course.world, &report).but_for_times(), course.end.but_for_times());
}

#[test]
fn r12_a_process_that_ends_between_any_two_parts_leaves_nothing_that_a_next_one_minds() {
    let mut course = Course::new("default");
    // How many changes of the exchange there are.
    let fleet = course.fleet(SOME);
    fleet.cycle(&course.world, 0).0.unwrap();
    let effects = fleet.faults.effects();
    assert!((8..60).contains(&effects), "{effects}");
    for number in 1..=effects {
        let fleet = course.fleet(SOME);
        let world = &course.world;
        let opened = fleet.faults.effects();
        fleet.faults.stop_after(opened + number - 1);
        let (report, _) = fleet.cycle(world, 0);
        let when = format!("at change {number} of the exchange");
        // What could not be cleaned away ends no cycle.
        if let Err(error) = report {
            assert!(PartError::of(&error).is_none(), "{when}: {error:?}");
        }
        world.assert_whole(&when);
        // Another process, with what the first one left in the exchange and in the ledger.
        fleet.faults.heal();
        world.clock.advance(HOUR);
        let (report, _) = fleet.cycle(world, 1);
        let report = report.unwrap_or_else(|e| panic!("{when}: the next cycle: {}", e.chain()));
        assert_eq!(report.outcome, "done", "{when}");
        world.assert_whole(&format!("{when}, and the next cycle"));
    }
}

#[test]
fn an_exchange_that_is_full_or_gone_is_named_and_nothing_is_published() {
    let mut course = Course::new("format1");
    for (fault, kind) in [(Fault::DiskFull, ErrorKind::DiskFull), (Fault::Unavailable, ErrorKind::StoreUnavailable)] {
        let fleet = course.fleet(1);
        let before = published(&course.world);
        fleet.faults.script(Call::Put, "x.", 2, u64::MAX, fault);
        let error: Error = fleet.cycle(&course.world, 0).0.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.chain().contains("exchange"), "{error:?}");
        assert_eq!(published(&course.world), before);
    }
}

#[test]
fn the_real_program_finds_everything_sound_after_a_cycle_in_shards() {
    for name in ["epochs", "format1"] {
        let mut course = Course::new(name);
        let fleet = course.fleet(1);
        assert_eq!(fleet.cycle(&course.world, 2).0.unwrap().outcome, "done");
        let folder = tempfile::tempdir().unwrap();
        let disk = FsStorage::open(folder.path(), Access::ReadWrite).unwrap();
        for (blob, bytes) in course.world.contents() {
            disk.put(&blob, bytes, &PutOptions::default()).unwrap();
        }
        if let Some(kopia) = Kopia::connect(folder.path()) {
            kopia.verifies();
        }
    }
}
