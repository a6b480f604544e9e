//! Every parser against its corpus and changes of it: no panic, no allocation beyond what the input's length allows, and what is written
//! reads back. The same targets run under `cargo fuzz` (CONTRIBUTING.md).

#![allow(clippy::unwrap_used, unreachable_pub, dead_code, reason = "tests")]

#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/seeds.rs"]
mod seeds;
#[path = "fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use mutate::{Random, change};
use targets::{TARGETS, Target};

const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz");
const FILES_MAX: usize = 40;
const FILE_BYTES_MAX: u64 = 4096;

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(folder) = fs::read_dir(Path::new(FUZZ).join("corpus").join(name)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Keeps the input that broke something, and says where.
struct Keep<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for Keep<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.input", self.name));
            let kept = fs::write(&path, self.input);
            let _ = writeln!(std::io::stderr(), "target {}: the input is in {} ({kept:?})", self.name, path.display());
        }
    }
}

fn feed(target: &Target, input: &[u8]) {
    let keep = Keep { name: target.name, input };
    (target.run)(input);
    drop(keep);
}

/// All of the corpus, then so many changed inputs; always the same ones, unless `VERGER_FUZZ_SEED` says another number.
fn run(name: &str, changed: u64) {
    let target = target(name);
    let inputs: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, bytes)| bytes).collect();
    assert!(!inputs.is_empty(), "no corpus for {name}");
    feed(target, b"");
    inputs.iter().for_each(|input| feed(target, input));
    let seed = std::env::var("VERGER_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1u64);
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..changed {
        let mut input = inputs[random.below(inputs.len())].clone();
        change(&mut input, &inputs[random.below(inputs.len())], &mut random);
        feed(target, &input);
    }
}

macro_rules! parsers {
    ($($name:ident $changed:literal)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), $changed);
        })*

        #[test]
        fn every_target_has_a_test_a_program_and_a_corpus() {
            let tested = BTreeSet::from([$(stringify!($name)),*]);
            assert_eq!(tested, TARGETS.iter().map(|target| target.name).collect());
            let manifest = fs::read_to_string(Path::new(FUZZ).join("Cargo.toml")).unwrap();
            for name in tested {
                assert!(Path::new(FUZZ).join(format!("fuzz_targets/{name}.rs")).exists(), "{name}");
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
                let files = corpus(name);
                assert!((1..=FILES_MAX).contains(&files.len()), "{name}: {} files", files.len());
                let long = files.iter().find(|(_, bytes)| bytes.len() as u64 > FILE_BYTES_MAX);
                assert!(long.is_none(), "{name}: {long:?}");
            }
        }
    };
}

parsers! {
    index 3000
    index_merge 3000
    index_names 3000
    legacy_log 3000
    ids 20000
    pack_index 1000
    store_blobs 600
    manifests 3000
    snapshots 1400
    params 6000
    schedule 1000
    directory 3000
    seek_table 6000
    object 6000
    format_blob 6000
    format_config 6000
    decompress 3000
    ecc 600
    cipher 1000
    splitter 100
    envelope 6000
    ledger 1000
    lease 5000
    shards 1000
    work_message 6000
    part 1000
    tokens 6000
}

/// The part of the corpus that comes from the golden repositories. `VERGER_WRITE_CORPUS=1` writes it anew.
#[test]
fn the_corpus_is_made_of_the_golden_repositories() {
    let write = std::env::var_os("VERGER_WRITE_CORPUS").is_some();
    for (name, inputs) in seeds::all() {
        let folder = Path::new(FUZZ).join("corpus").join(name);
        let is_seed = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with("seed-");
        if write {
            fs::create_dir_all(&folder).unwrap();
            corpus(name).iter().filter(|(path, _)| is_seed(path)).for_each(|(path, _)| fs::remove_file(path).unwrap());
            for (at, input) in inputs.iter().enumerate() {
                fs::write(folder.join(format!("seed-{at:02}")), input).unwrap();
            }
        }
        let found: Vec<Vec<u8>> = corpus(name).into_iter().filter(|(path, _)| is_seed(path)).map(|(_, b)| b).collect();
        assert!(found == inputs, "{name}: run this test with VERGER_WRITE_CORPUS=1");
    }
}
