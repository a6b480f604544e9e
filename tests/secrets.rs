//! Passwords, keys and tokens go through a whole run of `verger up`, and are found nowhere afterwards: not in the ledger, the raft log,
//! the events, answers, logs, figures, spans or errors (S9).

#![allow(clippy::unwrap_used)]

#[path = "support/canary.rs"]
mod canary;
#[path = "support/collector.rs"]
mod collector;
#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::path::Path;

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use canary::{Canaries, PAGES, change_password, files, holds};
use collector::{Collector, Mood};
use fleet::Fleet;
use memchr::memmem;
use serde_json::{Value, json};
use support::{Golden, OWNER, json, run};

/// Certificate and key of this machine.
fn certificate(folder: &Path, canaries: &mut Canaries) -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    let line = key.lines().nth(1).unwrap();
    canaries.keep("key of the certificate", &line.as_bytes()[24..]);
    canaries.keep("key of the certificate (bytes)", &made.signing_key.serialize_der()[40..]);
    let paths = ["tls.crt", "tls.key"].map(|name| folder.join(name));
    std::fs::write(&paths[0], made.cert.pem()).unwrap();
    std::fs::write(&paths[1], key).unwrap();
    paths.map(|path| path.display().to_string())
}

/// Adds repositories in all the ways that do not work.
fn add_wrongly(fleet: &Fleet, golden: &Golden, secrets: &Path, ca: &str, canaries: &mut Canaries) {
    let add = |address: &str, flags: &[&str]| {
        let mut command = fleet.owner(&["repo", "add", "wrong", address, "--observe"]);
        command.args(flags).env("VERGER_CA_FILE", ca);
        command
    };
    for number in 0..8 {
        canaries.fail(&mut add(&golden.address(), &["--password-env", &format!("WRONG_{number}")]));
    }
    for number in 0..6 {
        let path = secrets.join(format!("wrong-{number}"));
        let password = canaries.make("wrong password in a file");
        std::fs::write(&path, password).unwrap();
        canaries.fail(&mut add(&golden.address(), &["--password-secret", &format!("wrong-{number}")]));
        canaries.fail(&mut add(&golden.address(), &["--password-file", &path.display().to_string()]));
    }
    for address in ["s3://attic/photos/", "azure://attic/photos/", "filesystem:///nowhere/at/all"] {
        canaries.fail(&mut add(address, &["--password-env", "PHOTOS_PASSWORD"]));
    }
    // Secrets where none belong.
    let (user, query) = (canaries.make("password in an address"), canaries.make("password in a query"));
    for address in [format!("s3://key:{user}@attic/photos/"), format!("s3://attic/photos/?secret={query}")] {
        canaries.fail(&mut add(&address, &["--password-env", "PHOTOS_PASSWORD"]));
        // The address that was typed is the caller's own; what the coordinator makes of it is looked at.
    }
}

/// Asks everything that can be asked, rightly and wrongly.
fn ask_everything(fleet: &Fleet, ca: &str, token: &str, canaries: &mut Canaries) {
    let ca = reqwest::Certificate::from_pem(&std::fs::read(ca).unwrap()).unwrap();
    let client = reqwest::blocking::Client::builder().tls_certs_only([ca]).build().unwrap();
    let mut ask = |method: reqwest::Method, path: &str, token: &str, body: Option<Value>| {
        let request = client.request(method, format!("{}{path}", fleet.base())).bearer_auth(token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().unwrap();
        let headers = format!("{:?}", answer.headers());
        let status = answer.status().as_u16();
        canaries.said.push((path.to_owned(), [headers.into_bytes(), answer.bytes().unwrap().to_vec()].concat()));
        status
    };
    let get = reqwest::Method::GET;
    for path in PAGES {
        assert_eq!(ask(get.clone(), path, token, None), 200, "{path}");
    }
    let mut given = Canaries::default();
    for (path, body) in [
        (
            "/v1/repositories",
            json!({ "name": "a", "address": "s3://b/c/", "acting": "observe", "password": given.make("password itself") }),
        ),
        (
            "/v1/repositories",
            json!({ "name": "a", "address": "s3://b/c/", "acting": "observe", "password": { "plain": given.make("password") } }),
        ),
        (
            "/v1/tokens",
            json!({ "name": "a", "scopes": ["read"], "allTenants": true, "token": given.make("token of one's own") }),
        ),
    ] {
        assert_eq!(ask(reqwest::Method::POST, path, token, Some(body)), 400);
    }
    let unknown =
        format!("vgr_{}", BASE64_URL_SAFE_NO_PAD.encode(&given.make("seed of an unknown token").repeat(2)[..32]));
    given.token("unknown token", &unknown);
    let twisted = format!("vgr_{}", given.make("no token"));
    for token in [&unknown, &twisted] {
        assert_eq!(ask(get.clone(), "/v1/status", token, None), 401);
    }
    canaries.all.extend(given.all);
}

#[test]
fn forty_secrets_go_through_a_run_and_stay_where_they_are() {
    let (golden, secrets) = (Golden::unpack("default"), tempfile::tempdir().unwrap());
    let mut canaries = Canaries::default();
    let password = canaries.make("password of the repository");
    change_password(&golden, &password, &mut canaries);
    let [certificate, key] = certificate(secrets.path(), &mut canaries);
    let spans = Collector::start(Mood::Good);
    let mut environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), spans.endpoint.clone()),
        ("OTEL_BSP_SCHEDULE_DELAY".to_owned(), "100".to_owned()),
        ("PHOTOS_PASSWORD".to_owned(), password),
        ("AWS_ACCESS_KEY_ID".to_owned(), "nobody".to_owned()),
        ("AWS_REGION".to_owned(), "nowhere".to_owned()),
        ("AWS_S3_ENDPOINT".to_owned(), "http://127.0.0.1:9".to_owned()),
        ("AZURE_STORAGE_ACCOUNT".to_owned(), "nobody".to_owned()),
        ("VERGER_CA_FILE".to_owned(), certificate.clone()),
    ];
    for name in
        ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_SAS_TOKEN", "KOPIA_PASSWORD", "VERGER_TOKEN"]
    {
        environment.push((name.to_owned(), canaries.make(name)));
    }
    let storage_key = canaries.make("AZURE_STORAGE_KEY");
    environment.push(("AZURE_STORAGE_KEY".to_owned(), BASE64_STANDARD.encode(storage_key)));
    for number in 0..8 {
        environment.push((format!("WRONG_{number}"), canaries.make("wrong password in a variable")));
    }
    let borrowed: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let folder = secrets.path().display().to_string();
    let flags =
        ["--tls-cert", &certificate, "--tls-key", &key, "--secrets", &folder, "--log-level", "debug,verger=trace"];
    let mut fleet = Fleet::start(tempfile::tempdir().unwrap(), &flags, &borrowed);
    // The users' own command lines have none of that environment, but for the authority.
    let ca_file = certificate.clone();
    let owner = |fleet: &Fleet, arguments: &[&str]| {
        let mut command = fleet.owner(arguments);
        command.env("VERGER_CA_FILE", &ca_file);
        command
    };
    let photos = ["repo", "add", "photos", &golden.address(), "--password-env", "PHOTOS_PASSWORD", "--act-as", OWNER];
    run(&mut owner(&fleet, &[&photos[..], &["--exclusive"]].concat()));
    add_wrongly(&fleet, &golden, secrets.path(), &certificate, &mut canaries);
    let mut last = String::new();
    for scope in ["read", "operate", "approve", "admin"] {
        let made =
            json(&run(&mut owner(&fleet, &["token", "create", scope, "--scope", scope, "--all-tenants", "--json"])));
        last = made["token"].as_str().unwrap().to_owned();
        canaries.token(&format!("token {scope}"), &last);
    }
    let full =
        ["cycle", "start", "photos", "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100", "--wait"];
    let report = canaries.hear(&mut owner(&fleet, &[&full[..], &["--json"]].concat()));
    assert_eq!(json(&report)["outcome"], "done");
    run(&mut owner(&fleet, &["token", "revoke", "read"]));
    ask_everything(&fleet, &certificate, &last, &mut canaries);
    for arguments in [
        &["repo", "list", "--json"][..],
        &["events", "--json"],
        &["token", "list"],
        &["lease", "list"],
        &["cycle", "list"],
    ] {
        canaries.hear(&mut owner(&fleet, arguments));
    }
    // A start reads everything again, and a stop leaves everything behind.
    fleet.kill();
    fleet.again(&flags);
    canaries.hear(&mut owner(&fleet, &["repo", "probe", "photos", "--json"]));
    fleet.kill();
    let tokens = fleet.home.path().join("config/verger/tokens");
    let kept = files(&tokens);
    assert_eq!(kept.len(), 1, "the owner's token is the only secret that is kept");
    let owners = std::fs::read_to_string(&kept[0]).unwrap();
    canaries.token("the owner's token", &owners);
    let told = spans.bytes();
    assert!(memmem::find(&told, b"cycle full").is_some(), "there were spans");
    canaries.said.push(("spans".to_owned(), told));
    judge(&canaries, &fleet, &golden, &tokens);
}

fn judge(canaries: &Canaries, fleet: &Fleet, golden: &Golden, tokens: &Path) {
    assert!(canaries.all.len() >= 40, "{} canaries", canaries.all.len());
    assert!(canaries.said.len() >= 40, "{} answers", canaries.said.len());
    let said = canaries.said.iter().flat_map(|(place, bytes)| canaries.found(place, bytes));
    let mut found: Vec<String> = said.collect();
    found.extend(canaries.found_below(fleet.home.path(), &[tokens.to_owned()]));
    found.extend(canaries.found_below(&golden.repository(), &[]));
    assert_eq!(found, Vec::<String>::new());
    // And they would be found: what the ledger and the log do hold is seen, and so is the token where it is kept.
    assert!(holds(&fleet.data(), "PHOTOS_PASSWORD"), "the place of the password is in the ledger");
    let log = std::fs::read(fleet.log()).unwrap();
    assert!(memmem::find(&log, b"repository=photos").is_some() && memmem::find(&log, b"DEBUG").is_some());
    assert!(!canaries.found_below(tokens, &[]).is_empty());
}
