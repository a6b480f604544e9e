//! A cycle that is killed at any of its effects, and another maintainer in the middle of one.

#![allow(clippy::unwrap_used)]

#[path = "support/death.rs"]
mod death;
#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use death::{Left, MOMENTS, Moment, die, indexes, left};
use oracle::Oracle;
use store::{HOUR, Saved, World, alone, careful};
use verger::embedded::CycleRequest;
use verger_kopia::ErrorKind;
use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::history::{RunRecord, Task};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::maintenance::schedule;
use verger_kopia::storage::PutOptions;
use verger_kopia::storage::fault::{Call, Effect};

/// A repository, the effects of a cycle on it, and what one and two cycles leave that nobody stops.
struct Course {
    world: World,
    start: Saved,
    effects: Vec<String>,
    clean: [Left; 2],
    /// Index blobs after two cycles.
    indexes: usize,
    request: CycleRequest,
}

impl Course {
    fn new(name: &str, request: CycleRequest) -> Self {
        let mut world = World::golden(name, HOUR);
        let start = world.save();
        let effects = Arc::new(Mutex::new(Vec::new()));
        let log = effects.clone();
        world.faults.hook(Box::new(move |effect: &Effect| {
            if effect.done {
                log.lock().unwrap().push(format!("{:?} {}", effect.call, effect.id));
            }
            Ok(())
        }));
        world.cycle(&request);
        world.faults.heal();
        let once = left(&world);
        world.clock.advance(PAUSE);
        world.cycle(&alone(Mode::Full));
        let (clean, indexes) = ([once, left(&world)], indexes(&world));
        assert!(clean.iter().all(|left| left.garbage.is_empty()), "{name}: {clean:?}");
        world.restore(&start);
        let effects = effects.lock().unwrap().clone();
        Self { world, start, effects, clean, indexes, request }
    }

    /// Ends a process at this effect.
    fn die(&self, number: usize, moment: Moment, when: &str) {
        die(&self.world, number as u64, moment, &self.request);
        self.world.assert_whole(when);
        self.world.clock.advance(PAUSE);
    }

    /// The next run finishes at once, and nothing tells that the earlier ones did not. It is one more cycle where those had done their
    /// work: then what two cycles leave is right. Quick ones look at no session markers: a full one comes after them.
    fn finish(&self, when: &str) {
        let quick = self.request.mode == Some(Mode::Quick);
        let full = quick.then(|| alone(Mode::Full));
        for request in [&self.request].into_iter().chain(&full) {
            let report = self.world.try_cycle(request);
            let report = report.unwrap_or_else(|e| panic!("{when}: the next cycle: {}", e.chain()));
            assert_eq!(report.outcome, "done", "{when}");
            self.world.assert_whole(&format!("{when}, and the next cycle"));
            self.world.clock.advance(PAUSE);
        }
        let left = left(&self.world);
        assert!(self.clean.contains(&left), "{when}: {left:#?}\ninstead of {:#?}", self.clean);
        // Each run may have written its marks, its moved entries and a compacted set of them before it died.
        let indexes = indexes(&self.world);
        assert!(indexes <= self.indexes + 3, "{when}: {indexes} index blobs instead of {}", self.indexes);
        let states = death::files(&self.world.state_dir());
        let odd = states.keys().find(|path| path.to_string_lossy().contains(&format!(".{}", std::process::id())));
        assert!(odd.is_none(), "{when}: {odd:?}");
    }

    /// Whether a pack is one of many that are deleted one after the other: one of seven stands for all.
    fn is_like_the_last(&self, number: usize) -> bool {
        let packs = |number: usize| {
            let effect = &self.effects[number - 1];
            effect.starts_with("Delete p") || effect.starts_with("Delete q")
        };
        let inside = number > 2 && number < self.effects.len() && (number - 1..=number + 1).all(packs);
        self.effects.len() > 100 && inside && !number.is_multiple_of(7)
    }
}

/// Time between two runs.
const PAUSE: Duration = Duration::from_secs(30);

/// A cycle ends at every effect, before and after it.
fn everywhere(name: &str, request: CycleRequest, least: usize) {
    let mut course = Course::new(name, request);
    let count = course.effects.len();
    assert!(count >= least, "{name}: {count} effects: {:?}", course.effects);
    let numbers: Vec<usize> = (1..=count).filter(|number| !course.is_like_the_last(*number)).collect();
    eprintln!("{name}: {count} effects, {} points", numbers.len() * MOMENTS.len());
    for number in numbers {
        for moment in MOMENTS {
            let when = format!("{name}: killed {moment:?} effect {number} of {count}, {}", course.effects[number - 1]);
            let start = &course.start;
            course.world.restore(start);
            course.die(number, moment, &when);
            course.finish(&when);
        }
    }
}

#[test]
fn s7_a_cycle_killed_at_any_effect_is_finished_by_the_next_one() {
    everywhere("default", alone(Mode::Full), 20);
    everywhere("default", alone(Mode::Quick), 2);
}

#[test]
fn s7_a_cycle_killed_at_any_effect_is_finished_by_the_next_one_with_the_legacy_index() {
    everywhere("format1", alone(Mode::Full), 20);
    everywhere("format1", alone(Mode::Quick), 2);
}

#[test]
fn s7_a_cycle_killed_at_any_effect_is_finished_by_the_next_one_with_many_epochs() {
    everywhere("epochs", alone(Mode::Full), 100);
}

/// The second run dies as well, at another effect; and on another machine, which has none of the first one's files, the third one
/// finishes all the same.
#[test]
fn s7_a_cycle_killed_twice_is_finished_by_the_third_one_here_or_elsewhere() {
    for name in ["default", "format1"] {
        let mut course = Course::new(name, alone(Mode::Full));
        let count = course.effects.len();
        for number in 1..=count {
            let (moment, second) = (MOMENTS[number % 2], number * 7 % count + 1);
            let when = format!("{name}: killed {moment:?} effect {number}, then {second} of {count}");
            let start = &course.start;
            course.world.restore(start);
            course.die(number, moment, &when);
            course.die(second, MOMENTS[number / 2 % 2], &when);
            if number % 3 == 0 {
                death::put_back(&course.world.state_dir(), &BTreeMap::new());
            }
            course.finish(&when);
        }
    }
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
        let when = format!("{name}, day {days}: killed at effect {number} of {effects}");
        world.restore(&start);
        let earlier = Oracle::before(&world);
        die(&world, number, MOMENTS[number as usize / 3 % 2], &careful(Some(Mode::Full))).expect(&when);
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
