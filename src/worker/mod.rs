//! `verger worker`: does cycles and shards for coordinators elsewhere, and remembers nothing.
//!
//! ```text
//! presence (says that it is there, hears whether to drain)
//! places: hint or poll -> a shard: claim, run, report -> ...
//!                      -> a cycle: take, run with a remote backend, say how it ended -> ...
//! ```

mod cache;
mod evidence;
mod health;
mod lead;
mod link;
mod places;
mod presence;
mod remote;
mod shards;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use verger_coordinator::drive::Router;
use verger_kopia::Result;
use verger_kopia::clock::{Clock, SystemClock};
use verger_proto::lease::plain;
use verger_proto::work_queue::nats::NatsQueue;
use verger_proto::work_queue::{Keyring, WorkQueue};
use verger_proto::{Command, Driver, Failure, LogTime, Pool, RepositoryId, WorkerId, WorkerInfo};
use verger_worker::progress::Stop;
use verger_worker::run::Shards;

use crate::client::Client;
use crate::config::Engine;
use crate::config::nats::{Nats, unusable};
use crate::up::opener::Opener;
use crate::up::run::Site;

use evidence::RemoteEvidence;
use link::Link;
use presence::Presence;

/// What `verger worker` was asked for.
pub(crate) struct Options {
    /// The coordinators.
    pub(crate) client: Client,
    /// Its name.
    pub(crate) name: WorkerId,
    /// Whose repositories it works on.
    pub(crate) pools: Vec<Pool>,
    /// What else is said of it.
    pub(crate) labels: BTreeMap<String, String>,
    /// How much it does at once.
    pub(crate) places: u32,
    /// Where secrets are mounted.
    pub(crate) secrets: Option<PathBuf>,
    /// Where and how finely cycles are shared.
    pub(crate) shards: Option<Shards>,
    /// Where hints come from; without, it asks now and then.
    pub(crate) nats: Option<Nats>,
    /// Limits of each cycle and shard. The state folder is this process's own, and emptied at the start.
    pub(crate) engine: Engine,
    /// Where it says how it is.
    pub(crate) listen: Option<SocketAddr>,
    /// How long what is under way may take to come to a boundary once it is to stop.
    pub(crate) drain_timeout: Duration,
}

/// What its threads share.
pub(crate) struct Crew {
    link: Arc<Link>,
    clock: Arc<dyn Clock>,
    /// Its name, and which process of that name.
    name: WorkerId,
    instance: u64,
    pools: Vec<Pool>,
    queue: Option<Arc<dyn WorkQueue>>,
    /// Whose messages of it are believed.
    keys: Arc<Keyring>,
    site: Site,
    /// Asked: finish what is under way, and go.
    stop: Stop,
    /// Take nothing new.
    drained: AtomicBool,
    /// Number of the next run.
    runs: AtomicU64,
    /// Held by the one thread that asks the coordinator for work while there are no hints.
    asking: Mutex<()>,
    counts: health::Counts,
    opened: shards::Opened,
}

impl Crew {
    /// A name for one run, for its claims.
    fn run_name(&self, run: u64) -> String {
        format!("{}/{:016x}.{run}", self.name, self.instance)
    }

    /// As whom a run asks for work. A process's own is never the same twice; what the machine knows it by, a coordinator makes of it and
    /// of the token.
    fn driver(&self, run: u64) -> Driver {
        Driver { node: self.instance, boots: 0, run }
    }

    /// Says that a repository cannot be opened here: people see it, and its cycles are given to others for a while.
    fn note_unable(&self, repository: &RepositoryId, driver: Driver, why: &Failure) -> Result<()> {
        let (repository, worker) = (repository.clone(), self.name.clone());
        let failure = Box::new(Failure { kind: why.kind, text: plain(&why.text), retryable: false });
        self.link.say(Command::NoteShutOut { repository, worker, driver, failure }).map(drop)
    }
}

/// Works until it is asked to stop.
///
/// # Errors
/// `Locked`: another process uses its folder, or a later one has its name; `Permission` for tokens and folders; `StoreUnavailable` if no
/// coordinator answers at the start.
pub(crate) fn run(options: Options, stop: &Stop, said: impl FnOnce(&str)) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let _folder = cache::prepare(&options.engine.state_dir)?;
    let link = Arc::new(Link::new(options.client));
    let instance: u64 = rand::Rng::random(&mut rand::rng());
    let exchange = options.shards.as_ref().map(|shards| shards.exchange.id().to_string());
    let info = WorkerInfo {
        instance,
        started: LogTime::of(clock.now()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pools: options.pools.iter().map(|pool| pool.as_str().to_owned()).collect(),
        labels: options.labels,
        places: options.places,
        exchange,
    };
    let presence = Presence::new(link.clone(), options.name.clone(), info);
    let instructions = presence.announce()?;
    let keys = Arc::new(Keyring::default());
    keys.replace(instructions.keys.iter().copied());
    let queue = options.nats.map(|nats| queue(&nats, &instructions.fleet, keys.clone())).transpose()?;
    let site = Site {
        opener: Arc::new(Opener { engine: options.engine, secrets: options.secrets }),
        identity: instructions.fleet.clone(),
        router: Arc::new(Router::default()),
        meters: Arc::default(),
        shards: options.shards,
        evidence: Some(Arc::new(RemoteEvidence::new(link.clone()))),
    };
    let crew = Arc::new(Crew {
        link,
        clock,
        name: options.name,
        instance,
        pools: options.pools,
        queue,
        keys,
        site,
        stop: stop.clone(),
        drained: AtomicBool::new(instructions.drain),
        runs: AtomicU64::new(0),
        asking: Mutex::default(),
        counts: health::Counts::default(),
        opened: shards::Opened::default(),
    });
    let _health = options.listen.map(|listen| health::serve(listen, crew.clone())).transpose()?;
    said(&format!("worker {} for {} ({})", crew.name, instructions.fleet, pools(&crew.pools)));
    let lost = places::work(&crew, &presence, options.places, options.drain_timeout);
    presence.leave();
    lost.map_or(Ok(()), Err)
}

fn queue(nats: &Nats, fleet: &str, keys: Arc<Keyring>) -> Result<Arc<dyn WorkQueue>> {
    Ok(Arc::new(NatsQueue::join(&nats.of(fleet)?, keys).map_err(unusable)?))
}

fn pools(pools: &[Pool]) -> String {
    pools.iter().map(Pool::as_str).collect::<Vec<_>>().join(", ")
}
