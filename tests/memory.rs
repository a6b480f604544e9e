//! `--memory-limit` is a promise: a repository ten times larger than fits is maintained within it, and with the same result.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/client.rs"]
mod client;
mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Plain, Trust};
use serde_json::Value;
use support::{Golden, OWNER, PASSWORD, fails, json, run};
use verger_kopia::Repository;
use verger_kopia::clock::SystemClock;
use verger_kopia::storage::{Access, BlobId, FsStorage, PutOptions, Storage};
use verger_worker::limit::{BASE_BYTES, BUFFERS_BYTES_MIN, LIMIT_MIN, table_bytes};

/// Contents of the large repository; the rows of each fifth are files of snapshots, the next are dead, the others marked long ago.
const CONTENTS: u32 = 4_000_000;
const HASH_LENGTH: usize = 32;
const KEY: usize = HASH_LENGTH + 1;
const VALUE: usize = 16;
const STORED: u32 = 64;
const INDEXES: u32 = 8;
const PER_PACK: u32 = 300_000;
const DIRECTORIES: u32 = 2_600;
const OLD: u32 = 1_600_000_000;

/// What becomes of a content, by its number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Live,
    Dead,
    Marked,
}

fn fate(number: u32) -> Fate {
    match number % 5 {
        0 => Fate::Live,
        1 => Fate::Dead,
        _ => Fate::Marked,
    }
}

/// Spread evenly, and ascending with the number.
fn hash(number: u32, contents: u32) -> [u8; HASH_LENGTH] {
    let mut hash = [0; HASH_LENGTH];
    let top = u64::from(number) * (u64::MAX / u64::from(contents));
    hash[..8].copy_from_slice(&top.to_be_bytes());
    for (word, chunk) in (1u64..).zip(hash[8..].chunks_exact_mut(8)) {
        let mixed = (u64::from(number) + word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        chunk.copy_from_slice(&(mixed ^ mixed >> 29).to_be_bytes());
    }
    hash
}

/// A repository whose index is far larger than its data: no file of it is ever read, so the packs are holes.
struct Large {
    golden: Golden,
    contents: u32,
}

impl Large {
    fn make(contents: u32) -> Self {
        let golden = Golden::unpack("blake2b-256");
        let storage = Arc::new(FsStorage::open(golden.repository(), Access::ReadWrite).unwrap());
        let repository = Repository::open(storage.clone(), PASSWORD, Arc::new(SystemClock)).unwrap();
        let large = Self { golden, contents };
        let packs = large.packs(&*storage);
        for part in 0..INDEXES {
            let payload = large.index(part, &packs);
            let suffix = format!("s{:016x}-c1", 0xabc0 + u64::from(part));
            let sealed = repository.cipher().seal_blob(repository.hasher(), "xn0_", &suffix, &payload);
            let (id, data) = sealed.unwrap();
            storage.put(&id, data, &PutOptions::default()).unwrap();
        }
        let client = Client::new(&repository, Trust::Nothing);
        for half in 0..2 {
            client.snapshot(&large.directories(half));
        }
        large
    }

    /// Rows of a pack are of one fate: first those that live.
    fn pack_of(&self, number: u32) -> (u32, u32) {
        let place = number / 5;
        let (first, place) = match fate(number) {
            Fate::Live => (0, place),
            Fate::Dead => (1, place),
            Fate::Marked => (2, place * 3 + number % 5 - 2),
        };
        let packs = (self.contents / 5).div_ceil(PER_PACK);
        (first * packs + place / PER_PACK, place % PER_PACK * STORED)
    }

    fn packs(&self, storage: &dyn Storage) -> Vec<BlobId> {
        let count = (self.contents / 5).div_ceil(PER_PACK) * 2 + (self.contents / 5 * 3).div_ceil(PER_PACK);
        let ids: Vec<BlobId> = (0..count).map(|n| BlobId::new(format!("p{n:032x}-s0123456789abcdef147"))).collect();
        for id in &ids {
            storage.put(id, b"x"[..].into(), &PutOptions::default()).unwrap();
        }
        let mut stack = vec![self.golden.repository()];
        while let Some(folder) = stack.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    stack.push(entry);
                } else if entry.to_string_lossy().ends_with("0123456789abcdef147.f") {
                    File::options().write(true).open(entry).unwrap().set_len(u64::from(PER_PACK * STORED)).unwrap();
                }
            }
        }
        ids
    }

    /// The payload of an index blob with every so manieth content, as Kopia writes it (version 2).
    fn index(&self, part: u32, packs: &[BlobId]) -> Vec<u8> {
        let numbers = || (part..self.contents).step_by(INDEXES as usize);
        let count = numbers().count();
        let mut payload = Vec::with_capacity(count * (KEY + VALUE) + packs.len() * 80 + 64);
        payload.extend_from_slice(&[2, KEY as u8, 0, VALUE as u8]);
        payload.extend_from_slice(&(count as u32).to_be_bytes());
        payload.extend_from_slice(&(packs.len() as u32).to_be_bytes());
        payload.extend_from_slice(&[1, 0, 0, 0, 0]);
        for number in numbers() {
            let (pack, offset) = self.pack_of(number);
            let deleted = u32::from(fate(number) == Fate::Marked) << 31;
            payload.push(0);
            payload.extend_from_slice(&hash(number, self.contents));
            payload.extend_from_slice(&OLD.to_be_bytes());
            payload.extend_from_slice(&(offset | deleted).to_be_bytes());
            payload.extend_from_slice(&(STORED - 28).to_be_bytes()[1..]);
            payload.extend_from_slice(&STORED.to_be_bytes()[1..]);
            payload.extend_from_slice(&(pack as u16).to_be_bytes());
        }
        let mut name_at = payload.len() + packs.len() * 5 + 6;
        for pack in packs {
            payload.push(pack.as_str().len() as u8);
            payload.extend_from_slice(&(name_at as u32).to_be_bytes());
            name_at += pack.as_str().len();
        }
        payload.extend_from_slice(&[0, 0, 0, 0, 3, 0]);
        packs.iter().for_each(|pack| payload.extend_from_slice(pack.as_str().as_bytes()));
        payload
    }

    /// Directories that refer to the live contents, half of them.
    fn directories(&self, half: u32) -> Vec<Plain> {
        let live = self.contents / 5;
        let each = live.div_ceil(DIRECTORIES);
        let directory = |number: u32| {
            let mut text = String::from("{\"stream\":\"kopia:directory\",\"entries\":[");
            for file in number * each..live.min((number + 1) * each) {
                let comma = if file % each == 0 { "" } else { "," };
                let id = verger_kopia::hex(&hash(file * 5, self.contents));
                text.push_str(&format!(
                    "{comma}{{\"name\":\"f{file:07}\",\"type\":\"f\",\"mode\":\"0644\",\"size\":{},\
                     \"mtime\":\"2020-01-01T00:00:00Z\",\"obj\":\"{id}\"}}",
                    STORED - 28
                ));
            }
            text.push_str("],\"summary\":{\"size\":0,\"files\":1,\"symlinks\":0,\"dirs\":1,\"maxTime\":\"2020-01-01T00:00:00Z\"}}");
            (b'k', text.into_bytes())
        };
        (0..DIRECTORIES).filter(|number| number % 2 == half).map(directory).collect()
    }

    fn maintain(&self, limit: u64, state: &Path) -> Command {
        let limit = limit.to_string();
        let state = state.to_str().unwrap().to_owned();
        let mut command = self.golden.verger(["maintain", "--full", "--safety", "none", "--i-am-alone", "--json"]);
        command.args(["--quiet", "--allow-removing", "100", "--act-as", OWNER, "--memory-limit", &limit]);
        command.args(["--state-dir", &state, &self.golden.address()]);
        command
    }
}

/// Runs a command; what it printed, and the most memory that it had. Bytes.
fn measured(command: &mut Command) -> (Value, u64) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let peak = watch(&mut child);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    (json(&output), peak)
}

fn watch(child: &mut Child) -> u64 {
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        peak = peak.max(kib.unwrap_or(0) << 10);
        std::thread::sleep(Duration::from_millis(5));
    }
    peak
}

/// Only Linux tells the most memory that a process had.
#[cfg(target_os = "linux")]
#[test]
fn a_repository_ten_times_larger_than_fits_is_maintained_within_the_limit() {
    let large = Large::make(CONTENTS);
    let live = u64::from(CONTENTS / 5);
    let needed = table_bytes(CONTENTS.into(), HASH_LENGTH) + u64::from(CONTENTS) * (KEY + VALUE) as u64;
    assert!(needed > 10 * (LIMIT_MIN - BASE_BYTES - BUFFERS_BYTES_MIN), "{needed} bytes are not ten times what fits");

    let state = large.golden.folder.path().join("state");
    let mut plan = large.golden.verger(["plan", "--full", "--safety", "none", "--json", "--quiet"]);
    plan.args(["--act-as", OWNER, "--memory-limit", "4GiB", &large.golden.address()]);
    let (lavish, peak) = measured(&mut plan);
    println!("a plan without a limit: {} MiB", peak >> 20);
    assert!(peak > 2 * LIMIT_MIN, "the limit was none: {} MiB", peak >> 20);

    let (report, peak) = measured(&mut large.maintain(LIMIT_MIN, &state));
    println!("the cycle within {} MiB: {} MiB", LIMIT_MIN >> 20, peak >> 20);
    assert!(peak <= LIMIT_MIN, "the cycle took {} MiB", peak >> 20);
    // The digest is of the time of day too.
    let figures = |report: &Value| {
        let plan = report["plan"].as_object().unwrap();
        let stages = ["mark", "watermark", "rewrite", "delete"].map(|stage| plan["stages"][stage].clone());
        (stages, ["removedBytes", "totalPackedBytes", "contents", "liveContents"].map(|name| plan[name].clone()))
    };
    assert_eq!(figures(&report), figures(&lavish));
    // The small repository below has a few of both.
    let gc = &report["tasks"]["snapshot-gc"];
    let count = |name: &str| gc[name].as_u64().unwrap();
    let dead = u64::from(CONTENTS) - live;
    assert!((dead..dead + 1000).contains(&count("unreferencedContentCount")), "{gc}");
    assert!((live..live + 10_000).contains(&count("inUseContentCount")), "{gc}");
    let deleted = &report["tasks"]["full-delete-blobs"]["deletedPackCount"];
    assert!(deleted.as_u64().unwrap() >= 11, "{}", report["tasks"]);
    assert_eq!(
        fs::read_dir(&state)
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".verger-") })
            .count(),
        0,
        "temporary files are left"
    );

    let verified = json(&run(&mut large.golden.verger(["verify", "--json", "--quiet", &large.golden.address()])));
    assert_eq!(verified["problems"], serde_json::json!([]));
}

#[test]
fn no_room_for_temporary_files_is_exit_23_and_changes_nothing() {
    let large = Large::make(700_000);
    let before = large.golden.bytes();
    let state = large.golden.folder.path().join("state");
    // The most that a file of this process may have: writing more is an error, not a signal, as on a full disk.
    let command = large.maintain(LIMIT_MIN, &state);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 4000; exec \"$@\"", "sh"]).arg(command.get_program());
    shell.args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let line = fails(&mut shell, 23);
    assert!(line.contains("room") || line.contains("temporary"), "{line}");
    assert!(large.golden.bytes() == before, "the repository changed");
}
