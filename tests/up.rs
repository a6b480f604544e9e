//! `verger up` as its users meet it: real processes, real repositories, kill -9 in between.

#![allow(clippy::unwrap_used)]

#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/small.rs"]
mod small;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fleet::Fleet;
use serde_json::Value;
use small::{Small, fill};
use support::{Golden, Kopia, OWNER, PASSWORD, fails, json, run, verger};

/// A coordinator in a process of its own, and the command line of the same user.
struct Up {
    fleet: Fleet,
    archive: Option<String>,
}

impl Up {
    fn start() -> Self {
        let environment = [("PHOTOS_PASSWORD", PASSWORD), ("WRONG", "not it")];
        Self { fleet: Fleet::start(tempfile::tempdir().unwrap(), &[], &environment), archive: None }
    }

    fn home(&self) -> &Path {
        self.fleet.home.path()
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.fleet.port)
    }

    fn data(&self) -> PathBuf {
        self.fleet.data()
    }

    /// Starts it on the same data.
    fn again(&mut self) {
        let flags: Vec<&str> = self.archive.iter().flat_map(|url| ["--ledger-archive", url]).collect();
        self.fleet.again(&flags);
    }

    fn kill(&mut self) {
        self.fleet.kill();
    }

    fn verger(&self, arguments: &[&str]) -> Command {
        self.fleet.owner(arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        json(&run(&mut self.verger(arguments)))
    }

    fn events(&self, arguments: &[&str]) -> Vec<Value> {
        let output = run(self.verger(&["events", "--json"]).args(arguments));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn metrics(&self) -> String {
        let tokens = self.home().join("config/verger/tokens");
        let path = std::fs::read_dir(&tokens).unwrap().next().unwrap().unwrap().path();
        let token = std::fs::read_to_string(path).unwrap();
        let request = reqwest::blocking::Client::new().get(format!("http://{}/metrics", self.address()));
        request.bearer_auth(token.trim()).send().unwrap().text().unwrap()
    }

    fn add(&self, name: &str, golden: &Golden, flags: &[&str]) -> Command {
        let mut command = self.verger(&["repo", "add", name, &golden.address(), "--json"]);
        command.args(["--password-env", "PHOTOS_PASSWORD"]).args(flags);
        command
    }
}

fn verified(golden: &Golden) {
    let report = json(&run(&mut golden.verger(["verify", "--full", "--json", "--quiet", &golden.address()])));
    assert_eq!(report["problems"], serde_json::json!([]));
    if let Some(kopia) = Kopia::connect(&golden.repository()) {
        kopia.verifies();
    }
}

/// What was verified, and of which repository, is what the coordinator is told.
#[test]
fn a_verification_that_is_recorded_is_a_figure() {
    let (golden, other) = (Golden::unpack("default"), Golden::unpack("format1"));
    let up = Up::start();
    run(&mut up.add("photos", &golden, &[]));
    let verify = |golden: &Golden, name: &str| {
        let mut command = up.verger(&["verify", "--percent", "50", "--quiet", "--record", name, &golden.address()]);
        command.env("KOPIA_PASSWORD", PASSWORD);
        command
    };
    assert!(!up.metrics().contains("verger_verify_age_seconds"));
    run(&mut verify(&golden, "photos"));
    assert!(up.metrics().contains("verger_verify_age_seconds{repo=\"photos\"} "), "{}", up.metrics());
    let shown = up.json(&["repo", "show", "photos", "--json"])["verification"].clone();
    assert_eq!((&shown["percent"], &shown["problems"], &shown["soundAt"]), (&50.0.into(), &0.into(), &shown["at"]));
    assert!(shown["contentsRead"].as_u64().unwrap() > 0, "{shown}");
    let mixed_up = fails(&mut verify(&other, "photos"), 2);
    assert!(mixed_up.contains("photos is another repository there"), "{mixed_up}");
    fails(&mut verify(&golden, "attic"), 2);
    let pack = std::fs::read_dir(golden.repository()).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.file_name().unwrap().to_string_lossy().starts_with('p').then_some(path)
    });
    std::fs::remove_dir_all(pack.unwrap()).unwrap();
    fails(&mut verify(&golden, "photos"), 17);
    let damaged = up.json(&["repo", "show", "photos", "--json"])["verification"].clone();
    assert!(damaged["problems"].as_u64().unwrap() > 0 && damaged["soundAt"] == shown["at"], "{damaged}");
    assert_eq!(up.events(&["--repo", "photos"]).iter().filter(|one| one["kind"] == "repository_verified").count(), 2);
}

const FULL: [&str; 10] =
    ["cycle", "start", "photos", "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100", "--wait"];

#[test]
fn the_first_cycle_of_a_repository_that_was_added() {
    let golden = Golden::unpack("default");
    let up = Up::start();
    let added = json(&run(&mut up.add("photos", &golden, &["--act-as", OWNER, "--exclusive"])));
    assert_eq!(added["name"], "photos");
    let before = golden.bytes();
    let report = up.json(&[&FULL[..], &["--json"]].concat());
    assert_eq!(report["outcome"], "done");
    told_of_what_is_gone(&up, &before, &golden);
    let expected = &golden.expect["maintenance"]["full"]["tasks"];
    if expected.is_object() {
        assert_eq!(report["tasks"]["snapshot-gc"], expected["snapshot-gc"]);
    }
    assert!(report["tasks"]["snapshot-gc"]["unreferencedContentCount"].as_u64().unwrap() > 0, "{report}");
    let cycles = up.json(&["cycle", "list", "photos", "--json"]);
    assert_eq!(cycles.as_array().unwrap().len(), 1, "{cycles}");
    assert_eq!(cycles[0]["repository"], "photos");
    let kinds: Vec<String> =
        up.events(&["--repo", "photos"]).iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect();
    for kind in [
        "repository_added",
        "cycle_requested",
        "lease_taken",
        "cycle_opened",
        "plan_sealed",
        "batch_approved",
        "cycle_closed",
        "lease_released",
    ] {
        assert!(kinds.iter().any(|found| found == kind), "no {kind} in {kinds:?}");
    }
    assert_eq!(up.json(&["lease", "list", "--json"]), serde_json::json!([]), "the lease is given back");
    verified(&golden);
}

#[test]
fn figures_are_those_that_a_cycle_measured() {
    let golden = Golden::unpack("default");
    let price = format!("{} get=10 put=10 list=10 delete=10 egress=0", golden.address());
    let environment = [("PHOTOS_PASSWORD", PASSWORD)];
    let up =
        Up { fleet: Fleet::start(tempfile::tempdir().unwrap(), &["--price", &price], &environment), archive: None };
    run(&mut up.add("photos", &golden, &["--act-as", OWNER, "--exclusive"]));
    let report = up.json(&[&FULL[..], &["--json"]].concat());
    let page = up.metrics();
    let all = |name: &str| {
        let of_it = page.lines().filter(|line| line.starts_with(&format!("{name}{{repo=\"photos\"")));
        of_it.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).collect::<Vec<_>>()
    };
    let milliseconds = report["openMilliseconds"].as_u64().unwrap();
    assert!(milliseconds > 0, "a key takes part of a second: {report}");
    #[allow(clippy::cast_precision_loss)]
    let seconds = milliseconds as f64 / 1_000.0;
    assert_eq!(all("verger_repo_open_seconds"), [seconds]);
    assert_eq!((all("verger_bytes_locked"), &report["refusedBytes"]), (vec![0.0], &serde_json::json!(0)));
    let (cost, calls) = (all("verger_cost_estimate_dollars_total"), all("verger_store_requests_total"));
    assert!(calls.len() > 3 && (cost[0] - calls.iter().sum::<f64>() / 100.0).abs() < 1e-9, "{cost:?} {calls:?}");
}

/// S6: for each pack that went, which cycle, plan, term, worker and rule.
fn told_of_what_is_gone(up: &Up, before: &BTreeMap<PathBuf, Vec<u8>>, golden: &Golden) {
    let after = golden.bytes();
    let root = golden.repository();
    let name = |path: &PathBuf| {
        let below = path.strip_prefix(&root).unwrap_or(path);
        below.iter().map(|part| part.to_str().unwrap()).collect::<String>()
    };
    let gone: Vec<String> = before.keys().filter(|path| !after.contains_key(*path)).map(name).collect();
    let packs: Vec<&str> =
        gone.iter().filter(|name| name.starts_with(['p', 'q'])).filter_map(|name| name.strip_suffix(".f")).collect();
    assert!(!packs.is_empty(), "nothing went: {gone:?}");
    for pack in packs {
        let deeds = up.events(&["--blob", pack]);
        let deed = deeds.iter().find(|deed| deed["stage"].as_str().unwrap().starts_with("delete"));
        let deed = deed.unwrap_or_else(|| panic!("{pack}: {deeds:?}"));
        assert_eq!(
            (&deed["outcome"], &deed["cycle"], &deed["repository"]),
            (&"done".into(), &1.into(), &"photos".into())
        );
        assert!(
            deed["plan"].is_string() && deed["term"].is_u64() && deed["rule"].is_string() && deed["worker"].is_string()
        );
    }
    assert!(up.events(&["--blob", "p0000"]).is_empty());
}

#[test]
fn a_store_is_probed_when_it_is_added_and_nothing_of_it_stays() {
    let (golden, other) = (Golden::unpack("default"), Golden::unpack("format1"));
    let mut up = Up::start();
    let before = golden.bytes();
    let added = json(&run(&mut up.add("photos", &golden, &["--act-as", OWNER])));
    for seen in ["localDisk", "conditionalWrites", "readAfterWrite", "listAfterWrite"] {
        assert_eq!(added["probe"]["capabilities"][seen], true, "{seen}: {added}");
    }
    let mut after = golden.bytes();
    after.retain(|path, _| !path.ends_with("verger.lock") && !path.ends_with("verger.lease"));
    assert!(after == before, "something of the probe stayed");
    assert_eq!(up.json(&["repo", "show", "photos", "--json"])["capabilities"], added["probe"]["capabilities"]);
    up.kill();
    up.again();
    assert_eq!(up.json(&["repo", "show", "photos", "--json"])["probedAt"], added["probedAt"], "it is remembered");
    let again = up.json(&["repo", "probe", "photos", "--json"]);
    assert_eq!(again["capabilities"]["readAfterWrite"], true);
    assert_eq!(up.events(&["--repo", "photos"]).iter().filter(|event| event["kind"] == "store_probed").count(), 2);
    // What is only observed is not written to, and is told so.
    let observed = json(&run(&mut up.add("attic", &other, &["--observe"])));
    let tried = &observed["probe"]["capabilities"];
    assert!(
        tried["notTried"].as_array().unwrap().contains(&"readAfterWrite".into()) && tried["readAfterWrite"].is_null()
    );
    let text = String::from_utf8(run(&mut up.verger(&["repo", "show", "attic"])).stdout).unwrap();
    assert!(text.contains("notTried") && text.contains("conditionalWrites"), "{text}");
}

#[test]
fn r6_two_fleets_that_add_a_store_before_anybody_held_its_lease_share_it() {
    let golden = Golden::unpack("default");
    let (one, other, third) = (Up::start(), Up::start(), Up::start());
    // Who only looks writes nothing, and calls the store as it likes.
    let before = golden.bytes();
    let guessed = json(&run(&mut third.add("photos", &golden, &["--observe"])))["id"].clone();
    assert!(golden.bytes() == before);
    let add = |up: &Up| json(&run(&mut up.add("photos", &golden, &["--act-as", OWNER, "--exclusive"])))["id"].clone();
    assert_eq!(add(&one), add(&other), "whoever is first says which store it is");
    for up in [&one, &other, &one] {
        assert_eq!(up.json(&[&FULL[..], &["--json"]].concat())["outcome"], "done");
    }
    let shown = |up: &Up| up.json(&["repo", "show", "photos", "--json"])["id"].clone();
    assert_eq!(shown(&third), guessed);
    assert_eq!(third.json(&["repo", "probe", "photos", "--json"])["id"], shown(&one), "it is not refused for good");
    assert_eq!((shown(&third), shown(&other)), (shown(&one), shown(&one)));
    verified(&golden);
}

/// As fleets are that were added before stores said which they are: another maintainer was the first to say it, in its lease.
#[test]
fn r6_a_fleet_goes_by_what_a_store_says_of_itself_until_it_held_its_lease() {
    let golden = Golden::unpack("default");
    let up = Up::start();
    let act = ["--act-as", OWNER, "--exclusive"];
    let before = json(&run(&mut up.add("photos", &golden, &act)))["id"].clone();
    let lease = golden.repository().join("verger.lease");
    std::fs::remove_file(&lease).unwrap();
    let maintain = || {
        let state = tempfile::tempdir().unwrap();
        let mut command = golden.verger(["maintain", "--quick", "--json", "--act-as", OWNER, "--exclusive"]);
        command.arg("--state-dir").arg(state.path()).arg(golden.address());
        assert_eq!(json(&run(&mut command))["outcome"], "done");
    };
    maintain();
    let shown = || up.json(&["repo", "show", "photos", "--json"])["id"].clone();
    assert_eq!(shown(), before);
    assert_eq!(up.json(&[&FULL[..], &["--json"]].concat())["outcome"], "done", "the wish is of the same repository");
    let after = shown();
    assert_ne!(after, before);
    let mut told = up.events(&["--repo", "photos"]);
    told.retain(|event| event["kind"] == "store_identified");
    assert_eq!((told.len(), &told[0]["repositoryId"]), (1, &after), "{told:?}");
    assert!(before.as_str().unwrap().ends_with(told[0]["before"].as_str().unwrap()), "{told:?}");
    // From now on another store is another repository.
    std::fs::remove_file(&lease).unwrap();
    maintain();
    let refused = fails(&mut up.verger(&FULL), 16);
    assert!(refused.contains("holds another repository"), "{refused}");
    assert_eq!(shown(), after);
    verified(&golden);
}

#[test]
fn a_fleet_may_become_the_owner_and_looks_after_several() {
    let (one, other) = (Golden::unpack("ecc"), Golden::unpack("format1"));
    let up = Up::start();
    run(&mut up.add("photos", &one, &["--take-ownership"]));
    let observed = run(&mut up.add("attic", &other, &[]));
    let advice = String::from_utf8(observed.stderr).unwrap();
    assert!(advice.contains("--take-ownership") && advice.contains(&format!("--act-as {OWNER}")), "{advice}");
    let before = other.bytes();
    let report = up.json(&["cycle", "start", "photos", "--quick", "--wait", "--json"]);
    assert_eq!(report["outcome"], "done", "{report}");
    let log = std::fs::read_to_string(up.home().join("log")).unwrap();
    assert!(log.contains("a cycle ended") && log.contains("repository=photos"), "{log}");
    let names: Vec<Value> =
        up.json(&["repo", "list", "--json"]).as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["attic", "photos"]);
    assert!(up.json(&["repo", "probe", "photos", "--json"])["owner"].as_str().unwrap().starts_with("verger@fleet-"));
    run(&mut up.verger(&["repo", "suspend", "photos"]));
    assert_eq!(up.json(&["repo", "show", "photos", "--json"])["suspended"], true);
    run(&mut up.verger(&["repo", "remove", "attic"]));
    assert_eq!(up.json(&["repo", "list", "--json"]).as_array().unwrap().len(), 1);
    assert!(other.bytes() == before, "what is only observed changed");
    verified(&one);
}

#[test]
fn killed_at_any_moment_it_goes_on_where_it_was() {
    let golden = Golden::unpack("epochs");
    let mut up = Up::start();
    run(&mut up.add("photos", &golden, &["--act-as", OWNER, "--exclusive"]));
    run(up.verger(&FULL[..9]).args(["--key", "one"]));
    let began = Instant::now();
    let mut pause = 40;
    let ended = loop {
        assert!(began.elapsed() < Duration::from_secs(120), "it never ends");
        std::thread::sleep(Duration::from_millis(pause));
        up.kill();
        up.again();
        pause += 70;
        let cycles = up.json(&["cycle", "list", "photos", "--json"]);
        let over = cycles.as_array().unwrap().iter().find(|cycle| !cycle["end"].is_null()).cloned();
        if let Some(over) = over {
            break over;
        }
    };
    assert_eq!(ended["mode"], "full");
    // The same wish again is answered by the same cycle, after every restart.
    let again = up.json(&[&FULL[..], &["--key", "one", "--json"]].concat());
    assert_eq!(again["outcome"], "done", "{again}");
    assert_eq!(up.json(&["cycle", "list", "photos", "--json"]).as_array().unwrap().len(), 1);
    verified(&golden);
}

/// Waits until so many cycles have ended, the oldest first.
fn ended(up: &Up, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(60), "no {count} cycles ended");
        let cycles = up.json(&["cycle", "list", "photos", "--json"]);
        let mut over: Vec<Value> = cycles.as_array().unwrap().clone();
        over.retain(|cycle| !cycle["end"].is_null());
        if over.len() >= count {
            over.reverse();
            return over;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_repository_is_looked_after_by_its_schedule_and_a_start_runs_nothing_twice() {
    let golden = Golden::unpack("default");
    let mut up = Up::start();
    let act = ["--act-as", OWNER, "--exclusive"];
    let hourly = ["--full-schedule", "every 1h", "--index-schedule", "never", "--jitter", "0", "--weight", "2"];
    let added = json(&run(up.add("photos", &golden, &act).args(hourly)));
    assert_eq!((&added["schedule"]["full"], &added["schedule"]["quick"]), (&"every 1h".into(), &"own".into()));
    assert_eq!(added["ownSettings"]["quick"]["enabled"], false, "as Kopia has it there");
    let cycles = ended(&up, 1);
    assert_eq!((&cycles[0]["mode"], &cycles[0]["end"]["outcome"]), (&"full".into(), &"done".into()));
    up.kill();
    up.again();
    let shown = String::from_utf8(run(&mut up.verger(&["repo", "show", "photos"])).stdout).unwrap();
    let has = |start: &str, rest: &str| shown.lines().any(|line| line.starts_with(start) && line.contains(rest));
    assert!(has("full", "every 1h") && has("quick", "disabled in the repository's own Kopia settings"), "{shown}");
    let next = up.json(&["repo", "show", "photos", "--json"])["next"]["full"].clone();
    assert!(next["at"].is_string() && next["overdueSeconds"].is_null(), "{next}");
    // A slot of the past is not made up for; the interval of a lane that never ran begins now. The slots are half a day away.
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let daily = format!("0 {} * * *", (seconds / 3600 + 12) % 24);
    run(&mut up.verger(&["repo", "set", "photos", "--full-schedule", &daily, "--quick-schedule", "every 10m"]));
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(up.json(&["cycle", "list", "photos", "--json"]).as_array().unwrap().len(), 1);
    let list = String::from_utf8(run(&mut up.verger(&["repo", "list"])).stdout).unwrap();
    assert!(list.contains("quick next") && list.contains("scheduled: every 10m"), "{list}");
    run(&mut up.verger(&["repo", "suspend", "photos"]));
    let list = String::from_utf8(run(&mut up.verger(&["repo", "list"])).stdout).unwrap();
    assert!(list.contains("suspended"), "{list}");
    verified(&golden);
}

#[test]
fn index_work_alone_has_a_lane_of_its_own() {
    let golden = Golden::unpack("default");
    let up = Up::start();
    let packs = || -> Vec<String> {
        let blobs = golden.inspect("blobs", &[]);
        let names = blobs.as_array().unwrap().iter().map(|blob| blob["id"].as_str().unwrap().to_owned());
        names.filter(|name| name.starts_with(['p', 'q', 's', '_'])).collect()
    };
    let before = packs();
    let lanes = ["--full-schedule", "never", "--quick-schedule", "never", "--index-schedule", "every 1h"];
    run(up.add("photos", &golden, &["--act-as", OWNER]).args(lanes));
    let cycles = ended(&up, 1);
    assert_eq!((&cycles[0]["mode"], &cycles[0]["end"]["outcome"]), (&"index".into(), &"done".into()));
    let report = up.json(&["cycle", "start", "photos", "--index", "--wait", "--json"]);
    assert_eq!((&report["mode"], &report["outcome"]), (&"index".into(), &"done".into()));
    let next = up.json(&["repo", "show", "photos", "--json"])["next"].clone();
    assert!(next["index"]["at"].is_string() && next["quick"]["at"].is_null(), "{next}");
    assert_eq!(packs(), before);
    verified(&golden);
}

#[test]
fn kopias_own_settings_decide_unless_a_schedule_does() {
    let golden = Golden::unpack("default");
    let up = Up::start();
    run(&mut up.add("photos", &golden, &["--act-as", OWNER, "--exclusive"]));
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(up.json(&["cycle", "list", "--json"]), serde_json::json!([]), "disabled there: nothing runs by itself");
    run(&mut up.verger(&["repo", "set", "photos", "--quick-schedule", "every 1h"]));
    let cycles = ended(&up, 1);
    assert_eq!((&cycles[0]["mode"], &cycles[0]["end"]["outcome"]), (&"quick".into(), &"done".into()));
    verified(&golden);
}

#[test]
fn a_schedule_that_cannot_be_is_refused_before_anything_happens() {
    let golden = Golden::unpack("default");
    let up = Up::start();
    run(&mut up.add("photos", &golden, &["--act-as", OWNER, "--exclusive"]));
    let before = up.json(&["repo", "show", "photos", "--json"])["schedule"].clone();
    let refused = [
        (["--full-schedule", "0 0 30 2 *"], "never fires"),
        (["--full-schedule", "0 0 3 * * *"], "seconds are not supported"),
        (["--quick-schedule", "every 5s"], "between a minute"),
        (["--window", "22:00-22:03"], "can never hold a stage"),
        (["--blackout", "2020-01-01/2060-01-01 for ever"], "widen a window or end a blackout"),
        (["--time-zone", "Europe/Atlantis"], "IANA"),
        (["--jitter", "soon"], "10m"),
    ];
    for (flags, why) in refused {
        let line = fails(up.verger(&["repo", "set", "photos"]).args(flags), 2);
        assert!(line.contains(why), "{flags:?}: {line}");
    }
    fails(&mut up.verger(&["repo", "set", "photos"]), 2);
    fails(&mut up.verger(&["repo", "set", "photos", "--window", "always", "--window", "22:00-06:00"]), 2);
    assert_eq!(up.json(&["repo", "show", "photos", "--json"])["schedule"], before);
}

#[test]
fn a_lease_that_is_handed_over_is_for_one_other_fleet_alone() {
    let golden = Golden::unpack("default");
    let (one, other) = (Up::start(), Up::start());
    run(&mut one.add("photos", &golden, &["--act-as", OWNER, "--exclusive"]));
    one.json(&["cycle", "start", "photos", "--quick", "--wait", "--json"]);
    run(&mut other.add("pictures", &golden, &["--act-as", OWNER, "--exclusive"]));
    let fleet = std::fs::read_to_string(other.data().join("fleet")).unwrap();
    fails(&mut one.verger(&["lease", "transfer", "photos", "--to", "nobody"]), 2);
    let released = fails(&mut one.verger(&["lease", "release", "photos"]), 16);
    assert!(released.contains("lease"), "{released}");
    let to = format!("verger@fleet-{fleet}");
    let one_fleet = format!("verger@fleet-{}", std::fs::read_to_string(one.data().join("fleet")).unwrap());
    run(&mut one.verger(&["lease", "transfer", "photos", "--to", &to]));
    assert_eq!(one.json(&["repo", "show", "photos", "--json"])["acting"], "observe");
    let observed = fails(&mut one.verger(&["cycle", "start", "photos", "--full"]), 16);
    assert!(observed.contains("--act-as"), "{observed}");
    let mut alone = golden.verger(["maintain", "--full", "--act-as", OWNER, "--exclusive", &golden.address()]);
    let locked = fails(&mut alone, 11);
    assert!(locked.contains(&to), "{locked}");
    let report = other.json(&["cycle", "start", "pictures", "--quick", "--wait", "--json"]);
    assert_eq!(report["outcome"], "done", "{report}");
    run(&mut alone);
    // And back again: the other one looks on from now on.
    run(&mut other.verger(&["lease", "transfer", "pictures", "--to", &one_fleet]));
    let back = one.json(&["repo", "set", "photos", "--act-as", OWNER, "--password-env", "PHOTOS_PASSWORD", "--json"]);
    assert_eq!(back["acting"], serde_json::json!({ "actAs": OWNER }), "{back}");
    let report = one.json(&["cycle", "start", "photos", "--quick", "--wait", "--json"]);
    assert_eq!(report["outcome"], "done", "{report}");
    verified(&golden);
}

#[test]
fn a_ledger_is_archived_verified_and_restored_while_its_coordinator_is_stopped() {
    let golden = Golden::unpack("default");
    let mut up = Up::start();
    let attic = up.home().join("attic");
    let url = format!("filesystem://{}", attic.display());
    // The volume is not mounted yet: that keeps nothing else from going on.
    up.kill();
    up.archive = Some(url.clone());
    up.again();
    run(&mut up.add("photos", &golden, &["--act-as", OWNER, "--exclusive"]));
    run(&mut up.verger(&FULL));
    let before = up.events(&["--repo", "photos"]);
    assert!(!before.is_empty());
    up.kill();
    std::fs::create_dir(&attic).unwrap();
    let (data, home) = (up.data(), up.home().to_owned());
    let verify = |archive: &[&str]| {
        let mut command = verger(&home);
        command.args(["ledger", "verify", "--json", "--data-dir"]).arg(&data).args(archive);
        command
    };
    let checked = json(&run(&mut verify(&["--ledger-archive", &url])));
    assert_eq!(checked["problems"], serde_json::json!([]));
    assert_eq!((&checked["evidenceFiles"], &checked["evidenceElsewhere"]), (&1.into(), &0.into()), "{checked}");
    let mut restore = verger(up.home());
    restore.args(["ledger", "restore", "--data-dir"]).arg(&data);
    let line = fails(&mut restore, 2);
    assert!(line.contains("--ledger-archive"), "{line}");
    restore.args(["--ledger-archive", &url, "--json"]);
    assert_eq!(json(&run(&mut restore))["restored"], serde_json::json!([]));
    let inside = format!("filesystem://{}", data.display());
    let line = fails(&mut verify(&["--ledger-archive", &inside]), 2);
    assert!(line.contains("data folder"), "{line}");
    fails(&mut verify(&["--ledger-archive", "ftp://attic"]), 2);
    up.again();
    assert_eq!(up.events(&["--repo", "photos"])[..before.len()], before[..]);
    // The evidence of the cycle goes there by itself.
    let began = Instant::now();
    let is_there = || files(&attic).iter().any(|path| path.to_string_lossy().contains("verger.evidence."));
    while !is_there() {
        assert!(began.elapsed() < Duration::from_secs(30), "no evidence is archived");
        std::thread::sleep(Duration::from_millis(100));
    }
    up.kill();
    let checked = json(&run(&mut verify(&["--ledger-archive", &url])));
    assert_eq!(
        (&checked["evidenceObjectsRead"], &checked["problems"]),
        (&1.into(), &serde_json::json!([])),
        "{checked}"
    );
    let evidence = files(&data).into_iter().find(|path| path.ends_with("evidence/1")).unwrap();
    let (good, mut bad) = (std::fs::read(&evidence).unwrap(), std::fs::read(&evidence).unwrap());
    bad[60] ^= 1;
    std::fs::write(&evidence, bad).unwrap();
    fails(&mut verify(&["--ledger-archive", &url]), 17);
    assert_eq!(json(&run(&mut restore))["restored"], serde_json::json!([evidence]));
    assert_eq!(std::fs::read(&evidence).unwrap(), good);
    up.again();
    up.events(&[]);
    let mut busy = verger(up.home());
    busy.args(["ledger", "verify", "--data-dir"]).arg(&data);
    fails(&mut busy, 11);
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn bad_input_is_named_and_has_its_code() {
    let golden = Golden::unpack("default");
    let before = golden.bytes();
    let up = Up::start();
    let wrong =
        fails(up.verger(&["repo", "add", "photos", &golden.address(), "--password-env", "WRONG"]).arg("--observe"), 12);
    assert!(!wrong.contains("not it"), "the secret is told: {wrong}");
    let missing = fails(
        up.verger(&["repo", "add", "photos", &golden.address(), "--password-env", "NOWHERE"]).arg("--observe"),
        2,
    );
    assert!(missing.contains("NOWHERE"), "{missing}");
    fails(
        &mut up.verger(&["repo", "add", "photos", "filesystem:///nowhere/at/all", "--password-env", "PHOTOS_PASSWORD"]),
        10,
    );
    fails(&mut up.verger(&["repo", "add", "Photos!", &golden.address(), "--password-env", "PHOTOS_PASSWORD"]), 2);
    fails(&mut up.verger(&["repo", "add", "photos", &golden.address()]), 2);
    run(&mut up.add("photos", &golden, &[]));
    let twice = fails(&mut up.add("pictures", &golden, &[]), 16);
    assert!(twice.contains("photos"), "{twice}");
    let observed = fails(&mut up.verger(&["cycle", "start", "photos", "--full"]), 16);
    assert!(observed.contains("--act-as"), "{observed}");
    fails(&mut up.verger(&["cycle", "start", "attic", "--full"]), 17);
    fails(&mut up.verger(&["cycle", "show", "99"]), 17);
    let stranger = tempfile::tempdir().unwrap();
    let mut other = verger(stranger.path());
    other.env("VERGER_ADDR", format!("http://{}", up.address())).args(["repo", "list"]);
    let refused = fails(&mut other, 20);
    assert!(refused.contains("token"), "{refused}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut nowhere = up.verger(&["repo", "list"]);
    nowhere.env("VERGER_ADDR", format!("http://{nobody}"));
    let line = fails(&mut nowhere, 22);
    assert!(line.contains("verger up"), "{line}");
    assert!(golden.bytes() == before, "the repository changed");
}

#[test]
fn events_are_followed_and_those_since_a_time_are_told() {
    let up = Up::start();
    let create = |name: &str| run(&mut up.verger(&["token", "create", name, "--scope", "read", "--all-tenants"]));
    create("before");
    let created = up.events(&[]).into_iter().find(|event| event["kind"] == "token_created").unwrap();
    let since = created["at"].as_str().unwrap().to_owned();
    let mut following = up.verger(&["events", "--since", &since, "--follow", "--json"]);
    let mut following = following.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap()["name"].clone();
    assert_eq!(next(), "before");
    create("after");
    assert_eq!(next(), "after", "it comes while it is followed");
    // Whoever reads no further ends it, as soon as there is something to tell.
    drop(lines);
    create("unread");
    assert!(following.wait().unwrap().success());
    assert_eq!(up.events(&["--since", &since]).len(), 3);
    assert_eq!(up.events(&["--since", "2100-01-01T00:00:00Z"]), Vec::<Value>::new());
    let wrong = fails(&mut up.verger(&["events", "--since", "soon"]), 2);
    assert!(wrong.contains("RFC 3339"), "{wrong}");
}

#[test]
fn on_a_full_disk_it_stops_with_its_code_and_nothing_acknowledged_is_lost() {
    let Some(small) = Small::mount(64 << 10) else { return };
    let home = tempfile::tempdir().unwrap();
    let data = small.0.join("data");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(&data, home.path().join("data")).unwrap();
    let mut fleet = Fleet::start(home, &[], &[]);
    let create = |fleet: &Fleet, name: &str| {
        fleet.owner(&["token", "create", name, "--scope", "read", "--all-tenants", "--quiet"]).output().unwrap()
    };
    let mut acknowledged = BTreeSet::new();
    let mut filler = Vec::new();
    let refused = loop {
        if acknowledged.len() == 3 {
            filler = fill(&small.0);
        }
        let name = format!("t{}", acknowledged.len());
        let output = create(&fleet, &name);
        if !output.status.success() {
            break output;
        }
        acknowledged.insert(name);
        assert!(acknowledged.len() < 2_000, "the disk is never full");
    };
    assert!(acknowledged.len() >= 3, "it was full too soon");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!([Some(22), Some(23)].contains(&refused.status.code()), "{said}");
    assert_eq!(fleet.ends(), Some(23));
    let log = std::fs::read_to_string(fleet.log()).unwrap();
    assert!(log.lines().last().unwrap().contains("Make room"), "{log}");
    filler.into_iter().for_each(|file| std::fs::remove_file(file).unwrap());
    fleet.again(&[]);
    let listed = json(&run(&mut fleet.owner(&["token", "list", "--json"])));
    let names: BTreeSet<String> =
        listed.as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap().to_owned()).collect();
    assert!(names.is_superset(&acknowledged), "{acknowledged:?} were acknowledged, and these are left: {names:?}");
    run(&mut fleet.owner(&["token", "create", "later", "--scope", "read", "--all-tenants", "--quiet"]));
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_a_pause_lasts_over_a_restart() {
    let golden = Golden::unpack("default");
    let mut up = Up::start();
    run(&mut up.add("photos", &golden, &["--act-as", OWNER, "--exclusive"]));
    let mut second = verger(up.home());
    second.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]).arg(up.data());
    fails(&mut second, 11);
    let mut far = verger(up.home());
    far.args(["up", "--listen", "0.0.0.0:0", "--data-dir"]).arg(up.home().join("far"));
    fails(&mut far, 2);
    let mut loud = verger(up.home());
    loud.args(["up", "--listen", "127.0.0.1:0", "--log-level", "loud=loudest", "--data-dir"])
        .arg(up.home().join("loud"));
    let line = fails(&mut loud, 2);
    assert!(line.contains("--log-level"), "{line}");
    run(up.verger(&FULL[..9]).args(["--key", "one"]));
    // Whatever it has come to by then: paused, or over.
    let cycle = loop {
        let cycles = up.json(&["cycle", "list", "photos", "--json"]);
        if let Some(cycle) = cycles.as_array().unwrap().first() {
            break cycle["id"].as_u64().unwrap().to_string();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let paused = up.verger(&["cycle", "pause", &cycle]).output().unwrap().status.success();
    up.kill();
    up.again();
    let shown = up.json(&["cycle", "show", &cycle, "--json"]);
    if paused {
        std::thread::sleep(Duration::from_millis(1500));
        let later = up.json(&["cycle", "show", &cycle, "--json"]);
        assert!(later["end"].is_null() && later["paused"] == true, "{later}");
        run(&mut up.verger(&["cycle", "resume", &cycle]));
    } else {
        assert!(!shown["end"].is_null(), "neither paused nor over: {shown}");
    }
    run(&mut up.verger(&["cycle", "watch", &cycle]));
    verified(&golden);
}

#[test]
fn the_token_is_for_its_user_alone_and_nowhere_else() {
    let golden = Golden::unpack("default");
    let up = Up::start();
    run(&mut up.add("photos", &golden, &["--act-as", OWNER, "--exclusive"]));
    up.json(&[&FULL[..], &["--json"]].concat());
    let tokens = up.home().join("config/verger/tokens");
    let path = std::fs::read_dir(&tokens).unwrap().next().unwrap().unwrap().path();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let token = std::fs::read_to_string(&path).unwrap().trim().to_owned();
    assert!(token.starts_with("vgr_") && token.len() >= 43);
    assert_eq!(holders(up.home(), &token, &path), Vec::<PathBuf>::new(), "the token lies about");
}

/// Files below `folder`, but for one, that hold these bytes.
fn holders(folder: &Path, secret: &str, but: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holders(&path, secret, but));
        } else if path != but
            && std::fs::read(&path).unwrap().windows(secret.len()).any(|part| part == secret.as_bytes())
        {
            found.push(path);
        }
    }
    found
}
