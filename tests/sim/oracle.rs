//! What the ledger may say, told from its events alone: terms, seals, approvals and their ends, each cycle and job once. Kept apart
//! from the machine's own state.

use std::collections::{BTreeMap, BTreeSet};

use verger_coordinator::ledger::Entry;
use verger_coordinator::machine::{State, apply, invariant};
use verger_proto::batch::{DEADLINE_MILLISECONDS_MAX, VIEW_AGE_MILLISECONDS_MAX};
use verger_proto::{
    Approval, BatchResult, Command, CycleId, CycleOptions, Event, LogTime, PlanHeader, RepositoryId, Stage, StoreTime,
    Term, Ticket,
};

use super::yard::REWRITE_ORDER;

/// A claim that its worker says nothing of for so many milliseconds is over, at the next tick.
const SILENT_MAX: u64 = 30_000;

/// What must not be.
pub type Finding = String;

#[derive(Clone, Copy)]
struct Held {
    term: Term,
    acts_until: StoreTime,
    confirmed_until: LogTime,
}

struct Open {
    repository: RepositoryId,
    term: Term,
    sealed: Option<PlanHeader>,
    reached: BTreeMap<Stage, u64>,
    approved: Option<Approval>,
}

/// Replays the ledger, and judges it.
#[derive(Default)]
pub struct Oracle {
    /// What the machine makes of it.
    pub state: State,
    terms: BTreeMap<RepositoryId, Term>,
    leases: BTreeMap<RepositoryId, Held>,
    open: BTreeMap<CycleId, Open>,
    closed: BTreeSet<CycleId>,
    completed: BTreeSet<(CycleId, u64)>,
    offered: BTreeMap<u64, u32>,
    /// Jobs that somebody works at, and when that was last heard of.
    claimed: BTreeMap<(CycleId, u64), LogTime>,
    wishes: BTreeMap<(RepositoryId, String), CycleOptions>,
    /// Cycles that came to their end.
    pub cycles: u32,
    /// Approved batches.
    pub batches: u32,
    /// Shards that were gone around because their order was not what was reported.
    pub around: u32,
}

fn must(holds: bool, what: impl FnOnce() -> String) -> Result<(), Finding> {
    if holds { Ok(()) } else { Err(what()) }
}

impl Oracle {
    /// The next record.
    pub fn see(&mut self, at: LogTime, entry: &Entry) -> Result<(), Finding> {
        must(at >= self.state.now, || format!("the ledger's time goes back to {at:?}"))?;
        let (events, _) = apply(&mut self.state, entry.command.clone(), at);
        must(events == entry.events, || {
            format!("{} is another thing when it is applied again: {events:?} {:?}", entry.command.name(), entry.events)
        })?;
        must(self.state.now == at, || format!("the machine's time is {:?} after a record of {at:?}", self.state.now))?;
        if let Some(broken) = invariant::broken(&self.state).first() {
            return Err(format!("after {}: {broken:?}", entry.command.name()));
        }
        for event in &entry.events {
            self.claims(at, event);
            self.event(at, command(&entry.command), event)?;
        }
        let is_refused = entry.events.iter().any(|event| matches!(event, Event::CommandRefused { .. }));
        match command(&entry.command) {
            Command::Tick if !is_refused => self.no_claim_for_ever(at),
            _ => Ok(()),
        }
    }

    /// Who works at which job (S7).
    fn claims(&mut self, at: LogTime, event: &Event) {
        let over = match event {
            Event::JobClaimed { ticket } | Event::JobProgressed { ticket, .. } => {
                self.claimed.insert((ticket.cycle, ticket.job.0), at);
                return;
            }
            Event::JobCompleted { ticket, .. } | Event::JobFailed { ticket, .. } => (ticket.cycle, ticket.job.0),
            Event::JobLost { cycle, job, .. } | Event::JobOffered { cycle, job, .. } => (*cycle, job.0),
            Event::CycleClosed { cycle, .. }
            | Event::CycleParked { cycle, .. }
            | Event::CycleRestarted { cycle, .. } => {
                return self.claimed.retain(|(of, _), _| of != cycle);
            }
            _ => return,
        };
        self.claimed.remove(&over);
    }

    fn no_claim_for_ever(&self, at: LogTime) -> Result<(), Finding> {
        let silent = self.claimed.iter().find(|(_, heard)| at.since(**heard) > SILENT_MAX);
        must(silent.is_none(), || format!("a claim never ends: {silent:?} at {at:?}"))
    }

    fn event(&mut self, at: LogTime, command: &Command, event: &Event) -> Result<(), Finding> {
        match event {
            Event::LeaseTaken { .. } | Event::LeaseRenewed { .. } => self.lease(at, command)?,
            Event::LeaseLost { repository, .. } | Event::LeaseReleased { repository, .. } => {
                self.leases.remove(repository);
            }
            Event::CycleOpened { cycle, repository, term, .. } => {
                let open = Open {
                    repository: repository.clone(),
                    term: *term,
                    sealed: None,
                    reached: BTreeMap::new(),
                    approved: None,
                };
                let others = self.open.values().any(|open| open.repository == *repository);
                must(!others, || format!("cycle {cycle} is opened beside another"))?;
                must(self.open.insert(*cycle, open).is_none(), || format!("cycle {cycle} is opened twice"))?;
            }
            Event::CycleResumed { cycle, term, .. } => self.cycle(*cycle)?.term = *term,
            Event::CycleRestarted { cycle, term, .. } => {
                let open = self.cycle(*cycle)?;
                (open.term, open.sealed, open.approved) = (*term, None, None);
                open.reached.clear();
            }
            Event::PlanSealed { cycle, header, .. } => {
                let before = self.cycle(*cycle)?.sealed.replace((**header).clone());
                must(before.is_none(), || format!("cycle {cycle} is sealed twice"))?;
            }
            Event::JobOffered { job, attempt, .. } => drop(self.offered.insert(job.0, *attempt)),
            Event::BatchApproved { ticket, approval } => self.approved(at, ticket, approval)?,
            Event::BatchDone { ticket, outcome } => {
                let open = self.cycle(ticket.cycle)?;
                let approved = open.approved.take().ok_or_else(|| "a batch ends that was not approved".to_owned())?;
                must(approved.batch == outcome.batch, || "another batch ends than was approved".to_owned())?;
                if outcome.result == BatchResult::Done {
                    *open.reached.entry(outcome.batch.stage).or_default() += outcome.batch.items;
                }
            }
            Event::JobCompleted { ticket, .. } => self.completed(ticket)?,
            // A shard reads nothing of the exchange but its order, and each part of it has the same one.
            Event::ShardSplit { job, failure, .. } => must(!failure.text.contains("of the exchange"), || {
                format!("job {job} is split for what no part of it mends: {}", failure.text)
            })?,
            Event::ShardQuarantined { stage: Stage::Rewrite, failure, .. } => {
                self.around +=
                    u32::from(failure.text.contains(REWRITE_ORDER) && failure.text.contains("of the exchange"));
            }
            Event::CycleClosed { cycle, .. } => {
                must(self.open.remove(cycle).is_some(), || format!("cycle {cycle} ends, and was not open"))?;
                must(self.closed.insert(*cycle), || format!("cycle {cycle} ends twice"))?;
                self.cycles += 1;
            }
            Event::CycleRequested { repository, key, options } => {
                self.wishes.insert((repository.clone(), key.clone()), *options);
            }
            _ => {}
        }
        Ok(())
    }

    fn cycle(&mut self, id: CycleId) -> Result<&mut Open, Finding> {
        self.open.get_mut(&id).ok_or_else(|| format!("cycle {id} is not open"))
    }

    /// A term is never given twice, and the machine never believes in more time than the store allowed (R3, R5).
    fn lease(&mut self, at: LogTime, command: &Command) -> Result<(), Finding> {
        let (repository, term, store_now, acts_until, kept) = match command {
            Command::TakeLease { repository, term, kept, store_now, acts_until } => {
                (repository, *term, *store_now, *acts_until, Some(*kept))
            }
            Command::RenewLease { repository, term, store_now, acts_until } => {
                (repository, *term, *store_now, *acts_until, None)
            }
            other => return Err(format!("{} changes a lease", other.name())),
        };
        let last = self.terms.get(repository).copied().unwrap_or_default();
        must(if kept == Some(false) { term > last } else { term == last }, || format!("term {term} after {last}"))?;
        self.terms.insert(repository.clone(), term);
        let window = acts_until.since(store_now).min(DEADLINE_MILLISECONDS_MAX);
        let new = Held { term, acts_until: store_now.plus(window), confirmed_until: at.plus(window) };
        let overtaken =
            self.leases.get(repository).is_some_and(|old| kept.is_none() && new.acts_until < old.acts_until);
        if !overtaken {
            self.leases.insert(repository.clone(), new);
        }
        Ok(())
    }

    /// Two keys, in order, one at a time, under the newest term, inside the lease (R1, R3, R5, R14).
    fn approved(&mut self, at: LogTime, ticket: &Ticket, approval: &Approval) -> Result<(), Finding> {
        let newest = self.terms.clone();
        let leases = self.leases.clone();
        let offered = self.offered.get(&ticket.job.0).copied();
        let open = self.cycle(ticket.cycle)?;
        let term = newest.get(&open.repository).copied().unwrap_or_default();
        let all = [ticket.term, approval.term, open.term];
        must(all.iter().all(|each| *each == term), || {
            format!("a batch is approved under {all:?}, and the term is {term}")
        })?;
        must(offered == Some(ticket.attempt), || format!("a batch is approved for attempt {}", ticket.attempt))?;
        let held = leases.get(&open.repository).copied();
        let held = held.filter(|held| held.term == term).ok_or("a batch is approved without a lease")?;
        must(approval.deadline <= held.confirmed_until, || {
            format!("a batch may run until {:?}, and the lease until {:?}", approval.deadline, held.confirmed_until)
        })?;
        must(approval.store_deadline <= held.acts_until, || {
            format!("a batch may run until {:?}, and the lease until {:?}", approval.store_deadline, held.acts_until)
        })?;
        let left = approval.deadline.since(at);
        must(left > 0 && left <= DEADLINE_MILLISECONDS_MAX, || format!("a batch may run for {left} ms"))?;
        let store_now = approval.store_deadline.0 - approval.valid_for;
        let age = StoreTime(store_now).since(approval.view.taken);
        must(age <= VIEW_AGE_MILLISECONDS_MAX, || format!("a batch is approved on a view of {age} ms"))?;
        let batch = approval.batch;
        if let Some(before) = open.approved.replace(*approval) {
            must(before.batch == batch, || "two batches are approved at once".to_owned())?;
        }
        let reached = open.reached.get(&batch.stage).copied().unwrap_or(0);
        must(batch.first == reached, || format!("a batch begins at {}, and {reached} are done", batch.first))?;
        if batch.stage != Stage::Survey {
            let header = open.sealed.as_ref().ok_or_else(|| format!("{} is approved before the seal", batch.stage))?;
            must(approval.plan == header.digest().ok(), || "a batch is approved for another plan".to_owned())?;
            let items = header.work(batch.stage).map_or(0, |work| work.items);
            must(reached + batch.items <= items, || "a batch goes beyond its plan".to_owned())?;
        }
        self.batches += 1;
        Ok(())
    }

    fn completed(&mut self, ticket: &Ticket) -> Result<(), Finding> {
        let term = self.cycle(ticket.cycle)?.term;
        must(ticket.term == term, || format!("a job of term {} counts in term {term}", ticket.term))?;
        must(self.completed.insert((ticket.cycle, ticket.job.0)), || format!("job {} counts twice", ticket.job))?;
        let newest = self.offered.get(&ticket.job.0).copied();
        must(newest == Some(ticket.attempt), || format!("attempt {} of job {} counts", ticket.attempt, ticket.job))
    }

    /// When all is over: every wish has its answer, once, and no cycle is open.
    pub fn check_over(&self) -> Result<(), Finding> {
        must(self.open.is_empty(), || format!("cycles {:?} are open", self.open.keys().collect::<Vec<_>>()))?;
        for (repository, key) in self.wishes.keys() {
            let answers =
                self.state.repositories.get(repository).map(|entry| entry.answered.as_slice()).unwrap_or_default();
            let found = answers.iter().filter(|(answered, _)| answered == key).count();
            must(found == 1 || answers.len() >= 64, || format!("what was wanted as {key} was answered {found} times"))?;
        }
        Ok(())
    }
}

/// What was asked, whoever asked.
fn command(asked: &Command) -> &Command {
    match asked {
        Command::Ordered(ordered) => command(&ordered.command),
        Command::Driven(driven) => command(&driven.command),
        other => other,
    }
}
