//! From a connection to a handler and back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Query, RawPathParams, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::MethodRouter;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{Semaphore, watch};
use verger_kopia::error::ErrorKind;
use verger_proto::{Command, CycleId, Event, LogTime, Ordered};

use super::board::Board;
use super::call::{Call, bearer};
use super::figures;
use super::metrics::Requests;
use super::problem::Problem;
use super::route::{ROUTES, Route};
use super::{Api, Standing, work};
use crate::auth::{Actor, Denied, Reach, enter};
use crate::machine::State;

/// How long the state is waited for at a time; a change that falls between two waits is seen after it at the latest.
const PULSE_MILLISECONDS: u64 = 500;
/// How often figures are brought up to date although nobody asks for them.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// What a handler gives.
pub(super) type Answer = Result<Response, Problem>;

/// What lives as long as the interface answers.
pub(super) struct Server {
    pub(super) api: Arc<Api>,
    pub(super) requests: Requests,
    pub(super) followers: Arc<Semaphore>,
    /// Workers that wait for changes.
    pub(super) held: Arc<Semaphore>,
    pub(super) probes: Arc<Semaphore>,
    /// Goes on after every change.
    pub(super) pulse: watch::Sender<u64>,
    pub(super) stopping: watch::Sender<bool>,
    board: Mutex<Board>,
    /// Whether the board goes on from what was counted before, and up to which record that is written down.
    counted: Once,
    figures: AtomicU64,
    /// Why the last command was not kept.
    trouble: Mutex<Option<String>>,
}

impl Server {
    /// The time, as records have it.
    pub(super) fn now(&self) -> LogTime {
        LogTime::of(self.api.clock.now())
    }

    fn new(api: Arc<Api>) -> Self {
        let followers = Arc::new(Semaphore::new(api.limits.followers));
        let held = Arc::new(Semaphore::new(api.limits.followers));
        let probes = Arc::new(Semaphore::new(api.limits.probes));
        let (pulse, stopping) = (watch::channel(0).0, watch::channel(false).0);
        let (board, trouble) = (Mutex::default(), Mutex::default());
        let (counted, figures) = (Once::new(), AtomicU64::new(0));
        Self {
            api,
            requests: Requests::default(),
            followers,
            held,
            probes,
            pulse,
            stopping,
            board,
            counted,
            figures,
            trouble,
        }
    }

    /// Wakes whoever follows something.
    pub(super) fn changed(&self) {
        self.pulse.send_modify(|beats| *beats = beats.wrapping_add(1));
    }

    /// Looks at the state.
    pub(super) fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        let (mut look, mut found) = (Some(look), None);
        self.api.backend.look(&mut |state| found = look.take().map(|look| look(state)));
        found.expect("a backend looks once, right away")
    }

    /// What the events say, up to now.
    pub(super) fn board(&self) -> Result<MutexGuard<'_, Board>, Problem> {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        self.counted.call_once(|| {
            *board = figures::load(self.api.events.as_ref());
            self.figures.store(board.next, Ordering::Relaxed);
        });
        let caught_up = board.catch_up(self.api.events.as_ref());
        caught_up.map_err(|error| Problem::internal(error.chain()).fixed_as(&error))?;
        if figures::is_much(&board, self.figures.load(Ordering::Relaxed)) {
            self.keep_figures(&board);
        }
        Ok(board)
    }

    fn keep_figures(&self, board: &Board) {
        figures::keep(self.api.events.as_ref(), board);
        self.figures.store(board.next, Ordering::Relaxed);
    }

    /// Hears how far the jobs of a cycle are from whoever leads, if that is another process: words of workers are told there.
    pub(super) fn ask_words(&self, cycle: CycleId) {
        if matches!(self.api.stand.standing(), Standing::HandsOn { .. }) {
            self.api.backend.ask_words(cycle);
        }
    }

    /// Why no command can be taken now.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether commands can be taken here.
    pub(super) fn check_leads(&self) -> Result<(), Problem> {
        match self.api.stand.standing() {
            Standing::Leads | Standing::HandsOn { .. } => Ok(()),
            Standing::Follows { leader } => Err(Problem::not_leader(leader)),
            Standing::Unready(why) => Err(Problem::later("not-ready", why)),
        }
    }

    /// Gives a command in the caller's name.
    pub(super) fn order(&self, actor: &Actor, command: Command) -> Result<Vec<Event>, Problem> {
        self.check_leads()?;
        let ordered = Ordered { actor: actor.name().to_owned(), command };
        let kept = self.api.backend.submit(Command::Ordered(Box::new(ordered)));
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // That a cluster is being upgraded is no trouble of this process.
        let failure = kept.as_ref().err().filter(|error| error.kind() != ErrorKind::UpgradeInProgress);
        *trouble = failure.map(verger_kopia::error::Error::chain);
        drop(trouble);
        let events = kept.map_err(|error| Problem::not_kept(&error))?;
        Problem::among(&events)?;
        Ok(events)
    }
}

pub(super) async fn serve<L>(
    listener: L,
    api: Arc<Api>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let grace = api.limits.grace;
    let server = Arc::new(Server::new(api));
    let _stop = StopAtTheEnd(server.clone());
    let pulse = tokio::task::spawn_blocking({
        let server = server.clone();
        move || beat(&server)
    });
    let mut stopping = server.stopping.subscribe();
    let stop = server.clone();
    let asked = async move {
        shutdown.await;
        stop.stopping.send_replace(true);
    };
    let answering = axum::serve(listener, router(&server)).with_graceful_shutdown(asked);
    let late = async move {
        // An error means that the server is gone, and then the other branch is over as well.
        let _ = stopping.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(grace).await;
    };
    let served = tokio::select! {
        served = answering.into_future() => served,
        () = late => Ok(()),
    };
    server.stopping.send_replace(true);
    let _ = pulse.await;
    served
}

/// However answering ends, even if it is given up half way: a thread that beats on would hold a runtime for ever.
struct StopAtTheEnd(Arc<Server>);

impl Drop for StopAtTheEnd {
    fn drop(&mut self) {
        self.0.stopping.send_replace(true);
    }
}

/// One thread waits for changes, however many follow them.
fn beat(server: &Server) {
    let (mut newest, mut heard) = (0, 0);
    // So that whoever asks first need not wait for it.
    let mut counted = count(server);
    while !*server.stopping.borrow() {
        let mut looks = 0u32;
        server.api.backend.wait(Duration::from_millis(PULSE_MILLISECONDS), &mut |_| {
            looks = looks.saturating_add(1);
            looks > 1
        });
        let now = server.api.events.newest();
        let words = server.api.backend.words().map_or(0, |words| *words.heard().borrow());
        if looks > 1 || now != newest || words != heard {
            server.changed();
        }
        (newest, heard) = (now, words);
        if counted.elapsed() >= COUNT_EVERY {
            counted = count(server);
        }
    }
    if let Ok(board) = server.board()
        && board.next > server.figures.load(Ordering::Relaxed)
    {
        server.keep_figures(&board);
    }
}

/// Brings the board up to date. What is in the way, whoever asks is told.
fn count(server: &Server) -> Instant {
    drop(server.board());
    Instant::now()
}

fn router(server: &Arc<Server>) -> Router {
    let mut router = Router::new();
    let mut paths: Vec<&'static str> = ROUTES.iter().map(|route| route.path).collect();
    paths.dedup();
    for path in paths {
        let routes = ROUTES.iter().filter(move |route| route.path == path);
        let allowed = routes.clone().map(|route| route.method.name()).collect::<Vec<_>>().join(", ");
        let mut methods = MethodRouter::new();
        for route in routes {
            let server = server.clone();
            methods = methods.on(route.method.filter(), move |request: Request| take(server, route, request));
        }
        let other = server.clone();
        router = router.route(path, methods.fallback(move || async move { wrong_method(&other, path, &allowed) }));
    }
    let other = server.clone();
    router.fallback(move || async move {
        let problem = Problem::not_found("there is nothing at this path").with_fix("GET /v1/openapi.json lists all");
        other.requests.count("other", "other", problem.status);
        problem.answer()
    })
}

fn wrong_method(server: &Server, path: &'static str, allowed: &str) -> Response {
    let message = format!("{path} takes {allowed}");
    let mut problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message);
    if let Ok(value) = HeaderValue::from_str(allowed) {
        problem = problem.with_header(header::ALLOW, value);
    }
    server.requests.count(path, "other", problem.status);
    problem.answer()
}

async fn take(server: Arc<Server>, route: &'static Route, request: Request) -> Response {
    let answer = match tokio::time::timeout(server.api.limits.call, answer(&server, route, request)).await {
        Ok(answer) => answer,
        Err(_) => {
            let message = "the call took too long; what it asked for may still happen";
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message))
        }
    };
    let response = answer.unwrap_or_else(Problem::answer);
    server.requests.count(route.path, route.method.name(), response.status());
    response
}

/// Who calls. Where the keys of an identity provider are being fetched, they are waited for a little.
async fn caller(server: &Server, bearer: Option<&str>) -> Result<Actor, Denied> {
    let gate = &server.api.gate;
    match (gate.actor(bearer), bearer) {
        (Err(Denied::Mistrusted(why)), Some(text)) if why.may_pass() => {
            gate.settled(text).await;
            gate.actor(bearer)
        }
        (found, _) => found,
    }
}

/// The gate comes before anything of the request is read.
async fn answer(server: &Arc<Server>, route: &'static Route, request: Request) -> Answer {
    let (mut parts, body) = request.into_parts();
    let is_open = route.action.reach() == Reach::Open;
    // Who calls does not matter there, and a token that is not valid any more is no reason to hide that the process lives.
    let actor = if is_open { Ok(Actor::Anonymous) } else { caller(server, bearer(&parts.headers)).await };
    let actor = actor.and_then(|actor| enter(&actor, route.action).map(|()| actor));
    let actor = actor.map_err(|denied| Problem::denied(&denied))?;
    let path = RawPathParams::from_request_parts(&mut parts, &()).await;
    let path = path.map_err(|error| Problem::bad_request(error.to_string()))?;
    let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let Query(query) = query.map_err(|error| Problem::bad_request(error.to_string()))?;
    let most =
        if matches!(route.body, Some("Names" | "Said")) { work::BODY_BYTES_MAX } else { server.api.limits.body_bytes };
    let body = read_body(body, most, &parts.headers).await?;
    let call = Call { route, actor, headers: parts.headers, path, query, body };
    call.check_query()?;
    if is_open {
        // These ask nothing that could block, and are to answer however busy all threads are.
        return (route.handler)(server, call);
    }
    let server = server.clone();
    let done = tokio::task::spawn_blocking(move || (route.handler)(&server, call)).await;
    done.unwrap_or_else(|_| Err(Problem::internal("this call failed in a way that nobody thought of")))
}

async fn read_body(body: Body, most: usize, headers: &axum::http::HeaderMap) -> Result<Bytes, Problem> {
    let too_long = || {
        let message = format!("the body is longer than {most} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", message)
    };
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|said| usize::try_from(said).map_or(true, |said| said > most)) {
        return Err(too_long());
    }
    match Limited::new(body, most).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_long()),
        Err(error) => Err(Problem::bad_request(format!("the body did not arrive: {error}"))),
    }
}
