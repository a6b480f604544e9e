//! Clients at work beside cycles, over simulated weeks, for many seeds (R27): no snapshot is ever damaged, and what nobody needs
//! goes.
//!
//! `VERGER_SIM_SEED=n` lives through one seed and prints its course, `VERGER_SIM_SEEDS=from..to` through many;
//! `VERGER_SIM_DAYS` sets how many days clients work.

#![allow(clippy::unwrap_used, clippy::print_stdout)]
// The value may fail to be made, which an entry cannot say.
#![allow(clippy::map_entry)]

#[path = "support/sim/mod.rs"]
mod sim;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sim::{Course, Failure, Stage};

/// Seeds of an ordinary run.
const SEEDS: Range<u64> = 0..24;
const DAYS: u64 = 8;

fn days() -> u64 {
    std::env::var("VERGER_SIM_DAYS").map_or(DAYS, |days| days.parse().unwrap())
}

/// The seeds that were asked for, and whether to print.
fn wanted() -> (Range<u64>, bool) {
    if let Ok(seed) = std::env::var("VERGER_SIM_SEED") {
        let seed: u64 = seed.parse().unwrap();
        return (seed..seed + 1, true);
    }
    let Ok(seeds) = std::env::var("VERGER_SIM_SEEDS") else { return (SEEDS, false) };
    let (from, to) = seeds.split_once("..").expect("VERGER_SIM_SEEDS=from..to");
    (from.parse().unwrap()..to.parse().unwrap(), false)
}

fn live(stage: &Stage, seed: u64, print: bool) -> Result<Course, Failure> {
    catch_unwind(AssertUnwindSafe(|| stage.run(seed, days(), print))).unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Failure { finding: format!("panic: {}", text.unwrap_or_default()), trace: String::new() })
    })
}

/// Lives through all of them; the first failure by number of seed, if any.
fn all(seeds: Range<u64>, print: bool) -> (Vec<Course>, Option<(u64, Failure)>) {
    let next = AtomicU64::new(seeds.start);
    let done: Mutex<(Vec<Course>, BTreeMap<u64, Failure>)> = Mutex::default();
    let threads =
        std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min((seeds.end - seeds.start) as usize);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let stage = Stage::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || !done.lock().unwrap().1.is_empty() {
                        return;
                    }
                    match live(&stage, seed, print) {
                        Ok(course) => done.lock().unwrap().0.push(course),
                        Err(failure) => drop(done.lock().unwrap().1.insert(seed, failure)),
                    }
                }
            });
        }
    });
    let (courses, mut failures) = done.into_inner().unwrap();
    (courses, failures.pop_first())
}

#[test]
fn r27_no_snapshot_is_ever_damaged_and_garbage_goes() {
    let (seeds, print) = wanted();
    let (began, count) = (Instant::now(), seeds.end - seeds.start);
    let (courses, failure) = all(seeds, print);
    if let Some((seed, Failure { finding, trace })) = failure {
        panic!(
            "{trace}seed {seed}, after {} good ones: {finding}\nAgain: VERGER_SIM_SEED={seed} VERGER_SIM_DAYS={}",
            courses.len(),
            days()
        );
    }
    let mut failures: BTreeMap<&str, u32> = BTreeMap::new();
    for (kind, count) in courses.iter().flat_map(|course| &course.failures) {
        *failures.entry(kind).or_default() += count;
    }
    let sum = |of: fn(&Course) -> u64| courses.iter().map(of).sum::<u64>();
    let (cycles, killed) = (sum(|c| c.cycles.into()), sum(|c| c.killed.into()));
    let (snapshots, forgotten) = (sum(|c| c.snapshots as u64), sum(|c| c.forgotten as u64));
    println!(
        "{count} seeds, {cycles} cycles ({killed} killed), {snapshots} snapshots, {forgotten} contents forgotten, {:?}\n{failures:#?}",
        began.elapsed()
    );
    if count >= 20 {
        assert!(killed > count / 10 && snapshots > 10 * count && forgotten > 10 * count, "nothing much happened");
        let failed: u32 = failures.values().sum();
        assert!(u64::from(failed) < cycles / 4, "most cycles must end well: {failures:#?}");
    }
}

#[test]
fn one_seed_is_one_course_of_events() {
    let (one, other) = (Stage::new(), Stage::new());
    for seed in 1000..1003 {
        let run = |stage: &Stage| live(stage, seed, false).unwrap_or_else(|f| panic!("seed {seed}: {}", f.finding));
        let (first, second) = (run(&one), run(&other));
        assert_eq!(first, second, "seed {seed}");
    }
}
