//! The S3 store against a real server (SeaweedFS).

#![cfg(feature = "s3")]
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use support::weed::{BUCKET, LOCKED_BUCKET, Weed};
use verger_kopia::ErrorKind;
use verger_kopia::clock::{Clock, SystemClock};
use verger_kopia::storage::address::BucketPrefix;
use verger_kopia::storage::probe::{Sight, is_same_store, probe};
use verger_kopia::storage::s3::{S3Options, S3Storage};
use verger_kopia::storage::settings::S3Settings;
use verger_kopia::storage::{BlobId, ByteRange, PutOptions, Retention, RetentionMode, Storage, conformance, list_all};

fn store(settings: S3Settings, bucket: &str, prefix: &str) -> S3Storage {
    let place = BucketPrefix { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
    S3Storage::connect(S3Options::new(place, settings)).unwrap()
}

fn put(store: &S3Storage, name: &str, data: &'static str) {
    store.put(&BlobId::new(name), data.into(), &PutOptions::default()).unwrap();
}

/// One server for all of these: it takes seconds to come up.
#[test]
fn against_a_real_server() {
    let Some(weed) = Weed::start() else { return };
    conforms(&weed);
    prefixes_are_as_written(&weed);
    absence_is_not_refusal(&weed);
    locks_and_versions(&weed);
    the_probe_leaves_nothing(&weed);
    storage_classes_hide(&weed);
}

fn conforms(weed: &Weed) {
    let count = AtomicU32::new(0);
    let make = || {
        let prefix = format!("suite-{}/", count.fetch_add(1, Ordering::Relaxed));
        Box::new(store(weed.settings(), BUCKET, &prefix)) as Box<dyn Storage>
    };
    conformance::suite(&make);
}

fn prefixes_are_as_written(weed: &Weed) {
    let (open, slash) = (store(weed.settings(), BUCKET, "pre"), store(weed.settings(), BUCKET, "pre/"));
    put(&open, "p1", "open");
    put(&slash, "p1", "slash");
    assert_eq!(open.get(&BlobId::new("p1"), ByteRange::All).unwrap(), "open");
    assert_eq!(slash.get(&BlobId::new("p1"), ByteRange::All).unwrap(), "slash");
    let names: Vec<_> = list_all(&open, "").unwrap().into_iter().map(|blob| blob.id.to_string()).collect();
    assert_eq!(names, ["p1"], "keys with a slash are no blobs");
    assert_eq!(slash.address(), "s3://verger-plain/pre/");
}

fn absence_is_not_refusal(weed: &Weed) {
    let id = BlobId::new("kopia.repository");
    let nowhere = store(weed.settings(), "verger-no-such-bucket", "");
    for error in [
        nowhere.get(&id, ByteRange::All).unwrap_err(),
        nowhere.head(&id).unwrap_err(),
        list_all(&nowhere, "").unwrap_err(),
        nowhere.put(&id, "x".into(), &PutOptions::default()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotARepository, "{error:?}");
        assert!(error.fix().is_some());
    }
    let wrong = store(weed.settings_as("verger-test", "not-the-secret"), BUCKET, "x/");
    for error in [
        wrong.get(&id, ByteRange::All).unwrap_err(),
        wrong.head(&id).unwrap_err(),
        list_all(&wrong, "").unwrap_err(),
        wrong.now().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Permission, "{error:?}");
        assert!(!error.chain().contains("not-the-secret"));
    }
    let reader = store(weed.settings_as("verger-reader", "verger-reader-secret"), BUCKET, "pre");
    assert_eq!(reader.get(&BlobId::new("p1"), ByteRange::All).unwrap(), "open");
    let refused = reader.put(&BlobId::new("p2"), "x".into(), &PutOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Permission);
    let report = reader.delete(&[BlobId::new("p1"), BlobId::new("p3")], None);
    assert!(report.deleted.is_empty(), "{report:?}");
    assert_eq!(report.failed[0].1.kind(), ErrorKind::Permission, "{report:?}");
}

fn locks_and_versions(weed: &Weed) {
    let locked = store(weed.settings(), LOCKED_BUCKET, "l/");
    assert_eq!(locked.versioning().unwrap().kept, Some(true));
    assert_eq!(store(weed.settings(), BUCKET, "l/").versioning().unwrap().kept, Some(false));
    let until = locked.now().unwrap() + Duration::from_secs(30);
    let retention = Retention { mode: RetentionMode::Governance, until };
    let id = BlobId::new("p0123456789abcdef0123456789abcdef");
    locked.put(&id, "locked".into(), &PutOptions { retention: Some(retention), ..PutOptions::default() }).unwrap();
    locked.extend_retention(&id, Retention { until: until + Duration::from_secs(30), ..retention }).unwrap();
    assert_eq!(locked.delete(std::slice::from_ref(&id), None).deleted.len(), 1, "a delete hides it");
    assert_eq!(locked.head(&id).unwrap_err().kind(), ErrorKind::NotFound);
    for _ in 0..3 {
        put(&locked, "verger.lease", "mine");
    }
    let lease = BlobId::new("verger.lease");
    assert_eq!(locked.purge_versions(&lease).unwrap(), 2);
    assert_eq!(locked.get(&lease, ByteRange::All).unwrap(), "mine");
    assert_eq!(locked.purge_versions(&id).unwrap_err().kind(), ErrorKind::Usage);
    let missing = locked.extend_retention(&BlobId::new("p1"), retention).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing:?}");
}

fn the_probe_leaves_nothing(weed: &Weed) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (bucket, kept) in [(BUCKET, false), (LOCKED_BUCKET, true)] {
        let store = store(weed.settings(), bucket, "probe/");
        let report = probe(&store, &SystemClock).unwrap();
        let written = report.written.as_ref().unwrap();
        assert!(written.conditional_writes, "{report:?}");
        assert_eq!((written.reads, written.lists), (Sight::AtOnce, Sight::AtOnce), "{report:?}");
        assert!(written.stamp_offset.abs() < jiff::SignedDuration::from_secs(3), "{report:?}");
        assert!(report.clock_offset.abs() < jiff::SignedDuration::from_secs(3), "{report:?}");
        assert_eq!(report.versioning.kept, Some(kept));
        assert!(list_all(&store, "").unwrap().is_empty());
        let versions = weed.client().list_object_versions().bucket(bucket).prefix("probe/").send();
        let versions = runtime.block_on(versions).unwrap();
        assert!(versions.versions().is_empty() && versions.delete_markers().is_empty(), "{versions:?}");
    }
    let (a, b) = (store(weed.settings(), BUCKET, "same/"), store(weed.settings(), BUCKET, "same/"));
    assert!(is_same_store(&a, &b).unwrap());
    assert!(!is_same_store(&a, &store(weed.settings(), BUCKET, "other/")).unwrap());
}

fn storage_classes_hide(weed: &Weed) {
    let first = store(weed.settings(), BUCKET, "class/");
    put(&first, ".storageconfig", r#"{"blobOptions":[{"prefix":"p","storageClass":"STANDARD_IA"}]}"#);
    let store = store(weed.settings(), BUCKET, "class/");
    put(&store, "p1", "x");
    put(&store, "q1", "x");
    let mut names: Vec<_> = list_all(&store, "").unwrap().into_iter().map(|blob| blob.id.to_string()).collect();
    names.sort();
    assert_eq!(names, ["p1", "q1"]);
}

#[test]
fn deadlines_hold_on_the_wire() {
    // A server that never answers.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let settings = S3Settings {
        endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        ..support::script::ScriptServer::start(|_| support::script::error(500, "x")).settings()
    };
    let held: std::thread::JoinHandle<Vec<_>> =
        std::thread::spawn(move || listener.incoming().take(2).flatten().collect());
    let store = store(settings, BUCKET, "");
    let began = SystemClock.since_boot();
    let report = store.delete(&[BlobId::new("p1")], Some(began + Duration::from_secs(1)));
    assert_eq!(report.failed[0].1.kind(), ErrorKind::StoreUnavailable, "it may have happened: {report:?}");
    assert!(SystemClock.since_boot() - began < Duration::from_secs(3), "one try, in the time that is left");
    drop(held);
}
