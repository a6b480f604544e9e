//! Cycles that are asked for by key: the same key again is the same wish.

use std::sync::Arc;

use axum::http::{HeaderName, StatusCode};
use rand::Rng;
use serde::Deserialize;
use serde_json::{Value, json};
use verger_proto::{Command, CycleOptions, Mode, RepositoryId, Safety};

use super::call::Call;
use super::cycles::removable;
use super::health::{json_answer, ok};
use super::problem::Problem;
use super::repositories::find;
use super::server::{Answer, Server};
use super::show;
use crate::auth::Action;
use crate::machine::{Answer as Outcome, State};
use crate::others::shut_out;

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CycleBody {
    mode: Mode,
    #[serde(default = "margins")]
    safety: Safety,
    #[serde(default)]
    i_am_alone: bool,
    #[serde(default)]
    dry_run: bool,
    allow_removing: Option<u64>,
}

fn margins() -> Safety {
    Safety::Full
}

fn key(call: &Call) -> Result<String, Problem> {
    let name = HeaderName::from_static("idempotency-key");
    if !call.headers.contains_key(&name) {
        return Ok(format!("{:032x}", rand::rng().random::<u128>()));
    }
    let key = call.header(&name).filter(|key| !key.is_empty() && key.len() <= KEY_BYTES_MAX);
    // It stands in paths, too.
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'~');
    let key = key.filter(|key| key.bytes().all(is_plain) && *key != "." && *key != "..");
    key.map(str::to_owned).ok_or_else(|| {
        Problem::bad_request("Idempotency-Key: must be 1 to 128 of a-z, A-Z, 0-9, '-', '_', '.', ':' and '~'")
    })
}

pub(super) fn ask(server: &Arc<Server>, call: Call) -> Answer {
    let (repository, known) = find(server, &call)?;
    let (body, key): (CycleBody, _) = (call.json()?, key(&call)?);
    if body.i_am_alone || body.allow_removing.is_some() {
        call.may(Action::CycleStartWithWord, &known.tenant)?;
    }
    let options = CycleOptions {
        mode: body.mode,
        safety: body.safety,
        index: known.index,
        dry_run: body.dry_run,
        allow_removing: body.allow_removing.map(removable).transpose()?,
        exclusive: known.exclusive || body.i_am_alone,
        alone: body.i_am_alone,
    };
    let waiting = server.state(|state| {
        let mut requests = state.repositories.get(&repository).into_iter().flat_map(|entry| &entry.requests);
        requests.find(|request| request.key == key).map(|request| request.options)
    });
    if waiting.is_some_and(|waiting| waiting != options) {
        let message = format!("another cycle is asked for under the key {key}");
        return Err(Problem::new(StatusCode::CONFLICT, "key-in-use", message).with_fix("take another key"));
    }
    server.order(&call.actor, Command::RequestCycle { repository: repository.clone(), key: key.clone(), options })?;
    let value = server.state(|state| asked(state, &repository, &key, options));
    Ok(json_answer(StatusCode::ACCEPTED, &value))
}

fn asked(state: &State, repository: &RepositoryId, key: &str, options: CycleOptions) -> Value {
    match answered(state, repository, key) {
        Some(Outcome::Cycle(cycle)) => return json!({ "key": key, "state": "open", "cycle": cycle.0 }),
        Some(Outcome::Dropped(failure)) => {
            return json!({ "key": key, "state": "dropped", "failure": show::failure(failure) });
        }
        None => {}
    }
    match state.open_cycle(repository) {
        None => json!({ "key": key, "state": "queued" }),
        // What is asked for is under way; the wish is answered as soon as it is joined.
        Some(open) if open.options == options => json!({ "key": key, "state": "open", "cycle": open.id.0 }),
        Some(open) => json!({ "key": key, "state": "queued", "behind": open.id.0 }),
    }
}

fn answered<'a>(state: &'a State, repository: &RepositoryId, key: &str) -> Option<&'a Outcome> {
    let entry = state.repositories.get(repository)?;
    entry.answered.iter().find(|(answered, _)| answered == key).map(|(_, outcome)| outcome)
}

pub(super) fn get(server: &Arc<Server>, call: Call) -> Answer {
    let (repository, _) = find(server, &call)?;
    let (key, now) = (call.parameter("key"), server.now());
    let found = server.state(|state| match answered(state, &repository, key) {
        Some(Outcome::Cycle(cycle)) => Some(json!({ "key": key, "state": "cycle", "cycle": cycle.0 })),
        Some(Outcome::Dropped(failure)) => {
            Some(json!({ "key": key, "state": "dropped", "failure": show::failure(failure) }))
        }
        None => {
            let entry = state.repositories.get(&repository)?;
            entry.requests.iter().find(|request| request.key == key)?;
            let mut value = json!({ "key": key, "state": "queued" });
            show::add_unable(&mut value, entry, now);
            // Whoever drives it is about to find out.
            let is_idle = entry.driver.is_none_or(|(_, until)| until < now) && !server.api.desk.is_able(entry, now);
            if let Some(failure) = shut_out(state, entry, now).filter(|_| is_idle) {
                value["shutOut"] = show::failure(&failure);
            }
            Some(value)
        }
    });
    let missing = || Problem::not_found("nobody asked under this key, or it is long ago");
    ok(&found.ok_or_else(missing)?)
}
