//! Every cell of role, endpoint and tenant. The rows are written by hand beside the table of routes: a route without a row fails.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::route::{ROUTES, Route};
use super::client::Reply;
use super::rig::{Rig, TOKEN};
use crate::auth::Reach;
use crate::auth::oidc::testing::{Signer, claims};
use crate::drive::Backend as _;

/// Method, path; whether a token with this one scope comes through, as read, operate, approve, admin, operate with approve, and work;
/// whose its object is (t: a tenant's, f: the fleet's, o: open to all).
#[rustfmt::skip]
const ROWS: &[(&str, &str, &str, char)] = &[
    ("GET", "/healthz", "yyyyyy", 'o'),
    ("GET", "/readyz", "yyyyyy", 'o'),
    ("GET", "/metrics", "yyyyy-", 'f'),
    ("GET", "/v1/openapi.json", "yyyyyy", 'o'),
    ("GET", "/v1/status", "yyyyy-", 't'),
    ("GET", "/v1/repositories", "yyyyy-", 't'),
    ("POST", "/v1/repositories", "---y--", 't'),
    ("GET", "/v1/repositories/{name}", "yyyyy-", 't'),
    ("PATCH", "/v1/repositories/{name}", "---y--", 't'),
    ("DELETE", "/v1/repositories/{name}", "---y--", 't'),
    ("POST", "/v1/repositories/{name}/probe", "-y-yy-", 't'),
    ("POST", "/v1/repositories/{name}/verification", "-y-yy-", 't'),
    ("POST", "/v1/repositories/{name}/cycles", "-y-yy-", 't'),
    ("GET", "/v1/repositories/{name}/requests/{key}", "yyyyy-", 't'),
    ("GET", "/v1/cycles", "yyyyy-", 't'),
    ("GET", "/v1/cycles/{id}", "yyyyy-", 't'),
    ("POST", "/v1/cycles/{id}/pause", "-y-yy-", 't'),
    ("POST", "/v1/cycles/{id}/resume", "-y-yy-", 't'),
    ("POST", "/v1/cycles/{id}/abort", "-y-yy-", 't'),
    ("POST", "/v1/cycles/{id}/approve", "--yyy-", 't'),
    ("GET", "/v1/cycles/{id}/watch", "yyyyy-", 't'),
    ("GET", "/v1/events", "yyyyy-", 't'),
    ("GET", "/v1/deeds", "yyyyy-", 't'),
    ("GET", "/v1/leases", "yyyyy-", 't'),
    ("POST", "/v1/leases/{name}/release", "---y--", 't'),
    ("POST", "/v1/leases/{name}/transfer", "---y--", 't'),
    ("GET", "/v1/tokens", "---y--", 't'),
    ("POST", "/v1/tokens", "---y--", 't'),
    ("DELETE", "/v1/tokens/{name}", "---y--", 't'),
    ("GET", "/v1/cluster", "yyyyy-", 'f'),
    ("POST", "/v1/cluster/members", "---y--", 'f'),
    ("DELETE", "/v1/cluster/members/{id}", "---y--", 'f'),
    ("GET", "/v1/workers", "yyyyy-", 'f'),
    ("POST", "/v1/workers/{name}/drain", "-y-yy-", 'f'),
    ("POST", "/v1/work/presence", "---y-y", 't'),
    ("POST", "/v1/work/next", "---y-y", 't'),
    ("POST", "/v1/work/ended", "---y-y", 't'),
    ("GET", "/v1/work/jobs", "---y-y", 't'),
    ("POST", "/v1/work/commands", "---y-y", 't'),
    ("POST", "/v1/work/progress", "---y-y", 't'),
    ("GET", "/v1/work/state", "---y-y", 't'),
    ("POST", "/v1/work/evidence", "---y-y", 't'),
];

const ROLES: [&[&str]; 6] = [&["read"], &["operate"], &["approve"], &["admin"], &["operate", "approve"], &["work"]];

/// A token for each role, of one tenant or of all.
fn tokens(rig: &Rig, tenant: Option<&str>) -> Vec<String> {
    let whose = tenant.unwrap_or("all");
    ROLES.iter().map(|scopes| rig.token(&format!("{whose}-{}", scopes.join("-")), tenant, scopes)).collect()
}

/// As [`tokens`], by the word of an identity provider.
fn vouched(signer: &Signer, tenant: Option<&str>) -> Vec<String> {
    let token = |scopes: &&[&str]| {
        let mut claims = claims(1_700_000_000);
        let everyone = tenant.is_none().then_some("everyone");
        claims["groups"] = scopes.iter().copied().chain(everyone).collect();
        claims["tenant"] = tenant.into();
        signer.sign(&claims)
    };
    ROLES.iter().map(token).collect()
}

/// Tokens that are of no use: unknown, twisted, expired, revoked.
fn useless(rig: &Rig) -> Vec<String> {
    let short = json!({ "name": "short", "scopes": ["admin"], "allTenants": true, "expiresInSeconds": 5 });
    let expired = rig.post("/v1/tokens", short)["token"].as_str().unwrap().to_owned();
    let revoked = rig.token("revoked", None, &["admin"]);
    assert_eq!(rig.call_with("GET", "/v1/tokens", Some(&expired), &[], None).status, 200);
    assert_eq!(rig.call_with("GET", "/v1/tokens", Some(&revoked), &[], None).status, 200);
    rig.clock.advance(Duration::from_secs(5));
    assert_eq!(rig.call("DELETE", "/v1/tokens/revoked", None).status, 200);
    let unknown = format!("vgr_{}", "A".repeat(43));
    vec![expired, revoked, unknown, "wrong".to_owned(), String::new(), TOKEN[..46].to_owned(), TOKEN.to_uppercase()]
}

#[test]
fn every_route_has_a_row_and_every_row_a_route() {
    let rows: Vec<_> = ROWS.iter().map(|row| (row.0, row.1)).collect();
    let routes: Vec<_> = ROUTES.iter().map(|route| (route.method.name(), route.path)).collect();
    assert_eq!(rows, routes);
}

#[test]
fn the_page_about_security_has_every_route_with_its_scopes_and_no_other() {
    let row = |route: &Route| {
        let scopes: Vec<&str> = route.action.needs().iter().map(|scope| scope.name()).collect();
        let scopes = if scopes.is_empty() { "none".to_owned() } else { scopes.join(", ") };
        let whose = match route.action.reach() {
            Reach::Tenant => "its tenant",
            Reach::Fleet => "the fleet",
            Reach::Open => "everybody",
        };
        format!("| `{} {}` | {} | {scopes} | {whose} |", route.method.name(), route.path, route.action)
    };
    let expected: Vec<String> = ROUTES.iter().map(row).collect();
    let page = include_str!("../../../../docs/security.md");
    let begins = ["| `GET ", "| `POST ", "| `PATCH ", "| `DELETE "];
    let found = page.lines().filter(|line| begins.iter().any(|begin| line.starts_with(begin)));
    assert_eq!(found.collect::<Vec<_>>(), expected, "docs/security.md:\n{}", expected.join("\n"));
}

#[test]
fn every_cell_of_role_and_endpoint() {
    let signer = Signer::ed25519("e");
    let rig = Rig::believing(&signer);
    let (own, all, mut useless) = (tokens(&rig, Some("own")), tokens(&rig, None), useless(&rig));
    let (vouched_own, vouched_all) = (vouched(&signer, Some("own")), vouched(&signer, None));
    useless.push(Signer::ed25519("e").sign(&claims(1_700_000_000)));
    useless.push(signer.sign(&claims(1_699_999_000)));
    let mut cells = 0;
    for (method, path, row, whose) in ROWS {
        // What comes through the gate is stopped right behind it, so that no cell changes anything for the next.
        let path = path.replace("{name}", "photos").replace("{id}", "7").replace("{key}", "k") + "?no-such-parameter=1";
        let mut expect = |token: Option<&str>, expected: u16| {
            let reply = rig.call_with(method, &path, token, &[], None);
            assert_eq!(reply.status, expected, "{method} {path} with {token:?}: {}", reply.text);
            assert_eq!(reply.header("www-authenticate").is_some(), expected == 401);
            cells += 1;
        };
        let open = *whose == 'o';
        for (role, cell) in row.chars().enumerate() {
            for all in [&all, &vouched_all] {
                expect(Some(&all[role]), if cell == 'y' { 400 } else { 403 });
            }
            for own in [&own, &vouched_own] {
                expect(Some(&own[role]), if cell == 'y' && *whose != 'f' { 400 } else { 403 });
            }
        }
        expect(Some(TOKEN), 400);
        expect(None, if open { 400 } else { 401 });
        for token in &useless {
            expect(Some(token), if open { 400 } else { 401 });
        }
    }
    assert_eq!(cells, ROWS.len() * (4 * ROLES.len() + 2 + useless.len()));
}

/// A tenant with a repository under lease, a wish, an open cycle that waits for a word, and a token.
struct Owned {
    rig: Rig,
    cycle: u64,
}

impl Owned {
    fn new() -> Self {
        let rig = Rig::new();
        let mut body = Rig::new_repository("photos");
        body["tenant"] = json!("own");
        let repository = rig.post("/v1/repositories", body)["id"].as_str().unwrap().parse().unwrap();
        rig.take_lease(&repository, 1);
        let wish = json!({ "mode": "full" });
        let key = [("Idempotency-Key", "k")];
        let asked = rig.call_with("POST", "/v1/repositories/photos/cycles", Some(TOKEN), &key, Some(&wish));
        assert_eq!(asked.status, 202);
        let cycle = rig.open_asked(&repository);
        rig.token("victim", Some("own"), &["read"]);
        let info = crate::testing::worker_info();
        let (worker, info) = (verger_proto::WorkerId::new("photos").unwrap(), Box::new(info));
        rig.backend.submit(verger_proto::Command::SeeWorker { worker, info }).unwrap();
        Self { rig, cycle: cycle.0 }
    }

    fn ask(&self, method: &str, path: &str, token: &str) -> Reply {
        let name = if path.starts_with("/v1/tokens") { "victim" } else { "photos" };
        let path = path.replace("{name}", name).replace("{id}", &self.cycle.to_string()).replace("{key}", "k");
        let body = match (method, path.rsplit('/').next().unwrap_or_default()) {
            ("PATCH", _) => Some(json!({ "suspended": true })),
            ("POST", "cycles") => Some(json!({ "mode": "quick" })),
            ("POST", "approve") => Some(json!({ "plan": "0".repeat(64), "allowRemoving": 60 })),
            _ => None,
        };
        if path.ends_with("/watch") {
            // It has no end by itself.
            let request = super::client::text(method, &path, Some(token), &[], None);
            let (status, headers, mut body) = super::client::send(self.rig.address, request.as_bytes());
            let mut text = String::new();
            if status != 200 {
                std::io::Read::read_to_string(&mut body, &mut text).unwrap();
            }
            return Reply { status, headers, text };
        }
        self.rig.call_with(method, &path, Some(token), &[], body.as_ref())
    }
}

#[test]
fn what_is_another_tenants_is_not_there_in_any_cell() {
    let owned = Owned::new();
    let others = tokens(&owned.rig, Some("other"));
    let before = owned.rig.state(Clone::clone);
    for (method, path, row, whose) in ROWS.iter().filter(|row| row.1.contains('{')) {
        for (role, cell) in row.chars().enumerate() {
            let reply = owned.ask(method, path, &others[role]);
            // A missing scope is said before anything is looked for, so it tells nothing of what there is.
            let expected = if cell == 'y' && *whose == 't' { (404, "not-found") } else { (403, "forbidden") };
            assert_eq!(reply.error(), (expected.0, expected.1.to_owned()), "{method} {path} by {:?}", ROLES[role]);
        }
        assert!(owned.rig.state(Clone::clone) == before, "{method} {path} changed something");
    }
}

#[test]
fn what_is_ones_own_is_there_in_every_cell_that_allows_it() {
    let cell = |method: &str, path: &str, row: &str, own: Option<&str>| {
        let owned = Owned::new();
        let allowed = |role: &usize| row.as_bytes()[*role] == b'y';
        for (role, token) in tokens(&owned.rig, own).iter().enumerate().filter(|(role, _)| allowed(role)) {
            let reply = owned.ask(method, path, token);
            let told = format!("{method} {path} by {:?} of {own:?}: {}", ROLES[role], reply.text);
            assert!(!matches!(reply.status, 401 | 403 | 404), "{told}");
        }
    };
    // A rig takes its time to end.
    std::thread::scope(|scope| {
        for (method, path, row, whose) in ROWS.iter().filter(|row| row.1.contains('{')) {
            for own in [Some("own"), None].into_iter().filter(|own| own.is_none() || *whose == 't') {
                scope.spawn(move || cell(method, path, row, own));
            }
        }
    });
}

#[test]
fn a_word_in_advance_needs_the_right_to_give_one() {
    let owned = Owned::new();
    let ask = |token: &str, body: Value| {
        let path = "/v1/repositories/photos/cycles";
        owned.rig.call_with("POST", path, Some(token), &[], Some(&body)).status
    };
    let (own, other) = (tokens(&owned.rig, Some("own")), tokens(&owned.rig, Some("other")));
    for (word, plain) in
        [(json!({ "mode": "full", "allowRemoving": 60 }), 202), (json!({ "mode": "full", "iAmAlone": true }), 202)]
    {
        for (role, expected) in [403, 403, 403, plain, plain, 403].into_iter().enumerate() {
            assert_eq!(ask(&own[role], word.clone()), expected, "{word} by {:?}", ROLES[role]);
            assert_eq!(ask(&other[role], word.clone()), if matches!(role, 0 | 2 | 5) { 403 } else { 404 });
        }
    }
    assert_eq!(ask(&own[1], json!({ "mode": "full" })), 202);
}
