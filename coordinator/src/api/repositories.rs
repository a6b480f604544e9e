//! Repositories: added after a look at them, changed, forgotten.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use verger_kopia::error::ErrorKind;
use verger_kopia::storage::address::Address;
use verger_proto::{
    Acting, Command, MarkToDrop, Own, Registration, RegistrationChange, RepositoryId, RepositoryName, SecretRef,
    StoreProbe, Tenant,
};

use super::call::Call;
use super::hands::{Probed, Wanted};
use super::health::{json_answer, ok};
use super::plans::PlanBody;
use super::problem::Problem;
use super::server::{Answer, Server};
use super::{show, store};
use crate::auth::Action;
use crate::machine::{Repository, State};

/// Longest address, owner, or place of a secret, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;
/// Whose a repository is if nobody says.
const TENANT: &str = "default";

#[derive(Deserialize)]
enum ActingBody {
    #[serde(rename = "observe")]
    Observe,
    #[serde(rename = "take-ownership")]
    TakeOwnership,
    #[serde(rename = "actAs")]
    ActAs(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AddBody {
    name: String,
    address: String,
    password: SecretRef,
    acting: ActingBody,
    #[serde(default)]
    exclusive: bool,
    tenant: Option<String>,
    schedule: Option<Map<String, Value>>,
    pool: Option<String>,
    weight: Option<u32>,
    mark_to_drop: Option<MarkToDrop>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ChangeBody {
    suspended: Option<bool>,
    acting: Option<ActingBody>,
    exclusive: Option<bool>,
    password: Option<SecretRef>,
    schedule: Option<Map<String, Value>>,
    pool: Option<String>,
    weight: Option<u32>,
    mark_to_drop: Option<MarkToDrop>,
}

impl ActingBody {
    fn checked(self) -> Result<Acting, Problem> {
        match self {
            Self::Observe => Ok(Acting::Observe),
            Self::TakeOwnership => Ok(Acting::TakeOwnership),
            Self::ActAs(owner) => {
                let parts = owner.split_once('@').filter(|(user, host)| !user.is_empty() && !host.is_empty());
                let fits = owner.len() <= TEXT_BYTES_MAX && !owner.chars().any(|c| c.is_control() || c.is_whitespace());
                match parts {
                    Some(_) if fits => Ok(Acting::ActAs(owner)),
                    _ => Err(Problem::bad_request("acting.actAs: must be an owner, user@host")),
                }
            }
        }
    }
}

/// The caller's own tenant if nobody says, where there is one.
fn checked_tenant(call: &Call, given: Option<String>) -> Result<String, Problem> {
    let own = || call.own().map_or(TENANT, Tenant::as_str).to_owned();
    let tenant = Tenant::new(given.unwrap_or_else(own));
    let tenant = tenant.map_err(|bad| Problem::bad_request(format!("tenant: {bad}")))?;
    call.may(Action::RepoAdd, tenant.as_str())?;
    Ok(tenant.as_str().to_owned())
}

/// Where a secret is, if it may be there. The workers of all tenants see the same variables and files, so that the administrator of one
/// tenant may name only what is mounted in that tenant's name: whoever could name another's password could use it.
fn checked_secret(call: &Call, secret: SecretRef) -> Result<SecretRef, Problem> {
    let secret = well_formed(secret)?;
    let Some(own) = call.own() else { return Ok(secret) };
    let is_own = |name: &str| name.strip_prefix(own.as_str()).is_some_and(|rest| rest.starts_with('.'));
    match &secret {
        SecretRef::Mounted(name) if is_own(name) => Ok(secret),
        _ => {
            let message = format!("password: the secrets of the tenant {own} are those mounted as {own}.NAME");
            Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", message)
                .with_fix("have it mounted so, or ask an administrator of all tenants to add the repository"))
        }
    }
}

fn well_formed(secret: SecretRef) -> Result<SecretRef, Problem> {
    let (SecretRef::Env(place) | SecretRef::File(place) | SecretRef::Mounted(place)) = &secret;
    let plain = !place.is_empty() && place.len() <= TEXT_BYTES_MAX && !place.chars().any(char::is_control);
    let fits = match &secret {
        SecretRef::Env(name) => !name.contains('='),
        SecretRef::File(path) => path.starts_with('/'),
        // The name of a file in the folder, never a way out of it.
        SecretRef::Mounted(name) => !name.contains('/') && !name.starts_with('.'),
    };
    if plain && fits {
        return Ok(secret);
    }
    let shapes = "env: a variable's name, file: a whole path, mounted: the name of a file";
    Err(Problem::bad_request(format!("password: this cannot be where it is ({shapes})")))
}

/// Addresses are kept and shown, so none with a secret gets in. What is refused is not repeated: it may hold one.
fn checked_address(text: &str) -> Result<String, Problem> {
    let rest = text.split_once("://").map(|(scheme, rest)| (scheme, rest.split('/').next().unwrap_or_default()));
    let has_secret =
        rest.is_some_and(|(scheme, host)| scheme != "filesystem" && (host.contains('@') || text.contains('?')));
    if has_secret || text.len() > TEXT_BYTES_MAX {
        return Err(Problem::bad_request("address: must be a place alone, without user, password or parameters"));
    }
    let address: Address = text.parse().map_err(|error: verger_kopia::error::Error| {
        Problem::bad_request(format!("address: {}", error.chain())).fixed_as(&error)
    })?;
    match address {
        Address::Filesystem(path) if !path.is_absolute() => {
            Err(Problem::bad_request("address: must be a whole path; the server is somewhere else than you"))
        }
        address => Ok(address.to_string()),
    }
}

fn checked_name(field: &str, text: &str) -> Result<RepositoryName, Problem> {
    RepositoryName::new(text).map_err(|_| {
        let shape = "1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit";
        Problem::bad_request(format!("{field}: must be {shape}"))
    })
}

/// The repository under this name, if the caller may see it.
pub(super) fn find(server: &Server, call: &Call) -> Result<(RepositoryId, Registration), Problem> {
    find_named(server, call, &call.name()?)
}

pub(super) fn find_named(
    server: &Server,
    call: &Call,
    name: &RepositoryName,
) -> Result<(RepositoryId, Registration), Problem> {
    let found = server.state(|state| {
        let (id, entry) = state.named(name)?;
        Some((id.clone(), entry.registration.clone()?))
    });
    let seen = found.filter(|(_, registration)| call.sees(Some(&registration.tenant)));
    seen.ok_or_else(|| Problem::not_found(format!("no repository is called {:?}", name.as_str())))
}

fn probe(server: &Server, wanted: &Wanted) -> Result<Probed, Problem> {
    let Ok(_permit) = server.probes.try_acquire() else {
        return Err(Problem::later("busy", "as many repositories as may be are being looked at now"));
    };
    server.api.hands.probe(wanted).map_err(|error| {
        let message = match error.kind() {
            ErrorKind::WrongPassword => {
                format!("the password in {} does not open the repository", wanted.password.place())
            }
            _ => error.chain(),
        };
        Problem::not_probed(&error, message)
    })
}

fn wanted(id: &RepositoryId, known: &Registration) -> Wanted {
    Wanted {
        known: Some(id.clone()),
        name: known.name.clone(),
        address: known.address.clone(),
        password: known.password.clone(),
        acting: known.acting.clone(),
        exclusive: known.exclusive,
    }
}

pub(super) fn shown(server: &Server, id: &RepositoryId) -> Result<Value, Problem> {
    let now = server.now();
    let found = server.state(|state| show::repository(state, id, state.repositories.get(id)?, now));
    found.ok_or_else(|| Problem::not_found("this repository is not looked after any more"))
}

pub(super) fn add(server: &Arc<Server>, call: Call) -> Answer {
    let body: AddBody = call.json()?;
    let name = checked_name("name", &body.name)?;
    let tenant = checked_tenant(&call, body.tenant)?;
    let (password, acting) = (checked_secret(&call, body.password)?, body.acting.checked()?);
    let AddBody { schedule, pool, weight, mark_to_drop, .. } = body;
    let plan = PlanBody { schedule, pool, weight, mark_to_drop }.of_new(server.now())?;
    let (address, exclusive) = (checked_address(&body.address)?, body.exclusive);
    let known = server.state(|state| at_address(state, &address));
    let wanted = Wanted { name, address, password, acting, exclusive, known };
    server.check_leads()?;
    let probed = probe(server, &wanted)?;
    check_store(&probed, &wanted)?;
    let when = (probed.own, server.now());
    store::check_versions(&probed.store, &plan.schedule, when)?;
    let warnings = store::warnings(&probed.store, wanted.exclusive, &plan.schedule, when);
    let registration = Registration {
        name: wanted.name,
        address: wanted.address,
        tenant,
        password: wanted.password,
        acting: wanted.acting,
        exclusive: wanted.exclusive,
        index: probed.index,
        schedule: plan.schedule,
        pool: plan.pool,
        weight: plan.weight,
        mark_to_drop: plan.mark_to_drop,
    };
    let (repository, registration) = (probed.repository.clone(), Box::new(registration));
    let added = server.order(&call.actor, Command::AddRepository { repository, registration });
    added.map_err(|problem| hide_others(server, &call, &probed.repository, problem))?;
    keep_probe(server, &call, &probed)?;
    keep_lease(server, &call, &probed)?;
    looked(server, &call, &probed)?;
    let mut value = shown(server, &probed.repository)?;
    value["probe"] = found(&probed, &warnings);
    Ok(json_answer(StatusCode::CREATED, &value))
}

/// What is looked after at this address already: asked again, it is the same.
fn at_address(state: &State, address: &str) -> Option<RepositoryId> {
    let is_there = |entry: &Repository| entry.registration.as_ref().is_some_and(|known| known.address == address);
    state.repositories.iter().find(|(_, entry)| is_there(entry)).map(|(id, _)| id.clone())
}

/// Keeps what the look says of when cycles are due.
fn looked(server: &Server, call: &Call, probed: &Probed) -> Result<(), Problem> {
    let (repository, Some(own)) = (probed.repository.clone(), probed.own) else { return Ok(()) };
    let known = server.state(|state| state.repositories.get(&repository).and_then(|entry| entry.calendar.own));
    if known != Some(own) {
        server.order(&call.actor, Command::RecordLook { repository, own, margins: None })?;
    }
    Ok(())
}

/// That a repository is looked after already is no secret from whoever can open it; another tenant's name for it is.
fn hide_others(server: &Server, call: &Call, repository: &RepositoryId, problem: Problem) -> Problem {
    let tenant = server.state(|state| {
        let entry = state.repositories.get(repository)?;
        entry.registration.as_ref().map(|known| known.tenant.clone())
    });
    if problem.kind() != "already-added" || call.sees(tenant.as_deref()) {
        return problem;
    }
    Problem::new(StatusCode::CONFLICT, "already-added", "this repository is looked after already")
}

fn found(probed: &Probed, warnings: &[String]) -> Value {
    json!({ "owner": probed.owner, "capabilities": store::shown(&probed.store), "warnings": warnings })
}

fn check_store(probed: &Probed, wanted: &Wanted) -> Result<(), Problem> {
    let checked = crate::store::check(&probed.store, &wanted.address, wanted.exclusive);
    checked.map_err(|error| Problem::not_probed(&error, error.chain()))
}

/// Keeps what was seen of the store: cycles go by it.
fn keep_probe(server: &Server, call: &Call, probed: &Probed) -> Result<(), Problem> {
    let (repository, probe) = (probed.repository.clone(), Box::new(probed.store.clone()));
    server.order(&call.actor, Command::RecordProbe { repository, probe }).map(drop)
}

/// Keeps what its lease object says of another holder, for people: in a cluster that is being upgraded it has to wait.
fn keep_lease(server: &Server, call: &Call, probed: &Probed) -> Result<(), Problem> {
    let Some(lease) = probed.lease.clone().filter(|lease| lease.holder != server.api.stand.fleet()) else {
        return Ok(());
    };
    let (repository, lease) = (probed.repository.clone(), Box::new(lease));
    match server.order(&call.actor, Command::NoteLease { repository, lease }) {
        Err(problem) if problem.kind() != ErrorKind::UpgradeInProgress.name() => Err(problem),
        _ => Ok(()),
    }
}

pub(super) fn list(server: &Arc<Server>, call: Call) -> Answer {
    let now = server.now();
    let all: Vec<(String, String, Value)> = server.state(|state| {
        let shown = |(id, entry): (_, &Repository)| {
            let value = show::repository(state, id, entry, now)?;
            let known = entry.registration.as_ref()?;
            Some((known.name.to_string(), known.tenant.clone(), value))
        };
        state.repositories.iter().filter_map(shown).collect()
    });
    let mut seen: Vec<_> = all.into_iter().filter(|(_, tenant, _)| call.sees(Some(tenant))).collect();
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    ok(&Value::Array(seen.into_iter().map(|(_, _, value)| value).collect()))
}

pub(super) fn get(server: &Arc<Server>, call: Call) -> Answer {
    let (id, _) = find(server, &call)?;
    ok(&shown(server, &id)?)
}

pub(super) fn change(server: &Arc<Server>, call: Call) -> Answer {
    let (repository, known) = find(server, &call)?;
    let body: ChangeBody = call.json()?;
    // Whatever is wrong with any of it, nothing is changed.
    let ChangeBody { schedule, pool, weight, mark_to_drop, .. } = body;
    let plan = PlanBody { schedule, pool, weight, mark_to_drop }.changes(&known.schedule, server.now())?;
    let changes = [
        body.suspended.map(RegistrationChange::Suspended),
        body.exclusive.map(RegistrationChange::Exclusive),
        body.acting.map(ActingBody::checked).transpose()?.map(RegistrationChange::Acting),
        body.password.map(|secret| checked_secret(&call, secret)).transpose()?.map(RegistrationChange::Password),
    ];
    if let Some((probe, own)) = server.state(|state| state.repositories.get(&repository).and_then(seen)) {
        for change in &plan {
            if let RegistrationChange::Schedule(schedule) = change {
                store::check_versions(&probe, schedule, (own, server.now()))?;
            }
        }
    }
    for change in plan.into_iter().chain(changes.into_iter().flatten()) {
        server.order(&call.actor, Command::ChangeRepository { repository: repository.clone(), change })?;
    }
    ok(&shown(server, &repository)?)
}

/// What was seen of its store, and its own settings.
fn seen(entry: &Repository) -> Option<(StoreProbe, Option<Own>)> {
    entry.store.as_ref().map(|(probe, _)| (probe.clone(), entry.calendar.own))
}

pub(super) fn remove(server: &Arc<Server>, call: Call) -> Answer {
    let (repository, _) = find(server, &call)?;
    let value = shown(server, &repository)?;
    server.order(&call.actor, Command::RemoveRepository { repository })?;
    ok(&value)
}

/// Whether it is the same repository still, of which another fleet said meanwhile which store it lies in: the machine knows whether that
/// can be. An earlier answer may have been lost.
fn is_identified(server: &Server, call: &Call, repository: &RepositoryId, probed: &Probed) -> bool {
    let (before, store) = (repository.clone(), probed.repository.store.clone());
    let is_same = before.unique == probed.repository.unique;
    is_same && server.order(&call.actor, Command::IdentifyStore { repository: before, store }).is_ok()
}

/// Looks again. What has another identity than it had is another repository, whatever its address says (R6).
pub(super) fn probe_again(server: &Arc<Server>, call: Call) -> Answer {
    let (repository, known) = find(server, &call)?;
    let probed = probe(server, &wanted(&repository, &known))?;
    if probed.repository != repository && !is_identified(server, &call, &repository, &probed) {
        let message = format!("another repository lies at {} now: {}", known.address, probed.repository);
        let fix = "remove it here and add it again, if that is meant";
        return Err(Problem::new(StatusCode::CONFLICT, "other-repository", message).with_fix(fix));
    }
    let repository = probed.repository.clone();
    if probed.index != known.index {
        let change = RegistrationChange::Index(probed.index);
        server.order(&call.actor, Command::ChangeRepository { repository: repository.clone(), change })?;
    }
    // Kept also if it is bad: no cycle may go by what was seen before.
    keep_probe(server, &call, &probed)?;
    keep_lease(server, &call, &probed)?;
    check_store(&probed, &wanted(&repository, &known))?;
    looked(server, &call, &probed)?;
    let warnings = store::warnings(&probed.store, known.exclusive, &known.schedule, (probed.own, server.now()));
    ok(&json!({
        "name": known.name.as_str(),
        "id": repository.to_string(),
        "index": show::index_name(probed.index),
        "owner": probed.owner,
        "capabilities": store::shown(&probed.store),
        "warnings": warnings,
    }))
}
