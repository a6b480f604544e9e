use std::sync::Arc;

use super::*;
use crate::clock::{SetClock, SystemClock};
use crate::storage::fault::{Call, Fault, FaultStorage};
use crate::storage::{BlobId, Capabilities, MemoryStorage, PutOptions};

const MANY: u64 = 10_000;

fn memory() -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::default())
}

/// A store with its clock, which passes when somebody waits.
fn timed() -> (Arc<SetClock>, Arc<MemoryStorage>) {
    let clock = Arc::new(SetClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    (clock.clone(), Arc::new(MemoryStorage::new(clock)))
}

/// What is seen of a store that has this fault, in `times` calls after the first `skip`.
fn seen(call: Call, (skip, times): (u64, u64), fault: Fault) -> Written {
    let (clock, inner) = timed();
    let store = FaultStorage::new(inner.clone());
    store.script(call, "verger.probe-", skip, times, fault);
    let report = probe(&store, &*clock).unwrap();
    assert!(store.injected() > 0, "the fault was met");
    store.heal();
    assert!(inner.contents().is_empty(), "{fault:?}");
    report.written.unwrap()
}

#[test]
fn a_good_store_is_found_good_and_left_empty() {
    let store = memory();
    let report = probe(&*store, &SystemClock).unwrap();
    let written = report.written.unwrap();
    assert!(written.conditional_writes && written.conditional_deletes);
    assert_eq!((written.reads, written.lists), (Sight::AtOnce, Sight::AtOnce));
    assert!(report.clock_offset.abs() < SignedDuration::from_secs(1));
    assert!(written.stamp_offset.abs() < SignedDuration::from_secs(1));
    assert!(store.contents().is_empty());
}

#[test]
fn a_store_without_conditions_is_found_out() {
    let store = MemoryStorage::default().with_capabilities(Capabilities::LEAST);
    let written = probe(&store, &SystemClock).unwrap().written.unwrap();
    assert!(!written.conditional_writes && !written.conditional_deletes);
}

#[test]
fn a_store_that_takes_conditions_and_does_not_look_at_them_is_found_out() {
    // The second write is to be refused for what is there, the third for its version, the fifth for the version before.
    for which in [1, 2, 4] {
        let written = seen(Call::Put, (which, 1), Fault::IgnoredCondition);
        assert!(!written.conditional_writes, "write {which}");
        assert!(written.conditional_deletes);
    }
    let written = seen(Call::Delete, (0, 1), Fault::IgnoredCondition);
    assert!(written.conditional_writes && !written.conditional_deletes);
}

#[test]
fn an_old_answer_to_a_read_is_found_out_and_timed() {
    // The reads after each of the overwrites, and the one after the delete.
    for which in 0..4 {
        let Sight::After(late) = seen(Call::Get, (which, 3), Fault::StaleGet).reads else { panic!("read {which}") };
        assert!(late >= Duration::from_millis(50) && late < PATIENCE, "read {which}: {late:?}");
    }
    let written = seen(Call::Get, (0, MANY), Fault::StaleGet);
    let Sight::NotWithin(late) = written.reads else { panic!("{written:?}") };
    assert!(late >= PATIENCE && late < PATIENCE * 2, "{late:?}");
    assert_eq!(written.lists, Sight::AtOnce);
}

#[test]
fn an_old_listing_is_found_out_and_timed() {
    let written = seen(Call::List, (0, 3), Fault::StaleList(MANY as usize));
    assert!(matches!(written.lists, Sight::After(_)) && written.reads == Sight::AtOnce, "{written:?}");
    let written = seen(Call::List, (3, 2), Fault::Ghosts(MANY as usize));
    assert!(matches!(written.lists, Sight::After(_)), "what is gone is still listed: {written:?}");
    let written = seen(Call::List, (0, MANY), Fault::StaleList(MANY as usize));
    assert!(matches!(written.lists, Sight::NotWithin(_)), "{written:?}");
}

#[test]
fn a_failed_probe_leaves_nothing() {
    let faults =
        [(0, Fault::TimeoutAfter), (1, Fault::Unavailable), (3, Fault::TimeoutAfter), (5, Fault::TimeoutAfter)];
    for (skip, fault) in faults {
        let inner = memory();
        let store = FaultStorage::new(inner.clone());
        store.script(Call::Put, "", skip, 1, fault);
        assert!(probe(&store, &SystemClock).is_err());
        assert!(inner.contents().is_empty(), "after write {skip}");
    }
    for call in [Call::Get, Call::List, Call::Head] {
        let inner = memory();
        let store = FaultStorage::new(inner.clone());
        store.script(call, "verger.probe-", 1, 1, Fault::Unavailable);
        assert!(probe(&store, &SystemClock).is_err(), "{call:?}");
        assert!(inner.contents().is_empty(), "after {call:?}");
    }
}

#[test]
fn whoever_may_not_write_or_delete_is_told_so_at_once() {
    let inner = memory();
    let store = FaultStorage::new(inner.clone());
    store.script(Call::Put, "", 0, MANY, Fault::Permission);
    assert_eq!(probe(&store, &SystemClock).unwrap_err().kind(), ErrorKind::Permission);
    assert_eq!((store.injected(), store.effects()), (1, 0), "nothing is tried twice");
    // The conditional delete is asked for first; where that is not known, the other.
    let store = FaultStorage::new(inner.clone());
    store.script(Call::Delete, "", 0, MANY, Fault::Permission);
    assert_eq!(probe(&store, &SystemClock).unwrap_err().kind(), ErrorKind::Permission);
    assert!(store.injected() <= 2, "{} deletes", store.injected());
}

#[test]
fn what_killed_probes_left_goes_after_a_day() {
    let (clock, store) = timed();
    for name in ["verger.probe-00000000000000aa", "verger.lease", "p0123"] {
        store.put(&BlobId::new(name), "x".into(), &PutOptions::default()).unwrap();
    }
    clock.advance(Duration::from_secs(24 * 3600));
    probe(&*store, &*clock).unwrap();
    assert_eq!(store.contents().len(), 3, "a probe may still be at work");
    clock.advance(Duration::from_secs(1));
    let left = BlobId::new("verger.probe-00000000000000bb");
    store.put(&left, "x".into(), &PutOptions::default()).unwrap();
    probe(&*store, &*clock).unwrap();
    let names: Vec<String> = store.contents().keys().map(ToString::to_string).collect();
    assert_eq!(names, ["p0123", "verger.lease", "verger.probe-00000000000000bb"]);
}

#[test]
fn a_killed_probe_leaves_one_object_at_most() {
    for effect in 1..8 {
        let inner = memory();
        let store = FaultStorage::new(inner.clone());
        store.stop_after(effect);
        assert_eq!(probe(&store, &SystemClock).unwrap_err().kind(), ErrorKind::Interrupted);
        let left = inner.contents();
        assert!(left.keys().all(|id| id.as_str().starts_with("verger.probe-")) && left.len() <= 1, "{left:?}");
    }
}

#[test]
fn the_offset_of_clocks_is_measured_and_a_look_writes_nothing() {
    let there = Arc::new(SetClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    let here = SetClock::new("2026-01-02T03:00:00Z".parse().unwrap());
    let store = FaultStorage::new(Arc::new(MemoryStorage::new(there)));
    assert_eq!(probe(&store, &here).unwrap().clock_offset, SignedDuration::from_secs(245));
    let writes = store.effects();
    let report = look(&store, &here).unwrap();
    assert_eq!((report.clock_offset, report.written), (SignedDuration::from_secs(245), None));
    assert_eq!(store.effects(), writes);
}

#[test]
fn one_store_under_two_names() {
    let (a, b) = (memory(), memory());
    assert!(is_same_store(&*a, &FaultStorage::new(a.clone())).unwrap());
    assert!(!is_same_store(&*a, &*b).unwrap());
    assert!(a.contents().is_empty() && b.contents().is_empty());
}
