//! Speaks to a coordinator over `/v1`.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::blocking::{RequestBuilder, Response};
use serde_json::Value;
use verger_kopia::{Error, ErrorKind, Result};

use crate::config::token;

/// Where `verger up` listens if nobody says otherwise.
pub(crate) const ADDRESS_DEFAULT: &str = "http://127.0.0.1:7420";
/// How long a coordinator that does not answer yet is asked again.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
/// One answer; events that are followed come without end.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Coordinators of one fleet, and the right to ask them.
pub(crate) struct Client {
    places: Mutex<Places>,
    given: Option<String>,
    http: reqwest::blocking::Client,
}

/// Where coordinators are. Whichever answered last is asked first.
struct Places {
    all: Vec<Place>,
    at: usize,
}

#[derive(Clone)]
struct Place {
    base: String,
    /// The token that was left there for this user.
    kept: Option<PathBuf>,
}

impl Place {
    fn new(address: &str) -> Result<Self> {
        let base = address.trim().trim_end_matches('/').to_owned();
        let parsed = url::Url::parse(&base).map_err(|error| {
            Error::new(ErrorKind::Usage, format!("{address:?} is no address of a coordinator"))
                .with_source(error)
                .with_fix(format!("Give one such as {ADDRESS_DEFAULT} with --addr or VERGER_ADDR"))
        })?;
        Ok(Self { base, kept: token::path(&parsed) })
    }
}

impl Places {
    fn next(&mut self) {
        self.at = (self.at + 1) % self.all.len().max(1);
    }

    /// Where the leader is said to be is asked next.
    fn go_to(&mut self, address: &str) {
        let Ok(place) = Place::new(address) else { return self.next() };
        match self.all.iter().position(|known| known.base == place.base) {
            Some(at) => self.at = at,
            None => {
                self.all.push(place);
                self.at = self.all.len() - 1;
            }
        }
    }
}

impl Client {
    /// Of one address, or several with commas between them. Finds the token for each: what was given, else what was left for this
    /// user.
    ///
    /// # Errors
    /// `Usage` for an address that is none.
    pub(crate) fn new(addresses: &str, token: Option<String>) -> Result<Self> {
        let all = addresses.split(',').filter(|address| !address.trim().is_empty()).map(Place::new);
        let mut all = all.collect::<Result<Vec<_>>>()?;
        if all.is_empty() {
            all.push(Place::new(addresses)?);
        }
        let given = token.map(|token| token.trim().to_owned());
        let http = reqwest::blocking::Client::builder().timeout(None).build();
        let http = http.map_err(|error| Error::new(ErrorKind::Internal, "make an HTTP client").with_source(error))?;
        Ok(Self { places: Mutex::new(Places { all, at: 0 }), given, http })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> Place {
        let places = self.places();
        places.all[places.at].clone()
    }

    /// Read anew each time: a coordinator that is starting leaves its token right before it answers.
    fn token(&self) -> Option<String> {
        let kept = || Some(std::fs::read_to_string(self.place().kept?).ok()?.trim().to_owned());
        self.given.clone().or_else(kept)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.place().base));
        match self.token() {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// A document.
    ///
    /// # Errors
    /// What the coordinator says, with its kind; `StoreUnavailable` if it does not answer.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        document(self.send(|| self.request(Method::GET, path).timeout(TIMEOUT), true)?)
    }

    /// As [`Client::get`], sending a document. `key`: the same again is the same wish.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn send_document(&self, method: &Method, path: &str, body: &Value, key: Option<&str>) -> Result<Value> {
        let request = || {
            let request = self.request(method.clone(), path).timeout(TIMEOUT).json(body);
            match key {
                Some(key) => request.header("Idempotency-Key", key),
                None => request,
            }
        };
        // Without a key it may count twice.
        document(self.send(request, key.is_some())?)
    }

    /// Lines as they come.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) fn stream(&self, path: &str, accept: &str) -> Result<impl std::io::BufRead + use<>> {
        let response = self.send(|| self.request(Method::GET, path).header("Accept", accept), true)?;
        Ok(std::io::BufReader::new(refused(response)?))
    }

    /// A coordinator that is about to start is waited for, and so is an election: one after the other is asked.
    fn send(&self, request: impl Fn() -> RequestBuilder, is_repeatable: bool) -> Result<Response> {
        let (began, mut last) = (Instant::now(), None);
        loop {
            let (had_token, place) = (self.token().is_some(), self.place());
            let is_over = began.elapsed() >= PATIENCE;
            match request().send() {
                Ok(response) if response.status().as_u16() == 503 && !is_over => last = Some(self.go_on(response)),
                // Asked while the coordinator was starting, and before there was one.
                Ok(response) if response.status().as_u16() == 401 && !had_token && self.token().is_some() => {}
                Ok(response) => return Ok(response),
                Err(error) if (error.is_connect() || is_repeatable && !error.is_timeout()) && !is_over => {
                    self.places().next();
                }
                Err(error) => return Err(self.unanswered(&place.base, error, last)),
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Somebody answers, and cannot take it now: the next, or whoever is said to lead. What it said.
    fn go_on(&self, response: Response) -> String {
        let body: Value = response.json().unwrap_or(Value::Null);
        match body["leaderAddress"].as_str() {
            Some(leader) => self.places().go_to(leader),
            None => self.places().next(),
        }
        body["message"].as_str().unwrap_or("it is not ready").to_owned()
    }

    fn unanswered(&self, base: &str, error: reqwest::Error, last: Option<String>) -> Error {
        let bases: Vec<String> = self.places().all.iter().map(|place| place.base.clone()).collect();
        let step = match (bases.len(), last) {
            (_, Some(said)) => format!("nobody leads at {}: {said}", bases.join(", ")),
            (1, None) => format!("the coordinator at {base} does not answer"),
            (_, None) => format!("no coordinator answers at {}", bases.join(", ")),
        };
        let fix = "Start one (verger up --data-dir DIR), or say where it is: --addr or VERGER_ADDR";
        Error::new(ErrorKind::StoreUnavailable, step).with_source(error.without_url()).with_fix(fix)
    }
}

fn refused(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body: Value = response.json().unwrap_or(Value::Null);
    let said = body["message"].as_str().map_or_else(|| format!("the coordinator answered {status}"), str::to_owned);
    let kind = body["error"].as_str().and_then(kind_of).unwrap_or(match status.as_u16() {
        401 | 403 => ErrorKind::Permission,
        404 => ErrorKind::NotFound,
        400 | 413 | 422 => ErrorKind::Usage,
        409 => ErrorKind::PlanRefused,
        503 | 504 => ErrorKind::StoreUnavailable,
        _ => ErrorKind::Internal,
    });
    let error = Error::new(kind, said);
    Err(match (body["fix"].as_str(), status.as_u16()) {
        (Some(fix), _) => error.with_fix(fix),
        (None, 401) => {
            error.with_fix("Give a token with --token-file or VERGER_TOKEN; `verger up` leaves one for its own user")
        }
        (None, 503) => error.with_fix(
            "A majority of the coordinators has to run: start the others (`verger cluster status` shows which there are)",
        ),
        _ => error,
    })
}

fn document(response: Response) -> Result<Value> {
    let response = refused(response)?;
    if response.status().as_u16() == 204 {
        return Ok(Value::Null);
    }
    response.json().map_err(|error| {
        Error::new(ErrorKind::StoreUnavailable, "read the coordinator's answer").with_source(error.without_url())
    })
}

/// A kind by its name on the wire.
pub(crate) fn kind_of(text: &str) -> Option<ErrorKind> {
    let kind: verger_proto::FailureKind = serde_json::from_value(Value::String(text.to_owned())).ok()?;
    Some(verger_worker::run::error_kind(kind))
}
