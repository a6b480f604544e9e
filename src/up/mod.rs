//! `verger up`: a coordinator, its workers and its API in one process.

mod hands;
pub(crate) mod log;
mod opener;
mod run;
mod supervisor;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use verger_coordinator::api::{Alone, Api, LedgerEvents, Limits, OwnerGate, serve};
use verger_coordinator::drive::{ReplicatedBackend, Router, Run as _};
use verger_coordinator::files::{make_folders, replace};
use verger_coordinator::ledger::archive::Archive;
use verger_coordinator::raft::network::{Answering, Call, Transport, Unreached};
use verger_coordinator::raft::node::{Node, NodeOptions, Pace};
use verger_coordinator::raft::types::Peer;
use verger_kopia::clock::{Clock, SystemClock};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::Digest;
use verger_worker::progress::Stop;

use crate::config::archive::ArchiveArgs;
use crate::config::{Engine, token};

use opener::Opener;
use supervisor::Supervisor;

/// Folder of the raft log, its snapshots and the ledger.
const NODE: &str = "node";
/// Name of the file with this fleet's number.
const FLEET: &str = "fleet";

/// What `verger up` was asked for.
pub(crate) struct Options {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// Where the API listens.
    pub(crate) listen: SocketAddr,
    /// Cycles at once.
    pub(crate) workers: usize,
    /// Where secrets are mounted.
    pub(crate) secrets: Option<PathBuf>,
    /// Where old segments of the ledger go.
    pub(crate) archive: ArchiveArgs,
    /// Limits of each cycle.
    pub(crate) engine: Engine,
}

/// Looks after repositories until it is asked to stop.
///
/// # Errors
/// `Usage` for an address that is not of this machine alone; `Permission`, `DiskFull`, `Locked` for the data folder; `Damaged` for a
/// ledger that does not hold.
pub(crate) fn run(options: Options, stop: &Stop, said: impl FnOnce(&str)) -> Result<()> {
    if !options.listen.ip().is_loopback() {
        let step = format!("{} is not of this machine alone, and this is plain HTTP", options.listen);
        return Err(Error::new(ErrorKind::Usage, step).with_fix("Listen on 127.0.0.1 or [::1]"));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(ErrorKind::Internal, "start the API").with_source(error))?;
    let router = Arc::new(Router::default());
    make_folders(&options.data_dir)
        .map_err(|error| Error::of_file(format!("make {}", options.data_dir.display()), error))?;
    let fleet = fleet(&options.data_dir)?;
    let archive = options.archive.resolve(&fleet, &options.data_dir)?;
    let node = Arc::new(node(&runtime, &options.data_dir, &fleet, clock.clone(), router.clone())?);
    if let Some(archive) = &archive {
        let _entered = runtime.enter();
        node.archive_to(archive.clone());
    }
    let backend = Arc::new(ReplicatedBackend::new(node.clone(), runtime.handle().clone()));
    let identity = format!("verger@fleet-{fleet}");
    let engine = Engine { state_dir: options.data_dir.join("work"), ..options.engine };
    let opener = Arc::new(Opener { engine, secrets: options.secrets });
    let supervisor = Supervisor::new(
        backend.clone(),
        router,
        opener.clone(),
        clock.clone(),
        identity.clone(),
        options.workers,
        stop.clone(),
    );
    let listener = runtime.block_on(tokio::net::TcpListener::bind(options.listen)).map_err(|error| {
        Error::new(ErrorKind::Permission, format!("listen on {}", options.listen))
            .with_source(error)
            .with_fix("Choose another address with --listen, or stop what listens there")
    })?;
    let address = listener.local_addr().unwrap_or(options.listen);
    let token = owner_token(&address)?;
    let api = Arc::new(Api {
        backend: backend.clone(),
        hands: opener,
        events: Arc::new(events(&options.data_dir, archive.clone())),
        gate: Arc::new(OwnerGate::new(Digest::of(token.as_bytes()))),
        stand: Arc::new(Alone { fleet: identity.clone() }),
        clock,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        limits: Limits::default(),
    });
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let served = runtime.spawn(serve(listener, api, async move { drop(closed.await) }));
    said(&format!("verger looks after its repositories as {identity}; http://{address}"));
    Arc::new(supervisor).work();
    drop(close);
    let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), served).await });
    if let Ok(Ok(Err(error))) = ended {
        tracing::warn!(%error, "the API ended badly");
    }
    runtime.block_on(node.shutdown());
    runtime.shutdown_background();
    Ok(())
}

/// The only node of its cluster: what it takes is durable on this disk.
fn node(
    runtime: &tokio::runtime::Runtime,
    data_dir: &Path,
    fleet: &str,
    clock: Arc<dyn Clock>,
    router: Arc<Router>,
) -> Result<Node> {
    let options = NodeOptions {
        id: 1,
        cluster: fleet.to_owned(),
        data_dir: data_dir.join(NODE),
        transport: Arc::new(Nobody),
        clock,
        effects: Some(Arc::new(move |effect, _| router.run(effect))),
        // Nobody else asks for votes here: it leads at once.
        pace: Pace {
            election: (Duration::from_millis(200), Duration::from_millis(400)),
            heartbeat: Duration::from_millis(50),
            ..Pace::default()
        },
    };
    runtime.block_on(async {
        let node = Node::open(options).await?;
        let members = BTreeMap::from([(1, Peer::at("this process"))]);
        node.initialize(members)
            .await
            .map_err(|error| Error::new(ErrorKind::Internal, "begin a cluster of one").with_source(error))?;
        Ok(node)
    })
}

fn events(data_dir: &Path, archive: Option<Arc<Archive>>) -> LedgerEvents {
    let folder = data_dir.join(NODE).join("ledger");
    let events = LedgerEvents::new(&folder);
    match archive {
        Some(archive) => events.with_archive(&folder, archive),
        None => events,
    }
}

/// There are no others.
#[derive(Debug)]
struct Nobody;

impl Transport for Nobody {
    fn call<'a>(&'a self, _: &'a Peer, _: Call, _: Duration) -> Answering<'a> {
        Box::pin(async { Err(Unreached("there are no other coordinators".to_owned())) })
    }
}

/// Eight hexadecimal digits that name this fleet, made once.
fn fleet(data_dir: &Path) -> Result<String> {
    let path = data_dir.join(FLEET);
    let damaged = |text: &str| {
        Error::damaged(format!("{} does not hold eight hexadecimal digits: {text:?}", path.display()))
            .with_fix("Put back the number that `kopia maintenance info` shows in the owner, verger@fleet-NUMBER")
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let number = text.trim();
            let fits = number.len() == 8 && number.bytes().all(|b| b.is_ascii_hexdigit());
            if fits { Ok(number.to_owned()) } else { Err(damaged(number)) }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let number = format!("{:08x}", rand::rng().random::<u32>());
            replace(&path, number.as_bytes())
                .map_err(|error| Error::of_file(format!("write {}", path.display()), error))?;
            Ok(number)
        }
        Err(error) => Err(Error::of_file(format!("read {}", path.display()), error)),
    }
}

/// The token that this user's command line finds: what is there for this address, else a new one.
fn owner_token(address: &SocketAddr) -> Result<String> {
    let url = url::Url::parse(&format!("http://{address}"))
        .map_err(|error| Error::new(ErrorKind::Internal, "name the address").with_source(error))?;
    let path = token::path(&url).ok_or_else(|| {
        Error::new(ErrorKind::Usage, "there is no home directory to keep the token in")
            .with_fix("Set HOME or XDG_CONFIG_HOME")
    })?;
    if let Ok(kept) = std::fs::read_to_string(&path)
        && kept.trim().starts_with("vgr_")
        && kept.trim().len() >= 43
    {
        return Ok(kept.trim().to_owned());
    }
    let secret: [u8; 32] = rand::rng().random();
    let token = format!("vgr_{}", base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, secret));
    token::keep(&path, &token)?;
    Ok(token)
}
