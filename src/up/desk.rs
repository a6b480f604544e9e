//! Gives out cycles to workers in processes of their own, beside those that run in this one: by the same agenda, within the same limits of
//! buckets and pools.

use std::collections::{BTreeMap, BTreeSet};

use verger_coordinator::api::work::Task;
use verger_coordinator::api::{Ask, Desk};
use verger_coordinator::drive::{folder, refusal};
use verger_coordinator::files::make_folders;
use verger_coordinator::ledger::evidence::EvidenceFolder;
use verger_coordinator::machine::{Repository, State, lane_of};
use verger_coordinator::others::is_left_by;
use verger_coordinator::schedule::{Agenda, Limits, Running, bucket_of};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::schedule::Lane;
use verger_proto::{Command, CycleId, Digest, Driver, Evidence, LogTime, OutputRef, Pool, RepositoryId};

use super::supervisor::Supervisor;

/// Sets of pools that workers come with. Who comes with yet another one costs a round of fairness.
const SETS_MAX: usize = 64;

/// What workers of other processes are given.
#[derive(Default)]
pub(super) struct Outside {
    /// By the pools that they work for: what is due for one set is fair within it.
    agendas: BTreeMap<Vec<Pool>, Agenda>,
    /// Chosen, and the machine has not said yet whether they are taken.
    chosen: BTreeMap<RepositoryId, Running>,
    /// To whom each was given at last.
    given: BTreeMap<RepositoryId, Driver>,
}

impl Outside {
    fn of(&mut self, pools: &[Pool]) -> &mut Agenda {
        if self.agendas.len() >= SETS_MAX && !self.agendas.contains_key(pools) {
            self.agendas.pop_first();
        }
        self.agendas.entry(pools.to_vec()).or_default()
    }

    /// What became of one that runs elsewhere or here: whoever is asked next lets it alone for a while, too, if it failed.
    pub(super) fn done(&mut self, repository: &RepositoryId, failed: bool, now: LogTime) {
        self.agendas.values_mut().for_each(|agenda| agenda.done(repository, failed, now));
    }
}

impl Supervisor {
    /// What runs here and elsewhere, and limits that leave what runs elsewhere out of this process's own places.
    pub(super) fn with_others(
        &self,
        state: &State,
        here: Vec<Running>,
        outside: &Outside,
        now: LogTime,
    ) -> (Vec<Running>, Limits) {
        let mut known: BTreeSet<&RepositoryId> = here.iter().map(|running| &running.repository).collect();
        let chosen = outside.chosen.values().filter(|running| !known.contains(&running.repository));
        let mut others: Vec<Running> = chosen.cloned().collect();
        known.extend(outside.chosen.keys());
        let driven: Vec<Running> = state
            .repositories
            .iter()
            .filter(|(id, entry)| !known.contains(id) && self.drives.is_elsewhere(entry, now))
            .filter_map(|(id, entry)| running(state, id, entry))
            .collect();
        others.extend(driven);
        let more = u32::try_from(others.len()).unwrap_or(u32::MAX);
        let limits = Limits { total: self.limits.total.saturating_add(more), ..self.limits.clone() };
        (here.into_iter().chain(others).collect(), limits)
    }
}

/// A cycle that somebody else runs.
fn running(state: &State, id: &RepositoryId, entry: &Repository) -> Option<Running> {
    let known = entry.registration.as_ref()?;
    let lane = state.open_cycle(id).map_or(Lane::Index, |cycle| lane_of(cycle.options.mode));
    Some(Running { repository: id.clone(), lane, bucket: bucket_of(&known.address), pool: known.pool.clone() })
}

impl Desk for Supervisor {
    fn next(&self, ask: &Ask<'_>) -> Result<Option<Task>> {
        let Some(task) = self.choose(ask) else { return Ok(None) };
        let (repository, driver) = (task.repository.clone(), ask.driver);
        let taken = self.backend.submit(Command::TakeDrive { repository: repository.clone(), driver });
        let mut outside = self.outside();
        outside.chosen.remove(&repository);
        let is_taken = refusal(&taken?).is_none();
        if is_taken {
            outside.given.insert(repository, driver);
        }
        Ok(is_taken.then_some(task))
    }

    fn ended(&self, repository: &RepositoryId, driver: Driver, failed: bool) {
        let now = self.now();
        let mut crew = self.crew();
        let mut outside = self.outside();
        if outside.given.get(repository) == Some(&driver) {
            outside.given.remove(repository);
            outside.done(repository, failed, now);
            crew.agenda.done(repository, failed, now);
        }
    }

    fn is_able(&self, entry: &Repository, now: LogTime) -> bool {
        self.limits.total > 0 && !is_left_by(entry, self.drives.process(), now)
    }

    fn keep(&self, repository: &RepositoryId, cycle: CycleId, view: Digest, evidence: &Evidence) -> Result<OutputRef> {
        let folder = folder(&self.site.opener.engine.state_dir, repository);
        make_folders(&folder).map_err(|error| {
            Error::new(ErrorKind::Permission, format!("make {}", folder.display())).with_source(error)
        })?;
        let mut kept = self.kept();
        let kept = kept.entry(repository.clone()).or_insert_with(|| EvidenceFolder::beside(&folder));
        kept.append(cycle, view, evidence)
    }
}

impl Supervisor {
    /// What somebody elsewhere is to do now. It counts as under way from here on: who asks at the same time is given nothing that would
    /// be too much together with it.
    fn choose(&self, ask: &Ask<'_>) -> Option<Task> {
        let now = self.now();
        let mut task = None;
        // Until it is chosen, nothing begins here.
        let crew = self.crew();
        let here: Vec<Running> = crew.busy.values().map(|(start, _)| start.running.clone()).collect();
        let mut outside = self.outside();
        let mut begun = None;
        self.backend.look(&mut |state| {
            let is_not_his = |_: &RepositoryId, entry: &Repository| {
                let known = entry.registration.as_ref();
                let is_his = known.is_some_and(|known| {
                    ask.pools.iter().any(|pool| pool.as_str() == known.pool) && (ask.sees)(&known.tenant)
                });
                !is_his || self.drives.is_elsewhere(entry, now) || is_left_by(entry, ask.driver, now)
            };
            let (running, limits) = self.with_others(state, here.clone(), &outside, now);
            // One, whatever places this process has itself.
            let limits = Limits { total: u32::MAX, begin: 1, ..limits };
            let agenda = outside.of(ask.pools);
            let start = agenda.begin_but(&is_not_his, state, &running, &limits, now).into_iter().next();
            task = start.and_then(|start| {
                let repository = start.running.repository.clone();
                let registration = state.repositories.get(&repository)?.registration.clone()?;
                begun = Some(start.running);
                Some(Task { repository, registration, work: start.work })
            });
        });
        outside.chosen.extend(begun.map(|running| (running.repository.clone(), running)));
        drop((outside, crew));
        task
    }
}
