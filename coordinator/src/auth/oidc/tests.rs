use serde_json::{Value, json};
use verger_proto::{Access, LogTime, Scopes, Tenant};

use super::testing::{AUDIENCE, ISSUER, Signer, claims, encoded, provider, published};
use super::*;
use crate::auth::{Actor, Denied, Scope, Token, TokenError, Tokens};

const NOW: u64 = 1_700_000_000;

fn actor_at(token: &str, provider: &Provider, keys: &KeySet, seconds: u64) -> Result<Actor, Denied> {
    Presented::read(token)?.verify(provider, keys, LogTime(seconds * 1_000))
}

fn actor(token: &str, keys: &KeySet) -> Result<Actor, Denied> {
    actor_at(token, &provider(), keys, NOW)
}

fn refused(token: &str, keys: &KeySet) -> Mistrust {
    match actor(token, keys) {
        Err(Denied::Mistrusted(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn with(changes: Value) -> Value {
    let mut claims = claims(NOW);
    for (name, value) in changes.as_object().unwrap() {
        claims[name.as_str()] = value.clone();
    }
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims(NOW);
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn a_good_token_of_each_algorithm_stands_for_its_subject() {
    let signers = [Signer::rsa("r"), Signer::p256("p"), Signer::p384("q"), Signer::ed25519("e")];
    let keys = KeySet::parse(&published(&signers.iter().collect::<Vec<_>>())).unwrap();
    let expected = Actor::Known {
        name: "oidc:id.example/realms/attic/ann".to_owned(),
        access: Access::One(Tenant::new("attic").unwrap()),
        scopes: Scopes::of(&[Scope::Read]),
    };
    for (signer, algorithms) in [
        (&signers[0], ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].as_slice()),
        (&signers[1], &["ES256"]),
        (&signers[2], &["ES384"]),
        (&signers[3], &["EdDSA", "Ed25519"]),
    ] {
        for algorithm in algorithms {
            let token = signer.sign_as(&json!({ "alg": algorithm, "kid": signer.id }), &claims(NOW));
            assert_eq!(actor(&token, &keys).as_ref(), Ok(&expected), "{algorithm}");
            for other in signers.iter().filter(|other| other.id != signer.id) {
                // The key of another kind, by name and by algorithm: neither is taken for this one.
                let header = json!({ "alg": algorithm, "kid": other.id });
                assert_eq!(refused(&signer.sign_as(&header, &claims(NOW)), &keys), Mistrust::Key, "{algorithm}");
            }
        }
        let audiences = with(json!({ "aud": ["others", AUDIENCE] }));
        assert_eq!(actor(&signer.sign(&audiences), &keys).as_ref(), Ok(&expected));
    }
}

#[test]
fn what_is_not_signed_by_a_published_key_is_not_believed() {
    let (signer, stranger) = (Signer::rsa("r"), Signer::rsa("r"));
    let keys = KeySet::parse(&published(&[&signer])).unwrap();
    let good = signer.sign(&claims(NOW));
    assert!(actor(&good, &keys).is_ok());
    assert_eq!(refused(&stranger.sign(&claims(NOW)), &keys), Mistrust::Signature);
    let parts: Vec<&str> = good.split('.').collect();
    let admin = encoded(with(json!({ "groups": ["admin"] })).to_string());
    assert_eq!(refused(&format!("{}.{admin}.{}", parts[0], parts[2]), &keys), Mistrust::Signature);
    let head = |header: Value| encoded(header.to_string());
    for algorithm in ["none", "None", "NONE", "HS256", "HS512", "RSA", "ES256K", "ES512", ""] {
        let token = format!("{}.{}.{}", head(json!({ "alg": algorithm, "kid": "r" })), parts[1], parts[2]);
        assert_eq!(refused(&token, &keys), Mistrust::Algorithm, "{algorithm}");
        let unsigned = format!("{}.{}.", head(json!({ "alg": algorithm })), parts[1]);
        assert_eq!(refused(&unsigned, &keys), Mistrust::Algorithm, "{algorithm}");
    }
    assert_eq!(refused(&format!("{}.{}.", parts[0], parts[1]), &keys), Mistrust::Signature, "an empty signature");
    // The public key as a secret that both sides know.
    let message = format!("{}.{}", head(json!({ "alg": "HS256", "kid": "r" })), parts[1]);
    for secret in [signer.public(), signer.jwk()["n"].as_str().unwrap().as_bytes().to_vec()] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
        let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        assert_eq!(refused(&format!("{message}.{}", encoded(tag)), &keys), Mistrust::Algorithm);
    }
    // A key that the token brings along itself.
    let own = json!({ "alg": "RS256", "kid": "own", "jwk": stranger.jwk(), "jku": "https://id.example/own" });
    assert_eq!(refused(&stranger.sign_as(&own, &claims(NOW)), &keys), Mistrust::Key);
    for header in [json!({ "alg": "RS256", "kid": "r", "crit": ["exp"] }), json!({ "kid": "r" }), json!(["RS256"])] {
        assert_eq!(refused(&signer.sign_as(&header, &claims(NOW)), &keys), Mistrust::Malformed, "{header}");
    }
    let logout = json!({ "alg": "RS256", "kid": "r", "typ": "logout+jwt" });
    assert_eq!(refused(&signer.sign_as(&logout, &claims(NOW)), &keys), Mistrust::Type);
    for typ in ["JWT", "at+jwt", "application/at+JWT"] {
        let header = json!({ "alg": "RS256", "kid": "r", "typ": typ });
        assert!(actor(&signer.sign_as(&header, &claims(NOW)), &keys).is_ok(), "{typ}");
    }
}

#[test]
fn each_claim_counts() {
    let signer = Signer::ed25519("e");
    let keys = KeySet::parse(&published(&[&signer])).unwrap();
    let (now, far) = (NOW, NOW + 31);
    for (claims, why) in [
        (without("iss"), Mistrust::Issuer),
        (with(json!({ "iss": format!("{ISSUER}/") })), Mistrust::Issuer),
        (with(json!({ "iss": [ISSUER] })), Mistrust::Issuer),
        (with(json!({ "iss": "https://id.example/realms/cellar" })), Mistrust::Issuer),
        (without("aud"), Mistrust::Audience),
        (with(json!({ "aud": "others" })), Mistrust::Audience),
        (with(json!({ "aud": ["others", "verger2"] })), Mistrust::Audience),
        (with(json!({ "aud": { "verger": true } })), Mistrust::Audience),
        (with(json!({ "aud": [] })), Mistrust::Audience),
        (without("exp"), Mistrust::Expired),
        (with(json!({ "exp": NOW - 30 })), Mistrust::Expired),
        (with(json!({ "exp": "99999999999" })), Mistrust::Expired),
        (with(json!({ "exp": null })), Mistrust::Expired),
        (with(json!({ "nbf": far })), Mistrust::NotYet),
        (with(json!({ "nbf": far.to_string() })), Mistrust::NotYet),
        (without("sub"), Mistrust::Subject),
        (with(json!({ "sub": "" })), Mistrust::Subject),
        (with(json!({ "sub": 7 })), Mistrust::Subject),
        (with(json!({ "sub": "a".repeat(256) })), Mistrust::Subject),
    ] {
        assert_eq!(refused(&signer.sign(&claims), &keys), why, "{claims}");
    }
    for claims in [
        with(json!({ "exp": now - 29 })),
        with(json!({ "exp": now as f64 + 0.5 })),
        with(json!({ "nbf": now + 30 })),
        without("nbf"),
        without("iat"),
    ] {
        assert!(actor(&signer.sign(&claims), &keys).is_ok(), "{claims}");
    }
    for (claims, text) in [(json!([1]), "an array"), (json!("x"), "a text"), (json!(null), "null")] {
        assert_eq!(refused(&signer.sign(&claims), &keys), Mistrust::Malformed, "{text}");
    }
}

#[test]
fn only_what_has_the_form_of_a_token_is_looked_into() {
    let signer = Signer::ed25519("e");
    let keys = KeySet::parse(&published(&[&signer])).unwrap();
    let good = signer.sign(&claims(NOW));
    let parts: Vec<&str> = good.split('.').collect();
    for text in [
        "..",
        "a.b.c",
        &format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        &format!("{}.{}.{}=", parts[0], parts[1], parts[2]),
        &format!("{}.{}.{}.x", parts[0], parts[1], parts[2]),
        &format!("{}.{}", parts[0], parts[1]),
        &format!(" {good}"),
        &format!("{}.{}.{}", parts[0], encoded("[".repeat(5_000)), parts[2]),
    ] {
        assert_eq!(refused(text, &keys), Mistrust::Malformed, "{text}");
    }
    let long = signer.sign(&with(json!({ "padding": "x".repeat(TOKEN_BYTES_MAX) })));
    assert_eq!(refused(&long, &keys), Mistrust::TooLong);
    assert_eq!(refused(&".".repeat(TOKEN_BYTES_MAX + 1), &keys), Mistrust::TooLong);
    let most = signer.sign(&with(json!({ "padding": "x".repeat(11_500) })));
    assert!(most.len() > TOKEN_BYTES_MAX - 1_000 && actor(&most, &keys).is_ok(), "{}", most.len());
    assert!(is_presented(&good) && !is_presented("vgr_a.b.c") && !is_presented("a.b") && !is_presented("a.b.c.d"));
}

#[test]
fn keys_that_are_for_something_else_are_left_out() {
    let (signer, other) = (Signer::rsa("r"), Signer::ed25519("e"));
    let token = signer.sign(&claims(NOW));
    let set = |change: Value| {
        let mut jwk = signer.jwk();
        for (name, value) in change.as_object().unwrap() {
            jwk[name.as_str()] = value.clone();
        }
        let unknown = json!({ "kty": "quantum", "kid": "q" });
        KeySet::parse(json!({ "keys": [unknown, 7, other.jwk(), jwk] }).to_string().as_bytes()).unwrap()
    };
    for change in [json!({}), json!({ "use": null }), json!({ "key_ops": ["verify"] }), json!({ "alg": "RS256" })] {
        assert!(actor(&token, &set(change.clone())).is_ok(), "{change}");
    }
    for change in [
        json!({ "use": "enc" }),
        json!({ "key_ops": ["encrypt"] }),
        json!({ "alg": "RS512" }),
        json!({ "alg": "RSA-OAEP" }),
        json!({ "kty": "oct", "k": "c2VjcmV0" }),
        json!({ "kid": "another" }),
        json!({ "kid": null }),
    ] {
        assert_eq!(refused(&token, &set(change.clone())), Mistrust::Key, "{change}");
    }
    let short = json!({ "n": encoded([0xc7; 128]) });
    assert_eq!(refused(&token, &set(short)), Mistrust::Signature, "1024 bits are too few");
    // Without a name in the token: only if one key alone can be meant.
    let nameless = signer.sign_as(&json!({ "alg": "RS256" }), &claims(NOW));
    assert!(actor(&nameless, &set(json!({}))).is_ok());
    let two = KeySet::parse(&published(&[&signer, &Signer::rsa("s")])).unwrap();
    assert_eq!(refused(&nameless, &two), Mistrust::Key);
    for nothing in ["", "{}", "[]", "{\"keys\":[]}", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}"] {
        assert!(KeySet::parse(nothing.as_bytes()).is_err(), "{nothing}");
    }
}

#[test]
fn a_token_is_worth_what_is_granted_and_nothing_else() {
    let signer = Signer::ed25519("e");
    let keys = KeySet::parse(&published(&[&signer])).unwrap();
    let scopes = |provider: &Provider, claims: Value| match actor_at(&signer.sign(&claims), provider, &keys, NOW) {
        Ok(Actor::Known { scopes, .. }) => scopes,
        other => panic!("{other:?}"),
    };
    let of = |groups: Value| scopes(&provider(), with(json!({ "groups": groups })));
    for nothing in [json!([]), json!(["Read", "reads", " read", "staff"]), json!({ "read": true }), json!([["read"]])] {
        assert!(of(nothing.clone()).is_empty(), "{nothing}");
    }
    assert!(scopes(&provider(), with(json!({ "groups": null, "scope": "admin", "roles": ["admin"] }))).is_empty());
    assert_eq!(of(json!("operate")), Scopes::of(&[Scope::Operate]));
    assert_eq!(of(json!(["operate", "approve", "x"])), Scopes::of(&[Scope::Operate, Scope::Approve]));
    let granting = |claim: &str, value: &str| {
        let to = Holds { claim: claim.to_owned(), value: value.to_owned() };
        Provider { grants: vec![Grant { scope: Scope::Admin, to }], ..provider() }
    };
    let nested = json!({ "realm_access": { "roles": ["verger-admin"] }, "a.b": "c", "scope": "openid verger:admin" });
    for (claim, value, holds) in [
        ("realm_access.roles", "verger-admin", true),
        ("realm_access.roles.0", "verger-admin", false),
        ("realm_access", "verger-admin", false),
        ("a.b", "c", true),
        ("scope", "verger:admin", true),
        ("scope", "admin", false),
        ("scope", "openid verger:admin", false),
        ("missing.roles", "verger-admin", false),
        ("", "", false),
    ] {
        assert_eq!(!scopes(&granting(claim, value), with(nested.clone())).is_empty(), holds, "{claim}={value}");
    }
}

#[test]
fn a_token_reaches_its_own_tenant_and_no_other() {
    let signer = Signer::ed25519("e");
    let keys = KeySet::parse(&published(&[&signer])).unwrap();
    let access =
        |provider: &Provider, changes: Value| match actor_at(&signer.sign(&with(changes)), provider, &keys, NOW) {
            Ok(Actor::Known { access, .. }) => Some(access),
            Err(Denied::NoTenant(name)) => {
                assert_eq!(name, "oidc:id.example/realms/attic/ann");
                None
            }
            other => panic!("{other:?}"),
        };
    let attic = Some(Access::One(Tenant::new("attic").unwrap()));
    for (changes, expected) in [
        (json!({}), attic.clone()),
        (json!({ "tenant": ["attic"] }), attic.clone()),
        (json!({ "tenant": ["attic", "cellar"] }), None),
        (json!({ "tenant": null }), None),
        (json!({ "tenant": "" }), None),
        (json!({ "tenant": "*" }), None),
        (json!({ "tenant": "Attic" }), None),
        (json!({ "tenant": "attic cellar" }), None),
        (json!({ "tenant": { "attic": "attic" } }), None),
        (json!({ "groups": ["everyone"] }), Some(Access::All)),
        (json!({ "groups": "everyone", "tenant": "nobody knows" }), Some(Access::All)),
    ] {
        assert_eq!(access(&provider(), changes.clone()), expected, "{changes}");
    }
    let fixed = Provider { tenant: TenantOf::Fixed(Tenant::new("cellar").unwrap()), ..provider() };
    let cellar = Some(Access::One(Tenant::new("cellar").unwrap()));
    assert_eq!(access(&fixed, json!({})), cellar, "what the token says of it does not count");
    let nobody = Provider { tenant: TenantOf::Nobody, ..provider() };
    assert_eq!(access(&nobody, json!({})), None);
    assert_eq!(Denied::NoTenant(String::new()).status(), 403);
    assert_eq!(Denied::from(Mistrust::Signature).status(), 401);
}

#[test]
fn nobody_takes_the_name_of_another() {
    let name = |issuer: &str, subject: &str| Provider { issuer: issuer.to_owned(), ..provider() }.actor_name(subject);
    assert_eq!(name("https://id.example", "a@b.example"), "oidc:id.example/a@b.example");
    assert_eq!(name("https://id.example/", "a b\n\"/ü"), "oidc:id.example/a%20b%0A%22%2F%C3%BC");
    assert_ne!(name("https://id.example", "realms/a/ann"), name("https://id.example/realms/a", "ann"));
    assert_ne!(name("https://id.example", "a%2F"), name("https://id.example", "a/"));
    let grant = verger_proto::TokenGrant {
        name: "oidc:id.example/ann".to_owned(),
        access: Access::All,
        scopes: Scopes::of(&[Scope::Read]),
        expires: None,
        hash: verger_proto::Digest::of(b"x"),
    };
    let token = Token::granted(grant, LogTime(1));
    assert_eq!(Tokens::default().add(token), Err(TokenError::NameTaken("oidc:id.example/ann".to_owned())));
}

#[test]
fn addresses_are_safe_on_tls_or_on_this_machine() {
    for good in [
        "https://id.example",
        "https://id.example:8443/a",
        "http://127.0.0.1:1/x",
        "http://[::1]:9",
        "http://localhost",
    ] {
        assert!(is_safe(good), "{good}");
    }
    for bad in [
        "",
        "id.example",
        "http://id.example",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://localhost@id.example",
        "https://u:p@id.example",
        "ftp://localhost",
        "file:///etc/passwd",
        "https://",
    ] {
        assert!(!is_safe(bad), "{bad}");
    }
}
