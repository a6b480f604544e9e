//! The golden repositories: what is read equals what the real program says; a full cycle gives what its own gave.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::{Golden, Kopia, golden_names, json, run};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn ids(list: &Value, key: &str) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|item| text(item, key).to_owned()).collect()
}

fn live(contents: &Value) -> BTreeSet<String> {
    let live = contents.as_array().unwrap().iter().filter(|c| c["deleted"].as_bool() != Some(true));
    live.map(|c| text(c, "contentID").to_owned()).filter(|id| !id.starts_with('m')).collect()
}

fn packs(blobs: &Value) -> usize {
    ids(blobs, "id").iter().filter(|id| id.starts_with(['p', 'q'])).count()
}

fn places(contents: &Value) -> BTreeMap<String, Value> {
    let keys = ["packFile", "packOffset", "length", "originalLength", "deleted", "time"];
    let place = |c: &Value| Value::Array(keys.iter().map(|key| c[key].clone()).collect());
    contents.as_array().unwrap().iter().map(|c| (text(c, "contentID").to_owned(), place(c))).collect()
}

fn reads_as_the_real_program(golden: &Golden) {
    let before = &golden.expect["before"];
    let name = &golden.name;
    assert_eq!(places(&golden.inspect("contents", &["--deleted"])), places(&before["contents"]), "{name}: contents");
    let lengths = |list: &Value| -> BTreeMap<String, u64> {
        list.as_array().unwrap().iter().map(|b| (text(b, "id").to_owned(), b["length"].as_u64().unwrap())).collect()
    };
    assert_eq!(lengths(&golden.inspect("blobs", &[])), lengths(&before["blobs"]), "{name}: blobs");
    assert_eq!(ids(&golden.inspect("indexes", &[]), "id"), ids(&before["indexes"], "id"), "{name}: indexes");
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        list.as_array().unwrap().iter().map(|item| (text(item, "id").to_owned(), item.clone())).collect()
    };
    assert_eq!(by_id(&golden.inspect("manifests", &[])), by_id(&before["manifests"]), "{name}: manifests");
    assert_eq!(by_id(&golden.inspect("snapshots", &[])), by_id(&before["snapshots"]), "{name}: snapshots");
    assert_eq!(golden.inspect("status", &[]), before["status"], "{name}: status");
}

fn a_cycle_gives_what_the_real_program_gave(golden: &Golden) {
    let (name, after) = (&golden.name, &golden.expect["after"]);
    let address = golden.address();
    let flags = [
        "maintain",
        "--full",
        "--safety",
        "none",
        "--i-am-alone",
        "--allow-removing",
        "100",
        "--act-as",
        support::OWNER,
    ];
    let report = json(&run(golden.verger(flags).arg("--json").arg(&address)));
    let want = &after["maintenance"]["schedule"]["runs"]["snapshot-gc"][0]["extra"][0]["data"];
    assert_eq!(&report["tasks"]["snapshot-gc"], want, "{name}: snapshot-gc");
    assert_eq!(live(&golden.inspect("contents", &[])), live(&after["contents"]), "{name}: live contents");
    assert!(packs(&golden.inspect("blobs", &[])) <= packs(&after["blobs"]) + 1, "{name}: packs are left behind");
    assert_eq!(ids(&golden.inspect("snapshots", &[]), "id"), ids(&after["snapshots"], "id"), "{name}: snapshots");
    let epochs = golden.expect["before"]["status"]["contentFormat"]["epochParameters"]["Enabled"].as_bool();
    let mut tasks =
        vec!["snapshot-gc", "full-rewrite-contents", "full-drop-deleted-content", "full-delete-blobs", "cleanup-logs"];
    if epochs == Some(true) {
        tasks.extend(["compact-single-epoch", "advance-epoch", "generate-epoch-range-index"]);
        tasks.extend(["cleanup-epoch-markers", "delete-superseded-epoch-indexes"]);
    }
    for task in &tasks {
        assert!(
            !report["tasks"][task].is_null() || report["tasks"].get(task).is_some(),
            "{name}: no {task} in the report"
        );
    }
    run(golden.verger(["verify", "--full"]).arg(&address));
    let Some(kopia) = Kopia::connect(&golden.repository()) else { return };
    kopia.verifies();
    let info = json(&run(kopia.command(["maintenance", "info", "--json"])));
    for task in &tasks {
        assert_eq!(info["schedule"]["runs"][task][0]["success"], true, "{name}: kopia sees no successful {task}");
    }
    // It can go on making snapshots.
    let tree = golden.folder.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("new.txt"), "a file that was not there before").unwrap();
    run(kopia.command(["snapshot", "create", "--no-progress", "--no-auto-maintenance"]).arg(&tree));
    kopia.verifies();
}

fn all(from: usize) {
    // Two halves, so that two cores share them.
    for name in golden_names().into_iter().skip(from).step_by(2) {
        let golden = Golden::unpack(&name);
        reads_as_the_real_program(&golden);
        a_cycle_gives_what_the_real_program_gave(&golden);
    }
}

#[test]
fn s8_first_half_of_the_golden_repositories() {
    all(0);
}

#[test]
fn s8_second_half_of_the_golden_repositories() {
    all(1);
}

/// Epochs as the real program lists them, without dates and times: those of what was just written differ.
fn epochs_as_kopia_lists_them(kopia: &Kopia) -> String {
    let output = run(kopia.command(["index", "epoch", "list"]));
    let words = String::from_utf8(output.stdout).unwrap();
    let is_time = |word: &&str| word.matches(':').count() == 2 || word.matches('-').count() == 2;
    let line = |line: &str| line.split_whitespace().filter(|word| !is_time(word)).collect::<Vec<_>>().join(" ");
    words.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_index_cycle_leaves_epochs_as_the_real_quick_one_does() {
    for name in ["epochs", "default"] {
        let (ours, theirs) = (Golden::unpack(name), Golden::unpack(name));
        let address = ours.address();
        let packs = |golden: &Golden| -> BTreeSet<String> {
            let mut names = ids(&golden.inspect("blobs", &[]), "id");
            names.retain(|id| id.starts_with(['p', 'q', 's', '_']));
            names
        };
        let before = packs(&ours);
        let plan = json(&run(ours.verger(["plan", "--index", "--json"]).arg(&address)));
        assert_eq!((&plan["outcome"], &plan["mode"]), (&"planned".into(), &"index".into()));
        let flags = ["maintain", "--index", "--json", "--act-as", support::OWNER];
        let report = json(&run(ours.verger(flags).arg(&address)));
        assert_eq!((&report["outcome"], &report["mode"]), (&"done".into(), &"index".into()));
        let tasks: Vec<&String> = report["tasks"].as_object().unwrap().keys().collect();
        assert_eq!(tasks, ["advance-epoch", "compact-single-epoch"]);
        assert_eq!(packs(&ours), before, "{name}: packs, markers and logs stay");
        run(ours.verger(["verify", "--full"]).arg(&address));
        let Some(kopia) = Kopia::connect(&theirs.repository()) else { return };
        run(kopia.command(["maintenance", "run", "--no-full", "--safety=full"]));
        let mine = Kopia::connect(&ours.repository()).unwrap();
        assert_eq!(epochs_as_kopia_lists_them(&mine), epochs_as_kopia_lists_them(&kopia), "{name}");
        let info = json(&run(mine.command(["maintenance", "info", "--json"])));
        for task in tasks {
            assert_eq!(info["schedule"]["runs"][task][0]["success"], true, "{name}: kopia sees no successful {task}");
        }
        mine.verifies();
    }
}
