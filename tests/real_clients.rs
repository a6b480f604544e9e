//! The real `kopia` beside Verger on one repository: clients that snapshot while cycles with full margins run, processes that are
//! stopped and continued, and Kopia's own maintenance in the middle of a cycle.

#![allow(clippy::unwrap_used)]

#[path = "support/death.rs"]
mod death;
#[path = "support/real.rs"]
mod real;
#[path = "support/stopped.rs"]
mod stopped;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use death::files;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use real::{Client, age, end, pause};
use rustix::process::Signal;
use stopped::{approvals, catch, has_approval, is_amid, is_inside, send};
use support::{OWNER, PASSWORD, run, skipped, told, verger};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

fn kopia_is_here(what: &str) -> bool {
    let here = Command::new("kopia").arg("--version").output().is_ok();
    if !here {
        skipped(&format!("no kopia on PATH: {what}"));
    }
    here
}

/// A repository that the real program made, with its owner's connection and a state folder.
struct Place {
    folder: tempfile::TempDir,
    owner: Client,
}

impl Place {
    fn new(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("repo");
        std::fs::create_dir(&repository).unwrap();
        let owner = Client::create(&repository, flags);
        Self { folder, owner }
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    /// A cycle with full margins, in the owner's name.
    fn maintain(&self, mode: &str) -> Command {
        let mut command = verger(&self.home());
        let flags = ["maintain", mode, "--exclusive", "--act-as", OWNER, "--allow-removing=100", "--json"];
        command.env("KOPIA_PASSWORD", PASSWORD).args(flags).arg(self.repository());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn cycle(&self, mode: &str) -> serde_json::Value {
        let output = run(&mut self.maintain(mode));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Two clients with a few generations each, of which only the last one is kept, all made ten days ago. Two collections have run
    /// since, so that marks may be dropped; and some contents are dead and not marked yet.
    fn with_a_past(flags: &[&str], random: &mut SmallRng) -> (Self, [Client; 2]) {
        let place = Self::new(flags);
        let mut clients =
            [(1, "alice@one"), (2, "bob@two")].map(|(n, name)| Client::connect(&place.repository(), n, name));
        for client in &mut clients {
            for generation in 0..4 {
                client.snapshot(generation, random, &[]);
            }
            client.forgets(2);
        }
        age(&place.repository(), DAY * 10);
        for _ in 0..2 {
            place.cycle("--full");
            age(&place.repository(), HOUR * 30);
        }
        clients.iter_mut().for_each(|client| client.forgets(1));
        age(&place.repository(), HOUR * 30);
        clients.iter().chain([&place.owner]).for_each(Client::wakes_up);
        (place, clients)
    }
}

impl Client {
    /// Deletes its oldest snapshots.
    fn forgets(&mut self, count: usize) {
        for (id, _) in self.made.drain(..count).collect::<Vec<_>>() {
            run(self.command(&["snapshot", "delete", "--delete"]).arg(id));
        }
    }
}

/// Storms until something was deleted beside the clients: packs are deleted once an hour, and with some seeds none is dead as a whole then.
fn storms(flags: &[&str], seed: u64, time: Duration) {
    let is_deleted = (0..3).any(|more| storm(flags, seed.wrapping_add(more), time));
    assert!(is_deleted, "{flags:?}, seed {seed} and the two behind it: nothing was deleted beside the clients");
}

/// Clients come back to contents that are dying, are stopped in the middle, and go on. Whether anything was deleted meanwhile.
fn storm(flags: &[&str], seed: u64, time: Duration) -> bool {
    let mut random = SmallRng::seed_from_u64(seed);
    let (place, clients) = Place::with_a_past(flags, &mut random);
    let over = AtomicBool::new(false);
    let work = |mut client: Client, mut random: SmallRng| {
        // What was kept, what is marked, what is dead, and what is new.
        while !over.load(Ordering::Relaxed) {
            let stops: Vec<_> =
                (0..random.random_range(0..3)).map(|_| Duration::from_millis(random.random_range(100..2500))).collect();
            let generation = random.random_range(0..6);
            client.snapshot(generation, &mut random, &stops);
        }
        client
    };
    let (clients, cycles, freed): (Vec<Client>, _, _) = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|client| {
                let random = SmallRng::seed_from_u64(random.random());
                scope.spawn(move || work(client, random))
            })
            .collect();
        let began = Instant::now();
        let (mut cycles, mut freed, mut has_looked) = (0, 0, false);
        // On a machine that is busy with other things a cycle may take as long as all of this.
        while began.elapsed() < time || (!has_looked && began.elapsed() < time * 8) {
            let mode = if random.random_bool(0.7) { "--full" } else { "--quick" };
            let mut child = place.maintain(mode).spawn().unwrap();
            if random.random_bool(0.5) {
                std::thread::sleep(Duration::from_millis(random.random_range(50..600)));
                pause(&child, Duration::from_millis(random.random_range(100..2000)));
            }
            let (status, report, said) = end(&mut child);
            assert!(status.success(), "seed {seed}: {mode}: {status}\n{said}");
            let report: serde_json::Value = serde_json::from_str(&report).unwrap();
            freed += report["freedBytes"].as_u64().unwrap();
            has_looked |= report["tasks"]["full-delete-blobs"].is_object();
            cycles += 1;
        }
        over.store(true, Ordering::Relaxed);
        (threads.into_iter().map(|thread| thread.join().unwrap()).collect(), cycles, freed)
    });
    let snapshots: usize = clients.iter().map(|client| client.made.len()).sum();
    told(&format!("{flags:?}, seed {seed}: {cycles} cycles beside {snapshots} snapshots, {freed} bytes deleted"));
    place.owner.verifies();
    // Whatever was marked and is needed again is revived before its time comes.
    for _ in 0..3 {
        age(&place.repository(), HOUR * 30);
        place.cycle("--full");
    }
    clients.iter().chain([&place.owner]).for_each(Client::wakes_up);
    place.owner.verifies();
    clients.iter().for_each(Client::restores_all);
    freed > 0
}

#[test]
fn real_clients_that_sleep_beside_cycles_with_full_margins_lose_nothing() {
    if !kopia_is_here("no real clients beside cycles") {
        return;
    }
    let seed = std::env::var("VERGER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    told(&format!("VERGER_TEST_SEED={seed}"));
    std::thread::scope(|scope| {
        scope.spawn(|| storms(&[], seed, Duration::from_secs(12)));
        scope.spawn(|| storms(&["--format-version=1"], seed, Duration::from_secs(12)));
    });
}

/// A repository with contents that a cycle without margins marks, drops and deletes.
fn with_waste(seed: u64) -> Place {
    let mut random = SmallRng::seed_from_u64(seed);
    let place = Place::new(&[]);
    let mut client = Client::connect(&place.repository(), 3, "carol@three");
    for generation in 0..3 {
        client.snapshot(generation, &mut random, &[]);
    }
    client.forgets(2);
    age(&place.repository(), HOUR);
    place.owner.wakes_up();
    place
}

impl Place {
    /// A full cycle without margins through this connection of Kopia's; no client is at work.
    fn maintain_alone(&self, config: &Client) -> Command {
        let mut command = verger(&self.home());
        let flags = ["maintain", "--full", "--safety=none", "--i-am-alone", "--allow-removing=100", "--config-file"];
        command.env("KOPIA_PASSWORD", PASSWORD).args(flags).arg(config.config());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A cycle that was stopped when this came true.
    fn caught(&self, is_there: impl Fn(&Path) -> bool) -> Child {
        catch(|| self.maintain_alone(&self.owner).spawn().unwrap(), || is_there(&self.home()))
    }

    /// Lets it go on: exit code, what it said, and what it changed besides its lease.
    fn goes_on(&self, mut child: Child) -> (Option<i32>, String, Vec<PathBuf>) {
        let before = files(&self.repository());
        send(&child, Signal::CONT);
        let (status, _, said) = end(&mut child);
        let after = files(&self.repository());
        let all: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
        let changed =
            all.into_iter().filter(|path| before.get(*path) != after.get(*path) && !path.ends_with("verger.lease"));
        (status.code(), said, changed.cloned().collect())
    }

    /// Every client of Kopia's writes logs.
    fn all_but_logs(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = files(&self.repository());
        all.retain(|path, _| !path.strip_prefix(self.repository()).unwrap().starts_with("_"));
        all
    }

    /// The next cycle finishes, and the real program finds everything sound.
    fn finishes(&self, code: i32) {
        let output = self.maintain_alone(&self.owner).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        self.owner.wakes_up();
        self.owner.verifies();
    }
}

#[test]
fn r22_kopias_maintenance_is_locked_out_here_and_noticed_from_elsewhere() {
    if !kopia_is_here("no maintenance of its own beside cycles") {
        return;
    }
    let place = with_waste(7);
    let maintenance = ["maintenance", "run", "--full", "--safety=none"];
    // Through the same connection: it does nothing, and Verger goes on.
    let child = place.caught(is_inside);
    let before = place.all_but_logs();
    run(&mut place.owner.command(&maintenance));
    assert!(place.all_but_logs() == before, "Kopia maintained beside a cycle on one machine");
    let (code, said, changed) = place.goes_on(child);
    assert!(code == Some(0) && !changed.is_empty(), "{code:?}\n{said}");
    // In the same name through another one, as from another machine: it runs, and Verger stops.
    let elsewhere = Client::connect(&place.repository(), 9, OWNER);
    let child = place.caught(is_amid);
    run(&mut elsewhere.command(&maintenance));
    let approved = approvals(&place.home());
    let (code, said, changed) = place.goes_on(child);
    let its_record = place.repository().join("kopia.maintenance.f");
    assert!(code == Some(21) && !changed.contains(&its_record), "{code:?} {changed:?}\n{said}");
    // What was looked at before may be approved; nothing after it.
    assert!(approvals(&place.home()) <= approved + 1, "{said}");
    place.finishes(0);
    // Somebody else becomes the owner.
    let child = place.caught(is_inside);
    run(&mut elsewhere.command(&["maintenance", "set", "--owner=dave@four"]));
    let approved = approvals(&place.home());
    let (code, said, _) = place.goes_on(child);
    assert!(matches!(code, Some(13 | 21)) && approvals(&place.home()) <= approved + 1, "{code:?}\n{said}");
    place.finishes(13);
}

#[test]
fn r2_a_process_that_slept_beyond_its_deadline_changes_nothing() {
    if !kopia_is_here("no repository of its own for a process that sleeps") {
        return;
    }
    let place = with_waste(8);
    let child = place.caught(has_approval);
    std::thread::sleep(Duration::from_secs(122));
    let (code, said, changed) = place.goes_on(child);
    // A local disk has no deadline for a request that is under way: one may have been.
    assert!(code == Some(22) && changed.len() <= 1, "{code:?} {changed:?}\n{said}");
    place.finishes(0);
}
