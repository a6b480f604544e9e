//! Passwords, keys and tokens go through a whole fleet in processes of their own: coordinators, NATS, an exchange and two workers that
//! share a cycle. Afterwards they are found nowhere but where they were put (S9).

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use memchr::memmem;
use rustix::process::{Pid, Signal, kill_process};
use verger_kopia::storage::{ByteRange, Storage as _, list_all};

use crate::canary::{Canaries, PAGES, change_password, files, holds};
use crate::collector::{Collector, Mood};
use crate::coordinators::Fleet;
use crate::nats::NatsServer;
use crate::place::{environment, events, full, get, process_of, register, storage, upload_as_it_is};
use crate::support::{Golden, free_address, json, run};
use crate::weed::{self, SECRET_KEY, Weed};

const NAME: &str = "photos";
/// What tells most.
const LOG: [&str; 2] = ["--log-level", "debug,verger=trace"];
const EXCHANGE: &str = "exchange";
const WORKERS: [&str; 2] = ["hand-1", "hand-2"];
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// Keeps what comes and goes below folders: each file has a second name elsewhere, under which its bytes are found when the first is gone.
struct Watch {
    over: Arc<AtomicBool>,
    looks: Option<JoinHandle<()>>,
}

impl Watch {
    /// All on one file system. What is seen of each folder is below `seen` in one of the same name, which is there.
    fn start(folders: Vec<PathBuf>, seen: PathBuf) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let looks = std::thread::spawn(move || {
            let mut known = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                for folder in &folders {
                    keep(folder, &seen.join(folder.file_name().unwrap()), &mut known);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { over, looks: Some(looks) }
    }

    fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.looks.take().unwrap().join().unwrap();
    }
}

/// Also when a check fails meanwhile.
impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// What goes while it is looked at is passed over. Numbers are the second names: the first are too long to be one.
fn keep(folder: &Path, seen: &Path, known: &mut BTreeSet<u64>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() {
            keep(&path, seen, known);
        } else if metadata.is_file() && !known.contains(&metadata.ino()) {
            let second = seen.join(known.len().to_string());
            if std::fs::hard_link(&path, second).is_ok() {
                known.insert(metadata.ino());
            }
        }
    }
}

/// A user of a NATS server: the seed, as `nk -gen user` says it, and the public key, as the server wants it. Prefix, 32 bytes, checksum.
fn nats_user(canaries: &mut Canaries) -> [String; 2] {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    // Behind the head of PKCS #8.
    let der = pair.serialize_der();
    let seed = &der[16..48];
    canaries.keep("seed of the NATS user (bytes)", seed);
    let text = base32(&checked(&[0x95, 0x00], seed));
    assert!(text.starts_with("SU") && text.len() == 58, "this is no seed of a user");
    canaries.keep("seed of the NATS user", text.as_bytes());
    [text, base32(&checked(&[0xa0], pair.public_key_raw()))]
}

/// With CRC-16 of XMODEM behind it.
fn checked(prefix: &[u8], key: &[u8]) -> Vec<u8> {
    let mut bytes = [prefix, key].concat();
    let mut sum: u16 = 0;
    for byte in &bytes {
        sum ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            sum = if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 };
        }
    }
    bytes.extend(sum.to_le_bytes());
    bytes
}

fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let digit = |five: &[u8]| {
        five.iter().chain([0; 4].iter()).take(5).fold(0usize, |number, bit| number << 1 | usize::from(*bit))
    };
    bits.chunks(5).map(|five| char::from(DIGITS[digit(five)])).collect()
}

/// A file that its owner alone reads.
fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    run(Command::new("chmod").arg("600").arg(path));
}

/// Everything that runs, and the folders that it works in.
struct Run {
    fleet: Fleet,
    nats: NatsServer,
    weed: Weed,
    spans: Collector,
    workers: Vec<Child>,
    /// Addresses of the workers' own pages.
    pages: Vec<String>,
    /// Secrets, as their owner puts them.
    secrets: tempfile::TempDir,
    /// The exchange, the workers' folders, and what was seen in them.
    scratch: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Run {
    /// Coordinators and servers; `None`, and a word, where there are no such servers.
    fn start(password: &str, canaries: &mut Canaries) -> Option<Self> {
        weed::find()?;
        let (secrets, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let [seed, public] = nats_user(canaries);
        let nats = NatsServer::start_with(|_| {
            let jetstream = "jetstream {\n  store_dir: \"STORE\"\n  sync_interval: always\n}\n";
            format!("{jetstream}authorization {{\n  users: [ {{ nkey: {public} }} ]\n}}\n")
        })?;
        write_secret(&secrets.path().join("nats.nk"), &format!("{seed}\n"));
        let weed = Weed::start()?;
        canaries.keep("key of the store", SECRET_KEY.as_bytes());
        let spans = Collector::start(Mood::Good);
        let mut environment = environment(&weed);
        for name in ["KOPIA_PASSWORD", "AZURE_STORAGE_SAS_TOKEN"] {
            environment.push((name.to_owned(), canaries.make(name)));
        }
        environment.extend([
            ("PHOTOS_PASSWORD".to_owned(), password.to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), spans.endpoint.clone()),
            ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "100".to_owned()),
        ]);
        let (url, seed) = (nats.url(), secrets.path().join("nats.nk").display().to_string());
        let flags = [&["--nats", &url, "--nats-nkey-file", &seed][..], &LOG].concat();
        let fleet = Fleet::start_with(0, &flags, &environment);
        let (workers, pages) = (Vec::new(), Vec::new());
        Some(Self { fleet, nats, weed, spans, workers, pages, secrets, scratch, environment })
    }

    /// What coordinators have made for themselves.
    fn keep_keys(&self, canaries: &mut Canaries) {
        for (id, place) in &self.fleet.nodes {
            let key = std::fs::read_to_string(self.fleet.home.path().join(format!("{id}.key"))).unwrap();
            canaries.keep(&format!("key of peer {id}"), &key.lines().nth(1).unwrap().as_bytes()[24..]);
            let key = std::fs::read_to_string(place.data.join("work-key")).unwrap();
            let digits = key.split_whitespace().nth(1).unwrap();
            let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
            canaries.keep(&format!("key that {id} signs hints with"), &bytes.collect::<Vec<u8>>());
        }
    }

    fn watch(&self) -> Watch {
        let mut folders = [EXCHANGE, WORKERS[0], WORKERS[1]].map(|name| self.folder(name)).to_vec();
        folders.iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        folders.push(self.nats.folder.path().join("store"));
        let seen = self.folder("seen");
        for folder in &folders {
            std::fs::create_dir_all(seen.join(folder.file_name().unwrap())).unwrap();
        }
        Watch::start(folders, seen)
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn work(&mut self, name: &str) {
        let address = free_address();
        let log = std::fs::File::create(self.fleet.home.path().join(format!("worker-{name}"))).unwrap();
        let exchange = format!("filesystem://{}", self.folder(EXCHANGE).display());
        let mut command = self.fleet.verger(&["worker", "--name", name, "--concurrency", "1", "--shard-bytes", "1KiB"]);
        command.args(["--exchange", &exchange, "--nats", &self.nats.url(), "--listen", &address]).args(LOG);
        command.arg("--nats-nkey-file").arg(self.secrets.path().join("nats.nk"));
        command.arg("--token-file").arg(self.secrets.path().join("token"));
        command.arg("--cache-dir").arg(self.folder(name));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.workers.push(process);
        self.pages.push(address);
    }

    fn waits_until_ready(&self) {
        for page in &self.pages {
            let began = Instant::now();
            while get(page, "/readyz", None).is_none_or(|(status, _)| status != 200) {
                assert!(began.elapsed() < ENDS_WITHIN, "a worker does not get ready");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Everything that can be read, from whoever can be asked. A coordinator that does not lead may send elsewhere.
    /// Each has an owner's token of its own.
    fn ask_everything(&self, owners: &[String], canaries: &mut Canaries) {
        let leader = self.fleet.leader();
        for (id, place) in &self.fleet.nodes {
            for path in PAGES.into_iter().chain(["/v1/workers", "/v1/cluster"]) {
                let mut answers = owners.iter().map(|owner| get(&place.api, path, Some(owner.trim())).unwrap());
                let (status, text) = answers.find(|(status, _)| *status != 401).unwrap();
                assert!(*id != leader || status == 200, "{path}: {status} {text}");
                canaries.said.push((format!("{path} of {id}"), text.into_bytes()));
            }
        }
        for page in &self.pages {
            for path in ["/healthz", "/readyz", "/metrics"] {
                let (status, text) = get(page, path, None).unwrap();
                assert_eq!(status, 200, "{path}: {text}");
                canaries.said.push((format!("{path} of a worker"), text.into_bytes()));
            }
        }
    }

    /// As a service manager does: what they say at their end is looked at, too.
    fn end(&mut self) {
        for process in &mut self.workers {
            kill_process(Pid::from_child(process), Signal::TERM).unwrap();
            let began = Instant::now();
            while process.try_wait().unwrap().is_none() {
                assert!(began.elapsed() < ENDS_WITHIN, "a worker goes on");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        self.workers.clear();
        for id in 1..=3 {
            assert!(self.fleet.stop(id), "coordinator {id} ended badly: {}", self.fleet.log(id));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for process in &mut self.workers {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The search finds what is there, in each form in which it is looked for. Otherwise it would prove nothing.
fn finds_what_is_planted(canaries: &Canaries) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("below")).unwrap();
    for (what, secret) in &canaries.all {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        for (form, bytes) in [
            ("raw", secret.clone()),
            ("base64", BASE64_STANDARD.encode(secret).into_bytes()),
            ("hex", hex.into_bytes()),
        ] {
            let path = folder.path().join("below/planted");
            std::fs::write(&path, [&b"before "[..], &bytes, b" after"].concat()).unwrap();
            let found = canaries.found_below(folder.path(), &[]);
            assert!(found.iter().any(|found| found.starts_with(&format!("{what} in "))), "{what} ({form}): {found:?}");
            assert!(canaries.found_below(folder.path(), &[folder.path().join("below")]).is_empty());
        }
    }
}

#[test]
fn secrets_go_through_a_fleet_and_a_cycle_that_is_shared_and_stay_where_they_are() {
    let (golden, mut canaries) = (Golden::unpack("epochs"), Canaries::default());
    let password = canaries.make("password of the repository");
    change_password(&golden, &password, &mut canaries);
    let Some(mut all) = Run::start(&password, &mut canaries) else { return };
    all.keep_keys(&mut canaries);
    let work = ["token", "create", "work", "--scope", "work", "--all-tenants", "--quiet"];
    let made = String::from_utf8(run(&mut all.fleet.verger(&work)).stdout).unwrap();
    canaries.token("token of the workers", &made);
    write_secret(&all.secrets.path().join("token"), &made);
    // Where those who use the command line have theirs.
    let tokens = all.fleet.home.path().join("config/verger/tokens");
    let owners: Vec<String> = files(&tokens).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    owners.iter().for_each(|token| canaries.token("token of the owner", token));
    finds_what_is_planted(&canaries);

    let watch = all.watch();
    WORKERS.iter().for_each(|name| all.work(name));
    all.waits_until_ready();
    upload_as_it_is(&all.weed, &golden, NAME);
    register(&all.fleet, NAME);
    let report = canaries.hear(all.fleet.verger(&full(NAME)).args(["--wait", "--json"]));
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
    assert_eq!(json(&report)["outcome"], "done");
    let done = events(&all.fleet, NAME, "job_completed");
    let by: BTreeSet<String> = done.iter().map(|done| process_of(done["ticket"]["worker"].as_str().unwrap())).collect();
    assert_eq!(by.len(), 2, "the cycle was not shared: {by:?}");

    all.ask_everything(&owners, &mut canaries);
    for arguments in [
        &["repo", "list", "--json"][..],
        &["repo", "show", NAME, "--json"],
        &["events", "--json"],
        &["worker", "list", "--json"],
        &["token", "list"],
        &["lease", "list"],
        &["cycle", "list"],
        &["cluster", "status"],
    ] {
        canaries.hear(&mut all.fleet.verger(arguments));
    }
    all.end();
    watch.end();
    canaries.said.push(("spans".to_owned(), all.spans.bytes()));
    canaries.said.push(("the log of NATS".to_owned(), all.nats.log().into_bytes()));
    let repository = storage(&all.weed, &format!("fleet/{NAME}/"));
    for blob in list_all(&repository, "").unwrap() {
        let bytes = repository.get(&blob.id, ByteRange::All).unwrap();
        canaries.said.push((format!("blob {}", blob.id.as_str()), bytes.to_vec()));
    }
    judge(&all, &canaries, &tokens);
}

fn judge(all: &Run, canaries: &Canaries, tokens: &Path) {
    let home = all.fleet.home.path();
    // Where each is kept, by whoever it belongs to; the workers' token and the seed lie in no folder that is looked at.
    let mut but = vec![tokens.to_owned()];
    for (id, place) in &all.fleet.nodes {
        but.extend([home.join(format!("{id}.key")), place.data.join("work-key")]);
    }
    let said = canaries.said.iter().flat_map(|(place, bytes)| canaries.found(place, bytes));
    let mut found: Vec<String> = said.collect();
    found.extend(canaries.found_below(home, &but));
    found.extend(canaries.found_below(all.scratch.path(), &[]));
    found.extend(canaries.found_below(&all.nats.folder.path().join("store"), &[]));
    assert_eq!(found, Vec::<String>::new());

    // And what was looked at was worth it.
    assert!(canaries.all.len() >= 16, "{} canaries", canaries.all.len());
    let seen = |name: &str| files(&all.folder("seen").join(name)).len();
    // An order and what came of it, of each of many shards.
    assert!(seen(EXCHANGE) > 20, "{} of the exchange's files were seen", seen(EXCHANGE));
    assert!(WORKERS.iter().all(|name| seen(name) > 0), "nothing was seen in the workers' folders");
    assert!(holds(&all.nats.folder.path().join("store"), "verger."), "no hint went through NATS");
    assert!(
        all.fleet.nodes.values().all(|place| holds(&place.data, "PHOTOS_PASSWORD")),
        "the password's place is kept"
    );
    for log in WORKERS.map(|name| home.join(format!("worker-{name}"))) {
        let text = std::fs::read(log).unwrap();
        assert!(memmem::find(&text, b"DEBUG").is_some() && memmem::find(&text, b"repository=photos").is_some());
    }
    assert!(memmem::find(&all.spans.bytes(), b"cycle full").is_some(), "there were spans");
    // Where they are kept they are found: whoever looks there knows what he looks for.
    for folder in [all.secrets.path(), tokens] {
        assert!(!canaries.found_below(folder, &[]).is_empty(), "nothing is found in {}", folder.display());
    }
}
