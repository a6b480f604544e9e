//! Speaks to a coordinator over `/v1`.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::blocking::{RequestBuilder, Response};
use serde_json::Value;
use verger_kopia::{Error, ErrorKind, Result};

use crate::cli::Trust;
use crate::config::token;

/// Where `verger up` listens if nobody says otherwise.
pub(crate) const ADDRESS_DEFAULT: &str = "http://127.0.0.1:7420";
/// How long a coordinator that does not answer yet is asked again.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
/// One answer; events that are followed come without end.
const TIMEOUT: Duration = Duration::from_secs(40);
/// What may be lost is not waited for longer.
const BRIEFLY: Duration = Duration::from_secs(2);

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
        let address = address.trim();
        let kept = token::path(&self::address(address)?);
        Ok(Self { base: address.trim_end_matches('/').to_owned(), kept })
    }
}

impl Places {
    fn next(&mut self) {
        self.at = (self.at + 1) % self.all.len().max(1);
    }

    /// Where the leader is said to be is asked next, if it is one of these: a token goes nowhere but where its holder sends it.
    fn go_to(&mut self, address: &str) {
        let base = address.trim_end_matches('/');
        match self.all.iter().position(|known| known.base == base) {
            Some(at) => self.at = at,
            None => self.next(),
        }
    }
}

impl Client {
    /// Of one address, or several with commas between them. Finds the token for each: what was given, else what was left for this
    /// user.
    ///
    /// # Errors
    /// `Usage` for an address that is none, or files of certificates that are none.
    pub(crate) fn new(addresses: &str, token: Option<String>, trust: &Trust) -> Result<Self> {
        let all = addresses.split(',').filter(|address| !address.trim().is_empty()).map(Place::new);
        let mut all = all.collect::<Result<Vec<_>>>()?;
        if all.is_empty() {
            all.push(Place::new(addresses)?);
        }
        let given = token.map(|token| token.trim().to_owned());
        // A token goes nowhere but to the addresses that were given: a coordinator leads nobody elsewhere.
        let builder = reqwest::blocking::Client::builder().timeout(None).redirect(reqwest::redirect::Policy::none());
        let http = trusting(builder, trust)?.build();
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

    /// A record for a record; `None`: there is nothing. `is_repeatable`: said twice, it counts once.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) fn record(
        &self,
        method: &Method,
        path: &str,
        body: Option<&[u8]>,
        is_repeatable: bool,
    ) -> Result<Option<Vec<u8>>> {
        let request = || {
            let request = self.request(method.clone(), path).timeout(TIMEOUT);
            match body {
                Some(body) => with_record(request, body),
                None => request,
            }
        };
        let response = refused(self.send(request, is_repeatable)?)?;
        if response.status().as_u16() == 204 {
            return Ok(None);
        }
        let bytes = response.bytes().map_err(|error| {
            Error::new(ErrorKind::StoreUnavailable, "read the coordinator's answer").with_source(error.without_url())
        })?;
        Ok(Some(bytes.to_vec()))
    }

    /// Says a record once, and soon gives up: nothing is lost with it. One who does not lead, or is not there, is
    /// not asked again.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) fn record_once(&self, path: &str, body: &[u8]) -> Result<()> {
        let request = self.request(Method::POST, path).timeout(BRIEFLY);
        let base = self.place().base;
        match with_record(request, body).send() {
            Ok(response) if response.status().as_u16() == 503 => {
                Err(Error::new(ErrorKind::StoreUnavailable, format!("{base} does not lead: {}", self.go_on(response))))
            }
            Ok(response) => refused(response).map(drop),
            Err(error) => {
                if error.is_connect() {
                    self.places().next();
                }
                Err(self.unanswered(&base, error, None))
            }
        }
    }

    /// Lines as they come.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) fn stream(&self, path: &str, accept: &str) -> Result<impl std::io::BufRead + use<>> {
        let response = self.send(|| self.request(Method::GET, path).header("Accept", accept), true)?;
        Ok(std::io::BufReader::new(refused(response)?))
    }

    /// One of the two ends does not believe the other.
    fn distrust(base: &str, tls: &rustls::Error) -> Error {
        let (step, fix) = match tls {
            rustls::Error::AlertReceived(_) => (
                format!("the coordinator at {base} does not take this connection: {tls}"),
                "If it wants certificates of its clients, give one: --client-cert FILE --client-key FILE",
            ),
            _ => (
                format!("{base} does not prove that it is the coordinator: {tls}"),
                "Give its authority with --ca-file or VERGER_CA_FILE, and the name that its certificate is for",
            ),
        };
        Error::new(ErrorKind::Permission, step).with_fix(fix)
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
                Err(error) => {
                    if let Some(tls) = tls_error(&error) {
                        return Err(Self::distrust(&place.base, tls));
                    }
                    if is_over || error.is_timeout() || !(error.is_connect() || is_repeatable) {
                        return Err(self.unanswered(&place.base, error, last));
                    }
                    self.places().next();
                }
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

/// The address of a coordinator.
///
/// # Errors
/// `Usage` for one that is none, and for plain HTTP to another machine: whoever is in between could read the token.
pub(crate) fn address(text: &str) -> Result<url::Url> {
    let none = || Error::new(ErrorKind::Usage, format!("{text} is no address of a coordinator"));
    let fix = format!("Give one such as {ADDRESS_DEFAULT} with --addr or VERGER_ADDR");
    let url = url::Url::parse(text.trim_end_matches('/')).map_err(|error| none().with_source(error).with_fix(&fix))?;
    let is_here = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    };
    match url.scheme() {
        "https" if url.host().is_some() => Ok(url),
        "http" if is_here => Ok(url),
        "http" => Err(Error::new(
            ErrorKind::Usage,
            format!("{text} is plain HTTP to another machine, which would tell the token"),
        )
        .with_fix("Give an https:// address; `verger up --tls-cert FILE --tls-key FILE` has one")),
        _ => Err(none().with_fix(fix)),
    }
}

fn trusting(mut builder: reqwest::blocking::ClientBuilder, trust: &Trust) -> Result<reqwest::blocking::ClientBuilder> {
    let read = |path: &std::path::Path| {
        std::fs::read(path)
            .map_err(|error| Error::new(ErrorKind::Usage, format!("read {}", path.display())).with_source(error))
    };
    let holds_none = |path: &std::path::Path, what: &str| {
        Error::new(ErrorKind::Usage, format!("{} holds no {what}", path.display())).with_fix("Give PEM")
    };
    if let Some(path) = &trust.ca_file {
        let all = reqwest::Certificate::from_pem_bundle(&read(path)?).unwrap_or_default();
        if all.is_empty() {
            return Err(holds_none(path, "certificate"));
        }
        builder = builder.tls_certs_only(all);
    }
    if let (Some(certificate), Some(key)) = (&trust.client_cert, &trust.client_key) {
        let mut both = zeroize::Zeroizing::new(read(key)?);
        both.push(b'\n');
        both.extend(read(certificate)?);
        // The cause is not told: it could be a part of the key.
        let identity = reqwest::Identity::from_pem(&both).map_err(|_| holds_none(key, "key for that certificate"))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

/// What TLS says, if it is TLS that says something. To ask again would not help.
pub(crate) fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = inner.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    None
}

fn with_record(request: RequestBuilder, record: &[u8]) -> RequestBuilder {
    request.header("Content-Type", "application/octet-stream").body(record.to_vec())
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
