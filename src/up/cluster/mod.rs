//! `verger coordinator`: one of several processes that are one coordinator together.

pub(crate) mod folder;
mod stand;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use verger_coordinator::drive::{Router, Run as _};
use verger_coordinator::raft::members::Members;
use verger_coordinator::raft::network::clocks::Clocks;
use verger_coordinator::raft::network::http::{self, Credentials, PeerClient, PeerFiles, Security};
use verger_coordinator::raft::node::{Node, NodeOptions, Pace};
use verger_coordinator::raft::types::Peer;
use verger_kopia::clock::{Clock, SystemClock};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::level::LEVEL;
use verger_worker::progress::Stop;

use super::NODE;
use super::hints::{Waking, hints};
use super::opener::Opener;
use super::service::{Service, bind, secured};
use super::supervisor::Drives;
use folder::Member;
use stand::Together;

/// What `verger coordinator` was asked for.
pub(crate) struct Options {
    /// As `verger up`.
    pub(crate) service: super::Options,
    /// Its number, if it was said; the folder knows.
    pub(crate) node: Option<u64>,
    /// What people call for the API.
    pub(crate) api_address: Option<String>,
    /// Where other coordinators are listened for.
    pub(crate) peer_listen: SocketAddr,
    /// What they call.
    pub(crate) peer_address: Option<String>,
    /// How they know each other; none: not at all.
    pub(crate) peers: Option<PeerFiles>,
}

/// Takes part in a cluster until it is asked to stop.
///
/// # Errors
/// `Usage` for a folder that belongs to no cluster or another node, addresses that cannot be, certificates that do not fit; as
/// `verger up` for the rest.
pub(crate) fn run(options: Options, stop: &Stop, said: impl FnOnce(&str)) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let super::Options { data_dir, listen, places, tls, secrets, archive, nats, engine, figures, believed } =
        options.service;
    let tls = secured(listen, tls, &clock)?;
    let member = member(options.node, &data_dir)?;
    let security = security(options.peers, options.peer_listen)?;
    let archive = archive.resolve(&member.fleet, &data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(ErrorKind::Internal, "start the API").with_source(error))?;
    let listener = bind(&runtime, options.peer_listen, "--peer-listen")?;
    let peer_address = match &options.peer_address {
        Some(address) => address.clone(),
        None => listener.local_addr().unwrap_or(options.peer_listen).to_string(),
    };
    let api = options.api_address.clone().unwrap_or_else(|| {
        let scheme = if tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{listen}")
    });
    let router = Arc::new(Router::default());
    let (hints, heard) = hints();
    let waking = Waking::new(nats.as_ref(), &member.fleet, member.node, &data_dir, heard)?;
    let (effects, clocks) = (router.clone(), Clocks::new(clock.clone()));
    let node = NodeOptions {
        id: member.node,
        cluster: member.cluster(),
        data_dir: data_dir.join(NODE),
        transport: Arc::new(PeerClient::new(security.clone(), clocks.clone())),
        clock: clock.clone(),
        effects: Some(Arc::new(move |effect, _| {
            hints.pass(&effect);
            effects.run(effect);
        })),
        pace: Pace { election: (Duration::from_millis(900), Duration::from_millis(1800)), ..Pace::default() },
        level: LEVEL,
    };
    let first = member.first.then(|| BTreeMap::from([(member.node, Peer { address: peer_address.clone(), api })]));
    let node = runtime.block_on(open(node, first))?;
    runtime.spawn(http::serve(listener, security, node.clone(), std::future::pending()));
    let members = Members::new(node.clone(), clocks, runtime.handle().clone());
    let begun = member.first.then(|| member.key().map(|key| (member.node, key))).transpose()?;
    runtime.spawn(members.clone().look_after(begun));
    let identity = format!("verger@fleet-{}", member.fleet);
    let leads = node.clone();
    let service = Service {
        node: node.clone(),
        runtime,
        ledger: &data_dir.join(NODE).join("ledger"),
        router,
        opener: Arc::new(Opener { engine, secrets }),
        clock,
        identity: identity.clone(),
        stand: Arc::new(Together { fleet: identity.clone(), members }),
        listen,
        tls,
        believed,
        places,
        archive,
        figures,
        waking,
        drives: Drives { node: member.node, boots: node.boots(), leads: Box::new(move || leads.leads()) },
    };
    service.run(stop, |base| {
        said(&format!("coordinator {} of {} as {identity}; {base}, peers at {peer_address}", member.node, member.name));
    })
}

/// Opens a node, and begins a cluster of these members with it, if it is the first.
async fn open(options: NodeOptions, first: Option<BTreeMap<u64, Peer>>) -> Result<Arc<Node>> {
    let node = Node::open(options).await?;
    node.run_effects_everywhere();
    if let Some(members) = first {
        let begun = node.initialize(members).await;
        begun.map_err(|error| Error::new(ErrorKind::Internal, "begin a cluster").with_source(error))?;
    }
    Ok(Arc::new(node))
}

fn member(node: Option<u64>, data_dir: &Path) -> Result<Member> {
    let member = folder::read(data_dir)?.ok_or_else(|| {
        let step = format!("{} belongs to no cluster", data_dir.display());
        Error::new(ErrorKind::Usage, step).with_fix(
            "make a new cluster with `verger cluster init`, or become one more of a cluster with `verger cluster join`",
        )
    })?;
    match node {
        Some(node) if node != member.node => Err(folder::taken(data_dir, &member)),
        _ => Ok(member),
    }
}

fn security(peers: Option<PeerFiles>, listen: SocketAddr) -> Result<Security> {
    match peers {
        Some(files) => Credentials::open(files).map(Security::Mutual),
        None if listen.ip().is_loopback() => Ok(Security::None),
        None => {
            let step = format!("{listen} is not of this machine alone, and there is no TLS");
            Err(Error::new(ErrorKind::Usage, step).with_fix("Give --peer-cert, --peer-key and --peer-ca"))
        }
    }
}
