//! How often a store was called, for figures: by what, on which class of blobs, with which answer. Never by blob.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::BlobId;
use crate::error::ErrorKind;

/// What a store was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Op {
    /// Bytes of a blob.
    Get,
    /// Length, time and version of a blob.
    Head,
    /// Names.
    List,
    /// To write a blob.
    Put,
    /// To delete blobs: one call, however many.
    Delete,
    /// To extend an object lock.
    Lock,
    /// Its clock, or whether it keeps versions.
    Ask,
}

impl Op {
    /// All, in order.
    pub const ALL: [Self; 7] = [Self::Get, Self::Head, Self::List, Self::Put, Self::Delete, Self::Lock, Self::Ask];

    /// As in figures and spans.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["get", "head", "list", "put", "delete", "lock", "ask"][self as usize]
    }
}

/// Classes of blobs, by the beginning of their names.
const CLASSES: [(&str, &str); 8] = [
    ("p", "p"),
    ("q", "q"),
    ("n", "n"),
    ("x", "x"),
    ("s", "s"),
    ("_log", "_log"),
    ("kopia.", "kopia"),
    ("verger.", "verger"),
];
const OTHER: usize = CLASSES.len();

/// A class of blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(usize);

impl Class {
    /// What is no blob: the store itself, or all of it.
    pub const OTHER: Self = Self(OTHER);

    /// Of a blob, or of a prefix that is listed.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(CLASSES.iter().position(|(prefix, _)| name.starts_with(prefix)).unwrap_or(OTHER))
    }

    /// Of a batch: its first blob's, since batches are of one class.
    #[must_use]
    pub fn of_all(ids: &[BlobId]) -> Self {
        ids.first().map_or(Self::OTHER, |id| Self::of(id.as_str()))
    }

    /// As in figures and spans: `p`, `q`, `n`, `x`, `s`, `_log`, `kopia`, `verger`, `other`.
    #[must_use]
    pub fn name(self) -> &'static str {
        CLASSES.get(self.0).map_or("other", |(_, name)| *name)
    }
}

/// How a store answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Code {
    /// With what was asked for.
    Ok,
    /// There is no such blob.
    NotFound,
    /// There is another version than was expected.
    Precondition,
    /// Without the right to.
    Denied,
    /// Not, or with an error that may pass.
    Unavailable,
    /// Too late.
    Late,
    /// With less than it should have.
    Damaged,
    /// With another error, or the caller's own.
    Error,
}

impl Code {
    /// All, in order.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::NotFound,
        Self::Precondition,
        Self::Denied,
        Self::Unavailable,
        Self::Late,
        Self::Damaged,
        Self::Error,
    ];

    /// Of an error.
    #[must_use]
    pub fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::PreconditionFailed => Self::Precondition,
            ErrorKind::Permission => Self::Denied,
            ErrorKind::StoreUnavailable => Self::Unavailable,
            ErrorKind::DeadlinePassed => Self::Late,
            ErrorKind::Damaged => Self::Damaged,
            _ => Self::Error,
        }
    }

    /// As in figures and spans.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["ok", "not-found", "precondition-failed", "denied", "unavailable", "late", "damaged", "error"][self as usize]
    }

    /// An answer that nobody has to look into.
    #[must_use]
    pub fn is_ordinary(self) -> bool {
        matches!(self, Self::Ok | Self::NotFound | Self::Precondition)
    }
}

/// What held requests of this process back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum HeldBack {
    /// The store, by asking for fewer (S3's 429 and 503). Each attempt counts, those too that a later one made good.
    Store,
    /// A limit that somebody set here.
    Limit,
}

/// Of the whole process: what asks for patience often does so before anybody knows for which repository.
static HELD_BACK: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

impl HeldBack {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Store, Self::Limit];

    /// As in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["store", "limit"][self as usize]
    }

    /// One more, which waited for so long, where that is known.
    pub fn count(self, waited: Duration) {
        HELD_BACK[self as usize].fetch_add(1, Ordering::Relaxed);
        Held::note(|held| {
            let by = match self {
                Self::Store => &mut held.by_store,
                Self::Limit => &mut held.by_limit,
            };
            *by += 1;
            held.waited += waited;
        });
    }

    /// How many, since the process began.
    #[must_use]
    pub fn total(self) -> u64 {
        HELD_BACK[self as usize].load(Ordering::Relaxed)
    }
}

/// What held requests back. A request is made by the thread that waits for it, so whoever looks before it and after it knows what it met,
/// whatever lies between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Answers by which the store asked for fewer.
    pub by_store: u64,
    /// Waits for a limit that was set here.
    pub by_limit: u64,
    /// How long these took.
    pub waited: Duration,
    /// Attempts that a store's client made again by itself.
    pub again: u64,
}

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held { by_store: 0, by_limit: 0, waited: Duration::ZERO, again: 0 }) };
}

impl Held {
    fn note(change: impl FnOnce(&mut Self)) {
        let mut held = Self::here();
        change(&mut held);
        HELD.set(held);
    }

    /// Requests of this thread, since it began.
    #[must_use]
    pub fn here() -> Self {
        HELD.get()
    }

    /// A client makes an attempt again.
    pub fn count_again() {
        Self::note(|held| held.again += 1);
    }

    fn since(self, before: Self) -> Self {
        Self {
            by_store: self.by_store - before.by_store,
            by_limit: self.by_limit - before.by_limit,
            waited: self.waited.saturating_sub(before.waited),
            again: self.again - before.again,
        }
    }
}

const CELLS: usize = Op::ALL.len() * (OTHER + 1) * Code::ALL.len();

/// Counts of one store's calls. They only grow; whoever wants a rate looks twice.
#[derive(Debug)]
pub struct Calls {
    cells: [AtomicU64; CELLS],
    read: AtomicU64,
    written: AtomicU64,
    held: Mutex<Held>,
}

impl Default for Calls {
    fn default() -> Self {
        let cells = std::array::from_fn(|_| AtomicU64::new(0));
        Self { cells, read: AtomicU64::new(0), written: AtomicU64::new(0), held: Mutex::default() }
    }
}

impl Calls {
    /// Counts one call, and the bytes that came and went.
    pub fn count(&self, op: Op, class: Class, code: Code, read: u64, written: u64) {
        let cell = (op as usize * (OTHER + 1) + class.0) * Code::ALL.len() + code as usize;
        if let Some(cell) = self.cells.get(cell) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        self.read.fetch_add(read, Ordering::Relaxed);
        self.written.fetch_add(written, Ordering::Relaxed);
    }

    /// Counts what this thread's requests met since it looked.
    pub fn count_held(&self, before: Held) {
        let new = Held::here().since(before);
        if new != Held::default() {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.by_store += new.by_store;
            held.by_limit += new.by_limit;
            held.waited += new.waited;
            held.again += new.again;
        }
    }

    /// What held these calls back.
    #[must_use]
    pub fn held(&self) -> Held {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was called at all, and how often.
    #[must_use]
    pub fn all(&self) -> Vec<(Op, Class, Code, u64)> {
        let mut all = Vec::new();
        let cells = Op::ALL.iter().flat_map(|op| {
            (0..=OTHER).flat_map(move |class| Code::ALL.iter().map(move |code| (*op, Class(class), *code)))
        });
        for ((op, class, code), cell) in cells.zip(&self.cells) {
            let count = cell.load(Ordering::Relaxed);
            if count > 0 {
                all.push((op, class, code, count));
            }
        }
        all
    }

    /// Bytes that were read and written.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_a_place_of_its_own() {
        let calls = Calls::default();
        let names = ["p01", "q01", "n1", "xn3_01", "s01", "_log_1", "kopia.repository", "verger.lease", "readme"];
        for op in Op::ALL {
            for name in names {
                for code in Code::ALL {
                    calls.count(op, Class::of(name), code, 2, 3);
                }
            }
        }
        let all = calls.all();
        assert_eq!((all.len(), all.iter().all(|one| one.3 == 1)), (CELLS, true));
        let shown: std::collections::BTreeSet<_> =
            all.iter().map(|(op, class, code, _)| (op.name(), class.name(), code.name())).collect();
        assert_eq!((shown.len(), calls.bytes()), (CELLS, (CELLS as u64 * 2, CELLS as u64 * 3)));
        assert_eq!(all.first().map(|one| (one.0, one.1.name(), one.2)), Some((Op::Get, "p", Code::Ok)));
        let before = Held::here();
        HeldBack::Limit.count(Duration::from_millis(20));
        HeldBack::Store.count(Duration::ZERO);
        Held::count_again();
        calls.count_held(before);
        calls.count_held(Held::here());
        let expected = Held { by_store: 1, by_limit: 1, waited: Duration::from_millis(20), again: 1 };
        assert_eq!(calls.held(), expected, "each thing once, and of this thread alone");
        assert_eq!(std::thread::spawn(Held::here).join().unwrap(), Held::default());
        assert_eq!((Class::of("").name(), Class::of_all(&[]).name()), ("other", "other"));
    }
}
