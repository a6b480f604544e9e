//! R11, in a matrix: each kind of thing that a repository is made of, damaged in each way, and what a cycle makes of it.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "support/client.rs"]
mod client;
#[path = "support/damage.rs"]
mod damage;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Trust};
use damage::{Before, Damage, Frozen, Target, changed, lost};
use store::{Saved, World, alone, careful};
use verger::embedded::{CycleReport, CycleRequest};
use verger_kopia::index_set::legacy::write_cleanup;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::storage::BlobId;
use verger_kopia::{Error, ErrorKind};
use verger_proto::report::Severity;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// Refused with this kind, every byte as it was.
    Refused(ErrorKind),
    /// Degraded: no marks, no watermark, no record of a snapshot GC.
    Frozen,
    /// Degraded, or a snapshot whose manifest went with the index blob is not known any more. Nothing goes that may be needed.
    LostIndex,
    /// Degraded, and everything else is done.
    Noted,
    /// As if nothing were wrong.
    Done,
    /// Damage to bytes that may be somebody's, or nobody's.
    Whatever,
}

fn expected(target: &Target, damage: Damage, active: bool) -> Expect {
    use Damage::{Empty, FlipFirst, FlipMiddle, Half, LastByte, Missing, Twice};
    let refused = Expect::Refused(ErrorKind::Damaged);
    match (target.kind, damage) {
        ("legacy index" | "uncompacted index" | "compacted epoch" | "compacted range", _) if !active => Expect::Done,
        ("legacy index" | "uncompacted index" | "compacted epoch" | "compacted range", Missing) => Expect::LostIndex,
        ("legacy index" | "uncompacted index" | "compacted epoch", _) => refused,
        // A set with a member too many is none that readers take.
        ("compacted range", Twice) => Expect::Whatever,
        ("compacted range", _) => refused,
        ("compaction log", Missing) => Expect::Done,
        ("compaction log", _) => refused,
        // It protects nothing, and says only what may go later.
        ("clean-up note", Missing) => Expect::Done,
        ("clean-up note", _) => Expect::Noted,
        // Only its name counts.
        ("epoch marker" | "watermark", _) => Expect::Done,
        ("session marker", Missing) => Expect::Done,
        ("session marker", _) => Expect::Noted,
        ("schedule", Missing | Twice) => Expect::Done,
        ("schedule", _) => refused,
        ("format", Missing) => Expect::Refused(ErrorKind::NotARepository),
        ("format", Empty | Half | FlipFirst) => refused,
        ("format", Twice) => Expect::Done,
        // A bit of its base64 text or of its last line: another key, broken JSON, or nothing at all.
        ("format", _) => Expect::Whatever,
        ("blob settings", Missing | Twice) => Expect::Done,
        ("blob settings", _) => refused,
        ("lease", Missing | Twice) => Expect::Done,
        // It is plain JSON: another holder's name is as good as this one.
        ("lease", FlipMiddle) => Expect::Whatever,
        ("lease", _) => refused,
        ("log", _) => Expect::Done,
        ("data pack" | "metadata pack" | _, Twice) => Expect::Done,
        ("data pack", Missing | Empty | Half) => Expect::Noted,
        // Where no other manifest has the parameters, nobody knows who maintains.
        ("data pack" | "metadata pack" | "parameters", _) => Expect::Whatever,
        // Of a pack that is cut, much more is gone than the content.
        (_, LastByte | Half | Missing) => Expect::Whatever,
        // Bytes of files are looked at only where they are moved.
        ("chunk", _) => Expect::Whatever,
        _ => Expect::Frozen,
    }
}

/// One repository to be damaged.
struct Patient {
    world: World,
    before: Before,
    saved: Saved,
    /// Cases tried, and those in which bytes of a file were found damaged when they were to be moved.
    count: usize,
    rotten: usize,
}

impl Patient {
    /// A golden repository as it was made.
    fn fresh(name: &str) -> Self {
        Self::of(World::golden(name, DAY * 2))
    }

    /// One that Verger has maintained for days, with marks, a watermark, compactions and a session under way.
    fn used(name: &str) -> Self {
        let world = World::golden(name, DAY);
        for _ in 0..3 {
            world.cycle(&careful(Some(Mode::Full)));
            world.clock.advance(DAY + Duration::from_secs(60));
        }
        let client = Client::new(&world.outside, Trust::Live);
        client.write(&[(0, b"nobody needs this".to_vec())]);
        let first = Before::of(&world).snapshots.into_keys().next().unwrap();
        client.delete_snapshots(&[first]);
        world.cycle(&alone(Mode::Quick));
        world.clock.advance(DAY);
        world.cycle(&careful(Some(Mode::Full)));
        if !world.outside.config().epoch.enabled {
            let log = BlobId::from("m0123456789abcdef0123456789abcdef");
            write_cleanup(&world.outside, vec![log], world.now(), None).unwrap();
        }
        let pending = client.upload(&[(0, b"under way".to_vec()), (b'k', b"too".to_vec())]);
        drop(pending);
        world.clock.advance(DAY * 2);
        Self::of(world)
    }

    fn of(world: World) -> Self {
        let before = Before::of(&world);
        let saved = world.save();
        Self { world, before, saved, count: 0, rotten: 0 }
    }

    fn is_active(&self, target: &Target) -> bool {
        self.before.view.blobs.iter().any(|blob| blob.id == target.blob)
    }

    /// Damages, runs, judges, repairs, runs again.
    fn suffer(&mut self, target: &Target, damage: Damage, request: &CycleRequest) {
        self.world.restore(&self.saved);
        let (world, before) = (&self.world, &self.before);
        if !target.suffer(world, before, damage) {
            return;
        }
        self.count += 1;
        let case = format!("{}: {} {damage:?} ({})", world.name, target.kind, target.blob);
        let damaged = world.contents();
        let frozen = Frozen::of(world);
        let outcome = world.try_cycle(request);
        let after = world.contents();
        let expect = expected(target, damage, self.is_active(target));
        let judge = Judge { case: &case, target, damaged: &damaged, after: &after };
        match &outcome {
            Err(error) => judge.refused(error, expect),
            Ok(report) => judge.carried_out(
                report,
                expect,
                frozen.zip(Frozen::of(world)).is_none_or(|(was, is)| was.thawed(&is)),
                before,
                damage,
            ),
        }
        let moved = |report: &CycleReport| report.damage.iter().any(|one| one.text.contains("could not be moved"));
        self.rotten += usize::from(target.kind == "chunk" && outcome.as_ref().is_ok_and(moved));
        let lost = lost(world, before, &damaged);
        let gone_with_its_index =
            expect == Expect::LostIndex && outcome.as_ref().is_ok_and(|report| !report.is_degraded());
        assert!(lost.is_empty() || gone_with_its_index, "{case}: lost {lost:?}");
        if !gone_with_its_index {
            self.recover(target, damage, &case, outcome.is_ok());
        }
    }

    /// The damage is undone, and the next cycle finds nothing wrong.
    fn recover(&self, target: &Target, damage: Damage, case: &str, ran: bool) {
        let (world, blob) = (&self.world, &target.blob);
        if damage == Damage::Twice {
            let copy = damage::other_name(blob);
            if world.names("").contains_key(copy.as_str()) {
                world.lose(&copy);
            }
        } else if !ran || !matches!(target.kind, "schedule" | "lease") {
            world.plant(blob, self.before.blobs[blob].clone(), blob);
        }
        world.clock.advance(Duration::from_secs(30));
        let again = world.try_cycle(&careful(Some(Mode::Full)));
        let again = again.unwrap_or_else(|error| panic!("{case}, repaired: {}", error.chain()));
        assert!(!again.is_degraded(), "{case}, repaired: {:#?}", again.damage);
        world.assert_whole(&format!("{case}, repaired"));
    }

    fn matrix(&mut self, kinds: &[&str], request: &CycleRequest) {
        let targets: Vec<Target> =
            targets(&self.world, &self.before).into_iter().filter(|target| kinds.contains(&target.kind)).collect();
        let found: BTreeSet<&str> = targets.iter().map(|target| target.kind).collect();
        assert_eq!(found, kinds.iter().copied().collect(), "{} lacks some", self.world.name);
        for target in &targets {
            for damage in Damage::ALL {
                self.suffer(target, damage, request);
            }
        }
        eprintln!("{}: {} cases", self.world.name, self.count);
    }
}

/// Looks at what a cycle did.
struct Judge<'a> {
    case: &'a str,
    target: &'a Target,
    damaged: &'a BTreeMap<BlobId, Bytes>,
    after: &'a BTreeMap<BlobId, Bytes>,
}

impl Judge<'_> {
    fn refused(&self, error: &Error, expect: Expect) {
        let Self { case, damaged, after, .. } = self;
        let text = format!("{case}: {:?} {}", error.kind(), error.chain());
        match expect {
            Expect::Refused(kind) => assert_eq!(error.kind(), kind, "{text}"),
            Expect::Whatever => {}
            _ => panic!("{text}: expected {expect:?}"),
        }
        assert!(error.fix().is_some_and(|fix| fix.len() > 10), "{text}: no fix");
        assert_eq!(changed(damaged, after), BTreeSet::new(), "{text}");
    }

    fn carried_out(&self, report: &CycleReport, expect: Expect, thawed: bool, before: &Before, damage: Damage) {
        let Self { case, damaged, after, .. } = self;
        let worst = report.damage.iter().map(|one| one.severity).max();
        assert_eq!(report.is_degraded(), worst.is_some(), "{case}");
        let wanted = match expect {
            Expect::Refused(_) => panic!("{case}: expected {expect:?}, it ran: {:#?}", report.damage),
            Expect::Frozen => Some(Severity::Unreadable),
            Expect::Noted => Some(Severity::Noted),
            Expect::Done => None,
            Expect::LostIndex | Expect::Whatever => worst,
        };
        assert_eq!(worst, wanted, "{case}: expected {expect:?}: {:#?}", report.damage);
        if worst >= Some(Severity::Unreadable) {
            assert!(!thawed, "{case}: marks, watermark or a record of a snapshot GC");
        }
        let gone: Vec<&BlobId> = damaged.keys().filter(|id| !after.contains_key(*id)).collect();
        if worst == Some(Severity::LostIndex) {
            assert!(gone.is_empty(), "{case}: {gone:?}");
            // What a snapshot needs may be revived: that only adds.
            let old = |name: &String| damaged.contains_key(&BlobId::new(name.as_str()));
            let names: Vec<String> = changed(damaged, after).into_iter().filter(old).collect();
            assert!(names.iter().all(|name| name == "kopia.maintenance"), "{case}: {names:?}");
        }
        if worst.is_some() {
            assert!(!gone.contains(&&self.target.blob) || damage == Damage::Twice, "{case}: it went");
        }
        self.names(report, expect, before, damage);
    }

    /// The damage is named with the snapshots and paths that it touches.
    fn names(&self, report: &CycleReport, expect: Expect, before: &Before, damage: Damage) {
        let case = self.case;
        let manifest = |one: &&verger_proto::Damage| one.subject.starts_with("manifest content");
        if report.damage.iter().any(|one| manifest(&one)) {
            return;
        }
        // Where a pack is cut, something else in it may be named in its place.
        let exact = !matches!(damage, Damage::LastByte | Damage::Half | Damage::Missing);
        if let (Some(object), Expect::Frozen, true) = (&self.target.object, expect, exact) {
            assert!(report.damage.iter().any(|one| one.subject == *object), "{case}: {:#?}", report.damage);
        }
        for one in &report.damage {
            let content = one.subject.trim_start_matches('I').parse::<verger_kopia::content::ContentId>();
            if content.is_ok_and(|id| before.needed.contains(&id) && id.prefix() != b'm') {
                assert!(!one.snapshots.is_empty() && !one.paths.is_empty(), "{case}: no places: {one:?}");
            }
        }
    }
}

fn targets(world: &World, before: &Before) -> Vec<Target> {
    let kinds = [
        ("legacy index", "n"),
        ("compaction log", "m"),
        ("clean-up note", "l"),
        ("uncompacted index", "xn"),
        ("compacted epoch", "xs"),
        ("compacted range", "xr"),
        ("epoch marker", "xe"),
        ("watermark", "xw"),
        ("session marker", "s"),
        ("data pack", "p"),
        ("metadata pack", "q"),
        ("schedule", "kopia.maintenance"),
        ("format", "kopia.repository"),
        ("blob settings", "kopia.blobcfg"),
        ("lease", "verger.lease"),
        ("log", "_log_"),
    ];
    let mut targets: Vec<Target> = kinds.iter().filter_map(|(kind, prefix)| before.blob(kind, prefix)).collect();
    targets.push(before.manifest(world, "snapshot manifest", "snapshot"));
    targets.push(before.manifest(world, "parameters", "maintenance"));
    for role in ["directory", "table of a large directory", "seek table", "chunk"] {
        targets.extend(before.object(role));
    }
    targets
}

const COMMON: [&str; 11] = [
    "session marker",
    "data pack",
    "metadata pack",
    "schedule",
    "format",
    "blob settings",
    "lease",
    "log",
    "snapshot manifest",
    "directory",
    "chunk",
];

#[test]
fn r11_each_thing_of_a_repository_with_epochs() {
    let kinds = [&COMMON[..], &["uncompacted index", "watermark", "parameters"]].concat();
    Patient::used("default").matrix(&kinds, &careful(Some(Mode::Full)));
}

#[test]
fn r11_each_thing_of_a_repository_with_the_legacy_index() {
    let kinds = [&COMMON[..], &["legacy index", "compaction log", "clean-up note", "parameters"]].concat();
    Patient::used("format1").matrix(&kinds, &careful(Some(Mode::Full)));
}

#[test]
fn r11_compacted_epochs_and_their_markers() {
    let kinds = ["uncompacted index", "compacted epoch", "compacted range", "epoch marker"];
    Patient::fresh("epochs").matrix(&kinds, &alone(Mode::Full));
}

#[test]
fn r11_seek_tables_and_large_directories() {
    let kinds = ["table of a large directory", "seek table", "directory", "chunk"];
    Patient::fresh("split-fixed-128k-large-dirs").matrix(&kinds, &alone(Mode::Full));
}

#[test]
fn r11_without_margins() {
    for (name, index) in [("default", "uncompacted index"), ("format1", "legacy index")] {
        let kinds = [index, "data pack", "metadata pack", "snapshot manifest", "directory", "chunk"];
        let mut patient = Patient::fresh(name);
        patient.matrix(&kinds, &alone(Mode::Full));
        assert_eq!(patient.rotten, 5, "{name}");
    }
}

#[test]
fn r11_lost_markers_of_all_epochs_stop_everything_and_one_written_by_hand_heals() {
    let mut world = World::golden("epochs", DAY * 2);
    let saved = world.save();
    for request in [alone(Mode::Full), careful(Some(Mode::Full)), careful(Some(Mode::Quick))] {
        world.restore(&saved);
        world.names("xe").keys().for_each(|name| world.lose(&BlobId::new(name.as_str())));
        let before = world.contents();
        let error = world.try_cycle(&request).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{}", error.chain());
        assert!(error.fix().unwrap().contains("xe6"), "{error:?}");
        assert_eq!(changed(&before, &world.contents()), BTreeSet::new());
        world.plant(&BlobId::from("xe6"), "by hand", &BlobId::from("xe6"));
        world.cycle(&request);
    }
}

#[test]
fn parameters_that_cannot_be_read_leave_no_owner_and_that_is_said() {
    let world = World::golden("epochs", DAY * 2);
    let before = Before::of(&world);
    let target = before.manifest(&world, "parameters", "maintenance");
    assert!(target.suffer(&world, &before, Damage::FlipMiddle));
    let damaged = world.contents();
    let error = world.try_cycle(&alone(Mode::Full)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{}", error.chain());
    let content = target.object.unwrap().replace("manifest content ", "");
    let command = format!("verger snapshot abandon --manifest-content {content}");
    assert!(error.fix().unwrap().contains(&command), "{error:?}");
    assert_eq!(changed(&damaged, &world.contents()), BTreeSet::new());
}

/// A watermark hides marks at or below it at once: one from a clock that was ahead would take from a new mark all its time.
#[test]
fn r15_a_watermark_ahead_of_all_clocks_drops_nothing_new() {
    let world = World::golden("default", DAY * 2);
    let ahead = world.now().as_second() + 30 * 86_400;
    world.plant(&BlobId::new(format!("xw{ahead}")), "deletion-watermark", &BlobId::from("x"));
    let entries = |world: &World| {
        let view = world.view();
        view.table.rows().map(|row| (view.table.id(row), view.table.is_deleted(row))).collect::<BTreeSet<_>>()
    };
    let before = entries(&world);
    for _ in 0..3 {
        let report = world.try_cycle(&careful(Some(Mode::Full))).unwrap();
        let named = report.damage.iter().find(|one| one.subject == format!("deletion watermark xw{ahead}"));
        assert!(named.is_some_and(|one| one.text.contains("kopia blob delete xw")), "{:#?}", report.damage);
        assert_eq!(entries(&world), before);
        world.clock.advance(DAY + Duration::from_secs(60));
    }
    world.clock.advance(DAY * 30);
    let report = world.cycle(&careful(Some(Mode::Full)));
    assert!(!report.is_degraded());
    let marks = |world: &World| entries(world).into_iter().filter(|(_, deleted)| *deleted).count();
    assert_eq!(marks(&world), 9);
}
