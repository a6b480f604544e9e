//! Cycles: open ones and the last that ended, and a person's word about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;
use verger_proto::{Command, CycleId, PlanDigest, RepositoryName};

use super::board::Board;
use super::call::Call;
use super::health::ok;
use super::problem::Problem;
use super::repositories::find_named;
use super::server::{Answer, Server};
use super::show::{Found, Live};
use crate::machine::State;

/// Cycles in an answer if nobody says how many, and at most.
const PAGE: (u64, u64) = (50, 500);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct AbortBody {
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ApproveBody {
    plan: String,
    allow_removing: u64,
}

/// The cycle, if the caller may see it.
pub(super) fn find(server: &Server, call: &Call, whole: bool) -> Result<Value, Problem> {
    let id = call.cycle()?;
    let missing = || Problem::not_found(format!("no cycle has the number {id}, or it is long ago"));
    let board = server.board()?;
    let found = server.state(|state| {
        let found = Found::in_state(state, id)?;
        let tenant = board.owner(id).map(|known| known.tenant.clone());
        Some((found.show(&board, live(server), whole), tenant))
    });
    drop(board);
    let (value, tenant) = found.ok_or_else(missing)?;
    if call.sees(tenant.as_deref()) { Ok(value) } else { Err(missing()) }
}

pub(super) fn get(server: &Arc<Server>, call: Call) -> Answer {
    server.ask_words(call.cycle()?);
    ok(&find(server, &call, true)?)
}

pub(super) fn list(server: &Arc<Server>, call: Call) -> Answer {
    let limit = call.number("limit")?.unwrap_or(PAGE.0);
    if limit == 0 || limit > PAGE.1 {
        return Err(Problem::bad_request(format!("limit: must be 1 to {}", PAGE.1)));
    }
    let before = call.number("before")?.unwrap_or(u64::MAX);
    let name = call.query("repository").map(|name| {
        RepositoryName::new(name).map_err(|_| Problem::not_found(format!("no repository is called {name:?}")))
    });
    let name = name.transpose()?;
    let only = name.as_ref().map(|name| find_named(server, &call, name)).transpose()?.map(|(id, _)| id);
    let board = server.board()?;
    // Figures of all are small, so the gate is asked afterwards, outside of the state.
    let mut all: Vec<(CycleId, Option<String>)> = server.state(|state| {
        let wanted =
            |found: &Found<'_>| found.id().0 < before && only.as_ref().is_none_or(|only| only == found.repository());
        let tenant = |found: &Found<'_>| board.owner(found.id()).map(|known| known.tenant.clone());
        Found::all(state).filter(wanted).map(|found| (found.id(), tenant(&found))).collect()
    });
    all.retain(|(_, tenant)| call.sees(tenant.as_deref()));
    all.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = all.len() > limit;
    all.truncate(limit);
    let shown = server.state(|state| page(state, &board, live(server), all.iter().map(|(id, _)| *id).collect()));
    let mut response = ok(&Value::Array(shown))?;
    if let Some((last, _)) = all.last().filter(|_| more) {
        let repository = name.map(|name| format!("repository={name}&")).unwrap_or_default();
        let link = format!("</v1/cycles?{repository}limit={limit}&before={last}>; rel=\"next\"");
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}

fn live(server: &Server) -> Live<'_> {
    Live { words: server.api.backend.words(), now: server.now() }
}

/// These cycles, the newest first.
fn page(state: &State, board: &Board, live: Live<'_>, wanted: BTreeSet<CycleId>) -> Vec<Value> {
    let found: BTreeMap<_, _> =
        Found::all(state).filter(|found| wanted.contains(&found.id())).map(|found| (found.id(), found)).collect();
    found.values().rev().map(|found| found.show(board, live, false)).collect()
}

/// Gives a word about an open cycle, and shows it afterwards.
fn say(server: &Server, call: &Call, command: impl FnOnce(CycleId) -> Result<Command, Problem>) -> Answer {
    let found = find(server, call, false)?;
    let id = call.cycle()?;
    let command = command(id)?;
    if found["phase"] == "ended" {
        let message = format!("cycle {id} has ended");
        return Err(Problem::new(StatusCode::CONFLICT, "cycle-ended", message));
    }
    server.order(&call.actor, command)?;
    ok(&find(server, call, true)?)
}

pub(super) fn pause(server: &Arc<Server>, call: Call) -> Answer {
    say(server, &call, |cycle| Ok(Command::PauseCycle { cycle }))
}

pub(super) fn resume(server: &Arc<Server>, call: Call) -> Answer {
    say(server, &call, |cycle| Ok(Command::UnpauseCycle { cycle }))
}

pub(super) fn abort(server: &Arc<Server>, call: Call) -> Answer {
    let body: AbortBody = call.json_or_default()?;
    let reason = body.reason.unwrap_or_else(|| format!("aborted by {}", call.actor.name()));
    if reason.is_empty() || reason.len() > 1_000 {
        return Err(Problem::bad_request("reason: must be 1 to 1000 bytes"));
    }
    say(server, &call, |cycle| Ok(Command::AbortCycle { cycle, reason }))
}

/// Percent of all contents that a person lets go.
pub(super) fn removable(percent: u64) -> Result<u8, Problem> {
    let small = u8::try_from(percent).ok().filter(|percent| *percent <= 100);
    small.ok_or_else(|| Problem::bad_request(format!("allowRemoving: {percent} percent is more than everything")))
}

pub(super) fn approve(server: &Arc<Server>, call: Call) -> Answer {
    let body: ApproveBody = call.json()?;
    let digest = body.plan.parse().map_err(|error| Problem::bad_request(format!("plan: {error}")))?;
    let allow_removing = removable(body.allow_removing)?;
    say(server, &call, |cycle| Ok(Command::SealPlan { cycle, plan: PlanDigest(digest), allow_removing }))
}
