//! Google Cloud Storage and Azure against a server that answers by script: what goes over the wire.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use support::script::{Answer, Request, ScriptServer, xml};
use verger_kopia::ErrorKind;
use verger_kopia::storage::address::BucketPrefix;
use verger_kopia::storage::object::ObjectStoreAdapter;
use verger_kopia::storage::secret::Secret;
use verger_kopia::storage::settings::{AzureSettings, GcsSettings};
use verger_kopia::storage::{BlobId, ByteRange, Condition, PutOptions, Storage, azure, gcs, list_all};

const DATE: &str = "Fri, 02 Jan 2026 03:04:05 GMT";

fn place() -> BucketPrefix {
    BucketPrefix { bucket: "bucket".to_owned(), prefix: "pre".to_owned() }
}

fn google(server: &ScriptServer) -> ObjectStoreAdapter {
    let endpoint = Some(format!("http://127.0.0.1:{}", server.port()));
    gcs::connect(&place(), &GcsSettings { endpoint, ..GcsSettings::default() }).unwrap()
}

fn microsoft(server: &ScriptServer) -> ObjectStoreAdapter {
    let settings = AzureSettings {
        account: Some("account".to_owned()),
        key: Some(Secret::new("aHVzaA==")),
        endpoint: Some(format!("http://127.0.0.1:{}/account", server.port())),
        ..AzureSettings::default()
    };
    azure::connect(&place(), &settings).unwrap()
}

fn both(
    script: impl Fn(&Request) -> Answer + Send + Sync + Clone + 'static,
) -> [(ScriptServer, ObjectStoreAdapter); 2] {
    let (first, second) = (ScriptServer::start(script.clone()), ScriptServer::start(script));
    let stores = (google(&first), microsoft(&second));
    [(first, stores.0), (second, stores.1)]
}

#[test]
fn listings_begin_with_the_prefix_as_written() {
    let google_page = "<ListBucketResult><Contents><Key>prep1</Key><Size>3</Size><LastModified>2026-01-02T03:04:05.678Z\
                       </LastModified><ETag>\"x\"</ETag></Contents></ListBucketResult>";
    let server = ScriptServer::start(move |_| xml(google_page));
    let found = list_all(&google(&server), "p").unwrap();
    assert_eq!((found[0].id.as_str(), found[0].length), ("p1", 3));
    assert_eq!(found[0].timestamp, "2026-01-02T03:04:05.678Z".parse().unwrap());
    assert!(server.seen()[0].target.contains("prefix=prep&") || server.seen()[0].target.ends_with("prefix=prep"));
    let azure_page = "<?xml version=\"1.0\"?><EnumerationResults><Blobs><Blob><Name>prep1</Name><Properties><Last-Modified>\
                      Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified><Content-Length>3</Content-Length><Content-Type>x\
                      </Content-Type><Etag>0x1</Etag></Properties></Blob></Blobs><NextMarker/></EnumerationResults>";
    let server = ScriptServer::start(move |_| xml(azure_page));
    let found = list_all(&microsoft(&server), "p").unwrap();
    assert_eq!((found[0].id.as_str(), found[0].length), ("p1", 3));
    assert!(server.seen()[0].target.contains("prefix=prep"), "{}", server.seen()[0].target);
}

#[test]
fn a_missing_bucket_is_no_missing_blob() {
    for (_server, store) in both(|_| Answer(404, vec![("date", DATE.to_owned())], vec![])) {
        let id = BlobId::new("p1");
        let missing = store.get(&id, ByteRange::All).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotARepository, "{store:?}: {missing:?}");
        assert_eq!(store.head(&id).unwrap_err().kind(), ErrorKind::NotARepository);
        assert_eq!(list_all(&store, "").unwrap_err().kind(), ErrorKind::NotARepository);
        assert_eq!(store.delete(&[id], None).failed[0].1.kind(), ErrorKind::NotARepository);
    }
    let page = "<ListBucketResult></ListBucketResult>";
    let server = ScriptServer::start(move |request| {
        if request.target.contains("prefix=") {
            xml(page)
        } else {
            Answer(404, vec![("date", DATE.to_owned())], vec![])
        }
    });
    let store = google(&server);
    assert_eq!(store.head(&BlobId::new("p1")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.now().unwrap(), "2026-01-02T03:04:05Z".parse().unwrap());
    assert_eq!(store.delete(&[BlobId::new("p1")], None).deleted.len(), 1);
}

#[test]
fn refusals_keep_their_meaning() {
    for (status, kind) in [(403, ErrorKind::Permission), (401, ErrorKind::Permission)] {
        for (_server, store) in both(move |_| Answer(status, vec![], vec![])) {
            assert_eq!(store.get(&BlobId::new("p1"), ByteRange::All).unwrap_err().kind(), kind);
            assert_eq!(list_all(&store, "").unwrap_err().kind(), kind);
        }
    }
    for (server, store) in both(|_| Answer(412, vec![], vec![])) {
        let options = PutOptions { condition: Condition::IfAbsent, ..PutOptions::default() };
        let refused = store.put(&BlobId::new("verger.lease"), "x".into(), &options).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PreconditionFailed, "{refused:?}");
        let seen = server.seen();
        let request = seen.last().unwrap();
        assert!(
            request.header("if-none-match") == Some("*") || request.header("x-goog-if-generation-match") == Some("0"),
            "{request:?}"
        );
    }
}

#[test]
fn careful_writes_are_sent_once() {
    for (server, store) in both(|_| Answer(503, vec![], vec![])) {
        let options = PutOptions { condition: Condition::IfAbsent, ..PutOptions::default() };
        let failed = store.put(&BlobId::new("verger.lease"), "x".into(), &options).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::StoreUnavailable);
        assert_eq!(server.seen().len(), 1, "{store:?}: {failed:?}");
    }
}
