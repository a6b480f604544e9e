//! The way out of damage (R11), through the real binary: the message of a degraded cycle names a command, the command tells what is
//! lost and asks, and the next full cycle goes through and cleans up.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::{Golden, Kopia, OWNER, fails, json, run};

const NONE: [&str; 9] =
    ["maintain", "--full", "--json", "--act-as", OWNER, "--safety", "none", "--i-am-alone", "--allow-removing=100"];

fn maintain(golden: &Golden) -> Command {
    let mut command = golden.verger(NONE);
    command.arg(golden.address());
    command
}

/// Flips a bit in the stored bytes of a content.
fn damage(golden: &Golden, id: &str) {
    let contents = golden.inspect("contents", &[]);
    let row = contents.as_array().unwrap().iter().find(|row| row["contentID"] == id).unwrap().clone();
    let name = format!("{}.f", row["packFile"].as_str().unwrap());
    let root = golden.repository();
    let is_pack = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_string_lossy().replace('/', "") == name;
    let (path, mut bytes) = golden.bytes().into_iter().find(|(path, _)| is_pack(path)).unwrap();
    bytes[usize::try_from(row["packOffset"].as_u64().unwrap()).unwrap() + 20] ^= 4;
    let old = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
}

/// The last line of a degraded cycle, and its report.
fn degraded(golden: &Golden) -> (String, Value) {
    let output = maintain(golden).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(14), "{errors}");
    (errors.lines().last().unwrap().to_owned(), json(&output))
}

/// The words of the command between backquotes that begins so.
fn command_in(line: &str, begins: &str) -> Vec<String> {
    let commands = line.split('`').skip(1).step_by(2);
    let command = commands.into_iter().find(|command| command.starts_with(begins));
    let command = command.unwrap_or_else(|| panic!("no {begins} in {line}"));
    command.split(' ').skip(1).map(str::to_owned).collect()
}

/// The command in each of its forms; `words` are in what it says is lost.
fn gives_up(golden: &Golden, command: &[String], words: &[&str]) {
    let address = golden.address();
    let before = golden.bytes();
    let with = |more: &[&str]| {
        let words = command.iter().map(String::as_str).chain(more.iter().copied()).chain([address.as_str()]);
        golden.verger(words)
    };
    let asks = fails(&mut with(&[]), 2);
    assert!(asks.contains("a person's word") && asks.contains("--yes"), "{asks}");
    fails(&mut with(&["--yes", "--dry-run"]), 2);
    let would = run(&mut with(&["--dry-run"]));
    assert!(String::from_utf8_lossy(&would.stdout).contains("Nothing was changed"));
    let document = json(&run(&mut with(&["--dry-run", "--json"])));
    assert_eq!((&document["dryRun"], document["indexBlobs"].as_array().unwrap().len()), (&true.into(), 0));
    let lost =
        document["lost"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n");
    for word in words {
        assert!(lost.contains(word), "{word:?} is not in {lost}");
    }
    assert_eq!(golden.bytes(), before, "not confirmed");
    let done = json(&run(&mut with(&["--yes", "--json"])));
    assert_eq!((&done["dryRun"], &done["lost"]), (&false.into(), &document["lost"]));
    assert_eq!(done["indexBlobs"].as_array().unwrap().len(), 1);
    let after = golden.bytes();
    let new: BTreeSet<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)) && new.len() <= 3, "{new:?}");
    fails(&mut with(&["--yes"]), 2);
}

fn cleans_up(golden: &Golden, without: &str) {
    let report = json(&run(&mut maintain(golden)));
    assert_eq!((&report["outcome"], report["damage"].as_array().unwrap().len()), (&"done".into(), 0));
    assert!(report["tasks"].get("snapshot-gc").is_some(), "{report}");
    run(&mut golden.verger(["verify", "--full", &golden.address()]));
    let contents = golden.inspect("contents", &[]);
    assert!(contents.as_array().unwrap().iter().all(|row| row["contentID"] != without), "{without} is still there");
    if let Some(kopia) = Kopia::connect(&golden.repository()) {
        kopia.verifies();
    }
}

fn roots(golden: &Golden) -> BTreeMap<String, String> {
    let snapshots = golden.inspect("snapshots", &[]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    snapshots.as_array().unwrap().iter().map(|one| (text(&one["id"]), text(&one["rootEntry"]["obj"]))).collect()
}

#[test]
fn r11_an_unreadable_directory_is_given_up_with_its_snapshot() {
    for name in ["default", "format1"] {
        let golden = Golden::unpack(name);
        let (id, root) = roots(&golden).into_iter().next_back().unwrap();
        damage(&golden, &root);
        let (line, _) = degraded(&golden);
        let command = command_in(&line, "verger snapshot abandon");
        assert_eq!(command, ["snapshot", "abandon", &id], "{line}");
        gives_up(&golden, &command, &[&format!("Lost for ever: snapshot {id}"), "source: ", "damage: ", &root]);
        assert!(!roots(&golden).contains_key(&id));
        cleans_up(&golden, &root);
    }
}

#[test]
fn r11_an_unreadable_content_with_manifests_is_given_up() {
    for name in ["default", "format1"] {
        let golden = Golden::unpack(name);
        let contents = golden.inspect("contents", &[]);
        let ids = contents.as_array().unwrap().iter().map(|row| row["contentID"].as_str().unwrap());
        let before = roots(&golden).len();
        let mut found = None;
        for id in ids.filter(|id| id.starts_with('m')).take(2) {
            let copy = Golden::unpack(name);
            damage(&copy, id);
            let (line, report) = degraded(&copy);
            assert!(
                report["damage"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|one| one["subject"] == format!("manifest content {id}"))
            );
            let command = command_in(&line, "verger snapshot abandon");
            assert_eq!(command, ["snapshot", "abandon", "--manifest-content", id], "{line}");
            found = Some((copy, id.to_owned(), command));
        }
        let (copy, id, command) = found.unwrap();
        gives_up(&copy, &command, &["all manifests in content", &id, "cannot be read"]);
        // A deletion that was recorded there is forgotten with the rest: its snapshot may be back.
        assert!(roots(&copy).len() <= before + 1);
        cleans_up(&copy, &id);
    }
}

#[test]
fn r11_a_lost_index_names_its_own_way_out() {
    let golden = Golden::unpack("format1");
    let largest = golden
        .bytes()
        .into_iter()
        .filter(|(path, _)| path.strip_prefix(golden.repository()).unwrap().to_string_lossy().starts_with('n'));
    let (path, bytes) = largest.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    fs::remove_file(&path).unwrap();
    let (line, _) = degraded(&golden);
    assert_eq!(command_in(&line, "kopia index recover"), ["index", "recover"], "{line}");
    let text = golden.verger(&NONE[..2]).args(["--act-as", OWNER, &golden.address()]).output().unwrap();
    assert!(
        String::from_utf8_lossy(&text.stdout)
            .contains("Way out: bring the lost index back, from a copy or with `kopia index recover`")
    );
    fs::write(&path, bytes).unwrap();
    run(&mut maintain(&golden));
}

#[test]
fn help_says_what_it_does_and_shows_how() {
    let golden = Golden::unpack("default");
    for words in [&["snapshot", "--help"][..], &["snapshot", "abandon", "--help"]] {
        let help = String::from_utf8(run(&mut golden.verger(words)).stdout).unwrap();
        assert!(help.contains("Examples:") && help.contains("--manifest-content m"), "{help}");
    }
    let help = String::from_utf8(run(&mut golden.verger(["snapshot", "abandon", "--help"])).stdout).unwrap();
    for word in ["--yes", "--dry-run", "kopia snapshot fix invalid-files", "Manifest ID"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let both = ["snapshot", "abandon", "--yes", "--manifest-content", "m00", "x", &golden.address()];
    fails(&mut golden.verger(both), 2);
    fails(&mut golden.verger(["snapshot", "abandon", "--yes"]), 2);
}
