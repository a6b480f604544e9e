//! Pure rules: facts in, parts of a plan out. No I/O, no clock, no randomness.

// What goes in and comes out.
pub mod facts;
pub mod plan;
pub mod rows;

// One rule each, in the order of a full cycle.
pub mod alternation;
pub mod mode;

pub mod gc;

pub mod drop;

pub mod delete;

pub mod rewrite;

pub mod index_lane;
pub mod locks;
pub mod logs;

// All together, when the rest will go, and a second pair of eyes.
pub mod check;
pub mod compose;
pub mod next;

#[cfg(test)]
mod testing;

pub use compose::compose;
pub use facts::{Facts, Frozen};
pub use plan::PlanBody;
