//! Where traces go: OpenTelemetry's own variables, which its library reads as well, and how logs are written.

use std::time::Duration;

use verger::telemetry::{Export, Format, Settings};
use verger_kopia::{Error, ErrorKind, Result};

/// What a service says unless somebody asks for more: the raft library tells every step of its own otherwise.
pub(crate) const SERVICE: &str = "info,openraft=warn,sled=warn";
/// The same for one of several: what cannot be reached is told once by the transport, not at each heartbeat by the library.
pub(crate) const TOGETHER: &str = "info,openraft=off,sled=warn";
/// What a command says: people read its notes and its result.
pub(crate) const COMMAND: &str = "warn";

/// How logs are written.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogArgs {
    /// What is logged: error, warn, info, debug, trace, or a filter by module [default: info for services, else warn]
    #[arg(long, value_name = "LEVEL", env = "VERGER_LOG_LEVEL", global = true, help_heading = "Log")]
    log_level: Option<String>,
    /// How it is written, on standard error
    #[arg(
        long,
        value_name = "FORMAT",
        env = "VERGER_LOG_FORMAT",
        global = true,
        default_value = "text",
        help_heading = "Log"
    )]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

impl LogArgs {
    /// The settings of a command, with its filter unless somebody asks for another.
    ///
    /// # Errors
    /// `Usage` for a level that is none.
    pub(crate) fn settings(&self, filter: &str) -> Result<Settings> {
        let filter = match &self.log_level {
            // A level alone is meant for this program. Its libraries say things at them that nobody should keep: one that speaks HTTP
            // writes down whole addresses, with the password that may be in them.
            Some(level) if level.parse::<tracing::Level>().is_ok() => format!("warn,verger={level}"),
            Some(filter) => filter.clone(),
            None => filter.to_owned(),
        };
        verger::telemetry::check_filter(&filter).map_err(|error| {
            Error::new(ErrorKind::Usage, format!("--log-level {filter} is no filter"))
                .with_source(error)
                .with_fix(format!("Give a level (error, warn, info, debug, trace), or such as {SERVICE}"))
        })?;
        let format = if self.log_format == LogFormat::Json { Format::Json } else { Format::Text };
        Ok(Settings { filter, format, export: export() })
    }
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn number(name: &str, default: u64) -> u64 {
    set(name).and_then(|text| text.parse().ok()).filter(|number| *number > 0).unwrap_or(default)
}

/// Nothing is exported unless somebody said where to.
fn export() -> Option<Export> {
    let is = |name: &str, value: &str| set(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return None;
    }
    let whole = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let is_whole = whole.is_some();
    let endpoint = whole.or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT"))?;
    let protocol = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
    let timeout = number("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", number("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000));
    let size = |name, default| usize::try_from(number(name, default)).unwrap_or(usize::MAX);
    // A queue is memory: more than this would only hide a collector that is too slow for ever.
    let queue = size("OTEL_BSP_MAX_QUEUE_SIZE", 8_192).min(1 << 20);
    Some(Export {
        endpoint,
        is_whole,
        protocol,
        timeout: Duration::from_millis(timeout),
        service: set("OTEL_SERVICE_NAME").is_none().then(|| "verger".to_owned()),
        queue,
        batch: size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512).min(queue),
        delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 5_000)),
    })
}
