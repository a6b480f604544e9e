//! What a call that fails gets: a kind, what and why, and the fix.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value};
use verger_kopia::error::{Error, ErrorKind};
use verger_proto::{Event, Refusal};

use crate::auth::Denied;

/// Seconds after which a client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A call that fails.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: String,
    message: String,
    fix: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    leader: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: impl Into<String>, message: impl Into<String>) -> Self {
        let (fix, headers, leader) = (None, Vec::new(), None);
        let inner = Inner { kind: kind.into(), message: message.into(), fix, headers, leader };
        Self { status, inner: Box::new(inner) }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// Nothing was done, and it may be done soon.
    pub(super) fn later(kind: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, message).with_header(header::RETRY_AFTER, RETRY_AFTER)
    }

    pub(super) fn not_leader(leader: Option<String>) -> Self {
        let message = "another process of this fleet takes commands now";
        let fix = leader.as_ref().map(|leader| format!("ask {leader}"));
        let mut problem = Self::later("not-leader", message);
        (problem.inner.leader, problem.inner.fix) = (leader, fix);
        problem
    }

    pub(super) fn kind(&self) -> &str {
        &self.inner.kind
    }

    pub(super) fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.inner.fix = Some(fix.into());
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.inner.headers.push((name, value));
        self
    }

    pub(super) fn denied(denied: &Denied) -> Self {
        let text = denied.to_string();
        // What helps stands after it in the same message.
        let (message, fix) = text.split_once("; ").map_or((text.as_str(), None), |(what, fix)| (what, Some(fix)));
        let problem = if denied.status() == 401 {
            Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
                .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        } else {
            Self::new(StatusCode::FORBIDDEN, "forbidden", message)
        };
        match fix {
            Some(fix) => problem.with_fix(fix),
            None => problem,
        }
    }

    pub(super) fn refused(refusal: &Refusal) -> Self {
        let status = match refusal {
            Refusal::Percentage(_) | Refusal::NotAlone | Refusal::Token(_) => StatusCode::BAD_REQUEST,
            Refusal::UnknownRepository
            | Refusal::UnknownRequest
            | Refusal::UnknownCycle
            | Refusal::UnknownToken(_)
            | Refusal::UnknownWorker => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, refusal_kind(refusal), refusal.to_string())
    }

    /// The machine's refusal among the events of a command, if it refused.
    pub(super) fn among(events: &[Event]) -> Result<(), Self> {
        let refusal = events.iter().find_map(|event| match event {
            Event::CommandRefused { reason, .. } => Some(reason),
            _ => None,
        });
        refusal.map_or(Ok(()), |refusal| Err(Self::refused(refusal)))
    }

    /// A command was not kept.
    pub(super) fn not_kept(error: &Error) -> Self {
        let problem = match error.kind() {
            ErrorKind::Internal | ErrorKind::Damaged => Self::internal(error.chain()),
            kind @ ErrorKind::UpgradeInProgress => Self::new(StatusCode::CONFLICT, kind.name(), error.chain()),
            kind => Self::later(kind.name(), error.chain()),
        };
        problem.fixed_as(error)
    }

    /// A repository could not be looked at.
    pub(super) fn not_probed(error: &Error, message: String) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.kind().name(), message).fixed_as(error)
    }

    pub(super) fn fixed_as(mut self, error: &Error) -> Self {
        if let Some(fix) = error.fix() {
            self.inner.fix = Some(fix.to_owned());
        }
        self
    }

    pub(super) fn answer(self) -> Response {
        let Inner { kind, message, fix, headers, leader } = *self.inner;
        let mut body = Map::new();
        body.insert("error".to_owned(), Value::String(kind));
        body.insert("message".to_owned(), Value::String(message));
        let others = [("fix", fix), ("leaderAddress", leader)];
        for (key, text) in others {
            text.map(|text| body.insert(key.to_owned(), Value::String(text)));
        }
        let mut response = Response::new(Body::from(Value::Object(body).to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// `no-lease`: as records have it.
pub(super) fn refusal_kind(refusal: &Refusal) -> String {
    match serde_json::to_value(refusal) {
        Ok(Value::String(kind)) => kind,
        Ok(Value::Object(fields)) => fields.keys().next().cloned().unwrap_or_default(),
        _ => "refused".to_owned(),
    }
}
