//! How an event looks in JSON: one flat object.

use serde_json::{Map, Value, json};
use verger_proto::{CycleId, Event, RepositoryId};

use super::board::Board;
use super::problem::refusal_kind;
use super::show;
use crate::ledger::Record;

/// What an event is about.
pub(super) struct About {
    pub(super) repository: Option<RepositoryId>,
    pub(super) cycle: Option<CycleId>,
}

/// Repository and cycle of an event, as far as it or the board says.
pub(super) fn about(event: &Event, fields: &Value, board: &Board) -> About {
    let number = |value: &Value| value.as_u64().map(CycleId);
    let cycle = number(&fields["cycle"]).or_else(|| number(&fields["ticket"]["cycle"]));
    let said = match event {
        Event::LeaseTaken { repository, .. }
        | Event::LeaseRenewed { repository, .. }
        | Event::LeaseLost { repository, .. }
        | Event::LeaseReleased { repository, .. }
        | Event::CycleOpened { repository, .. }
        | Event::RepositoryAdded { repository, .. }
        | Event::RepositoryChanged { repository, .. }
        | Event::RepositoryRemoved { repository, .. }
        | Event::CycleRequested { repository, .. }
        | Event::RequestDropped { repository, .. }
        | Event::CycleReported { repository, .. }
        | Event::DriveTaken { repository, .. }
        | Event::DriveRenewed { repository, .. }
        | Event::DriveLeft { repository, .. }
        | Event::WriteNoted { repository, .. }
        | Event::SessionNoted { repository, .. }
        | Event::StoreProbed { repository, .. }
        | Event::RepositoryVerified { repository, .. }
        | Event::StoreIdentified { repository, .. }
        | Event::LeaseSeen { repository, .. }
        | Event::WorkerUnable { repository, .. } => Some(repository.clone()),
        _ => None,
    };
    let repository = said.or_else(|| cycle.and_then(|cycle| board.told(cycle)).map(|told| told.repository.clone()));
    About { repository, cycle }
}

/// The fields of the event, as serde gives them.
pub(super) fn fields(event: &Event) -> Value {
    match show::plain(event) {
        Value::Object(tagged) => tagged.into_iter().next().map(|(_, fields)| fields).unwrap_or_default(),
        other => other,
    }
}

/// The event with its place and time.
pub(super) fn show(record: &Record, part: usize, event: &Event, fields: Value, about: &About, board: &Board) -> Value {
    let mut flat = Map::new();
    let mut put = |key: &str, value: Value| {
        flat.insert(key.to_owned(), value);
    };
    put("sequence", json!(record.sequence));
    put("part", json!(part));
    put("at", show::at(record.at));
    put("kind", json!(event.kind()));
    if let Some(repository) = &about.repository {
        if let Some(known) = board.known_at(repository, record.sequence) {
            put("repository", json!(known.name.as_str()));
        }
        put("repositoryId", json!(repository.to_string()));
    }
    if let Some(cycle) = about.cycle {
        put("cycle", json!(cycle.0));
    }
    if let Some(actor) = record.entry.command.actor() {
        put("actor", json!(actor));
    }
    match event {
        Event::CommandRefused { reason, .. }
        | Event::ResultFenced { reason, .. }
        | Event::PlanRefused { reason, .. } => {
            put("error", json!(refusal_kind(reason)));
            put("message", json!(reason.to_string()));
        }
        _ => {}
    }
    let Value::Object(fields) = camel(fields) else { return Value::Object(flat) };
    for (key, value) in fields {
        let value = match (key.as_str(), value) {
            ("repository" | "cycle", _) => continue,
            ("report", Value::String(text)) => show::report(&text),
            (_, Value::Null) => continue,
            (_, value) => value,
        };
        flat.insert(key, value);
    }
    Value::Object(flat)
}

/// Names of fields as everywhere else in this interface: `storeNow`. Texts and the names of variants stay.
fn camel(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (camel_name(&key), camel(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(camel).collect()),
        other => other,
    }
}

fn camel_name(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}
