//! Cycles with full margins over simulated days, held against the tables of Kopia's owner: what was done is told from the
//! repository before and after each cycle, not from the report.

#![allow(clippy::unwrap_used)]

#[path = "support/client.rs"]
mod client;
#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/store.rs"]
mod store;
mod support;

use std::time::Duration;

use client::{Client, Trust};
use oracle::Oracle;
use store::{HOUR, World, careful};
use verger::embedded::CycleReport;
use verger_kopia::maintenance::history::Task;
use verger_kopia::maintenance::rules::next::Rule;
use verger_kopia::maintenance::rules::plan::Mode;

const DAY: Duration = Duration::from_secs(24 * 3600 + 60);

/// A cycle under the eyes of the oracle.
fn run(world: &World, mode: Option<Mode>) -> (CycleReport, Oracle) {
    let mut oracle = Oracle::before(world);
    world.tick();
    let report = world.cycle(&careful(mode));
    world.faults.heal();
    oracle.after(world);
    (report, oracle)
}

/// Kopia's table for daily full cycles (`A`: the mark): marked at A, dropped two cycles later with its pack, if that holds nothing
/// else; contents must first be a day old.
#[test]
fn daily_full_cycles_mark_drop_and_delete_as_kopias_table_says() {
    for name in ["default", "epochs", "format1"] {
        let world = World::golden(name, HOUR);
        let mut seen = Vec::new();
        for _ in 0..5 {
            let (report, oracle) = run(&world, Some(Mode::Full));
            seen.push((!oracle.marked.is_empty(), !oracle.dropped.is_empty(), !oracle.packs_gone.is_empty()));
            let tasks = ["snapshot-gc", "full-rewrite-contents", "full-delete-blobs", "cleanup-logs"];
            assert!(tasks.iter().all(|task| report.tasks.contains_key(*task)), "{name}: {:?}", report.tasks.keys());
            world.clock.advance(DAY);
        }
        // Day 1 moves live contents out of short packs; their old packs go on day 2, those of the dropped contents on day 3.
        let (young, marks, moved, drops, quiet) = (
            (false, false, false),
            (true, false, false),
            (false, false, true),
            (false, true, true),
            (false, false, false),
        );
        let expected = if name == "epochs" {
            // It has marks of its own, older than the first cycle.
            [young, (true, true, true), moved, drops, quiet]
        } else {
            [young, marks, moved, drops, quiet]
        };
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
fn the_first_cycle_frees_nothing_and_says_when() {
    for name in ["default", "epochs", "format1"] {
        let world = World::golden(name, HOUR);
        let (report, oracle) = run(&world, Some(Mode::Full));
        assert!(oracle.packs_gone.is_empty() && oracle.marked.is_empty() && oracle.dropped.is_empty(), "{name}");
        let next = report.next.expect("bytes wait for a margin");
        assert!(next.bytes > 0 && next.at > world.now(), "{name}: {next:?}");
        let rule = if name == "epochs" { Rule::MarkToDrop } else { Rule::ContentAge };
        assert_eq!(next.rule, rule, "{name}");
    }
}

/// A full cycle exactly when the last one said does what it said: first what a rewrite left, then what was marked.
#[test]
fn a_full_cycle_at_the_told_time_frees_the_told_bytes() {
    for name in ["default", "epochs", "format1"] {
        let world = World::golden(name, DAY);
        let (first, oracle) = run(&world, Some(Mode::Full));
        let marked = oracle.marked;
        let next = first.next.expect("it moved contents out of short packs");
        assert_eq!(next.rule, Rule::RewriteDelay, "{name}");
        world.clock.advance(world.now().duration_until(next.at).unsigned_abs());
        let (second, oracle) = run(&world, Some(Mode::Full));
        assert!(!oracle.packs_gone.is_empty() && second.freed_bytes >= next.bytes, "{name}: {next:?}");
        let next = second.next.expect("marks wait");
        assert_eq!(next.rule, Rule::MarkToDrop, "{name}");
        world.clock.advance(world.now().duration_until(next.at).unsigned_abs());
        let (third, oracle) = run(&world, Some(Mode::Full));
        // `epochs` has marks of its own, older than the first cycle.
        assert!(
            if name == "epochs" { !oracle.dropped.is_empty() } else { oracle.dropped == marked },
            "{name}: {next:?}"
        );
        assert!(!oracle.packs_gone.is_empty() && third.freed_bytes >= next.bytes, "{name}: {next:?}");
    }
}

/// What is due is asked for every other hour: what the first cycle marked is gone after a day, and 30 hours at most (R15).
#[test]
fn r15_cycles_that_are_due_free_within_30_hours_of_the_mark() {
    for name in ["default", "epochs", "format1"] {
        let world = World::golden(name, DAY);
        Client::new(&world.outside, Trust::Live).enable_cycles();
        let (_, oracle) = run(&world, None);
        let (marked, mut marks) = (world.now(), oracle.marked);
        assert!(!marks.is_empty(), "{name}: a cycle is due at once, and marks");
        let mut full = 1;
        while !marks.is_empty() {
            world.clock.advance(HOUR * 2);
            let (report, oracle) = run(&world, None);
            match report.mode.expect("a quick cycle is due every hour") {
                Mode::Full => full += 1,
                Mode::Index => unreachable!("no such cycle is due by Kopia's settings"),
                Mode::Quick => {
                    let task = if name == "format1" { "index-compaction" } else { "compact-single-epoch" };
                    assert!(report.tasks.contains_key(task), "{name}: {:?}", report.tasks.keys());
                    assert!(!report.tasks.contains_key("snapshot-gc"), "{name}");
                }
            }
            marks.retain(|id| !oracle.dropped.contains(id));
            let hours = world.now().duration_since(marked).as_hours();
            assert!(hours <= 30, "{name}: {} are left", marks.len());
            assert!(oracle.dropped.is_empty() || hours >= 24 || name == "epochs", "{name}: dropped at {hours} h");
        }
        assert!(full <= 6, "{name}: {full} full cycles");
    }
}

/// Legacy index: eight small blobs are one; what they were goes an hour and a compaction later.
#[test]
fn the_legacy_index_is_compacted_by_quick_cycles() {
    let world = World::golden("format1", HOUR);
    assert_eq!(world.count("n"), 8);
    let inputs = world.names("n");
    let (_, _) = run(&world, Some(Mode::Quick));
    assert_eq!((world.count("n"), world.count("m"), world.count("l")), (9, 1, 0), "the inputs are kept");
    let mut client = Client::new(&world.outside, Trust::Live);
    let mut when = None;
    for hour in 0..4 {
        for number in 0..4 {
            client.refresh();
            client.snapshot(&[(0, format!("file {hour} {number}").into_bytes())]);
            world.clock.advance(HOUR / 8);
        }
        let (_, _) = run(&world, Some(Mode::Quick));
        let left = world.names("n");
        let kept = inputs.keys().filter(|name| left.contains_key(*name)).count();
        assert!(kept == 8 || kept == 0, "all or none go: {kept}");
        if kept == 0 && when.is_none() {
            when = Some(hour);
            assert_eq!(world.count("l"), 1, "the schedule to remove the log of them");
        }
    }
    assert_eq!(when, Some(1), "4 + 4 blobs and the compacted one are the next compaction");
}

/// Epochs: a day and twenty index blobs end one; a settled one is compacted, and its blobs go after the safety margin.
#[test]
fn epochs_advance_are_compacted_and_cleaned() {
    let world = World::golden("default", HOUR);
    let mut client = Client::new(&world.outside, Trust::Live);
    let mut epochs = Vec::new();
    let (mut compacted, mut superseded) = (0, 0);
    for round in 0..20 {
        for number in 0..5 {
            client.refresh();
            client.snapshot(&[(0, format!("file {round} {number}").into_bytes())]);
            world.clock.advance(HOUR);
        }
        let mode = if round % 5 == 4 { Mode::Full } else { Mode::Quick };
        let (_, oracle) = run(&world, Some(mode));
        epochs.push(world.view().write_epoch.unwrap());
        compacted += oracle.epochs_compacted.len();
        superseded += oracle.superseded.len();
    }
    assert!(epochs.windows(2).all(|pair| pair[1] - pair[0] <= 1), "{epochs:?}");
    assert!(*epochs.last().unwrap() >= 3, "{epochs:?}");
    assert!(compacted >= 2 && superseded > 0, "{compacted} compacted, {superseded} superseded, {epochs:?}");
    let history = world.history();
    for task in [Task::CompactSingleEpoch, Task::AdvanceEpoch, Task::DeleteSupersededEpochIndexes] {
        assert!(history.history(task).iter().all(|record| record.success), "{task}");
    }
}

/// What a cycle leaves of the index: entries, what they lie in, and how many blobs there are of each kind and epoch.
fn index(world: &World) -> (Vec<String>, Vec<(String, usize)>) {
    let view = world.view();
    let rows = view.table.rows().map(|row| format!("{:?}", view.table.entry(row))).collect();
    let mut kinds: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for name in ["x", "n", "m", "l"].iter().flat_map(|prefix| world.names(prefix).into_keys()) {
        let kind = if name.starts_with('x') { name.split('_').next().unwrap_or_default() } else { &name[..1] };
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    (rows, kinds.into_iter().collect())
}

/// Packs, markers and logs, with their times.
fn others(world: &World) -> Vec<(String, verger_kopia::clock::Timestamp)> {
    ["p", "q", "s", "_log_"].iter().flat_map(|prefix| world.names(prefix)).collect()
}

#[test]
fn an_index_cycle_leaves_the_index_as_a_quick_one_does_and_all_else_untouched() {
    for name in ["default", "epochs", "ecc", "format1"] {
        let mut world = World::golden(name, HOUR);
        let mut client = Client::new(&world.outside, Trust::Live);
        for number in 0..30 {
            client.refresh();
            client.snapshot(&[(0, format!("file {number}").into_bytes())]);
            world.clock.advance(HOUR);
        }
        // Twice, so that an epoch that was ended is settled and compacted, too.
        for round in 0..4 {
            let saved = world.save();
            world.cycle(&careful(Some(Mode::Quick)));
            let quick = (index(&world), world.history());
            world.restore(&saved);
            let before = others(&world);
            let (next_full, next_quick) = (world.history().next_full, world.history().next_quick);
            let report = world.cycle(&careful(Some(Mode::Index)));
            assert_eq!(report.mode, Some(Mode::Index));
            assert_eq!(others(&world), before, "{name} {round}: packs, markers and logs stay");
            if name != "format1" {
                assert_eq!(index(&world), quick.0, "{name} {round}");
            } else {
                // A quick cycle also writes index blobs for the q packs that it moves.
                assert_eq!(index(&world).0.len(), quick.0.0.len(), "{name} {round}");
            }
            let tasks: Vec<&str> = report.tasks.keys().map(String::as_str).collect();
            let expected: &[&str] =
                if name == "format1" { &["index-compaction"] } else { &["advance-epoch", "compact-single-epoch"] };
            assert_eq!(tasks, expected, "{name}");
            let history = world.history();
            for task in [Task::IndexCompaction, Task::CompactSingleEpoch, Task::AdvanceEpoch] {
                let counts = [history.history(task).len(), quick.1.history(task).len()];
                assert_eq!(counts[0], counts[1], "{name} {round} {task}: recorded as a quick cycle does");
            }
            // It takes no turn of Kopia's cycles.
            let soonest = report.started + HOUR / 6;
            for (before, after) in [(next_full, history.next_full), (next_quick, history.next_quick)] {
                let expected = before.filter(|at| *at > soonest).unwrap_or(soonest);
                assert!(after.unwrap().duration_since(expected).unsigned_abs() < Duration::from_secs(60), "{name}");
            }
            world.clock.advance(DAY);
            for number in 0..24 {
                client.refresh();
                client.snapshot(&[(0, format!("file {round} {number}").into_bytes())]);
                world.clock.advance(HOUR);
            }
        }
        assert!(name == "format1" || world.view().write_epoch.unwrap() > 1, "{name}: nothing was advanced");
    }
}
