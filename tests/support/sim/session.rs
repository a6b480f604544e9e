//! What a client has written and not yet named in the index: packs that are being filled, entries of stored packs, and the
//! session marker that protects them (`repo/content/content_manager.go`, `sessions.go`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use verger_kopia::clock::Timestamp;
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::index::write::{BuildOptions, build};
use verger_kopia::index_set::names::uncompacted_prefix;
use verger_kopia::pack::write::PackWriter;
use verger_kopia::session::{SessionId, SessionInfo, write_marker};
use verger_kopia::storage::{BlobId, ByteRange, PutOptions, Storage};
use verger_kopia::{Repository, Result};

use super::files::Plain;

#[derive(Default)]
pub struct Session {
    marker: Option<(SessionInfo, BlobId)>,
    packs: BTreeMap<char, PackWriter>,
    unindexed: Vec<Entry>,
    /// Contents that no index names yet.
    pending: BTreeSet<ContentId>,
    /// Contents that this process named in the index, and that its view may not show yet.
    named: BTreeSet<ContentId>,
}

impl Session {
    pub fn has(&self, id: &ContentId) -> bool {
        self.pending.contains(id) || self.named.contains(id)
    }

    pub fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.unindexed.is_empty() && self.marker.is_none()
    }

    pub fn has_packs(&self) -> bool {
        !self.packs.is_empty()
    }

    fn id(&mut self, repository: &Repository, now: Timestamp) -> Result<SessionId> {
        if self.marker.is_none() {
            let id = SessionId::generate(now);
            let (user, host) = ("client".to_owned(), "elsewhere".to_owned());
            let info = SessionInfo { id, start_time: now, checkpoint_time: now, user, host };
            let marker = write_marker(repository, &info, &PutOptions::default())?;
            self.marker = Some((info, marker));
        }
        Ok(self.marker.as_ref().unwrap().0.id.clone())
    }

    /// Puts a content into the pack of its letter. `previous`: time of the entry that it replaces, if the client sees one.
    pub fn add(
        &mut self,
        repository: &Repository,
        (prefix, plain): &Plain,
        now: Timestamp,
        previous: Option<i64>,
    ) -> Result<ContentId> {
        self.id(repository, now)?;
        let id = ContentId::new(*prefix, repository.hasher().hash(plain)).unwrap();
        let letter = id.pack_letter();
        if !self.packs.contains_key(&letter) {
            self.packs.insert(letter, PackWriter::new(repository, letter)?);
        }
        let time = now.as_second().max(previous.map_or(i64::MIN, |old| old + 1));
        self.packs.get_mut(&letter).unwrap().add_new(repository, *prefix, plain, true, time)?;
        self.pending.insert(id);
        Ok(id)
    }

    /// Marks a content as deleted, where the view says that it lies.
    pub fn mark(&mut self, repository: &Repository, entry: &Entry, now: Timestamp) -> Result<()> {
        self.id(repository, now)?;
        let timestamp = now.as_second().max(entry.timestamp + 1);
        self.unindexed.push(Entry { deleted: true, timestamp, ..entry.clone() });
        self.named.remove(&entry.id);
        Ok(())
    }

    /// Stores one pack.
    pub fn store(&mut self, repository: &Repository) -> Result<()> {
        let Some((_, pack)) = self.packs.pop_first() else { return Ok(()) };
        let session = &self.marker.as_ref().unwrap().0.id;
        let (id, data, entries) = pack.finish(repository, session)?;
        repository.storage().put(&id, data, &PutOptions::default())?;
        self.unindexed.extend(entries);
        Ok(())
    }

    /// Names what is stored in the index: the blob, `None` if there is nothing to name. `epoch`: as the client knows it.
    pub fn publish(&mut self, repository: &Repository, epoch: Option<u64>) -> Result<Option<BlobId>> {
        if self.unindexed.is_empty() {
            return Ok(None);
        }
        let version = repository.config().index_version.max(1);
        let options = BuildOptions { version, hash_length: repository.hasher().length(), random_tail: false };
        let payload = build(std::mem::take(&mut self.unindexed), &options)?.remove(0);
        let session = self.marker.as_ref().unwrap().0.id.as_str();
        let seal = |prefix: &str, suffix: &str| -> Result<(BlobId, Bytes)> {
            repository.cipher().seal_blob(repository.hasher(), prefix, suffix, &payload)
        };
        let (id, data) = match epoch {
            Some(epoch) => {
                let (name, data) = seal("", &format!("{session}-c1"))?;
                (BlobId::new(format!("{}{name}", uncompacted_prefix(epoch))), data)
            }
            None => seal("n", session)?,
        };
        repository.storage().put(&id, data, &PutOptions::default())?;
        self.named.append(&mut self.pending);
        Ok(Some(id))
    }

    /// Removes the marker, once the entries are durable.
    pub fn end(&mut self, storage: &dyn Storage) {
        if let Some((_, marker)) = self.marker.take() {
            storage.delete(&[marker], None);
        }
    }

    /// A new view shows what was named.
    pub fn refreshed(&mut self) {
        self.named.clear();
    }
}

/// Whether the bytes of an entry are where it says.
pub fn is_there(repository: &Repository, entry: &Entry) -> bool {
    let range = ByteRange::Span { offset: u64::from(entry.offset), length: u64::from(entry.packed_length) };
    repository.storage().get(&entry.pack, range).is_ok()
}
