//! Names of blobs, and IDs.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use verger_kopia::clock::Timestamp;
use verger_kopia::content::ContentId;
use verger_kopia::crypto::encryption::blob_iv;
use verger_kopia::directory::Permissions;
use verger_kopia::index_set::epoch::EpochState;
use verger_kopia::index_set::legacy::{Cleanup, CompactionLog, LegacyState, Recorded, deferred, expired};
use verger_kopia::index_set::names;
use verger_kopia::maintenance::owner::Identity;
use verger_kopia::object::ObjectId;
use verger_kopia::session::SessionId;
use verger_kopia::storage::{Address, BlobId, BlobMetadata};
use verger_proto::{Digest, RepositoryId, StoreId, UniqueId, WorkerId};

use super::within;

fn blob(name: &str, second: usize) -> BlobMetadata {
    let timestamp = Timestamp::from_second(i64::try_from(second % 7).unwrap() * 100_000).unwrap();
    BlobMetadata { id: name.into(), length: 1, timestamp, etag: None }
}

/// Lines, each once, as a listing.
fn listing(text: &str, prefix: char) -> Vec<BlobMetadata> {
    let mut names: Vec<&str> = text.lines().filter(|line| line.starts_with(prefix)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().enumerate().map(|(at, name)| blob(name, at)).collect()
}

fn texts(blobs: &[BlobMetadata]) -> Vec<&str> {
    blobs.iter().map(|blob| blob.id.as_str()).collect()
}

/// A listing of index blobs, one name a line: the order of a listing never matters.
pub fn index_names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let listed = listing(&text, 'x');
    let state = within(8192, 400, data.len(), || EpochState::from_listing(listed.clone()));
    let active = within(8192, 400, data.len(), || state.active());
    let mut reversed = listed.clone();
    reversed.reverse();
    assert_eq!(EpochState::from_listing(reversed).active(), active);
    let mut distinct = texts(&active);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), active.len(), "a blob is active twice");
    assert!(active.iter().all(|blob| listed.contains(blob)));
    assert!(state.incomplete_sets(&active).iter().all(|blob| active.contains(blob)));
    let _ = (state.first_after_chain(), state.storage_clock());
    assert!(state.uncompacted.keys().all(|epoch| !state.is_settled(*epoch) || *epoch < state.write_epoch));
    for blob in &listed {
        one_name(&blob.id);
    }
}

fn one_name(id: &BlobId) {
    if let Some(seconds) = names::watermark_of(id) {
        assert_eq!(names::watermark_of(&names::watermark(seconds)), Some(seconds));
    }
    if let Some(epoch) = names::epoch_of(id) {
        assert_eq!(names::epoch_of(&names::marker(epoch)), Some(epoch));
        let name = BlobId::new(format!("{}aa", names::uncompacted_prefix(epoch)));
        assert_eq!(names::epoch_of(&name), Some(epoch));
    }
    if let Some((first, last)) = names::range_of(id) {
        let name = BlobId::new(format!("{}aa", names::range_prefix(first, last)));
        assert_eq!(names::range_of(&name), Some((first, last)));
    }
    if let Some((set, _)) = names::set_of(id) {
        assert!(set.starts_with('s'));
    }
    if let Some(session) = SessionId::of_blob(id) {
        assert_eq!(SessionId::of_blob(&BlobId::new(format!("p1-{session}"))), Some(session));
    }
    let _ = blob_iv(id);
}

/// Lines: an `n` blob; `m<log> inputs > outputs`; `l<blob> logs`. What may be deleted is never what the listing does not have.
pub fn legacy_log(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let recorded = |name: &str| Recorded { id: name.into(), length: 1, timestamp: Timestamp::UNIX_EPOCH };
    let mut state = LegacyState { indexes: listing(&text, 'n'), logs: Vec::new() };
    let mut cleanups = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let list = |words: &str| words.split_whitespace().map(recorded).collect::<Vec<_>>();
        if name.starts_with('m') {
            let (inputs, outputs) = rest.split_once('>').unwrap_or((rest, ""));
            let log = CompactionLog { inputs: Some(list(inputs)), outputs: Some(list(outputs)) };
            reads_back(&log);
            state.logs.push((blob(name, at), log));
        } else if name.starts_with('l') {
            let logs = rest.split_whitespace().map(BlobId::from).collect();
            let cleanup = Cleanup { logs: Some(logs), scheduled: Timestamp::UNIX_EPOCH };
            reads_back(&cleanup);
            cleanups.push((blob(name, at), cleanup));
        }
    }
    let active = within(8192, 100, data.len(), || state.active());
    let newest = Timestamp::from_second(1_000_000).unwrap();
    let later = within(8192, 200, data.len(), || deferred(&state, &cleanups, newest, Duration::from_secs(86_400)));
    let mut turned = state.clone();
    turned.indexes.reverse();
    turned.logs.reverse();
    let mut active_turned = turned.active();
    active_turned.reverse();
    assert_eq!(active_turned, active);
    let listed = texts(&state.indexes);
    assert!(later.inputs.iter().all(|id| listed.contains(&id.as_str())));
    assert!(later.retire.iter().all(|id| state.logs.iter().any(|(log, _)| log.id == *id)));
    let (logs, schedules) = expired(&cleanups, Duration::from_secs(86_400));
    assert!(logs.iter().all(|id| id.as_str().starts_with('m')));
    assert!(schedules.iter().all(|id| id.as_str().starts_with('l')));
}

fn reads_back<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *value);
}

/// Any text as each kind of ID: what is read is written alike, and what is written is read.
fn ids_of_all_kinds(text: &str) {
    again::<ContentId>(text);
    again::<ObjectId>(text);
    again::<Digest>(text);
    again::<RepositoryId>(text);
    again::<StoreId>(text);
    again::<UniqueId>(text);
    again::<WorkerId>(text);
    if let Some(mode) = again::<Permissions>(text) {
        let _ = mode.unix();
    }
    assert_eq!(ObjectId::from_bytes(text.as_bytes()), text.parse().ok());
    if let Ok(object) = text.parse::<ObjectId>() {
        let tables = std::iter::successors(Some(object), ObjectId::table).count();
        assert_eq!(tables, usize::from(object.indirection) + 1);
    }
    if let Ok(content) = text.parse::<ContentId>() {
        let mut key = Vec::new();
        content.write_key(&mut key);
        assert_eq!((ContentId::from_key(&key).unwrap(), key.len()), (content, content.key_length()));
        assert_eq!(text.parse::<ObjectId>().unwrap(), ObjectId::direct(content));
    }
    if let Ok(identity) = Identity::parse(text) {
        assert_eq!(identity.as_str(), text);
    }
    match text.parse::<Address>() {
        Ok(Address::Filesystem(path)) if path.is_relative() => {}
        Ok(address) => assert_eq!(address.to_string().parse::<Address>().unwrap(), address),
        Err(error) => drop(error.to_string()),
    }
}

fn again<T: FromStr + Display + PartialEq + std::fmt::Debug>(text: &str) -> Option<T> {
    let value = within(1024, 4, text.len(), || text.parse::<T>().ok())?;
    assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value));
    Some(value)
}

/// See [`ids_of_all_kinds`]; bytes that are no text as content keys and object IDs.
fn ids_of_bytes(data: &[u8]) {
    if let Ok(id) = ContentId::from_key(data) {
        let mut key = Vec::new();
        id.write_key(&mut key);
        assert_eq!(key, data);
    }
    let _ = ObjectId::from_bytes(data);
}

/// Text as each kind of ID, and bytes as keys.
pub fn ids(data: &[u8]) {
    ids_of_bytes(data);
    if let Ok(text) = std::str::from_utf8(data) {
        ids_of_all_kinds(text);
    }
}
