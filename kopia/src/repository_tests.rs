use super::*;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Mutex;

use crate::clock::{SetClock, Timestamp};
use crate::content::ContentHash;
use crate::crypto::aead::{self, Algorithm};
use crate::crypto::encryption::blob_iv;
use crate::storage::latency::LatencyStorage;
use crate::storage::{BlobMetadata, Capabilities, DeleteReport, PutOptions, PutReceipt, RetentionMode};

/// Blobs in memory that remembers what was asked for, and can do nothing but read.
#[derive(Debug, Default)]
struct Shelf {
    blobs: Mutex<BTreeMap<String, Bytes>>,
    asked: Mutex<Vec<String>>,
}

impl Shelf {
    /// The blobs of a golden repository whose names start with one of `prefixes`.
    fn golden(name: &str, prefixes: &[&str]) -> Arc<Self> {
        let path = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/{}.tar.gz"), name);
        let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let shelf = Self::default();
        for entry in tar::Archive::new(flate2::read::GzDecoder::new(file)).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let Some(blob) = path.strip_suffix(".f") else { continue };
            let id: String = blob.split('/').skip(2).collect();
            if prefixes.iter().any(|prefix| id.starts_with(prefix)) {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                shelf.set(&id, bytes);
            }
        }
        Arc::new(shelf)
    }

    fn set(&self, id: &str, bytes: Vec<u8>) {
        self.blobs.lock().unwrap().insert(id.to_owned(), Bytes::from(bytes));
    }

    fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Storage for Shelf {
    fn address(&self) -> String {
        "shelf://here".into()
    }

    fn capabilities(&self) -> Capabilities {
        unreachable!("not asked when opening")
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        assert_eq!(range, ByteRange::All);
        self.asked.lock().unwrap().push(id.to_string());
        let found = self.blobs.lock().unwrap().get(id.as_str()).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("get {id}")))
    }

    fn head(&self, _: &BlobId) -> Result<BlobMetadata> {
        unreachable!("not asked when opening")
    }

    fn list(&self, _: &str, _: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        unreachable!("not asked when opening")
    }

    fn put(&self, _: &BlobId, _: Bytes, _: &PutOptions) -> Result<PutReceipt> {
        unreachable!("opening never writes")
    }

    fn delete(&self, _: &[BlobId], _: Option<std::time::Duration>) -> DeleteReport {
        unreachable!("opening never deletes")
    }

    fn now(&self) -> Result<Timestamp> {
        unreachable!("not asked when opening")
    }
}

fn clock() -> Arc<SetClock> {
    Arc::new(SetClock::new("2026-06-01T00:00:00Z".parse().unwrap()))
}

fn open(shelf: &Arc<Shelf>, password: &str) -> Result<Repository> {
    Repository::open(Arc::clone(shelf) as Arc<dyn Storage>, password, clock())
}

/// The default golden repository, opened, with all that is needed to change its format blob.
struct Bench {
    shelf: Arc<Shelf>,
    repository: Repository,
    envelope: Envelope,
    config: serde_json::Value,
}

impl Bench {
    fn new() -> Self {
        let shelf = Shelf::golden("default", &["kopia."]);
        let repository = open(&shelf, "golden").unwrap();
        let envelope = Envelope::parse(repository.format_blob()).unwrap();
        let plain = envelope.open_config(&repository.inner.format.key).unwrap();
        let config = serde_json::from_slice(&plain).unwrap();
        shelf.take_asked();
        Self { shelf, repository, envelope, config }
    }

    /// Refreshes with one field of the configuration changed.
    fn refresh_with(&self, field: &str, value: serde_json::Value) -> Result<Repository> {
        let mut config = self.config.clone();
        config["format"][field] = value;
        let plain = serde_json::to_vec(&config).unwrap();
        self.shelf.set(FORMAT_BLOB, self.envelope.with_config(&self.repository.inner.format.key, &plain));
        self.repository.refresh()
    }
}

fn kind(result: Result<Repository>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn opening_takes_as_long_as_its_requests_and_the_same_repository_keeps_that() {
    let (shelf, clock) = (Shelf::golden("default", &["kopia."]), clock());
    let far = LatencyStorage::new(shelf.clone(), Duration::from_millis(40), clock.clone());
    let repository = Repository::open(Arc::new(far), "golden", clock).unwrap();
    let asked = u32::try_from(shelf.take_asked().len()).unwrap();
    assert!(asked > 1 && repository.opened_in() == Duration::from_millis(40) * asked, "{:?}", repository.opened_in());
    let others = [repository.refresh().unwrap(), repository.counting_repairs(), repository.through(shelf)];
    assert!(others.iter().all(|other| other.opened_in() == repository.opened_in()));
}

#[test]
fn every_golden_repository_opens_and_its_blobs_are_what_their_names_say() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
    let (mut opened, mut schedules) = (0, 0);
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".tar.gz") else { continue };
        let shelf = Shelf::golden(name, &["kopia.", "n", "m", "l", "xn", "xs", "xr", "s", "_log_"]);
        let repository = open(&shelf, "golden").unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(repository.unique_id().len(), 32);
        assert_eq!(repository.blob_config(), BlobConfig::default());
        let mut blobs = 0;
        for (id, stored) in shelf.blobs.lock().unwrap().iter() {
            // Kopia's poison for clients that do not know the epoch index is plain text.
            if id.starts_with("kopia.") || id.contains("repository_unreadable") {
                continue;
            }
            let id = BlobId::from(id.as_str());
            let plain = repository.cipher().open_blob(&id, stored).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let hash: ContentHash = repository.hasher().hash(&plain);
            assert_eq!(hash.iv(), blob_iv(&id).unwrap(), "{name}: {id}");
            if let Some(ecc) = repository.cipher().ecc() {
                // Parity is looked at only here: the data of a blob reads without it.
                assert!(ecc.is_intact(stored), "{name}: {id}");
                assert_eq!(ecc.encode(&ecc.decode(stored).unwrap().0).unwrap(), stored[..], "{name}: {id}");
            }
            blobs += 1;
        }
        assert!(blobs > 0, "{name} has no blobs to open");
        // A maintenance schedule, where it had one, is encrypted with a derived key.
        if let Some(stored) = shelf.blobs.lock().unwrap().get("kopia.maintenance") {
            let key = repository.derive_key("maintenance schedule");
            let mut plain = Vec::new();
            aead::open(Algorithm::Aes256Gcm, &key, b"maintenance", stored, &mut plain).unwrap();
            assert!(plain.starts_with(b"{"));
            schedules += 1;
        }
        opened += 1;
    }
    assert!(opened >= 27 && schedules >= 1, "{opened} golden repositories, {schedules} with a schedule");
}

#[test]
fn parameters_are_those_the_real_program_reports() {
    let repository = open(&Shelf::golden("ecc", &["kopia."]), "golden").unwrap();
    let config = repository.config();
    assert_eq!((config.ecc.as_str(), config.ecc_overhead_percent), ("REED-SOLOMON-CRC32", 5));
    assert_eq!((config.version, config.index_version, config.enable_password_change), (3, 2, true));
    assert_eq!(config.splitter, "DYNAMIC-4M-BUZHASH");
    assert!(config.epoch.enabled && repository.cipher().ecc().is_some());
    let id = "725ff0ee73c2c33cde1eb85ca8c0fd1373db1e63bcb48500ed641beb51b0bbbe";
    assert_eq!(hex::encode(repository.unique_id()), id);
    assert_eq!(format!("{repository:?}"), format!("Repository {{ address: \"shelf://here\", unique_id: \"{id}\" }}"));

    let old = open(&Shelf::golden("format1", &["kopia."]), "golden").unwrap();
    assert_eq!((old.config().version, old.config().index_version), (1, 1));
    assert!(!old.config().enable_password_change && !old.config().epoch.enabled && old.cipher().ecc().is_none());
}

#[test]
fn absent_unreadable_and_wrong_are_told_apart() {
    let error = open(&Arc::new(Shelf::default()), "golden").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotARepository);
    assert!(error.to_string().contains("shelf://here"));

    let shelf = Shelf::golden("default", &["kopia."]);
    assert_eq!(kind(open(&shelf, "Golden")), ErrorKind::WrongPassword);
    let whole = shelf.blobs.lock().unwrap()[FORMAT_BLOB].to_vec();
    let envelope: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    let mut short = envelope.clone();
    short["encryptedBlockFormat"] = "AAAA".into();
    shelf.set(FORMAT_BLOB, short.to_string().into_bytes());
    assert_eq!(kind(open(&shelf, "golden")), ErrorKind::Damaged);
    shelf.set(FORMAT_BLOB, whole[..whole.len() / 2].to_vec());
    assert_eq!(kind(open(&shelf, "golden")), ErrorKind::Damaged);
    shelf.set(FORMAT_BLOB, String::from_utf8(whole).unwrap().replace("scrypt-65536-8-1", "scrypt-2-2-2").into_bytes());
    assert_eq!(kind(open(&shelf, "golden")), ErrorKind::Unsupported);
}

#[test]
fn refresh_takes_new_parameters_and_tells_that_something_changed() {
    let bench = Bench::new();
    let same = bench.repository.refresh().unwrap();
    assert_eq!(same.format_digest(), bench.repository.format_digest());
    let changed = bench.refresh_with("maxPackSize", (64 << 20).into()).unwrap();
    assert_eq!(changed.config().max_pack_size, 64 << 20);
    assert_ne!(changed.format_digest(), bench.repository.format_digest());
    assert_eq!(changed.derive_key("x"), bench.repository.derive_key("x"));
}

#[test]
fn i1_under_an_upgrade_lock_only_the_format_blob_is_read() {
    let bench = Bench::new();
    let lock = serde_json::json!({
        "ownerID": "someone", "creationTime": "2026-05-31T23:59:00Z", "ioDrainTimeout": 900_000_000_000u64,
        "maxPermittedClockDrift": 300_000_000_000u64, "message": "please wait",
    });
    let error = bench.refresh_with("upgradeLock", lock.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UpgradeInProgress);
    assert!(error.chain().contains("please wait") && error.fix().is_some());
    assert_eq!(bench.shelf.take_asked(), [FORMAT_BLOB]);

    // With enough notice it may still go on.
    let mut announced = lock;
    announced["advanceNoticeDuration"] = 86_400_000_000_000u64.into();
    let repository = bench.refresh_with("upgradeLock", announced).unwrap();
    assert!(repository.config().upgrade_lock.is_some());
    assert_eq!(bench.shelf.take_asked(), [FORMAT_BLOB, BLOB_CONFIG_BLOB]);
}

#[test]
fn refresh_stops_at_what_can_no_longer_be_understood() {
    let bench = Bench::new();
    let feature = |warn: bool| serde_json::json!([{"feature": "flux", "ifNotUnderstood": {"warn": warn}}]);
    assert_eq!(kind(bench.refresh_with("requiredFeatures", feature(false))), ErrorKind::Unsupported);
    assert!(bench.refresh_with("requiredFeatures", feature(true)).is_ok());
    assert_eq!(kind(bench.refresh_with("version", 4.into())), ErrorKind::Unsupported);
    for (field, value) in [("hash", "BLAKE3-256"), ("masterKey", "AAAA"), ("secret", "AAAA")] {
        assert_eq!(kind(bench.refresh_with(field, value.into())), ErrorKind::Damaged, "{field}");
    }
    // Another repository, another password.
    let other = Shelf::golden("format2", &[FORMAT_BLOB]);
    bench.shelf.set(FORMAT_BLOB, other.blobs.lock().unwrap()[FORMAT_BLOB].to_vec());
    assert_eq!(kind(bench.repository.refresh()), ErrorKind::Damaged);
    let plain = serde_json::to_vec(&bench.config).unwrap();
    bench.shelf.set(FORMAT_BLOB, bench.envelope.with_config(&Key::default(), &plain));
    assert_eq!(kind(bench.repository.refresh()), ErrorKind::WrongPassword);
}

#[test]
fn retention_settings_are_read_and_may_be_missing_but_not_damaged() {
    let bench = Bench::new();
    let sealed = bench.envelope.seal(
        &bench.repository.inner.format.key,
        br#"{"retentionMode":"COMPLIANCE","retentionPeriod":172800000000000}"#,
    );
    bench.shelf.set(BLOB_CONFIG_BLOB, sealed.clone());
    let retention = bench.repository.refresh().unwrap().blob_config().retention;
    assert_eq!(retention, Some((RetentionMode::Compliance, std::time::Duration::from_hours(48))));
    for damaged in [&sealed[..sealed.len() - 1], &[], &sealed[1..]] {
        bench.shelf.set(BLOB_CONFIG_BLOB, damaged.to_vec());
        assert_eq!(kind(bench.repository.refresh()), ErrorKind::Damaged);
    }
    bench.shelf.blobs.lock().unwrap().remove(BLOB_CONFIG_BLOB);
    assert_eq!(bench.repository.refresh().unwrap().blob_config(), BlobConfig::default());
}
