//! The real program, killed and interrupted at random moments of full cycles on file system repositories: the next run starts at once
//! and finishes the work, and nothing tells that the earlier ones did not.
//!
//! `VERGER_TEST_SEED` repeats a run as far as moments can be repeated, `VERGER_TEST_KILLS` sets how many.

#![allow(clippy::unwrap_used)]

#[path = "support/death.rs"]
mod death;
#[path = "support/stopped.rs"]
mod stopped;
#[path = "support/store.rs"]
mod store;
mod support;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use death::{Left, files, left};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use stopped::{approvals, catch, events, is_inside, send};
use store::{HOUR, World};
use support::{Golden, Kopia, OWNER, run};
use verger_kopia::clock::{Clock as _, SystemClock};
use verger_kopia::storage::{Access, FsStorage};
use verger_proto::Event;
use verger_proto::event::CycleEnd;

const INTERRUPTED: i32 = 130;

/// No wait of any rule is shorter than this, and no loaded machine takes so long.
const HANGS: Duration = Duration::from_secs(100);

/// How a process is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Interrupt,
    Terminate,
    /// A second Ctrl-C, right after the first.
    Impatient,
}

/// What came of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// It was done before.
    Done,
    /// It ended wherever it was.
    Killed,
    /// It stopped when asked.
    Parked,
}

struct Round {
    golden: Golden,
    /// Looks at repositories of this name.
    eyes: World,
    /// What one and two runs leave that nobody stops.
    clean: Vec<Left>,
    /// How long a run takes.
    takes: Duration,
}

impl Round {
    fn new(name: &str) -> Self {
        let mut round =
            Self { golden: Golden::unpack(name), eyes: World::golden(name, HOUR), clean: Vec::new(), takes: HOUR };
        let mut takes = Vec::new();
        for _ in 0..2 {
            let began = Instant::now();
            run(&mut round.maintain());
            takes.push(began.elapsed());
            round.age();
            round.look("a run that nobody stopped");
            round.clean.push(left(&round.eyes));
        }
        round.takes = takes[0];
        assert!(round.clean.iter().all(|left| left.garbage.is_empty()), "{:?}", round.clean);
        round
    }

    fn again(&mut self) {
        self.golden = Golden::unpack(&self.golden.name);
    }

    fn maintain(&self) -> Command {
        let address = self.golden.address();
        let flags = ["maintain", "--full", "--safety=none", "--i-am-alone", "--allow-removing=100", "--act-as", OWNER];
        let mut command = self.golden.verger(flags);
        command.arg(address);
        command
    }

    /// Every snapshot is whole.
    fn look(&self, when: &str) {
        let disk = FsStorage::open(self.golden.repository(), Access::ReadOnly).unwrap();
        self.eyes.show(&disk, SystemClock.now());
        self.eyes.assert_whole(when);
    }

    /// Whether the last one that was looked at did not say that it is done.
    fn holds_lease(&self) -> bool {
        let disk = FsStorage::open(self.golden.repository(), Access::ReadOnly).unwrap();
        self.eyes.show(&disk, SystemClock.now());
        left(&self.eyes).garbage.iter().any(|one| one.starts_with("lease"))
    }

    /// Lets a minute pass for everything in the repository.
    fn age(&self) {
        let then = std::time::SystemTime::now() - Duration::from_secs(60);
        for path in files(&self.golden.repository()).keys() {
            File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
        }
    }

    /// Starts a run and ends it after `delay`.
    fn end(&self, how: End, delay: Duration, when: &str) -> Came {
        let mut child = self.maintain().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(delay);
        let send = |signal| send(&child, signal);
        match how {
            End::Kill => send(Signal::KILL),
            End::Interrupt => send(Signal::INT),
            End::Terminate => send(Signal::TERM),
            End::Impatient => {
                send(Signal::INT);
                std::thread::sleep(Duration::from_millis(1));
                send(Signal::INT);
            }
        }
        let asked = Instant::now();
        let (status, said) = wait(&mut child);
        assert!(asked.elapsed() < HANGS, "{when}: {how:?} after {delay:?} took {:?}", asked.elapsed());
        self.judge(how, status, &said, when)
    }

    fn judge(&self, how: End, status: ExitStatus, said: &str, when: &str) -> Came {
        match (status.code(), status.signal()) {
            (Some(0), _) => Came::Done,
            // Before the program listens, or for good.
            (None, Some(9 | 2 | 15)) => Came::Killed,
            (Some(INTERRUPTED), _) if how == End::Impatient => Came::Killed,
            (Some(INTERRUPTED), _) if how != End::Kill => {
                let last = said.lines().last().unwrap_or_default();
                assert!(said.contains("Stopping after the step at work"), "{when}: {said}");
                assert!(last.starts_with("verger: ") && last.contains("continues"), "{when}: {said}");
                assert!(!self.holds_lease(), "{when}: {said}");
                Came::Parked
            }
            _ => panic!("{when}: {how:?}: {status}\n{said}"),
        }
    }

    /// The next run waits for nothing and finishes; nothing is left of the others.
    fn finish(&self, when: &str) {
        let began = Instant::now();
        let output = run(&mut self.maintain());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("wait"), "{when}: {said}");
        assert!(began.elapsed() < HANGS, "{when}: {:?}", began.elapsed());
        self.look(when);
        self.age();
        run(&mut self.maintain());
        self.look(when);
        let left = left(&self.eyes);
        assert!(self.clean.contains(&left), "{when}: {left:#?}\ninstead of {:#?}", self.clean);
        nothing_temporary(&self.golden.repository(), when);
        nothing_temporary(&self.golden.folder.path().join("home"), when);
    }
}

fn wait(child: &mut Child) -> (ExitStatus, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap(), said)
}

/// No file that was to be renamed to something else, or that told that a folder can be written.
fn nothing_temporary(folder: &Path, when: &str) {
    for path in files(folder).keys() {
        let name = path.file_name().unwrap().to_string_lossy();
        let temporary = name.contains(".tmp.") || name.contains("probe") || name.ends_with(".new");
        let numbered = name.strip_prefix("known.json.").is_some_and(|rest| rest != "lock");
        assert!(!temporary && !numbered, "{when}: {} is left over", path.display());
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Ends `wanted` runs on one repository after the other.
fn storm(name: &str, seed: u64, wanted: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut round = Round::new(name);
    let (mut ended, mut inside, mut rounds) = ([0_u64; 2], 0, 0);
    while ended.iter().sum::<u64>() < wanted {
        rounds += 1;
        round.again();
        for attempt in 0..random.random_range(2..=4) {
            let how = [End::Kill, End::Kill, End::Interrupt, End::Terminate, End::Impatient][random.random_range(0..5)];
            let delay = round.takes.mul_f64(random.random_range(0.0..1.05));
            let when = format!("{name}, seed {seed}, round {rounds}, {attempt}: {how:?} after {delay:?}");
            match round.end(how, delay, &when) {
                Came::Done => {}
                Came::Killed => {
                    ended[0] += 1;
                    inside += u64::from(round.holds_lease());
                }
                Came::Parked => ended[1] += 1,
            }
            round.look(&when);
        }
        let when = format!("{name}, seed {seed}, round {rounds}");
        round.finish(&when);
        if rounds % 8 == 1
            && let Some(kopia) = Kopia::connect(&round.golden.repository())
        {
            kopia.verifies();
        }
    }
    let [killed, parked] = ended;
    assert!(inside > 0 && parked > 0 || wanted < 20, "{name}, seed {seed}: all moments were too early or too late");
    eprintln!(
        "{name}, seed {seed}: {killed} killed ({inside} inside a cycle), {parked} parked in {rounds} rounds, a run takes {:?}",
        round.takes
    );
}

#[test]
fn a_hundred_kills_at_random_moments_and_the_next_run_finishes_at_once() {
    let seed = setting("VERGER_TEST_SEED").unwrap_or_else(rand::random);
    let kills = setting("VERGER_TEST_KILLS").unwrap_or(100);
    eprintln!("VERGER_TEST_SEED={seed}");
    std::thread::scope(|scope| {
        for (number, name) in ["default", "format1", "epochs"].into_iter().enumerate() {
            scope.spawn(move || storm(name, seed.wrapping_add(number as u64), kills.div_ceil(3)));
        }
    });
}

/// What a person sees who presses Ctrl-C once, and twice.
#[test]
fn ctrl_c_parks_the_cycle_at_the_end_of_a_batch_and_the_next_run_goes_on_with_it() {
    let round =
        Round { golden: Golden::unpack("epochs"), eyes: World::golden("epochs", HOUR), clean: Vec::new(), takes: HOUR };
    let home = round.golden.folder.path().join("home");
    let caught = || {
        let spawn = || round.maintain().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        catch(spawn, || is_inside(&home))
    };
    let mut child = caught();
    let before = approvals(&home);
    send(&child, Signal::INT);
    send(&child, Signal::CONT);
    let (status, said) = wait(&mut child);
    assert_eq!(status.code(), Some(INTERRUPTED), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "Stopping after the step at work; the next run continues. Once more stops at once.");
    let last = lines[lines.len() - 1];
    let told = last.strip_prefix("verger: stopped on request: cycle 1 is parked at its stage ").expect(last);
    assert!(told.ends_with(". Run again: the next run continues"), "{last}");
    assert!(approvals(&home) <= before + 1 && !round.holds_lease(), "{said}");
    let (mut parked, mut closed) = (0, None);
    events(&home, |event| parked += u32::from(matches!(event, Event::CycleParked { .. })));
    assert_eq!(parked, 1);
    // The second one does not wait for the batch.
    let mut child = caught();
    send(&child, Signal::INT);
    send(&child, Signal::TERM);
    send(&child, Signal::CONT);
    let (status, _) = wait(&mut child);
    assert_eq!(status.code(), Some(INTERRUPTED));
    round.look("two signals");
    // The same cycle goes on.
    run(&mut round.maintain());
    events(&home, |event| {
        if let Event::CycleClosed { cycle, end } = event {
            assert!(closed.is_none());
            closed = Some((cycle.0, end.clone()));
        }
    });
    assert_eq!(closed, Some((1, CycleEnd::Done)));
    round.look("the end");
}
