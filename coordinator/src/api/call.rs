//! One call: who makes it, and what it says. Nothing that is not declared for its route gets through.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, header};
use serde::de::DeserializeOwned;
use verger_proto::{Access, CycleId, RepositoryName, Tenant};

use super::gate::Gate;
use super::problem::Problem;
use super::route::Route;
use crate::auth::{Action, Actor, Reach, authorize, enter};

/// One call that came through the gate.
pub(super) struct Call {
    pub(super) route: &'static Route,
    /// Nobody in particular on routes that are open to all.
    pub(super) actor: Actor,
    pub(super) headers: HeaderMap,
    pub(super) path: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Bytes,
}

/// The token of a request. A header that is not one is no token.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

impl Call {
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.path.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The repository's name in the path. What cannot be a name is nobody's.
    pub(super) fn name(&self) -> Result<RepositoryName, Problem> {
        let text = self.parameter("name");
        RepositoryName::new(text).map_err(|_| Problem::not_found(format!("no repository is called {text:?}")))
    }

    /// The cycle's number in the path.
    pub(super) fn cycle(&self) -> Result<CycleId, Problem> {
        let text = self.parameter("id");
        text.parse().map(CycleId).map_err(|_| Problem::not_found(format!("no cycle has the number {text:?}")))
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Problem::bad_request(format!("{name}: {text:?} is not a number from 0 on")))
        };
        self.query(name).map(parse).transpose()
    }

    /// Each known query parameter at most once, and no other.
    pub(super) fn check_query(&self) -> Result<(), Problem> {
        for (index, (name, _)) in self.query.iter().enumerate() {
            if !self.route.query.iter().any(|(known, _, _)| known == name) {
                let known: Vec<_> = self.route.query.iter().map(|(known, _, _)| *known).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Problem::bad_request(format!("unknown query parameter {name:?}, expected {known}")));
            }
            if self.query.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(Problem::bad_request(format!("the query parameter {name} is there twice")));
            }
        }
        Ok(())
    }

    /// The body. Errors name the field, and never repeat what was given as a password.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let kind = self.header(&header::CONTENT_TYPE).unwrap_or("application/json");
        if !kind.trim_start().to_ascii_lowercase().starts_with("application/json") {
            return Err(Problem::bad_request(format!("the body must be application/json, not {kind}")));
        }
        let mut reader = serde_json::Deserializer::from_slice(&self.body);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            if path.split('.').next() == Some("password") {
                let shapes = "{\"env\": NAME}, {\"file\": PATH} or {\"mounted\": NAME}";
                return Problem::bad_request(format!("password: must be where it is, never itself: {shapes}"));
            }
            let place = if path == "." { String::new() } else { format!("{path}: ") };
            Problem::bad_request(format!("{place}{}", error.inner()))
        })?;
        reader.end().map_err(|error| Problem::bad_request(error.to_string()))?;
        Ok(value)
    }

    /// As [`Self::json`], where no body at all means the default.
    pub(super) fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body.is_empty() { Ok(T::default()) } else { self.json() }
    }

    /// Whether the caller sees what belongs to `tenant` (`None`: to nobody that is known). What they do not see does not exist for them.
    pub(super) fn sees(&self, tenant: Option<&str>) -> bool {
        // What has no tenant's name is seen by those who see everything, as what is nobody's.
        let tenant = tenant.and_then(|name| Tenant::new(name).ok());
        let action = self.route.action;
        action.reach() != Reach::Open && authorize(&self.actor, action, tenant.as_ref()).is_ok()
    }

    /// Whether the caller may do something else, too, to what they see.
    ///
    /// # Errors
    /// 403.
    pub(super) fn may(&self, action: Action, tenant: &str) -> Result<(), Problem> {
        let tenant = Tenant::new(tenant).ok();
        authorize(&self.actor, action, tenant.as_ref()).map_err(|denied| Problem::denied(&denied))
    }

    /// The tenant whose things alone the caller reaches, if it is one's.
    pub(super) fn own(&self) -> Option<&Tenant> {
        match &self.actor {
            Actor::Known { access: Access::One(own), .. } => Some(own),
            _ => None,
        }
    }

    /// Whether the caller would still come through: a token may expire or be taken back while somebody listens.
    pub(super) fn is_still_allowed(&self, gate: &dyn Gate) -> bool {
        gate.actor(bearer(&self.headers))
            .is_ok_and(|actor| actor == self.actor && enter(&actor, self.route.action).is_ok())
    }
}
