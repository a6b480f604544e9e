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

/// From approval to end of a batch, with its term. All run on one machine, whose clock is the store's, too.
type Span = (Timestamp, Timestamp, u64);

/// What a fleet did, as its events tell it.
struct Deeds {
    terms: Vec<u64>,
    spans: Vec<Span>,
}

impl Deeds {
    fn of(fleet: &Fleet) -> Self {
        let [taken, approved, done] =
            ["lease_taken", "batch_approved", "batch_done"].map(|kind| events(fleet, NAME, kind));
        Self::told(&taken, &approved, &done)
    }

    fn told(taken: &[Value], approved: &[Value], done: &[Value]) -> Self {
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
        let terms = taken.iter().map(|taken| taken["term"].as_u64().unwrap()).collect();
        Self { terms, spans: approved.iter().map(span).collect() }
    }
}

fn terms(fleet: &Fleet) -> Vec<u64> {
    Deeds::of(fleet).terms
}

/// No term was granted twice, and no fleet's terms went back.
fn terms_tell_who_came_first(deeds: &[Deeds; 2]) -> Result<(), String> {
    let [one, other] = [&deeds[0].terms, &deeds[1].terms];
    let all: BTreeSet<u64> = one.iter().chain(other).copied().collect();
    if all.len() != one.len() + other.len() || !one.is_sorted() || !other.is_sorted() {
        return Err(format!("a term was granted twice, or late: {one:?} and {other:?}"));
    }
    Ok(())
}

fn in_order(deeds: &[Deeds; 2]) -> Vec<Span> {
    let mut spans: Vec<Span> = deeds.iter().flat_map(|deeds| deeds.spans.clone()).collect();
    spans.sort_unstable();
    spans
}

/// No batch of an earlier term began after one of a later term.
fn later_terms_act_later(deeds: &[Deeds; 2]) -> Result<(), String> {
    match in_order(deeds).windows(2).find(|pair| pair[0].2 > pair[1].2) {
        Some(pair) => Err(format!("a batch of term {} came after one of term {}", pair[1].2, pair[0].2)),
        None => Ok(()),
    }
}

/// No batch of one term began before those of all others were over.
fn nobody_acts_beside_another(deeds: &[Deeds; 2]) -> Result<(), String> {
    let mut last: Option<Span> = None;
    for span in in_order(deeds) {
        if let Some((began, ended, term)) = last.filter(|last| last.2 != span.2 && last.1 > span.0) {
            return Err(format!("term {term}: from {began} to {ended}; term {}: from {}", span.2, span.0));
        }
        // The one that lasts longest, whoever began first.
        last = Some(last.filter(|last| last.1 > span.1).unwrap_or(span));
    }
    Ok(())
}

/// Terms of both tell who came first, and no batch of one began before those of the other were over.
fn acted_one_at_a_time(fleets: [&Fleet; 2]) {
    let deeds = fleets.map(Deeds::of);
    for check in [terms_tell_who_came_first, later_terms_act_later, nobody_acts_beside_another] {
        check(&deeds).unwrap_or_else(|what| panic!("{what}"));
    }
    let [one, other] = &deeds;
    let batches = one.spans.len() + other.spans.len();
    told(&format!("{batches} batches under terms {:?} and {:?}", one.terms, other.terms));
}

/// The events of a fleet under one term: batches by when they were approved and ended, in seconds; one without an end has no word of it.
fn forged(term: u64, batches: &[(i64, Option<i64>)]) -> Deeds {
    let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap().to_string();
    let ticket = |number: usize| serde_json::json!({ "cycle": 1, "job": number, "term": term });
    let batch = |number: usize| serde_json::json!({ "stage": "delete", "number": number });
    let approved = batches.iter().enumerate().map(|(number, (from, _))| {
        let deadline = (1_800_000_000 + from + 120) * 1_000;
        let approval = serde_json::json!({ "batch": batch(number), "term": term, "storeDeadline": deadline });
        serde_json::json!({ "at": at(*from), "ticket": ticket(number), "approval": approval })
    });
    let done = batches.iter().enumerate().filter_map(|(number, (_, ended))| {
        let outcome = serde_json::json!({ "batch": batch(number) });
        ended.map(|ended| serde_json::json!({ "at": at(ended), "ticket": ticket(number), "outcome": outcome }))
    });
    let taken = serde_json::json!({ "term": term });
    Deeds::told(&[taken], &approved.collect::<Vec<_>>(), &done.collect::<Vec<_>>())
}

/// Two fleets at work at once under terms that are in order: nothing but the look at overlaps notices.
#[test]
fn the_look_at_overlaps_alone_notices_two_fleets_that_act_at_once() {
    let one_after_the_other = [forged(4, &[(0, Some(5)), (6, Some(9))]), forged(5, &[(10, Some(12))])];
    assert_eq!(nobody_acts_beside_another(&one_after_the_other), Ok(()));
    let overlaps = [
        [forged(4, &[(0, Some(20))]), forged(5, &[(10, Some(12))])],
        // The older one lasts longer than all that began after it.
        [forged(4, &[(0, Some(40)), (2, Some(3))]), forged(5, &[(10, Some(12))])],
        [forged(4, &[(0, Some(40))]), forged(5, &[(41, Some(50)), (42, None)])],
        // Nobody told its end, so that it may last until its deadline.
        [forged(4, &[(0, Some(5)), (6, None)]), forged(5, &[(60, Some(70))])],
    ];
    let noticed = [true, true, false, true];
    for (deeds, noticed) in overlaps.iter().zip(noticed) {
        assert!(terms_tell_who_came_first(deeds).is_ok() && later_terms_act_later(deeds).is_ok());
        assert_eq!(nobody_acts_beside_another(deeds).is_err(), noticed);
    }
    let late = [forged(5, &[(0, Some(5))]), forged(4, &[(6, Some(9))])];
    assert!(nobody_acts_beside_another(&late).is_ok() && later_terms_act_later(&late).is_err());
    let twice = [forged(4, &[(0, Some(5))]), forged(4, &[(6, Some(9))])];
    assert!(later_terms_act_later(&twice).is_ok() && terms_tell_who_came_first(&twice).is_err());
}

/// What the repository is to a fleet.
fn id(fleet: &Fleet) -> String {
    fleet.json(&["repo", "show", NAME, "--json"])["id"].as_str().unwrap().to_owned()
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
    // Whoever adds it first says in the store which one it is, before anybody held its lease.
    std::thread::scope(|scope| {
        let adds = [&first, &second].map(|fleet| scope.spawn(|| register(fleet, NAME)));
        adds.into_iter().for_each(|add| add.join().unwrap());
    });
    let named = lease(&weed);
    assert!(named.free && named.term == 0 && named.holder.is_empty(), "{named:?}");
    assert_eq!(id(&first), id(&second), "it is one repository to both");
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
    // Whose it is the other learns when it wants it.
    let (code, said) = cycle(&second);
    assert!(code == Some(LOCKED) && said.contains(&died.holder), "{code:?}: {said}");
    let shown = &second.json(&["lease", "list", "--json"])[0];
    assert_eq!((&shown["ours"], &shown["holder"]), (&Value::Bool(false), &Value::String(died.holder.clone())));
    assert_eq!(shown["term"], died.term);
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
    // At once: what was in the middle goes on by itself.
    let began = Instant::now();
    while !lease(&weed).free {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody frees the lease: {:?}", lease(&weed));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(lease(&weed).term > died.term);
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
