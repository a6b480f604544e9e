//! Two fleets that share a bucket, and nothing else: one of them acts at a time, and one that died is followed by the other.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use verger_kopia::clock::Timestamp;
use verger_kopia::storage::{BlobId, Condition, PutOptions, Storage as _};
use verger_worker::bucket_lease::{self, LEASE, LeaseBody, TTL_MIN};

use crate::coordinators::Fleet;
use crate::place::{environment, events, full, register, storage, upload, verifies};
use crate::support::{json, run, told};
use crate::weed::{self, Weed};

const NAME: &str = "shared";
/// Locked, as `docs/exit-codes.md` has it.
const LOCKED: i32 = 11;

/// One cycle; its exit code and what it says.
fn cycle(fleet: &Fleet) -> (Option<i32>, String) {
    let ended = fleet.verger(&full(NAME)).args(["--wait", "--json"]).output().unwrap();
    if ended.status.success() {
        assert_eq!(json(&ended)["outcome"], "done");
    }
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

/// From approval to end of every batch that a fleet approved, with its term. All run on one machine, whose clock is the store's, too.
fn batches(fleet: &Fleet) -> Vec<(Timestamp, Timestamp, u64)> {
    let done = events(fleet, NAME, "batch_done");
    let at = |event: &Value| event["at"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let span = |approved: &Value| {
        let same = |one: &&Value| {
            one["ticket"] == approved["ticket"] && one["outcome"]["batch"] == approved["approval"]["batch"]
        };
        // One whose end nobody told may go on until its deadline.
        let last = approved["approval"]["storeDeadline"].as_i64().unwrap();
        let last = Timestamp::from_millisecond(last).unwrap();
        let ended = done.iter().find(same).map_or(last, at);
        (at(approved), ended, approved["approval"]["term"].as_u64().unwrap())
    };
    events(fleet, NAME, "batch_approved").iter().map(span).collect()
}

fn terms(fleet: &Fleet) -> Vec<u64> {
    events(fleet, NAME, "lease_taken").iter().map(|taken| taken["term"].as_u64().unwrap()).collect()
}

/// Terms of both tell who came first, and no batch of one began before those of the other were over.
fn acted_one_at_a_time(fleets: [&Fleet; 2]) {
    let [one, other] = fleets.map(terms);
    let all: BTreeSet<u64> = one.iter().chain(&other).copied().collect();
    assert_eq!(all.len(), one.len() + other.len(), "a term was granted twice: {one:?} and {other:?}");
    assert!(one.is_sorted() && other.is_sorted());
    let mut spans: Vec<(Timestamp, Timestamp, u64)> = fleets.into_iter().flat_map(batches).collect();
    spans.sort_unstable();
    for pair in spans.windows(2) {
        let ((began, ended, term), (next, _, later)) = (pair[0], pair[1]);
        assert!(term <= later, "a batch of term {later} from {next} came after one of term {term} from {began}");
        assert!(term == later || ended <= next, "term {term}: from {began} to {ended}; term {later}: from {next}");
    }
    told(&format!("{} batches under terms {one:?} and {other:?}", spans.len()));
}

fn lease(weed: &Weed) -> LeaseBody {
    bucket_lease::read(&storage(weed, &format!("fleet/{NAME}/"))).unwrap().unwrap().1
}

/// As [`Fleet::kill`], all of it.
fn kill_all(fleet: &mut Fleet) {
    (1..=3).for_each(|id| fleet.kill(id));
}

fn revive(fleet: &mut Fleet) {
    (1..=3).for_each(|id| fleet.up(id));
    fleet.leader();
}

#[test]
fn two_fleets_on_one_bucket_never_act_at_once_and_one_takes_over_when_the_other_dies() {
    let Some(weed) = weed::find().and_then(|_| Weed::start()) else { return };
    let _golden = upload(&weed, "epochs", NAME);
    let mut first = Fleet::start_with(1, &[], &environment(&weed));
    let second = Fleet::start_with(1, &[], &environment(&weed));
    // The first lease in a store says which store it is: whoever comes later takes its word.
    register(&first, NAME);
    assert_eq!(cycle(&first).0, Some(0));
    register(&second, NAME);
    let answers: Vec<(Option<i32>, String)> = std::thread::scope(|scope| {
        let runs = [&first, &second].map(|fleet| scope.spawn(move || (0..4).map(|_| cycle(fleet)).collect::<Vec<_>>()));
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
    });
    let done = answers.iter().filter(|(code, _)| *code == Some(0)).count();
    told(&format!("{done} of {} cycles of two fleets at once ended, the others were refused", answers.len()));
    assert!(done >= 2);
    for (code, said) in answers.iter().filter(|(code, _)| *code != Some(0)) {
        assert!(*code == Some(LOCKED) && said.contains("holds the lease"), "{code:?}: {said}");
    }
    acted_one_at_a_time([&first, &second]);

    let died = dies_at_work(&mut first, &weed);
    // Each tells of its own leases alone; whose it is the other learns when it wants it.
    assert_eq!(second.json(&["lease", "list", "--json"]), serde_json::json!([]));
    let (code, said) = cycle(&second);
    assert!(code == Some(LOCKED) && said.contains(&died.holder), "{code:?}: {said}");
    let began = in_the_end(&weed, &died);
    let taken = loop {
        let (code, said) = cycle(&second);
        if code == Some(0) {
            break began.elapsed();
        }
        assert_eq!(code, Some(LOCKED), "{said}");
        assert!(began.elapsed() < TTL_MIN + Duration::from_secs(180), "nobody takes over");
        std::thread::sleep(Duration::from_secs(2));
    };
    told(&format!(
        "a fleet takes over from one that died: its cycle was done {} s after the last renewal",
        taken.as_secs()
    ));
    assert!(taken >= TTL_MIN, "before the lease had run out");
    revive(&mut first);
    acted_one_at_a_time([&first, &second]);
    // Nobody takes the old fleet's word any more, and it takes its turn.
    assert!(lease(&weed).free && lease(&weed).term > died.term);
    assert_eq!(cycle(&first).0, Some(0));
    assert!(terms(&first).last() > terms(&second).last());
    acted_one_at_a_time([&first, &second]);
    verifies(&weed, &second, NAME);
}

/// Kills the whole fleet in the middle of a cycle; the lease that it leaves behind.
fn dies_at_work(fleet: &mut Fleet, weed: &Weed) -> LeaseBody {
    for attempt in 0..5 {
        let before = events(fleet, NAME, "stage_opened").len();
        run(fleet.verger(&full(NAME)).args(["--key", &format!("dies-{attempt}")]));
        let began = Instant::now();
        while events(fleet, NAME, "stage_opened").len() < before + 2 {
            assert!(began.elapsed() < Duration::from_secs(60), "no cycle begins");
        }
        let shown = fleet.json(&["lease", "list", "--json"]);
        kill_all(fleet);
        let left = lease(weed);
        if !left.free {
            assert_eq!(shown[0]["holder"], left.holder.as_str(), "it knows its own: {shown}");
            return left;
        }
        told("it ended before it was killed");
        revive(fleet);
    }
    panic!("it is always too fast");
}

/// What it said is said again with the shortest time to live that there is, so that the test need not wait for ten minutes: whoever
/// takes over goes by what the object says. Since when.
fn in_the_end(weed: &Weed, died: &LeaseBody) -> Instant {
    let storage = storage(weed, &format!("fleet/{NAME}/"));
    let (blob, body) = bucket_lease::read(&storage).unwrap().unwrap();
    assert_eq!(body, *died, "the dead write nothing");
    let shorter = serde_json::to_vec(&LeaseBody { ttl_seconds: TTL_MIN.as_secs(), ..body }).unwrap();
    let condition = Condition::IfMatch(blob.etag.unwrap());
    let options = PutOptions { condition, ..PutOptions::default() };
    let began = Instant::now();
    storage.put(&BlobId::from(LEASE), shorter.into(), &options).unwrap();
    began
}
