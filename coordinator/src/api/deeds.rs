//! What was done to a blob or content: by which cycle, plan, term, worker and rule (S6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use verger_proto::{Approval, Batch, BatchOutcome, CycleId, Event, LogTime, RepositoryId, RepositoryName, Ticket};

use super::board::Board;
use super::call::Call;
use super::health::ok;
use super::problem::Problem;
use super::repositories::find_named;
use super::server::{Answer, Server};
use super::show;
use crate::ledger::evidence::Hit;

/// Longest name of a blob or content that is looked for, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// What the ledger says of one batch.
#[derive(Default)]
struct Told {
    approved: Option<(Ticket, Approval, LogTime)>,
    ended: Option<(&'static str, Ticket, BatchOutcome, LogTime)>,
}

/// Cycle, stage, number and digest.
type Key = (CycleId, &'static str, u32, [u8; 32]);
type Batches = BTreeMap<Key, Told>;

pub(super) fn find(server: &Arc<Server>, call: Call) -> Answer {
    let name = call.query("name").filter(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX);
    let name = name.ok_or_else(|| Problem::bad_request("name: must be that of a blob or content"))?.to_owned();
    let repositories = asked(server, &call)?;
    let search = server.api.evidence.find(&repositories, &name);
    let hits: Vec<Hit> = {
        let board = server.board()?;
        search.hits.into_iter().filter(|hit| is_seen(&call, &board, hit)).collect()
    };
    let told = told(server, &hits)?;
    let board = server.board()?;
    let deeds: Vec<Value> = hits.iter().map(|hit| shown(&name, hit, &told, &board)).collect();
    let unread: Vec<String> = search.unread.iter().map(verger_kopia::error::Error::chain).collect();
    // Who drove a cycle has its evidence, until that is archived.
    let elsewhere = server.api.stand.members().is_some() && server.api.events.archive_pending().is_none();
    ok(&json!({ "deeds": deeds, "unread": unread, "elsewhere": elsewhere }))
}

/// The repositories that are looked into: one that is named, or all that the caller may see, those that are gone among them.
fn asked(server: &Server, call: &Call) -> Result<Vec<RepositoryId>, Problem> {
    if let Some(name) = call.query("repository") {
        let name =
            RepositoryName::new(name).map_err(|_| Problem::not_found(format!("no repository is called {name:?}")))?;
        return Ok(vec![find_named(server, call, &name)?.0]);
    }
    let board = server.board()?;
    let sees = |id: &&RepositoryId| call.sees(board.known(id).map(|known| known.tenant.as_str()));
    Ok(server.state(|state| state.repositories.keys().filter(sees).cloned().collect()))
}

/// A cycle is its tenant's of the time when it was opened.
fn is_seen(call: &Call, board: &Board, hit: &Hit) -> bool {
    let known = board.owner(hit.cycle).or_else(|| board.known(&hit.repository));
    call.sees(known.map(|known| known.tenant.as_str()))
}

fn key(cycle: CycleId, batch: &Batch) -> Key {
    (cycle, batch.stage.name(), batch.number, batch.digest.0)
}

/// Reads what the ledger says of the batches of these records.
fn told(server: &Server, hits: &[Hit]) -> Result<Batches, Problem> {
    let mut told: Batches = hits.iter().map(|hit| (key(hit.cycle, &hit.batch), Told::default())).collect();
    let cycles: BTreeSet<CycleId> = hits.iter().map(|hit| hit.cycle).collect();
    let Some(first) = cycles.first() else { return Ok(told) };
    let opened = server.board()?.told(*first).map(|told| told.opened);
    let from = opened.map_or(0, |opened| server.api.events.not_before(opened));
    let read = server.api.events.read(from, &mut |record| {
        for event in record.entry.events {
            note(&mut told, event, record.at);
        }
        Ok(())
    });
    read.map_err(|error| Problem::internal(error.chain()).fixed_as(&error)).map(|()| told)
}

fn note(told: &mut Batches, event: Event, at: LogTime) {
    let (how, ticket, outcome) = match event {
        Event::BatchApproved { ticket, approval } => {
            if let Some(told) = told.get_mut(&key(ticket.cycle, &approval.batch)) {
                told.approved = Some((ticket, approval, at));
            }
            return;
        }
        Event::BatchDone { ticket, outcome } => ("done", ticket, outcome),
        Event::BatchAmbiguous { ticket, outcome } => ("ambiguous", ticket, outcome),
        _ => return,
    };
    if let Some(told) = told.get_mut(&key(ticket.cycle, &outcome.batch)) {
        told.ended = Some((how, ticket, outcome, at));
    }
}

fn shown(name: &str, hit: &Hit, told: &Batches, board: &Board) -> Value {
    let mut deed = Map::new();
    let mut put = |key: &str, value: Value| drop(deed.insert(key.to_owned(), value));
    put("name", json!(name));
    if let Some(known) = board.owner(hit.cycle).or_else(|| board.known(&hit.repository)) {
        put("repository", json!(known.name.as_str()));
    }
    put("repositoryId", json!(hit.repository.to_string()));
    put("cycle", json!(hit.cycle.0));
    put("stage", json!(hit.batch.stage.name()));
    put("batch", json!(hit.batch.number));
    put("rule", json!(hit.rule));
    put("record", json!(hit.record.to_string()));
    if let Some(object) = &hit.object {
        put("object", json!(object));
    }
    let told = told.get(&key(hit.cycle, &hit.batch));
    let approved = told.and_then(|told| told.approved.as_ref());
    let ended = told.and_then(|told| told.ended.as_ref());
    if let Some((_, approval, at)) = approved {
        put("approvedAt", show::at(*at));
        if let Some(plan) = approval.plan {
            put("plan", json!(plan.to_string()));
        }
    }
    if let Some((_, _, outcome, at)) = ended {
        put("endedAt", show::at(*at));
        put("changed", json!(outcome.changed));
        put("leftOut", json!(outcome.left_out));
    }
    let who = ended.map(|(_, ticket, ..)| ticket).or_else(|| approved.map(|(ticket, ..)| ticket));
    if let Some(ticket) = who {
        put("term", json!(ticket.term.0));
        put("worker", json!(ticket.worker.as_str()));
    }
    // The names are written down before the deed: without a word of its end it may or may not have happened.
    put("outcome", json!(ended.map_or("unknown", |(how, ..)| how)));
    Value::Object(deed)
}
