//! Numbers of coordinators: each is given once, to one data folder, whatever becomes of it.

use verger_proto::{Event, Recovery, Refusal};

use crate::lease;
use crate::machine::{Admitted, Turn};

pub(crate) fn admit(turn: &mut Turn<'_>, node: u64, key: u128, replaces: Option<u64>) -> Result<(), Refusal> {
    if let Some(known) = turn.state.nodes.get(&node) {
        // The answer was lost, and the same folder asks again.
        let is_same = *known == Admitted { key, replaces };
        return if is_same { Ok(()) } else { Err(Refusal::NodeUsed(node)) };
    }
    if let Some(old) = replaces.filter(|old| !turn.state.nodes.contains_key(old)) {
        return Err(Refusal::UnknownNode(old));
    }
    turn.state.nodes.insert(node, Admitted { key, replaces });
    turn.events.push(Event::NodeAdmitted { node, replaces });
    Ok(())
}

/// The members themselves change in raft, right after this: it is kept who wanted it, also if that change comes to nothing.
pub(crate) fn dismiss(turn: &mut Turn<'_>, node: u64) -> Result<(), Refusal> {
    turn.events.push(Event::NodeDismissed { node });
    Ok(())
}

/// As [`dismiss`].
pub(crate) fn relocate(turn: &mut Turn<'_>, node: u64, address: String) -> Result<(), Refusal> {
    turn.events.push(Event::NodeMoved { node, address });
    Ok(())
}

/// It never goes down, and what it is already is no event.
pub(crate) fn raise_level(turn: &mut Turn<'_>, level: u32) {
    let before = turn.state.level;
    if level > before {
        turn.state.level = level;
        turn.events.push(Event::LevelRaised { level, before });
    }
}

/// Nobody acts on under what the lost members agreed to: another one that is left may believe that it still does. Each lease is taken
/// anew, with the waiting that this takes (R4), and open cycles are looked at with fresh eyes.
pub(crate) fn recover(turn: &mut Turn<'_>, recovery: Recovery) -> Result<(), Refusal> {
    let leases = turn.state.repositories.iter().filter_map(|(id, entry)| Some((id.clone(), entry.lease?.term)));
    let leases: Vec<_> = leases.collect();
    let Recovery { node, cluster, voted, last_index, last_term } = recovery;
    turn.events.push(Event::ClusterRecovered { node, cluster, voted, last_index, last_term });
    let reason = "the cluster was made anew of one of its coordinators";
    leases.into_iter().try_for_each(|(repository, term)| lease::lose(turn, repository, term, reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use verger_proto::{Command, LogTime, Stage};

    use super::*;
    use crate::machine::{State, apply};
    use crate::testing::{Rig, batch, repository};

    fn admit(state: &mut State, node: u64, key: u128, replaces: Option<u64>) -> Result<usize, Refusal> {
        let (events, _) = apply(state, Command::AdmitNode { node, key, replaces }, LogTime(1));
        match events.first() {
            Some(Event::CommandRefused { reason, .. }) => Err(reason.clone()),
            _ => Ok(events.len()),
        }
    }

    #[test]
    fn what_is_wanted_of_members_is_kept_before_it_happens() {
        let mut state = State::default();
        let mut told = |command| apply(&mut state, command, LogTime(1)).0;
        assert_eq!(told(Command::DismissNode { node: 2 }), [Event::NodeDismissed { node: 2 }]);
        let address = "d.example:7421".to_owned();
        let moved = told(Command::MoveNode { node: 2, address: address.clone() });
        assert_eq!(moved, [Event::NodeMoved { node: 2, address }]);
    }

    #[test]
    fn a_level_rises_once_and_never_goes_down() {
        let mut state = State::default();
        let mut raise = |level| apply(&mut state, Command::RaiseLevel { level }, LogTime(1)).0;
        assert_eq!(raise(2), [Event::LevelRaised { level: 2, before: 0 }]);
        assert_eq!((raise(2), raise(1)), (Vec::new(), Vec::new()), "asked again, and late");
        assert_eq!(raise(7), [Event::LevelRaised { level: 7, before: 2 }]);
        assert_eq!(state.level, 7);
    }

    #[test]
    fn after_a_recovery_nobody_acts_under_an_old_lease() {
        let mut rig = Rig::at_stage(Stage::Delete);
        let ticket = rig.claim();
        let request = rig.request(batch(Stage::Delete, 0, 0, 1));
        let (cluster, voted) = ("attic-0a1b2c3d+1".to_owned(), vec![1, 2, 3]);
        let recovery = Recovery { node: 1, cluster, voted, last_index: 9, last_term: 4 };
        let (events, _) = rig.go(Command::RecoverCluster(Box::new(recovery)));
        assert!(
            matches!(
                &events[..],
                [Event::ClusterRecovered { .. }, Event::LeaseLost { .. }, Event::CycleParked { .. }, ..]
            ),
            "{events:?}"
        );
        let (events, _) = rig.go(Command::ApproveBatch { ticket, request });
        assert!(matches!(&events[..], [Event::CommandRefused { .. }]), "{events:?}");
        assert_eq!(rig.state.repositories[&repository()].lease, None);
        let old = rig.take_lease(1);
        let stale = Refusal::StaleTerm { given: verger_proto::Term(1), current: verger_proto::Term(1) };
        assert!(matches!(&old[..], [Event::CommandRefused { reason, .. }] if *reason == stale), "{old:?}");
        assert!(matches!(&rig.take_lease(2)[..], [Event::LeaseTaken { .. }]));
    }

    #[test]
    fn a_number_is_given_once_to_one_folder() {
        let mut state = State::default();
        assert_eq!(admit(&mut state, 1, 11, None), Ok(1));
        assert_eq!(admit(&mut state, 1, 11, None), Ok(0), "the same folder again");
        assert_eq!(admit(&mut state, 1, 12, None), Err(Refusal::NodeUsed(1)), "its disk was lost");
        assert_eq!(admit(&mut state, 4, 14, Some(9)), Err(Refusal::UnknownNode(9)));
        assert_eq!(admit(&mut state, 4, 14, Some(1)), Ok(1));
        assert_eq!(admit(&mut state, 1, 15, Some(4)), Err(Refusal::NodeUsed(1)), "it was replaced, and stays known");
    }
}
