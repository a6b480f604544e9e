//! What must hold of Kubernetes manifests, whoever rendered them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::flags::{assert_known, assert_variable, strings, value};

/// A StatefulSet or Deployment.
struct Workload<'a> {
    name: String,
    whole: &'a Value,
    pod: &'a Value,
    labels: &'a Value,
}

fn name(document: &Value) -> String {
    document["metadata"]["name"].as_str().unwrap().to_owned()
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> Vec<&'a Value> {
    all.iter().filter(|document| document["kind"] == kind).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Whether a selector's labels are all among those of a pod.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().unwrap();
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
}

fn workloads(all: &[Value]) -> Vec<Workload<'_>> {
    ["StatefulSet", "Deployment"].into_iter().flat_map(|kind| of_kind(all, kind)).map(Workload::of).collect()
}

impl<'a> Workload<'a> {
    fn of(whole: &'a Value) -> Self {
        let template = &whole["spec"]["template"];
        Self { name: name(whole), whole, pod: &template["spec"], labels: &template["metadata"]["labels"] }
    }
}

/// All that must hold.
pub(crate) fn assert_sound(all: &[Value]) {
    let mut names = BTreeSet::new();
    for document in all {
        assert!(names.insert((document["kind"].to_string(), name(document))), "twice: {}", name(document));
        assert_ne!(document["kind"], "Secret", "secrets are referred to, never shipped");
    }
    let workloads = workloads(all);
    assert!(workloads.len() >= 2);
    for workload in &workloads {
        assert!(selects(&workload.whole["spec"]["selector"]["matchLabels"], workload.labels), "{}", workload.name);
        pod_is_shut(workload, all);
        volumes_are_there(workload);
        for container in containers(workload) {
            container_is_shut(container, &workload.name);
            variables_are_taken(container, &workload.name);
        }
        own_container_fits(workload);
    }
    coordinators_find_each_other(all, &workloads);
    services_lead_somewhere(all, &workloads);
    budgets_and_policies_are_of_somebody(all, &workloads);
}

fn containers<'a>(workload: &Workload<'a>) -> impl Iterator<Item = &'a Value> {
    list(&workload.pod["initContainers"]).iter().chain(list(&workload.pod["containers"]))
}

/// Whom network policies let in to a port of the pods of this component, apart from pods of the same release.
pub(crate) fn strangers(all: &[Value], component: &str, port: u16) -> Vec<Value> {
    let of_it = |p: &&Value| p["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == component;
    let policy = of_kind(all, "NetworkPolicy").into_iter().find(of_it).unwrap();
    let rules = list(&policy["spec"]["ingress"]).iter();
    let to_it = rules.filter(|rule| list(&rule["ports"]).iter().any(|one| one["port"] == port));
    let peers = to_it.flat_map(|rule| list(&rule["from"]));
    peers.filter(|peer| peer["podSelector"].is_null()).cloned().collect()
}

fn pod_is_shut(workload: &Workload<'_>, all: &[Value]) {
    let (pod, at) = (workload.pod, &workload.name);
    let context = &pod["securityContext"];
    assert_eq!(context["runAsNonRoot"], true, "{at}");
    assert!(context["runAsUser"].as_u64().unwrap() > 999, "{at}");
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{at}");
    assert_eq!(pod["automountServiceAccountToken"], false, "{at}");
    let account = of_kind(all, "ServiceAccount").into_iter().find(|account| name(account) == pod["serviceAccountName"]);
    assert_eq!(account.unwrap()["automountServiceAccountToken"], false, "{at}");
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod[shared].is_null(), "{at}: {shared}");
    }
}

fn container_is_shut(container: &Value, at: &str) {
    let context = &container["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false, "{at}");
    assert_eq!(context["readOnlyRootFilesystem"], true, "{at}");
    assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"], "{at}");
    assert!(context["capabilities"]["add"].is_null() && context["privileged"].is_null(), "{at}");
    let image = text(&container["image"]);
    let (_, tag) = image.rsplit_once(':').unwrap();
    assert!(tag != "latest" && !tag.contains('/'), "{at}: {image} is not pinned");
    assert!(container["resources"]["limits"]["memory"].is_string(), "{at}: no limit of memory");
}

fn variables_are_taken(container: &Value, at: &str) {
    for variable in list(&container["env"]) {
        // What a user adds is the user's.
        if variable["name"] != "EXTRA" {
            assert_variable(text(&variable["name"]), variable["value"].as_str(), at);
        }
    }
}

/// Names of volumes and of mounts are the same ones, and every file that a flag or variable names lies in a mount.
fn volumes_are_there(workload: &Workload<'_>) {
    let at = &workload.name;
    let claims = list(&workload.whole["spec"]["volumeClaimTemplates"]).iter().map(name);
    let volumes = list(&workload.pod["volumes"]).iter().map(|volume| text(&volume["name"]).to_owned());
    let there: Vec<String> = volumes.chain(claims).collect();
    let names: BTreeSet<&String> = there.iter().collect();
    assert_eq!(names.len(), there.len(), "{at}: two volumes of one name");
    let mut used = BTreeSet::new();
    for container in containers(workload) {
        let mounts = list(&container["volumeMounts"]);
        let paths: BTreeSet<&str> = mounts.iter().map(|mount| text(&mount["mountPath"])).collect();
        assert_eq!(paths.len(), mounts.len(), "{at}: two volumes at one place");
        for mount in mounts {
            assert!(names.contains(&text(&mount["name"]).to_owned()), "{at}: no volume {}", mount["name"]);
            used.insert(text(&mount["name"]).to_owned());
            let writable = ["/var/lib/verger", "/var/cache/verger", "/tmp"].contains(&text(&mount["mountPath"]));
            assert_eq!(mount["readOnly"] == true, !writable, "{at}: {mount}");
        }
        let lies = |file: &str| paths.iter().any(|path| file == *path || file.starts_with(&format!("{path}/")));
        let values = list(&container["env"]).iter().filter_map(|variable| variable["value"].as_str());
        let arguments = strings(&container["args"]);
        let given = arguments.iter().filter_map(|word| Some(word.split_once('=')?.1));
        for file in given.chain(values).filter(|value| value.starts_with('/')) {
            assert!(lies(file), "{at}: {file} is in no volume");
        }
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), names.into_iter().cloned().collect::<Vec<_>>(), "{at}");
    for volume in list(&workload.pod["volumes"]) {
        let limited = volume["emptyDir"].is_null() || volume["emptyDir"]["sizeLimit"].is_string();
        assert!(limited, "{at}: {} may grow without limit", volume["name"]);
    }
}

fn mebibytes(quantity: &str) -> u64 {
    let number = quantity.strip_suffix("MiB").or_else(|| quantity.strip_suffix("Mi"));
    number.unwrap_or_else(|| panic!("{quantity} is not in MiB")).parse().unwrap()
}

/// Flags are the program's, probes ask ports that there are, memory and time are enough for what the flags promise.
fn own_container_fits(workload: &Workload<'_>) {
    let (at, container) = (&workload.name, &workload.pod["containers"][0]);
    let line = strings(&container["args"]);
    assert_known(&line, at);
    let ports: Vec<&str> = list(&container["ports"]).iter().map(|port| text(&port["name"])).collect();
    for probe in ["livenessProbe", "readinessProbe"] {
        let get = &container[probe]["httpGet"];
        let path = if probe == "livenessProbe" { "/healthz" } else { "/readyz" };
        assert_eq!(get["path"], path, "{at}");
        assert!(ports.contains(&text(&get["port"])), "{at}: {probe}");
    }
    let asked = value(&line, "listen").unwrap().rsplit_once(':').unwrap().1;
    let probed = &container["livenessProbe"]["httpGet"]["port"];
    let port = list(&container["ports"]).iter().find(|port| port["name"] == *probed).unwrap();
    assert_eq!(port["containerPort"].to_string(), asked, "{at}: it is probed where it does not listen");
    let grace = workload.pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    let limit = mebibytes(text(&container["resources"]["limits"]["memory"]));
    let promised = mebibytes(value(&line, "memory-limit").unwrap());
    match line[0].as_str() {
        "coordinator" => {
            let workers: u64 = value(&line, "workers").unwrap().parse().unwrap();
            assert!(limit >= promised * workers.max(1) + 256, "{at}: {limit} MiB");
            assert!(grace >= 180, "{at}: a batch takes two minutes");
        }
        "worker" => {
            let drain = value(&line, "drain-timeout").unwrap().strip_suffix('s').unwrap();
            assert!(grace >= drain.parse::<u64>().unwrap() + 30, "{at}: it is killed while it drains");
            assert!(limit >= promised + 64, "{at}: {limit} MiB");
            assert!(line.iter().any(|word| word.starts_with("--pool=")), "{at}");
        }
        other => panic!("{at}: {other} is not what is run here"),
    }
}

fn variable<'a>(container: &'a Value, wanted: &str) -> &'a str {
    let all = list(&container["env"]);
    text(&all.iter().find(|variable| variable["name"] == wanted).unwrap()["value"])
}

/// Each coordinator is called by the name under which the others, the workers and its own certificate know it.
fn coordinators_find_each_other(all: &[Value], workloads: &[Workload<'_>]) {
    let sets = of_kind(all, "StatefulSet");
    let set = workloads.iter().find(|workload| workload.name == name(sets[0])).unwrap();
    let (replicas, spec) = (set.whole["spec"]["replicas"].as_u64().unwrap(), &set.whole["spec"]);
    assert_eq!((sets.len(), spec["podManagementPolicy"].as_str()), (1, Some("Parallel")));
    assert_eq!(spec["persistentVolumeClaimRetentionPolicy"]["whenScaled"], "Retain");
    let service = of_kind(all, "Service").into_iter().find(|s| name(s) == spec["serviceName"]).unwrap();
    assert_eq!(
        (&service["spec"]["clusterIP"], &service["spec"]["publishNotReadyAddresses"]),
        (&"None".into(), &true.into())
    );
    let member = &set.pod["initContainers"][0];
    assert_eq!(strings(&member["command"]), ["verger-member"]);
    for container in [member, &set.pod["containers"][0]] {
        let pods = (0..replicas).map(|ordinal| format!("{}-{ordinal}", set.name));
        let apis: Vec<_> =
            pods.map(|pod| variable(container, "VERGER_API_ADDRESS").replace("$(POD_NAME)", &pod)).collect();
        assert_eq!(variable(container, "VERGER_ADDR").split(',').collect::<Vec<_>>(), apis);
        let peer = variable(container, "VERGER_PEER_ADDRESS");
        assert!(peer.starts_with(&format!("$(POD_NAME).{}.", name(service))) && peer.ends_with(":7421"), "{peer}");
        for worker in workloads.iter().filter(|workload| workload.whole["kind"] == "Deployment") {
            let line = strings(&worker.pod["containers"][0]["args"]);
            assert_eq!(value(&line, "addr").unwrap(), apis.join(","), "{}", worker.name);
        }
    }
    for certificate in of_kind(all, "Certificate").into_iter().filter(|certificate| certificate["spec"]["isCA"] != true)
    {
        let host = variable(member, "VERGER_PEER_ADDRESS").replace("$(POD_NAME)", "*").replace(":7421", "");
        assert!(strings(&certificate["spec"]["dnsNames"]).contains(&host), "{}", name(certificate));
    }
}

fn services_lead_somewhere(all: &[Value], workloads: &[Workload<'_>]) {
    for service in of_kind(all, "Service") {
        let led = workloads.iter().filter(|workload| selects(&service["spec"]["selector"], workload.labels));
        let led: Vec<_> = led.collect();
        assert_eq!(led.len(), 1, "{}", name(service));
        let there: Vec<_> = list(&led[0].pod["containers"][0]["ports"]).iter().map(|port| &port["name"]).collect();
        for port in list(&service["spec"]["ports"]) {
            assert!(there.contains(&&port["targetPort"]), "{}: {port}", name(service));
        }
    }
}

fn budgets_and_policies_are_of_somebody(all: &[Value], workloads: &[Workload<'_>]) {
    let mut budgets = BTreeMap::new();
    for budget in of_kind(all, "PodDisruptionBudget") {
        let selector = &budget["spec"]["selector"]["matchLabels"];
        for workload in workloads.iter().filter(|workload| selects(selector, workload.labels)) {
            *budgets.entry(&workload.name).or_insert(0) += 1;
        }
    }
    assert!(workloads.iter().all(|workload| budgets.get(&workload.name) == Some(&1)), "{budgets:?}");
    let policies = of_kind(all, "NetworkPolicy");
    for workload in workloads {
        let of_it = |p: &&&Value| selects(&p["spec"]["podSelector"]["matchLabels"], workload.labels);
        let policy = policies.iter().find(of_it).unwrap_or_else(|| panic!("{}: open to all", workload.name));
        assert_eq!(strings(&policy["spec"]["policyTypes"]), ["Ingress", "Egress"]);
        let ports = list(&workload.pod["containers"][0]["ports"]);
        for port in list(&policy["spec"]["ingress"]).iter().flat_map(|rule| list(&rule["ports"])) {
            assert!(ports.iter().any(|own| own["containerPort"] == port["port"]), "{}: {port}", workload.name);
        }
    }
    // What is let in from a worker or a coordinator is let in from one that there is.
    for policy in &policies {
        let rules = list(&policy["spec"]["ingress"]).iter().flat_map(|rule| list(&rule["from"]));
        for from in rules.filter(|from| from["podSelector"]["matchLabels"].is_object()) {
            let selector = &from["podSelector"]["matchLabels"];
            assert!(workloads.iter().any(|workload| selects(selector, workload.labels)), "{from}");
        }
    }
}
