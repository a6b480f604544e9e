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
mod word;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use verger_proto::envelope::{self, Kind};
use verger_proto::{Command, Digest, Driver, Refusal, RepositoryId};

use super::call::Call;
use super::problem::Problem;
use super::server::{Answer, Server};
pub use wire::{Ended, Heard, Instructions, Names, Presence, Ready, Said, Task, View, Word};

pub(super) use evidence::keep;
pub(super) use take::{ended, jobs, next, presence};
pub(super) use word::progress;

/// How long somebody is held who waits for a change.
const HELD: std::time::Duration = std::time::Duration::from_secs(15);
/// How often it is looked whether there is one.
const GLANCE: std::time::Duration = std::time::Duration::from_millis(100);
/// Names of one batch, and reports of whole cycles, are longer than what people say.
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

/// What a driver is here: his number and the name of his token together. What a driver is called can be read by everybody who works on
/// a repository, so a name that is said proves nothing; nor may anybody call himself what a coordinator is called, whose numbers are small.
fn driver_of(call: &Call, said: Driver) -> Driver {
    let node = number(&format!("{}/{}/{}", said.node, said.boots, call.actor.name())) | 1 << 63;
    Driver { node, boots: token_number(call), run: said.run }
}

/// Whether a driver is one that this token stands for.
fn is_own(call: &Call, driver: Driver) -> bool {
    driver.node >> 63 == 1 && driver.boots == token_number(call)
}

fn token_number(call: &Call) -> u64 {
    number(&format!("token {}", call.actor.name()))
}

fn number(text: &str) -> u64 {
    let digest = Digest::of(text.as_bytes());
    digest.as_bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A command, with the driver in it as he is called here.
fn named(call: &Call, command: Command) -> Command {
    match command {
        Command::Driven(mut driven) => {
            driven.driver = driver_of(call, driven.driver);
            Command::Driven(driven)
        }
        Command::LeaveDrive { repository, driver } => {
            Command::LeaveDrive { repository, driver: driver_of(call, driver) }
        }
        Command::NoteUnable { repository, worker, driver, reason } => {
            Command::NoteUnable { repository, worker, driver: driver_of(call, driver), reason }
        }
        Command::NoteShutOut { repository, worker, driver, failure } => {
            Command::NoteShutOut { repository, worker, driver: driver_of(call, driver), failure }
        }
        other => other,
    }
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
    let command = named(&call, command);
    let about = server.state(|state| allowed::about(state, &command));
    let repository = about.map_err(|refused| match refused {
        Refusal::UnknownCycle => Problem::refused(&Refusal::UnknownCycle),
        _ => Problem::new(StatusCode::FORBIDDEN, "forbidden", format!("{} is not for workers", command.name())),
    })?;
    if !sees(server, &call, &repository) {
        return Err(Problem::refused(&Refusal::UnknownCycle));
    }
    let events = server.say(id, command)?;
    record(&Heard { events, view: view(server, &repository) })
}

/// The state of one repository, as soon as it is another than the one that the caller has.
pub(super) fn state(server: &Arc<Server>, call: Call) -> Answer {
    let text = call.query("repository").unwrap_or_default();
    let repository: Option<RepositoryId> = text.parse().ok().filter(|id| sees(server, &call, id));
    let repository = repository.ok_or_else(|| Problem::refused(&Refusal::UnknownRepository))?;
    let until = std::time::Instant::now() + HELD;
    let known = call.query("seen").unwrap_or_default();
    let (mut held, mut looked) = (None, None);
    loop {
        // What others do changes nothing here most of the time, and to look costs as much as the cycle has jobs.
        let applied = server.api.backend.applied();
        let is_over = std::time::Instant::now() >= until || *server.stopping.borrow();
        if is_over || looked != Some(applied) {
            looked = Some(applied);
            let view = view(server, &repository);
            let digest = view.digest().map_err(|error| Problem::internal(error.to_string()))?;
            if is_over || digest.to_string() != known {
                return record(&view);
            }
        }
        if held.is_none() {
            held = Some(hold(server)?);
        }
        if !call.is_still_allowed(server.api.gate.as_ref()) {
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "the token is not valid any more"));
        }
        std::thread::sleep(GLANCE);
    }
}

/// Who is held has a thread: there is an end to them, and people who follow something have theirs apart.
fn hold(server: &Server) -> Result<OwnedSemaphorePermit, Problem> {
    let permit = server.held.clone().try_acquire_owned();
    permit.map_err(|_| Problem::later("busy", "as many workers as may be wait for changes here already"))
}

/// A command of somebody who works, in no person's name: what it says of jobs and batches names the worker.
impl Server {
    fn say(&self, id: verger_proto::CommandId, command: Command) -> Result<Vec<verger_proto::Event>, Problem> {
        self.api.backend.submit_as(id, command).map_err(|error| Problem::not_kept(&error))
    }
}
