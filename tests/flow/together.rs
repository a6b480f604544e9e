//! Four workers do what one would.

use std::time::Instant;

use crate::place::Flow;
use crate::support::{run, told};

#[test]
fn four_workers_share_cycles_and_the_end_is_that_of_the_real_program() {
    let Some(mut flow) = Flow::start() else { return };
    let names = ["epochs", "format1"];
    let golden = names.map(|name| flow.add(name));
    for number in 1..=4 {
        flow.work(&format!("hand-{number}"));
    }
    for number in 1..=4 {
        flow.waits_until_listed(&format!("hand-{number}"), "ready");
    }
    assert_eq!(flow.listed().len(), 4);
    for (name, golden) in names.iter().zip(&golden) {
        let began = Instant::now();
        let report = flow.cycle(name);
        told(&format!("{name}: {} ms with four workers", began.elapsed().as_millis()));
        assert_eq!(report["outcome"], "done", "{report}");
        let want = &golden.expect["after"]["maintenance"]["schedule"]["runs"]["snapshot-gc"][0]["extra"][0]["data"];
        assert_eq!(&report["tasks"]["snapshot-gc"], want, "{name}");
        let shared = flow.workers_of(name, &["scan", "rewrite"]);
        assert!(shared.len() > 1, "{name} was done by {shared:?} alone");
        flow.verifies(name);
    }
    flow.exchange_is_empty();
    drained_workers_get_nothing(&flow);
}

/// All but one are told to take nothing: it does everything.
fn drained_workers_get_nothing(flow: &Flow) {
    for number in 2..=4 {
        run(&mut flow.fleet.verger(&["worker", "drain", &format!("hand-{number}")]));
    }
    for number in 2..=4 {
        flow.waits_until_listed(&format!("hand-{number}"), "drained");
    }
    // They hear of it with their next sign of life.
    std::thread::sleep(std::time::Duration::from_secs(6));
    let before = flow.events("epochs", "job_claimed").len();
    let began = Instant::now();
    assert_eq!(flow.cycle("epochs")["outcome"], "done");
    told(&format!("epochs again: {} ms with one worker", began.elapsed().as_millis()));
    let _same = flow.add_as("epochs", "alone");
    let began = Instant::now();
    assert_eq!(flow.cycle("alone")["outcome"], "done");
    told(&format!("what four did of epochs: {} ms with one worker", began.elapsed().as_millis()));
    assert_eq!(flow.workers_of("alone", &["scan", "rewrite"]).len(), 1);
    let claims = flow.events("epochs", "job_claimed");
    assert!(claims.len() > before);
    for claim in &claims[before..] {
        let worker = claim["ticket"]["worker"].as_str().unwrap();
        assert!(worker.starts_with("hand-1/"), "{worker} was drained");
    }
    run(&mut flow.fleet.verger(&["worker", "drain", "hand-2", "--undo"]));
    flow.waits_until_listed("hand-2", "ready");
}
