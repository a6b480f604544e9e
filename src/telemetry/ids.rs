//! Trace IDs that follow from what is traced, where the tracing library would draw lots.

use std::cell::Cell;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

thread_local! {
    static NEXT: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// Makes a span without a parent, whose trace is `trace`. Without a parent that was never there: its sampler decides as for any other
/// root, the same way wherever the trace goes on.
pub(crate) fn root(trace: verger_proto::TraceId, make: impl FnOnce() -> Span) -> Span {
    NEXT.set(Some(TraceId::from_bytes(trace.0)));
    let span = make();
    // IDs are drawn when a span is looked at first.
    let _ = span.context();
    NEXT.set(None);
    span
}

/// Draws lots for spans, and for traces that nobody named.
#[derive(Debug, Default)]
pub(super) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT.take().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}
