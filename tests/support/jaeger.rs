//! A real Jaeger on free ports of this machine, which keeps traces in memory, and what it shows to a person: its pages ask the same.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{free_address, skipped, told};

/// A running server; ends with the value.
pub struct Jaeger {
    child: Child,
    /// Where it takes spans: OTLP over HTTP, and over gRPC.
    http: String,
    grpc: String,
    pages: String,
    client: reqwest::blocking::Client,
    folder: tempfile::TempDir,
}

/// A trace as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    pub spans: Vec<Span>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub id: String,
    /// The span that it stands below.
    pub parent: Option<String>,
    pub name: String,
    pub service: String,
    /// Whether it is shown in red.
    pub is_error: bool,
    /// What Jaeger finds wrong with it.
    pub warnings: Option<String>,
    /// What stands beside it, and what its process says of itself.
    pub attributes: BTreeMap<String, String>,
    pub process: BTreeMap<String, String>,
}

impl Jaeger {
    /// `None`, and a word, where there is no `jaeger` on PATH.
    pub fn start() -> Option<Self> {
        if Command::new("jaeger").arg("version").output().is_err() {
            skipped("no jaeger on PATH: traces are not shown by a real one");
            return None;
        }
        // Another process may take a free port before the server does.
        let started = (0..3).find_map(|_| Self::launch());
        Some(started.expect("jaeger does not start"))
    }

    fn launch() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let [http, grpc, pages, calls] = [(); 4].map(|()| free_address());
        let config = json!({
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": { "traces": { "receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"] } },
                "telemetry": { "metrics": { "level": "none" }, "logs": { "level": "warn" } },
            },
            "extensions": {
                "jaeger_storage": { "backends": { "memory": { "memory": { "max_traces": 1000 } } } },
                "jaeger_query": {
                    "storage": { "traces": "memory" }, "http": { "endpoint": pages }, "grpc": { "endpoint": calls },
                },
            },
            "receivers": { "otlp": { "protocols": { "http": { "endpoint": http }, "grpc": { "endpoint": grpc } } } },
            "exporters": { "jaeger_storage_exporter": { "trace_storage": "memory" } },
        });
        let path = folder.path().join("jaeger.yaml");
        // Whatever is JSON is YAML.
        std::fs::write(&path, config.to_string()).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("jaeger");
        command.arg("--config").arg(path).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let client = reqwest::blocking::Client::builder().no_proxy().timeout(Duration::from_secs(10));
        let mut jaeger = Self { child, http, grpc, pages, client: client.build().unwrap(), folder };
        jaeger.is_ready().then_some(jaeger)
    }

    fn is_ready(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if self.child.try_wait().unwrap().is_some() {
                told(&self.log());
                return false;
            }
            let listens = |address: &String| std::net::TcpStream::connect(address).is_ok();
            if [&self.http, &self.grpc].into_iter().all(listens) && self.get("services").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// Variables of a process that tells its traces to it, soon after they happen.
    pub fn variables(&self, protocol: &str) -> Vec<(String, String)> {
        let address = if protocol == "grpc" { &self.grpc } else { &self.http };
        let all = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ];
        all.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    fn get(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("http://{}/api/v3/{path}", self.pages)).send().ok()?;
        answer.status().is_success().then(|| answer.json().unwrap())
    }

    /// Names in its list of services.
    pub fn services(&self) -> Vec<String> {
        let all = self.get("services").unwrap()["services"].clone();
        serde_json::from_value::<Option<Vec<String>>>(all).unwrap().unwrap_or_default()
    }

    /// IDs of the traces that a search finds: of a service, and with these attributes on one of their spans.
    pub fn found(&self, service: &str, attributes: &Value) -> BTreeSet<String> {
        let now = jiff::Timestamp::now();
        let [from, to] = [-3600, 3600].map(|seconds| (now + jiff::SignedDuration::from_secs(seconds)).to_string());
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("query.serviceName", service)
            .append_pair("query.attributes", &attributes.to_string())
            .append_pair("query.startTimeMin", &from)
            .append_pair("query.startTimeMax", &to)
            .finish();
        // No trace is found by 404.
        let found = self.get(&format!("traces?{query}")).unwrap_or_default();
        spans(&found).into_iter().map(|(trace, _)| trace).collect()
    }

    /// A trace as its page shows it, once all of it has come.
    pub fn trace(&self, id: &str, is_whole: impl Fn(&Shown) -> bool) -> Shown {
        let began = Instant::now();
        let mut last = Shown { spans: Vec::new() };
        while began.elapsed() < Duration::from_secs(30) {
            let answer = self.get(&format!("traces/{id}")).unwrap_or_default();
            let spans = spans(&answer).into_iter();
            let shown =
                Shown { spans: spans.inspect(|(trace, _)| assert_eq!(trace, id)).map(|(_, span)| span).collect() };
            // The last request of a process may bring more than what was waited for.
            if shown == last && is_whole(&shown) {
                return shown;
            }
            last = shown;
            std::thread::sleep(Duration::from_millis(300));
        }
        panic!("trace {id} does not come, or not all of it: {last:#?}\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let all = of["attributes"].as_array().into_iter().flatten();
    let plain = |value: &Value| value.as_object().and_then(|value| value.values().next()).map(text).unwrap_or_default();
    all.map(|one| (text(&one["key"]), plain(&one["value"]))).collect()
}

/// All spans of an answer, each with its trace.
fn spans(answer: &Value) -> Vec<(String, Span)> {
    let mut all = Vec::new();
    for resource in answer["result"]["resourceSpans"].as_array().into_iter().flatten() {
        let mut process = attributes(&resource["resource"]);
        let service = process.remove("service.name").unwrap_or_default();
        let scopes = resource["scopeSpans"].as_array().into_iter().flatten();
        for span in scopes.flat_map(|scope| scope["spans"].as_array().into_iter().flatten()) {
            let (trace, mut attributes) = (text(&span["traceId"]), attributes(span));
            let span = Span {
                id: text(&span["spanId"]),
                parent: span["parentSpanId"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
                name: text(&span["name"]),
                service: service.clone(),
                is_error: span["status"]["code"] == 2,
                warnings: attributes.remove("@jaeger@warnings"),
                attributes,
                process: process.clone(),
            };
            all.push((trace, span));
        }
    }
    all
}

impl Shown {
    /// Spans of this name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Span> {
        self.spans.iter().filter(move |span| span.name == name)
    }

    /// Spans whose names begin so.
    pub fn of<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a Span> {
        self.spans.iter().filter(move |span| span.name.starts_with(start))
    }

    /// The names of a span and of all that it stands below, up to the root.
    pub fn way(&self, span: &Span) -> Vec<String> {
        let mut names = vec![span.name.clone()];
        let mut at = span;
        while let Some(parent) = &at.parent {
            let above = self.spans.iter().find(|other| other.id == *parent);
            at = above.unwrap_or_else(|| panic!("{} stands below {parent}, which is not there", at.name));
            names.push(at.name.clone());
            assert!(names.len() < 20, "{names:?}");
        }
        names
    }
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
