//! What the tests of the binary share: golden repositories, the binary, and the real `kopia` where it is on PATH.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

/// Password of all golden repositories.
pub const PASSWORD: &str = "golden";
/// Their maintenance owner.
pub const OWNER: &str = "owner@golden";

/// Says loudly that something was not tested; `tests/run.py` counts these lines.
pub fn skipped(reason: &str) {
    // Straight to the descriptor: the test harness keeps what `eprintln` says of a passing test to itself.
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED: {reason}");
}

/// Says something that helps to repeat a test, if its output is shown.
#[allow(clippy::print_stderr)]
pub fn told(text: &str) {
    eprintln!("{text}");
}

/// A port that nothing listens at, for a process that is started later. No test of this process gets it again, and it lies below those
/// that connections are given (from 32,768 on): one of them could have it by then. Other processes begin elsewhere, as chance has it.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(0..PORTS)));
    const PORTS: u16 = 22_000;
    let mut ports = (0..PORTS).map(|_| 10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("no port is free")
}

/// The same as an address of this machine.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Names of all golden repositories.
pub fn golden_names() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".tar.gz").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 27, "golden repositories are missing");
    names
}

/// An unpacked golden repository in a folder of its own, which goes with it.
pub struct Golden {
    pub folder: tempfile::TempDir,
    pub name: String,
    pub expect: Value,
}

impl Golden {
    pub fn unpack(name: &str) -> Self {
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.tar.gz"));
        let folder = tempfile::tempdir().unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(archive).unwrap()));
        archive.set_preserve_mtime(true);
        archive.unpack(folder.path()).unwrap();
        let expect = fs::read(folder.path().join(name).join("expect.json")).unwrap();
        Self { name: name.to_owned(), expect: serde_json::from_slice(&expect).unwrap(), folder }
    }

    pub fn repository(&self) -> PathBuf {
        self.folder.path().join(&self.name).join("repo")
    }

    pub fn address(&self) -> String {
        format!("filesystem://{}", self.repository().display())
    }

    /// A command of the binary with this repository's password and a state folder of its own.
    pub fn verger<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = verger(&self.folder.path().join("home"));
        command.env("KOPIA_PASSWORD", PASSWORD).args(arguments);
        command
    }

    /// `inspect WHAT`, as JSON.
    pub fn inspect(&self, what: &str, flags: &[&str]) -> Value {
        let address = self.address();
        let mut arguments = vec!["inspect", what, "--json"];
        arguments.extend(flags);
        arguments.push(&address);
        json(&run(&mut self.verger(arguments)))
    }

    /// Every file with its bytes: to show that nothing changed.
    pub fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.repository(), &mut files);
        files
    }
}

/// A command of the binary with a home of its own and none of the caller's settings.
pub fn verger(home: &Path) -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_verger")), home)
}

/// The same of another build.
pub fn program(path: &Path, home: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear();
    // A mutant is one of the whole program under test.
    for name in ["PATH", "TMPDIR", "RUST_BACKTRACE", "VERGER_MUTANT"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("HOME", home).env("XDG_STATE_HOME", home.join("state")).env("XDG_CONFIG_HOME", home.join("config"));
    command
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs a command that must fail with this code; its last line of standard error.
pub fn fails(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{errors}");
    errors.lines().last().unwrap_or_default().to_owned()
}

/// Standard output as one JSON document.
pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The real program on PATH, with settings of its own and connected to a repository.
pub struct Kopia {
    home: tempfile::TempDir,
}

impl Kopia {
    /// `None`, and a word, where there is no `kopia` on PATH.
    pub fn connect(repository: &Path) -> Option<Self> {
        if Command::new("kopia").arg("--version").output().is_err() {
            skipped("no kopia on PATH: the real program verifies nothing");
            return None;
        }
        let kopia = Self { home: tempfile::tempdir().unwrap() };
        let path = format!("--path={}", repository.display());
        let (user, host) = OWNER.split_once('@').unwrap();
        let who = [format!("--override-username={user}"), format!("--override-hostname={host}")];
        run(kopia.command(["repository", "connect", "filesystem", &path, &who[0], &who[1]]));
        Some(kopia)
    }

    /// Every snapshot and every content of a repository in a bucket, as the real program sees it.
    pub fn verifies_s3(endpoint: &str, bucket: &str, prefix: &str, key: &str, secret: &str) {
        match Self::connect_s3(endpoint, bucket, prefix, (key, secret), OWNER) {
            Some(kopia) => kopia.verifies(),
            None => skipped("no kopia on PATH: the real program verifies nothing on S3"),
        }
    }

    /// Connected to a repository in a bucket in this name; `None` where there is no `kopia` on PATH.
    pub fn connect_s3(endpoint: &str, bucket: &str, prefix: &str, keys: (&str, &str), name: &str) -> Option<Self> {
        Command::new("kopia").arg("--version").output().ok()?;
        let kopia = Self { home: tempfile::tempdir().unwrap() };
        let (user, host) = name.split_once('@').unwrap();
        let flags = [
            format!("--endpoint={endpoint}"),
            format!("--bucket={bucket}"),
            format!("--prefix={prefix}"),
            format!("--access-key={}", keys.0),
            format!("--secret-access-key={}", keys.1),
            format!("--override-username={user}"),
            format!("--override-hostname={host}"),
        ];
        run(kopia.command(["repository", "connect", "s3", "--disable-tls", "--region=us-east-1"]).args(&flags));
        Some(kopia)
    }

    /// A new repository in a folder, owned by [`OWNER`]; `None`, and a word, where there is no `kopia` on PATH.
    pub fn create(repository: &Path, flags: &[&str]) -> Option<Self> {
        if Command::new("kopia").arg("--version").output().is_err() {
            skipped("no kopia on PATH: a repository that it made is not tried");
            return None;
        }
        let kopia = Self { home: tempfile::tempdir().unwrap() };
        let path = format!("--path={}", repository.display());
        let (user, host) = OWNER.split_once('@').unwrap();
        let who = [format!("--override-username={user}"), format!("--override-hostname={host}")];
        run(kopia.command(["repository", "create", "filesystem", &path]).args(&who).args(flags));
        Some(kopia)
    }

    /// A new repository in a bucket, owned by [`OWNER`]; `None`, and a word, where there is no `kopia` on PATH.
    pub fn create_s3(endpoint: &str, bucket: &str, prefix: &str, keys: (&str, &str), flags: &[&str]) -> Option<Self> {
        if Command::new("kopia").arg("--version").output().is_err() {
            skipped("no kopia on PATH: object locks of a repository that it made are not extended");
            return None;
        }
        let kopia = Self { home: tempfile::tempdir().unwrap() };
        let (user, host) = OWNER.split_once('@').unwrap();
        let place = [
            format!("--endpoint={endpoint}"),
            format!("--bucket={bucket}"),
            format!("--prefix={prefix}"),
            format!("--access-key={}", keys.0),
            format!("--secret-access-key={}", keys.1),
            format!("--override-username={user}"),
            format!("--override-hostname={host}"),
        ];
        let create = kopia.command(["repository", "create", "s3", "--disable-tls", "--region=us-east-1"]);
        run(create.args(&place).args(flags));
        Some(kopia)
    }

    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> &mut Command {
        let mut command = Box::new(Command::new("kopia"));
        self.of(command.args(arguments));
        // A test is short; the command lives as long as it.
        Box::leak(command)
    }

    /// Makes a command one of this connection.
    pub fn of(&self, command: &mut Command) {
        let home = self.home.path();
        command
            .env("KOPIA_PASSWORD", PASSWORD)
            .env("KOPIA_CHECK_FOR_UPDATES", "false")
            .env("KOPIA_CONFIG_PATH", home.join("repository.config"))
            .env("KOPIA_CACHE_DIRECTORY", home.join("cache"))
            .env("KOPIA_LOG_DIR", home.join("log"));
    }

    /// The connection file.
    pub fn config(&self) -> PathBuf {
        self.home.path().join("repository.config")
    }

    /// Every snapshot with all bytes of its files, and every content.
    pub fn verifies(&self) {
        run(self.command(["snapshot", "verify", "--verify-files-percent=100"]));
        run(self.command(["content", "verify", "--full"]));
    }
}
