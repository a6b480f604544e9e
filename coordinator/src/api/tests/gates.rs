//! What tenants see of each other: nothing. And tokens from their making to their end.

use serde_json::{Value, json};

use super::client::{Reply, call};
use super::rig::{Rig, TOKEN};

#[test]
fn a_tenant_sees_nothing_of_another_and_a_reader_changes_nothing() {
    let rig = Rig::new();
    let whose = [("alice", Some("alice")), ("bob", Some("bob")), ("all", None)];
    let mut tokens: Vec<_> = whose.map(|(name, tenant)| (name, rig.token(name, tenant, &["admin"]))).into();
    tokens.push(("reader", rig.token("reader", None, &["read"])));
    let ask = |who: &str, method: &str, path: &str, body: Option<Value>| {
        let token = &tokens.iter().find(|(name, _)| *name == who).unwrap().1;
        rig.call_with(method, path, Some(token), &[], body.as_ref())
    };
    let mut hers = Rig::new_repository("photos");
    hers["password"] = json!({ "mounted": "alice.photos" });
    let added = ask("alice", "POST", "/v1/repositories", Some(hers.clone()));
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
    let events = |who: &str| ask(who, "GET", "/v1/events", None).text;
    let kinds = |who: &str| events(who).lines().filter(|line| !line.contains("token_")).count();
    assert_eq!(kinds("bob"), 0, "{}", events("bob"));
    assert!(kinds("alice") > 4 && kinds("alice") == kinds("all"), "everything here is hers");
    assert!(events("alice").contains("\"actor\":\"alice\""));
    assert_eq!(ask("alice", "GET", "/metrics", None).status, 403, "they name everybody's repositories");
    assert_eq!(ask("reader", "GET", "/metrics", None).status, 200);
    assert_eq!(ask("reader", "POST", &format!("/v1/cycles/{cycle}/abort"), None).status, 403);
    assert!(rig.is_open(cycle));
    // The same store under another name: that it is looked after is known to whoever can open it, under which name is not.
    let mut again = Rig::new_repository("photos");
    (again["name"], again["password"]) = (json!("mine"), json!({ "mounted": "bob.photos" }));
    let taken = ask("bob", "POST", "/v1/repositories", Some(again.clone()));
    assert_eq!(taken.error(), (409, "already-added".to_owned()));
    assert!(!taken.text.contains("photos"), "{}", taken.text);
    again["tenant"] = json!("alice");
    again["password"] = json!({ "mounted": "alice.photos" });
    assert!(ask("alice", "POST", "/v1/repositories", Some(again)).text.contains("as photos"));
}

#[test]
fn a_tenants_administrator_names_secrets_of_that_tenant_alone() {
    let rig = Rig::new();
    let alice = rig.token("alice", Some("alice"), &["admin"]);
    let ask = |password: Value, method: &str, path: &str, mut body: Value| {
        body["password"] = password;
        rig.call_with(method, path, Some(&alice), &[], Some(&body)).status
    };
    let others = [
        json!({ "env": "PHOTOS_PASSWORD" }),
        json!({ "file": "/run/secrets/alice.photos" }),
        json!({ "mounted": "bob.photos" }),
        json!({ "mounted": "alice-bob.photos" }),
        json!({ "mounted": "alice" }),
    ];
    for password in &others {
        assert_eq!(ask(password.clone(), "POST", "/v1/repositories", Rig::new_repository("photos")), 403, "{password}");
    }
    let own = json!({ "mounted": "alice.photos" });
    assert_eq!(ask(own.clone(), "POST", "/v1/repositories", Rig::new_repository("photos")), 201);
    for password in others {
        assert_eq!(ask(password.clone(), "PATCH", "/v1/repositories/photos", json!({})), 403, "{password}");
    }
    assert_eq!(ask(own, "PATCH", "/v1/repositories/photos", json!({})), 200);
}

#[test]
fn a_repository_that_changes_hands_keeps_its_past_with_whom_it_was() {
    let rig = Rig::new();
    let (alice, bob) = (rig.token("alice", Some("alice"), &["admin"]), rig.token("bob", Some("bob"), &["admin"]));
    let add = |name: &str, tenant: &str| {
        let mut body = Rig::new_repository("photos");
        (body["name"], body["tenant"]) = (json!(name), json!(tenant));
        rig.post("/v1/repositories", body)["id"].as_str().unwrap().parse().unwrap()
    };
    let repository = add("hers", "alice");
    rig.take_lease(&repository, 1);
    let key = [("Idempotency-Key", "nightly")];
    let wish = json!({ "mode": "full" });
    rig.call_with("POST", "/v1/repositories/hers/cycles", Some(&alice), &key, Some(&wish));
    let cycle = rig.open_asked(&repository);
    rig.run(&repository, cycle);
    assert_eq!(rig.call("DELETE", "/v1/repositories/hers", None).status, 200);
    add("his", "bob");
    let get = |token: &str, path: &str| rig.call_with("GET", path, Some(token), &[], None);
    let path = format!("/v1/cycles/{cycle}");
    assert_eq!((get(&bob, &path).status, get(&alice, &path).status), (404, 200));
    assert_eq!(
        (get(&bob, "/v1/cycles").json(), get(&alice, "/v1/cycles").json().as_array().unwrap().len()),
        (json!([]), 1)
    );
    assert_eq!(get(&alice, &path).json()["repository"], "hers");
    let (his, hers) = (get(&bob, "/v1/events").text, get(&alice, "/v1/events").text);
    assert!(!his.contains("hers") && his.contains("repository_added") && !his.contains("cycle_"), "{his}");
    assert!(!hers.contains("\"his\"") && hers.contains("repository_removed"), "{hers}");
    assert_eq!(get(&bob, "/v1/repositories/his/requests/nightly").status, 404, "keys of wishes, too");
    assert_eq!(get(&bob, "/v1/repositories/his").status, 200);
}

fn with(rig: &Rig, token: &str, method: &str, path: &str, body: Value) -> Reply {
    rig.call_with(method, path, Some(token), &[], Some(&body).filter(|body| !body.is_null()))
}

#[test]
fn a_token_is_shown_once_listed_without_it_and_taken_back() {
    let rig = Rig::new();
    let made = rig.post(
        "/v1/tokens",
        json!({
            "name": "cron", "scopes": ["operate"], "tenant": "home", "expiresInSeconds": 3600,
        }),
    );
    let token = made["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("vgr_") && token.len() == 47);
    let mut expected = json!({
        "name": "cron", "scopes": ["read", "operate"], "allTenants": false, "createdAt": "2023-11-14T22:13:20Z",
        "state": "valid", "expiresAt": "2023-11-14T23:13:20Z", "tenant": "home",
    });
    assert_eq!(rig.get("/v1/tokens"), json!([expected]));
    assert_eq!(with(&rig, &token, "GET", "/v1/tokens", Value::Null).status, 403);
    assert_eq!(with(&rig, &token, "GET", "/v1/repositories", Value::Null).status, 200);
    rig.clock.advance(std::time::Duration::from_secs(3600));
    let late = with(&rig, &token, "GET", "/v1/repositories", Value::Null);
    assert_eq!(late.error(), (401, "unauthorized".to_owned()));
    assert!(late.text.contains("expired") && late.text.contains("cron"), "{}", late.text);
    expected["state"] = json!("expired");
    assert_eq!(rig.get("/v1/tokens"), json!([expected]));
    for _ in 0..2 {
        let revoked = rig.call("DELETE", "/v1/tokens/cron", None).json();
        assert_eq!((&revoked["state"], &revoked["revokedAt"]), (&json!("revoked"), &json!("2023-11-14T23:13:20Z")));
    }
    assert_eq!(rig.call("DELETE", "/v1/tokens/nobody", None).error(), (404, "not-found".to_owned()));
    let again = json!({ "name": "cron", "scopes": ["read"], "allTenants": true });
    assert_eq!(rig.call("POST", "/v1/tokens", Some(again)).error(), (409, "token-name-taken".to_owned()));
    let ledger = std::fs::read_dir(rig.folder.path()).unwrap();
    for file in ledger.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(43).any(|part| part == &token.as_bytes()[4..]), "{}", file.display());
    }
}

#[test]
fn bad_tokens_are_refused_by_their_field() {
    let rig = Rig::new();
    for (body, says) in [
        (json!({ "name": "t", "scopes": ["read"] }), "tenant:"),
        (json!({ "name": "t", "scopes": ["read"], "tenant": "a", "allTenants": true }), "not both"),
        (json!({ "name": "t", "scopes": ["read"], "tenant": "Not One" }), "tenant:"),
        (json!({ "name": "t", "scopes": ["write"], "allTenants": true }), "scopes:"),
        (json!({ "name": "t", "scopes": [], "allTenants": true }), "at least one scope"),
        (json!({ "name": "two words", "scopes": ["read"], "allTenants": true }), "printable"),
        (json!({ "name": "t", "scopes": ["read"], "allTenants": true, "expiresInSeconds": 0 }), "expiresInSeconds"),
        (
            json!({ "name": "t", "scopes": ["read"], "allTenants": true, "expiresInSeconds": u64::MAX }),
            "expiresInSeconds",
        ),
        (json!({ "name": "t", "scopes": ["read"], "allTenants": true, "token": "mine" }), "unknown field"),
    ] {
        let reply = rig.call("POST", "/v1/tokens", Some(body.clone()));
        assert_eq!(reply.status, 400, "{body}: {}", reply.text);
        assert!(reply.text.contains(says), "{body}: {}", reply.text);
    }
    let owner = json!({ "name": "owner", "scopes": ["read"], "allTenants": true });
    assert_eq!(rig.call("POST", "/v1/tokens", Some(owner)).status, 409, "the owner is somebody already");
}

#[test]
fn nobody_gives_or_takes_more_than_they_have_or_sees_others_tokens() {
    let rig = Rig::new();
    let alice = rig.token("alice", Some("alice"), &["admin"]);
    rig.token("bob", Some("bob"), &["admin"]);
    rig.token("everyone", None, &["read"]);
    let new = |tenant: Value| {
        let mut body = json!({ "name": "more", "scopes": ["admin"] });
        for (key, value) in tenant.as_object().unwrap() {
            body[key] = value.clone();
        }
        with(&rig, &alice, "POST", "/v1/tokens", body).status
    };
    assert_eq!(new(json!({ "tenant": "bob" })), 403);
    assert_eq!(new(json!({ "allTenants": true })), 403);
    assert_eq!(new(json!({})), 201, "her own tenant, if she says none");
    let names = |token: &str| {
        let all = with(&rig, token, "GET", "/v1/tokens", Value::Null).json();
        all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&alice), ["alice", "more"]);
    assert_eq!(names(TOKEN), ["alice", "bob", "everyone", "more"]);
    for name in ["bob", "everyone", "absent"] {
        let reply = with(&rig, &alice, "DELETE", &format!("/v1/tokens/{name}"), Value::Null);
        assert_eq!(reply.error(), (404, "not-found".to_owned()), "{name}");
        assert_eq!(
            reply.text.replace(name, "absent"),
            with(&rig, &alice, "DELETE", "/v1/tokens/absent", Value::Null).text
        );
    }
    // Who may not list tokens does not read of them in the events either.
    let reader = rig.token("reader", Some("alice"), &["read"]);
    let events = |token: &str| with(&rig, token, "GET", "/v1/events", Value::Null).text;
    assert_eq!(events(&reader), "");
    let hers = events(&alice);
    assert!(hers.contains("\"more\"") && !hers.contains("bob") && !hers.contains("everyone"), "{hers}");
    assert!(events(TOKEN).contains("everyone"));
}

#[test]
fn only_a_bearers_token_is_one() {
    let rig = Rig::new();
    let basic =
        format!("GET /v1/status HTTP/1.1\r\nHost: v\r\nConnection: close\r\nAuthorization: Basic {TOKEN}\r\n\r\n");
    assert_eq!(call(rig.address, basic.as_bytes()).status, 401);
}
