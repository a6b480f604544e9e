//! Leases that this fleet holds.

use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};
use verger_proto::{Acting, Command};

use super::call::Call;
use super::health::ok;
use super::problem::Problem;
use super::repositories::find;
use super::server::{Answer, Server};
use super::show;
use crate::machine::Phase;

pub(super) fn list(server: &Arc<Server>, call: Call) -> Answer {
    let fleet = server.api.stand.fleet();
    let mut all: Vec<(String, String, Value)> = server.state(|state| {
        let shown = |(id, entry): (&verger_proto::RepositoryId, &crate::machine::Repository)| {
            let (lease, known) = (entry.lease?, entry.registration.as_ref()?);
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

/// First the machine lets go, so that nothing is approved any more; then the object says so (R4). In the other order somebody else
/// could begin while a batch of ours is under way.
pub(super) fn release(server: &Arc<Server>, call: Call) -> Answer {
    let (repository, known) = find(server, &call)?;
    let (term, at_work) = server.state(|state| {
        let entry = state.repositories.get(&repository);
        let term = entry.and_then(|entry| entry.lease).map(|lease| lease.term);
        let open = state.open_cycle(&repository).filter(|cycle| !cycle.options.dry_run);
        (term, open.filter(|cycle| cycle.phase != Phase::Parked || cycle.has_outstanding()).map(|cycle| cycle.id))
    });
    let no_lease = || Problem::refused(&verger_proto::Refusal::NoLease);
    let term = term.ok_or_else(no_lease)?;
    if let Some(cycle) = at_work {
        let message = format!("cycle {cycle} works under this lease, or may not have left everything as it should be");
        let problem = Problem::new(StatusCode::CONFLICT, "lease-in-use", message);
        return Err(problem.with_fix(format!(
            "pause or abort cycle {cycle} first; or resume it, so that it looks at its last batch"
        )));
    }
    server.order(&call.actor, Command::ReleaseLease { repository: repository.clone(), term })?;
    let freed = server.api.hands.free_lease(&repository, term);
    let mut value = json!({
        "repository": repository.to_string(),
        "name": known.name.as_str(),
        "term": term.0,
        "free": freed.is_ok(),
    });
    if let Err(error) = freed {
        let fix = error.fix().map(|fix| format!(": {fix}")).unwrap_or_default();
        value["message"] = json!(format!("{}{fix}", error.chain()));
    }
    ok(&value)
}
