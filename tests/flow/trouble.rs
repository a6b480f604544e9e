//! What goes wrong, and what comes of it: time, and nothing else.

use std::time::{Duration, Instant};

use serde_json::Value;
use verger_kopia::storage::{BlobMetadata, list_all};

use crate::place::{Flow, full, process_of};
use crate::support::{json, run, told};

#[test]
fn a_shard_of_a_worker_that_hangs_is_done_by_another_and_its_late_word_counts_for_nothing() {
    let Some(mut flow) = Flow::start() else { return };
    let _golden = flow.add("epochs");
    flow.work("hand-1");
    flow.work("hand-2");
    flow.waits_until_listed("hand-2", "ready");
    run(flow.fleet.verger(&full("epochs")).args(["--key", "one"]));
    let lead = flow.lead("epochs", 1);
    let other = if lead == "hand-1" { "hand-2" } else { "hand-1" };
    let job = hangs_with_a_shard(&flow, other);
    let began = Instant::now();
    let lost = flow.waits_for("epochs", "job_lost", 1);
    told(&format!("a shard of a worker that hangs is offered again after {} ms", began.elapsed().as_millis()));
    assert_eq!((&lost[0]["job"], lost[0]["worker"].as_str().map(process_of)), (&job, Some(other.to_owned())));
    let ended = run(flow.fleet.verger(&full("epochs")).args(["--key", "one", "--wait", "--json"]));
    assert_eq!(json(&ended)["outcome"], "done");
    flow.thaw(other);
    std::thread::sleep(Duration::from_secs(8));
    let completed = flow.events("epochs", "job_completed");
    let by: Vec<&Value> = completed.iter().map(|done| &done["ticket"]).filter(|ticket| ticket["job"] == job).collect();
    assert_eq!(by.len(), 1, "{by:?}");
    assert_eq!(process_of(by[0]["worker"].as_str().unwrap()), lead);
    flow.verifies("epochs");
    assert_eq!(flow.cycle("epochs")["outcome"], "done", "and it is of use again");
}

/// Longer than an approval lasts, and than the silence after which a lead's cycle is given to another.
const PAST_DEADLINE: Duration = Duration::from_secs(125);
/// A request that was sent before its sender hung is over by then.
const UNDER_WAY: Duration = Duration::from_secs(3);

/// Every blob of a repository, but for Verger's own.
fn blobs(flow: &Flow, name: &str) -> Vec<BlobMetadata> {
    let all = list_all(&flow.storage(&format!("fleet/{name}/")), "").unwrap();
    all.into_iter().filter(|blob| !blob.id.as_str().starts_with("verger.")).collect()
}

/// The cycle itself is not waited for: whoever goes on with it waits out the lease of the one before for its time to live (R4), and does
/// nothing until then.
#[test]
fn a_lead_that_hangs_between_approval_and_deed_does_nothing_late() {
    let Some(mut flow) = Flow::start() else { return };
    // Who goes on with the first cycle waits out its lead's lease, and a third has to be there for the second cycle.
    for name in ["hand-1", "hand-2", "hand-3"] {
        flow.work(name);
        flow.waits_until_listed(name, "ready");
    }
    // The first stage that publishes, and the first that deletes.
    let hang = |stage: &'static str| {
        let golden = flow.add_as("epochs", stage);
        run(flow.fleet.verger(&full(stage)).args(["--key", "one"]));
        let lead = flow.lead(stage, 1);
        hangs_in_a_batch(&flow, stage, &lead);
        let since = Instant::now();
        std::thread::sleep(UNDER_WAY);
        (stage, lead, since, flow.events(stage, "batch_approved").len(), blobs(&flow, stage), golden)
    };
    for (stage, lead, since, approved, before, _golden) in ["mark", "delete"].map(hang) {
        std::thread::sleep(PAST_DEADLINE.saturating_sub(since.elapsed()));
        assert_eq!(blobs(&flow, stage), before, "somebody else acts before the lease has run out");
        flow.thaw(&lead);
        let began = Instant::now();
        // Whichever hears it first: who says that it lives, or who goes on with the cycle.
        let hears =
            |line: &str| line.contains(&format!("repository={stage} ")) && line.contains("another process drives");
        while !flow.log(&lead).lines().any(hears) {
            assert!(began.elapsed() < Duration::from_secs(30), "{lead} goes on: {}", flow.log(&lead));
            std::thread::sleep(Duration::from_millis(200));
        }
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(blobs(&flow, stage), before, "{lead} did its deed late");
        assert_eq!(flow.events(stage, "batch_approved").len(), approved, "nothing is approved for it any more");
        assert!(flow.events(stage, "cycle_closed").is_empty(), "the cycle goes on when the lease has run out");
        flow.verifies(stage);
    }
}

/// Stops it with a batch that is approved and not done, in a stage of that name, in the repository of the same name. It is looked at while
/// it stands, so that none is over before it is seen.
fn hangs_in_a_batch(flow: &Flow, stage: &str, lead: &str) {
    let began = Instant::now();
    loop {
        flow.freeze(lead);
        let of = |kind: &str, batch: &str| {
            let events = flow.events(stage, kind);
            events.iter().filter(|event| event[batch]["batch"]["stage"] == stage).count()
        };
        let (done, approved) = (of("batch_done", "outcome"), of("batch_approved", "approval"));
        if approved > done {
            return;
        }
        assert!(flow.events(stage, "cycle_closed").is_empty(), "{lead} was stopped too late");
        assert!(began.elapsed() < Duration::from_secs(90), "{stage} does not begin");
        flow.thaw(lead);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Stops it in the middle of a shard; which.
fn hangs_with_a_shard(flow: &Flow, worker: &str) -> Value {
    let is_his = |event: &Value| process_of(event["ticket"]["worker"].as_str().unwrap()) == worker;
    for _ in 0..200 {
        flow.freeze(worker);
        let claims: Vec<Value> = flow.events("epochs", "job_claimed").into_iter().filter(is_his).collect();
        let completed = flow.events("epochs", "job_completed");
        let is_done = |claim: &Value| completed.iter().any(|done| done["ticket"] == claim["ticket"]);
        if let Some(claim) = claims.iter().find(|claim| !is_done(claim)) {
            return claim["ticket"]["job"].clone();
        }
        assert!(flow.events("epochs", "cycle_closed").is_empty(), "it came too late: {} claims", claims.len());
        flow.thaw(worker);
        std::thread::sleep(Duration::from_millis(30));
    }
    panic!("it never has a shard");
}

#[test]
fn without_nats_without_a_password_with_another_exchange_and_with_a_name_twice_cycles_end_well() {
    let Some(mut flow) = Flow::start() else { return };
    let _golden = flow.add("epochs");
    flow.nats.kill();
    flow.work("hand-1");
    flow.waits_until_listed("hand-1", "ready");
    run(flow.fleet.verger(&full("epochs")).args(["--key", "one"]));
    flow.lead("epochs", 1);
    flow.work_as("blind", &format!("s3://{}/exch/a/", crate::weed::BUCKET), false);
    flow.work_as("astray", &format!("s3://{}/exch/b/", crate::weed::BUCKET), true);
    let ended = json(&run(flow.fleet.verger(&full("epochs")).args(["--key", "one", "--wait", "--json"])));
    assert_eq!(ended["outcome"], "done", "{ended}");
    let failed = flow.events("epochs", "job_failed");
    assert!(failed.len() < 4, "each costs a shard one of few attempts: {failed:?}");
    for failure in &failed {
        assert!(!failure.to_string().contains(crate::support::PASSWORD), "{failure}");
    }
    for (name, word) in [("blind", "PHOTOS_PASSWORD"), ("astray", "the same exchange")] {
        let log = flow.log(name);
        assert!(!log.contains("left to others") || log.contains(word), "{log}");
        assert!(!log.contains(&format!("\"{}\"", crate::support::PASSWORD)), "{log}");
    }
    // A later process has the name: the one before ends.
    flow.nats.restart();
    let mut second = flow.worker("hand-1", &format!("s3://{}/exch/a/", crate::weed::BUCKET));
    let mut second = second.env("PHOTOS_PASSWORD", crate::support::PASSWORD).spawn().unwrap();
    // Locked, as `docs/exit-codes.md` has it.
    let code = flow.ends("hand-1", Duration::from_secs(60));
    assert_eq!(code, Some(11), "{}", flow.log("hand-1"));
    assert!(flow.log("hand-1").contains("is taken"), "{}", flow.log("hand-1"));
    second.kill().unwrap();
    second.wait().unwrap();
    flow.verifies("epochs");
}

/// The only worker lacks the password: it gives the cycle back, and whoever has it does the cycle.
#[test]
fn a_cycle_for_which_one_worker_lacks_the_password_is_led_by_another() {
    let Some(mut flow) = Flow::start() else { return };
    let _golden = flow.add("epochs");
    let exchange = format!("s3://{}/exch/a/", crate::weed::BUCKET);
    flow.work_as("blind", &exchange, false);
    flow.waits_until_listed("blind", "ready");
    run(flow.fleet.verger(&full("epochs")).args(["--key", "one"]));
    let unable = flow.waits_for("epochs", "worker_unable", 1);
    assert_eq!(unable[0]["worker"], "blind");
    assert!(unable[0]["reason"].as_str().unwrap().contains("PHOTOS_PASSWORD"), "{unable:?}");
    let listed = flow.fleet.json(&["worker", "list", "--json"]);
    assert_eq!(listed[0]["unable"][0]["repository"], "epochs", "{listed}");
    let text = String::from_utf8(run(&mut flow.fleet.verger(&["worker", "list"])).stdout).unwrap();
    assert!(text.contains("cannot open epochs: ") && text.contains("PHOTOS_PASSWORD"), "{text}");
    // It asks on, and is not given it again.
    std::thread::sleep(Duration::from_secs(6));
    assert!(flow.events("epochs", "request_dropped").is_empty() && flow.events("epochs", "cycle_opened").is_empty());
    let taken = flow.events("epochs", "drive_taken").len();
    assert!(taken == 1, "it was given {taken} times");
    // Who waits is told that nobody can, and of what.
    let told_of = crate::support::fails(flow.fleet.verger(&full("epochs")).args(["--key", "one", "--wait"]), 2);
    assert!(told_of.contains("blind: ") && told_of.contains("PHOTOS_PASSWORD"), "{told_of}");
    let began = Instant::now();
    flow.work("hand-1");
    flow.waits_until_listed("hand-1", "ready");
    let ended = json(&run(flow.fleet.verger(&full("epochs")).args(["--key", "one", "--wait", "--json"])));
    assert_eq!(ended["outcome"], "done", "{ended}");
    told(&format!("a cycle that one worker could not begin is done by another in {} ms", began.elapsed().as_millis()));
    assert_eq!(flow.lead("epochs", 1), "hand-1");
    // Its shards, too: no attempt of any was used up, so none was split.
    assert!(flow.events("epochs", "job_failed").is_empty() && flow.events("epochs", "shard_split").is_empty());
    let log = flow.log("blind");
    assert!(log.contains("a cycle is left to others") && log.contains("PHOTOS_PASSWORD"), "{log}");
    assert!(!log.contains(crate::support::PASSWORD), "{log}");
    flow.verifies("epochs");
}
