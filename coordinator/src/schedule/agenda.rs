//! What begins now, of everything that a machine knows of: wishes first, then what is due, in a fair order, as far as there are places.
//!
//! It keeps what it worked out for as long as the state says the same, so that asking every second costs little. Losing it costs one
//! round of fairness and the back-off of what never became a cycle; everything else follows from the state.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use verger_proto::schedule::{Lane, MarkToDrop, Schedule, Trigger};
use verger_proto::{Acting, CycleId, CycleOptions, LogTime, Mode, Registration, RepositoryId};

use super::fair::{Candidate, Fair, Limits, Running};
use super::{HOUR, MINUTE, Next, Timetable, Why, back_off};
use crate::machine::{Calendar, Cycle, Phase, Repository, State, lane_of, mode_of};

/// A repository whose own Kopia settings count is looked at this often, in milliseconds: they may have changed.
pub const LOOK_EVERY: u64 = HOUR;
/// How long cycles take of which nothing is known, in milliseconds.
const LENGTH_FULL: u64 = 10 * MINUTE;
const LENGTH_QUICK: u64 = MINUTE;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Somebody asked for it, by this key.
    Asked {
        /// The key.
        key: String,
        /// What for.
        options: CycleOptions,
    },
    /// It was begun and not finished.
    Unfinished(CycleOptions),
    /// It is due.
    Due(Mode, Why),
    /// Its own Kopia settings are to be read.
    Look,
}

/// Something that begins now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Where, and whose places it takes.
    pub running: Running,
    /// What.
    pub work: Work,
    /// Nobody asked for it: it parks where its window ends.
    pub by_itself: bool,
}

/// What is worked out for one repository.
#[derive(Debug)]
struct Plan {
    schedule: Schedule,
    table: Result<Timetable, String>,
    calendar: Calendar,
    wait: MarkToDrop,
    next: [Next; 3],
    made: LogTime,
    until: LogTime,
}

impl Plan {
    fn new(id: &RepositoryId, known: &Registration, calendar: &Calendar, now: LogTime, before: Option<Self>) -> Self {
        let schedule = known.schedule.clone();
        let table = match before.filter(|before| before.schedule == schedule) {
            Some(before) => before.table,
            None => Timetable::new(id.clone(), &schedule).map_err(|error| error.to_string()),
        };
        let next = next_of(&table, calendar, known.mark_to_drop, now);
        let is_now = next.iter().any(|next| matches!(next, Next::Now(_)));
        let times = next.iter().filter_map(|next| if let Next::At(at) = next { Some(*at) } else { None });
        // What is due now may not be a moment later, when its window has ended.
        let until = if is_now { now } else { times.min().unwrap_or(now.plus(HOUR)) };
        Self { schedule, table, calendar: calendar.clone(), wait: known.mark_to_drop, next, made: now, until }
    }

    fn still_holds(&self, known: &Registration, calendar: &Calendar, now: LogTime) -> bool {
        (self.made..self.until).contains(&now)
            && self.wait == known.mark_to_drop
            && self.calendar == *calendar
            && self.schedule == known.schedule
    }
}

fn next_of(table: &Result<Timetable, String>, calendar: &Calendar, wait: MarkToDrop, now: LogTime) -> [Next; 3] {
    let history = calendar.history(wait);
    Lane::ALL.map(|lane| match table {
        Ok(table) => table.next(lane, &history, now),
        Err(why) => Next::Never(why.clone()),
    })
}

/// Attempts that became no cycle.
#[derive(Debug, Clone, Copy)]
struct Setback {
    failures: u32,
    last: LogTime,
}

/// Chooses what begins.
#[derive(Debug, Default)]
pub struct Agenda {
    plans: BTreeMap<RepositoryId, Plan>,
    setbacks: BTreeMap<RepositoryId, Setback>,
    /// When each is looked at next.
    looks: BTreeMap<RepositoryId, LogTime>,
    asked: Fair,
    others: Fair,
}

impl Agenda {
    /// What begins now beside what runs. It is taken as begun: whoever cannot begin it says so with [`Agenda::done`].
    pub fn begin(&mut self, state: &State, running: &[Running], limits: &Limits, now: LogTime) -> Vec<Start> {
        self.begin_but(&|_, _| false, state, running, limits, now)
    }

    /// As [`Agenda::begin`], without those repositories that are somebody else's now.
    pub fn begin_but(
        &mut self,
        is_elsewhere: &dyn Fn(&RepositoryId, &Repository) -> bool,
        state: &State,
        running: &[Running],
        limits: &Limits,
        now: LogTime,
    ) -> Vec<Start> {
        let now = now.max(state.now);
        self.plans.retain(|id, _| is_known(state, id));
        self.setbacks.retain(|id, _| is_known(state, id));
        self.looks.retain(|id, _| is_known(state, id));
        let busy: BTreeSet<&RepositoryId> = running.iter().map(|cycle| &cycle.repository).collect();
        let (mut asked, mut others) = (Vec::new(), Vec::new());
        let free = |(id, entry): &(&RepositoryId, &Repository)| !busy.contains(id) && !is_elsewhere(id, entry);
        for (id, entry) in state.repositories.iter().filter(free) {
            let Some(known) = &entry.registration else { continue };
            match wish(state, entry) {
                Some((lane, work, since)) => asked.push(due(id, entry, known, lane, since, (work, false))),
                None if self.backs_off(id, now) => {}
                None => others.extend(self.due(state, id, entry, known, now)),
            }
        }
        let mut running = running.to_vec();
        let mut chosen = pick(&mut self.asked, asked, &running, limits);
        running.extend(chosen.iter().map(|start| start.running.clone()));
        let begun = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
        let limits = Limits { begin: limits.begin.saturating_sub(begun), ..limits.clone() };
        chosen.extend(pick(&mut self.others, others, &running, &limits));
        chosen
    }

    fn backs_off(&self, id: &RepositoryId, now: LogTime) -> bool {
        self.setbacks.get(id).is_some_and(|setback| now < setback.last.plus(back_off(setback.failures)))
    }

    /// What of one repository is due without a wish.
    fn due(
        &mut self,
        state: &State,
        id: &RepositoryId,
        entry: &Repository,
        known: &Registration,
        now: LogTime,
    ) -> Vec<(Candidate, Work, bool)> {
        let one = |lane, since, work| due(id, entry, known, lane, since, work);
        if let Some(cycle) = state.open_cycle(id) {
            let lane = lane_of(cycle.options.mode);
            // What somebody waits for, be it behind this one, waits for no window.
            let wanted = cycle.options.dry_run || !entry.requests.is_empty();
            let rests = cycle.paused || known.acting == Acting::Observe && !cycle.options.dry_run;
            let goes_on = wanted || matches!(self.plan(id, entry, known, now).next[lane as usize], Next::Now(_));
            let by_itself = !wanted && is_by_itself(entry, cycle);
            let work = (Work::Unfinished(cycle.options), by_itself);
            return if goes_on && !rests { vec![one(lane, cycle.opened, work)] } else { Vec::new() };
        }
        if known.acting == Acting::Observe {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (lane, next) in Lane::ALL.into_iter().zip(self.plan(id, entry, known, now).next.clone()) {
            let Next::Now(why) = next else { continue };
            let is_quick = |(candidate, ..): &(Candidate, _, _)| candidate.lane == Lane::Quick;
            if lane == Lane::Index && found.iter().any(is_quick) {
                // The quick cycle does its work, too.
                continue;
            }
            let since = since(&why, entry, lane, now);
            found.push(one(lane, since, (Work::Due(mode_of(lane), why), true)));
        }
        if found.is_empty() && self.wants_look(id, entry, known, now) {
            found.push(one(Lane::Index, now, (Work::Look, true)));
        }
        found
    }

    fn plan(&mut self, id: &RepositoryId, entry: &Repository, known: &Registration, now: LogTime) -> &Plan {
        let before = self.plans.remove(id);
        let plan = match before {
            Some(plan) if plan.still_holds(known, &entry.calendar, now) => plan,
            before => Plan::new(id, known, &entry.calendar, now, before),
        };
        self.plans.entry(id.clone()).or_insert(plan)
    }

    fn wants_look(&mut self, id: &RepositoryId, entry: &Repository, known: &Registration, now: LogTime) -> bool {
        let asks = Lane::ALL.into_iter().any(|lane| *known.schedule.trigger(lane) == Trigger::Own);
        if !asks || known.schedule.suspended {
            return false;
        }
        let at = *self.looks.entry(id.clone()).or_insert_with(|| match entry.calendar.own {
            None => now,
            // After a start not all at once.
            Some(_) => now.plus(spread(id)),
        });
        now >= at
    }

    /// What was begun has ended. `failed`: with an error, so that it is let alone for a while.
    pub fn done(&mut self, id: &RepositoryId, failed: bool, now: LogTime) {
        if failed {
            self.looks.remove(id);
            let failures = self.setbacks.get(id).map_or(0, |setback| setback.failures).saturating_add(1);
            self.setbacks.insert(id.clone(), Setback { failures, last: now });
        } else {
            self.looks.insert(id.clone(), now.plus(LOOK_EVERY));
            self.setbacks.remove(id);
        }
    }

    /// Whether what runs has to stop at its next boundary: a person paused it, or it runs by itself and its window has ended.
    #[must_use]
    pub fn must_park(&mut self, state: &State, start: &Start, now: LogTime) -> bool {
        let id = &start.running.repository;
        if state.open_cycle(id).is_some_and(|cycle| cycle.paused) {
            return true;
        }
        start.by_itself && start.work != Work::Look && self.has_come_to_the_end_of_its_window(state, id, now)
    }

    /// Cycles that others lead, run by themselves and have come to the end of a window: whoever leads them does not know of windows.
    #[must_use]
    pub fn overdue_elsewhere(
        &mut self,
        is_elsewhere: &dyn Fn(&RepositoryId, &Repository) -> bool,
        state: &State,
        now: LogTime,
    ) -> Vec<CycleId> {
        let is_under_way = |cycle: &&Cycle| matches!(cycle.phase, Phase::Running | Phase::WaitingForWord);
        let led_elsewhere = |cycle: &&Cycle| {
            state.repositories.get(&cycle.repository).is_some_and(|entry| {
                entry.open == Some(cycle.id) && is_by_itself(entry, cycle) && is_elsewhere(&cycle.repository, entry)
            })
        };
        let candidates = state.cycles.values().filter(is_under_way).filter(led_elsewhere);
        let over = candidates.filter(|cycle| self.has_come_to_the_end_of_its_window(state, &cycle.repository, now));
        over.map(|cycle| cycle.id).collect()
    }

    /// Whether a window of this repository has ended, and nobody asked for what runs there.
    fn has_come_to_the_end_of_its_window(&mut self, state: &State, id: &RepositoryId, now: LogTime) -> bool {
        let Some(entry) = state.repositories.get(id) else { return false };
        let cycle = state.open_cycle(id);
        let asked = !entry.requests.is_empty() || cycle.is_some_and(|cycle| !is_by_itself(entry, cycle));
        let Some(known) = entry.registration.as_ref().filter(|_| !asked) else { return false };
        let now = now.max(state.now);
        let ends = self.plan(id, entry, known, now).table.as_ref().ok().and_then(|table| table.ends(now));
        ends.is_some_and(|end| end <= now)
    }
}

fn is_known(state: &State, id: &RepositoryId) -> bool {
    state.repositories.get(id).is_some_and(|entry| entry.registration.is_some())
}

/// Whether nobody asked for an open cycle.
fn is_by_itself(entry: &Repository, cycle: &Cycle) -> bool {
    let unfinished = entry.calendar.of(cycle.options.mode).unfinished;
    !cycle.options.dry_run && unfinished.is_some_and(|unfinished| !unfinished.requested)
}

/// The oldest wish, if it can begin: a cycle with other options comes first, a paused one is for a person to take up or give up.
fn wish(state: &State, entry: &Repository) -> Option<(Lane, Work, LogTime)> {
    let request = entry.requests.first()?;
    let open = entry.open.and_then(|id| state.cycles.get(&id));
    let waits = open.is_some_and(|cycle| cycle.options != request.options || cycle.paused);
    let work = Work::Asked { key: request.key.clone(), options: request.options };
    (!waits).then_some((lane_of(request.options.mode), work, request.asked))
}

fn due(
    id: &RepositoryId,
    entry: &Repository,
    known: &Registration,
    lane: Lane,
    since: LogTime,
    (work, by_itself): (Work, bool),
) -> (Candidate, Work, bool) {
    let past = entry.calendar.of(mode_of(lane));
    let last = past.started.zip(past.ended).map(|(started, ended)| ended.since(started)).filter(|length| *length > 0);
    let unknown = if lane == Lane::Full { LENGTH_FULL } else { LENGTH_QUICK };
    let candidate = Candidate {
        repository: id.clone(),
        lane,
        bucket: bucket_of(&known.address),
        pool: known.pool.clone(),
        weight: known.weight,
        due: since,
        length: last.unwrap_or(unknown),
        // The machine has one open cycle for each repository.
        beside: false,
    };
    (candidate, work, by_itself)
}

/// Since when it is due.
fn since(why: &Why, entry: &Repository, lane: Lane, now: LogTime) -> LogTime {
    let calendar = &entry.calendar;
    match why {
        Why::Scheduled { slot } => *slot,
        Why::Unfinished => calendar.of(mode_of(lane)).unfinished.map_or(now, |unfinished| unfinished.stopped),
        Why::MarginEnded => calendar.margins.iter().map(|margin| margin.at).min().unwrap_or(now),
        Why::Requested(_) => now,
    }
}

fn pick(fair: &mut Fair, due: Vec<(Candidate, Work, bool)>, running: &[Running], limits: &Limits) -> Vec<Start> {
    let (candidates, work): (Vec<_>, Vec<_>) =
        due.into_iter().map(|(candidate, work, own)| (candidate, (work, own))).unzip();
    let start = |index: usize| {
        let Candidate { repository, lane, bucket, pool, .. } = candidates[index].clone();
        let (work, by_itself) = work[index].clone();
        Start { running: Running { repository, lane, bucket, pool }, work, by_itself }
    };
    fair.pick(&candidates, running, limits).into_iter().map(start).collect()
}

/// What requests of one repository share with those of others: the bucket of an address, or the whole of it on a file system.
#[must_use]
pub fn bucket_of(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) if scheme != "filesystem" => {
            format!("{scheme}://{}", rest.split('/').next().unwrap_or_default())
        }
        _ => address.to_owned(),
    }
}

/// Up to [`LOOK_EVERY`], by the repository alone.
fn spread(id: &RepositoryId) -> u64 {
    let digest = blake3::hash(id.to_string().as_bytes());
    digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) % LOOK_EVERY
}
