//! Style is a test: limits on files and functions, and words that must not be in the sources.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_WIDTH_MAX: usize = 140;

/// Places that break a limit today: (file, what). It may only shrink.
const ALLOWED: &[(&str, &str)] = &[];

struct Source {
    name: String,
    production: Vec<String>,
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for folder in ["src", "kopia/src", "proto/src", "coordinator/src", "worker/src"] {
        collect(&Path::new(ROOT).join(folder), &mut files);
    }
    assert!(files.len() > 50, "the sources were not found");
    files.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(ROOT).unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        // Production lines end where the inline tests begin.
        let production = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).map(str::to_owned).collect();
        Source { name, production }
    };
    files.into_iter().filter(|path| !is_test(path)).map(read).collect()
}

fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|x| x == "rs") {
            files.push(path);
        }
    }
}

fn assert_none(rule: &str, mut breaches: Vec<String>) {
    breaches.retain(|breach| !ALLOWED.iter().any(|(file, what)| breach.starts_with(file) && breach.contains(what)));
    assert!(breaches.is_empty(), "{rule}:\n{}", breaches.join("\n"));
}

#[test]
fn files_are_small() {
    let long = sources().into_iter().filter(|s| s.production.len() > FILE_LINES_MAX);
    assert_none("files of too many lines", long.map(|s| format!("{} {}", s.name, s.production.len())).collect());
}

#[test]
fn functions_are_short() {
    let mut breaches = Vec::new();
    for source in sources() {
        for (index, line) in source.production.iter().enumerate() {
            let code = line.trim_start();
            let is_function = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn "];
            if !is_function.iter().any(|start| code.starts_with(start)) || code.ends_with(';') {
                continue;
            }
            let end = format!("{}}}", &line[..line.len() - code.len()]);
            let length = source.production[index..].iter().take_while(|line| **line != end).count();
            if length > FUNCTION_LINES_MAX {
                breaches.push(format!("{}:{} {length} lines", source.name, index + 1));
            }
        }
    }
    assert_none("functions of too many lines", breaches);
}

#[test]
fn nothing_is_left_undone() {
    let mut breaches = Vec::new();
    for source in sources() {
        for (index, line) in source.production.iter().enumerate() {
            let undone =
                ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "(\"stub\")"].iter().any(|w| line.contains(w));
            if undone || line.chars().count() > LINE_WIDTH_MAX {
                breaches.push(format!("{}:{} {}", source.name, index + 1, line.trim()));
            }
        }
    }
    assert_none("unfinished work, or lines of more than the width", breaches);
}

#[test]
fn the_machine_sees_no_clock_and_no_chance() {
    let words = ["::now(", "SystemTime", "Instant", "rand::", "thread_rng", "async ", "std::fs", "std::env"];
    only("coordinator/src/machine/", &words, false);
    only("kopia/src/maintenance/rules/", &words, false);
    only("coordinator/src/schedule/", &words, false);
    only("coordinator/src/auth/", &words, false);
}

#[test]
fn named_packages_stay_behind_their_seam() {
    only("proto/src/envelope.rs", &["bincode::"], true);
    only("coordinator/src/raft/durable/sled.rs", &["= sled::", "sled::Db", "sled::Tree", "sled::Config"], true);
    only("proto/src/schedule/cron.rs", &["croner::"], true);
    only("proto/src/work_queue/nats/", &["async_nats::"], true);
    // Signatures of messages and of providers' tokens; Kopia's formats have RustCrypto.
    only_in(&["proto/src/work_queue/signing.rs", "coordinator/src/auth/oidc/keys.rs"], &["use aws_lc_rs::"]);
    let reads = ["env::var", "env::var_os"];
    // Mutants are chosen in test builds alone, which have no settings.
    let may = |name: &str| name.starts_with("src/config/") || name == "kopia/src/mutant.rs";
    let breaches = sources().into_iter().filter(|s| !may(&s.name)).flat_map(|s| {
        let name = s.name.clone();
        let hits = s.production.into_iter().enumerate().filter(|(_, l)| reads.iter().any(|r| l.contains(r)));
        hits.map(move |(i, l)| format!("{name}:{} {}", i + 1, l.trim())).collect::<Vec<_>>()
    });
    assert_none("the environment is read in src/config only", breaches.collect());
}

/// Words that stand in files under `place` only (`inside`), or nowhere there.
fn only(place: &str, words: &[&str], inside: bool) {
    none_of(place, words, |name| name.starts_with(place) != inside);
}

/// Words that stand in these files only.
fn only_in(files: &[&str], words: &[&str]) {
    none_of(&files.join(", "), words, |name| !files.contains(&name));
}

fn none_of(place: &str, words: &[&str], is_looked_at: impl Fn(&str) -> bool) {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|s| is_looked_at(&s.name)) {
        for (index, line) in source.production.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                breaches.push(format!("{}:{} {}", source.name, index + 1, line.trim()));
            }
        }
    }
    assert_none(&format!("{words:?} where they must not stand ({place})"), breaches);
}
