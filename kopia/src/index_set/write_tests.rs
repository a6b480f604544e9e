use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::clock::Clock;
use crate::index_set::load_view;
use crate::index_set::testing::{entry, golden};

const MARKER: &[u8] = b"epoch-marker";

#[test]
fn a_set_is_written_into_the_write_epoch_and_read_back() {
    let golden = golden("epochs");
    let before = load_view(&golden.repository, 1).unwrap();
    let epoch = before.write_epoch.unwrap();
    let ids = write_index_set(&golden.repository, vec![entry(1, 5), entry(2, 6)], "s0123147", None).unwrap();
    assert_eq!(ids.len(), 1);
    assert!(ids[0].as_str().starts_with(&format!("xn{epoch}_")) && ids[0].as_str().ends_with("-s0123147-c1"));
    let after = load_view(&golden.repository, 1).unwrap();
    assert_eq!(after.table.len(), before.table.len() + 2);
    assert_eq!(after.table.entry(after.table.find(&entry(2, 6).id).unwrap()), entry(2, 6));
    assert!(write_index_set(&golden.repository, Vec::new(), "s1", None).unwrap().is_empty());
}

#[test]
fn legacy_repositories_get_legacy_blobs() {
    let golden = golden("format1");
    let before = load_view(&golden.repository, 1).unwrap();
    assert_eq!(before.write_epoch, None);
    let live = Entry { packed_length: 128, original_length: 100, ..entry(3, 9) };
    let ids = write_index_set(&golden.repository, vec![live.clone()], "s0123147", None).unwrap();
    assert!(ids[0].as_str().starts_with('n') && ids[0].as_str().ends_with("-s0123147"));
    let after = load_view(&golden.repository, 1).unwrap();
    assert_eq!(after.table.entry(after.table.find(&live.id).unwrap()), live);
}

#[test]
fn i12_a_write_that_outlives_its_epoch_by_two_leaves_nothing() {
    let golden = golden("epochs");
    let before = golden.store.ids("xn");
    let epoch = load_view(&golden.repository, 1).unwrap().write_epoch.unwrap();
    let lists = AtomicU32::new(0);
    golden.store.on_request(move |request, memory| {
        if request == "list x" && lists.fetch_add(1, Ordering::Relaxed) == 1 {
            memory.put_at(&names::marker(epoch + 2), MARKER.into(), crate::clock::Timestamp::UNIX_EPOCH);
        }
    });
    let error = write_index_set(&golden.repository, vec![entry(1, 5)], "s0123147", None).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::StoreUnavailable, true));
    assert_eq!(golden.store.ids("xn"), before);
}

/// The process sleeps between its write and the look at the epoch.
#[test]
fn r1_a_set_that_was_there_in_time_is_not_taken_back_after_its_deadline() {
    for (slept, stands) in [(Duration::from_secs(60), false), (Duration::from_secs(1600), true)] {
        let golden = golden("epochs");
        let before = golden.store.ids("xn");
        let epoch = load_view(&golden.repository, 1).unwrap().write_epoch.unwrap();
        let (lists, clock) = (AtomicU32::new(0), Arc::clone(&golden.clock));
        golden.store.on_request(move |request, memory| {
            if request == "list x" && lists.fetch_add(1, Ordering::Relaxed) == 1 {
                clock.advance(slept);
                memory.put_at(&names::marker(epoch + 2), MARKER.into(), crate::clock::Timestamp::UNIX_EPOCH);
            }
        });
        let deadline = Some(golden.clock.since_boot() + Duration::from_secs(120));
        let error = write_index_set(&golden.repository, vec![entry(1, 5)], "s0123147", deadline).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
        assert_eq!(golden.store.ids("xn").len(), before.len() + usize::from(stands), "{slept:?}");
    }
}

#[test]
fn a_write_that_is_late_by_one_epoch_stands() {
    let golden = golden("epochs");
    let epoch = load_view(&golden.repository, 1).unwrap().write_epoch.unwrap();
    let lists = AtomicU32::new(0);
    golden.store.on_request(move |request, memory| {
        if request == "list x" && lists.fetch_add(1, Ordering::Relaxed) == 1 {
            memory.put_at(&names::marker(epoch + 1), MARKER.into(), crate::clock::Timestamp::UNIX_EPOCH);
        }
    });
    let ids = write_index_set(&golden.repository, vec![entry(1, 5)], "s0123147", None).unwrap();
    assert!(ids[0].as_str().starts_with(&format!("xn{epoch}_")));
    let view = load_view(&golden.repository, 1).unwrap();
    assert_eq!(view.write_epoch, Some(epoch + 1));
    assert!(view.table.find(&entry(1, 5).id).is_some());
}

/// A listing that takes more than a quarter of the refresh period must not be written on; one that takes all of it is void.
#[test]
fn slow_listings_are_not_written_on() {
    let golden = golden("epochs");
    let refresh = golden.repository.config().epoch.refresh_frequency;
    for (share, listings) in [(refresh / 3, 2), (refresh + Duration::from_secs(1), 2)] {
        let clock = Arc::clone(&golden.clock);
        let lists = AtomicU32::new(0);
        golden.store.on_request(move |request, _| {
            if request == "list x" && lists.fetch_add(1, Ordering::Relaxed) == 0 {
                clock.advance(share);
            }
        });
        golden.store.take_requests();
        write_index_set(&golden.repository, vec![entry(1, 5)], "s0123147", None).unwrap();
        let requests = golden.store.take_requests();
        let put = requests.iter().position(|request| request.starts_with("put")).unwrap();
        assert_eq!(requests[..put], vec!["list x"; listings], "{share:?}");
    }
}

#[test]
fn a_store_that_is_always_too_slow_gets_nothing() {
    let golden = golden("epochs");
    let before = golden.store.ids("xn");
    let clock = Arc::clone(&golden.clock);
    let step = golden.repository.config().epoch.refresh_frequency / 2;
    golden.store.on_request(move |_, _| clock.advance(step));
    let error = write_index_set(&golden.repository, vec![entry(1, 5)], "s0123147", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
    assert_eq!(golden.store.ids("xn"), before);
}

#[test]
fn nothing_is_written_after_the_deadline() {
    for name in ["epochs", "format1"] {
        let golden = golden(name);
        let before = golden.store.state("");
        let passed = golden.clock.since_boot() - Duration::from_secs(1);
        let error = write_index_set(&golden.repository, vec![entry(1, 5)], "s0123147", Some(passed)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlinePassed);
        assert_eq!(golden.store.state(""), before);
    }
}
