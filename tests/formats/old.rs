//! Forms of the past: read as they are, kept as they are.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;
use verger_kopia::clock::{Clock, SystemClock};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::storage::{Access, ByteRange, FsStorage, MemoryStorage, PutOptions};
use verger_kopia::verify;
use verger_worker::task::solve::Wrong;

use crate::builder::{Builder, OLDEST, Shape, TODAY, UPGRADED, noise, unload};
use crate::check::{Peer, check, is_as_built, solved};
use crate::layouts::{self, COMPRESSIONS};
use crate::store::{HOUR, alone};
use crate::support::{OWNER, PASSWORD, fails, verger};

/// Every form of object that any index version can hold.
fn objects(shape: &Shape) -> Builder {
    let mut builder = Builder::new(shape);
    layouts::plain_files(&mut builder);
    layouts::seek_tables(&mut builder);
    builder.close_packs();
    layouts::nested_tables(&mut builder);
    layouts::packed_objects(&mut builder, &COMPRESSIONS);
    builder.close_packs();
    layouts::legacy_ids(&mut builder);
    layouts::directories(&mut builder);
    builder
}

fn finished(mut builder: Builder) -> Builder {
    builder.snapshot();
    layouts::garbage(&mut builder);
    builder.finish();
    builder
}

#[test]
fn r7_r8_every_form_of_object_in_a_repository_of_the_oldest_kind() {
    check(finished(objects(&OLDEST)), Peer::Reads);
}

#[test]
fn r7_r8_every_form_of_object_in_an_upgraded_repository_with_both_index_versions() {
    let mut builder = objects(&UPGRADED);
    builder.publish_as(1);
    layouts::compressed_contents(&mut builder, &COMPRESSIONS);
    check(finished(builder), Peer::Reads);
}

#[test]
fn r7_r8_every_form_of_object_in_a_repository_of_today() {
    let mut builder = objects(&TODAY);
    layouts::compressed_contents(&mut builder, &COMPRESSIONS);
    check(finished(builder), Peer::Reads);
}

/// LZ4 was removed from Kopia: its data is read by us alone.
#[test]
fn lz4_is_read_though_the_real_program_does_so_no_more() {
    let mut builder = Builder::new(&OLDEST);
    layouts::plain_files(&mut builder);
    layouts::packed_objects(&mut builder, &["lz4"]);
    check(finished(builder), Peer::Refuses("lz4"));
    let mut builder = Builder::new(&TODAY);
    builder.close_packs();
    layouts::packed_objects(&mut builder, &["lz4"]);
    layouts::compressed_contents(&mut builder, &["lz4"]);
    check(finished(builder), Peer::Refuses("lz4"));
}

/// Every hash with every encryption, format version, index version and kind of index manager.
#[test]
fn every_combination_that_a_format_blob_can_name_is_read_and_kept() {
    let hashes = [
        "BLAKE2B-256-128",
        "BLAKE2B-256",
        "BLAKE2S-128",
        "BLAKE2S-256",
        "BLAKE3-256",
        "BLAKE3-256-128",
        "HMAC-SHA256",
        "HMAC-SHA256-128",
        "HMAC-SHA224",
        "HMAC-SHA3-224",
        "HMAC-SHA3-256",
    ];
    let splitters = ["", "FIXED", "DYNAMIC", "FIXED-8M", "DYNAMIC-1M-RABINKARP", "NEVER"];
    let ciphers = ["AES256-GCM-HMAC-SHA256", "CHACHA20-POLY1305-HMAC-SHA256"];
    // (version, index version, epochs, password change), as creation and upgrades leave them.
    let forms = [
        (1, 0, false, false),
        (1, 1, false, false),
        (2, 1, false, false),
        (2, 2, false, false),
        (2, 2, true, false),
        (3, 2, true, false),
        (2, 1, true, true),
        (2, 2, true, true),
        (3, 1, true, true),
        (3, 2, false, true),
        (3, 2, true, true),
    ];
    for (number, hash) in hashes.into_iter().enumerate() {
        let (version, index_version, epochs, password_change) = forms[number];
        let mut builder = Builder::new(&Shape {
            name: hash,
            version,
            index_version,
            epochs,
            password_change,
            hash,
            encryption: ciphers[number % 2],
            splitter: splitters[number % splitters.len()],
            ..TODAY
        });
        layouts::plain_files(&mut builder);
        layouts::seek_tables(&mut builder);
        builder.close_packs();
        layouts::packed_objects(&mut builder, &["gzip"]);
        let builder = finished(builder);
        builder.world.clock.advance(HOUR);
        is_as_built(&builder, "as built");
        let report = builder.world.cycle(&alone(Mode::Full));
        assert_eq!(report.outcome, "done", "{hash}");
        is_as_built(&builder, "after a cycle");
        assert!(builder.dead.iter().all(|id| builder.world.view().table.find(id).is_none()), "{hash}");
    }
}

/// Ciphers that Kopia removed, and names that it never had: refused with a way on, and nothing is touched.
#[test]
fn names_of_other_times_are_refused_as_unsupported() {
    let with = |change: fn(&mut Shape)| {
        let mut shape = TODAY;
        change(&mut shape);
        shape
    };
    let cases = [
        (with(|s| s.encryption = "NONE"), "removed from Kopia"),
        (with(|s| s.encryption = "AES-256-CTR"), "removed from Kopia"),
        (with(|s| s.encryption = "SALSA20-HMAC"), "removed from Kopia"),
        (with(|s| s.encryption = "XSALSA20"), "removed from Kopia"),
        (with(|s| s.encryption = "AES512"), "not known"),
        (with(|s| s.hash = "MD5"), "not known"),
        (with(|s| s.version = 4), "version 4"),
        (with(|s| s.index_version = 3), "index version 3"),
    ];
    for (shape, word) in cases {
        let memory = MemoryStorage::default();
        for (name, bytes) in shape.format_blobs() {
            memory.put_at(&name.into(), bytes, SystemClock.now());
        }
        let folder = tempfile::tempdir().unwrap();
        unload(&memory, folder.path());
        let before = memory.contents();
        let address = format!("filesystem://{}", folder.path().display());
        for command in [&["inspect", "status"][..], &["verify"], &["maintain", "--full", "--act-as", OWNER]] {
            let mut ours = verger(&folder.path().join("home"));
            let message = fails(ours.env("KOPIA_PASSWORD", PASSWORD).args(command).arg(&address), 15);
            assert!(message.contains(word), "{command:?} with {shape:?}: {message}");
        }
        let disk = FsStorage::open(folder.path(), Access::ReadOnly).unwrap();
        assert_eq!(MemoryStorage::copy_of(&disk, Arc::new(SystemClock)).unwrap().contents(), before);
    }
}

/// Snapshots as other versions wrote them: a single file, nothing but a root, fields of later times.
#[test]
fn manifests_of_every_shape_lead_to_their_data() {
    let mut builder = Builder::new(&TODAY);
    layouts::plain_files(&mut builder);
    builder.snapshot();
    let object = builder.content("", b"a file by itself");
    builder.snapshot_of("f", &object);
    let target = builder.content("", b"../elsewhere");
    builder.snapshot_of("s", &target);
    let bytes = noise(1, 900);
    let parts = builder.chunks("", &bytes, 400);
    let table = builder.table("", &parts);
    builder.snapshot_of("f", &table);
    for (body, content) in [
        (json!({"rootEntry": {"type": "f", "obj": "ID"}}), &b"bare"[..]),
        (json!({"source": null, "stats": null, "rootEntry": {"obj": "ID"}, "tags": null, "pins": null}), b"nulls"),
        (
            json!({"later": {"x": [1]}, "incomplete": "checkpoint", "rootEntry": {"type": "x", "obj": "ID", "later": 1}}),
            b"later",
        ),
    ] {
        let object = builder.content("", content);
        let text = body.to_string().replace("\"ID\"", &format!("\"{object}\""));
        builder.roots.push(object);
        builder.snapshot_as(&serde_json::from_str(&text).unwrap());
    }
    layouts::garbage(&mut builder);
    builder.finish();
    builder.world.clock.advance(HOUR);
    is_as_built(&builder, "as built");
    let report = builder.world.cycle(&alone(Mode::Full));
    assert_eq!(report.outcome, "done");
    is_as_built(&builder, "after a cycle");
}

/// A snapshot without a root may protect anything (R11); Kopia's own garbage collection stops there, too.
#[test]
fn r11_a_snapshot_without_a_root_freezes_marks_until_it_is_abandoned() {
    for body in [
        json!({}),
        json!({"rootEntry": null}),
        json!({"rootEntry": {"type": "d"}}),
        json!({"rootEntry": {"obj": "kXX"}}),
    ] {
        let mut builder = Builder::new(&OLDEST);
        layouts::seek_tables(&mut builder);
        builder.snapshot();
        let id = builder.snapshot_as(&body);
        layouts::garbage(&mut builder);
        builder.finish();
        builder.world.clock.advance(HOUR);
        let report = builder.world.try_cycle(&alone(Mode::Full)).unwrap();
        assert_eq!(report.outcome, "degraded", "{body}");
        assert!(report.damage.iter().any(|damage| damage.subject.contains(&id)), "{body}: {:?}", report.damage);
        let view = builder.world.view();
        assert!(view.table.rows().all(|row| !view.table.is_deleted(row)), "{body}: R11");
        let problems = builder.world.verify().problems;
        assert!(problems.iter().any(|problem| problem.subject.contains(&id)), "{body}: {problems:?}");
    }
}

/// Every content of an old tree damaged in turn: what it touches is named, the check says the same, and nothing is marked if it
/// could hide anything.
#[test]
fn r11_each_content_of_old_forms_that_cannot_be_read_is_named_with_its_place() {
    let mut builder = Builder::new(&OLDEST);
    layouts::nested_tables(&mut builder);
    builder.close_packs();
    layouts::legacy_ids(&mut builder);
    layouts::directories(&mut builder);
    let mut builder = finished(builder);
    builder.world.clock.advance(HOUR);
    let start = builder.world.save();
    let view = builder.world.view();
    let (mut hidden, mut harmless) = (0, 0);
    // A handful of each pack, from its begin to its end.
    let used: Vec<_> = builder.used.iter().copied().collect();
    for id in used.into_iter().step_by(3) {
        builder.world.restore(&start);
        let entry = view.table.entry(view.table.find(&id).unwrap());
        let storage = builder.world.outside.storage().clone();
        let mut pack = storage.get(&entry.pack, ByteRange::All).unwrap().to_vec();
        pack[entry.offset as usize + 14] ^= 1;
        storage.put(&entry.pack, pack.into(), &PutOptions::default()).unwrap();
        let (used, damages) = solved(&builder.world);
        assert!(damages.iter().all(|d| d.wrong == Wrong::Unreadable && !d.touches.is_empty()), "{id}: {damages:?}");
        let walk = verify::Options { threads: 1, ..verify::Options::default() };
        let walk = verify::verify(&builder.world.outside, &walk, &AtomicBool::new(false), &|_, _, _| {}).unwrap();
        assert_eq!(walk.is_clean(), damages.is_empty(), "{id}: {damages:?} {:?}", walk.problems);
        assert!(
            walk.problems.iter().all(|p| !p.paths.is_empty() && !p.snapshots.is_empty()),
            "{id}: {:?}",
            walk.problems
        );
        let full = builder.world.verify();
        assert!(full.problems.iter().any(|p| p.subject == id.to_string()), "{id}: {:?}", full.problems);
        if damages.is_empty() {
            assert_eq!(used, builder.used, "{id}");
            harmless += 1;
        } else {
            hidden += 1;
        }
        // Whole cycles on some of each.
        if (hidden + harmless) % 8 == 0 {
            let report = builder.world.try_cycle(&alone(Mode::Full)).unwrap();
            assert_eq!(report.outcome, "degraded", "{id}");
            let view = builder.world.view();
            let live = |id| view.table.find(id).is_some_and(|row| !view.table.is_deleted(row));
            assert!(builder.used.iter().all(live), "{id}");
            assert_eq!(builder.dead.iter().any(live), !damages.is_empty(), "{id}: {damages:?}");
        }
    }
    assert!(hidden >= 8 && harmless >= 8, "{hidden} hidden, {harmless} harmless");
}
