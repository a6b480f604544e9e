//! Workers that said that they are there. Nothing rests on it but what people see of them, and whom they tell to take nothing new: who
//! has which job is said by claims alone.

use verger_proto::work_queue::PublicKey;
use verger_proto::work_queue::signing::KEYS_MAX;
use verger_proto::{Event, LogTime, Refusal, WorkerId, WorkerInfo};

use crate::machine::{Turn, Worker};

/// A sign of life is kept when it makes so much difference, in milliseconds.
pub const KEPT_MILLISECONDS: u64 = 60_000;
/// A process that was not heard of for so long, in milliseconds, is not there any more, and does not keep its name from another.
pub(crate) const SILENCE_MILLISECONDS: u64 = 90_000;
/// Who was not heard of for so long is forgotten.
const FORGOTTEN_MILLISECONDS: u64 = 7 * 24 * 3_600_000;
/// Workers that are kept.
const WORKERS_MAX: usize = 4096;

pub(crate) fn see(turn: &mut Turn<'_>, worker: WorkerId, info: WorkerInfo) -> Result<(), Refusal> {
    info.check().map_err(Refusal::Worker)?;
    let at = turn.at;
    let known = turn.state.workers.get(&worker);
    let is_other = known.is_some_and(|known| known.info.instance != info.instance);
    if let Some(known) = known {
        let is_older = (info.started, info.instance) < (known.info.started, known.info.instance);
        if is_other && is_older && at.since(known.seen) < SILENCE_MILLISECONDS {
            return Err(Refusal::WorkerNameTaken);
        }
        if known.info == info && at.since(known.seen) < KEPT_MILLISECONDS {
            return Ok(());
        }
    } else {
        let gone = |seen: LogTime| at.since(seen) > FORGOTTEN_MILLISECONDS;
        turn.state.workers.retain(|_, known| !gone(known.seen));
        if turn.state.workers.len() >= WORKERS_MAX {
            return Err(Refusal::Worker(format!("there are {WORKERS_MAX} workers already")));
        }
    }
    if is_other {
        crate::others::renewed(turn.state, &worker);
    }
    let drained = turn.state.workers.get(&worker).is_some_and(|known| known.drained);
    let entry = Worker { info: info.clone(), seen: at, drained };
    turn.state.workers.insert(worker.clone(), entry);
    turn.events.push(Event::WorkerSeen { worker, info: Box::new(info) });
    Ok(())
}

/// A process that is not the one of that name any more leaves nothing.
pub(crate) fn forget(turn: &mut Turn<'_>, worker: WorkerId, instance: u64) -> Result<(), Refusal> {
    if turn.state.workers.get(&worker).is_some_and(|known| known.info.instance == instance) {
        turn.state.workers.remove(&worker);
        turn.events.push(Event::WorkerLeft { worker });
    }
    Ok(())
}

pub(crate) fn drain(turn: &mut Turn<'_>, worker: WorkerId, drain: bool) -> Result<(), Refusal> {
    let known = turn.state.workers.get_mut(&worker).ok_or(Refusal::UnknownWorker)?;
    if known.drained != drain {
        known.drained = drain;
        turn.events.push(Event::WorkerDrained { worker, drain });
    }
    Ok(())
}

/// The public key of a coordinator, for workers. Of a number that never was a member's in a cluster, nobody keeps one.
pub(crate) fn note_key(turn: &mut Turn<'_>, node: u64, key: PublicKey) -> Result<(), Refusal> {
    let is_member = turn.state.nodes.is_empty() || turn.state.nodes.contains_key(&node);
    let is_full = turn.state.work_keys.len() >= KEYS_MAX && !turn.state.work_keys.contains_key(&node);
    if !is_member || is_full {
        return Err(Refusal::UnknownNode(node));
    }
    if turn.state.work_keys.insert(node, key) != Some(key) {
        turn.events.push(Event::WorkKeyNoted { node, key });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use verger_proto::Command;

    use super::*;
    use crate::machine::{State, apply};

    fn info(instance: u64, started: u64) -> WorkerInfo {
        WorkerInfo {
            instance,
            started: LogTime(started),
            version: "0.1.0".to_owned(),
            pools: vec!["default".to_owned()],
            labels: BTreeMap::new(),
            places: 1,
            exchange: None,
        }
    }

    fn name() -> WorkerId {
        WorkerId::new("cellar").unwrap()
    }

    fn see(state: &mut State, info: WorkerInfo, at: u64) -> Vec<Event> {
        apply(state, Command::SeeWorker { worker: name(), info: Box::new(info) }, LogTime(at)).0
    }

    fn refusal(events: &[Event]) -> Option<Refusal> {
        crate::drive::refusal(events)
    }

    #[test]
    fn signs_of_life_are_kept_once_a_minute_and_changes_at_once() {
        let mut state = State::default();
        assert_eq!(see(&mut state, info(1, 5), 10).len(), 1);
        assert!(see(&mut state, info(1, 5), 10 + KEPT_MILLISECONDS - 1).is_empty());
        assert_eq!(state.workers[&name()].seen, LogTime(10));
        assert_eq!(see(&mut state, info(1, 5), 10 + KEPT_MILLISECONDS).len(), 1);
        let more = WorkerInfo { places: 2, ..info(1, 5) };
        assert_eq!(see(&mut state, more, 11 + KEPT_MILLISECONDS).len(), 1);
        let bad = WorkerInfo { pools: Vec::new(), ..info(1, 5) };
        assert!(matches!(refusal(&see(&mut state, bad, 12 + KEPT_MILLISECONDS)), Some(Refusal::Worker(_))));
    }

    #[test]
    fn of_two_processes_with_one_name_the_later_one_has_it() {
        let mut state = State::default();
        see(&mut state, info(1, 5), 10);
        assert_eq!(see(&mut state, info(2, 9), 20).len(), 1, "a restart, or a mistake: the newer one is it");
        assert_eq!(refusal(&see(&mut state, info(1, 5), 30)), Some(Refusal::WorkerNameTaken));
        assert_eq!(state.workers[&name()].info.instance, 2);
        let later = 20 + SILENCE_MILLISECONDS;
        assert_eq!(refusal(&see(&mut state, info(1, 5), later)), None, "the newer one is long silent");
    }

    #[test]
    fn draining_outlasts_a_restart_and_ends_with_a_word_or_with_the_worker() {
        let mut state = State::default();
        let drain = |drain| Command::DrainWorker { worker: name(), drain };
        assert_eq!(refusal(&apply(&mut state, drain(true), LogTime(1)).0), Some(Refusal::UnknownWorker));
        see(&mut state, info(1, 5), 10);
        assert_eq!(apply(&mut state, drain(true), LogTime(11)).0.len(), 1);
        assert!(apply(&mut state, drain(true), LogTime(12)).0.is_empty(), "asked again");
        see(&mut state, info(2, 9), 20);
        assert!(state.workers[&name()].drained);
        let forget = |instance| Command::ForgetWorker { worker: name(), instance };
        assert!(apply(&mut state, forget(1), LogTime(21)).0.is_empty(), "the one before has nothing to say");
        assert_eq!(apply(&mut state, drain(false), LogTime(22)).0.len(), 1);
        assert_eq!(apply(&mut state, forget(2), LogTime(23)).0.len(), 1);
        assert!(state.workers.is_empty());
    }

    #[test]
    fn who_is_silent_for_a_week_is_forgotten() {
        let mut state = State::default();
        see(&mut state, info(1, 5), 10);
        let other = Command::SeeWorker { worker: WorkerId::new("attic").unwrap(), info: Box::new(info(3, 6)) };
        apply(&mut state, other, LogTime(11 + FORGOTTEN_MILLISECONDS));
        assert_eq!(state.workers.len(), 1);
    }
}
