//! A Kopia client, as far as maintenance can tell: packs under a session, index blobs, manifests, and deduplication against a
//! view of the index that may be old.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use verger_kopia::Repository;
use verger_kopia::content::read::read_content;
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::index_set::write::write_index_set;
use verger_kopia::index_set::{IndexView, load_view};
use verger_kopia::maintenance::params::{Params, existing};
use verger_kopia::manifest::entry::{encode, new_id};
use verger_kopia::manifest::{ManifestEntry, ManifestSet};
use verger_kopia::pack::write::PackWriter;
use verger_kopia::session::{SessionId, delete_markers, start_session};
use verger_kopia::storage::{BlobId, PutOptions};
use verger_worker::manifests::write_manifests;
use verger_worker::workspace::Workspace;

/// Against what a client deduplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Live contents: what Kopia does.
    Live,
    /// Marked ones too: a client that saw them live long ago, and slept.
    Marked,
    /// Nothing: a client with an empty cache and an unlucky listing.
    Nothing,
}

/// A content to upload: prefix (0 for none) and plaintext.
pub type Plain = (u8, Vec<u8>);

/// One client, on one repository.
pub struct Client {
    repository: Repository,
    view: IndexView,
    pub trust: Trust,
}

/// Packs that are in the store, and that no index names yet.
pub struct Pending {
    session: SessionId,
    marker: BlobId,
    entries: Vec<Entry>,
    manifest: String,
}

impl Client {
    pub fn new(repository: &Repository, trust: Trust) -> Self {
        Self { repository: repository.clone(), view: load_view(repository, 1).unwrap(), trust }
    }

    /// Takes a new view of the index.
    pub fn refresh(&mut self) {
        self.view = load_view(&self.repository, 1).unwrap();
    }

    /// Whether it need not upload this content.
    pub fn has(&self, id: &ContentId) -> bool {
        let table = &self.view.table;
        table.find(id).is_some_and(|row| match self.trust {
            Trust::Live => !table.is_deleted(row),
            Trust::Marked => true,
            Trust::Nothing => false,
        })
    }

    /// A new snapshot of these contents: each a file, or a directory where it is one. The manifest's ID.
    pub fn snapshot(&self, contents: &[Plain]) -> String {
        let pending = self.upload(contents);
        self.publish(pending)
    }

    /// Uploads what it does not have, and the manifest, without naming any of it in the index.
    pub fn upload(&self, contents: &[Plain]) -> Pending {
        let repository = &self.repository;
        let now = repository.clock().now();
        let (session, marker) = start_session(repository, "client", "elsewhere", &PutOptions::default()).unwrap();
        let mut packs: BTreeMap<char, PackWriter> = BTreeMap::new();
        let mut listed = Vec::new();
        let mut known = BTreeSet::new();
        let mut add = |prefix: u8, plain: &[u8]| {
            let id = ContentId::new(prefix, repository.hasher().hash(plain)).unwrap();
            if !self.has(&id) && known.insert(id) {
                let pack = packs.entry(id.pack_letter());
                let pack = pack.or_insert_with(|| PackWriter::new(repository, id.pack_letter()).unwrap());
                pack.add_new(repository, prefix, plain, true, now.as_second()).unwrap();
            }
            id
        };
        for (number, (prefix, plain)) in contents.iter().enumerate() {
            let id = add(*prefix, plain);
            let kind = if is_directory(*prefix, plain) { "d" } else { "f" };
            listed.push(serde_json::json!({"name": format!("{number:04}"), "type": kind, "mode": "0644",
                "size": plain.len(), "mtime": now.to_string(), "obj": id.to_string()}));
        }
        let summary =
            serde_json::json!({"size": 0, "files": listed.len(), "symlinks": 0, "dirs": 1, "maxTime": now.to_string()});
        let root = serde_json::json!({"stream": "kopia:directory", "entries": listed, "summary": summary});
        let root = add(b'k', root.to_string().as_bytes());
        let manifest = new_id();
        let body = serde_json::json!({"id": manifest, "source": {"host": "elsewhere", "userName": "client", "path": "/data"},
            "startTime": now.to_string(), "endTime": now.to_string(), "description": "",
            "rootEntry": {"name": "data", "type": "d", "obj": root.to_string()}});
        let labels = [("type", "snapshot"), ("hostname", "elsewhere"), ("username", "client"), ("path", "/data")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let data = serde_json::value::RawValue::from_string(body.to_string()).unwrap();
        let entry = ManifestEntry::put(manifest.clone(), labels, now, data);
        add(b'm', &encode(&[entry]));
        let entries = packs.into_values().flat_map(|pack| self.store(pack, &session.id)).collect();
        Pending { session: session.id, marker, entries, manifest }
    }

    /// Names in the index what was uploaded: from now on the snapshot is there.
    pub fn publish(&self, pending: Pending) -> String {
        write_index_set(&self.repository, pending.entries, pending.session.as_str(), None).unwrap();
        delete_markers(&self.repository, &[pending.marker]).unwrap();
        pending.manifest
    }

    /// Deletes snapshots: a manifest content that says so.
    pub fn delete_snapshots(&self, ids: &[String]) {
        let now = self.repository.clock().now();
        let entries: Vec<_> = ids.iter().map(|id| ManifestEntry::deletion(id, now)).collect();
        write_manifests(&Workspace::new(self.repository.clone()), &entries, None).unwrap();
    }

    /// `kopia maintenance set --enable-quick=true --enable-full=true`.
    pub fn enable_cycles(&self) {
        let manifests = ManifestSet::load(&self.repository, &self.view).unwrap();
        let mut params = Params::load(&manifests).unwrap();
        (params.quick.enabled, params.full.enabled) = (true, true);
        let now = self.repository.clock().now();
        let mut entries: Vec<_> = existing(&manifests).into_iter().map(|id| ManifestEntry::deletion(id, now)).collect();
        let data = serde_json::value::RawValue::from_string(params.to_json()).unwrap();
        entries.push(ManifestEntry::put(new_id(), [("type".to_owned(), "maintenance".to_owned())].into(), now, data));
        write_manifests(&Workspace::new(self.repository.clone()), &entries, None).unwrap();
    }

    /// Writes contents that no snapshot needs.
    pub fn write(&self, contents: &[Plain]) {
        let now = self.repository.clock().now();
        let (session, marker) = start_session(&self.repository, "client", "elsewhere", &PutOptions::default()).unwrap();
        let mut entries = Vec::new();
        for letter in ['p', 'q'] {
            let mut pack = PackWriter::new(&self.repository, letter).unwrap();
            for (prefix, plain) in contents.iter().filter(|(prefix, _)| (letter == 'q') == (*prefix != 0)) {
                pack.add_new(&self.repository, *prefix, plain, true, now.as_second()).unwrap();
            }
            if !pack.is_empty() {
                entries.extend(self.store(pack, &session.id));
            }
        }
        write_index_set(&self.repository, entries, session.id.as_str(), None).unwrap();
        delete_markers(&self.repository, &[marker]).unwrap();
    }

    /// Writes index entries, as `kopia index recover` does.
    pub fn index(&self, entries: Vec<Entry>) {
        let session = SessionId::generate(self.repository.clock().now());
        write_index_set(&self.repository, entries, session.as_str(), None).unwrap();
    }

    fn store(&self, pack: PackWriter, session: &SessionId) -> Vec<Entry> {
        let (id, data, entries) = pack.finish(&self.repository, session).unwrap();
        self.repository.storage().put(&id, data, &PutOptions::default()).unwrap();
        entries
    }
}

fn is_directory(prefix: u8, plain: &[u8]) -> bool {
    let stream =
        |plain| serde_json::from_slice::<serde_json::Value>(plain).map(|json| json["stream"] == "kopia:directory");
    prefix == b'k' && stream(plain).unwrap_or(false)
}

/// Plaintexts of these contents of a view.
pub fn plaintexts(repository: &Repository, view: &IndexView, wanted: impl Fn(&Entry) -> bool) -> Vec<Plain> {
    let table = &view.table;
    let entries = table.rows().map(|row| table.entry(row)).filter(|entry| entry.id.prefix() != b'm' && wanted(entry));
    entries.map(|entry| (entry.id.prefix(), read_content(repository, &entry).unwrap())).collect()
}
