//! One process's way to the store: slow, with errors, with listings that are old, and with somebody who looks at each of its changes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use verger_kopia::clock::{Clock as _, Timestamp};
use verger_kopia::storage::{
    BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, PutOptions, PutReceipt, Retention, Storage, Versioning,
};
use verger_kopia::{Error, ErrorKind, Result};

use super::clients::hub::Hub;
use super::clients::trace::kind;
use super::judge::Judge;
use super::turns::{Dead, Seat};

/// What the store is like for one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Longest time of a request, in milliseconds.
    pub slow: u64,
    /// Of a thousand requests, before so many a client gets its turn early.
    pub crowd: u32,
    /// Of a thousand requests, so many end in an error or a timeout, before or after the effect.
    pub faults: u32,
    /// Listings may lack what others wrote in the last so many milliseconds; what this process wrote is always there, as the store's
    /// probe saw it.
    pub stale: u64,
}

/// The letters of what is read: packs, index blobs, epochs and logs, session markers, Kopia's own, Verger's own.
const LETTERS: [u8; 8] = *b"pqxnmskv";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing of it happened.
    Before,
    /// It happened, and nobody hears of it.
    After,
}

struct Luck {
    dice: SmallRng,
    /// Nothing with this letter can be read until the next request of another kind.
    unreadable: Option<u8>,
    /// Blobs that this process wrote.
    own: BTreeSet<BlobId>,
}

/// What a process talks to. Reads of blobs, and the listing of `kopia.`, are no requests of their own: several threads of the product ask
/// at once, in an order that no seed tells.
pub struct Way {
    pub hub: Arc<Hub>,
    pub seat: Arc<Seat>,
    pub judge: Arc<Judge>,
    weather: Weather,
    luck: Mutex<Luck>,
    /// Of a cycle in shards: how many packs are written, and by whom, hangs on names that no seed tells once a shard was split. So
    /// writing one is no request of its own, and reading one does not fail.
    in_shards: bool,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Way")
    }
}

pub fn killed(_: Dead) -> Error {
    Error::new(ErrorKind::Interrupted, "the process was killed")
}

fn unavailable(call: &str, name: &str) -> Error {
    Error::new(ErrorKind::StoreUnavailable, format!("{call} {name}: no answer (injected)"))
}

impl Way {
    pub fn new(seat: Arc<Seat>, judge: Arc<Judge>, weather: Weather, dice: SmallRng) -> Self {
        let luck = Mutex::new(Luck { dice, unreadable: None, own: BTreeSet::new() });
        Self { hub: judge.hub.clone(), seat, judge, weather, luck, in_shards: false }
    }

    /// The same for a process whose cycle is cut into shards.
    pub fn in_shards(self, in_shards: bool) -> Self {
        Self { in_shards, ..self }
    }

    fn luck(&self) -> MutexGuard<'_, Luck> {
        self.luck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strikes(&self, luck: &mut Luck) -> bool {
        luck.dice.random_range(0..1000) < self.weather.faults
    }

    /// What befalls the next request, and the reads up to the one after it.
    fn fault(&self) -> Option<Fault> {
        let mut luck = self.luck();
        luck.unreadable = self.strikes(&mut luck).then(|| *self.letters().choose(&mut luck.dice).unwrap());
        self.strikes(&mut luck).then(|| *[Fault::Before, Fault::Before, Fault::After].choose(&mut luck.dice).unwrap())
    }

    /// A request begins. `Err`: its process did not live to send it.
    fn begin(&self, call: &str, name: &str) -> std::result::Result<Option<Fault>, Dead> {
        self.seat.begin()?;
        self.hub.pass(call, self.weather.slow, self.weather.crowd);
        let fault = self.fault();
        self.hub.note(&format!(
            "e{} {call} {}{}",
            self.seat.number,
            kind(name),
            if fault.is_some() { " !" } else { "" }
        ));
        Ok(fault)
    }

    fn end(&self, call: &str, name: &str, fault: Option<Fault>) -> Result<()> {
        self.hub.pass(call, self.weather.slow / 4, self.weather.crowd);
        self.seat.end().map_err(killed)?;
        if fault.is_some() { Err(unavailable(call, name)) } else { Ok(()) }
    }

    fn call<T>(&self, call: &str, name: &str, work: impl FnOnce(&dyn Storage) -> Result<T>) -> Result<T> {
        let fault = self.begin(call, name).map_err(killed)?;
        let answer = if fault == Some(Fault::Before) { Err(unavailable(call, name)) } else { work(&*self.hub.door) };
        self.end(call, name, fault)?;
        answer
    }

    fn letters(&self) -> &'static [u8] {
        if self.in_shards { &LETTERS[2..] } else { &LETTERS }
    }

    fn alive(&self) -> Result<()> {
        if self.seat.is_dead() { Err(killed(Dead)) } else { Ok(()) }
    }

    /// Since when listings lack what others write.
    fn unseen_since(&self) -> Timestamp {
        let stale = self.luck().dice.random_range(0..=self.weather.stale);
        self.hub.clock.now() - Duration::from_millis(stale)
    }

    fn list_old(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        if self.weather.stale == 0 {
            return self.hub.door.list(prefix, visit);
        }
        let since = self.unseen_since();
        let own = self.luck().own.clone();
        self.hub.door.list(prefix, &mut |blob| {
            if blob.timestamp > since && !own.contains(&blob.id) { Ok(()) } else { visit(blob) }
        })
    }
}

impl Storage for Way {
    fn address(&self) -> String {
        self.hub.door.address()
    }

    fn capabilities(&self) -> Capabilities {
        self.hub.door.capabilities()
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        self.alive()?;
        if self.luck().unreadable == id.as_str().bytes().next() {
            return Err(unavailable("get", id.as_str()));
        }
        self.hub.door.get(id, range)
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.call("head", id.as_str(), |door| door.head(id))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        // Asked for side by side with the index; or part of a random name, and how often no seed tells.
        if prefix == "kopia." || matches!(prefix.as_bytes(), [b'n' | b'm' | b'l', _, ..]) {
            self.alive()?;
            return self.hub.door.list(prefix, visit);
        }
        self.call("list", prefix, |_| self.list_old(prefix, visit))
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        if self.in_shards && id.as_str().starts_with(['p', 'q']) {
            self.alive()?;
            self.luck().own.insert(id.clone());
            return self.hub.door.put(id, data, options);
        }
        let was_dead = self.seat.is_dead();
        let fault = match self.begin("put", id.as_str()) {
            Ok(fault) => fault,
            Err(dead) => {
                if !was_dead {
                    self.hub.haunted(id, data, options);
                }
                return Err(killed(dead));
            }
        };
        let answer = if fault == Some(Fault::Before) {
            Err(unavailable("put", id.as_str()))
        } else {
            self.hub.door.put(id, data.clone(), options)
        };
        if answer.is_ok() {
            self.luck().own.insert(id.clone());
            self.judge.put(id, &data, self.weather.stale);
        }
        self.end("put", id.as_str(), fault)?;
        answer
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        let name = ids.first().map_or("", BlobId::as_str);
        let none = |error: fn(&str, &str) -> Error| {
            let failed = ids.iter().map(|id| (id.clone(), error("delete", id.as_str()))).collect();
            DeleteReport { deleted: Vec::new(), failed }
        };
        let gone = |_: &str, _: &str| killed(Dead);
        let was_dead = self.seat.is_dead();
        let fault = match self.begin("delete", name) {
            Ok(fault) => fault,
            Err(_) => {
                // It may be gone all the same; but a dead process asks for nothing more. Of half a batch no seed tells which half.
                if !was_dead && self.luck().dice.random_bool(0.5) {
                    self.hub.door.delete(ids, not_after);
                }
                return none(gone);
            }
        };
        let report = match fault {
            Some(Fault::Before) => none(unavailable),
            _ => self.hub.door.delete(ids, not_after),
        };
        report.deleted.iter().for_each(|id| self.judge.deleted(id));
        match self.end("delete", name, fault) {
            Ok(()) => report,
            Err(_) if self.seat.is_dead() => none(gone),
            Err(_) => none(unavailable),
        }
    }

    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        self.call("extend", id.as_str(), |door| door.extend_retention(id, retention))
    }

    fn now(&self) -> Result<Timestamp> {
        self.call("now", "", |door| door.now())
    }

    fn versioning(&self) -> Result<Versioning> {
        self.hub.door.versioning()
    }
}
