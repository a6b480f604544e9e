//! Figures as Prometheus reads them. All but the count of requests follow from the ledger and the state, so a start loses nothing.

use std::sync::atomic::AtomicU64;

use axum::http::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use verger_proto::RepositoryId;

use super::board::Board;
use super::problem::Problem;
use super::server::Server;

type Labels = Vec<(&'static str, String)>;
type Count = Family<Labels, Counter<u64, AtomicU64>>;
type Level = Family<Labels, Gauge<f64, AtomicU64>>;

/// Requests by route, method and status.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests(Count);

impl Requests {
    pub(super) fn count(&self, route: &str, method: &str, status: StatusCode) {
        let labels =
            vec![("route", route.to_owned()), ("method", method.to_owned()), ("status", status.as_str().to_owned())];
        self.0.get_or_create(&labels).inc();
    }
}

/// All figures, as text.
pub(super) fn text(server: &Server) -> Result<String, Problem> {
    let mut registry = Registry::with_prefix("verger");
    registry.register("http_requests", "Calls of this interface", server.requests.0.clone());
    let open = Gauge::<f64, AtomicU64>::default();
    let held = Level::default();
    server.state(|state| {
        open.set(state.cycles.len() as f64);
        for entry in state.repositories.values() {
            if let Some(registration) = &entry.registration {
                let label = vec![("repo", registration.name.to_string())];
                held.get_or_create(&label).set(if entry.lease.is_some() { 1.0 } else { 0.0 });
            }
        }
    });
    registry.register("cycles_open", "Cycles that began and have not ended", open);
    registry.register("lease_held", "Whether this fleet holds the lease on the repository", held);
    if let Some(pending) = server.api.events.archive_pending() {
        let waiting = Gauge::<f64, AtomicU64>::default();
        waiting.set(pending as f64);
        registry.register(
            "ledger_archive_pending_segments",
            "Segments of the ledger that wait to be archived",
            waiting,
        );
    }
    of_the_board(&mut registry, &*server.board()?);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(text)
}

fn of_the_board(registry: &mut Registry, board: &Board) {
    let name = |repository: &RepositoryId| {
        board.known(repository).map_or_else(|| repository.to_string(), |known| known.name.to_string())
    };
    let ends = Count::default();
    for ((outcome, mode), count) in &board.ends {
        let labels = vec![("outcome", (*outcome).to_owned()), ("mode", (*mode).to_owned())];
        ends.get_or_create(&labels).inc_by(*count);
    }
    registry.register("cycles", "Cycles that ended, by how", ends);
    let successes = Level::default();
    for ((repository, mode), at) in &board.successes {
        let labels = vec![("repo", name(repository)), ("mode", (*mode).to_owned())];
        successes.get_or_create(&labels).set(at.0 as f64 / 1_000.0);
    }
    let help = "When the last cycle that did all it was to do ended, in seconds since 1970";
    registry.register("cycle_last_success_timestamp_seconds", help, successes);
    let freed = Count::default();
    for (repository, bytes) in &board.freed {
        freed.get_or_create(&vec![("repo", name(repository))]).inc_by(*bytes);
    }
    registry.register("bytes_reclaimed", "Bytes of blobs that were deleted from the store", freed);
}
