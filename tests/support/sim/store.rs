//! The maintainer's way to the store, on which everybody else gets their turns.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use verger_kopia::clock::Timestamp;
use verger_kopia::storage::{
    BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, PutOptions, PutReceipt, Retention, Storage, Versioning,
};
use verger_kopia::{Error, ErrorKind, Result};

use super::hub::{Dead, Hub, Moment};
use crate::store::Door;

/// What the maintainer talks to. Reads of blobs are no moments of their own: what they read never changes, and several threads
/// of the product read at once, in an order that no seed tells.
pub struct Counter(pub Arc<Hub>);

impl std::fmt::Debug for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counter")
    }
}

fn killed(_: Dead) -> Error {
    Error::new(ErrorKind::Interrupted, "the process was killed")
}

impl Counter {
    fn call<T>(&self, call: &str, name: &str, work: impl FnOnce(&Door) -> Result<T>) -> Result<T> {
        self.0.request(Moment::Before, call, name).map_err(killed)?;
        let answer = work(&self.0.door);
        self.0.request(Moment::After, call, name).map_err(killed)?;
        answer
    }
}

impl Storage for Counter {
    fn address(&self) -> String {
        self.0.door.address()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.door.capabilities()
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        if self.0.is_dead() {
            return Err(killed(Dead));
        }
        self.0.door.get(id, range)
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.call("head", id.as_str(), |door| door.head(id))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        // Asked for side by side with the index; no client writes there.
        if prefix == "kopia." && !self.0.is_dead() {
            return self.0.door.list(prefix, visit);
        }
        // Part of a random name: how often it is asked for, no seed tells.
        if let [b'n' | b'm' | b'l', _, ..] = prefix.as_bytes()
            && !self.0.is_dead()
        {
            return self.0.door.list(prefix, visit);
        }
        self.call("list", prefix, |door| door.list(prefix, visit))
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        let was_dead = self.0.is_dead();
        if let Err(dead) = self.0.request(Moment::Before, "put", id.as_str()) {
            if !was_dead {
                self.0.haunted(id, data, options);
            }
            return Err(killed(dead));
        }
        let answer = self.0.door.put(id, data, options);
        self.0.request(Moment::After, "put", id.as_str()).map_err(killed)?;
        answer
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        let name = ids.first().map_or("", BlobId::as_str);
        let refused = |ids: &[BlobId]| ids.iter().map(|id| (id.clone(), killed(Dead))).collect();
        let was_dead = self.0.is_dead();
        if self.0.request(Moment::Before, "delete", name).is_err() {
            // The first half of a batch may be gone all the same; but a dead process asks for nothing more.
            if !was_dead {
                self.0.door.delete(&ids[..ids.len() / 2], not_after);
            }
            return DeleteReport { deleted: Vec::new(), failed: refused(ids) };
        }
        let report = self.0.door.delete(ids, not_after);
        match self.0.request(Moment::After, "delete", name) {
            Ok(()) => report,
            Err(_) => DeleteReport { deleted: Vec::new(), failed: refused(ids) },
        }
    }

    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        self.call("extend", id.as_str(), |door| door.extend_retention(id, retention))
    }

    fn now(&self) -> Result<Timestamp> {
        self.call("now", "", Storage::now)
    }

    fn versioning(&self) -> Result<Versioning> {
        self.0.door.versioning()
    }
}
