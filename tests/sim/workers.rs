//! Workers and people at work while everything breaks: each says something, asks again until it is answered, and remembers the answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use verger_proto::{Command, CommandId, Event, StoreTime};

use super::steps::{Voice, finish};
use super::world::{World, dice};

/// How many of them.
const WORKERS: usize = 3;
/// Whoever has no answer for so long gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command and its first answer.
pub type Answered = (CommandId, Command, Vec<Event>);

/// What was answered, to whomever.
#[derive(Clone, Default)]
pub struct Answers(Arc<Mutex<Vec<Answered>>>);

impl Answers {
    fn keep(&self, answered: Answered) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(answered);
    }

    pub fn all(&self) -> Vec<Answered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Everybody at work, until `until` (milliseconds).
pub fn spawn(world: &World, seed: u64, until: u64, answers: &Answers) -> Vec<tokio::task::JoinHandle<()>> {
    let work = |number| {
        let (world, answers) = (world.clone(), answers.clone());
        tokio::spawn(async move {
            let mut voice = Voice::new(number, dice(seed, 100 + number as u64));
            let mut dice = dice(seed, 200 + number as u64);
            while world.now() < until && world.finding().is_none() {
                say(&world, &mut voice, &mut dice, &answers).await;
                tokio::time::sleep(Duration::from_millis(dice.random_range(50..1_500))).await;
            }
        })
    };
    (0..WORKERS).map(work).collect()
}

async fn say(world: &World, voice: &mut Voice, dice: &mut SmallRng, answers: &Answers) {
    voice.store_now = StoreTime(world.time().milliseconds() + 500);
    let Some(Some(command)) = world.state(dice, |state| voice.speak(state)) else { return };
    let id = CommandId(dice.random());
    if dice.random_bool(0.05) {
        return look(world, dice).await;
    }
    let Some(events) = world.submit(id, &command, PATIENCE).await else { return };
    if events.is_empty() {
        return;
    }
    answers.keep((id, command.clone(), events.clone()));
    // The answer was lost on its way, or somebody else passes the command on: it is asked again.
    if dice.random_bool(0.2)
        && let Some(again) = world.submit(id, &command, PATIENCE).await
        && again != events
    {
        world.find(format!("{} was answered twice: {events:?} {again:?}", command.name()));
    }
}

/// What the leader shows after asking a quorum is not older than what was answered before.
async fn look(world: &World, dice: &mut SmallRng) {
    let before = world.replicas().length();
    let running = world.running();
    let Some(id) = running.get(dice.random_range(0..running.len().max(1))).copied() else { return };
    let Some(node) = world.node(id) else { return };
    if node.linearizable().await.is_ok() {
        let shown = super::replicas::ledger_length(&world.folder_of(id));
        if shown < before && world.node(id).is_some_and(|same| Arc::ptr_eq(&same, &node)) {
            world.find(format!("node {id} shows {shown} bytes of the ledger, and answers rest on {before}"));
        }
    }
}

/// Faults are over: a good worker brings everything to its end. How many commands that took.
pub async fn finish_all(world: &World, seed: u64) -> Result<u32, String> {
    let mut voice = Voice::new(9, dice(seed, 300));
    let mut dice = dice(seed, 301);
    for number in 0..2_000 {
        // Claims, deadlines and leases run out: time passes for everybody.
        let ahead = i64::from(number) * 2_000;
        world.members().iter().for_each(|id| world.clock(*id).set_ahead(ahead));
        voice.store_now = StoreTime(world.time().milliseconds() + 500 + ahead.unsigned_abs());
        let Some(leader) = leader(world).await else { continue };
        let Some(command) = world.node(leader).and_then(|node| node.state(|state| finish(&mut voice, state))) else {
            return Ok(number);
        };
        let id = CommandId(dice.random());
        if world.submit(id, &command, PATIENCE).await.is_none() {
            return Err(format!("nobody answers although all is well:\n{}", world.standing()));
        }
        if let Some(finding) = world.finding() {
            return Err(finding);
        }
    }
    Err("cycles do not come to their end".to_owned())
}

/// Whoever leads, and knows it.
async fn leader(world: &World) -> Option<u64> {
    for id in world.running() {
        let Some(node) = world.node(id) else { continue };
        if node.leads() && node.linearizable().await.is_ok() {
            return Some(id);
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    None
}
