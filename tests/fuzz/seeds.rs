//! First inputs of every target, out of the golden repositories and a few by hand.

use std::collections::BTreeMap;

use verger_coordinator::ledger::Entry as LedgerEntry;
use verger_kopia::content::read::read_content;
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::index::write::{BuildOptions, build};
use verger_kopia::index_set::names::UNCOMPACTED;
use verger_kopia::index_set::{IndexView, load_view};
use verger_kopia::maintenance::schedule;
use verger_kopia::manifest::entry::decode;
use verger_kopia::storage::{BlobId, ByteRange, Storage, list_all};
use verger_proto::envelope::{self, HEADER_BYTES, Kind};
use verger_proto::work_queue::message::Message;
use verger_proto::work_queue::{Offer, SigningKey, Wake, conformance};
use verger_proto::{Command, CycleId, Event, LogTime, Pool};

use super::mutate::Random;
use super::targets::golden::{self, Golden};

const REPOSITORIES: [&str; 7] =
    ["default", "epochs", "ecc", "format1", "format1-upgraded", "hmac-sha3-256", "split-fixed-128k-large-dirs"];
const COMPRESSED: [(&str, u8); 5] =
    [("meta-gzip", 0), ("default", 1), ("meta-s2", 2), ("meta-pgzip", 3), ("meta-deflate", 5)];
const COUNT_MAX: usize = 12;
const BYTES_MAX: usize = 4096;

type Seeds = BTreeMap<&'static str, Vec<Vec<u8>>>;

struct Collected(Seeds);

impl Collected {
    fn add(&mut self, target: &'static str, input: impl Into<Vec<u8>>) {
        let (inputs, input) = (self.0.entry(target).or_default(), input.into());
        if input.len() <= BYTES_MAX && inputs.len() < COUNT_MAX && !inputs.contains(&input) {
            inputs.push(input);
        }
    }
}

/// All of them, always the same.
pub fn all() -> Seeds {
    let mut seeds = Collected(Seeds::new());
    for (number, name) in REPOSITORIES.into_iter().enumerate() {
        of_repository(&mut seeds, name, u8::try_from(number).unwrap());
    }
    for (name, codec) in COMPRESSED {
        of_codec(&mut seeds, name, codec);
    }
    records(&mut seeds);
    messages(&mut seeds);
    by_hand(&mut seeds);
    seeds.0
}

fn of_repository(seeds: &mut Collected, name: &str, number: u8) {
    let golden = golden::open(name, true);
    let (repository, store) = (&golden.repository, &golden.store);
    let view = load_view(repository, 2).unwrap();
    let get = |id: &BlobId| store.get(id, ByteRange::All).unwrap();
    seeds.add("format_blob", get(&"kopia.repository".into()).to_vec());
    indexes(seeds, &golden, &view);
    let blobs = list_all(&**store, "").unwrap();
    let names: Vec<&str> =
        blobs.iter().map(|blob| blob.id.as_str()).filter(|name| name.starts_with(['x', 'n'])).collect();
    let text: String = names.iter().flat_map(|name| [*name, "\n"]).take(80).collect();
    seeds.add("index_names", text.clone());
    let log = format!("{text}m1 {} > {}\nl1 m1\n", names[0], names[names.len() - 1]);
    seeds.add("legacy_log", log);

    if let Ok(sealed) = store.get(&schedule::BLOB.into(), ByteRange::All) {
        let key = repository.derive_key(schedule::KEY_PURPOSE);
        let mut schedule = schedule::Schedule::open(&key, &sealed).unwrap();
        schedule.runs.values_mut().for_each(|runs| runs.truncate(2));
        seeds.add("schedule", [&[0], &*serde_json::to_vec(&schedule).unwrap()].concat());
        seeds.add("schedule", [&[1], &*sealed].concat());
    }
    contents(seeds, &golden, &view);
    stored(seeds, &golden, &view, number);
    for file in golden::files(name).into_iter().filter(|(path, _, _)| path.ends_with("/.shards")) {
        seeds.add("shards", [b"pabcdef0123456789abcdef0123456789\n", &*file.1].concat());
    }
    let config = &repository.config();
    let text = format!(
        r#"{{"format":{{"hash":"{}","encryption":"{}","ecc":"{}","eccOverheadPercent":{},"secret":"c2VjcmV0","masterKey":"bWFzdGVyLWtleS1vZi10ZXN0",
        "version":{},"maxPackSize":{},"indexVersion":{},"enablePasswordChange":{},"splitter":"{}","epochParameters":{{"Enabled":{},
        "EpochRefreshFrequency":1200000000000,"FullCheckpointFrequency":7,"CleanupSafetyMargin":14400000000000,"DeleteParallelism":4,
        "MinEpochDuration":86400000000000,"EpochAdvanceOnCountThreshold":20,"EpochAdvanceOnTotalSizeBytesThreshold":10485760}},
        "upgradeLock":{{"ownerID":"me","creationTime":"2026-01-01T02:00:00+02:00","advanceNoticeDuration":1,"ioDrainTimeout":2,
        "maxPermittedClockDrift":3,"message":"x"}},"requiredFeatures":[{{"feature":"index-v2","ifNotUnderstood":{{"warn":true}}}}]}}}}"#,
        config.hash,
        config.encryption,
        config.ecc,
        config.ecc_overhead_percent,
        config.version,
        config.max_pack_size,
        config.index_version,
        config.enable_password_change,
        config.splitter,
        config.epoch.enabled,
    );
    seeds.add("format_config", text);
}

fn indexes(seeds: &mut Collected, golden: &Golden, view: &IndexView) {
    let repository = &golden.repository;
    let hash_length = repository.hasher().length();
    let selector = [16, 20, 28, 32].iter().position(|length| *length == hash_length).unwrap();
    let selector = u8::try_from(selector).unwrap();
    for blob in view.blobs.iter().take(2) {
        let stored = golden.store.get(&blob.id, ByteRange::All).unwrap();
        let plain = repository.cipher().open_blob(&blob.id, &stored).unwrap();
        seeds.add("index", [&[selector], &*plain].concat());
        seeds.add("pack_index", [&[0, 0, 0], &*plain].concat());
        let kind = if blob.id.as_str().starts_with(UNCOMPACTED) { 4 } else { 0 };
        let length = u16::try_from(plain.len()).unwrap_or(u16::MAX).to_be_bytes();
        let options = u8::from(!repository.config().epoch.enabled);
        seeds.add("store_blobs", [&[options, kind], &length[..], &plain, &[kind | 0x40], &length, &plain].concat());
    }
    let entries: Vec<Entry> = view.table.rows().map(|row| view.table.entry(row)).take(40).collect();
    let options = BuildOptions { version: repository.config().index_version, hash_length, random_tail: false };
    for plain in build(entries, &options).unwrap() {
        seeds.add("index", [&[selector], &*plain].concat());
        seeds.add("pack_index", [&[u8::from(options.version == 1), 0, 0], &*plain].concat());
    }
}

/// Manifests, directories and seek tables.
fn contents(seeds: &mut Collected, golden: &Golden, view: &IndexView) {
    let mut large = 0;
    for entry in view.table.rows().map(|row| view.table.entry(row)) {
        if !b"mkx".contains(&entry.id.prefix()) {
            continue;
        }
        let plain = read_content(&golden.repository, &entry).unwrap();
        match entry.id.prefix() {
            b'm' => manifests(seeds, &plain),
            b'k' => seeds.add("directory", [&[u8::try_from(plain.len() % 97).unwrap()], &*plain].concat()),
            _ if plain.starts_with(b"{\"stream\":\"kopia:indirect\"") && large < 2 => {
                large += 1;
                seeds.add("seek_table", plain);
            }
            _ => {}
        }
    }
}

fn manifests(seeds: &mut Collected, plain: &[u8]) {
    let entries = decode(plain).unwrap();
    seeds.add("manifests", [&[1], plain].concat());
    seeds.add("manifests", [b"\0{\"entries\":", &*serde_json::to_vec(&entries).unwrap(), b"}"].concat());
    for entry in entries {
        let Some(body) = entry.body() else { continue };
        match entry.labels["type"].as_str() {
            "snapshot" => {
                let policy = r#"p{"policyType":"global"}	{"retention":{"keepLatest":1,"keepDaily":7},"noParent":true}"#;
                seeds.add("snapshots", format!("s{body}\n{policy}\ns{}", body.replace("09:", "10:")));
            }
            "policy" => {
                seeds.add("snapshots", format!("p{}\t{body}", serde_json::to_string(&entry.labels).unwrap()));
            }
            "maintenance" => seeds.add("params", body),
            _ => {}
        }
    }
}

/// Contents as they are stored, decrypted or not.
fn stored(seeds: &mut Collected, golden: &Golden, view: &IndexView, number: u8) {
    let entries = view.table.rows().map(|row| view.table.entry(row));
    for entry in entries.filter(|entry| entry.packed_length < 3000).take(2) {
        let bytes = packed(golden, &entry);
        seeds.add("cipher", [&[number], &*bytes].concat());
        seeds.add("ecc", [&[10, number], &[0; 12][..], &bytes].concat());
        seeds.add("splitter", [&[number, 3, 200], &*bytes].concat());
    }
}

fn packed(golden: &Golden, entry: &Entry) -> Vec<u8> {
    let range = ByteRange::Span { offset: entry.offset.into(), length: entry.packed_length.into() };
    golden.store.get(&entry.pack, range).unwrap().to_vec()
}

fn of_codec(seeds: &mut Collected, name: &str, codec: u8) {
    let golden = golden::open(name, true);
    let view = load_view(&golden.repository, 2).unwrap();
    let entries = view.table.rows().map(|row| view.table.entry(row)).filter(|entry| entry.compression.0 != 0);
    for entry in entries.filter(|entry| entry.packed_length < 3000).take(2) {
        let (plain, _) = golden.repository.cipher().open(entry.id.hash().iv(), &packed(&golden, &entry)).unwrap();
        seeds.add("decompress", [&[codec], &entry.original_length.to_be_bytes()[..], &plain[4..]].concat());
    }
}

fn records(seeds: &mut Collected) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/golden/event/v1");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|x| x == "bin"));
    paths.sort();
    let mut ledger = vec![0; 5];
    for path in paths.iter().step_by(paths.len() / 9) {
        let record = std::fs::read(path).unwrap();
        seeds.add("envelope", [&[0], &record[HEADER_BYTES..]].concat());
        let event: Event = envelope::decode(Kind::Event, &record).unwrap();
        let entry = LedgerEntry { command: Command::ParkCycle { cycle: CycleId(7) }, events: vec![event] };
        let body = envelope::encode(Kind::Entry, &entry).unwrap().split_off(HEADER_BYTES);
        ledger.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        ledger.extend_from_slice(&body);
        seeds.add("ledger", ledger.clone());
        seeds.add("envelope", [&[3], &*body].concat());
    }
    let state = envelope::encode(Kind::State, &verger_coordinator::machine::State::default()).unwrap();
    seeds.add("envelope", [&[6], &state[HEADER_BYTES..]].concat());
    for (free, term) in [(true, 3u64), (false, 9)] {
        let unique = "ab".repeat(32);
        let text = format!(
            r#"{{"version":1,"uniqueId":"{unique}","storeId":"{}","address":"memory","holder":"you@there","lock":null,"term":{term},
            "free":{free},"actsUntil":"2026-11-21T12:01:00Z","ttlSeconds":600,"writer":"x"}}"#,
            "01".repeat(16)
        );
        seeds.add("lease", [&[4], text.as_bytes()].concat());
    }
}

fn messages(seeds: &mut Collected) {
    let repository = conformance::repository();
    let drive = Offer { pool: Pool::default(), wake: Wake::Drive { repository }, trace: None };
    for offer in [conformance::job(&Pool::default(), 300), drive] {
        let message = Message::of(&offer, "0a1b2c3d".parse().unwrap(), LogTime(1_700_000_000_000));
        let body = envelope::encode(Kind::WorkMessage, &message).unwrap().split_off(HEADER_BYTES);
        seeds.add("work_message", body);
    }
    let key = SigningKey::from_seed(3, [7; 32].into()).unwrap();
    seeds.add("work_message", key.to_file().as_bytes());
    seeds.add("work_message", "00-edc6efca19ffa74f669f6cc3e5f7db46-00f067aa0ba902b7-01");
}

fn by_hand(seeds: &mut Collected) {
    let header = r#"{"alg":"EdDSA","typ":"JWT","kid":"one"}"#;
    let claims =
        r#"{"iss":"https://id.example","aud":["verger"],"sub":"ann","exp":4000000000,"nbf":1,"tenant":"attic"}"#;
    // The public key of RFC 8037, and those of RFC 7517.
    let keys = [
        r#"{"kty":"OKP","crv":"Ed25519","kid":"one","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwaaPJHURo"}"#,
        r#"{"kty":"EC","crv":"P-256","kid":"one","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#,
        r#"{"kty":"RSA","kid":"one","alg":"RS256","key_ops":["verify"],"n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4","e":"AQAB"}"#,
    ];
    for key in keys {
        seeds.add("tokens", format!("{header}\n{claims}\n{{\"keys\":[{key}]}}"));
    }
    seeds.add("tokens", format!("{}\n{claims}\n{{\"keys\":[{}]}}", header.replace("EdDSA", "RS256"), keys[2]));
    seeds.add("tokens", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UifQ.");
    let mut random = Random(1);
    for length in [10, 90, 400, 1600] {
        let noise: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(256)).unwrap() & 0x3f).collect();
        seeds.add("index_merge", noise.clone());
        seeds.add("splitter", noise.clone());
        seeds.add("decompress", [&[6, 0, 0, 0, 7], &*noise].concat());
        seeds.add("ecc", [&[100, 2], &*noise].concat());
    }
    for text in [
        "82b39a12512935970065e53a3aa78c41",
        "k82b39a12512935970065e53a3aa78c41",
        "IIxf31d473c6a242b1033147e11f63256f4",
        "ZDaa",
        "ab",
        "0755",
        "040000755",
        "0x1ff",
        "me@here",
        "s3://bucket/pre/fix/",
        "filesystem:///srv/a",
        "azure://c/p",
        "b2://x",
        "worker-1",
    ] {
        seeds.add("ids", text);
    }
    let part = |object: &str| {
        format!(
            "{{\"stream\":\"kopia:indirect\",\"entries\":[{{\"l\":3,\"o\":\"{object}\"}},{{\"s\":3,\"l\":3,\"o\":\"02\"}}]}}"
        )
    };
    seeds.add("object", format!("Ix00\n{}\n{}\nabc", part("01"), "def"));
    // The inner table is as long as the outer one says, and is not.
    for length in [6, 7] {
        let outer = format!("{{\"stream\":\"kopia:indirect\",\"entries\":[{{\"l\":{length},\"o\":\"Ix01\"}}]}}");
        seeds.add("object", format!("Ix00\n{outer}\n{}\nabc", part("02")));
    }
    seeds.add("object", "IIx00\n{\"stream\":\"kopia:indirect\",\"entries\":[{\"l\":66,\"o\":\"Ix00\"}]}");
    seeds.add(
        "object",
        "k00\n{\"stream\":\"kopia:directory\",\"entries\":[{\"name\":\"a\",\"type\":\"f\",\"obj\":\"01\"}]}",
    );
    seeds.add("params", r#"{"owner":"a@b","quick":{"enabled":true,"interval":9223372036854775807},"unknown":[1]}"#);
    seeds.add("format_config", r#"{"retentionMode":"GOVERNANCE","retentionPeriod":86400000000000}"#);
    seeds.add(
        "shards",
        "pabc\n{\"default\":[1,3],\"maxNonShardedLength\":2,\"overrides\":[{\"prefix\":\"p\",\"shards\":[0,2]}]}",
    );
    seeds.add("legacy_log", "n1\nn2\nn3\nm1 n1 n2 > n3\nm2 n3 > n4\nl1 m1 m2\nl2 x\n");
    let key: &[u8] = b"\x11k0123456789abcdef";
    let text = |text: &[u8]| [&(text.len() as u32).to_le_bytes()[..], text].concat();
    let numbers = [[9u8, 0, 0, 0], [30, 0, 0, 0], [2, 0, 0, 0], [0, 0x11, 0, 0]].concat();
    let entry = [&b"\x02"[..], key, &[1, 3], &numbers, &[0xff; 8]].concat();
    let left = [&b"\x06"[..], key, &[1], &text(b"ends early")].concat();
    let session = [&b"\x08"[..], &text(b"s0147"), &text(b"sab-s0147")].concat();
    let pack = [&b"\x01"[..], &text(b"qff-s0147")].concat();
    seeds.add("part", [&[1], &session[..], &pack, &entry, &left, b"\x07", &[7; 16]].concat());
    let points = [&b"\x05"[..], key, &[0, 2, 0, 0, 0, 0x80], key, &[0x41 ^ 1], key].concat();
    seeds.add("part", [&[1], &points[..], b"\x03", key, b"\x04", key].concat());
    let head = format!(
        "{{\"version\":1,\"repository\":\"{}-{}\",\"cycle\":7,\"kind\":\"scan\",\"attempt\":1,\"name\":\"x/{}/7/scan--1-00000000\",\
         \"view\":\"{}\",\"from\":\"\",\"to\":null,\"salt\":\"00\"}}",
        "ab".repeat(32),
        "01".repeat(16),
        "0123456789abcdef",
        "00".repeat(32),
    );
    let length = u16::try_from(head.len()).unwrap().to_be_bytes();
    seeds.add("part", [&[0][..], b"VRGX", &length, head.as_bytes(), &[0, 0, 0, 17], &[3; 17]].concat());
    seeds.add("index_names", "xe4\nxn4_a\nxs2_s-s1-c2\nxs2_t-s1-c2\nxr0_1_a\nxr2_3_b\nxw50\nxn3_c-s2-c2\n");
    let id: ContentId = "k82b39a12512935970065e53a3aa78c41".parse().unwrap();
    let mut key = Vec::new();
    id.write_key(&mut key);
    seeds.add("ids", key);
}
