//! openraft's state machine: the pure machine, the answers to commands, and the ledger.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use openraft::metrics::RaftServerMetrics;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;
use verger_kopia::clock::{Clock, SystemClock};
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::mutant::{self, Mutant};
use verger_proto::{Command, Effect, LogTime, Proposal, level};

use super::failure::Failures;
use super::heads::Heads;
use super::ledger::ReplicaLedger;
use super::ledger_reader::LedgerReader;
use super::network::{Answer, Links, Request};
use super::snapshot::{self, LedgerHead, Meta, Replicated, Unread};
use super::types::{Applied, LogEntry, LogId, Membership, Peer, StorageError, TypeConfig};
use super::{files, levels, runtime};
use crate::ledger::Entry;
use crate::ledger::archive::Archive;
use crate::ledger::segment::SEGMENT_BYTES;
use crate::machine::{State, apply};

pub(crate) const LEDGER_FOLDER: &str = "ledger";
const LEDGER_PIECE_BYTES: u32 = 1 << 20;
const LEDGER_TIMEOUT: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(200);

/// Gets the effects of each entry that is applied while this node leads, with the entry's index. Must be quick.
///
/// A change of leader swallows effects. `Tick` makes `OfferJob` and `RenewLease` again; who has a job that `StopJob` would stop is told
/// when it next speaks; `CloseLease` is not made again, and the object that it would have freed runs out by itself.
pub type EffectSink = Arc<dyn Fn(Effect, u64) + Send + Sync>;

pub(crate) type ServerMetrics = watch::Receiver<RaftServerMetrics<u64, Peer>>;

/// openraft's state machine. Clones are the same one.
#[derive(Clone)]
pub struct StateMachine(Arc<Shared>);

struct Shared {
    data: PathBuf,
    inner: Mutex<Inner>,
    /// Held while the snapshot file is replaced or read.
    file: Mutex<()>,
    kept: watch::Sender<Kept>,
    applied: watch::Sender<u64>,
    effects: Option<EffectSink>,
    leads: OnceLock<ServerMetrics>,
    effects_everywhere: AtomicBool,
    archive: OnceLock<Arc<Archive>>,
    links: Option<Links>,
    failures: Failures,
}

/// What of the state is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Kept {
    /// The last entry that the snapshot file follows from.
    pub(crate) applied: Option<LogId>,
    /// Records of the ledger that the snapshot speaks for.
    pub(crate) records: u64,
    /// No later one is written: the node was shut down, or could not write it.
    pub(crate) is_over: bool,
}

struct Inner {
    replicated: Replicated,
    ledger: ReplicaLedger,
    /// What this program knows.
    level: u32,
    /// Hears of every record.
    heads: Option<Heads>,
}

impl std::fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateMachine").field("data", &self.0.data).finish_non_exhaustive()
    }
}

impl StateMachine {
    /// The state of a data folder's last snapshot; what came after it comes again from the log.
    ///
    /// # Errors
    /// `Damaged` if the snapshot or the ledger does not hold, `DiskFull` or `Permission` if they cannot be opened.
    pub fn open(data: &Path) -> Result<Self> {
        Self::open_with(data, None, None, Failures::default(), SEGMENT_BYTES)
    }

    pub(crate) fn open_with(
        data: &Path,
        links: Option<Links>,
        effects: Option<EffectSink>,
        failures: Failures,
        segment_bytes: u64,
    ) -> Result<Self> {
        let level = links.as_ref().map_or(level::LEVEL, |links| links.levels.own());
        let (replicated, head) = snapshot::load(data, level)?.unwrap_or_default();
        let ledger = ReplicaLedger::open(&data.join(LEDGER_FOLDER), head, segment_bytes)?;
        let (applied, _) = watch::channel(replicated.applied.map_or(0, |id| id.index));
        let (kept, _) = watch::channel(Kept { applied: replicated.applied, records: head.records, is_over: false });
        let heads = links.as_ref().map(|links| links.heads.clone());
        if let Some(links) = &links {
            links.levels.apply(replicated.state.level);
            links.heads.begin(head);
        }
        Ok(Self(Arc::new(Shared {
            data: data.to_owned(),
            file: Mutex::default(),
            kept,
            inner: Mutex::new(Inner { replicated, ledger, level, heads }),
            applied,
            effects,
            leads: OnceLock::new(),
            effects_everywhere: AtomicBool::new(false),
            archive: OnceLock::new(),
            links,
            failures,
        })))
    }

    /// From now on, effects go out while these metrics say that this node leads.
    pub(crate) fn follow(&self, metrics: ServerMetrics) {
        let _ = self.0.leads.set(metrics);
    }

    /// From now on, effects go out whoever leads.
    pub(crate) fn run_effects_everywhere(&self) {
        self.0.effects_everywhere.store(true, Ordering::Relaxed);
    }

    /// Index of the last entry that was applied.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.0.applied.subscribe()
    }

    /// The last entry that was applied.
    pub(crate) fn last_applied(&self) -> Option<LogId> {
        self.0.lock().replicated.applied
    }

    /// Looks at the machine's state.
    pub(crate) fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.lock().replicated.state)
    }

    /// The ledger, as it is now.
    pub(crate) fn ledger(&self) -> LedgerReader {
        let reader = self.0.lock().ledger.reader();
        LedgerReader { archive: self.0.archive.get().cloned(), ..reader }
    }

    /// From now on, segments of the ledger that are not here any more are read from there.
    pub(crate) fn read_from(&self, archive: Arc<Archive>) {
        let _ = self.0.archive.set(archive);
    }

    /// No snapshot is written any more.
    pub(crate) fn close(&self) {
        self.0.kept.send_modify(|kept| kept.is_over = true);
    }

    /// What of the state is on the disk.
    pub(crate) fn kept(&self) -> watch::Receiver<Kept> {
        self.0.kept.subscribe()
    }

    fn snapshot_failed(&self, verb: ErrorVerb, error: &Error) -> StorageError {
        self.0.failures.stop(ErrorSubject::Snapshot(None), verb, error)
    }

    async fn install(&self, meta: &Meta, bytes: Vec<u8>) -> Result<()> {
        let foreign = |what| Error::damaged(format!("the snapshot that another node sent does not hold: {what}"));
        let level = self.0.lock().level;
        let (replicated, head) = snapshot::decode(&bytes, level).map_err(|unread| match unread {
            Unread::Level(cluster) => levels::too_old(cluster, level),
            Unread::Newer(what) => Error::new(ErrorKind::Unsupported, format!("another node sent a snapshot: {what}"))
                .with_fix(crate::files::NEWER),
            Unread::Broken(what) => foreign(what),
        })?;
        if snapshot::meta(&replicated) != *meta {
            let (found, wanted) = (replicated.applied, meta.last_log_id);
            return Err(foreign(format!("it is of {found:?} instead of {wanted:?}")));
        }
        self.complete_ledger(head, &replicated.membership).await?;
        let (shared, applied, ledger) = (self.0.clone(), replicated.applied, self.ledger());
        runtime::blocking("write a snapshot", move || shared.write(applied, &bytes, &ledger)).await?;
        self.0.tell_level(replicated.state.level);
        self.0.links.iter().for_each(|links| links.heads.begin(head));
        self.0.lock().replicated = replicated;
        self.0.applied.send_replace(applied.map_or(0, |id| id.index));
        Ok(())
    }

    /// Gets what the ledger lacks up to `until` from the other nodes, however long it takes.
    async fn complete_ledger(&self, until: LedgerHead, membership: &Membership) -> Result<()> {
        let own = |machine: &Self| machine.0.lock().ledger.head();
        let Some(links) = &self.0.links else { return check_ledger(own(self), until) };
        loop {
            let head = own(self);
            if head.records >= until.records {
                return check_ledger(head, until);
            }
            let mut got = false;
            for (id, peer) in membership.nodes().filter(|(id, _)| **id != links.id) {
                let request = Request::Ledger { from: head.bytes, bytes_max: LEDGER_PIECE_BYTES };
                match links.call(*id, peer, request, LEDGER_TIMEOUT).await {
                    Ok(Answer::Ledger(bytes)) if !bytes.is_empty() => {
                        let bytes = up_to(&bytes, until.bytes.saturating_sub(head.bytes));
                        self.0.lock().ledger.extend(bytes, until)?;
                        got = true;
                        break;
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(node = id, %error, "no ledger from there"),
                }
            }
            if self.0.kept.borrow().is_over {
                return Err(Error::new(ErrorKind::Interrupted, "get the ledger from the other nodes: shut down"));
            }
            if !got {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn up_to(bytes: &[u8], length: u64) -> &[u8] {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    bytes.get(..length).unwrap_or(bytes)
}

fn check_ledger(own: LedgerHead, until: LedgerHead) -> Result<()> {
    if own == until {
        return Ok(());
    }
    let step = format!("this node's ledger has another record {} than the snapshot", until.records);
    Err(Error::damaged(step).with_fix(files::REJOIN))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self) -> MutexGuard<'_, ()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_level(&self, level: u32) {
        self.links.iter().for_each(|links| links.levels.apply(level));
    }

    fn runs_effects(&self) -> bool {
        self.effects_everywhere.load(Ordering::Relaxed) || self.leads()
    }

    fn leads(&self) -> bool {
        self.leads.get().is_some_and(|metrics| {
            let metrics = metrics.borrow();
            metrics.current_leader == Some(metrics.id)
        })
    }

    /// Writes the file, unless it is of a later entry already. The ledger is on the disk before what speaks of it.
    fn write(&self, applied: Option<LogId>, bytes: &[u8], ledger: &LedgerReader) -> Result<()> {
        let _whole = self.file();
        let kept = *self.kept.borrow();
        if kept.is_over {
            // Were this a success, the log would be purged up to a snapshot that is not there.
            return Err(Error::new(ErrorKind::Interrupted, "write a snapshot: shut down"));
        }
        if kept.applied > applied {
            return Ok(());
        }
        ledger.sync()?;
        files::replace(&snapshot::path(&self.data), bytes)?;
        let records = ledger.head.records;
        self.kept.send_modify(|kept| *kept = Kept { applied, records, ..*kept });
        Ok(())
    }
}

/// What must not be asked for here: replicas apply an entry at different times.
fn clock_of_this_machine() -> LogTime {
    LogTime(u64::try_from(SystemClock.now().as_microsecond()).unwrap_or(0))
}

impl Inner {
    fn step(&mut self, entry: LogEntry) -> Result<(Applied, Vec<Effect>)> {
        if let EntryPayload::Normal(Proposal { command: Command::RaiseLevel { level }, .. }) = &entry.payload
            && *level > self.level
        {
            // Nothing from here on is applied: the others may mean something else by it.
            return Err(levels::too_old(*level, self.level));
        }
        self.replicated.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Ok(Default::default()),
            EntryPayload::Membership(members) => {
                self.replicated.membership = Membership::new(Some(entry.log_id), members);
                Ok(Default::default())
            }
            EntryPayload::Normal(proposal) => self.propose(proposal),
        }
    }

    fn propose(&mut self, proposal: Proposal) -> Result<(Applied, Vec<Effect>)> {
        let Replicated { state, answers, .. } = &mut self.replicated;
        if let Some(events) = answers.get(proposal.id) {
            return Ok((Applied { events: events.clone(), repeated: true }, Vec::new()));
        }
        // The machine stamps what it does with the later of this clock and its own; so does the ledger.
        let now = if mutant::on(Mutant::P4ClockInApply) { clock_of_this_machine() } else { proposal.at };
        let at = now.max(state.now);
        let (events, effects) = apply(state, proposal.command.clone(), at);
        answers.keep(proposal.id, &events);
        if !events.is_empty() {
            let entry = Entry { command: proposal.command, events };
            self.ledger.append(at, &entry)?;
            self.heads.iter().for_each(|heads| heads.add(self.ledger.head()));
            return Ok((Applied { events: entry.events, repeated: false }, effects));
        }
        Ok((Applied::default(), effects))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let inner = self.0.lock();
        Ok((inner.replicated.applied, inner.replicated.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut answers, mut all, mut last) = (Vec::new(), Vec::new(), None);
        {
            let mut inner = self.0.lock();
            for entry in entries {
                let id = entry.log_id;
                let (answer, effects) = inner
                    .step(entry)
                    .map_err(|error| self.0.failures.stop(ErrorSubject::Apply(id), ErrorVerb::Write, &error))?;
                answers.push(answer);
                all.extend(effects.into_iter().map(|effect| (effect, id.index)));
                last = Some(id.index);
            }
            self.0.tell_level(inner.replicated.state.level);
        }
        if let Some(sink) = self.0.effects.as_ref().filter(|_| self.0.runs_effects()) {
            all.into_iter().for_each(|(effect, index)| sink(effect, index));
        }
        // After the effects: whoever waits for an entry finds them under way.
        if let Some(index) = last {
            self.0.applied.send_replace(index);
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let inner = self.0.lock();
        let (replicated, ledger) = (inner.replicated.clone(), inner.ledger.reader());
        Builder { machine: self.clone(), replicated, ledger }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Box<Cursor<Vec<u8>>>) -> Result<(), StorageError> {
        let installed = self.install(meta, snapshot.into_inner()).await;
        installed.map_err(|error| {
            // The log waits for this snapshot: it must not wait for ever.
            self.close();
            self.snapshot_failed(ErrorVerb::Write, &error)
        })
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let shared = self.0.clone();
        let read = runtime::blocking("work on a snapshot", move || {
            let _whole = shared.file();
            let path = snapshot::path(&shared.data);
            let Some(bytes) = files::read(&path)? else { return Ok(None) };
            let level = shared.lock().level;
            let (replicated, _) = snapshot::read(&path, &bytes, level)?;
            Ok(Some(Snapshot { meta: snapshot::meta(&replicated), snapshot: Box::new(Cursor::new(bytes)) }))
        });
        read.await.map_err(|error| self.snapshot_failed(ErrorVerb::Read, &error))
    }
}

/// Makes a snapshot of the moment at which it was made itself.
#[derive(Debug)]
pub struct Builder {
    machine: StateMachine,
    replicated: Replicated,
    ledger: LedgerReader,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let (shared, replicated, ledger) = (self.machine.0.clone(), self.replicated.clone(), self.ledger.clone());
        let built = runtime::blocking("work on a snapshot", move || {
            let bytes = snapshot::encode(&replicated, ledger.head)?;
            shared.write(replicated.applied, &bytes, &ledger)?;
            Ok(bytes)
        });
        let bytes = built.await.map_err(|error| self.machine.snapshot_failed(ErrorVerb::Write, &error))?;
        Ok(Snapshot { meta: snapshot::meta(&self.replicated), snapshot: Box::new(Cursor::new(bytes)) })
    }
}
