//! What holds between replicas at every step: no leader that lacks what was applied, one ledger, one state at each of its records, and nothing that was
//! answered is ever gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use openraft::RaftMetrics;
use verger_coordinator::ledger::Entry;
use verger_coordinator::machine::State;
use verger_coordinator::raft::node::Node;
use verger_coordinator::raft::types::{LogId, Peer};
use verger_proto::chain::ChainHead;
use verger_proto::envelope::{self, Kind};

use super::disk::Disk;
use super::oracle::{Finding, Oracle};

/// States kept, to be compared with those of nodes that are behind.
const STATES_KEPT: usize = 400;

/// What all replicas agree on.
#[derive(Default)]
pub struct Replicas {
    /// Term and node: with openraft, a node with a higher number may follow another one in the same term.
    leaders: BTreeSet<(u64, u64)>,
    applied: BTreeMap<u64, LogId>,
    ledger: Vec<u8>,
    chain: ChainHead,
    /// How much of a node's ledger was compared since it started.
    compared: BTreeMap<u64, usize>,
    /// By the length of the ledger.
    states: BTreeMap<usize, State>,
    /// Length of the ledger at the last answer.
    answered: usize,
    pub oracle: Oracle,
    pub finding: Option<Finding>,
    /// A disk was taken away on purpose: who has what is not counted any more.
    pub disk_lost: Option<u64>,
}

/// The whole ledger of a node.
pub fn ledger(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("ledger").join("ledger")).unwrap_or_default()
}

/// How long a node's ledger is.
pub fn ledger_length(folder: &Path) -> usize {
    std::fs::metadata(folder.join("ledger").join("ledger")).map_or(0, |data| data.len() as usize)
}

/// What a node's ledger has from there on; none if it is shorter.
fn ledger_from(folder: &Path, from: usize) -> Option<Vec<u8>> {
    let file = File::open(folder.join("ledger").join("ledger")).ok()?;
    let length = (file.metadata().ok()?.len() as usize).checked_sub(from)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, from as u64).ok()?;
    Some(bytes)
}

impl Replicas {
    fn find(&mut self, found: Result<(), Finding>) {
        if let Err(finding) = found {
            self.finding.get_or_insert(finding);
        }
    }

    /// A node's own figures changed.
    pub fn figures(&mut self, id: u64, figures: &RaftMetrics<u64, Peer>, disks: &BTreeMap<u64, Disk>) -> bool {
        let mut is_new = false;
        if figures.state.is_leader() && figures.vote.leader_id().voted_for() == Some(id) {
            let term = figures.vote.leader_id().term;
            is_new = self.leaders.insert((term, id));
            // Of an older term, a candidate may hear that it was elected after a newer leader has begun.
            let before = self.applied.values().rev().find(|applied| applied.leader_id.term < term).copied();
            if let Some(before) =
                before.filter(|before| !disks[&id].has_synced(*before) && is_new && self.disk_lost.is_none())
            {
                self.find(Err(format!("node {id} leads in term {term} without {before}, which was applied")));
            }
        }
        if let Some(applied) = figures.last_applied {
            let known = *self.applied.entry(applied.index).or_insert(applied);
            if known != applied {
                self.find(Err(format!("node {id} applied {applied}, another one {known}")));
            }
            let members = figures.membership_config.membership();
            let voters: Vec<u64> = members.voter_ids().collect();
            let synced = voters.iter().filter(|id| disks.get(id).is_some_and(|disk| disk.has_synced(applied))).count();
            if self.disk_lost.is_none() && synced * 2 <= voters.len() {
                self.find(Err(format!("{applied} was applied, and is on {synced} disks of {voters:?}")));
            }
        }
        is_new
    }

    /// A node has started: its whole ledger is to be compared.
    pub fn started(&mut self, id: u64) {
        self.compared.remove(&id);
    }

    /// A node has applied something. What was compared since its start is compared again in the end: ledgers only grow.
    pub fn look(&mut self, id: u64, node: &Node, folder: &Path) {
        let from = self.compared.get(&id).copied().unwrap_or(0);
        let (from, own) = ledger_from(folder, from).map_or_else(|| (0, ledger(folder)), |own| (from, own));
        let known = self.ledger.get(from..).unwrap_or_default();
        let common = own.len().min(known.len());
        if own[..common] != known[..common] {
            return self.find(Err(format!("node {id} has another ledger")));
        }
        let found = self.follow(&own[common..]);
        self.find(found);
        let at = from + own.len();
        self.compared.insert(id, at);
        let is_one = node.state(|state| self.states.range(..=at).next_back().is_none_or(|(_, last)| last == state));
        // While a snapshot comes in, the ledger is there before the state.
        let was_one = || node.state(|state| self.states.range(..at).any(|(_, known)| known == state));
        if !is_one && !was_one() {
            self.find(Err(format!("node {id} has another state at byte {at} of the ledger")));
        }
    }

    fn follow(&mut self, bytes: &[u8]) -> Result<(), Finding> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = envelope::header(rest).map_err(|error| format!("the ledger: {error}"))?.record_bytes;
            let (record, after) = rest.split_at_checked(length).ok_or("the ledger ends in a record")?;
            let link = self.chain.follow(record).map_err(|error| format!("the ledger: {error}"))?;
            let entry: Entry =
                envelope::decode(Kind::Entry, &link.body).map_err(|error| format!("the ledger: {error}"))?;
            self.ledger.extend_from_slice(record);
            self.oracle.see(link.at, &entry)?;
            self.states.insert(self.ledger.len(), self.oracle.state.clone());
            if self.states.len() > STATES_KEPT {
                self.states.pop_first();
            }
            rest = after;
        }
        Ok(())
    }

    /// An answer came from a node with this folder: what it rests on is there for good.
    pub fn answered(&mut self, folder: &Path) {
        self.answered = self.answered.max(ledger_length(folder));
    }

    /// How much of the ledger answers rest on.
    pub fn length(&self) -> usize {
        self.answered
    }

    /// Whether this node has all of it, and the same state.
    pub fn is_whole(&self, node: &Node, folder: &Path) -> bool {
        let same = ledger(folder) == self.ledger && self.ledger.len() >= self.answered;
        same && node.state(|state| *state == self.oracle.state)
    }
}
