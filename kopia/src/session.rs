//! Sessions and their markers (`repo/content/sessions.go`): while a marker stands, packs of its session that no index
//! names yet are spared.

use crate::mutant::{self, Mutant};
use std::collections::BTreeMap;
use std::fmt;

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;
use crate::storage::{BlobId, BlobMetadata, ByteRange, PutOptions, list_all};

/// Markers read at once.
const READ_THREADS: usize = 8;
/// Prefix of session IDs and of their markers.
const PREFIX: &str = "s";
/// 2000-01-01T00:00:00Z in Unix seconds, and the 30 days that a session ID's number counts since.
const EPOCH_START: i64 = 946_684_800;
const EPOCH_LENGTH: i64 = 30 * 24 * 3600;

/// ID of a session: ends the names of everything that the session writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(String);

impl SessionId {
    /// A new random ID; `now` is the wall clock.
    #[must_use]
    pub fn generate(now: Timestamp) -> Self {
        let mut random = [0; 8];
        rand::rng().fill_bytes(&mut random);
        let months = (now.as_second() - EPOCH_START).max(0) / EPOCH_LENGTH;
        Self(format!("{PREFIX}{}{months:x}", hex::encode(random)))
    }

    /// Reads an ID; `None` if no blob's name could carry it.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::of_blob(&BlobId::new(format!("{PREFIX}-{text}"))).filter(|id| id.0 == text)
    }

    /// The session that wrote this blob, as its name tells: the first part after a dash that starts with `s`.
    #[must_use]
    pub fn of_blob(id: &BlobId) -> Option<Self> {
        let part = id.as_str().split('-').skip(1).find(|part| part.starts_with(PREFIX))?;
        Some(Self(part.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a session marker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The session.
    pub id: SessionId,
    /// When it began, by the writer's clock.
    #[serde(rename = "startTime")]
    pub start_time: Timestamp,
    /// When it was last known to be alive. Kopia writes it once, at the start.
    #[serde(rename = "checkpointTime")]
    pub checkpoint_time: Timestamp,
    /// User of the writer.
    #[serde(rename = "username", default)]
    pub user: String,
    /// Host of the writer.
    #[serde(rename = "hostname", default)]
    pub host: String,
}

/// A session with a marker in the store.
#[derive(Debug, Clone)]
pub struct ActiveSession {
    /// The session, as the markers' names tell.
    pub id: SessionId,
    /// The latest checkpoint of its markers; of one that cannot be read, its storage time (R11).
    pub checkpoint: Timestamp,
    /// What the marker of that checkpoint says; `None` if it cannot be read.
    pub info: Option<SessionInfo>,
    /// All its markers.
    pub markers: Vec<BlobMetadata>,
}

/// What the session markers of a store say.
#[derive(Debug, Default)]
pub struct Sessions {
    /// One of each session.
    pub active: BTreeMap<SessionId, ActiveSession>,
    /// Markers that cannot be read, and `s` blobs whose name tells no session. The former still protect their session.
    pub unreadable: Vec<(BlobMetadata, Error)>,
}

impl Sessions {
    /// Whether a blob of this name belongs to a session whose last checkpoint is younger than `expiry` at `cutoff`.
    #[must_use]
    pub fn protects(&self, blob: &BlobId, cutoff: Timestamp, expiry: std::time::Duration) -> bool {
        let session = SessionId::of_blob(blob).and_then(|id| self.active.get(&id));
        session.is_some_and(|session| {
            let age = cutoff.duration_since(session.checkpoint);
            jiff::SignedDuration::try_from(expiry).map_or(true, |expiry| age < expiry)
        })
    }

    fn add(&mut self, id: SessionId, marker: BlobMetadata, info: Option<SessionInfo>) {
        let checkpoint = info.as_ref().map_or(marker.timestamp, |info| info.checkpoint_time);
        match self.active.entry(id) {
            std::collections::btree_map::Entry::Vacant(slot) => {
                let id = slot.key().clone();
                slot.insert(ActiveSession { id, checkpoint, info, markers: vec![marker] });
            }
            std::collections::btree_map::Entry::Occupied(mut slot) => {
                let session = slot.get_mut();
                session.markers.push(marker);
                if checkpoint > session.checkpoint {
                    session.checkpoint = checkpoint;
                    session.info = info;
                }
            }
        }
    }
}

/// Lists and reads all session markers. One that vanishes meanwhile is skipped; one that cannot be read or understood is
/// reported and protects its session from its storage time on (R11).
///
/// # Errors
/// `StoreUnavailable` and `Permission`: nothing is known then.
pub fn active_sessions(repository: &Repository) -> Result<Sessions> {
    read_sessions(repository, list_all(&**repository.storage(), PREFIX)?)
}

/// As [`active_sessions`], of markers that are listed already; several are read at once.
///
/// # Errors
/// As [`active_sessions`].
pub fn read_sessions(repository: &Repository, markers: Vec<BlobMetadata>) -> Result<Sessions> {
    let mut sessions = Sessions::default();
    let (markers, strange): (Vec<_>, Vec<_>) =
        markers.into_iter().partition(|marker| SessionId::of_blob(&marker.id).is_some());
    for marker in strange {
        let error = Error::damaged(format!("the name of {} tells no session", marker.id));
        sessions.unreadable.push((marker, error));
    }
    for (marker, info) in markers.iter().zip(read_markers(repository, &markers)) {
        let Some(id) = SessionId::of_blob(&marker.id) else { continue };
        match info {
            Ok(info) => sessions.add(id, marker.clone(), Some(info)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                if !mutant::on(Mutant::R11UnreadableSessionIsOver) {
                    sessions.add(id, marker.clone(), None);
                }
                sessions.unreadable.push((marker.clone(), error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sessions)
}

/// What each marker says, in their order.
fn read_markers(repository: &Repository, markers: &[BlobMetadata]) -> Vec<Result<SessionInfo>> {
    let share = markers.len().div_ceil(READ_THREADS).max(1);
    let read =
        |part: &[BlobMetadata]| -> Vec<_> { part.iter().map(|marker| read_marker(repository, &marker.id)).collect() };
    if markers.len() <= 1 {
        return read(markers);
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> = markers.chunks(share).map(|part| scope.spawn(move || read(part))).collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn read_marker(repository: &Repository, id: &BlobId) -> Result<SessionInfo> {
    let at = |error: Error| error.at(format!("read session marker {id}"));
    let stored = repository.storage().get(id, ByteRange::All).map_err(at)?;
    let plain = repository.cipher().open_blob(id, &stored).map_err(at)?;
    serde_json::from_slice(&plain)
        .map_err(|error| Error::damaged(format!("parse session marker {id}")).with_source(error))
}

/// Starts a session of `user@host`: writes its marker, before any of its packs. A retention in `options` is ignored, as
/// markers must be deletable.
///
/// # Errors
/// Storage errors.
pub fn start_session(
    repository: &Repository,
    user: &str,
    host: &str,
    options: &PutOptions,
) -> Result<(SessionInfo, BlobId)> {
    let now = repository.clock().now();
    let id = SessionId::generate(now);
    let info = SessionInfo { id, start_time: now, checkpoint_time: now, user: user.to_owned(), host: host.to_owned() };
    let marker = write_marker(repository, &info, options)?;
    Ok((info, marker))
}

/// Writes a marker of this session. `options` as in [`start_session`].
///
/// # Errors
/// Storage errors.
pub fn write_marker(repository: &Repository, info: &SessionInfo, options: &PutOptions) -> Result<BlobId> {
    let at = |error: Error| error.at(format!("write the marker of session {}", info.id));
    let payload = serde_json::to_vec(info)
        .map_err(|error| Error::new(ErrorKind::Internal, "encode a session marker").with_source(error))?;
    let (id, stored) =
        repository.cipher().seal_blob(repository.hasher(), PREFIX, info.id.as_str(), &payload).map_err(at)?;
    let options = PutOptions { retention: None, ..options.clone() };
    if !mutant::on(Mutant::R21NoMarker) {
        repository.storage().put(&id, stored, &options).map_err(at)?;
    }
    Ok(id)
}

/// Deletes markers, after the index entries of their session are durable. Absent ones count as deleted.
///
/// # Errors
/// Storage errors; the first of them.
pub fn delete_markers(repository: &Repository, markers: &[BlobId]) -> Result<()> {
    let report = repository.storage().delete(markers, None);
    match report.failed.into_iter().next() {
        Some((id, error)) => Err(error.at(format!("delete session marker {id}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_in_every_name_that_carries_one() {
        for (name, session) in [
            ("pa1-sf5baaf4c2197a6a9147", Some("sf5baaf4c2197a6a9147")),
            ("xn0_f007-s38138b63249bdaf6147-c1", Some("s38138b63249bdaf6147")),
            ("sabcd-s69daf9e34a8fb05d147", Some("s69daf9e34a8fb05d147")),
            ("sabcd", None),
            ("s-x-c1", None),
            ("n743c36c2", None),
        ] {
            assert_eq!(SessionId::of_blob(&name.into()).as_ref().map(SessionId::as_str), session, "{name}");
        }
    }

    #[test]
    fn new_ids_have_kopias_shape_and_month() {
        let now = "2026-11-21T00:00:00Z".parse().unwrap();
        let id = SessionId::generate(now);
        assert_eq!(id.as_str().len(), 20);
        // Vectors of the same month end so.
        assert!(id.as_str().starts_with('s') && id.as_str().ends_with("147"), "{id}");
        assert_ne!(id, SessionId::generate(now));
        assert_eq!(SessionId::of_blob(&BlobId::new(format!("p0-{id}"))), Some(id));
    }

    #[test]
    fn markers_have_kopias_keys_and_any_offset_is_read() {
        let text = r#"{"id":"s1","startTime":"2026-11-21T10:00:00.123456789+01:00","checkpointTime":"2026-11-21T09:30:00Z","username":"owner","hostname":"golden"}"#;
        let info: SessionInfo = serde_json::from_str(text).unwrap();
        assert_eq!(info.start_time, "2026-11-21T09:00:00.123456789Z".parse().unwrap());
        let written: serde_json::Value = serde_json::to_value(&info).unwrap();
        let keys: Vec<_> = written.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["id", "startTime", "checkpointTime", "username", "hostname"]);
    }

    fn marker(name: &str, timestamp: &str) -> BlobMetadata {
        BlobMetadata { id: name.into(), length: 1, timestamp: timestamp.parse().unwrap(), etag: None }
    }

    #[test]
    fn r11_the_latest_checkpoint_counts_and_an_unreadable_marker_protects_from_its_storage_time() {
        let id = SessionId("s1".to_owned());
        let early = SessionInfo {
            id: id.clone(),
            start_time: "2026-11-20T00:00:00Z".parse().unwrap(),
            checkpoint_time: "2026-11-20T00:00:00Z".parse().unwrap(),
            user: String::new(),
            host: String::new(),
        };
        let mut sessions = Sessions::default();
        sessions.add(id.clone(), marker("sa-s1", "2026-11-20T00:00:01Z"), Some(early));
        sessions.add(id.clone(), marker("sb-s1", "2026-11-20T06:00:00Z"), None);
        let session = &sessions.active[&id];
        assert_eq!((session.markers.len(), session.info.is_none()), (2, true));
        assert_eq!(session.checkpoint, "2026-11-20T06:00:00Z".parse().unwrap());

        let expiry = std::time::Duration::from_secs(96 * 3600);
        let protects = |blob: &str, at: &str| sessions.protects(&blob.into(), at.parse().unwrap(), expiry);
        assert!(protects("pff-s1", "2026-11-24T05:59:59Z"));
        assert!(!protects("pff-s1", "2026-11-24T06:00:00Z"));
        assert!(!protects("pff-s2", "2026-11-20T06:00:00Z"));
        assert!(!protects("pff", "2026-11-20T06:00:00Z"));
    }
}
