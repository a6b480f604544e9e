//! Checks of this crate that the program takes out for tests of tests: which mutants there are, the library of the format says, and this
//! crate knows nothing of that one. Without the feature `mutants` nothing of it is in a program.

#[cfg(feature = "mutants")]
use std::sync::atomic::{AtomicBool, Ordering};

/// A check that can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// That a message was signed by a coordinator.
    Signature,
    /// That a message is as short as messages are.
    Length,
}

#[cfg(feature = "mutants")]
static OUT: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

/// Takes it out for as long as the process lives.
#[cfg(feature = "mutants")]
pub fn take_out(check: Check) {
    if let Some(out) = OUT.get(check as usize) {
        out.store(true, Ordering::Relaxed);
    }
}

#[cfg(feature = "mutants")]
pub(crate) fn is_out(check: Check) -> bool {
    OUT.get(check as usize).is_some_and(|out| out.load(Ordering::Relaxed))
}

#[cfg(not(feature = "mutants"))]
pub(crate) const fn is_out(_: Check) -> bool {
    false
}
