use std::time::Duration;

use serde_json::{Value, json};

use super::super::*;
use super::client::{call, text};
use super::rig::{Rig, TOKEN, found};

fn limited(limits: Limits) -> Rig {
    Rig::with(limits)
}

fn changed(field: &str, value: Value) -> Value {
    let mut body = Rig::new_repository("photos");
    body[field] = value;
    body
}

#[test]
fn a_bad_body_is_refused_by_its_field_and_never_repeated_where_it_may_be_a_secret() {
    let rig = Rig::new();
    let cases = [
        (changed("name", json!("Two Words")), "name:"),
        (changed("tenant", json!("../up")), "tenant:"),
        (changed("exclusive", json!("yes")), "exclusive: invalid type"),
        (changed("colour", json!("red")), "unknown field `colour`"),
        (changed("acting", json!("sometimes")), "acting: unknown variant"),
        (changed("acting", json!({ "actAs": "nobody" })), "acting.actAs:"),
        (changed("password", json!("hunter2")), "password:"),
        (changed("password", json!({ "plain": "hunter2" })), "password:"),
        (changed("password", json!({ "hunter2": "x" })), "password:"),
        (changed("password", json!({ "env": "hunter2=x" })), "password:"),
        (changed("password", json!({ "mounted": "../hunter2" })), "password:"),
        (changed("password", json!({ "file": "hunter2" })), "password:"),
        (changed("address", json!("s3://key:hunter2@attic/photos")), "address:"),
        (changed("address", json!("s3://attic/photos?secret=hunter2")), "address:"),
        (changed("address", json!("photos")), "address:"),
        (changed("address", json!("nfs://attic/photos")), "address:"),
    ];
    for (body, says) in cases {
        let reply = rig.call("POST", "/v1/repositories", Some(body.clone()));
        assert_eq!(reply.error(), (400, "bad-request".to_owned()), "{body}");
        assert!(reply.json()["message"].as_str().unwrap().contains(says), "{body}: {}", reply.text);
        assert!(!reply.text.contains("hunter2"), "{}", reply.text);
    }
    let mut body = Rig::new_repository("photos");
    body.as_object_mut().unwrap().remove("acting");
    assert!(rig.call("POST", "/v1/repositories", Some(body)).text.contains("missing field `acting`"));
    for raw in ["{", "", "[]", "{} {}", "nothing"] {
        let reply = call(rig.address, text("POST", "/v1/repositories", Some(TOKEN), &[], Some(raw)).as_bytes());
        assert_eq!(reply.error(), (400, "bad-request".to_owned()), "{raw:?}");
    }
    let form = text("PATCH", "/v1/repositories/photos", Some(TOKEN), &[], Some("{}"))
        .replace("application/json", "text/plain");
    rig.add("photos");
    assert_eq!(call(rig.address, form.as_bytes()).error(), (400, "bad-request".to_owned()));
}

#[test]
fn a_bad_wish_is_refused() {
    let rig = Rig::new();
    rig.add("photos");
    let mut observed = Rig::new_repository("music");
    observed["acting"] = json!("observe");
    rig.post("/v1/repositories", observed);
    let ask = |name: &str, body: Value| rig.call("POST", &format!("/v1/repositories/{name}/cycles"), Some(body));
    for (name, body, status, kind) in [
        ("photos", json!({ "mode": "slow" }), 400, "bad-request"),
        ("photos", json!({ "mode": "full", "allowRemoving": 101 }), 400, "bad-request"),
        ("photos", json!({ "mode": "full", "allowRemoving": 1_000 }), 400, "bad-request"),
        ("photos", json!({ "mode": "full", "allowRemoving": -1 }), 400, "bad-request"),
        ("photos", json!({ "mode": "full", "safety": "none" }), 400, "not-alone"),
        ("photos", json!({ "mode": "full", "safety": "none", "iAmAlone": true }), 409, "not-exclusive"),
        ("music", json!({ "mode": "full" }), 409, "only-observed"),
        ("letters", json!({ "mode": "full" }), 404, "not-found"),
        ("TWO%20WORDS", json!({ "mode": "full" }), 404, "not-found"),
    ] {
        assert_eq!(ask(name, body.clone()).error(), (status, kind.to_owned()), "{name} {body}");
    }
    assert_eq!(ask("music", json!({ "mode": "full", "dryRun": true })).status, 202);
    for key in ["", "two words", "a/b", "..", &"k".repeat(129)] {
        let body = json!({ "mode": "full" });
        let headers = [("Idempotency-Key", key)];
        let reply = rig.call_with("POST", "/v1/repositories/photos/cycles", Some(TOKEN), &headers, Some(&body));
        assert_eq!(reply.error(), (400, "bad-request".to_owned()), "{key:?}");
    }
    for _ in 0..16 {
        assert_eq!(ask("photos", json!({ "mode": "full" })).status, 202);
    }
    assert_eq!(ask("photos", json!({ "mode": "full" })).error(), (409, "too-many-requests".to_owned()));
}

#[test]
fn unknown_names_paths_methods_and_parameters() {
    let rig = Rig::new();
    let error = |method: &str, path: &str| {
        let reply = call(rig.address, text(method, path, Some(TOKEN), &[], None).as_bytes());
        (reply.error(), reply.header("allow").map(str::to_owned))
    };
    for (method, path, status, kind) in [
        ("GET", "/v1/nothing", 404, "not-found"),
        ("GET", "/v1/repositories/absent", 404, "not-found"),
        ("POST", "/v1/repositories/absent/probe", 404, "not-found"),
        ("POST", "/v1/leases/absent/release", 404, "not-found"),
        ("POST", "/v1/leases/absent/transfer", 404, "not-found"),
        ("GET", "/v1/cycles/99", 404, "not-found"),
        ("GET", "/v1/cycles/first", 404, "not-found"),
        ("GET", "/v1/cycles/99/watch", 404, "not-found"),
        ("POST", "/v1/cycles/99/pause", 404, "not-found"),
        ("GET", "/v1/cycles?repository=absent", 404, "not-found"),
        ("GET", "/v1/cycles?limit=0", 400, "bad-request"),
        ("GET", "/v1/cycles?limit=501", 400, "bad-request"),
        ("GET", "/v1/cycles?before=-1", 400, "bad-request"),
        ("GET", "/v1/cycles?colour=red", 400, "bad-request"),
        ("GET", "/v1/cycles?limit=1&limit=2", 400, "bad-request"),
        ("GET", "/v1/status?verbose=1", 400, "bad-request"),
        ("GET", "/v1/events?kind=party", 400, "bad-request"),
        ("GET", "/v1/events?since=yesterday", 400, "bad-request"),
        ("GET", "/v1/events?limit=0", 400, "bad-request"),
    ] {
        assert_eq!(error(method, path), ((status, kind.to_owned()), None), "{method} {path}");
    }
    let allowed = Some("GET, PATCH, DELETE".to_owned());
    assert_eq!(error("PUT", "/v1/repositories/photos"), ((405, "method-not-allowed".to_owned()), allowed));
}

#[test]
fn a_body_that_is_too_long_is_not_read() {
    let rig = Rig::new();
    let head =
        format!("POST /v1/repositories HTTP/1.1\r\nHost: v\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n");
    let said = format!("{head}Content-Length: 1048577\r\n\r\n");
    assert_eq!(call(rig.address, said.as_bytes()).error(), (413, "body-too-large".to_owned()));
    let huge = format!("{head}Content-Length: 99999999999999999999\r\n\r\n");
    assert!(matches!(call(rig.address, huge.as_bytes()).status, 400 | 413));
    let small = limited(Limits { body_bytes: 16, ..Limits::default() });
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n1\r\n0\r\n0\r\n\r\n");
    assert_eq!(call(small.address, chunked.as_bytes()).error(), (413, "body-too-large".to_owned()));
    let fits = format!("{head}Transfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n");
    assert_eq!(call(small.address, fits.as_bytes()).error(), (400, "bad-request".to_owned()));
    let nobody = said.replace(TOKEN, "wrong");
    assert_eq!(call(rig.address, nobody.as_bytes()).status, 401, "the gate comes first");
}

#[test]
fn a_call_ends_after_its_time_and_probes_have_a_limit() {
    let rig = limited(Limits { call: Duration::from_millis(300), probes: 1, ..Limits::default() });
    rig.add("photos");
    rig.look(|wanted| {
        std::thread::sleep(Duration::from_millis(900));
        Ok(found(wanted))
    });
    let slow = rig.call("POST", "/v1/repositories", Some(Rig::new_repository("music")));
    assert_eq!(slow.error(), (504, "timeout".to_owned()));
    let busy = rig.call("POST", "/v1/repositories/photos/probe", None);
    assert_eq!((busy.error(), busy.header("retry-after")), ((503, "busy".to_owned()), Some("1")));
    let stalled = format!(
        "POST /v1/repositories HTTP/1.1\r\nHost: v\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\n{{"
    );
    assert_eq!(call(rig.address, stalled.as_bytes()).error(), (504, "timeout".to_owned()), "a body that never comes");
    let mut events = rig.follow("/v1/events", &[("Accept", "text/event-stream")]);
    std::thread::sleep(Duration::from_millis(700));
    rig.call("PATCH", "/v1/repositories/photos", Some(json!({ "suspended": true })));
    let mut kinds = events.by_ref().map(|message| message.event);
    assert!(kinds.any(|kind| kind == "repository_changed"), "who follows is not cut off");
}

#[test]
fn those_who_follow_have_a_limit() {
    let rig = limited(Limits { followers: 1, ..Limits::default() });
    let first = rig.follow("/v1/events", &[("Accept", "text/event-stream")]);
    assert_eq!(rig.call("GET", "/v1/events", None).error(), (503, "busy".to_owned()));
    drop(first);
    let free = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        rig.call("GET", "/v1/events", None).status == 200
    });
    assert!(free, "whoever leaves makes room");
}

#[test]
fn a_ledger_that_cannot_be_written_is_said_and_nothing_is_ready() {
    let rig = Rig::new();
    rig.add("photos");
    rig.backend.break_ledger();
    let reply = rig.call("PATCH", "/v1/repositories/photos", Some(json!({ "suspended": true })));
    assert_eq!((reply.error(), reply.header("retry-after")), ((503, "disk-full".to_owned()), Some("1")));
    assert_eq!(rig.call_with("GET", "/readyz", None, &[], None).error(), (503, "not-ready".to_owned()));
    assert_eq!(rig.call_with("GET", "/healthz", None, &[], None).status, 200);
}
