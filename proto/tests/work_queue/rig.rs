//! A server with coordinators and workers, and a client that may do everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};
use verger_proto::work_queue::nats::{NatsQueue, Settings, Standing};
use verger_proto::work_queue::{Keyring, SigningKey, Taken, WorkQueue, conformance};
use verger_proto::{FleetId, Pool};

use super::server::NatsServer;

/// How long something that must come may take, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
pub const NODE: u64 = 3;

pub struct Rig {
    pub server: NatsServer,
    fleets: AtomicU32,
}

pub fn key() -> SigningKey {
    SigningKey::from_seed(NODE, [7; 32].into()).unwrap()
}

pub fn keys() -> Arc<Keyring> {
    let keys = Keyring::default();
    assert!(keys.add(NODE, key().public()));
    Arc::new(keys)
}

pub fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "not so after {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The next offer, whatever troubles there are until then.
pub fn take(queue: &NatsQueue, pools: &[Pool]) -> Box<dyn Taken> {
    let began = Instant::now();
    loop {
        match queue.take(pools, Duration::from_secs(1)) {
            Ok(Some(taken)) => return taken,
            Ok(None) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
        assert!(began.elapsed() < SOON, "nothing came: {:?}", queue.standing());
    }
}

impl Rig {
    pub fn start() -> Option<Self> {
        Some(Self { server: NatsServer::start()?, fleets: AtomicU32::new(0x0a1b_2c3d) })
    }

    /// One that nobody had before.
    pub fn new_fleet(&self) -> FleetId {
        FleetId::new(format!("{:08x}", self.fleets.fetch_add(1, Ordering::Relaxed))).unwrap()
    }

    pub fn settings(&self, fleet: &FleetId) -> Settings {
        Settings::new(vec![self.server.url()], fleet.clone())
    }

    /// A coordinator's end, with all made.
    pub fn coordinator(&self, fleet: &FleetId) -> NatsQueue {
        let queue = NatsQueue::administer(&self.settings(fleet), &conformance::pools(), key()).unwrap();
        eventually("the stream is made", || queue.standing() == Standing::Up);
        queue
    }

    pub fn worker(&self, fleet: &FleetId) -> NatsQueue {
        let queue = NatsQueue::join(&self.settings(fleet), keys()).unwrap();
        eventually("the worker is connected", || queue.standing() == Standing::Up);
        queue
    }

    /// A client of its own that may do everything.
    pub fn with_client<T>(&self, call: impl AsyncFnOnce(&Context) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = async_nats::connect(self.server.url()).await.unwrap();
            call(&jetstream::new(client)).await
        })
    }
}
