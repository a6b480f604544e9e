use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::limit::MemoryLimit;
use crate::task::summary::{Holds, Role};
use verger_kopia::clock::SetClock;
use verger_kopia::content::{CompressionId, Entry};
use verger_kopia::storage::fault::{Call, Fault, FaultStorage};
use verger_kopia::storage::{FsStorage, MemoryStorage, list_all};

fn repository(digit: &str) -> RepositoryId {
    format!("{}-{}", digit.repeat(64), "01".repeat(16)).parse().unwrap()
}

struct Rig {
    folder: tempfile::TempDir,
    clock: Arc<SetClock>,
    store: Arc<MemoryStorage>,
    faults: Arc<FaultStorage>,
    exchange: Exchange,
}

impl Rig {
    fn new() -> Self {
        let clock = Arc::new(SetClock::new("2026-11-21T10:00:00Z".parse().unwrap()));
        let store = Arc::new(MemoryStorage::new(clock.clone()));
        let faults = Arc::new(FaultStorage::new(store.clone()));
        let exchange = Exchange::open(faults.clone()).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), clock, store, faults, exchange }
    }

    fn parts_of(&self, digit: &str, cycle: u64, key: u8) -> Parts {
        Parts {
            exchange: self.exchange.clone(),
            key: ExchangeKey::from_bytes([key; 32]),
            repository: repository(digit),
            cycle: CycleId(cycle),
        }
    }

    fn parts(&self) -> Parts {
        self.parts_of("a", 7, 1)
    }

    fn view(&self) -> Digest {
        Digest::of(b"view")
    }

    fn folder(&self) -> SpillFolder {
        SpillFolder::new(self.folder.path())
    }

    fn write(&self, parts: &Parts, kind: PartKind, attempt: u32, entries: u32) -> OutputRef {
        self.try_write(parts, kind, attempt, entries).unwrap()
    }

    fn try_write(&self, parts: &Parts, kind: PartKind, attempt: u32, entries: u32) -> Result<OutputRef> {
        let mut part = parts.write(kind, &shard(), attempt, self.view(), &self.folder())?;
        let mut pen = EntryPen::default();
        for number in 0..entries {
            pen.write(&entry(number), &mut part)?;
        }
        part.finish(&MemoryLimit::new(MemoryLimit::DEFAULT_BYTES))
    }

    /// The stored bytes of a part.
    fn stored(&self, part: &OutputRef) -> Vec<u8> {
        self.store.get(&PartName::blob(&part.name), ByteRange::All).unwrap().to_vec()
    }

    fn plant(&self, part: &OutputRef, bytes: Vec<u8>) {
        self.store.put(&PartName::blob(&part.name), bytes.into(), &PutOptions::default()).unwrap();
    }
}

fn shard() -> Shard {
    Shard { from: b"q1".to_vec(), to: Some(b"q9".to_vec()) }
}

fn entry(number: u32) -> Entry {
    Entry {
        id: format!("k{:032x}", u128::from(number) << 64).parse().unwrap(),
        timestamp: i64::from(number) - 5,
        deleted: number.is_multiple_of(3),
        pack: format!("q{:08}", number / 1000).as_str().into(),
        offset: number,
        packed_length: number + 1,
        original_length: number + 2,
        compression: CompressionId(number % 4),
        format_version: 3,
    }
}

fn read(parts: &Parts, part: &OutputRef, kind: PartKind) -> Result<Vec<Entry>> {
    let mut records = Records::new(parts.read(part, kind)?);
    let mut entries = Vec::new();
    while let Some(entry) = records.entry()? {
        entries.push(entry);
    }
    records.finish()?;
    Ok(entries)
}

fn wrong(result: Result<Vec<Entry>>) -> PartError {
    let error = result.expect_err("this part must not count");
    assert!(error.fix().is_some(), "{error:?}");
    PartError::of(&error).unwrap_or_else(|| panic!("{error:?}")).clone()
}

#[test]
fn what_was_written_is_read_back_however_much() {
    let rig = Rig::new();
    let parts = rig.parts();
    for count in [0, 1, 999, 40_000] {
        let part = rig.write(&parts, PartKind::ScanOrder, 1, count);
        assert!(read(&parts, &part, PartKind::ScanOrder).unwrap().into_iter().eq((0..count).map(entry)));
        assert_eq!(Digest::of(&rig.stored(&part)), part.digest, "the digest is that of the stored bytes");
        assert_eq!(parts.read(&part, PartKind::ScanOrder).unwrap().shard(), &shard());
    }
    // Names are written once, also by the same attempt.
    let names: std::collections::BTreeSet<String> =
        (0..50).map(|_| rig.write(&parts, PartKind::Scan, 1, 1).name).collect();
    assert_eq!(names.len(), 50);
}

#[test]
fn every_record_reads_back() {
    let rig = Rig::new();
    let parts = rig.parts();
    let object = |text: &str| text.parse().unwrap();
    let references = vec![
        (Role::File, object("82b39a12512935970065e53a3aa78c41")),
        (Role::Directory, object("k82b39a12512935970065e53a3aa78c41")),
        (Role::File, object("Z82b39a12512935970065e53a3aa78c41")),
        (Role::Directory, object(&format!("IIk{}", "ab".repeat(32)))),
    ];
    let found = [
        Found::Opaque,
        Found::Unreadable,
        Found::Points(Holds::Directory, references.clone()),
        Found::Points(Holds::PackedDirectory, Vec::new()),
        // More than a frame holds.
        Found::Points(Holds::Table, references.into_iter().cycle().take(50_000).collect()),
    ];
    let mut part = parts.write(PartKind::Scan, &shard(), 1, rig.view(), &rig.folder()).unwrap();
    let mut line = Vec::new();
    for (number, found) in (0..).zip(&found) {
        write_found(&entry(number).id, found, &mut line).unwrap();
        part.record(&line).unwrap();
    }
    let part = part.finish(&MemoryLimit::new(1 << 30)).unwrap();
    let mut records = Records::new(parts.read(&part, PartKind::Scan).unwrap());
    for (number, found) in (0..).zip(&found) {
        assert_eq!(records.found().unwrap().as_ref(), Some(&(entry(number).id, found.clone())));
    }
    assert_eq!(records.found().unwrap(), None);
    records.finish().unwrap();

    let session = |marker: Option<&str>| {
        Moved::Session(NotedSession { session: "s0147".to_owned(), marker: marker.map(BlobId::from) })
    };
    let moved = [
        session(None),
        session(Some("sab-s0147")),
        Moved::Pack("qff-s0147".into()),
        Moved::Entry(Entry { pack: "qff-s0147".into(), ..entry(3) }),
        Moved::Left { content: entry(1).id, is_damage: true, text: "ends early".to_owned() },
        Moved::Figures { bytes: 7, pack_bytes: u64::MAX },
    ];
    let mut part = parts.write(PartKind::Rewrite, &shard(), 1, rig.view(), &rig.folder()).unwrap();
    let mut pen = EntryPen::default();
    moved.iter().for_each(|moved| write_moved(moved, &mut pen, &mut part).unwrap());
    let part = part.finish(&MemoryLimit::new(1 << 30)).unwrap();
    let mut records = Records::new(parts.read(&part, PartKind::Rewrite).unwrap());
    for moved in &moved {
        assert_eq!(records.moved().unwrap().as_ref(), Some(moved));
    }
    assert_eq!(records.moved().unwrap(), None);
    records.finish().unwrap();
}

#[test]
fn r12_a_part_that_is_not_there_is_no_empty_one() {
    let rig = Rig::new();
    let parts = rig.parts();
    let part = rig.write(&parts, PartKind::Scan, 1, 10);
    assert!(rig.store.delete(&[PartName::blob(&part.name)], None).failed.is_empty());
    assert_eq!(wrong(read(&parts, &part, PartKind::Scan)), PartError::Missing);
    let error = read(&parts, &part, PartKind::Scan).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "another worker may see it: worth another attempt");
}

#[test]
fn r12_an_empty_part_counts_for_nothing_but_an_empty_report() {
    let rig = Rig::new();
    let parts = rig.parts();
    let part = rig.write(&parts, PartKind::Scan, 1, 10);
    let empty = rig.write(&parts, PartKind::Scan, 1, 0);
    let claimed = OutputRef { count: part.count, ..empty.clone() };
    let count = PartError::Count { expected: part.count, found: 0 };
    assert_eq!(wrong(read(&parts, &claimed, PartKind::Scan)), count);
    assert_eq!(read(&parts, &empty, PartKind::Scan).unwrap(), []);
    for more in [part.count - 1, part.count + 1] {
        let claimed = OutputRef { count: more, ..part.clone() };
        assert_eq!(
            wrong(read(&parts, &claimed, PartKind::Scan)),
            PartError::Count { expected: more, found: part.count }
        );
    }
    // All that a store may have of an object whose writer lost its power.
    rig.plant(&part, Vec::new());
    assert_eq!(wrong(read(&parts, &part, PartKind::Scan)), PartError::Truncated);
}

#[test]
fn r12_what_does_not_open_is_not_absent() {
    let rig = Rig::new();
    let parts = rig.parts();
    let part = rig.write(&parts, PartKind::Scan, 1, 10);
    // The right name and head, another key.
    let other = rig.parts_of("a", 7, 2);
    assert_eq!(wrong(read(&other, &part, PartKind::Scan)), PartError::Sealed(0));
    // Every single bit, and every length.
    let stored = rig.stored(&part);
    for place in 0..stored.len() {
        let mut flipped = stored.clone();
        flipped[place] ^= 1 << (place % 8);
        rig.plant(&part, flipped);
        wrong(read(&parts, &part, PartKind::Scan));
        rig.plant(&part, stored[..place].to_vec());
        let error = wrong(read(&parts, &part, PartKind::Scan));
        assert!(matches!(error, PartError::Truncated), "{place}: {error}");
    }
    rig.plant(&part, [&stored[..], b"more"].concat());
    assert!(matches!(wrong(read(&parts, &part, PartKind::Scan)), PartError::Overlong));
}

#[test]
fn r12_frames_can_not_be_left_out_doubled_or_swapped() {
    let rig = Rig::new();
    let parts = rig.parts();
    let part = rig.write(&parts, PartKind::Scan, 1, 40_000);
    let stored = rig.stored(&part);
    let head = 6 + usize::from(u16::from_be_bytes([stored[4], stored[5]]));
    let mut frames: Vec<&[u8]> = Vec::new();
    let mut rest = &stored[head..];
    while let Some(length) = rest.first_chunk::<4>() {
        let (frame, later) = rest.split_at(4 + u32::from_be_bytes(*length) as usize);
        frames.push(frame);
        rest = later;
    }
    assert!(frames.len() > 3, "{}", frames.len());
    let last = frames.len() - 1;
    let orders: [Vec<usize>; 5] = [
        (1..=last).collect(),
        (0..last).collect(),
        [0].into_iter().chain(0..=last).collect(),
        [1, 0].into_iter().chain(2..=last).collect(),
        vec![last],
    ];
    for order in orders {
        let chosen: Vec<&[u8]> = order.iter().map(|number| frames[*number]).collect();
        rig.plant(&part, [&stored[..head], &chosen.concat()].concat());
        let error = wrong(read(&parts, &part, PartKind::Scan));
        assert!(matches!(error, PartError::Sealed(_) | PartError::Truncated), "{order:?}: {error}");
    }
}

#[test]
fn r12_a_part_of_another_repository_cycle_stage_attempt_or_view_is_named_as_that() {
    let rig = Rig::new();
    let parts = rig.parts();
    let part = rig.write(&parts, PartKind::Scan, 2, 10);
    let cases = [
        (rig.write(&rig.parts_of("b", 7, 1), PartKind::Scan, 2, 10), PartError::OtherRepository),
        (rig.write(&rig.parts_of("a", 8, 1), PartKind::Scan, 2, 10), PartError::OtherCycle(8)),
        (rig.write(&parts, PartKind::Rewrite, 2, 10), PartError::OtherKind("rewrite".to_owned())),
        (rig.write(&parts, PartKind::Scan, 1, 10), PartError::OtherAttempt(1)),
    ];
    for (other, error) in cases {
        rig.plant(&part, rig.stored(&other));
        assert_eq!(wrong(read(&parts, &part, PartKind::Scan)), error);
    }
    let twin = rig.write(&parts, PartKind::Scan, 2, 10);
    rig.plant(&part, rig.stored(&twin));
    assert_eq!(wrong(read(&parts, &part, PartKind::Scan)), PartError::OtherName(twin.name.clone()));
    // The head alone says whose it is; changing it changes the key.
    let text = String::from_utf8_lossy(&rig.stored(&twin)).into_owned();
    assert!(text.contains(&twin.name), "the head stands in clear");
    let mut stored = rig.stored(&twin);
    let at = stored.windows(twin.name.len()).position(|bytes| bytes == twin.name.as_bytes()).unwrap();
    stored[at..at + part.name.len()].copy_from_slice(part.name.as_bytes());
    rig.plant(&part, stored);
    assert_eq!(wrong(read(&parts, &part, PartKind::Scan)), PartError::Sealed(0));

    let view = OutputRef { view: Digest::of(b"another view"), ..twin.clone() };
    assert_eq!(wrong(read(&parts, &view, PartKind::Scan)), PartError::OtherView);
    let digest = OutputRef { digest: Digest::of(b"other bytes"), ..twin };
    assert_eq!(wrong(read(&parts, &digest, PartKind::Scan)), PartError::Digest);
}

#[test]
fn a_later_version_is_named() {
    let rig = Rig::new();
    let parts = rig.parts();
    let part = rig.write(&parts, PartKind::Scan, 1, 1);
    let head = br#"{"version":2,"anything":[]}"#;
    rig.plant(&part, [&b"VRGX"[..], &[0, head.len() as u8], head].concat());
    assert_eq!(wrong(read(&parts, &part, PartKind::Scan)), PartError::Version(2));
    assert_eq!(read(&parts, &part, PartKind::Scan).unwrap_err().kind(), ErrorKind::Unsupported);
    rig.plant(&part, b"VRGX\0\x02{}".to_vec());
    assert_eq!(wrong(read(&parts, &part, PartKind::Scan)), PartError::Head);
}

#[test]
fn what_cannot_be_stored_is_not_there_and_says_why() {
    let rig = Rig::new();
    let parts = rig.parts();
    for (fault, kind) in [
        (Fault::DiskFull, ErrorKind::DiskFull),
        (Fault::Unavailable, ErrorKind::StoreUnavailable),
        (Fault::Permission, ErrorKind::Permission),
    ] {
        rig.faults.script(Call::Put, "x.", 0, 1, fault);
        let error = rig.try_write(&parts, PartKind::Scan, 1, 10).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(error.fix().is_some_and(|fix| fix.contains("--exchange")), kind == ErrorKind::DiskFull);
        assert_eq!(list_all(&*rig.store, "x.").unwrap(), [], "nothing half counts");
    }
    // No answer, though it happened: nobody knows that name.
    rig.faults.script(Call::Put, "x.", 0, 1, Fault::TimeoutAfter);
    assert_eq!(rig.try_write(&parts, PartKind::Scan, 1, 10).unwrap_err().kind(), ErrorKind::StoreUnavailable);
    let part = rig.write(&parts, PartKind::Scan, 2, 10);
    assert_eq!(read(&parts, &part, PartKind::Scan).unwrap().len(), 10);
    // And no room for what waits to be stored.
    let full = rig.folder().with_limit(1 << 20);
    let mut part = parts.write(PartKind::Scan, &shard(), 3, rig.view(), &full).unwrap();
    let noise: Vec<u8> =
        (0..6u32 << 18).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec()).collect();
    let error = noise.chunks(1000).find_map(|record| part.record(record).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::DiskFull);
}

#[test]
fn an_exchange_is_marked_once_and_another_one_is_noticed() {
    let rig = Rig::new();
    let again = Exchange::open(rig.store.clone()).unwrap();
    assert_eq!(again.id(), rig.exchange.id());
    assert_eq!(again.id().to_string().parse::<ExchangeId>().unwrap(), again.id());
    rig.exchange.check().unwrap();
    let other = Exchange::open(Arc::new(MemoryStorage::default())).unwrap();
    assert_ne!(other.id(), rig.exchange.id());
    // Something else was mounted over it.
    let marker = other.storage.get(&BlobId::from(MARKER), ByteRange::All).unwrap();
    rig.store.put(&BlobId::from(MARKER), marker, &PutOptions::default()).unwrap();
    assert_eq!(rig.exchange.check().unwrap_err().kind(), ErrorKind::StoreUnavailable);
    assert!(rig.store.delete(&[BlobId::from(MARKER)], None).failed.is_empty());
    assert_eq!(rig.exchange.check().unwrap_err().kind(), ErrorKind::StoreUnavailable);

    let odd = Arc::new(MemoryStorage::default());
    odd.put(&BlobId::from(MARKER), "{}".into(), &PutOptions::default()).unwrap();
    assert_eq!(Exchange::open(odd).unwrap_err().kind(), ErrorKind::Damaged);
    let kopia = Arc::new(MemoryStorage::default());
    kopia.put(&BlobId::from(FORMAT_BLOB), "{}".into(), &PutOptions::default()).unwrap();
    assert_eq!(Exchange::open(kopia).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn a_folder_is_an_exchange_too_and_two_that_open_it_at_once_agree() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let storage = FsStorage::open(folder.path(), verger_kopia::storage::Access::ReadWrite).unwrap();
        Exchange::open(Arc::new(storage)).unwrap().id()
    };
    let ids: Vec<ExchangeId> = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        openers.into_iter().map(|opener| opener.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn parts_go_with_their_cycle_and_by_age_never_those_of_a_later_cycle() {
    let rig = Rig::new();
    let (one, other) = (rig.parts(), rig.parts_of("a", 70, 1));
    for parts in [&one, &other, &rig.parts_of("b", 7, 1)] {
        rig.write(parts, PartKind::ScanOrder, 1, 1);
        rig.write(parts, PartKind::Scan, 1, 1);
    }
    rig.store.put(&BlobId::from("x.something.else"), "y".into(), &PutOptions::default()).unwrap();
    assert_eq!(rig.exchange.clean_cycle(&repository("a"), CycleId(7)).unwrap().parts, 2);
    assert_eq!(rig.exchange.clean_cycle(&repository("a"), CycleId(7)).unwrap(), Cleaned::default());
    let clean = |repository, cycle| rig.exchange.clean_before(&repository, CycleId(cycle)).unwrap();
    rig.clock.advance(AGE_MIN);
    assert_eq!(clean(repository("a"), 71), Cleaned::default(), "a day is not more than a day");
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(
        clean(repository("a"), 70),
        Cleaned::default(),
        "its own, and so what is open, however late this is called"
    );
    assert_eq!(clean(repository("a"), 8), Cleaned::default(), "a later one's");
    assert_eq!(clean(repository("a"), 71).parts, 2);
    assert_eq!(clean(repository("a"), 71), Cleaned::default());
    assert_eq!(clean(repository("b"), 8).parts, 2, "the other repository's were left");
    assert_eq!(list_all(&*rig.store, "x").unwrap().len(), 1, "what is no part is not ours to delete");
    rig.exchange.check().unwrap();
}

#[test]
fn s9_the_key_is_nobodys_to_see() {
    let rig = Rig::new();
    let part = rig.write(&rig.parts(), PartKind::Scan, 1, 1000);
    let stored = rig.stored(&part);
    let pack = entry(0).pack;
    assert!(!stored.windows(pack.as_str().len()).any(|bytes| bytes == pack.as_str().as_bytes()), "records are sealed");
    assert!(!format!("{:?}", rig.exchange).contains("[1, 1"));
}
