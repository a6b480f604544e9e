//! One seed from its beginning to its end: a storm with everybody at work, then quiet, in which all must finish.

use std::time::Duration;

use tokio::runtime::{Builder, RngSeed};
use verger_coordinator::raft::runtime;

use super::faults::{heal, storm};
use super::oracle::Finding;
use super::workers::{self, Answers};
use super::world::{World, dice};

/// Milliseconds of a storm; with the healing, a run is 120 s.
const STORM: u64 = 100_000;
/// Within so many milliseconds after the last fault, all nodes are one again.
const HEALED_WITHIN: u64 = 20_000;
/// Within so many milliseconds after all are one, the cluster goes by what all of them know.
const LEVEL_WITHIN: u64 = 8_000;
/// So many of the first answers are asked for again in the end.
const ASKED_AGAIN: usize = 40;

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Course {
    pub hash: u64,
    pub acknowledged: u64,
    pub cycles: u32,
    pub batches: u32,
}

/// A finding, and how it came to be.
#[derive(Debug)]
pub struct Failure {
    pub finding: Finding,
    pub trace: String,
}

/// Lives through one seed, on this thread.
pub fn run(seed: u64, print: bool) -> Result<Course, Failure> {
    lived(seed, print, async |world| course(&world, seed).await)
}

/// A world of its own for what is to happen in it, and what came of that.
pub fn lived(
    seed: u64,
    print: bool,
    course: impl AsyncFnOnce(World) -> Result<(), Finding>,
) -> Result<Course, Failure> {
    runtime::set_seed(Some(seed));
    let mut machine = Builder::new_current_thread();
    let machine = machine.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()));
    let done = machine.build().unwrap().block_on(async {
        let world = World::new(seed, print).await;
        let done = course(world.clone()).await;
        // What was seen first is what to tell.
        let done = world.finding().map_or(done, Err);
        let course = {
            let oracle = &world.replicas().oracle;
            let (cycles, batches) = (oracle.cycles, oracle.batches);
            Course { hash: world.hash(), acknowledged: world.acknowledged(), cycles, batches }
        };
        world.end().await;
        done.map(|()| course).map_err(|finding| Failure { finding, trace: world.tail() })
    });
    runtime::set_seed(None);
    done
}

async fn course(world: &World, seed: u64) -> Result<(), Finding> {
    let answers = Answers::default();
    let mut dice = dice(seed, 1);
    let work = workers::spawn(world, seed, STORM, &answers);
    storm(world, &mut dice, STORM).await;
    check(world)?;
    heal(world, &mut dice).await;
    for worker in work {
        worker.await.map_err(|error| format!("a worker: {error}"))?;
    }
    let until = world.now() + HEALED_WITHIN;
    while !world.is_whole() {
        check(world)?;
        world.turn(&mut dice).await;
        if world.now() > until {
            return Err(format!("not one again after {HEALED_WITHIN} ms:\n{}", world.standing()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.trace("all are one");
    workers::finish_all(world, seed).await?;
    tokio::time::sleep(Duration::from_millis(LEVEL_WITHIN)).await;
    world.check_level()?;
    check(world)?;
    world.replicas().oracle.check_over()?;
    asked_again(world, &answers).await?;
    check(world)
}

fn check(world: &World) -> Result<(), Finding> {
    world.finding().map_or(Ok(()), Err)
}

/// Whatever was answered is answered so again, and nothing is done twice.
async fn asked_again(world: &World, answers: &Answers) -> Result<(), Finding> {
    let all = answers.all();
    let step = (all.len() / ASKED_AGAIN).max(1);
    for (id, command, events) in all.iter().step_by(step) {
        let again = world.submit(*id, command, Duration::from_secs(10)).await;
        if again.as_ref() != Some(events) {
            return Err(format!("{} was answered {events:?}, and now {again:?}", command.name()));
        }
    }
    Ok(())
}
