//! Damage to one thing in a repository, and what must hold whatever a cycle makes of it.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use verger_kopia::content::read::{ContentReader, HashCheck, read_content};
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::directory::{EntryType, parse_object};
use verger_kopia::index_set::IndexView;
use verger_kopia::maintenance::schedule;
use verger_kopia::manifest::ManifestSet;
use verger_kopia::manifest::entry::decode;
use verger_kopia::object::{ObjectId, resolve};
use verger_kopia::snapshot::Snapshot;
use verger_kopia::storage::BlobId;

use crate::store::World;

/// What happens to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    Empty,
    LastByte,
    Half,
    FlipFirst,
    FlipMiddle,
    FlipLast,
    Missing,
    /// Another valid one of the same kind in its place.
    Swapped,
    /// A second copy under another name of its kind.
    Twice,
}

impl Damage {
    pub const ALL: [Self; 9] = [
        Self::Empty,
        Self::LastByte,
        Self::Half,
        Self::FlipFirst,
        Self::FlipMiddle,
        Self::FlipLast,
        Self::Missing,
        Self::Swapped,
        Self::Twice,
    ];
}

/// What is damaged: a blob, or the stored bytes of one content in its pack.
#[derive(Debug, Clone)]
pub struct Target {
    pub kind: &'static str,
    pub blob: BlobId,
    pub span: Option<(usize, usize)>,
    /// Object that the damage is to be named by.
    pub object: Option<String>,
    /// Of a content: another one of its kind. Of a blob: another one with these first letters.
    pub other: Option<(BlobId, Option<(usize, usize)>)>,
}

/// A repository before the damage: all that is to be kept.
pub struct Before {
    pub blobs: BTreeMap<BlobId, Bytes>,
    pub view: IndexView,
    /// Contents behind any snapshot, and manifests.
    pub needed: BTreeSet<ContentId>,
    pub snapshots: BTreeMap<String, Snapshot>,
    pub manifests: ManifestSet,
    /// Of each snapshot: its directories, seek tables and the tables of its large directories.
    pub roles: BTreeMap<&'static str, Vec<ObjectId>>,
}

impl Before {
    pub fn of(world: &World) -> Self {
        let view = world.view();
        let manifests = ManifestSet::load(&world.outside, &view).unwrap();
        assert!(manifests.unreadable.is_empty());
        let snapshots: BTreeMap<String, Snapshot> =
            manifests.of_type("snapshot").map(|m| (m.id.clone(), Snapshot::from_manifest(m).unwrap())).collect();
        let mut needed: BTreeSet<ContentId> = manifests.contents.iter().copied().collect();
        let mut roles: BTreeMap<&'static str, Vec<ObjectId>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let roots = manifests.of_type("snapshot").map(|m| {
            let body: serde_json::Value = serde_json::from_str(m.data.get()).unwrap();
            (body["rootEntry"]["obj"].as_str().unwrap().parse::<ObjectId>().unwrap(), EntryType::Directory)
        });
        let mut todo: Vec<(ObjectId, EntryType)> = roots.collect();
        while let Some((object, kind)) = todo.pop() {
            if !seen.insert((object, kind == EntryType::Directory)) {
                continue;
            }
            let mut fetch =
                |id: &ContentId| read_content(&world.outside, &view.table.entry(view.table.find(id).unwrap()));
            resolve(&object, &mut fetch, &mut |found| {
                needed.insert(found.id);
            })
            .unwrap();
            let role = match (kind, object.indirection) {
                (EntryType::Directory, 0) => "directory",
                (EntryType::Directory, _) => "table of a large directory",
                (_, 0) => "chunk",
                (_, _) => "seek table",
            };
            roles.entry(role).or_default().push(object);
            if kind == EntryType::Directory {
                parse_object(object, fetch, |child| todo.push((child.object, child.kind))).unwrap();
            }
        }
        Self { blobs: world.contents(), view, needed, snapshots, manifests, roles }
    }

    pub fn entry(&self, id: &ContentId) -> Entry {
        self.view.table.entry(self.view.table.find(id).unwrap())
    }

    fn named(&self, prefix: &str) -> Vec<BlobId> {
        self.blobs.keys().filter(|id| id.as_str().starts_with(prefix)).cloned().collect()
    }

    /// The longest blob of a kind that readers use; of those that only their name counts of, the last.
    pub fn blob(&self, kind: &'static str, prefix: &str) -> Option<Target> {
        let all = self.named(prefix);
        let active = |id: &BlobId| self.view.blobs.iter().any(|blob| blob.id == *id);
        let packs: Vec<BlobId> = self.needed.iter().map(|id| self.entry(id).pack).collect();
        let used = |id: &BlobId| packs.iter().filter(|pack| *pack == id).count();
        let blob = all.iter().max_by_key(|id| (active(id), used(id), self.blobs[*id].len(), *id))?.clone();
        let other = all.iter().find(|id| **id != blob).map(|id| (id.clone(), None));
        Some(Target { kind, blob, span: None, object: None, other })
    }

    /// The stored bytes of a content.
    pub fn content(&self, kind: &'static str, id: &ContentId, other: &ContentId) -> Target {
        let place = |id: &ContentId| {
            let entry = self.entry(id);
            let start = entry.offset as usize;
            (entry.pack.clone(), Some((start, start + entry.packed_length as usize)))
        };
        let (blob, span) = place(id);
        Target { kind, blob, span, object: None, other: Some(place(other)) }
    }

    /// The content with the newest snapshot's manifest, and another one with manifests.
    pub fn manifest(&self, world: &World, kind: &'static str, label: &str) -> Target {
        let mut holds: Vec<(verger_kopia::clock::Timestamp, ContentId)> = Vec::new();
        for id in &self.manifests.contents {
            let plain = read_content(&world.outside, &self.entry(id)).unwrap();
            for entry in decode(&plain).unwrap() {
                if !entry.deleted
                    && entry.labels.get("type").is_some_and(|kind| kind == label)
                    && self.manifests.manifests.contains_key(&entry.id)
                {
                    holds.push((entry.modified, *id));
                }
            }
        }
        let id = holds.iter().max().unwrap().1;
        let other = self.manifests.contents.iter().find(|other| **other != id).unwrap();
        Target { object: Some(format!("manifest content {id}")), ..self.content(kind, &id, other) }
    }

    /// An object of this role, by its first content.
    pub fn object(&self, role: &'static str) -> Option<Target> {
        let all = self.roles.get(role)?;
        let object = all.iter().min_by_key(|object| object.to_string())?;
        let other = all.iter().find(|other| other.content != object.content).unwrap_or(object);
        Some(Target { object: Some(object.to_string()), ..self.content(role, &object.content, &other.content) })
    }
}

/// Another name of the same kind.
pub fn other_name(id: &BlobId) -> BlobId {
    let name = id.as_str();
    if let Some(number) = name.strip_prefix("xw").and_then(|number| number.parse::<i64>().ok()) {
        return BlobId::new(format!("xw{}", number - 100));
    }
    if let Some(number) = name.strip_prefix("xe").and_then(|number| number.parse::<i64>().ok()) {
        return BlobId::new(format!("xe{}", number - 1));
    }
    if name.starts_with("kopia.") || name.starts_with("verger.") {
        return BlobId::new(format!("{name}.backup"));
    }
    let at = name.find('_').map_or(1, |at| at + 1);
    let swapped = if &name[at..=at] == "0" { "1" } else { "0" };
    BlobId::new(format!("{}{swapped}{}", &name[..at], &name[at + 1..]))
}

impl Target {
    /// Does the damage. `false`: it makes no sense here.
    pub fn suffer(&self, world: &World, before: &Before, damage: Damage) -> bool {
        let whole = before.blobs[&self.blob].clone();
        let (start, end) = self.span.unwrap_or((0, whole.len()));
        let mut data = whole.to_vec();
        if start == end && damage != Damage::Missing {
            return false;
        }
        match damage {
            Damage::Empty if self.span.is_some() => data[start..end].fill(0),
            Damage::Empty => data.clear(),
            Damage::LastByte => data.truncate(end - 1),
            Damage::Half => data.truncate((start + end) / 2),
            Damage::FlipFirst => data[start] ^= 1,
            Damage::FlipMiddle => data[(start + end) / 2] ^= 0x10,
            Damage::FlipLast => data[end - 1] ^= 0x80,
            Damage::Missing => {
                world.lose(&self.blob);
                return true;
            }
            Damage::Swapped => {
                let Some((blob, span)) = &self.other else { return false };
                let other = &before.blobs[blob];
                match span {
                    None => data = other.to_vec(),
                    Some((from, to)) => {
                        let length = (end - start).min(to - from);
                        data[start..start + length].copy_from_slice(&other[*from..from + length]);
                    }
                }
            }
            Damage::Twice => {
                let name = other_name(&self.blob);
                if before.blobs.contains_key(&name) {
                    return false;
                }
                world.plant(&name, data, &self.blob);
                return true;
            }
        }
        if data == whole {
            return false;
        }
        world.plant(&self.blob, data, &self.blob);
        true
    }
}

/// What changed in the store, apart from the lease.
pub fn changed(before: &BTreeMap<BlobId, Bytes>, after: &BTreeMap<BlobId, Bytes>) -> BTreeSet<String> {
    let names = before.keys().chain(after.keys()).filter(|id| before.get(*id) != after.get(*id));
    names.map(ToString::to_string).filter(|name| name != "verger.lease").collect()
}

/// Whether the content of an entry can be read, and is what its name says.
fn readable(world: &World, entry: &Entry) -> bool {
    let mut reader = ContentReader::new(&world.outside).with_hash_check(HashCheck::Verify);
    reader.read(entry).is_ok()
}

/// Needed contents that could be read with the damage, by the index as it was, and that cannot any more: neither as the index
/// was, nor as it is.
pub fn lost(world: &World, before: &Before, damaged: &BTreeMap<BlobId, Bytes>) -> Vec<ContentId> {
    let after = world.contents();
    let view = verger_kopia::index_set::load_view(&world.outside, 1).ok();
    let mut lost = Vec::new();
    for id in &before.needed {
        let old = before.entry(id);
        if after.get(&old.pack).is_some_and(|now| damaged.get(&old.pack) == Some(now)) {
            continue;
        }
        if !damaged.contains_key(&old.pack) {
            continue;
        }
        let new = view.as_ref().and_then(|view| Some(view.table.entry(view.table.find(id)?)));
        if new.is_some_and(|new| !new.deleted && readable(world, &new)) {
            continue;
        }
        // The pack is gone or changed: was it readable in it?
        let start = old.offset as usize;
        let (was, is) = (&before.blobs[&old.pack], &damaged[&old.pack]);
        let end = start + old.packed_length as usize;
        if is.get(start..end) == was.get(start..end) {
            lost.push(*id);
        }
    }
    lost
}

/// What R11 freezes, seen from outside.
#[derive(Debug, PartialEq, Eq)]
pub struct Frozen {
    pub marks: BTreeSet<ContentId>,
    pub watermark: Option<String>,
    pub gc_records: usize,
}

impl Frozen {
    /// Whether there are new marks, a new watermark, or a record of a snapshot GC.
    pub fn thawed(&self, now: &Self) -> bool {
        !now.marks.is_subset(&self.marks) || (&now.watermark, now.gc_records) != (&self.watermark, self.gc_records)
    }

    /// `None` if the index cannot be read.
    pub fn of(world: &World) -> Option<Self> {
        let view = verger_kopia::index_set::load_view(&world.outside, 1).ok()?;
        let table = &view.table;
        let marks = table.rows().filter(|row| table.is_deleted(*row)).map(|row| table.id(row));
        let schedule = schedule::load(&world.outside).ok()?.schedule;
        let gc_records = schedule.history(verger_kopia::maintenance::history::Task::SnapshotGc).len();
        Some(Self { marks: marks.collect(), watermark: world.names("xw").into_keys().max(), gc_records })
    }
}
