//! `apply`: what a command makes of a state. Pure.

use verger_proto::{Command, Driven, Effect, Event, LogTime, Refusal, Ticket};

use super::refuse;
use super::state::{Cycle, State};
use crate::{
    approve, collect, commit, cycle, driver, lease, members, notes, offer, others, registry, request, seal, token,
    workers,
};

/// What one command makes: the state that it changes, and what it says.
pub(crate) struct Turn<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) at: LogTime,
    pub(crate) events: Vec<Event>,
    pub(crate) effects: Vec<Effect>,
}

/// Changes `state` as `command` asks, at the time of the record. A refusal is an event and changes nothing else.
///
/// The same state, command and time give the same result on every replica. A command without events leaves the state as it
/// was, so it need not be kept.
pub fn apply(state: &mut State, command: Command, at: LogTime) -> (Vec<Event>, Vec<Effect>) {
    // A new leader's clock may be behind: time does not run backwards inside.
    let at = at.max(state.now);
    let mut turn = Turn { state, at, events: Vec::new(), effects: Vec::new() };
    let (name, cycle, job) = refuse::about(&command);
    if let Err(reason) = dispatch(&mut turn, command) {
        turn.events.push(Event::CommandRefused { command: name.to_owned(), cycle, job, reason });
    }
    if !turn.events.is_empty() {
        turn.state.now = at;
    }
    (turn.events, turn.effects)
}

/// Refusals come back as errors: nothing was changed then.
fn dispatch(turn: &mut Turn<'_>, command: Command) -> Result<(), Refusal> {
    match command {
        Command::TakeLease { repository, term, kept, store_now, acts_until } => {
            lease::take(turn, repository, term, kept, (store_now, acts_until))
        }
        Command::RenewLease { repository, term, store_now, acts_until } => {
            lease::renew(turn, repository, term, (store_now, acts_until))
        }
        Command::LoseLease { repository, term, reason } => lease::lose(turn, repository, term, reason),
        Command::ReleaseLease { repository, term } => lease::release(turn, repository, term),
        Command::OpenCycle { repository, options } => cycle::open(turn, repository, options),
        Command::ClaimJob { ticket } => turn.with_cycle(ticket.cycle, |turn, c| offer::claim_open(turn, c, ticket)),
        Command::ReportProgress { ticket, progress } => {
            turn.with_cycle(ticket.cycle, |turn, c| offer::progress(turn, c, ticket, progress))
        }
        Command::CompleteJob { ticket, report } => {
            turn.result(ticket, |turn, c, t| collect::complete(turn, c, t, *report))
        }
        Command::FailJob { ticket, failure } => turn.result(ticket, |turn, c, t| collect::fail(turn, c, t, failure)),
        Command::LoseWorker { worker } => always(offer::lose_worker, turn, &worker),
        Command::SealPlan { cycle, plan, allow_removing } => {
            turn.with_cycle(cycle, |turn, c| seal::with_a_word(turn, c, plan, allow_removing))
        }
        Command::AddRevivals { ticket, revived, bytes } => {
            turn.with_cycle(ticket.cycle, |turn, c| commit::add_revivals(turn, c, ticket, revived, bytes))
        }
        Command::ApproveBatch { ticket, request } => {
            turn.with_cycle(ticket.cycle, |turn, c| approve::approve(turn, c, ticket, request))
        }
        Command::BatchDone { ticket, outcome } => {
            turn.result(ticket, |turn, c, t| commit::batch_done(turn, c, t, outcome))
        }
        Command::ParkCycle { cycle } => turn.with_cycle(cycle, cycle::park),
        Command::ResumeCycle { cycle } => turn.with_cycle(cycle, cycle::resume),
        Command::AbortCycle { cycle, reason } => turn.with_cycle(cycle, |turn, c| cycle::abort(turn, c, reason)),
        Command::Tick => always(|turn, ()| offer::tick(turn), turn, ()),
        Command::Ordered(ordered) => dispatch(turn, ordered.command),
        Command::TakeDrive { repository, driver } => driver::take(turn, repository, driver),
        Command::LeaveDrive { repository, driver } => driver::leave(turn, repository, driver),
        Command::Driven(driven) => by_its_driver(turn, *driven),
        Command::AddRepository { repository, registration } => registry::add(turn, repository, *registration),
        Command::ChangeRepository { repository, change } => registry::change(turn, repository, change),
        Command::RemoveRepository { repository } => registry::remove(turn, repository),
        Command::RequestCycle { repository, key, options } => request::ask(turn, repository, key, options),
        Command::DropRequest { repository, key, failure } => request::give_up(turn, repository, key, failure),
        Command::PauseCycle { cycle } => turn.with_cycle(cycle, cycle::pause),
        Command::UnpauseCycle { cycle } => turn.with_cycle(cycle, cycle::unpause),
        Command::RecordReport { repository, cycle, report } => request::report(turn, repository, cycle, report),
        Command::RecordLook { repository, own, margins } => registry::look(turn, repository, own, margins),
        Command::RecordProbe { repository, probe } => registry::probed(turn, repository, *probe),
        Command::RecordVerification { repository, verification } => registry::verified(turn, repository, verification),
        Command::CreateToken { grant } => token::create(turn, *grant),
        Command::RevokeToken { name } => token::revoke(turn, &name),
        Command::AdmitNode { node, key, replaces } => members::admit(turn, node, key, replaces),
        Command::DismissNode { node } => members::dismiss(turn, node),
        Command::MoveNode { node, address } => members::relocate(turn, node, address),
        Command::RecoverCluster(recovery) => members::recover(turn, *recovery),
        Command::NoteWrite { repository, term, version } => notes::write(turn, repository, term, version),
        Command::NoteSession { repository, term, session } => notes::session(turn, repository, term, session),
        Command::SeeWorker { worker, info } => workers::see(turn, worker, *info),
        Command::ForgetWorker { worker, instance } => workers::forget(turn, worker, instance),
        Command::DrainWorker { worker, drain } => workers::drain(turn, worker, drain),
        Command::NoteWorkKey { node, key } => workers::note_key(turn, node, key),
        Command::IdentifyStore { repository, store } => others::identify(turn, repository, store),
        Command::NoteLease { repository, lease } => others::lease(turn, repository, *lease),
        word @ (Command::NoteUnable { .. } | Command::NoteShutOut { .. }) => others::left(turn, word),
        Command::RaiseLevel { level } => always(members::raise_level, turn, level),
    }
}

/// What is never refused.
fn always<'a, T>(act: impl FnOnce(&mut Turn<'a>, T), turn: &mut Turn<'a>, of: T) -> Result<(), Refusal> {
    act(turn, of);
    Ok(())
}

/// Who drives a repository does what nobody else may.
fn by_its_driver(turn: &mut Turn<'_>, driven: Driven) -> Result<(), Refusal> {
    let Driven { driver, repository, command } = driven;
    driver::check(turn, &repository, driver)?;
    match command {
        Command::ClaimJob { ticket } => turn.with_cycle(ticket.cycle, |turn, c| offer::claim(turn, c, ticket))?,
        command => dispatch(turn, command)?,
    }
    driver::heard(turn, &repository);
    Ok(())
}

impl Turn<'_> {
    /// Gives the open cycle to `act`, and keeps it unless it was closed.
    pub(crate) fn with_cycle(
        &mut self,
        id: verger_proto::CycleId,
        act: impl FnOnce(&mut Self, &mut Cycle) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut cycle = self.state.cycles.remove(&id).ok_or(Refusal::UnknownCycle)?;
        let result = act(self, &mut cycle);
        let still_open = self.state.repositories.get(&cycle.repository).is_some_and(|r| r.open == Some(id));
        if still_open {
            self.state.cycles.insert(id, cycle);
        }
        result
    }

    /// As [`Self::with_cycle`], for what a worker brings back: what is stale is fenced, what came before is known.
    fn result(
        &mut self,
        ticket: Ticket,
        act: impl FnOnce(&mut Self, &mut Cycle, Ticket) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let fenced = match self.state.cycles.get(&ticket.cycle) {
            None => Err(Refusal::UnknownCycle),
            Some(cycle) if refuse::is_repeated(cycle, &ticket) => {
                self.events.push(Event::ResultRepeated { ticket });
                return Ok(());
            }
            Some(cycle) => refuse::fence(cycle, &ticket),
        };
        if let Err(reason) = fenced {
            self.events.push(Event::ResultFenced { ticket, reason });
            return Ok(());
        }
        self.with_cycle(ticket.cycle, |turn, cycle| act(turn, cycle, ticket))
    }
}
