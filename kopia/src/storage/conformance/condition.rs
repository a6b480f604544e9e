//! Conditional writes.

use std::sync::Barrier;

use bytes::Bytes;

use super::{fails, must, put};
use crate::error::ErrorKind;
use crate::storage::{BlobId, ByteRange, Condition, ETag, PutOptions, Storage};

fn with(condition: Condition) -> PutOptions {
    PutOptions { condition, ..PutOptions::default() }
}

/// Whether the store has conditional writes; if not, that it says so.
fn has_conditions(store: &dyn Storage) -> bool {
    if store.capabilities().conditional_writes {
        return true;
    }
    let id = BlobId::new("verger.lease");
    for condition in [Condition::IfAbsent, Condition::IfMatch(ETag("x".to_owned()))] {
        assert_eq!(fails(store.put(&id, "x".into(), &with(condition)), "refuse a condition"), ErrorKind::Unsupported);
    }
    assert_eq!(fails(store.head(&id), "look at what was refused"), ErrorKind::NotFound);
    false
}

pub(super) fn if_absent(store: &dyn Storage) {
    if !has_conditions(store) {
        return;
    }
    let id = BlobId::new("verger.lease");
    must(store.put(&id, "first".into(), &with(Condition::IfAbsent)), "write a new blob");
    let again = store.put(&id, "second".into(), &with(Condition::IfAbsent));
    assert_eq!(fails(again, "write what exists"), ErrorKind::PreconditionFailed);
    assert_eq!(must(store.get(&id, ByteRange::All), "read a blob"), "first");
    assert!(store.delete(std::slice::from_ref(&id), None).failed.is_empty());
    must(store.put(&id, "third".into(), &with(Condition::IfAbsent)), "write what was deleted");
}

pub(super) fn if_match(store: &dyn Storage) {
    if !has_conditions(store) {
        return;
    }
    let id = BlobId::new("verger.lease");
    let wrong = with(Condition::IfMatch(ETag("\"00000000000000000000000000000000\"".to_owned())));
    assert_eq!(fails(store.put(&id, "x".into(), &wrong), "match an absent blob"), ErrorKind::PreconditionFailed);
    let Some(first) = put(store, id.as_str(), "first").etag else { panic!("conditional writes need identities") };
    assert_eq!(fails(store.put(&id, "x".into(), &wrong), "match another version"), ErrorKind::PreconditionFailed);
    let matched = with(Condition::IfMatch(first.clone()));
    let second = must(store.put(&id, "second".into(), &matched), "write over the known version");
    assert_ne!(second.etag.as_ref(), Some(&first));
    assert_eq!(fails(store.put(&id, "x".into(), &matched), "match an old version"), ErrorKind::PreconditionFailed);
    assert_eq!(must(store.get(&id, ByteRange::All), "read a blob"), "second");
    assert_eq!(must(store.head(&id), "look at a blob").etag, second.etag);
}

/// Eight threads want each name; exactly one gets it, and its bytes are what lies there.
pub(super) fn races(store: &dyn Storage) {
    if !has_conditions(store) {
        return;
    }
    let (threads, names) = (8_u8, 20_usize);
    let barrier = Barrier::new(usize::from(threads));
    let wins: Vec<Vec<usize>> = std::thread::scope(|scope| {
        let race = |thread: u8| {
            let barrier = &barrier;
            move || {
                let mut won = Vec::new();
                for name in 0..names {
                    barrier.wait();
                    let id = BlobId::new(format!("n{name:032x}"));
                    let data = Bytes::from(vec![thread; 2000]);
                    match store.put(&id, data, &with(Condition::IfAbsent)) {
                        Ok(_) => won.push(name),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::PreconditionFailed, "{error:?}"),
                    }
                }
                won
            }
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(race(thread))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    for name in 0..names {
        let winners: Vec<_> = (0..threads).filter(|&thread| wins[usize::from(thread)].contains(&name)).collect();
        assert_eq!(winners.len(), 1, "blob {name} was won by threads {winners:?}");
        let data = must(store.get(&BlobId::new(format!("n{name:032x}")), ByteRange::All), "read what was won");
        assert!(data.len() == 2000 && data.iter().all(|&byte| byte == winners[0]), "the winner's bytes");
    }
}
