//! Numbers of coordinators: each is given once, to one data folder, whatever becomes of it.

use verger_proto::{Event, Refusal};

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

#[cfg(test)]
mod tests {
    use verger_proto::{Command, LogTime};

    use super::*;
    use crate::machine::{State, apply};

    fn admit(state: &mut State, node: u64, key: u128, replaces: Option<u64>) -> Result<usize, Refusal> {
        let (events, _) = apply(state, Command::AdmitNode { node, key, replaces }, LogTime(1));
        match events.first() {
            Some(Event::CommandRefused { reason, .. }) => Err(reason.clone()),
            _ => Ok(events.len()),
        }
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
