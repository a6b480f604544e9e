//! What is shipped beside the program to run it fits the program.

#![allow(clippy::unwrap_used)]

#[path = "deploy/chart.rs"]
mod chart;
#[path = "deploy/documents.rs"]
mod documents;
#[path = "deploy/flags.rs"]
mod flags;
#[path = "deploy/image.rs"]
mod image;
#[path = "deploy/manifests.rs"]
mod manifests;
#[path = "deploy/member.rs"]
mod member;
mod support;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{free_port, json, run, verger};

const UNIT: &str = include_str!("../deploy/systemd/verger.service");
const COORDINATOR: &str = include_str!("../deploy/systemd/verger-coordinator.service");
const WORKER: &str = include_str!("../deploy/systemd/verger-worker.service");
const PROGRAM: &str = env!("CARGO_BIN_EXE_verger");
/// Ten times the exposure that `systemd-analyze security` may find: 2.0 of 10.
const EXPOSURE_MAX: &str = "20";

/// The values of a key of the unit.
fn values(key: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn systemd_takes_the_unit_and_finds_it_shut() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return support::skipped("no systemd-analyze on PATH: it does not read the unit");
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, unit) in
        [("verger.service", UNIT), ("verger-coordinator.service", COORDINATOR), ("verger-worker.service", WORKER)]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, unit.replace("/usr/local/bin/verger", PROGRAM)).unwrap();
        let verified = run(Command::new("systemd-analyze").arg("verify").arg(&path));
        assert_eq!(String::from_utf8_lossy(&verified.stderr), "");
        let shut = ["security", "--offline=true", "--threshold", EXPOSURE_MAX];
        run(Command::new("systemd-analyze").args(shut).arg(&path));
    }
}

#[test]
fn the_units_own_command_line_tells_when_it_is_ready_and_ends_well_on_sigterm() {
    let home = tempfile::tempdir().unwrap();
    let (state, credentials) = (home.path().join("state"), home.path().join("credentials"));
    std::fs::create_dir(&credentials).unwrap();
    let exec = values("ExecStart");
    let arguments = exec[0].strip_prefix("/usr/local/bin/verger ").unwrap();
    let arguments = arguments.replace("${STATE_DIRECTORY}", state.to_str().unwrap());
    let arguments = arguments.replace("${CREDENTIALS_DIRECTORY}", credentials.to_str().unwrap());
    let socket = home.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let log = std::fs::File::create(home.path().join("log")).unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let mut service = verger(home.path());
    service.args(arguments.split(' ')).env("NOTIFY_SOCKET", &socket).env("VERGER_LISTEN", &listen);
    let mut service = service.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    assert_eq!(heard(&manager), "READY=1");
    let mut list = verger(home.path());
    list.env("VERGER_ADDR", format!("http://{listen}")).args(["repo", "list", "--json"]);
    assert_eq!(json(&run(&mut list)), serde_json::json!([]), "ready, and it answers");
    run(Command::new("kill").arg(service.id().to_string()));
    assert_eq!(heard(&manager), "STOPPING=1");
    assert!(service.wait().unwrap().success());
}

/// What the unit gives to a member's folder is understood: without a cluster it says so, and not that a flag is unknown.
#[test]
fn the_coordinators_own_command_line_is_understood() {
    let home = tempfile::tempdir().unwrap();
    let exec = COORDINATOR.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/verger ")).unwrap();
    let folder = home.path().to_str().unwrap();
    let arguments = exec.replace("${STATE_DIRECTORY}", folder).replace("${CREDENTIALS_DIRECTORY}", folder);
    let told = support::fails(verger(home.path()).args(arguments.split(' ')), 2);
    assert!(told.contains("belongs to no cluster"), "{told}");
}

/// Its flags are the worker's, and it is given as long as it drains.
#[test]
fn the_workers_own_command_line_has_flags_that_there_are() {
    let exec = WORKER.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/verger ")).unwrap();
    let line: Vec<String> = exec.split(' ').map(str::to_owned).collect();
    flags::assert_known(&line, "verger-worker.service");
    let drain: u64 = flags::value(&line, "drain-timeout").unwrap().trim_end_matches('s').parse().unwrap();
    let stop = WORKER.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    assert!(stop.parse::<u64>().unwrap() >= drain + 30);
}

fn heard(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let length = manager.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

/// Exit codes that end a service for good are those that `docs/exit-codes.md` gives to what does not mend by itself.
#[test]
fn restarts_are_prevented_for_codes_that_are_documented() {
    let codes = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/exit-codes.md")).unwrap();
    for unit in [UNIT, COORDINATOR, WORKER] {
        for code in prevented(unit) {
            assert!(codes.lines().any(|line| line.starts_with(&format!("| {code} |"))), "{code} is not documented");
        }
    }
}

/// Of two workers with one name the later one stays: an earlier one that came back would be the later one, and so on for ever.
#[test]
fn a_worker_whose_name_is_taken_does_not_come_back() {
    let ends = prevented(WORKER);
    assert!(ends.contains(&"2") && ends.contains(&"11"), "{ends:?}");
}

/// Exit codes after which systemd does not start the service again.
fn prevented(unit: &str) -> Vec<&str> {
    let value = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus=")).unwrap();
    value.split(' ').collect()
}
