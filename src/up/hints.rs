//! Wakes workers of other processes: hints of shards as they are offered, and of cycles that somebody asked for. Losing one costs
//! seconds: workers ask by themselves.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use verger_coordinator::drive::Backend;
use verger_coordinator::machine::State;
use verger_coordinator::raft::node::Node;
use verger_coordinator::work_key::{self, WorkKeyError};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::queue::Hint;
use verger_proto::work_queue::nats::NatsQueue;
use verger_proto::work_queue::{Offer, PublicKey, Wake, WorkQueue, WorkQueueError};
use verger_proto::{Command, Effect, LogTime, Pool, RepositoryId, TraceId, TraceParent};
use verger_worker::progress::Stop;

use crate::config::nats::{Nats, unusable};

/// Hints that wait to be sent; more are not sent at all.
const WAITING_MAX: usize = 4096;
/// How often it is looked for wishes, and for the end.
const GLANCE: Duration = Duration::from_millis(250);

/// Takes hints from the machine; never blocks it.
#[derive(Clone)]
pub(super) struct Hints(SyncSender<Hint>);

/// What hears them.
pub(super) struct Heard(Receiver<Hint>);

/// Two ends.
pub(super) fn hints() -> (Hints, Heard) {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    (Hints(sender), Heard(receiver))
}

impl Hints {
    /// A shard that anybody may do is told to all; everything else is for whoever leads its cycle.
    pub(super) fn pass(&self, effect: &Effect) {
        if let Effect::OfferJob(job) = effect
            && !job.shard.is_whole()
        {
            // No room: they are asked for.
            let _ = self.0.try_send(Hint::from(job.as_ref()));
        }
    }
}

/// Sends them while this process leads.
pub(super) struct Sender {
    pub(super) queue: Arc<dyn WorkQueue>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) leads: Box<dyn Fn() -> bool + Send + Sync>,
    pub(super) stop: Stop,
}

impl Sender {
    /// Sends until the process is to stop.
    pub(super) fn run(self, heard: &Heard) {
        let (mut told, mut looked) = (Vec::new(), Instant::now());
        while !self.stop.is_asked() {
            match heard.0.recv_timeout(GLANCE) {
                Ok(hint) if (self.leads)() => self.send(&hint.repository.clone(), Wake::Job(hint)),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Hints come in hundreds, and a look at the wishes is one at every repository.
            if looked.elapsed() >= GLANCE && (self.leads)() {
                looked = Instant::now();
                self.tell_of_wishes(&mut told);
            }
        }
    }

    /// Of each wish once.
    fn tell_of_wishes(&self, told: &mut Vec<(RepositoryId, String)>) {
        let mut wishes = Vec::new();
        self.backend.look(&mut |state| {
            wishes = state
                .repositories
                .iter()
                .filter(|(_, entry)| entry.registration.is_some())
                .flat_map(|(id, entry)| entry.requests.iter().map(move |wish| (id.clone(), wish.key.clone())))
                .collect();
        });
        told.retain(|known| wishes.contains(known));
        for wish in wishes {
            if !told.contains(&wish) {
                self.send(&wish.0, Wake::Drive { repository: wish.0.clone() });
                told.push(wish);
            }
        }
    }

    fn send(&self, repository: &RepositoryId, wake: Wake) {
        let mut found = None;
        self.backend
            .look(&mut |state| found = pool(state, repository).map(|pool| (pool, trace(state, repository, &wake))));
        let Some((pool, trace)) = found else { return };
        match self.queue.offer(&Offer { pool, wake, trace }) {
            Ok(()) | Err(WorkQueueError::Closed) => {}
            // The queue tells of it itself, once.
            Err(error) => tracing::debug!(%error, "a hint was not sent"),
        }
    }
}

fn pool(state: &State, repository: &RepositoryId) -> Option<Pool> {
    let known = state.repositories.get(repository)?.registration.as_ref()?;
    Pool::new(&known.pool).ok()
}

/// The trace of the cycle, so that what its shards do elsewhere is told under it.
fn trace(state: &State, repository: &RepositoryId, wake: &Wake) -> Option<TraceParent> {
    let Wake::Job(hint) = wake else { return None };
    let opened: LogTime = state.cycles.get(&hint.cycle)?.opened;
    let id = TraceId::of(repository, hint.cycle, opened);
    Some(TraceParent::of_stage(id, hint.stage, hint.term))
}

/// The key that this coordinator's messages are checked with, for the machine: workers hear of it from whoever leads.
pub(super) fn announce(backend: &dyn Backend, node: u64, key: PublicKey) {
    let mut is_known = false;
    backend.look(&mut |state| is_known = state.work_keys.get(&node) == Some(&key));
    if is_known {
        return;
    }
    if let Err(error) = backend.submit(Command::NoteWorkKey { node, key }) {
        tracing::warn!(error = error.chain(), "the key for messages of the work queue was not announced");
    }
}

/// Hints on their way, and the queue that they go to; `None`: nobody is woken.
pub(super) struct Waking(Option<(Arc<NatsQueue>, u64, PublicKey, Heard)>);

/// The same at work.
pub(super) struct Woken(Option<Arc<NatsQueue>>);

impl Waking {
    /// For the coordinator of this number. `folder`: where its key is kept.
    ///
    /// # Errors
    /// `Usage` for settings that cannot be used, `Damaged` or `Permission` for the key.
    pub(super) fn new(nats: Option<&Nats>, fleet: &str, node: u64, folder: &Path, heard: Heard) -> Result<Self> {
        let Some(nats) = nats else { return Ok(Self(None)) };
        let key = work_key::load_or_make(folder, node).map_err(|error| {
            let kind = if matches!(error, WorkKeyError::File(_)) { ErrorKind::Permission } else { ErrorKind::Damaged };
            Error::new(kind, "read the key for messages of the work queue")
                .with_source(error)
                .with_fix("Remove the file: a new key is made, and workers hear of it from the leader")
        })?;
        let public = key.public();
        let queue = NatsQueue::administer(&nats.of(fleet)?, &[Pool::default()], key).map_err(unusable)?;
        Ok(Self(Some((Arc::new(queue), node, public, heard))))
    }

    /// Where they go, for its figures.
    pub(super) fn queue(&self) -> Option<Arc<dyn WorkQueue>> {
        self.0.as_ref().map(|(queue, ..)| queue.clone() as Arc<dyn WorkQueue>)
    }

    /// Begins to send.
    pub(super) fn begin(self, backend: Arc<dyn Backend>, node: Arc<Node>, stop: Stop) -> Woken {
        let Some((queue, number, key, heard)) = self.0 else { return Woken(None) };
        let kept = queue.clone();
        let begun = std::thread::Builder::new().name("hints".to_owned()).spawn(move || {
            announce(&*backend, number, key);
            let leads = Box::new(move || node.leads());
            Sender { queue, backend, leads, stop }.run(&heard);
        });
        if let Err(error) = begun {
            tracing::error!(%error, "no thread for hints: workers ask by themselves");
        }
        Woken(Some(kept))
    }
}

impl Woken {
    /// Nothing more is sent.
    pub(super) fn end(self) {
        if let Some(queue) = self.0 {
            queue.close();
        }
    }
}
