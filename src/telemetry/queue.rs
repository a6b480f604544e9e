//! Spans wait in a queue of bounded length for a thread that hands them to a collector. Whoever ends a span never waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use super::exporter::Exporter;
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
pub(super) fn start(exporter: Exporter, export: &Export, counts: Arc<SpanCounts>) -> std::io::Result<(Queue, Flush)> {
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

fn hand_over(exporter: &Exporter, receiver: &Receiver<Message>, shared: &Shared, batch: usize, delay: Duration) {
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

fn send(exporter: &Exporter, spans: Vec<SpanData>, shared: &Shared) {
    let count = spans.len() as u64;
    if exporter.send(spans) {
        shared.counts.exported.fetch_add(count, Ordering::Relaxed);
    } else {
        shared.counts.refused.fetch_add(count, Ordering::Relaxed);
        shared.warn("the collector does not answer, or not with success");
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    /// What became of three spans, and how long that took.
    fn lost(endpoint: String, protocol: &str) -> (Arc<SpanCounts>, Duration) {
        let export = Export {
            endpoint,
            is_whole: false,
            protocol: Some(protocol.to_owned()),
            timeout: Duration::from_millis(300),
            service: None,
            queue: 8,
            batch: 8,
            delay: Duration::from_secs(60),
        };
        let exporter = Exporter::new(&export, &Resource::builder_empty().build()).unwrap();
        let counts = Arc::new(SpanCounts::default());
        let (queue, flush) = start(exporter, &export, counts.clone()).unwrap();
        let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
        for _ in 0..3 {
            drop(provider.tracer("test").start("span"));
        }
        let began = Instant::now();
        flush.wait(Duration::from_secs(20));
        (counts, began.elapsed())
    }

    #[test]
    fn what_nobody_takes_is_counted_as_refused_within_the_time_of_a_request() {
        // It is connected to, and then says nothing, not even how it speaks.
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", mute.local_addr().unwrap());
        for endpoint in ["http://127.0.0.1:1", &address] {
            for protocol in ["http/protobuf", "grpc"] {
                let (counts, took) = lost(endpoint.to_owned(), protocol);
                let told = (counts.exported(), counts.refused(), counts.no_room());
                assert_eq!(told, (0, 3, 0), "{protocol} {endpoint}");
                assert!(took < Duration::from_secs(10), "{protocol} {endpoint}: {took:?}");
            }
        }
    }
}
