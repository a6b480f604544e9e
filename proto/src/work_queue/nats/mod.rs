//! The queue of many processes: a JetStream work queue.
//!
//! ```text
//! coordinator -- signed message, at most 4 KiB --> stream VERGER_<FLEET> -- consumer work-<pool> --> one worker, until it says done
//! ```
//! Coordinators make the stream and its consumers and keep them; workers may only ask for the next offer and say what becomes of it
//! (`deploy/nats/nats.conf`). Nothing that the server says is believed beyond "there may be something to claim".

mod link;
mod offer;
mod settings;
mod take;
mod upkeep;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, Message, Subject};
use tokio::runtime::Runtime;

use super::message::Message as Signed;
use super::meters::Fate;
use super::{
    Keyring, LATER_DEFAULT, LATER_MAX, Meters, Offer, Rejection, SigningKey, Taken, WorkQueue, WorkQueueError,
};
use crate::id::{FleetId, Pool};
use crate::time::LogTime;
use link::{Link, reconnect_pause};
use upkeep::Upkeep;

pub use link::Standing;
pub use settings::{Credentials, Names, Settings, SettingsError};

/// Messages that wait in this process for whoever asked, for each question.
const ANSWERS_MAX: usize = 1024;
/// Commands to the server that wait in this process.
const COMMANDS_MAX: usize = 1024;
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const PING_PERIOD: Duration = Duration::from_secs(10);
/// Messages that one call throws away before it comes back with nothing.
const REJECTED_MAX: usize = 100;
/// Of messages that are thrown away, one in so long is told, for each reason.
const TELL_PERIOD: Duration = Duration::from_secs(60);
/// A message that is no good here is somebody else's until then.
const ELSEWHERE_LATER: Duration = Duration::from_secs(30);

/// What both sides of the queue have.
struct Core {
    fleet: FleetId,
    names: Names,
    client: Client,
    link: Arc<Link>,
    meters: Meters,
    /// Which pool is looked at first.
    turn: AtomicUsize,
    told: Mutex<[Option<Instant>; Rejection::LABELS.len()]>,
    runtime: Option<Runtime>,
}

impl Drop for Core {
    fn drop(&mut self) {
        // The last holder may be one of the runtime's own tasks.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Who we are to the queue.
enum Side {
    Coordinator { key: SigningKey, upkeep: Arc<Upkeep> },
    Worker { keys: Arc<Keyring> },
}

/// A JetStream work queue. Made at once, whether the server is there or not; never to be called from a task of an async runtime.
pub struct NatsQueue {
    core: Arc<Core>,
    side: Side,
}

impl std::fmt::Debug for NatsQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NatsQueue of fleet {}", self.core.fleet)
    }
}

fn now() -> LogTime {
    LogTime::of(jiff::Timestamp::now())
}

impl NatsQueue {
    /// A coordinator's: it makes the stream, and a consumer for each of `pools` and for each pool that something is offered to.
    ///
    /// # Errors
    /// [`SettingsError`]; not that the server is away.
    pub fn administer(settings: &Settings, pools: &[Pool], key: SigningKey) -> Result<Self, SettingsError> {
        let core = Core::new(settings, "coordinator")?;
        let upkeep = Arc::new(Upkeep::default());
        pools.iter().for_each(|pool| upkeep.need(pool));
        let (client, link, names) = (core.client.clone(), Arc::clone(&core.link), core.names.clone());
        core.spawn(Arc::clone(&upkeep).run(client, link, names, settings.replicas));
        Ok(Self { core: Arc::new(core), side: Side::Coordinator { key, upkeep } })
    }

    /// A worker's: it believes what coordinators of the ring signed.
    ///
    /// # Errors
    /// [`SettingsError`]; not that the server is away.
    pub fn join(settings: &Settings, keys: Arc<Keyring>) -> Result<Self, SettingsError> {
        Ok(Self { core: Arc::new(Core::new(settings, "worker")?), side: Side::Worker { keys } })
    }

    /// How it stands. A coordinator's is up once it has made what there has to be.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match (self.core.link.standing(), &self.side) {
            (Standing::Up, Side::Coordinator { upkeep, .. }) if !upkeep.is_made() => {
                Standing::Away(format!("stream {} is not made yet", self.core.names.stream()))
            }
            (standing, _) => standing,
        }
    }

    /// Also these pools have workers.
    pub fn add_pools(&self, pools: &[Pool]) {
        if let Side::Coordinator { upkeep, .. } = &self.side {
            pools.iter().for_each(|pool| upkeep.need(pool));
        }
    }
}

impl WorkQueue for NatsQueue {
    fn offer(&self, offer: &Offer) -> Result<(), WorkQueueError> {
        let Side::Coordinator { key, upkeep } = &self.side else {
            return Err(WorkQueueError::Unfit("only a coordinator offers work".to_owned()));
        };
        let now = now();
        let offered = self.core.link.check().and_then(|()| {
            let message = Signed::of(offer, self.core.fleet.clone(), now).seal(key);
            let message = message.map_err(|error| WorkQueueError::Unfit(error.to_string()))?;
            self.core.block_on(offer::put(&self.core, upkeep, offer, offer.message_id(now), message))
        });
        self.core.meters.count(match offered {
            Ok(true) => Fate::Offered,
            Ok(false) => Fate::Repeated,
            Err(_) => Fate::Unoffered,
        });
        offered.map(drop)
    }

    fn take(&self, pools: &[Pool], wait: Duration) -> Result<Option<Box<dyn Taken>>, WorkQueueError> {
        let Side::Worker { keys } = &self.side else {
            return Err(WorkQueueError::Absent("offers for a coordinator".to_owned()));
        };
        let began = Instant::now();
        for _ in 0..REJECTED_MAX {
            let left = wait.saturating_sub(began.elapsed());
            let first = self.core.block_on(self.core.link.while_up(take::first(&self.core, pools, left)))??;
            let Some((pool, message)) = first else { return Ok(None) };
            match self.core.believe(&pool, &message, keys) {
                Ok((offer, reply)) => return Ok(Some(Box::new(Held::new(&self.core, offer, reply)))),
                Err(rejection) => self.core.reject(&rejection, message.reply),
            }
        }
        Ok(None)
    }

    fn close(&self) {
        self.core.link.close();
    }

    fn meters(&self) -> &Meters {
        &self.core.meters
    }
}

impl Core {
    fn new(settings: &Settings, role: &str) -> Result<Self, SettingsError> {
        let addresses = settings.addresses()?;
        let thread = |error: std::io::Error| SettingsError::Thread(error.to_string());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("work-queue")
            .enable_all()
            .build();
        let runtime = runtime.map_err(thread)?;
        let link = Arc::new(Link::default());
        let heard = Arc::clone(&link);
        let options = settings
            .options()?
            .name(format!("verger {role} of fleet {}", settings.fleet))
            // So that permissions can keep workers from listening at each other's and at coordinators' inboxes.
            .custom_inbox_prefix(format!("_INBOX_VERGER_{}", role.to_ascii_uppercase()))
            .event_callback(move |event| {
                heard.heard(&event);
                std::future::ready(())
            })
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_pause)
            .connection_timeout(CONNECT_WAIT)
            .ping_interval(PING_PERIOD)
            .subscription_capacity(ANSWERS_MAX)
            .client_capacity(COMMANDS_MAX);
        let connected = runtime.block_on(options.connect(addresses));
        let client = connected.map_err(|error| SettingsError::Address(error.to_string()))?;
        let (fleet, names) = (settings.fleet.clone(), Names::of(settings.fleet.clone()));
        let (meters, turn, told) = (Meters::default(), AtomicUsize::new(0), Mutex::default());
        Ok(Self { fleet, names, client, link, meters, turn, told, runtime: Some(runtime) })
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(task);
        }
    }

    fn block_on<T>(&self, call: impl Future<Output = Result<T, WorkQueueError>>) -> Result<T, WorkQueueError> {
        self.runtime.as_ref().map_or(Err(WorkQueueError::Closed), |runtime| runtime.block_on(call))
    }

    /// Says to the server what becomes of a message. Whether it arrives decides nothing: else the offer comes again.
    fn answer(&self, reply: Subject, words: String) {
        let client = self.client.clone();
        self.spawn(async move {
            let _ = tokio::time::timeout(offer::OFFER_WAIT, client.publish(reply, words.into())).await;
        });
    }

    /// The offer in a message that is signed, ours and of this hour.
    fn believe(&self, pool: &Pool, message: &Message, keys: &Keyring) -> Result<(Offer, Subject), Rejection> {
        let signed = Signed::open(&message.payload, keys)?;
        signed.check(&self.fleet, pool, now())?;
        let astray = || Rejection::Astray { fleet: signed.fleet.clone(), pool: signed.pool.clone() };
        let reply = self.acknowledged_at(message).ok_or_else(astray)?;
        let header = message.headers.as_ref().and_then(|headers| headers.get(offer::TRACE_HEADER));
        let trace = header.and_then(|value| value.as_str().parse().ok());
        self.meters.count(Fate::Taken);
        if deliveries(reply.as_str()) > 1 {
            self.meters.count(Fate::Redelivered);
        }
        Ok((Offer { pool: signed.pool, wake: signed.wake, trace }, reply))
    }

    /// Where to say what becomes of a message: nowhere but at our stream, whoever sent it.
    fn acknowledged_at(&self, message: &Message) -> Option<Subject> {
        let stream = self.names.stream();
        let is_ours = |reply: &&Subject| {
            reply.as_str().starts_with("$JS.ACK.") && reply.as_str().split('.').any(|word| word == stream)
        };
        message.reply.as_ref().filter(is_ours).cloned()
    }

    /// Throws a message away; one that may be good for a worker that knows more, or has a better clock, is left to others.
    fn reject(&self, rejection: &Rejection, reply: Option<Subject>) {
        let before = self.meters.count_rejected(rejection);
        let (number, label) = (rejection.number(), rejection.label());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told[number].is_none_or(|at| at.elapsed() >= TELL_PERIOD) {
            told[number] = Some(Instant::now());
            tracing::warn!("a message of the work queue is thrown away ({label}, {before} before it): {rejection}");
        }
        drop(told);
        let words = if rejection.is_final() { "+TERM".to_owned() } else { later(ELSEWHERE_LATER) };
        if let Some(reply) = reply.filter(|reply| reply.as_str().starts_with("$JS.ACK.")) {
            self.answer(reply, words);
        }
    }
}

/// `$JS.ACK.<stream>.<consumer>.<deliveries>.…`, or with a domain and an account before the stream.
fn deliveries(reply: &str) -> u64 {
    let words: Vec<&str> = reply.split('.').collect();
    let at = if words.len() > 9 { 6 } else { 4 };
    words.get(at).and_then(|word| word.parse().ok()).unwrap_or(1)
}

fn later(after: Duration) -> String {
    format!(r#"-NAK {{"delay":{}}}"#, after.as_nanos())
}

/// An offer in the hands of a worker; `None` once it was said what becomes of it.
struct Held {
    core: Arc<Core>,
    offer: Offer,
    reply: Option<Subject>,
}

impl Held {
    fn new(core: &Arc<Core>, offer: Offer, reply: Subject) -> Self {
        Self { core: Arc::clone(core), offer, reply: Some(reply) }
    }

    fn settle(&mut self, fate: Fate, words: String) {
        if let Some(reply) = self.reply.take() {
            self.core.meters.count(fate);
            self.core.answer(reply, words);
        }
    }
}

impl Taken for Held {
    fn offer(&self) -> &Offer {
        &self.offer
    }

    fn done(mut self: Box<Self>) {
        self.settle(Fate::Done, "+ACK".to_owned());
    }

    fn later(mut self: Box<Self>, after: Duration) {
        self.settle(Fate::Later, later(after.min(LATER_MAX)));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.settle(Fate::Later, later(LATER_DEFAULT));
    }
}
