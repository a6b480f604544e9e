//! What a cycle did, told from the repository before and after it, and held against the rules for full margins.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use verger_kopia::clock::Timestamp;
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::maintenance::history::{RunRecord, Task};
use verger_kopia::maintenance::schedule::Schedule;

use crate::store::{HOUR, World};

/// A repository before a cycle, and what the cycle did.
pub struct Oracle {
    at: Timestamp,
    entries: BTreeMap<ContentId, Entry>,
    blobs: BTreeMap<String, Timestamp>,
    /// Live before, marked after.
    pub marked: BTreeSet<ContentId>,
    /// Marked before, gone after.
    pub dropped: BTreeSet<ContentId>,
    /// Packs that are gone.
    pub packs_gone: BTreeSet<String>,
    /// Epochs with a new compacted set.
    pub epochs_compacted: BTreeSet<u64>,
    /// `xn` blobs that are gone.
    pub superseded: BTreeSet<String>,
}

fn entries(world: &World) -> BTreeMap<ContentId, Entry> {
    let view = world.view();
    view.table.rows().map(|row| (view.table.id(row), view.table.entry(row))).collect()
}

fn epoch_of(blob: &str) -> u64 {
    blob[2..].split('_').next().unwrap().parse().unwrap()
}

impl Oracle {
    pub fn before(world: &World) -> Self {
        Self {
            at: world.now(),
            entries: entries(world),
            blobs: world.names(""),
            marked: BTreeSet::new(),
            dropped: BTreeSet::new(),
            packs_gone: BTreeSet::new(),
            epochs_compacted: BTreeSet::new(),
            superseded: BTreeSet::new(),
        }
    }

    /// Looks again, and holds what it sees against the rules.
    pub fn after(&mut self, world: &World) {
        let (entries, blobs, history) = (entries(world), world.names(""), world.history());
        self.contents(&entries, &history);
        self.packs(&entries, &blobs);
        self.indexes(&blobs);
        alternation(&history);
    }

    /// Marks come after a day, by the entry and by the store (R10); drops after two collections and a day (3.3, R15).
    fn contents(&mut self, after: &BTreeMap<ContentId, Entry>, history: &Schedule) {
        for (id, old) in &self.entries {
            let new = after.get(id);
            if !old.deleted && new.is_none_or(|new| new.deleted) {
                let new = new.unwrap_or_else(|| panic!("live content {id} vanished"));
                let age = self.at.as_second() - old.timestamp;
                let stored = self.at.duration_since(self.blobs[old.pack.as_str()]);
                assert!(age >= 24 * 3600 && stored.as_hours() >= 24, "{id} was marked at {age} s, {stored}");
                assert!(new.timestamp >= self.at.as_second() && new.pack == old.pack, "{id}: {new:?}");
                self.marked.insert(*id);
            }
            if old.deleted && new.is_none() {
                let mark = Timestamp::from_second(old.timestamp).unwrap();
                assert!(self.at.duration_since(mark).as_hours() >= 24, "{id}: mark of {mark} dropped at {}", self.at);
                assert!(is_safe_to_drop(mark, history.history(Task::SnapshotGc)), "{id}: mark of {mark}");
                self.dropped.insert(*id);
            }
        }
    }

    /// A pack goes when nothing visible lies in it, and after a day.
    fn packs(&mut self, after: &BTreeMap<ContentId, Entry>, blobs: &BTreeMap<String, Timestamp>) {
        let needed: BTreeSet<&str> = after.values().map(|entry| entry.pack.as_str()).collect();
        for (name, written) in self.blobs.iter().filter(|(name, _)| name.starts_with(['p', 'q', 's'])) {
            if blobs.contains_key(name) {
                continue;
            }
            assert!(!needed.contains(name.as_str()), "{name} is needed");
            assert!(self.at.duration_since(*written).as_hours() >= 24, "{name} of {written} is gone at {}", self.at);
            if !name.starts_with('s') {
                self.packs_gone.insert(name.clone());
            }
        }
        let missing = needed.iter().find(|pack| !blobs.contains_key(**pack));
        assert!(missing.is_none(), "{missing:?} is gone");
    }

    /// `xn` blobs go when a set of their epoch is older than the newest index blob by the safety margin (3.7); legacy ones when
    /// an hour lies between.
    fn indexes(&mut self, blobs: &BTreeMap<String, Timestamp>) {
        let newest = self.blobs.iter().filter(|(name, _)| name.starts_with("xn")).map(|(_, time)| *time).max();
        for (name, _) in blobs.iter().filter(|(name, _)| name.starts_with("xs") && !self.blobs.contains_key(*name)) {
            self.epochs_compacted.insert(epoch_of(name));
        }
        for (name, written) in self.blobs.iter().filter(|(name, _)| !blobs.contains_key(*name)) {
            if name.starts_with("xn") {
                let set = format!("xs{}_", epoch_of(name));
                let set = self.blobs.iter().filter(|(name, _)| name.starts_with(&set)).map(|(_, time)| *time).max();
                let set = set.unwrap_or_else(|| panic!("{name} is gone, and no set replaced it"));
                assert!(newest.unwrap().duration_since(set).as_hours() >= 4, "{name}: the set of {set} is too new");
                self.superseded.insert(name.clone());
            }
            if name.starts_with('n') {
                assert!(self.at.duration_since(*written) >= HOUR.try_into().unwrap(), "{name} of {written}");
            }
        }
    }
}

/// Some collection P began an hour or more after the mark, and a later one began more than four hours after P ended.
fn is_safe_to_drop(mark: Timestamp, runs: &[RunRecord]) -> bool {
    let good = || runs.iter().filter(|run| run.success);
    let newest = good().map(|run| run.start).max().unwrap();
    good().any(|p| p.start >= mark + HOUR && newest.duration_since(p.end) > (HOUR * 4).try_into().unwrap())
}

/// As a Kopia owner reads the history (2.4): a rewrite comes after a deletion that finished the rewrite before it, a deletion an hour
/// or more after any rewrite.
fn alternation(history: &Schedule) {
    let ends = |tasks: &[Task]| -> Vec<(Timestamp, Timestamp)> {
        let all = tasks.iter().flat_map(|task| history.history(*task)).filter(|run| run.success);
        all.map(|run| (run.start, run.end)).collect()
    };
    let rewrites = ends(&[Task::FullRewriteContents]);
    let any_rewrite = ends(&[Task::FullRewriteContents, Task::QuickRewriteContents]);
    let deletes = ends(&[Task::FullDeleteBlobs, Task::QuickDeleteBlobs]);
    for (start, end) in &rewrites {
        let Some(last) = rewrites.iter().map(|run| run.1).filter(|earlier| earlier < end).max() else { continue };
        let finished = deletes.iter().any(|run| run.1 >= last && run.0 <= *start);
        assert!(finished, "the rewrite of {start} came before a deletion finished that of {last}");
    }
    for (start, _) in &deletes {
        let last = any_rewrite.iter().map(|run| run.1).filter(|end| end < start).max();
        let waited =
            last.is_none_or(|last| start.duration_since(last) >= Duration::from_secs(3600).try_into().unwrap());
        assert!(waited, "the deletion of {start} came too soon after the rewrite of {last:?}");
    }
}
