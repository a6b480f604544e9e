//! The image, and the fleet of `deploy/compose` that is made of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::flags::{assert_known, assert_variable, documents, is_there, printed, strings};
use crate::support::{run, skipped};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

fn is_pinned(image: &str) -> bool {
    let digest = image.split_once("@sha256:").map(|(_, digest)| digest);
    digest.is_some_and(|digest| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[test]
fn the_image_is_made_of_pinned_ones_and_runs_as_nobody() {
    let text = read("deploy/docker/Dockerfile");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let bases: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(bases.len(), 2);
    for base in &bases {
        assert!(is_pinned(base.split(' ').next().unwrap()), "{base}");
    }
    let minimum = format!("rust:{}.", env!("CARGO_PKG_RUST_VERSION"));
    assert!(bases[0].starts_with(&minimum), "{} is not the toolchain {minimum}", bases[0]);
    assert_eq!(lines.iter().filter(|line| **line == "USER 10001:10001").count(), 1, "by number");
    assert!(lines.contains(&"HEALTHCHECK NONE") && lines.contains(&"ENTRYPOINT [\"verger\"]"));
    // Nothing can be given to a build, and so nothing secret stays in a layer.
    assert!(
        !lines.iter().any(|line| line.starts_with("ARG ") || line.starts_with("ENV ") || line.contains("type=secret"))
    );
    for line in lines.iter().filter(|line| line.starts_with("COPY --chmod")) {
        let source = line.split(' ').nth(2).unwrap();
        assert!(Path::new(ROOT).join(source).is_file(), "{source}");
        assert!(read(".dockerignore").contains(&format!("!{source}")), "{source} is not sent to the builder");
    }
}

#[test]
fn the_builder_is_sent_what_it_needs_and_nothing_else() {
    let ignore = read(".dockerignore");
    let rules: Vec<&str> = ignore.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(rules[0], "*");
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    let members = members.trim_end_matches(']').split(", ").map(|member| member.trim_matches('"'));
    for part in members.chain(["src", "Cargo.toml", "Cargo.lock"]) {
        assert!(rules.contains(&format!("!{part}").as_str()), "{part}");
    }
}

fn compose() -> Value {
    documents(&read("deploy/compose/compose.yaml")).remove(0)
}

fn services(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    compose["services"].as_object().unwrap().iter()
}

/// What the one that runs first makes, in a folder.
pub(crate) fn secrets(folder: &Path) -> bool {
    if !is_there("openssl", &["version"], "what deploy/compose makes with it is not tried") {
        return false;
    }
    run(Command::new(Path::new(ROOT).join("deploy/compose/setup.sh")).arg("secrets").arg(folder));
    true
}

#[test]
fn containers_are_shut_in_and_reached_from_this_machine_alone() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let image = service["image"].as_str().unwrap();
        assert!(is_pinned(image) || image == concat!("verger:", env!("CARGO_PKG_VERSION")), "{name}: {image}");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["cap_add"].is_null() && service["privileged"].is_null() && service["network_mode"].is_null());
        if name != "jaeger" {
            assert_eq!(service["user"], "10001:10001", "{name}");
        }
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to other machines");
        }
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            assert_variable(variable, value.as_str(), name);
        }
    }
}

#[test]
fn services_wait_for_others_that_there_are() {
    let compose = compose();
    for (name, service) in services(&compose) {
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            let awaited = &compose["services"][other];
            assert!(awaited.is_object(), "{name} waits for {other}");
            let probed = how["condition"] != "service_healthy" || awaited["healthcheck"]["test"].is_array();
            assert!(probed, "{name} waits for the health of {other}, which nobody asks for");
            let ends = how["condition"] != "service_completed_successfully" || awaited["restart"] != "unless-stopped";
            assert!(ends, "{name} waits for the end of {other}");
        }
    }
    assert_eq!(services(&compose).filter(|(name, _)| name.starts_with("coordinator-")).count(), 3);
    assert_eq!(compose["services"]["worker"]["deploy"]["replicas"], 2);
}

/// Volumes, folders of volumes, and files beside the compose file: (where it comes from, where it is mounted).
fn mounts(service: &Value) -> Vec<(Option<PathBuf>, String, Option<String>)> {
    let read = |one: &Value| match one.as_str() {
        Some(text) => {
            let (source, rest) = text.split_once(':').unwrap_or(("", text));
            let file = source.starts_with('.').then(|| Path::new(ROOT).join("deploy/compose").join(source));
            let volume = (!source.starts_with('.') && !source.is_empty()).then(|| source.to_owned());
            (file, rest.split(':').next().unwrap().to_owned(), volume)
        }
        None => {
            let volume = one["source"].as_str().map(str::to_owned);
            (one["volume"]["subpath"].as_str().map(PathBuf::from), one["target"].as_str().unwrap().to_owned(), volume)
        }
    };
    service["volumes"].as_array().into_iter().flatten().map(read).collect()
}

#[test]
fn flags_are_known_and_files_are_where_they_are_looked_for() {
    let made = tempfile::tempdir().unwrap();
    if !secrets(made.path()) {
        return;
    }
    let (compose, mut lines) = (compose(), BTreeSet::new());
    for (name, service) in services(&compose) {
        let mounts = mounts(service);
        for (source, target, volume) in &mounts {
            if let Some(volume) = volume {
                assert!(compose["volumes"].as_object().unwrap().contains_key(volume), "{name}: {volume}");
            }
            // The template of NATS has a test of its own below.
            let source = source.as_ref().filter(|source| !source.ends_with("nats/nats.conf"));
            if let Some(source) = source {
                // A relative one is a folder in the volume of secrets.
                assert!(made.path().join(source).exists(), "{name}: {} for {target}", source.display());
            }
        }
        let is_own = service["image"].as_str().unwrap().starts_with("verger:");
        let line = strings(&service["command"]);
        if !is_own || line.is_empty() {
            continue;
        }
        assert_known(&line, name);
        lines.insert(line[0].clone());
        let variables = service["environment"].as_object().into_iter().flatten().filter_map(|(_, v)| v.as_str());
        let arguments = line.iter().filter_map(|word| Some(word.split_once('=')?.1));
        for file in arguments.chain(variables).filter(|value| value.starts_with("/etc/verger/")) {
            let (source, target, _) = mounts.iter().find(|(_, target, _)| file.starts_with(target.as_str())).unwrap();
            let inside = file.strip_prefix(target).unwrap().trim_start_matches('/');
            let path = made.path().join(source.as_ref().unwrap()).join(inside);
            // The workers' token is made last, by a coordinator.
            assert!(path.exists() || file == "/etc/verger/token", "{name}: nobody makes {file}");
        }
    }
    assert_eq!(lines.into_iter().collect::<Vec<_>>(), ["coordinator", "worker"]);
}

/// What is drawn is drawn once, readable by its user alone, and another time it is something else.
#[test]
fn secrets_are_drawn_and_kept() {
    use std::os::unix::fs::PermissionsExt as _;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    if !(secrets(one.path()) && secrets(two.path())) {
        return;
    }
    let token = "coordinator-1/config/verger/tokens/0.0.0.0_7420";
    let read = |folder: &tempfile::TempDir, name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let kept = read(&one, token);
    assert!(secrets(one.path()));
    assert_eq!(read(&one, token), kept, "made once");
    assert_ne!(read(&two, token), kept);
    assert_ne!(read(&two, "s3/credentials"), read(&one, "s3/credentials"));
    for name in [token, "coordinator-1/peer.key", "authority/peers.key", "s3/s3.json"] {
        let mode = std::fs::metadata(one.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    let text = read(&one, "s3/s3.json");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["identities"][0]["name"], "trial");
}

/// Seeds and public keys as NATS writes them: a letter for what they are, and a checksum that holds.
#[test]
fn keys_of_nats_are_keys() {
    let made = tempfile::tempdir().unwrap();
    if !secrets(made.path()) {
        return;
    }
    for (name, prefix, length) in
        [("workers/nats.nk", "SU", 36), ("nats/worker.pub", "U", 35), ("coordinator-1/nats.nk", "SU", 36)]
    {
        let text = std::fs::read_to_string(made.path().join(name)).unwrap();
        let bytes = base32(text.trim());
        assert!(text.starts_with(prefix) && bytes.len() == length, "{name}");
        let (body, sum) = bytes.split_at(length - 2);
        assert_eq!(crc16(body).to_le_bytes(), sum, "{name}");
    }
}

fn base32(text: &str) -> Vec<u8> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.bytes() {
        let digit = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|digit| *digit == letter).unwrap();
        bits = bits << 5 | u32::try_from(digit).unwrap();
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 255).unwrap());
        }
    }
    bytes
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte) << 8, |sum, _| if sum & 0x8000 == 0 { sum << 1 } else { sum << 1 ^ 0x1021 })
    })
}

#[test]
fn nats_is_configured_for_the_fleet_that_was_begun() {
    let (made, template) = (tempfile::tempdir().unwrap(), Path::new(ROOT).join("deploy/nats/nats.conf"));
    if !template.exists() {
        return skipped("no deploy/nats/nats.conf yet: it is not filled in");
    }
    if !secrets(made.path()) {
        return;
    }
    let member = made.path().join("member");
    std::fs::write(&member, "{\n  \"name\": \"trial\",\n  \"fleet\": \"5f1c09ab\",\n  \"node\": 1\n}").unwrap();
    let setup = Path::new(ROOT).join("deploy/compose/setup.sh");
    run(Command::new(setup).arg("nats").args([made.path(), &member, &template]));
    let path = made.path().join("nats/nats.conf");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("5f1c09ab") && text.contains("VERGER_5F1C09AB"));
    let settings: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    for left in ["0a1b2c3d", "0A1B2C3D", "_NKEY"] {
        assert!(!settings.iter().any(|line| line.contains(left)), "{left} was not filled in");
    }
    if is_there("nats-server", &["--version"], "it does not read its configuration") {
        let folder = made.path().to_str().unwrap();
        let here = text
            .replace("/etc/nats", &format!("{folder}/nats"))
            .replace("/var/lib/nats", &format!("{folder}/nats-data"));
        std::fs::write(&path, here).unwrap();
        printed("nats-server", &["-t", "--config", path.to_str().unwrap()]);
    }
}

#[test]
fn compose_understands_it() {
    let found = Command::new("docker").args(["compose", "version"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        return skipped("no docker compose on PATH: it does not read the compose file");
    }
    let path = Path::new(ROOT).join("deploy/compose/compose.yaml");
    printed("docker", &["compose", "-f", path.to_str().unwrap(), "config", "--quiet"]);
}
