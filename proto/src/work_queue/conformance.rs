//! What every queue must do, as one suite that runs against all of them.
//!
//! ```
//! use std::sync::Arc;
//! use verger_proto::work_queue::{conformance, local::LocalWorkQueue};
//! conformance::suite(&|| {
//!     let queue = Arc::new(LocalWorkQueue::default());
//!     conformance::Ends { offering: queue.clone(), taking: queue }
//! });
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Offer, Taken, Wake, WorkQueue, WorkQueueError};
use crate::id::{CycleId, JobId, Pool, RepositoryId, StoreId, UniqueId};
use crate::queue::Hint;
use crate::stage::Stage;
use crate::term::Term;
use crate::trace::TraceParent;

/// How long something that must come may take.
const SOON: Duration = Duration::from_secs(20);
/// How long is waited for what must not come.
const QUIET: Duration = Duration::from_millis(500);
/// How much longer than it was told a call may take.
const GRACE: Duration = Duration::from_secs(2);

/// The two ends of one queue, which may be one and the same.
pub struct Ends {
    /// Where a coordinator offers.
    pub offering: Arc<dyn WorkQueue>,
    /// Where a worker takes.
    pub taking: Arc<dyn WorkQueue>,
}

/// Runs every check, each against a queue of its own from `make`, which must give an empty one each time, ready for [`pools`].
///
/// # Panics
/// At the first thing that a queue must not do, with a message that names it.
pub fn suite(make: &dyn Fn() -> Ends) {
    let checks: &[fn(&Ends)] = &[
        what_is_offered_comes,
        an_empty_queue_waits_as_long_as_it_was_told,
        an_offer_that_was_put_off_comes_again,
        an_offer_that_was_dropped_comes_again,
        what_was_done_is_gone,
        one_offer_twice_comes_once,
        pools_are_apart,
        takers_get_different_offers,
        a_taker_that_waits_is_woken,
        closing_lets_all_go,
    ];
    for check in checks {
        check(&make());
    }
}

/// Two pools.
#[must_use]
pub fn pools() -> [Pool; 2] {
    ["default", "near-1"].map(|name| must(Pool::new(name), "a pool's name"))
}

/// A repository.
#[must_use]
pub fn repository() -> RepositoryId {
    let unique = must(UniqueId::new("ab".repeat(32)), "a unique ID");
    RepositoryId { unique, store: must(StoreId::new("01".repeat(16)), "a store ID") }
}

/// An offer of a job.
#[must_use]
pub fn job(pool: &Pool, job: u64) -> Offer {
    let (cycle, term, stage) = (CycleId(7), Term(3), Stage::Scan);
    let hint = Hint { repository: repository(), cycle, job: JobId(job), attempt: 1, term, stage };
    Offer { pool: pool.clone(), wake: Wake::Job(hint), trace: None }
}

/// The value, or the end of the suite.
fn must<T, E: std::fmt::Debug>(result: Result<T, E>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

fn offer(ends: &Ends, offer: &Offer) {
    must(ends.offering.offer(offer), "offer");
}

fn take(ends: &Ends, pools: &[Pool], wait: Duration) -> Option<Box<dyn Taken>> {
    must(ends.taking.take(pools, wait), "take")
}

fn take_one(ends: &Ends, pools: &[Pool]) -> Box<dyn Taken> {
    take(ends, pools, SOON).unwrap_or_else(|| panic!("nothing comes for {pools:?}"))
}

fn nothing_comes(ends: &Ends, pools: &[Pool], what: &str) {
    let taken = take(ends, pools, QUIET).map(|taken| taken.offer().clone());
    assert_eq!(taken, None, "{what}");
}

fn what_is_offered_comes(ends: &Ends) {
    let [pool, _] = pools();
    let trace: Option<TraceParent> = "00-edc6efca19ffa74f669f6cc3e5f7db46-00f067aa0ba902b7-01".parse().ok();
    assert!(trace.is_some());
    let drive = Offer { pool: pool.clone(), wake: Wake::Drive { repository: repository() }, trace };
    let mut missing: Vec<Offer> = (1..=3).map(|number| job(&pool, number)).chain([drive]).collect();
    missing.iter().for_each(|one| offer(ends, one));
    // In any order, each at least once.
    while !missing.is_empty() {
        let taken = take_one(ends, std::slice::from_ref(&pool));
        missing.retain(|one| one != taken.offer());
        taken.done();
    }
}

fn an_empty_queue_waits_as_long_as_it_was_told(ends: &Ends) {
    let pools = pools();
    for wait in [Duration::ZERO, QUIET] {
        let began = Instant::now();
        assert!(take(ends, &pools, wait).is_none(), "an empty queue gives something");
        let took = began.elapsed();
        assert!(took >= wait && took < wait + GRACE, "{took:?} instead of {wait:?}");
    }
    // Looking only finds what is there.
    offer(ends, &job(&pools[0], 1));
    let began = Instant::now();
    while began.elapsed() < SOON {
        if let Some(taken) = take(ends, &pools, Duration::ZERO) {
            return taken.done();
        }
    }
    panic!("looking without waiting does not find what is there");
}

fn an_offer_that_was_put_off_comes_again(ends: &Ends) {
    let [pool, _] = pools();
    let one = job(&pool, 1);
    offer(ends, &one);
    let after = Duration::from_millis(1500);
    let began = Instant::now();
    take_one(ends, std::slice::from_ref(&pool)).later(after);
    nothing_comes(ends, std::slice::from_ref(&pool), "what was put off came at once");
    let again = take_one(ends, std::slice::from_ref(&pool));
    assert!(began.elapsed() >= after, "it came {:?} later", began.elapsed());
    assert_eq!(*again.offer(), one);
    again.done();
}

fn an_offer_that_was_dropped_comes_again(ends: &Ends) {
    let [pool, _] = pools();
    let one = job(&pool, 1);
    offer(ends, &one);
    drop(take_one(ends, std::slice::from_ref(&pool)));
    let again = take_one(ends, std::slice::from_ref(&pool));
    assert_eq!(*again.offer(), one);
    again.done();
}

fn what_was_done_is_gone(ends: &Ends) {
    let [pool, _] = pools();
    for number in 0..10 {
        offer(ends, &job(&pool, number));
        take_one(ends, std::slice::from_ref(&pool)).done();
    }
    nothing_comes(ends, std::slice::from_ref(&pool), "what was done came again");
}

fn one_offer_twice_comes_once(ends: &Ends) {
    let [pool, other] = pools();
    let one = job(&pool, 1);
    (0..3).for_each(|_| offer(ends, &one));
    let taken = take_one(ends, std::slice::from_ref(&pool));
    // Also while somebody has it.
    offer(ends, &one);
    taken.done();
    nothing_comes(ends, std::slice::from_ref(&pool), "one offer came twice");
    // Another attempt, and the same job in another pool, are other offers.
    let Wake::Job(hint) = one.wake else { panic!("an offer of a job") };
    let next = Offer { wake: Wake::Job(Hint { attempt: 2, ..hint }), pool: pool.clone(), trace: None };
    offer(ends, &next);
    offer(ends, &job(&other, 1));
    let both = [take_one(ends, &[pool.clone(), other.clone()]), take_one(ends, &[pool, other])];
    both.into_iter().for_each(|taken| taken.done());
}

fn pools_are_apart(ends: &Ends) {
    let [pool, other] = pools();
    offer(ends, &job(&pool, 1));
    nothing_comes(ends, std::slice::from_ref(&other), "an offer came to another pool");
    offer(ends, &job(&other, 2));
    let taken = take_one(ends, std::slice::from_ref(&other));
    assert_eq!(taken.offer().pool, other);
    taken.done();
    let taken = take_one(ends, &[other, pool.clone()]);
    assert_eq!(taken.offer().pool, pool);
    taken.done();
    assert!(take(ends, &[], Duration::ZERO).is_none(), "who takes from no pool gets nothing");
}

fn takers_get_different_offers(ends: &Ends) {
    const OFFERS: u64 = 60;
    const TAKERS: usize = 6;
    let (pools, seen) = (pools(), Mutex::new(BTreeMap::<u64, usize>::new()));
    let count = || seen.lock().map(|seen| seen.len()).unwrap_or_default();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..TAKERS {
            scope.spawn(|| {
                while count() < 60 && began.elapsed() < SOON {
                    let Some(taken) = take(ends, &pools, QUIET) else { continue };
                    if let (Wake::Job(hint), Ok(mut seen)) = (&taken.offer().wake, seen.lock()) {
                        *seen.entry(hint.job.0).or_default() += 1;
                    }
                    taken.done();
                }
            });
        }
        for number in 0..OFFERS {
            offer(ends, &job(&pools[usize::from(number % 2 == 1)], number));
        }
    });
    let seen = must(seen.into_inner(), "a taker ended badly");
    assert!(seen.len() == 60, "{} of {OFFERS} offers came", seen.len());
    assert!(seen.values().all(|times| *times == 1), "an offer came to two takers: {seen:?}");
}

fn a_taker_that_waits_is_woken(ends: &Ends) {
    let [pool, _] = pools();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| take(ends, std::slice::from_ref(&pool), SOON).map(|taken| taken.done()));
        std::thread::sleep(QUIET);
        offer(ends, &job(&pool, 1));
        assert!(must(waiting.join(), "the taker").is_some(), "who waited got nothing");
    });
    assert!(began.elapsed() < SOON / 2, "it took {:?}", began.elapsed());
}

fn closing_lets_all_go(ends: &Ends) {
    let pools = pools();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let waiting = [(); 3].map(|()| scope.spawn(|| ends.taking.take(&pools, SOON).map(|taken| taken.is_some())));
        std::thread::sleep(QUIET);
        ends.taking.close();
        for taker in waiting {
            assert_eq!(must(taker.join(), "a taker"), Err(WorkQueueError::Closed));
        }
    });
    assert!(began.elapsed() < SOON / 2, "it took {:?}", began.elapsed());
    assert!(matches!(ends.taking.take(&pools, SOON), Err(WorkQueueError::Closed)));
    ends.offering.close();
    assert_eq!(ends.offering.offer(&job(&pools[0], 1)), Err(WorkQueueError::Closed));
}
