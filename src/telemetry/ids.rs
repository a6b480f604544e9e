//! Trace IDs that follow from what is traced, where the tracing library would draw lots.

use std::cell::Cell;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use verger_proto::TraceParent;

thread_local! {
    static NEXT: Cell<Option<TraceId>> = const { Cell::new(None) };
    static SPAN: Cell<Option<SpanId>> = const { Cell::new(None) };
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

/// Makes a span under an ID that others know without having been told.
pub(crate) fn named(id: [u8; 8], make: impl FnOnce() -> Span) -> Span {
    SPAN.set(Some(SpanId::from_bytes(id)));
    let span = make();
    let _ = span.context();
    SPAN.set(None);
    span
}

/// Below a span of another process, and in its trace.
pub(crate) fn below(span: &Span, parent: TraceParent) {
    let (trace, id) = (TraceId::from_bytes(parent.trace.0), SpanId::from_bytes(parent.span));
    let context = SpanContext::new(trace, id, TraceFlags::new(parent.flags), true, TraceState::default());
    // Without a collector there is nothing to be below of.
    let _ = span.set_parent(Context::new().with_remote_span_context(context));
}

/// Draws lots for spans, and for traces that nobody named.
#[derive(Debug, Default)]
pub(super) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT.take().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        SPAN.take().unwrap_or_else(|| self.0.new_span_id())
    }
}
