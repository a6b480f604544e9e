//! Who may speak to `verger up`, and how it proves who it is: tokens, tenants and certificates as users meet them.

#![allow(clippy::unwrap_used)]

#[path = "support/fleet.rs"]
mod fleet;
#[path = "support/provider.rs"]
mod provider;
mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fleet::Fleet;
use provider::Provider;
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use support::{Golden, OWNER, PASSWORD, fails, json, run};

fn text(output: std::process::Output) -> String {
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs a command that reads this from standard input.
fn told(mut command: Command, input: &str) -> std::process::Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// A home whose user has logged in with a new token.
fn user(fleet: &Fleet, name: &str, flags: &[&str]) -> tempfile::TempDir {
    let token = text(run(fleet.owner(&["token", "create", name, "--quiet"]).args(flags)));
    let home = tempfile::tempdir().unwrap();
    let output = told(fleet.of(home.path(), &["login", &fleet.base()]), &format!("{token}\n"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!String::from_utf8_lossy(&output.stderr).contains(&token[4..]), "the token is told");
    home
}

fn kept(home: &Path) -> PathBuf {
    std::fs::read_dir(home.join("config/verger/tokens")).unwrap().next().unwrap().unwrap().path()
}

fn names(of: &Value) -> Vec<&str> {
    of.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn tokens_are_made_kept_limited_and_taken_back() {
    let golden = Golden::unpack("default");
    let mut fleet = Fleet::start(tempfile::tempdir().unwrap(), &[], &[("PHOTOS_PASSWORD", PASSWORD)]);
    let add = ["repo", "add", "photos", &golden.address(), "--password-env", "PHOTOS_PASSWORD", "--act-as", OWNER];
    run(fleet.owner(&add).args(["--tenant", "attic"]));
    let hers = user(&fleet, "ann", &["--scope", "operate", "--tenant", "attic", "--expires", "1h"]);
    let his = user(&fleet, "bob", &["--scope", "admin", "--tenant", "cellar"]);
    let reader = user(&fleet, "reader", &["--scope", "read", "--all-tenants"]);
    let path = kept(hers.path());
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777,
        0o600
    );
    let list = |home: &Path| json(&run(&mut fleet.of(home, &["repo", "list", "--json"])));
    assert_eq!(names(&list(hers.path())), ["photos"]);
    assert_eq!(names(&list(reader.path())), ["photos"]);
    assert_eq!(list(his.path()), json!([]));
    // His right is greater than hers, and reaches nothing of hers.
    let missing = fails(&mut fleet.of(his.path(), &["repo", "show", "photos"]), 17);
    assert_eq!(missing, fails(&mut fleet.of(his.path(), &["repo", "show", "absent"]), 17).replace("absent", "photos"));
    let scope = fails(&mut fleet.of(hers.path(), &["repo", "remove", "photos"]), 20);
    assert!(scope.contains("admin") && scope.contains("ann"), "{scope}");
    fails(&mut fleet.of(reader.path(), &["cycle", "start", "photos", "--full"]), 20);
    fails(&mut fleet.of(hers.path(), &["cycle", "start", "photos", "--full", "--allow-removing", "90"]), 20);
    run(&mut fleet.of(hers.path(), &["cycle", "start", "photos", "--quick", "--wait", "--json"]));
    fails(&mut fleet.of(his.path(), &["token", "create", "more", "--scope", "read", "--all-tenants"]), 20);
    fails(&mut fleet.of(his.path(), &["token", "revoke", "ann"]), 17);
    let env = ["repo", "add", "mine", &golden.address(), "--password-env", "PHOTOS_PASSWORD", "--take-ownership"];
    let forbidden = fails(&mut fleet.of(his.path(), &env), 20);
    assert!(forbidden.contains("cellar."), "{forbidden}");
    assert_eq!(names(&json(&run(&mut fleet.of(his.path(), &["token", "list", "--json"])))), ["bob"]);
    // All of it is still so after a restart.
    fleet.kill();
    fleet.again(&[]);
    run(&mut fleet.owner(&["token", "revoke", "ann"]));
    let revoked = fails(&mut fleet.of(hers.path(), &["repo", "list"]), 20);
    assert!(revoked.contains("revoked") && revoked.contains("ann"), "{revoked}");
    let all = json(&run(&mut fleet.owner(&["token", "list", "--json"])));
    assert_eq!(names(&all), ["ann", "bob", "reader"]);
    assert_eq!(all[0]["state"], "revoked");
    assert!(!all.to_string().contains("vgr_"));
    let kinds = text(run(&mut fleet.owner(&["events", "--json"])));
    assert!(kinds.contains("\"token_revoked\"") && kinds.contains("\"actor\":\"ann\""), "{kinds}");
    fails(&mut fleet.owner(&["token", "create", "ann", "--scope", "read", "--all-tenants"]), 16);
}

#[test]
fn a_login_takes_no_token_that_does_not_come_through() {
    let fleet = Fleet::start(tempfile::tempdir().unwrap(), &[], &[]);
    let short =
        text(run(&mut fleet.owner(&["token", "create", "t", "--scope", "read", "--all-tenants", "--expires", "1s"])));
    let home = tempfile::tempdir().unwrap();
    let login = |input: &str| {
        let output = told(fleet.of(home.path(), &["login", &fleet.base()]), input);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains(input.trim()) || input.trim().is_empty(), "it is told: {said}");
        output.status.code()
    };
    std::thread::sleep(Duration::from_millis(1100));
    let unknown = format!("vgr_{}", "A".repeat(43));
    for (input, code) in [("", 2), ("no token", 2), (unknown.as_str(), 20), (short.as_str(), 20)] {
        assert_eq!(login(input), Some(code), "{input}");
    }
    assert!(!home.path().join("config/verger/tokens").exists(), "none is kept");
    let far = fails(&mut fleet.of(home.path(), &["repo", "list", "--addr", "http://verger.invalid:7420"]), 2);
    assert!(far.contains("https://"), "{far}");
    for (flags, code) in
        [(&["--expires", "30"][..], 2), (&["--scope", "write"][..], 2), (&["--tenant", "Not one"][..], 2)]
    {
        let mut create = fleet.owner(&["token", "create", "x", "--scope", "read"]);
        fails(create.args(flags), code);
    }
    let file = home.path().join("token");
    std::fs::write(&file, text(run(&mut fleet.owner(&["token", "create", "u", "--scope", "read", "--all-tenants"]))))
        .unwrap();
    run(fleet.of(home.path(), &["login", &fleet.base(), "--token-file"]).arg(&file));
    run(&mut fleet.of(home.path(), &["repo", "list"]));
}

#[test]
fn tokens_of_an_identity_provider_are_taken_beside_its_own() {
    let provider = Provider::start();
    let flags = ["--oidc-issuer", &provider.issuer, "--oidc-audience", "verger", "--oidc-tenant-claim", "tenant"];
    let granted = [("VERGER_OIDC_SCOPE", "read=groups=staff;admin=groups=backup"), ("VERGER_LOG_LEVEL", "debug")];
    let mut fleet = Fleet::start(tempfile::tempdir().unwrap(), &flags, &granted);
    run(&mut fleet.owner(&["token", "list"]));
    let home = tempfile::tempdir().unwrap();
    let login = |token: &str| {
        let output = told(fleet.of(home.path(), &["login", &fleet.base()]), token);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains(token), "it is told: {said}");
        (output.status.code(), said)
    };
    for (claims, says) in [
        (json!({ "aud": "others" }), "another audience"),
        (json!({ "exp": 1_700_000_000 }), "has expired"),
        (json!({ "iss": "https://evil.example" }), "not believed"),
        (json!({ "tenant": null }), "no tenant"),
        (json!({ "groups": [] }), "needs the scope"),
    ] {
        let (code, said) = login(&provider.token("one", &claims));
        assert_eq!(code, Some(20), "{said}");
        assert!(said.contains(says), "{said}");
    }
    let (code, said) = login(&"a".repeat(20_000));
    assert_eq!(code, Some(2), "{said}");
    let ann = provider.token("one", &json!({ "groups": ["staff"] }));
    assert_eq!(login(&ann).0, Some(0));
    assert_eq!(json(&run(&mut fleet.of(home.path(), &["repo", "list", "--json"]))), json!([]));
    let scope = fails(&mut fleet.of(home.path(), &["token", "list"]), 20);
    assert!(scope.contains("admin") && scope.contains("oidc:127.0.0.1"), "{scope}");
    let admin = provider.token("one", &json!({ "groups": ["backup"], "sub": "bob" }));
    let create = ["token", "create", "cron", "--scope", "read", "--quiet"];
    run(fleet.of(home.path(), &create).env("VERGER_TOKEN", &admin));
    let events = text(run(&mut fleet.owner(&["events", "--json"])));
    assert!(events.contains(&format!("\"actor\":\"{}\"", provider.actor("bob"))), "{events}");
    // A key that was exchanged is learned when it is named, though not at every call; the old one is of no use then.
    provider.publish("two");
    let fresh = provider.token("two", &json!({ "groups": ["staff"] }));
    let began = Instant::now();
    while login(&fresh).0 != Some(0) {
        assert!(began.elapsed() < Duration::from_secs(60), "the new key is never taken");
        std::thread::sleep(Duration::from_millis(500));
    }
    fails(fleet.of(home.path(), &["repo", "list"]).env("VERGER_TOKEN", &ann), 20);
    // Without its provider a known key goes on, and after a restart there is none.
    provider.stop();
    run(&mut fleet.of(home.path(), &["repo", "list"]));
    fleet.kill();
    fleet.again(&flags);
    run(&mut fleet.owner(&["token", "list"]));
    let unknown = fails(&mut fleet.of(home.path(), &["repo", "list"]), 20);
    assert!(unknown.contains("not known now"), "{unknown}");
    let log = std::fs::read_to_string(fleet.log()).unwrap();
    assert!(log.contains("keys cannot be had"), "{log}");
    for token in [&ann, &admin, &fresh] {
        assert!(!log.contains(token.rsplit('.').next().unwrap()), "a token is logged");
    }
}

#[test]
fn a_provider_with_a_certificate_of_a_private_authority_is_believed_by_whoever_knows_that_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (own, foreign) = (Authority::new(), Authority::new());
    let (certificate, key) = own.sign(&["localhost"], 2100);
    let provider = Provider::start_with_tls(certificate.der().clone(), &key);
    let (own, foreign) = (own.pem(folder.path(), "own.pem"), foreign.pem(folder.path(), "foreign.pem"));
    let flags = [
        ["--oidc-issuer", &provider.issuer],
        ["--oidc-audience", "verger"],
        ["--oidc-tenant-claim", "tenant"],
        ["--oidc-scope", "read=groups=staff"],
    ];
    let flags = flags.concat();
    let ann = provider.token("one", &json!({}));
    // Without a file this machine's authorities count: a variable says them, for a test that is to be the same everywhere.
    for file in [None, Some(&foreign)] {
        let given: Vec<(&str, &str)> = file.iter().map(|path| ("VERGER_OIDC_CA_FILE", path.as_str())).collect();
        let fleet = Fleet::start(tempfile::tempdir().unwrap(), &flags, &given);
        let home = tempfile::tempdir().unwrap();
        let refused = fails(fleet.of(home.path(), &["repo", "list"]).env("VERGER_TOKEN", &ann), 20);
        assert!(refused.contains("not known now"), "{refused}");
        let log = std::fs::read_to_string(fleet.log()).unwrap();
        let says = ["keys cannot be had", "invalid peer certificate", "--oidc-ca-file"];
        assert!(log.lines().any(|line| says.iter().all(|word| line.contains(word))), "{log}");
        // It costs nobody else anything.
        run(&mut fleet.owner(&["repo", "list"]));
    }
    // By a flag, by its variable, and by the file of settings.
    let settings = folder.path().join("verger.yaml");
    std::fs::write(&settings, format!("up:\n  oidc-ca-file: {own}\n")).unwrap();
    let settings = settings.display().to_string();
    let by_flag = (vec!["--oidc-ca-file", &own], Vec::new());
    let by_variable = (Vec::new(), vec![("VERGER_OIDC_CA_FILE", own.as_str())]);
    let by_file = (vec!["--config", &settings], Vec::new());
    for (more, environment) in [by_flag, by_variable, by_file] {
        let fleet = Fleet::start(tempfile::tempdir().unwrap(), &[&flags[..], &more].concat(), &environment);
        let home = tempfile::tempdir().unwrap();
        let listed = run(fleet.of(home.path(), &["repo", "list", "--json"]).env("VERGER_TOKEN", &ann));
        assert_eq!(json(&listed), json!([]), "{more:?} {environment:?}");
        let log = std::fs::read_to_string(fleet.log()).unwrap();
        assert!(log.contains("the identity provider has these keys now"), "{log}");
    }
}

#[test]
fn providers_that_could_not_be_believed_end_the_start() {
    let home = tempfile::tempdir().unwrap();
    let up = |flags: &[&str]| {
        let mut command = support::verger(home.path());
        command.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]).arg(home.path().join("data")).args(flags);
        fails(&mut command, 2)
    };
    let issuer = ["--oidc-issuer", "https://id.example", "--oidc-audience", "verger"];
    assert!(up(&["--oidc-issuer", "http://id.example"]).contains("https://"));
    assert!(up(&issuer).contains("may do anything"));
    let worthless = up(&[&issuer[..], &["--oidc-scope", "read=groups=staff"]].concat());
    assert!(worthless.contains("reaches anything"), "{worthless}");
    let file = home.path().join("verger.yaml");
    std::fs::write(&file, "up:\n  oidc-issuer: https://id.example\n  oidc-audience: verger\n").unwrap();
    assert!(up(&["--config", file.to_str().unwrap()]).contains("may do anything"), "the file has these settings, too");
    let authority = [&issuer[..], &["--oidc-scope", "read=a=b", "--oidc-tenant", "t", "--oidc-ca-file", "/nowhere"]];
    assert!(up(&authority.concat()).contains("/nowhere"));
}

/// An authority, and certificates of its own making.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::<String>::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for these names, and its key.
    fn sign(&self, names: &[&str], until: i32) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut parameters =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
        (parameters.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Writes a certificate for these names and its key, and gives the key.
    fn write(&self, folder: &Path, stem: &str, names: &[&str], until: i32) -> KeyPair {
        let (certificate, key) = self.sign(names, until);
        // The key first: what is seen in between does not fit, and the one before goes on.
        std::fs::write(folder.join(format!("{stem}.key")), key.serialize_pem()).unwrap();
        std::fs::write(folder.join(format!("{stem}.crt")), certificate.pem()).unwrap();
        key
    }

    fn pem(&self, folder: &Path, name: &str) -> String {
        let path = folder.join(name);
        std::fs::write(&path, self.0.pem()).unwrap();
        path.display().to_string()
    }
}

fn paths(folder: &Path, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| folder.join(name).display().to_string()).collect()
}

#[test]
fn with_a_certificate_it_proves_who_it_is_and_takes_a_new_one_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(), Authority::new());
    first.write(folder.path(), "tls", &["localhost", "127.0.0.1"], 2100);
    let (one, other) = (first.pem(folder.path(), "one.pem"), second.pem(folder.path(), "other.pem"));
    let files = paths(folder.path(), &["tls.crt", "tls.key"]);
    let flags = ["--tls-cert", &files[0], "--tls-key", &files[1]];
    let fleet = Fleet::start(tempfile::tempdir().unwrap(), &flags, &[]);
    let list = |ca: Option<&str>| {
        let mut command = fleet.owner(&["repo", "list", "--json"]);
        if let Some(ca) = ca {
            command.env("VERGER_CA_FILE", ca);
        }
        command
    };
    assert_eq!(json(&run(&mut list(Some(&one)))), json!([]));
    let began = Instant::now();
    for wrong in [Some(other.as_str()), None] {
        let untrusted = fails(&mut list(wrong), 20);
        assert!(untrusted.contains("--ca-file"), "{untrusted}");
    }
    assert!(began.elapsed() < Duration::from_secs(8), "what is not believed is not waited for");
    // It is of another name.
    let mut elsewhere = list(Some(&one));
    elsewhere.env("VERGER_ADDR", format!("https://[::ffff:127.0.0.1]:{}", fleet.port));
    fails(&mut elsewhere, 20);
    let home = tempfile::tempdir().unwrap();
    let token = text(run(fleet
        .owner(&["token", "create", "t", "--scope", "read", "--all-tenants", "--quiet"])
        .args(["--ca-file", &one])));
    assert!(told(fleet.of(home.path(), &["login", &fleet.base(), "--ca-file", &one]), &token).status.success());
    run(fleet.of(home.path(), &["repo", "list"]).args(["--ca-file", &one]));
    // Plain HTTP is not spoken here.
    let mut plain = fleet.owner(&["repo", "list"]);
    plain.env("VERGER_ADDR", format!("http://127.0.0.1:{}", fleet.port));
    assert!(!plain.output().unwrap().status.success());
    // A pair that does not fit changes nothing; a new one is taken.
    std::fs::write(folder.path().join("tls.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    run(&mut list(Some(&one)));
    second.write(folder.path(), "tls", &["localhost", "127.0.0.1"], 2100);
    let began = Instant::now();
    while !list(Some(&other)).output().unwrap().status.success() {
        assert!(began.elapsed() < Duration::from_secs(10), "the new certificate is not taken");
    }
    fails(&mut list(Some(&one)), 20);
    let log = std::fs::read_to_string(fleet.log()).unwrap();
    assert!(log.contains("does not fit") && log.contains("was read again"), "{log}");
}

#[test]
fn who_has_no_certificate_of_the_authority_does_not_come_to_the_gate() {
    let folder = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new(), Authority::new());
    servers.write(folder.path(), "tls", &["localhost", "127.0.0.1"], 2100);
    clients.write(folder.path(), "client", &["ann"], 2100);
    servers.write(folder.path(), "stranger", &["ann"], 2100);
    let (ca, client_ca) = (servers.pem(folder.path(), "ca.pem"), clients.pem(folder.path(), "clients.pem"));
    let files =
        paths(folder.path(), &["tls.crt", "tls.key", "client.crt", "client.key", "stranger.crt", "stranger.key"]);
    let flags = ["--tls-cert", &files[0], "--tls-key", &files[1], "--tls-client-ca", &client_ca];
    let fleet = Fleet::start(tempfile::tempdir().unwrap(), &flags, &[]);
    let list = |certificate: &[String]| {
        let mut command = fleet.owner(&["repo", "list", "--json", "--ca-file", &ca]);
        if let [certificate, key] = certificate {
            command.args(["--client-cert", certificate, "--client-key", key]);
        }
        command
    };
    assert_eq!(json(&run(&mut list(&files[2..4]))), json!([]));
    for certificate in [&[][..], &files[4..6]] {
        let refused = fails(&mut list(certificate), 20);
        assert!(refused.contains("--client-cert"), "{refused}");
    }
    fails(&mut list(&[files[2].clone(), files[0].clone()]), 2);
}

#[test]
fn each_mistake_with_a_certificate_ends_the_start_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(folder.path(), "good", &["localhost"], 2100);
    authority.write(folder.path(), "other", &["localhost"], 2100);
    authority.write(folder.path(), "old", &["localhost"], 2021);
    let home = tempfile::tempdir().unwrap();
    for (certificate, key, code, says) in [
        ("good.crt", "other.key", 2, "does not fit"),
        ("old.crt", "old.key", 2, "expired at 2021-01-01"),
        ("good.key", "good.key", 2, "holds no certificate"),
        ("good.crt", "good.crt", 2, "holds no private key"),
        ("good.crt", "nowhere.key", 20, "nowhere.key"),
        ("nowhere.crt", "good.key", 20, "nowhere.crt"),
    ] {
        let files = paths(folder.path(), &[certificate, key]);
        let mut up = support::verger(home.path());
        up.args(["up", "--listen", "127.0.0.1:0", "--tls-cert", &files[0], "--tls-key", &files[1], "--data-dir"]);
        let line = fails(up.arg(home.path().join("data")), code);
        assert!(line.contains(says), "{line}");
    }
    let files = paths(folder.path(), &["good.crt"]);
    let mut half = support::verger(home.path());
    fails(half.args(["up", "--tls-cert", &files[0], "--data-dir"]).arg(home.path().join("data")), 2);
}
