//! `verger-member`: a folder is made a member's once, and whoever lost it is not taken for who it was.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::image::secrets;
use crate::support::{free_port, json, run, verger};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/docker/member.sh");

/// Coordinators with what `deploy/compose/setup.sh` made.
struct Places {
    home: tempfile::TempDir,
    apis: Vec<u16>,
    peers: Vec<u16>,
    running: Vec<Child>,
}

impl Places {
    fn prepare() -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_verger"), home.path().join("bin/verger")).unwrap();
        if !secrets(&home.path().join("made")) {
            return None;
        }
        let ports = || (0..3).map(|_| free_port()).collect();
        Some(Self { home, apis: ports(), peers: ports(), running: Vec::new() })
    }

    fn made(&self, number: usize, name: &str) -> PathBuf {
        self.home.path().join(format!("made/coordinator-{number}")).join(name)
    }

    fn data(&self, number: usize) -> PathBuf {
        self.home.path().join(format!("data-{number}"))
    }

    fn api(&self, number: usize) -> String {
        format!("https://localhost:{}", self.apis[number - 1])
    }

    /// As the container of coordinator `number` has them.
    fn with_variables(&self, mut command: Command, number: usize) -> Command {
        let all: Vec<String> = (1..=3).map(|number| self.api(number)).collect();
        command.env("VERGER_ADDR", all.join(",")).env("VERGER_CA_FILE", self.made(number, "ca.pem"));
        command.env("VERGER_TOKEN_FILE", self.made(number, "config/verger/tokens/0.0.0.0_7420"));
        command.env("VERGER_DATA_DIR", self.data(number)).env("VERGER_API_ADDRESS", self.api(number));
        command.env("VERGER_PEER_ADDRESS", format!("localhost:{}", self.peers[number - 1]));
        command.env("XDG_CONFIG_HOME", self.made(number, "config"));
        command
    }

    fn member(&self, number: usize, arguments: &[&str]) -> Command {
        let path = format!("{}:{}", self.home.path().join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(SCRIPT);
        command.args(arguments).env_clear().env("PATH", path).env("HOME", self.home.path());
        command.env("POD_NAME", format!("verger-coordinator-{}", number - 1));
        self.with_variables(command, number)
    }

    fn start(&mut self, number: usize) {
        let (api, peer) = (self.apis[number - 1], self.peers[number - 1]);
        // It looks for the owner's token under the address at which it listens.
        let tokens = self.made(number, "config/verger/tokens");
        std::fs::copy(tokens.join("0.0.0.0_7420"), tokens.join(format!("127.0.0.1_{api}"))).unwrap();
        let mut command = self.with_variables(verger(self.home.path()), number);
        command.arg("coordinator").args(["--listen", &format!("127.0.0.1:{api}")]);
        command.args(["--peer-listen", &format!("127.0.0.1:{peer}")]);
        for (flag, name) in [
            ("--tls-cert", "api.pem"),
            ("--tls-key", "api.key"),
            ("--peer-cert", "peer.pem"),
            ("--peer-key", "peer.key"),
            ("--peer-ca", "peers.pem"),
        ] {
            command.arg(flag).arg(self.made(number, name));
        }
        let log = std::fs::File::create(self.home.path().join(format!("log-{number}"))).unwrap();
        let started = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.running.push(started);
    }

    fn told_by(&self, number: usize, arguments: &[&str]) -> Value {
        let mut command = self.with_variables(verger(self.home.path()), number);
        json(&run(command.env("VERGER_ADDR", self.api(number)).args(arguments).arg("--json")))
    }

    fn refusals(&self) -> usize {
        let mut command = self.with_variables(verger(self.home.path()), 1);
        let events = run(command.args(["events", "--json"])).stdout;
        String::from_utf8(events).unwrap().matches("\"command_refused\"").count()
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for mut process in self.running.drain(..) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn in_time(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(90), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_folder_becomes_a_members_once_and_a_lost_one_waits_for_a_person() {
    let Some(mut places) = Places::prepare() else { return };
    // The first one begins the cluster: nobody answers, and it was told to. Told so again, it leaves what is there.
    run(places.member(1, &[]).env("MEMBER_BEGIN", "attic"));
    let first = text(&places.data(1).join("member"));
    assert!(first.contains("attic"), "{first}");
    run(places.member(1, &[]).env("MEMBER_BEGIN", "attic"));
    run(&mut places.member(1, &["begin", "cellar"]));
    assert_eq!(text(&places.data(1).join("member")), first, "never begun again");
    places.start(1);
    // The others join by themselves, with the token that all have; whoever is told to begin joins, too, if somebody answers.
    for number in [2, 3] {
        run(places.member(number, &[]).env("MEMBER_BEGIN", "attic"));
        places.start(number);
    }
    in_time("three vote", || {
        let status = places.told_by(1, &["cluster", "status"]);
        status["nodes"].as_array().unwrap().iter().filter(|node| node["votes"] == true).count() == 3
    });
    // One token opens them all.
    assert_eq!(places.told_by(3, &["cluster", "status"])["nodes"].as_array().unwrap().len(), 3);

    // Number 2 loses its folder. It is refused once, and waits.
    let mut lost = places.running.remove(1);
    lost.kill().unwrap();
    lost.wait().unwrap();
    std::fs::remove_dir_all(places.data(2)).unwrap();
    let log = places.home.path().join("waits");
    let mut waits = places.member(2, &[]);
    let mut waits = waits.stderr(std::fs::File::create(&log).unwrap()).stdout(Stdio::null()).spawn().unwrap();
    in_time("it says what can be done", || text(&log).contains("verger-member replace OLD NUMBER"));
    std::thread::sleep(Duration::from_secs(6));
    assert!(waits.try_wait().unwrap().is_none(), "it does not start as who it was: {}", text(&log));
    assert!(!places.data(2).join("member").exists() && places.refusals() == 1);
    // A person says what it is.
    run(&mut places.member(2, &["replace", "2", "4"]));
    in_time("it goes on", || waits.try_wait().unwrap().is_some_and(|code| code.success()));
    assert!(text(&places.data(2).join("member")).contains("\"node\": 4"));
}

/// Number 1 lost its folder, and is still told to begin: it does not, for somebody answers. Nor for one who does not know it.
#[test]
fn nobody_begins_another_cluster_beside_one_that_answers() {
    let Some(mut places) = Places::prepare() else { return };
    run(&mut places.member(2, &["begin", "attic"]));
    places.start(2);
    in_time("it leads", || text(&places.home.path().join("log-2")).contains("coordinator 1 of attic"));
    for foreign in [false, true] {
        let mut member = places.member(1, &[]);
        if foreign {
            let token = places.home.path().join("foreign");
            std::fs::write(&token, format!("vgr_{}\n", "A".repeat(43))).unwrap();
            member.env("VERGER_TOKEN_FILE", token);
        }
        let log = places.home.path().join("waits");
        member.env("MEMBER_BEGIN", "attic").stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let mut waits = member.spawn().unwrap();
        in_time("it says what can be done", || text(&log).contains("verger-member begin NAME"));
        waits.kill().unwrap();
        waits.wait().unwrap();
        assert!(!places.data(1).join("joined").exists(), "{}", text(&log));
    }
}
