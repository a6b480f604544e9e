//! How a worker is: whether it lives, whether coordinators hear it, and what it did.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use verger_coordinator::page::{CONTENT_TYPE, Page};
use verger_kopia::clock::Clock;
use verger_kopia::{Error, ErrorKind, Result};

use super::Crew;

/// Not heard by any coordinator for so long: not ready.
const SILENCE: Duration = Duration::from_secs(30);

/// What was done.
#[derive(Default)]
pub(super) struct Counts {
    cycles: [AtomicU64; 2],
    shards: [AtomicU64; 2],
    /// Places that do something.
    busy: AtomicU64,
    /// When a coordinator last answered: milliseconds since the machine's start.
    heard: AtomicU64,
}

impl Counts {
    pub(super) fn cycle(&self, failed: bool) {
        self.cycles[usize::from(failed)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn shard(&self, failed: bool) {
        self.shards[usize::from(failed)].fetch_add(1, Ordering::Relaxed);
    }

    /// One place does this.
    pub(super) fn at_work<T>(&self, work: impl FnOnce() -> T) -> T {
        self.busy.fetch_add(1, Ordering::Relaxed);
        let done = work();
        self.busy.fetch_sub(1, Ordering::Relaxed);
        done
    }

    pub(super) fn heard(&self, clock: &dyn Clock) {
        self.heard.store(milliseconds(clock.since_boot()), Ordering::Relaxed);
    }

    fn is_ready(&self, clock: &dyn Clock) -> bool {
        let silent = milliseconds(clock.since_boot()).saturating_sub(self.heard.load(Ordering::Relaxed));
        silent < milliseconds(SILENCE)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The service; it ends with this.
pub(super) struct Health {
    _runtime: tokio::runtime::Runtime,
}

/// Says how the worker is to whoever asks.
///
/// # Errors
/// `Permission` if something listens there, or it is not this machine's.
pub(super) fn serve(listen: SocketAddr, crew: Arc<Crew>) -> Result<Health> {
    let failed = |error| Error::new(ErrorKind::Permission, format!("listen on {listen}")).with_source(error);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(listen))
        .map_err(|error| failed(error).with_fix("Choose another address with --listen, or stop what listens there"))?;
    let (ready, figures) = (crew.clone(), crew);
    let routes = Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(move || std::future::ready(readiness(&ready))))
        .route("/metrics", get(move || std::future::ready(metrics(&figures))));
    runtime.spawn(async move { axum::serve(listener, routes).await });
    Ok(Health { _runtime: runtime })
}

fn readiness(crew: &Crew) -> (StatusCode, &'static str) {
    if crew.stop.is_asked() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if crew.counts.is_ready(&*crew.clock) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no coordinator hears this worker\n")
    }
}

fn metrics(crew: &Crew) -> Response {
    let (counts, mut page) = (&crew.counts, Page::default());
    let rows = |kind: &'static str, counts: &[AtomicU64; 2]| {
        let row = |(outcome, count): (&str, &AtomicU64)| {
            let labels = [("kind", kind), ("outcome", outcome)].map(|(label, value)| (label, value.to_owned()));
            (labels.to_vec(), count.load(Ordering::Relaxed))
        };
        ["done", "failed"].into_iter().zip(counts).map(row).collect::<Vec<_>>()
    };
    let jobs = [rows("cycle", &counts.cycles), rows("shard", &counts.shards)].concat();
    page.counts("worker_jobs", "Cycles and shards that this worker ended", jobs);
    page.level("worker_places_busy", "Places that do something", counts.busy.load(Ordering::Relaxed) as f64);
    let limit = crew.site.opener.engine.memory_limit;
    page.level("worker_memory_limit_bytes", "Memory that each cycle or shard may use", limit as f64);
    if let Some(queue) = &crew.queue {
        page.work_queue(queue.meters());
    }
    // Nobody shows a token here: names of repositories are not told.
    page.stores(crew.site.meters.all_calls().into_iter().map(|calls| (None, calls)));
    page.held_back();
    match page.text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
