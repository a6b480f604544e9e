//! Workers that have a wrong password, or keys that the store refuses: they leave the repository to whoever has the right ones, name where
//! the wrong ones come from, and nobody waits for ever.

#![allow(clippy::unwrap_used)]

#[path = "support/coordinators.rs"]
mod coordinators;
mod support;
#[cfg(feature = "s3")]
#[path = "../kopia/tests/support/weed.rs"]
mod weed;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coordinators::Fleet;
use serde_json::Value;
use support::{Golden, OWNER, PASSWORD, fails, json, run, told};

/// Three coordinators, most of which do no work themselves, and workers.
struct Yard {
    fleet: Fleet,
    token: PathBuf,
    workers: Vec<(String, Child)>,
}

impl Yard {
    fn start(environment: &[(String, String)]) -> Self {
        Self::of(Fleet::start_with(0, &[], environment))
    }

    fn of(fleet: Fleet) -> Self {
        let made = fleet.json(&["token", "create", "cellar", "--scope", "work", "--all-tenants", "--json"]);
        let token = fleet.home.path().join("token");
        std::fs::write(&token, made["token"].as_str().unwrap()).unwrap();
        Self { fleet, token, workers: Vec::new() }
    }

    fn add(&self, address: &str) {
        self.add_with(address, ["--password-env", "PHOTOS_PASSWORD"]);
    }

    fn add_with(&self, address: &str, password: [&str; 2]) {
        let add = ["repo", "add", "photos", address, "--act-as", OWNER, "--exclusive"];
        run(self.fleet.verger(&add).args(password));
    }

    fn work(&mut self, name: &str, password: &str, environment: &[(&str, &str)], flags: &[&str]) {
        let mut command = self.fleet.verger(&["worker", "--name", name, "--concurrency", "1", "--token-file"]);
        command.arg(&self.token).args(flags).env("PHOTOS_PASSWORD", password);
        command.envs(self.fleet.environment.clone()).envs(environment.iter().copied()).stdin(Stdio::null());
        let log = std::fs::File::create(self.log_of(name)).unwrap();
        let process = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.workers.push((name.to_owned(), process));
        let began = Instant::now();
        while !self.fleet.json(&["worker", "list", "--json"]).to_string().contains(name) {
            assert!(began.elapsed() < Duration::from_secs(60), "{name} is not there: {}", self.log(name));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.fleet.home.path().join(format!("worker-{name}"))
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.log_of(name)).unwrap_or_default()
    }

    fn cycle(&self, flags: &[&str]) -> Command {
        self.cycle_as("one", flags)
    }

    fn cycle_as(&self, key: &str, flags: &[&str]) -> Command {
        let margins = ["--safety", "none", "--i-am-alone", "--allow-removing", "100", "--key", key];
        let mut command = self.fleet.verger(&["cycle", "start", "photos", "--full"]);
        command.args(margins).args(flags);
        command
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        let output = run(&mut self.fleet.verger(&["events", "--json", "--repo", "photos"]));
        let text = String::from_utf8(output.stdout).unwrap();
        let all = text.lines().map(|line| serde_json::from_str(line).unwrap());
        all.filter(|event: &Value| event["kind"] == kind).collect()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for (_, process) in &mut self.workers {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            for (name, _) in &self.workers {
                told(&format!("worker {name}:\n{}", self.log(name)));
            }
        }
    }
}

#[test]
fn a_wrong_password_is_told_at_once_and_the_wish_is_done_by_a_worker_that_has_the_right_one() {
    let golden = Golden::unpack("default");
    let mut yard = Yard::start(&[]);
    yard.add(&golden.address());
    yard.work("hasty", "not-it-at-all", &[], &[]);
    let began = Instant::now();
    let told = fails(&mut yard.cycle(&["--wait"]), 12);
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    assert!(
        told.contains("hasty: open photos with the password in the environment variable PHOTOS_PASSWORD"),
        "{told}"
    );
    assert!(told.contains("--key one") && !told.contains("not-it-at-all"), "{told}");
    let shown = yard.fleet.json(&["repo", "show", "photos", "--json"]);
    assert_eq!(
        (&shown["unable"][0]["worker"], &shown["unable"][0]["error"]),
        (&"hasty".into(), &"wrong-password".into())
    );
    assert_eq!(shown["queued"], 1, "what was wished is remembered");
    // It asks on, and is not given it again.
    std::thread::sleep(Duration::from_secs(5));
    let given = yard.events("drive_taken").len();
    assert!(given == 1 && yard.events("request_dropped").is_empty(), "it was given {given} times");
    yard.work("careful", PASSWORD, &[], &[]);
    let report = json(&run(&mut yard.cycle(&["--wait", "--json"])));
    assert_eq!(report["outcome"], "done", "{report}");
    let unable = yard.events("worker_unable");
    assert_eq!((unable.len(), &unable[0]["worker"]), (1, &"hasty".into()), "{unable:?}");
    let log = yard.log("hasty");
    assert!(log.contains("a cycle is left to others") && !log.contains("not-it-at-all"), "{log}");
    let report = json(&run(&mut golden.verger(["verify", "--full", "--json", "--quiet", &golden.address()])));
    assert_eq!(report["problems"], serde_json::json!([]));
}

/// Coordinators that run cycles themselves: the wish is answered at once where nobody else could do it, and left to a worker that may.
#[test]
fn coordinators_with_a_wrong_password_leave_a_cycle_to_a_worker_and_without_one_say_so_at_once() {
    let (golden, secrets) = (Golden::unpack("default"), tempfile::tempdir().unwrap());
    let [own, workers] = ["own", "workers"].map(|name| secrets.path().join(name));
    for folder in [&own, &workers] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("photos"), PASSWORD).unwrap();
    }
    let mut yard = Yard::of(Fleet::start_with(1, &["--secrets", own.to_str().unwrap()], &[]));
    yard.add_with(&golden.address(), ["--password-secret", "photos"]);
    std::fs::write(own.join("photos"), "not-it-at-all").unwrap();
    let told = fails(&mut yard.cycle(&["--wait"]), 12);
    assert!(told.contains("open photos with the password in the mounted secret photos"), "{told}");
    assert_eq!(yard.events("request_dropped").len(), 1, "nobody else could come to it");
    yard.work("careful", "unused", &[], &["--secrets", workers.to_str().unwrap()]);
    let report = json(&run(&mut yard.cycle_as("two", &["--wait", "--json"])));
    assert_eq!(report["outcome"], "done", "{report}");
    assert_eq!(yard.events("request_dropped").len(), 1);
    let unable = yard.events("worker_unable");
    assert!(unable.iter().all(|one| one["worker"].as_str().unwrap().starts_with("coordinator-")), "{unable:?}");
}

/// Keys that are wrong, and keys that may only read: nothing was begun with either, though the second one could look at everything.
#[cfg(feature = "s3")]
#[test]
fn keys_that_the_store_refuses_are_named_and_cost_neither_the_wish_nor_a_shard_an_attempt() {
    use verger_kopia::storage::address::BucketPrefix;
    use verger_kopia::storage::s3::{S3Options, S3Storage};
    use verger_kopia::storage::{Access, ByteRange, FsStorage, PutOptions, Storage, list_all};
    use weed::{ACCESS_KEY, BUCKET, SECRET_KEY, Weed};
    let Some(server) = Weed::start() else { return };
    let golden = Golden::unpack("epochs");
    let source = FsStorage::open(golden.repository(), Access::ReadOnly).unwrap();
    let place = BucketPrefix { bucket: BUCKET.to_owned(), prefix: "shut/".to_owned() };
    let target = S3Storage::connect(S3Options::new(place, server.settings())).unwrap();
    for blob in list_all(&source, "").unwrap() {
        target.put(&blob.id, source.get(&blob.id, ByteRange::All).unwrap(), &PutOptions::default()).unwrap();
    }
    let all = [
        ("AWS_S3_ENDPOINT", server.endpoint()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ];
    let mut yard = Yard::start(&all.map(|(name, value)| (name.to_owned(), value)));
    yard.add(&format!("s3://{BUCKET}/shut/"));
    let exchange = format!("filesystem://{}", yard.fleet.home.path().join("exchange").display());
    let flags = ["--exchange", &exchange, "--shard-bytes", "1KiB"];
    yard.work("refused", PASSWORD, &[("AWS_SECRET_ACCESS_KEY", "guessed-key")], &flags);
    let reader = [("AWS_ACCESS_KEY_ID", "verger-reader"), ("AWS_SECRET_ACCESS_KEY", "verger-reader-secret")];
    yard.work("reader", PASSWORD, &reader, &flags);
    let told = fails(&mut yard.cycle(&["--wait"]), 20);
    for name in ["refused", "reader"] {
        let place = "open photos with the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        assert!(told.contains(&format!("{name}: {place}")), "{told}");
    }
    assert!(!told.contains("guessed-key") && !told.contains("verger-reader-secret"), "{told}");
    assert!(yard.events("cycle_opened").is_empty() && yard.events("request_dropped").is_empty());
    // This repository has keys of its own, beside those of all others, which the store refuses.
    let guessed = ("AWS_SECRET_ACCESS_KEY", "guessed-key");
    let (id, key) = ("VERGER_REPO_PHOTOS_AWS_ACCESS_KEY_ID", "VERGER_REPO_PHOTOS_AWS_SECRET_ACCESS_KEY");
    yard.work("variables", PASSWORD, &[guessed, (id, ACCESS_KEY), (key, SECRET_KEY)], &flags);
    // A later process has other keys, and no shard of the one that leads is spent on it.
    yard.work("late", PASSWORD, &[("AWS_SECRET_ACCESS_KEY", "guessed-key")], &flags);
    let report = json(&run(&mut yard.cycle(&["--wait", "--json"])));
    assert_eq!(report["outcome"], "done", "{report}");
    let failed = yard.events("job_failed");
    assert!(failed.is_empty() && yard.events("shard_split").is_empty(), "{failed:?}");

    // The same in a folder, as Kubernetes mounts a secret; wrong ones there are named by it.
    let secrets = yard.fleet.home.path().join("secrets");
    std::fs::create_dir_all(secrets.join("photos")).unwrap();
    let write = |name: &str, value: &str| std::fs::write(secrets.join("photos").join(name), value).unwrap();
    write("AWS_ACCESS_KEY_ID", ACCESS_KEY);
    write("AWS_SECRET_ACCESS_KEY", "guessed-key");
    run(&mut yard.fleet.verger(&["worker", "drain", "variables"]));
    let began = Instant::now();
    while !yard.log("variables").contains("nothing new is taken") {
        assert!(began.elapsed() < Duration::from_secs(60), "it takes work on: {}", yard.log("variables"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let with_folder = [&flags[..], &["--secrets", secrets.to_str().unwrap()]].concat();
    yard.work("folder", PASSWORD, &[], &with_folder);
    let told = fails(&mut yard.cycle_as("two", &["--wait"]), 20);
    let place = format!("folder: open photos with the keys in {}", secrets.join("photos").display());
    assert!(told.contains(&place) && !told.contains("guessed-key"), "{told}");
    write("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    yard.work("folder-again", PASSWORD, &[guessed], &with_folder);
    let report = json(&run(&mut yard.cycle_as("two", &["--wait", "--json"])));
    assert_eq!(report["outcome"], "done", "{report}");
}
