//! What must hold: every snapshot that is there is whole, every snapshot that nobody deleted is there; and when all is quiet,
//! what nobody needs is gone.

use std::collections::{BTreeSet, HashSet};

use verger_kopia::clock::Clock;
use verger_kopia::content::read::read_content;
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::storage::{BlobId, list_all};

use super::client::Finding;
use super::hub::{Hub, Live};
use super::lens::View;

#[derive(Default)]
pub struct Oracle {
    /// Places whose bytes were opened and are right; packs never change.
    opened: HashSet<(BlobId, u32, ContentId)>,
}

fn names(hub: &Hub, prefix: &str) -> BTreeSet<BlobId> {
    list_all(&*hub.door, prefix).unwrap().into_iter().map(|blob| blob.id).collect()
}

impl Oracle {
    /// After a cycle, however it ended.
    pub fn check(&mut self, hub: &Hub) -> Result<(), Finding> {
        self.look(hub).map(drop)
    }

    /// Contents that are needed, and the view in which they are.
    fn look(&mut self, hub: &Hub) -> Result<(BTreeSet<ContentId>, std::sync::Arc<View>), Finding> {
        let mut live = hub.live();
        if let Some(finding) = live.finding.take() {
            return Err(finding);
        }
        let Live { lens, model, trace, .. } = &mut *live;
        let now = hub.clock.now();
        let view = lens.view(&hub.outside, now).map_err(|e| format!("the index cannot be read: {}", e.chain()))?;
        let manifests = lens.manifests(&hub.outside, &view);
        let manifests = manifests.map_err(|e| format!("the manifests cannot be read: {}", e.chain()))?;
        for (id, snapshot) in &model.snapshots {
            if !snapshot.deleted && !manifests.contains_key(id) {
                return Err(format!("snapshot {id} is lost, and nobody deleted it"));
            }
        }
        let packs = names(hub, "p").into_iter().chain(names(hub, "q")).collect::<BTreeSet<_>>();
        let present = model.snapshots.iter().filter(|(id, _)| manifests.contains_key(*id));
        let mut needed = BTreeSet::new();
        for (id, snapshot) in present {
            for content in &snapshot.needs {
                let entry = view.winners.get(content).ok_or_else(|| {
                    format!("snapshot {id} of client {} is broken: {content} is not in the index", snapshot.client)
                })?;
                self.open(hub, &packs, entry, &model.plain[content])
                    .map_err(|why| format!("snapshot {id} of client {} is broken: {content} {why}", snapshot.client))?;
                needed.insert(*content);
            }
        }
        if let Some(entry) = view.manifest_contents().find(|entry| !packs.contains(&entry.pack)) {
            return Err(format!("manifests are lost: {} of {} is gone", entry.pack, entry.id));
        }
        let marked = view.winners.values().filter(|entry| entry.deleted).count();
        trace.line(
            now,
            &format!(
                "= {} contents, {marked} marked, {} needed, {} packs",
                view.winners.len(),
                needed.len(),
                packs.len()
            ),
        );
        Ok((needed, view))
    }

    fn open(&mut self, hub: &Hub, packs: &BTreeSet<BlobId>, entry: &Entry, plain: &[u8]) -> Result<(), String> {
        if !packs.contains(&entry.pack) {
            return Err(format!("lies in {}, which is gone (marked: {})", entry.pack, entry.deleted));
        }
        let place = (entry.pack.clone(), entry.offset, entry.id);
        if self.opened.contains(&place) {
            return Ok(());
        }
        let read = read_content(&hub.outside, entry).map_err(|e| e.chain())?;
        if read != plain {
            return Err(format!("has other bytes in {}", entry.pack));
        }
        self.opened.insert(place);
        Ok(())
    }

    /// When nobody has written for many days and cycles ran: how many contents were forgotten.
    pub fn check_quiet(&mut self, hub: &Hub) -> Result<usize, Finding> {
        let (needed, view) = self.look(hub)?;
        for entry in view.winners.values() {
            let id = &entry.id;
            if entry.deleted {
                return Err(format!("{id} is marked still (since {})", entry.timestamp));
            }
            if id.prefix() != b'm' && !needed.contains(id) {
                return Err(format!("{id} is alive, and nobody needs it (since {})", entry.timestamp));
            }
        }
        let used: BTreeSet<&BlobId> = view.winners.values().map(|entry| &entry.pack).collect();
        for pack in names(hub, "p").iter().chain(&names(hub, "q")) {
            if !used.contains(pack) {
                return Err(format!("pack {pack} is left over"));
            }
        }
        if let Some(marker) = names(hub, "s").first() {
            return Err(format!("session marker {marker} is left over"));
        }
        Ok(hub.live().model.plain.len().saturating_sub(view.winners.len()))
    }
}
