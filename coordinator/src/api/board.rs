//! What the events say beyond the state: progress, plans, names of repositories that are gone, and figures over all time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use verger_kopia::error::Result;
use verger_proto::event::CycleEnd;
use verger_proto::{
    BatchResult, CycleId, CycleOptions, Event, JobId, LogTime, PlanDigest, PlanHeader, Progress, RepositoryId,
    RepositoryName, Stage,
};

use super::events::Events;
use super::metrics::Durations;
use super::shards::Shards;
use crate::ledger::folder::Place;

/// Cycles whose figures are kept here.
const CYCLES_MAX: usize = 10_000;
/// Cycles of which it is known whose they are. One that is not among them is shown to those alone who see everything.
const OWNED_MAX: usize = 100_000;

/// What is known of a repository, or was.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) name: RepositoryName,
    pub(super) tenant: String,
}

/// What is known of a cycle beyond the state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) repository: RepositoryId,
    pub(super) options: CycleOptions,
    pub(super) stage: Stage,
    pub(super) plan: Option<(PlanDigest, PlanHeader)>,
    pub(super) progress: BTreeMap<JobId, Progress>,
    /// When the cycle was opened.
    pub(super) opened: LogTime,
    /// When its stage was.
    pub(super) stage_opened: LogTime,
    /// Bytes of blobs that are gone from the store.
    pub(super) freed: u64,
}

/// Follows the events. Everything in it follows from them, so it is the same after a start.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Board {
    pub(super) next: u64,
    /// Before and after the last record that is counted.
    pub(super) last: Option<(Place, Place)>,
    /// From which record on it is known so: what was another tenant's stays that tenant's, and so do the events of that time.
    pub(super) names: BTreeMap<RepositoryId, Vec<(u64, Arc<Known>)>>,
    pub(super) owned: BTreeMap<CycleId, Arc<Known>>,
    pub(super) cycles: BTreeMap<CycleId, Told>,
    pub(super) ends: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) successes: BTreeMap<(RepositoryId, &'static str), LogTime>,
    pub(super) freed: BTreeMap<RepositoryId, u64>,
    pub(super) durations: Durations,
    pub(super) shards: Shards,
}

pub(super) fn outcome(end: &CycleEnd) -> &'static str {
    match end {
        CycleEnd::Done => "done",
        CycleEnd::Planned => "planned",
        CycleEnd::Degraded => "degraded",
        CycleEnd::Aborted(_) => "aborted",
        CycleEnd::Failed(_) => "failed",
    }
}

impl Board {
    pub(super) fn catch_up(&mut self, events: &dyn Events) -> Result<()> {
        if events.newest() <= self.next {
            return Ok(());
        }
        let read = self.read(events);
        let first_here = events.first_here();
        match read {
            // What happened since can be told without the archive; all that is lost are old figures, until the next start.
            Err(error) if self.next < first_here => {
                tracing::warn!(
                    from = self.next,
                    to = first_here,
                    error = error.chain(),
                    "figures begin after what is archived"
                );
                self.next = first_here;
                self.read(events)
            }
            other => other,
        }
    }

    fn read(&mut self, events: &dyn Events) -> Result<()> {
        events.read_placed(self.next, &mut |record, places| {
            for event in &record.entry.events {
                self.see(record.sequence, record.at, event);
                self.shards.see(record.at, event);
            }
            self.next = record.sequence.saturating_add(1);
            self.last = places;
            Ok(())
        })
    }

    /// As what it is known now, or was at last.
    pub(super) fn known(&self, repository: &RepositoryId) -> Option<&Known> {
        self.names.get(repository)?.last().map(|(_, known)| known.as_ref())
    }

    /// As what it was known when a record was written.
    pub(super) fn known_at(&self, repository: &RepositoryId, sequence: u64) -> Option<&Known> {
        let times = self.names.get(repository)?;
        let after = times.partition_point(|(from, _)| *from <= sequence);
        after.checked_sub(1).and_then(|index| times.get(index)).map(|(_, known)| known.as_ref())
    }

    /// As what a cycle's repository was known when it was opened.
    pub(super) fn owner(&self, cycle: CycleId) -> Option<&Known> {
        self.owned.get(&cycle).map(Arc::as_ref)
    }

    pub(super) fn told(&self, cycle: CycleId) -> Option<&Told> {
        self.cycles.get(&cycle)
    }

    fn see(&mut self, sequence: u64, at: LogTime, event: &Event) {
        match event {
            Event::RepositoryAdded { repository, registration } => {
                let known = Known { name: registration.name.clone(), tenant: registration.tenant.clone() };
                let times = self.names.entry(repository.clone()).or_default();
                if times.last().is_none_or(|(_, before)| **before != known) {
                    times.push((sequence, Arc::new(known)));
                }
            }
            // The same one under another ID.
            Event::StoreIdentified { repository, before } => {
                let before = RepositoryId { unique: repository.unique.clone(), store: before.clone() };
                if let Some((_, known)) = self.names.get(&before).and_then(|times| times.last()).cloned() {
                    self.names.entry(repository.clone()).or_default().push((sequence, known));
                }
            }
            Event::CycleOpened { cycle, repository, options, .. } => self.open(at, *cycle, repository, *options),
            Event::StageOpened { cycle, stage, .. } => self.with(*cycle, |told| {
                told.stage = *stage;
                told.stage_opened = at;
                told.progress.clear();
            }),
            Event::JobProgressed { ticket, progress: Some(progress) } => self.with(ticket.cycle, |told| {
                told.progress.insert(ticket.job, *progress);
            }),
            Event::PlanSealed { cycle, plan, header, .. } | Event::PlanChecked { cycle, plan, header, .. } => {
                self.with(*cycle, |told| told.plan = Some((*plan, (**header).clone())));
            }
            Event::CycleRestarted { cycle, .. } => self.with(*cycle, |told| told.plan = None),
            Event::BatchDone { ticket, outcome } if outcome.result == BatchResult::Done => {
                self.count_freed(ticket.cycle, outcome.batch.stage, outcome.bytes);
            }
            Event::CycleClosed { cycle, end } => self.close(at, *cycle, end),
            _ => {}
        }
    }

    fn with(&mut self, cycle: CycleId, change: impl FnOnce(&mut Told)) {
        if let Some(told) = self.cycles.get_mut(&cycle) {
            change(told);
        }
    }

    fn open(&mut self, at: LogTime, cycle: CycleId, repository: &RepositoryId, options: CycleOptions) {
        if self.cycles.len() >= CYCLES_MAX {
            self.cycles.pop_first();
        }
        if let Some((_, known)) = self.names.get(repository).and_then(|times| times.last()) {
            self.owned.insert(cycle, known.clone());
            if self.owned.len() > OWNED_MAX {
                self.owned.pop_first();
            }
        }
        let (repository, progress) = (repository.clone(), BTreeMap::new());
        let (stage, plan, freed) = (Stage::Survey, None, 0);
        let told = Told { repository, options, stage, plan, progress, opened: at, stage_opened: at, freed };
        self.cycles.insert(cycle, told);
    }

    /// Only what is gone from the store: marks in an index free nothing yet.
    fn count_freed(&mut self, cycle: CycleId, stage: Stage, bytes: u64) {
        if !matches!(stage, Stage::Delete | Stage::DeleteRewritten | Stage::Logs) {
            return;
        }
        if let Some(told) = self.cycles.get_mut(&cycle) {
            told.freed = told.freed.saturating_add(bytes);
            let all = self.freed.entry(told.repository.clone()).or_default();
            *all = all.saturating_add(bytes);
        }
    }

    fn close(&mut self, at: LogTime, cycle: CycleId, end: &CycleEnd) {
        let Some(told) = self.cycles.get_mut(&cycle) else { return };
        told.progress.clear();
        let mode = told.options.mode.name();
        self.durations.observe(mode, at.0.saturating_sub(told.opened.0));
        let count = self.ends.entry((outcome(end), mode)).or_default();
        *count = count.saturating_add(1);
        if *end == CycleEnd::Done {
            self.successes.insert((told.repository.clone(), mode), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use verger_kopia::error::{Error, ErrorKind};
    use verger_proto::Command;

    use super::*;
    use crate::ledger::{Entry, Record};

    /// Ten records, of which the first five can be read at times.
    struct Halved {
        is_reached: bool,
    }

    impl Events for Halved {
        fn read(&self, from: u64, visit: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
            for sequence in from..10 {
                if sequence < 5 && !self.is_reached {
                    return Err(Error::new(ErrorKind::StoreUnavailable, "read an archived segment"));
                }
                let end = Event::CycleClosed { cycle: CycleId(1), end: CycleEnd::Done };
                let entry = Entry { command: Command::Tick, events: vec![end] };
                visit(Record { sequence, at: LogTime(sequence), entry })?;
            }
            Ok(())
        }

        fn newest(&self) -> u64 {
            10
        }

        fn first_here(&self) -> u64 {
            5
        }
    }

    #[test]
    fn figures_begin_after_an_archive_that_cannot_be_read() {
        for is_reached in [true, false] {
            let mut board = Board::default();
            board.catch_up(&Halved { is_reached }).unwrap();
            assert_eq!(board.next, 10, "{is_reached}");
        }
        let mut late = Board { next: 7, ..Board::default() };
        late.catch_up(&Halved { is_reached: false }).unwrap();
        assert_eq!(late.next, 10);
    }
}
