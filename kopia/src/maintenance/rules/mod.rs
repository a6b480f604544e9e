//! Pure rules: facts in, parts of a plan out. No I/O, no clock, no randomness.

pub mod check;
pub mod delete;
pub mod drop;
pub mod gc;
pub mod index_lane;
pub mod locks;
pub mod logs;
pub mod plan;
pub mod rewrite;

pub use plan::PlanBody;
