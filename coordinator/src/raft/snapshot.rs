//! A snapshot: all that follows from the log up to one entry, as a file of its own.
//!
//! A chain of records, each a part: the header with the numbers of the others, the level of the cluster, then what is newer than the first
//! shape of a repository, repositories, cycles, and answers to commands. Records are limited in length, the state is not. The ledger itself
//! is not in it, only how far it goes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::chain::{ChainHead, ChainRecord};
use verger_proto::envelope::{self, Kind};
use verger_proto::work_queue::PublicKey;
use verger_proto::{
    CommandId, CycleId, Driver, Event, FailureKind, LogTime, RepositoryId, SeenLease, StoreProbe, Unable, WorkerId,
};

use super::answers::Answers;
pub use super::ledger::LedgerHead;
use super::types::{LogId, Membership, Peer};
use super::{files, levels};
use crate::machine::{Cycle, Repository, State, Verified, Worker};
use crate::notes::Notes;
use crate::schedule::Past;

const FILE_NAME: &str = "snapshot";

/// openraft's description of a snapshot.
pub type Meta = openraft::SnapshotMeta<u64, Peer>;

/// All that follows from the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Replicated {
    /// The last entry that it follows from.
    pub(crate) applied: Option<LogId>,
    /// Who belongs to the cluster.
    pub(crate) membership: Membership,
    /// The machine's state.
    pub(crate) state: State,
    /// Answers to the last commands.
    pub(crate) answers: Answers,
}

#[derive(Serialize, Deserialize)]
enum Part {
    Header(Box<Header>),
    Repository(RepositoryId, Box<Repository>),
    Cycle(CycleId, Box<Cycle>),
    Answer(CommandId, Vec<Event>),
    More(RepositoryId, Box<More>),
    Fleet(Box<Fleet>),
    Store(RepositoryId, Box<(StoreProbe, LogTime)>),
    Others(RepositoryId, Box<Others>),
    /// Before all that a program of an earlier level may not know. Left out at level 0.
    Level(u32),
    Unable(RepositoryId, Vec<Unable>),
    Drives(RepositoryId, Vec<Driver>),
    Verified(RepositoryId, Verified),
}

/// Why a snapshot is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unread {
    /// Its cluster is at this level, and the program knows less.
    Level(u32),
    /// It is whole, and of a program that knows more.
    Newer(String),
    /// It does not hold.
    Broken(String),
}

impl<T: Into<String>> From<T> for Unread {
    fn from(what: T) -> Self {
        Self::Broken(what.into())
    }
}

/// Who works for the fleet. It has a part of its own, so that snapshots from before are read as ever; it comes before all repositories.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Fleet {
    workers: BTreeMap<WorkerId, Worker>,
    work_keys: BTreeMap<u64, PublicKey>,
}

/// What is known of a repository besides its first shape. It has a part of its own, so that snapshots from before are read as ever; it
/// comes before all repositories, so that none is missing where they are complete.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct More {
    notes: Notes,
    index: Past,
}

impl More {
    fn of(repository: &Repository) -> Self {
        Self { notes: repository.notes.clone(), index: repository.calendar.index }
    }

    fn put_into(self, repository: &mut Repository) {
        repository.notes = self.notes;
        repository.calendar.index = self.index;
    }
}

/// What is known of others at a repository. It has a part of its own, too.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Others {
    lease: Option<(SeenLease, LogTime)>,
    /// Of the time when no kind was said; now in a part of their own.
    unable: Vec<(WorkerId, Driver, String, LogTime)>,
}

impl Others {
    fn of(repository: &Repository) -> Self {
        Self { lease: repository.other.clone(), unable: Vec::new() }
    }

    fn put_into(self, repository: &mut Repository) {
        let unable = self.unable.into_iter().map(|(worker, driver, reason, since)| {
            // Whoever said only that, lacked a secret.
            Unable { worker, driver, kind: FailureKind::Usage, reason, since }
        });
        (repository.other, repository.unable) = (self.lease, unable.collect());
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    applied: Option<LogId>,
    membership: Membership,
    ledger: LedgerHead,
    /// The state, without what has parts of its own.
    state: State,
    repositories: u64,
    cycles: u64,
    answers: u64,
}

/// The bytes of a snapshot.
///
/// # Errors
/// `Internal` if one repository, cycle or answer is longer than a record may be.
pub(crate) fn encode(replicated: &Replicated, ledger: LedgerHead) -> Result<Vec<u8>> {
    let mut state = replicated.state.clone();
    let (repositories, cycles) = (std::mem::take(&mut state.repositories), std::mem::take(&mut state.cycles));
    let fleet = Fleet { workers: std::mem::take(&mut state.workers), work_keys: std::mem::take(&mut state.work_keys) };
    let header = Header {
        applied: replicated.applied,
        membership: replicated.membership.clone(),
        ledger,
        state,
        repositories: repositories.len() as u64,
        cycles: cycles.len() as u64,
        answers: replicated.answers.iter().count() as u64,
    };
    let mut bytes = Vec::new();
    let mut chain = ChainHead::default();
    let mut put = |part: Part| {
        let body = envelope::encode(Kind::RaftSnapshot, &part);
        let record = body.and_then(|body| chain.append(LogTime(0), body));
        let too_long = |error| Error::new(ErrorKind::Internal, "write a part of a snapshot").with_source(error);
        bytes.extend_from_slice(&record.map_err(too_long)?);
        Ok::<(), Error>(())
    };
    let level = header.state.level;
    put(Part::Header(Box::new(header)))?;
    if level > 0 {
        put(Part::Level(level))?;
    }
    if fleet != Fleet::default() {
        put(Part::Fleet(Box::new(fleet)))?;
    }
    let more = repositories.iter().map(|(id, repository)| (id, More::of(repository)));
    more.filter(|(_, more)| *more != More::default())
        .try_for_each(|(id, more)| put(Part::More(id.clone(), Box::new(more))))?;
    let probes = repositories.iter().filter_map(|(id, repository)| Some((id.clone(), repository.store.clone()?)));
    probes.collect::<Vec<_>>().into_iter().try_for_each(|(id, probe)| put(Part::Store(id, Box::new(probe))))?;
    let others = repositories.iter().map(|(id, repository)| (id, Others::of(repository)));
    others
        .filter(|(_, others)| *others != Others::default())
        .try_for_each(|(id, others)| put(Part::Others(id.clone(), Box::new(others))))?;
    for (id, Repository { unable, drives, verified, .. }) in &repositories {
        if !unable.is_empty() {
            put(Part::Unable(id.clone(), unable.clone()))?;
        }
        // Commands of level 0 fill it, and programs of that time do not know it: a lease that nobody was told of is waited out then.
        if !drives.is_empty() && level > 0 {
            put(Part::Drives(id.clone(), drives.clone()))?;
        }
        if let Some(verified) = *verified {
            put(Part::Verified(id.clone(), verified))?;
        }
    }
    repositories.into_iter().try_for_each(|(id, repository)| put(Part::Repository(id, Box::new(repository))))?;
    cycles.into_iter().try_for_each(|(id, cycle)| put(Part::Cycle(id, Box::new(cycle))))?;
    replicated.answers.iter().try_for_each(|(id, events)| put(Part::Answer(id, events.clone())))?;
    Ok(bytes)
}

/// Reads what [`encode`] wrote, for a program that knows this level.
///
/// # Errors
/// What does not hold, in words, or is not known.
pub(crate) fn decode(bytes: &[u8], knows: u32) -> Result<(Replicated, LedgerHead), Unread> {
    let mut parts = Parts { chain: ChainHead::default(), rest: bytes };
    let Some(Part::Header(header)) = parts.next()? else { return Err("it does not begin with its header".into()) };
    let Header { applied, membership, state, .. } = *header;
    let mut replicated = Replicated { applied, membership, state, answers: Answers::default() };
    let state = &mut replicated.state;
    let (mut more, mut probes) = (BTreeMap::new(), BTreeMap::new());
    let (mut others, mut unable, mut drives) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut verified = BTreeMap::new();
    while let Some(part) = parts.next()? {
        match part {
            Part::Repository(id, repository) => drop(state.repositories.insert(id, *repository)),
            Part::Cycle(id, cycle) => drop(state.cycles.insert(id, *cycle)),
            Part::Answer(id, events) => replicated.answers.keep(id, &events),
            Part::More(id, part) => drop(more.insert(id, *part)),
            Part::Store(id, probe) => drop(probes.insert(id, *probe)),
            Part::Others(id, part) => drop(others.insert(id, *part)),
            Part::Unable(id, part) => drop(unable.insert(id, part)),
            Part::Drives(id, part) => drop(drives.insert(id, part)),
            Part::Verified(id, part) => drop(verified.insert(id, part)),
            Part::Fleet(part) => (state.workers, state.work_keys) = (part.workers, part.work_keys),
            Part::Level(level) if level > knows => return Err(Unread::Level(level)),
            Part::Level(level) => state.level = level,
            Part::Header(_) => return Err("it has a second header".into()),
        }
    }
    let entries = &mut state.repositories;
    for (id, probe) in probes {
        of(entries, &id)?.store = Some(probe);
    }
    for (id, others) in others {
        others.put_into(of(entries, &id)?);
    }
    for (id, unable) in unable {
        of(entries, &id)?.unable = unable;
    }
    for (id, drives) in drives {
        of(entries, &id)?.drives = drives;
    }
    for (id, part) in verified {
        of(entries, &id)?.verified = Some(part);
    }
    for (id, more) in more {
        more.put_into(of(entries, &id)?);
    }
    let found = [replicated.state.repositories.len(), replicated.state.cycles.len(), replicated.answers.iter().count()];
    if found.map(|count| count as u64) != [header.repositories, header.cycles, header.answers] {
        return Err("parts of it are missing".into());
    }
    Ok((replicated, header.ledger))
}

/// The repository that a part is of.
fn of<'a>(
    entries: &'a mut BTreeMap<RepositoryId, Repository>,
    id: &RepositoryId,
) -> Result<&'a mut Repository, Unread> {
    entries.get_mut(id).ok_or_else(|| "parts of it are missing".into())
}

struct Parts<'a> {
    chain: ChainHead,
    rest: &'a [u8],
}

impl Parts<'_> {
    fn next(&mut self) -> Result<Option<Part>, Unread> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let unread = |error: envelope::EnvelopeError| match error.is_of_newer() {
            true => Unread::Newer(error.to_string()),
            false => Unread::Broken(error.to_string()),
        };
        let length = envelope::header(self.rest).map_err(unread)?.record_bytes;
        let (record, rest) = self.rest.split_at_checked(length).ok_or("it is cut short")?;
        self.rest = rest;
        let ChainRecord { body, .. } = self.chain.follow(record).map_err(|error| error.to_string())?;
        envelope::decode(Kind::RaftSnapshot, &body).map(Some).map_err(unread)
    }
}

/// openraft's description of what `replicated` is a snapshot of.
pub(crate) fn meta(replicated: &Replicated) -> Meta {
    let snapshot_id =
        replicated.applied.map_or_else(|| "empty".to_owned(), |id| format!("{}-{}", id.leader_id, id.index));
    Meta { last_log_id: replicated.applied, last_membership: replicated.membership.clone(), snapshot_id }
}

/// The file of a data folder's snapshot.
pub(crate) fn path(data: &Path) -> PathBuf {
    data.join(FILE_NAME)
}

/// Reads the bytes of the file at `path`, for a program that knows this level.
///
/// # Errors
/// `Unsupported` if it is of a cluster or a program that knows more, `Damaged` if it does not hold.
pub(crate) fn read(path: &Path, bytes: &[u8], knows: u32) -> Result<(Replicated, LedgerHead)> {
    decode(bytes, knows).map_err(|unread| match unread {
        Unread::Level(level) => levels::too_old(level, knows),
        Unread::Newer(what) => {
            files::newer(path, format!("a part of the snapshot is not known to this verger: {what}"))
        }
        Unread::Broken(what) => files::damaged(path, format!("the snapshot does not hold: {what}")),
    })
}

/// The last snapshot of a data folder.
///
/// # Errors
/// As [`read`], if it is there.
pub(crate) fn load(data: &Path, knows: u32) -> Result<Option<(Replicated, LedgerHead)>> {
    let path = path(data);
    files::read(&path)?.map(|bytes| read(&path, &bytes, knows)).transpose()
}
