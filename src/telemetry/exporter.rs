//! The two ways to a collector: protobuf over HTTP, and gRPC. Either is used by one thread, which waits for each answer.

use std::time::Duration;

use base64::Engine as _;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::runtime::Runtime;

use super::Export;

/// Hands spans to a collector.
pub(super) struct Exporter {
    spans: SpanExporter,
    /// What gRPC runs on. HTTP blocks, and must not be called from within a runtime.
    runtime: Option<Runtime>,
    timeout: Duration,
}

/// A collector, and user and password as a header: what speaks to it shows addresses, but no headers.
struct Target {
    url: url::Url,
    authorization: Option<String>,
}

impl Exporter {
    /// # Errors
    /// Why there can be none, without secrets.
    pub(super) fn new(export: &Export, resource: &Resource) -> Result<Self, String> {
        let (mut spans, runtime) = match export.protocol.as_deref() {
            None | Some("http/protobuf") => (over_http(export)?, None),
            Some("grpc") => over_grpc(export).map(|(spans, runtime)| (spans, Some(runtime)))?,
            Some(other) => {
                return Err(format!(
                    "OTEL_EXPORTER_OTLP_PROTOCOL is {other}; this speaks http/protobuf (a collector's port 4318) and grpc (4317)"
                ));
            }
        };
        spans.set_resource(resource);
        Ok(Self { spans, runtime, timeout: export.timeout })
    }

    /// Whether the collector took `spans`. Why not is not told: the words may repeat the endpoint with what is secret in it.
    pub(super) fn send(&self, spans: Vec<SpanData>) -> bool {
        let sent = self.spans.export(spans);
        match &self.runtime {
            None => futures_executor::block_on(sent).is_ok(),
            // The library's own limit begins when there is a connection.
            Some(runtime) => runtime
                .block_on(async { tokio::time::timeout(self.timeout, sent).await })
                .is_ok_and(|sent| sent.is_ok()),
        }
    }
}

fn over_http(export: &Export) -> Result<SpanExporter, String> {
    let mut target = Target::of(export)?;
    if !export.is_whole {
        let path = format!("{}/v1/traces", target.url.path().trim_end_matches('/'));
        target.url.set_path(&path);
    }
    let headers = target.authorization.into_iter().map(|value| ("authorization".to_owned(), value)).collect();
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
    exporter
        .with_endpoint(target.url)
        .with_headers(headers)
        .with_timeout(export.timeout)
        .build()
        .map_err(|_| unusable(export))
}

fn over_grpc(export: &Export) -> Result<(SpanExporter, Runtime), String> {
    let target = Target::of(export)?;
    let mut headers = MetadataMap::new();
    if let Some(value) = target.authorization {
        headers.insert("authorization", value.parse().map_err(|_| unusable(export))?);
    }
    // A thread of its own: between two batches a collector's pings are answered, and that it went away is noticed.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("traces-grpc")
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let entered = runtime.enter();
    let is_secure = target.url.scheme() == "https";
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(target.url).with_metadata(headers);
    let exporter = exporter.with_timeout(export.timeout);
    let exporter =
        if is_secure { exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots()) } else { exporter };
    let exporter = exporter.build().map_err(|_| unusable(export))?;
    drop(entered);
    Ok((exporter, runtime))
}

/// The library's own words may repeat the endpoint with what is secret in it.
fn unusable(export: &Export) -> String {
    format!("OTEL_EXPORTER_OTLP_ENDPOINT ({}), its headers or its certificates cannot be used", export.shown())
}

impl Target {
    fn of(export: &Export) -> Result<Self, String> {
        let unusable =
            || "OTEL_EXPORTER_OTLP_ENDPOINT is no URL (such as http://127.0.0.1:4318, for grpc :4317)".to_owned();
        let mut url = url::Url::parse(&export.endpoint).map_err(|_| unusable())?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(unusable());
        }
        let mut authorization = None;
        if !url.username().is_empty() || url.password().is_some() {
            let pair = format!("{}:{}", unescaped(url.username()), unescaped(url.password().unwrap_or_default()));
            let pair = base64::engine::general_purpose::STANDARD.encode(pair);
            authorization = Some(format!("Basic {pair}"));
            url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| unusable())?;
        }
        Ok(Self { url, authorization })
    }
}

/// A part of a URL as it was before it was put there.
fn unescaped(text: &str) -> String {
    let plain = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(plain.as_bytes()).map(|(key, _)| key.into_owned()).next().unwrap_or_default()
}
