//! Three coordinators as their users meet them: real processes with mutual TLS, kill -9 in between.

#![allow(clippy::unwrap_used)]

#[path = "support/coordinators.rs"]
mod fleet;
mod support;

use std::time::{Duration, Instant};

use fleet::{Fleet, copy};
use serde_json::Value;
use support::{Golden, Kopia, OWNER, fails, json, run};

/// Kills of leaders and followers, in all cycles together.
const KILLS: usize = 50;

const FULL: [&str; 9] =
    ["cycle", "start", "photos", "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100"];

fn verified(golden: &Golden) {
    let report = json(&run(&mut golden.verger(["verify", "--full", "--json", "--quiet", &golden.address()])));
    assert_eq!(report["problems"], serde_json::json!([]));
    if let Some(kopia) = Kopia::connect(&golden.repository()) {
        kopia.verifies();
    }
}

fn add(fleet: &Fleet, name: &str, golden: &Golden) {
    let address = golden.address();
    let mut command = fleet.verger(&["repo", "add", name, &address, "--password-env", "PHOTOS_PASSWORD"]);
    run(command.args(["--act-as", OWNER, "--exclusive"]));
}

#[test]
fn a_cycle_runs_wherever_there_is_a_worker_and_any_node_takes_commands() {
    let golden = Golden::unpack("default");
    let fleet = Fleet::start(1);
    add(&fleet, "photos", &golden);
    let report = fleet.json(&[&FULL[..], &["--wait", "--json"]].concat());
    assert_eq!(report["outcome"], "done", "{report}");
    for id in 1..=3 {
        let told = fleet.told_by(id, &["cycle", "list", "photos", "--json"]);
        assert!(told.status.success());
        assert_eq!(json(&told).as_array().unwrap().len(), 1, "node {id}");
        assert!(fleet.told_by(id, &["repo", "suspend", "photos"]).status.success(), "node {id} takes commands");
    }
    let text = String::from_utf8(run(&mut fleet.verger(&["cluster", "status"])).stdout).unwrap();
    assert!(text.contains("leads") && text.contains("votes") && text.contains("up to date"), "{text}");
    verified(&golden);
}

#[test]
fn nodes_join_are_replaced_and_removed_and_a_number_is_never_used_again() {
    let mut fleet = Fleet::start(0);
    fleet.kill(2);
    fleet.join(4, Some(2));
    fleet.wait_for_voters(&[1, 3, 4]);
    // The folder of node 2 is lost, and it comes back under its number.
    std::fs::remove_dir_all(&fleet.nodes[&2].data).unwrap();
    let refused = fails(&mut fleet.joining(2, None), 16);
    assert!(refused.contains("never used again"), "{refused}");
    assert!(!fleet.nodes[&2].data.join("member").exists(), "the folder is free for another number");
    fleet.nodes.remove(&2);
    let other = fleet.home.path().join("other");
    let mut stranger = fleet.verger(&["cluster", "init", "attic", "--node-id", "9", "--data-dir"]);
    run(stranger.arg(&other));
    let mut taken = fleet.verger(&["cluster", "join", "--node-id", "9", "--peer-address", "127.0.0.1:1", "--data-dir"]);
    assert!(fails(taken.arg(&other), 2).contains("belongs to coordinator 9"));
    fleet.join(5, None);
    fleet.wait_for_voters(&[1, 3, 4, 5]);
    let leader = fleet.leader();
    run(&mut fleet.verger(&["cluster", "remove", &leader.to_string()]));
    let rest: Vec<u64> = [1, 3, 4, 5].into_iter().filter(|id| *id != leader).collect();
    fleet.kill(leader);
    fleet.nodes.remove(&leader);
    fleet.wait_for_voters(&rest);
    let told = String::from_utf8(run(&mut fleet.verger(&["events", "--json"])).stdout).unwrap();
    let said = |kind: &str| told.lines().any(|line| line.contains(kind) && line.contains("\"actor\":\"owner\""));
    assert!(said("\"node_dismissed\"") && said("\"node_admitted\""), "{told}");
    fails(&mut fleet.verger(&["cluster", "remove", "77"]), 16);
    // Two of three are enough; one is not, and says so.
    fleet.kill(rest[0]);
    fleet.leader();
    fleet.kill(rest[1]);
    assert_eq!(fleet.json(&["repo", "list", "--json"]), serde_json::json!([]), "what it knows it tells");
    // If it led, it takes a command until it notices that nobody hears it; what came of that, nobody can say.
    let began = std::time::Instant::now();
    loop {
        let nobody = fails(&mut fleet.verger(&["cluster", "remove", &rest[0].to_string()]), 22);
        if nobody.contains("of 3 coordinators") {
            break;
        }
        assert!(nobody.contains("the command may have been taken") && began.elapsed().as_secs() < 60, "{nobody}");
    }
}

#[test]
fn of_a_lost_majority_one_that_is_left_becomes_a_cluster_again() {
    let golden = Golden::unpack("default");
    let mut fleet = Fleet::start(1);
    add(&fleet, "photos", &golden);
    fleet.json(&[&FULL[..], &["--wait", "--json"]].concat());
    let data = fleet.nodes[&1].data.clone();
    let recover = |fleet: &Fleet, more: &[&str]| {
        let mut command = fleet.verger(&["cluster", "recover", "--data-dir"]);
        command.arg(&data).args(more);
        command
    };
    let running = fails(&mut recover(&fleet, &["--accept-loss"]), 11);
    assert!(running.contains("locked"), "{running}");
    fleet.kill(2);
    fleet.kill(3);
    fleet.kill(1);
    let asked = fails(&mut recover(&fleet, &[]), 2);
    assert!(asked.contains("would be lost") && asked.contains("--accept-loss"), "{asked}");
    let found = json(&run(recover(&fleet, &["--accept-loss", "--json"]).arg("--quiet")));
    assert_eq!((&found["voters"], &found["recovered"]), (&serde_json::json!([1, 2, 3]), &Value::Bool(true)));
    assert!(fails(&mut recover(&fleet, &["--accept-loss"]), 2).contains("cluster of one already"));
    // One of the lost comes back all the same: it belongs to the cluster of before, and is nobody's majority.
    fleet.up(2);
    fleet.nodes.remove(&3);
    fleet.up(1);
    let waits_for = |id: u64, leads: bool| {
        let began = Instant::now();
        while fleet.told_by(id, &["cluster", "status"]).status.success() != leads {
            assert!(began.elapsed() < Duration::from_secs(60), "{id} {leads}: {}", fleet.log(id));
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    waits_for(2, false);
    waits_for(1, true);
    fleet.kill(2);
    fleet.nodes.remove(&2);
    let listed = fleet.json(&["cycle", "list", "photos", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "what it did is known: {listed}");
    let told = String::from_utf8(run(&mut fleet.verger(&["events", "--json"])).stdout).unwrap();
    assert!(told.lines().any(|line| line.contains("\"cluster_recovered\"") && line.contains("\"actor\":\"")), "{told}");
    fleet.join(4, None);
    fleet.wait_for_voters(&[1, 4]);
    let report = fleet.json(&[&FULL[..], &["--wait", "--json"]].concat());
    assert_eq!(report["outcome"], "done", "{report}");
    verified(&golden);
}

#[test]
fn an_old_copy_of_a_disk_is_refused_clearly() {
    let mut fleet = Fleet::start(0);
    let leader = fleet.leader();
    let victim = (1..=3).find(|id| *id != leader).unwrap();
    assert!(fleet.stop(victim));
    let kept = fleet.home.path().join("kept");
    copy(&fleet.nodes[&victim].data, &kept);
    fleet.up(victim);
    fleet.wait_for_voters(&[1, 2, 3]);
    std::thread::sleep(Duration::from_secs(2));
    assert!(fleet.stop(victim));
    std::fs::remove_dir_all(&fleet.nodes[&victim].data).unwrap();
    copy(&kept, &fleet.nodes[&victim].data);
    let line = fails(&mut fleet.coordinator(victim), 17);
    assert!(line.contains("old copy") && line.contains("new node ID"), "{line}");
    let again = fails(&mut fleet.coordinator(victim), 17);
    assert!(again.contains("old copy"), "{again}");
    fleet.leader();
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let golden = Golden::unpack("epochs");
    let mut fleet = Fleet::start(1);
    add(&fleet, "photos", &golden);
    run(fleet.verger(&FULL).args(["--key", "one"]));
    for id in 1..=3 {
        assert!(fleet.stop(id), "it parks what is under way, and ends in order");
        fleet.up(id);
        fleet.leader();
    }
    let report = fleet.json(&[&FULL[..], &["--key", "one", "--wait", "--json"]].concat());
    assert_eq!(report["outcome"], "done", "{report}");
    verified(&golden);
}

/// A small random sequence, the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[test]
fn killed_fifty_times_nothing_acknowledged_is_lost_and_every_cycle_finishes() {
    let mut fleet = Fleet::start(1);
    let (mut chance, mut kills, mut acknowledged) = (Chance(7), 0, Vec::new());
    let mut repositories = Vec::new();
    while kills < KILLS {
        let golden = Golden::unpack(["epochs", "default", "ecc"][repositories.len() % 3]);
        let name = format!("photos{}", repositories.len());
        fleet.leader();
        add(&fleet, &name, &golden);
        let mut start = FULL;
        start[2] = &name;
        let key = format!("key-{name}");
        run(fleet.verger(&start).args(["--key", &key]));
        acknowledged.push((name.clone(), key.clone()));
        let began = Instant::now();
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(chance.below(1_500)));
            let victim = match chance.below(3) {
                0 => 1 + chance.below(3),
                _ => fleet.leader(),
            };
            fleet.kill(victim);
            std::thread::sleep(Duration::from_millis(chance.below(800)));
            fleet.up(victim);
            kills += 1;
        }
        let ended = run(fleet.verger(&start).args(["--key", &key, "--wait", "--json"]));
        assert_eq!(json(&ended)["outcome"], "done");
        assert!(began.elapsed() < Duration::from_secs(240), "it takes for ever");
        verified(&golden);
        repositories.push(golden);
    }
    let names = |value: Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    fleet.leader();
    let known = names(fleet.json(&["repo", "list", "--json"]));
    for (name, _) in &acknowledged {
        assert!(known.contains(name), "{name} was acknowledged and is lost");
        let cycles = fleet.json(&["cycle", "list", name, "--json"]);
        let full = cycles.as_array().unwrap().iter().filter(|cycle| cycle["safety"] == "none").count();
        assert_eq!(full, 1, "the same wish is the same cycle: {cycles}");
    }
    // The ledgers are the same, byte for byte, as far as each goes.
    for id in 1..=3 {
        fleet.stop(id);
    }
    let ledgers: Vec<Vec<u8>> =
        fleet.nodes.values().map(|place| std::fs::read(place.data.join("node/ledger/ledger")).unwrap()).collect();
    let shortest = ledgers.iter().map(Vec::len).min().unwrap();
    assert!(shortest > 0 && ledgers.iter().all(|ledger| ledger[..shortest] == ledgers[0][..shortest]));
}

fn signal(fleet: &Fleet, id: u64, name: &str) {
    let process = fleet.nodes[&id].process.as_ref().unwrap().id().to_string();
    run(std::process::Command::new("kill").args([name, &process]));
}

/// Whoever drives is frozen for longer than its time, in the middle of a cycle, and then goes on as if nothing had been.
#[test]
fn a_driver_that_was_frozen_beyond_its_time_does_no_harm() {
    let golden = Golden::unpack("epochs");
    let fleet = Fleet::start(1);
    add(&fleet, "photos", &golden);
    run(fleet.verger(&FULL).args(["--key", "one"]));
    let began = Instant::now();
    let frozen = loop {
        let output = run(&mut fleet.verger(&["events", "--json", "--repo", "photos"]));
        let text = String::from_utf8(output.stdout).unwrap();
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let newest = |kind: &str| events.iter().rfind(|event| event["kind"] == kind);
        if let (Some(_), Some(taken)) = (newest("cycle_opened"), newest("drive_taken")) {
            break taken["driver"]["node"].as_u64().unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nobody drives");
        std::thread::sleep(Duration::from_millis(20));
    };
    signal(&fleet, frozen, "-STOP");
    std::thread::sleep(Duration::from_secs(20));
    let other = (1..=3).find(|id| *id != frozen).unwrap();
    assert!(fleet.told_by(other, &["repo", "list"]).status.success(), "the others go on");
    signal(&fleet, frozen, "-CONT");
    let report = fleet.json(&[&FULL[..], &["--key", "one", "--wait", "--json"]].concat());
    assert_eq!(report["outcome"], "done", "{report}");
    verified(&golden);
}

/// The events of the repository, the oldest first.
fn events_of(fleet: &Fleet) -> Vec<Value> {
    let output = fleet.verger(&["events", "--json", "--repo", "photos"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Acting for another owner, and not alone, a cycle waits a day behind anybody else's run. Behind its own it does not, wherever that was.
#[test]
fn r22_a_killed_drivers_cycle_is_ended_by_another_node_without_a_quiet_day() {
    let golden = Golden::unpack("default");
    let mut fleet = Fleet::start(1);
    let address = golden.address();
    let mut add = fleet.verger(&["repo", "add", "photos", &address, "--password-env", "PHOTOS_PASSWORD"]);
    run(add.args(["--act-as", OWNER]));
    // Nothing begins by itself: the cycle is the one that is asked for.
    run(&mut fleet.verger(&["repo", "suspend", "photos"]));
    let start = ["cycle", "start", "photos", "--full", "--key", "one"];
    run(&mut fleet.verger(&start));
    let began = Instant::now();
    let killed = loop {
        let events = events_of(&fleet);
        let newest = |kind: &str| events.iter().rfind(|event| event["kind"] == kind);
        if let (Some(_), Some(taken)) = (newest("write_noted"), newest("drive_taken")) {
            break taken["driver"]["node"].as_u64().unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::sleep(Duration::from_millis(10));
    };
    fleet.kill(killed);
    let died = Instant::now();
    fleet.leader();
    let report = fleet.json(&[&start[..], &["--wait", "--json"]].concat());
    assert!(report["outcome"] == "done" || report["outcome"] == "degraded", "{report}");
    assert!(died.elapsed() < Duration::from_secs(90), "it took {:?}", died.elapsed());
    let events = events_of(&fleet);
    let drivers: Vec<u64> = events
        .iter()
        .filter(|event| event["kind"] == "drive_taken")
        .map(|event| event["driver"]["node"].as_u64().unwrap())
        .collect();
    assert!(drivers.contains(&killed) && drivers.last() != Some(&killed), "it was killed in the middle: {drivers:?}");
    let opened = events.iter().filter(|event| event["kind"] == "cycle_opened").count();
    assert_eq!(opened, 1, "the same cycle went on");
    verified(&golden);
}

/// Of stages that end before the ledger hears of progress, nothing but words tells how far they are. A store that bears few requests makes
/// them last.
#[test]
fn how_far_a_followers_worker_is_can_be_seen_at_every_node() {
    let golden = Golden::unpack("epochs");
    let mut fleet = Fleet::start_with(0, &["--requests-per-second", "25"], &[]);
    let leader = fleet.leader();
    let (worker, third) = (1 + leader % 3, 1 + (leader + 1) % 3);
    fleet.workers = 1;
    assert!(fleet.stop(worker));
    fleet.up(worker);
    fleet.wait_for_voters(&[1, 2, 3]);
    assert_eq!(fleet.leader(), leader, "it was not asked to go");
    add(&fleet, "photos", &golden);
    run(fleet.verger(&FULL).args(["--key", "one"]));
    let done_at = |id: u64| {
        let told = fleet.told_by(id, &["cycle", "list", "photos", "--json"]);
        let number = json(&told).as_array().and_then(|all| all.first()?["id"].as_u64())?;
        let shown = json(&fleet.told_by(id, &["cycle", "show", &number.to_string(), "--json"]));
        shown["progress"]["done"].as_u64().filter(|done| *done > 0)
    };
    let (began, mut seen) = (Instant::now(), [None, None]);
    while seen.contains(&None) {
        for (at, id) in seen.iter_mut().zip([leader, third]) {
            *at = at.or_else(|| done_at(id));
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nobody says how far it is: {seen:?}");
    }
    let events = events_of(&fleet);
    let drivers: Vec<u64> = events.iter().filter_map(|event| event["driver"]["node"].as_u64()).collect();
    assert!(drivers.contains(&worker) && drivers.iter().all(|node| *node == worker), "{drivers:?}");
    let told = events.iter().filter(|event| event["kind"] == "job_progressed").map(|event| &event["progress"]["done"]);
    assert!(told.filter_map(Value::as_u64).all(|done| done == 0), "the ledger did not hear of it");
    let report = fleet.json(&[&FULL[..], &["--key", "one", "--wait", "--json"]].concat());
    assert_eq!(report["outcome"], "done", "{report}");
}
