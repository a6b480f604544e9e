//! A plan is sealed, or refused: if it does not hold together, or if it needs a person's word (S5).

use verger_kopia::mutant::{self, Mutant};
use verger_proto::event::CycleEnd;
use verger_proto::{Event, Failure, FailureKind, PlanDigest, PlanHeader, Refusal, Stage};

use crate::cycle;
use crate::machine::{Cycle, Phase, Sealed, Turn};

/// Up to so many percent of the packed bytes may go without a word.
pub(crate) const ALLOWED_PERCENT: u8 = 50;

/// The check found the plan sound: seal it, ask for a word, or end.
pub(crate) fn after_check(turn: &mut Turn<'_>, cycle: &mut Cycle) {
    let Some((digest, header)) = cycle.proposed.clone() else {
        return end(turn, cycle, None, Refusal::NoPlan);
    };
    let allowed = cycle.options.allow_removing.unwrap_or(ALLOWED_PERCENT);
    let verdict = holds_together(cycle, &header);
    let refusal = verdict.clone().and_then(|()| within(&header, allowed)).err();
    if cycle.options.dry_run {
        let header = Box::new(header);
        turn.events.push(Event::PlanChecked { cycle: cycle.id, plan: digest, header, refusal });
        return cycle::close(turn, cycle, CycleEnd::Planned);
    }
    match (verdict, refusal) {
        (Err(reason), _) => end(turn, cycle, Some(digest), reason),
        (Ok(()), Some(reason)) => {
            cycle.phase = Phase::WaitingForWord;
            turn.events.push(Event::PlanRefused { cycle: cycle.id, plan: Some(digest), reason });
        }
        (Ok(()), None) => seal(turn, cycle, digest, header, allowed),
    }
}

/// A person's word for this very plan.
pub(crate) fn with_a_word(
    turn: &mut Turn<'_>,
    cycle: &mut Cycle,
    plan: PlanDigest,
    allowed: u8,
) -> Result<(), Refusal> {
    if allowed > 100 {
        return Err(Refusal::Percentage(allowed));
    }
    if cycle.phase != Phase::WaitingForWord {
        return Err(if cycle.sealed.is_some() { Refusal::AlreadySealed } else { Refusal::NotChecked });
    }
    let (digest, header) = cycle.proposed.clone().filter(|(digest, _)| *digest == plan).ok_or(Refusal::OtherPlan)?;
    within(&header, allowed)?;
    cycle.phase = Phase::Running;
    seal(turn, cycle, digest, header, allowed);
    Ok(())
}

fn seal(turn: &mut Turn<'_>, cycle: &mut Cycle, digest: PlanDigest, header: PlanHeader, allowed_percent: u8) {
    let sealed = Box::new(header.clone());
    turn.events.push(Event::PlanSealed { cycle: cycle.id, plan: digest, header: sealed, allowed_percent });
    cycle.sealed = Some(Sealed { digest, header });
    cycle::go_on(turn, cycle);
}

fn end(turn: &mut Turn<'_>, cycle: &mut Cycle, plan: Option<PlanDigest>, reason: Refusal) {
    let text = reason.to_string();
    turn.events.push(Event::PlanRefused { cycle: cycle.id, plan, reason });
    let failure = Failure { kind: FailureKind::PlanRefused, text, retryable: false };
    cycle::close(turn, cycle, CycleEnd::Failed(failure));
}

/// No word helps a plan that fails here.
fn holds_together(cycle: &Cycle, header: &PlanHeader) -> Result<(), Refusal> {
    let incoherent = |text: &str| Err(Refusal::Incoherent(text.to_owned()));
    if header.repository != cycle.repository {
        return Err(Refusal::OtherRepository);
    }
    if header.term != cycle.term {
        return Err(Refusal::StaleTerm { given: header.term, current: cycle.term });
    }
    if header.mode != cycle.options.mode {
        return Err(Refusal::OtherMode);
    }
    let view = cycle.view.map(|(view, _)| view);
    if view != Some(header.view) || header.body.view != header.view.digest {
        return Err(Refusal::OtherView);
    }
    if !header.stages.is_sorted_by(|a, b| a.stage < b.stage) {
        return incoherent("its stages are not in order, each once");
    }
    if header.stages.iter().any(|work| work.stage <= Stage::Check || !work.stage.is_in(header.mode)) {
        return incoherent("it has a stage that cannot be planned");
    }
    if header.live_contents > header.contents {
        return incoherent("it leaves more contents than there are");
    }
    if header.removed_bytes > header.total_packed_bytes {
        return incoherent("it removes more bytes than there are");
    }
    let items = |stage| header.work(stage).map_or(0, |work| work.items);
    if items(Stage::Publish) > 0 && header.work(Stage::Rewrite).is_none() {
        return incoherent("it publishes what it does not rewrite");
    }
    Ok(())
}

/// S5: at most so many percent, and never everything without the word "100".
fn within(header: &PlanHeader, allowed: u8) -> Result<(), Refusal> {
    let is_told = allowed == 100 || mutant::on(Mutant::S5AllWithoutAWord);
    if header.live_contents == 0 && header.contents > 0 && !is_told {
        return Err(Refusal::NothingLive);
    }
    let (removed, total) = (header.removed_bytes, header.total_packed_bytes);
    let is_much = u128::from(removed) * 100 > u128::from(total) * u128::from(allowed);
    if is_much && !mutant::on(Mutant::S5MuchWithoutAWord) {
        return Err(Refusal::RemovesTooMuch { removed, total, allowed });
    }
    Ok(())
}
