//! What a queue did, as figures to show.

use std::sync::atomic::{AtomicU64, Ordering};

use super::message::Rejection;

/// Figures since the start of the process.
#[derive(Default, Debug)]
pub struct Meters {
    offered: AtomicU64,
    repeated: AtomicU64,
    unoffered: AtomicU64,
    taken: AtomicU64,
    redelivered: AtomicU64,
    done: AtomicU64,
    later: AtomicU64,
    rejected: [AtomicU64; Rejection::LABELS.len()],
}

/// What happened to an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was put in line.
    Offered,
    /// It was in line already.
    Repeated,
    /// It could not be put in line.
    Unoffered,
    /// A worker got it.
    Taken,
    /// It had been delivered before; counts as taken as well.
    Redelivered,
    /// A worker was done with it.
    Done,
    /// A worker gave it back.
    Later,
}

impl Fate {
    /// All, with the labels that they are shown under.
    pub const ALL: [(Fate, &'static str); 7] = [
        (Fate::Offered, "offered"),
        (Fate::Repeated, "repeated"),
        (Fate::Unoffered, "unoffered"),
        (Fate::Taken, "taken"),
        (Fate::Redelivered, "redelivered"),
        (Fate::Done, "done"),
        (Fate::Later, "later"),
    ];
}

impl Meters {
    fn of(&self, fate: Fate) -> &AtomicU64 {
        match fate {
            Fate::Offered => &self.offered,
            Fate::Repeated => &self.repeated,
            Fate::Unoffered => &self.unoffered,
            Fate::Taken => &self.taken,
            Fate::Redelivered => &self.redelivered,
            Fate::Done => &self.done,
            Fate::Later => &self.later,
        }
    }

    /// Counts one.
    pub fn count(&self, fate: Fate) {
        self.of(fate).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message that was thrown away; how many of this kind there were before.
    pub fn count_rejected(&self, rejection: &Rejection) -> u64 {
        self.rejected[rejection.number()].fetch_add(1, Ordering::Relaxed)
    }

    /// How many.
    #[must_use]
    pub fn get(&self, fate: Fate) -> u64 {
        self.of(fate).load(Ordering::Relaxed)
    }

    /// Messages that were thrown away, by reason.
    #[must_use]
    pub fn rejected(&self) -> [(&'static str, u64); Rejection::LABELS.len()] {
        let mut all = Rejection::LABELS.map(|label| (label, 0));
        all.iter_mut().zip(&self.rejected).for_each(|(entry, count)| entry.1 = count.load(Ordering::Relaxed));
        all
    }
}
