//! Whether this node's ledger is the leader's: the same record under the same number, or one of the two applied a command in its own way.
//!
//! The leader's head goes along with every message of entries. A follower that has that record already compares at once; one that is a
//! little behind compares when it gets there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use verger_kopia::error::Error;

use super::files::REJOIN;
use crate::ledger::segment::LedgerHead;

/// Heads that are kept, to be compared with those of a leader that knows of no later ones.
const KEPT: usize = 1024;

/// What is said of a ledger that is not the leader's.
pub(crate) fn differs(records: u64) -> Error {
    let last = records.saturating_sub(1);
    let step = format!(
        "record {last} of this node's ledger is not the leader's: one of them applied a command in another way, or was \
         changed by another hand"
    );
    Error::damaged(step).with_fix(REJOIN)
}

/// Where the ledgers of this node and of its leader are. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Heads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    /// Records up to the first one that differs.
    differs: watch::Sender<Option<u64>>,
}

#[derive(Debug, Default)]
struct Known {
    /// The last ones of this node, oldest first.
    own: VecDeque<LedgerHead>,
    /// The leader's, which this node does not have yet.
    awaited: Option<LedgerHead>,
}

impl Known {
    /// Records up to which the two differ, if they do.
    fn compared(&self, theirs: LedgerHead) -> Option<u64> {
        let own = self.own.iter().rfind(|own| own.records <= theirs.records)?;
        (own.records == theirs.records && *own != theirs).then_some(theirs.records)
    }
}

impl Default for Heads {
    fn default() -> Self {
        let (differs, _) = watch::channel(None);
        Self(Arc::new(Shared { known: Mutex::default(), differs }))
    }
}

impl Heads {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger goes on from here: it was opened, or came from other nodes with a snapshot.
    pub(crate) fn begin(&self, head: LedgerHead) {
        self.lock().own.clear();
        self.add(head);
    }

    /// The ledger has one more record.
    pub(crate) fn add(&self, head: LedgerHead) {
        let mut known = self.lock();
        if known.own.len() >= KEPT {
            known.own.pop_front();
        }
        known.own.push_back(head);
        let awaited = known.awaited.take_if(|awaited| awaited.records <= head.records);
        let found = awaited.and_then(|theirs| known.compared(theirs));
        drop(known);
        self.tell(found);
    }

    /// How far this node's ledger goes.
    pub(crate) fn last(&self) -> Option<LedgerHead> {
        self.lock().own.back().copied()
    }

    /// The leader says how far its ledger goes.
    pub(crate) fn hear(&self, theirs: LedgerHead) {
        let mut known = self.lock();
        let is_ahead = known.own.back().is_none_or(|own| own.records < theirs.records);
        if is_ahead {
            known.awaited.get_or_insert(theirs);
        }
        let found = if is_ahead { None } else { known.compared(theirs) };
        drop(known);
        self.tell(found);
    }

    fn tell(&self, found: Option<u64>) {
        if found.is_some() {
            self.0.differs.send_replace(found);
        }
    }

    /// A node whose ledger differs answers nothing any more: it is about to stop.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.0.differs.borrow().map_or(Ok(()), |records| Err(differs(records).chain()))
    }

    /// Turns to the number of records up to which the two differ.
    pub(crate) fn differ(&self) -> watch::Receiver<Option<u64>> {
        self.0.differs.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use verger_proto::Digest;

    use super::*;

    fn head(records: u64, of: &str) -> LedgerHead {
        LedgerHead { records, last: Digest::of(format!("{of}{records}").as_bytes()), bytes: records * 100 }
    }

    fn heads(until: u64) -> Heads {
        let heads = Heads::default();
        heads.begin(head(0, "own"));
        (1..=until).for_each(|records| heads.add(head(records, "own")));
        heads
    }

    #[test]
    fn the_same_record_is_compared_whoever_is_ahead() {
        let here = heads(9);
        (0..=9).for_each(|records| here.hear(head(records, "own")));
        here.hear(head(12, "own"));
        (10..=12).for_each(|records| here.add(head(records, "own")));
        assert_eq!((*here.differ().borrow(), here.check()), (None, Ok(())));
        here.hear(head(7, "other"));
        assert!(here.check().unwrap_err().contains("record 6"));
        assert_eq!(*here.differ().borrow(), Some(7), "the leader is behind");
        let here = heads(9);
        here.hear(head(11, "other"));
        here.hear(head(14, "own"));
        here.add(head(10, "own"));
        assert_eq!(*here.differ().borrow(), None);
        here.add(head(11, "own"));
        assert_eq!(*here.differ().borrow(), Some(11), "the leader was ahead");
    }

    #[test]
    fn what_is_not_known_here_is_no_difference() {
        let here = heads(3 * KEPT as u64);
        here.hear(head(5, "other"));
        here.hear(head(9_999, "other"));
        here.begin(head(20_000, "own"));
        here.hear(head(20_000, "own"));
        here.hear(head(19_999, "other"));
        assert_eq!(*here.differ().borrow(), None);
        here.hear(head(20_000, "other"));
        assert_eq!(*here.differ().borrow(), Some(20_000));
    }
}
