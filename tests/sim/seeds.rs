//! Which seeds, and all of them on all cores.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::course::{Course, Failure};

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

fn guarded(seed: u64, run: &dyn Fn(u64) -> Result<Course, Failure>) -> Result<Course, Failure> {
    catch_unwind(AssertUnwindSafe(|| run(seed))).unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Failure { finding: format!("panic: {}", text.unwrap_or_default()), trace: String::new() })
    })
}

/// Lives through all of them; the first failure by number of seed, if any.
pub fn all(
    seeds: Range<u64>,
    run: impl Fn(u64) -> Result<Course, Failure> + Sync,
) -> (Vec<Course>, Option<(u64, Failure)>) {
    let next = AtomicU64::new(seeds.start);
    let done: Mutex<(Vec<Course>, BTreeMap<u64, Failure>)> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores.min((seeds.end - seeds.start) as usize) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || !done.lock().unwrap().1.is_empty() {
                        return;
                    }
                    match guarded(seed, &run) {
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
