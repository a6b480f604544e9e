//! `verger up`: a coordinator, its workers and its API in one process.

pub(crate) mod cluster;
mod desk;
mod hands;
mod hints;
mod notify;
pub(crate) mod oidc;
pub(crate) mod opener;
pub(crate) mod run;
mod service;
mod store;
pub(crate) mod supervisor;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use verger::telemetry::SpanCounts;
use verger_coordinator::api::{Alone, TlsFiles};
use verger_coordinator::auth::{Bearer, TOKEN_BYTES};
use verger_coordinator::drive::{Router, Run as _};
use verger_coordinator::files::{make_folders, replace};
use verger_coordinator::prices::Prices;
use verger_coordinator::raft::network::{Answering, Call, Transport, Unreached};
use verger_coordinator::raft::node::{Node, NodeOptions, Pace};
use verger_coordinator::raft::types::Peer;
use verger_coordinator::schedule::Limits as Places;
use verger_kopia::clock::{Clock, SystemClock};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::level::LEVEL;
use verger_worker::progress::Stop;

use crate::config::archive::ArchiveArgs;
use crate::config::nats::Nats;
use crate::config::{Engine, token};

use hints::{Hints, Waking};
use oidc::Believed;
use opener::Opener;
use service::{Service, secured};
use supervisor::Drives;

/// Folder of the raft log, its snapshots and the ledger.
pub(crate) const NODE: &str = "node";
/// Name of the file with this fleet's number.
const FLEET: &str = "fleet";

/// What `verger up` was asked for.
pub(crate) struct Options {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// Where the API listens.
    pub(crate) listen: SocketAddr,
    /// How many cycles may run at once.
    pub(crate) places: Places,
    /// Its certificate; without one it is plain HTTP, for this machine alone.
    pub(crate) tls: Option<TlsFiles>,
    /// Whose tokens are taken beside its own.
    pub(crate) believed: Vec<Believed>,
    /// Where secrets are mounted.
    pub(crate) secrets: Option<PathBuf>,
    /// Where old segments of the ledger go.
    pub(crate) archive: ArchiveArgs,
    /// The NATS server that wakes workers of other processes.
    pub(crate) nats: Option<Nats>,
    /// Limits of each cycle, and where its files go: `work` in the data folder.
    pub(crate) engine: Engine,
    /// What its figures are made of besides what it does.
    pub(crate) figures: Figures,
}

/// What figures are made of besides what a process does.
#[derive(Default)]
pub(crate) struct Figures {
    /// What became of spans, where there are any.
    pub(crate) spans: Option<Arc<SpanCounts>>,
    /// What calls to stores cost, where somebody said.
    pub(crate) prices: Prices,
}

/// Looks after repositories until it is asked to stop.
///
/// # Errors
/// `Usage` for an address that is not of this machine alone; `Permission`, `DiskFull`, `Locked` for the data folder; `Damaged` for a
/// ledger that does not hold.
pub(crate) fn run(options: Options, stop: &Stop, said: impl FnOnce(&str)) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tls = secured(options.listen, options.tls, &clock)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(ErrorKind::Internal, "start the API").with_source(error))?;
    let router = Arc::new(Router::default());
    make_folders(&options.data_dir)
        .map_err(|error| Error::of_file(format!("make {}", options.data_dir.display()), error))?;
    let fleet = fleet(&options.data_dir)?;
    let archive = options.archive.resolve(&fleet, &options.data_dir)?;
    let (hints, heard) = hints::hints();
    let waking = Waking::new(options.nats.as_ref(), &fleet, 1, &options.data_dir, heard)?;
    let node = Arc::new(node(&runtime, &options.data_dir, &fleet, clock.clone(), (router.clone(), hints))?);
    let identity = format!("verger@fleet-{fleet}");
    let boots = node.boots();
    let service = Service {
        runtime,
        node,
        ledger: &options.data_dir.join(NODE).join("ledger"),
        router,
        opener: Arc::new(Opener { engine: options.engine, secrets: options.secrets }),
        clock,
        identity: identity.clone(),
        stand: Arc::new(Alone { fleet: identity.clone() }),
        listen: options.listen,
        tls,
        believed: options.believed,
        places: options.places,
        archive,
        figures: options.figures,
        waking,
        drives: Drives { node: 1, boots, leads: Box::new(|| true) },
    };
    service.run(stop, |base| said(&format!("verger looks after its repositories as {identity}; {base}")))
}

/// The only node of its cluster: what it takes is durable on this disk.
fn node(
    runtime: &tokio::runtime::Runtime,
    data_dir: &Path,
    fleet: &str,
    clock: Arc<dyn Clock>,
    (router, hints): (Arc<Router>, Hints),
) -> Result<Node> {
    let options = NodeOptions {
        id: 1,
        cluster: fleet.to_owned(),
        data_dir: data_dir.join(NODE),
        transport: Arc::new(Nobody),
        clock,
        effects: Some(Arc::new(move |effect, _| {
            hints.pass(&effect);
            router.run(effect);
        })),
        // Nobody else asks for votes here: it leads at once.
        pace: Pace {
            election: (Duration::from_millis(200), Duration::from_millis(400)),
            heartbeat: Duration::from_millis(50),
            ..Pace::default()
        },
        level: LEVEL,
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
fn owner_token(base: &str) -> Result<Bearer> {
    let url = url::Url::parse(base)
        .map_err(|error| Error::new(ErrorKind::Internal, "name the address").with_source(error))?;
    let path = token::path(&url).ok_or_else(|| {
        Error::new(ErrorKind::Usage, "there is no home directory to keep the token in")
            .with_fix("Set HOME or XDG_CONFIG_HOME")
    })?;
    if let Some(kept) = std::fs::read_to_string(&path).ok().and_then(|text| Bearer::parse(text.trim()).ok()) {
        return Ok(kept);
    }
    let made = Bearer::from_bytes(rand::rng().random::<[u8; TOKEN_BYTES]>());
    token::keep(&path, &made.text())?;
    Ok(made)
}
