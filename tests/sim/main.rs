//! A whole cluster in simulation: the real machine and the real raft on simulated disks, wires and clocks, for many seeds. One seed is
//! one course of events. `docs/simulation.md` says what is simulated, and how a seed is lived through again.
//!
//! `VERGER_SIM_SEED=n` lives through one seed and prints its course, `VERGER_SIM_SEEDS=from..to` through many.

#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]
// The value may fail to be made, which an entry cannot say.
#![allow(clippy::map_entry)]

#[path = "../support/sim/mod.rs"]
mod clients;
mod clock;
mod course;
mod disk;
mod engine;
mod faults;
mod judge;
mod network;
mod oracle;
mod others;
mod post;
mod replicas;
mod seeds;
mod steps;
#[path = "../support/store.rs"]
mod store;
#[path = "../support/mod.rs"]
mod support;
mod trace;
mod turns;
mod way;
mod workers;
mod world;
mod yard;

use std::time::Instant;

/// Seeds of an ordinary run.
const SEEDS: u64 = 2_000;

#[test]
fn whatever_breaks_replicas_are_one_and_everything_finishes() {
    let (wanted, print) = seeds::wanted(SEEDS);
    let (began, count) = (Instant::now(), wanted.end - wanted.start);
    let courses = seeds::all(wanted, || (), |(), seed| course::run(seed, print));
    let sum = |of: fn(&course::Course) -> u64| courses.iter().map(of).sum::<u64>();
    let (answers, cycles) = (sum(|c| c.acknowledged), sum(|c| c.cycles.into()));
    let batches = sum(|c| c.batches.into());
    println!("{count} seeds, {answers} answers, {cycles} cycles, {batches} batches, {:?}", began.elapsed());
    if count >= 20 {
        assert!(answers > 50 * count && cycles > 2 * count && batches > 10 * count, "nothing much happened");
    }
}

/// A few of them, for whoever takes a rule out.
#[test]
fn p2_p3_p4_p5_the_first_seeds_hold() {
    seeds::all(0..16, || (), |(), seed| course::run(seed, false));
}

#[test]
fn one_seed_is_one_course_of_events() {
    for seed in 10_000..10_006 {
        let run = || course::run(seed, false).unwrap_or_else(|failure| panic!("seed {seed}: {}", failure.finding));
        let first = run();
        let second = std::thread::spawn(move || course::run(seed, false).map_err(|failure| failure.finding)).join();
        assert_eq!(Ok(&first), second.unwrap().as_ref(), "seed {seed}");
        assert_ne!(first.hash, course::run(seed + 100, false).unwrap().hash);
    }
}

#[test]
fn one_seed_is_one_course_of_events_with_engines() {
    let (one, other) = (engine::Stage::new(), engine::Stage::new());
    for seed in [5, 10_001, 10_002] {
        let courses = [one.run(seed, false), other.run(seed, false)];
        let [first, second] = courses.map(|course| course.unwrap_or_else(|failure| panic!("{}", failure.finding)));
        assert_eq!(first, second, "seed {seed}");
    }
}

/// Rules of replicas and of the machine that are taken out, and each must be noticed within 200 seeds.
#[cfg(feature = "mutants")]
const MUTANTS: [&str; 10] = [
    "P2DeedBeforeSeal",
    "P2OneMillisecondMore",
    "P3AckBeforeSync",
    "P3OldDiskHeard",
    "P4ClockInApply",
    "P5AskedAgainIsNew",
    "S3OldTermHeard",
    "S3OldAttemptHeard",
    "R5UnconfirmedLeaseCounts",
    "P6NobodyAskedForItsLevel",
];

/// Rules of engines, of the shards of their cycles, and of the hints that their workers hear.
#[cfg(feature = "mutants")]
const ENGINE_MUTANTS: [&str; 7] = [
    "R1NobodyAsked",
    "R1NoSecondLook",
    "R12MissingShardIgnored",
    "R12EmptyPartIsNothing",
    "R12UndecryptableIsAbsent",
    "S7AckBelieved",
    "S7ClaimForEver",
];

/// Each in a process of its own: a mutant is chosen when a program starts.
#[cfg(feature = "mutants")]
#[test]
fn each_rule_that_is_taken_out_is_noticed_within_200_seeds() {
    if std::env::var_os("VERGER_MUTANT").is_some() {
        return;
    }
    let (mut missed, mut told) = (Vec::new(), Vec::new());
    let replicas = MUTANTS.map(|mutant| (mutant, "whatever_breaks_replicas_are_one_and_everything_finishes"));
    let engines = ENGINE_MUTANTS.map(|mutant| (mutant, "whatever_breaks_cycles_leave_the_repository_whole"));
    for (mutant, test) in replicas.into_iter().chain(engines) {
        let mut program = std::process::Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", test, "--nocapture"]);
        program.env("VERGER_MUTANT", mutant).env("VERGER_SIM_SEEDS", "0..200").env("RUST_BACKTRACE", "0");
        let done = program.output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
        let found = text.lines().find(|line| line.starts_with("seed ") && line.contains(" good ones: "));
        told.push(format!("{mutant}: {found:?}"));
        if done.status.success() || found.is_none() {
            missed.push(mutant);
        }
    }
    println!("{}", told.join("\n"));
    assert!(missed.is_empty(), "{missed:?} were not noticed");
}

/// A few of those below, for whoever takes a rule out.
#[test]
fn r1_nothing_is_done_outside_an_approved_batch() {
    seeds::all(0..2, engine::Stage::new, |stage, seed| stage.run(seed, false));
}

/// Seeds in which cycles are cut, so many on.
const CUT: u64 = 6;

/// Orders of rewrites that are damaged: their shards are gone around, and say why; the cycle is degraded and does all else; the next one
/// does what was left.
#[test]
fn r12_orders_of_rewrites_that_are_damaged_cost_their_shards_and_no_cycle() {
    let run = |stage: &engine::Stage, number: u64| stage.run_with(4 * number + 1, Some(yard::REWRITE_ORDER), false);
    let courses = seeds::all(0..CUT, engine::Stage::new, run);
    let sum = |of: fn(&engine::Course) -> u32| courses.iter().map(|course| u64::from(of(course))).sum::<u64>();
    let (spoiled, around, done) = (sum(|c| c.spoiled), sum(|c| c.around), sum(|c| c.done));
    println!("{spoiled} orders damaged, {around} shards gone around, {done} cycles done");
    assert!(spoiled > 2 * CUT && around > CUT && done >= 2 * CUT, "nothing much happened");
}

/// Seeds of an ordinary run in which whole cycles run.
const ENGINE_SEEDS: u64 = 32;

#[test]
fn whatever_breaks_cycles_leave_the_repository_whole() {
    let (wanted, print) = seeds::wanted(ENGINE_SEEDS);
    let (began, count) = (Instant::now(), wanted.end - wanted.start);
    let courses = seeds::all(wanted, engine::Stage::new, |stage, seed| stage.run(seed, print));
    let sum = |of: fn(&engine::Course) -> u32| courses.iter().map(|course| u64::from(of(course))).sum::<u64>();
    let (engines, done, killed, rivals) = (sum(|c| c.engines), sum(|c| c.done), sum(|c| c.killed), sum(|c| c.rivals));
    let (snapshots, deeds, marks) = (sum(|c| c.snapshots), sum(|c| c.deeds), sum(|c| c.marks));
    let (shards, asked, spoiled) = (sum(|c| c.shards), sum(|c| c.asked), sum(|c| c.spoiled));
    let around = sum(|c| c.around);
    println!("{count} seeds, {engines} engines ({done} done, {killed} killed, {rivals} beside another)");
    println!(
        "{shards} shards done by others than their lead, {asked} of them unasked by hints, {spoiled} parts spoiled ({around} shards gone around)"
    );
    println!("{snapshots} snapshots, {deeds} deeds, {marks} marks, {:?}", began.elapsed());
    if count >= 20 {
        assert!(done > 2 * count && killed > count / 4 && rivals > count / 2, "nothing much happened");
        assert!(snapshots > 10 * count && deeds > 20 * count && marks > 10 * count, "nothing much happened");
        assert!(shards > 10 * count && asked > count && spoiled > count / 10, "others did not do much");
    }
}
