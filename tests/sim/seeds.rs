//! Which seeds, and all of them on all cores.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::course::Failure;

/// The seeds that were asked for, and whether to print.
pub fn wanted(usual: u64) -> (Range<u64>, bool) {
    if let Ok(seed) = std::env::var("VERGER_SIM_SEED") {
        let seed: u64 = seed.parse().unwrap();
        return (seed..seed + 1, true);
    }
    let Ok(seeds) = std::env::var("VERGER_SIM_SEEDS") else { return (0..usual, false) };
    let (from, to) = seeds.split_once("..").expect("VERGER_SIM_SEEDS=from..to");
    (from.parse().unwrap()..to.parse().unwrap(), false)
}

fn guarded<C>(run: impl FnOnce() -> Result<C, Failure>) -> Result<C, Failure> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Failure { finding: format!("panic: {}", text.unwrap_or_default()), trace: String::new() })
    })
}

/// Lives through all of them, each thread on a stage of its own, and panics with the first failure by number of seed.
pub fn all<S, C: Send>(
    seeds: Range<u64>,
    stage: impl Fn() -> S + Sync,
    run: impl Fn(&S, u64) -> Result<C, Failure> + Sync,
) -> Vec<C> {
    let next = AtomicU64::new(seeds.start);
    let done: Mutex<(Vec<C>, BTreeMap<u64, Failure>)> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores.min((seeds.end - seeds.start) as usize) {
            scope.spawn(|| {
                let stage = stage();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || !done.lock().unwrap().1.is_empty() {
                        return;
                    }
                    match guarded(|| run(&stage, seed)) {
                        Ok(course) => done.lock().unwrap().0.push(course),
                        Err(failure) => drop(done.lock().unwrap().1.insert(seed, failure)),
                    }
                }
            });
        }
    });
    let (courses, mut failures) = done.into_inner().unwrap();
    if let Some((seed, Failure { finding, trace })) = failures.pop_first() {
        panic!("{trace}seed {seed}, after {} good ones: {finding}\nAgain: VERGER_SIM_SEED={seed}", courses.len());
    }
    courses
}
