//! Coordinators in processes of their own, with certificates of one authority, and the command line of one user.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::support::{PASSWORD, free_address, json, program, run, told, verger};

/// One coordinator.
pub struct Place {
    pub api: String,
    pub peer: String,
    pub data: PathBuf,
    pub process: Option<Child>,
}

/// Several coordinators of one cluster.
pub struct Fleet {
    pub home: tempfile::TempDir,
    pub nodes: BTreeMap<u64, Place>,
    pub workers: usize,
    /// Coordinators that run another build than the one under test.
    pub programs: BTreeMap<u64, PathBuf>,
    /// More flags and variables of every coordinator.
    pub flags: Vec<String>,
    pub environment: Vec<(String, String)>,
    issuer: Issuer<'static, KeyPair>,
}

impl Fleet {
    /// Three nodes that vote, each with workers.
    pub fn start(workers: usize) -> Self {
        Self::start_with(workers, &[], &[])
    }

    /// The same with more flags and variables.
    pub fn start_with(workers: usize, flags: &[&str], environment: &[(String, String)]) -> Self {
        let mut fleet = Self::empty(workers);
        fleet.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        fleet.environment = environment.to_vec();
        fleet.begin()
    }

    /// Three nodes of another build.
    pub fn start_as(workers: usize, program: &Path, flags: &[&str]) -> Self {
        let mut fleet = Self::empty(workers);
        fleet.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        fleet.programs = (1..=3).map(|id| (id, program.to_owned())).collect();
        fleet.begin()
    }

    fn begin(self) -> Self {
        let mut fleet = self;
        fleet.place(1);
        let data = fleet.nodes[&1].data.clone();
        run(fleet.verger(&["cluster", "init", "attic", "--node-id", "1", "--data-dir"]).arg(data));
        fleet.up(1);
        for id in 2..=3 {
            fleet.join(id, None);
        }
        fleet.wait_for_voters(&[1, 2, 3]);
        fleet
    }

    fn empty(workers: usize) -> Self {
        let (home, key) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(home.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let (nodes, programs) = (BTreeMap::new(), BTreeMap::new());
        let (flags, environment) = (Vec::new(), Vec::new());
        Self { home, nodes, workers, programs, flags, environment, issuer: Issuer::new(params, key) }
    }

    /// Addresses, a folder and a certificate for a coordinator that is not there yet.
    pub fn place(&mut self, id: u64) {
        let (api, peer) = (free_address(), free_address());
        let data = self.home.path().join(format!("data-{id}"));
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![format!("node-{id}")]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.home.path().join(format!("{id}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.home.path().join(format!("{id}.key")), key.serialize_pem()).unwrap();
        self.nodes.insert(id, Place { api, peer, data, process: None });
    }

    /// The command that makes a folder a member's.
    pub fn joining(&self, id: u64, replaces: Option<u64>) -> Command {
        let place = &self.nodes[&id];
        let mut command = self.verger(&["cluster"]);
        match replaces {
            Some(old) => command.args(["replace", &old.to_string()]),
            None => command.arg("join"),
        };
        command.args(["--node-id", &id.to_string(), "--peer-address", &place.peer, "--data-dir"]).arg(&place.data);
        command.args(["--api-address", &format!("http://{}", place.api)]);
        command
    }

    pub fn join(&mut self, id: u64, replaces: Option<u64>) {
        self.place(id);
        run(&mut self.joining(id, replaces));
        self.up(id);
    }

    /// Starts a coordinator on what is in its folder.
    pub fn up(&mut self, id: u64) {
        let mut command = self.coordinator(id);
        let log = self.home.path().join(format!("log-{id}"));
        let log = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        let process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.nodes.get_mut(&id).unwrap().process = Some(process);
    }

    pub fn coordinator(&self, id: u64) -> Command {
        let (place, home) = (&self.nodes[&id], self.home.path());
        let mut command = self.programs.get(&id).map_or_else(|| verger(home), |path| program(path, home));
        command.args(["coordinator", "--listen", &place.api, "--peer-listen", &place.peer]);
        command.args(["--workers", &self.workers.to_string(), "--data-dir"]).arg(&place.data);
        command.arg("--peer-cert").arg(home.join(format!("{id}.pem")));
        command.arg("--peer-key").arg(home.join(format!("{id}.key")));
        command.arg("--peer-ca").arg(home.join("ca.pem")).env("PHOTOS_PASSWORD", PASSWORD);
        command.args(&self.flags).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn kill(&mut self, id: u64) {
        let mut process = self.nodes.get_mut(&id).unwrap().process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self, id: u64) -> bool {
        let mut process = self.nodes.get_mut(&id).unwrap().process.take().unwrap();
        run(Command::new("kill").args(["-TERM", &process.id().to_string()]));
        process.wait().unwrap().success()
    }

    /// The user's command line; it knows every address.
    pub fn verger(&self, arguments: &[&str]) -> Command {
        let mut command = self.asking()();
        command.args(arguments);
        command
    }

    /// The same for somebody who is at work while coordinators come and go.
    pub fn asking(&self) -> impl Fn() -> Command + Send + use<> {
        let all: Vec<String> = self.nodes.values().map(|place| format!("http://{}", place.api)).collect();
        let (home, all) = (self.home.path().to_owned(), all.join(","));
        move || {
            let mut command = verger(&home);
            command.env("VERGER_ADDR", &all);
            command
        }
    }

    /// As it is told by one node alone.
    pub fn told_by(&self, id: u64, arguments: &[&str]) -> Output {
        let mut command = verger(self.home.path());
        command.env("VERGER_ADDR", format!("http://{}", self.nodes[&id].api)).args(arguments).output().unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        json(&run(&mut self.verger(arguments)))
    }

    pub fn status(&self) -> Value {
        let output = self.verger(&["cluster", "status", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Waits until there is a leader, and says who.
    pub fn leader(&self) -> u64 {
        let began = Instant::now();
        loop {
            if let Some(leader) = self.status()["leader"].as_u64()
                && self.nodes.get(&leader).is_some_and(|place| place.process.is_some())
            {
                return leader;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "nobody leads: {}", self.status());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn wait_for_voters(&self, expected: &[u64]) {
        let began = Instant::now();
        loop {
            let status = self.status();
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            let voters: Vec<u64> =
                nodes.iter().filter(|n| n["votes"] == true).map(|n| n["node"].as_u64().unwrap()).collect();
            if voters == expected && nodes.len() == expected.len() && status["leader"].is_u64() {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "voters are not {expected:?}: {status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn log(&self, id: u64) -> String {
        std::fs::read_to_string(self.home.path().join(format!("log-{id}"))).unwrap_or_default()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for place in self.nodes.values_mut() {
            if let Some(mut process) = place.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if std::thread::panicking() {
            for id in self.nodes.keys() {
                let log = self.log(*id);
                let tail: Vec<&str> = log.lines().rev().take(40).collect();
                told(&format!("coordinator {id}:"));
                tail.into_iter().rev().for_each(told);
            }
        }
    }
}

/// A copy of a folder and all in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}
