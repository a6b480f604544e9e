//! What is the same whether a process is alone or one of several: it answers on its address, and looks after repositories.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use verger_coordinator::api::{Api, LedgerEvents, Limits, Stand, Tls, TlsFiles, TokenGate, serve, serve_tls};
use verger_coordinator::drive::{ReplicatedBackend, Router};
use verger_coordinator::ledger::archive::Archive;
use verger_coordinator::ledger::evidence::Shelf;
use verger_coordinator::meters::{Meters, Raft, Spans};
use verger_coordinator::raft::node::Node;
use verger_coordinator::schedule::Limits as Places;
use verger_kopia::clock::Clock;
use verger_kopia::{Error, ErrorKind, Result};
use verger_worker::progress::Stop;

use super::hints::Waking;
use super::oidc::{self, Believed};
use super::opener::Opener;
use super::run::Site;
use super::supervisor::{Drives, Supervisor};
use super::{Figures, notify, owner_token};

/// A node that runs, and what is to be done with it.
pub(super) struct Service<'a> {
    pub(super) runtime: Runtime,
    pub(super) node: Arc<Node>,
    /// Its ledger.
    pub(super) ledger: &'a Path,
    pub(super) router: Arc<Router>,
    pub(super) opener: Arc<Opener>,
    pub(super) clock: Arc<dyn Clock>,
    /// `user@host` of the fleet.
    pub(super) identity: String,
    pub(super) stand: Arc<dyn Stand>,
    pub(super) listen: SocketAddr,
    /// With what connections are taken; `None`: plain HTTP.
    pub(super) tls: Option<Arc<Tls>>,
    /// Whose tokens are taken beside its own.
    pub(super) believed: Vec<Believed>,
    /// How many cycles may run at once.
    pub(super) places: Places,
    /// Where old segments of the ledger go.
    pub(super) archive: Option<Arc<Archive>>,
    /// What its figures are made of besides what it does.
    pub(super) figures: Figures,
    /// How workers of other processes are woken.
    pub(super) waking: Waking,
    /// With others that could drive the same repositories.
    pub(super) drives: Drives,
}

/// What connections are taken with. Without a certificate this is plain HTTP, which goes no farther than this machine.
///
/// # Errors
/// `Usage`; those of the files.
pub(super) fn secured(listen: SocketAddr, files: Option<TlsFiles>, clock: &Arc<dyn Clock>) -> Result<Option<Arc<Tls>>> {
    match files {
        Some(files) => Ok(Some(Arc::new(Tls::read(files, clock.clone())?))),
        None if listen.ip().is_loopback() => Ok(None),
        None => {
            let step = format!("{listen} is not of this machine alone, and this is plain HTTP");
            Err(Error::new(ErrorKind::Usage, step)
                .with_fix("Listen on 127.0.0.1 or [::1], or give a certificate: --tls-cert FILE --tls-key FILE"))
        }
    }
}

/// Takes an address.
///
/// # Errors
/// `Permission` if something listens there, or it is not this machine's.
pub(super) fn bind(runtime: &Runtime, listen: SocketAddr, flag: &str) -> Result<tokio::net::TcpListener> {
    runtime.block_on(tokio::net::TcpListener::bind(listen)).map_err(|error| {
        Error::new(ErrorKind::Permission, format!("listen on {listen}"))
            .with_source(error)
            .with_fix(format!("Choose another address with {flag}, or stop what listens there"))
    })
}

/// What happened, the archived part of it among it.
fn events(folder: &Path, archive: Option<Arc<Archive>>) -> LedgerEvents {
    let events = LedgerEvents::new(folder);
    match archive {
        Some(archive) => events.with_archive(folder, archive),
        None => events,
    }
}

/// What this process counts.
fn meters(node: &Arc<Node>, memory_limit: u64, figures: Figures) -> Meters {
    let node = node.clone();
    let raft = move || {
        let metrics = node.metrics().borrow().clone();
        Raft {
            leads: node.leads(),
            term: metrics.current_term,
            last: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            level: node.state(|state| state.level),
            program_level: node.program_level(),
        }
    };
    let spans = figures.spans.map(|counts| -> Box<dyn Fn() -> Spans + Send + Sync> {
        Box::new(move || Spans { exported: counts.exported(), no_room: counts.no_room(), refused: counts.refused() })
    });
    let mut meters = Meters::default();
    meters.raft = Some(Box::new(raft));
    meters.spans = spans;
    meters.prices = figures.prices;
    meters.memory_limit = Some(memory_limit);
    meters
}

/// A node that cannot go on ends its process: what it says of why is the process's last word.
fn stop_with(runtime: &tokio::runtime::Runtime, node: &Arc<Node>, stop: &Stop) -> Arc<std::sync::Mutex<Option<Error>>> {
    let failure = Arc::new(std::sync::Mutex::new(None));
    let (kept, node, stop) = (failure.clone(), node.clone(), stop.clone());
    runtime.spawn(async move {
        let error = node.stopped().await;
        if !stop.is_asked() {
            tracing::error!(error = error.chain(), "this coordinator cannot go on");
            *kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
            stop.ask();
        }
    });
    failure
}

impl Service<'_> {
    /// Answers and works until `stop` is asked; then parks what is under way, and closes the node. `said` hears where it answers.
    ///
    /// # Errors
    /// `Permission` for the address, whatever keeps the token from being kept, and why the node cannot go on.
    pub(super) fn run(self, stop: &Stop, said: impl FnOnce(&str)) -> Result<()> {
        let Self { runtime, node, router, opener, clock, identity, .. } = self;
        let failure = stop_with(&runtime, &node, stop);
        if let Some(archive) = &self.archive {
            let _entered = runtime.enter();
            node.archive_to(archive.clone());
        }
        let memory_limit = opener.engine.memory_limit.saturating_mul(u64::from(self.places.total));
        let mut meters = meters(&node, memory_limit, self.figures);
        meters.queue = self.waking.queue();
        let meters = Arc::new(meters);
        let backend = Arc::new(ReplicatedBackend::new(node.clone(), runtime.handle().clone()));
        let (shards, evidence) = (None, None);
        let site = Site { opener: opener.clone(), identity, router, meters: meters.clone(), shards, evidence };
        let supervisor = Supervisor::new(backend.clone(), clock.clone(), site, self.places, self.drives, stop.clone());
        let supervisor = Arc::new(supervisor);
        let backend_for_hints = backend.clone();
        let listener = bind(&runtime, self.listen, "--listen")?;
        let address = listener.local_addr().unwrap_or(self.listen);
        let base = format!("{}://{address}", if self.tls.is_some() { "https" } else { "http" });
        let owner = owner_token(&base)?;
        let gate = TokenGate::new(Some(owner.hash()), backend.clone(), clock.clone());
        let gate = match oidc::start(self.believed, &clock)? {
            Some(providers) => gate.with_providers(providers),
            None => gate,
        };
        let api = Arc::new(Api {
            backend: backend.clone(),
            evidence: Shelf::new(&opener.engine.state_dir, self.archive.clone()),
            hands: opener,
            desk: supervisor.clone(),
            events: Arc::new(events(self.ledger, self.archive)),
            gate: Arc::new(gate),
            stand: self.stand,
            clock,
            meters,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            limits: Limits::default(),
        });
        let (close, closed) = tokio::sync::oneshot::channel::<()>();
        let closed = async move { drop(closed.await) };
        let served = match self.tls {
            Some(tls) => runtime.spawn(serve_tls(listener, tls, api, closed)),
            None => runtime.spawn(serve(listener, api, closed)),
        };
        let waking = self.waking.begin(backend_for_hints, node.clone(), stop.clone());
        said(&base);
        notify::tell(notify::State::Ready);
        supervisor.work();
        drop(close);
        let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), served).await });
        if let Ok(Ok(Err(error))) = ended {
            tracing::warn!(%error, "the API ended badly");
        }
        waking.end();
        runtime.block_on(node.shutdown());
        runtime.shutdown_background();
        let failed = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err)
    }
}
