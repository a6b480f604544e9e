//! A raft group orders commands: this process is one of its nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng as _;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::{Command, CommandId, CycleId, Event, Progress, Ticket};

use super::backend::Backend;
use crate::machine::State;
use crate::raft::node::{Node, SubmitError};
use crate::words::{Word, Words};

/// So long a command is asked again under its number before it has no answer: a leader is chosen within seconds. With the last try it
/// is less than a call of the API may take.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);
/// Words that are under way to the leader; more are not said.
const TOLD_MAX: usize = 32;
/// The leader did not hear a word, or did not answer: for so long it is left alone. It may be gone, or of a version without words.
const SILENCE: Duration = Duration::from_secs(3);
/// Words are asked for this often, however many people ask.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// What helps where programs of some coordinators are too old for a command.
const NOT_YET: &str = "upgrade all coordinators first; `verger cluster status` says which one knows less";

/// Until when the leader is not spoken to about progress.
#[derive(Clone, Default)]
struct Silence(Arc<Mutex<Option<Instant>>>);

impl Silence {
    fn is_kept(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    fn keep_unless(&self, is_heard: bool) {
        if !is_heard {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + SILENCE);
        }
    }
}

/// Blocks on a node. Never called from the runtime's own threads.
pub struct ReplicatedBackend {
    node: Arc<Node>,
    runtime: Handle,
    /// For words to the leader.
    room: Arc<Semaphore>,
    silence: Silence,
    /// When words of a cycle were asked for.
    asked: Mutex<BTreeMap<CycleId, Instant>>,
}

impl ReplicatedBackend {
    /// Of a node that runs on `runtime`.
    #[must_use]
    pub fn new(node: Arc<Node>, runtime: Handle) -> Self {
        let room = Arc::new(Semaphore::new(TOLD_MAX));
        Self { node, runtime, room, silence: Silence::default(), asked: Mutex::default() }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Backend for ReplicatedBackend {
    fn submit(&self, command: Command) -> Result<Vec<Event>> {
        self.submit_as(CommandId(rand::rng().random()), command)
    }

    fn applied(&self) -> u64 {
        *self.node.applied().borrow()
    }

    /// The same number for every try: whatever became of the first, it counts once.
    fn submit_as(&self, id: CommandId, command: Command) -> Result<Vec<Event>> {
        let actor = command.actor().map(str::to_owned);
        let began = Instant::now();
        loop {
            let answer = self.runtime.block_on(self.node.propose_anywhere(id, actor.clone(), command.clone()));
            match answer {
                Ok(events) => return Ok(events),
                Err(SubmitError::Stopped(error)) => return Err(error),
                Err(error @ (SubmitError::TooLong { .. } | SubmitError::Members(_))) => {
                    return Err(Error::new(ErrorKind::Internal, "order a command").with_source(error));
                }
                Err(error @ SubmitError::Level { .. }) => {
                    return Err(Error::new(ErrorKind::UpgradeInProgress, error.to_string()).with_fix(NOT_YET));
                }
                Err(error @ (SubmitError::NotLeader { .. } | SubmitError::Unknown)) => {
                    if began.elapsed() > PATIENCE {
                        let step = "nobody leads: the command has no answer";
                        return Err(Error::new(ErrorKind::StoreUnavailable, step)
                            .with_source(error)
                            .with_fix("Start the other coordinators; a majority of them has to run"));
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    fn look(&self, look: &mut dyn FnMut(&State)) {
        self.node.state(|state| look(state));
    }

    fn wait(&self, at_most: Duration, look: &mut dyn FnMut(&State) -> bool) {
        let (mut applied, mut heard) = (self.node.applied(), self.node.words().heard());
        let until = Instant::now() + at_most;
        loop {
            // Seen before it is looked at: what comes in between is looked at once more.
            applied.borrow_and_update();
            heard.borrow_and_update();
            if self.node.state(|state| look(state)) {
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            let changed = async {
                tokio::select! {
                    changed = applied.changed() => changed,
                    changed = heard.changed() => changed,
                }
            };
            let changed = self.runtime.block_on(async { tokio::time::timeout(left, changed).await });
            match changed {
                Ok(Ok(())) => {}
                // Time is over, or the node has gone.
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// People ask whoever leads, so it is told there, too. Whoever does the work does not wait for that.
    fn tell(&self, ticket: &Ticket, progress: Progress) {
        let word = Word::of(ticket, progress);
        self.node.words().hear(word);
        if self.silence.is_kept() {
            return;
        }
        let Ok(room) = self.room.clone().try_acquire_owned() else { return };
        let (node, silence) = (self.node.clone(), self.silence.clone());
        self.runtime.spawn(async move {
            silence.keep_unless(node.tell_leader(word).await);
            drop(room);
        });
    }

    fn ask_words(&self, cycle: CycleId) {
        if self.silence.is_kept() || !self.node.state(|state| state.cycles.contains_key(&cycle)) {
            return;
        }
        let now = Instant::now();
        {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.retain(|_, at| now.saturating_duration_since(*at) < ASK_EVERY);
            if asked.contains_key(&cycle) {
                return;
            }
            asked.insert(cycle, now);
        }
        self.silence.keep_unless(self.runtime.block_on(self.node.ask_words(cycle)));
    }

    fn words(&self) -> Option<&Words> {
        Some(self.node.words())
    }
}
