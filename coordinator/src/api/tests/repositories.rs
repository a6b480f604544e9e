use std::time::Duration;

use serde_json::{Value, json};
use verger_kopia::error::{Error, ErrorKind};
use verger_proto::{Command, Event, IndexKind, RepositoryId, SeenLease, Sight, StoreSeen, Term};

use super::super::{Events, LedgerEvents, Probed, Wanted};
use super::rig::{FLEET, Rig, found};

#[test]
fn a_repository_is_looked_at_added_changed_and_forgotten() {
    let rig = Rig::new();
    rig.look(|wanted| {
        assert_eq!((wanted.name.as_str(), wanted.address.as_str()), ("photos", "s3://attic/photos/"));
        Ok(found(wanted))
    });
    let added = rig.post("/v1/repositories", Rig::new_repository("photos"));
    let id = added["id"].clone();
    let capabilities = json!({
        "localDisk": false, "clockOffsetMs": 12, "roundTripMs": 30, "conditionalWrites": true, "conditionalDeletes": false,
        "readAfterWrite": true, "listAfterWrite": true, "stampOffsetMs": 0, "versions": false,
    });
    assert!(added["probedAt"].is_string());
    let mut expected = json!({
        "name": "photos", "id": id, "address": "s3://attic/photos/", "tenant": "default",
        "password": { "env": "PHOTOS_PASSWORD" }, "acting": "take-ownership", "exclusive": false, "suspended": false,
        "index": "epochs", "due": false, "leaseHeld": false, "term": 0, "queued": 0,
        "probe": { "owner": "kopia@cellar", "capabilities": capabilities, "warnings": [] },
        "capabilities": capabilities, "probedAt": added["probedAt"],
        "schedule": added["schedule"], "next": added["next"], "pool": "default", "weight": 1, "markToDrop": "day",
    });
    assert_eq!(added, expected);
    assert_eq!(rig.post("/v1/repositories", Rig::new_repository("photos")), expected, "the answer was lost: again");
    expected.as_object_mut().unwrap().remove("probe");
    assert_eq!(rig.get("/v1/repositories"), json!([expected]));
    let change = json!({
        "suspended": true, "exclusive": true, "acting": { "actAs": "owner@cellar" }, "password": { "file": "/run/secrets/p" },
    });
    let changed = rig.call("PATCH", "/v1/repositories/photos", Some(change.clone())).json();
    for (field, value) in change.as_object().unwrap() {
        assert_eq!(changed[field], *value);
    }
    assert_eq!(rig.get("/v1/repositories/photos"), changed);
    assert_eq!(rig.call("PATCH", "/v1/repositories/photos", Some(json!({}))).json(), changed);
    assert_eq!(rig.call("DELETE", "/v1/repositories/photos", None).json(), changed);
    assert_eq!(rig.get("/v1/repositories"), json!([]));
    assert_eq!(rig.call("DELETE", "/v1/repositories/photos", None).status, 404);
}

#[test]
fn everything_that_is_ordered_has_a_name_in_the_ledger() {
    let rig = Rig::new();
    rig.add("photos");
    rig.call("PATCH", "/v1/repositories/photos", Some(json!({ "suspended": true })));
    rig.post("/v1/repositories/photos/cycles", json!({ "mode": "quick" }));
    rig.call("DELETE", "/v1/repositories/photos", None);
    let mut names = Vec::new();
    let ledger = LedgerEvents::new(rig.folder.path());
    ledger
        .read(0, &mut |record| {
            assert_eq!(record.entry.command.actor(), Some("owner"));
            names.push(record.entry.command.name());
            Ok(())
        })
        .unwrap();
    assert_eq!(names, ["add_repository", "record_probe", "change_repository", "request_cycle", "remove_repository"]);
}

#[test]
fn a_second_look_notices_another_index_and_another_repository() {
    let rig = Rig::new();
    rig.add("photos");
    rig.look(|wanted| Ok(Probed { index: IndexKind::Legacy, ..found(wanted) }));
    let looked = rig.call("POST", "/v1/repositories/photos/probe", None).json();
    assert_eq!((&looked["index"], &looked["owner"]), (&json!("legacy"), &json!("kopia@cellar")));
    assert_eq!(rig.get("/v1/repositories/photos")["index"], "legacy");
    rig.post("/v1/repositories/photos/cycles", json!({ "mode": "full" }));
    let asked = rig.state(|state| state.repositories.values().next().unwrap().requests[0].options.index);
    assert_eq!(asked, IndexKind::Legacy, "cycles are for the index that is there now");
    rig.look(|wanted| Ok(Probed { repository: crate::testing::repository(), ..found(wanted) }));
    let reply = rig.call("POST", "/v1/repositories/photos/probe", None);
    assert_eq!(reply.error(), (409, "other-repository".to_owned()));
}

/// As [`found`], in a store of which this was seen besides.
fn in_a_store(wanted: &Wanted, change: impl FnOnce(&mut StoreSeen)) -> Probed {
    let mut probed = found(wanted);
    probed.store.seen.as_mut().map(change).unwrap();
    probed
}

#[test]
fn a_store_in_which_nothing_can_be_changed_safely_is_not_added() {
    type Look = fn(&Wanted) -> Probed;
    let rig = Rig::new();
    let looks: [(&str, Look); 4] = [
        ("unsupported", |wanted| in_a_store(wanted, |seen| seen.reads = Sight::After(1_200))),
        ("unsupported", |wanted| in_a_store(wanted, |seen| seen.lists = Sight::NotWithin(12_000))),
        ("unsupported", |wanted| in_a_store(wanted, |seen| seen.conditional_writes = false)),
        ("clock", |wanted| in_a_store(wanted, |seen| seen.stamp_offset = -301_000)),
    ];
    for (kind, look) in looks {
        rig.look(move |wanted| Ok(look(wanted)));
        let reply = rig.call("POST", "/v1/repositories", Some(Rig::new_repository("photos")));
        assert_eq!(reply.error(), (422, kind.to_owned()));
        assert!(reply.json()["fix"].is_string(), "{}", reply.json());
    }
    assert_eq!(rig.get("/v1/repositories"), json!([]));
    // A person's word stands for conditions, and for nothing else.
    let mut exclusive = Rig::new_repository("photos");
    exclusive["exclusive"] = json!(true);
    rig.look(|wanted| Ok(in_a_store(wanted, |seen| seen.reads = Sight::After(1))));
    assert_eq!(rig.call("POST", "/v1/repositories", Some(exclusive.clone())).error(), (422, "unsupported".to_owned()));
    rig.look(|wanted| Ok(in_a_store(wanted, |seen| seen.conditional_writes = false)));
    let added = rig.post("/v1/repositories", exclusive);
    assert!(added["probe"]["warnings"][0].as_str().unwrap().contains("conditional writes"), "{added}");
}

#[test]
fn what_a_later_probe_finds_is_kept_also_if_it_is_bad() {
    let rig = Rig::new();
    rig.add("photos");
    rig.look(|wanted| Ok(in_a_store(wanted, |seen| seen.lists = Sight::After(700))));
    assert_eq!(rig.call("POST", "/v1/repositories/photos/probe", None).error(), (422, "unsupported".to_owned()));
    let shown = rig.get("/v1/repositories/photos");
    assert_eq!(
        (&shown["capabilities"]["listAfterWrite"], &shown["capabilities"]["listLateMs"]),
        (&json!(false), &json!(700))
    );
    let kept = rig.state(|state| state.repositories.values().next().unwrap().store.clone().unwrap().0);
    assert!(kept.flaw(true).is_some(), "no cycle goes by what was seen before");
}

#[test]
fn r24_a_schedule_that_leaves_too_many_locked_versions_is_refused() {
    let rig = Rig::new();
    rig.look(|wanted| {
        let mut probed = found(wanted);
        (probed.store.keeps_versions, probed.store.default_retention) = (Some(true), Some(86_400));
        Ok(probed)
    });
    let mut often = Rig::new_repository("photos");
    often["schedule"] = json!({ "quick": "* * * * *" });
    assert_eq!(rig.call("POST", "/v1/repositories", Some(often.clone())).error(), (422, "unsupported".to_owned()));
    let added = rig.post("/v1/repositories", Rig::new_repository("photos"));
    assert!(added["probe"]["warnings"][0].as_str().unwrap().contains("locks each new version for 24 h"), "{added}");
    let change = json!({ "schedule": often["schedule"] });
    assert_eq!(rig.call("PATCH", "/v1/repositories/photos", Some(change)).error(), (422, "unsupported".to_owned()));
}

#[test]
fn what_cannot_be_opened_is_not_added_and_the_password_is_named_by_its_place() {
    let rig = Rig::new();
    let kinds = [
        (ErrorKind::WrongPassword, "wrong-password"),
        (ErrorKind::NotARepository, "not-a-repository"),
        (ErrorKind::StoreUnavailable, "store-unavailable"),
        (ErrorKind::Permission, "permission"),
        (ErrorKind::Unsupported, "unsupported"),
    ];
    for (kind, name) in kinds {
        rig.look(move |_| Err(Error::new(kind, "open it").with_fix("the fix")));
        let reply = rig.call("POST", "/v1/repositories", Some(Rig::new_repository("photos")));
        assert_eq!(reply.error(), (422, name.to_owned()));
        assert_eq!(reply.json()["fix"], "the fix");
        let says_where = reply.text.contains("the environment variable PHOTOS_PASSWORD");
        assert_eq!(says_where, kind == ErrorKind::WrongPassword, "{}", reply.text);
    }
    assert_eq!(rig.get("/v1/repositories"), json!([]));
}

#[test]
fn two_names_for_one_repository_and_one_name_for_two_are_refused() {
    let rig = Rig::new();
    rig.add("photos");
    let mut other = Rig::new_repository("photos");
    other["address"] = json!("s3://attic/music/");
    assert_eq!(rig.call("POST", "/v1/repositories", Some(other)).error(), (409, "name-taken".to_owned()));
    let mut again = Rig::new_repository("music");
    again["address"] = json!("s3://attic/photos/");
    let reply = rig.call("POST", "/v1/repositories", Some(again));
    assert_eq!(reply.error(), (409, "already-added".to_owned()));
    assert_eq!(reply.json()["message"], "this repository is looked after already, as photos");
}

#[test]
fn a_lease_is_shown_and_let_go_of_only_when_nothing_is_done_under_it() {
    let rig = Rig::new();
    let (repository, cycle) = rig.with_cycle("photos");
    let expected = json!([{
        "repository": repository.to_string(), "name": "photos", "term": 1, "actsUntil": "2023-11-14T22:15:20Z",
        "confirmed": "2023-11-14T22:13:20Z", "holder": FLEET, "ours": true, "actingAs": FLEET,
    }]);
    assert_eq!(rig.get("/v1/leases"), expected);
    let release = || rig.call("POST", "/v1/leases/photos/release", None);
    assert_eq!(release().error(), (409, "lease-in-use".to_owned()));
    assert!(rig.hands.freed.lock().unwrap().is_empty());
    rig.post(&format!("/v1/cycles/{cycle}/pause"), Value::Null);
    *rig.hands.under_way.lock().unwrap() = Duration::from_secs(170);
    let early = release();
    assert_eq!(early.error(), (409, "lease-in-use".to_owned()));
    assert!(early.text.contains("171 s"), "{}", early.text);
    assert_eq!(rig.get("/v1/leases"), expected, "the machine has not let go for nothing");
    *rig.hands.under_way.lock().unwrap() = Duration::ZERO;
    let released = json!({ "repository": repository.to_string(), "name": "photos", "term": 1, "free": true });
    assert_eq!(release().json(), released);
    assert_eq!(*rig.hands.freed.lock().unwrap(), [Term(1)]);
    assert_eq!(rig.get("/v1/leases"), json!([]));
    assert_eq!(release().error(), (409, "no-lease".to_owned()));
    let renewed = Command::ReleaseLease { repository, term: Term(1) };
    let events = submit_unchecked(&rig, renewed);
    assert!(matches!(events[..], [Event::CommandRefused { .. }]), "the machine let go before the object was written");
}

#[test]
fn a_lease_of_another_fleet_is_shown_as_that_and_is_none_to_release() {
    let rig = Rig::new();
    let seen = |holder: &str, free: bool| {
        let (holder, acts_until, expires) = (holder.to_owned(), rig.store().plus(60_000), rig.store().plus(600_000));
        SeenLease { holder, term: Term(8), acts_until, expires, free }
    };
    let lease = seen("verger@fleet-00000001", false);
    rig.look(move |wanted| Ok(Probed { lease: Some(lease.clone()), ..found(wanted) }));
    let repository = rig.add("photos");
    let other = json!({
        "holder": "verger@fleet-00000001", "term": 8, "actsUntil": "2023-11-14T22:14:20Z", "expires": "2023-11-14T22:23:20Z",
        "seen": "2023-11-14T22:13:20Z",
    });
    assert_eq!(rig.get("/v1/repositories/photos")["otherLease"], other);
    let mut row = other;
    row["repository"] = json!(repository.to_string());
    (row["name"], row["ours"]) = (json!("photos"), json!(false));
    assert_eq!(rig.get("/v1/leases"), json!([row]));
    assert_eq!(rig.call("POST", "/v1/leases/photos/release", None).error(), (409, "no-lease".to_owned()));
    assert_eq!(rig.get("/v1/repositories/photos")["leaseHeld"], false);
    rig.take_lease(&repository, 9);
    let leases = rig.get("/v1/leases");
    assert_eq!((&leases[0]["ours"], &leases[0]["holder"], &leases[1]), (&json!(true), &json!(FLEET), &Value::Null));
    assert!(rig.get("/v1/repositories/photos")["otherLease"].is_null());
    rig.submit(Command::ReleaseLease { repository, term: Term(9) });
    // One's own name is no other's, and what was given back is nobody's.
    for lease in [seen(FLEET, false), seen("verger@fleet-00000001", true)] {
        rig.look(move |wanted| Ok(Probed { lease: Some(lease.clone()), ..found(wanted) }));
        rig.post("/v1/repositories/photos/probe", Value::Null);
        assert_eq!(rig.get("/v1/leases"), json!([]));
    }
}

#[test]
fn r6_a_store_that_another_fleet_named_first_is_the_same_repository_until_a_lease_was_held_there() {
    let rig = Rig::new();
    let before = rig.add("photos");
    let named = |id: &str| {
        let id = id.repeat(16);
        move |wanted: &Wanted| {
            assert!(wanted.known.is_some());
            let found = found(wanted);
            let repository = RepositoryId { store: id.parse().unwrap(), ..found.repository.clone() };
            Ok(Probed { repository, ..found })
        }
    };
    rig.look(named("0a"));
    let probed = rig.post("/v1/repositories/photos/probe", Value::Null);
    let shown = rig.get("/v1/repositories/photos");
    assert!(probed["id"] == shown["id"] && shown["id"] != before.to_string().as_str(), "{shown}");
    assert_eq!(rig.get("/v1/repositories").as_array().unwrap().len(), 1);
    let after: RepositoryId = shown["id"].as_str().unwrap().parse().unwrap();
    let told = rig.call("GET", "/v1/events?repository=photos", None).text;
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&told[0]["kind"], &told[0]["repository"]), (&json!("store_identified"), &json!("photos")));
    assert_eq!(told[0]["before"], before.store.as_str());
    rig.take_lease(&after, 1);
    rig.submit(Command::ReleaseLease { repository: after, term: Term(1) });
    rig.look(named("0b"));
    let reply = rig.call("POST", "/v1/repositories/photos/probe", None);
    assert_eq!(reply.error(), (409, "other-repository".to_owned()));
}

#[test]
fn a_lease_is_handed_over_by_who_only_observes_from_then_on() {
    const TO: &str = "verger@fleet-00000001";
    let rig = Rig::new();
    let (repository, cycle) = rig.with_cycle("photos");
    let transfer = |to: &str| rig.call("POST", "/v1/leases/photos/transfer", Some(json!({ "to": to })));
    for to in ["", "fleet", "@x", "x@", FLEET, &format!("v@{}", "x".repeat(300))] {
        assert_eq!(transfer(to).error(), (400, "bad-request".to_owned()), "{to:?}");
    }
    assert_eq!(transfer(TO).error(), (409, "lease-in-use".to_owned()));
    assert_eq!(rig.get("/v1/repositories/photos")["acting"], "take-ownership");
    rig.post(&format!("/v1/cycles/{cycle}/pause"), Value::Null);
    *rig.hands.under_way.lock().unwrap() = Duration::from_secs(170);
    assert_eq!(transfer(TO).error(), (409, "lease-in-use".to_owned()));
    assert_eq!(rig.get("/v1/repositories/photos")["acting"], "take-ownership");
    *rig.hands.under_way.lock().unwrap() = Duration::ZERO;
    let id = repository.to_string();
    assert_eq!(transfer(TO).json(), json!({ "repository": id, "name": "photos", "term": 1, "to": TO, "free": true }));
    assert_eq!(rig.get("/v1/repositories/photos")["acting"], "observe");
    assert_eq!(rig.get("/v1/leases"), json!([]));
    assert_eq!(transfer(TO).json(), json!({ "repository": id, "name": "photos", "to": TO, "free": true }));
    let handed = rig.hands.handed.lock().unwrap();
    assert_eq!(*handed, [(TO.to_owned(), Some(Term(1))), (TO.to_owned(), None)]);
}

fn submit_unchecked(rig: &Rig, command: Command) -> Vec<Event> {
    crate::drive::Backend::submit(&*rig.backend, command).unwrap()
}
