//! Repositories in forms that today's program writes no more, or never wrote, built by hand; damaged ones with error correction.

#![allow(unreachable_pub, clippy::unwrap_used)]

mod builder;
mod check;
mod ecc;
mod hostile;
mod layouts;
mod old;
mod random;
#[path = "../support/store.rs"]
mod store;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../worker/tests/common/oracle.rs"]
mod walker;
