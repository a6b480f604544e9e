//! What happened, one event a line, or as a stream that goes on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use verger_kopia::clock::Timestamp;
use verger_proto::{Access, Command, CycleId, Event, LogTime, RepositoryId, RepositoryName};

use super::board::Board;
use super::call::Call;
use super::event_json::{self, About};
use super::events::read_until;
use super::problem::Problem;
use super::repositories::find_named;
use super::server::{Answer, Server};
use crate::auth::{Action, authorize_token};

/// Records that are read at a time.
const PAGE_RECORDS: usize = 256;
/// Parts of an answer that wait for a slow client.
const WAITING: usize = 16;
/// After this much silence a line says that the connection lives.
const SILENCE: Duration = Duration::from_secs(15);

type Part = Result<Bytes, io::Error>;

/// The way to whoever listens.
pub(super) struct Listener {
    parts: mpsc::Sender<Part>,
    stopping: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Listener {
    /// `false`: nobody listens any more, or the server stops.
    pub(super) async fn send(&mut self, part: Part) -> bool {
        tokio::select! {
            sent = self.parts.send(part) => sent.is_ok(),
            _ = self.stopping.wait_for(|stopping| *stopping) => false,
        }
    }

    /// Waits for the next beat; says that the connection lives in between. `false` as above.
    pub(super) async fn next(&mut self, pulse: &mut watch::Receiver<u64>) -> bool {
        loop {
            let silent = tokio::select! {
                beat = pulse.changed() => return beat.is_ok(),
                () = self.parts.closed() => return false,
                _ = self.stopping.wait_for(|stopping| *stopping) => return false,
                () = tokio::time::sleep(SILENCE) => true,
            };
            if silent && !self.send(Ok(Bytes::from_static(b": still here\n\n"))).await {
                return false;
            }
        }
    }
}

/// A way to whoever makes this call, and the answer at its other end.
pub(super) fn listen(server: &Server, kind: &'static str) -> Result<(Listener, Response), Problem> {
    let permit = server.followers.clone().try_acquire_owned();
    let _permit = permit.map_err(|_| Problem::later("busy", "as many as may be follow something here already"))?;
    let (parts, taken) = mpsc::channel(WAITING);
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(taken)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok((Listener { parts, stopping: server.stopping.subscribe(), _permit }, response))
}

/// One message of a stream of events.
pub(super) fn message(id: Option<u64>, event: &str, data: &str) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {event}\ndata: {data}\n\n")
}

/// Which events are wanted.
struct Filter {
    repository: Option<RepositoryId>,
    cycle: Option<CycleId>,
    kind: Option<String>,
    not_before: LogTime,
}

/// Whose call, what of, and where it is.
struct Reading {
    server: Arc<Server>,
    call: Call,
    filter: Filter,
    next: u64,
    left: u64,
    follows: bool,
}

/// What one look at the events gives.
struct Page {
    text: String,
    /// There may be more right away.
    more: bool,
}

impl Reading {
    /// Reads on. The events of one record stay together: whoever goes on after its number misses none.
    fn page(&mut self) -> Result<Page, Problem> {
        let mut records = Vec::new();
        let read = read_until(self.server.api.events.as_ref(), self.next, &mut |record| {
            records.push(record);
            records.len() < PAGE_RECORDS
        });
        self.next = read.map_err(|error| Problem::internal(error.chain()).fixed_as(&error))?;
        let board = self.server.board()?;
        let mut text = String::new();
        for record in records.iter().filter(|record| record.at >= self.filter.not_before) {
            let mut lines = Vec::new();
            for (part, event) in record.entry.events.iter().enumerate() {
                let fields = event_json::fields(event);
                let about = event_json::about(event, &fields, &board);
                if self.wants(event, &about)
                    && self.may_see(&record.entry.command, event, &about, record.sequence, &board)
                {
                    lines.push((
                        event.kind(),
                        event_json::show(record, part, event, fields, &about, &board).to_string(),
                    ));
                }
            }
            self.left = self.left.saturating_sub(u64::try_from(lines.len()).unwrap_or(u64::MAX));
            let last = lines.len();
            for (number, (kind, line)) in (1..).zip(lines) {
                // Only with the last of a record is the record over.
                let id = (number == last).then_some(record.sequence);
                let line = if self.follows { message(id, kind, &line) } else { format!("{line}\n") };
                text.push_str(&line);
            }
            if self.left == 0 {
                return Ok(Page { text, more: false });
            }
        }
        Ok(Page { text, more: records.len() >= PAGE_RECORDS })
    }

    fn wants(&self, event: &Event, about: &event_json::About) -> bool {
        let filter = &self.filter;
        filter.kind.as_ref().is_none_or(|kind| kind == event.kind())
            && filter.cycle.is_none_or(|cycle| about.cycle == Some(cycle))
            && filter.repository.as_ref().is_none_or(|wanted| about.repository.as_ref() == Some(wanted))
    }

    /// An event is its tenant's of that time. What happens to tokens is for those alone who may list them.
    fn may_see(&self, command: &Command, event: &Event, about: &About, sequence: u64, board: &Board) -> bool {
        if let Some(access) = token_access(command, event) {
            return authorize_token(&self.call.actor, Action::TokenList, access).is_ok();
        }
        let known = about.repository.as_ref().and_then(|repository| board.known_at(repository, sequence));
        self.call.sees(known.map(|known| known.tenant.as_str()))
    }
}

/// What the token reaches that an event is about.
fn token_access<'a>(command: &'a Command, event: &'a Event) -> Option<&'a Access> {
    match (event, command) {
        (Event::TokenCreated { access, .. } | Event::TokenRevoked { access, .. }, _) => Some(access),
        (_, Command::Ordered(ordered)) => token_access(&ordered.command, event),
        (_, Command::CreateToken { grant }) => Some(&grant.access),
        // Refused: there is none.
        (_, Command::RevokeToken { .. }) => Some(&Access::All),
        _ => None,
    }
}

/// `since`: the number of a record, or a time; and the number after which a broken stream goes on.
fn begin(server: &Server, call: &Call, follows: bool) -> Result<(u64, LogTime), Problem> {
    let again = call.header(&HeaderName::from_static("last-event-id")).and_then(|id| id.parse::<u64>().ok());
    if let Some(id) = again.filter(|_| follows) {
        return Ok((id.saturating_add(1), LogTime(0)));
    }
    match call.query("since") {
        None if follows => Ok((server.api.events.newest(), LogTime(0))),
        None => Ok((0, LogTime(0))),
        Some(text) => match (text.parse::<u64>(), text.parse::<Timestamp>()) {
            (Ok(record), _) => Ok((record.saturating_add(1), LogTime(0))),
            (_, Ok(time)) => {
                let time = LogTime::of(time);
                Ok((server.api.events.not_before(time), time))
            }
            _ => {
                Err(Problem::bad_request(format!("since: {text:?} is neither a record's number nor a time (RFC 3339)")))
            }
        },
    }
}

fn filter(server: &Server, call: &Call, not_before: LogTime) -> Result<Filter, Problem> {
    let name = call.query("repository").map(|name| {
        RepositoryName::new(name).map_err(|_| Problem::not_found(format!("no repository is called {name:?}")))
    });
    let found = name.transpose()?.map(|name| find_named(server, call, &name)).transpose()?;
    let kind = call.query("kind").map(str::to_owned);
    if let Some(unknown) = kind.as_deref().filter(|kind| !Event::KINDS.contains(kind)) {
        return Err(Problem::bad_request(format!("kind: {unknown:?} is no kind of event")));
    }
    Ok(Filter { repository: found.map(|(id, _)| id), cycle: call.number("cycle")?.map(CycleId), kind, not_before })
}

pub(super) fn events(server: &Arc<Server>, call: Call) -> Answer {
    let accepts = call.header(&header::ACCEPT).unwrap_or_default();
    let follows = accepts.split(',').any(|kind| kind.trim().starts_with("text/event-stream"));
    let (next, not_before) = begin(server, &call, follows)?;
    let filter = filter(server, &call, not_before)?;
    let left = match call.number("limit")? {
        Some(0) => return Err(Problem::bad_request("limit: must be 1 or more")),
        limit => limit.unwrap_or(u64::MAX),
    };
    let mut reading = Reading { server: server.clone(), call, filter, next, left, follows };
    let pulse = server.pulse.subscribe();
    // The first look says whether it can be read at all, while there is still a status to say it with.
    let first = reading.page()?;
    let kind = if follows { "text/event-stream" } else { "application/x-ndjson" };
    let (listener, response) = listen(server, kind)?;
    tokio::spawn(tell(reading, first, listener, pulse));
    Ok(response)
}

async fn tell(mut reading: Reading, mut page: Page, mut listener: Listener, mut pulse: watch::Receiver<u64>) {
    loop {
        let text = std::mem::take(&mut page.text);
        if !text.is_empty() && !listener.send(Ok(Bytes::from(text))).await {
            return;
        }
        let is_over = reading.left == 0 || !reading.follows && !page.more;
        if is_over || !page.more && !listener.next(&mut pulse).await {
            return;
        }
        let read = tokio::task::spawn_blocking(move || {
            let allowed = reading.call.is_still_allowed(reading.server.api.gate.as_ref());
            let page = if allowed { reading.page().ok() } else { None };
            (reading, page)
        });
        match read.await {
            Ok((on, Some(read))) => (reading, page) = (on, read),
            _ => {
                // The status is gone out: whoever reads must notice that this is not all.
                listener.send(Err(io::Error::other("the events cannot be read on"))).await;
                return;
            }
        }
    }
}
