//! A whole fleet as its users run it: three coordinators that do no work, a NATS server, an S3 server and workers, all in processes of
//! their own. What goes wrong with one of them costs time, and nothing else.

#![allow(clippy::unwrap_used)]

mod canaries;
#[path = "../support/canary.rs"]
mod canary;
#[path = "../support/collector.rs"]
mod collector;
#[path = "../support/coordinators.rs"]
mod coordinators;
mod drain;
mod kills;
#[path = "../support/nats.rs"]
mod nats;
mod place;
mod rivals;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod together;
mod trouble;
#[path = "../../kopia/tests/support/weed.rs"]
mod weed;
mod windows;
