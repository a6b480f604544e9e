//! `verger benchmark`: the names that Kopia has, tables like Kopia's, one document with `--json`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use support::{fails, json, run};

/// What `kopia benchmark` lists (`repo/hashing`, `repo/encryption`, `repo/splitter`, `repo/compression`).
const HASHES: &str = "BLAKE2B-256 BLAKE2B-256-128 BLAKE2S-128 BLAKE2S-256 BLAKE3-256 BLAKE3-256-128 HMAC-SHA224 HMAC-SHA256 \
    HMAC-SHA256-128 HMAC-SHA3-224 HMAC-SHA3-256";
const CIPHERS: &str = "AES256-GCM-HMAC-SHA256 CHACHA20-POLY1305-HMAC-SHA256";
const SPLITTERS: &str = "DYNAMIC DYNAMIC-128K-BUZHASH DYNAMIC-128K-RABINKARP DYNAMIC-1M-BUZHASH DYNAMIC-1M-RABINKARP \
    DYNAMIC-256K-BUZHASH DYNAMIC-256K-RABINKARP DYNAMIC-2M-BUZHASH DYNAMIC-2M-RABINKARP DYNAMIC-4M-BUZHASH \
    DYNAMIC-4M-RABINKARP DYNAMIC-512K-BUZHASH DYNAMIC-512K-RABINKARP DYNAMIC-8M-BUZHASH DYNAMIC-8M-RABINKARP FIXED \
    FIXED-128K FIXED-1M FIXED-256K FIXED-2M FIXED-4M FIXED-512K FIXED-8M";
const COMPRESSIONS: &str = "deflate-best-compression deflate-best-speed deflate-default gzip gzip-best-compression \
    gzip-best-speed pgzip pgzip-best-compression pgzip-best-speed s2-better s2-default s2-parallel-4 s2-parallel-8 zstd \
    zstd-better-compression zstd-fastest";

fn set(names: &str) -> BTreeSet<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

fn names(rows: &Value, key: &str) -> BTreeSet<String> {
    let rows = rows.as_array().unwrap();
    let names: BTreeSet<_> = rows.iter().map(|row| row[key].as_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), rows.len(), "a name twice");
    names
}

fn falling(rows: &Value, key: &str) -> bool {
    rows.as_array().unwrap().is_sorted_by_key(|row| std::cmp::Reverse(row[key].as_u64().unwrap()))
}

fn benchmark(home: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = support::verger(home);
    command.arg("benchmark").args(arguments);
    command
}

/// The table on standard output, whose lines name each algorithm once.
fn lines(home: &Path, arguments: &[&str]) -> Vec<String> {
    let output = run(&mut benchmark(home, arguments));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn hashes_and_ciphers_are_kopias_in_the_order_of_speed() {
    let home = tempfile::tempdir().unwrap();
    for (what, key, title, all, flag) in [
        ("hashing", "hash", "     Hash                 Throughput", HASHES, "block-hash"),
        ("encryption", "encryption", "     Encryption                     Throughput", CIPHERS, "encryption"),
    ] {
        let small = [what, "--repeat", "2", "--block-size", "4KiB", "--parallel", "2"];
        let document = json(&run(benchmark(home.path(), &small).arg("--json")));
        assert_eq!(names(&document["results"], key), set(all));
        assert!(falling(&document["results"], "bytesPerSecond"), "{document}");
        assert!(document["results"][0]["bytesPerSecond"].as_u64().unwrap() > 0);
        assert_eq!(document["fastest"], document["results"][0][key]);
        assert_eq!(document["blockSize"], 4096);

        let lines = lines(home.path(), &[&small[..], &["--print-options"]].concat());
        assert_eq!(lines[0], title);
        for (number, line) in lines[2..lines.len() - 2].iter().enumerate() {
            assert!(line.starts_with(&format!("{number:>3}. ")) && line.contains(" / second,   --"), "{line}");
            let name = line.rsplit_once('=').unwrap().1;
            assert!(set(all).contains(name) && line.contains(&format!(". {name} ")), "{line}");
        }
        assert_eq!(lines.len(), 4 + set(all).len());
        assert!(lines.last().unwrap().starts_with(&format!("Fastest option for this machine is: --{flag}=")));
    }
}

#[test]
fn splitters_are_kopias_and_their_pieces_make_the_data() {
    let home = tempfile::tempdir().unwrap();
    let small = ["splitter", "--data-size", "1MiB", "--block-count", "2"];
    let document = json(&run(benchmark(home.path(), &small).arg("--json")));
    let rows = document["results"].as_array().unwrap();
    assert_eq!(names(&document["results"], "splitter"), set(SPLITTERS));
    assert!(!document["fastestDynamic"].as_str().unwrap().starts_with("FIXED"));
    for row in rows {
        let figure = |key: &str| row[key].as_u64().unwrap();
        let order = ["min", "p10", "p25", "p50", "p75", "p90", "max"].map(figure);
        assert!(order.is_sorted() && order[0] > 0, "{row}");
        let (count, total) = (figure("segmentCount"), 2 << 20);
        assert!(figure("min") * count <= total && figure("max") * count >= total, "{row}");
        match row["splitter"].as_str().unwrap() {
            "FIXED-128K" => assert_eq!((count, order[0], order[6]), (16, 128 << 10, 128 << 10)),
            "FIXED-8M" | "DYNAMIC" => assert_eq!((count, order[0]), (2, 1 << 20)),
            "DYNAMIC-128K-BUZHASH" => assert!((8..=32).contains(&count) && order[6] <= 256 << 10, "{row}"),
            _ => {}
        }
    }
    // The same seed cuts the same pieces, another one others.
    let pieces = |seed: &str| {
        let again = json(&run(benchmark(home.path(), &small).args(["--rand-seed", seed, "--json"])));
        let find = |row: &&Value| row["splitter"] == "DYNAMIC-128K-BUZHASH";
        let row = again["results"].as_array().unwrap().iter().find(find).unwrap().clone();
        (row["min"].clone(), row["p50"].clone())
    };
    assert_eq!(pieces("42"), pieces("42"));
    assert_ne!(pieces("42"), pieces("43"));

    let lines = lines(home.path(), &[&small[..], &["--print-options"]].concat());
    assert_eq!(lines.len(), 2 + rows.len());
    assert!(lines[1].starts_with("  0. ") && lines[1].contains("/s count:"), "{}", lines[1]);
    assert!(lines.last().unwrap().starts_with("Fastest option for this machine is: --object-splitter=DYNAMIC"));
}

#[test]
fn compressions_are_kopias_and_refusals_say_the_fix() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("data");
    std::fs::write(&file, "what goes in comes out again, shorter. ".repeat(2000)).unwrap();
    let file = file.to_str().unwrap();
    let small = ["compression", "--data-file", file, "--repeat", "2"];
    let document = json(&run(benchmark(home.path(), &small).args(["--json", "--verify-stable"])));
    for operation in ["compress", "decompress"] {
        assert_eq!(names(&document[operation], "compression"), set(COMPRESSIONS));
        assert!(falling(&document[operation], "bytesPerSecond"));
        for row in document[operation].as_array().unwrap() {
            assert!((20..20_000).contains(&row["compressedSize"].as_u64().unwrap()), "{row}");
        }
    }
    let all = json(&run(benchmark(home.path(), &small).args(["--json", "--deprecated", "--by-size"])));
    let with_old = format!("{COMPRESSIONS} lz4 zstd-best-compression");
    assert_eq!(names(&all["compress"], "compression"), set(&with_old));
    let sizes = all["compress"].as_array().unwrap();
    assert!(sizes.is_sorted_by_key(|row| row["compressedSize"].as_u64().unwrap()));
    assert!(sizes.iter().any(|row| row["compression"] == "lz4" && row["deprecated"] == true));

    let some = [&small[..], &["--algorithms", "zstd,s2-d", "--operations", "decompress", "--print-options"]].concat();
    let lines = lines(home.path(), &some);
    assert_eq!(lines[0], "Decompress:");
    assert_eq!(lines.len(), 3 + 5, "{lines:?}");
    assert!(lines[3].contains("/s") && lines[3].contains(", --compression="), "{}", lines[3]);

    for (flags, code, text) in [
        (&["--by-alloc"][..], 15, "Use --by-size"),
        (&["--algorithms", "zip"], 2, "Give some of gzip"),
        (&["--parallel", "0"], 2, ""),
    ] {
        let last = fails(benchmark(home.path(), &small).args(flags), code);
        assert!(last.contains(text), "{flags:?}: {last}");
    }
    let empty = home.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    fails(&mut benchmark(home.path(), &["compression", "--data-file", empty.to_str().unwrap()]), 2);
    fails(&mut benchmark(home.path(), &["compression", "--data-file", "/does/not/exist"]), 2);
    fails(&mut benchmark(home.path(), &["hashing", "--block-size", "0"]), 2);
    // No machine has that much: said, not aborted.
    fails(&mut benchmark(home.path(), &["splitter", "--data-size", "7000000TB"]), 23);
}
