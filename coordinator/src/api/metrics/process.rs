//! What this process did since it began.

use axum::http::StatusCode;
use verger_kopia::storage::calls::HeldBack;

use super::super::server::Server;
use super::page::{Count, Labels, Page};
use crate::machine::State;
use crate::meters::{Meters, Raft};

/// Requests by route, method and status.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Requests(Count);

impl Requests {
    pub(in super::super) fn count(&self, route: &str, method: &str, status: StatusCode) {
        let labels =
            vec![("route", route.to_owned()), ("method", method.to_owned()), ("status", status.as_str().to_owned())];
        self.0.get_or_create(&labels).inc();
    }
}

pub(super) fn of_the_process(page: &mut Page, server: &Server) {
    page.kept("http_requests", "Calls of this interface", server.requests.0.clone());
    let meters = &server.api.meters;
    if let Some(ask) = &meters.raft {
        of_the_raft(page, ask());
    }
    if let Some(ask) = &meters.spans {
        let spans = ask();
        page.count("spans_exported", "Spans that the collector has", spans.exported);
        let lost = [("queue-full", spans.no_room), ("collector", spans.refused)];
        let lost = lost.map(|(reason, count)| (vec![("reason", reason.to_owned())], count));
        page.counts("spans_dropped", "Spans that were lost on the way to the collector", lost);
    }
    if let Some(limit) = meters.memory_limit {
        page.level("worker_memory_limit_bytes", "Most memory that the workers of this process may use", limit as f64);
    }
    if let Some(bytes) = resident() {
        page.level("worker_memory_bytes", "Memory that this process has, its workers among it", bytes as f64);
    }
    if let Some(pending) = server.api.events.archive_pending() {
        let help = "Segments of the ledger, and files of evidence, that wait to be archived";
        page.level("ledger_archive_pending_segments", help, pending as f64);
    }
    let held_back = HeldBack::ALL.map(|cause| (vec![("cause", cause.name().to_owned())], cause.total()));
    page.counts("store_throttled", "Requests that were held back", held_back);
}

fn of_the_raft(page: &mut Page, raft: Raft) {
    page.level("raft_leader", "Whether this node leads its group", f64::from(u8::from(raft.leads)));
    page.level("raft_term", "Term of this node's group; no lease's", raft.term as f64);
    for (name, help, index) in [
        ("raft_last_index", "Last entry of this node's log", raft.last),
        ("raft_applied_index", "Last entry that this node's machine has seen", raft.applied),
        ("raft_snapshot_index", "Last entry in this node's newest snapshot", raft.snapshot),
    ] {
        if let Some(index) = index {
            page.level(name, help, index as f64);
        }
    }
}

/// Resident memory of this process, where the kernel tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

pub(super) fn of_the_stores(page: &mut Page, state: &State, meters: &Meters) {
    let mut requests: Vec<(Labels, u64)> = Vec::new();
    let mut bytes: Vec<(Labels, u64)> = Vec::new();
    for registration in state.repositories.values().filter_map(|entry| entry.registration.as_ref()) {
        let Some(calls) = meters.known_calls(&registration.name) else { continue };
        let repo = || ("repo", registration.name.to_string());
        for (op, class, code, count) in calls.all() {
            let [op, class, code] = [("op", op.name()), ("class", class.name()), ("code", code.name())];
            let labels = [op, class, code].map(|(label, value)| (label, value.to_owned()));
            requests.push((std::iter::once(repo()).chain(labels).collect(), count));
        }
        let (read, written) = calls.bytes();
        for (direction, count) in [("read", read), ("written", written)] {
            bytes.push((vec![repo(), ("direction", direction.to_owned())], count));
        }
    }
    page.counts("store_requests", "Calls to stores, by operation, class of blobs and answer", requests);
    page.counts("store_bytes", "Bytes of blobs that were read and written", bytes);
}
