//! The S3 store against servers that answer as some do in the wild.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use support::script::{Answer, Request, ScriptServer, error, xml};
use verger_kopia::ErrorKind;
use verger_kopia::storage::address::BucketPrefix;
use verger_kopia::storage::calls::Held;
use verger_kopia::storage::s3::{S3Options, S3Storage};
use verger_kopia::storage::settings::S3Settings;
use verger_kopia::storage::{BlobId, ByteRange, Condition, ETag, PutOptions, Storage, list_all};

fn connect(settings: S3Settings) -> S3Storage {
    let place = BucketPrefix { bucket: "b".to_owned(), prefix: "r/".to_owned() };
    S3Storage::connect(S3Options::new(place, settings)).unwrap()
}

fn store(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> (ScriptServer, S3Storage) {
    let server = ScriptServer::start(script);
    let store = connect(server.settings());
    (server, store)
}

fn ids(count: usize) -> Vec<BlobId> {
    (0..count).map(|i| BlobId::new(format!("p{i:04}"))).collect()
}

fn conditional(condition: Condition) -> PutOptions {
    PutOptions { condition, ..PutOptions::default() }
}

const MODIFIED: &str = "Fri, 02 Jan 2026 03:04:05 GMT";

#[test]
fn stores_without_batches_get_single_deletes() {
    for (status, code) in [(501, "NotImplemented"), (400, "MalformedXML"), (405, "MethodNotAllowed")] {
        let (server, store) = store(move |request| match request.method.as_str() {
            "POST" => error(status, code),
            _ => Answer(204, vec![], vec![]),
        });
        assert_eq!(store.delete(&ids(50), None).deleted.len(), 50);
        assert_eq!(store.capabilities().delete_batch_max, 1);
        assert_eq!(store.delete(&ids(50), None).deleted.len(), 50);
        let seen = server.seen();
        assert_eq!(seen.iter().filter(|request| request.method == "POST").count(), 1, "asked once");
        assert_eq!(seen.iter().filter(|request| request.method == "DELETE").count(), 100);
    }
}

#[test]
fn many_are_deleted_by_four_requests_side_by_side() {
    let (met, all_four, is_first) = (Mutex::new(0), Condvar::new(), AtomicBool::new(true));
    let (server, store) = store(move |request| {
        let answer = || {
            let asked = String::from_utf8(request.body.clone()).unwrap();
            let keys = asked.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
            let deleted: String = keys.map(|(key, _)| format!("<Deleted><Key>{key}</Key></Deleted>")).collect();
            xml(&format!("<DeleteResult>{deleted}</DeleteResult>"))
        };
        // Whether it takes lists is seen first, by one.
        if is_first.swap(false, Ordering::SeqCst) {
            return answer();
        }
        // Each waits for the other three.
        let mut met = met.lock().unwrap();
        *met += 1;
        all_four.notify_all();
        let in_time = Duration::from_secs(30);
        let (_met, alone) = all_four.wait_timeout_while(met, in_time, |met| *met < 4).unwrap();
        if alone.timed_out() {
            return error(503, "SlowDown");
        }
        answer()
    });
    let wanted = ids(5000);
    assert_eq!(store.capabilities().delete_at_once, 4000);
    let report = store.delete(&wanted, None);
    assert!(report.failed.is_empty(), "{:?}", report.failed.first());
    assert_eq!(report.deleted, wanted);
    let keys = |request: &Request| request.body.windows(5).filter(|part| part == b"<Key>").count();
    let sizes: Vec<_> = server.seen().iter().map(keys).collect();
    assert_eq!(sizes, [1000; 5]);
}

#[test]
fn an_answer_of_200_may_hold_errors_and_gaps() {
    let (server, store) = store(|_| {
        xml("<DeleteResult><Deleted><Key>r/p0000</Key></Deleted>\
             <Error><Key>r/p0001</Key><Code>AccessDenied</Code><Message>no</Message></Error>\
             <Error><Key>r/p0002</Key><Code>NoSuchKey</Code><Message>gone</Message></Error></DeleteResult>")
    });
    let report = store.delete(&ids(4), None);
    assert_eq!(report.deleted, [BlobId::new("p0000"), BlobId::new("p0002")]);
    let failed: Vec<_> = report.failed.iter().map(|(id, error)| (id.as_str(), error.kind())).collect();
    assert_eq!(failed, [("p0001", ErrorKind::Permission), ("p0003", ErrorKind::StoreUnavailable)]);
    let request = &server.seen()[0];
    assert!(request.header("content-md5").is_some(), "older stores want it");
    assert!(request.headers.iter().all(|(name, _)| !name.starts_with("x-amz-checksum")), "{:?}", request.headers);
}

#[test]
fn absence_must_be_said() {
    let get = |answer: Answer| {
        let (_server, store) = store(move |_| answer.clone());
        store.get(&BlobId::new("p1"), ByteRange::All).unwrap_err().kind()
    };
    assert_eq!(get(error(404, "NoSuchKey")), ErrorKind::NotFound);
    assert_eq!(get(error(404, "NoSuchBucket")), ErrorKind::NotARepository);
    assert_eq!(get(Answer(404, vec![], b"<html>not here</html>".to_vec())), ErrorKind::StoreUnavailable);
    assert_eq!(get(error(403, "AccessDenied")), ErrorKind::Permission);
    assert_eq!(get(error(301, "PermanentRedirect")), ErrorKind::Usage);
}

#[test]
fn a_missing_object_is_told_from_a_missing_bucket_by_head() {
    let head = |bucket: u16, object: u16| {
        let (_server, store) = store(move |request| {
            let status = if request.target.contains("/r/") { object } else { bucket };
            Answer(status, vec![("date", MODIFIED.to_owned())], vec![])
        });
        store.head(&BlobId::new("p1")).unwrap_err().kind()
    };
    assert_eq!(head(200, 404), ErrorKind::NotFound);
    assert_eq!(head(404, 404), ErrorKind::NotARepository);
    assert_eq!(head(200, 403), ErrorKind::Permission, "without the right to list, absent and forbidden look the same");
}

#[test]
fn bodies_that_break_off_are_asked_for_again() {
    let calls = AtomicU32::new(0);
    let (server, store) = store(move |_| {
        let length = ("content-length", "10".to_owned());
        let body: &[u8] = if calls.fetch_add(1, Ordering::SeqCst) < 2 { b"01234" } else { b"0123456789" };
        Answer(200, vec![length], body.to_vec())
    });
    assert_eq!(store.get(&BlobId::new("p1"), ByteRange::All).unwrap(), "0123456789");
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn stores_that_ignore_ranges_are_read_right() {
    let (_server, store) = store(|_| Answer(200, vec![], b"0123456789".to_vec()));
    let get = |range| store.get(&BlobId::new("p1"), range);
    assert_eq!(get(ByteRange::Span { offset: 2, length: 3 }).unwrap(), "234");
    assert_eq!(get(ByteRange::Last(2)).unwrap(), "89");
    assert_eq!(get(ByteRange::Span { offset: 8, length: 3 }).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn listings_that_lose_their_place_are_errors() {
    let entry = "<Contents><Key>r/p1</Key><Size>1</Size><LastModified>2026-01-02T03:04:05Z</LastModified></Contents>";
    for (rest, what) in [
        ("<IsTruncated>true</IsTruncated>", "no place to go on"),
        ("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>", "the same page for ever"),
    ] {
        let (_server, store) = store(move |_| xml(&format!("<ListBucketResult>{rest}{entry}</ListBucketResult>")));
        assert_eq!(list_all(&store, "").unwrap_err().kind(), ErrorKind::StoreUnavailable, "{what}");
    }
    let strange = "<Contents><Key>other/p1</Key><Size>1</Size></Contents>";
    let (_server, store) = store(move |_| xml(&format!("<ListBucketResult>{strange}</ListBucketResult>")));
    assert_eq!(list_all(&store, "").unwrap_err().kind(), ErrorKind::StoreUnavailable);
}

#[test]
fn refused_conditions_keep_their_meaning() {
    let put = |status: u16, code: &'static str, condition: Condition| {
        let (server, store) = store(move |request| match request.method.as_str() {
            "GET" => error(404, "NoSuchKey"),
            _ => error(status, code),
        });
        let failed = store.put(&BlobId::new("verger.lease"), "x".into(), &conditional(condition)).unwrap_err();
        let tries = server.seen().iter().filter(|request| request.method == "PUT").count();
        (failed.kind(), tries)
    };
    let matching = || Condition::IfMatch(ETag("\"x\"".to_owned()));
    assert_eq!(put(412, "PreconditionFailed", Condition::IfAbsent), (ErrorKind::PreconditionFailed, 1));
    assert_eq!(put(409, "ConditionalRequestConflict", matching()), (ErrorKind::PreconditionFailed, 1));
    assert_eq!(put(404, "NoSuchKey", matching()), (ErrorKind::PreconditionFailed, 1));
    assert_eq!(put(501, "NotImplemented", Condition::IfAbsent), (ErrorKind::Unsupported, 1));
    assert_eq!(put(500, "InternalError", Condition::IfAbsent), (ErrorKind::StoreUnavailable, 1));
    let before = Held::here();
    assert_eq!(before, Held::default(), "no store asked for patience yet");
    let (kind, tries) = put(503, "SlowDown", Condition::Always);
    assert_eq!(kind, ErrorKind::StoreUnavailable);
    assert!(tries > 1, "plain writes are tried again");
    let expected = Held { by_store: tries as u64, again: tries as u64 - 1, ..Held::default() };
    assert_eq!(Held::here(), expected, "whoever asks knows what the store said in between");
}

#[test]
fn requests_look_as_kopias_do() {
    let (server, store) = store(|request| match (request.method.as_str(), request.target.contains(".storageconfig")) {
        ("GET", true) => {
            Answer(200, vec![], br#"{"blobOptions":[{"prefix":"p","storageClass":"STANDARD_IA"}]}"#.to_vec())
        }
        _ => Answer(200, vec![("etag", "abc".to_owned())], vec![]),
    });
    let receipt = store.put(&BlobId::new("p1"), "hello".into(), &PutOptions::default()).unwrap();
    assert_eq!(receipt.etag, Some(ETag("\"abc\"".to_owned())), "identities are quoted alike everywhere");
    store.put(&BlobId::new("q1"), "hello".into(), &PutOptions::default()).unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 3, "the classes are read once");
    let (p, q) = (&seen[1], &seen[2]);
    assert!(p.target.starts_with("/b/r/p1"), "the bucket is in the path: {}", p.target);
    assert_eq!(p.header("x-amz-storage-class"), Some("STANDARD_IA"));
    assert_eq!(q.header("x-amz-storage-class"), None);
    assert_eq!(p.header("content-type"), Some("application/x-kopia"));
    assert_eq!(p.header("content-md5"), Some("XUFAKrxLKna5cZ2REBfFkg=="));
    assert!(
        p.headers.iter().all(|(name, _)| !name.starts_with("x-amz-checksum") && !name.starts_with("x-amz-trailer"))
    );
    assert_eq!(p.body, b"hello");
}

/// A server whose certificate only the test authority vouches for.
fn tls_server() -> ScriptServer {
    let file = |name: &str| std::fs::read(format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let chain = CertificateDer::pem_slice_iter(&file("server.pem")).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(&file("server-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let wrap = move |stream| Some(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).ok()?, stream));
    ScriptServer::start_over(wrap, |_| Answer(200, vec![], b"over tls".to_vec()))
}

#[test]
fn trust_is_as_set() {
    let server = tls_server();
    let authority = |name: &str| std::fs::read(format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let settings = |root_ca: Option<Vec<u8>>, skip_tls_verification: bool| S3Settings {
        endpoint: Some(format!("https://127.0.0.1:{}", server.port())),
        root_ca,
        skip_tls_verification,
        ..server.settings()
    };
    let get = |settings: S3Settings| connect(settings).get(&BlobId::new("p1"), ByteRange::All);
    assert_eq!(get(settings(Some(authority("authority.pem")), false)).unwrap(), "over tls");
    assert_eq!(get(settings(None, true)).unwrap(), "over tls");
    let strange = get(settings(Some(authority("other-authority.pem")), false)).unwrap_err();
    assert_eq!(strange.kind(), ErrorKind::StoreUnavailable);
    assert!(strange.chain().contains("certificate"), "{strange:?}");
    assert!(strange.fix().is_some_and(|fix| fix.contains("certificate")), "{strange:?}");
}

#[test]
fn the_date_header_is_the_stores_time() {
    let (_server, store) = store(|_| Answer(404, vec![("date", MODIFIED.to_owned())], vec![]));
    assert_eq!(store.now().unwrap(), "2026-01-02T03:04:05Z".parse().unwrap());
    let (_server, undated) = self::store(|_| Answer(404, vec![], vec![]));
    assert_eq!(undated.now().unwrap_err().kind(), ErrorKind::StoreUnavailable);
}
