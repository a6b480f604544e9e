use serde_json::{Value, json};
use verger_proto::{Command, Failure, FailureKind, LogTime, Stage, TraceId};

use super::rig::{Rig, TOKEN};

fn ask(rig: &Rig, key: &str, body: Value) -> Value {
    let headers = [("Idempotency-Key", key)];
    let reply = rig.call_with("POST", "/v1/repositories/photos/cycles", Some(TOKEN), &headers, Some(&body));
    assert_eq!(reply.status, 202, "{}", reply.text);
    reply.json()
}

#[test]
fn the_same_key_is_the_same_wish_and_leads_to_its_cycle() {
    let rig = Rig::new();
    let repository = rig.add("photos");
    rig.take_lease(&repository, 1);
    let full = || json!({ "mode": "full", "safety": "full", "allowRemoving": 60 });
    let queued = json!({ "key": "nightly-7", "state": "queued" });
    assert_eq!((ask(&rig, "nightly-7", full()), ask(&rig, "nightly-7", full())), (queued.clone(), queued.clone()));
    assert_eq!(rig.state(|state| state.repositories[&repository].requests.len()), 1);
    assert_eq!(rig.get("/v1/repositories/photos/requests/nightly-7"), queued);
    let headers = [("Idempotency-Key", "nightly-7")];
    let other = json!({ "mode": "quick" });
    let reply = rig.call_with("POST", "/v1/repositories/photos/cycles", Some(TOKEN), &headers, Some(&other));
    assert_eq!(reply.error(), (409, "key-in-use".to_owned()));
    let cycle = rig.open_asked(&repository);
    assert_eq!(ask(&rig, "nightly-7", full()), json!({ "key": "nightly-7", "state": "open", "cycle": cycle.0 }));
    let answered = json!({ "key": "nightly-7", "state": "cycle", "cycle": cycle.0 });
    assert_eq!(rig.get("/v1/repositories/photos/requests/nightly-7"), answered);
    assert_eq!(ask(&rig, "same", full()), json!({ "key": "same", "state": "open", "cycle": cycle.0 }));
    let behind = json!({ "key": "other", "state": "queued", "behind": cycle.0 });
    assert_eq!(ask(&rig, "other", other.clone()), behind);
    let failure = Failure { kind: FailureKind::Locked, text: "somebody else".to_owned(), retryable: true };
    rig.submit(Command::DropRequest { repository, key: "other".to_owned(), failure });
    let failure = json!({ "error": "locked", "message": "somebody else", "retryable": true });
    let dropped = json!({ "key": "other", "state": "dropped", "failure": failure });
    assert_eq!(rig.get("/v1/repositories/photos/requests/other"), dropped);
    assert_eq!(ask(&rig, "other", other.clone()), dropped);
    assert_eq!(rig.call("GET", "/v1/repositories/photos/requests/never", None).status, 404);
    let (one, two) =
        (rig.post("/v1/repositories/photos/cycles", other.clone()), rig.post("/v1/repositories/photos/cycles", other));
    assert_ne!(one["key"], two["key"], "without a key each is a wish of its own");
}

#[test]
fn a_cycle_is_shown_from_its_opening_to_its_report() {
    let rig = Rig::new();
    let (repository, cycle) = rig.with_cycle("photos");
    let path = format!("/v1/cycles/{cycle}");
    let claimed = rig.claim(cycle);
    rig.progress(&claimed.0, 3);
    let shown = rig.get(&path);
    let expected = json!({
        "id": cycle.0, "repository": "photos", "repositoryId": repository.to_string(), "mode": "full", "safety": "full",
        "index": "epochs", "dryRun": false, "iAmAlone": false, "exclusive": false, "openedAt": "2023-11-14T22:13:20Z",
        "phase": "running", "paused": false, "stage": "survey", "term": 1,
        "traceId": TraceId::of(&repository, cycle, LogTime(1_700_000_000_000)).to_string(),
        "jobs": { "total": 1, "open": 0, "claimed": 1, "done": 0, "quarantined": 0 },
        "progress": { "done": 3, "total": 10, "unit": "blobs" },
        "jobList": [{
            "id": claimed.1.id.0, "attempt": 1, "failures": 0, "state": "claimed", "worker": "w1", "itemsDone": 0,
            "progress": { "done": 3, "total": 10, "unit": "blobs" },
        }],
        "freedBytes": 0,
    });
    assert_eq!(shown, expected);
    rig.finish(claimed, 0);
    rig.until(cycle, Stage::Delete, 0);
    let plan = rig.get(&path)["plan"].clone();
    assert_eq!((&plan["sealed"], &plan["totalPackedBytes"]), (&json!(true), &json!(100)));
    assert_eq!(plan["stages"][0], json!({ "stage": "delete", "items": 2, "bytes": 20 }));
    rig.run(&repository, cycle);
    let ended = rig.get(&path);
    assert_eq!((&ended["phase"], &ended["end"]), (&json!("ended"), &json!({ "outcome": "done" })));
    assert_eq!((&ended["plan"], &ended["freedBytes"]), (&plan, &json!(20)));
    assert_eq!(ended["report"], json!({ "outcome": "done", "tasks": {} }));
    rig.submit(Command::RecordReport { repository, cycle, report: "[1".to_owned() });
    assert_eq!(rig.get(&path)["report"], json!({ "text": "[1" }), "always an object");
    let entry = rig.get("/v1/repositories/photos");
    assert_eq!((&entry["lastCycle"], &entry["lastEnd"]), (&json!(cycle.0), &json!({ "outcome": "done" })));
    let reply = rig.call("POST", &format!("{path}/pause"), None);
    assert_eq!(reply.error(), (409, "cycle-ended".to_owned()));
}

#[test]
fn a_person_pauses_resumes_and_aborts() {
    let rig = Rig::new();
    let (_, cycle) = rig.with_cycle("photos");
    let say = |word: &str| rig.call("POST", &format!("/v1/cycles/{cycle}/{word}"), None);
    assert_eq!(say("resume").error(), (409, "not-parked".to_owned()));
    let how = |word: &str| {
        let shown = say(word).json();
        (shown["phase"].clone(), shown["paused"].clone())
    };
    assert_eq!(how("pause"), (json!("parked"), json!(true)));
    assert_eq!(how("pause"), (json!("parked"), json!(true)), "it is what was asked for");
    assert_eq!(how("resume"), (json!("parked"), json!(false)), "it waits for a worker and the lease");
    assert_eq!(say("resume").error(), (409, "not-parked".to_owned()));
    let held = rig.call("DELETE", "/v1/repositories/photos", None);
    assert_eq!(held.error(), (409, "cycle-open".to_owned()));
    let why = json!({ "reason": "the wrong day" });
    let aborted = rig.post(&format!("/v1/cycles/{cycle}/abort"), why);
    assert_eq!(aborted["end"], json!({ "outcome": "aborted", "message": "the wrong day" }));
}

#[test]
fn s5_a_word_is_for_one_plan_and_up_to_a_percentage() {
    let rig = Rig::new();
    let (_, cycle) = rig.with_cycle("photos");
    while rig.get(&format!("/v1/cycles/{cycle}"))["phase"] == "running" {
        rig.finish(rig.claim(cycle), 60);
    }
    let waiting = rig.get(&format!("/v1/cycles/{cycle}"));
    assert_eq!((&waiting["phase"], &waiting["plan"]["sealed"]), (&json!("waiting-for-word"), &json!(false)));
    let plan = waiting["plan"]["digest"].as_str().unwrap();
    let approve = |plan: &str, percent: u64| {
        let body = json!({ "plan": plan, "allowRemoving": percent });
        rig.call("POST", &format!("/v1/cycles/{cycle}/approve"), Some(body))
    };
    assert_eq!(approve(plan, 101).error(), (400, "bad-request".to_owned()));
    assert_eq!(approve(plan, 300).error(), (400, "bad-request".to_owned()));
    assert_eq!(approve("beef", 60).error(), (400, "bad-request".to_owned()));
    assert_eq!(approve(&"0".repeat(64), 60).error(), (409, "other-plan".to_owned()));
    let little = approve(plan, 59);
    assert_eq!(little.error(), (409, "removes-too-much".to_owned()));
    assert!(little.json()["message"].as_str().unwrap().contains("60 of 100 packed bytes"), "{}", little.text);
    let sealed = approve(plan, 60).json();
    assert_eq!((&sealed["phase"], &sealed["plan"]["sealed"]), (&json!("running"), &json!(true)));
    assert_eq!(approve(plan, 60).error(), (409, "already-sealed".to_owned()));
}

#[test]
fn pages_follow_each_other_without_gap() {
    let rig = Rig::new();
    let (first, cycle) = rig.with_cycle("photos");
    rig.run(&first, cycle);
    let (second, cycle) = rig.with_cycle("music");
    rig.run(&second, cycle);
    for _ in 0..3 {
        rig.post("/v1/repositories/photos/cycles", json!({ "mode": "full" }));
        let cycle = rig.open_asked(&first);
        rig.run(&first, cycle);
    }
    rig.post("/v1/repositories/photos/cycles", json!({ "mode": "quick", "dryRun": true }));
    rig.open_asked(&first);
    let ids = |value: &Value| value.as_array().unwrap().iter().map(|c| c["id"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(ids(&rig.get("/v1/cycles")), [6, 5, 4, 3, 2, 1]);
    let (mut path, mut pages) = ("/v1/cycles?repository=photos&limit=2".to_owned(), Vec::new());
    loop {
        let reply = rig.call("GET", &path, None);
        pages.push(ids(&reply.json()));
        let Some(link) = reply.header("link") else { break };
        path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
    assert_eq!(pages, [vec![6, 5], vec![4, 3], vec![1]]);
    let listed = rig.get("/v1/cycles?limit=1");
    assert!(listed[0]["jobList"].is_null() && listed[0]["jobs"].is_object(), "jobs one by one are for one cycle");
}
