//! Whether it lives, whether it takes commands, and what there is.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::call::Call;
use super::problem::Problem;
use super::server::{Answer, Server};
use super::{Standing, metrics, openapi};
use crate::page::CONTENT_TYPE;

/// An answer with a JSON body.
pub(super) fn json_answer(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn ok(value: &Value) -> Answer {
    Ok(json_answer(StatusCode::OK, value))
}

pub(super) fn healthz(_: &Arc<Server>, _: Call) -> Answer {
    ok(&json!({ "status": "alive" }))
}

pub(super) fn readyz(server: &Arc<Server>, _: Call) -> Answer {
    server.check_leads()?;
    if let Some(trouble) = server.trouble() {
        return Err(Problem::later("not-ready", trouble));
    }
    ok(&json!({ "status": "ready" }))
}

pub(super) fn document(_: &Arc<Server>, _: Call) -> Answer {
    ok(&openapi::document())
}

pub(super) fn metrics(server: &Arc<Server>, _: Call) -> Answer {
    let mut response = Response::new(Body::from(metrics::text(server)?));
    let kind = HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

pub(super) fn status(server: &Arc<Server>, call: Call) -> Answer {
    let standing = server.api.stand.standing();
    let (repositories, open) = server.state(|state| {
        let tenant =
            |id| state.repositories.get(id).and_then(|entry| entry.registration.as_ref()).map(|r| r.tenant.clone());
        let registered = state.repositories.iter().filter(|(_, entry)| entry.registration.is_some());
        let repositories: Vec<_> = registered.map(|(id, _)| tenant(id)).collect();
        let open: Vec<_> = state.cycles.values().map(|cycle| tenant(&cycle.repository)).collect();
        (repositories, open)
    });
    let count = |tenants: Vec<Option<String>>| tenants.iter().filter(|tenant| call.sees(tenant.as_deref())).count();
    let (repositories, open) = (count(repositories), count(open));
    let leader = standing == Standing::Leads;
    let mut value = json!({
        "version": server.api.version,
        "fleet": server.api.stand.fleet(),
        "leader": leader,
        "repositories": repositories,
        "openCycles": open,
    });
    if let Standing::Follows { leader: Some(address) } | Standing::HandsOn { leader: Some(address) } = standing {
        value["leaderAddress"] = Value::String(address);
    }
    ok(&value)
}
