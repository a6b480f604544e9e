//! A worker that is told to end: what it has goes to others at once, and not when its claims have run out. And what it says of itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use verger_kopia::clock::Timestamp;

use crate::place::{Flow, full, get, process_of};
use crate::support::{free_address, json, run, told};

const NAME: &str = "epochs";
/// A shard has several packs of this repository then: who is told to stop in the middle of one does not come to its end.
const SHARD_BYTES: &str = "16KiB";
/// So slow that a cycle takes half a minute.
const SLOW: [&str; 4] = ["--requests-per-second", "5", "--parallel", "4"];
/// Two requests wait in line at any time, and the later of them for a second at least: so long it takes to come to a boundary.
const SLOWER: [&str; 4] = ["--requests-per-second", "1", "--parallel", "2"];
const DRAIN: Duration = Duration::from_secs(60);
/// The same as the flag.
const DRAIN_FLAG: [&str; 2] = ["--drain-timeout", "60s"];
/// Less than the silence after which a cycle is given to another lead (15 s), and than a claim lasts (30 s).
const SOON: Duration = Duration::from_secs(12);

fn at(event: &Value) -> Timestamp {
    event["at"].as_str().unwrap().parse().unwrap()
}

/// From one event to a later one.
fn between(earlier: &Value, later: &Value) -> Duration {
    Duration::try_from(at(later).duration_since(at(earlier))).unwrap()
}

fn worker_of(event: &Value) -> String {
    process_of(event["ticket"]["worker"].as_str().unwrap())
}

/// The ticket of a shard that a worker is in the middle of, as soon as it is.
fn has_a_shard(flow: &Flow, worker: &str) -> Value {
    let began = Instant::now();
    loop {
        let offered = flow.events(NAME, "job_offered");
        let is_cut = |job: &Value| {
            let of_job = offered.iter().find(|offer| offer["job"] == *job);
            of_job.is_some_and(|offer| offer["stage"] == "scan" || offer["stage"] == "rewrite")
        };
        let claims = flow.events(NAME, "job_claimed");
        // Asked for last: what is not over now is under way.
        let over = [flow.events(NAME, "job_completed"), flow.events(NAME, "job_failed")].concat();
        let is_over = |ticket: &Value| over.iter().any(|end| end["ticket"] == *ticket);
        let his = claims.iter().filter(|claim| worker_of(claim) == worker).map(|claim| &claim["ticket"]);
        if let Some(ticket) = his.rev().find(|ticket| is_cut(&ticket["job"]) && !is_over(ticket)) {
            return ticket.clone();
        }
        assert!(flow.events(NAME, "cycle_closed").is_empty(), "{worker} comes too late for a shard");
        assert!(began.elapsed() < Duration::from_secs(90), "{worker} gets no shard");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Its name is in no word of a lost job, and nobody is listed under it: it has said goodbye, and given everything back.
fn leaves_nothing(flow: &Flow, worker: &str) {
    let lost = flow.events(NAME, "job_lost");
    let his: Vec<&Value> = lost.iter().filter(|lost| process_of(lost["worker"].as_str().unwrap()) == worker).collect();
    assert!(his.is_empty(), "{his:?}");
    // A coordinator that does not lead may be a moment behind.
    let began = Instant::now();
    while flow.listed().contains_key(worker) {
        assert!(began.elapsed() < Duration::from_secs(10), "{worker} is listed still: {:?}", flow.listed());
        std::thread::sleep(Duration::from_millis(200));
    }
    let log = flow.log(worker);
    assert!(!log.contains("did not come to a boundary"), "{log}");
}

/// Waits for the end of the cycle.
fn is_done(flow: &Flow) {
    let ended = json(&run(flow.fleet.verger(&full(NAME)).args(["--key", "one", "--wait", "--json"])));
    assert_eq!(ended["outcome"], "done", "{ended}");
    assert_eq!(flow.events(NAME, "cycle_opened").len(), 1, "it is the same cycle");
    flow.verifies(NAME);
}

#[test]
fn a_worker_that_ends_in_the_middle_of_a_shard_gives_it_back_and_another_does_it() {
    let Some(mut flow) = Flow::start() else { return };
    let _golden = flow.add(NAME);
    flow.work_cutting("stays", SHARD_BYTES, &SLOW);
    flow.waits_until_listed("stays", "ready");
    run(flow.fleet.verger(&full(NAME)).args(["--key", "one"]));
    // It was alone, so it leads; whoever comes now does shards and nothing else.
    assert_eq!(flow.lead(NAME, 1), "stays");
    let address = free_address();
    flow.work_cutting("goes", SHARD_BYTES, &[&SLOWER[..], &DRAIN_FLAG, &["--listen", &address]].concat());
    let ticket = has_a_shard(&flow, "goes");
    assert_eq!(get(&address, "/readyz", None), Some((200, "ready\n".to_owned())));

    let began = Instant::now();
    flow.terminate("goes");
    let mut said = Vec::new();
    while flow.is_there("goes") {
        said.extend(get(&address, "/readyz", None));
        assert!(began.elapsed() < DRAIN, "it goes on: {}", flow.log("goes"));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(flow.ends("goes", DRAIN), Some(0), "{}", flow.log("goes"));
    told(&format!("a worker in the middle of a shard ends in {} ms", began.elapsed().as_millis()));
    // A probe takes it out as long as it comes to its boundary.
    assert!(said.contains(&(503, "stopping\n".to_owned())), "{said:?}");
    leaves_nothing(&flow, "goes");

    let failed = flow.waits_for(NAME, "job_failed", 1);
    let back: Vec<&Value> = failed.iter().filter(|failed| failed["ticket"] == ticket).collect();
    assert_eq!(back.len(), 1, "{ticket} was not given back, or twice: {failed:?}");
    assert_eq!(back[0]["failure"]["kind"], "interrupted", "{back:?}");
    // Offered with the same word, under a new number.
    let is_next = |offer: &&Value| offer["sequence"] == back[0]["sequence"] && offer["job"] == ticket["job"];
    let offered = flow.events(NAME, "job_offered");
    let next = offered.iter().find(is_next).unwrap_or_else(|| panic!("nobody is offered {ticket}"));
    let attempt = ticket["attempt"].as_u64().unwrap() + 1;
    assert_eq!(next["attempt"], attempt);

    is_done(&flow);
    let is_again = |event: &&Value| event["ticket"]["job"] == ticket["job"] && event["ticket"]["attempt"] == attempt;
    let claims = flow.events(NAME, "job_claimed");
    let claim = claims.iter().find(is_again).unwrap_or_else(|| panic!("nobody takes {ticket}"));
    assert_eq!(worker_of(claim), "stays");
    // It had shards of its own to do first: longer than at once, and shorter than a claim lasts.
    let until_taken = between(back[0], claim);
    told(&format!("a shard that was given back is taken after {} ms", until_taken.as_millis()));
    assert!(until_taken < Duration::from_secs(25), "{until_taken:?}");
    assert!(flow.events(NAME, "job_completed").iter().any(|done| is_again(&done)));
    // It said nothing of the shard: none was cut in halves for it, and nothing was left out.
    assert!(flow.events(NAME, "shard_split").is_empty() && flow.events(NAME, "shard_quarantined").is_empty());
    leaves_nothing(&flow, "goes");
}

#[test]
fn a_lead_that_ends_in_the_middle_of_a_shard_parks_its_cycle_and_another_leads_it_on_at_once() {
    let Some(mut flow) = Flow::start() else { return };
    let _golden = flow.add(NAME);
    flow.work_cutting("goes", SHARD_BYTES, &[&SLOW[..], &DRAIN_FLAG].concat());
    flow.waits_until_listed("goes", "ready");
    run(flow.fleet.verger(&full(NAME)).args(["--key", "one"]));
    assert_eq!(flow.lead(NAME, 1), "goes");
    flow.work_cutting("stays", SHARD_BYTES, &SLOW);
    flow.waits_until_listed("stays", "ready");
    has_a_shard(&flow, "goes");

    let began = Instant::now();
    flow.terminate("goes");
    assert_eq!(flow.ends("goes", DRAIN), Some(0), "{}", flow.log("goes"));
    told(&format!("a lead in the middle of a shard ends in {} ms", began.elapsed().as_millis()));
    assert_eq!(flow.waits_for(NAME, "cycle_parked", 1).len(), 1, "{}", flow.log("goes"));
    assert!(flow.events(NAME, "cycle_closed").is_empty() && flow.events(NAME, "request_dropped").is_empty());
    let released = flow.waits_for(NAME, "lease_released", 1);
    assert_eq!(released.len(), 1, "the lease is let go: {released:?}");
    let left = flow.waits_for(NAME, "drive_left", 1);
    assert_eq!(left.len(), 1, "the drive is left: {left:?}");
    leaves_nothing(&flow, "goes");

    let taken = flow.waits_for(NAME, "drive_taken", 2);
    // Left, and not taken from one that had been silent for too long.
    assert!(taken[1]["before"].is_null(), "{}", taken[1]);
    let until_taken = between(&left[0], &taken[1]);
    told(&format!("a cycle that was left is taken after {} ms", until_taken.as_millis()));
    assert!(until_taken < SOON, "{until_taken:?} after it was left; the log of who left it: {}", flow.log("goes"));
    is_done(&flow);
    assert_eq!(flow.lead(NAME, 1), "stays");
    let terms: Vec<Value> = flow.events(NAME, "lease_taken").iter().map(|taken| taken["term"].clone()).collect();
    assert_eq!(terms.len(), 2, "{terms:?}");
    assert_eq!(released[0]["term"], terms[0], "it is the first lead's");
    // Nothing of the first lead was under way when it let go.
    let log = flow.log("stays");
    assert!(!log.contains("its requests are waited out"), "{log}");
    leaves_nothing(&flow, "goes");
}

/// Figures that the documentation promises of a worker: its own, and those of stores, which name no repository there; with their labels.
fn figures_of_a_worker() -> BTreeMap<String, Vec<String>> {
    let text = include_str!("../../docs/metrics.md");
    let section = |title: &str| {
        let rest = text.split_once(title).unwrap_or_else(|| panic!("there is no {title}")).1;
        rest.split("\n## ").next().unwrap().to_owned()
    };
    let rows = [section("\n## Stores\n"), section("\n## A worker's own\n")].concat();
    let name = |row: &str| {
        let cell = row.strip_prefix("| ")?.trim_start_matches("<code>").trim_start_matches('`');
        let end = cell.find(['<', '`', ' ']).filter(|_| cell.starts_with("verger_"))?;
        let (name, labels) = cell[..end].split_once('{').unwrap_or((&cell[..end], ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty() && *label != "repo");
        Some((name.to_owned(), labels.map(str::to_owned).collect()))
    };
    let mut all: BTreeMap<String, Vec<String>> = rows.lines().filter_map(name).collect();
    // There are no prices here.
    assert!(all.remove("verger_cost_estimate_dollars_total").is_some());
    all
}

fn figure(page: &str, row: &str) -> u64 {
    let found = page.lines().find_map(|line| line.strip_prefix(row)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("{row} is not in {page}"))
}

#[test]
fn a_worker_says_that_it_lives_that_it_is_heard_and_every_figure_that_is_written_of() {
    let Some(mut flow) = Flow::start() else { return };
    let _golden = flow.add(NAME);
    let address = free_address();
    flow.work_with("hand-1", &["--listen", &address]);
    flow.waits_until_listed("hand-1", "ready");
    // It is listed a moment before it begins to answer.
    let began = Instant::now();
    while get(&address, "/readyz", None) != Some((200, "ready\n".to_owned())) {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", get(&address, "/readyz", None));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(get(&address, "/healthz", None), Some((200, "alive\n".to_owned())));
    assert_eq!(flow.cycle(NAME)["outcome"], "done");
    // The cycle is over for whoever waits a moment before it is for its lead.
    let began = Instant::now();
    let page = loop {
        let (status, page) = get(&address, "/metrics", None).unwrap();
        assert_eq!(status, 200, "{page}");
        if figure(&page, "verger_worker_jobs_total{kind=\"cycle\",outcome=\"done\"}") >= 1 {
            break page;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "no cycle is done: {page}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let figures = figures_of_a_worker();
    assert!(figures.len() >= 11 && figures.contains_key("verger_worker_places_busy"), "{figures:?}");
    for (name, labels) in &figures {
        let rows = page.lines().filter_map(|line| line.strip_prefix(name.as_str()));
        let rows: Vec<&str> = rows.filter(|rest| rest.starts_with(['{', ' '])).collect();
        assert!(!rows.is_empty(), "{name} is not in {page}");
        for label in labels {
            assert!(rows.iter().all(|row| row.contains(&format!("{label}=\""))), "{name} without {label}: {rows:?}");
        }
    }
    // Whoever asks shows no token.
    assert!(!page.contains("repo=") && !page.contains(NAME), "{page}");
    let read = figure(&page, "verger_store_bytes_total{direction=\"read\"}");
    assert!(read > 10_000, "a whole cycle read {read} bytes");
    assert_eq!(get(&address, "/v1/status", None).map(|(status, _)| status), Some(404), "and nothing else is there");
}
