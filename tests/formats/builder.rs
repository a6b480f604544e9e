//! Whole repositories by our own writers, in any form that Kopia ever wrote, and in forms that nobody did.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde_json::{Value, json};
use verger_kopia::clock::{Clock, SetClock, SystemClock, Timestamp};
use verger_kopia::content::{CompressionId, ContentHash, ContentId, Entry};
use verger_kopia::crypto::keys;
use verger_kopia::index::write::{BuildOptions, build};
use verger_kopia::index_set::write::write_index_set;
use verger_kopia::manifest::ManifestEntry;
use verger_kopia::manifest::store::encode;
use verger_kopia::pack::write::PackWriter;
use verger_kopia::session::SessionId;
use verger_kopia::storage::{MemoryStorage, PutOptions, Storage};

use crate::store::World;
use crate::support::{OWNER, PASSWORD};

const UNIQUE_ID: [u8; 32] = [0x5e; 32];
const NONCE: [u8; 12] = [7; 12];

/// What the format blob says.
#[derive(Debug, Clone)]
pub struct Shape {
    pub name: &'static str,
    pub version: u8,
    pub index_version: u8,
    pub epochs: bool,
    /// False: created as version 1, so packs begin with a replica of the format blob.
    pub password_change: bool,
    pub hash: &'static str,
    pub encryption: &'static str,
    pub splitter: &'static str,
    pub ecc_percent: u32,
    /// 0: not recorded, as in the oldest repositories.
    pub pack_size: u64,
}

/// As Kopia 0.3 to 0.8 made them.
pub const OLDEST: Shape = Shape {
    name: "oldest",
    version: 1,
    index_version: 0,
    epochs: false,
    password_change: false,
    hash: "BLAKE2B-256-128",
    encryption: "AES256-GCM-HMAC-SHA256",
    splitter: "",
    ecc_percent: 0,
    pack_size: 0,
};

/// Made as version 1 and upgraded in place: new index, old keys.
pub const UPGRADED: Shape = Shape {
    name: "upgraded",
    version: 3,
    index_version: 2,
    epochs: true,
    splitter: "DYNAMIC-4M-BUZHASH",
    pack_size: 20 << 20,
    ..OLDEST
};

/// As today's.
pub const TODAY: Shape = Shape { name: "today", password_change: true, ..UPGRADED };

impl Shape {
    fn config(&self) -> Value {
        let mut format = json!({
            "hash": self.hash, "encryption": self.encryption, "version": self.version,
            "secret": BASE64_STANDARD.encode([0x11; 32]), "masterKey": BASE64_STANDARD.encode([0x22; 32]),
            "epochParameters": {}, "enablePasswordChange": self.password_change,
        });
        if self.index_version > 0 {
            format["indexVersion"] = self.index_version.into();
        }
        if self.pack_size > 0 {
            format["maxPackSize"] = self.pack_size.into();
        }
        if !self.splitter.is_empty() {
            format["splitter"] = self.splitter.into();
        }
        if self.ecc_percent > 0 {
            format["ecc"] = "REED-SOLOMON-CRC32".into();
            format["eccOverheadPercent"] = self.ecc_percent.into();
        }
        if self.epochs {
            format["epochParameters"] = json!({
                "Enabled": true, "EpochRefreshFrequency": 1_200_000_000_000u64, "FullCheckpointFrequency": 7,
                "CleanupSafetyMargin": 14_400_000_000_000u64, "MinEpochDuration": 86_400_000_000_000u64,
                "EpochAdvanceOnCountThreshold": 20, "EpochAdvanceOnTotalSizeBytesThreshold": 10_485_760, "DeleteParallelism": 4
            });
        }
        json!({ "format": format })
    }

    /// `kopia.repository` and `kopia.blobcfg`.
    pub fn format_blobs(&self) -> [(&'static str, Bytes); 2] {
        let algorithm = "scrypt-65536-8-1";
        let key = keys::format_key(algorithm, PASSWORD, &UNIQUE_ID).unwrap();
        let derive = |purpose: &[u8]| keys::derive(&key[..], &UNIQUE_ID, purpose);
        let (aes, aad) = (derive(b"AES"), derive(b"CHECKSUM"));
        let cipher = Aes256Gcm::new_from_slice(&aes[..]).unwrap();
        // One nonce for both: nothing here is secret.
        let seal = |plain: &[u8]| {
            let message = cipher.encrypt(&Nonce::from(NONCE), Payload { msg: plain, aad: &aad[..] }).unwrap();
            [&NONCE[..], &message].concat()
        };
        let config = seal(&serde_json::to_vec(&self.config()).unwrap());
        let envelope = json!({
            "tool": "https://github.com/kopia/kopia", "buildVersion": "", "buildInfo": "", "keyAlgo": algorithm,
            "uniqueID": BASE64_STANDARD.encode(UNIQUE_ID), "encryption": "AES256_GCM",
            "encryptedBlockFormat": BASE64_STANDARD.encode(config),
        });
        let envelope = serde_json::to_vec_pretty(&envelope).unwrap();
        [("kopia.repository", envelope.into()), ("kopia.blobcfg", seal(b"{}").into())]
    }
}

/// A repository in the making. What is added counts as needed by a snapshot, until [`Builder::from_here_dead`].
pub struct Builder {
    pub world: World,
    session: SessionId,
    writers: BTreeMap<char, PackWriter>,
    entries: Vec<Entry>,
    manifests: Vec<ManifestEntry>,
    is_dead: bool,
    /// Contents that snapshots need.
    pub used: BTreeSet<ContentId>,
    /// Contents that no snapshot needs.
    pub dead: BTreeSet<ContentId>,
    /// Files of the tree to come: path, object, bytes.
    pub files: Vec<(String, String, Vec<u8>)>,
    /// Entries of the root directory, beside the files.
    pub folders: Vec<(String, String)>,
    pub roots: Vec<String>,
}

impl Builder {
    /// An empty one, sixty days ago.
    pub fn new(shape: &Shape) -> Self {
        let clock = Arc::new(SetClock::new(SystemClock.now() - Duration::from_hours(60 * 24)));
        let memory = MemoryStorage::new(clock.clone());
        for (name, bytes) in shape.format_blobs() {
            memory.put_at(&name.into(), bytes, clock.now());
        }
        let world = World::of(shape.name, memory, clock);
        let session = SessionId::generate(world.now());
        let mut builder = Self {
            world,
            session,
            writers: BTreeMap::new(),
            entries: Vec::new(),
            manifests: Vec::new(),
            is_dead: false,
            used: BTreeSet::new(),
            dead: BTreeSet::new(),
            files: Vec::new(),
            folders: Vec::new(),
            roots: Vec::new(),
        };
        let cycle = json!({"enabled": true, "interval": 86_400_000_000_000u64});
        builder.manifest("maintenance", &[], &json!({"owner": OWNER, "quick": cycle, "full": cycle}));
        builder
    }

    pub fn hash(&self, plain: &[u8]) -> ContentHash {
        self.world.outside.hasher().hash(plain)
    }

    /// What is added from here on is for nobody.
    pub fn from_here_dead(&mut self) {
        self.is_dead = true;
    }

    /// A content as it comes; its ID as text.
    pub fn content(&mut self, prefix: &str, plain: &[u8]) -> String {
        self.compressed(prefix, plain, 0, plain)
    }

    /// A content whose stored form is `packed` (header included), under this compression.
    pub fn compressed(&mut self, prefix: &str, plain: &[u8], compression: u32, packed: &[u8]) -> String {
        let hash = self.hash(plain);
        let id = ContentId::new(prefix.bytes().next().unwrap_or(0), hash).unwrap();
        self.put(id, plain.len(), compression, packed);
        id.to_string()
    }

    /// Bytes under an ID that is not theirs: the key of an item depends on its ID alone.
    pub fn forged(&mut self, id: &str, plain: &[u8]) {
        self.put(id.parse().unwrap(), plain.len(), 0, plain);
    }

    fn put(&mut self, id: ContentId, length: usize, compression: u32, packed: &[u8]) {
        let group = if self.is_dead { &mut self.dead } else { &mut self.used };
        if !group.insert(id) {
            return;
        }
        let repository = self.world.outside.clone();
        let stored = repository.cipher().seal(id.hash().iv(), packed).unwrap();
        let now = self.world.now().as_second();
        let entry = Entry {
            id,
            timestamp: now,
            deleted: false,
            pack: "".into(),
            offset: 0,
            packed_length: u32::try_from(stored.len()).unwrap(),
            original_length: u32::try_from(length).unwrap(),
            compression: CompressionId(compression),
            format_version: repository.config().version,
        };
        let letter = id.pack_letter();
        let new = || PackWriter::new(&repository, letter).unwrap();
        let writer = self.writers.entry(letter).or_insert_with(new);
        writer.add_copy(&repository, &entry, &stored, now).unwrap();
    }

    /// Closes the packs that are open, so that what comes lies in others.
    pub fn close_packs(&mut self) {
        for (_, writer) in std::mem::take(&mut self.writers) {
            let (id, bytes, entries) = writer.finish(&self.world.outside, &self.session).unwrap();
            self.world.outside.storage().put(&id, bytes, &PutOptions::default()).unwrap();
            self.entries.extend(entries);
        }
    }

    /// One index blob, in this version whatever the format says.
    pub fn publish_as(&mut self, version: u8) {
        self.close_packs();
        let repository = &self.world.outside;
        let options = BuildOptions { version, hash_length: repository.hasher().length(), random_tail: false };
        let epochs = repository.config().epoch.enabled;
        for payload in build(std::mem::take(&mut self.entries), &options).unwrap() {
            let (prefix, suffix) =
                if epochs { ("xn0_", format!("{}-c1", self.session)) } else { ("n", self.session.to_string()) };
            let (id, bytes) = repository.cipher().seal_blob(repository.hasher(), prefix, &suffix, &payload).unwrap();
            repository.storage().put(&id, bytes, &PutOptions::default()).unwrap();
        }
    }

    /// Index blobs as a client of today writes them.
    pub fn publish(&mut self) {
        self.close_packs();
        let entries = std::mem::take(&mut self.entries);
        write_index_set(&self.world.outside, entries, self.session.as_str(), None).unwrap();
        self.world.clock.advance(Duration::from_secs(1));
    }

    /// A file of the tree.
    pub fn file(&mut self, path: &str, object: &str, plain: &[u8]) {
        self.files.push((path.to_owned(), object.to_owned(), plain.to_vec()));
    }

    /// Cuts bytes into contents of this length: (length, object).
    pub fn chunks(&mut self, prefix: &str, plain: &[u8], length: usize) -> Vec<(usize, String)> {
        plain.chunks(length).map(|chunk| (chunk.len(), self.content(prefix, chunk))).collect()
    }

    /// A seek table of these parts, in one content: the indirect object.
    pub fn table(&mut self, prefix: &str, parts: &[(usize, String)]) -> String {
        format!("I{}", self.content(prefix, seek_table(parts).as_bytes()))
    }

    /// The root directory of all files so far, and a snapshot of it.
    pub fn snapshot(&mut self) -> String {
        let files = self.files.clone();
        let mut lines: Vec<String> = self.folders.iter().map(|(name, object)| entry("d", name, object, 0)).collect();
        lines.extend(files.iter().filter(|(path, ..)| !path.contains('/')).map(|(p, o, b)| entry("f", p, o, b.len())));
        let root = self.content("k", directory(&lines).as_bytes());
        self.snapshot_of("d", &root);
        root
    }

    /// A snapshot of any object.
    pub fn snapshot_of(&mut self, kind: &str, object: &str) -> String {
        let now = self.world.now().to_string();
        let body = json!({
            "id": "", "source": {"host": "golden", "userName": "owner", "path": format!("/built/{}", self.roots.len())},
            "description": "", "startTime": now, "endTime": now, "stats": {},
            "rootEntry": {"name": "built", "type": kind, "mode": "0755", "mtime": "2019-05-06T07:08:09Z", "obj": object},
        });
        self.roots.push(object.to_owned());
        self.snapshot_as(&body)
    }

    /// A snapshot with a manifest of any shape; its ID.
    pub fn snapshot_as(&mut self, body: &Value) -> String {
        let path = body["source"]["path"].as_str().unwrap_or("/").to_owned();
        self.manifest("snapshot", &[("hostname", "golden"), ("username", "owner"), ("path", &path)], body)
    }

    fn manifest(&mut self, kind: &str, labels: &[(&str, &str)], body: &Value) -> String {
        let id = format!("{:032x}", 0xabc + self.manifests.len() + 100 * self.roots.len());
        let mut all = BTreeMap::from([("type".to_owned(), kind.to_owned())]);
        all.extend(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let data = serde_json::value::to_raw_value(body).unwrap();
        self.manifests.push(ManifestEntry::put(&*id, all, self.world.now(), data));
        id
    }

    /// Writes the manifests and everything else that is pending.
    pub fn finish(&mut self) {
        let (dead, used) = (self.dead.clone(), self.used.clone());
        for manifest in std::mem::take(&mut self.manifests) {
            self.content("m", &encode(&[manifest]));
        }
        (self.dead, self.used) = (dead, used);
        self.publish();
    }
}

/// `{"stream":"kopia:indirect",…}` as Kopia writes it.
pub fn seek_table(parts: &[(usize, String)]) -> String {
    let mut start = 0;
    let line = |(length, object): &(usize, String)| {
        let at = if start > 0 { format!(r#""s":{start},"#) } else { String::new() };
        start += length;
        let long = if *length > 0 { format!(r#""l":{length},"#) } else { String::new() };
        format!(r#"{{{at}{long}"o":"{object}"}}"#)
    };
    let lines: Vec<String> = parts.iter().map(line).collect();
    format!("{{\"stream\":\"kopia:indirect\",\"entries\":[{}]}}\n", lines.join(","))
}

/// An entry of a directory as Kopia writes it.
pub fn entry(kind: &str, name: &str, object: &str, size: usize) -> String {
    let name = serde_json::to_string(name).unwrap();
    let size = if size > 0 { format!(r#""size":{size},"#) } else { String::new() };
    let mode = if kind == "d" { "0755" } else { "0644" };
    format!(
        r#"{{"name":{name},"type":"{kind}","mode":"{mode}",{size}"mtime":"2019-05-06T07:08:09.123456789Z","obj":"{object}"}}"#
    )
}

/// `{"stream":"kopia:directory",…}` as Kopia writes it.
pub fn directory(entries: &[String]) -> String {
    let entries = if entries.is_empty() { "null".to_owned() } else { format!("[{}]", entries.join(",")) };
    format!(
        "{{\"stream\":\"kopia:directory\",\"entries\":{entries},\"summary\":{{\"size\":0,\"files\":0,\"symlinks\":0,\"dirs\":1,\
         \"maxTime\":\"2019-05-06T07:08:09Z\",\"numFailed\":0}}}}\n"
    )
}

/// Bytes without a pattern, the same for each seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Everything in a store, as files for programs to open; times are kept.
pub fn unload(from: &dyn Storage, folder: &Path) {
    std::fs::write(folder.join(".shards"), "{\"default\":[1,3],\"maxNonShardedLength\":20}\n").unwrap();
    for blob in verger_kopia::storage::list_all(from, "").unwrap() {
        if blob.id.as_str().starts_with("verger") {
            continue;
        }
        let name = blob.id.as_str();
        let mut path = folder.to_owned();
        let mut rest = name;
        if name.len() > 20 {
            path.extend([&name[..1], &name[1..4]]);
            rest = &name[4..];
        }
        std::fs::create_dir_all(&path).unwrap();
        let file = path.join(format!("{rest}.f"));
        std::fs::write(&file, from.get(&blob.id, verger_kopia::storage::ByteRange::All).unwrap()).unwrap();
        let time: Timestamp = blob.timestamp;
        std::fs::File::options().append(true).open(&file).unwrap().set_modified(time.into()).unwrap();
    }
}
