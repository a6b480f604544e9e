use serde_json::json;
use verger_kopia::error::{Error, ErrorKind};

use super::super::Standing;
use super::rig::{FLEET, Rig, TOKEN};

fn open(rig: &Rig, path: &str) -> (u16, serde_json::Value) {
    let reply = rig.call_with("GET", path, None, &[], None);
    (reply.status, reply.json())
}

#[test]
fn it_lives_whatever_happens_and_is_ready_only_where_commands_are_taken() {
    let rig = Rig::new();
    assert_eq!(open(&rig, "/healthz"), (200, json!({ "status": "alive" })));
    assert_eq!(open(&rig, "/readyz"), (200, json!({ "status": "ready" })));
    *rig.stand.0.lock().unwrap() = Standing::Unready("most of the group does not answer".to_owned());
    assert_eq!(open(&rig, "/healthz").0, 200);
    let (status, why) = open(&rig, "/readyz");
    assert_eq!(
        (status, &why["error"], &why["message"]),
        (503, &json!("not-ready"), &json!("most of the group does not answer"))
    );
}

#[test]
fn who_does_not_lead_takes_no_commands_and_says_who_does() {
    let rig = Rig::new();
    rig.add("photos");
    *rig.stand.0.lock().unwrap() = Standing::Follows { leader: Some("https://b.example:7117".to_owned()) };
    rig.look(|_| Err(Error::new(ErrorKind::Internal, "nobody may look where nothing comes of it")));
    for (method, path, body) in [
        ("POST", "/v1/repositories", Some(Rig::new_repository("music"))),
        ("PATCH", "/v1/repositories/photos", Some(json!({ "suspended": true }))),
        ("DELETE", "/v1/repositories/photos", None),
        ("POST", "/v1/repositories/photos/cycles", Some(json!({ "mode": "full" }))),
    ] {
        let reply = rig.call(method, path, body);
        assert_eq!(reply.error(), (503, "not-leader".to_owned()), "{method} {path}");
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.json()["leaderAddress"], "https://b.example:7117");
    }
    assert_eq!(open(&rig, "/readyz").0, 503);
    let status = rig.get("/v1/status");
    let expected = json!({
        "version": "0.0.0-test", "fleet": FLEET, "leader": false, "repositories": 1, "openCycles": 0,
        "leaderAddress": "https://b.example:7117",
    });
    assert_eq!(status, expected);
}

#[test]
fn figures_follow_from_the_ledger() {
    let rig = Rig::new();
    let (repository, cycle) = rig.with_cycle("photos");
    let figures = || rig.call("GET", "/metrics", None).text;
    let before = figures();
    assert!(before.contains("verger_cycles_open 1.0\n"), "{before}");
    assert!(before.contains("verger_lease_held{repo=\"photos\"} 1.0\n"), "{before}");
    rig.run(&repository, cycle);
    rig.call_with("GET", "/v1/status", None, &[], None);
    let after = figures();
    for line in [
        "verger_cycles_open 0.0",
        "verger_cycles_total{outcome=\"done\",mode=\"full\"} 1",
        "verger_cycle_last_success_timestamp_seconds{repo=\"photos\",mode=\"full\"} 1700000000.0",
        // Two batches of the deletion; what the index lane does frees nothing.
        "verger_bytes_reclaimed_total{repo=\"photos\"} 20",
        "verger_http_requests_total{route=\"/v1/status\",method=\"GET\",status=\"401\"} 1",
        "verger_http_requests_total{route=\"/v1/repositories/{name}/cycles\",method=\"POST\",status=\"202\"} 1",
    ] {
        assert!(after.lines().any(|found| found == line), "{line} is not in\n{after}");
    }
    assert!(after.ends_with("# EOF\n"));
    assert!(!after.contains(TOKEN));
}

#[test]
fn a_shutdown_ends_those_who_follow_and_lets_go_of_the_socket() {
    let mut rig = Rig::new();
    let (_, cycle) = rig.with_cycle("photos");
    let mut events = rig.follow("/v1/events", &[("Accept", "text/event-stream")]);
    let mut cycle = rig.follow(&format!("/v1/cycles/{cycle}/watch"), &[]);
    assert_eq!(cycle.next().unwrap().event, "stage");
    let began = std::time::Instant::now();
    rig.shut_down();
    assert!(began.elapsed().as_secs() < 4, "nobody waits for the grace of ten seconds");
    assert!(events.next().is_none() && cycle.next().is_none());
    assert!(std::net::TcpStream::connect(rig.address).is_err());
}
