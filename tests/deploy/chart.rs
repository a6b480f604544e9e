//! The chart, what it renders, and the manifests for those without Helm.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use verger_proto::Digest;

use crate::flags::{documents, is_there, of, printed};
use crate::manifests::{assert_sound, strangers};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/helm/verger");
const EVERYTHING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/deploy/everything.yaml");
const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kubernetes/verger.yaml");
const HOW: &str = "VERGER_WRITE_MANIFESTS=1 cargo test --test deploy the_manifests";
/// Helm asks no cluster here, and has to be told how old it is.
const KUBERNETES: &str = "1.34.0";

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = entries.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect();
    all.sort();
    all
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Of all that manifests are made from.
fn digest() -> String {
    let mut bytes = Vec::new();
    for path in files(Path::new(CHART)) {
        bytes.extend(path.strip_prefix(CHART).unwrap().as_os_str().as_encoded_bytes());
        bytes.extend(std::fs::read(&path).unwrap());
    }
    Digest::of(&bytes).to_string()
}

fn header() -> String {
    format!(
        "# The chart of deploy/helm/verger with its defaults, for those without Helm: kubectl apply --namespace verger -f verger.yaml\n\
         # docs/operating/kubernetes.md tells what has to be there before. Made from the chart whose files have the digest\n# {}\n",
        digest()
    )
}

fn rendered(values: &[&str]) -> String {
    let fixed = ["template", "verger", CHART, "--namespace", "verger", "--kube-version", KUBERNETES];
    printed("helm", &[&fixed[..], values].concat())
}

fn helm_is_there() -> bool {
    is_there("helm", &["version"], "the chart is not rendered, only read")
}

/// Equal to what the chart renders where there is Helm to render it; elsewhere made from the same chart, as its digest says.
#[test]
fn the_manifests_are_the_charts() {
    if std::env::var_os("VERGER_WRITE_MANIFESTS").is_some() {
        std::fs::write(MANIFESTS, header() + &rendered(&[])).unwrap();
    }
    let kept = read(MANIFESTS);
    let body = kept.strip_prefix(&header()).unwrap_or_else(|| panic!("the chart is another one now: {HOW}"));
    if helm_is_there() {
        assert!(body == rendered(&[]), "the chart renders something else now: {HOW}");
    }
}

#[test]
fn the_manifests_are_sound() {
    assert_sound(&documents(&read(MANIFESTS)));
}

#[test]
fn the_chart_is_sound_with_everything_turned_on() {
    if !helm_is_there() {
        return;
    }
    let version = ["--kube-version", KUBERNETES];
    printed("helm", &[&["lint", "--strict", CHART][..], &version].concat());
    printed("helm", &[&["lint", "--strict", CHART, "--values", EVERYTHING][..], &version].concat());
    let all = documents(&rendered(&["--values", EVERYTHING]));
    assert_sound(&all);
    let kinds: BTreeSet<_> = all.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    for kind in ["Certificate", "Issuer", "ServiceMonitor", "PodMonitor"] {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
    assert_eq!(all.iter().filter(|document| document["kind"] == "Deployment").count(), 2, "a Deployment a pool");
}

/// The chart's own monitors can read what they name; the interface is opened to those alone who were named.
#[test]
fn network_policies_let_in_who_reads_metrics() {
    if !helm_is_there() {
        return;
    }
    let everything = documents(&rendered(&["--values", EVERYTHING]));
    for (component, port) in [("worker", 7430), ("coordinator", 7420)] {
        let peers = strangers(&everything, component, port);
        let is_let_in = peers.iter().any(|peer| peer["namespaceSelector"]["matchLabels"]["team"] == "metrics");
        assert!(is_let_in, "{component}: {peers:?}");
    }
    let monitored = documents(&rendered(&["--set", "monitoring.enabled=true"]));
    assert_eq!(strangers(&monitored, "worker", 7430), [json!({ "namespaceSelector": {} })]);
    assert!(strangers(&monitored, "coordinator", 7420).is_empty());
    let shipped = documents(&read(MANIFESTS));
    assert!(strangers(&shipped, "worker", 7430).is_empty() && strangers(&shipped, "coordinator", 7420).is_empty());
}

#[test]
fn values_that_cannot_be_are_refused() {
    if !helm_is_there() {
        return;
    }
    for bad in [
        "coordinators.replicas=2",
        "image.tag=latest",
        "workers.memoryLimitMiB=1",
        "secrets.owner=",
        "pools.Attic.replicas=1",
        "workers.exchange=filesystem:///exchange",
        "nonsense=1",
    ] {
        let mut helm = std::process::Command::new("helm");
        helm.args(["template", "verger", CHART, "--kube-version", KUBERNETES, "--set", bad]);
        let output = helm.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("schema"), "{bad}: {said}");
    }
}

/// Kubernetes' own schemas, where a program that has them is on PATH.
#[test]
fn kubernetes_would_take_them() {
    let what = "manifests are not held against the schemas of Kubernetes";
    if !is_there("kubernetes-validate", &["--version"], what) {
        return;
    }
    printed("kubernetes-validate", &["--strict", "-k", "1.34", MANIFESTS]);
    if helm_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("everything.yaml");
        std::fs::write(&path, rendered(&["--values", EVERYTHING])).unwrap();
        printed("kubernetes-validate", &["--strict", "-k", "1.34", path.to_str().unwrap()]);
    }
}

/// `.Values.a.b`, and `$c.b` where the template says that `$c` is a part of the values.
fn values_named_by(template: &str) -> BTreeSet<String> {
    let short =
        [("$c.", "coordinators."), ("$w.", "workers."), ("$policy.", "networkPolicy."), ("$m.", "certManager.")];
    let mut found = BTreeSet::new();
    let prefixes = short.into_iter().chain([(".Values.", "")]);
    for (written, meant) in prefixes {
        for (at, _) in template.match_indices(written) {
            let rest = &template[at + written.len()..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
            found.insert(format!("{meant}{}", rest[..end].trim_end_matches('.')));
        }
    }
    found
}

#[test]
fn templates_name_values_and_flags_that_there_are() {
    let values = documents(&read(format!("{CHART}/values.yaml"))).remove(0);
    let mut count = 0;
    for path in files(&Path::new(CHART).join("templates")) {
        let (template, at) = (read(&path), path.display());
        for name in values_named_by(&template) {
            let pointer = format!("/{}", name.replace('.', "/"));
            assert!(values.pointer(&pointer).is_some(), "{at}: there is no value {name}");
            count += 1;
        }
        let command = match path.file_stem().unwrap().to_str().unwrap() {
            "coordinators" => "coordinator",
            "workers" => "worker",
            _ => continue,
        };
        for line in template.lines().filter_map(|line| line.trim().strip_prefix("- --")) {
            let flag = line.split('=').next().unwrap();
            assert!(of(command).contains(flag), "{at}: `verger {command}` has no flag --{flag}");
        }
    }
    assert!(count > 50, "{count}");
}

/// The schema knows every value, and none besides.
#[test]
fn the_schema_is_of_the_values() {
    let values = documents(&read(format!("{CHART}/values.yaml"))).remove(0);
    let schema: Value = serde_json::from_str(&read(format!("{CHART}/values.schema.json"))).unwrap();
    same_names(&values, &schema, "");
}

fn same_names(values: &Value, schema: &Value, at: &str) {
    let Some(known) = schema["properties"].as_object() else { return };
    assert_eq!(schema["additionalProperties"], false, "{at}");
    let names: BTreeSet<_> = values.as_object().unwrap().keys().collect();
    // What Helm gives to every chart is no value of this one.
    let known: BTreeSet<_> = known.keys().filter(|name| *name != "global").collect();
    assert_eq!(names, known, "{at}");
    for name in names {
        same_names(&values[name], &schema["properties"][name], &format!("{at}.{name}"));
    }
}

#[test]
fn the_chart_is_of_this_version() {
    let chart = documents(&read(format!("{CHART}/Chart.yaml"))).remove(0);
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}
