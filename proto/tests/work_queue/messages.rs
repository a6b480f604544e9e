//! What is believed of a message, and what is thrown away.

use std::path::Path;

use verger_proto::envelope::{self, Kind};
use verger_proto::work_queue::message::{MESSAGE_BYTES_MAX, Message, Rejection};
use verger_proto::work_queue::signing::KEYS_MAX;
use verger_proto::work_queue::{Keyring, Offer, PublicKey, SigningKey, Wake, conformance};
use verger_proto::{FleetId, LogTime, Pool, RepositoryId, StoreId, UniqueId};

use super::rig::{NODE, key, keys};

const HOUR: u64 = 3_600_000;
const SENT: LogTime = LogTime(1_700_000_000_000);

fn fleet() -> FleetId {
    FleetId::new("0a1b2c3d").unwrap()
}

fn message() -> Message {
    Message::of(&conformance::job(&Pool::default(), 9), fleet(), SENT)
}

#[test]
fn a_message_reads_back_and_is_short() {
    let bytes = message().seal(&key()).unwrap();
    assert_eq!(Message::open(&bytes, &keys()), Ok(message()));
    assert!(bytes.len() < 400, "{} bytes", bytes.len());
    // The longest IDs there are.
    let repository =
        RepositoryId { unique: UniqueId::new("f".repeat(128)).unwrap(), store: StoreId::new("0".repeat(32)).unwrap() };
    let pool = Pool::new("p".repeat(32)).unwrap();
    let offer = Offer { pool, wake: Wake::Drive { repository }, trace: None };
    assert!(Message::of(&offer, fleet(), LogTime(u64::MAX)).seal(&key()).unwrap().len() < 500);
}

/// Workers and coordinators of different versions speak with each other during an upgrade. `VERGER_WRITE_GOLDEN=1` writes what is missing.
#[test]
fn what_is_sent_today_is_byte_for_byte_the_golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/work_message/v1");
    let repository = conformance::repository();
    let drive = Offer { pool: Pool::default(), wake: Wake::Drive { repository }, trace: None };
    for (name, message) in [("job", message()), ("drive", Message::of(&drive, fleet(), SENT))] {
        let (bin, json) = (folder.join(format!("{name}.bin")), folder.join(format!("{name}.expected.json")));
        let bytes = message.seal(&key()).unwrap();
        if std::env::var_os("VERGER_WRITE_GOLDEN").is_some() && !bin.exists() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&bin, &bytes).unwrap();
            std::fs::write(&json, serde_json::to_string_pretty(&message).unwrap() + "\n").unwrap();
        }
        assert!(std::fs::read(&bin).unwrap() == bytes, "{name} is sent differently now: add a version, keep the old");
        let expected: Message = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        assert_eq!(Message::open(&bytes, &keys()), Ok(expected), "{name}");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_thrown_away() {
    let (bytes, keys) = (message().seal(&key()).unwrap(), keys());
    for at in 0..bytes.len() {
        assert!(Message::open(&bytes[..at], &keys).is_err(), "{at}");
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            assert!(Message::open(&bad, &keys).is_err(), "byte {at} bit {bit}");
        }
    }
    assert!(Message::open(&[bytes, vec![0]].concat(), &keys).is_err());
}

#[test]
fn only_a_coordinator_of_the_ring_is_believed() {
    let (keys, other) = (keys(), SigningKey::generate(NODE).unwrap());
    let forged = message().seal(&other).unwrap();
    assert_eq!(Message::open(&forged, &keys), Err(Rejection::Forged(NODE)));
    let stranger = SigningKey::generate(8).unwrap();
    let strange = message().seal(&stranger).unwrap();
    assert_eq!(Message::open(&strange, &keys), Err(Rejection::UnknownKey(8)));
    assert!(keys.add(8, stranger.public()));
    assert!(Message::open(&strange, &keys).is_ok());
    keys.remove(8);
    assert_eq!(Message::open(&strange, &keys), Err(Rejection::UnknownKey(8)));
    // A coordinator that got a new folder and with it a new key.
    keys.replace([(NODE, other.public())]);
    assert!(Message::open(&forged, &keys).is_ok());
    assert_eq!(Message::open(&message().seal(&key()).unwrap(), &keys), Err(Rejection::Forged(NODE)));
    let record = envelope::encode(Kind::WorkMessage, &message()).unwrap();
    assert_eq!(Message::open(&record, &keys), Err(Rejection::Unsigned));
    let long = vec![0; MESSAGE_BYTES_MAX + 1];
    assert_eq!(Message::open(&long, &keys), Err(Rejection::Oversized(long.len())));
}

/// What another kind of record signs for does not count here.
#[test]
fn a_signed_record_of_another_kind_is_thrown_away() {
    let mut bytes = envelope::encode(Kind::Event, &message()).unwrap();
    bytes.extend_from_slice(&NODE.to_le_bytes());
    bytes.extend_from_slice(&key().sign(&bytes));
    assert!(matches!(Message::open(&bytes, &keys()), Err(Rejection::Malformed(_))));
}

#[test]
fn other_fleets_pools_and_hours_are_not_ours() {
    let (pool, other) = (Pool::default(), Pool::new("other").unwrap());
    let message = message();
    assert_eq!(message.check(&fleet(), &pool, SENT), Ok(()));
    let astray = Err(Rejection::Astray { fleet: fleet(), pool: pool.clone() });
    assert_eq!(message.check(&FleetId::new("0a1b2c3e").unwrap(), &pool, SENT), astray);
    assert_eq!(message.check(&fleet(), &other, SENT), astray);
    for (now, is_ours) in
        [(SENT.0 + HOUR, true), (SENT.0 + HOUR + 1, false), (SENT.0 - HOUR, true), (SENT.0 - HOUR - 1, false)]
    {
        assert_eq!(message.check(&fleet(), &pool, LogTime(now)).is_ok(), is_ours, "{now}");
    }
}

#[test]
fn a_key_is_kept_in_a_file_and_a_damaged_one_signs_nothing() {
    let (key, file) = (key(), key().to_file());
    let again = SigningKey::from_file(NODE, file.as_bytes()).unwrap();
    assert_eq!((again.public(), again.sign(b"x")), (key.public(), key.sign(b"x")));
    assert_eq!(key.public().to_string().parse::<PublicKey>(), Ok(key.public()));
    let json = serde_json::to_string(&key.public()).unwrap();
    assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), key.public());
    for at in 0..file.trim_end().len() {
        let mut bad = file.as_bytes().to_vec();
        bad[at] ^= 1;
        let Err(error) = SigningKey::from_file(NODE, &bad) else { panic!("byte {at} was changed") };
        assert!(SigningKey::from_file(NODE, &bad[..at]).is_err());
        assert!(!error.to_string().contains("0707"), "nothing of the key is told");
    }
    assert!(!format!("{key:?}").contains("0707"));
    assert!(SigningKey::from_file(NODE, &[b' '; 4096]).is_err());
}

#[test]
fn a_ring_has_an_end() {
    let keys = Keyring::default();
    let end = u64::try_from(KEYS_MAX).unwrap();
    (0..end).for_each(|node| assert!(keys.add(node, key().public())));
    assert!(!keys.add(end, key().public()) && keys.add(0, key().public()));
}

#[test]
fn one_offer_has_one_id_and_another_has_another() {
    let (pool, other) = (Pool::default(), Pool::new("other").unwrap());
    let job = |pool, number| conformance::job(pool, number).message_id(SENT);
    assert_eq!(job(&pool, 1), conformance::job(&pool, 1).message_id(LogTime(0)));
    assert!(job(&pool, 1) != job(&pool, 2) && job(&pool, 1) != job(&other, 1));
    let drive = Offer { pool, wake: Wake::Drive { repository: conformance::repository() }, trace: None };
    assert_eq!(drive.message_id(SENT), drive.message_id(LogTime(SENT.0 + 1)));
    assert_ne!(drive.message_id(SENT), drive.message_id(LogTime(SENT.0 + 10_000)), "the next cycle's is another");
}
