//! The gate on every route, and what tenants see of each other: nothing.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::route::ROUTES;
use super::super::*;
use super::client::call;
use super::rig::{Rig, TOKEN};

#[test]
fn every_route_but_three_goes_through_the_gate() {
    let rig = Rig::new();
    let open: Vec<_> = ROUTES.iter().filter(|route| route.action.is_none()).map(|route| route.path).collect();
    assert_eq!(open, ["/healthz", "/readyz", "/v1/openapi.json"]);
    for route in ROUTES {
        let path = route.path.replace("{name}", "photos").replace("{id}", "7").replace("{key}", "k");
        let status = |token| rig.call_with(route.method.name(), &path, token, &[], None);
        let expected = if route.action.is_none() { 200 } else { 401 };
        for token in [None, Some("wrong"), Some(""), Some(&TOKEN[1..])] {
            let reply = status(token);
            assert_eq!(reply.status, expected, "{} {path} with {token:?}", route.method.name());
            assert_eq!(reply.header("www-authenticate").is_some(), expected == 401);
        }
        let right = status(Some(TOKEN)).status;
        assert!(!matches!(right, 401 | 403), "{} {path}: {right}", route.method.name());
    }
    let basic =
        format!("GET /v1/status HTTP/1.1\r\nHost: v\r\nConnection: close\r\nAuthorization: Basic {TOKEN}\r\n\r\n");
    assert_eq!(call(rig.address, basic.as_bytes()).status, 401, "only a bearer's token is one");
}

/// `alice` and `bob` have a tenant each, `all` everything, `reader` may read only.
struct Tenants;

impl Gate for Tenants {
    fn check(&self, bearer: Option<&str>, action: &'static str, tenant: Option<&str>) -> Result<Actor, Denied> {
        let name = bearer.ok_or(Denied::Unknown)?;
        let own = match name {
            "alice" | "bob" => Some(name),
            "all" | "reader" => None,
            _ => return Err(Denied::Unknown),
        };
        let wrong_tenant = own.is_some() && tenant.is_some_and(|tenant| own != Some(tenant));
        let wrong_scope = name == "reader" && !action.ends_with(".read");
        if wrong_tenant || wrong_scope {
            return Err(Denied::Forbidden);
        }
        Ok(Actor { name: name.to_owned(), tenant: own.map(str::to_owned) })
    }
}

#[test]
fn a_tenant_sees_nothing_of_another_and_a_reader_changes_nothing() {
    let rig = Rig::with(Arc::new(Tenants), Limits::default());
    let ask = |who: &str, method: &str, path: &str, body: Option<Value>| {
        rig.call_with(method, path, Some(who), &[], body.as_ref())
    };
    let added = ask("alice", "POST", "/v1/repositories", Some(Rig::new_repository("photos")));
    assert_eq!((added.status, added.json()["tenant"].clone()), (201, json!("alice")));
    let mut theirs = Rig::new_repository("other");
    theirs["tenant"] = json!("bob");
    assert_eq!(ask("alice", "POST", "/v1/repositories", Some(theirs)).error(), (403, "forbidden".to_owned()));
    assert_eq!(ask("reader", "POST", "/v1/repositories", Some(Rig::new_repository("other"))).status, 403);
    let repository = added.json()["id"].as_str().unwrap().parse().unwrap();
    rig.take_lease(&repository, 1);
    let wish = ask("alice", "POST", "/v1/repositories/photos/cycles", Some(json!({ "mode": "full" }))).json();
    let key = wish["key"].as_str().unwrap();
    let cycle = rig.open_asked(&repository);
    for (method, path, body) in [
        ("GET", "/v1/repositories/photos".to_owned(), None),
        ("PATCH", "/v1/repositories/photos".to_owned(), Some(json!({ "suspended": true }))),
        ("DELETE", "/v1/repositories/photos".to_owned(), None),
        ("POST", "/v1/repositories/photos/probe".to_owned(), None),
        ("POST", "/v1/repositories/photos/cycles".to_owned(), Some(json!({ "mode": "full" }))),
        ("GET", format!("/v1/repositories/photos/requests/{key}"), None),
        ("GET", "/v1/cycles?repository=photos".to_owned(), None),
        ("GET", "/v1/events?repository=photos".to_owned(), None),
        ("GET", format!("/v1/cycles/{cycle}"), None),
        ("GET", format!("/v1/cycles/{cycle}/watch"), None),
        ("POST", format!("/v1/cycles/{cycle}/pause"), None),
        ("POST", format!("/v1/cycles/{cycle}/abort"), None),
        ("POST", "/v1/leases/photos/release".to_owned(), None),
        ("POST", "/v1/leases/photos/transfer".to_owned(), Some(json!({ "to": "verger@fleet-00000001" }))),
    ] {
        let reply = ask("bob", method, &path, body.clone());
        assert_eq!(reply.error(), (404, "not-found".to_owned()), "{method} {path}");
        // The same words as for what was never there.
        let never = path.replace("photos", "absent").replace(&format!("cycles/{cycle}"), "cycles/999");
        let message = reply.text.replace("photos", "absent").replace(&format!("number {cycle}"), "number 999");
        assert_eq!(message, ask("bob", method, &never, body).text, "{method} {path}");
    }
    let counts = |who: &str| {
        let length = |path: &str| ask(who, "GET", path, None).json().as_array().unwrap().len();
        let status = ask(who, "GET", "/v1/status", None).json();
        let lists = [length("/v1/repositories"), length("/v1/cycles"), length("/v1/leases")];
        (lists, status["repositories"].clone(), status["openCycles"].clone())
    };
    assert_eq!(counts("bob"), ([0, 0, 0], json!(0), json!(0)));
    for who in ["alice", "all", "reader"] {
        assert_eq!(counts(who), ([1, 1, 1], json!(1), json!(1)), "{who}");
    }
    assert_eq!(ask("bob", "GET", "/v1/events", None).text, "");
    let own = ask("alice", "GET", "/v1/events", None).text;
    assert_eq!(own, ask("all", "GET", "/v1/events", None).text, "everything here is hers");
    assert!(own.lines().count() > 4);
    assert_eq!(ask("alice", "GET", "/metrics", None).status, 403, "they name everybody's repositories");
    assert_eq!(ask("reader", "GET", "/metrics", None).status, 200);
    assert_eq!(ask("reader", "POST", &format!("/v1/cycles/{cycle}/abort"), None).status, 403);
    assert!(rig.is_open(cycle));
}
