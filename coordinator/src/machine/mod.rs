//! The pure machine: a state, and what each command makes of it.

mod apply;
mod calendar;
pub mod invariant;
mod refuse;
mod state;
mod view;

pub(crate) use apply::Turn;
pub use apply::apply;
pub use calendar::{Calendar, lane_of, mode_of};
pub(crate) use refuse::{fence, present};
pub use state::{
    Admitted, Answer, Batches, Cycle, Job, JobStatus, Lease, Outstanding, Past, Phase, Repository, Sealed, State,
    Verified, Worker,
};

#[cfg(test)]
mod tests;
