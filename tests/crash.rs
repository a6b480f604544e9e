//! A cycle that is killed at any of its effects, and another maintainer in the middle of one.

#![allow(clippy::unwrap_used)]

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oracle::Oracle;
use store::{HOUR, Saved, World, alone, careful};
use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::history::{RunRecord, Task};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::maintenance::schedule;
use verger_kopia::storage::PutOptions;
use verger_kopia::storage::fault::{Call, Effect};
use verger_kopia::{Error, ErrorKind};

/// What a cycle is to leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    live: BTreeSet<String>,
    marked: usize,
    packs: (usize, usize),
    sessions: usize,
}

fn left(world: &World) -> Left {
    let view = world.view();
    let table = &view.table;
    let (marked, live): (Vec<u32>, Vec<u32>) = table.rows().partition(|row| table.is_deleted(*row));
    Left {
        live: live.into_iter().map(|row| table.id(row).to_string()).collect(),
        marked: marked.len(),
        packs: (world.count("p"), world.count("q")),
        sessions: world.count("s"),
    }
}

/// How a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// Right before the effect.
    Before,
    /// Right after it: the answer is lost.
    After,
}

fn kill(world: &World, number: u64, death: Death) -> Result<(), Error> {
    match death {
        Death::After => world.faults.stop_after(world.faults.effects() + number),
        Death::Before => {
            let seen = AtomicU64::new(0);
            world.faults.hook(Box::new(move |effect: &Effect| {
                if !effect.done && seen.fetch_add(1, Ordering::SeqCst) + 1 >= number {
                    return Err(Error::new(ErrorKind::Interrupted, "the process was stopped"));
                }
                Ok(())
            }));
        }
    }
    world.try_cycle(&alone(Mode::Full)).map(drop)
}

fn everywhere(name: &str) {
    let mut world = World::golden(name, HOUR);
    let start: Saved = world.save();
    let before = world.faults.effects();
    world.cycle(&alone(Mode::Full));
    let effects = world.faults.effects() - before;
    let clean = left(&world);
    assert!(clean.sessions == 0 && effects > 20, "{name}: {effects} effects, {clean:?}");
    for number in 1..=effects {
        for death in [Death::Before, Death::After] {
            let when = format!("{name}: killed {death:?} effect {number} of {effects}");
            world.restore(&start);
            kill(&world, number, death).expect_err(&when);
            world.faults.heal();
            world.assert_whole(&when);
            world.clock.advance(Duration::from_secs(30));
            let again = world.try_cycle(&alone(Mode::Full));
            again.unwrap_or_else(|e| panic!("{when}: the next cycle: {}", e.chain()));
            world.assert_whole(&format!("{when}, and the next cycle"));
            assert_eq!(left(&world), clean, "{when}: what the next cycle left");
        }
    }
}

#[test]
fn s7_a_cycle_killed_at_any_effect_is_finished_by_the_next_one() {
    everywhere("default");
}

#[test]
fn s7_a_cycle_killed_at_any_effect_is_finished_by_the_next_one_with_the_legacy_index() {
    everywhere("format1");
}

/// With full margins: killed in a cycle that marks and moves, or in one that drops and deletes; daily cycles after it keep to the ages
/// and turns that the history shows, and leave what they would have left without it.
fn careful_everywhere(name: &str, days: u32) {
    let day = HOUR * 24 + Duration::from_secs(60);
    let mut world = World::golden(name, day);
    for _ in 0..days {
        world.cycle(&careful(Some(Mode::Full)));
        world.clock.advance(day);
    }
    let start = world.save();
    let before = world.faults.effects();
    world.cycle(&careful(Some(Mode::Full)));
    let effects = world.faults.effects() - before;
    for _ in 0..4 {
        world.clock.advance(day);
        world.cycle(&careful(Some(Mode::Full)));
    }
    let clean = left(&world);
    // Most effects of the later cycle are deletions, one like the other.
    for number in (1..=effects).step_by(if days == 0 { 1 } else { 3 }) {
        let when = format!("{name}, day {days}: killed after effect {number} of {effects}");
        world.restore(&start);
        let earlier = Oracle::before(&world);
        world.faults.stop_after(world.faults.effects() + number);
        world.try_cycle(&careful(Some(Mode::Full))).expect_err(&when);
        world.faults.heal();
        world.assert_whole(&when);
        world.clock.advance(HOUR / 2);
        // A leaked session protects its packs for 96 h.
        for round in 0..6 {
            let mut oracle = Oracle::before(&world);
            world.tick();
            world.cycle(&careful(Some(Mode::Full)));
            world.faults.heal();
            oracle.after(&world);
            if round == 0 {
                oracle.assert_moved_from_packs_stay(&earlier);
            }
            world.clock.advance(day);
        }
        assert_eq!(left(&world), clean, "{when}: what was left a week later");
    }
}

#[test]
fn r20_a_careful_cycle_killed_at_any_effect_leaves_a_history_that_tells_the_truth() {
    careful_everywhere("default", 0);
    careful_everywhere("default", 2);
}

#[test]
fn r20_a_careful_cycle_killed_at_any_effect_leaves_a_history_that_tells_the_truth_with_the_legacy_index() {
    careful_everywhere("format1", 0);
    careful_everywhere("format1", 2);
}

/// What was about to be changed, in order.
type Effects = Vec<(Call, String)>;

/// Lets another maintainer, which respects no lease, write `kopia.maintenance` right after the Nth effect of the next cycle. What
/// this effect was, and those that the cycle still asked for.
fn intrude(world: &World, number: u64) -> Arc<Mutex<Option<(Call, Effects)>>> {
    let later = Arc::new(Mutex::new(None));
    let (log, outside, seen) = (later.clone(), world.outside.clone(), AtomicU64::new(0));
    world.faults.hook(Box::new(move |effect: &Effect| {
        let mut log = log.lock().unwrap();
        match &mut *log {
            None if effect.done && seen.fetch_add(1, Ordering::SeqCst) + 1 == number => {
                let mut loaded = schedule::load(&outside)?;
                loaded.schedule.report(Task::ExtendBlobRetentionTime, foreign(outside.clock().now()));
                schedule::save(&outside, &loaded.schedule, &PutOptions::default())?;
                *log = Some((effect.call, Vec::new()));
            }
            Some((_, later)) if !effect.done => later.push((effect.call, effect.id.to_string())),
            _ => {}
        }
        Ok(())
    }));
    later
}

fn foreign(now: Timestamp) -> RunRecord {
    RunRecord::failure(now, now, "a record of somebody else")
}

#[test]
fn r22_another_maintainer_in_the_middle_ends_the_cycle_within_a_batch() {
    for name in ["default", "format1"] {
        let mut world = World::golden(name, HOUR);
        let start = world.save();
        let before = world.faults.effects();
        world.cycle(&alone(Mode::Full));
        let (effects, clean) = (world.faults.effects() - before, left(&world));
        for number in 2..effects {
            world.restore(&start);
            let later = intrude(&world, number);
            let when = format!("{name}: foreign write after effect {number} of {effects}");
            let error = world.try_cycle(&alone(Mode::Full)).expect_err(&when);
            assert_eq!(error.kind(), ErrorKind::ForeignMaintenance, "{when}: {}", error.chain());
            world.faults.heal();
            world.assert_whole(&when);
            let (during, later) = later.lock().unwrap().take().expect(&when);
            for (call, id) in &later {
                // A batch of deletions that is under way is one request to most stores.
                let deletes = *call == Call::Delete && !id.starts_with('s') && during != Call::Delete;
                let shows = *call == Call::Put && (id.starts_with(['n', 'x']) || id == "kopia.maintenance");
                assert!(!deletes && !shows, "{when}: {call:?} {id}");
            }
            let history = world.history();
            let kept = history.history(Task::ExtendBlobRetentionTime);
            assert_eq!(kept.len(), 1, "{when}: its record is gone");
            if number % 4 == 0 {
                world.clock.advance(Duration::from_secs(30));
                world.cycle(&alone(Mode::Full));
                assert_eq!(left(&world), clean, "{when}: what the next cycle left");
            }
        }
    }
}
