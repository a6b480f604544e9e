//! What Verger itself writes: enveloped records, the ledger, its evidence, the lease object.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use verger_coordinator::ledger::Entry;
use verger_coordinator::ledger::archive::index::Index;
use verger_coordinator::ledger::evidence::{EvidenceFolder, Shelf};
use verger_coordinator::ledger::file::{FILE_NAME, FileLedger};
use verger_coordinator::machine::State;
use verger_kopia::clock::{Clock, SetClock, Timestamp};
use verger_kopia::storage::{BlobId, MemoryStorage, Storage};
use verger_proto::chain::{ChainHead, ChainRecord};
use verger_proto::envelope::{self, HEADER_BYTES, Kind};
use verger_proto::{Command, CycleId, Digest, Event, Evidence, JobSpec, LogTime, PlanHeader, RepositoryId};
use verger_worker::bucket_lease::{self, LEASE, Lease, LeaseBody, Request};

use super::bytes::Bytes;
use super::within;

/// A record around any body, as `envelope::encode` would write it: else no change would get past the digest.
pub fn record(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut record = b"VRGR".to_vec();
    record.extend_from_slice(&envelope::VERSION.to_le_bytes());
    record.extend_from_slice(&kind.to_le_bytes());
    record.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&record);
    record.extend_from_slice(&crc.sum().to_le_bytes());
    let digest = Digest::of(&[&record, body].concat());
    record.extend_from_slice(digest.as_bytes());
    record.extend_from_slice(body);
    record
}

fn decodes<T: Serialize + DeserializeOwned + PartialEq + Debug>(kind: Kind, body: &[u8]) {
    let bytes = record(kind as u16, body);
    let header = envelope::header(&bytes).unwrap();
    assert_eq!((header.kind, header.record_bytes), (kind as u16, bytes.len()));
    // serde takes a list's length on trust up to 1 MiB; bincode a text's as far as its limit goes.
    let Ok(value) = within(3 << 20, 512, body.len(), || envelope::decode::<T>(kind, &bytes)) else { return };
    let written = envelope::encode(kind, &value).unwrap();
    assert_eq!(envelope::decode::<T>(kind, &written).unwrap(), value);
}

/// Kind, then a body; the bytes themselves as a record, too.
pub fn envelope(data: &[u8]) {
    let Some((&kind, body)) = data.split_first() else { return };
    match kind % 8 {
        0 => decodes::<Event>(Kind::Event, body),
        1 => decodes::<Command>(Kind::Command, body),
        2 => decodes::<ChainRecord>(Kind::Chain, body),
        3 => decodes::<Entry>(Kind::Entry, body),
        4 => decodes::<PlanHeader>(Kind::PlanHeader, body),
        5 => decodes::<JobSpec>(Kind::JobSpec, body),
        6 => decodes::<State>(Kind::State, body),
        _ => decodes::<Evidence>(Kind::Evidence, body),
    }
    let _ = within(256, 0, data.len(), || envelope::header(data).is_ok());
    assert!(
        within(1024, 0, data.len(), || envelope::decode::<Event>(Kind::Event, data)).is_err()
            || data.len() > HEADER_BYTES
    );
}

thread_local! {
    static FOLDER: RefCell<tempfile::TempDir> = RefCell::new(in_memory());
}

/// A folder in memory where there is one: a disk would be the slowest part of a target.
pub fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// What is wrong, then bodies of entries: a ledger file that is followed to the end, or refused, and never half believed.
pub fn ledger(data: &[u8]) {
    let mut rest = Bytes(data);
    let (wrong, place) = (rest.byte(), rest.word());
    let (mut head, mut file, mut ends) = (ChainHead::default(), Vec::new(), vec![0]);
    let (mut archived_head, mut archived) = (ChainHead::default(), Vec::new());
    let (mut parts_head, mut parts) = (ChainHead::default(), Vec::new());
    while !rest.is_empty() && ends.len() < 20 {
        let part = rest.part();
        let body = record(Kind::LedgerArchive as u16, part);
        archived.extend_from_slice(&archived_head.append(LogTime(0), body).unwrap());
        let body = record(Kind::EvidenceArchive as u16, part);
        parts.extend_from_slice(&parts_head.append(LogTime(0), body).unwrap());
        let body = record(Kind::Entry as u16, part);
        file.extend_from_slice(&head.append(LogTime(u64::from(place)), body).unwrap());
        ends.push(file.len());
    }
    let place = usize::try_from(place).unwrap() % (file.len() + 1);
    let is_whole = wrong % 4 == 0;
    match wrong % 4 {
        0 => {}
        1 => file.truncate(place),
        2 => file.extend(std::iter::repeat_n(0, place)),
        _ => file.get_mut(place).into_iter().for_each(|byte| *byte ^= wrong),
    }
    FOLDER.with_borrow(|folder| {
        std::fs::write(folder.path().join(FILE_NAME), &file).unwrap();
        let mut seen = 0;
        let read = within(3 << 20, 512, file.len() + data.len(), || {
            FileLedger::read(folder.path(), |record| {
                assert_eq!(record.sequence, seen);
                seen += 1;
                Ok(())
            })
        });
        if let Ok(opened) = read {
            assert_eq!(opened.records, seen);
            assert!(ends.contains(&(file.len() - usize::try_from(opened.cut_bytes).unwrap())));
            assert!(!is_whole || opened.cut_bytes == 0);
        }
        let path = folder.path().join("archived");
        std::fs::write(&path, &archived).unwrap();
        let _ = within(3 << 20, 512, archived.len(), || Index::load(folder.path()));
        std::fs::remove_file(&path).unwrap();
        let evidence = EvidenceFolder::beside(folder.path());
        std::fs::create_dir_all(folder.path().join("evidence")).unwrap();
        std::fs::write(folder.path().join("evidence/7"), data).unwrap();
        let _ = within(3 << 20, 512, data.len(), || evidence.read(CycleId(7)));
        let repository: RepositoryId = format!("{}-{}", "ab".repeat(32), "01".repeat(16)).parse().unwrap();
        let known = folder.path().join(repository.to_string()).join("evidence");
        std::fs::create_dir_all(&known).unwrap();
        std::fs::write(known.join("archived"), &parts).unwrap();
        let shelf = Shelf::new(folder.path(), None);
        let _ = within(3 << 20, 512, parts.len(), || shelf.find(std::slice::from_ref(&repository), "p01"));
    });
}

/// Options, then a lease object: it is taken over, respected or refused, and what is written reads back.
pub fn lease(data: &[u8]) {
    let Some((&options, object)) = data.split_first() else { return };
    let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let clock = Arc::new(SetClock::new(now));
    let store = Arc::new(MemoryStorage::new(Arc::clone(&clock) as Arc<dyn Clock>));
    let written = now - Duration::from_secs(u64::from(options >> 4) * 60);
    store.put_at(&BlobId::from(LEASE), object.to_vec().into(), written);
    let found = within(8192, 16, object.len(), || bucket_lease::read(&*store));
    if let Ok(Some((_, body))) = &found {
        let text = serde_json::to_vec(body).unwrap();
        assert_eq!(serde_json::from_slice::<LeaseBody>(&text).unwrap(), *body);
    }
    let request = Request {
        unique_id: "ab".repeat(32),
        store_id: "01".repeat(16),
        holder: "me@here".to_owned(),
        lock: None,
        ttl: bucket_lease::TTL_DEFAULT,
        last_term: 7,
        fenced: (options & 8 != 0).then_some(7),
        drive: None,
        drives: if options & 16 != 0 { vec!["one".to_owned()] } else { Vec::new() },
        local_lock: options & 1 != 0,
        exclusive: options & 2 != 0,
        wait: options & 4 != 0
            && found.as_ref().is_ok_and(|f| f.as_ref().is_some_and(|(_, b)| b.ttl_seconds < 100_000)),
    };
    let storage = Arc::clone(&store) as Arc<dyn Storage>;
    let lease = Lease::acquire(storage, Arc::clone(&clock) as Arc<dyn Clock>, &request, &mut |_, _| {});
    let Ok(mut lease) = lease else { return };
    let before = found.unwrap().map_or(0, |(_, body)| body.term);
    assert!(lease.term() > before && lease.term() > 7, "terms only grow");
    assert_eq!(bucket_lease::read(&*store).unwrap().unwrap().1, *lease.body());
    lease.cover(clock.now()).unwrap();
    let is_waited_out = lease.approvals_wait().is_zero();
    lease.release().unwrap();
    assert_eq!(bucket_lease::read(&*store).unwrap().unwrap().1.free, is_waited_out);
}
