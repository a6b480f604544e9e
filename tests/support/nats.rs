//! A real nats-server: one for each value, on a free port of this machine, in a folder that goes away with it.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// `VERGER_TEST_NATS`, or `nats-server` on PATH. `None`: says loudly that something is not tested, or fails where it has to be.
pub fn find() -> Option<PathBuf> {
    let given = std::env::var_os("VERGER_TEST_NATS").map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found =
        given.or_else(|| std::env::split_paths(&paths).map(|path| path.join("nats-server")).find(|p| p.is_file()));
    if found.is_none() {
        assert!(
            std::env::var_os("VERGER_REQUIRE_NATS").is_none_or(|v| v != "1"),
            "VERGER_REQUIRE_NATS=1 and no nats-server"
        );
        // Straight to the descriptor: the test harness keeps what `eprintln` says of a passing test to itself.
        let text = "SKIPPED: no nats-server on PATH or at VERGER_TEST_NATS; the work queue is not tested against a real server";
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
    found
}

/// A running server; ends with the value.
pub struct NatsServer {
    program: PathBuf,
    child: Option<Child>,
    pub port: u16,
    pub folder: tempfile::TempDir,
}

impl NatsServer {
    /// JetStream, synced, and everybody may do everything.
    pub fn start() -> Option<Self> {
        Self::start_with(|_| "jetstream {\n  store_dir: \"STORE\"\n  sync_interval: always\n}\n".to_owned())
    }

    /// With a configuration made for the server's folder; its port is given beside it. `STORE` stands for the folder of its data.
    pub fn start_with(config: impl Fn(&Path) -> String) -> Option<Self> {
        let program = find()?;
        // Another process may take a free port before the server does.
        for _ in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            let store = folder.path().join("store");
            let text = config(folder.path()).replace("STORE", &store.display().to_string());
            fs::write(folder.path().join("nats.conf"), text).unwrap();
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let mut server = Self { program: program.clone(), child: None, port, folder };
            if server.launch() {
                return Some(server);
            }
        }
        panic!("nats-server does not start");
    }

    fn launch(&mut self) -> bool {
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-c"]).arg(self.folder.path().join("nats.conf"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = self.child.insert(command.spawn().unwrap());
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if child.try_wait().unwrap().is_some() {
                let _ = writeln!(std::io::stderr(), "nats-server ended:\n{}", self.log());
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
    }

    /// As kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Again, with what it had.
    pub fn restart(&mut self) {
        assert!(self.child.is_none() && self.launch(), "nats-server does not start again");
    }

    /// What it had is gone.
    pub fn forget(&self) {
        assert!(self.child.is_none());
        fs::remove_dir_all(self.folder.path().join("store")).unwrap();
    }

    /// It hangs: connections stay, nothing is answered.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Every byte that it keeps.
    pub fn kept(&self) -> Vec<u8> {
        let (mut bytes, mut folders) = (Vec::new(), vec![self.folder.path().join("store")]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { bytes.extend(fs::read(path).unwrap()) }
            }
        }
        bytes
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
