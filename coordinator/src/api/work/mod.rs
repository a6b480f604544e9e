//! The way of workers in processes of their own: they ask for cycles and shards, say commands, and see one repository of the state.
//!
//! ```text
//! presence -> next -> commands, view (lead of a cycle)
//!          -> jobs -> commands       (a shard of somebody's cycle)
//! ```
//! What they may say is listed in `allowed`; all else of the machine is people's.

mod allowed;
mod evidence;
mod take;
mod wire;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;
use verger_proto::envelope::{self, Kind};
use verger_proto::{Command, Refusal, RepositoryId};

use super::call::Call;
use super::problem::Problem;
use super::server::{Answer, Server};
pub use wire::{Ended, Heard, Instructions, Names, Presence, Ready, Said, Task, View};

pub(super) use evidence::keep;
pub(super) use take::{ended, jobs, next, presence};

/// How long somebody is held who waits for a change.
const HELD: std::time::Duration = std::time::Duration::from_secs(15);
/// How often it is looked whether there is one.
const GLANCE: std::time::Duration = std::time::Duration::from_millis(100);
/// Names of one batch are longer than any other body.
pub(super) const BODY_BYTES_MAX: usize = envelope::BODY_BYTES_MAX;

/// The record in a body.
fn read<T: DeserializeOwned>(call: &Call) -> Result<T, Problem> {
    let text =
        "the body is no record of this version; coordinators and workers must be of versions that know each other";
    envelope::decode(Kind::Work, &call.body).map_err(|error| Problem::bad_request(format!("{text}: {error}")))
}

fn record<T: Serialize>(value: &T) -> Answer {
    let bytes = envelope::encode(Kind::Work, value).map_err(|error| Problem::internal(error.to_string()))?;
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

fn nothing() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Whether the caller's token reaches a repository.
fn sees(server: &Server, call: &Call, repository: &RepositoryId) -> bool {
    let tenant = server.state(|state| {
        let entry = state.repositories.get(repository)?;
        entry.registration.as_ref().map(|registration| registration.tenant.clone())
    });
    call.sees(tenant.as_deref())
}

fn view(server: &Server, repository: &RepositoryId) -> View {
    // Before it is looked at, so that it is never said to be newer than it is.
    let applied = server.api.backend.applied();
    View { applied, state: server.state(|state| state.view_of(repository)) }
}

/// A command of whoever works, and what came of it.
pub(super) fn commands(server: &Arc<Server>, call: Call) -> Answer {
    server.check_leads()?;
    let Said { id, command } = read(&call)?;
    let about = server.state(|state| allowed::about(state, &command));
    let repository = about.map_err(|refused| match refused {
        Refusal::UnknownCycle => Problem::refused(&Refusal::UnknownCycle),
        _ => Problem::new(StatusCode::FORBIDDEN, "forbidden", format!("{} is not for workers", command.name())),
    })?;
    if let Some(repository) = &repository
        && !sees(server, &call, repository)
    {
        return Err(Problem::refused(&Refusal::UnknownCycle));
    }
    let events = server.say(id, command)?;
    let state = View { applied: 0, state: crate::machine::State::default() };
    let view = repository.map_or(state, |repository| view(server, &repository));
    record(&Heard { events, view })
}

/// The state of one repository, as soon as it is another than the one that the caller has.
pub(super) fn state(server: &Arc<Server>, call: Call) -> Answer {
    let text = call.query("repository").unwrap_or_default();
    let repository: Option<RepositoryId> = text.parse().ok().filter(|id| sees(server, &call, id));
    let repository = repository.ok_or_else(|| Problem::refused(&Refusal::UnknownRepository))?;
    let until = std::time::Instant::now() + HELD;
    let known = call.query("seen").unwrap_or_default();
    loop {
        let view = view(server, &repository);
        let bytes = envelope::encode(Kind::Work, &view.state).map_err(|error| Problem::internal(error.to_string()))?;
        let is_new = verger_proto::Digest::of(&bytes).to_string() != known;
        if is_new || std::time::Instant::now() >= until || *server.stopping.borrow() {
            return record(&view);
        }
        if !call.is_still_allowed(server.api.gate.as_ref()) {
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "the token is not valid any more"));
        }
        std::thread::sleep(GLANCE);
    }
}

/// A command of somebody who works, in no person's name: what it says of jobs and batches names the worker.
impl Server {
    fn say(&self, id: verger_proto::CommandId, command: Command) -> Result<Vec<verger_proto::Event>, Problem> {
        self.api.backend.submit_as(id, command).map_err(|error| Problem::not_kept(&error))
    }
}
