//! A log as JSON: one object a line, with the repository, the cycle and the trace that it is about.

use std::fmt;
use std::io::Write;

use jiff::Timestamp;
use opentelemetry::trace::TraceContextExt as _;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Fields of a span that every line below it has as well.
const INHERITED: [&str; 3] = ["repository", "cycle", "trace_id"];

/// Writes lines.
pub(super) struct JsonLines<W> {
    make: fn() -> W,
}

impl<W: Write> JsonLines<W> {
    /// To what `make` gives, a line a call.
    pub(super) fn new(make: fn() -> W) -> Self {
        Self { make }
    }
}

/// What a span gives to its lines.
struct Given(Map<String, Value>);

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), json!(format!("{value:?}")));
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: Write + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        fields.0.retain(|name, _| INHERITED.contains(&name.as_str()));
        if let (false, Some(span)) = (fields.0.is_empty(), context.span(id)) {
            span.extensions_mut().insert(Given(fields.0));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), json!(Timestamp::now()));
        line.insert("level".to_owned(), json!(event.metadata().level().as_str()));
        line.insert("target".to_owned(), json!(event.metadata().target()));
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(Given(given)) = span.extensions().get::<Given>() {
                given.iter().for_each(|(name, value)| {
                    line.entry(name.clone()).or_insert_with(|| value.clone());
                });
            }
        }
        let around = opentelemetry::Context::current();
        let around = around.span().span_context().clone();
        if around.is_valid() {
            line.entry("trace_id").or_insert_with(|| json!(around.trace_id().to_string()));
            line.insert("span_id".to_owned(), json!(around.span_id().to_string()));
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let own = ["timestamp", "level", "target", "trace_id", "span_id"];
        for (name, value) in fields.0 {
            let name = if own.contains(&name.as_str()) { format!("field.{name}") } else { name };
            line.insert(name, value);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // A log that cannot be written is no reason to stop the work.
        let _ = (self.make)().write_all(text.as_bytes());
    }
}
