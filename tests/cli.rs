//! The command line as people and scripts meet it: help, settings, exit codes, streams.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Golden, OWNER, fails, json, run};

const COMMANDS: &[&[&str]] = &[
    &["demo"],
    &["inspect"],
    &["inspect", "status"],
    &["inspect", "contents"],
    &["inspect", "blobs"],
    &["inspect", "indexes"],
    &["inspect", "epochs"],
    &["inspect", "manifests"],
    &["inspect", "snapshots"],
    &["inspect", "content"],
    &["inspect", "object"],
    &["maintain"],
    &["plan"],
    &["verify"],
    &["snapshot"],
    &["snapshot", "abandon"],
    &["benchmark"],
    &["benchmark", "hashing"],
    &["benchmark", "encryption"],
    &["benchmark", "compression"],
    &["benchmark", "splitter"],
    &["up"],
    &["coordinator"],
    &["worker"],
    &["cluster"],
    &["repo"],
    &["cycle"],
    &["events"],
    &["lease"],
    &["config"],
    &["token"],
    &["login"],
    &["ledger"],
    &["ledger", "verify"],
    &["ledger", "restore"],
    &["completion"],
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn verger(home: &Path, arguments: &[&str]) -> Command {
    let mut command = support::verger(home);
    command.args(arguments);
    command
}

#[test]
fn help_of_every_command_has_examples_and_goes_to_standard_output() {
    let home = tempfile::tempdir().unwrap();
    for command in COMMANDS.iter().chain([&[][..]].iter()) {
        let output = run(verger(home.path(), command).arg("--help"));
        let help = text(&output.stdout);
        assert!(help.contains("Examples:\n  verger "), "{command:?}: {help}");
        assert!(output.stderr.is_empty(), "{command:?}");
    }
    // The table above is all of them: none is in the general help that is not tried here.
    let help = text(&run(&mut verger(home.path(), &["--help"])).stdout);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<_> =
        listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        assert!(COMMANDS.iter().any(|command| command[0] == name), "{name} is not tried");
    }
}

#[test]
fn completion_prints_for_each_shell() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&run(&mut verger(home.path(), &["completion", shell])).stdout);
        assert!(script.contains("verger") && script.contains("inspect"), "{shell}");
    }
    fails(&mut verger(home.path(), &["completion", "basic"]), 2);
}

#[test]
fn what_is_wrong_with_the_call_is_code_2_and_says_the_fix() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("verger.yaml");
    std::fs::write(&config, "engine:\n  memmory-limit: 1GiB\n").unwrap();
    let config = config.to_str().unwrap();
    let unknown = fails(&mut verger(home.path(), &["--config", config, "inspect", "status", "/x"]), 2);
    assert!(unknown.contains("memmory-limit"), "{unknown}");
    let none = fails(&mut verger(home.path(), &["inspect", "status"]), 2);
    assert!(none.contains("no repository is given") && none.contains("s3://bucket/prefix"), "{none}");
    for arguments in [
        &["maintain", "--full", "--quick", "/x"][..],
        &["maintain", "--mark-to-drop", "4", "/x"],
        &["maintain", "--safety", "none", "/x"],
        &["maintain", "--allow-removing", "101", "/x"],
        &["maintain", "--memory-limit", "much", "/x"],
        &["maintain", "--take-ownership", "--act-as", "a@b", "/x"],
        &["verify", "--percent", "200", "/x"],
        &["inspect", "nonsense", "/x"],
        &["inspect", "content", "xyz!", "/x"],
        &["inspect", "status", "ftp://x"],
    ] {
        fails(&mut verger(home.path(), arguments), 2);
    }
}

#[test]
fn a_place_without_a_repository_is_code_10_and_stays_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("note.txt"), "mine").unwrap();
    for command in ["maintain", "plan", "verify"] {
        let address = format!("filesystem://{}", place.display());
        let message = fails(verger(home.path(), &[command, &address]).env("KOPIA_PASSWORD", "x"), 10);
        assert!(message.contains(&address), "{message}");
    }
    let missing = format!("filesystem://{}/missing", place.display());
    fails(verger(home.path(), &["maintain", &missing]).env("KOPIA_PASSWORD", "x"), 10);
    let left: Vec<_> = std::fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["note.txt"]);
    assert_eq!(std::fs::read(place.join("note.txt")).unwrap(), b"mine");
}

#[test]
fn refusals_leave_every_byte_as_it_was() {
    let golden = Golden::unpack("default");
    let (before, address) = (golden.bytes(), golden.address());
    let wrong = fails(golden.verger(["maintain", "--full", &address]).env("KOPIA_PASSWORD", "guess"), 12);
    assert!(wrong.contains("password") && !wrong.contains("guess"), "{wrong}");
    let stranger = fails(&mut golden.verger(["maintain", "--full", &address]), 13);
    assert!(stranger.contains("maintenance must be run by designated user: owner@golden"), "{stranger}");
    assert!(stranger.contains("--take-ownership") && stranger.contains("--act-as owner@golden"), "{stranger}");
    fails(&mut golden.verger(["maintain", "--act-as", "else@where", &address]), 13);
    fails(golden.verger(["maintain", "--full", &address]).env_remove("KOPIA_PASSWORD"), 2);
    run(&mut golden.verger(["plan", &address]));
    run(&mut golden.verger(["maintain", "--full", "--dry-run", &address]));
    assert_eq!(golden.bytes(), before);
}

#[test]
fn backends_that_verger_does_not_reach_are_code_15() {
    let home = tempfile::tempdir().unwrap();
    for address in ["b2://bucket", "sftp://host/path", "webdav://host", "rclone://remote", "gdrive://folder"] {
        let message = fails(&mut verger(home.path(), &["inspect", "status", address]), 15);
        assert!(message.contains("is not supported"), "{message}");
    }
    let connection = home.path().join("repository.config");
    std::fs::write(&connection, r#"{"storage":{"type":"b2","config":{"bucket":"b"}},"hostname":"h","username":"u"}"#)
        .unwrap();
    let file = connection.to_str().unwrap();
    let message = fails(&mut verger(home.path(), &["inspect", "status", "--config-file", file]), 15);
    assert!(message.contains("b2"), "{message}");
}

#[test]
fn flag_comes_before_environment_before_file() {
    let golden = Golden::unpack("default");
    let folder = golden.folder.path();
    let config = folder.join("verger.yaml");
    std::fs::write(&config, format!("repository:\n  repository: {}\n", golden.address())).unwrap();
    let look = |arguments: &[&str]| {
        let mut command = golden.verger(["--config", config.to_str().unwrap(), "inspect", "status", "--json"]);
        command.args(arguments);
        command
    };
    assert_eq!(json(&run(&mut look(&[]))), golden.expect["before"]["status"], "the file alone");
    fails(look(&[]).env("KOPIA_REPOSITORY", "/variable/comes/before/file"), 10);
    let flag = golden.address();
    run(look(&[&flag]).env("KOPIA_REPOSITORY", "/variable/comes/after/flag"));
    // Passwords: a reference that is given comes before KOPIA_PASSWORD.
    let password = folder.join("password");
    std::fs::write(&password, "golden\n").unwrap();
    run(look(&["--password-file", password.to_str().unwrap()]).env("KOPIA_PASSWORD", "wrong"));
    run(look(&["--password-env", "OTHER"]).env("KOPIA_PASSWORD", "wrong").env("OTHER", "golden"));
    fails(look(&["--password-env", "OTHER"]).env("OTHER", "wrong"), 12);
}

#[test]
fn a_connection_file_of_kopias_gives_place_identity_and_password() {
    let golden = Golden::unpack("default");
    let folder = golden.folder.path().join("home/config/kopia");
    std::fs::create_dir_all(&folder).unwrap();
    let (user, host) = OWNER.split_once('@').unwrap();
    let storage = serde_json::json!({ "type": "filesystem", "config": { "path": golden.repository() } });
    let connection = serde_json::json!({ "storage": storage, "username": user, "hostname": host });
    let file = folder.join("repository.config");
    std::fs::write(&file, connection.to_string()).unwrap();
    // "golden" in base64, as Kopia saves it.
    std::fs::write(folder.join("repository.config.kopia-password"), "Z29sZGVu").unwrap();
    let address = golden.address();
    let before = golden.bytes();
    let mut named = golden.verger(["inspect", "status", "--json", "--config-file", file.to_str().unwrap()]);
    assert_eq!(json(&run(named.env_remove("KOPIA_PASSWORD"))), golden.expect["before"]["status"]);
    // The address alone is enough on this machine: found by the store, the owner is who we are.
    let plan =
        json(&run(golden.verger(["maintain", "--full", "--dry-run", "--json", &address]).env_remove("KOPIA_PASSWORD")));
    assert_eq!(plan["outcome"], "planned");
    assert_eq!(golden.bytes(), before);
    let report = json(&run(golden.verger(["maintain", "--full", "--json", &address]).env_remove("KOPIA_PASSWORD")));
    assert_eq!(report["outcome"], "done");
    assert_eq!(report["freedBytes"], 0, "margins must end first");
    assert!(report["next"]["bytes"].as_u64().unwrap() > 0, "{report}");
    for field in ["at", "rule"] {
        assert!(report["next"][field].is_string(), "{report}");
    }
}

#[test]
fn with_json_standard_output_is_one_document_and_logs_go_elsewhere() {
    let golden = Golden::unpack("epochs");
    let address = golden.address();
    let flags =
        ["maintain", "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100", "--act-as", OWNER];
    let output = run(golden.verger(flags).arg("--json").arg(&address));
    let report = json(&output);
    let log = text(&output.stderr);
    for line in ["Running full maintenance...", "GC found ", "Advancing epoch markers...", "Finished full maintenance."]
    {
        assert!(log.contains(line), "{log}");
    }
    let gc = &report["tasks"]["snapshot-gc"];
    assert!(log.contains(&format!("GC found {} unused contents", gc["unreferencedContentCount"])), "{log}");
    for (what, flags) in [("contents", &["--deleted"][..]), ("epochs", &[]), ("snapshots", &[]), ("blobs", &[])] {
        assert!(!golden.inspect(what, flags).is_null());
    }
    let quiet = run(&mut golden.verger(["--quiet", "verify", "--json", &address]));
    assert_eq!(json(&quiet)["problems"], serde_json::json!([]));
    assert!(quiet.stderr.is_empty(), "{}", text(&quiet.stderr));
}

#[test]
fn epochs_of_a_legacy_index_are_code_15() {
    let golden = Golden::unpack("format1");
    let message = fails(&mut golden.verger(["inspect", "epochs", &golden.address()]), 15);
    assert!(message.contains("legacy index"), "{message}");
}

#[test]
fn objects_and_contents_print_their_bytes() {
    let golden = Golden::unpack("default");
    let address = golden.address();
    let root = golden.expect["before"]["snapshots"][0]["rootEntry"]["obj"].as_str().unwrap().to_owned();
    let list = |id: &str| json(&run(&mut golden.verger(["inspect", "object", "--json", id, &address])));
    let entries = list(&root);
    let folders = entries.as_array().unwrap().iter().filter(|entry| entry["type"] == "d");
    let below: Vec<_> = folders.map(|folder| list(folder["obj"].as_str().unwrap())).collect();
    let mut files = below.iter().flat_map(|list| list.as_array().unwrap()).filter(|entry| entry["type"] == "f");
    let file = files.find(|entry| entry["size"].as_u64().is_some_and(|size| size > 0)).unwrap();
    let bytes = run(&mut golden.verger(["inspect", "object", file["obj"].as_str().unwrap(), &address])).stdout;
    assert_eq!(bytes.len() as u64, file["size"].as_u64().unwrap());
    let lines = text(&run(&mut golden.verger(["inspect", "object", &root, &address])).stdout);
    assert_eq!(lines.lines().count(), entries.as_array().unwrap().len());
    let place = json(&run(&mut golden.verger(["inspect", "content", "--json", &root, &address])));
    assert_eq!(place["contentID"], root.as_str());
    let plain = run(&mut golden.verger(["inspect", "content", &root, &address])).stdout;
    assert_eq!(plain.len() as u64, place["originalLength"].as_u64().unwrap());
    assert!(plain.starts_with(br#"{"stream":"kopia:directory""#));
    let absent = "k00000000000000000000000000000000";
    fails(&mut golden.verger(["inspect", "content", absent, &address]), 17);
}

#[test]
fn an_abandoned_snapshot_is_gone_for_the_real_program_too() {
    let golden = Golden::unpack("default");
    let address = golden.address();
    let snapshots = golden.inspect("snapshots", &[]);
    let id = snapshots[0]["id"].as_str().unwrap().to_owned();
    let before = golden.bytes();
    let asks = fails(&mut golden.verger(["snapshot", "abandon", &id, &address]), 2);
    assert!(asks.contains("--yes"), "{asks}");
    fails(&mut golden.verger(["snapshot", "abandon", "--yes", "nosuch", &address]), 2);
    let content = golden.expect["before"]["contents"].as_array().unwrap().iter().find_map(|c| {
        c["contentID"].as_str().filter(|id| id.starts_with('m') && c["deleted"] == false).map(str::to_owned)
    });
    let readable = content.unwrap();
    fails(&mut golden.verger(["snapshot", "abandon", "--yes", "--manifest-content", &readable, &address]), 2);
    assert_eq!(golden.bytes(), before, "nothing was confirmed");
    let output = run(&mut golden.verger(["snapshot", "abandon", "--yes", &id, &address]));
    let lost = text(&output.stderr);
    assert!(lost.contains("backup@app:/data") && lost.contains("No damage was found in it"), "{lost}");
    let left = golden.inspect("snapshots", &[]);
    assert_eq!(left.as_array().unwrap().len(), snapshots.as_array().unwrap().len() - 1);
    assert!(left.as_array().unwrap().iter().all(|snapshot| snapshot["id"] != id.as_str()));
    let sessions = golden.inspect("blobs", &[]);
    assert!(
        sessions.as_array().unwrap().iter().all(|b| !b["id"].as_str().unwrap().starts_with('s')),
        "a marker is left"
    );
    if let Some(kopia) = support::Kopia::connect(&golden.repository()) {
        kopia.verifies();
        let listed = json(&run(kopia.command(["snapshot", "list", "--all", "--incomplete", "--json"])));
        assert_eq!(listed.as_array().unwrap().len(), left.as_array().unwrap().len());
    }
}

#[test]
fn an_unreadable_content_with_manifests_can_be_given_up() {
    let golden = Golden::unpack("default");
    let address = golden.address();
    let contents = golden.inspect("contents", &[]);
    let victim =
        contents.as_array().unwrap().iter().rfind(|c| c["contentID"].as_str().unwrap().starts_with('m')).unwrap();
    let (id, pack) = (victim["contentID"].as_str().unwrap(), victim["packFile"].as_str().unwrap());
    let mut files = golden.bytes().into_iter();
    let (path, mut bytes) =
        files.find(|(path, _)| pack_name(path, &golden.repository()) == format!("{pack}.f")).unwrap();
    let offset = usize::try_from(victim["packOffset"].as_u64().unwrap()).unwrap();
    bytes[offset + 20] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let listed = golden.verger(["inspect", "manifests", "--json", &address]).output().unwrap();
    assert_eq!(listed.status.code(), Some(17));
    run(&mut golden.verger(["snapshot", "abandon", "--yes", "--manifest-content", id, &address]));
    run(&mut golden.verger(["inspect", "manifests", "--json", &address]));
    let marked = golden.inspect("contents", &["--deleted"]);
    let mark = marked.as_array().unwrap().iter().find(|c| c["contentID"] == id).unwrap();
    assert_eq!(mark["deleted"], true);
    assert!(mark["time"].as_i64() > victim["time"].as_i64());
}

/// A blob's file name, joined from the folders that Kopia cuts it into.
fn pack_name(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap().components().map(|part| part.as_os_str().to_str().unwrap()).collect()
}

#[test]
fn damage_is_code_17_with_a_list() {
    let golden = Golden::unpack("default");
    let address = golden.address();
    let contents = golden.inspect("contents", &[]);
    let pack = contents
        .as_array()
        .unwrap()
        .iter()
        .find_map(|c| c["packFile"].as_str().filter(|p| p.starts_with('p')))
        .unwrap();
    let path =
        golden.bytes().into_keys().find(|path| pack_name(path, &golden.repository()) == format!("{pack}.f")).unwrap();
    std::fs::remove_file(path).unwrap();
    let output = golden.verger(["verify", "--json", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(17));
    let problems = &json(&output)["problems"];
    assert!(problems.as_array().unwrap().iter().any(|p| p.to_string().contains(pack)), "{problems}");
    assert!(text(&output.stderr).lines().last().unwrap().contains("is damaged"));
}

#[test]
fn a_second_one_is_locked_out_and_an_interrupted_one_is_continued() {
    let golden = Golden::unpack("epochs");
    let address = golden.address();
    let flags =
        ["maintain", "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100", "--act-as", OWNER];
    let mut slow = golden.verger(flags);
    slow.args(["--requests-per-second", "2", &address]).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut first = slow.spawn().unwrap();
    let lock = golden.repository().join("verger.lock");
    for _ in 0..600 {
        if lock.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // With a state folder of its own, as another user or container would have.
    let elsewhere = golden.folder.path().join("elsewhere");
    let mut second = golden.verger(flags);
    let message = fails(second.arg(&address).env("XDG_STATE_HOME", &elsewhere), 11);
    assert!(message.contains("another Verger"), "{message}");
    run(Command::new("kill").args(["-INT", &first.id().to_string()]));
    let mut errors = String::new();
    std::io::Read::read_to_string(first.stderr.as_mut().unwrap(), &mut errors).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(130), "{errors}");
    run(golden.verger(["verify", "--full"]).arg(&address));
    let report = json(&run(golden.verger(flags).arg("--json").arg(&address)));
    assert_eq!(report["outcome"], "done");
    run(golden.verger(["verify", "--full"]).arg(&address));
}

#[test]
fn the_demo_tells_its_story_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join("tmp");
    std::fs::create_dir(&place).unwrap();
    let story = text(&run(verger(home.path(), &["demo"]).env("TMPDIR", &place)).stdout);
    for words in
        ["BEFORE", "SAFE DEFAULT", "--safety none", "WHY", "INDEPENDENT CHECK", "No damage", "YOUR OWN REPOSITORY"]
    {
        assert!(story.contains(words), "{words} is missing:\n{story}");
    }
    let lines = story.lines().count();
    assert!((24..=42).contains(&lines), "{lines} lines");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0, "the folder is left");
    let story = json(&run(verger(home.path(), &["demo", "--json"]).env("TMPDIR", &place)));
    assert!(story["after"]["bytes"].as_u64() < story["before"]["bytes"].as_u64());
    assert_eq!(story["safeDefault"]["freedBytes"], 0);
}

#[test]
fn a_section_named_after_a_command_gives_its_flags_and_is_checked() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("verger.yaml");
    let file = path.to_str().unwrap();
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        verger(home.path(), &["config", "check", file])
    };
    let data = home.path().join("data");
    let good =
        format!("engine: {{memory-limit: 256MiB}}\nup:\n  data-dir: {}\n  listen: 0.0.0.0:7420\n", data.display());
    run(&mut check(&good));
    // Taken from the file, and refused for what it is; a flag comes before it.
    let public = fails(&mut verger(home.path(), &["--config", file, "up"]), 2);
    assert!(public.contains("0.0.0.0:7420"), "{public}");
    let flag = fails(&mut verger(home.path(), &["up", "--config", file, "--listen", "0.0.0.0:7421"]), 2);
    assert!(flag.contains("0.0.0.0:7421"), "{flag}");
    let mut environment = verger(home.path(), &["--config", file, "up"]);
    let environment = fails(environment.env("VERGER_LISTEN", "0.0.0.0:7422"), 2);
    assert!(environment.contains("0.0.0.0:7422"), "{environment}");
    for (text, told) in [
        ("up: {lissten: x}", "--lissten"),
        ("up: {listen: x}", "--listen"),
        ("up: {data-dir: /x, workers: 0}", "--workers"),
        ("up: {workers: 2}", "--data-dir"),
        ("up: {data-dir: /x, json: true}", "--json"),
        ("up: 3", "line 1"),
        ("upp: {}", "upp"),
        ("engine: {memory-limit: 1}", "--memory-limit"),
        ("maintain: {full: true, quick: true}", "--quick"),
        ("repository: {repository: \"ftp://x\"}", "ftp"),
    ] {
        let message = fails(&mut check(text), 2);
        assert!(message.contains(told), "{text}: {message}");
    }
}

/// A command whose reader has read enough, as `head` does.
fn unread(mut command: Command) -> std::process::Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer).output().unwrap()
}

#[test]
fn a_reader_who_has_read_enough_is_no_failure_and_hides_none() {
    let golden = Golden::unpack("default");
    let address = golden.address();
    let snapshots = golden.inspect("snapshots", &[]);
    let root = snapshots[0]["rootEntry"]["obj"].as_str().unwrap();
    for arguments in [
        &["inspect", "status", "--json", &address][..],
        &["inspect", "contents", "--json", &address],
        &["inspect", "contents", &address],
        &["inspect", "object", root, &address],
        &["plan", "--json", &address],
    ] {
        let output = unread(golden.verger(arguments));
        let said = text(&output.stderr);
        assert!(output.status.success() && !said.to_lowercase().contains("pipe"), "{arguments:?}: {said}");
    }
    // What was found out is told by the exit code all the same.
    std::fs::remove_dir_all(golden.repository().join("p")).unwrap();
    let output = unread(golden.verger(["verify", "--json", &address]));
    assert_eq!(output.status.code(), Some(17), "{}", text(&output.stderr));
}
