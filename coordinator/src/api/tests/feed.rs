use serde_json::{Value, json};
use verger_kopia::clock::Timestamp;

use super::super::*;
use super::rig::Rig;

const STREAM: [(&str, &str); 1] = [("Accept", "text/event-stream")];

fn lines(rig: &Rig, query: &str) -> Vec<Value> {
    let reply = rig.call("GET", &format!("/v1/events{query}"), None);
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    reply.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn events_are_lines_that_can_be_chosen_and_gone_on_from() {
    let rig = Rig::new();
    let (repository, cycle) = rig.with_cycle("photos");
    rig.clock.set(Timestamp::from_second(1_700_000_100).unwrap());
    rig.add("music");
    rig.call("POST", "/v1/cycles/1/resume", None);
    let all = lines(&rig, "");
    let kinds: Vec<_> = all.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    let opened = ["cycle_opened", "stage_opened", "job_offered"];
    let expected = [
        &["repository_added", "store_probed", "lease_taken", "cycle_requested"][..],
        &opened,
        &["repository_added", "store_probed", "command_refused"],
    ];
    assert_eq!(kinds, expected.concat());
    assert_eq!(all[4]["sequence"], all[6]["sequence"], "one command");
    let parts: Vec<_> = all.iter().map(|event| event["part"].as_u64().unwrap()).collect();
    assert_eq!(parts, [0, 0, 0, 0, 0, 1, 2, 0, 0, 0]);
    let taken = json!({
        "sequence": 2, "part": 0, "at": "2023-11-14T22:13:20Z", "kind": "lease_taken", "repository": "photos",
        "repositoryId": repository.to_string(), "term": 1, "storeNow": 1_700_000_000_000u64, "actsUntil": 1_700_000_120_000u64,
    });
    assert_eq!(all[2], taken);
    let refused = &all[9];
    assert_eq!((&refused["error"], &refused["message"]), (&json!("not-parked"), &json!("the cycle is not parked")));
    assert_eq!((&refused["actor"], &refused["repository"]), (&json!("owner"), &json!("photos")));
    assert_eq!(lines(&rig, "?repository=photos").len(), 8);
    assert_eq!(lines(&rig, &format!("?cycle={cycle}")).len(), 4);
    assert_eq!(lines(&rig, "?kind=repository_added").len(), 2);
    assert_eq!(lines(&rig, "?since=3")[0]["kind"], "cycle_opened", "after that record");
    assert_eq!(lines(&rig, "?since=2023-11-14T22:14:00Z").len(), 3);
    assert_eq!(lines(&rig, "?limit=2").len(), 2);
    assert_eq!(lines(&rig, "?since=3&limit=1").len(), 3, "what one command did stays together");
    rig.run(&repository, cycle);
    let report = lines(&rig, "?kind=cycle_reported").remove(0);
    assert_eq!(report["report"], json!({ "outcome": "done", "tasks": {} }));
}

#[test]
fn who_follows_sees_what_happens_and_goes_on_where_the_connection_broke() {
    let rig = Rig::new();
    rig.add("photos");
    let mut new = rig.follow("/v1/events", &STREAM);
    let mut all = rig.follow("/v1/events?since=2000-01-01T00:00:00Z", &STREAM);
    let mut again = rig.follow("/v1/events?since=0", &[STREAM[0], ("Last-Event-ID", "1")]);
    assert_eq!(all.next().unwrap().data["repository"], "photos");
    assert_eq!(all.next().unwrap().event, "store_probed");
    rig.add("music");
    for stream in [&mut new, &mut all, &mut again] {
        let message = stream.next().unwrap();
        assert_eq!((message.id, message.event.as_str()), (Some(2), "repository_added"));
        assert_eq!(message.data["repository"], "music");
    }
    let mut two = rig.follow("/v1/events?limit=1", &STREAM);
    let repository = rig.add("letters");
    assert_eq!(two.next().unwrap().data["repository"], "letters");
    assert!(two.next().is_none(), "the limit ends a stream, too");
    let mut parts = rig.follow("/v1/events?repository=letters", &STREAM);
    rig.take_lease(&repository, 1);
    rig.post("/v1/repositories/letters/cycles", json!({ "mode": "full" }));
    rig.open_asked(&repository);
    let ids: Vec<_> = parts.by_ref().take(5).map(|message| message.id).collect();
    assert_eq!(ids, [Some(6), Some(7), None, None, Some(8)], "a record is over with its last event");
}

#[test]
fn a_watch_shows_stages_and_progress_and_ends_with_the_cycle() {
    let rig = Rig::new();
    let (repository, cycle) = rig.with_cycle("photos");
    let mut watch = rig.follow(&format!("/v1/cycles/{cycle}/watch"), &[]);
    let first = watch.next().unwrap();
    assert_eq!((first.event.as_str(), &first.data["stage"]), ("stage", &json!("survey")));
    let claimed = rig.claim(cycle);
    rig.progress(&claimed.0, 4);
    let progress = watch.by_ref().find(|message| message.data["progress"]["done"] == 4).unwrap();
    assert_eq!(progress.event, "progress");
    rig.finish(claimed, 0);
    let stage = watch.next().unwrap();
    assert_eq!((stage.event.as_str(), &stage.data["stage"]), ("stage", &json!("scan")));
    rig.run(&repository, cycle);
    let last = watch.last().unwrap();
    assert_eq!((last.event.as_str(), &last.data["end"]), ("end", &json!({ "outcome": "done" })));
    let late: Vec<_> = rig.follow(&format!("/v1/cycles/{cycle}/watch"), &[]).collect();
    assert_eq!((late.len(), late[0].event.as_str()), (1, "end"));
}

#[test]
fn a_token_that_expires_or_is_taken_back_hears_no_more() {
    for expires in [true, false] {
        let rig = Rig::new();
        let (repository, cycle) = rig.with_cycle("photos");
        let body = json!({ "name": "t", "scopes": ["read"], "allTenants": true, "expiresInSeconds": 60 });
        let token = rig.post("/v1/tokens", body)["token"].as_str().unwrap().to_owned();
        let watched = format!("/v1/cycles/{cycle}/watch");
        let streams = [rig.follow_as(&token, "/v1/events", &STREAM), rig.follow_as(&token, &watched, &[])];
        if expires {
            rig.clock.advance(std::time::Duration::from_secs(60));
        } else {
            rig.call("DELETE", "/v1/tokens/t", None);
        }
        rig.submit(verger_proto::Command::PauseCycle { cycle });
        rig.take_lease(&repository, 2);
        for mut stream in streams {
            let began = std::time::Instant::now();
            // What it heard before is its own; then the stream breaks off.
            while let Ok(Some(heard)) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stream.next())) {
                let data = heard.data;
                assert!(data["stop"].is_null() && data["kind"] != "lease_taken", "expires {expires}: {data}");
            }
            assert!(began.elapsed().as_secs() < 5, "expires {expires}: the stream goes on");
        }
    }
}

#[test]
fn places_in_a_ledger_are_found_again() {
    let rig = Rig::new();
    let repository = rig.add("photos");
    for term in 1..1_399 {
        rig.take_lease(&repository, term);
    }
    let events = LedgerEvents::new(rig.folder.path());
    assert_eq!(events.newest(), 1_400);
    for from in [0, 1, 511, 512, 513, 1_023, 1_024, 1_399, 1_400, 9_999] {
        let mut found = Vec::new();
        let read = events.read(from, &mut |record| {
            found.push(record.sequence);
            Ok(())
        });
        read.unwrap();
        assert_eq!(found, (from..1_400).collect::<Vec<_>>(), "from {from}");
    }
    rig.take_lease(&repository, 1_400);
    assert_eq!(events.newest(), 1_401);
    assert_eq!(lines(&rig, "").len(), 1_401);
}
