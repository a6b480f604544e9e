//! A coordinator's node: its data folder, its raft, its machine.

mod guard;
mod look;
mod raise;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::error::{ClientWriteError, ForwardToLeader, InitializeError, RaftError};
use openraft::{ChangeMembers, Config, Raft, SnapshotPolicy};
use rand_core::RngCore;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use verger_kopia::clock::Clock;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::envelope::{self, Kind};
use verger_proto::{Command, CommandId, Event, LogTime, Proposal, level};

use super::durable::DurableLog;
use super::durable::sled::SledLog;
use super::failure::Failures;
use super::heads::Heads;
use super::identity::{self, Identity, OwnFolder};
use super::levels::Levels;
use super::log_store::LogStore;
use super::network::{Answer, Call, Links, NotSubmitted, Reply, Request, Submitted, Transport};
use super::runtime::Chance;
use super::standing::Standings;
use super::state_machine::{EffectSink, StateMachine};
use super::types::{Peer, TypeConfig, Vote};
use super::{archiving, files, runtime, snapshot};
use crate::ledger::archive::Archive;
use crate::ledger::segment::SEGMENT_BYTES;
use crate::machine::State;
use crate::words::Words;

const SNAPSHOT_PIECE_BYTES: u64 = 1 << 20;
/// A command must fit a record of the log, that record a message, and it and its events one of the ledger.
const COMMAND_BYTES_MAX: usize = 4 << 20;

/// How often and how long, in a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// A leader is heard this often.
    pub heartbeat: Duration,
    /// Without a leader for a time between these, a node asks for votes.
    pub election: (Duration, Duration),
    /// An answer to a command takes at most this.
    pub answer: Duration,
    /// A snapshot is made after so many entries.
    pub snapshot_entries: u64,
    /// So many entries stay in the log after a snapshot, for nodes that are a little behind.
    pub kept_entries: u64,
    /// A segment of the ledger with so many bytes gets no further record. The same on every node.
    pub segment_bytes: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            election: (Duration::from_millis(1000), Duration::from_millis(2000)),
            answer: Duration::from_secs(10),
            snapshot_entries: 5_000,
            kept_entries: 1_000,
            segment_bytes: SEGMENT_BYTES,
        }
    }
}

/// What a node needs.
#[derive(Clone)]
pub struct NodeOptions {
    /// Its number: never given to another node of the cluster, nor to this one after it lost its folder.
    pub id: u64,
    /// The cluster's name: nodes of others are not answered.
    pub cluster: String,
    /// Its own folder.
    pub data_dir: PathBuf,
    /// Its way to the others.
    pub transport: Arc<dyn Transport>,
    /// Stamps proposals.
    pub clock: Arc<dyn Clock>,
    /// Gets the effects of entries that are applied while this node leads.
    pub effects: Option<EffectSink>,
    /// How often and how long.
    pub pace: Pace,
    /// What its program knows: [`level::LEVEL`], except where a test plays another program.
    pub level: u32,
}

impl std::fmt::Debug for NodeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeOptions").field("id", &self.id).field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Ask the leader, if it is known.
    #[error("this coordinator does not lead")]
    NotLeader {
        /// Its number and address.
        leader: Option<(u64, String)>,
    },
    /// It may or may not have been taken: ask the same again, with the same number.
    #[error("no answer in time: the command may have been taken")]
    Unknown,
    /// It is longer than an entry of the log may be. Nothing came of it.
    #[error("a command of {bytes} bytes is longer than {most}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// What an entry may have.
        most: usize,
    },
    /// Programs of some coordinators may not know it yet. Nothing came of it.
    #[error(
        "{command} needs level {needs}, and this cluster is at level {has}: the program of some coordinator may not know it yet"
    )]
    Level {
        /// What was asked.
        command: &'static str,
        /// The level that it needs.
        needs: u32,
        /// What the cluster goes by.
        has: u32,
    },
    /// Members that cannot be: unknown, none, or while another change is under way.
    #[error("these members cannot be: {0}")]
    Members(String),
    /// This node has stopped, and takes nothing until it is started again.
    #[error("this coordinator has stopped")]
    Stopped(#[source] Error),
}

/// A coordinator's node.
pub struct Node {
    raft: Raft<TypeConfig>,
    machine: StateMachine,
    log: Arc<dyn DurableLog>,
    folder: Arc<Mutex<Option<OwnFolder>>>,
    failures: Failures,
    options: NodeOptions,
    boots: u64,
    standings: Standings,
    links: Links,
    tasks: [AbortHandle; 2],
    archiving: Mutex<Option<AbortHandle>>,
    resumed: Option<(Vote, u64)>,
    words: Words,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Node {
    /// Opens a data folder, and takes part from where it was.
    ///
    /// # Errors
    /// `Locked`, `Usage` (another node's folder, a pace that cannot be), `Damaged`, `DiskFull`, `Permission`: each names the file and
    /// what helps.
    pub async fn open(options: NodeOptions) -> Result<Self> {
        let data = options.data_dir.clone();
        Self::open_with(options, move |identity| {
            let log = if identity.has_log { SledLog::open_known(&data)? } else { SledLog::open(&data)? };
            Ok(Arc::new(log))
        })
        .await
    }

    /// As [`Self::open`], with a log of the caller's.
    ///
    /// # Errors
    /// As [`Self::open`], and those of `log`.
    pub async fn open_with(
        options: NodeOptions,
        log: impl FnOnce(&Identity) -> Result<Arc<dyn DurableLog>> + Send + 'static,
    ) -> Result<Self> {
        let config = config(&options)?;
        let failures = Failures::default();
        let (opening, seen) = (options.clone(), failures.clone());
        let nonce = Chance.next_u64();
        let opened = runtime::blocking("open a data folder", move || {
            let mut folder = identity::open(&opening.data_dir, &opening.cluster, opening.id)?;
            let log = log(&folder.identity)?;
            folder.set_has_log()?;
            let standings = Standings::new(opening.id, folder.identity.boots, nonce, log.clone());
            let (transport, cluster) = (opening.transport.clone(), opening.cluster.clone());
            let (levels, heads) = (Levels::new(opening.level), Heads::default());
            let links = Links { transport, cluster, id: opening.id, standings, levels, heads };
            let bytes = opening.pace.segment_bytes;
            let machine =
                StateMachine::open_with(&opening.data_dir, Some(links.clone()), opening.effects, seen, bytes)?;
            check_together(&opening.data_dir, &*log, &machine)?;
            Ok((folder, log, machine, links))
        });
        let (folder, log, machine, links) = opened.await?;
        let resumed = look::resumed(&*log, options.id)?;
        let store = LogStore::behind(log.clone(), failures.clone(), machine.kept());
        let (boots, standings) = (folder.identity.boots, links.standings.clone());
        let raft = Raft::new(options.id, config, links.clone(), store, machine.clone()).await;
        let raft = raft.map_err(|error| failures.first(&format!("start raft: {error}")))?;
        machine.follow(raft.server_metrics());
        let folder = Arc::new(Mutex::new(Some(folder)));
        let guard = guard::watch(&options.data_dir, &links, &raft, folder.clone(), failures.clone());
        let raising = raise::watch(&links, &raft, options.clock.clone(), options.pace.answer);
        let (archiving, words) = (Mutex::default(), Words::default());
        Ok(Self {
            raft,
            machine,
            log,
            folder,
            failures,
            options,
            boots,
            standings,
            links,
            archiving,
            tasks: [guard, raising],
            resumed,
            words,
        })
    }

    /// How often this folder was opened.
    #[must_use]
    pub fn boots(&self) -> u64 {
        self.boots
    }

    /// Begins a cluster of these nodes. Called once, on one of them, ever; on a node that has a log already, nothing happens.
    ///
    /// # Errors
    /// [`SubmitError::Members`] if this node is not among them, [`SubmitError::Stopped`].
    pub async fn initialize(&self, members: BTreeMap<u64, Peer>) -> Result<(), SubmitError> {
        // openraft logs an error for what happens at every start but the first.
        if matches!(self.raft.is_initialized().await, Ok(true)) {
            return Ok(());
        }
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(SubmitError::Members(error.to_string())),
            Err(error) => Err(self.stopped_by(&error.to_string())),
        }
    }

    /// Asks the machine. When this returns, the command is durable on a quorum and applied here.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit(&self, proposal: Proposal) -> Result<Vec<Event>, SubmitError> {
        self.submit_here(proposal).await.map(|submitted| submitted.events)
    }

    async fn submit_here(&self, proposal: Proposal) -> Result<Submitted, SubmitError> {
        let bytes = envelope::encode(Kind::Command, &proposal.command).map_or(usize::MAX, |record| record.len());
        if bytes > COMMAND_BYTES_MAX {
            return Err(SubmitError::TooLong { bytes, most: COMMAND_BYTES_MAX });
        }
        let (needs, has) = (level::of(&proposal.command), self.state(|state| state.level));
        if needs > has {
            return Err(SubmitError::Level { command: proposal.command.name(), needs, has });
        }
        let written = tokio::time::timeout(self.options.pace.answer, self.raft.client_write(proposal)).await;
        match written.map_err(|_| SubmitError::Unknown)? {
            Ok(response) => Ok(Submitted { index: response.log_id.index, events: response.data.events }),
            Err(error) => Err(self.refused(error)),
        }
    }

    /// As [`Self::submit`], stamped with this node's clock.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn propose(
        &self,
        id: CommandId,
        actor: Option<String>,
        command: Command,
    ) -> Result<Vec<Event>, SubmitError> {
        self.submit(Proposal { id, at: self.now(), actor, command }).await
    }

    /// As [`Self::propose`], by way of the leader where that is another node. When this returns, the command is durable on a quorum
    /// and applied here, whoever leads.
    ///
    /// # Errors
    /// [`SubmitError`]; `Unknown` also if the leader took it and this node has not heard of that in time.
    pub async fn propose_anywhere(
        &self,
        id: CommandId,
        actor: Option<String>,
        command: Command,
    ) -> Result<Vec<Event>, SubmitError> {
        let proposal = Proposal { id, at: self.now(), actor, command };
        let (leader, address) = match self.submit_here(proposal.clone()).await {
            Err(SubmitError::NotLeader { leader: Some(leader) }) if leader.0 != self.options.id => leader,
            other => return other.map(|submitted| submitted.events),
        };
        let (peer, at_most) = (Peer::at(address.clone()), self.options.pace.answer);
        let answer = self.links.call(leader, &peer, Request::Submit(proposal), at_most).await;
        let submitted = match answer {
            Ok(Answer::Submitted(Ok(submitted))) => submitted,
            Ok(Answer::Submitted(Err(NotSubmitted::Never(why)))) => return Err(SubmitError::Members(why)),
            Ok(Answer::Submitted(Err(NotSubmitted::Again))) => {
                return Err(SubmitError::NotLeader { leader: Some((leader, address)) });
            }
            Ok(_) => return Err(SubmitError::Unknown),
            Err(error) => {
                tracing::debug!(node = leader, %error, "the leader did not answer");
                return Err(SubmitError::Unknown);
            }
        };
        let mut applied = self.applied();
        let caught_up = tokio::time::timeout(at_most, applied.wait_for(|index| *index >= submitted.index)).await;
        match caught_up {
            Ok(Ok(_)) => Ok(submitted.events),
            Ok(Err(_)) => Err(self.stopped_by("raft stopped")),
            Err(_) => Err(SubmitError::Unknown),
        }
    }

    /// For another node. The time is this node's: the clock of whoever leads counts.
    async fn submit_for(&self, proposal: Proposal) -> Result<Submitted, NotSubmitted> {
        let proposal = Proposal { at: self.now(), ..proposal };
        self.submit_here(proposal).await.map_err(|error| match error {
            SubmitError::NotLeader { .. } | SubmitError::Unknown | SubmitError::Stopped(_) => NotSubmitted::Again,
            SubmitError::TooLong { .. } | SubmitError::Members(_) | SubmitError::Level { .. } => {
                NotSubmitted::Never(error.to_string())
            }
        })
    }

    /// This node's clock.
    #[must_use]
    pub fn now(&self) -> LogTime {
        LogTime::of(self.options.clock.now())
    }

    fn refused(&self, error: RaftError<u64, ClientWriteError<u64, Peer>>) -> SubmitError {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => not_leader(forward),
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
                SubmitError::Members(error.to_string())
            }
            error => self.stopped_by(&error.to_string()),
        }
    }

    fn stopped_by(&self, otherwise: &str) -> SubmitError {
        SubmitError::Stopped(self.failures.first(otherwise))
    }

    /// Looks at the state as this node knows it: it may be behind.
    pub fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.machine.state(look)
    }

    /// Index of the last entry that was applied here.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.machine.applied()
    }

    /// Who leads, as far as this node knows: number and address.
    #[must_use]
    pub fn leader(&self) -> Option<(u64, String)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        let id = metrics.current_leader?;
        let peer = metrics.membership_config.nodes().find(|(of, _)| **of == id);
        Some((id, peer.map_or_else(String::new, |(_, peer)| peer.address.clone())))
    }

    /// From now on effects go out of every node that applies their entry, not only of the leader: each runs those that concern what
    /// itself is at work on.
    pub fn run_effects_everywhere(&self) {
        self.machine.run_effects_everywhere();
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.options.id
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.options.cluster
    }

    /// Whether this node believes that it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leader().is_some_and(|(id, _)| id == self.options.id)
    }

    /// Raft's own figures: term, members, how far each replica is.
    #[must_use]
    pub fn metrics(&self) -> watch::Receiver<openraft::RaftMetrics<u64, Peer>> {
        self.raft.metrics()
    }

    /// Adds a node that gets everything and does not vote. Returns once it has nearly caught up.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn add_learner(&self, id: u64, peer: Peer) -> Result<(), SubmitError> {
        self.raft.add_learner(id, peer, true).await.map(drop).map_err(|error| self.refused(error))
    }

    /// As [`Self::add_learner`], without waiting for it: its process may not run yet.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn begin_learner(&self, id: u64, peer: Peer) -> Result<(), SubmitError> {
        self.raft.add_learner(id, peer, false).await.map(drop).map_err(|error| self.refused(error))
    }

    /// Lets a node go that does not vote.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn remove_learner(&self, id: u64) -> Result<(), SubmitError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        self.raft.change_membership(change, true).await.map(drop).map_err(|error| self.refused(error))
    }

    /// Lets these nodes vote, and no others; others leave. All of them were added as learners before.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn change_members(&self, voters: BTreeSet<u64>) -> Result<(), SubmitError> {
        let change = ChangeMembers::ReplaceAllVoters(voters);
        self.raft.change_membership(change, false).await.map(drop).map_err(|error| self.refused(error))
    }

    /// Notes where a node is reached from now on.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn set_address(&self, id: u64, peer: Peer) -> Result<(), SubmitError> {
        let change = ChangeMembers::SetNodes(BTreeMap::from([(id, peer)]));
        self.raft.change_membership(change, true).await.map(drop).map_err(|error| self.refused(error))
    }

    /// Makes a snapshot now, and purges the log up to it.
    ///
    /// # Errors
    /// [`SubmitError::Stopped`].
    pub async fn snapshot_now(&self) -> Result<(), SubmitError> {
        self.raft.trigger().snapshot().await.map_err(|error| self.stopped_by(&error.to_string()))
    }

    /// From now on, old segments of the ledger go into this archive, and are read from there.
    pub fn archive_to(&self, archive: Arc<Archive>) {
        self.machine.read_from(archive.clone());
        let task = tokio::spawn(archiving::run(self.machine.clone(), archive)).abort_handle();
        let before = self.archiving.lock().unwrap_or_else(PoisonError::into_inner).replace(task);
        before.iter().for_each(AbortHandle::abort);
    }

    /// Answers another node, or whoever says to be one: the transport has checked that.
    pub async fn serve(&self, call: Call) -> Reply {
        let answer = match self.may_serve(&call) {
            Ok(()) => self.answer(call.request).await,
            Err(why) => Answer::Refused(why),
        };
        let (standing, known) = (self.standings.own(), self.standings.known());
        Reply { standing, known, answer, level: self.program_level() }
    }

    fn may_serve(&self, call: &Call) -> Result<(), String> {
        let Call { cluster, from, to, standing, known, level, head, .. } = call;
        if *cluster != self.options.cluster || *to != self.options.id {
            return Err(format!("this is not node {to} of cluster {cluster}"));
        }
        self.hear_level(*level).map_err(|error| error.chain())?;
        self.standings.hear(*from, *standing, known)?;
        head.iter().for_each(|head| self.links.heads.hear(*head));
        self.links.heads.check()
    }

    async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Append(request) => Answer::Append(self.raft.append_entries(request).await),
            Request::Vote(request) => Answer::Vote(self.raft.vote(request).await),
            Request::Snapshot(request) => Answer::Snapshot(self.raft.install_snapshot(request).await),
            Request::Submit(proposal) => Answer::Submitted(self.submit_for(proposal).await),
            Request::Tell(word) => self.hear_for(word),
            Request::Words(cycle) => Answer::Words(self.state(|state| self.words.of(state, cycle))),
            Request::Ledger { from, bytes_max } => {
                let ledger = self.machine.ledger();
                let most = usize::try_from(bytes_max.min(1 << 20)).unwrap_or(1 << 20);
                match runtime::blocking("read the ledger", move || ledger.read(from, most)).await {
                    Ok(bytes) => Answer::Ledger(bytes),
                    Err(error) => Answer::Refused(error.chain()),
                }
            }
        }
    }

    /// Waits until this node has stopped, and says why. Its process should end then.
    pub async fn stopped(&self) -> Error {
        let mut metrics = self.raft.metrics();
        loop {
            let state = metrics.borrow_and_update().running_state.clone();
            if let Err(fatal) = state {
                return self.failures.first(&fatal.to_string());
            }
            if metrics.changed().await.is_err() {
                return self.failures.first("raft stopped");
            }
        }
    }

    /// Stops, and lets go of the data folder. The node takes nothing more.
    pub async fn shutdown(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.machine.close();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop in order");
        }
        let log = self.log.clone();
        let closed = runtime::blocking("close the raft log", move || {
            log.close();
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::warn!(error = %error.chain(), "the raft log was not closed in order");
        }
        drop(self.folder.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.archiving.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(AbortHandle::abort);
    }
}

fn not_leader(forward: ForwardToLeader<u64, Peer>) -> SubmitError {
    let address = forward.leader_node.map_or_else(String::new, |peer| peer.address);
    SubmitError::NotLeader { leader: forward.leader_id.map(|id| (id, address)) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn config(options: &NodeOptions) -> Result<Arc<Config>> {
    let pace = options.pace;
    let config = Config {
        cluster_name: options.cluster.clone(),
        heartbeat_interval: millis(pace.heartbeat),
        election_timeout_min: millis(pace.election.0),
        election_timeout_max: millis(pace.election.1),
        install_snapshot_timeout: 60_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(pace.snapshot_entries),
        snapshot_max_chunk_size: SNAPSHOT_PIECE_BYTES,
        max_in_snapshot_log_to_keep: pace.kept_entries,
        replication_lag_threshold: pace.snapshot_entries.saturating_mul(2).saturating_add(pace.kept_entries),
        ..Config::default()
    };
    let bad = |error| Error::new(ErrorKind::Usage, "the cluster's times do not fit each other").with_source(error);
    config.validate().map(Arc::new).map_err(bad)
}

/// A log that begins after the state that is there leaves a gap: the snapshot was lost, or put back from an old copy.
fn check_together(data: &Path, log: &dyn DurableLog, machine: &StateMachine) -> Result<()> {
    let (purged, applied) = (log.extent()?.purged, machine.last_applied());
    if purged <= applied {
        return Ok(());
    }
    let what = match applied {
        Some(applied) => format!("it ends at entry {applied}, and the log begins only after that"),
        None => "the snapshot is missing".to_owned(),
    };
    Err(files::damaged(&snapshot::path(data), what))
}
