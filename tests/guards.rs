//! Whole cycles against rules and invariants that each have one guard: with the guard taken out (`tests/mutants.txt`) they fail.

#![allow(clippy::unwrap_used)]

#[path = "support/client.rs"]
mod client;
#[path = "support/format.rs"]
mod format;
#[path = "support/store.rs"]
mod store;
#[path = "guards/stores.rs"]
mod stores;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use verger::embedded::{CycleRequest, Means, cycle};
use verger_kopia::ErrorKind;
use verger_kopia::clock::{Clock, Timestamp};
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::index_set::compact::merge_legacy;
use verger_kopia::index_set::{list_active, load_view, watermark};
use verger_kopia::maintenance::history::Task;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::maintenance::schedule;
use verger_kopia::manifest::entry::new_id;
use verger_kopia::manifest::{ManifestEntry, ManifestSet};
use verger_kopia::session::{SessionId, active_sessions};
use verger_kopia::storage::fault::{Call, Effect};
use verger_kopia::storage::{BlobId, ByteRange, PutOptions, list_all};
use verger_worker::bucket_lease::{self, LEASE, LeaseBody};
use verger_worker::manifests::write_manifests;
use verger_worker::workspace::Workspace;

use crate::client::{Client, Plain, Trust, plaintexts};
use crate::store::{HOUR, World, alone, careful};
use crate::support::Golden;

const DAY: Duration = Duration::from_secs(24 * 3600 + 60);

fn full() -> CycleRequest {
    careful(Some(Mode::Full))
}

/// Every entry that readers see, by content.
fn entries(world: &World) -> BTreeMap<ContentId, Entry> {
    let view = world.view();
    view.table.rows().map(|row| view.table.entry(row)).map(|entry| (entry.id, entry)).collect()
}

fn marked(world: &World) -> BTreeSet<ContentId> {
    entries(world).into_values().filter(|entry| entry.deleted).map(|entry| entry.id).collect()
}

/// Contents that no snapshot needs, by what a full cycle marks; the world is as before.
fn dying(world: &mut World) -> Vec<Plain> {
    let (saved, view) = (world.save(), world.view());
    world.cycle(&full());
    let marked = marked(world);
    assert!(marked.len() >= 5);
    let dying = plaintexts(&world.outside, &view, |entry| marked.contains(&entry.id));
    world.restore(&saved);
    dying
}

fn ids(world: &World, contents: &[Plain]) -> Vec<ContentId> {
    let hash = |plain: &[u8]| world.outside.hasher().hash(plain);
    contents.iter().map(|(prefix, plain)| ContentId::new(*prefix, hash(plain)).unwrap()).collect()
}

fn assert_live(world: &World, contents: &[Plain]) {
    let entries = entries(world);
    for id in ids(world, contents) {
        let entry = entries.get(&id).unwrap_or_else(|| panic!("{}: {id} is lost", world.name));
        assert!(!entry.deleted, "{}: {id} is marked", world.name);
    }
}

#[test]
fn r2_a_slow_renewal_of_the_lease_shortens_the_approval() {
    let world = World::golden("default", DAY);
    let clock = world.clock.clone();
    // The lease is announced anew before the first batch: it covers less than a minute.
    world.meanwhile.at("solve", move || clock.advance(Duration::from_secs(70)));
    let (clock, slept) = (world.clock.clone(), Mutex::new(BTreeSet::new()));
    world.faults.hook(Box::new(move |effect: &Effect| {
        let name = effect.id.as_str();
        let is_lease = name == LEASE && clock.since_boot().as_secs() >= 1_000_070;
        let (what, wait) = if is_lease { ("lease", 100) } else { ("entries", 30) };
        let is_entry = name.starts_with("xn");
        if !effect.done && (is_lease || is_entry) && slept.lock().unwrap().insert(what) {
            clock.advance(Duration::from_secs(wait));
        }
        Ok(())
    }));
    let before = world.names("xn");
    // The marks would be there 130 s after the look that allowed them, and 10 s after the end of what the lease announced.
    assert_eq!(world.try_cycle(&full()).unwrap_err().kind(), ErrorKind::DeadlinePassed);
    assert_eq!(world.names("xn"), before);
}

#[test]
fn r6_a_copied_lease_gives_no_store_id() {
    let world = World::golden("default", DAY);
    let storage = world.outside.storage();
    let (term, store_id) = (7, "cd".repeat(16));
    let copied = LeaseBody {
        version: 1,
        unique_id: verger_kopia::hex(world.outside.unique_id()),
        store_id: store_id.clone(),
        address: "memory://elsewhere".to_owned(),
        holder: "other@fleet".to_owned(),
        lock: None,
        term,
        free: true,
        acts_until: world.now(),
        ttl_seconds: 600,
        writer: String::new(),
        next: None,
    };
    let data = serde_json::to_vec(&copied).unwrap().into();
    storage.put(&BlobId::from(LEASE), data, &PutOptions::default()).unwrap();
    world.cycle(&full());
    let lease = bucket_lease::read(&**storage).unwrap().unwrap().1;
    assert_eq!((lease.address, lease.term), (storage.address(), term + 1));
    assert_ne!(lease.store_id, store_id, "it was another store's");
}

#[test]
fn r9_what_could_not_be_read_once_is_read_again_by_the_next_cycle() {
    let world = World::golden("default", DAY);
    let storage = world.outside.storage();
    let manifests = ManifestSet::load(&world.outside, &world.view()).unwrap();
    let body: serde_json::Value =
        serde_json::from_str(manifests.of_type("snapshot").next().unwrap().data.get()).unwrap();
    let root: ContentId = body["rootEntry"]["obj"].as_str().unwrap().parse().unwrap();
    let entry = entries(&world).remove(&root).unwrap();
    let whole = storage.get(&entry.pack, ByteRange::All).unwrap();
    let mut damaged = whole.to_vec();
    // Its directories lie behind the first bytes.
    damaged[entry.offset as usize..][..entry.packed_length as usize].reverse();
    storage.put(&entry.pack, damaged.into(), &PutOptions::default()).unwrap();
    let before = marked(&world);
    assert!(world.try_cycle(&full()).unwrap().is_degraded());
    assert_eq!(marked(&world), before);
    storage.put(&entry.pack, whole, &PutOptions::default()).unwrap();
    // A pack that was written again is young again (R10).
    world.clock.advance(DAY * 2);
    let report = world.cycle(&full());
    assert!(!report.is_degraded(), "no summary of it was kept");
    assert!(report.tasks["snapshot-gc"]["deletedContentCount"].as_u64().unwrap() > 0, "{:?}", report.tasks);
}

#[test]
fn r10_i2_a_snapshot_right_before_the_first_write_is_in_the_one_view() {
    for name in ["default", "format1"] {
        let mut world = World::golden(name, DAY);
        let dying = dying(&mut world);
        let client = Client::new(&world.outside, Trust::Live);
        let todo = Mutex::new(Some((client, dying.clone())));
        world.faults.hook(Box::new(move |effect: &Effect| {
            if !effect.done && effect.id.as_str() == "kopia.maintenance" {
                // The maintainer has looked at owner and index already.
                drop(todo.lock().unwrap().take().map(|(client, dying)| client.snapshot(&dying)));
            }
            Ok(())
        }));
        world.cycle(&full());
        world.faults.heal();
        assert_live(&world, &dying);
    }
}

/// A snapshot of contents that nothing else needs, and the manifest content that names it.
fn snapshot_of(world: &World, contents: &[Plain]) -> Entry {
    let before = entries(world);
    Client::new(&world.outside, Trust::Live).snapshot(contents);
    let new = entries(world).into_values().find(|entry| entry.id.prefix() == b'm' && !before.contains_key(&entry.id));
    new.unwrap()
}

/// A cycle over something unreadable: degraded, and nothing is marked or forgotten.
fn assert_frozen(world: &World) {
    let (before, watermarks) = (marked(world), world.names("xw"));
    let report = world.try_cycle(&full()).unwrap();
    assert!(report.is_degraded() && !report.damage.is_empty(), "{report:?}");
    assert_eq!((marked(world), world.names("xw")), (before, watermarks));
    assert!(!report.tasks.contains_key("snapshot-gc"));
}

#[test]
fn r11_i4_manifests_that_cannot_be_read_freeze_marks_and_watermark() {
    let mut world = World::golden("default", DAY);
    let dying = dying(&mut world);
    let entry = snapshot_of(&world, &dying);
    world.clock.advance(DAY * 2);
    let storage = world.outside.storage();
    let mut data = storage.get(&entry.pack, ByteRange::All).unwrap().to_vec();
    data[entry.offset as usize + 3] ^= 1;
    storage.put(&entry.pack, data.into(), &PutOptions::default()).unwrap();
    assert_frozen(&world);
}

#[test]
fn r11_i4_a_snapshot_that_cannot_be_understood_freezes_marks() {
    let world = World::golden("default", DAY);
    let labels = [("type", "snapshot"), ("hostname", "elsewhere"), ("username", "client"), ("path", "/data")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let body = serde_json::value::RawValue::from_string(r#"{"rootEntry":{"name":"data","type":"d"}}"#.to_owned());
    let entry = ManifestEntry::put(new_id(), labels, world.now(), body.unwrap());
    write_manifests(&Workspace::new(world.outside.clone()), &[entry], None).unwrap();
    assert_frozen(&world);
}

#[test]
fn r11_r14_a_newer_snapshot_that_cannot_be_read_ends_the_cycle() {
    let mut world = World::golden("default", DAY);
    let dying = dying(&mut world);
    let (before, marks) = (entries(&world), marked(&world));
    let (outside, late) = (world.outside.clone(), dying.clone());
    world.meanwhile.at("mark", move || {
        Client::new(&outside, Trust::Live).snapshot(&late);
        let view = load_view(&outside, 1).unwrap();
        let new = view.table.rows().map(|row| view.table.entry(row)).filter(|entry| !before.contains_key(&entry.id));
        let root = new.into_iter().find(|entry| entry.id.prefix() == b'k').unwrap();
        let mut data = outside.storage().get(&root.pack, ByteRange::All).unwrap().to_vec();
        data[root.offset as usize + 7] ^= 1;
        outside.storage().put(&root.pack, data.into(), &PutOptions::default()).unwrap();
    });
    assert_eq!(world.try_cycle(&full()).unwrap_err().kind(), ErrorKind::Damaged);
    assert!(world.meanwhile.is_over());
    assert_eq!(marked(&world), marks, "nobody knows what it needs");
}

#[test]
fn r13_i3_what_is_revived_lies_in_a_new_pack() {
    for name in ["default", "format1"] {
        let mut world = World::golden(name, DAY);
        let dying = dying(&mut world);
        let before = entries(&world);
        world.cycle(&full());
        world.clock.advance(HOUR);
        // A client that saw them live and wrote its manifest late.
        Client::new(&world.outside, Trust::Marked).snapshot(&dying);
        assert!(ids(&world, &dying).iter().all(|id| marked(&world).contains(id)), "{name}");
        world.cycle(&full());
        assert_live(&world, &dying);
        let after = entries(&world);
        for id in ids(&world, &dying) {
            assert_ne!(after[&id].pack, before[&id].pack, "{name}: {id}: a deletion of its old pack may be under way");
            assert!(after[&id].timestamp > before[&id].timestamp);
        }
    }
}

/// One stored byte of a content is another.
fn rot(world: &World, id: &ContentId) {
    let storage = world.outside.storage();
    let entry = entries(world)[id].clone();
    let mut data = storage.get(&entry.pack, ByteRange::All).unwrap().to_vec();
    data[entry.offset as usize + 7] ^= 1;
    storage.put(&entry.pack, data.into(), &PutOptions::default()).unwrap();
}

#[test]
fn r13_r11_what_cannot_be_revived_holds_up_what_forgets_and_nothing_else() {
    for name in ["default", "format1"] {
        let mut world = World::golden(name, DAY);
        let dying = dying(&mut world);
        let wanted = ids(&world, &dying);
        world.cycle(&full());
        world.clock.advance(HOUR);
        Client::new(&world.outside, Trust::Marked).snapshot(&dying);
        let bytes = *wanted.iter().find(|id| id.prefix() == 0).unwrap();
        rot(&world, &bytes);
        let before = (entries(&world), world.history());
        // Nothing else is wrong, and bytes of files are read only to be copied: the plan marks, drops, and records a snapshot GC.
        let error = world.try_cycle(&full()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{name}: {}", error.chain());
        assert!(error.chain().contains(&bytes.to_string()), "{name}: {}", error.chain());
        assert!(error.fix().unwrap().contains("verger snapshot abandon"), "{name}: {error:?}");
        assert_eq!(entries(&world), before.0, "{name}");
        assert_eq!(world.history().history(Task::SnapshotGc), before.1.history(Task::SnapshotGc), "{name}");
        // Somebody's directory is damaged too: the plan forgets nothing, and what can be revived is.
        let needed = |entry: &&Entry| entry.id.prefix() == b'k' && !entry.deleted && !wanted.contains(&entry.id);
        let directory = before.0.values().find(needed).unwrap().id;
        rot(&world, &directory);
        let report = world.try_cycle(&full()).unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
        let named: BTreeSet<&str> = report.damage.iter().map(|one| one.subject.as_str()).collect();
        assert!(named.contains(bytes.to_string().as_str()), "{name}: {:#?}", report.damage);
        assert!(report.damage.iter().all(|one| !one.snapshots.is_empty()), "{name}: {:#?}", report.damage);
        let alive: Vec<Plain> =
            dying.iter().zip(&wanted).filter(|(_, id)| **id != bytes).map(|(one, _)| one.clone()).collect();
        assert_live(&world, &alive);
        let after = entries(&world);
        assert_eq!(after[&bytes], before.0[&bytes], "{name}: where it was, and under the same mark");
        assert!(world.names("").contains_key(after[&bytes].pack.as_str()), "{name}");
        assert_eq!(world.history().history(Task::SnapshotGc), before.1.history(Task::SnapshotGc), "{name}");
    }
}

#[test]
fn r14_a_snapshot_between_the_look_and_a_legacy_compaction_is_seen() {
    let mut world = World::golden("format1", DAY);
    let dying = dying(&mut world);
    for _ in 0..2 {
        world.cycle(&full());
        world.clock.advance(DAY);
    }
    let first = vec![dying.iter().find(|(prefix, _)| *prefix == 0).unwrap().clone()];
    let clients = [0, 1].map(|_| Client::new(&world.outside, Trust::Marked));
    let ([one, other], late) = (clients, dying.clone());
    let step = Mutex::new(0);
    world.faults.hook(Box::new(move |effect: &Effect| {
        let mut step = step.lock().unwrap();
        let (call, name) = (effect.call, effect.id.as_str());
        match *step {
            // The start, then the record of snapshot GC; the drop comes next.
            0 | 1 if effect.done && name == "kopia.maintenance" => {
                *step += 1;
                if *step == 2 {
                    one.snapshot(&first);
                }
            }
            // The look of the drop saw that one, and revives what it needs.
            2 if !effect.done && call == Call::Put && name.starts_with('s') => {
                *step = 3;
                other.snapshot(&late);
            }
            _ => {}
        }
        Ok(())
    }));
    world.cycle(&full());
    world.faults.heal();
    assert_live(&world, &dying);
    world.clock.advance(DAY);
    world.cycle(&full());
}

#[test]
fn r22_kopia_is_not_due_while_a_cycle_runs() {
    let world = World::golden("format1", DAY * 40);
    let began = world.now();
    assert!(world.history().next_full.is_none_or(|next| next < began), "its full cycle is overdue");
    let (outside, seen) = (world.outside.clone(), Arc::new(Mutex::new(None)));
    let told = seen.clone();
    world.faults.hook(Box::new(move |effect: &Effect| {
        if effect.done && effect.id.as_str() == "kopia.maintenance" {
            told.lock().unwrap().get_or_insert(schedule::load(&outside)?.schedule);
        }
        Ok(())
    }));
    world.cycle(&careful(Some(Mode::Quick)));
    world.faults.heal();
    let first = seen.lock().unwrap().take().unwrap();
    let is_ahead = |next: Option<Timestamp>| next.is_some_and(|next| next >= began + HOUR);
    assert!(is_ahead(first.next_full) && is_ahead(first.next_quick), "{first:?}");
}

#[test]
fn r22_only_the_owner_maintains() {
    let world = World::golden("default", DAY);
    let before = world.names("");
    let means = Means { identity: "somebody@else".to_owned(), ..world.means() };
    assert_eq!(cycle(means, &full()).unwrap_err().kind(), ErrorKind::NotOwner);
    assert_eq!(world.names(""), before, "not even a lease");
}

#[test]
fn r22_index_work_of_another_maintainer_ends_the_cycle() {
    for name in ["default", "format1"] {
        let world = World::golden(name, DAY);
        let (outside, long_ago) = (world.outside.clone(), world.now() - DAY * 30);
        world.meanwhile.at("solve", move || {
            if outside.config().epoch.enabled {
                assert!(watermark::advance(&outside, long_ago.as_second(), None).unwrap());
            } else {
                let active = list_active(&outside).unwrap().blobs;
                merge_legacy(&outside, &active, None, 1, None).unwrap().publish(&outside, None).unwrap();
            }
        });
        let before = marked(&world);
        assert_eq!(world.try_cycle(&full()).unwrap_err().kind(), ErrorKind::ForeignMaintenance, "{name}");
        assert!(world.meanwhile.is_over());
        assert_eq!(marked(&world), before, "{name}");
    }
}

#[test]
fn i1_an_upgrade_that_begins_in_the_middle_ends_the_cycle() {
    let golden = Golden::unpack("default");
    let locked = serde_json::json!({"ownerID": "somebody", "creationTime": "2026-01-01T00:00:00Z",
        "advanceNoticeDuration": 0, "ioDrainTimeout": 900_000_000_000_u64, "message": ""});
    format::change(&golden, |format| format["upgradeLock"] = locked);
    let format_blob = std::fs::read(golden.repository().join("kopia.repository.f")).unwrap();
    let world = World::golden("default", DAY);
    let outside = world.outside.clone();
    // Marks are written by then, and what was copied out of short packs is not.
    world.meanwhile.at("rewrite", move || {
        let id = BlobId::from("kopia.repository");
        outside.storage().put(&id, format_blob.into(), &PutOptions::default()).unwrap();
    });
    let places = |world: &World| -> Vec<_> { entries(world).into_values().map(|e| (e.pack, e.offset)).collect() };
    let before = places(&world);
    assert_eq!(world.try_cycle(&full()).unwrap_err().kind(), ErrorKind::UpgradeInProgress);
    assert!(world.meanwhile.is_over());
    assert_eq!(places(&world), before, "nothing was moved under the lock");
}

#[test]
fn r27_s1_each_batch_looks_at_the_snapshots_since_the_one_before() {
    for name in ["default", "format1"] {
        let mut world = World::golden(name, DAY);
        let dying = dying(&mut world);
        for _ in 0..2 {
            world.cycle(&full());
            world.clock.advance(DAY);
        }
        let client = Client::new(&world.outside, Trust::Marked);
        let late = dying.clone();
        // Marks were dropped by the batch before this one.
        world.meanwhile.at("delete", move || drop(client.snapshot(&late)));
        world.cycle(&full());
        assert!(world.meanwhile.is_over());
        assert_live(&world, &dying);
    }
}

#[test]
fn i2_the_recorded_start_of_gc_is_before_its_view() {
    let world = World::golden("default", DAY);
    let began = world.now();
    let clock = world.clock.clone();
    world.meanwhile.at("scan", move || clock.advance(Duration::from_secs(50)));
    world.cycle(&full());
    let run = &world.history().history(Task::SnapshotGc)[0].clone();
    assert_eq!(run.start, began, "what came after that is not in the view");
    assert!(run.success && run.end >= began + Duration::from_secs(50), "{run:?}");
}

#[test]
fn i5_the_watermark_is_never_in_the_future() {
    let world = World::golden("default", DAY);
    let before = world.names("xw");
    world.cycle(&alone(Mode::Full));
    let moved: Vec<i64> = world.names("xw").keys().filter_map(|name| name[2..].parse().ok()).collect();
    assert!(moved.len() > before.len());
    let now = world.now().as_second();
    assert!(moved.iter().all(|seconds| *seconds <= now), "{moved:?} at {now}");
}

#[test]
fn i6_i9_a_mark_names_its_winners_place_and_keeps_its_pack() {
    for name in ["default", "format1"] {
        let world = World::golden(name, DAY);
        let before = entries(&world);
        world.cycle(&full());
        let marks = marked(&world);
        assert!(marks.len() >= 5, "{name}");
        let place = |entry: &Entry| (entry.pack.clone(), entry.offset, entry.packed_length);
        let after = entries(&world);
        assert!(marks.iter().all(|id| place(&after[id]) == place(&before[id])), "{name}: an undelete reads there");
        world.clock.advance(DAY);
        world.cycle(&full());
        let packs = world.names("");
        let kept =
            entries(&world).into_values().filter(|entry| entry.deleted).all(|e| packs.contains_key(e.pack.as_str()));
        assert!(kept && marked(&world) == marks, "{name}: they are not forgotten yet");
    }
}

#[test]
fn i8_a_rewrite_brings_nothing_deleted_back() {
    for name in ["default", "format1"] {
        let mut world = World::golden(name, DAY);
        let (saved, before) = (world.save(), entries(&world));
        world.cycle(&full());
        let after = entries(&world);
        let is_moved = |entry: &&Entry| after.get(&entry.id).is_some_and(|now| !now.deleted && now.pack != entry.pack);
        let moved: Vec<Entry> = before.values().filter(is_moved).cloned().collect();
        assert!(moved.len() >= 2, "{name}: {}", moved.len());
        world.restore(&saved);
        // A client whose clock is behind: its marks are older than the copies.
        let mark = |entry: &Entry| Entry { deleted: true, timestamp: entry.timestamp + 1, ..entry.clone() };
        let marks: Vec<Entry> = moved.iter().map(mark).collect();
        let client = Client::new(&world.outside, Trust::Nothing);
        world.meanwhile.at("rewrite", move || client.index(marks));
        let report = world.try_cycle(&full());
        assert!(world.meanwhile.is_over());
        let now = entries(&world);
        assert!(moved.iter().all(|entry| now[&entry.id].deleted), "{name}: {report:?}");
        let packs = world.names("");
        assert!(moved.iter().all(|entry| packs.contains_key(entry.pack.as_str())), "{name}: what did not move stays");
    }
}

#[test]
fn i12_r21_no_entry_comes_before_its_pack_and_no_marker_goes_before_the_entries() {
    for (name, request) in [("default", alone(Mode::Full)), ("format1", full())] {
        let world = World::golden(name, DAY);
        let outside = world.outside.clone();
        let before = world.names("");
        let early = Arc::new(Mutex::new((0, Vec::new())));
        let log = early.clone();
        world.faults.hook(Box::new(move |effect: &Effect| {
            let is_entries = effect.call == Call::Put && effect.id.as_str().starts_with(['x', 'n']);
            if is_entries && !effect.done {
                let sessions = active_sessions(&outside)?;
                let view = load_view(&outside, 1)?;
                let new = list_all(&**outside.storage(), "")?.into_iter().map(|blob| blob.id);
                let new = new.filter(|id| id.as_str().starts_with(['p', 'q']) && !before.contains_key(id.as_str()));
                let unnamed = new.filter(|id| !view.table.packs().contains(id));
                let is_bare = |id: &BlobId| SessionId::of_blob(id).is_none_or(|id| !sessions.active.contains_key(&id));
                log.lock().unwrap().1.extend(unnamed.filter(is_bare));
            }
            if is_entries && effect.done {
                let view = load_view(&outside, 1)?;
                let mut log = log.lock().unwrap();
                log.0 += 1;
                let gone = view.table.packs().iter().filter(|pack| outside.storage().head(pack).is_err());
                log.1.extend(gone.cloned());
            }
            Ok(())
        }));
        let report = world.try_cycle(&request);
        world.faults.heal();
        let (seen, gone) = &*early.lock().unwrap();
        assert!(*seen >= 2 && gone.is_empty(), "{name}: {gone:?} of {seen}: {report:?}");
        world.assert_whole("entries after packs");
    }
}

/// Every byte that the state folder keeps as evidence.
fn evidence(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            bytes.extend(evidence(&path));
        } else if path.parent().is_some_and(|parent| parent.ends_with("evidence")) {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
    bytes
}

fn holds(bytes: &[u8], name: &str) -> bool {
    bytes.windows(name.len()).any(|window| window == name.as_bytes())
}

#[test]
fn s6_every_blob_that_went_is_in_the_evidence_with_its_rule() {
    for name in ["default", "format1"] {
        let world = World::golden(name, DAY);
        let (before, state) = (world.names(""), world.state_dir());
        let late = Arc::new(Mutex::new(Vec::new()));
        let log = late.clone();
        let own: BTreeSet<String> = before.keys().cloned().collect();
        world.faults.hook(Box::new(move |effect: &Effect| {
            let name = effect.id.as_str();
            if !effect.done && effect.call == Call::Delete && own.contains(name) && !holds(&evidence(&state), name) {
                log.lock().unwrap().push(name.to_owned());
            }
            Ok(())
        }));
        world.cycle(&alone(Mode::Full));
        world.faults.heal();
        let after = world.names("");
        let gone: Vec<&String> = before.keys().filter(|name| !after.contains_key(*name)).collect();
        let kept = evidence(&world.state_dir());
        assert!(gone.len() >= 3 && holds(&kept, "rewritten-pack"), "{name}: {} bytes of {gone:?}", kept.len());
        let silent: Vec<_> = gone.iter().filter(|name| !holds(&kept, name)).collect();
        assert!(silent.is_empty(), "{name}: nothing says why {silent:?} went");
        assert_eq!(*late.lock().unwrap(), [""; 0], "{name}: written down before it is done");
    }
}
