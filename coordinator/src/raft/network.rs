//! What coordinators ask each other, over any transport.

pub mod clocks;
pub mod http;
pub mod memory;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{RaftNetwork, RaftNetworkFactory};
use serde::{Deserialize, Serialize};
use verger_proto::envelope::{self, EnvelopeError, Kind};
use verger_proto::{CycleId, Event, Proposal};

use super::heads::Heads;
use super::levels::Levels;
use super::standing::{Standing, Standings};
use super::types::{Peer, TypeConfig};
use crate::ledger::segment::LedgerHead;
use crate::words::Word;

/// Milliseconds until a node that could not be reached is tried again.
const AGAIN_MILLISECONDS: u64 = 200;

/// A request, with its sender and receiver: a node that got another's address, or another cluster's, must not answer for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Cluster of both.
    pub cluster: String,
    /// Who asks.
    pub from: u64,
    /// Who is asked.
    pub to: u64,
    /// How far the asking node is.
    pub standing: Standing,
    /// How far it has seen others.
    pub known: BTreeMap<u64, Standing>,
    /// What.
    pub request: Request,
    /// What the cluster goes by as far as the asking node knows ([`verger_proto::level`]). It goes beside the record, which programs from
    /// before there were levels read as ever, and reaches those that cannot read the request any more.
    #[serde(skip)]
    pub level: u32,
    /// How far the ledger of a leader goes that sends entries. Beside the record, too.
    #[serde(skip)]
    pub head: Option<LedgerHead>,
}

/// What a coordinator asks another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Take these entries.
    Append(AppendEntriesRequest<TypeConfig>),
    /// Vote for me.
    Vote(VoteRequest<u64>),
    /// Take this piece of a snapshot.
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// Give whole records of the ledger.
    Ledger {
        /// From this byte.
        from: u64,
        /// About so many bytes.
        bytes_max: u32,
    },
    /// Lead this command into the log, stamped with your clock.
    Submit(Proposal),
    /// Hear how far a job is.
    Tell(Word),
    /// Say how far the jobs of this cycle are.
    Words(CycleId),
}

/// An answer, with how far the answering node is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// How far it is.
    pub standing: Standing,
    /// How far it has seen others.
    pub known: BTreeMap<u64, Standing>,
    /// What it answers.
    pub answer: Answer,
    /// What its program knows, beside the record; 0: it does not say.
    #[serde(skip)]
    pub level: u32,
}

/// What the other answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Request::Append`].
    Append(Result<AppendEntriesResponse<u64>, RaftError<u64>>),
    /// To [`Request::Vote`].
    Vote(Result<VoteResponse<u64>, RaftError<u64>>),
    /// To [`Request::Snapshot`].
    Snapshot(Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>),
    /// To [`Request::Ledger`]: none if its ledger is no longer than that.
    Ledger(Vec<u8>),
    /// It will not answer this.
    Refused(String),
    /// To [`Request::Submit`].
    Submitted(Result<Submitted, NotSubmitted>),
    /// To [`Request::Tell`]: whether or not it is of any use.
    Heard,
    /// To [`Request::Words`].
    Words(Vec<Word>),
}

/// A command that is in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Submitted {
    /// Index of its entry.
    pub index: u64,
    /// What came of it.
    pub events: Vec<Event>,
}

/// Why another node did not take a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum NotSubmitted {
    /// It does not lead, or cannot tell what became of the command: ask the same again.
    Again,
    /// It never will.
    Never(String),
}

impl Request {
    /// The level that a cluster must have before this is asked in it.
    pub(crate) fn level(&self) -> u32 {
        match self {
            Self::Append(_) | Self::Vote(_) | Self::Snapshot(_) | Self::Ledger { .. } | Self::Submit(_) => 0,
            Self::Tell(_) | Self::Words(_) => 1,
        }
    }
}

impl Call {
    /// As it crosses the wire.
    ///
    /// # Errors
    /// It is longer than a record may be.
    pub fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        envelope::encode(Kind::RaftRequest, self)
    }

    /// From the wire.
    ///
    /// # Errors
    /// It is no such record.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        envelope::decode(Kind::RaftRequest, bytes)
    }
}

impl Reply {
    /// As it crosses the wire.
    ///
    /// # Errors
    /// It is longer than a record may be.
    pub fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        envelope::encode(Kind::RaftAnswer, self)
    }

    /// From the wire.
    ///
    /// # Errors
    /// It is no such record.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        envelope::decode(Kind::RaftAnswer, bytes)
    }
}

/// Nobody answered, or nothing that can be understood. The request may have had its effect.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreached(pub String);

/// An answer under way.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Reply, Unreached>> + Send + 'a>>;

/// Carries calls to other coordinators.
pub trait Transport: Send + Sync + std::fmt::Debug + 'static {
    /// Asks `peer`. After `at_most` nobody waits for the answer any more.
    fn call<'a>(&'a self, peer: &'a Peer, call: Call, at_most: Duration) -> Answering<'a>;
}

/// A node's way to all others.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) cluster: String,
    pub(crate) id: u64,
    pub(crate) standings: Standings,
    pub(crate) levels: Levels,
    pub(crate) heads: Heads,
}

impl Links {
    pub(crate) async fn call(
        &self,
        to: u64,
        peer: &Peer,
        request: Request,
        at_most: Duration,
    ) -> Result<Answer, Unreached> {
        let (cluster, from) = (self.cluster.clone(), self.id);
        let (standing, known) = (self.standings.own(), self.standings.known());
        let level = self.levels.cluster();
        let head = matches!(request, Request::Append(_)).then(|| self.heads.last()).flatten();
        let call = Call { cluster, from, to, standing, known, request, level, head };
        let reply = tokio::time::timeout(at_most, self.transport.call(peer, call, at_most)).await;
        let late = |_| Err(Unreached(format!("no answer within {} ms", at_most.as_millis())));
        let Reply { standing, known, answer, level } = reply.unwrap_or_else(late)?;
        self.standings.hear(to, standing, &known).map_err(Unreached)?;
        self.levels.note(to, level);
        match answer {
            Answer::Refused(why) => Err(Unreached(format!("node {to} at {} refuses: {why}", peer.address))),
            answer => Ok(answer),
        }
    }
}

/// A node's way to one other.
#[derive(Debug)]
pub(crate) struct Link {
    links: Links,
    to: u64,
    peer: Peer,
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Link {
        Link { links: self.clone(), to: target, peer: node.clone() }
    }
}

type Failed<E = openraft::error::Infallible> = RPCError<u64, Peer, RaftError<u64, E>>;

impl Link {
    async fn ask<E: std::error::Error>(&self, request: Request, option: &RPCOption) -> Result<Answer, Failed<E>> {
        let answer = self.links.call(self.to, &self.peer, request, option.hard_ttl()).await;
        answer.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }

    fn remote<E: std::error::Error>(&self, error: RaftError<u64, E>) -> Failed<E> {
        RPCError::RemoteError(RemoteError::new(self.to, error))
    }
}

fn mismatched<E: std::error::Error>() -> Failed<E> {
    RPCError::Network(NetworkError::new(&Unreached("the answer is to another question".to_owned())))
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        match self.ask(Request::Append(rpc), &option).await? {
            Answer::Append(answer) => answer.map_err(|error| self.remote(error)),
            _ => Err(mismatched()),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        match self.ask(Request::Snapshot(rpc), &option).await? {
            Answer::Snapshot(answer) => answer.map_err(|error| self.remote(error)),
            _ => Err(mismatched()),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Result<VoteResponse<u64>, Failed> {
        match self.ask(Request::Vote(rpc), &option).await? {
            Answer::Vote(answer) => answer.map_err(|error| self.remote(error)),
            _ => Err(mismatched()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(AGAIN_MILLISECONDS)))
    }
}
