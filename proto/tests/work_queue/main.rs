//! The work queue: messages, the contract on both implementations, and JetStream with a real server that dies, forgets, hangs or refuses.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod faults;
mod messages;
mod permissions;
mod rig;
#[path = "../../../tests/support/nats.rs"]
mod server;

use std::sync::Arc;

use rig::Rig;
use verger_proto::work_queue::conformance::{self, Ends};
use verger_proto::work_queue::local::LocalWorkQueue;

#[test]
fn the_queue_of_one_process_keeps_the_contract() {
    conformance::suite(&|| {
        let queue = Arc::new(LocalWorkQueue::default());
        Ends { offering: queue.clone(), taking: queue }
    });
}

#[test]
fn jetstream_keeps_the_contract() {
    let Some(rig) = Rig::start() else { return };
    conformance::suite(&|| {
        let fleet = rig.new_fleet();
        Ends { offering: Arc::new(rig.coordinator(&fleet)), taking: Arc::new(rig.worker(&fleet)) }
    });
}
