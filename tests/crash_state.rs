//! The state folder after a death: records and files that were cut short anywhere never keep the next run from finishing. Nor does a
//! machine that could not be told of the end of a job.

#![allow(clippy::unwrap_used)]

#[path = "support/death.rs"]
mod death;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use death::{Left, Moment, die, files, left, put_back};
use store::{HOUR, Saved, World, alone};
use verger::embedded::{Coordination, Means, Shared, cycle, identify};
use verger_coordinator::drive::{self, Backend, FileBackend, Router};
use verger_coordinator::machine::State;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{Command, Event, WorkerId, envelope};

/// A repository and a state folder as a process left them that died in the middle.
struct Dead {
    world: World,
    store: Saved,
    state: BTreeMap<PathBuf, Vec<u8>>,
    clean: [Left; 2],
}

impl Dead {
    /// Killed right after its Nth effect.
    fn after(name: &str, effect: u64) -> Self {
        let mut world = World::golden(name, HOUR);
        let start = world.save();
        let run = || {
            world.clock.advance(Duration::from_secs(30));
            world.cycle(&alone(Mode::Full));
            left(&world)
        };
        let clean = [run(), run()];
        world.restore(&start);
        die(&world, effect, Moment::After, &alone(Mode::Full)).unwrap();
        let (store, state) = (world.save(), files(&world.state_dir()));
        let folder = world.state_dir();
        let state =
            state.into_iter().map(|(path, data)| (path.strip_prefix(&folder).unwrap().to_owned(), data)).collect();
        Self { world, store, state, clean }
    }

    fn path(&self, ends_with: &str) -> PathBuf {
        self.state.keys().find(|path| path.to_string_lossy().ends_with(ends_with)).unwrap().clone()
    }

    /// The same once more, with one file as `change` makes it.
    fn again(&mut self, file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        self.world.restore(&self.store);
        self.world.clock.advance(Duration::from_secs(30));
        let mut state = self.state.clone();
        change(state.entry(file.to_owned()).or_default());
        let folder = self.world.state_dir();
        put_back(&folder, &state.into_iter().map(|(path, data)| (folder.join(path), data)).collect());
    }

    fn finish(&self, when: &str) {
        let report = self.world.try_cycle(&alone(Mode::Full)).unwrap_or_else(|e| panic!("{when}: {}", e.chain()));
        assert_eq!(report.outcome, "done", "{when}");
        self.world.assert_whole(when);
        let left = left(&self.world);
        assert!(self.clean.contains(&left), "{when}: {left:#?}");
        let broken = files(&self.world.state_dir()).into_keys().find(|path| path.to_string_lossy().ends_with(".new"));
        assert_eq!(broken, None, "{when}");
    }
}

/// Where each record of a ledger ends.
fn ends(ledger: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    while let Ok(header) = envelope::header(&ledger[ends[ends.len() - 1]..]) {
        ends.push(ends[ends.len() - 1] + header.record_bytes);
    }
    ends
}

#[test]
fn a_ledger_whose_last_record_is_cut_anywhere_goes_on() {
    let mut dead = Dead::after("default", 12);
    let ledger = dead.path("/ledger");
    let bytes = dead.state[&ledger].clone();
    let ends = ends(&bytes);
    let (last, whole) = (ends[ends.len() - 2], ends[ends.len() - 1]);
    assert!(whole == bytes.len() && ends.len() > 20, "{ends:?}");
    // Every length of the last record, zeros where the disk had not written yet, and whole records that an old copy lacks.
    let cuts = (last..whole).chain(ends.iter().copied());
    for cut in cuts {
        dead.again(&ledger, |bytes| bytes.truncate(cut));
        dead.finish(&format!("the ledger ends at byte {cut} of {whole}"));
    }
    dead.again(&ledger, |bytes| bytes[last..].fill(0));
    dead.finish("the last record of the ledger is zeros");
}

#[test]
fn evidence_and_sessions_that_are_cut_anywhere_go_on() {
    let mut dead = Dead::after("format1", 14);
    for file in ["evidence/1", "/sessions"] {
        let path = dead.path(file);
        let length = dead.state[&path].len();
        for cut in (0..length).step_by(if length > 200 { 31 } else { 3 }) {
            dead.again(&path, |bytes| bytes.truncate(cut));
            dead.finish(&format!("{file} ends at byte {cut} of {length}"));
        }
    }
}

#[test]
fn small_files_are_replaced_as_a_whole_and_damage_is_told() {
    let mut dead = Dead::after("default", 12);
    let known = dead.path("known.json");
    let schedule = dead.state.keys().find(|path| path.to_string_lossy().starts_with("schedule-")).unwrap().clone();
    // A process that is killed while it writes leaves half of the new file beside the whole old one.
    for file in [&known, &schedule] {
        let new = PathBuf::from(format!("{}.new", file.display()));
        dead.again(&new, |bytes| *bytes = b"{\"a\": ".to_vec());
        dead.finish(&format!("half a {}", new.display()));
    }
    dead.again(&known, |bytes| bytes.truncate(20));
    let before = dead.world.blobs("");
    let error = dead.world.try_cycle(&alone(Mode::Full)).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Damaged && error.chain().contains("known.json") && error.fix().is_some(),
        "{error:?}"
    );
    assert_eq!(dead.world.blobs(""), before);
}

/// A machine to which one report of a job does not come, or whose answer to it is lost: nobody leads.
struct Deaf {
    inner: FileBackend,
    reports_before: AtomicI32,
    is_taken: bool,
}

impl Backend for Deaf {
    fn applied(&self) -> u64 {
        self.inner.applied()
    }

    fn submit(&self, command: Command) -> Result<Vec<Event>> {
        let is_report = matches!(command, Command::CompleteJob { .. });
        if !is_report || self.reports_before.fetch_sub(1, Ordering::Relaxed) != 0 {
            return self.inner.submit(command);
        }
        if self.is_taken {
            self.inner.submit(command)?;
        }
        Err(Error::new(ErrorKind::StoreUnavailable, "nobody leads"))
    }

    fn look(&self, look: &mut dyn FnMut(&State)) {
        self.inner.look(look);
    }

    fn wait(&self, at_most: Duration, look: &mut dyn FnMut(&State) -> bool) {
        self.inner.wait(at_most, look);
    }
}

#[test]
fn s7_a_report_that_nobody_heard_is_no_failure_of_its_job() {
    let mut world = World::golden("default", HOUR);
    let start = world.save();
    for reports_before in [0, 3, 7] {
        for is_taken in [false, true] {
            world.restore(&start);
            let repository = identify(&world.state_dir(), &world.repository, None).unwrap();
            let (folder, router) = (drive::folder(&world.state_dir(), &repository), Arc::<Router>::default());
            let inner = FileBackend::open(&folder, world.clock.clone(), router.clone(), None).unwrap();
            let backend = Arc::new(Deaf { inner, reports_before: AtomicI32::new(reports_before), is_taken });
            let worker = WorkerId::new("w1").unwrap();
            let shared = Shared { backend, router, repository, worker, evidence: None, queue: None, tell_every: HOUR };
            let coordination = Coordination::Shared(shared);
            let error = cycle(Means { coordination, ..world.means() }, &alone(Mode::Full)).unwrap_err();
            let what = format!("report {reports_before}, taken: {is_taken}: {}", error.chain());
            assert!(error.kind() != ErrorKind::Internal && what.contains("nobody leads"), "{what}");
            world.clock.advance(Duration::from_secs(30));
            let report = world.cycle(&alone(Mode::Full));
            assert_eq!((report.outcome.as_str(), report.cycle), ("done", 1), "{what}: the same cycle goes on");
        }
    }
}
