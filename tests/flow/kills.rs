//! Coordinators, workers and servers are killed at random, leads and the store among them, while a real client makes snapshots. A cycle
//! whose lead finds no store ends as failed, and is asked for again; nothing else may fail.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::place::{Flow, endpoint, full};
use crate::support::{Kopia, json, run, skipped, told};
use crate::weed::{ACCESS_KEY, BUCKET, SECRET_KEY, Weed};

/// Kills, in all rounds together.
const KILLS: u64 = 50;
/// In the first rounds leads and the S3 server are spared: what they leave has to be waited out, which takes minutes (R4). In the last
/// one nothing is.
const PER_ROUND: [u64; 3] = [15, 15, 20];
const SEED: u64 = 11;
const FINISHED_WITHIN: Duration = Duration::from_secs(480);
/// With a client at work, so with all margins.
const WATCHED: &str = "watched";

/// A small random sequence, the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn nap(&mut self, most: u64) {
        std::thread::sleep(Duration::from_millis(self.below(most)));
    }
}

/// What was killed.
#[derive(Default, Debug)]
struct Killed {
    coordinators: u64,
    workers: u64,
    leads: u64,
    nats: u64,
    stores: u64,
}

#[test]
fn killed_fifty_times_every_wish_is_answered_every_cycle_finishes_and_a_client_loses_nothing() {
    let Some(mut flow) = Flow::start() else { return };
    told(&format!("seed {SEED}"));
    assert_eq!(PER_ROUND.iter().sum::<u64>(), KILLS);
    let (mut chance, names, mut killed) = (Chance(SEED), ["epochs", "format1", WATCHED], Killed::default());
    let _golden = [flow.add("epochs"), flow.add("format1"), flow.add_as("default", WATCHED)];
    for number in 1..=4 {
        flow.work(&format!("hand-{number}"));
    }
    let (client, over) = (client(&flow.weed), AtomicBool::new(false));
    let mut wishes = Vec::new();
    let made = std::thread::scope(|scope| {
        let snapshots = scope.spawn(|| client.as_ref().map(|client| snapshots(client, &over)));
        // Also when a check below fails: the scope waits for the client.
        let _end = End(&over);
        for (round, kills) in PER_ROUND.into_iter().enumerate() {
            for name in names {
                let key = format!("{name}-{round}");
                run(&mut wish(&flow, name, &key));
                wishes.push((name, key));
            }
            let leads = names.map(|name| flow.lead(name, round + 1));
            let spared = if round + 1 < PER_ROUND.len() { &leads[..] } else { &[] };
            // One lead at least, whatever chance says.
            let mut lead_dies = spared.is_empty();
            for _ in 0..kills {
                if std::mem::take(&mut lead_dies) {
                    kill_a_lead(&mut flow, &mut chance, &names, &mut killed);
                    continue;
                }
                chance.nap(400);
                kill_one(&mut flow, &mut chance, spared, &names, &mut killed);
            }
            let began = Instant::now();
            let newest = wishes.len() - names.len();
            for (name, key) in &mut wishes[newest..] {
                let Some(said) = failure(&flow, name, key) else { continue };
                // It ended, and its wish has its answer; whoever wants another one asks again.
                assert!(killed.stores > 0 && said.contains("dispatch failure"), "{key}: {said}");
                told(&format!("{key} found no store: {said}"));
                *key = format!("{key}-again");
                finishes(&flow, name, key);
            }
            told(&format!("round {round}: all is finished {} s after {kills} kills", began.elapsed().as_secs()));
        }
        over.store(true, Ordering::Relaxed);
        snapshots.join().unwrap()
    });
    told(&format!("{killed:?}, and {made:?} snapshots beside it"));
    assert!(killed.leads > 0 && killed.stores > 0 && killed.nats > 0 && killed.coordinators > 0, "{killed:?}");
    assert!(made.is_none_or(|made| made > 5), "the client came to nothing: {made:?}");
    // Asked under the same key each has the answer that it had.
    wishes.iter().for_each(|(name, key)| finishes(&flow, name, key));
    names.iter().for_each(|name| flow.verifies(name));
}

fn wish(flow: &Flow, name: &str, key: &str) -> std::process::Command {
    let mut command = match name {
        WATCHED => flow.fleet.verger(&["cycle", "start", name, "--full"]),
        _ => flow.fleet.verger(&full(name)),
    };
    command.args(["--key", key]);
    command
}

fn finishes(flow: &Flow, name: &str, key: &str) {
    assert_eq!(failure(flow, name, key), None, "{key}");
}

/// Waits for the end of what was asked for, within the time that two leads that die one after the other may cost: why it failed.
fn failure(flow: &Flow, name: &str, key: &str) -> Option<String> {
    let mut command = wish(flow, name, key);
    let mut child = command.args(["--wait", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > FINISHED_WITHIN {
            child.kill().unwrap();
            panic!("{key} does not come to an end");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended = child.wait_with_output().unwrap();
    if !ended.status.success() {
        return Some(String::from_utf8_lossy(&ended.stderr).into_owned());
    }
    assert_eq!(json(&ended)["outcome"], "done", "{key} was acknowledged");
    None
}

fn kill_one(flow: &mut Flow, chance: &mut Chance, spared: &[String], names: &[&str], killed: &mut Killed) {
    match chance.below(if spared.is_empty() { 6 } else { 5 }) {
        0 | 1 => {
            let leader = flow.fleet.leader();
            let victim = if chance.below(2) == 0 { leader } else { 1 + leader % 3 };
            flow.fleet.kill(victim);
            chance.nap(500);
            flow.fleet.up(victim);
            killed.coordinators += 1;
        }
        2 => {
            flow.nats.kill();
            chance.nap(500);
            flow.nats.restart();
            killed.nats += 1;
        }
        5 => {
            flow.weed.kill();
            chance.nap(500);
            flow.weed.restart();
            killed.stores += 1;
        }
        _ => {
            let hands: Vec<String> = (1..=4).map(|number| format!("hand-{number}")).collect();
            let hands: Vec<&String> = hands.iter().filter(|hand| !spared.contains(hand)).collect();
            let victim = hands[usize::try_from(chance.below(hands.len() as u64)).unwrap()].clone();
            let leads = names.iter().any(|name| flow.leads_now(name).as_ref() == Some(&victim));
            kill_worker(flow, chance, &victim, leads, killed);
        }
    }
}

fn kill_a_lead(flow: &mut Flow, chance: &mut Chance, names: &[&str], killed: &mut Killed) {
    let lead = names.iter().find_map(|name| flow.leads_now(name)).expect("wishes of this round are under way");
    kill_worker(flow, chance, &lead, true, killed);
}

fn kill_worker(flow: &mut Flow, chance: &mut Chance, victim: &str, leads: bool, killed: &mut Killed) {
    flow.kill(victim);
    chance.nap(500);
    flow.work(victim);
    (killed.workers, killed.leads) = (killed.workers + 1, killed.leads + u64::from(leads));
}

fn client(weed: &Weed) -> Option<Kopia> {
    let prefix = format!("fleet/{WATCHED}/");
    let client = Kopia::connect_s3(&endpoint(weed), BUCKET, &prefix, (ACCESS_KEY, SECRET_KEY), "somebody@elsewhere");
    if client.is_none() {
        skipped("no kopia on PATH: no client makes snapshots while everything is killed");
    }
    client
}

/// Makes snapshots of files that change, until it is told to stop; how many. One that fails while the store is away is made again.
fn snapshots(kopia: &Kopia, over: &AtomicBool) -> usize {
    let (home, mut made) = (tempfile::tempdir().unwrap(), 0);
    for generation in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        for number in 0..6_u64 {
            // Of different paces, and with words that come back.
            let line = format!("file {number} of generation {}\n", generation / (1 + number) % 7);
            std::fs::write(home.path().join(format!("{number}.txt")), line.repeat(2_000)).unwrap();
        }
        let mut create = std::process::Command::new("kopia");
        kopia.of(create.args(["snapshot", "create", "--no-progress"]).arg(home.path()));
        made += usize::from(create.output().unwrap().status.success());
        std::thread::sleep(Duration::from_millis(1500));
    }
    made
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
