//! Looks at each change that a process makes in the store: was it its turn, was it asked for, and does it know of what clients wrote?

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use verger_kopia::clock::{Clock as _, Timestamp};
use verger_kopia::content::ContentId;
use verger_kopia::storage::BlobId;
use verger_proto::{Approval, RepositoryId, Stage, StoreTime};
use verger_worker::bucket_lease::{self, LEASE, LeaseBody};

use super::clients::hub::{Hub, Live};
use super::oracle::Finding;
use super::turns::look;
use super::world::World;

/// What was seen in a whole run.
#[derive(Debug, Default)]
pub struct Seen {
    /// Deeds that were looked at.
    pub deeds: AtomicU32,
    /// Marks that were held against what clients wrote.
    pub marks: AtomicU32,
    /// Shards that others than their lead did.
    pub shards: Arc<AtomicU32>,
    /// And those among them whose workers hear no hints.
    pub asked: Arc<AtomicU32>,
}

/// The judge of one process.
pub struct Judge {
    pub hub: Arc<Hub>,
    world: World,
    seen: Arc<Seen>,
    /// The repository whose machine approves; none: a process that is a machine of its own.
    repository: Option<RepositoryId>,
    /// The term of the lease that it wrote last, and by whom.
    term: AtomicU64,
    writer: Mutex<String>,
}

fn stamp(time: StoreTime) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(time.0).unwrap()).unwrap()
}

impl Judge {
    pub fn new(hub: Arc<Hub>, world: &World, seen: Arc<Seen>, repository: Option<RepositoryId>) -> Self {
        let (term, writer) = (AtomicU64::new(0), Mutex::default());
        Self { hub, world: world.clone(), seen, repository, term, writer }
    }

    /// It wrote this. `stale`: its listings lacked what others wrote in the last so many milliseconds.
    pub fn put(&self, id: &BlobId, data: &Bytes, stale: u64) {
        let name = id.as_str();
        if name == LEASE {
            let body: LeaseBody = serde_json::from_slice(data).unwrap();
            self.term.store(body.term, Ordering::Relaxed);
            *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = body.writer;
        }
        if name.starts_with(['x', 'n', 'm']) {
            let found = self.deed("put", id).and_then(|approval| self.knows(id, approval, stale));
            self.find(found);
        }
    }

    /// It deleted this.
    pub fn deleted(&self, id: &BlobId) {
        if id.as_str().starts_with(['x', 'n', 'm', 'p', 'q']) {
            let found = self.deed("deletion", id).map(drop);
            self.find(found);
        }
    }

    fn find(&self, found: Result<(), Finding>) {
        if let Err(finding) = found {
            self.world.find(finding);
        }
    }

    /// No entry appears and nothing goes but under the newest lease, and inside an approved batch, before its deadline.
    fn deed(&self, what: &str, id: &BlobId) -> Result<Option<Approval>, Finding> {
        self.seen.deeds.fetch_add(1, Ordering::Relaxed);
        let now = self.hub.clock.now();
        let lease = bucket_lease::read(&*self.hub.door).map_err(|error| error.chain())?.map(|(_, body)| body);
        let lease = lease.ok_or_else(|| format!("{what} of {id}, and nobody has the lease"))?;
        let is_own = lease.term == self.term.load(Ordering::Relaxed)
            && lease.writer == *self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_own || lease.free || lease.acts_until < now {
            return Err(format!("{what} of {id} at {now}, and the lease says {lease:?}"));
        }
        let Some(repository) = &self.repository else { return Ok(None) };
        let now = StoreTime(u64::try_from(now.as_millisecond()).unwrap());
        let approved = look(&self.world, |state| {
            let cycle = state.open_cycle(repository)?;
            let mut outstanding = cycle.jobs.values().filter_map(|job| job.batches.outstanding.as_ref());
            outstanding.find(|outstanding| outstanding.approval.store_deadline >= now).map(|found| found.approval)
        });
        approved.map(Some).ok_or_else(|| format!("{what} of {id} outside an approved batch"))
    }

    /// What it marks is where the mark says, and no snapshot needs it, in the newest view that its approval vouches for (R1, R14).
    fn knows(&self, id: &BlobId, approval: Option<Approval>, stale: u64) -> Result<(), Finding> {
        let Some(approval) = approval.filter(|approval| approval.batch.stage == Stage::Mark) else { return Ok(()) };
        let taken = stamp(approval.view.taken) - Duration::from_millis(stale);
        let outside = &self.hub.outside;
        let mut live = self.hub.live();
        let Live { lens, model, .. } = &mut *live;
        let unreadable = |error: verger_kopia::Error| format!("the index cannot be read: {}", error.chain());
        let view = lens.view_until(outside, taken).map_err(unreadable)?;
        let manifests = lens.manifests(outside, &view).map_err(unreadable)?;
        let snapshots = model.snapshots.iter().filter(|(id, _)| manifests.contains_key(*id));
        let needed: BTreeSet<&ContentId> = snapshots.flat_map(|(_, snapshot)| &snapshot.needs).collect();
        for mark in lens.entries(outside, id).map_err(unreadable)?.iter().filter(|entry| entry.deleted) {
            self.seen.marks.fetch_add(1, Ordering::Relaxed);
            if needed.contains(&mark.id) {
                return Err(format!("{} is marked, and a snapshot that was there at {taken} needs it", mark.id));
            }
            let known = view.winners.get(&mark.id);
            if known.is_none_or(|known| (&known.pack, known.offset) != (&mark.pack, mark.offset)) {
                return Err(format!("{} is marked in {}, and at {taken} it was {known:?}", mark.id, mark.pack));
            }
        }
        Ok(())
    }
}
