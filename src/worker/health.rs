//! How a worker is: whether it lives, whether coordinators hear it, and what it did.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
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

fn metrics(crew: &Crew) -> String {
    let counts = &crew.counts;
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        rows.iter().for_each(|(labels, value)| text.push_str(&format!("{name}{labels} {value}\n")));
    };
    let rows = |kind: &str, counts: &[AtomicU64; 2]| {
        ["done", "failed"]
            .iter()
            .zip(counts)
            .map(|(outcome, count)| {
                (format!("{{kind=\"{kind}\",outcome=\"{outcome}\"}}"), count.load(Ordering::Relaxed))
            })
            .collect::<Vec<_>>()
    };
    let jobs = [rows("cycle", &counts.cycles), rows("shard", &counts.shards)].concat();
    family("verger_worker_jobs_total", "counter", "Cycles and shards that this worker ended", &jobs);
    let busy = [(String::new(), counts.busy.load(Ordering::Relaxed))];
    family("verger_worker_places_busy", "gauge", "Places that do something", &busy);
    let limit = [(String::new(), crew.site.opener.engine.memory_limit)];
    family("verger_worker_memory_limit_bytes", "gauge", "Memory that each cycle or shard may use", &limit);
    if let Some(queue) = &crew.queue {
        let fates = verger_proto::work_queue::meters::Fate::ALL;
        let rows: Vec<_> =
            fates.iter().map(|(fate, label)| (format!("{{fate=\"{label}\"}}"), queue.meters().get(*fate))).collect();
        family("verger_work_queue_offers_total", "counter", "Offers of the work queue, by what became of them", &rows);
        let rejected: Vec<_> = queue
            .meters()
            .rejected()
            .iter()
            .map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), *count))
            .collect();
        family("verger_work_queue_rejected_total", "counter", "Messages that were not believed", &rejected);
    }
    text
}
