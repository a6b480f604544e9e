//! What this process did since it began.

use std::sync::Arc;

use axum::http::StatusCode;
use verger_kopia::storage::calls::Calls;
use verger_proto::RepositoryName;

use super::super::server::Server;
use crate::machine::State;
use crate::meters::{Meters, Raft};
use crate::page::{Count, Page};

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
    if let Some(queue) = &meters.queue {
        page.work_queue(queue.meters());
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
    page.held_back();
}

fn of_the_raft(page: &mut Page, raft: Raft) {
    page.level("raft_leader", "Whether this node leads its group", f64::from(u8::from(raft.leads)));
    page.level("raft_level", "Level that all members of the group know, and go by", raft.level.into());
    page.level("raft_program_level", "Level that this process knows", raft.program_level.into());
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

/// Calls to the stores of repositories that are looked after: this process may not have worked on all of them.
pub(super) fn known_calls(state: &State, meters: &Meters) -> Vec<(Option<RepositoryName>, Arc<Calls>)> {
    let known = state.repositories.values().filter_map(|entry| entry.registration.as_ref());
    known.filter_map(|known| Some((Some(known.name.clone()), meters.known_calls(&known.name)?))).collect()
}

/// What these calls cost, where somebody said what a call to that store does.
pub(super) fn of_the_prices(page: &mut Page, state: &State, meters: &Meters) {
    let known = state.repositories.values().filter_map(|entry| entry.registration.as_ref());
    let costs = known.filter_map(|known| {
        let dollars = meters.prices.of(&known.address)?.of(&*meters.known_calls(&known.name)?);
        Some((vec![("repo", known.name.to_string())], dollars))
    });
    let help = "What the calls to the store and the bytes read from it cost by the prices that were given, in dollars";
    page.amounts("cost_estimate_dollars", help, costs.collect::<Vec<_>>());
}
