//! What the binary refuses: the exit code, a last line with what, why and the fix, nothing on standard output, and every byte
//! of the repository as it was.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "support/format.rs"]
mod format;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{Golden, Kopia, OWNER, json as document, run};

/// A full cycle as the owner.
const FULL: [&str; 5] = ["maintain", "--full", "--json", "--act-as", OWNER];
/// The same without margins, whatever it removes.
const NONE: [&str; 9] =
    ["maintain", "--full", "--json", "--act-as", OWNER, "--safety", "none", "--i-am-alone", "--allow-removing=100"];

/// Runs a command that must end with `code`, print nothing, and name all `words` in its last line.
fn says(command: &mut Command, code: i32, words: &[&str]) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{command:?}");
    let last = errors.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("verger: "), "{command:?}\n{errors}");
    for word in words {
        assert!(last.contains(word), "{command:?} lacks {word:?}: {last}");
    }
    last
}

/// As [`says`], and the repository is as it was.
fn refuses(golden: &Golden, command: &mut Command, code: i32, words: &[&str]) {
    let before = golden.bytes();
    says(command, code, words);
    assert_eq!(before, golden.bytes(), "{command:?} changed the repository");
}

fn full(golden: &Golden) -> Command {
    let mut command = golden.verger(FULL);
    command.arg(golden.address());
    command
}

fn without_margins(golden: &Golden) -> Command {
    let mut command = golden.verger(NONE);
    command.arg(golden.address());
    command
}

/// Every command that opens a repository.
fn every_command(golden: &Golden) -> Vec<Command> {
    let address = golden.address();
    let reading = [vec!["inspect", "status"], vec!["inspect", "contents"], vec!["verify"], vec!["plan"]];
    let mut commands: Vec<_> = reading.iter().map(|words| golden.verger(words.iter().chain([&"--json"]))).collect();
    for command in &mut commands {
        command.arg(&address);
    }
    commands.push(full(golden));
    commands
}

fn connection(golden: &Golden, more: &Value) -> PathBuf {
    let path = golden.folder.path().join("repository.config");
    let (user, host) = OWNER.split_once('@').unwrap();
    let storage = json!({"type": "filesystem", "config": {"path": golden.repository()}});
    let mut file = json!({"storage": storage, "hostname": host, "username": user});
    file.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fs::write(&path, file.to_string()).unwrap();
    path
}

/// The file of a blob.
fn file_of(golden: &Golden, blob: &str) -> PathBuf {
    let name = format!("{blob}.f");
    let root = golden.repository();
    let joined = |path: &Path| path.strip_prefix(&root).unwrap().to_string_lossy().replace('/', "");
    golden.bytes().into_keys().find(|path| joined(path) == name).unwrap()
}

/// Blobs with these first letters.
fn blobs(golden: &Golden, letters: &[char]) -> BTreeSet<String> {
    let blobs = golden.inspect("blobs", &[]);
    let ids = blobs.as_array().unwrap().iter().map(|blob| blob["id"].as_str().unwrap().to_owned());
    ids.filter(|id| id.starts_with(letters)).collect()
}

fn truncate(path: &Path, length: usize) {
    let data = fs::read(path).unwrap();
    assert!(data.len() > length);
    fs::write(path, &data[..length]).unwrap();
}

fn flip(path: &Path, offset: usize) {
    let mut data = fs::read(path).unwrap();
    data[offset] ^= 0x10;
    fs::write(path, data).unwrap();
}

/// A row of `inspect contents`.
fn content(golden: &Golden, id: &str) -> Value {
    let contents = golden.inspect("contents", &[]);
    contents.as_array().unwrap().iter().find(|content| content["contentID"] == id).unwrap().clone()
}

#[test]
fn a_wrong_password() {
    let golden = Golden::unpack("default");
    for mut command in every_command(&golden) {
        refuses(
            &golden,
            command.env("KOPIA_PASSWORD", "not it"),
            12,
            &["password", "does not open", "Give the password"],
        );
    }
}

#[test]
fn no_repository() {
    let golden = Golden::unpack("default");
    let folder = golden.folder.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(golden.folder.path().join("file"), "x").unwrap();
    for name in ["folder", "nowhere", "file"] {
        let path = golden.folder.path().join(name);
        let address = format!("filesystem://{}", path.display());
        for words in [&["inspect", "status"][..], &["verify"], &["plan"], &FULL] {
            let words = words.iter().copied().chain([address.as_str()]);
            says(&mut golden.verger(words), 10, &["there is no Kopia repository", &address, "heck the"]);
        }
    }
    assert!(!golden.folder.path().join("nowhere").exists());
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "something was made in an empty folder");
}

#[test]
fn formats_that_are_not_known() {
    type Change = fn(&mut Value);
    let cases: [(Change, &[&str]); 5] = [
        (|format| format["version"] = 4.into(), &["version 4", "1 to 3"]),
        (|format| format["requiredFeatures"] = json!([{"feature": "flux"}]), &["feature \"flux\""]),
        (|format| format["encryption"] = "AES192-GCM-HMAC-SHA256".into(), &["AES192-GCM-HMAC-SHA256"]),
        (|format| format["hash"] = "BLAKE9".into(), &["BLAKE9"]),
        (|format| format["ecc"] = json!("TURBO"), &["TURBO"]),
    ];
    for (change, words) in cases {
        let golden = Golden::unpack("default");
        format::change(&golden, |format| {
            format["eccOverheadPercent"] = 1.into();
            change(format);
        });
        for mut command in every_command(&golden) {
            refuses(&golden, &mut command, 15, words);
        }
    }
}

#[test]
fn i1_an_upgrade_in_progress() {
    let golden = Golden::unpack("default");
    format::change(&golden, |format| {
        format["upgradeLock"] = json!({
            "ownerID": "somebody", "creationTime": "2026-01-01T00:00:00Z", "advanceNoticeDuration": 0,
            "ioDrainTimeout": 900_000_000_000_u64, "message": "back soon",
        });
    });
    for mut command in every_command(&golden) {
        refuses(&golden, &mut command, 18, &["somebody", "upgrade", "back soon", "Wait until the upgrade is done"]);
    }
}

#[test]
fn a_read_only_connection() {
    let golden = Golden::unpack("default");
    let file = connection(&golden, &json!({"readonly": true}));
    let mut command = golden.verger(["maintain", "--full", "--json", "--config-file"]);
    refuses(&golden, command.arg(&file), 20, &["read-only", "Connect without --readonly"]);
    let plan = run(golden.verger(["plan", "--json", "--config-file"]).arg(&file));
    assert_eq!(document(&plan)["outcome"], "planned");
}

#[test]
fn storage_that_cannot_be_written() {
    if rustix::process::geteuid().is_root() {
        return support::skipped("a folder without the right to write does not stop root");
    }
    let golden = Golden::unpack("default");
    let root = golden.repository();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o500)).unwrap();
    refuses(&golden, &mut full(&golden), 20, &["ermission"]);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn no_place_for_the_ledger() {
    let golden = Golden::unpack("default");
    let file = golden.folder.path().join("a-file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let mut command = full(&golden);
        refuses(
            &golden,
            command.arg("--state-dir").arg(&path),
            20,
            &["ledger cannot be kept", "a-file", "--state-dir"],
        );
    }
}

#[test]
fn another_owner_and_both_ways_out() {
    let golden = Golden::unpack("default");
    let words = ["designated user: owner@golden", "--take-ownership", "--act-as owner@golden"];
    let address = golden.address();
    refuses(&golden, &mut golden.verger(["maintain", "--full", "--json", &address]), 13, &words);
    let other = ["maintain", "--json", "--act-as", "me@elsewhere", &address];
    refuses(&golden, &mut golden.verger(other), 13, &[&words[..], &["me@elsewhere"]].concat());
    refuses(&golden, &mut golden.verger(["maintain", "--act-as", "nobody", &address]), 2, &["nobody", "USER@HOST"]);

    assert_eq!(document(&run(&mut full(&golden)))["outcome"], "done");
    let take = ["maintain", "--full", "--json", "--take-ownership", &address];
    assert_eq!(document(&run(&mut golden.verger(take)))["outcome"], "done");
    // Now it is the owner, and the former one is not.
    run(&mut golden.verger(["maintain", "--full", &address]));
    let last = says(&mut full(&golden), 13, &["his is owner@golden", "--take-ownership"]);
    if let Some(kopia) = Kopia::connect(&golden.repository()) {
        let info = document(&run(kopia.command(["maintenance", "info", "--json"])));
        let owner = info["owner"].as_str().unwrap();
        assert!(last.contains(&format!("designated user: {owner}")), "{owner}: {last}");
        kopia.verifies();
    }
}

#[test]
fn a_second_verger_at_the_same_moment() {
    let golden = Golden::unpack("default");
    let lock = fs::File::create(golden.repository().join("verger.lock")).unwrap();
    lock.lock().unwrap();
    refuses(&golden, &mut full(&golden), 11, &["another Verger", "Try again when"]);
    drop(lock);
    run(&mut full(&golden));
}

#[test]
fn a_kopia_of_this_machine_at_work() {
    let golden = Golden::unpack("default");
    let file = connection(&golden, &json!({}));
    let path = format!("{}.mlock", file.display());
    let lock = fs::File::create(path).unwrap();
    lock.lock().unwrap();
    let mut command = golden.verger(["maintain", "--full", "--json", "--config-file"]);
    refuses(&golden, command.arg(&file), 21, &["Kopia is maintaining", ".mlock", "Try again when"]);
    drop(lock);
    run(&mut command);
}

#[test]
fn index_blobs_that_cannot_be_read() {
    for name in ["default", "format1"] {
        let golden = Golden::unpack(name);
        let (blob, file) = blobs(&golden, &['x', 'n'])
            .into_iter()
            .map(|blob| (blob.clone(), file_of(&golden, &blob)))
            .max_by_key(|(_, file)| fs::metadata(file).unwrap().len())
            .unwrap();
        let whole = fs::read(&file).unwrap();
        for damage in [|f: &Path| truncate(f, 300), |f: &Path| flip(f, 100), |f: &Path| truncate(f, 0)] {
            damage(&file);
            for mut command in [full(&golden), without_margins(&golden)] {
                refuses(&golden, &mut command, 17, &["read index blob", &blob, "kopia index recover"]);
            }
            fs::write(&file, &whole).unwrap();
        }
        run(&mut full(&golden));
    }
}

#[test]
fn a_truncated_format_blob() {
    let golden = Golden::unpack("default");
    truncate(&golden.repository().join("kopia.repository.f"), 500);
    for mut command in every_command(&golden) {
        refuses(&golden, &mut command, 17, &["kopia.repository", "from a copy"]);
    }
}

/// Runs a cycle that must come to its end with damage; its report.
fn degraded(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(14), "{command:?}\n{errors}");
    let last = errors.lines().last().unwrap_or_default();
    assert!(last.starts_with("verger: degraded") && last.contains("verger verify"), "{last}");
    let report = document(&output);
    assert_eq!(report["outcome"], "degraded");
    report
}

fn names<'a>(report: &'a Value, subject: &str) -> &'a Value {
    let damage = report["damage"].as_array().unwrap();
    damage.iter().find(|one| one["subject"] == subject).unwrap_or_else(|| panic!("no {subject} in {damage:#?}"))
}

#[test]
fn r11_a_lost_index_blob_removes_nothing() {
    let golden = Golden::unpack("default");
    // The entries of the first session: directories and files of both snapshots.
    let chunk = content(&golden, "0c5a994842967851013184ac58bb88d3");
    let session = chunk["packFile"].as_str().unwrap().split_once('-').unwrap().1.to_owned();
    let lost = blobs(&golden, &['x']).into_iter().find(|blob| blob.contains(&session)).unwrap();
    fs::remove_file(file_of(&golden, &lost)).unwrap();
    let before = golden.bytes();
    for mut command in [without_margins(&golden), full(&golden)] {
        let report = degraded(&mut command);
        let damage = names(&report, "0c5a994842967851013184ac58bb88d3");
        assert_eq!(damage["paths"][0], "dir1/file3.bin");
        assert_eq!(damage["snapshots"].as_array().unwrap().len(), 2, "{damage}");
        assert_eq!(report["freedBytes"], 0);
        let after = golden.bytes();
        for (path, bytes) in &before {
            assert_eq!(after.get(path), Some(bytes), "{} changed or went", path.display());
        }
        let new: BTreeSet<_> =
            after.keys().filter(|path| !before.contains_key(*path)).map(|p| p.file_name().unwrap()).collect();
        let ours = ["kopia.maintenance.f", "verger.lease", "verger.lock"].map(AsRef::as_ref);
        assert!(new.iter().all(|name| ours.contains(name)), "{new:?}");
    }
}

#[test]
fn r11_an_unreadable_directory_stops_marks_and_drops() {
    let golden = Golden::unpack("default");
    let snapshots = golden.inspect("snapshots", &[]);
    let snapshot = snapshots.as_array().unwrap().last().unwrap();
    let root = snapshot["rootEntry"]["obj"].as_str().unwrap();
    let row = content(&golden, root);
    let pack = file_of(&golden, row["packFile"].as_str().unwrap());
    flip(&pack, usize::try_from(row["packOffset"].as_u64().unwrap()).unwrap() + 20);
    let report = degraded(&mut without_margins(&golden));
    let damage = names(&report, root);
    assert_eq!((&damage["paths"][0], &damage["snapshots"][0]), (&json!("/"), &snapshot["id"]));
    for task in ["snapshot-gc", "full-drop-deleted-content"] {
        assert!(report["tasks"].get(task).is_none(), "{task} ran");
        assert!(report["skipped"].as_array().unwrap().iter().any(|skipped| skipped["task"] == task), "{task}");
    }
    let marked = golden.inspect("contents", &["--deleted"]);
    let new = marked.as_array().unwrap().iter().filter(|content| content["deleted"] == true).count();
    assert_eq!(new, 0, "contents were marked");
    assert!(pack.exists(), "the pack of an unreadable directory went");
}

#[test]
fn a_pack_that_a_snapshot_needs_is_cut_or_gone() {
    let damages: [fn(&Path); 2] = [|pack| truncate(pack, 900), |pack| fs::remove_file(pack).unwrap()];
    for damage in damages {
        let golden = Golden::unpack("default");
        let chunk = "bfdbee30034ce7f97b2906313d8c4791";
        let pack = file_of(&golden, content(&golden, chunk)["packFile"].as_str().unwrap());
        damage(&pack);
        for mut command in [full(&golden), without_margins(&golden)] {
            let report = degraded(&mut command);
            let damage = names(&report, chunk);
            assert_eq!(damage["snapshots"], json!(["68988c5292186ef6188d32a922d8d011"]), "{damage}");
            assert_eq!(damage["paths"], json!(["dir2/file0.bin"]), "{damage}");
            assert!(damage["text"].as_str().unwrap().starts_with("its pack p57547b4d1e4"), "{damage}");
            // Bytes of a file protect nothing else: what is unused is still collected.
            assert!(report["tasks"].get("snapshot-gc").is_some(), "{report}");
            assert!(blobs(&golden, &['p']).iter().any(|id| id.starts_with("p57547b4d1e4")) == pack.exists());
        }
    }
}

#[test]
fn a_persons_words() {
    let golden = Golden::unpack("epochs");
    let address = golden.address();
    let alone = ["maintain", "--full", "--json", "--act-as", OWNER, "--safety", "none", &address];
    refuses(&golden, &mut golden.verger(alone), 2, &["--safety none", "--i-am-alone", "without it all margins hold"]);
    let (packs, indexes) = (blobs(&golden, &['p', 'q']), blobs(&golden, &['x']));
    let most = ["maintain", "--full", "--json", "--act-as", OWNER, "--safety", "none", "--i-am-alone", &address];
    says(&mut golden.verger(most), 16, &["removes 58 %", "50 %", "verger plan", "--allow-removing 58"]);
    assert_eq!(
        (packs, indexes),
        (blobs(&golden, &['p', 'q']), blobs(&golden, &['x'])),
        "a refused plan was carried out"
    );
    let report = document(&run(golden.verger(most).arg("--allow-removing=58")));
    assert_eq!(report["outcome"], "done");
    assert!(report["freedBytes"].as_u64().unwrap() > 200_000, "{report}");
    run(&mut golden.verger(["verify", "--full", &address]));
}

#[test]
fn a_refused_cycle_is_not_taken_for_somebody_elses() {
    let golden = Golden::unpack("epochs");
    let address = golden.address();
    let most = ["maintain", "--full", "--json", "--act-as", OWNER, "--safety", "none", "--i-am-alone", &address];
    says(&mut golden.verger(most), 16, &[]);
    // It wrote its start into Kopia's schedule: that is no run of Kopia's, and nothing to wait for.
    assert_eq!(document(&run(&mut full(&golden)))["outcome"], "done");
}

#[test]
fn settings_that_are_not_known() {
    let golden = Golden::unpack("default");
    let config = golden.folder.path().join("verger.yaml");
    fs::write(&config, "maintain:\n  fulll: true\n").unwrap();
    let words = ["verger.yaml", "fulll"];
    refuses(&golden, full(&golden).arg("--config").arg(&config), 2, &words);
    let mut flag = golden.verger(["maintain", "--fulll"]);
    let output = flag.arg(golden.address()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}

#[test]
fn backends_that_verger_does_not_reach() {
    let golden = Golden::unpack("default");
    let path = golden.folder.path().join("b2.config");
    let b2 = json!({"storage": {"type": "b2", "config": {"bucket": "b"}}, "hostname": "golden", "username": "owner"});
    fs::write(&path, b2.to_string()).unwrap();
    let words = ["\"b2\"", "filesystem, S3, Google Cloud Storage and Azure", "kopia maintenance run"];
    says(golden.verger(["maintain", "--full", "--config-file"]).arg(&path), 15, &words);
}

#[test]
fn nothing_is_due_and_nothing_is_left_to_find() {
    let golden = Golden::unpack("epochs");
    let address = golden.address();
    run(&mut without_margins(&golden));
    let after = golden.bytes();
    let packs = blobs(&golden, &['p', 'q']);
    let due = ["maintain", "--json", "--act-as", OWNER, &address];
    let report = document(&run(&mut golden.verger(due)));
    assert_eq!(report["outcome"], "nothing-due");
    let text = run(&mut golden.verger(["maintain", "--act-as", OWNER, &address]));
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("Nothing is due") && text.contains("`verger maintain --full`"), "{text}");
    assert_eq!(after, golden.bytes(), "something was written though nothing was due");

    let again = document(&run(&mut without_margins(&golden)));
    assert_eq!(again["outcome"], "done");
    assert_eq!((&again["freedBytes"], &again["writtenBytes"]), (&json!(0), &json!(0)));
    assert_eq!(again["tasks"]["snapshot-gc"]["unreferencedContentCount"], 0);
    assert_eq!(again["tasks"]["full-delete-blobs"]["deletedPackCount"], 0);
    assert_eq!(packs, blobs(&golden, &['p', 'q']));
}
