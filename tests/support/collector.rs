//! A collector of traces on a loopback socket, as bad as a test wants it.

#![allow(dead_code, reason = "helpers of tests are tests")]

#[path = "collector_grpc.rs"]
mod grpc;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;

/// How it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    Fails,
    /// It takes what is sent and says nothing for a minute.
    Sleeps,
}

/// One span, as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) is_error: bool,
}

pub(crate) struct Collector {
    pub(crate) endpoint: String,
    /// What `OTEL_EXPORTER_OTLP_PROTOCOL` calls what it speaks.
    pub(crate) protocol: &'static str,
    raw: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    pub(crate) fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let raw = Arc::new(Mutex::new(Vec::new()));
        let kept = raw.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                std::thread::spawn(move || answer(&stream, mood, &kept));
            }
        });
        Self { endpoint, protocol: "http/protobuf", raw }
    }

    /// One that speaks gRPC.
    pub(crate) fn grpc(mood: Mood) -> Self {
        let raw = Arc::new(Mutex::new(Vec::new()));
        let endpoint = format!("http://{}", grpc::start(mood, None, raw.clone()));
        Self { endpoint, protocol: "grpc", raw }
    }

    /// The same behind TLS, as `localhost`; and the certificate, as PEM, that shows it.
    pub(crate) fn grpc_with_tls() -> (Self, String) {
        let raw = Arc::new(Mutex::new(Vec::new()));
        let (tls, certificate) = grpc::tls();
        let endpoint = format!("https://localhost:{}", grpc::start(Mood::Good, Some(tls), raw.clone()).port());
        (Self { endpoint, protocol: "grpc", raw }, certificate)
    }

    /// All bytes that were sent, requests' heads among them.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.raw.lock().unwrap().concat()
    }

    /// All spans that were sent; the first attribute is the service's.
    pub(crate) fn spans(&self) -> Vec<Told> {
        let raw = self.raw.lock().unwrap().clone();
        let bodies = raw.iter().filter(|part| !part.starts_with(b"POST "));
        let requests = bodies.map(|body| ExportTraceServiceRequest::decode(&body[..]).unwrap());
        let mut spans = Vec::new();
        for resource in requests.flat_map(|request| request.resource_spans) {
            let service = attributes(&resource.resource.unwrap().attributes);
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let mut attributes = attributes(&span.attributes);
                attributes.insert("service.name".to_owned(), service["service.name"].clone());
                spans.push(Told {
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    name: span.name,
                    start: span.start_time_unix_nano,
                    end: span.end_time_unix_nano,
                    attributes,
                    is_error: span.status.is_some_and(|status| status.code == 2),
                });
            }
        }
        spans
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(all: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(yes) => yes.to_string(),
        other => format!("{other:?}"),
    };
    all.iter()
        .map(|one| (one.key.clone(), one.value.as_ref().and_then(|v| v.value.as_ref()).map(text).unwrap_or_default()))
        .collect()
}

fn answer(stream: &TcpStream, mood: Mood, kept: &Mutex<Vec<Vec<u8>>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            head.push_str(&line);
            if line == "\r\n" {
                break;
            }
        }
        assert!(head.starts_with("POST /v1/traces "), "{head}");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        kept.lock().unwrap().extend([head.into_bytes(), body]);
        let status = match mood {
            Mood::Good => "200 OK",
            Mood::Fails => "500 Internal Server Error",
            Mood::Sleeps => {
                std::thread::sleep(Duration::from_secs(60));
                return;
            }
        };
        let mut stream = stream;
        if stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).is_err() {
            return;
        }
    }
}
