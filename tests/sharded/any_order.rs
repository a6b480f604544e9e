//! Any cut, any number of workers, any order, shards that are given back, done late and reported twice: one plan, that of a cycle alone.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use verger::embedded::cycle;
use verger_proto::control::{Control, ControlError};
use verger_proto::{FailureKind, JobReport, Ticket, WorkerId};
use verger_worker::run::run_shard;

use crate::support::told;
use crate::{Course, End, Fleet, Remote, end, request};

/// Cases of an ordinary run: a few seconds.
const CASES: u32 = 24;
/// Attempts at a shard that are given back at most.
const GIVEN_BACK_MAX: u32 = 3;

/// How a cycle is cut, and how its shards are done.
#[derive(Debug, Clone)]
struct Manner {
    repository: usize,
    shard_bytes: u64,
    others: usize,
    /// Of a hundred reports.
    given_back: u32,
    twice: u32,
    seed: u64,
}

fn manner() -> impl Strategy<Value = Manner> {
    // A shard for each pack, and up to none at all.
    let bytes = (0u32..18, 1u64..2).prop_map(|(power, least)| least << power);
    let parts = (0usize..2, bytes, 0usize..5, 0u32..40, 0u32..40, any::<u64>());
    parts.prop_map(|(repository, shard_bytes, others, given_back, twice, seed)| Manner {
        repository,
        shard_bytes,
        others,
        given_back,
        twice,
        seed,
    })
}

/// What was done in all cases.
#[derive(Debug, Default)]
struct Done {
    shards: AtomicUsize,
    given_back: AtomicUsize,
    twice: AtomicUsize,
}

/// Somebody who does shards, and has an order of his own.
struct Hand<'a> {
    fleet: &'a Fleet,
    course: &'a Course,
    manner: &'a Manner,
    done: &'a Done,
    dice: SmallRng,
    remote: Remote,
    worker: WorkerId,
}

impl Hand<'_> {
    /// Claims what is open, and reports what is done at some other time, in any order.
    fn work(mut self, over: &AtomicBool) {
        let (workspace, mut drawer) = (self.fleet.workspace(&self.course.world), Vec::new());
        while !over.load(Ordering::Relaxed) {
            let open = self.fleet.open();
            if !drawer.is_empty() && (open.is_empty() || self.dice.random_ratio(1, 3)) {
                let (ticket, report) = drawer.swap_remove(self.dice.random_range(0..drawer.len()));
                self.report(&ticket, report);
                continue;
            }
            let Some(spec) = open.choose(&mut self.dice) else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            let ticket = spec.ticket(&self.worker);
            if let Ok(spec) = self.remote.claim(&ticket) {
                let report = run_shard(&workspace, &self.fleet.shards(), &self.remote, &spec, &self.worker);
                drawer.push((ticket, report));
            }
        }
    }

    fn report(&mut self, ticket: &Ticket, report: JobReport) {
        let chance = self.dice.random_range(0..100);
        if chance < self.manner.given_back && ticket.attempt <= GIVEN_BACK_MAX {
            let back = JobReport::failed(FailureKind::Interrupted, "given back", true);
            self.remote.report(ticket, back).unwrap();
            // And says all the same that it is done.
            let late = self.remote.report(ticket, report).unwrap_err();
            assert!(matches!(late, ControlError::Refused(_)), "{late:?}");
            self.done.given_back.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.remote.report(ticket, report.clone()).unwrap();
        self.done.shards.fetch_add(1, Ordering::Relaxed);
        if chance >= 100 - self.manner.twice {
            // Its stage may be over, and even its cycle: then it is refused.
            let _ = self.remote.report(ticket, report);
            self.done.twice.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One case.
fn live(course: &mut Course, manner: &Manner, done: &Done) {
    let fleet = course.fleet(manner.shard_bytes);
    let (course, over) = (&*course, AtomicBool::new(false));
    let report = std::thread::scope(|scope| {
        for number in 0..manner.others {
            let hand = Hand {
                fleet: &fleet,
                course,
                manner,
                done,
                dice: SmallRng::seed_from_u64(manner.seed.wrapping_add(number as u64)),
                remote: Remote(fleet.backend.clone()),
                worker: WorkerId::new(format!("w{number}")).unwrap(),
            };
            let over = &over;
            scope.spawn(move || hand.work(over));
        }
        let report = cycle(fleet.means(&course.world), &request(&course.world));
        over.store(true, Ordering::Relaxed);
        report
    });
    let report = report.unwrap_or_else(|error| panic!("{}", error.chain()));
    let found = end(&course.world, &report);
    assert_eq!(found.plan, course.end.plan, "the plan");
    // Attempts that were given back keep the markers of their sessions until the next cycle.
    assert!(found.sessions >= course.end.sessions);
    assert_eq!(End { sessions: course.end.sessions, ..found }, course.end);
    assert_eq!(fleet.parts(), [] as [String; 0], "a closed cycle leaves nothing in the exchange");
}

#[test]
fn r12_r21_any_cut_any_workers_and_any_order_give_the_plan_of_a_cycle_alone() {
    let courses = ["default", "epochs"].map(Course::new);
    for course in &courses {
        // `verger maintain` itself: a machine of its own, and nothing shared.
        let report = cycle(course.world.means(), &request(&course.world)).unwrap();
        assert_eq!(end(&course.world, &report), course.end);
    }
    let seed: u64 = match std::env::var("VERGER_SHARDED_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => rand::random(),
    };
    told(&format!("VERGER_SHARDED_SEED={seed} gives these cases again; when threads run is not told by it"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 8, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let (courses, done) = (RefCell::new(courses), Done::default());
    let ran = runner.run(&manner(), |manner| {
        told(&format!("{manner:?}"));
        live(&mut courses.borrow_mut()[manner.repository], &manner, &done);
        Ok(())
    });
    ran.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    let [shards, given_back, twice] = [&done.shards, &done.given_back, &done.twice].map(|n| n.load(Ordering::Relaxed));
    assert!(shards > 40 && given_back > 4 && twice > 4, "nothing much happened: {done:?}");
}
