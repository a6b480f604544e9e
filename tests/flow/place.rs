//! The fleet, its repositories and its workers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use verger_kopia::storage::address::BucketPrefix;
use verger_kopia::storage::s3::{S3Options, S3Storage};
use verger_kopia::storage::{Access, ByteRange, FsStorage, PutOptions, Storage, list_all};

use crate::coordinators::Fleet;
use crate::nats::NatsServer;
use crate::support::{Golden, Kopia, OWNER, PASSWORD, json, run, told, verger};
use crate::weed::{self, ACCESS_KEY, BUCKET, SECRET_KEY, Weed};

/// Where workers leave what others need.
const EXCHANGE: &str = "exch/a/";

/// A full cycle of a repository that nobody else uses.
pub(crate) fn full(name: &str) -> [&str; 9] {
    ["cycle", "start", name, "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100"]
}

/// All of it; ends with the value.
pub(crate) struct Flow {
    workers: BTreeMap<String, Child>,
    pub(crate) fleet: Fleet,
    pub(crate) nats: NatsServer,
    pub(crate) weed: Weed,
    token: PathBuf,
}

impl Flow {
    /// Three coordinators and both servers, and no worker yet; `None`, and a word, where there are no such servers.
    pub(crate) fn start() -> Option<Self> {
        weed::find()?;
        let nats = NatsServer::start()?;
        let weed = Weed::start()?;
        let fleet = Fleet::start_with(0, &["--nats", &nats.url()], &environment(&weed));
        let mut made = fleet.verger(&["token", "create", "work", "--scope", "work", "--all-tenants", "--quiet"]);
        let token = fleet.home.path().join("work-token");
        std::fs::write(&token, run(&mut made).stdout).unwrap();
        run(Command::new("chmod").arg("600").arg(&token));
        Some(Self { workers: BTreeMap::new(), fleet, nats, weed, token })
    }

    /// Begins a worker of one place that has the password.
    pub(crate) fn work(&mut self, name: &str) {
        self.work_with(name, &[]);
    }

    /// The same with more flags.
    pub(crate) fn work_with(&mut self, name: &str, flags: &[&str]) {
        let mut command = self.worker(name, &format!("s3://{BUCKET}/{EXCHANGE}"));
        self.begin(name, command.args(flags), true);
    }

    /// The same, which cuts cycles that it leads into pieces of this size.
    pub(crate) fn work_cutting(&mut self, name: &str, shard_bytes: &str, flags: &[&str]) {
        let mut command = self.worker_cutting(name, &format!("s3://{BUCKET}/{EXCHANGE}"), shard_bytes);
        self.begin(name, command.args(flags), true);
    }

    pub(crate) fn work_as(&mut self, name: &str, exchange: &str, knows_password: bool) {
        let mut command = self.worker(name, exchange);
        self.begin(name, &mut command, knows_password);
    }

    fn begin(&mut self, name: &str, command: &mut Command, knows_password: bool) {
        if knows_password {
            command.env("PHOTOS_PASSWORD", PASSWORD);
        }
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.log_of(name)).unwrap();
        let process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        assert!(self.workers.insert(name.to_owned(), process).is_none(), "{name} is there already");
    }

    /// The command that is a worker, without the password.
    pub(crate) fn worker(&self, name: &str, exchange: &str) -> Command {
        self.worker_cutting(name, exchange, "1KiB")
    }

    fn worker_cutting(&self, name: &str, exchange: &str, shard_bytes: &str) -> Command {
        let mut command = self.fleet.verger(&["worker", "--name", name, "--concurrency", "1"]);
        command.args(["--shard-bytes", shard_bytes]);
        command.arg("--token-file").arg(&self.token).args(["--exchange", exchange, "--nats", &self.nats.url()]);
        command.envs(environment(&self.weed));
        command
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.fleet.home.path().join(format!("worker-{name}"))
    }

    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.log_of(name)).unwrap_or_default()
    }

    /// Waits for the end of a worker that ends by itself, for at most so long; its exit code.
    pub(crate) fn ends(&mut self, name: &str, at_most: Duration) -> Option<i32> {
        let began = Instant::now();
        while self.is_there(name) {
            assert!(began.elapsed() < at_most, "{name} goes on: {}", self.log(name));
            std::thread::sleep(Duration::from_millis(20));
        }
        self.workers.remove(name).unwrap().wait().unwrap().code()
    }

    /// Whether its process has not ended.
    pub(crate) fn is_there(&mut self, name: &str) -> bool {
        self.workers.get_mut(name).unwrap().try_wait().unwrap().is_none()
    }

    /// As a service manager does that stops it.
    pub(crate) fn terminate(&self, name: &str) {
        kill_process(Pid::from_child(&self.workers[name]), Signal::TERM).unwrap();
    }

    /// As kill -9.
    pub(crate) fn kill(&mut self, name: &str) {
        let mut process = self.workers.remove(name).unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub(crate) fn freeze(&self, name: &str) {
        kill_process(Pid::from_child(&self.workers[name]), Signal::STOP).unwrap();
    }

    pub(crate) fn thaw(&self, name: &str) {
        kill_process(Pid::from_child(&self.workers[name]), Signal::CONT).unwrap();
    }

    /// Uploads a golden repository and registers it under its own name.
    pub(crate) fn add(&self, name: &str) -> Golden {
        self.add_as(name, name)
    }

    pub(crate) fn add_as(&self, golden: &str, name: &str) -> Golden {
        let golden = upload(&self.weed, golden, name);
        register(&self.fleet, name);
        golden
    }

    pub(crate) fn storage(&self, prefix: &str) -> S3Storage {
        storage(&self.weed, prefix)
    }

    /// Runs a full cycle to its end; its report.
    pub(crate) fn cycle(&self, name: &str) -> Value {
        self.fleet.json(&[&full(name)[..], &["--wait", "--json"]].concat())
    }

    /// What happened in a repository, of one kind. Whoever tells it may be killed meanwhile.
    pub(crate) fn events(&self, name: &str, kind: &str) -> Vec<Value> {
        events(&self.fleet, name, kind)
    }

    /// Waits until something has happened so often.
    pub(crate) fn waits_for(&self, name: &str, kind: &str, times: usize) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let found = self.events(name, kind);
            if found.len() >= times {
                return found;
            }
            assert!(began.elapsed() < Duration::from_secs(90), "{name}: {} of {times} {kind}", found.len());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Names of workers that did jobs of these stages.
    pub(crate) fn workers_of(&self, name: &str, stages: &[&str]) -> BTreeSet<String> {
        let is_meant = |job: &Value| stages.iter().any(|stage| job["stage"] == *stage);
        let offered = self.events(name, "job_offered");
        let jobs: BTreeSet<String> =
            offered.iter().filter(|job| is_meant(job)).map(|job| job_of(job, &job["job"])).collect();
        let done = self.events(name, "job_completed");
        let done = done.iter().filter(|event| jobs.contains(&job_of(event, &event["ticket"]["job"])));
        done.map(|event| process_of(event["ticket"]["worker"].as_str().unwrap())).collect()
    }

    /// Whoever leads the newest cycle, once it has begun to.
    pub(crate) fn lead(&self, name: &str, cycles: usize) -> String {
        self.waits_for(name, "cycle_opened", cycles);
        let began = Instant::now();
        loop {
            let offered = self.events(name, "job_offered");
            let survey = offered.iter().rev().find(|job| job["stage"] == "survey").map(|job| job_of(job, &job["job"]));
            let claims = self.events(name, "job_claimed");
            let claim = claims.iter().rev().find(|claim| Some(job_of(claim, &claim["ticket"]["job"])) == survey);
            if let Some(claim) = claim {
                return process_of(claim["ticket"]["worker"].as_str().unwrap());
            }
            assert!(began.elapsed() < Duration::from_secs(60), "nobody leads a cycle of {name}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Who leads a cycle that is open now, if anybody does.
    pub(crate) fn leads_now(&self, name: &str) -> Option<String> {
        let all = history(&self.fleet, name);
        let count = |kind: &str| all.iter().filter(|event| event["kind"] == kind).count();
        let surveys: BTreeSet<String> =
            all.iter().filter(|event| event["stage"] == "survey").map(|job| job_of(job, &job["job"])).collect();
        let mut claims = all.iter().rev().filter(|event| event["kind"] == "job_claimed");
        let last = claims.find(|claim| surveys.contains(&job_of(claim, &claim["ticket"]["job"])))?;
        let is_open = count("cycle_opened") > count("cycle_closed");
        is_open.then(|| process_of(last["ticket"]["worker"].as_str().unwrap()))
    }

    /// Nothing is left in the exchange but what says whose it is.
    pub(crate) fn exchange_is_empty(&self) {
        let began = Instant::now();
        loop {
            let left = list_all(&self.storage(EXCHANGE), "").unwrap();
            let left: Vec<String> = left.into_iter().map(|blob| blob.id.as_str().to_owned()).collect();
            if left == ["verger.exchange"] {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "the exchange has {left:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Sound, as Verger and the real program see it.
    pub(crate) fn verifies(&self, name: &str) {
        verifies(&self.weed, &self.fleet, name);
    }

    /// Workers as people see them: name and state.
    pub(crate) fn listed(&self) -> BTreeMap<String, String> {
        let all = self.fleet.json(&["worker", "list", "--json"]);
        let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
        all.as_array().unwrap().iter().map(|one| (text(one, "name"), text(one, "state"))).collect()
    }

    /// Waits until workers are listed so.
    pub(crate) fn waits_until_listed(&self, name: &str, state: &str) {
        let began = Instant::now();
        while self.listed().get(name).is_none_or(|now| now != state) {
            assert!(began.elapsed() < Duration::from_secs(60), "{name} is not {state}: {:?}", self.listed());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn job_of(event: &Value, job: &Value) -> String {
    format!("{}/{job}", event["cycle"])
}

/// What a process says at an address of this machine to whoever shows this token, or none: status and text. `None` if it does not answer.
pub(crate) fn get(address: &str, path: &str, token: Option<&str>) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    // Of the older protocol: the text comes in one piece, and its end is the connection's.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{token}\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, text) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, text.to_owned()))
}

/// The worker that a run is of.
pub(crate) fn process_of(run: &str) -> String {
    run.split('/').next().unwrap().to_owned()
}

/// Puts a golden repository into the bucket under a name.
pub(crate) fn upload(weed: &Weed, golden: &str, name: &str) -> Golden {
    let golden = Golden::unpack(golden);
    upload_as_it_is(weed, &golden, name);
    golden
}

/// The same of one that was unpacked, and may have been changed.
pub(crate) fn upload_as_it_is(weed: &Weed, golden: &Golden, name: &str) {
    let source = FsStorage::open(golden.repository(), Access::ReadOnly).unwrap();
    let target = storage(weed, &format!("fleet/{name}/"));
    for blob in list_all(&source, "").unwrap() {
        target.put(&blob.id, source.get(&blob.id, ByteRange::All).unwrap(), &PutOptions::default()).unwrap();
    }
}

/// Leaves a repository in the bucket to a fleet.
pub(crate) fn register(fleet: &Fleet, name: &str) {
    let address = format!("s3://{BUCKET}/fleet/{name}/");
    let mut command = fleet.verger(&["repo", "add", name, &address, "--password-env", "PHOTOS_PASSWORD"]);
    run(command.args(["--act-as", OWNER, "--exclusive"]));
}

pub(crate) fn storage(weed: &Weed, prefix: &str) -> S3Storage {
    let place = BucketPrefix { bucket: BUCKET.to_owned(), prefix: prefix.to_owned() };
    S3Storage::connect(S3Options::new(place, weed.settings())).unwrap()
}

pub(crate) fn events(fleet: &Fleet, name: &str, kind: &str) -> Vec<Value> {
    history(fleet, name).into_iter().filter(|event| event["kind"] == kind).collect()
}

/// All that happened in a repository.
fn history(fleet: &Fleet, name: &str) -> Vec<Value> {
    let began = Instant::now();
    let text = loop {
        let told = fleet.verger(&["events", "--repo", name, "--json"]).output().unwrap();
        if told.status.success() {
            break told.stdout;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{}", String::from_utf8_lossy(&told.stderr));
        std::thread::sleep(Duration::from_millis(100));
    };
    let lines = String::from_utf8(text).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn verifies(weed: &Weed, fleet: &Fleet, name: &str) {
    let mut command = verger(&fleet.home.path().join("other"));
    command.args(["verify", "--full", "--json", "--quiet", &format!("s3://{BUCKET}/fleet/{name}/")]);
    let report = json(&run(command.env("KOPIA_PASSWORD", PASSWORD).envs(environment(weed))));
    assert_eq!(report["problems"], serde_json::json!([]), "{name}");
    Kopia::verifies_s3(&endpoint(weed), BUCKET, &format!("fleet/{name}/"), ACCESS_KEY, SECRET_KEY);
}

/// As Kopia wants it: without the scheme.
pub(crate) fn endpoint(weed: &Weed) -> String {
    weed.endpoint().trim_start_matches("http://").to_owned()
}

pub(crate) fn environment(weed: &Weed) -> Vec<(String, String)> {
    let all = [
        ("AWS_S3_ENDPOINT", weed.endpoint()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ];
    all.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

impl Drop for Flow {
    fn drop(&mut self) {
        let names: Vec<String> = self.workers.keys().cloned().collect();
        for name in names {
            self.kill(&name);
            if std::thread::panicking() {
                let log = self.log(&name);
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                told(&format!("worker {name}:"));
                tail.into_iter().rev().for_each(told);
            }
        }
    }
}
