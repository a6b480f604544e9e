//! Cycles as a person sees them in Jaeger: one trace each, whatever the way there and however many processes took part.

#![allow(clippy::unwrap_used)]

#[path = "support/coordinators.rs"]
mod coordinators;
#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/jaeger.rs"]
mod jaeger;
#[path = "support/nats.rs"]
mod nats;
#[path = "support/small.rs"]
mod small;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use jaeger::{Jaeger, Shown, Span};
use serde_json::{Value, json};
use small::{Small, fill};
use support::{Golden, OWNER, PASSWORD, fails, json, run};

const FULL: [&str; 8] = ["--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100", "--wait", "--json"];

fn is_over(shown: &Shown) -> bool {
    shown.named("cycle full").next().is_some()
}

/// One root, the cycle; below it stages; below these jobs, or shards with a job each; calls to the store below all of them.
fn is_one_tree(shown: &Shown) {
    let roots: Vec<&Span> = shown.spans.iter().filter(|span| span.parent.is_none()).collect();
    assert!(matches!(roots[..], [root] if root.name == "cycle full"), "{roots:#?}");
    for span in &shown.spans {
        assert_eq!(span.warnings, None, "{span:#?}");
        let way: Vec<String> = shown.way(span).into_iter().rev().collect();
        let kinds: Vec<&str> = way.iter().map(|name| name.split(' ').next().unwrap()).collect();
        match kinds[..] {
            ["cycle"] | ["cycle", "store"] => {}
            ["cycle", "stage"] | ["cycle", "stage", "job" | "shard" | "store", ..] => {
                assert!(kinds[2..].iter().filter(|kind| **kind == "job").count() <= 1, "{way:?}");
            }
            _ => panic!("{way:?}"),
        }
    }
    let stages: BTreeSet<&str> = shown.of("stage ").map(|span| &*span.name).collect();
    let expected = ["stage survey", "stage plan", "stage check", "stage mark", "stage delete", "stage close"];
    assert!(expected.iter().all(|stage| stages.contains(stage)), "{stages:?}");
    let calls: BTreeSet<&str> = shown.of("store ").map(|span| &*span.name).collect();
    assert!(["store get", "store put", "store delete"].iter().all(|call| calls.contains(call)), "{calls:?}");
}

#[test]
fn a_cycle_of_verger_up_is_one_trace_over_http_and_over_grpc() {
    let Some(jaeger) = Jaeger::start() else { return };
    let mut traces = BTreeSet::new();
    for protocol in ["http/protobuf", "grpc"] {
        let golden = Golden::unpack("default");
        let variables = jaeger.variables(protocol);
        let mut environment: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        environment.push(("PHOTOS_PASSWORD", PASSWORD));
        let up = fleet::Fleet::start(tempfile::tempdir().unwrap(), &[], &environment);
        let add = ["repo", "add", "photos", &golden.address(), "--password-env", "PHOTOS_PASSWORD"];
        run(up.owner(&add).args(["--act-as", OWNER, "--exclusive"]));
        let report = json(&run(up.owner(&["cycle", "start", "photos"]).args(FULL)));
        let id = report["traceId"].as_str().unwrap().to_owned();
        let shown = jaeger.trace(&id, is_over);
        is_one_tree(&shown);
        assert!(shown.spans.iter().all(|span| span.service == "verger" && !span.is_error), "{protocol}");
        let root = shown.named("cycle full").next().unwrap();
        assert_eq!((&*root.attributes["repository"], &*root.attributes["cycle.outcome"]), ("photos", "done"));
        traces.insert(id);
        assert_eq!(jaeger.found("verger", &json!({})), traces, "one trace a cycle");
        assert_eq!(jaeger.found("verger", &json!({ "cycle.outcome": "done" })), traces, "and it is found by its end");
    }
    assert_eq!(jaeger.services(), ["verger"]);
    assert!(jaeger.found("verger", &json!({ "error": "true" })).is_empty());
}

/// Names of the spans in red of the one trace that a search for errors finds.
fn in_red(jaeger: &Jaeger) -> (Shown, BTreeSet<String>) {
    let found = jaeger.found("verger", &json!({ "error": "true" }));
    assert_eq!(found.len(), 1, "{found:?}");
    let shown = jaeger.trace(found.first().unwrap(), is_over);
    let root = shown.named("cycle full").next().unwrap();
    assert!(root.is_error && root.attributes["cycle.outcome"] == "failed", "{root:#?}");
    let red = shown.spans.iter().filter(|span| span.is_error).map(|span| span.name.clone()).collect();
    (shown, red)
}

#[test]
fn a_plan_that_was_refused_is_shown_in_red_where_it_was_refused() {
    let Some(jaeger) = Jaeger::start() else { return };
    let golden = Golden::unpack("epochs");
    let most = ["maintain", "--full", "--act-as", OWNER, "--safety", "none", "--i-am-alone", &golden.address()];
    fails(golden.verger(most).envs(jaeger.variables("http/protobuf")), 16);
    let (_, red) = in_red(&jaeger);
    assert_eq!(red, ["cycle full", "job check"].map(str::to_owned).into());
}

/// On a disk with more and more room, until a cycle can begin; then there is none for its packs.
#[test]
fn a_call_that_failed_is_shown_in_red_with_all_that_failed_by_it() {
    let Some(jaeger) = Jaeger::start() else { return };
    let Some(small) = Small::mount(2048) else { return };
    let golden = Golden::unpack("default");
    let repository = small.0.join("repo");
    for room in (4..).step_by(4) {
        let _ = std::fs::remove_dir_all(&repository);
        run(Command::new("cp").arg("-a").arg(golden.repository()).arg(&repository));
        let free = small.0.join("free");
        std::fs::write(&free, vec![1; room << 10]).unwrap();
        let filler = fill(&small.0);
        std::fs::remove_file(free).unwrap();
        let mut command = golden.verger(["maintain", "--full", "--act-as", OWNER, "--safety", "none", "--i-am-alone"]);
        command.args(["--allow-removing", "100"]).arg(format!("filesystem://{}", repository.display()));
        fails(command.envs(jaeger.variables("grpc")), 23);
        filler.into_iter().for_each(|file| std::fs::remove_file(file).unwrap());
        if !jaeger.found("verger", &json!({ "error": "true" })).is_empty() {
            break;
        }
    }
    let (shown, red) = in_red(&jaeger);
    let put = shown.named("store put").find(|span| span.is_error).expect("a call in red");
    let way = shown.way(put);
    assert!(way.len() > 3, "{way:?}");
    assert!(way.iter().filter(|name| !name.starts_with("stage ")).all(|name| red.contains(name)), "{way:?} {red:?}");
}

/// A worker in a process of its own; ends with the value.
struct Worker(Child, PathBuf);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        if std::thread::panicking() {
            support::told(&std::fs::read_to_string(&self.1).unwrap_or_default());
        }
    }
}

/// The process of a run's worker.
fn process(worker: &str) -> &str {
    worker.split('/').next().unwrap()
}

/// Shards of a repository that were done, by their numbers, and by whom, as the ledger has it.
fn done(fleet: &coordinators::Fleet) -> BTreeMap<String, String> {
    let text = String::from_utf8(run(&mut fleet.verger(&["events", "--repo", "photos", "--json"])).stdout).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let tickets = events.filter(|event| event["kind"] == "job_completed").map(|event| event["ticket"].clone());
    tickets.map(|ticket| (ticket["job"].to_string(), ticket["worker"].as_str().unwrap().to_owned())).collect()
}

/// Of a golden repository on a local disk shards of a rewrite take no time, so a store is asked slowly: else its lead did them all.
#[test]
fn shards_of_workers_in_other_processes_are_in_the_cycles_trace() {
    let Some(jaeger) = Jaeger::start() else { return };
    // Without one, workers ask every two seconds.
    let nats = nats::NatsServer::start();
    let url = nats.as_ref().map(nats::NatsServer::url);
    let flags: Vec<&str> = url.iter().flat_map(|url| ["--nats", url]).collect();
    let fleet = coordinators::Fleet::start_with(0, &flags, &jaeger.variables("http/protobuf"));
    let home = fleet.home.path();
    let token = home.join("work-token");
    let mut made = fleet.verger(&["token", "create", "work", "--scope", "work", "--all-tenants", "--quiet"]);
    std::fs::write(&token, run(&mut made).stdout).unwrap();
    run(Command::new("chmod").arg("600").arg(&token));
    let exchange = format!("filesystem://{}", home.join("exchange").display());
    let begin = |name: &str, protocol: &str| {
        let mut command = fleet.verger(&["worker", "--name", name, "--concurrency", "1", "--shard-bytes", "1KiB"]);
        command.args(["--exchange", &exchange, "--requests-per-second", "50"]).args(&flags);
        command.arg("--token-file").arg(&token).env("PHOTOS_PASSWORD", PASSWORD).envs(jaeger.variables(protocol));
        let path = home.join(format!("worker-{name}"));
        let log = std::fs::File::create(&path).unwrap();
        Worker(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap(), path)
    };
    let _workers = [begin("one", "http/protobuf"), begin("two", "grpc")];
    let golden = Golden::unpack("epochs");
    let add = ["repo", "add", "photos", &golden.address(), "--password-env", "PHOTOS_PASSWORD"];
    run(fleet.verger(&add).args(["--act-as", OWNER, "--exclusive"]));
    let report = json(&run(fleet.verger(&["cycle", "start", "photos"]).args(FULL)));
    assert_eq!(report["outcome"], "done", "{report}");
    let done = done(&fleet);
    let is_whole = |shown: &Shown| is_over(shown) && shown.of("job ").count() >= done.len();
    let shown = jaeger.trace(report["traceId"].as_str().unwrap(), is_whole);
    is_one_tree(&shown);
    assert!(shown.spans.iter().all(|span| span.service == "verger" && !span.is_error));
    let lead = shown.named("cycle full").next().unwrap().attributes["worker"].clone();
    // Each job once, and named as the ledger names who did it: the lead's below its stage, others' below a shard of theirs.
    let mut seen = BTreeMap::new();
    for job in shown.of("job ") {
        let above = shown.spans.iter().find(|span| Some(&span.id) == job.parent.as_ref()).unwrap();
        let worker = above.attributes.get("worker").cloned().unwrap_or_else(|| lead.clone());
        assert!(seen.insert(job.attributes["shard.id"].clone(), worker).is_none(), "{job:#?} is there twice");
    }
    assert_eq!(seen, done);
    let processes: BTreeSet<&str> = seen.values().map(|worker| process(worker)).collect();
    assert_eq!(processes, ["one", "two"].into(), "nothing was shared");
    for shard in shown.of("shard ") {
        assert_ne!(process(&shard.attributes["worker"]), process(&lead), "{shard:#?}");
        assert!(shard.attributes["repository"] == "photos" && shard.process.contains_key("host.name"), "{shard:#?}");
    }
    assert_eq!(jaeger.found("verger", &json!({ "repository": "photos" })).len(), 1);
}
