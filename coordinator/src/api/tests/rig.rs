//! A server on a loopback socket, with a ledger in a folder, and somebody who does the work of workers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use verger_kopia::clock::{SetClock, Timestamp};
use verger_kopia::error::Result;
use verger_kopia::storage::calls::{Class, Code, Op};
use verger_proto::queue::local::LocalQueue;
use verger_proto::{
    Command, CycleId, Digest, Event, Evidence, IndexKind, JobReport, JobSpec, OutputRef, PlanHeader, Progress,
    Registration, RepositoryId, Stage, StageWork, StoreTime, Term, Ticket, Unit, ViewRef,
};

use verger_proto::work_queue::WorkQueue;
use verger_proto::work_queue::local::LocalWorkQueue;
use verger_proto::work_queue::meters::Fate;

use super::super::*;
use super::client::{Messages, Reply, call, send, text};
use super::document::check;
use crate::auth::Bearer;
use crate::auth::oidc::testing::{Signer, provider, published};
use crate::drive::{Backend, Effects, FileBackend};
use crate::ledger::evidence::Shelf;
use crate::machine::{Repository, State};
use crate::meters::{Meters, Raft, Spans};
use crate::providers::{Fetch, Pace, Providers, Source};
use crate::testing::{batch, digest, done, output, store, worker};

pub(super) const TOKEN: &str = "vgr_YSB0b2tlbiB0aGF0IG9ubHkgdGVzdHMga25vdyBvZi4";
pub(super) const FLEET: &str = "verger@fleet-0a1b2c3d";

/// A process with all that can be counted.
fn meters() -> Meters {
    let raft =
        Raft { leads: true, term: 3, last: Some(9), applied: Some(8), snapshot: Some(5), level: 2, program_level: 3 };
    let spans = Spans { exported: 40, no_room: 2, refused: 1 };
    let mut meters = Meters::default();
    meters.raft = Some(Box::new(move || raft));
    meters.spans = Some(Box::new(move || spans));
    meters.memory_limit = Some(1 << 30);
    let queue = LocalWorkQueue::default();
    queue.meters().count(Fate::Offered);
    meters.queue = Some(Arc::new(queue));
    let price = "get=1.25 put=5 list=5 delete=0 egress=0.09".parse().unwrap();
    meters.prices.set(Some("s3://attic".to_owned()), price);
    let calls = meters.calls(&"photos".parse().unwrap());
    calls.count(Op::Put, Class::of("p01"), Code::Ok, 0, 70);
    calls.count(Op::Get, Class::of("q01"), Code::NotFound, 0, 0);
    meters
}

type Look = Box<dyn Fn(&Wanted) -> Result<Probed> + Send + Sync>;

pub(super) struct FakeHands {
    pub(super) look: Mutex<Look>,
    pub(super) under_way: Mutex<Duration>,
    pub(super) freed: Mutex<Vec<Term>>,
    /// To whom, and by which term of ours, if it had one.
    pub(super) handed: Mutex<Vec<(String, Option<Term>)>>,
}

impl Hands for FakeHands {
    fn probe(&self, wanted: &Wanted) -> Result<Probed> {
        (self.look.lock().unwrap())(wanted)
    }

    fn under_way(&self, _: &Registration, holder: &str, _: Term) -> Result<Duration> {
        assert_eq!(holder, FLEET);
        Ok(*self.under_way.lock().unwrap())
    }

    fn free_lease(&self, _: &Registration, holder: &str, term: Term, next: Option<&str>) -> Result<()> {
        assert_eq!(holder, FLEET);
        match next {
            Some(next) => self.handed.lock().unwrap().push((next.to_owned(), Some(term))),
            None => self.freed.lock().unwrap().push(term),
        }
        Ok(())
    }

    fn hand_over_lease(&self, _: &Registration, _: &RepositoryId, _: &str, next: &str) -> Result<()> {
        self.handed.lock().unwrap().push((next.to_owned(), None));
        Ok(())
    }
}

/// One repository an address.
pub(super) fn found(wanted: &Wanted) -> Probed {
    let unique = Digest::of(wanted.address.as_bytes()).to_string();
    Probed {
        repository: format!("{unique}-{}", &unique[..32]).parse().unwrap(),
        index: IndexKind::Epochs,
        owner: "kopia@cellar".to_owned(),
        own: None,
        store: store(),
        lease: None,
    }
}

pub(super) struct FakeStand(pub(super) Mutex<Standing>);

impl Stand for FakeStand {
    fn standing(&self) -> Standing {
        self.0.lock().unwrap().clone()
    }

    fn fleet(&self) -> String {
        FLEET.to_owned()
    }

    fn members(&self) -> Option<&dyn Members> {
        Some(self)
    }
}

/// Gives out one repository after another, to whoever may have it, and hears what became of them.
pub(super) struct FakeDesk {
    backend: Arc<FileBackend>,
    pub(super) ended: Mutex<Vec<(RepositoryId, verger_proto::Driver, bool)>>,
}

impl Desk for FakeDesk {
    fn next(&self, ask: &Ask<'_>) -> Result<Option<work::Task>> {
        let mut task = None;
        self.backend.look(&mut |state| {
            task = state.repositories.iter().find_map(|(id, entry)| {
                let known = entry.registration.clone()?;
                let is_his = ask.pools.iter().any(|pool| pool.as_str() == known.pool) && (ask.sees)(&known.tenant);
                let work = crate::schedule::Work::Look;
                let task = work::Task { repository: id.clone(), registration: known, work };
                (is_his && entry.driver.is_none()).then_some(task)
            });
        });
        if let Some(task) = &task {
            let (repository, driver) = (task.repository.clone(), ask.driver);
            self.backend.submit(Command::TakeDrive { repository, driver })?;
        }
        Ok(task)
    }

    fn ended(&self, repository: &RepositoryId, driver: verger_proto::Driver, failed: bool) {
        self.ended.lock().unwrap().push((repository.clone(), driver, failed));
    }

    fn is_able(&self, _: &Repository, _: verger_proto::LogTime) -> bool {
        false
    }

    fn keep(&self, _: &RepositoryId, cycle: CycleId, view: Digest, evidence: &Evidence) -> Result<OutputRef> {
        let (name, digest) = (format!("evidence/{cycle}"), Digest::of(evidence.names.join(" ").as_bytes()));
        Ok(OutputRef { name, digest, count: evidence.names.len() as u64, view })
    }
}

/// One coordinator, which lets others come and go and forgets them.
impl Members for FakeStand {
    fn status(&self) -> Value {
        json!({ "cluster": "attic", "node": 1, "leader": 1, "term": 1, "lastIndex": 7, "applied": 7, "level": 1, "nodes": [] })
    }

    fn admit(&self, _: &str, _: &Newcomer) -> std::result::Result<(), MembersError> {
        Ok(())
    }

    fn remove(&self, _: &str, _: u64) -> std::result::Result<(), MembersError> {
        Ok(())
    }
}

struct Keys(Vec<u8>);

impl Fetch for Keys {
    fn get(&self, url: &str) -> std::result::Result<Vec<u8>, String> {
        assert_eq!(url, "https://id.example/keys");
        Ok(self.0.clone())
    }
}

fn providers(keys: Vec<u8>, clock: Arc<SetClock>) -> Providers {
    let keys_url = Some("https://id.example/keys".to_owned());
    let source = Source { provider: provider(), keys_url, fetch: Box::new(Keys(keys)) };
    let pace = Pace { wait: std::time::Duration::from_secs(10), ..Pace::default() };
    Providers::start(vec![source], clock, pace).unwrap()
}

pub(super) struct Rig {
    pub(super) address: SocketAddr,
    pub(super) backend: Arc<FileBackend>,
    pub(super) hands: Arc<FakeHands>,
    pub(super) stand: Arc<FakeStand>,
    pub(super) desk: Arc<FakeDesk>,
    pub(super) clock: Arc<SetClock>,
    pub(super) folder: tempfile::TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        Self::of(limits, None)
    }

    /// Believes a provider with this key.
    pub(super) fn believing(signer: &Signer) -> Self {
        Self::of(Limits::default(), Some(published(&[signer])))
    }

    fn of(limits: Limits, keys: Option<Vec<u8>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock::new(Timestamp::from_second(1_700_000_000).unwrap()));
        let effects = Arc::new(Effects::new(Arc::new(LocalQueue::default())));
        let backend = Arc::new(FileBackend::open(folder.path(), clock.clone(), effects, None).unwrap());
        let owner = Bearer::parse(TOKEN).unwrap().hash();
        let gate = TokenGate::new(Some(owner), backend.clone(), clock.clone());
        let gate = match keys {
            Some(keys) => gate.with_providers(providers(keys, clock.clone())),
            None => gate,
        };
        let look: Look = Box::new(|wanted| Ok(found(wanted)));
        let (under_way, freed, handed) = (Mutex::default(), Mutex::default(), Mutex::default());
        let hands = Arc::new(FakeHands { look: Mutex::new(look), under_way, freed, handed });
        let stand = Arc::new(FakeStand(Mutex::new(Standing::Leads)));
        let desk = Arc::new(FakeDesk { backend: backend.clone(), ended: Mutex::default() });
        let api = Api {
            backend: backend.clone(),
            hands: hands.clone(),
            desk: desk.clone(),
            events: Arc::new(LedgerEvents::new(folder.path())),
            evidence: Shelf::new(&folder.path().join("work"), None),
            gate: Arc::new(gate),
            stand: stand.clone(),
            clock: clock.clone(),
            meters: Arc::new(meters()),
            version: "0.0.0-test".to_owned(),
            limits,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = runtime.spawn(serve(listener, Arc::new(api), async {
            let _ = stopped.await;
        }));
        let (stop, served) = (Some(stop), Some(served));
        Self { address, backend, hands, stand, desk, clock, folder, stop, served, runtime }
    }

    pub(super) fn look(&self, look: impl Fn(&Wanted) -> Result<Probed> + Send + Sync + 'static) {
        *self.hands.look.lock().unwrap() = Box::new(look);
    }

    /// Asks for a shutdown and waits until it is over.
    pub(super) fn shut_down(&mut self) {
        drop(self.stop.take());
        let served = self.served.take().unwrap();
        self.runtime
            .block_on(async { tokio::time::timeout(std::time::Duration::from_secs(5), served).await })
            .unwrap()
            .unwrap()
            .unwrap();
    }

    pub(super) fn call_with(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        let body = body.map(Value::to_string);
        let reply = call(self.address, text(method, path, token, headers, body.as_deref()).as_bytes());
        check(method, path, &reply);
        reply
    }

    pub(super) fn call(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.call_with(method, path, Some(TOKEN), &[], body.as_ref())
    }

    pub(super) fn get(&self, path: &str) -> Value {
        let reply = self.call("GET", path, None);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        reply.json()
    }

    pub(super) fn post(&self, path: &str, body: Value) -> Value {
        let reply = self.call("POST", path, Some(body));
        assert!(reply.status < 300, "{path}: {} {}", reply.status, reply.text);
        reply.json()
    }

    pub(super) fn follow(&self, path: &str, headers: &[(&str, &str)]) -> Messages {
        self.follow_as(TOKEN, path, headers)
    }

    pub(super) fn follow_as(&self, token: &str, path: &str, headers: &[(&str, &str)]) -> Messages {
        let (status, found, body) = send(self.address, text("GET", path, Some(token), headers, None).as_bytes());
        assert_eq!(status, 200, "{path}");
        assert!(found.iter().any(|(name, value)| name == "content-type" && value == "text/event-stream"), "{found:?}");
        Messages::new(body)
    }

    pub(super) fn new_repository(name: &str) -> Value {
        json!({
            "name": name,
            "address": format!("s3://attic/{name}/"),
            "password": { "env": "PHOTOS_PASSWORD" },
            "acting": "take-ownership",
        })
    }

    pub(super) fn add(&self, name: &str) -> RepositoryId {
        self.post("/v1/repositories", Self::new_repository(name))["id"].as_str().unwrap().parse().unwrap()
    }

    /// A token of this name, made by the owner: for one tenant, or for all.
    pub(super) fn token(&self, name: &str, tenant: Option<&str>, scopes: &[&str]) -> String {
        let mut body = json!({ "name": name, "scopes": scopes });
        match tenant {
            Some(tenant) => body["tenant"] = json!(tenant),
            None => body["allTenants"] = json!(true),
        }
        self.post("/v1/tokens", body)["token"].as_str().unwrap().to_owned()
    }

    pub(super) fn submit(&self, command: Command) -> Vec<Event> {
        let events = self.backend.submit(command).unwrap();
        assert!(!events.iter().any(|event| matches!(event, Event::CommandRefused { .. })), "{events:?}");
        events
    }

    pub(super) fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        let (mut look, mut found) = (Some(look), None);
        self.backend.look(&mut |state| found = look.take().map(|look| look(state)));
        found.unwrap()
    }

    pub(super) fn store(&self) -> StoreTime {
        StoreTime(u64::try_from(verger_kopia::clock::Clock::now(&*self.clock).as_millisecond()).unwrap())
    }

    pub(super) fn take_lease(&self, repository: &RepositoryId, term: u64) {
        let (store_now, acts_until) = (self.store(), self.store().plus(120_000));
        let (repository, term) = (repository.clone(), Term(term));
        self.submit(Command::TakeLease { repository, term, kept: false, store_now, acts_until });
    }

    /// Opens the cycle that was asked for first.
    pub(super) fn open_asked(&self, repository: &RepositoryId) -> CycleId {
        let options = self.state(|state| state.repositories[repository].requests[0].options);
        self.submit(Command::OpenCycle { repository: repository.clone(), options });
        self.state(|state| state.repositories[repository].open.unwrap())
    }

    /// A repository, its lease, and an open full cycle.
    pub(super) fn with_cycle(&self, name: &str) -> (RepositoryId, CycleId) {
        let repository = self.add(name);
        self.take_lease(&repository, 1);
        self.post(&format!("/v1/repositories/{name}/cycles"), json!({ "mode": "full" }));
        let cycle = self.open_asked(&repository);
        (repository, cycle)
    }

    pub(super) fn claim(&self, cycle: CycleId) -> (Ticket, JobSpec) {
        let spec = self.state(|state| {
            let cycle = &state.cycles[&cycle];
            cycle.spec(cycle.jobs.values().find(|job| !job.is_over()).unwrap())
        });
        let ticket = spec.ticket(&worker("w1"));
        self.submit(Command::ClaimJob { ticket: ticket.clone() });
        (ticket, spec)
    }

    pub(super) fn progress(&self, ticket: &Ticket, done: u64) {
        let progress = Some(Progress { done, total: 10, unit: Unit::Blobs });
        self.submit(Command::ReportProgress { ticket: ticket.clone(), progress });
    }

    pub(super) fn view(&self) -> ViewRef {
        ViewRef { digest: digest("view"), taken: self.store() }
    }

    fn header(&self, spec: &JobSpec, removed_bytes: u64) -> PlanHeader {
        let work = |(stage, items)| StageWork { stage, items, bytes: 10 * items };
        PlanHeader {
            repository: spec.repository.clone(),
            store: "s3://attic/photos/".to_owned(),
            view: self.state(|state| state.cycles[&spec.cycle].view.unwrap().0),
            term: spec.term,
            mode: spec.options.mode,
            stages: [(Stage::Delete, 2), (Stage::Index, 1)].into_iter().map(work).collect(),
            removed_bytes,
            total_packed_bytes: 100,
            contents: 10,
            live_contents: 4,
            body: output("plan"),
        }
    }

    /// Does the claimed job as a good worker does; a plan removes this much of 100.
    pub(super) fn finish(&self, (ticket, spec): (Ticket, JobSpec), removed: u64) {
        let items = self.state(|state| state.cycles[&spec.cycle].items());
        for (number, first) in (0..).zip(spec.done..items) {
            let batch = batch(spec.stage, number, first, 1);
            let (view, store_now) = (self.view(), self.store());
            let request = verger_proto::BatchRequest { batch, plan: spec.plan, view, store_now, wanted: 60_000 };
            self.submit(Command::ApproveBatch { ticket: ticket.clone(), request });
            self.submit(Command::BatchDone { ticket: ticket.clone(), outcome: done(batch) });
        }
        let mut report = JobReport::done(vec![output(&format!("{}-{}", spec.stage, spec.id))]);
        match spec.stage {
            Stage::Survey => report.view = Some(self.view()),
            Stage::Plan => report.plan = Some(self.header(&spec, removed)),
            Stage::Check => report.checked = spec.plan,
            _ => {}
        }
        self.submit(Command::CompleteJob { ticket, report: Box::new(report) });
    }

    pub(super) fn is_open(&self, cycle: CycleId) -> bool {
        self.state(|state| state.cycles.contains_key(&cycle))
    }

    pub(super) fn until(&self, cycle: CycleId, stage: Stage, removed: u64) {
        while self.state(|state| state.cycles[&cycle].stage) < stage {
            self.finish(self.claim(cycle), removed);
        }
    }

    /// Does all that is left, and says what was done.
    pub(super) fn run(&self, repository: &RepositoryId, cycle: CycleId) {
        self.run_to_report(repository, cycle, "{\"outcome\":\"done\",\"tasks\":{}}");
    }

    pub(super) fn run_to_report(&self, repository: &RepositoryId, cycle: CycleId, report: &str) {
        while self.is_open(cycle) {
            self.finish(self.claim(cycle), 0);
        }
        let report = report.to_owned();
        self.submit(Command::RecordReport { repository: repository.clone(), cycle, report });
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}
