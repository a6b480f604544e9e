//! The exchange of a run, and each process's way to it: slow, with errors, and with parts that are damaged behind everybody's back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use verger_kopia::clock::Timestamp;
use verger_kopia::storage::{
    BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, MemoryStorage, PutOptions, PutReceipt, Retention,
    Storage, Versioning,
};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::Ticket;
use verger_worker::exchange::Exchange;

use super::clients::hub::Hub;
use super::turns::{Dead, Seat};
use super::way::{Weather, killed};
use super::world::lock;

/// How often a worker says that it lives, in milliseconds: a claim ends after 30 s.
const BEAT_EVERY: u64 = 5_000;

/// What becomes of a part once it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Flipped,
    Cut,
    Emptied,
    Lost,
}

impl Damage {
    pub const ALL: [Self; 4] = [Self::Flipped, Self::Cut, Self::Emptied, Self::Lost];
}

/// What parts are, as in their names: what was copied is least often there, and has nobody behind its reader who would miss it.
pub const KINDS: [&str; 7] = ["scan.order", "scan.order", "scan", "rewrite", "rewrite", "rewrite", "rewrite"];

/// A bad order of a rewrite is gone around. Which pack stays then would hang on its name, which no seed tells: so all of a cycle are bad.
pub const REWRITE_ORDER: &str = "rewrite.order";

/// Which part is damaged, and how: the first of its kind in a cycle, the second one, …
#[derive(Clone, Copy, Debug)]
pub struct Spoiling {
    pub kind: &'static str,
    pub number: u32,
    pub how: Damage,
}

#[derive(Default)]
struct Parts {
    spoiling: Option<Spoiling>,
    /// What a reader must not take for what was reported, and why.
    bad: BTreeMap<BlobId, String>,
}

/// Where parts lie.
pub struct Yard {
    pub memory: Arc<MemoryStorage>,
    hub: Arc<Hub>,
    parts: Mutex<Parts>,
}

impl Yard {
    pub fn new(hub: Arc<Hub>) -> Self {
        let memory = Arc::new(MemoryStorage::new(hub.clock.clone()));
        // Who is first marks it, and no process of this run is that.
        Exchange::open(memory.clone()).unwrap();
        Self { memory, hub, parts: Mutex::default() }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        lock(&self.parts)
    }

    /// What befalls parts that are written from now on.
    pub fn plan(&self, spoiling: Option<Spoiling>) {
        self.parts().spoiling = spoiling;
    }

    /// Parts that are not what was reported.
    pub fn spoiled(&self) -> u32 {
        u32::try_from(self.parts().bad.len()).unwrap()
    }

    /// This part is not what it says.
    pub fn is_bad(&self, part: &BlobId, why: &str) {
        self.parts().bad.insert(part.clone(), why.to_owned());
    }

    /// What was written may befall it. Whether it is an order of a rewrite that is not what it says any more.
    fn written(&self, part: &BlobId) -> bool {
        let mut parts = self.parts();
        let Some(spoiling) = parts.spoiling.as_mut().filter(|one| one.kind == label(part.as_str())) else {
            return false;
        };
        let (how, is_order) = (spoiling.how, spoiling.kind == REWRITE_ORDER);
        if !is_order {
            spoiling.number -= 1;
            if spoiling.number > 0 {
                return false;
            }
            parts.spoiling = None;
        }
        parts.bad.insert(part.clone(), format!("{how:?}"));
        drop(parts);
        self.hub.note(&format!("a part is damaged: {} {how:?}", label(part.as_str())));
        let bytes = self.memory.get(part, ByteRange::All).unwrap();
        let stored = match how {
            Damage::Lost => {
                drop(self.memory.delete(std::slice::from_ref(part), None));
                return is_order;
            }
            Damage::Cut => bytes.slice(..bytes.len() - 1),
            Damage::Emptied => Bytes::new(),
            Damage::Flipped => {
                let mut bytes = bytes.to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                bytes.into()
            }
        };
        self.memory.put(part, stored, &PutOptions::default()).unwrap();
        is_order
    }
}

/// A part's name without what is random in it.
fn label(name: &str) -> &str {
    let kind = name.splitn(4, '.').nth(3).unwrap_or(name);
    kind.split_once('-').map_or(kind, |(kind, _)| kind)
}

/// What a process has claimed, and what it has read of the exchange since.
#[derive(Default)]
pub struct Hand {
    claim: Mutex<Option<(Ticket, u64)>>,
    read: Mutex<BTreeMap<BlobId, String>>,
    /// It cut a rewrite, and the orders are damaged.
    ordered_badly: AtomicBool,
}

impl Hand {
    /// A job begins.
    pub fn begin(&self, ticket: Ticket, now: u64) {
        *lock(&self.claim) = Some((ticket, now));
        lock(&self.read).clear();
    }

    /// It is over.
    pub fn end(&self) {
        lock(&self.claim).take();
    }

    fn ordered(&self, is_bad: bool) {
        self.ordered_badly.fetch_or(is_bad, Ordering::Relaxed);
    }

    /// Whether no shard of a rewrite that it cut can be done.
    pub fn has_ordered_badly(&self) -> bool {
        self.ordered_badly.load(Ordering::Relaxed)
    }

    /// What the job has read and must not have taken for what was reported.
    pub fn rests_on(&self) -> Option<String> {
        lock(&self.read).iter().next().map(|(part, why)| format!("part {part} ({why})"))
    }

    /// The claim whose worker has to say that it lives.
    pub fn due(&self, now: u64) -> Option<Ticket> {
        let mut claim = lock(&self.claim);
        let (ticket, said) = claim.as_mut()?;
        if now < *said + BEAT_EVERY {
            return None;
        }
        *said = now;
        Some(ticket.clone())
    }
}

/// A process's way to the exchange. Reads are no requests of their own, as on the way to the store.
pub struct Cart {
    pub yard: Arc<Yard>,
    pub seat: Arc<Seat>,
    pub hand: Arc<Hand>,
    weather: Weather,
    dice: Mutex<SmallRng>,
}

impl std::fmt::Debug for Cart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cart")
    }
}

impl Cart {
    pub fn new(yard: Arc<Yard>, seat: Arc<Seat>, hand: Arc<Hand>, weather: Weather, dice: SmallRng) -> Self {
        Self { yard, seat, hand, weather, dice: Mutex::new(dice) }
    }

    fn alive(&self) -> Result<()> {
        if self.seat.is_dead() { Err(killed(Dead)) } else { Ok(()) }
    }

    fn reads(&self, part: &BlobId) -> Result<()> {
        self.alive()?;
        if let Some(why) = self.yard.parts().bad.get(part) {
            lock(&self.hand.read).insert(part.clone(), why.clone());
        }
        Ok(())
    }

    fn call<T>(&self, call: &str, name: &str, work: impl FnOnce(&MemoryStorage) -> Result<T>) -> Result<T> {
        self.seat.begin().map_err(killed)?;
        let hub = &self.yard.hub;
        hub.pass(call, self.weather.slow / 4, 0);
        let fails = lock(&self.dice).random_range(0..1000) < self.weather.faults;
        let before = *[true, false].choose(&mut *lock(&self.dice)).unwrap();
        let mark = if fails { " !" } else { "" };
        hub.note(&format!("e{} exchange {call} {}{mark}", self.seat.number, label(name)));
        let unheard = || Error::new(ErrorKind::StoreUnavailable, format!("{call} {name}: no answer (injected)"));
        let answer = if fails && before { Err(unheard()) } else { work(&self.yard.memory) };
        self.seat.end().map_err(killed)?;
        if fails { Err(unheard()) } else { answer }
    }
}

impl Storage for Cart {
    fn address(&self) -> String {
        "memory:exchange".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        self.yard.memory.capabilities()
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        self.reads(id)?;
        self.yard.memory.get(id, range)
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.reads(id)?;
        self.yard.memory.head(id)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        self.call("list", "", |memory| memory.list(prefix, visit))
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        self.call("put", id.as_str(), |memory| {
            let receipt = memory.put(id, data, options)?;
            self.hand.ordered(self.yard.written(id));
            Ok(receipt)
        })
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        match self.call("delete", "", |memory| Ok(memory.delete(ids, not_after))) {
            Ok(report) => report,
            Err(error) => {
                let again = |id: &BlobId| (id.clone(), Error::new(error.kind(), error.to_string()));
                DeleteReport { deleted: Vec::new(), failed: ids.iter().map(again).collect() }
            }
        }
    }

    fn extend_retention(&self, _: &BlobId, _: Retention) -> Result<()> {
        self.alive()
    }

    fn now(&self) -> Result<Timestamp> {
        self.alive()?;
        self.yard.memory.now()
    }

    fn versioning(&self) -> Result<Versioning> {
        self.yard.memory.versioning()
    }
}
