//! Traces as a collector gets them: the tree of a cycle, collectors that are no help, and secrets that must not be in them.

#![allow(clippy::unwrap_used)]

#[path = "support/collector.rs"]
mod collector;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use collector::{Collector, Mood, Told};
use serde_json::Value;
use support::{Golden, OWNER, json, run};

/// A full cycle that forgets and deletes, at once.
const FULL: [&str; 10] =
    ["maintain", "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100", "--json", "--act-as", OWNER];

fn cycle(golden: &Golden) -> Command {
    let address = golden.address();
    let mut arguments = FULL.to_vec();
    arguments.push(&address);
    golden.verger(arguments)
}

fn traced(golden: &Golden, endpoint: &str) -> Command {
    let mut command = cycle(golden);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    command
}

/// The same, and in its collector's own way.
fn traced_to(golden: &Golden, collector: &Collector) -> Command {
    let mut command = traced(golden, &collector.endpoint);
    command.env("OTEL_EXPORTER_OTLP_PROTOCOL", collector.protocol);
    command
}

/// Everything in a report that does not follow from the time or from lots that were drawn.
fn lasting(report: &Value) -> Value {
    let mut report = report.clone();
    for changing in ["started", "ended", "traceId", "next", "openMilliseconds"] {
        report.as_object_mut().unwrap().remove(changing);
    }
    report["plan"].as_object_mut().unwrap().remove("digest");
    for (task, times) in [
        ("full-drop-deleted-content", "droppedContentsDeletedBefore"),
        ("delete-superseded-epoch-indexes", "maxReplacementTime"),
    ] {
        report["tasks"][task].as_object_mut().unwrap().remove(times);
    }
    report
}

fn children<'a>(spans: &'a [Told], of: &Told) -> Vec<&'a Told> {
    let mut children: Vec<&Told> = spans.iter().filter(|span| span.parent == of.id).collect();
    children.sort_by_key(|span| span.start);
    children
}

fn number(span: &Told, attribute: &str) -> u64 {
    span.attributes[attribute].parse().unwrap()
}

#[test]
fn a_cycle_is_one_trace_of_stages_jobs_batches_and_calls() {
    let golden = Golden::unpack("default");
    let collector = Collector::start(Mood::Good);
    // Over HTTP, if nobody says how.
    let report = json(&run(&mut traced(&golden, &collector.endpoint)));
    is_one_trace(&golden, &report, &collector.spans());
}

#[test]
fn over_grpc_a_cycle_is_the_same_trace() {
    let golden = Golden::unpack("default");
    let collector = Collector::grpc(Mood::Good);
    let report = json(&run(&mut traced_to(&golden, &collector)));
    is_one_trace(&golden, &report, &collector.spans());

    // The variable of traces alone is the stronger one, as is its address, of which gRPC needs no path.
    let golden = Golden::unpack("default");
    let collector = Collector::grpc(Mood::Good);
    let mut command = cycle(&golden);
    command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf").env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
    command.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &collector.endpoint);
    let report = json(&run(&mut command));
    is_one_trace(&golden, &report, &collector.spans());
}

#[test]
fn over_grpc_with_tls_a_collector_is_believed_only_with_a_known_certificate() {
    let golden = Golden::unpack("default");
    let (collector, certificate) = Collector::grpc_with_tls();
    let authorities = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authorities.path().join("ours.pem"), authorities.path().join("theirs.pem"));
    std::fs::write(&ours, certificate).unwrap();
    std::fs::write(&theirs, Collector::grpc_with_tls().1).unwrap();
    let output = run(traced_to(&golden, &collector).env("SSL_CERT_FILE", theirs));
    assert!(String::from_utf8(output.stderr).unwrap().contains("spans are lost"));
    assert!(collector.bytes().is_empty(), "nothing is told to a stranger");

    let golden = Golden::unpack("default");
    let report = json(&run(traced_to(&golden, &collector).env("SSL_CERT_FILE", ours)));
    is_one_trace(&golden, &report, &collector.spans());
}

fn is_one_trace(golden: &Golden, report: &Value, spans: &[Told]) {
    let roots: Vec<&Told> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    let [root] = roots[..] else { panic!("{roots:?}") };
    assert!(spans.iter().all(|span| span.trace == root.trace), "one trace");
    assert!(spans.iter().all(|span| !span.is_error), "nothing failed");
    assert_eq!(report["traceId"].as_str(), Some(root.trace.as_str()));
    assert_eq!((root.name.as_str(), root.attributes["service.name"].as_str()), ("cycle full", "verger"));
    assert_eq!(root.attributes["cycle.outcome"], "done");
    assert_eq!(root.attributes["lease.term"], report["term"].to_string());
    let status = golden.inspect("status", &[]);
    assert_eq!(Some(root.attributes["kopia.repo_id"].as_str()), status["uniqueIDHex"].as_str());
    assert!(root.attributes.contains_key("kopia.epoch"), "{root:?}");

    let stages: Vec<&Told> = children(spans, root).into_iter().filter(|span| span.name.starts_with("stage ")).collect();
    let names: Vec<&str> = stages.iter().map(|span| span.name.trim_start_matches("stage ")).collect();
    let all = verger_proto::Stage::ALL.map(verger_proto::Stage::name);
    let ran: Vec<&str> = all.into_iter().filter(|name| names.contains(name)).collect();
    assert_eq!(names, ran, "stages follow each other in order, each once");
    assert!(["survey", "scan", "mark", "delete", "close"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(stages.windows(2).all(|two| two[0].end <= two[1].start), "one ends before the next begins");

    let mut batches = BTreeMap::new();
    for stage in &stages {
        let jobs = children(spans, stage);
        let name = format!("job {}", stage.attributes["verger.stage"]);
        assert!(!jobs.is_empty() && jobs.iter().all(|job| job.name == name), "{stage:?}: {jobs:#?}");
        for job in jobs {
            assert!(job.attributes.contains_key("shard.id") && job.attributes["job.outcome"] == "done", "{job:?}");
            let below = below(spans, job);
            let calls = below.iter().filter(|span| span.name.starts_with("store ")).count() as u64;
            assert_eq!(calls, number(job, "store.requests"), "{job:?}: every call has a span");
            let bytes: u64 = below
                .iter()
                .filter_map(|span| span.attributes.get("store.op").map(|_| number(span, "store.bytes")))
                .sum();
            assert_eq!(bytes, number(job, "store.bytes"), "{job:?}");
            for batch in children(spans, job).into_iter().filter(|span| span.name.starts_with("batch ")) {
                let parts: Vec<&str> = children(spans, batch).iter().map(|span| span.name.as_str()).collect();
                assert_eq!((parts, batch.attributes["batch.result"].as_str()), (vec!["approve", "deed"], "done"));
                *batches.entry(batch.attributes["verger.stage"].clone()).or_insert(0) += 1;
            }
        }
    }
    let has = |stage: &str| batches.keys().any(|found| found.starts_with(stage));
    assert!(has("mark") && has("delete"), "{batches:?}");
    let deletes: Vec<&Told> = spans.iter().filter(|span| span.name == "store delete").collect();
    assert!(deletes.iter().any(|span| span.attributes["store.class"] == "p"), "{deletes:?}");
    let job = spans.iter().find(|span| span.name == "job delete").unwrap();
    assert_eq!(job.attributes["kopia.task"], "full-delete-blobs");
}

fn below<'a>(spans: &'a [Told], of: &Told) -> Vec<&'a Told> {
    let mut found = Vec::new();
    for child in children(spans, of) {
        found.push(child);
        found.extend(below(spans, child));
    }
    found
}

#[test]
fn a_bad_collector_changes_nothing_but_one_warning() {
    let plain = Golden::unpack("default");
    let expected = lasting(&json(&run(&mut cycle(&plain))));
    let gone = "http://127.0.0.1:1".to_owned();
    let all = [
        Collector::start(Mood::Fails),
        Collector::start(Mood::Sleeps),
        Collector::grpc(Mood::Fails),
        Collector::grpc(Mood::Sleeps),
    ];
    let gone = ["http/protobuf", "grpc"].map(|protocol| (protocol, &gone));
    for (protocol, endpoint) in all.iter().map(|one| (one.protocol, &one.endpoint)).chain(gone) {
        let golden = Golden::unpack("default");
        let began = Instant::now();
        let mut command = traced(&golden, endpoint);
        // A queue of eight is full at once.
        let output = run(command.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol).env("OTEL_BSP_MAX_QUEUE_SIZE", "8"));
        assert_eq!(lasting(&json(&output)), expected, "{protocol} {endpoint}");
        let warnings = String::from_utf8(output.stderr).unwrap();
        assert_eq!(warnings.matches("spans are lost").count(), 1, "{protocol} {endpoint}: {warnings}");
        assert!(began.elapsed() < Duration::from_secs(30), "{protocol} {endpoint}: nobody waits for it");
    }
    assert!(all.iter().all(|one| !one.bytes().is_empty()), "each was asked");
}

#[test]
fn a_killed_cycle_goes_on_in_its_trace() {
    let golden = Golden::unpack("default");
    let collector = Collector::start(Mood::Good);
    let mut slow = traced(&golden, &collector.endpoint);
    slow.args(["--requests-per-second", "10"]).env("OTEL_BSP_SCHEDULE_DELAY", "1");
    let mut process = slow.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !collector.spans().iter().any(|span| span.name == "stage survey") {
        assert!(Instant::now() < until && process.try_wait().unwrap().is_none(), "it was over too soon");
        std::thread::sleep(Duration::from_millis(20));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    let before: BTreeSet<String> = collector.spans().into_iter().map(|span| span.trace).collect();
    let report = json(&run(&mut traced(&golden, &collector.endpoint)));
    assert_eq!(before, [report["traceId"].as_str().unwrap().to_owned()].into());
    let spans = collector.spans();
    let root = spans.iter().find(|span| span.name == "cycle full").unwrap();
    assert!(spans.iter().all(|span| span.trace == root.trace));
    assert_eq!(root.attributes["cycle"], report["cycle"].to_string());
}

#[test]
fn what_cannot_be_used_is_said_and_nothing_is_exported_unless_asked() {
    let golden = Golden::unpack("default");
    let collector = Collector::start(Mood::Good);
    let mut command = traced(&golden, &collector.endpoint);
    let output = run(command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(["http/json", "http/protobuf", "grpc"].iter().all(|word| said.contains(word)), "{said}");
    let golden = Golden::unpack("default");
    run(traced(&golden, &collector.endpoint).env("OTEL_TRACES_SAMPLER", "always_off"));
    let golden = Golden::unpack("default");
    run(traced(&golden, &collector.endpoint).env("OTEL_SDK_DISABLED", "true"));
    assert!(collector.bytes().is_empty());
}

#[test]
fn s9_no_secret_is_in_traces_logs_or_warnings() {
    for collector in [Collector::start(Mood::Good), Collector::grpc(Mood::Good)] {
        no_secret_is_told(&collector);
    }
}

fn no_secret_is_told(collector: &Collector) {
    let golden = Golden::unpack("default");
    let canaries = ["canary-header-9f31", "canary-user-77aa", "canary-pass-c0de", support::PASSWORD];
    let host = collector.endpoint.trim_start_matches("http://").to_owned();
    for (endpoint, level) in [
        (format!("http://canary-user-77aa:canary-pass-c0de@{host}"), "trace"),
        // Nobody is there: the error's own words have the whole of it.
        ("http://canary-user-77aa:canary-pass-c0de@127.0.0.1:1/?key=canary-header-9f31".to_owned(), "debug"),
        ("http://canary-user-77aa:canary-pass-c0de@[".to_owned(), "debug"),
    ] {
        let mut command = traced(&golden, &endpoint);
        command.env("OTEL_EXPORTER_OTLP_PROTOCOL", collector.protocol);
        command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=canary-header-9f31");
        command.args(["--log-format", "json", "--log-level", level]);
        let output = run(&mut command);
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(told).unwrap();
        for canary in canaries {
            assert!(!told.contains(canary), "{canary} is in\n{told}");
        }
    }
    let spans = format!("{:?}", collector.spans());
    assert!(spans.contains("cycle full"));
    for canary in canaries {
        assert!(!spans.contains(canary), "{canary} is in a span");
    }
    // The headers themselves were sent, or this would show nothing.
    let sent = String::from_utf8_lossy(&collector.bytes()).into_owned();
    assert!(sent.contains("canary-header-9f31") && sent.contains("authorization: Basic "), "{}", collector.protocol);
}

#[test]
fn lines_of_a_json_log_name_the_repository_the_cycle_and_the_trace() {
    let golden = Golden::unpack("default");
    let collector = Collector::start(Mood::Good);
    let mut command = traced(&golden, &collector.endpoint);
    let output = run(command.args(["--log-format", "json", "--log-level", "debug"]));
    let report = json(&output);
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_jobs: Vec<&Value> = lines.iter().filter(|line| line["message"] == "a job ended").collect();
    assert!(of_jobs.len() > 4, "{text}");
    let spans = collector.spans();
    for line in of_jobs {
        assert_eq!((&line["trace_id"], &line["cycle"]), (&report["traceId"], &report["cycle"]), "{line}");
        assert_eq!(
            (line["repository"].as_str(), line["level"].as_str()),
            (Some(golden.address().as_str()), Some("DEBUG"))
        );
        let span = spans.iter().find(|span| Some(span.id.as_str()) == line["span_id"].as_str()).unwrap();
        assert_eq!(Some(span.attributes["verger.stage"].as_str()), line["stage"].as_str());
    }
}
