//! The configuration that is shipped (`deploy/nats`): what it allows is enough, and what is not allowed is told by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use verger_proto::FleetId;
use verger_proto::work_queue::nats::{Credentials, NatsQueue, Settings, SettingsError, Standing};
use verger_proto::work_queue::{Denied, WorkQueue, WorkQueueError, conformance};

use super::rig::{eventually, key, keys, take};
use super::server::NatsServer;

const CONFIG: &str = include_str!("../../../deploy/nats/nats.conf");

/// Users of the server, whose seeds are in files named after them.
struct Guarded {
    server: NatsServer,
    fleet: FleetId,
}

impl Guarded {
    /// The shipped configuration, changed by `change`.
    fn start(change: impl Fn(String) -> String) -> Option<Self> {
        let server = NatsServer::start_with(|folder| {
            certificates(folder);
            let mut config =
                CONFIG.replace("/etc/nats", &folder.display().to_string()).replace("/var/lib/nats", "STORE");
            for user in ["COORDINATOR", "WORKER", "STRANGER"] {
                let pair = nkeys::KeyPair::new_user();
                fs::write(folder.join(user), format!("# {user}\n{}\n", pair.seed().unwrap())).unwrap();
                config = config.replace(&format!("{user}_NKEY"), &pair.public_key());
            }
            change(config)
        })?;
        Some(Self { server, fleet: FleetId::new("0a1b2c3d").unwrap() })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.server.folder.path().join(name)
    }

    fn settings(&self, user: &str) -> Settings {
        let mut settings = Settings::new(vec![format!("tls://localhost:{}", self.server.port)], self.fleet.clone());
        settings.credentials = Credentials::NkeyFile(self.file(user));
        settings.ca = Some(self.file("ca.crt"));
        settings
    }

    fn coordinator(&self, user: &str) -> NatsQueue {
        NatsQueue::administer(&self.settings(user), &conformance::pools(), key()).unwrap()
    }

    fn worker(&self, user: &str) -> NatsQueue {
        NatsQueue::join(&self.settings(user), keys()).unwrap()
    }
}

fn certificates(folder: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(folder.join("ca.crt"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    fs::write(folder.join("server.crt"), server.pem()).unwrap();
    fs::write(folder.join("server.key"), server_key.serialize_pem()).unwrap();
}

/// The subject that is refused to a queue.
fn denied(queue: &NatsQueue, call: impl Fn() -> Result<(), WorkQueueError>) -> String {
    let found = Mutex::new(String::new());
    eventually("a refusal", || match call() {
        Err(error @ WorkQueueError::Denied(Denied::Permission { .. })) => {
            assert!(matches!(queue.standing(), Standing::Denied(_)));
            *found.lock().unwrap() = error.to_string();
            true
        }
        _ => false,
    });
    found.into_inner().unwrap()
}

#[test]
fn what_the_shipped_configuration_allows_is_enough() {
    let Some(guarded) = Guarded::start(|config| config) else { return };
    let (coordinator, worker) = (guarded.coordinator("COORDINATOR"), guarded.worker("WORKER"));
    eventually("the stream is made", || coordinator.standing() == Standing::Up);
    let pools = conformance::pools();
    (0..4).for_each(|number| coordinator.offer(&conformance::job(&pools[number as usize % 2], number)).unwrap());
    coordinator.offer(&conformance::job(&pools[0], 0)).unwrap();
    take(&worker, &pools).later(Duration::ZERO);
    (0..4).for_each(|_| take(&worker, &pools).done());
    assert!(worker.take(&pools, Duration::from_secs(1)).unwrap().is_none());
    assert_eq!((coordinator.standing(), worker.standing()), (Standing::Up, Standing::Up));
}

/// As the comment in the configuration says it.
#[test]
fn a_worker_of_one_pool_alone_needs_less() {
    let change = |config: String| {
        let config = config.replace("NEXT.VERGER_0A1B2C3D.*", "NEXT.VERGER_0A1B2C3D.work-default");
        config.replace("$JS.ACK.VERGER_0A1B2C3D.>", "$JS.ACK.VERGER_0A1B2C3D.work-default.>")
    };
    let Some(guarded) = Guarded::start(change) else { return };
    let (coordinator, worker) = (guarded.coordinator("COORDINATOR"), guarded.worker("WORKER"));
    eventually("the stream is made", || coordinator.standing() == Standing::Up);
    let [pool, other] = conformance::pools();
    [&pool, &other].iter().for_each(|pool| coordinator.offer(&conformance::job(pool, 1)).unwrap());
    take(&worker, std::slice::from_ref(&pool)).done();
    let text = denied(&worker, || worker.take(std::slice::from_ref(&other), Duration::from_secs(5)).map(drop));
    assert!(text.contains("work-near-1"), "{text}");
}

/// A JWT as `nsc` makes it.
fn jwt(issuer: &nkeys::KeyPair, subject: &nkeys::KeyPair, what: Value) -> String {
    let claims = json!({
        "jti": "x", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": "x", "nats": what,
    });
    let parts = [json!({ "typ": "JWT", "alg": "ed25519-nkey" }), claims];
    let signed = parts.map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap()))
}

#[test]
fn a_file_of_credentials_lets_in_where_an_operator_signs_for_accounts() {
    let [system, account] = [(); 2].map(|()| nkeys::KeyPair::new_account());
    let (operator, user) = (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_user());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let signs = jwt(&operator, &operator, json!({ "type": "operator", "version": 2 }));
    let account_signed = jwt(&operator, &account, json!({ "type": "account", "version": 2, "limits": limits }));
    let without = json!({ "subs": -1, "data": -1, "payload": -1, "exports": -1, "wildcards": true, "conn": -1 });
    let system_signed = jwt(&operator, &system, json!({ "type": "account", "version": 2, "limits": without }));
    let what = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    let (user_signed, seed) = (jwt(&account, &user, what), user.seed().unwrap());
    let server = NatsServer::start_with(|_| {
        let entry = |of: &nkeys::KeyPair, signed: &str| format!("  {}: \"{signed}\"\n", of.public_key());
        let accounts = entry(&system, &system_signed) + &entry(&account, &account_signed);
        let head = format!("operator: \"{signs}\"\nsystem_account: {}\nresolver: MEMORY\n", system.public_key());
        let store = "jetstream { store_dir: \"STORE\", sync_interval: always }\n";
        format!("{head}resolver_preload {{\n{accounts}}}\n{store}")
    });
    let Some(server) = server else { return };
    let path = server.folder.path().join("verger.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{user_signed}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    fs::write(&path, text).unwrap();
    let mut settings = Settings::new(vec![server.url()], FleetId::new("0a1b2c3d").unwrap());
    settings.credentials = Credentials::CredsFile(path);
    let coordinator = NatsQueue::administer(&settings, &conformance::pools(), key()).unwrap();
    eventually("the stream is made", || coordinator.standing() == Standing::Up);
    let worker = NatsQueue::join(&settings, keys()).unwrap();
    coordinator.offer(&conformance::job(&conformance::pools()[0], 1)).unwrap();
    take(&worker, &conformance::pools()).done();
}

#[test]
fn a_worker_can_neither_make_the_queue_nor_offer_work() {
    let Some(guarded) = Guarded::start(|config| config) else { return };
    // One that would listen to coordinators' answers is refused that as well, and learns nothing of what it asks for.
    let thief = guarded.coordinator("WORKER");
    let pools = conformance::pools();
    let text = denied(&thief, || thief.offer(&conformance::job(&pools[0], 1)));
    assert!(text.contains("verger.0a1b2c3d.work.default") || text.contains("_INBOX_VERGER_COORDINATOR"), "{text}");
    assert_ne!(thief.standing(), Standing::Up);
    // What it tried did not make anything.
    let worker = guarded.worker("WORKER");
    eventually("there is nothing", || matches!(worker.take(&pools, Duration::ZERO), Err(WorkQueueError::Absent(_))));
    // And a coordinator takes no work.
    let coordinator = guarded.coordinator("COORDINATOR");
    eventually("the stream is made", || coordinator.standing() == Standing::Up);
    let thief = guarded.worker("COORDINATOR");
    denied(&thief, || thief.take(&pools, Duration::from_secs(1)).map(drop));
}

#[test]
fn a_missing_permission_is_told_by_name_and_at_once() {
    const NEXT: &str = r#""$JS.API.CONSUMER.MSG.NEXT.VERGER_0A1B2C3D.*""#;
    let Some(guarded) = Guarded::start(|config| config.replace(NEXT, r#""nothing""#)) else { return };
    let worker = guarded.worker("WORKER");
    let pools = conformance::pools();
    let text = denied(&worker, || worker.take(&pools, Duration::from_secs(5)).map(drop));
    assert!(text.contains(r#"publish "$JS.API.CONSUMER.MSG.NEXT.VERGER_0A1B2C3D.work-"#), "{text}");
    assert!(text.contains("deploy/nats/nats.conf"), "{text}");
    // From then on at once.
    let began = std::time::Instant::now();
    (0..100).for_each(|_| assert!(worker.take(&pools, Duration::from_secs(5)).is_err()));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn one_that_nobody_knows_is_refused_and_told_so() {
    let Some(guarded) = Guarded::start(|config| config) else { return };
    let stranger = guarded.worker("STRANGER");
    eventually("the refusal", || matches!(stranger.standing(), Standing::Denied(Denied::Connect(_))));
    let taken = stranger.take(&conformance::pools(), Duration::from_secs(30)).map(|taken| taken.is_some());
    assert!(matches!(taken, Err(WorkQueueError::Denied(Denied::Connect(_)))), "{taken:?}");
    // Nobody at all, too.
    let mut settings = guarded.settings("WORKER");
    settings.credentials = Credentials::None;
    let nobody = NatsQueue::join(&settings, keys()).unwrap();
    eventually("the refusal", || matches!(nobody.standing(), Standing::Denied(Denied::Connect(_))));
    // And a server of another authority is not talked to.
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    settings = guarded.settings("WORKER");
    settings.ca = Some(other.path().join("ca.crt"));
    let wary = NatsQueue::join(&settings, keys()).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(matches!(wary.standing(), Standing::Away(_)), "{:?}", wary.standing());
}

#[test]
fn files_that_are_not_what_they_should_be_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("seed"), "hunter2hunter2\n").unwrap();
    let mut settings = Settings::new(vec!["nats://127.0.0.1:1".to_owned()], FleetId::new("0a1b2c3d").unwrap());
    let join = |settings: &Settings| match NatsQueue::join(settings, keys()) {
        Err(error @ SettingsError::File { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    for (credentials, word) in [
        (Credentials::NkeyFile(path("seed")), "NKey"),
        (Credentials::CredsFile(path("seed")), "credentials"),
        (Credentials::CredsFile(path("none")), "No such file"),
    ] {
        settings.credentials = credentials;
        let text = join(&settings);
        assert!(text.contains(word) && !text.contains("hunter2"), "{text}");
    }
    settings.credentials = Credentials::None;
    settings.ca = Some(path("seed"));
    assert!(join(&settings).contains("no certificate"));
}
