//! What a full cycle asks of a far store: no byte of a pack twice, and few requests besides the data.

#![allow(clippy::unwrap_used)]

#[path = "support/client.rs"]
mod client;
#[path = "support/counting.rs"]
mod counting;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Plain, Trust};
use counting::{CountingStorage, Kind, Request};
use store::{HOUR, World, alone};
use verger::embedded::{CycleReport, Means, cycle};
use verger_kopia::content::ContentId;
use verger_kopia::maintenance::rules::plan::Mode;

/// R1, cheap checks: what a cycle may ask for besides the blobs that it reads and writes. (With the format, 48 today.)
const BESIDES_DATA: usize = 50;
/// With the legacy index each look lists one kind of blob more, the drop is a compaction, and what it replaced goes in three steps.
const BESIDES_DATA_LEGACY: usize = 100;
/// Round trips one after another in all, data included; a busy machine may start parallel ones late.
const ROUND_TRIPS: usize = 60;
const ROUND_TRIPS_LEGACY: usize = 120;
const ROUND_TRIP: Duration = Duration::from_millis(15);

/// Folders of files, nearly all of them the same from one snapshot to the next.
fn tree(world: &World, generation: u32) -> Vec<Plain> {
    let hasher = world.outside.hasher();
    let mut contents = Vec::new();
    for folder in 0..40u32 {
        let changed = if folder % 4 == 0 { generation } else { 0 };
        let mut entries = Vec::new();
        for file in 0..25u32 {
            let plain = format!("{changed} {folder} {file} ").repeat(20 + file as usize).into_bytes();
            let id = ContentId::new(0, hasher.hash(&plain)).unwrap();
            entries
                .push(serde_json::json!({"name": format!("{file}"), "type": "f", "mode": "0644", "size": plain.len(),
                "mtime": "2024-01-02T03:04:05Z", "obj": id.to_string()}));
            contents.push((0, plain));
        }
        let summary =
            serde_json::json!({"size": 0, "files": 25, "symlinks": 0, "dirs": 1, "maxTime": "2024-01-02T03:04:05Z"});
        let directory = serde_json::json!({"stream": "kopia:directory", "entries": entries, "summary": summary});
        contents.push((b'k', directory.to_string().into_bytes()));
    }
    contents
}

/// A repository with several short packs of either kind and dead contents in them; what a cycle on it asked for.
fn cycle_on(name: &str) -> (World, Vec<Request>, CycleReport) {
    let world = World::golden(name, HOUR);
    let mut ids = Vec::new();
    for generation in 1..=5 {
        ids.push(Client::new(&world.outside, Trust::Live).snapshot(&tree(&world, generation)));
        world.clock.advance(HOUR);
    }
    Client::new(&world.outside, Trust::Live).delete_snapshots(&ids[1..3]);
    world.clock.advance(HOUR);
    let counting = Arc::new(CountingStorage::new(world.faults.clone(), ROUND_TRIP));
    let means = Means { repository: world.repository.through(counting.clone()), parallel: None, ..world.means() };
    let report = cycle(means, &alone(Mode::Full)).unwrap();
    world.assert_whole(name);
    (world, counting.requests(), report)
}

fn is_data(request: &Request) -> bool {
    request.name.starts_with(['p', 'q', 'n', 'x']) && matches!(request.kind, Kind::Get | Kind::Put)
}

/// Bytes of each pack that were asked for more than once.
fn twice(requests: &[Request]) -> Vec<String> {
    let mut spans: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for request in requests.iter().filter(|r| r.kind == Kind::Get && r.name.starts_with(['p', 'q'])) {
        spans.entry(&request.name).or_default().push(request.span);
    }
    let mut found = Vec::new();
    for (name, mut spans) in spans {
        spans.sort_unstable();
        found.extend(spans.windows(2).filter(|w| w[1].0 < w[0].0 + w[0].1).map(|w| format!("{name} {w:?}")));
    }
    found
}

/// How many waits for the store come one after another.
fn round_trips(requests: &[Request]) -> usize {
    let (mut count, mut over) = (0, Duration::ZERO);
    for request in requests {
        if count == 0 || request.at >= over {
            (count, over) = (count + 1, request.at + ROUND_TRIP);
        }
    }
    count
}

/// `most`: requests besides the data, and round trips.
fn few_requests(name: &str, most: (usize, usize)) {
    let (world, requests, report) = cycle_on(name);
    let listed = || requests.iter().map(|r| format!("{:>5} ms {r}\n", r.at.as_millis())).collect::<String>();
    let count = |kind: Kind, letters: &[char]| {
        requests.iter().filter(|r| r.kind == kind && r.name.starts_with(letters)).count()
    };
    // The cycle did all that costs requests: it marked, moved contents of both kinds of pack, and deleted.
    let gc = &report.tasks["snapshot-gc"];
    assert!(gc["unreferencedContentCount"].as_u64().unwrap() > 100, "{name}: {gc}");
    assert!(count(Kind::Get, &['p']) > 3 && count(Kind::Get, &['q']) > 3, "{name}: packs were not read\n{}", listed());
    assert!(count(Kind::Put, &['p']) > 0 && count(Kind::Put, &['q']) > 0, "{name}: nothing moved\n{}", listed());
    assert!(count(Kind::Delete, &['p', 'q']) > 0, "{name}: nothing was deleted\n{}", listed());

    assert_eq!(twice(&requests), Vec::<String>::new(), "{name}: read twice\n{}", listed());
    let packs: BTreeSet<&str> =
        requests.iter().filter(|r| r.kind == Kind::Get && r.name.starts_with('p')).map(|r| r.name.as_str()).collect();
    assert_eq!(count(Kind::Get, &['p']), packs.len(), "{name}: a pack of files takes one request\n{}", listed());

    let data: BTreeSet<(Kind, &str)> =
        requests.iter().filter(|r| is_data(r)).map(|r| (r.kind, r.name.as_str())).collect();
    let besides = requests.iter().filter(|r| !is_data(r)).count();
    assert!(besides <= most.0, "{name}: {besides} besides the data\n{}", listed());
    // Each batch looks once, and so does the beginning.
    let batches = requests.iter().filter(|r| r.kind == Kind::List && r.name == "kopia.").count();
    let allowed = data.len() + batches + most.0.max(60);
    assert!(requests.len() <= allowed, "{name}: {} of {allowed}\n{}", requests.len(), listed());
    assert!(round_trips(&requests) <= most.1, "{name}: {}\n{}", round_trips(&requests), listed());
    let times = requests.iter().filter(|r| r.kind == Kind::Other && r.name == "now").count();
    assert!(times <= 2, "{name}: the store's time is counted on for ten seconds\n{}", listed());
    drop(world);
}

#[test]
fn a_cycle_reads_no_pack_twice_and_asks_little_else() {
    few_requests("default", (BESIDES_DATA, ROUND_TRIPS));
}

#[test]
fn a_cycle_reads_no_pack_twice_and_asks_little_else_with_the_legacy_index() {
    few_requests("format1", (BESIDES_DATA_LEGACY, ROUND_TRIPS_LEGACY));
}
