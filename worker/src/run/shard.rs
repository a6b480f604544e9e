//! One shard of a stage that was cut: an order in, a part out. Needs nothing of the cycle but its specification and the exchange, so any
//! worker does it, whoever leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::control::{Control, ControlError, Directive};
use verger_proto::id::WorkerId;
use verger_proto::job::{JobSpec, Ticket};
use verger_proto::report::{Damage, FailureKind, JobReport, Outcome, Progress as Word, Severity, Unit as WordUnit};
use verger_proto::stage::Stage;

use super::failure;
use crate::exchange::{Exchange, PartKind};
use crate::kept::KeptNearby;
use crate::progress::{LastWord, Step, Stop, Unit};
use crate::task::order::read_order;
use crate::task::places::Ordered;
use crate::task::shard_session::ShardSessions;
use crate::task::{rewrite_shard, scan_shard};
use crate::workspace::Workspace;

/// Bytes of packs that a shard has by default.
pub const SHARD_BYTES: u64 = 64 << 20;

/// How often whoever leads hears how far a shard is, by default.
pub const TELL_EVERY: Duration = Duration::from_millis(500);
/// And how often, that its worker is alive, if there is nothing else to say: a claim ends after 30 s.
const RENEW_EVERY: u32 = 10;

/// Where and how finely a cycle's work is shared.
#[derive(Debug, Clone)]
pub struct Shards {
    /// Where orders and outputs lie.
    pub exchange: Exchange,
    /// Bytes of packs that a shard has.
    pub shard_bytes: u64,
    /// How often whoever leads hears how far a shard is.
    pub tell_every: Duration,
    /// What the packs of its rewrites are written in.
    pub sessions: ShardSessions,
    /// Packs that were read.
    pub kept: KeptNearby,
    /// Whoever leads a cycle chooses shards by the packs that it keeps. Which ones those are hangs on names that are chance: in a
    /// simulation, in which a seed is one course, it chooses as if it kept none.
    pub by_packs: bool,
}

impl Shards {
    /// With words about progress as often as by default.
    #[must_use]
    pub fn new(exchange: Exchange, shard_bytes: u64) -> Self {
        Self {
            exchange,
            shard_bytes,
            tell_every: TELL_EVERY,
            sessions: ShardSessions::default(),
            kept: KeptNearby::default(),
            by_packs: true,
        }
    }
}

/// Does one shard that `worker` has claimed, and keeps the claim meanwhile. The report is not sent: that is the caller's to do. Safe
/// late, twice and anywhere: until whoever leads reads what the attempt that counted has left, nothing of it is visible.
///
/// Shards that are done at the same time need a [`MemoryLimit`](crate::limit::MemoryLimit) each: what is kept is said once for all.
pub fn run_shard(
    workspace: &Workspace,
    shards: &Shards,
    control: &dyn Control,
    spec: &JobSpec,
    worker: &WorkerId,
) -> JobReport {
    let words = Arc::new(LastWord::new(workspace.progress.clone()));
    let own = Workspace { stop: Stop::default(), progress: words.clone(), ..workspace.clone() };
    if workspace.stop.is_asked() {
        own.stop.ask();
    }
    let kept = workspace.memory.kept();
    let (done, ended) = bounded::<()>(0);
    let fenced = AtomicBool::new(false);
    let (ticket, every) = (spec.ticket(worker), shards.tell_every);
    let beat = Beat { control, ticket, every, outer: &workspace.stop, own: &own.stop, fenced: &fenced };
    let result = std::thread::scope(|scope| {
        scope.spawn(|| beat.go_on(&words, &ended));
        let result = shard(&own, shards, spec);
        drop(done);
        result
    });
    workspace.memory.keep(kept);
    match result {
        Ok(report) => report,
        Err(error) if fenced.load(Ordering::Relaxed) => {
            let text = format!("the attempt was given to another worker: {}", error.chain());
            JobReport::failed(FailureKind::StoreUnavailable, text, true)
        }
        Err(error) => {
            let mut failure = failure(&error, spec.stage);
            // Whoever is told to stop, is refused, or has no room leaves the shard to another worker, or to a later hour.
            use ErrorKind::{DiskFull, Interrupted, Permission, WrongPassword};
            failure.retryable |= matches!(error.kind(), DiskFull | Interrupted | Permission | WrongPassword);
            JobReport::new(Outcome::Failed(failure))
        }
    }
}

fn shard(workspace: &Workspace, shards: &Shards, spec: &JobSpec) -> Result<JobReport> {
    workspace.stop.check()?;
    let unique = hex::encode(workspace.repository.unique_id());
    if unique != spec.repository.unique.as_str() {
        let step = format!("job {} is for repository {}, and this is {unique}", spec.id, spec.repository.unique);
        return Err(Error::new(ErrorKind::Usage, step).with_fix("see whether the address of the repository is right"));
    }
    let Some(kind) = PartKind::order_of(spec.stage) else {
        return Err(Error::new(ErrorKind::Internal, format!("{} has no shards", spec.stage)));
    };
    let parts = shards.exchange.parts(&workspace.repository, &spec.repository, spec.cycle);
    let (ordered, order) = read_order(workspace, &parts, spec, kind)?;
    let rows = u64::from(ordered.len()).saturating_mul(Ordered::ROW_BYTES);
    workspace.memory.keep(workspace.memory.kept().saturating_add(rows));
    if spec.stage == Stage::Scan {
        let found = scan_shard::scan_shard(workspace, &parts, &ordered, spec, &order)?;
        return Ok(JobReport::done(vec![found]));
    }
    let moved = rewrite_shard::rewrite_shard(workspace, &parts, &ordered, spec, &order, &shards.sessions)?;
    let damages: Vec<Damage> = moved
        .left
        .iter()
        .map(|(content, is_mark, error)| {
            left_damage(&content.to_string(), *is_mark, error, "be moved out of a short pack")
        })
        .collect();
    let outcome = if damages.is_empty() { Outcome::Done } else { Outcome::Degraded(damages) };
    Ok(JobReport { outcome, ..JobReport::done(vec![moved.output]) })
}

/// What is said of a content that was left where it is.
pub(super) fn left_damage(content: &str, is_mark: bool, error: &Error, what: &str) -> Damage {
    let kind = if is_mark { "marked content" } else { "content" };
    let text = if error.kind() == ErrorKind::Damaged { error.chain() } else { error.to_string() };
    Damage {
        severity: Severity::Noted,
        subject: content.to_owned(),
        text: format!("{kind} could not {what}: {text}"),
        snapshots: Vec::new(),
        paths: Vec::new(),
    }
}

/// Keeps a claim alive while its shard is done.
struct Beat<'a> {
    control: &'a dyn Control,
    ticket: Ticket,
    every: Duration,
    outer: &'a Stop,
    own: &'a Stop,
    fenced: &'a AtomicBool,
}

impl Beat<'_> {
    fn go_on(&self, words: &LastWord, ended: &Receiver<()>) {
        let (mut heard, mut silent) = (0, 0);
        while ended.recv_timeout(self.every) == Err(RecvTimeoutError::Timeout) {
            if self.outer.is_asked() {
                self.own.ask();
            }
            let answer = match words.since(&mut heard) {
                Some(step) => self.control.progress(&self.ticket, word(step)),
                None if silent + 1 >= RENEW_EVERY => self.control.renew(&self.ticket),
                None => {
                    silent += 1;
                    continue;
                }
            };
            silent = 0;
            match answer {
                Ok(Directive::Continue) => {}
                Ok(Directive::Stop) => self.own.ask(),
                Err(ControlError::Refused(_)) => {
                    self.fenced.store(true, Ordering::Relaxed);
                    self.own.ask();
                }
                // Whoever leads is looked for: the claim is kept by the next word that arrives, or lost and nothing with it.
                Err(ControlError::Unavailable(_) | ControlError::Ledger { .. }) => {}
            }
        }
    }
}

/// A word of a task as the machine knows words.
#[must_use]
pub fn word(step: Step) -> Word {
    let unit = match step.unit {
        Unit::Blobs => WordUnit::Blobs,
        Unit::Contents | Unit::Objects => WordUnit::Contents,
        Unit::Bytes => WordUnit::Bytes,
    };
    Word { done: step.done, total: step.total.unwrap_or(0), unit }
}
