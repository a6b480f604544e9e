//! The page against `docs/metrics.md`, and its figures against what happened.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use verger_proto::RepositoryId;

use super::rig::{Rig, TOKEN};

const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");

/// What a worker says of a cycle, as far as there are figures in it.
fn report() -> String {
    let gc = json!({
        "inUseContentCount": 5, "inUseContentSize": 500, "inUseSystemContentCount": 2, "inUseSystemContentSize": 20,
        "unreferencedContentCount": 3, "unreferencedContentSize": 30, "unreferencedRecentContentCount": 0,
        "unreferencedRecentContentSize": 0, "recoveredContentCount": 1, "recoveredContentSize": 10,
    });
    let tasks = json!({ "snapshot-gc": gc, "full-delete-blobs": { "retainedTotalSize": 77 } });
    let damage = json!([{ "severity": "noted", "subject": "xn0_1" }]);
    let report = json!({
        "outcome": "done", "tasks": tasks, "damage": damage, "indexBlobs": 12, "uncompactedEpochs": 2,
        "refusedBytes": 40, "deletesHide": false, "openMilliseconds": 1_250,
    });
    report.to_string()
}

/// What `verger verify` says.
fn verification(repository: &RepositoryId, problems: u64) -> Value {
    json!({
        "uniqueId": repository.unique.as_str(), "percent": 5.25, "snapshots": 3, "contents": 9, "contentsRead": 1,
        "bytesRead": 70, "problems": problems,
    })
}

/// A page on which everything was measured: a cycle that ended, and one at work.
fn page() -> String {
    let rig = Rig::new();
    let (repository, cycle) = rig.with_cycle("photos");
    rig.clock.advance(Duration::from_secs(20));
    rig.run_to_report(&repository, cycle, &report());
    rig.post("/v1/repositories/photos/cycles", json!({ "mode": "full" }));
    rig.take_lease(&repository, 2);
    let cycle = rig.open_asked(&repository);
    let (ticket, _) = rig.claim(cycle);
    rig.post("/v1/repositories/photos/verification", verification(&repository, 0));
    rig.clock.advance(Duration::from_secs(60));
    rig.progress(&ticket, 4);
    rig.call("GET", "/metrics", None).text
}

/// Names as they are on a page, without the suffixes of samples.
fn names(page: &str) -> BTreeSet<String> {
    let kinds = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let name = |line: &str| match line.split_once(' ').unwrap() {
        (name, "counter") => format!("{name}_total"),
        (name, _) => name.to_owned(),
    };
    kinds.map(name).collect()
}

#[test]
fn every_figure_is_in_the_document_and_every_one_of_the_document_is_there() {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `verger_"));
    let promised: BTreeSet<String> =
        rows.map(|row| format!("verger_{}", row.split(['`', '{']).next().unwrap())).collect();
    assert_eq!(names(&page()), promised);
}

#[test]
fn figures_are_those_of_what_happened() {
    let page = page();
    for line in [
        "verger_cycle_phase{repo=\"photos\",mode=\"full\",phase=\"survey\"} 1.0",
        "verger_cycle_phase{repo=\"photos\",mode=\"full\",phase=\"scan\"} 0.0",
        "verger_shards{repo=\"photos\",state=\"claimed\"} 1.0",
        "verger_shards{repo=\"photos\",state=\"open\"} 0.0",
        "verger_phase_progress_ratio{repo=\"photos\",phase=\"survey\"} 0.4",
        "verger_phase_eta_seconds{repo=\"photos\",phase=\"survey\"} 90.0",
        "verger_cycle_duration_seconds_count{mode=\"full\"} 1",
        "verger_cycle_duration_seconds_bucket{le=\"60.0\",mode=\"full\"} 1",
        "verger_cycle_duration_seconds_bucket{le=\"604800.0\",mode=\"full\"} 1",
        "verger_cycle_last_duration_seconds{repo=\"photos\",mode=\"full\"} 20.0",
        "verger_contents_live{repo=\"photos\"} 7.0",
        "verger_bytes_live{repo=\"photos\"} 520.0",
        // Measured, and none: not the same as not measured.
        "verger_contents_recent{repo=\"photos\"} 0.0",
        "verger_bytes_orphaned{repo=\"photos\"} 77.0",
        "verger_bytes_locked{repo=\"photos\"} 40.0",
        "verger_repo_open_seconds{repo=\"photos\"} 1.25",
        "verger_verify_age_seconds{repo=\"photos\"} 60.0",
        "verger_index_blobs{repo=\"photos\"} 12.0",
        "verger_epochs_uncompacted{repo=\"photos\"} 2.0",
        "verger_damage_items{repo=\"photos\",kind=\"noted\"} 1.0",
        "verger_damage_items{repo=\"photos\",kind=\"lost-index\"} 0.0",
        "verger_store_requests_total{repo=\"photos\",op=\"put\",class=\"p\",code=\"ok\"} 1",
        "verger_store_requests_total{repo=\"photos\",op=\"get\",class=\"q\",code=\"not-found\"} 1",
        "verger_store_bytes_total{repo=\"photos\",direction=\"written\"} 70",
        // A write for half a cent, a read for a quarter of that.
        "verger_cost_estimate_dollars_total{repo=\"photos\"} 0.00625",
        "verger_lease_term{repo=\"photos\"} 2.0",
        "verger_lease_expires_seconds{repo=\"photos\"} 60.0",
        "verger_lease_holder_info{repo=\"photos\",holder=\"verger@fleet-0a1b2c3d\"} 1.0",
        "verger_raft_leader 1.0",
        "verger_raft_applied_index 8.0",
        "verger_spans_dropped_total{reason=\"queue-full\"} 2",
        "verger_worker_memory_limit_bytes 1073741824.0",
        "verger_work_queue_offers_total{fate=\"offered\"} 1",
        "verger_work_queue_offers_total{fate=\"redelivered\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

#[test]
fn what_nobody_measured_is_left_out() {
    let rig = Rig::new();
    rig.add("music");
    let page = rig.call("GET", "/metrics", None).text;
    for name in
        ["contents_live", "bytes_live", "index_blobs", "damage_items", "cycle_phase", "lease_expires", "store_bytes"]
            .into_iter()
            .chain(["bytes_locked", "repo_open", "cost_estimate", "verify_age"])
    {
        assert!(!page.contains(&format!("verger_{name}")), "{name} in\n{page}");
    }
    assert!(page.contains("verger_lease_held{repo=\"music\"} 0.0\n"), "{page}");
}

/// Since one that found nothing wrong, whatever the last one found; and it is of the repository that was verified.
#[test]
fn the_age_of_a_verification_is_that_of_the_last_one_that_found_nothing_wrong() {
    let rig = Rig::new();
    let repository = rig.add("photos");
    let path = "/v1/repositories/photos/verification";
    let tell = |problems: u64| rig.post(path, verification(&repository, problems))["verification"].clone();
    let age = || {
        let page = rig.call("GET", "/metrics", None).text;
        let mut lines = page.lines().map(str::to_owned);
        lines.find_map(|line| Some(line.strip_prefix("verger_verify_age_seconds{repo=\"photos\"} ")?.to_owned()))
    };
    assert_eq!(tell(2).get("soundAt"), None);
    assert_eq!(age(), None, "nobody ever found it sound");
    let sound = tell(0);
    assert_eq!((&sound["problems"], &sound["percent"], &sound["soundAt"]), (&json!(0), &json!(5.25), &sound["at"]));
    rig.clock.advance(Duration::from_secs(60));
    let damaged = tell(1);
    assert_eq!((&damaged["problems"], &damaged["soundAt"]), (&json!(1), &sound["at"]));
    assert_eq!(age().as_deref(), Some("60.0"));
    let mut other = verification(&repository, 0);
    other["uniqueId"] = json!("0".repeat(64));
    assert_eq!(rig.call("POST", path, Some(other)).error(), (409, "usage".to_owned()), "of another repository");
    let mut more = verification(&repository, 0);
    more["percent"] = json!(100.5);
    assert_eq!(rig.call("POST", path, Some(more)).error(), (400, "bad-request".to_owned()));
    assert_eq!(rig.get("/v1/repositories/photos")["verification"], damaged);
}

/// A store that hides what is deleted refuses nothing: what it holds back is not known, and not nothing.
#[test]
fn what_a_store_hides_is_not_known_to_be_locked() {
    let rig = Rig::new();
    let (repository, cycle) = rig.with_cycle("photos");
    rig.run_to_report(&repository, cycle, &report().replace("\"deletesHide\":false", "\"deletesHide\":true"));
    let page = rig.call("GET", "/metrics", None).text;
    assert!(page.contains("verger_bytes_orphaned{repo=\"photos\"} 77.0\n"), "{page}");
    assert!(!page.contains("verger_bytes_locked"), "{page}");
}

/// As OpenMetrics has it: `name{label="value",…} number`, after a `# TYPE` of its own, each series once, `# EOF` at the end.
#[test]
fn the_page_is_what_prometheus_reads() {
    let page = page();
    let (mut seen, mut family) = (BTreeSet::new(), String::new());
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let body = page.strip_suffix("# EOF\n").unwrap();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.split(' ');
            assert!(matches!(words.next(), Some("HELP" | "TYPE" | "UNIT")), "{line}");
            family = words.next().unwrap().to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(seen.insert(series.to_owned()), "{line} is there twice");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(plain(name) && name.starts_with(&family), "{line} under {family}");
        for label in labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').unwrap();
            assert!(plain(key) && value.starts_with('"') && value.ends_with('"') && value.len() > 1, "{line}");
        }
    }
    assert!(seen.len() > 50 && !page.contains(TOKEN));
}
