//! A cycle that a worker leads stops where one of a coordinator's own would: at the end of a window, and when a person pauses it.

use std::time::{Duration, Instant};

use crate::place::Flow;
use crate::support::run;

/// The longest until a lead is out of a stage in which it waits for a slow store.
const OUT_MAX: Duration = Duration::from_secs(20);

/// A worker so slow that a cycle takes minutes.
const SLOW: [&str; 2] = ["--requests-per-second", "1"];

/// Waits until something happened more often than `before`; how long that took.
fn happens(flow: &Flow, kind: &str, before: usize) -> Duration {
    let began = Instant::now();
    flow.waits_for("epochs", kind, before + 1);
    began.elapsed()
}

#[test]
fn a_cycle_that_a_worker_leads_stops_at_the_end_of_its_window_and_when_a_person_pauses_it() {
    let Some(mut flow) = Flow::start() else { return };
    let _golden = flow.add("epochs");
    flow.work_with("hand-1", &SLOW);
    flow.waits_until_listed("hand-1", "ready");
    // By itself, and at once: there was none before.
    run(&mut flow.fleet.verger(&["repo", "set", "epochs", "--full-schedule", "every 1d", "--quick-schedule", "never"]));
    flow.lead("epochs", 1);
    let count = |kind: &str| flow.events("epochs", kind).len();
    let (parked, left) = (count("cycle_parked"), count("drive_left"));
    let day = |days: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days)).strftime("%Y-%m-%d");
    let blackout = format!("{}/{} holidays", day(-1), day(3));
    run(&mut flow.fleet.verger(&["repo", "set", "epochs", "--blackout", &blackout]));
    let took = happens(&flow, "cycle_parked", parked) + happens(&flow, "drive_left", left);
    assert!(took < OUT_MAX, "{took:?}");
    assert!(flow.events("epochs", "cycle_closed").is_empty());
    let cycle = flow.events("epochs", "cycle_opened")[0]["cycle"].to_string();
    let shown = flow.fleet.json(&["cycle", "show", &cycle, "--json"]);
    assert_eq!(shown["phase"], "parked", "{shown}");

    let driven = count("drive_taken");
    run(&mut flow.fleet.verger(&["repo", "set", "epochs", "--blackout", "none"]));
    happens(&flow, "drive_taken", driven);
    let (paused, left) = (count("cycle_parked"), count("drive_left"));
    happens(&flow, "job_claimed", count("job_claimed"));
    run(&mut flow.fleet.verger(&["cycle", "pause", &cycle]));
    let took = happens(&flow, "cycle_parked", paused) + happens(&flow, "drive_left", left);
    assert!(took < OUT_MAX, "{took:?}");
    assert!(flow.events("epochs", "job_lost").is_empty(), "he said all the time that he is at work");
    assert!(flow.events("epochs", "cycle_closed").is_empty());
}
