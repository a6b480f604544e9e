//! A cycle from its opening to its end: stage after stage, parked, resumed, given up.

use std::collections::BTreeMap;
use verger_kopia::mutant::{self, Mutant};

use verger_proto::event::{CycleEnd, Stop};
use verger_proto::{
    CycleId, CycleOptions, Effect, Event, Failure, LogTime, Refusal, RepositoryId, Safety, Stage, StoreTime, Term,
};

use crate::machine::{Cycle, JobStatus, Past, Phase, Turn};
use crate::{lease, offer, request, seal, stage};

/// A view older than this is given up with its cycle's plan (R17).
const VIEW_MILLISECONDS_MAX: u64 = 24 * 3_600_000;

pub(crate) fn open(turn: &mut Turn<'_>, repository: RepositoryId, options: CycleOptions) -> Result<(), Refusal> {
    if options.safety == Safety::None && !options.alone && !mutant::on(Mutant::R23NoWordForNoMargins) {
        return Err(Refusal::NotAlone);
    }
    if let Some(percent) = options.allow_removing.filter(|percent| *percent > 100) {
        return Err(Refusal::Percentage(percent));
    }
    request::check_allowed(turn.state.repositories.get(&repository), options)?;
    if let Some(cycle) = turn.state.open_cycle(&repository) {
        let joins = cycle.options == options && !matches!(cycle.phase, Phase::Stopping(_));
        let id = cycle.id;
        return if joins {
            turn.events.push(Event::CycleJoined { cycle: id });
            if request::fulfil(turn, &repository, options, id)
                && let Some(entry) = turn.state.repositories.get_mut(&repository)
            {
                entry.calendar.joined(options.mode);
            }
            Ok(())
        } else {
            Err(Refusal::CycleOpen(id))
        };
    }
    let known = turn.state.repositories.get(&repository);
    let lease = known.and_then(|entry| entry.lease).map(|lease| lease.term);
    let last_term = known.map_or(Term(0), |entry| entry.last_term);
    // A dry run changes nothing, so it needs no lease.
    let term = if options.dry_run { lease.unwrap_or(last_term) } else { lease.ok_or(Refusal::NoLease)? };
    let id = CycleId(turn.state.next_cycle);
    turn.state.next_cycle = turn.state.next_cycle.saturating_add(1);
    let entry = turn.state.repositories.entry(repository.clone()).or_default();
    entry.open = Some(id);
    entry.due |= !options.dry_run;
    turn.events.push(Event::CycleOpened { cycle: id, repository: repository.clone(), term, options });
    let requested = request::fulfil(turn, &repository, options, id);
    if let Some(entry) = turn.state.repositories.get_mut(&repository).filter(|_| !options.dry_run) {
        entry.calendar.opened(options.mode, turn.at, requested);
    }
    let mut cycle = fresh(id, repository, term, options, turn.at);
    offer::open_stage(turn, &mut cycle, Stage::Survey);
    turn.state.cycles.insert(id, cycle);
    Ok(())
}

fn fresh(id: CycleId, repository: RepositoryId, term: Term, options: CycleOptions, opened: LogTime) -> Cycle {
    Cycle {
        id,
        repository,
        options,
        term,
        opened,
        phase: Phase::Running,
        paused: false,
        stage: Stage::Survey,
        jobs: BTreeMap::new(),
        finished: BTreeMap::new(),
        outputs: Vec::new(),
        view: None,
        newest_view: StoreTime(0),
        cuts: BTreeMap::new(),
        proposed: None,
        sealed: None,
        severity: None,
    }
}

/// Goes on to the next stage that has work once all jobs of the present one are over.
pub(crate) fn advance(turn: &mut Turn<'_>, cycle: &mut Cycle) {
    if cycle.phase != Phase::Running || cycle.jobs.values().any(|job| !job.is_over()) {
        return;
    }
    turn.events.push(Event::StageClosed { cycle: cycle.id, stage: cycle.stage });
    offer::close_stage(cycle);
    if cycle.stage == Stage::Check {
        seal::after_check(turn, cycle);
    } else {
        go_on(turn, cycle);
    }
}

/// Opens the next stage that has work, or ends the cycle.
pub(crate) fn go_on(turn: &mut Turn<'_>, cycle: &mut Cycle) {
    let mut next = cycle.stage.next();
    while let Some(stage) = next {
        let Some(reason) = stage::pass(cycle, stage) else {
            return offer::open_stage(turn, cycle, stage);
        };
        turn.events.push(Event::StagePassed { cycle: cycle.id, stage, reason });
        next = stage.next();
    }
    let end = if cycle.severity.is_some() { CycleEnd::Degraded } else { CycleEnd::Done };
    close(turn, cycle, end);
}

/// Ends the cycle. Its repository stays due unless all that is safe was done (S7).
pub(crate) fn close(turn: &mut Turn<'_>, cycle: &mut Cycle, end: CycleEnd) {
    turn.events.push(Event::CycleClosed { cycle: cycle.id, end: end.clone() });
    if !cycle.has_outstanding() {
        lease::close(turn, &cycle.repository, cycle.term);
    }
    if let Some(entry) = turn.state.repositories.get_mut(&cycle.repository) {
        entry.open = None;
        if entry.past.len() >= request::PAST_MAX {
            entry.past.remove(0);
        }
        let (id, options, opened, ended) = (cycle.id, cycle.options, cycle.opened, turn.at);
        entry.past.push(Past { id, options, opened, ended, end: end.clone(), report: None });
        if !cycle.options.dry_run {
            let is_over = matches!(end, CycleEnd::Done | CycleEnd::Degraded) || mutant::on(Mutant::S7FailureIsTheEnd);
            entry.due = !is_over;
            entry.calendar.closed(cycle.options.mode, turn.at, &end);
            entry.notes.closed(cycle.options.mode, cycle.severity, &end);
            entry.last_end = Some(end);
        }
    }
}

pub(crate) fn park(turn: &mut Turn<'_>, cycle: &mut Cycle) -> Result<(), Refusal> {
    match cycle.phase {
        Phase::Running | Phase::WaitingForWord => stop(turn, cycle, Stop::Park),
        Phase::Stopping(_) | Phase::Parked => return Err(Refusal::Stopping),
    }
    Ok(())
}

/// By a person's word: stops at the next batch boundary, or stays stopped.
pub(crate) fn pause(turn: &mut Turn<'_>, cycle: &mut Cycle) -> Result<(), Refusal> {
    if matches!(cycle.phase, Phase::Stopping(Stop::Abort(_) | Stop::Fail(_))) {
        return Err(Refusal::Stopping);
    }
    cycle.paused = true;
    turn.events.push(Event::CyclePaused { cycle: cycle.id });
    if matches!(cycle.phase, Phase::Running | Phase::WaitingForWord) {
        stop(turn, cycle, Stop::Park);
    }
    Ok(())
}

pub(crate) fn unpause(turn: &mut Turn<'_>, cycle: &mut Cycle) -> Result<(), Refusal> {
    if !cycle.paused {
        return Err(Refusal::NotParked);
    }
    cycle.paused = false;
    turn.events.push(Event::CycleUnpaused { cycle: cycle.id });
    Ok(())
}

pub(crate) fn abort(turn: &mut Turn<'_>, cycle: &mut Cycle, reason: String) -> Result<(), Refusal> {
    // Whoever parks may change his mind; a failure is not undone by an abort.
    if matches!(cycle.phase, Phase::Stopping(Stop::Abort(_) | Stop::Fail(_))) {
        return Err(Refusal::Stopping);
    }
    stop(turn, cycle, Stop::Abort(reason));
    Ok(())
}

pub(crate) fn fail(turn: &mut Turn<'_>, cycle: &mut Cycle, failure: Failure) {
    if !matches!(cycle.phase, Phase::Stopping(Stop::Abort(_) | Stop::Fail(_))) {
        stop(turn, cycle, Stop::Fail(failure));
    }
}

fn stop(turn: &mut Turn<'_>, cycle: &mut Cycle, stop: Stop) {
    turn.events.push(Event::CycleStopping { cycle: cycle.id, stop: stop.clone() });
    stop_jobs(turn, cycle);
    cycle.phase = Phase::Stopping(stop);
    settle(turn, cycle);
}

fn stop_jobs(turn: &mut Turn<'_>, cycle: &Cycle) {
    for job in cycle.jobs.values().filter(|job| matches!(job.status, JobStatus::Claimed(..))) {
        turn.effects.push(Effect::StopJob { cycle: cycle.id, job: job.id, attempt: job.attempt });
    }
}

/// Ends the stopping of a cycle as soon as no batch can be under way.
pub(crate) fn settle(turn: &mut Turn<'_>, cycle: &mut Cycle) {
    if !cycle.acts_at(turn.at) {
        settle_without_lease(turn, cycle);
    }
}

/// As [`settle`], not waiting for a batch: without the lease nothing can be said about it any more.
pub(crate) fn settle_without_lease(turn: &mut Turn<'_>, cycle: &mut Cycle) {
    let Phase::Stopping(stop) = cycle.phase.clone() else { return };
    match stop {
        Stop::Park => {
            let release = !cycle.has_outstanding();
            set_parked(turn, cycle);
            if release {
                lease::close(turn, &cycle.repository, cycle.term);
            }
        }
        Stop::Abort(reason) => close(turn, cycle, CycleEnd::Aborted(reason)),
        Stop::Fail(failure) => close(turn, cycle, CycleEnd::Failed(failure)),
    }
}

/// Parks without waiting: the lease is gone, or another term began.
pub(crate) fn park_at_once(turn: &mut Turn<'_>, cycle: &mut Cycle) {
    stop_jobs(turn, cycle);
    if let Phase::Stopping(Stop::Abort(_) | Stop::Fail(_)) = cycle.phase {
        settle_without_lease(turn, cycle);
    } else {
        set_parked(turn, cycle);
    }
}

fn set_parked(turn: &mut Turn<'_>, cycle: &mut Cycle) {
    for job in cycle.jobs.values_mut().filter(|job| !job.is_over()) {
        offer::take_back(job, turn.at);
    }
    cycle.phase = Phase::Parked;
    turn.events.push(Event::CycleParked { cycle: cycle.id, stage: cycle.stage });
}

pub(crate) fn resume(turn: &mut Turn<'_>, cycle: &mut Cycle) -> Result<(), Refusal> {
    if cycle.phase != Phase::Parked {
        return Err(Refusal::NotParked);
    }
    let lease = turn.state.repositories.get(&cycle.repository).and_then(|entry| entry.lease);
    let term = match lease {
        Some(lease) => lease.term,
        None if cycle.options.dry_run => cycle.term,
        None => return Err(Refusal::NoLease),
    };
    let old_view = cycle.view.is_some_and(|(_, reported)| turn.at.since(reported) > VIEW_MILLISECONDS_MAX);
    if term != cycle.term || old_view && !mutant::on(Mutant::R17OldViewGoesOn) {
        restart(turn, cycle, term);
        return Ok(());
    }
    cycle.phase = Phase::Running;
    turn.events.push(Event::CycleResumed { cycle: cycle.id, stage: cycle.stage, term });
    if cycle.jobs.is_empty() && cycle.stage == Stage::Check {
        seal::after_check(turn, cycle);
        return Ok(());
    }
    let open: Vec<_> = cycle.jobs.values().filter(|job| !job.is_over()).map(|job| job.id).collect();
    for id in open {
        offer::again(turn, cycle, id);
    }
    advance(turn, cycle);
    Ok(())
}

/// Begins again with a survey. Whatever is still unknown of earlier batches, a fresh view shows (R5, R17).
fn restart(turn: &mut Turn<'_>, cycle: &mut Cycle, term: Term) {
    let dropped_plan = cycle.sealed.as_ref().map(|sealed| sealed.digest);
    let view = cycle.view.map(|(view, _)| view.digest);
    turn.events.push(Event::CycleRestarted { cycle: cycle.id, term, dropped_plan, view });
    *cycle = fresh(cycle.id, cycle.repository.clone(), term, cycle.options, cycle.opened);
    offer::open_stage(turn, cycle, Stage::Survey);
}
