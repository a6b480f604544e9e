//! What must hold of every repository here, before a cycle, after one without margins, and through days with them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use verger_kopia::content::ContentId;
use verger_kopia::content::read::read_content;
use verger_kopia::error::{Error, Result};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::object::{ObjectId, ObjectReader};
use verger_worker::task::survey::{Reach, Start, survey};
use verger_worker::task::{scan, solve, summary::Summaries};
use verger_worker::workspace::Workspace;

use crate::builder::{Builder, unload};
use crate::store::{World, alone, careful};
use crate::support::{Kopia, json as document, run, verger};
use crate::walker::Oracle;

/// What the real program makes of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// It reads everything.
    Reads,
    /// It stops with this word in its message.
    Refuses(&'static str),
    /// It is not asked.
    Unasked,
}

/// What the solve finds used, on the summaries of a scan and with nothing but the walk; and what is wrong.
pub fn solved(world: &World) -> (BTreeSet<ContentId>, Vec<solve::Damage>) {
    let workspace = Workspace::new(world.outside.clone());
    let survey = survey(&workspace, Reach::All, Start::DryRun, None).unwrap();
    assert!(survey.unreadable.is_empty(), "{}: {:?}", world.name, survey.unreadable);
    let summaries = scan::scan(&workspace, &survey).unwrap();
    let used = solve::solve(&workspace, &survey, &summaries).unwrap();
    let walked = solve::solve(&workspace, &survey, &Summaries::empty()).unwrap();
    assert_eq!(used.rows, walked.rows, "{}: the scan is more than a way to be quick", world.name);
    let objects = |used: &solve::Used| used.damages.iter().map(|d| (d.wrong, d.object.clone())).collect::<Vec<_>>();
    assert_eq!(objects(&used), objects(&walked), "{}", world.name);
    (used.rows.iter().map(|row| survey.view.table.id(row)).collect(), used.damages)
}

/// Bytes of an object, read from the store of this moment.
pub fn read(world: &World, object: &str) -> Result<Vec<u8>> {
    let view = world.view();
    let fetch = |id: &ContentId| {
        let row = view.table.find(id).ok_or_else(|| Error::damaged(format!("no entry of {id}")))?;
        read_content(&world.outside, &view.table.entry(row))
    };
    let mut bytes = Vec::new();
    let mut reader = ObjectReader::open(object.parse::<ObjectId>()?, fetch)?;
    reader.read_to_end(&mut bytes).map_err(|error| Error::damaged("read").with_source(error))?;
    Ok(bytes)
}

/// Everything that snapshots need is found and reads, and nothing else is found.
pub fn is_as_built(builder: &Builder, when: &str) {
    let world = &builder.world;
    let (used, damages) = solved(world);
    assert_eq!(damages, [], "{} {when}", world.name);
    assert_eq!(used, builder.used, "{} {when}", world.name);
    let view = world.view();
    let mut oracle = Oracle::new(&world.outside, &view.table);
    for root in &builder.roots {
        let content = root.trim_start_matches(['I', 'Z', 'D']);
        let kind = if content.starts_with('k') { "d" } else { "f" };
        oracle.entry(&json!({"obj": root, "type": kind}));
    }
    assert_eq!(oracle.used, builder.used, "{} {when}: the slow walk", world.name);
    let report = world.assert_whole(when);
    assert!(report.contents_read >= builder.used.len() as u64);
    for (path, object, bytes) in &builder.files {
        let found = read(world, object).unwrap_or_else(|e| panic!("{} {when}: {path}: {}", world.name, e.chain()));
        assert!(found == *bytes, "{} {when}: {path} ({object})", world.name);
    }
}

fn live(world: &World) -> BTreeSet<ContentId> {
    let view = world.view();
    let rows = view.table.rows().filter(|row| !view.table.is_deleted(*row));
    rows.map(|row| view.table.id(row)).filter(|id| id.prefix() != b'm').collect()
}

/// All of it.
pub fn check(mut builder: Builder, peer: Peer) {
    builder.world.clock.advance(Duration::from_hours(1));
    is_as_built(&builder, "as built");
    let start = builder.world.save();
    with_programs(&builder, peer, "as built");

    let report = builder.world.cycle(&alone(Mode::Full));
    assert_eq!(report.outcome, "done", "{report:?}");
    assert_eq!(live(&builder.world), builder.used, "{}: live after a cycle", builder.world.name);
    is_as_built(&builder, "after a cycle without margins");
    with_programs(&builder, peer, "after a cycle without margins");

    builder.world.restore(&start);
    for day in 0..4 {
        builder.world.clock.advance(Duration::from_hours(25));
        let report = builder.world.cycle(&careful(Some(Mode::Full)));
        assert_eq!(report.outcome, "done", "{report:?}");
        if day == 0 {
            assert_eq!(live(&builder.world), builder.used, "{}: live after a day", builder.world.name);
        }
    }
    let view = builder.world.view();
    let left: Vec<_> = builder.dead.iter().filter(|id| view.table.find(id).is_some()).collect();
    assert!(left.is_empty(), "{}: dead and still there: {left:?}", builder.world.name);
    is_as_built(&builder, "after days with margins");
}

/// Our binary's commands on it, and the real program's.
pub fn with_programs(builder: &Builder, peer: Peer, when: &str) {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    std::fs::create_dir(&repository).unwrap();
    unload(&**builder.world.outside.storage(), &repository);
    let contents = inspects(builder, folder.path(), &repository, when);
    if peer == Peer::Unasked {
        return;
    }
    let Some(kopia) = Kopia::connect(&repository) else { return };
    let name = format!("{} {when}", builder.world.name);
    let list = document(&run(kopia.command(["content", "list", "--long", "--json"])));
    assert_eq!(ids(&list, "contentID"), contents, "{name}: contents");
    if let Peer::Refuses(word) = peer {
        let output = kopia.command(["snapshot", "verify", "--verify-files-percent=100"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(word), "{name}: {text}");
        return;
    }
    kopia.verifies();
    let snapshots = document(&run(kopia.command(["snapshot", "list", "--all", "--json"])));
    assert_eq!(snapshots.as_array().unwrap().len(), builder.roots.len(), "{name}");
    let first = snapshots.as_array().unwrap().iter().find(|s| s["source"]["path"] == "/built/0").unwrap();
    let target = folder.path().join("restored");
    let restore = kopia.command(["snapshot", "restore", first["id"].as_str().unwrap()]);
    run(restore.arg("--skip-owners").arg(&target));
    let mut restored = BTreeMap::new();
    collect(&target, &target, &mut restored);
    let wanted: BTreeMap<_, _> = builder.files.iter().map(|(path, _, bytes)| (path.clone(), bytes.clone())).collect();
    assert!(restored.keys().eq(wanted.keys()), "{name}: {:?}, not {:?}", restored.keys(), wanted.keys());
    assert!(restored == wanted, "{name}: restored with other bytes");
}

fn ids(list: &serde_json::Value, key: &str) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|item| item[key].as_str().unwrap().to_owned()).collect()
}

/// Runs each command of ours that looks; the IDs of live contents.
fn inspects(builder: &Builder, home: &Path, repository: &Path, when: &str) -> BTreeSet<String> {
    let address = format!("filesystem://{}", repository.display());
    let ours = |arguments: &[&str]| {
        let mut command = verger(&home.join("home"));
        run(command.env("KOPIA_PASSWORD", crate::support::PASSWORD).args(arguments).arg(&address))
    };
    let roots = document(&ours(&["inspect", "snapshots", "--json"]));
    let found: BTreeSet<_> =
        roots.as_array().unwrap().iter().map(|s| s["rootEntry"]["obj"].as_str().unwrap()).collect();
    let shown = |root: &String| root.parse::<ObjectId>().unwrap().to_string();
    let wanted: BTreeSet<String> = builder.roots.iter().map(shown).collect();
    assert_eq!(found, wanted.iter().map(String::as_str).collect(), "{}", builder.world.name);
    // One of the largest, and whatever comes last.
    for (path, object, bytes) in
        builder.files.iter().max_by_key(|file| file.2.len()).iter().chain(&builder.files.last())
    {
        assert!(ours(&["inspect", "object", object]).stdout == *bytes, "{}: {path}", builder.world.name);
    }
    let folders = builder.folders.iter().filter(|(_, object)| object.contains('k'));
    for (name, object) in folders.filter(|(name, _)| when == "as built" && !name.starts_with("cd-")) {
        let entries = document(&ours(&["inspect", "object", "--json", object]));
        let names: BTreeSet<_> = entries.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
        let files = builder.files.iter().filter_map(|(path, ..)| path.strip_prefix(name)?.strip_prefix('/'));
        assert_eq!(names, files.collect(), "{}: {name}", builder.world.name);
    }
    ours(&["verify", "--full"]);
    ids(&document(&ours(&["inspect", "contents", "--json"])), "contentID")
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
}
