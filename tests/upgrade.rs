//! Coordinators of two programs in one cluster, as in an upgrade: an older build and the one under test, one process after the other.
//!
//! The older build is a file that `VERGER_TEST_OLD` names: a `verger` that was built from an earlier commit.

#![allow(clippy::unwrap_used)]

#[path = "support/coordinators.rs"]
mod fleet;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fleet::Fleet;
use serde_json::Value;
use support::{Golden, OWNER, json, run, skipped, told as say};
use verger_proto::level::LEVEL;

fn old_program() -> Option<PathBuf> {
    let path = std::env::var_os("VERGER_TEST_OLD").map(PathBuf::from);
    if path.is_none() {
        skipped("VERGER_TEST_OLD names no older build of verger: no cluster is upgraded");
    }
    path
}

fn full(name: &str) -> [&str; 9] {
    ["cycle", "start", name, "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100"]
}

fn add(fleet: &Fleet, name: &str, golden: &Golden) {
    let address = golden.address();
    let mut command = fleet.verger(&["repo", "add", name, &address, "--password-env", "PHOTOS_PASSWORD"]);
    run(command.args(["--act-as", OWNER, "--exclusive"]));
}

fn verified(golden: &Golden) {
    let report = json(&run(&mut golden.verger(["verify", "--full", "--json", "--quiet", &golden.address()])));
    assert_eq!(report["problems"], serde_json::json!([]));
}

/// What each of them knows of the cluster, as far as it answers.
fn told(fleet: &Fleet) -> Vec<Value> {
    let ask = |id: &u64| fleet.told_by(*id, &["cluster", "status", "--json"]).stdout;
    fleet.nodes.keys().filter_map(|id| serde_json::from_slice(&ask(id)).ok()).collect()
}

/// What the leader knows of it: it alone knows how far the others are.
fn leaders(fleet: &Fleet) -> Value {
    let is_leaders = |status: &Value| status["leader"].is_u64() && status["leader"] == status["node"];
    told(fleet).into_iter().find(is_leaders).unwrap_or_default()
}

/// What the cluster goes by; programs from before there were levels say none.
fn level(fleet: &Fleet) -> u64 {
    told(fleet).iter().filter_map(|status| status["level"].as_u64()).max().unwrap_or(0)
}

/// Waits until the leader sees all of them, and none of them behind.
fn all_have_all(fleet: &Fleet) {
    let began = Instant::now();
    loop {
        let status = leaders(fleet);
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        if nodes.len() == 3 && nodes.iter().all(|node| node["behind"].as_u64().is_some_and(|behind| behind < 5)) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "some are behind: {status}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Stops a coordinator in order, and starts what is its program from now on.
fn change(fleet: &mut Fleet, id: u64, program: Option<&PathBuf>) {
    assert!(fleet.stop(id), "it parks what is under way, and ends in order: {}", fleet.log(id));
    match program {
        Some(program) => drop(fleet.programs.insert(id, program.clone())),
        None => drop(fleet.programs.remove(&id)),
    }
    fleet.up(id);
    fleet.leader();
    all_have_all(fleet);
}

/// A person who makes tokens, one after the other, at whichever coordinator answers; the names of those that were acknowledged.
fn make_tokens(command: impl Fn(&str) -> Command, over: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("token-{number}");
        if command(&name).output().unwrap().status.success() {
            acknowledged.push(name);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    acknowledged
}

/// Ends those who work beside, also when a check fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The new program over two old ones: what these do not know must not get into the log, or nothing would be kept any more.
fn newest_leads(fleet: &mut Fleet, newest: u64) -> bool {
    for _ in 0..12 {
        let leader = fleet.leader();
        if leader == newest {
            return true;
        }
        // Whoever is started again at once leads on.
        assert!(fleet.stop(leader));
        let next = fleet.leader();
        say(&format!("coordinator {leader} led, and now {next} does"));
        fleet.up(leader);
        all_have_all(fleet);
    }
    false
}

#[test]
fn p6_upgraded_one_by_one_no_command_is_lost_and_the_ledgers_stay_one() {
    let Some(old) = old_program() else { return };
    let (golden, later) = (Golden::unpack("epochs"), Golden::unpack("default"));
    // Its lease is another's: to note that is a command that programs from before there were levels do not know.
    run(&mut later.verger(["maintain", "--quick", "--act-as", OWNER, "--quiet", &later.address()]));
    // A store that bears few requests makes cycles last.
    let mut fleet = Fleet::start_as(1, &old, &["--requests-per-second", "20"]);
    let before = level(&fleet);
    say(&format!("the old program's cluster is at level {before}, the new program knows {LEVEL}"));
    add(&fleet, "photos", &golden);
    run(fleet.verger(&full("photos")).args(["--key", "one"]));
    let (over, asked) = (AtomicBool::new(false), fleet.asking());
    let make = move |name: &str| {
        let mut command = asked();
        command.args(["token", "create", name, "--scope", "read", "--all-tenants", "--quiet"]);
        command
    };
    let acknowledged = std::thread::scope(|scope| {
        let person = scope.spawn(|| make_tokens(make, &over));
        let _end = End(&over);
        upgrade(&mut fleet, &old, before, &later);
        over.store(true, Ordering::Relaxed);
        person.join().unwrap()
    });
    let ended = run(fleet.verger(&full("photos")).args(["--key", "one", "--wait", "--json"]));
    assert_eq!(json(&ended)["outcome"], "done");
    assert_eq!(fleet.json(&[&full("later")[..], &["--wait", "--json"]].concat())["outcome"], "done");
    verified(&golden);
    verified(&later);
    let known = fleet.json(&["token", "list", "--json"]);
    let known: Vec<&str> = known.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !known.contains(&name.as_str())).collect();
    say(&format!("{} tokens were acknowledged, {} are lost", acknowledged.len(), lost.len()));
    assert!(acknowledged.len() > 20 && lost.is_empty(), "{lost:?} of {}", acknowledged.len());
    ledgers_are_one(&mut fleet, before);
    if before < u64::from(LEVEL) {
        the_way_back_is_closed(&mut fleet, &old);
    }
}

/// Cycles that have ended.
fn ended(fleet: &Fleet) -> usize {
    let told = run(&mut fleet.verger(&["events", "--json"]));
    String::from_utf8(told.stdout).unwrap().lines().filter(|line| line.contains("\"cycle_closed\"")).count()
}

fn upgrade(fleet: &mut Fleet, old: &PathBuf, before: u64, later: &Golden) {
    let leader = fleet.leader();
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    assert_eq!(ended(fleet), 0, "a cycle is under way");
    change(fleet, followers[0], None);
    assert_eq!(level(fleet), before, "two of three know less");
    // Back again, and forth: nothing new was written.
    change(fleet, followers[0], Some(old));
    change(fleet, followers[0], None);
    if newest_leads(fleet, followers[0]) {
        say("the new program leads two old ones");
        add(fleet, "later", later);
        all_have_all(fleet);
        assert_eq!(level(fleet), before);
    } else {
        say("the new program was never chosen as leader of two old ones");
        add(fleet, "later", later);
    }
    let rest: Vec<u64> = (1..=3).filter(|id| fleet.programs.contains_key(id)).collect();
    for id in rest {
        assert_eq!(level(fleet), before, "coordinator {id} knows less");
        change(fleet, id, None);
        say(&format!("coordinator {id} is upgraded, {} cycles have ended", ended(fleet)));
    }
    let began = Instant::now();
    loop {
        let status = leaders(fleet);
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        if status["level"] == LEVEL && nodes.iter().all(|node| node["level"] == LEVEL) {
            break say(&format!("the level is {LEVEL} {} ms after the last one", began.elapsed().as_millis()));
        }
        assert!(began.elapsed() < Duration::from_secs(30), "the level does not rise: {status}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Every record follows the one before, the level rose in one of them, and all three have the same, byte for byte.
fn ledgers_are_one(fleet: &mut Fleet, before: u64) {
    let text = String::from_utf8(run(&mut fleet.verger(&["events", "--json"])).stdout).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sequences: Vec<u64> = events.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.windows(2).all(|two| two[1] == two[0] || two[1] == two[0] + 1), "a record is missing");
    let raised = events.iter().filter(|event| event["kind"] == "level_raised");
    let raised: Vec<[Option<u64>; 2]> = raised.map(|one| [one["before"].as_u64(), one["level"].as_u64()]).collect();
    assert!(raised.windows(2).all(|two| two[0][1] == two[1][0]), "each follows the one before: {raised:?}");
    let risen = [Some(before), Some(u64::from(LEVEL))];
    assert!(raised.iter().filter(|one| **one == risen).count() == usize::from(risen[0] < risen[1]), "{raised:?}");
    all_have_all(fleet);
    for id in 1..=3 {
        assert!(fleet.stop(id));
    }
    let read = |id: u64| std::fs::read(fleet.nodes[&id].data.join("node/ledger/ledger")).unwrap();
    let ledgers = [read(1), read(2), read(3)];
    let shortest = ledgers.iter().map(Vec::len).min().unwrap();
    assert!(shortest > 0 && ledgers.iter().all(|ledger| ledger[..shortest] == ledgers[0][..shortest]));
    say(&format!("{} records; the shortest ledger has {shortest} bytes", sequences.last().unwrap()));
    for id in 1..=3 {
        let mut verify = fleet.verger(&["ledger", "verify", "--data-dir"]);
        run(verify.arg(&fleet.nodes[&id].data));
    }
}

/// What the old program does not know is in the log: it does not start, and spoils nothing.
fn the_way_back_is_closed(fleet: &mut Fleet, old: &Path) {
    fleet.programs.insert(2, old.to_owned());
    let output = fleet.coordinator(2).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    say(&format!("the old program says: {}", said.lines().last().unwrap_or_default()));
    // The oldest ones take what they do not know for damage.
    assert!(matches!(output.status.code(), Some(15 | 17)), "{said}");
    fleet.programs.remove(&2);
    for id in 1..=3 {
        fleet.up(id);
    }
    fleet.wait_for_voters(&[1, 2, 3]);
    all_have_all(fleet);
}
