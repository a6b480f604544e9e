//! The table of routes. The router and the document are made from it.

use std::sync::Arc;

use axum::routing::MethodFilter;

use super::call::Call;
use super::server::{Answer, Server};
use super::{
    cluster, cycles, deeds, feed, health, leases, repositories, requests, tokens, verification, watch, work, workers,
};
use crate::auth::Action;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    Get,
    Post,
    Patch,
    Delete,
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    pub(super) fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// What an answer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// One of these.
    One(&'static str),
    /// An array of these.
    Many(&'static str),
    /// One of these a line, or a stream of them.
    Lines(&'static str),
    /// A stream of these.
    Stream(&'static str),
    /// Text for Prometheus.
    Text,
    /// Any JSON object.
    Any,
    /// A record of this program's own, or nothing.
    Record,
}

/// One route.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// What the gate is asked for. Those that are open to all say so there.
    pub(super) action: Action,
    pub(super) summary: &'static str,
    /// Query parameters: name, type, what it is.
    pub(super) query: &'static [(&'static str, &'static str, &'static str)],
    pub(super) body: Option<&'static str>,
    pub(super) status: u16,
    pub(super) answer: Shape,
    pub(super) handler: fn(&Arc<Server>, Call) -> Answer,
}

const NO_QUERY: &[(&str, &str, &str)] = &[];
const CYCLES_QUERY: &[(&str, &str, &str)] = &[
    ("repository", "string", "Only of this repository"),
    ("limit", "integer", "At most so many, 1 to 500 (50)"),
    ("before", "integer", "Only those with a smaller number"),
];
const JOBS_QUERY: &[(&str, &str, &str)] =
    &[("pools", "string", "Of repositories of these pools, with commas between them")];
const STATE_QUERY: &[(&str, &str, &str)] = &[
    ("repository", "string", "Of this repository (its ID)"),
    ("seen", "string", "Waits until it is another than the one with this digest"),
];
const EVENTS_QUERY: &[(&str, &str, &str)] = &[
    ("repository", "string", "Only of this repository"),
    ("cycle", "integer", "Only of this cycle"),
    ("since", "string", "Only after the record of this number, or not before this time (RFC 3339)"),
    ("kind", "string", "Only of this kind"),
    ("limit", "integer", "Ends with the record that holds the event of this number"),
];

const DEEDS_QUERY: &[(&str, &str, &str)] =
    &[("name", "string", "Name of the blob or content"), ("repository", "string", "Only in this repository")];

macro_rules! route {
    ($method:ident $path:literal, $action:ident, $summary:literal, $query:expr, $body:expr, $status:literal $shape:expr, $handler:path) => {
        Route {
            method: Method::$method,
            path: $path,
            action: Action::$action,
            summary: $summary,
            query: $query,
            body: $body,
            status: $status,
            answer: $shape,
            handler: $handler,
        }
    };
}

use Shape::{Any, Lines, Many, One, Record, Stream, Text};

/// All routes; those of one path follow each other.
#[rustfmt::skip]
pub(super) static ROUTES: &[Route] = &[
    route!(Get "/healthz", Health, "Whether the process lives",
        NO_QUERY, None, 200 One("Health"), health::healthz),
    route!(Get "/readyz", Health, "Whether commands can be taken here",
        NO_QUERY, None, 200 One("Health"), health::readyz),
    route!(Get "/metrics", Metrics, "Figures for Prometheus",
        NO_QUERY, None, 200 Text, health::metrics),
    route!(Get "/v1/openapi.json", Describe, "This document",
        NO_QUERY, None, 200 Any, health::document),
    route!(Get "/v1/status", Status, "Version, leader, how much there is",
        NO_QUERY, None, 200 One("Status"), health::status),
    route!(Get "/v1/repositories", RepoList, "All repositories, by name",
        NO_QUERY, None, 200 Many("Repository"), repositories::list),
    route!(Post "/v1/repositories", RepoAdd, "Look at a repository and look after it from now on",
        NO_QUERY, Some("NewRepository"), 201 One("Repository"), repositories::add),
    route!(Get "/v1/repositories/{name}", RepoShow, "One repository",
        NO_QUERY, None, 200 One("Repository"), repositories::get),
    route!(Patch "/v1/repositories/{name}", RepoEdit, "Look after it in another way",
        NO_QUERY, Some("RepositoryChange"), 200 One("Repository"), repositories::change),
    route!(Delete "/v1/repositories/{name}", RepoRemove, "Look after it no more; nothing in it changes",
        NO_QUERY, None, 200 One("Repository"), repositories::remove),
    route!(Post "/v1/repositories/{name}/probe", RepoProbe, "Look at it again",
        NO_QUERY, None, 200 One("Probe"), repositories::probe_again),
    route!(Post "/v1/repositories/{name}/verification", RepoVerify, "Say what came of verifying it",
        NO_QUERY, Some("Verified"), 200 One("Repository"), verification::tell),
    route!(Post "/v1/repositories/{name}/cycles", CycleStart, "Ask for a cycle; Idempotency-Key makes the same wish the same",
        NO_QUERY, Some("NewCycle"), 202 One("Request"), requests::ask),
    route!(Get "/v1/repositories/{name}/requests/{key}", CycleShow, "What became of a wish",
        NO_QUERY, None, 200 One("Request"), requests::get),
    route!(Get "/v1/cycles", CycleList, "Cycles, the newest first; Link leads to the next page",
        CYCLES_QUERY, None, 200 Many("Cycle"), cycles::list),
    route!(Get "/v1/cycles/{id}", CycleShow, "One cycle, with jobs and report",
        NO_QUERY, None, 200 One("Cycle"), cycles::get),
    route!(Post "/v1/cycles/{id}/pause", CyclePause, "Stop at the next batch and keep what was done",
        NO_QUERY, None, 200 One("Cycle"), cycles::pause),
    route!(Post "/v1/cycles/{id}/resume", CycleResume, "Go on with a paused cycle",
        NO_QUERY, None, 200 One("Cycle"), cycles::resume),
    route!(Post "/v1/cycles/{id}/abort", CycleAbort, "End it without finishing it",
        NO_QUERY, Some("Abort"), 200 One("Cycle"), cycles::abort),
    route!(Post "/v1/cycles/{id}/approve", CycleApprove, "A person's word for a plan that removes much",
        NO_QUERY, Some("Approval"), 200 One("Cycle"), cycles::approve),
    route!(Get "/v1/cycles/{id}/watch", CycleWatch, "The cycle at every change, until it ends",
        NO_QUERY, None, 200 Stream("Cycle"), watch::watch),
    route!(Get "/v1/events", Events, "What happened; with Accept: text/event-stream, what happens",
        EVENTS_QUERY, None, 200 Lines("Event"), feed::events),
    route!(Get "/v1/deeds", Events, "What was done to a blob or content: which cycle, plan, term, worker and rule",
        DEEDS_QUERY, None, 200 One("Deeds"), deeds::find),
    route!(Get "/v1/leases", LeaseList, "Leases that this fleet holds, and what it saw of others'",
        NO_QUERY, None, 200 Many("Lease"), leases::list),
    route!(Post "/v1/leases/{name}/release", LeaseRelease, "Let go of the lease on a repository",
        NO_QUERY, None, 200 One("Released"), leases::release),
    route!(Post "/v1/leases/{name}/transfer", LeaseTransfer, "Only observe from now on, and leave the lease to one other holder",
        NO_QUERY, Some("Transfer"), 200 One("Released"), leases::transfer),
    route!(Get "/v1/tokens", TokenList, "Tokens, in the order in which they were made; never a token itself",
        NO_QUERY, None, 200 Many("Token"), tokens::list),
    route!(Post "/v1/tokens", TokenCreate, "Make a token; it is in this answer and nowhere else",
        NO_QUERY, Some("NewToken"), 201 One("Token"), tokens::create),
    route!(Delete "/v1/tokens/{name}", TokenRevoke, "Take a token back, at once and for ever",
        NO_QUERY, None, 200 One("Token"), tokens::revoke),
    route!(Get "/v1/cluster", ClusterStatus, "The coordinators: who leads, who is behind",
        NO_QUERY, None, 200 One("Cluster"), cluster::status),
    route!(Post "/v1/cluster/members", ClusterJoin, "Take a coordinator in; it votes as soon as it has caught up",
        NO_QUERY, Some("NewMember"), 202 One("Cluster"), cluster::admit),
    route!(Delete "/v1/cluster/members/{id}", ClusterRemove, "Let a coordinator go; its number is never used again",
        NO_QUERY, None, 200 One("Cluster"), cluster::remove),
    route!(Get "/v1/workers", WorkerList, "Workers in processes of their own, by name",
        NO_QUERY, None, 200 Many("Worker"), workers::list),
    route!(Post "/v1/workers/{name}/drain", WorkerDrain, "Give a worker nothing new, or again",
        NO_QUERY, Some("Drain"), 200 One("Worker"), workers::drain),
    route!(Post "/v1/work/presence", Work, "For workers: say that one is there",
        NO_QUERY, Some("Presence"), 200 Record, work::presence),
    route!(Post "/v1/work/next", Work, "For workers: a cycle to run",
        NO_QUERY, Some("Ready"), 200 Record, work::next),
    route!(Post "/v1/work/ended", Work, "For workers: what came of it",
        NO_QUERY, Some("Ended"), 204 Record, work::ended),
    route!(Get "/v1/work/jobs", Work, "For workers: shards that nobody does",
        JOBS_QUERY, None, 200 Record, work::jobs),
    route!(Post "/v1/work/commands", Work, "For workers: say something to the machine",
        NO_QUERY, Some("Said"), 200 Record, work::commands),
    route!(Post "/v1/work/progress", Work, "For workers: say how far a job is",
        NO_QUERY, Some("Word"), 204 Record, work::progress),
    route!(Get "/v1/work/state", Work, "For workers: one repository of the state",
        STATE_QUERY, None, 200 Record, work::state),
    route!(Post "/v1/work/evidence", Work, "For workers: keep names of what a batch does",
        NO_QUERY, Some("Names"), 200 Record, work::keep),
];
