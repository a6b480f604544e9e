//! A full cycle on a real S3 server, under a prefix, through both credential styles: keys in the environment, and a profile of the
//! default chain.

#![cfg(feature = "s3")]
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::print_stderr)]

mod support;
#[path = "../kopia/tests/support/weed.rs"]
mod weed;

use std::collections::BTreeSet;

use serde_json::Value;
use support::{Golden, Kopia, json, run};
use verger_kopia::storage::address::BucketPrefix;
use verger_kopia::storage::s3::{S3Options, S3Storage};
use verger_kopia::storage::{Access, ByteRange, FsStorage, PutOptions, Storage, list_all};
use weed::{ACCESS_KEY, BUCKET, LOCKED_BUCKET, SECRET_KEY, Weed};

fn live(contents: &Value) -> BTreeSet<&str> {
    let live = contents.as_array().unwrap().iter().filter(|c| c["deleted"].as_bool() != Some(true));
    live.filter_map(|c| c["contentID"].as_str()).filter(|id| !id.starts_with('m')).collect()
}

fn upload(golden: &Golden, server: &Weed, prefix: &str) {
    let source = FsStorage::open(golden.repository(), Access::ReadOnly).unwrap();
    let place = BucketPrefix { bucket: BUCKET.to_owned(), prefix: prefix.to_owned() };
    let target = S3Storage::connect(S3Options::new(place, server.settings())).unwrap();
    for blob in list_all(&source, "").unwrap() {
        let data = source.get(&blob.id, ByteRange::All).unwrap();
        target.put(&blob.id, data, &PutOptions::default()).unwrap();
    }
}

#[test]
fn a_cycle_on_s3_gives_what_the_real_program_gave() {
    let Some(server) = Weed::start() else { return };
    for (name, style) in
        [("epochs", "environment"), ("format1", "profile"), ("split-fixed-128k-large-dirs", "environment")]
    {
        let golden = Golden::unpack(name);
        let prefix = format!("fleet/{name}/");
        upload(&golden, &server, &prefix);
        let address = format!("s3://{BUCKET}/{prefix}");
        let profile = golden.folder.path().join("credentials");
        std::fs::write(
            &profile,
            format!("[default]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"),
        )
        .unwrap();
        let verger = |arguments: &[&str]| {
            let mut command = golden.verger(arguments);
            command.env("AWS_S3_ENDPOINT", server.endpoint()).env("AWS_REGION", "us-east-1").arg(&address);
            if style == "profile" {
                command.env("AWS_SHARED_CREDENTIALS_FILE", &profile);
            } else {
                command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
            }
            json(&run(&mut command))
        };
        let flags =
            ["maintain", "--full", "--safety", "none", "--i-am-alone", "--allow-removing", "100", "--json", "--act-as"];
        let report = verger(&[&flags[..], &[support::OWNER]].concat());
        let after = &golden.expect["after"];
        let want = &after["maintenance"]["schedule"]["runs"]["snapshot-gc"][0]["extra"][0]["data"];
        assert_eq!(&report["tasks"]["snapshot-gc"], want, "{name}");
        let contents = verger(&["inspect", "contents", "--json"]);
        assert_eq!(live(&contents), live(&after["contents"]), "{name}");
        verger(&["verify", "--full", "--json"]);
        let port = server.endpoint().trim_start_matches("http://").to_owned();
        Kopia::verifies_s3(&port, BUCKET, &prefix, ACCESS_KEY, SECRET_KEY);
    }
    object_locks_are_extended(&server);
}

/// A bucket with object locks, made by the real program: a full cycle extends the lock of every blob that has one.
fn object_locks_are_extended(server: &Weed) {
    let endpoint = server.endpoint().trim_start_matches("http://").to_owned();
    let flags = ["--retention-mode=GOVERNANCE", "--retention-period=72h"];
    let Some(kopia) = Kopia::create_s3(&endpoint, LOCKED_BUCKET, "locked/", (ACCESS_KEY, SECRET_KEY), &flags) else {
        return;
    };
    run(kopia.command(["maintenance", "set", "--extend-object-locks=true"]));
    let tree = tempfile::tempdir().unwrap();
    std::fs::write(tree.path().join("file"), "locked").unwrap();
    run(kopia.command(["snapshot", "create", "--no-progress", "--no-auto-maintenance"]).arg(tree.path()));
    let mut command = support::verger(&tree.path().join("home"));
    command.args(["maintain", "--full", "--exclusive", "--json", "--act-as", support::OWNER]);
    command.arg(format!("s3://{LOCKED_BUCKET}/locked/")).env("KOPIA_PASSWORD", support::PASSWORD);
    command.env("AWS_S3_ENDPOINT", server.endpoint()).env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    let report = json(&run(&mut command));
    let extended = &report["tasks"]["extend-blob-retention-time"];
    assert!(extended["toExtendBlobCount"].as_u64().unwrap() >= 6, "{extended}");
    assert_eq!(extended["extendedBlobCount"], extended["toExtendBlobCount"]);
    assert_eq!(extended["retentionPeriod"], "72h0m0s");
    kopia.verifies();
}
