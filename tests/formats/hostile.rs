//! References that make no tree: tables and directories that hold themselves or one another, or multiply without end. Hashes
//! forbid them to whoever hashes, but the key of an item depends on its ID alone, so whoever holds the keys can write them.

use std::sync::mpsc;
use std::time::Duration;

use verger_kopia::maintenance::rules::plan::Mode;

use crate::builder::{Builder, TODAY, directory, entry, noise, seek_table};
use crate::check::solved;
use crate::store::alone;
use verger_worker::task::solve::Wrong;

const PATIENCE: Duration = Duration::from_secs(300);

/// Runs it in a thread of a usual size, and gives up on it after a while.
fn ends<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || sender.send(work()).unwrap()).unwrap();
    let Ok(value) = receiver.recv_timeout(PATIENCE) else {
        assert!(!thread.is_finished(), "{what}: it failed");
        panic!("{what}: it does not end");
    };
    thread.join().unwrap();
    value
}

/// An ID that no bytes have.
fn id(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:032x}")
}

struct Case {
    name: &'static str,
    /// Kind and object of the snapshot's root.
    root: (&'static str, String),
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Odd, and yet it can be read to its end.
    Sound,
    /// Everything that it needs is known, so nothing is frozen; but nobody can restore it.
    Endless,
    /// What it needs cannot be known (R11).
    Damage,
}

use Verdict::{Damage, Endless, Sound};

fn case(name: &'static str, kind: &'static str, root: impl Into<String>, verdict: Verdict) -> Case {
    Case { name, root: (kind, root.into()), verdict }
}

/// What is walked: each case by itself, in a repository with a sound snapshot beside it.
fn walks(build: impl FnOnce(&mut Builder) -> Case) {
    let mut builder = Builder::new(&TODAY);
    let bytes = b"a file that is not concerned".to_vec();
    let object = builder.content("", &bytes);
    builder.file("sound", &object, &bytes);
    builder.snapshot();
    let case = build(&mut builder);
    builder.snapshot_of(case.root.0, &case.root.1);
    builder.from_here_dead();
    builder.content("", &noise(7, 2000));
    builder.finish();
    builder.world.clock.advance(Duration::from_hours(1));
    let name = case.name;
    let builder = ends(name, move || {
        let (used, damages) = solved(&builder.world);
        (builder, used, damages)
    });
    let (builder, used, damages) = builder;
    let is_damage = case.verdict == Damage;
    assert_eq!(!damages.is_empty(), is_damage, "{name}: {damages:?}");
    assert!(damages.iter().all(|d| d.wrong == Wrong::Unreadable && !d.touches.is_empty()), "{name}: {damages:?}");
    assert!(is_damage || used == builder.used, "{name}");
    let (builder, report) = ends(name, move || {
        let report = builder.world.verify();
        (builder, report)
    });
    // Forged contents have other hashes; what the walk says comes under the object's name.
    let found: Vec<_> = report.problems.iter().filter(|p| !p.text.contains("another hash")).collect();
    assert_eq!(!found.is_empty(), case.verdict != Sound, "{name}: {found:?}");
    assert!(found.iter().all(|p| !p.snapshots.is_empty() && !p.paths.is_empty()), "{name}: {found:?}");
    let (world, report) = ends(name, move || {
        let report = builder.world.try_cycle(&alone(Mode::Full));
        (builder.world, report)
    });
    let report = report.unwrap_or_else(|e| panic!("{name}: {}", e.chain()));
    assert_eq!(report.outcome, if is_damage { "degraded" } else { "done" }, "{name}");
    let view = world.view();
    let rows = view.table.rows();
    assert_eq!(rows.filter(|row| view.table.is_deleted(*row)).count(), 0, "{name}: R11, or dropped at once");
}

#[test]
fn a_seek_table_that_names_itself() {
    walks(|b| {
        b.forged(&id("x", 1), seek_table(&[(10, id("Ix", 1))]).as_bytes());
        case("a file in itself", "f", id("Ix", 1), Endless)
    });
}

#[test]
fn a_seek_table_that_is_its_own_table() {
    walks(|b| {
        let length = seek_table(&[(99, id("x", 1))]).len();
        let text = seek_table(&[(length, id("x", 1))]);
        assert_eq!(text.len(), length);
        b.forged(&id("x", 1), text.as_bytes());
        case("a table made of itself", "f", id("IIIx", 1), Sound)
    });
}

#[test]
fn a_directory_whose_seek_table_names_itself() {
    walks(|b| {
        b.forged(&id("k", 1), seek_table(&[(10, id("Ik", 1))]).as_bytes());
        case("a directory in itself", "d", id("Ik", 1), Damage)
    });
}

#[test]
fn seek_tables_that_name_one_another_many_times_over() {
    walks(|b| {
        let many = |other: u32| (0..60).map(|_| (1 << 50, id("Ik", other))).collect::<Vec<_>>();
        b.forged(&id("k", 1), seek_table(&many(2)).as_bytes());
        b.forged(&id("k", 2), seek_table(&many(1)).as_bytes());
        case("two tables, sixty times each other", "d", id("Ik", 1), Damage)
    });
}

#[test]
fn a_file_whose_seek_tables_name_one_another() {
    walks(|b| {
        let many = |other: u32| (0..60).map(|_| (1 << 50, id("Ix", other))).collect::<Vec<_>>();
        b.forged(&id("x", 1), seek_table(&many(2)).as_bytes());
        b.forged(&id("x", 2), seek_table(&many(1)).as_bytes());
        case("a file of two tables", "f", id("Ix", 1), Endless)
    });
}

#[test]
fn seek_tables_that_multiply_level_by_level() {
    walks(|b| {
        let bytes = noise(1, 4);
        let leaf = b.content("", &bytes);
        let (mut object, mut length) = (leaf, bytes.len());
        for level in 0..14u32 {
            let parts: Vec<_> = (0..12).map(|_| (length, object.clone())).collect();
            object = b.table(if level % 2 == 0 { "x" } else { "" }, &parts);
            length *= 12;
        }
        case("twelve to the fourteenth chunks", "f", object, Sound)
    });
}

#[test]
fn a_table_that_multiplies_level_by_level() {
    walks(|b| {
        let bytes = noise(2, 4);
        let leaf = b.content("", &bytes);
        let (mut object, mut length) = (leaf, bytes.len());
        for _ in 0..14u32 {
            let parts: Vec<_> = (0..12).map(|_| (length, object.clone())).collect();
            object = b.table("x", &parts);
            length *= 12;
        }
        case("a table of 10^15 bytes", "f", format!("I{object}"), Damage)
    });
}

#[test]
fn a_directory_that_multiplies_level_by_level() {
    walks(|b| {
        let inner = b.content("", b"x");
        let text = format!("{},", entry("f", "x", &inner, 1));
        let head = b.content("k", b"{\"stream\":\"kopia:directory\",\"entries\":[");
        let (mut object, mut length) = (b.content("k", text.as_bytes()), text.len());
        for _ in 0..12u32 {
            let parts: Vec<_> = (0..10).map(|_| (length, object.clone())).collect();
            object = b.table("k", &parts);
            length *= 10;
        }
        let root = b.table("k", &[(39, head), (length, object)]);
        case("a directory of 10^12 entries", "d", root, Damage)
    });
}

#[test]
fn a_directory_that_lists_itself() {
    walks(|b| {
        let text = directory(&[entry("d", "again", &id("k", 1), 0), entry("d", "other", &id("k", 2), 0)]);
        b.forged(&id("k", 1), text.as_bytes());
        let text = directory(&[entry("d", "back", &id("k", 1), 0)]);
        b.forged(&id("k", 2), text.as_bytes());
        case("a folder in itself", "d", id("k", 1), Endless)
    });
}

#[test]
fn directories_ten_thousand_levels_deep() {
    walks(|b| {
        let leaf = b.content("", b"deep down");
        let mut object = b.content("k", directory(&[entry("f", "leaf", &leaf, 9)]).as_bytes());
        for _ in 0..10_000 {
            object = b.content("k", directory(&[entry("d", "d", &object, 0)]).as_bytes());
        }
        case("a deep tree", "d", object, Sound)
    });
}

#[test]
fn directories_ten_thousand_levels_deep_with_damage_at_the_bottom() {
    walks(|b| {
        let mut object = b.content("k", b"{\"stream\":\"kopia:directory\",\"entries\":[{]}");
        for _ in 0..10_000 {
            object = b.content("k", directory(&[entry("d", "d", &object, 0)]).as_bytes());
        }
        case("a deep tree, damaged", "d", object, Damage)
    });
}

#[test]
fn as_many_levels_of_tables_as_an_id_can_tell() {
    walks(|b| {
        b.forged(&id("x", 1), seek_table(&[(10, id("x", 1))]).as_bytes());
        case("sixteen levels", "f", format!("{}{}", "I".repeat(16), id("x", 1)), Damage)
    });
}
