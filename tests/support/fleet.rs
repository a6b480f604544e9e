//! `verger up` in a process of its own, with flags and an environment, and the command line of its users.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{free_port, told, verger};

pub struct Fleet {
    pub home: tempfile::TempDir,
    pub port: u16,
    pub scheme: &'static str,
    pub environment: Vec<(String, String)>,
    process: Option<Child>,
}

impl Fleet {
    /// Starts it; `flags` besides the data folder and the address.
    pub fn start(home: tempfile::TempDir, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let port = free_port();
        let scheme = if flags.contains(&"--tls-cert") { "https" } else { "http" };
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut fleet = Self { home, port, scheme, environment, process: None };
        fleet.again(flags);
        fleet
    }

    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// Starts it on the same data.
    pub fn again(&mut self, flags: &[&str]) {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.log()).unwrap();
        let mut command = verger(self.home.path());
        command
            .args(["up", "--listen", &format!("127.0.0.1:{}", self.port), "--data-dir"])
            .arg(self.data())
            .args(flags);
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        self.process = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Waits until it ends by itself; its exit code.
    pub fn ends(&mut self) -> Option<i32> {
        let (mut process, began) = (self.process.take().unwrap(), Instant::now());
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status.code();
            }
            if began.elapsed() > Duration::from_secs(60) {
                self.process = Some(process);
                panic!("it goes on");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn base(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.port)
    }

    /// Of whoever started it.
    pub fn owner(&self, arguments: &[&str]) -> Command {
        let mut command = self.of(self.home.path(), arguments);
        command.env("VERGER_ADDR", format!("{}://127.0.0.1:{}", self.scheme, self.port));
        command
    }

    /// Of somebody with another home.
    pub fn of(&self, home: &Path, arguments: &[&str]) -> Command {
        let mut command = verger(home);
        command.env("VERGER_ADDR", self.base()).args(arguments);
        command
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            told(&std::fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}
