//! Names, counts and texts that no client would write: refused or left alone, named, and never a hang, a panic or a deletion.

#![allow(clippy::unwrap_used)]

#[path = "support/client.rs"]
mod client;
#[path = "support/small.rs"]
mod small;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use client::{Client, Trust};
use serde_json::Value;
use small::{Small, fill};
use store::{World, alone, careful};
use support::{Golden, OWNER, run};
use verger_kopia::content::Entry;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::manifest::ManifestEntry;
use verger_kopia::manifest::entry::{encode, new_id};
use verger_kopia::storage::BlobId;
use verger_kopia::{ErrorKind, Result};

const DAY: Duration = Duration::from_secs(24 * 3600);
const FULL: [&str; 6] = ["maintain", "--full", "--json", "--exclusive", "--act-as", OWNER];
const NONE: [&str; 9] =
    ["maintain", "--full", "--json", "--act-as", OWNER, "--safety", "none", "--i-am-alone", "--allow-removing=100"];

#[test]
fn odd_names_in_the_store_are_left_alone() {
    for name in ["default", "format1"] {
        let world = World::golden(name, DAY * 30);
        let long = "p".repeat(240);
        let mut odd = vec![
            "p",
            "q",
            "q_",
            "s",
            "s-",
            "photos",
            "Pff",
            "pAB-s1",
            &long,
            "verger.note",
            "kopia.mine",
            "_log",
            "README",
            "ü",
        ];
        if name == "default" {
            odd.extend([
                "x", "xn", "xq0_1", "xs", "xs_1", "xr", "xr0", "xr0_1", "xe", "xw", "xwx", "xe-1", "n", "m", "l", "nff",
            ]);
        } else {
            odd.extend(["x", "xn0_zzz", "xe9"]);
        }
        for one in &odd {
            world.plant(&BlobId::new(*one), "odd", &BlobId::from("kopia.repository"));
        }
        let report = world.try_cycle(&alone(Mode::Full)).unwrap();
        // The names of markers that tell no session are named.
        assert!(report.damage.iter().all(|one| one.subject.starts_with('s')), "{:?}", report.damage);
        let left = world.names("");
        let gone: Vec<_> = odd.iter().filter(|one| !left.contains_key(**one)).collect();
        assert!(gone.is_empty(), "{name}: {gone:?}");
        world.assert_whole("odd names");
    }
    // What looks like an index blob, and is none, may be one that rotted.
    for (name, blob) in [("default", "xn0_zzz"), ("format1", "n"), ("format1", "m")] {
        let world = World::golden(name, DAY * 30);
        world.plant(&BlobId::from(blob), "odd", &BlobId::from("kopia.repository"));
        let before = world.contents();
        let error = world.try_cycle(&alone(Mode::Full)).unwrap_err();
        assert!(error.kind() == ErrorKind::Damaged && error.chain().contains(blob), "{}", error.chain());
        assert!(
            world.contents().iter().all(|(id, data)| before.get(id) == Some(data) || id.as_str() == "verger.lease")
        );
    }
}

/// A content whose entry says something impossible, needed by nobody.
fn entry_like(world: &World, change: impl FnOnce(&mut Entry)) -> Entry {
    let view = world.view();
    let row = view.table.rows().find(|row| !view.table.is_deleted(*row) && view.table.prefix(*row) == 0).unwrap();
    let mut entry = view.table.entry(row);
    entry.id = "00112233445566778899aabbccddeeff".parse().unwrap();
    entry.timestamp -= 40 * 86_400;
    change(&mut entry);
    entry
}

#[test]
fn index_entries_that_name_impossible_places() {
    type Change = fn(&mut Entry);
    let cases: [(&str, Change); 8] = [
        ("beyond the end", |entry| entry.offset = 0x7fff_ffff),
        ("4 GiB long", |entry| entry.packed_length = u32::MAX >> 4),
        ("a bomb", |entry| entry.original_length = u32::MAX >> 4),
        ("nothing", |entry| entry.packed_length = 0),
        ("an odd name", |entry| entry.pack = "p..q/x".into()),
        ("no name", |entry| entry.pack = "".into()),
        ("a long name", |entry| entry.pack = BlobId::new("p".repeat(250))),
        ("far in the future", |entry| entry.timestamp = i64::from(u32::MAX)),
    ];
    let mut world = World::golden("default", DAY * 2);
    let saved = world.save();
    for (what, change) in cases {
        for deleted in [false, true] {
            world.restore(&saved);
            let entry = entry_like(&world, |entry| {
                change(entry);
                entry.deleted = deleted;
            });
            let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                Client::new(&world.outside, Trust::Live).index(vec![entry]);
            }));
            if written.is_err() {
                // Not even our own writer puts this into an index; the parser's tests have it.
                continue;
            }
            for request in [careful(Some(Mode::Full)), alone(Mode::Full)] {
                let before = world.contents();
                let outcome = world.try_cycle(&request);
                if outcome.is_err() {
                    let after = world.contents();
                    let same = |(id, data): (&BlobId, _)| after.get(id) == Some(data) || id.as_str() == "verger.lease";
                    assert!(before.iter().all(same), "{what}: refused, and something changed");
                }
                check(&world, what, outcome);
            }
        }
    }
}

/// Done, degraded or refused; and every snapshot is whole.
fn check(world: &World, what: &str, outcome: Result<verger::embedded::CycleReport>) {
    if let Err(error) = outcome {
        assert!(
            matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported),
            "{what}: {:?} {}",
            error.kind(),
            error.chain()
        );
        return;
    }
    let problems = world.verify().problems;
    let snapshots: Vec<_> = problems.iter().filter(|problem| !problem.snapshots.is_empty()).collect();
    assert!(snapshots.is_empty(), "{what}: {snapshots:#?}");
}

/// A snapshot whose root is this text, and what a cycle says of it.
fn with_root(world: &World, root: &[u8]) -> (String, verger::embedded::CycleReport) {
    let client = Client::new(&world.outside, Trust::Live);
    let id = verger_kopia::content::ContentId::new(b'k', world.outside.hasher().hash(root)).unwrap();
    let now = world.now();
    let manifest = new_id();
    let body = serde_json::json!({"id": manifest, "source": {"host": "h", "userName": "u", "path": "/"},
        "startTime": now.to_string(), "endTime": now.to_string(), "rootEntry": {"name": "x", "type": "d", "obj": id.to_string()}});
    let labels = [("type", "snapshot"), ("hostname", "h"), ("username", "u"), ("path", "/")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let data = serde_json::value::RawValue::from_string(body.to_string()).unwrap();
    let entry = ManifestEntry::put(manifest, labels, now, data);
    client.write(&[(b'k', root.to_vec()), (b'm', encode(&[entry]))]);
    (id.to_string(), world.try_cycle(&careful(Some(Mode::Full))).unwrap())
}

#[test]
fn directories_that_no_client_writes() {
    let stream = |entries: &str| format!(r#"{{"stream":"kopia:directory","entries":{entries},"summary":null}}"#);
    let many: String = (0..200_000).map(|n| format!(r#""a{}":{n},"#, n % 2)).collect();
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("deep", "[".repeat(100_000).into_bytes()),
        ("deep inside", stream(&"[".repeat(100_000)).into_bytes()),
        ("not JSON", b"{\"stream\":\"kopia:directory\",\"entries\":[}".to_vec()),
        ("cut", stream("[").into_bytes()[..30].to_vec()),
        ("an object for entries", stream(r#"{"name":"x"}"#).into_bytes()),
        ("an entry is an array", stream(r#"[["x","f","k00"]]"#).into_bytes()),
        ("an odd object", stream(r#"[{"name":"x","type":"f","obj":"../../etc"}]"#).into_bytes()),
        ("no content", stream(r#"[{"name":"x","type":"d","obj":""}]"#).into_bytes()),
        ("nothing", b"  ".to_vec()),
    ];
    let mut world = World::golden("default", DAY * 2);
    let saved = world.save();
    for (what, root) in bad {
        world.restore(&saved);
        let (id, report) = with_root(&world, &root);
        assert!(report.is_degraded(), "{what}");
        let named = report.damage.iter().find(|one| one.subject == id);
        assert!(named.is_some_and(|one| one.paths == ["/"] && one.snapshots.len() == 1), "{what}: {:?}", report.damage);
        assert!(!report.tasks.contains_key("snapshot-gc"), "{what}");
    }
    let file = |more: &str| stream(&format!(r#"[{{{more}"name":"x","type":"f","size":1}}]"#)).into_bytes();
    let good: Vec<(&str, Vec<u8>)> = vec![
        ("a million keys", file(&many)),
        ("numbers", file(r#""mtime":1e999,"size":-1e-999,"uid":99999999999999999999999,"#)),
        (
            "names",
            stream(r#"[{"name":"a\u0000/..","type":"f"},{"name":"..","type":"s"},{"name":"","type":"f"}]"#)
                .into_bytes(),
        ),
        (
            "invalid UTF-8",
            [&b"{\"stream\":\"kopia:directory\",\"entries\":[{\"name\":\"\xff\xfe\",\"type\":\"f\"}]}"[..]].concat(),
        ),
    ];
    for (what, root) in good {
        world.restore(&saved);
        let (_, report) = with_root(&world, &root);
        // Read or refused: what counts is that it ends, and that refused means frozen.
        assert!(!report.is_degraded() || !report.tasks.contains_key("snapshot-gc"), "{what}: {:?}", report.damage);
    }
}

#[test]
fn a_lease_and_a_state_that_nobody_would_write() {
    let big = r#"{"uniqueID":"x","term":18446744073709551615}"#;
    let mut world = World::golden("default", DAY * 2);
    let saved = world.save();
    for lease in ["", "{}", "[]", "null", big, "\u{0}", "{\"term\":-1}"] {
        world.restore(&saved);
        world.plant(&BlobId::from("verger.lease"), lease, &BlobId::from("kopia.repository"));
        let before = world.contents();
        let error = world.try_cycle(&careful(Some(Mode::Full))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{lease}: {}", error.chain());
        assert!(error.fix().unwrap().contains("delete that object") && world.contents() == before, "{lease}");
    }
    // The last of all terms, in a lease that is whole and free.
    world.restore(&saved);
    world.cycle(&careful(Some(Mode::Full)));
    let id = BlobId::from("verger.lease");
    let mut lease: Value = serde_json::from_slice(&world.contents()[&id]).unwrap();
    lease["term"] = u64::MAX.into();
    world.plant(&id, lease.to_string(), &id);
    let other = tempfile::tempdir().unwrap();
    let means = verger::embedded::Means { state_dir: other.path().to_owned(), ..world.means() };
    let error = verger::embedded::cycle(means, &careful(Some(Mode::Full))).unwrap_err();
    assert!(error.kind() == ErrorKind::Damaged && error.fix().is_some(), "{}", error.chain());
    // Everything that this machine keeps, damaged: told, and nothing in the store is touched; without it, all goes on.
    world.restore(&saved);
    world.cycle(&careful(Some(Mode::Full)));
    let mut files = Vec::new();
    let mut folders = vec![world.state_dir()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    for path in files {
        let whole = fs::read(&path).unwrap();
        for damaged in [Vec::new(), whole[..whole.len() / 2].to_vec(), whole.iter().map(|byte| byte ^ 0x20).collect()] {
            if damaged == whole {
                continue;
            }
            fs::write(&path, &damaged).unwrap();
            let outcome = world.try_cycle(&careful(Some(Mode::Full)));
            world.assert_whole(&format!("{} damaged: {outcome:?}", path.display()));
            if let Err(error) = outcome {
                let text = format!("{}: {:?} {}", path.display(), error.kind(), error.chain());
                assert!(error.fix().is_some(), "{text}: no fix");
                assert!(
                    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Permission | ErrorKind::Unsupported),
                    "{text}"
                );
            }
            fs::write(&path, &whole).unwrap();
            world.clock.advance(Duration::from_secs(600));
        }
    }
}

/// A golden repository that belongs to nobody, and commands in nobody's name; `None`, and a word, where that cannot be.
struct Nobody(Golden);

const NOBODY: u32 = 65_534;

impl Nobody {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            support::skipped("not root: rights are not tried in another's name");
            return None;
        }
        let golden = Golden::unpack("default");
        fs::set_permissions(golden.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(golden.folder.path().join("home")).unwrap();
        fn give(path: &Path) {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            if path.is_dir() {
                fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
            }
        }
        give(golden.folder.path());
        let nobody = Self(golden);
        let version = nobody.command(&["--version"]).output();
        if !version.is_ok_and(|output| output.status.success()) {
            support::skipped("the binary cannot be run in another's name here");
            return None;
        }
        Some(nobody)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.0.verger(words);
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        command
    }

    /// Exit code, last line and report of a cycle.
    fn maintain(&self, words: &[&str]) -> (Option<i32>, String, Value) {
        let output = self.command(&[words, &[&self.0.address()]].concat()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code(), errors.lines().last().unwrap_or_default().to_owned(), report)
    }

    fn pack(&self) -> PathBuf {
        let root = self.0.repository();
        let is_pack = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_string_lossy().starts_with("q");
        self.0.bytes().into_keys().find(is_pack).unwrap()
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn no_right_to_write_to_read_or_to_delete() {
    let Some(nobody) = Nobody::new() else { return };
    let root = nobody.0.repository();
    let before = nobody.0.bytes();
    let unchanged = |what: &str| {
        let after = nobody.0.bytes();
        assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "{what} changed something");
    };
    mode(&root, 0o500);
    let (code, line, _) = nobody.maintain(&FULL);
    assert_eq!(code, Some(20), "{line}");
    assert!(line.contains("ermission") && line.contains("Give") || line.contains("un as the user"), "{line}");
    unchanged("a folder that cannot be written");
    mode(&root, 0o700);

    for path in [nobody.pack(), nobody.pack().parent().unwrap().to_owned()] {
        let old = fs::metadata(&path).unwrap().permissions().mode();
        mode(&path, 0);
        let (code, line, _) = nobody.maintain(&NONE);
        assert_eq!(code, Some(20), "{}: {line}", path.display());
        mode(&path, old);
        let after = nobody.0.bytes();
        assert!(before.keys().all(|path| after.contains_key(path)), "{} went", path.display());
    }

    // Folders of packs that cannot be written: new ones go elsewhere, old ones cannot be deleted.
    let of_packs = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_string_lossy().starts_with(['p', 'q']);
    let folders: BTreeSet<PathBuf> = before
        .keys()
        .filter(|path| of_packs(path))
        .filter(|path| path.strip_prefix(&root).unwrap().components().count() > 1)
        .map(|path| path.parent().unwrap().to_owned())
        .collect();
    folders.iter().for_each(|folder| mode(folder, 0o500));
    let (code, line, report) = nobody.maintain(&NONE);
    assert_eq!(code, Some(20), "{line}");
    assert!(line.contains("refused to delete") && line.contains("right to delete"), "{line}");
    let refused = report["refusedDeletes"].as_u64().unwrap();
    assert!(refused > 0 && refused == report["damage"].as_array().unwrap().len() as u64, "{report}");
    folders.iter().for_each(|folder| mode(folder, 0o700));
    let (code, line, _) = nobody.maintain(&NONE);
    assert_eq!(code, Some(0), "{line}");
    run(&mut nobody.0.verger(["verify", "--full", &nobody.0.address()]));
}

#[test]
fn pipes_links_and_folders_among_the_files() {
    let golden = Golden::unpack("default");
    let root = golden.repository();
    let odd = ["pff.f", "q_.f", "xn0_pipe.f", "kopia.pipe.f", "s00.f"];
    for name in odd {
        rustix::fs::mknodat(rustix::fs::CWD, root.join(name), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", root.join("p0123.f")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("q0123.f")).unwrap();
    std::os::unix::fs::symlink(".", root.join("p99")).unwrap();
    fs::create_dir(root.join("qff.f")).unwrap();
    let mut command = golden.verger(NONE);
    let report = support::json(&run(command.arg(golden.address())));
    assert_eq!(report["outcome"], "done");
    for name in odd.iter().chain(&["p0123.f", "q0123.f", "p99", "qff.f"]) {
        assert!(root.join(name).symlink_metadata().is_ok(), "{name} went");
    }
}

#[test]
fn disks_that_are_full() {
    let golden = Golden::unpack("default");
    let Some(small) = Small::mount(2048) else { return };
    // Of the repository.
    let repository = small.0.join("repo");
    run(Command::new("cp").arg("-a").arg(golden.repository()).arg(&repository));
    fill(&small.0);
    let address = format!("filesystem://{}", repository.display());
    let code = |command: &mut Command| {
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), errors.lines().last().unwrap_or_default().to_owned())
    };
    let (exit, line) = code(golden.verger(NONE).arg(&address));
    assert_eq!(exit, Some(23), "{line}");
    assert!(line.contains("Make room"), "{line}");
    run(&mut golden.verger(["verify", "--full", &address]));
    // Of the state: nothing in the repository changes.
    let state = small.0.join("state");
    fs::create_dir_all(&state).unwrap();
    let before = golden.bytes();
    let (exit, line) = code(golden.verger(NONE).arg("--state-dir").arg(&state).arg(golden.address()));
    assert_eq!(exit, Some(23), "{line}");
    assert!(line.contains("--state-dir") || line.contains("ake room"), "{line}");
    let after = golden.bytes();
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "the repository changed");
}
