//! How a simulated client, and the oracle, read the index and the manifests: with rules of their own, so that a mistake in the
//! product's merging cannot hide itself. Only formats are shared with the product.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use verger_kopia::clock::Timestamp;
use verger_kopia::content::read::read_content;
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::index_set::{fetch_indexes, list_active};
use verger_kopia::manifest::ManifestEntry;
use verger_kopia::manifest::entry::decode;
use verger_kopia::storage::BlobId;
use verger_kopia::{Repository, Result};

/// The index of one moment: of each content the visible winner, marks among them.
pub struct View {
    pub at: Timestamp,
    pub winners: BTreeMap<ContentId, Entry>,
    blobs: Vec<BlobId>,
    watermark: Option<i64>,
}

impl View {
    pub fn live(&self, id: &ContentId) -> bool {
        self.winners.get(id).is_some_and(|entry| !entry.deleted)
    }

    /// Time of what a new entry has to beat.
    pub fn previous(&self, id: &ContentId) -> Option<i64> {
        self.winners.get(id).map(|entry| entry.timestamp)
    }

    pub fn manifest_contents(&self) -> impl Iterator<Item = &Entry> {
        self.winners.values().filter(|entry| entry.id.prefix() == b'm' && !entry.deleted)
    }
}

/// Remembers what never changes: the entries of an index blob, the manifests of a content, and what was opened where.
#[derive(Default)]
pub struct Lens {
    blobs: HashMap<BlobId, Arc<Vec<Entry>>>,
    manifests: HashMap<ContentId, Arc<Vec<ManifestEntry>>>,
    last: Option<Arc<View>>,
}

impl Lens {
    pub fn view(&mut self, repository: &Repository, now: Timestamp) -> Result<Arc<View>> {
        let active = list_active(repository)?;
        let blobs: Vec<BlobId> = active.blobs.iter().map(|blob| blob.id.clone()).collect();
        let same = self.last.as_ref().filter(|last| last.blobs == blobs && last.watermark == active.watermark);
        let winners = match same {
            Some(last) if last.at == now => return Ok(last.clone()),
            Some(last) => last.winners.clone(),
            None => self.merge(repository, &blobs, active.watermark)?,
        };
        let view = Arc::new(View { at: now, winners, blobs, watermark: active.watermark });
        self.last = Some(view.clone());
        Ok(view)
    }

    /// What the index said at a time that is over, by the store's clock.
    pub fn view_until(&mut self, repository: &Repository, until: Timestamp) -> Result<View> {
        let active = list_active(repository)?;
        let before = active.blobs.iter().filter(|blob| blob.timestamp <= until);
        let blobs: Vec<BlobId> = before.map(|blob| blob.id.clone()).collect();
        let winners = self.merge(repository, &blobs, active.watermark)?;
        Ok(View { at: until, winners, blobs, watermark: active.watermark })
    }

    /// The entries of one index blob.
    pub fn entries(&mut self, repository: &Repository, blob: &BlobId) -> Result<Arc<Vec<Entry>>> {
        if !self.blobs.contains_key(blob) {
            let index = fetch_indexes(repository, std::slice::from_ref(blob), 1)?.remove(0);
            self.blobs.insert(blob.clone(), Arc::new(index.entries().collect::<Result<_>>()?));
        }
        Ok(self.blobs[blob].clone())
    }

    fn merge(
        &mut self,
        repository: &Repository,
        blobs: &[BlobId],
        watermark: Option<i64>,
    ) -> Result<BTreeMap<ContentId, Entry>> {
        let mut winners: BTreeMap<ContentId, Entry> = BTreeMap::new();
        for blob in blobs {
            for entry in self.entries(repository, blob)?.iter() {
                let rank = |entry: &Entry| (entry.timestamp, !entry.deleted, entry.pack.as_str().to_owned());
                match winners.get(&entry.id) {
                    Some(other) if rank(other) >= rank(entry) => {}
                    _ => drop(winners.insert(entry.id, entry.clone())),
                }
            }
        }
        winners.retain(|_, entry| !entry.deleted || watermark.is_none_or(|mark| entry.timestamp > mark));
        Ok(winners)
    }

    /// All manifests of a view by ID, tombstones left out. An error if one of its contents cannot be read.
    pub fn manifests(&mut self, repository: &Repository, view: &View) -> Result<BTreeMap<String, ManifestEntry>> {
        let mut newest: BTreeMap<String, ManifestEntry> = BTreeMap::new();
        for entry in view.manifest_contents() {
            if !self.manifests.contains_key(&entry.id) {
                let entries = decode(&read_content(repository, entry)?)?;
                self.manifests.insert(entry.id, Arc::new(entries));
            }
            for manifest in self.manifests[&entry.id].iter() {
                let rank = |manifest: &ManifestEntry| (manifest.modified, !manifest.deleted);
                match newest.get(&manifest.id) {
                    Some(other) if rank(other) >= rank(manifest) => {}
                    _ => drop(newest.insert(manifest.id.clone(), manifest.clone())),
                }
            }
        }
        newest.retain(|_, manifest| !manifest.deleted);
        Ok(newest)
    }
}
