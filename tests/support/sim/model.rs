//! What there should be: every snapshot that was ever published, with the contents that it needs, and their bytes.

use std::collections::{BTreeMap, BTreeSet};

use verger_kopia::content::ContentId;

pub struct Snapshot {
    pub needs: BTreeSet<ContentId>,
    pub client: usize,
    pub complete: bool,
    /// Somebody asked for it to be deleted: it may be gone, and may come back as long as it is whole.
    pub deleted: bool,
}

#[derive(Default)]
pub struct Model {
    pub snapshots: BTreeMap<String, Snapshot>,
    pub plain: BTreeMap<ContentId, Vec<u8>>,
}

/// What becomes true when an index blob is in the store.
pub enum Change {
    Publish(String, Snapshot),
    Delete(Vec<String>),
}

impl Model {
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Publish(id, snapshot) => drop(self.snapshots.insert(id, snapshot)),
            Change::Delete(ids) => {
                for id in ids {
                    if let Some(snapshot) = self.snapshots.get_mut(&id) {
                        snapshot.deleted = true;
                    }
                }
            }
        }
    }
}
