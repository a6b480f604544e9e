//! A cluster of one, made of what is left when a majority is gone for good. What the lost ones had and this one has not is lost; what
//! this one has is kept, acknowledged or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use openraft::{CommittedLeaderId, EntryPayload};
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::{Command, CommandId, LogTime, Ordered, Proposal, Recovery, level};

use super::durable::DurableLog;
use super::durable::sled::SledLog;
use super::identity::{self, Identity};
use super::types::{LogEntry, LogId, Membership, Peer, Vote};
use super::{files, snapshot};

/// Entries that are looked at in one go.
const PIECE: u64 = 1_000;
const PIECE_BYTES_MAX: usize = 8 << 20;

/// A coordinator that does not run, as long as this lives.
pub struct Survivor {
    data: PathBuf,
    identity: Identity,
    log: SledLog,
    membership: Membership,
    last: LogId,
    committed: Option<LogId>,
    _lock: File,
}

impl std::fmt::Debug for Survivor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survivor").field("data", &self.data).field("last", &self.last).finish_non_exhaustive()
    }
}

/// What a coordinator that is left has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its cluster, as raft calls it.
    pub cluster: String,
    /// Its number.
    pub node: u64,
    /// Who votes, as far as it knows.
    pub voters: BTreeSet<u64>,
    /// Index of its last entry.
    pub last_index: u64,
    /// Term of that entry.
    pub last_term: u64,
    /// Index up to which it knows that a majority had all.
    pub committed: u64,
}

impl Survivor {
    /// Of the node's own folder. Changes nothing.
    ///
    /// # Errors
    /// `Locked` if the node runs, `NotFound` if there is none, `Damaged` if its files do not hold or are an old copy,
    /// `Unsupported` if a newer verger wrote them, `Usage` if nothing ever happened in it.
    pub fn open(data: &Path) -> Result<Self> {
        let (identity, lock) = identity::open_stopped(data)?;
        if identity.is_old {
            return Err(identity::is_old(data));
        }
        let log = SledLog::open_known(data)?;
        let snapshot = snapshot::load(data, level::LEVEL)?.map(|(replicated, _)| replicated).unwrap_or_default();
        let extent = log.extent()?;
        if extent.purged > snapshot.applied {
            let what = "the log begins only after the end of the snapshot, or the snapshot is missing";
            return Err(files::damaged(&snapshot::path(data), what));
        }
        let last = extent.last.max(snapshot.applied).ok_or_else(|| {
            let step = format!("nothing was ever written in {}", data.display());
            Error::new(ErrorKind::Usage, step).with_fix("choose the folder of a coordinator that was a member")
        })?;
        let membership = newest_membership(&log, snapshot.membership)?;
        let committed = log.committed()?.max(snapshot.applied);
        Ok(Self { data: data.to_owned(), identity, log, membership, last, committed, _lock: lock })
    }

    /// What it has.
    #[must_use]
    pub fn found(&self) -> Found {
        Found {
            cluster: self.identity.cluster.clone(),
            node: self.identity.node,
            voters: self.membership.voter_ids().collect(),
            last_index: self.last.index,
            last_term: self.last.leader_id.term,
            committed: self.committed.map_or(0, |id| id.index).min(self.last.index),
        }
    }

    /// Whether a cluster can be made of it.
    ///
    /// # Errors
    /// `Usage` if it is no voter, or the only one already.
    pub fn check(&self) -> Result<()> {
        self.peer().map(drop)
    }

    /// Makes a cluster of this one alone, under a new name, by which no other folder of the old one goes. Given up half way, the
    /// folder is either as before, or belongs to the new cluster and waits for a majority that there is not: the same again ends it.
    ///
    /// # Errors
    /// `Usage` if it is no voter, or the only one already; `DiskFull` or `Permission` if it cannot be written.
    pub fn recover(self, cluster: &str, actor: &str, id: CommandId, at: LogTime) -> Result<()> {
        let found = self.found();
        let peer = self.peer()?;
        identity::rename(&self.data, &self.identity, cluster)?;
        let entries = self.entries(&found, peer, cluster, (actor, id, at))?;
        // A vote of its own for a term that nobody had: it asks itself for the next one, and has it.
        let vote = Vote::new(self.next_term()?, found.node);
        self.log.save_vote(&vote)?;
        self.log.append(&entries)?;
        self.log.close();
        Ok(())
    }

    fn peer(&self) -> Result<Peer> {
        let found = self.found();
        let refused = |why: &str, fix: &str| Err(Error::new(ErrorKind::Usage, why).with_fix(fix));
        if !found.voters.contains(&found.node) {
            let why = format!("coordinator {} had no vote when it last heard of the others", found.node);
            return refused(&why, "choose the folder of one that voted: this one may lack a lot");
        }
        if found.voters.len() == 1 {
            return refused("this coordinator is a cluster of one already", "start it: it needs nobody else");
        }
        let peer = self.membership.nodes().find(|(id, _)| **id == found.node).map(|(_, peer)| peer.clone());
        Ok(peer.unwrap_or_default())
    }

    /// One that no other member can have had: later than all that this one voted for or heard of.
    fn next_term(&self) -> Result<u64> {
        let voted = self.log.vote()?.map_or(0, |vote| vote.leader_id().term);
        voted
            .max(self.last.leader_id.term)
            .checked_add(1)
            .ok_or_else(|| Error::damaged("raft's terms are at their end"))
    }

    fn entries(
        &self,
        found: &Found,
        peer: Peer,
        cluster: &str,
        (actor, id, at): (&str, CommandId, LogTime),
    ) -> Result<[LogEntry; 2]> {
        let leader = CommittedLeaderId::new(self.next_term()?, found.node);
        let log_id = |after: u64| LogId::new(leader, self.last.index.saturating_add(after));
        let alone = openraft::Membership::new(vec![BTreeSet::from([found.node])], BTreeMap::from([(found.node, peer)]));
        let recovery = Recovery {
            node: found.node,
            cluster: cluster.to_owned(),
            voted: found.voters.iter().copied().collect(),
            last_index: found.last_index,
            last_term: found.last_term,
        };
        let ordered = Ordered { actor: actor.to_owned(), command: Command::RecoverCluster(Box::new(recovery)) };
        let command = Command::Ordered(Box::new(ordered));
        let proposal = Proposal { id, at, actor: Some(actor.to_owned()), command };
        Ok([
            LogEntry { log_id: log_id(1), payload: EntryPayload::Membership(alone) },
            LogEntry { log_id: log_id(2), payload: EntryPayload::Normal(proposal) },
        ])
    }
}

/// Whoever belongs to the cluster by the log, committed or not: raft goes by that, too.
fn newest_membership(log: &SledLog, before: Membership) -> Result<Membership> {
    let extent = log.extent()?;
    let mut newest = before;
    let mut next = extent.purged.map_or(0, |id| id.index.saturating_add(1));
    let end = extent.last.map_or(0, |id| id.index.saturating_add(1));
    while next < end {
        let entries = log.read(next..end.min(next.saturating_add(PIECE)), PIECE_BYTES_MAX)?;
        let Some(last) = entries.last() else { break };
        next = last.log_id.index.saturating_add(1);
        for entry in entries {
            if let EntryPayload::Membership(membership) = entry.payload {
                newest = Membership::new(Some(entry.log_id), membership);
            }
        }
    }
    Ok(newest)
}
