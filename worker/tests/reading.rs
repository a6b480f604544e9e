//! The reading half of a cycle against the golden repositories, and against the slow way.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod common;
#[path = "common/oracle.rs"]
mod oracle;

use std::collections::BTreeSet;

use common::{GOLDEN, Golden};
use oracle::Oracle;
use verger_kopia::ErrorKind;
use verger_kopia::content::ContentId;
use verger_kopia::maintenance::Margins;
use verger_kopia::maintenance::rules::facts::Frozen;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_worker::limit::MemoryLimit;
use verger_worker::task::plan::{Gathered, Request};
use verger_worker::task::survey::{Reach, Start, Survey, survey};
use verger_worker::task::{check, plan, scan, solve, sweep};
use verger_worker::workspace::Workspace;

fn solved(workspace: &Workspace) -> (Survey, solve::Used) {
    let survey = survey(workspace, Reach::All, Start::DryRun, None).unwrap();
    let summaries = scan::scan(workspace, &survey).unwrap();
    let used = solve::solve(workspace, &survey, &summaries).unwrap();
    (survey, used)
}

fn used_ids(survey: &Survey, used: &solve::Used) -> BTreeSet<ContentId> {
    used.rows.iter().map(|row| survey.view.table.id(row)).collect()
}

#[test]
fn r7_r8_every_golden_repository_uses_exactly_what_the_slow_walk_finds() {
    for name in GOLDEN {
        let golden = Golden::unpack(name);
        let workspace = golden.workspace();
        let (survey, used) = solved(&workspace);
        assert_eq!(used.damages, [], "{name}");
        let mut oracle = Oracle::new(&survey.repository, &survey.view.table);
        for snapshot in golden.expect["before"]["snapshots"].as_array().unwrap() {
            oracle.entry(&snapshot["rootEntry"]);
        }
        assert_eq!(used_ids(&survey, &used), oracle.used, "{name}");
    }
}

#[test]
fn r8_large_directories_are_read_whole() {
    let golden = Golden::unpack("split-fixed-128k-large-dirs");
    let (survey, used) = solved(&golden.workspace());
    let mut oracle = Oracle::new(&survey.repository, &survey.view.table);
    for snapshot in golden.expect["before"]["snapshots"].as_array().unwrap() {
        oracle.entry(&snapshot["rootEntry"]);
    }
    assert_eq!((used_ids(&survey, &used), used.damages), (oracle.used, Vec::new()));
}

#[test]
fn every_golden_repository_gives_the_figures_of_the_real_program() {
    for name in GOLDEN {
        let golden = Golden::unpack(name);
        let workspace = golden.workspace();
        let (survey, used) = solved(&workspace);
        let margins = Margins::none();
        let gc = sweep::sweep(&survey, &used, survey.started.as_second(), &margins).unwrap();
        let theirs = &golden.expect["after"]["maintenance"]["schedule"]["runs"]["snapshot-gc"][0]["extra"][0]["data"];
        assert_eq!(&serde_json::to_value(&gc.stats).unwrap(), theirs, "{name}");

        let request = Request { mode: Mode::Full, margins: &margins, gc_started: survey.started, over: &|_| false };
        let gathered = Gathered::new(&survey, Some(&used), &request).unwrap();
        let body = plan::plan(&gathered).unwrap();
        assert_eq!(body.gc.as_ref().unwrap().mark, gc.mark, "{name}");
        let notes = check::check(&workspace, &survey, &gathered, &body, 100).unwrap();
        verger_kopia::maintenance::rules::check::verdict(&notes).unwrap();

        let mut text = Vec::new();
        plan::lines::write_lines(&body, &survey.view.table, &mut text).unwrap();
        let digest = plan::lines::digest(&body, &survey.view.table);
        assert_eq!(digest, blake3::hash(&text).to_hex().to_string());
        let lines: Vec<serde_json::Value> = text
            .split(|byte| *byte == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        assert_eq!(lines.last().unwrap()["lines"], lines.len() - 1);
        assert_eq!(lines.iter().filter(|line| line.get("mark").is_some_and(|v| v.is_string())).count(), gc.mark.len());
    }
}

/// The pack and the content of the directory object that a snapshot begins with.
fn root_of(survey: &Survey) -> verger_kopia::content::Entry {
    let root = &survey.roots[0];
    survey.view.table.entry(survey.view.table.find(&root.object.content).unwrap())
}

fn flip(file: &std::path::Path, at: u64) {
    let mut permissions = std::fs::metadata(file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(file, permissions).unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

fn planned_frozen(survey: &Survey, used: &solve::Used) -> (Frozen, usize) {
    let margins = Margins::none();
    let request = Request { mode: Mode::Full, margins: &margins, gc_started: survey.started, over: &|_| false };
    let gathered = Gathered::new(survey, Some(used), &request).unwrap();
    let body = plan::plan(&gathered).unwrap();
    (gathered.frozen().0, body.gc.map_or(0, |gc| gc.mark.len()))
}

#[test]
fn r11_a_directory_that_cannot_be_read_freezes_marks_and_is_named_with_its_place() {
    let golden = Golden::unpack("default");
    let (survey, _) = solved(&golden.workspace());
    let root = root_of(&survey);
    flip(&golden.blob_file(root.pack.as_str()), u64::from(root.offset) + 20);
    let (survey, used) = solved(&golden.workspace());
    let [damage] = &used.damages[..] else { panic!("{:?}", used.damages) };
    assert_eq!((damage.wrong, &damage.object), (solve::Wrong::Unreadable, &root.id.to_string()));
    let touches: Vec<_> = damage.touches.iter().map(|t| (t.snapshot.as_str(), t.path.as_str())).collect();
    assert_eq!(touches, [(survey.roots[0].snapshot.as_str(), "")]);
    assert_eq!(planned_frozen(&survey, &used), (Frozen::MarksAndDrops, 0));
}

#[test]
fn a_lower_directory_that_cannot_be_read_is_named_with_its_path() {
    let golden = Golden::unpack("epochs");
    let workspace = golden.workspace();
    let (survey, used) = solved(&workspace);
    // A directory below a root, found with the slow walk's eyes.
    let table = &survey.view.table;
    let root = &golden.expect["before"]["snapshots"][0];
    let read = |object: &str| {
        let row = table.find(&object.parse().unwrap()).unwrap();
        let plain = verger_kopia::content::read::read_content(&survey.repository, &table.entry(row)).unwrap();
        serde_json::from_slice::<serde_json::Value>(&plain).unwrap()
    };
    let listing = read(root["rootEntry"]["obj"].as_str().unwrap());
    let below = listing["entries"].as_array().unwrap().iter().find(|entry| entry["type"] == "d").unwrap();
    let (name, object) = (below["name"].as_str().unwrap(), below["obj"].as_str().unwrap());
    let entry = table.entry(table.find(&object.parse().unwrap()).unwrap());
    assert!(used.damages.is_empty());

    flip(&golden.blob_file(entry.pack.as_str()), u64::from(entry.offset) + 15);
    let (_, used) = solved(&golden.workspace());
    let [damage] = &used.damages[..] else { panic!("{:?}", used.damages) };
    assert_eq!(damage.object, object);
    let here = solve::Touch { snapshot: root["id"].as_str().unwrap().into(), path: name.into() };
    assert!(damage.touches.contains(&here), "{:?}", damage.touches);
}

#[test]
fn r11_s4_packs_of_directories_that_are_gone_or_cut_short_are_damage_not_absence() {
    for cut in [false, true] {
        let golden = Golden::unpack("split-fixed-128k-large-dirs");
        let (survey, _) = solved(&golden.workspace());
        let root = root_of(&survey);
        let file = golden.blob_file(root.pack.as_str());
        if cut {
            let mut permissions = std::fs::metadata(&file).unwrap().permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
            std::fs::set_permissions(&file, permissions).unwrap();
            std::fs::File::options().write(true).open(&file).unwrap().set_len(u64::from(root.offset) + 3).unwrap();
        } else {
            std::fs::remove_file(&file).unwrap();
        }
        let (survey, used) = solved(&golden.workspace());
        // The manifests of some snapshots lie in the same pack.
        let named = used.damages.iter().any(|d| d.object.ends_with(&root.id.to_string()));
        assert!(named || !survey.unreadable.is_empty(), "{:?}", used.damages);
        assert!(used.damages.iter().all(|d| d.wrong == solve::Wrong::Unreadable));
        assert_eq!(planned_frozen(&survey, &used), (Frozen::MarksAndDrops, 0));
    }
}

#[test]
fn r11_a_lost_index_blob_freezes_everything() {
    let golden = Golden::unpack("default");
    let workspace = golden.workspace();
    let (survey, _) = solved(&workspace);
    let roots = survey.roots.clone();
    // Whichever index blob holds a root's directory: without it something that a snapshot needs has no entry.
    let mut frozen = 0;
    for blob in &survey.view.blobs {
        let file = golden.blob_file(blob.id.as_str());
        let kept = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let (survey, used) = solved(&golden.workspace());
        if survey.roots.len() == roots.len() && used.damages.iter().any(|d| d.wrong == solve::Wrong::Missing) {
            assert_eq!(planned_frozen(&survey, &used), (Frozen::Everything, 0));
            assert!(used.damages.iter().all(|damage| !damage.touches.is_empty()), "{:?}", used.damages);
            frozen += 1;
        }
        std::fs::write(&file, kept).unwrap();
    }
    assert!(frozen > 0, "no index blob of this repository mattered");
}

#[test]
fn r7_fetching_everything_by_itself_finds_the_same_as_the_scan() {
    for name in ["default", "epochs", "v1-gzip", "split-fixed-128k-large-dirs"] {
        let golden = Golden::unpack(name);
        let workspace = golden.workspace();
        let (survey, used) = solved(&workspace);
        let none = verger_worker::task::summary::Summaries::empty();
        let walked = solve::solve(&workspace, &survey, &none).unwrap();
        assert_eq!(walked.rows, used.rows, "{name}");
        assert!(walked.fetched > used.fetched);
    }
}

#[test]
fn a_wish_to_stop_and_a_memory_limit_end_it_before_it_begins() {
    let golden = Golden::unpack("default");
    let mut workspace = golden.workspace();
    workspace.memory = MemoryLimit::new(16 << 20);
    let error = survey(&workspace, Reach::All, Start::DryRun, None).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    assert!(error.fix().unwrap().contains("--memory-limit"));
    workspace.memory = MemoryLimit::new(MemoryLimit::DEFAULT_BYTES);
    let survey = survey(&workspace, Reach::All, Start::DryRun, None).unwrap();
    workspace.stop.ask();
    assert_eq!(scan::scan(&workspace, &survey).err().unwrap().kind(), ErrorKind::Interrupted);
}

#[test]
fn looking_up_many_finds_what_looking_up_one_finds() {
    let golden = Golden::unpack("epochs");
    let survey = survey(&golden.workspace(), Reach::All, Start::DryRun, None).unwrap();
    let table = &survey.view.table;
    let mut ids: Vec<ContentId> = table.ids().collect();
    ids.extend(
        ["aabb", "k00112233445566778899aabbccddeeff", "z00112233445566778899aabbccddeeff"]
            .map(|id| id.parse::<ContentId>().unwrap()),
    );
    let mut rows = vec![Some(7)];
    table.find_many(ids.iter(), &mut rows);
    let expected: Vec<_> = std::iter::once(Some(7)).chain(ids.iter().map(|id| table.find(id))).collect();
    assert_eq!(rows, expected);
    assert_eq!(rows[1..=table.len()].iter().flatten().count(), table.len());
}
