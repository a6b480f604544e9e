//! What breaks, when: machines, power, disks, wires, clocks; and a disk that is lost.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use verger_coordinator::raft::types::Peer;

use super::disk::Break;
use super::network::Weather;
use super::world::World;

async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Breaks things until `until` (milliseconds).
pub async fn storm(world: &World, dice: &mut SmallRng, until: u64) {
    // A seed without it is one in which nothing but the rest happens.
    let mut lost_disk = dice.random_bool(0.25).then(|| dice.random_range(until / 4..until / 4 * 3));
    while world.now() < until && world.finding().is_none() {
        pass(dice.random_range(200..2_500)).await;
        world.turn(dice).await;
        if lost_disk.is_some_and(|at| at <= world.now()) {
            lost_disk = None;
            lose_disk(world, dice).await;
        }
        let running = world.running();
        if let Some(id) = running.choose(dice) {
            strike(world, dice, *id).await;
        }
    }
}

async fn strike(world: &World, dice: &mut SmallRng, id: u64) {
    let members = world.members();
    let network = world.network();
    let later = world.now() + dice.random_range(20..4_000);
    match dice.random_range(0..20) {
        0 | 1 => {
            world.crash(id, false).await;
            world.restart_at(id, later);
        }
        2 | 3 => {
            world.crash(id, true).await;
            tear_ledger(world, dice, id);
            world.restart_at(id, later);
        }
        4 => {
            for id in world.running() {
                world.crash(id, true).await;
                tear_ledger(world, dice, id);
                world.restart_at(id, world.now() + dice.random_range(20..3_000));
            }
        }
        5 | 6 => {
            let how = *[Break::Before, Break::Torn, Break::After, Break::Refused].choose(dice).unwrap();
            world.trace(&format!("node {id} will break {how:?}"));
            world.disk(id).break_after(dice.random_range(0..12), how);
        }
        7 | 8 => {
            world.trace(&format!("node {id} is alone"));
            network.isolate(id, &members);
        }
        9 => {
            let other = *members.choose(dice).unwrap();
            world.trace(&format!("nothing gets from {id} to {other}"));
            network.cut(id, other);
        }
        10 | 11 => {
            world.trace("wires are whole");
            network.mend();
        }
        12 => network.set_weather(Weather { lost: dice.random_range(0..200), ..network.weather() }),
        13 => network.set_weather(Weather { twice: dice.random_range(0..300), ..network.weather() }),
        14 => network.set_weather(Weather { late: dice.random_range(0..100), ..network.weather() }),
        15 => network.set_weather(Weather { slow: dice.random_range(0..120), ..network.weather() }),
        16 | 17 => {
            let most = *[300, 5_000, 300_000].choose(dice).unwrap();
            let ahead = dice.random_range(-most..=most);
            world.trace(&format!("the clock of node {id} is ahead by {ahead} ms"));
            world.clock(id).set_ahead(ahead);
        }
        18 => {
            if let Some(node) = world.node(id) {
                let _ = node.snapshot_now().await;
            }
        }
        _ => {}
    }
}

/// What of the ledger no snapshot speaks for was not synced: with the power, its end is gone, or something else stands there.
fn tear_ledger(world: &World, dice: &mut SmallRng, id: u64) {
    let folder = world.folder_of(id);
    let path = folder.join("ledger").join("ledger");
    let Ok(mut bytes) = std::fs::read(&path) else { return };
    if dice.random_bool(0.5) && !folder.join("snapshot").exists() {
        bytes.truncate(dice.random_range(0..=bytes.len()));
    } else {
        let more = dice.random_range(0..200);
        bytes.resize(bytes.len() + more, 0x5a);
    }
    std::fs::write(&path, bytes).unwrap();
}

/// All is well again: wires, weather, clocks, machines.
pub async fn heal(world: &World, dice: &mut SmallRng) {
    world.network().mend();
    world.network().set_weather(Weather::default());
    for id in world.members() {
        world.clock(id).set_ahead(0);
        world.disk(id).mend();
    }
    world.start_all(dice).await;
}

/// A disk is lost, and somebody starts its node again under the same number: it has forgotten what others count on, and must not take
/// part. Meanwhile another node is cut off that has seen less. Then the node is replaced by one with a new number.
async fn lose_disk(world: &World, dice: &mut SmallRng) {
    heal(world, dice).await;
    pass(4_000).await;
    let members = world.members();
    let (lost, behind) = (members[0], members[1]);
    let (lost, behind) = if dice.random_bool(0.5) { (lost, behind) } else { (behind, lost) };
    if world.running().len() < 3 {
        return;
    }
    world.trace(&format!("node {behind} is alone, then node {lost} loses its disk"));
    world.network().isolate(behind, &members);
    pass(5_000).await;
    world.replicas().disk_lost = Some(lost);
    world.crash(lost, true).await;
    std::fs::remove_dir_all(world.folder_of(lost)).unwrap();
    world.disk(lost).lose();
    world.network().mend();
    world.network().isolate(members[2], &members);
    world.start(lost).await;
    pass(6_000).await;
    if world.finding().is_some() {
        return;
    }
    world.network().mend();
    pass(4_000).await;
    let told = world.node(lost).is_some_and(|node| node.metrics().borrow().running_state.is_err());
    if !told {
        world.find(format!("node {lost} takes part although its disk is another one"));
    }
    world.crash(lost, false).await;
    world.bury(lost);
    replace(world, lost).await;
}

/// A new node comes in the place of one that is gone.
async fn replace(world: &World, gone: u64) {
    let new = world.next_id();
    world.start(new).await;
    let voters: std::collections::BTreeSet<u64> = world.members().into_iter().collect();
    for _ in 0..100 {
        world.turn(&mut super::world::dice(0, 0)).await;
        for id in world.running() {
            let Some(node) = world.node(id).filter(|node| node.leads()) else { continue };
            // Either waits for as long as there is no quorum.
            let change = async {
                node.add_learner(new, Peer::at(format!("memory:{new}"))).await.is_ok()
                    && node.change_members(voters.clone()).await.is_ok()
            };
            if tokio::time::timeout(Duration::from_secs(5), change).await == Ok(true) {
                world.trace(&format!("node {new} takes the place of node {gone}"));
                return;
            }
        }
        pass(200).await;
    }
    world.find(format!("node {gone} could not be replaced by {new}"));
}
