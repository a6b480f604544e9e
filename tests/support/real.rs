//! Real Kopia clients with trees of their own, stopped and continued, on a repository that can be made older.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use verger_kopia::Repository;
use verger_kopia::clock::{Clock as _, SystemClock};
use verger_kopia::content::Entry;
use verger_kopia::index_set::load_view;
use verger_kopia::index_set::write::write_index_set;
use verger_kopia::maintenance::schedule;
use verger_kopia::session::SessionId;
use verger_kopia::storage::{Access, BlobId, FsStorage, PutOptions, list_all};

use crate::support::{OWNER, PASSWORD, run};

/// Files by name.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// A tree of one client: files change at different paces, and an earlier generation comes back byte by byte.
pub fn tree(client: u64, generation: u64) -> Tree {
    let file = |number: u64| {
        let pace = 1 + number % 3;
        let seed = client * 1_000_000 + number * 1_000 + generation / pace;
        let mut random = SmallRng::seed_from_u64(seed);
        let length = if number == 0 { 300_000 } else { random.random_range(100..20_000) };
        let name = format!("d{}/f{number:02}", number % 4);
        (name, (0..length).map(|_| random.random()).collect())
    };
    (0..24).map(file).collect()
}

pub fn read_tree(folder: &Path) -> Tree {
    let files = crate::death::files(folder);
    files.into_iter().map(|(path, data)| (path.strip_prefix(folder).unwrap().display().to_string(), data)).collect()
}

/// One connection of the real program, in a name of its own.
pub struct Client {
    home: tempfile::TempDir,
    pub number: u64,
    /// Snapshots that it made, each with its generation.
    pub made: Vec<(String, u64)>,
}

impl Client {
    /// Makes a repository, owned by [`OWNER`].
    pub fn create(repository: &Path, flags: &[&str]) -> Self {
        let client = Self { home: tempfile::tempdir().unwrap(), number: 0, made: Vec::new() };
        let path = format!("--path={}", repository.display());
        let (user, host) = OWNER.split_once('@').unwrap();
        let who = [format!("--override-username={user}"), format!("--override-hostname={host}")];
        run(client.command(&["repository", "create", "filesystem", &path, &who[0], &who[1]]).args(flags));
        // Ten of a source are kept within an hour by default, and a busy machine gives clients time for more.
        run(&mut client.command(&["policy", "set", "--global", "--keep-latest=1000"]));
        client
    }

    pub fn connect(repository: &Path, number: u64, name: &str) -> Self {
        let client = Self { home: tempfile::tempdir().unwrap(), number, made: Vec::new() };
        let path = format!("--path={}", repository.display());
        let (user, host) = name.split_once('@').unwrap();
        let who = [format!("--override-username={user}"), format!("--override-hostname={host}")];
        run(&mut client.command(&["repository", "connect", "filesystem", &path, &who[0], &who[1]]));
        client
    }

    pub fn config(&self) -> PathBuf {
        self.home.path().join("repository.config")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kopia");
        let home = self.home.path();
        command
            .args(arguments)
            .env("HOME", home)
            .env("KOPIA_PASSWORD", PASSWORD)
            .env("KOPIA_CHECK_FOR_UPDATES", "false")
            .env("KOPIA_CONFIG_PATH", self.config())
            .env("KOPIA_CACHE_DIRECTORY", home.join("cache"))
            .env("KOPIA_LOG_DIR", home.join("log"));
        command
    }

    /// Snapshots this generation of its tree, stopped for each of these times at moments of the seed.
    pub fn snapshot(&mut self, generation: u64, random: &mut SmallRng, stops: &[Duration]) {
        let folder = self.home.path().join("tree");
        let _ = fs::remove_dir_all(&folder);
        for (name, data) in tree(self.number, generation) {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        }
        let mut command = self.command(&["snapshot", "create", "--json", "--no-progress"]);
        let mut child = command.arg(&folder).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        for stop in stops {
            std::thread::sleep(Duration::from_millis(random.random_range(0..900)));
            pause(&child, *stop);
        }
        let (status, out, said) = end(&mut child);
        assert!(status.success(), "snapshot: {status}\n{said}");
        let manifest: serde_json::Value = serde_json::from_str(&out).unwrap();
        self.made.push((manifest["id"].as_str().unwrap().to_owned(), generation));
    }

    /// Lists of index blobs are believed for half a minute: long over when everything was made older by hours.
    pub fn wakes_up(&self) {
        let _ = fs::remove_dir_all(self.home.path().join("cache"));
    }

    /// Every snapshot of its own comes back as the tree was.
    pub fn restores_all(&self) {
        for (id, generation) in &self.made {
            let target = self.home.path().join(format!("restored-{id}"));
            run(self.command(&["snapshot", "restore", id]).arg(&target));
            assert!(read_tree(&target) == tree(self.number, *generation), "snapshot {id} of generation {generation}");
            fs::remove_dir_all(target).unwrap();
        }
    }

    /// Every snapshot with all bytes, and every content.
    pub fn verifies(&self) {
        run(&mut self.command(&["snapshot", "verify", "--verify-files-percent=100"]));
        run(&mut self.command(&["content", "verify", "--full"]));
    }
}

/// Stops a process for this long, if it has not ended.
pub fn pause(child: &Child, time: Duration) {
    let pid = Pid::from_child(child);
    if kill_process(pid, Signal::STOP).is_ok() {
        std::thread::sleep(time);
        let _ = kill_process(pid, Signal::CONT);
    }
}

/// Waits for the end: status, standard output, standard error.
pub fn end(child: &mut Child) -> (ExitStatus, String, String) {
    let mut err = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    (child.wait().unwrap(), out, errors.join().unwrap())
}

/// Makes everything in a repository older: entries, run records, watermarks, files. Nobody may be at work on it.
pub fn age(path: &Path, by: Duration) {
    let times: BTreeMap<PathBuf, SystemTime> = crate::death::files(path)
        .into_keys()
        .map(|path| (path.clone(), fs::metadata(path).unwrap().modified().unwrap()))
        .collect();
    let storage = Arc::new(FsStorage::open(path, Access::ReadWrite).unwrap());
    let repository = Repository::open(storage, PASSWORD, Arc::new(SystemClock)).unwrap();
    let seconds = i64::try_from(by.as_secs()).unwrap();
    let view = load_view(&repository, 1).unwrap();
    let rows = view.table.rows().map(|row| view.table.entry(row));
    let entries: Vec<Entry> = rows.map(|entry| Entry { timestamp: entry.timestamp - seconds, ..entry }).collect();
    let mut loaded = schedule::load(&repository).unwrap().schedule;
    for record in loaded.runs.values_mut().flatten() {
        (record.start, record.end) = (record.start - by, record.end - by);
    }
    loaded.next_full = loaded.next_full.map(|at| at - by);
    loaded.next_quick = loaded.next_quick.map(|at| at - by);
    if times.keys().any(|path| path.ends_with("kopia.maintenance.f")) {
        schedule::save(&repository, &loaded, &PutOptions::default()).unwrap();
    }
    let listed = list_all(&**repository.storage(), "").unwrap().into_iter().map(|blob| blob.id);
    let indexes: Vec<BlobId> =
        listed.filter(|id| ["n", "xn", "xs", "xr"].iter().any(|p| id.as_str().starts_with(p))).collect();
    write_index_set(&repository, entries, SessionId::generate(SystemClock.now()).as_str(), None).unwrap();
    assert!(repository.storage().delete(&indexes, None).failed.is_empty());
    for file in crate::death::files(path).into_keys() {
        let time = times.get(&file).copied().unwrap_or_else(SystemTime::now);
        File::options().write(true).open(&file).unwrap().set_modified(time - by).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        if let Some(mark) = name.strip_prefix("xw").and_then(|rest| rest.strip_suffix(".f")?.parse::<i64>().ok()) {
            fs::rename(&file, file.with_file_name(format!("xw{}.f", mark - seconds))).unwrap();
        }
    }
}
