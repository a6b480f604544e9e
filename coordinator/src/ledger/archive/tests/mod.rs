//! The archive over a store that fails, and a process that is killed at every step.

mod crash;
mod damage;
mod reading;
mod rig;
mod store;
