//! Leases that this fleet holds, and what is known of those that others hold.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use verger_kopia::error::Error;
use verger_proto::{Acting, Command, Registration, RegistrationChange, RepositoryId, Term};

use super::call::Call;
use super::health::ok;
use super::problem::Problem;
use super::repositories::find;
use super::server::{Answer, Server};
use super::show;
use crate::machine::{Phase, Repository};

/// Longest name of a holder, in bytes.
const HOLDER_BYTES_MAX: usize = 255;

pub(super) fn list(server: &Arc<Server>, call: Call) -> Answer {
    let fleet = server.api.stand.fleet();
    let mut all: Vec<(String, String, Value)> = server.state(|state| {
        let shown = |(id, entry): (&RepositoryId, &Repository)| {
            let known = entry.registration.as_ref()?;
            let Some(lease) = entry.lease else {
                return Some((known.name.to_string(), known.tenant.clone(), others(id, entry)?));
            };
            let owner = match &known.acting {
                Acting::ActAs(owner) => owner.as_str(),
                Acting::Observe | Acting::TakeOwnership => fleet.as_str(),
            };
            let value = json!({
                "repository": id.to_string(),
                "name": known.name.as_str(),
                "term": lease.term.0,
                "actsUntil": show::time(lease.acts_until.0),
                "confirmed": show::at(lease.confirmed),
                "holder": fleet,
                "ours": true,
                "actingAs": owner,
            });
            Some((known.name.to_string(), known.tenant.clone(), value))
        };
        state.repositories.iter().filter_map(shown).collect()
    });
    all.retain(|(_, tenant, _)| call.sees(Some(tenant)));
    all.sort_by(|a, b| a.0.cmp(&b.0));
    ok(&Value::Array(all.into_iter().map(|(_, _, value)| value).collect()))
}

/// What was seen of the lease when this fleet wanted it or looked at the store. It may have been renewed or given back since.
fn others(id: &RepositoryId, entry: &Repository) -> Option<Value> {
    let (mut value, known) = (show::other_lease(entry)?, entry.registration.as_ref()?);
    value["repository"] = json!(id.to_string());
    value["name"] = json!(known.name.as_str());
    value["ours"] = json!(false);
    Some(value)
}

/// First the machine lets go, so that nothing is approved any more; then the object says so (R4). In the other order somebody else
/// could begin while a batch of ours is under way.
pub(super) fn release(server: &Arc<Server>, call: Call) -> Answer {
    let (repository, known) = find(server, &call)?;
    let held = term(server, &repository).ok_or_else(|| Problem::refused(&verger_proto::Refusal::NoLease))?;
    check_unused(server, &repository)?;
    check_waited_out(server, &known, held)?;
    server.order(&call.actor, Command::ReleaseLease { repository: repository.clone(), term: held })?;
    let freed = server.api.hands.free_lease(&known, &server.api.stand.fleet(), held, None);
    ok(&released(&repository, &known, json!({ "term": held.0 }), freed))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    to: String,
}

/// This fleet only observes from now on, so that it does not take back what it gives away; then as [`release`], for one alone.
pub(super) fn transfer(server: &Arc<Server>, call: Call) -> Answer {
    let (repository, known) = find(server, &call)?;
    let Transfer { to } = call.json()?;
    let fleet = server.api.stand.fleet();
    let is_name = to.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    if !is_name || to == fleet || to.len() > HOLDER_BYTES_MAX {
        let message = format!("{to:?} is not another holder: that is a fleet (verger@fleet-NUMBER) or USER@HOST");
        return Err(Problem::bad_request(message));
    }
    check_unused(server, &repository)?;
    let held = term(server, &repository);
    held.map_or(Ok(()), |term| check_waited_out(server, &known, term))?;
    if known.acting != Acting::Observe {
        let change = RegistrationChange::Acting(Acting::Observe);
        server.order(&call.actor, Command::ChangeRepository { repository: repository.clone(), change })?;
    }
    let hands = &server.api.hands;
    let freed = match held {
        Some(term) => {
            server.order(&call.actor, Command::ReleaseLease { repository: repository.clone(), term })?;
            hands.free_lease(&known, &fleet, term, Some(&to))
        }
        None => hands.hand_over_lease(&known, &repository, &fleet, &to),
    };
    let said = held.map_or_else(|| json!({ "to": to }), |term| json!({ "to": to, "term": term.0 }));
    ok(&released(&repository, &known, said, freed))
}

fn term(server: &Server, repository: &RepositoryId) -> Option<Term> {
    server.state(|state| state.repositories.get(repository)?.lease.map(|lease| lease.term))
}

/// No cycle changes the repository, nor may have left a request under way.
fn check_unused(server: &Server, repository: &RepositoryId) -> Result<(), Problem> {
    let at_work = server.state(|state| {
        let open = state.open_cycle(repository).filter(|cycle| !cycle.options.dry_run);
        open.filter(|cycle| cycle.phase != Phase::Parked || cycle.has_outstanding()).map(|cycle| cycle.id)
    });
    let Some(cycle) = at_work else { return Ok(()) };
    let message = format!("cycle {cycle} works under this lease, or may not have left everything as it should be");
    let problem = Problem::new(StatusCode::CONFLICT, "lease-in-use", message);
    Err(problem
        .with_fix(format!("pause or abort cycle {cycle} first; or resume it, so that it looks at its last batch")))
}

/// Whoever took the lease may have died while it waited for the requests of the holder before: only the object in the store tells of
/// that. Asked before the machine lets go; what the store does not answer, it does not answer when the object is to be freed either.
fn check_waited_out(server: &Server, known: &Registration, held: Term) -> Result<(), Problem> {
    let wait = server.api.hands.under_way(known, &server.api.stand.fleet(), held).unwrap_or_default();
    if wait.is_zero() {
        return Ok(());
    }
    let seconds = wait.as_secs() + 1;
    let message = format!("requests that were sent under this lease may be under way for {seconds} s more");
    Err(Problem::new(StatusCode::CONFLICT, "lease-in-use", message).with_fix(format!("try again in {seconds} s")))
}

fn released(repository: &RepositoryId, known: &Registration, mut value: Value, freed: Result<(), Error>) -> Value {
    value["repository"] = json!(repository.to_string());
    value["name"] = json!(known.name.as_str());
    value["free"] = json!(freed.is_ok());
    if let Err(error) = freed {
        let fix = error.fix().map(|fix| format!(": {fix}")).unwrap_or_default();
        value["message"] = json!(format!("{}{fix}", error.chain()));
    }
    value
}
