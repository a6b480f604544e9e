//! What workers say and hear: records in and out, and what is not theirs.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use verger_proto::envelope::{self, Kind};
use verger_proto::queue::Hint;
use verger_proto::report::Cut;
use verger_proto::work_queue::PublicKey;
use verger_proto::{
    Command, CommandId, CycleId, Digest, Driven, Driver, Event, Evidence, Failure, FailureKind, JobReport, Pool,
    Progress, RepositoryId, Stage, Ticket, Unit, WorkerId, WorkerInfo,
};

use super::super::work::{Ended, Heard, Instructions, Names, Presence, Ready, Said, Task, View, Word};
use super::client::send;
use super::rig::{FLEET, Rig, TOKEN};
use crate::drive::Backend as _;
use crate::others::is_left_by;
use crate::testing::{batch, failure, output, shards, worker, worker_info};

/// Bytes, as they come.
struct Raw {
    status: u16,
    body: Vec<u8>,
}

impl Raw {
    fn record<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{}", self.told());
        envelope::decode(Kind::Work, &self.body).unwrap()
    }

    fn told(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn error(&self) -> (u16, String) {
        let error: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        (self.status, error["error"].as_str().unwrap_or_default().to_owned())
    }
}

fn raw(rig: &Rig, method: &str, path: &str, token: &str, body: &[u8]) -> Raw {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: verger\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (status, _, mut answer) = send(rig.address, &[head.as_bytes(), body].concat());
    let mut body = Vec::new();
    std::io::Read::read_to_end(&mut answer, &mut body).unwrap();
    Raw { status, body }
}

fn tell<T: Serialize>(rig: &Rig, path: &str, token: &str, value: &T) -> Raw {
    raw(rig, "POST", path, token, &envelope::encode(Kind::Work, value).unwrap())
}

fn say(rig: &Rig, token: &str, command: Command) -> Raw {
    tell(rig, "/v1/work/commands", token, &Said { id: CommandId(7), command })
}

fn driven(driver: Driver, repository: &RepositoryId, command: Command) -> Command {
    Command::Driven(Box::new(Driven { driver, repository: repository.clone(), command }))
}

fn ready(pools: &[&str]) -> Ready {
    let driver = Driver { node: 5, boots: 0, run: 1 };
    Ready { driver, pools: pools.iter().map(|pool| Pool::new(*pool).unwrap()).collect() }
}

fn forbidden() -> (u16, String) {
    (403, "forbidden".to_owned())
}

/// Brings a cycle to its scan, which is cut.
fn cut(rig: &Rig, cycle: CycleId) {
    let (ticket, _) = rig.claim(cycle);
    let cut = Cut { stage: Stage::Scan, shards: shards(&["p8", "q8"]) };
    let view = Some(rig.view());
    let report = JobReport { cuts: vec![cut], view, ..JobReport::done(vec![output("survey")]) };
    rig.submit(Command::CompleteJob { ticket, report: Box::new(report) });
}

fn presence(name: &str, info: WorkerInfo, leaves: bool) -> Presence {
    Presence { worker: WorkerId::new(name).unwrap(), info, leaves }
}

#[test]
fn presence_is_told_of_its_fleet_and_of_draining_and_kept_once() {
    let rig = Rig::new();
    let token = rig.token("w", None, &["work"]);
    let key = PublicKey([7; 32]);
    rig.submit(Command::NoteWorkKey { node: 1, key });
    let here = |info: &WorkerInfo| tell(&rig, "/v1/work/presence", &token, &presence("cellar", info.clone(), false));
    let first: Instructions = here(&worker_info()).record();
    assert_eq!(first, Instructions { fleet: FLEET.to_owned(), drain: false, keys: vec![(1, key)] });
    let applied = rig.backend.applied();
    let _: Instructions = here(&worker_info()).record();
    assert_eq!(rig.backend.applied(), applied, "said again within a minute, it is no record");
    let shown = rig.get("/v1/workers");
    assert_eq!((&shown[0]["name"], &shown[0]["state"]), (&json!("cellar"), &json!("ready")));
    assert_eq!(rig.post("/v1/workers/cellar/drain", json!({}))["state"], "drained");
    assert!(here(&worker_info()).record::<Instructions>().drain);
    assert_eq!(rig.post("/v1/workers/cellar/drain", json!({ "drain": false }))["state"], "ready");
    assert_eq!(rig.call("POST", "/v1/workers/attic/drain", None).status, 404);
    // A later process of that name has it; the one before hears so, and what it leaves is not the later one's.
    let later = WorkerInfo { instance: 8, ..worker_info() };
    let _: Instructions = here(&later).record();
    assert_eq!(here(&worker_info()).status, 409);
    let gone = |info: WorkerInfo| tell(&rig, "/v1/work/presence", &token, &presence("cellar", info, true)).status;
    assert_eq!(gone(worker_info()), 200);
    rig.clock.advance(Duration::from_secs(91));
    assert_eq!(rig.get("/v1/workers")[0]["state"], "gone");
    assert_eq!(gone(later), 200);
    assert_eq!(rig.get("/v1/workers"), json!([]));
}

#[test]
fn a_worker_with_work_is_draining_until_it_is_done() {
    let rig = Rig::new();
    let token = rig.token("w", None, &["work"]);
    let _: Instructions = tell(&rig, "/v1/work/presence", &token, &presence("cellar", worker_info(), false)).record();
    let (_, cycle) = rig.with_cycle("photos");
    cut(&rig, cycle);
    let hints: Vec<Hint> = raw(&rig, "GET", "/v1/work/jobs?pools=default", &token, &[]).record();
    let ticket = hints[0].ticket(&worker("cellar/1.1"));
    let heard: Heard = say(&rig, &token, Command::ClaimJob { ticket: ticket.clone() }).record();
    assert!(matches!(heard.events[..], [Event::JobClaimed { .. }]));
    let drained = rig.post("/v1/workers/cellar/drain", json!({}));
    assert_eq!(drained["state"], "draining");
    assert_eq!(drained["jobs"], json!([{ "cycle": cycle.0, "job": ticket.job.0, "stage": "scan" }]));
    let metrics = rig.call("GET", "/metrics", None).text;
    for line in ["{state=\"ready\"} 0.0", "{state=\"draining\"} 1.0", "{state=\"drained\"} 0.0", "{state=\"gone\"} 0.0"]
    {
        assert!(metrics.contains(&format!("verger_workers{line}")), "{line}: {metrics}");
    }
    let report = Box::new(JobReport::done(vec![output("shard")]));
    let _: Heard = say(&rig, &token, Command::CompleteJob { ticket, report }).record();
    assert_eq!(rig.get("/v1/workers")[0]["state"], "drained");
}

#[test]
fn jobs_are_open_shards_of_ones_own_pools_and_tenants() {
    let rig = Rig::new();
    let (_, cycle) = rig.with_cycle("photos");
    let (all, own) = (rig.token("w", None, &["work"]), rig.token("o", Some("other"), &["work"]));
    let jobs = |token: &str, pools: &str| {
        raw(&rig, "GET", &format!("/v1/work/jobs?pools={pools}"), token, &[]).record::<Vec<Hint>>()
    };
    assert_eq!(jobs(&all, "default"), [], "the survey is its driver's");
    cut(&rig, cycle);
    let open = jobs(&all, "attic,default");
    assert_eq!(open.len(), 3);
    assert_eq!((jobs(&all, "attic"), jobs(&own, "default")), (Vec::new(), Vec::new()));
    let ticket = open[0].ticket(&worker("w2"));
    rig.submit(Command::ClaimJob { ticket: ticket.clone() });
    assert_eq!(jobs(&all, "default").len(), 2);
    let failure = failure(FailureKind::StoreUnavailable, true);
    rig.submit(Command::FailJob { ticket, failure });
    assert_eq!(jobs(&all, "default").len(), 2, "it rests");
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(jobs(&all, "default").len(), 3, "also while nothing happens");
    for path in ["/v1/work/jobs", "/v1/work/jobs?pools=", "/v1/work/jobs?pools=Attic!"] {
        assert_eq!(raw(&rig, "GET", path, &all, &[]).status, 400, "{path}");
    }
}

#[test]
fn how_far_a_shard_is_is_shown_at_once_and_kept_by_nobody() {
    let rig = Rig::new();
    let (_, cycle) = rig.with_cycle("photos");
    let (all, other) = (rig.token("w", None, &["work"]), rig.token("o", Some("other"), &["work"]));
    cut(&rig, cycle);
    let hints: Vec<Hint> = raw(&rig, "GET", "/v1/work/jobs?pools=default", &all, &[]).record();
    let ticket = hints[0].ticket(&worker("w2"));
    let say = |token: &str, ticket: &Ticket, done| {
        let progress = Progress { done, total: 10, unit: Unit::Blobs };
        tell(&rig, "/v1/work/progress", token, &Word { ticket: ticket.clone(), progress })
    };
    assert_eq!(say(&all, &ticket, 1).status, 409, "nobody claimed it");
    rig.submit(Command::ClaimJob { ticket: ticket.clone() });
    let applied = rig.backend.applied();
    rig.clock.advance(Duration::from_secs(2));
    assert_eq!(say(&all, &ticket, 4).status, 204);
    assert_eq!(say(&other, &ticket, 5).status, 404, "another tenant's");
    let elsewhere = Ticket { worker: worker("w3"), ..ticket.clone() };
    assert_eq!(say(&all, &elsewhere, 6).status, 409, "another worker's");
    let shown = rig.get(&format!("/v1/cycles/{}", cycle.0));
    let expected = json!({ "done": 4, "total": 0, "unit": "blobs", "perSecond": 2.0 });
    assert_eq!(shown["progress"], expected, "two more shards have not said what they hold");
    let job = shown["jobList"].as_array().unwrap().iter().find(|job| job["id"] == json!(ticket.job.0)).unwrap();
    assert_eq!(job["progress"], json!({ "done": 4, "total": 10, "unit": "blobs" }));
    assert_eq!(rig.backend.applied(), applied, "the ledger has none of it");
    for hint in &hints[1..] {
        let ticket = hint.ticket(&worker("w2"));
        rig.submit(Command::ClaimJob { ticket: ticket.clone() });
        assert_eq!(say(&all, &ticket, 3).status, 204);
    }
    let shown = rig.get(&format!("/v1/cycles/{}", cycle.0));
    let expected = json!({ "done": 10, "total": 30, "unit": "blobs", "perSecond": 5.0, "secondsLeft": 4.0 });
    assert_eq!(shown["progress"], expected);
    rig.submit(Command::FailJob { ticket, failure: failure(FailureKind::StoreUnavailable, true) });
    let shown = rig.get(&format!("/v1/cycles/{}", cycle.0));
    assert_eq!(shown["progress"]["done"], 6, "an attempt's words go with it");
}

#[test]
fn a_drive_is_its_tokens_and_nobody_elses() {
    let rig = Rig::new();
    let repository = rig.add("photos");
    let token = rig.token("w", None, &["work"]);
    let thief = rig.token("thief", None, &["work"]);
    let none = tell(&rig, "/v1/work/next", &token, &ready(&["attic"]));
    assert_eq!((none.status, none.body.len()), (204, 0));
    assert_eq!(tell(&rig, "/v1/work/next", &token, &ready(&["a"; 65])).status, 400);
    let task: Task = tell(&rig, "/v1/work/next", &token, &ready(&["default", "default"])).record();
    assert_eq!((&task.repository, task.registration.name.as_str()), (&repository, "photos"));
    assert_eq!(tell(&rig, "/v1/work/next", &token, &ready(&["default"])).status, 204);
    let said = ready(&[]).driver;
    let present = rig.state(|state| state.repositories[&repository].driver.unwrap().0);
    assert_eq!((present.node >> 63, present.run), (1, 1), "no coordinator is called so");
    let live: Heard = say(&rig, &token, driven(said, &repository, Command::Tick)).record();
    assert_eq!(live.events, []);
    // The name that the machine knows it by can be read. It opens nothing.
    for driver in [present, said] {
        for command in
            [driven(driver, &repository, Command::Tick), Command::LeaveDrive { repository: repository.clone(), driver }]
        {
            let heard: Heard = say(&rig, &thief, command).record();
            assert!(matches!(heard.events[..], [Event::CommandRefused { .. }]), "{heard:?}");
        }
    }
    let take = Command::TakeDrive { repository: repository.clone(), driver: Driver { boots: 99, ..present } };
    assert_eq!(say(&rig, &token, take).error(), forbidden());
    let ended = |token: &str| {
        let ended = Ended { repository: repository.clone(), driver: said, failed: true };
        assert_eq!(tell(&rig, "/v1/work/ended", token, &ended).status, 204);
        rig.desk.ended.lock().unwrap().pop().unwrap().1
    };
    assert_eq!(ended(&token), present);
    assert_ne!(ended(&thief), present);
    let left: Heard = say(&rig, &token, Command::LeaveDrive { repository, driver: said }).record();
    assert!(matches!(left.events[..], [Event::DriveLeft { .. }]));
}

#[test]
fn what_a_driver_alone_may_say_is_not_heard_of_others() {
    let rig = Rig::new();
    let (repository, cycle) = rig.with_cycle("photos");
    let token = rig.token("w", None, &["work"]);
    let task: Task = tell(&rig, "/v1/work/next", &token, &ready(&["default"])).record();
    assert_eq!(task.repository, repository);
    let (driver, thief) = (ready(&[]).driver, rig.token("thief", None, &["work"]));
    let spec = rig.state(|state| {
        let cycle = &state.cycles[&cycle];
        cycle.spec(cycle.jobs.values().next().unwrap())
    });
    let ticket = spec.ticket(&worker("cellar/1.1"));
    assert_eq!(say(&rig, &token, Command::ClaimJob { ticket: ticket.clone() }).error(), forbidden());
    let claimed: Heard =
        say(&rig, &token, driven(driver, &repository, Command::ClaimJob { ticket: ticket.clone() })).record();
    assert!(matches!(claimed.events[..], [Event::JobClaimed { .. }, ..]), "{:?}", claimed.events);
    let fail = Command::FailJob { ticket: ticket.clone(), failure: failure(FailureKind::Damaged, false) };
    assert_eq!(say(&rig, &thief, fail).error(), forbidden());
    for command in [
        Command::ParkCycle { cycle },
        Command::AbortCycle { cycle, reason: "enough".to_owned() },
        Command::LoseWorker { worker: ticket.worker.clone() },
        Command::DrainWorker { worker: worker("cellar"), drain: true },
    ] {
        assert_eq!(say(&rig, &thief, command).error(), forbidden());
    }
    let names = |ticket: &Ticket| Names {
        ticket: ticket.clone(),
        evidence: Evidence { batch: batch(Stage::Survey, 0, 0, 1), rule: "r".to_owned(), names: vec!["p1".to_owned()] },
    };
    assert_eq!(tell(&rig, "/v1/work/evidence", &token, &names(&ticket)).status, 200);
    assert_eq!(tell(&rig, "/v1/work/evidence", &thief, &names(&ticket)).status, 409);
    let other = Ticket { worker: worker("w9"), ..ticket };
    assert_eq!(tell(&rig, "/v1/work/evidence", &token, &names(&other)).status, 409);
}

#[test]
fn what_is_another_tenants_is_not_there_for_its_workers() {
    let rig = Rig::new();
    let (repository, cycle) = rig.with_cycle("photos");
    cut(&rig, cycle);
    let (own, other) = (rig.token("o", Some("default"), &["work"]), rig.token("x", Some("other"), &["work"]));
    let path = format!("/v1/work/state?repository={repository}");
    assert_eq!(raw(&rig, "GET", &path, &own, &[]).record::<View>().state.cycles.len(), 1);
    assert_eq!(raw(&rig, "GET", &path, &other, &[]).error().0, 404);
    assert_eq!(tell(&rig, "/v1/work/next", &other, &ready(&["default"])).status, 204);
    let ticket = rig.state(|state| {
        let cycle = &state.cycles[&cycle];
        cycle.spec(cycle.jobs.values().next().unwrap()).ticket(&worker("w2"))
    });
    let refused = say(&rig, &other, Command::ClaimJob { ticket: ticket.clone() }).error();
    let unknown = Ticket { cycle: CycleId(99), ..ticket };
    assert_eq!(refused, say(&rig, &other, Command::ClaimJob { ticket: unknown }).error(), "as if there were none");
    assert_eq!(refused.0, 404);
    let tick = driven(ready(&[]).driver, &repository, Command::Tick);
    assert_eq!(say(&rig, &other, tick).error().0, 404);
    let ended = Ended { repository, driver: ready(&[]).driver, failed: true };
    assert_eq!(tell(&rig, "/v1/work/ended", &other, &ended).status, 204);
    assert!(rig.desk.ended.lock().unwrap().is_empty());
}

#[test]
fn state_comes_at_once_when_it_is_another_and_waits_where_it_is_the_same() {
    let rig = Rig::with(super::super::Limits { followers: 1, ..super::super::Limits::default() });
    let (repository, cycle) = rig.with_cycle("photos");
    let path = |seen: &str| format!("/v1/work/state?repository={repository}&seen={seen}");
    let view: View = raw(&rig, "GET", &path(""), TOKEN, &[]).record();
    assert_eq!(view.state.open_cycle(&repository).unwrap().id, cycle);
    let known = view.digest().unwrap().to_string();
    let began = Instant::now();
    let changed: View = std::thread::scope(|scope| {
        let waits = scope.spawn(|| raw(&rig, "GET", &path(&known), TOKEN, &[]).record());
        std::thread::sleep(Duration::from_millis(400));
        assert!(!waits.is_finished());
        // As many as may be wait; who would not have to, is answered.
        assert_eq!(raw(&rig, "GET", &path(&known), TOKEN, &[]).error(), (503, "busy".to_owned()));
        assert_eq!(raw(&rig, "GET", &path("other"), TOKEN, &[]).status, 200);
        rig.submit(Command::ParkCycle { cycle });
        waits.join().unwrap()
    });
    assert!(began.elapsed() >= Duration::from_millis(400) && changed.applied > view.applied);
    assert_ne!(changed.state, view.state);
    assert_eq!(raw(&rig, "GET", "/v1/work/state?repository=nonsense", TOKEN, &[]).error().0, 404);
}

#[test]
fn bodies_that_are_no_records_of_work_are_refused() {
    let rig = Rig::new();
    let foreign = envelope::encode(Kind::Event, &ready(&["default"])).unwrap();
    let mut cut_short = envelope::encode(Kind::Work, &ready(&["default"])).unwrap();
    cut_short.pop();
    let bodies: [&[u8]; 4] = [b"", b"{}", &foreign, &cut_short];
    for path in ["presence", "next", "ended", "commands", "evidence"] {
        for body in bodies {
            let refused = raw(&rig, "POST", &format!("/v1/work/{path}"), TOKEN, body);
            assert_eq!(refused.error(), (400, "bad-request".to_owned()), "{path}: {}", refused.told());
        }
    }
    let long = vec![0; (1 << 20) + 1];
    assert_eq!(raw(&rig, "POST", "/v1/work/next", TOKEN, &long).error().0, 413);
    assert_eq!(raw(&rig, "POST", "/v1/work/commands", TOKEN, &long).error().0, 400, "reports are long");
}

/// A password that is missing on one worker: it gives the cycle back, is shown, and is told apart from all others when it asks again.
#[test]
fn a_worker_that_lacks_a_secret_says_so_for_itself_alone_and_people_see_the_place() {
    let rig = Rig::new();
    let repository = rig.add("photos");
    let (token, thief) = (rig.token("w", None, &["work"]), rig.token("thief", None, &["work"]));
    let other = rig.token("x", Some("other"), &["work"]);
    let _: Instructions = tell(&rig, "/v1/work/presence", &token, &presence("cellar", worker_info(), false)).record();
    let _: Task = tell(&rig, "/v1/work/next", &token, &ready(&["default"])).record();
    let present = rig.state(|state| state.repositories[&repository].driver.unwrap().0);
    let reason = "environment variable PHOTOS_PASSWORD (--password-env) is not set".to_owned();
    let note = Command::NoteShutOut {
        repository: repository.clone(),
        worker: WorkerId::new("cellar").unwrap(),
        driver: ready(&[]).driver,
        failure: Box::new(Failure { kind: FailureKind::Usage, text: reason.clone(), retryable: false }),
    };
    let numbered = |token: &str, id: u128, command: &Command| {
        tell(&rig, "/v1/work/commands", token, &Said { id: CommandId(id), command: command.clone() })
    };
    let is_left = |run: u64| {
        let asking = Driver { run, ..present };
        rig.state(|state| is_left_by(&state.repositories[&repository], asking, state.now))
    };
    // Who is called so by another token is somebody else: nobody keeps work from others.
    let heard: Heard = numbered(&thief, 1, &note).record();
    assert!(matches!(heard.events[..], [Event::WorkerUnable { .. }]) && !is_left(2), "{heard:?}");
    rig.clock.advance(Duration::from_secs(301));
    assert_eq!(numbered(&other, 2, &note).error().0, 404, "of another tenant's nothing is said");
    let heard: Heard = numbered(&token, 3, &note).record();
    assert!(matches!(heard.events[..], [Event::WorkerUnable { .. }]) && is_left(2), "{heard:?}");
    let _: Heard = numbered(&thief, 6, &note).record();
    assert!(is_left(2), "nor is it given to whoever cannot");
    let heard: Heard = numbered(&token, 4, &note).record();
    assert!(heard.events.is_empty(), "said again, it is no record");
    let leave = Command::LeaveDrive { repository: repository.clone(), driver: ready(&[]).driver };
    let _: Heard = numbered(&token, 5, &leave).record();
    assert!(rig.state(|state| state.repositories[&repository].driver.is_none()), "it is anybody's");
    let at = rig.get("/v1/workers")[0]["unable"][0].clone();
    assert_eq!(
        at,
        json!({ "repository": "photos", "error": "usage", "reason": reason, "since": "2023-11-14T22:18:21Z" })
    );
    let shown = rig.get("/v1/repositories/photos")["unable"][0].clone();
    assert_eq!(
        shown,
        json!({ "worker": "cellar", "error": "usage", "reason": reason, "since": "2023-11-14T22:18:21Z" })
    );
    rig.clock.advance(Duration::from_secs(301));
    rig.submit(Command::NoteWorkKey { node: 1, key: PublicKey([7; 32]) });
    assert!(!is_left(3) && rig.get("/v1/workers")[0]["unable"].is_null(), "it may have it by now");
}

/// What a fleet wrote, and which index it lost, is not in the state that crosses a wire as such: whoever leads elsewhere has to know it.
#[test]
fn r11_r22_a_view_has_all_that_is_known_of_its_repository() {
    let rig = Rig::new();
    let (repository, _) = rig.with_cycle("photos");
    let before: View = raw(&rig, "GET", &format!("/v1/work/state?repository={repository}&seen="), TOKEN, &[]).record();
    let (term, version) = (rig.state(|state| state.repositories[&repository].last_term), Digest::of(b"schedule"));
    rig.submit(Command::NoteWrite { repository: repository.clone(), term, version });
    rig.submit(Command::RecordProbe { repository: repository.clone(), probe: Box::new(crate::testing::store()) });
    let view: View = raw(&rig, "GET", &format!("/v1/work/state?repository={repository}&seen="), TOKEN, &[]).record();
    let known = rig.state(|state| state.repositories[&repository].clone());
    let entry = &view.state.repositories[&repository];
    assert!(entry.notes.wrote(&version) && entry.notes == known.notes && entry.store == known.store);
    assert_eq!(
        (&entry.drives, &entry.unable, entry.calendar.index),
        (&known.drives, &known.unable, known.calendar.index)
    );
    assert_ne!(view.digest().unwrap(), before.digest().unwrap());
}

/// Whoever waits for a cycle hears who cannot begin it, and that nobody can.
#[test]
fn who_waits_for_a_cycle_hears_that_nobody_who_is_there_can_open_it() {
    let rig = Rig::new();
    let repository = rig.add("photos");
    let token = rig.token("w", None, &["work"]);
    let (path, body) = ("/v1/repositories/photos/requests/one", json!({ "mode": "full" }));
    let key = [("Idempotency-Key", "one")];
    let asked = rig.call_with("POST", "/v1/repositories/photos/cycles", Some(TOKEN), &key, Some(&body));
    assert_eq!(asked.status, 202, "{}", asked.text);
    for name in ["cellar", "attic"] {
        let said = presence(name, worker_info(), false);
        let _: Instructions = tell(&rig, "/v1/work/presence", &token, &said).record();
    }
    let mut number = 0;
    let mut shut_out = |name: &str, node: u64, kind: FailureKind| {
        number += 1;
        let worker = WorkerId::new(name).unwrap();
        let failure = Box::new(Failure { kind, text: format!("{name} has another one"), retryable: false });
        let driver = Driver { node, boots: 0, run: 1 };
        let command = Command::NoteShutOut { repository: repository.clone(), worker, driver, failure };
        let _: Heard = tell(&rig, "/v1/work/commands", &token, &Said { id: CommandId(number), command }).record();
    };
    shut_out("cellar", 5, FailureKind::WrongPassword);
    let found = rig.get(path);
    assert_eq!(
        (&found["unable"][0]["worker"], &found["unable"][0]["error"]),
        (&json!("cellar"), &json!("wrong-password"))
    );
    assert!(found["shutOut"].is_null() && found["state"] == "queued", "{found}");
    shut_out("attic", 6, FailureKind::Permission);
    let found = rig.get(path);
    assert_eq!(found["shutOut"]["error"], "wrong-password", "{found}");
    let message = found["shutOut"]["message"].as_str().unwrap();
    assert!(message.contains("cellar has another one") && message.contains("attic has another one"), "{message}");
    rig.submit(Command::TakeDrive { repository, driver: Driver { node: 9, boots: 0, run: 1 } });
    assert!(rig.get(path)["shutOut"].is_null(), "somebody is at it");
}
