//! What a process tells of itself while it works: lines on standard error, and traces to a collector. Never a secret (S9).
//!
//! ```text
//! span, event -> subscriber -+-> log       (lines, filtered by level)
//!                            +-> traces -> queue (bounded) -> a thread -> collector
//! ```
//! Spans of cycles and of storage calls are made only where there is a collector. One that is gone, slow or full of errors costs its
//! spans, and nothing else: they are counted in [`SpanCounts`], and one warning says so.

mod exporter;
pub(crate) mod ids;
mod lines;
mod queue;
mod sampler;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};
use verger_kopia::storage::scope::{CYCLE_SPANS, STORE_SPANS};
use verger_kopia::{Error, ErrorKind, Result};

use exporter::Exporter;

/// How long a process that ends waits for a collector to take what is left.
const FLUSH_MAX: Duration = Duration::from_secs(3);
/// The attribute that says where a process runs, unless OpenTelemetry's variables say it.
const HOST: &str = "host.name";
const NATS_CLIENT: &str = "async_nats";

/// What to tell, and where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is logged, as a filter of [`tracing_subscriber::EnvFilter`].
    pub filter: String,
    /// How.
    pub format: Format,
    /// Where traces go; `None`: nowhere, and then none are made.
    pub export: Option<Export>,
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where traces go. The rest is read by OpenTelemetry's library, from its own variables: headers, sampler.
#[derive(Clone)]
pub struct Export {
    /// The collector. May hold a password, so it is never shown as it is.
    pub endpoint: String,
    /// Whether that is the address of the requests; else `/v1/traces` comes after it. For gRPC there is no difference.
    pub is_whole: bool,
    /// `http/protobuf` or `grpc`, if somebody said; the first if nobody did, as OpenTelemetry would have it.
    pub protocol: Option<String>,
    /// Of one request at most.
    pub timeout: Duration,
    /// Name of the service, unless OpenTelemetry's variables have one.
    pub service: Option<String>,
    /// Spans that wait at most.
    pub queue: usize,
    /// Spans in one request at most.
    pub batch: usize,
    /// How long spans wait for others at most.
    pub delay: Duration,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("endpoint", &self.shown()).field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Export {
    /// The collector without user, password and query.
    fn shown(&self) -> String {
        let Ok(url) = url::Url::parse(&self.endpoint) else { return "the endpoint".to_owned() };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
    }
}

/// What became of spans, since this process began.
#[derive(Debug, Default)]
pub struct SpanCounts {
    exported: AtomicU64,
    no_room: AtomicU64,
    refused: AtomicU64,
}

impl SpanCounts {
    /// The collector has them.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// The queue was full: the collector is slower than the work.
    #[must_use]
    pub fn no_room(&self) -> u64 {
        self.no_room.load(Ordering::Relaxed)
    }

    /// The collector did not take them.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Tells, as long as the process lives.
#[derive(Debug)]
pub struct Telemetry {
    flush: Option<queue::Flush>,
    spans: Option<Arc<SpanCounts>>,
}

/// Whether `filter` is one.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> std::result::Result<(), ParseError> {
    EnvFilter::builder().parse(filter).map(drop)
}

/// From now on events of this process are told.
///
/// # Errors
/// `Usage` for a filter that is none; `Internal` if somebody tells already.
pub fn start(settings: &Settings) -> Result<Telemetry> {
    let (traces, told) = match &settings.export {
        None => (None, Ok(None)),
        Some(export) => match traces(export) {
            Ok((provider, flush, counts)) => (Some(provider), Ok(Some((flush, counts)))),
            // Traces help; no cycle waits for them to be set up right.
            Err(why) => (None, Err(why)),
        },
    };
    let wanted =
        Targets::new().with_target(CYCLE_SPANS, LevelFilter::TRACE).with_target(STORE_SPANS, LevelFilter::TRACE);
    let traces = traces.map(|provider| {
        let layer = tracing_opentelemetry::layer::<Registry>().with_tracer(provider.tracer("verger"));
        layer
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(wanted)
    });
    // The NATS client tells of every attempt to connect; the work queue tells of it once.
    let quiet = if settings.filter.contains(NATS_CLIENT) { String::new() } else { format!(",{NATS_CLIENT}=off") };
    let filter =
        EnvFilter::builder().parse(format!("{}{quiet},{STORE_SPANS}=off", settings.filter)).map_err(|error| {
            Error::new(ErrorKind::Usage, format!("{} is no filter for a log", settings.filter)).with_source(error)
        })?;
    let log = match settings.format {
        Format::Json => lines::JsonLines::new(std::io::stderr).boxed(),
        Format::Text => tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(traces).with(log.with_filter(filter));
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| Error::new(ErrorKind::Internal, "begin to log").with_source(error))?;
    match told {
        Ok(Some((flush, spans))) => Ok(Telemetry { flush: Some(flush), spans: Some(spans) }),
        Ok(None) => Ok(Telemetry { flush: None, spans: None }),
        Err(why) => {
            tracing::warn!("no traces are exported: {why}");
            Ok(Telemetry { flush: None, spans: None })
        }
    }
}

type Traces = (SdkTracerProvider, queue::Flush, Arc<SpanCounts>);

/// # Errors
/// Why there can be none, without secrets.
fn traces(export: &Export) -> std::result::Result<Traces, String> {
    let resource = Resource::builder();
    let resource = match &export.service {
        Some(name) => resource.with_service_name(name.clone()),
        None => resource,
    };
    let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    // Of one host spans have one clock: a viewer looks for clocks that differ everywhere else.
    let resource = match Resource::builder().build().get(&Key::from_static_str(HOST)) {
        Some(_) => resource.build(),
        None => resource.with_attribute(KeyValue::new(HOST, host())).build(),
    };
    let exporter = Exporter::new(export, &resource)?;
    let counts = Arc::new(SpanCounts::default());
    let (queue, flush) = queue::start(exporter, export, counts.clone()).map_err(|error| error.to_string())?;
    let provider = SdkTracerProvider::builder()
        .with_id_generator(ids::Ids::default())
        .with_sampler(sampler::ByTrace::as_asked())
        .with_resource(resource)
        .with_span_processor(queue)
        .build();
    Ok((provider, flush, counts))
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl Telemetry {
    /// What became of spans; `None` if none are made.
    #[must_use]
    pub fn spans(&self) -> Option<&Arc<SpanCounts>> {
        self.spans.as_ref()
    }

    /// Hands over what is left, and waits for it a little.
    pub fn finish(&self) {
        if let Some(flush) = &self.flush {
            flush.wait(FLUSH_MAX);
        }
    }
}
