//! Spans wait in a queue of bounded length for a thread that hands them to a collector. Whoever ends a span never waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};

use super::{Export, SpanCounts};

enum Message {
    Span(Box<SpanData>),
    Flush(SyncSender<()>),
}

/// Where ended spans go.
pub(super) struct Queue {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

/// Asks for what is left to be handed over.
pub(super) struct Flush(SyncSender<Message>);

struct Shared {
    counts: Arc<SpanCounts>,
    warned: AtomicBool,
    collector: String,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("counts", &self.shared.counts).finish_non_exhaustive()
    }
}

impl fmt::Debug for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flush")
    }
}

/// Starts the thread. It ends with the process.
///
/// # Errors
/// There can be no thread.
pub(super) fn start<E: SpanExporter + 'static>(
    exporter: E,
    export: &Export,
    counts: Arc<SpanCounts>,
) -> std::io::Result<(Queue, Flush)> {
    let (sender, receiver) = sync_channel(export.queue);
    let shared = Arc::new(Shared { counts, warned: AtomicBool::new(false), collector: export.shown() });
    let (told, batch, delay) = (shared.clone(), export.batch, export.delay);
    std::thread::Builder::new()
        .name("traces".to_owned())
        .spawn(move || hand_over(&exporter, &receiver, &told, batch, delay))?;
    Ok((Queue { sender: sender.clone(), shared }, Flush(sender)))
}

impl Shared {
    /// Once for a process: the figures tell the rest.
    fn warn(&self, why: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(collector = self.collector, why, "spans are lost; cycles go on without them");
        }
    }
}

fn hand_over<E: SpanExporter>(
    exporter: &E,
    receiver: &Receiver<Message>,
    shared: &Shared,
    batch: usize,
    delay: Duration,
) {
    let mut spans = Vec::new();
    let mut since = Instant::now();
    loop {
        let left = if spans.is_empty() { delay } else { delay.saturating_sub(since.elapsed()) };
        let flushed = match receiver.recv_timeout(left) {
            Ok(Message::Span(span)) => {
                if spans.is_empty() {
                    since = Instant::now();
                }
                spans.push(*span);
                if spans.len() < batch {
                    continue;
                }
                None
            }
            Ok(Message::Flush(answer)) => Some(answer),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if !spans.is_empty() {
            send(exporter, std::mem::take(&mut spans), shared);
        }
        if let Some(answer) = flushed {
            // Whoever asked may have given up.
            let _ = answer.try_send(());
        }
    }
}

fn send<E: SpanExporter>(exporter: &E, spans: Vec<SpanData>, shared: &Shared) {
    let count = spans.len() as u64;
    match futures_executor::block_on(exporter.export(spans)) {
        Ok(()) => {
            shared.counts.exported.fetch_add(count, Ordering::Relaxed);
        }
        // Its words may repeat the endpoint with what is secret in it.
        Err(_) => {
            shared.counts.refused.fetch_add(count, Ordering::Relaxed);
            shared.warn("the collector does not answer, or not with success");
        }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        match self.sender.try_send(Message::Span(Box::new(span))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.counts.no_room.fetch_add(1, Ordering::Relaxed);
                self.shared.warn("the collector is slower than the work");
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Flush {
    /// Waits until what was ended before is handed over, or for `most`.
    pub(super) fn wait(&self, most: Duration) {
        let until = Instant::now() + most;
        let (answer, answered) = sync_channel(1);
        let mut message = Message::Flush(answer);
        // The queue may be full for a while.
        while let Err(TrySendError::Full(back)) = self.0.try_send(message) {
            if Instant::now() >= until {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = answered.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}
