//! Damaged bytes in repositories with error correction: within its power they are repaired, by us as by the real program; beyond
//! it they are damage, and never other bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::storage::{BlobId, ByteRange, MemoryStorage, PutOptions};
use verger_worker::task::solve::Wrong;

use crate::builder::{Builder, Shape, TODAY, noise, unload};
use crate::check::{is_as_built, read, solved};
use crate::layouts;
use crate::store::{World, alone};
use crate::support::{Golden, Kopia, run};

/// Data shards, parity shards, longest shard, by overhead in percent.
const CODES: [(u32, usize, usize, usize); 7] = [
    (1, 254, 2, 1024),
    (2, 164, 2, 512),
    (3, 139, 2, 256),
    (5, 128, 2, 128),
    (10, 128, 4, 64),
    (25, 128, 24, 64),
    (50, 128, 56, 64),
];

const CRC: usize = 4;

/// Where the shards of a stored item lie, block by block: parity first, then data.
struct Shards {
    parity: usize,
    blocks: Vec<(Vec<std::ops::Range<usize>>, Vec<std::ops::Range<usize>>)>,
}

impl Shards {
    fn of(percent: u32, stored: usize) -> Self {
        let &(_, data, parity, longest) = CODES.iter().find(|code| code.0 == percent).unwrap();
        let small = 8 * (CRC + (8 * (data + parity)).div_ceil(6));
        let one = (data + parity) * (CRC + longest);
        let (data, parity, framed, blocks) = if stored <= small {
            (6, 2, stored.div_ceil(8), 1)
        } else if stored <= one {
            (data, parity, stored.div_ceil(data + parity), 1)
        } else {
            (data, parity, CRC + longest, stored.div_ceil(one))
        };
        let frame = |at: usize| at * framed..((at + 1) * framed).min(stored);
        let block = |block: usize| {
            let of_parity = (0..parity).map(|i| frame(block * parity + i)).collect();
            let of_data =
                (0..data).map(|i| frame(blocks * parity + block * data + i)).filter(|range| !range.is_empty());
            (of_parity, of_data.collect())
        };
        Self { parity, blocks: (0..blocks).map(block).collect() }
    }
}

/// Random numbers, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn hit(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len());
        bytes[at] ^= 1 << self.below(8);
    }
}

/// How a stored item is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hit {
    /// As many data shards of each block as there is parity, one byte each.
    AllThatIsRepaired,
    /// The same and one parity shard: one more than can be repaired, if the block has so many shards.
    OneTooMany,
    /// Every parity shard, and no data.
    ParityAlone,
    /// The checksum of the first data shard, which holds the length as well.
    Checksum,
    /// The length inside of the first data shard.
    Length,
}

impl Hit {
    fn strike(self, percent: u32, dice: &mut Dice, stored: &mut [u8]) {
        let shards = Shards::of(percent, stored.len());
        for (parity, data) in &shards.blocks {
            let take = if matches!(self, Self::Checksum | Self::Length) { 1 } else { shards.parity };
            let (parity, data) = match self {
                Self::AllThatIsRepaired => (&parity[..0], &data[..take.min(data.len())]),
                Self::OneTooMany => (&parity[..1], &data[..take.min(data.len())]),
                Self::ParityAlone => (&parity[..], &data[..0]),
                Self::Checksum | Self::Length => (&parity[..0], &data[..1]),
            };
            for shard in parity.iter().chain(data) {
                let shard = match self {
                    Self::Checksum => shard.start..shard.start + CRC,
                    Self::Length => shard.start + CRC..shard.end.min(shard.start + CRC + 4),
                    _ => shard.clone(),
                };
                dice.hit(&mut stored[shard]);
            }
        }
    }
}

fn blob(world: &World, id: &BlobId) -> Vec<u8> {
    world.outside.storage().get(id, ByteRange::All).unwrap().to_vec()
}

fn put(world: &World, id: &BlobId, bytes: Vec<u8>) {
    world.outside.storage().put(id, Bytes::from(bytes), &PutOptions::default()).unwrap();
}

fn entries(world: &World) -> Vec<Entry> {
    let view = world.view();
    view.table.rows().map(|row| view.table.entry(row)).collect()
}

/// Hits the stored bytes of a content where they lie.
fn strike(world: &World, entry: &Entry, hit: impl FnOnce(&mut [u8])) {
    let mut pack = blob(world, &entry.pack);
    let start = entry.offset as usize;
    hit(&mut pack[start..start + entry.packed_length as usize]);
    put(world, &entry.pack, pack);
}

fn built(percent: u32) -> Builder {
    let mut builder = Builder::new(&Shape { name: "ecc", ecc_percent: percent, ..TODAY });
    for (number, length) in [0, 3, 700, 5000, 40_000].into_iter().enumerate() {
        let bytes = noise(number as u64, length);
        let object = builder.content("", &bytes);
        builder.file(&format!("file-{length}"), &object, &bytes);
    }
    builder.close_packs();
    layouts::seek_tables(&mut builder);
    builder.close_packs();
    builder.snapshot();
    layouts::garbage(&mut builder);
    builder.finish();
    builder.world.clock.advance(Duration::from_hours(1));
    builder
}

/// Whether every byte is as it was written, parity too.
fn is_intact(world: &World, entry: &Entry) -> bool {
    let start = entry.offset as usize;
    let stored = &blob(world, &entry.pack)[start..start + entry.packed_length as usize];
    world.outside.cipher().ecc().unwrap().is_intact(stored)
}

#[test]
fn r19_all_that_parity_can_repair_is_repaired_and_a_rewrite_makes_it_whole() {
    for (percent, ..) in CODES {
        let builder = built(percent);
        let world = &builder.world;
        let mut dice = Dice(percent.into());
        let all = entries(world);
        for entry in &all {
            strike(world, entry, |stored| Hit::AllThatIsRepaired.strike(percent, &mut dice, stored));
        }
        let indexes = world.blobs("xn");
        for index in &indexes {
            let mut bytes = blob(world, &index.id);
            Hit::AllThatIsRepaired.strike(percent, &mut dice, &mut bytes);
            put(world, &index.id, bytes);
        }
        assert!(all.iter().all(|entry| !is_intact(world, entry)));
        is_as_built(&builder, &format!("at {percent} %"));
        let report = world.verify();
        assert_eq!(report.repaired_items, (all.len() + indexes.len()) as u64, "{percent} %");
        if percent == 10 {
            with_the_real_program(world, true);
        }
        let report = world.cycle(&alone(Mode::Full));
        assert_eq!(report.outcome, "done");
        assert!(report.repaired_items as usize >= builder.used.len(), "{percent} %: {report:?}");
        is_as_built(&builder, &format!("after a cycle at {percent} %"));
        for entry in entries(world).iter().filter(|entry| builder.used.contains(&entry.id)) {
            assert!(is_intact(world, entry), "{percent} %: {} was not written anew", entry.id);
        }
        if percent == 10 {
            with_the_real_program(world, true);
        }
    }
}

fn with_the_real_program(world: &World, reads: bool) {
    let folder = tempfile::tempdir().unwrap();
    unload(&**world.outside.storage(), folder.path());
    let Some(kopia) = Kopia::connect(folder.path()) else { return };
    if reads {
        return kopia.verifies();
    }
    let output = kopia.command(["content", "verify", "--full"]).output().unwrap();
    assert!(!output.status.success(), "the real program reads what cannot be repaired");
}

#[test]
fn each_kind_of_hit_means_the_same_to_us_and_to_the_real_program() {
    let builder = built(10);
    let world = &builder.world;
    let mut dice = Dice(1);
    let hits = [Hit::AllThatIsRepaired, Hit::OneTooMany, Hit::ParityAlone, Hit::Checksum, Hit::Length];
    let files: Vec<Entry> =
        entries(world).into_iter().filter(|e| e.id.prefix() == 0 && e.original_length > 400).collect();
    assert!(files.len() > 2 * hits.len());
    let folder = tempfile::tempdir().unwrap();
    let mut asked = 0;
    let mut expected = Vec::new();
    for (number, entry) in files.iter().enumerate() {
        let hit = hits[number % hits.len()];
        let plain = read(world, &entry.id.to_string()).unwrap();
        strike(world, entry, |stored| hit.strike(10, &mut dice, stored));
        let ours = read(world, &entry.id.to_string());
        assert_eq!(ours.is_ok(), hit != Hit::OneTooMany, "{hit:?} of {} bytes", plain.len());
        assert!(ours.as_ref().ok().is_none_or(|ours| *ours == plain), "{hit:?}: other bytes");
        expected.push((entry.id, hit, plain));
    }
    unload(&**world.outside.storage(), folder.path());
    let Some(kopia) = Kopia::connect(folder.path()) else { return };
    // Some of each kind, the longest among them.
    expected.sort_by_key(|(_, _, plain)| std::cmp::Reverse(plain.len()));
    for hit in hits {
        for (id, _, plain) in expected.iter().filter(|(_, kind, _)| *kind == hit).take(2) {
            let output = kopia.command(["content", "show", &id.to_string()]).output().unwrap();
            assert_eq!(
                output.status.success(),
                hit != Hit::OneTooMany,
                "the real program, {hit:?} of {} bytes",
                plain.len()
            );
            assert!(!output.status.success() || output.stdout == *plain, "the real program, {hit:?}");
            asked += 1;
        }
    }
    assert_eq!(asked, 2 * hits.len());
}

#[test]
fn r11_a_directory_beyond_repair_freezes_marks_and_a_file_is_only_damage() {
    let mut builder = built(5);
    let start = builder.world.save();
    let all = entries(&builder.world);
    let of = |prefix: u8, used: &BTreeSet<ContentId>| {
        all.iter().find(|entry| entry.id.prefix() == prefix && used.contains(&entry.id)).unwrap().clone()
    };
    let (folder, table, file) = (of(b'k', &builder.used), of(b'x', &builder.used), of(0, &builder.used));
    for (entry, freezes) in [(folder, true), (table, true), (file, false)] {
        builder.world.restore(&start);
        strike(&builder.world, &entry, |stored| Hit::OneTooMany.strike(5, &mut Dice(2), stored));
        let (used, damages) = solved(&builder.world);
        assert_eq!(damages.iter().any(|d| d.wrong == Wrong::Unreadable), freezes, "{damages:?}");
        assert!(freezes || used == builder.used);
        let report = builder.world.verify();
        assert!(report.problems.iter().any(|p| p.subject.contains(&entry.id.to_string())), "{:?}", report.problems);
        with_the_real_program(&builder.world, false);
        let report = builder.world.try_cycle(&alone(Mode::Full)).unwrap();
        // What cannot be repaired cannot be moved either, and stays where it lies.
        assert_eq!(report.outcome, "degraded", "{}: {report:?}", entry.id);
        let view = builder.world.view();
        let live = |id: &ContentId| view.table.find(id).is_some_and(|row| !view.table.is_deleted(row));
        assert!(builder.used.iter().all(live), "{}", entry.id);
        assert_eq!(builder.dead.iter().any(live), freezes, "{}", entry.id);
        let row = view.table.find(&entry.id).unwrap();
        assert_eq!(view.table.entry(row).pack, entry.pack);
        assert!(builder.world.names("").contains_key(entry.pack.as_str()), "its pack is all that is left of it");
    }
}

#[test]
fn r11_an_index_blob_beyond_repair_ends_the_cycle_before_it_begins() {
    let mut builder = built(3);
    let start = builder.world.save();
    let index = builder.world.blobs("xn")[0].id.clone();
    let before = builder.world.names("");
    let mut bytes = blob(&builder.world, &index);
    for (hit, ends) in [(Hit::ParityAlone, false), (Hit::OneTooMany, true)] {
        builder.world.restore(&start);
        hit.strike(3, &mut Dice(3), &mut bytes);
        put(&builder.world, &index, bytes.clone());
        match builder.world.try_cycle(&alone(Mode::Full)) {
            Ok(_) => assert!(!ends),
            Err(error) => {
                assert!(ends && error.kind() == verger_kopia::ErrorKind::Damaged, "{}", error.chain());
                assert!(error.chain().contains(index.as_str()) && error.fix().is_some(), "{}", error.chain());
                let lease = |names: &String| !names.starts_with("verger");
                assert!(builder.world.names("").into_keys().filter(lease).eq(before.keys().cloned()));
            }
        }
    }
}

#[test]
fn any_damage_is_repaired_or_is_an_error_and_never_other_bytes() {
    for (percent, ..) in CODES {
        let builder = built(percent);
        let cipher = builder.world.outside.cipher();
        let mut dice = Dice(77 + u64::from(percent));
        let (mut repaired, mut lost) = (0, 0);
        for (number, length) in [0, 1, 30, 300, 1100, 9000, 30_000].into_iter().cycle().take(28).enumerate() {
            let plain = noise(number as u64, length);
            let stored = cipher.seal(b"0123456789abcdef", &plain).unwrap();
            let shards = Shards::of(percent, stored.len());
            let mut hit = stored.clone();
            let mut within = true;
            for (parity, data) in &shards.blocks {
                let mut all: Vec<_> = parity.iter().map(|s| (s, true)).chain(data.iter().map(|s| (s, false))).collect();
                // Mostly within the power of parity, and around its border.
                let count = dice.below(shards.parity + 2 + usize::from(number % 5 == 0) * shards.parity).min(all.len());
                let mut of_data = 0;
                for _ in 0..count {
                    let (shard, is_parity) = all.swap_remove(dice.below(all.len()));
                    dice.hit(&mut hit[shard.clone()]);
                    of_data += usize::from(!is_parity);
                }
                // Parity that is lost does not matter where no data is.
                within &= count <= shards.parity || of_data == 0;
            }
            match cipher.open(b"0123456789abcdef", &hit) {
                Ok((found, _)) => {
                    assert!(within && found == plain, "{percent} %, {length} bytes: beyond repair, and yet read");
                    repaired += 1;
                }
                Err(error) => {
                    assert!(!within, "{percent} %, {length} bytes: {}", error.chain());
                    assert_eq!(error.kind(), verger_kopia::ErrorKind::Damaged);
                    lost += 1;
                }
            }
            // Cut short, parity or data: the last shard of data at most can be made good.
            for keep in [0, dice.below(stored.len()), stored.len() - 1].into_iter().filter(|_| length <= 9000) {
                match cipher.open(b"0123456789abcdef", &stored[..keep]) {
                    Ok((found, _)) => assert!(found == plain, "{percent} %, {length} bytes: cut at {keep}"),
                    Err(error) => assert_eq!(error.kind(), verger_kopia::ErrorKind::Damaged),
                }
            }
        }
        assert!(repaired > 3 && lost > 3, "{percent} %: {repaired} repaired, {lost} lost");
    }
}

/// A repository of the real program, damaged in every pack and index blob as far as it can be repaired.
fn damaged_everywhere(world: &World, percent: u32) {
    let mut dice = Dice(5);
    for entry in entries(world) {
        strike(world, &entry, |stored| Hit::AllThatIsRepaired.strike(percent, &mut dice, stored));
    }
    for index in world.blobs("xn").iter().chain(&world.blobs("s")) {
        let mut bytes = blob(world, &index.id);
        Hit::AllThatIsRepaired.strike(percent, &mut dice, &mut bytes);
        put(world, &index.id, bytes);
    }
}

#[test]
fn r19_a_golden_repository_with_damage_everywhere_is_repaired_by_a_cycle() {
    let golden = Golden::unpack("ecc");
    let percent = golden.expect["before"]["status"]["contentFormat"]["eccOverheadPercent"].as_u64().unwrap();
    let world = World::golden("ecc", Duration::from_hours(1));
    damaged_everywhere(&world, u32::try_from(percent).unwrap());
    let report = world.assert_whole("damage everywhere");
    assert!(report.repaired_items > 20, "{report:?}");
    let report = world.cycle(&alone(Mode::Full));
    let want = &golden.expect["after"]["maintenance"]["schedule"]["runs"]["snapshot-gc"][0]["extra"][0]["data"];
    assert_eq!(&report.tasks["snapshot-gc"], want);
    assert!(report.repaired_items > 20, "{report:?}");
    with_the_real_program(&world, true);
}

#[test]
fn r19_repositories_that_the_real_program_makes_are_repaired_by_both() {
    for percent in [1, 50] {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("repository");
        let tree = folder.path().join("tree");
        std::fs::create_dir_all(tree.join("below")).unwrap();
        std::fs::create_dir(&repository).unwrap();
        for (name, length) in [("empty", 0), ("small", 10), ("below/middle", 20_000), ("below/large", 600_000)] {
            std::fs::write(tree.join(name), noise(length as u64, length)).unwrap();
        }
        let overhead = format!("--ecc-overhead-percent={percent}");
        let Some(kopia) = Kopia::create(&repository, &["--ecc=REED-SOLOMON-CRC32", &overhead]) else { return };
        let snapshot = ["snapshot", "create", "--no-progress", "--no-auto-maintenance"];
        run(kopia.command(snapshot).arg(&tree));
        std::fs::write(tree.join("small"), "another one").unwrap();
        run(kopia.command(snapshot).arg(&tree));
        let disk =
            verger_kopia::storage::FsStorage::open(&repository, verger_kopia::storage::Access::ReadOnly).unwrap();
        let clock = std::sync::Arc::new(verger_kopia::clock::SetClock::new(
            verger_kopia::clock::Clock::now(&verger_kopia::clock::SystemClock) + Duration::from_mins(1),
        ));
        let memory = MemoryStorage::copy_of(&disk, clock.clone()).unwrap();
        let world = World::of("made by kopia", memory, clock);
        damaged_everywhere(&world, percent);
        with_the_real_program(&world, true);
        let report = world.assert_whole("damage everywhere");
        assert!(report.repaired_items >= 8, "{percent} %: {report:?}");
        world.cycle(&alone(Mode::Full));
        with_the_real_program(&world, true);
    }
}
