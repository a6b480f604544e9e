//! Tokens: made, listed, taken back. The token itself is in one answer, once.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use rand::Rng as _;
use serde::Deserialize;
use serde_json::{Value, json};
use verger_proto::{Access, Command, LogTime, Scopes, Tenant, TokenGrant};

use super::call::Call;
use super::health::{json_answer, ok};
use super::problem::Problem;
use super::server::{Answer, Server};
use super::show;
use crate::auth::{Action, Bearer, TOKEN_BYTES, Token, authorize_token};

/// Longest life that can be asked for, in seconds: a hundred years. Longer is a mistake in the unit.
const LIFE_SECONDS_MAX: u64 = 100 * 366 * 86_400;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TokenBody {
    name: String,
    scopes: Vec<String>,
    tenant: Option<String>,
    #[serde(default)]
    all_tenants: bool,
    expires_in_seconds: Option<u64>,
}

fn shown(token: &Token, now: LogTime) -> Value {
    let state = match token.revoked {
        Some(_) => "revoked",
        None if token.is_over(now) => "expired",
        None => "valid",
    };
    let tenant = match &token.access {
        Access::One(tenant) => Some(tenant.as_str()),
        Access::All => None,
    };
    let mut value = json!({
        "name": token.name,
        "scopes": show::plain(&token.scopes),
        "allTenants": tenant.is_none(),
        "createdAt": show::at(token.created),
        "state": state,
    });
    let others = [("expiresAt", token.expires.map(show::at)), ("revokedAt", token.revoked.map(show::at))];
    for (name, field) in others.into_iter().chain([("tenant", tenant.map(Value::from))]) {
        if let Some(field) = field {
            value[name] = field;
        }
    }
    value
}

/// Whose things the token reaches: the caller's own tenant's if nobody says, where there is one.
fn access(call: &Call, body: &TokenBody) -> Result<Access, Problem> {
    match (&body.tenant, body.all_tenants) {
        (Some(_), true) => Err(Problem::bad_request("tenant: it is for one tenant or for all, not both")),
        (Some(name), false) => {
            Tenant::new(name.as_str()).map(Access::One).map_err(|bad| Problem::bad_request(format!("tenant: {bad}")))
        }
        (None, true) => Ok(Access::All),
        (None, false) => match call.own() {
            Some(own) => Ok(Access::One(own.clone())),
            None => Err(Problem::bad_request("tenant: say for which tenant it is (tenant), or for all (allTenants)")),
        },
    }
}

fn expires(server: &Server, body: &TokenBody) -> Result<Option<LogTime>, Problem> {
    let Some(seconds) = body.expires_in_seconds else { return Ok(None) };
    if seconds == 0 || seconds > LIFE_SECONDS_MAX {
        return Err(Problem::bad_request("expiresInSeconds: must be 1 or more, and a hundred years at most"));
    }
    Ok(Some(server.now().plus(seconds.saturating_mul(1_000))))
}

pub(super) fn create(server: &Arc<Server>, call: Call) -> Answer {
    let body: TokenBody = call.json()?;
    let access = access(&call, &body)?;
    authorize_token(&call.actor, Action::TokenCreate, &access).map_err(|denied| Problem::denied(&denied))?;
    let scopes = body.scopes.iter().map(|text| text.parse()).collect::<Result<Vec<_>, String>>();
    let scopes = Scopes::of(&scopes.map_err(|error| Problem::bad_request(format!("scopes: {error}")))?);
    let expires = expires(server, &body)?;
    let bearer = Bearer::from_bytes(rand::rng().random::<[u8; TOKEN_BYTES]>());
    let grant = TokenGrant { name: body.name.clone(), access, scopes, expires, hash: bearer.hash() };
    server.order(&call.actor, Command::CreateToken { grant: Box::new(grant) })?;
    let at = server.now();
    let kept = server.state(|state| state.tokens.named(&body.name).map(|token| shown(token, at)));
    let mut value = kept.ok_or_else(|| Problem::not_found("the token was taken back already"))?;
    value["token"] = Value::from(bearer.text().as_str());
    let mut response = json_answer(StatusCode::CREATED, &value);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

pub(super) fn list(server: &Arc<Server>, call: Call) -> Answer {
    let at = server.now();
    let all: Vec<Value> = server.state(|state| {
        let seen = |token: &&Token| authorize_token(&call.actor, Action::TokenList, &token.access).is_ok();
        state.tokens.iter().filter(seen).map(|token| shown(token, at)).collect()
    });
    ok(&Value::Array(all))
}

pub(super) fn revoke(server: &Arc<Server>, call: Call) -> Answer {
    let name = call.parameter("name").to_owned();
    let missing = || Problem::not_found(format!("there is no token named {name:?}"));
    let access = server.state(|state| state.tokens.named(&name).map(|token| token.access.clone()));
    let access = access.filter(|access| authorize_token(&call.actor, Action::TokenRevoke, access).is_ok());
    access.ok_or_else(missing)?;
    server.order(&call.actor, Command::RevokeToken { name: name.clone() })?;
    let at = server.now();
    ok(&server.state(|state| state.tokens.named(&name).map(|token| shown(token, at))).ok_or_else(missing)?)
}
