//! Those for whom an identity provider vouches, at the gate and behind it.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::Reply;
use super::rig::Rig;
use crate::auth::oidc::TOKEN_BYTES_MAX;
use crate::auth::oidc::testing::{Signer, claims, encoded};

const NOW: u64 = 1_700_000_000;

fn with(changes: Value) -> Value {
    let mut claims = claims(NOW);
    for (name, value) in changes.as_object().unwrap() {
        claims[name.as_str()] = value.clone();
    }
    claims
}

fn ask(rig: &Rig, token: &str, method: &str, path: &str, body: Option<Value>) -> Reply {
    rig.call_with(method, path, Some(token), &[], body.as_ref())
}

#[test]
fn what_somebody_does_is_done_in_the_name_that_the_provider_vouches_for() {
    let signer = Signer::p256("p");
    let rig = Rig::believing(&signer);
    let ann = signer.sign(&with(json!({ "groups": ["admin"] })));
    let mut body = Rig::new_repository("photos");
    body["password"] = json!({ "mounted": "attic.photos" });
    let added = ask(&rig, &ann, "POST", "/v1/repositories", Some(body));
    assert_eq!((added.status, &added.json()["tenant"]), (201, &json!("attic")));
    let events = ask(&rig, &ann, "GET", "/v1/events", None).text;
    assert!(events.contains("\"actor\":\"oidc:id.example/realms/attic/ann\""), "{events}");
    // Tokens of Verger's own go on beside it, and none takes a provider's name.
    let own = json!({ "name": "oidc:id.example/realms/attic/ann", "scopes": ["read"], "tenant": "attic" });
    assert_eq!(ask(&rig, &ann, "POST", "/v1/tokens", Some(own)).error(), (409, "token-name-taken".to_owned()));
    let reader = rig.token("reader", Some("attic"), &["read"]);
    assert_eq!(ask(&rig, &reader, "GET", "/v1/repositories/photos", None).status, 200);
    // Another tenant's, however it is said, is not there.
    let other = |tenant: Value| signer.sign(&with(json!({ "groups": ["admin"], "tenant": tenant })));
    assert_eq!(ask(&rig, &other(json!("cellar")), "GET", "/v1/repositories/photos", None).status, 404);
    assert_eq!(ask(&rig, &other(json!("cellar")), "DELETE", "/v1/repositories/photos", None).status, 404);
    for none in [json!(["attic", "cellar"]), json!("Attic"), json!(null), json!("")] {
        let reply = ask(&rig, &other(none.clone()), "GET", "/v1/repositories", None);
        assert_eq!(reply.error(), (403, "forbidden".to_owned()), "{none}");
        assert!(reply.text.contains("belongs to no tenant"), "{}", reply.text);
    }
}

#[test]
fn without_a_granted_scope_nothing_may_be_done() {
    let signer = Signer::ed25519("e");
    let rig = Rig::believing(&signer);
    for groups in [json!([]), json!(null), json!(["staff", "Admin"]), json!("everyone")] {
        let token = signer.sign(&with(json!({ "groups": groups, "scope": "admin" })));
        for (method, path) in [("GET", "/v1/status"), ("GET", "/v1/repositories"), ("POST", "/v1/tokens")] {
            let reply = ask(&rig, &token, method, path, None);
            assert_eq!(reply.error(), (403, "forbidden".to_owned()), "{groups} {path}");
            assert!(reply.text.contains("needs the scope"), "{}", reply.text);
        }
    }
}

#[test]
fn what_is_not_believed_is_told_in_words_without_a_part_of_it() {
    let (signer, stranger) = (Signer::rsa("r"), Signer::rsa("r"));
    let rig = Rig::believing(&signer);
    let good = signer.sign(&claims(NOW));
    assert_eq!(ask(&rig, &good, "GET", "/v1/status", None).status, 200);
    let parts: Vec<&str> = good.split('.').collect();
    let none = encoded(json!({ "alg": "none" }).to_string());
    for (token, says) in [
        (stranger.sign(&claims(NOW)), "signature does not hold"),
        (Signer::p256("q").sign(&claims(NOW)), "no key of its provider"),
        (signer.sign(&with(json!({ "iss": "https://evil.example" }))), "issuer is not believed"),
        (signer.sign(&with(json!({ "aud": "others" }))), "another audience"),
        (signer.sign(&with(json!({ "exp": NOW - 60 }))), "has expired"),
        (signer.sign(&with(json!({ "nbf": NOW + 60 }))), "not valid yet"),
        (format!("{none}.{}.", parts[1]), "not signed in a way"),
        (format!("{}.{}", "a".repeat(TOKEN_BYTES_MAX), "b.c"), "longer than 16384"),
        ("a".repeat(TOKEN_BYTES_MAX + 1), "longer than 16384"),
    ] {
        let reply = ask(&rig, &token, "GET", "/v1/status", None);
        assert_eq!(reply.error(), (401, "unauthorized".to_owned()), "{says}");
        assert!(reply.text.contains(says) && reply.json()["fix"].is_string(), "{says}: {}", reply.text);
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        assert!(!token.split('.').any(|part| part.len() > 20 && reply.text.contains(part)), "{}", reply.text);
    }
    // Where no provider is believed none is.
    let plain = Rig::new();
    let reply = ask(&plain, &good, "GET", "/v1/status", None);
    assert_eq!(reply.error(), (401, "unauthorized".to_owned()));
}

#[test]
fn a_stream_ends_with_the_token_that_it_was_opened_with() {
    let signer = Signer::ed25519("e");
    let rig = Rig::believing(&signer);
    let token = signer.sign(&with(json!({ "groups": ["read", "everyone"] })));
    let mut events = rig.follow_as(&token, "/v1/events", &[("Accept", "text/event-stream")]);
    rig.add("photos");
    assert_eq!(events.next().unwrap().data["kind"], "repository_added");
    rig.clock.advance(Duration::from_secs(331));
    rig.add("music");
    let (rest, broke_off) = events.rest();
    assert!(broke_off && !rest.contains("music"), "its token has expired: {rest}");
}
