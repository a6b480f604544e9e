//! Hints on their way to those who may claim what they point to: lost, late, overtaken, and twice. A lead hears of its cycle's jobs, and
//! workers of other processes hear of shards, in messages that are signed as on a wire.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use verger_coordinator::drive::Run;
use verger_proto::queue::{Hint, Queue, QueueClosed};
use verger_proto::work_queue::message::Message;
use verger_proto::work_queue::{
    ACK_WAIT, Keyring, LATER_MAX, Meters, Offer, SigningKey, Taken, Wake, WorkQueue, WorkQueueError,
};
use verger_proto::{Digest, Effect, FleetId, LogTime, Pool};

use super::clock::TrueTime;
use super::turns::{Seat, Time};
use super::world::{World, lock};

/// What is offered again within so many milliseconds is dropped, as a JetStream does, whether or not it still has the first one.
const SAME_OFFER: u64 = 120_000;
/// A lead that waited so often, half a second each time, and heard of nothing, waits in vain.
const IN_VAIN: u32 = 600;
/// The number of the coordinator that signs.
const SIGNER: u64 = 1;

/// What befalls hints, of a thousand each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub lost: u32,
    /// They come twice, the second time up to a minute later.
    pub twice: u32,
    /// They take up to a minute and a half: others overtake them.
    pub late: u32,
}

/// What is on its way, by the time at which it comes (milliseconds since the beginning); the number makes each key unique.
struct Line<T> {
    waiting: BTreeMap<(u64, u64), T>,
    number: u64,
    dice: SmallRng,
    weather: Weather,
}

impl<T: Clone> Line<T> {
    fn new(weather: Weather, dice: SmallRng) -> Self {
        Self { waiting: BTreeMap::new(), number: 0, dice, weather }
    }

    fn strikes(&mut self, share: u32) -> bool {
        self.dice.random_range(0..1000) < share
    }

    fn put(&mut self, at: u64, what: T) {
        self.number += 1;
        self.waiting.insert((at, self.number), what);
    }

    fn send(&mut self, now: u64, what: T) {
        let Weather { lost, twice, late } = self.weather;
        if self.strikes(lost) {
            return;
        }
        if self.strikes(twice) {
            let again = self.dice.random_range(0..60_000);
            self.put(now + again, what.clone());
        }
        let slow = if self.strikes(late) { 90_000 } else { 200 };
        let delay = self.dice.random_range(0..slow);
        self.put(now + delay, what);
    }

    fn due(&mut self, now: u64) -> Option<T> {
        let key = self.waiting.keys().next().copied().filter(|(at, _)| *at <= now)?;
        self.waiting.remove(&key)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

/// What a lead hears of its cycle's jobs. Nothing but time brings a hint that was lost: the machine offers again what nobody claims.
pub struct Hearing {
    line: Mutex<Line<Hint>>,
    /// The cluster's time, in which hints are sent.
    sent: TrueTime,
    seat: Arc<Seat>,
    time: Time,
    world: World,
    silent: AtomicU32,
}

impl Hearing {
    pub fn new(world: &World, time: &Time, seat: Arc<Seat>, sent: TrueTime, weather: Weather, dice: SmallRng) -> Self {
        let (line, silent) = (Mutex::new(Line::new(weather, dice)), AtomicU32::new(0));
        Self { line, sent, seat, time: time.clone(), world: world.clone(), silent }
    }
}

impl Queue for Hearing {
    fn offer(&self, hint: Hint) -> Result<(), QueueClosed> {
        lock(&self.line).send(self.sent.since_begin(), hint);
        Ok(())
    }

    fn take(&self, wait: Duration) -> Result<Option<Hint>, QueueClosed> {
        let mut found = lock(&self.line).due(self.time.now());
        if found.is_none() {
            self.seat.wait(milliseconds(wait)).map_err(|_| QueueClosed)?;
            found = lock(&self.line).due(self.time.now());
        }
        let silent = self.silent.load(Ordering::Relaxed) + 1;
        self.silent.store(if found.is_some() { 0 } else { silent }, Ordering::Relaxed);
        if found.is_none() && silent > IN_VAIN {
            self.world.find("a cycle waits in vain: what nobody has claimed is not offered again".to_owned());
            self.seat.end_process();
        }
        Ok(found)
    }

    fn close(&self) {}
}

/// Where offers of shards wait for workers.
struct Bell {
    line: Mutex<Line<Vec<u8>>>,
    /// When what was offered last.
    known: Mutex<BTreeMap<Digest, u64>>,
    sent: TrueTime,
    key: SigningKey,
    ring: Keyring,
    fleet: FleetId,
    meters: Meters,
}

/// One end of it: a coordinator's, or a worker's, who has a seat.
#[derive(Clone)]
pub struct Ear {
    bell: Arc<Bell>,
    seat: Option<(Arc<Seat>, Time)>,
}

impl Ear {
    /// The coordinators' end.
    pub fn new(sent: TrueTime, dice: SmallRng) -> Self {
        let key = SigningKey::from_seed(SIGNER, [7; 32].into()).unwrap();
        let ring = Keyring::default();
        assert!(ring.add(SIGNER, key.public()));
        let (line, known) = (Mutex::new(Line::new(Weather::default(), dice)), Mutex::default());
        let (fleet, meters) = (FleetId::new("0a1b2c3d").unwrap(), Meters::default());
        Self { bell: Arc::new(Bell { line, known, sent, key, ring, fleet, meters }), seat: None }
    }

    /// What befalls hints from now on. What is on its way stays there.
    pub fn set_weather(&self, weather: Weather) {
        lock(&self.bell.line).weather = weather;
    }

    /// A worker's end.
    pub fn of(&self, seat: Arc<Seat>, time: Time) -> Self {
        Self { bell: self.bell.clone(), seat: Some((seat, time)) }
    }

    fn now(&self) -> u64 {
        self.seat.as_ref().map_or_else(|| self.bell.sent.since_begin(), |(_, time)| time.now())
    }

    /// The next message that is believed; all others are thrown away.
    fn due(&self) -> Option<(Vec<u8>, Offer)> {
        let now = self.now();
        let clock = LogTime(super::clock::BEGIN + now);
        loop {
            let bytes = lock(&self.bell.line).due(now)?;
            let opened = Message::open(&bytes, &self.bell.ring);
            let pool = Pool::default();
            let believed = opened.and_then(|message| message.check(&self.bell.fleet, &pool, clock).map(|()| message));
            if let Ok(message) = believed {
                let offer = Offer { pool, wake: message.wake, trace: None };
                return Some((bytes, offer));
            }
        }
    }
}

/// A shard that anybody may do is told to all, as `src/up/hints.rs` does.
impl Run for Ear {
    fn run(&self, effect: Effect) {
        if let Effect::OfferJob(job) = effect
            && !job.shard.is_whole()
        {
            let wake = Wake::Job(Hint::from(job.as_ref()));
            let _ = self.offer(&Offer { pool: Pool::default(), wake, trace: None });
        }
    }
}

impl WorkQueue for Ear {
    /// It is acknowledged, and that says nothing.
    fn offer(&self, offer: &Offer) -> Result<(), WorkQueueError> {
        let now = self.now();
        let before = lock(&self.bell.known).get(&offer.message_id(LogTime(now))).copied();
        if before.is_some_and(|before| now < before + SAME_OFFER) {
            return Ok(());
        }
        lock(&self.bell.known).insert(offer.message_id(LogTime(now)), now);
        let sent = LogTime(super::clock::BEGIN + now);
        let sealed = Message::of(offer, self.bell.fleet.clone(), sent).seal(&self.bell.key);
        lock(&self.bell.line).send(now, sealed.map_err(|error| WorkQueueError::Unfit(error.to_string()))?);
        Ok(())
    }

    fn take(&self, _: &[Pool], wait: Duration) -> Result<Option<Box<dyn Taken>>, WorkQueueError> {
        let Some((seat, _)) = &self.seat else { return Err(WorkQueueError::Closed) };
        let mut found = self.due();
        if found.is_none() {
            seat.wait(milliseconds(wait)).map_err(|_| WorkQueueError::Closed)?;
            found = self.due();
        }
        let held = |(bytes, offer)| Held { ear: self.clone(), bytes, offer, is_over: false };
        Ok(found.map(|found| Box::new(held(found)) as Box<dyn Taken>))
    }

    fn close(&self) {}

    fn meters(&self) -> &Meters {
        &self.bell.meters
    }
}

/// A message in somebody's hands. Whoever dies with it, or whose acknowledgement is lost, gives it to somebody else.
struct Held {
    ear: Ear,
    bytes: Vec<u8>,
    offer: Offer,
    is_over: bool,
}

impl Held {
    fn again(&mut self, after: Duration) {
        let at = self.ear.now() + milliseconds(after);
        lock(&self.ear.bell.line).put(at, self.bytes.clone());
        self.is_over = true;
    }
}

impl Taken for Held {
    fn offer(&self) -> &Offer {
        &self.offer
    }

    fn done(mut self: Box<Self>) {
        let is_unheard = {
            let mut line = lock(&self.ear.bell.line);
            let share = line.weather.twice;
            line.strikes(share)
        };
        if is_unheard {
            self.again(ACK_WAIT);
        }
        self.is_over = true;
    }

    fn later(mut self: Box<Self>, after: Duration) {
        self.again(after.min(LATER_MAX));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_over {
            self.again(ACK_WAIT);
        }
    }
}
