//! How far nodes have been seen, by each other: a node that comes back with less than others have seen of it runs on an old copy of
//! its disk. It has forgotten votes and entries that others count on, so nobody listens to it, and it stops.
//!
//! Each node says with every message how often its folder was opened, and how many changes its log had then and has now. What a
//! node was heard to have, it had on its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use verger_kopia::mutant::{self, Mutant};

use super::durable::DurableLog;

/// How far a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    /// How often its folder was opened.
    pub boots: u64,
    /// Chosen at random when it was opened.
    pub nonce: u64,
    /// Changes of its log when it was opened.
    pub opened: u64,
    /// Changes of its log.
    pub changes: u64,
}

impl Standing {
    fn is_same_boot(&self, other: &Self) -> bool {
        (self.boots, self.nonce) == (other.boots, other.nonce)
    }

    /// Whether this can be the same disk as that was on, later.
    fn can_follow(&self, earlier: &Self) -> bool {
        self.boots > earlier.boots && self.opened >= earlier.changes
    }
}

/// What this node knows of itself and of others. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Standings {
    id: u64,
    own: Standing,
    log: Arc<dyn DurableLog>,
    others: Arc<Mutex<Others>>,
    is_old: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Others {
    known: BTreeMap<u64, Standing>,
    barred: BTreeSet<u64>,
}

impl Others {
    /// Takes in how far a node was seen; whether that may be the node as it is now.
    fn see(&mut self, id: u64, seen: Standing) -> bool {
        let Some(known) = self.known.get_mut(&id) else {
            self.known.insert(id, seen);
            return true;
        };
        if seen.is_same_boot(known) {
            known.changes = known.changes.max(seen.changes);
        } else if seen.can_follow(known) {
            *known = seen;
        } else if known.can_follow(&seen) {
            return false;
        } else {
            // One of the two is an old copy: the one that knows less. Nobody of that number is heard any more.
            self.barred.insert(id);
            if seen.changes > known.changes {
                *known = seen;
            }
        }
        !self.barred.contains(&id)
    }
}

impl Standings {
    pub(crate) fn new(id: u64, boots: u64, nonce: u64, log: Arc<dyn DurableLog>) -> Self {
        let opened = log.changes();
        let own = Standing { boots, nonce, opened, changes: opened };
        let (is_old, _) = watch::channel(false);
        Self { id, own, log, others: Arc::default(), is_old }
    }

    pub(crate) fn own(&self) -> Standing {
        Standing { changes: self.log.changes(), ..self.own }
    }

    /// What to tell others.
    pub(crate) fn known(&self) -> BTreeMap<u64, Standing> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).known.clone()
    }

    /// Turns true when this node runs on an old copy of its disk.
    pub(crate) fn is_old(&self) -> watch::Receiver<bool> {
        self.is_old.subscribe()
    }

    /// Takes in a message's words on how far nodes are; whether its sender may be listened to.
    pub(crate) fn hear(&self, from: u64, standing: Standing, known: &BTreeMap<u64, Standing>) -> Result<(), String> {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, seen) in known.iter().filter(|(id, _)| **id != self.id) {
            others.see(*id, *seen);
        }
        let may_speak = others.see(from, standing);
        drop(others);
        let me = self.own();
        if known.get(&self.id).is_some_and(|seen| !seen.is_same_boot(&me) && !me.can_follow(seen)) {
            self.is_old.send_replace(!mutant::on(Mutant::P3OldDiskHeard));
        }
        if *self.is_old.borrow() && !mutant::on(Mutant::P3OldDiskHeard) {
            return Err(format!("node {} runs on an old copy of its disk", self.id));
        }
        if may_speak || mutant::on(Mutant::P3OldDiskHeard) {
            Ok(())
        } else {
            Err(format!("node {from} was seen with more than it has: its disk is an old copy"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::durable::memory::MemoryLog;

    fn standing(boots: u64, nonce: u64, opened: u64, changes: u64) -> Standing {
        Standing { boots, nonce, opened, changes }
    }

    fn standings() -> Standings {
        Standings::new(1, 1, 11, Arc::new(MemoryLog::default()))
    }

    #[test]
    fn a_node_goes_on_where_it_was_and_late_messages_bar_nobody() {
        let here = standings();
        let hear = |seen| here.hear(2, seen, &BTreeMap::new()).is_ok();
        assert!(hear(standing(1, 5, 0, 10)));
        assert!(hear(standing(1, 5, 0, 7)), "overtaken by the one before");
        assert!(hear(standing(2, 6, 10, 12)));
        assert!(!hear(standing(1, 5, 0, 9)), "of the boot before");
        assert!(hear(standing(2, 6, 10, 13)));
        assert_eq!(here.known()[&2], standing(2, 6, 10, 13));
    }

    #[test]
    fn a_node_with_less_than_was_seen_is_barred_whoever_saw_it() {
        let old = [standing(2, 6, 9, 9), standing(2, 6, 9, 99), standing(1, 6, 9, 9), standing(1, 6, 9, 99)];
        for old in old {
            let seen = BTreeMap::from([(2, standing(1, 5, 0, 10))]);
            let here = standings();
            here.hear(3, standing(1, 7, 0, 0), &seen).unwrap();
            assert!(here.hear(2, old, &BTreeMap::new()).is_err(), "{old:?}");
            assert!(here.hear(2, old, &BTreeMap::new()).is_err());
            // The other way round: it was here first, and then comes word of what it was.
            let here = standings();
            here.hear(2, old, &BTreeMap::new()).unwrap();
            here.hear(3, standing(1, 7, 0, 0), &seen).unwrap();
            assert!(here.hear(2, old, &BTreeMap::new()).is_err(), "{old:?}");
        }
    }

    #[test]
    fn a_node_that_hears_that_it_had_more_knows_that_it_is_old() {
        let log = MemoryLog::default();
        for seen in [standing(4, 1, 0, 1), standing(5, 1, 0, 0), standing(6, 1, 0, 0)] {
            let here = Standings::new(1, 5, 9, Arc::new(log.reopen()));
            let before = standing(4, 1, 0, 0);
            here.hear(2, standing(1, 1, 0, 0), &BTreeMap::from([(1, before)])).unwrap();
            assert!(!*here.is_old().borrow());
            assert!(here.hear(2, standing(1, 1, 0, 0), &BTreeMap::from([(1, seen)])).is_err(), "{seen:?}");
            assert!(*here.is_old().borrow());
        }
    }
}
